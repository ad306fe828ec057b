"""Peak memory and time of cutting, training and evaluation against the size of the cohort.

    python experiments/benchmarks/memory.py FOLDER 100 300 1000

Each cohort is of small generated spines, which repeat after `PACKAGED`; half of it is trained on,
the other half is read.  Training, evaluation and report have a process each.  Anonymous memory is
what a process needs; pages of memory-mapped files are the kernel's to take back at any time, and
stand beside it.  Takes about a quarter of a second a study on one core.
"""

import dataclasses
import json
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from unittest import mock

from mskjax import commands

commands.configure_runtime()

from mskjax import opening  # noqa: E402
from mskjax.data import shards  # noqa: E402
from mskjax.data.cohorts import Cohort, prepare_cohort  # noqa: E402
from mskjax.main import main  # noqa: E402

PACKAGED = 40
PARTS = ("cut", "train", "evaluate", "report")
COHORT = "disc_degeneration"
FIELDS = {
    "resamples": 100,
    "devices": 1,
    "stages.regions.spacing_mm": 2.5,
    "stages.regions.patch": "(64,48)",
    "stages.regions.model.widths": "(8,16)",
    "stages.regions.model.norm": "batch",
    "stages.regions.train.steps": 100,
    "stages.regions.train.batch_size": 8,
    "stages.regions.train.learning_rate": 0.02,
    "stages.grades.crop": "(3,8,16)",
    "stages.grades.model.width": 2,
    "stages.grades.model.norm": "batch",
    "stages.grades.model.blocks": "(1,1,1,1)",
    "stages.grades.train.steps": 100,
    "stages.grades.train.batch_size": 8,
}


@dataclasses.dataclass(frozen=True)
class Cost:
    """Of one part of a run.

    Attributes:
      seconds: that it took.
      anonymous_mb: peak of the memory that the process allocated.
      mapped_mb: peak of the pages of files in its memory.
    """

    seconds: float
    anonymous_mb: float
    mapped_mb: float


class Meter:
    """Samples the memory of this process, by the part that is running."""

    def __init__(self, part: str):
        self.part = part
        self.peaks: dict[str, dict[str, float]] = {}
        self.seconds: dict[str, float] = {}
        self._told, self._over = time.monotonic(), threading.Event()
        self._thread = threading.Thread(target=self._sample, daemon=True)
        self._thread.start()

    def turn(self, part: str) -> str:
        """Another part begins; the one before."""
        self._note()
        before, self.part = self.part, part
        return before

    def end(self) -> dict[str, Cost]:
        """The cost of each part."""
        self._note()
        self._over.set()
        self._thread.join()
        return {
            part: Cost(round(self.seconds[part], 2), peak["RssAnon:"], peak["RssFile:"])
            for part, peak in self.peaks.items()
        }

    def _note(self) -> None:
        now = time.monotonic()
        self.seconds[self.part] = self.seconds.get(self.part, 0.0) + now - self._told
        self._told = now

    def _sample(self) -> None:
        while not self._over.wait(0.02):
            words = Path("/proc/self/status").read_text().split()
            peak = self.peaks.setdefault(self.part, {"RssAnon:": 0.0, "RssFile:": 0.0})
            for name in peak:
                peak[name] = max(peak[name], int(words[words.index(name) + 1]) / 1024)


@dataclasses.dataclass(frozen=True)
class Repeated(Sequence):
    """The studies of a small cohort over and over, each time of other patients."""

    studies: Sequence[Mapping[str, Any]]
    names: Sequence[tuple[str, str]]

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, number: Any) -> Any:
        patient, study = self.names[number]
        own = self.studies[number % len(self.studies)]
        return {**own, "patient_id": patient, "study_id": study}


def enlarged(cohort: Cohort, studies: int) -> Cohort:
    """A cohort of as many studies, which repeat."""
    own, times = cohort.index, range(-(-studies // len(cohort.index)))
    index = [(f"{patient}-{t}", f"{study}-{t}") for t in times for patient, study in own][:studies]
    fingerprint = f"{cohort.audit['fingerprint']}-{studies}"
    return dataclasses.replace(
        cohort,
        audit={**cohort.audit, "index": index, "fingerprint": fingerprint, "images": {}},
        studies=Repeated(cohort.studies, index),
        outlines=Repeated(cohort.outlines, index),
        index=index,
    )


def measure(folder: Path, studies: int, **changes: Any) -> dict[str, Cost]:
    """The cost of each part of a run of a cohort of some size.

    Args:
      folder: gets ``data``, and ``run_<studies>``, which must not be there.
      studies: of the cohort.
      **changes: of `FIELDS`; ``__`` stands for a dot.
    """
    cohort = enlarged(opened(folder / "data"), studies)
    half = len(cohort.patients) // 2
    kept = max(half // 10, 1)
    trained, held_out = cohort.patients[:half], cohort.patients[half:]
    fold = {"train": trained[kept:], "validation": trained[:kept], "test": held_out}
    division = folder / f"division_{studies}.json"
    division.write_text(json.dumps({"folds": [fold]}))
    fields = FIELDS | {"data.options.patients": PACKAGED, "data.splits": division}
    fields |= {name.replace("__", "."): value for name, value in changes.items()}
    arguments = [
        f"--config={COHORT}",
        f"--workdir={folder / f'run_{studies}'}",
        f"--config.data.data_dir={folder / 'data'}",
        *(f"--config.{name}={value}" for name, value in fields.items()),
    ]
    costs: dict[str, Cost] = {}
    for part in PARTS[1:]:
        command = [sys.executable, str(Path(__file__)), "--of", part, str(studies), *arguments]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
        told = json.loads(done.stdout.splitlines()[-1])
        costs |= {name: Cost(**values) for name, values in told.items()}
    return {part: costs[part] for part in PARTS}


def opened(data: Path) -> Cohort:
    """The cohort that is repeated; packaged where it is missing."""
    return prepare_cohort(COHORT, "phantom", data, patients=PACKAGED)


def run_part(part: str, studies: int, arguments: Sequence[str]) -> dict[str, Cost]:
    """Runs one mode of ``mskjax.main`` in this process."""
    meter = Meter(part)
    make = shards.make

    def cutting(*args: Any, **kwargs: Any) -> Any:
        before = meter.turn("cut")
        try:
            return make(*args, **kwargs)
        finally:
            meter.turn(before)

    def large(*args: Any, **kwargs: Any) -> Cohort:
        return enlarged(prepare_cohort(*args, **kwargs), studies)

    with (
        mock.patch.object(shards, "make", cutting),
        mock.patch.object(opening, "prepare_cohort", large),
    ):
        if code := main([*arguments, f"--mode={part}"]):
            raise SystemExit(code)
    return meter.end()


def table(costs: dict[int, dict[str, Cost]]) -> str:
    """The costs of some cohorts as a table of Markdown."""
    lines = [
        "| studies | part | s | ms a study | anonymous MB | mapped MB |",
        "|---|---|---|---|---|---|",
    ]
    for studies, parts in costs.items():
        for part, cost in parts.items():
            cells = [studies, part, f"{cost.seconds:.1f}", f"{1e3 * cost.seconds / studies:.0f}"]
            cells += [f"{cost.anonymous_mb:.0f}", f"{cost.mapped_mb:.0f}"]
            lines.append(f"| {' | '.join(map(str, cells))} |")
    return "\n".join(lines)


if __name__ == "__main__":
    if sys.argv[1] == "--of":
        found = run_part(sys.argv[2], int(sys.argv[3]), sys.argv[4:])
        print(json.dumps({name: dataclasses.asdict(cost) for name, cost in found.items()}))
    else:
        where, *sizes = sys.argv[1:]
        print(table({int(n): measure(Path(where), int(n)) for n in sizes}))
