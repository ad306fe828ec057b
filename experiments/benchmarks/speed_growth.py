"""Part ``growth`` of `speed.py`: time and peak memory of every part against the number of studies.

* Packaging (`prepare_cohort`): Y-views of a user, 24 x 24 pixels with a mask each, which cost
  little but what every study costs.  In a child with one worker, so that all memory is seen.
* Cutting examples, training, evaluation and report: see `memory.py`, whose small spines repeat
  under other ids.  Training is 100 steps a stage whatever the cohort; it may not depend on it.

A row stands for the growth between neighbouring sizes: what linear growth from the first size
would take, by what it takes; above 1 is better than linear.  The exponent is the slope of log
time, or log memory, over log studies, over all sizes; ``last`` is that of the last two, where what
every run costs (start, compilation) hides least.  The bar is 1.1 for both.
"""

import argparse
import dataclasses
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import memory
import nibabel as nib
import numpy as np
from memory import Cost
from speed_rows import Row

from mskjax.data.cohorts import prepare_cohort
from mskjax.progress import say
from tfds_builders import crew

SIZES, QUICK_SIZES = (100, 1_000), (10, 40)
WHOLE = 10_000  # with --whole: half an hour and more
BAR = 1.1
FEW = {  # of the trainings, with --quick
    "stages__regions__train__steps": 5,
    "stages__regions__train__warmup_steps": 1,
    "stages__grades__train__steps": 5,
    "stages__grades__train__warmup_steps": 1,
}
COHORT = "fatty_infiltration"
PACKAGING = "packaging"
SIZE = 24
AFFINE = np.array([[-4.0, 0, 0, 8], [0, 0, -2.0, 20], [0, -2.0, 0, 30], [0, 0, 0, 1]])
COLUMNS = "patient_id,study_id,image,mask,grade"
QUANTITIES = {"time": "seconds", "memory": "anonymous_mb"}


def measure(flags: argparse.Namespace) -> list[Row]:
    """Rows of time and memory of each part.

    Args:
      flags: ``quick``, and ``whole`` for `WHOLE` studies too.
    """
    sizes = [*(QUICK_SIZES if flags.quick else SIZES), *([WHOLE] if flags.whole else [])]
    with tempfile.TemporaryDirectory(prefix="mskjax_speed_") as name:
        costs = {n: _costs(Path(name), n, FEW if flags.quick else {}) for n in sizes}
    return [*rows(costs)]


def rows(costs: Mapping[int, Mapping[str, Cost]]) -> Iterator[Row]:
    """A row for time and for memory of each part.

    Args:
      costs: studies -> part -> cost, of two sizes or more.
    """
    for part in next(iter(costs.values())):
        for what, field in QUANTITIES.items():
            found = {n: float(getattr(own[part], field)) for n, own in sorted(costs.items())}
            (first, start), *others = found.items()
            pairs = tuple((value, start * n / first) for n, value in others)
            slopes = f"exponent {exponent(found):.2f}, last {last_exponent(found):.2f}"
            size = f"{', '.join(map(str, found))} studies: {slopes}"
            say(f"{part}, {what}, {size}{'' if is_linear(found) else ': ABOVE THE BAR'}")
            yield Row("growth", part, what, size, "mskjax", "linear growth", pairs)


def exponent(found: Mapping[int, float]) -> float:
    """Slope of the logarithm of a cost over that of the number of studies, least squares.

    Args:
      found: studies -> cost, positive.
    """
    studies, cost = np.log(list(found)), np.log(list(found.values()))
    return float(np.polyfit(studies, cost, 1)[0])


def last_exponent(found: Mapping[int, float]) -> float:
    """`exponent` of the two greatest sizes."""
    return exponent(dict(sorted(found.items())[-2:]))


def is_linear(found: Mapping[int, float]) -> bool:
    """Whether a cost grows no faster than the bar allows."""
    return max(exponent(found), last_exponent(found)) <= BAR


def write_raw(folder: Path, studies: int) -> None:
    """A user's Y-views: studies.csv, an image and a mask a study.

    Args:
      folder: is made.
      studies: of a patient each.
    """
    folder.mkdir(parents=True)
    lines = [COLUMNS]
    for number in range(studies):
        rng, name = np.random.default_rng(number), f"s{number:05d}"
        mask = np.zeros((1, SIZE, SIZE), np.uint8)
        mask[:, 4:14, 6:18] = 1
        image = rng.integers(40, 60, mask.shape, np.uint8) + np.uint8(100) * mask
        for end, values in (("", image), ("_fossa", mask)):
            nib.save(nib.Nifti1Image(values, AFFINE), folder / f"{name}{end}.nii")
        lines.append(f"p{number:05d},{name},{name}.nii,{name}_fossa.nii,{number % 5}")
    (folder / "studies.csv").write_text("\n".join(lines) + "\n")


def package(raw: Path, folder: Path) -> Cost:
    """Packages in this process, and what it costs."""
    meter = memory.Meter(PACKAGING)
    prepare_cohort(COHORT, "cohort", folder, raw)
    return meter.end()[PACKAGING]


def _costs(folder: Path, studies: int, changes: Mapping[str, int]) -> dict[str, Cost]:
    raw = folder / f"raw_{studies}"
    write_raw(raw, studies)
    command = [sys.executable, str(Path(__file__)), str(raw), str(folder / f"package_{studies}")]
    done = subprocess.run(
        command,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        env={**os.environ, crew.VARIABLE: "1", "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    own = Cost(**json.loads(done.stdout.splitlines()[-1]))
    return {PACKAGING: own, **memory.measure(folder, studies, **changes)}


def main(arguments: Sequence[str]) -> None:
    """The child: packages, and prints the cost as JSON."""
    raw, folder = map(Path, arguments)
    print(json.dumps(dataclasses.asdict(package(raw, folder))))


if __name__ == "__main__":
    main(sys.argv[1:])
