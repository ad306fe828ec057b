"""Writes an export: the folder appears under its name when it is complete, or not at all."""

import contextlib
import dataclasses
import importlib.metadata
import json
import secrets
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from safetensors.numpy import save

import mskjax
from mskjax import applied, profile, workdir
from mskjax.config import DataConfig, StudyConfig
from mskjax.errors import UserError
from mskjax.portable import example, programs
from mskjax.portable.card import RESEARCH, card
from mskjax.portable.reading import FORMAT, MODEL, sha256
from mskjax.progress import Progress
from mskjax.training.checkpoints import restore_variables
from mskjax.two_stage.system import System
from mskjax.writers import write_bytes, write_json, write_text

CALIBRATION = "calibration.json"  # of the whole run, where it has one
RANGES = "training_ranges.json"
_COUNTS = ("patients", "studies", "cases")
_ENDING = "safetensors"
# Of the records of a run, what an export is made from.
_TOLD = ("name", "config", "version", "kind", "licence", "citation", "fingerprint", *_COUNTS)
_NEEDED = {
    "report/report.json": (
        *("title", "primary", "protocol", "stages", "end_to_end", "oracle_region"),
        *("rules", "limits"),
    ),
    "cohort.json": (*_TOLD, "excluded"),
    "environment.json": ("packages",),
}


@dataclasses.dataclass(frozen=True)
class Run:
    """What a finished run says of itself.

    Attributes:
      folder: of the run.
      config: resolved.
      numbers: of the folds that are exported; None is all.
      folds: folders of the trained models that are exported.
      systems: of each.
      report: report.json.
      audit: cohort.json.
      environment: environment.json.
    """

    folder: Path
    config: StudyConfig
    numbers: Sequence[int] | None
    folds: Sequence[Path]
    systems: Sequence[System]
    report: Mapping[str, Any]
    audit: Mapping[str, Any]
    environment: Mapping[str, Any]

    def name(self, fold: Path) -> str:
        """Of a fold, e.g. ``fold_0`` or ``seed_1/fold_0``."""
        return fold.relative_to(self.folder).as_posix()


def write(folder: Path, output: Path, folds: Sequence[int] | None = None) -> None:
    """Writes a finished run as programs, weights, data and card (docs/export.md).

    Args:
      folder: ``--workdir`` of the command that trained the run.
      output: folder to make.
      folds: numbers; None gives all.

    Raises:
      UserError: the run is not finished, or of another version, or `output` is there already;
        nothing is then written.
    """
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise UserError(f"--output: {output} exists and is not empty; give a new folder.")
    if output.resolve().is_relative_to(folder.resolve()):
        raise UserError(f"--output: {output} is inside the run; give a folder beside it.")
    run = finished(folder, folds)
    made = {
        stage.name: (stage, programs.make(stage, _weights(run.folds[0], stage.name)))
        for stage in run.systems[0].stages
    }
    with whole(output) as place:
        stages = []
        for name, (stage, program) in made.items():
            path = f"programs/{name}.jax_export"
            write_bytes(place / path, program.content)
            batch = stage.prediction_batch
            stages.append({"name": name, "program": path, "batch": batch, **program.facts})
        entries = list(_folds(run, place))
        model = _model(run, stages, entries)
        _surroundings(run, model, place)
        files = (p for p in sorted(place.rglob("*")) if p.is_file())
        hashes = {p.relative_to(place).as_posix(): sha256(p) for p in files}
        write_json(place / MODEL, {**model, "files": hashes})


def finished(folder: Path, folds: Sequence[int] | None = None) -> Run:
    """The record of a run, once it is known to be finished and of this version.

    Args:
      folder: of the run.
      folds: numbers; None gives all.

    Raises:
      UserError: it is not.
    """
    if not folder.is_dir():
        raise UserError(f"--run: {folder} is not a folder; give the --workdir of a run.")
    try:
        config = workdir.config_of(folder)
    except (UserError, ValueError) as error:  # ValueError: it is no JSON
        raise UserError(f"--run: {folder} is no run of this version of mskjax: {error}") from None
    if members := config.population.members:
        one = folder / f"member_{next(iter(members))}"
        raise UserError(f"--run: {folder} has several recipes; give one of them, e.g. --run={one}.")
    if not workdir.is_finished(folder, config):
        raise UserError(
            f"--run: {folder} is not finished: it has no report; run its mskjax main command again,"
            " which goes on, and export it then."
        )
    chosen = applied.folders(folder, folds)
    systems = []
    for fold in chosen:
        system = applied.build(fold / applied.SYSTEM, config, applied.read_system(fold))
        applied.check_trained(fold, system)
        systems.append(system)
    report, audit, environment = (_record(folder, *named) for named in _NEEDED.items())
    return Run(folder, config, folds, chosen, systems, report, audit, environment)


def shared(config: StudyConfig) -> dict[str, Any]:
    """The config as JSON without folders of this machine, which may name people."""
    plain = DataConfig("", "")
    here = {name: getattr(plain, name) for name in ("data_dir", "manual_dir", "splits")}
    moved = dataclasses.replace(config, data=dataclasses.replace(config.data, **here))

    def without_folders(value: Any) -> Any:
        if isinstance(value, Mapping):
            return {k: without_folders(v) for k, v in value.items()}
        if isinstance(value, (list, tuple)):
            return [without_folders(v) for v in value]
        if isinstance(value, (str, Path)) and Path(value).is_absolute():
            return Path(value).name
        return value

    return without_folders(dataclasses.asdict(moved))


@contextlib.contextmanager
def whole(output: Path) -> Iterator[Path]:
    """A folder beside `output` that takes its name when the block ends well, and else is gone.

    Folders above it that are missing are made, and are then gone too.
    """
    output = output.absolute()
    missing = [parent for parent in output.parents if not parent.exists()]
    output.parent.mkdir(parents=True, exist_ok=True)
    place = output.with_name(f".{output.name}-{secrets.token_hex(4)}.tmp")
    place.mkdir()
    try:
        yield place
        if output.exists():
            output.rmdir()  # which succeeds where it is still empty
        place.rename(output)
    except BaseException:
        shutil.rmtree(place, ignore_errors=True)
        for parent in missing:  # innermost first
            parent.rmdir()
        raise


def _folds(run: Run, place: Path) -> Iterator[dict[str, Any]]:
    """Writes system.json and weights of each fold; gives their entries of model.json."""
    kind = "real" if run.audit["kind"] == "real" else "PHANTOM"
    note = {"derived_from": f"{run.audit['name']} ({kind})", "licence": run.audit["licence"]}
    progress = Progress("export", len(run.folds))
    for fold, system in zip(run.folds, run.systems, strict=True):
        name = run.name(fold)
        weights = {s.name: f"{name}/{s.name}.{_ENDING}" for s in system.stages}
        for stage, path in weights.items():
            about = {"system": system.name, "fold": name, "stage": stage, **note}
            write_bytes(place / path, save(_weights(fold, stage), metadata=about))
        write_bytes(place / name / applied.SYSTEM, (fold / applied.SYSTEM).read_bytes())
        yield {"name": name, "system": f"{name}/{applied.SYSTEM}", "weights": weights}
        progress.advance()
    progress.close()


def _model(run: Run, stages: Sequence[Any], folds: Sequence[Any]) -> dict[str, Any]:
    """model.json but for the hashes of files."""
    audit, packages = run.audit, ("mskjax", "jax", "jaxlib")
    return {
        "format": FORMAT,
        "use": RESEARCH,
        "title": run.report["title"],
        **run.systems[0].meaning(),
        "stages": stages,
        "folds": folds,
        "config": shared(run.config),
        "cohort": {name: audit[name] for name in _TOLD},
        "versions": {name: importlib.metadata.version(name) for name in packages},
        "trained_with": run.environment,
    }


def _surroundings(run: Run, model: Mapping[str, Any], place: Path) -> None:
    """Card, licence, labels, example, and what else the run has beside its folds."""
    write_text(place / "MODEL_CARD.md", card(run.report, run.audit, model))
    write_text(place / "LICENSE", _licence())
    write_json(place / "labels.json", {"0": "background", **model["labels"]})
    write_bytes(place / "example.py", Path(example.__file__).read_bytes())
    # The rows themselves name patients.
    if rows := profile.read(run.folder, run.numbers):
        ranges = {name: own._asdict() for name, own in profile.ranges(rows).items()}
        write_json(place / RANGES, ranges)
    if (run.folder / CALIBRATION).exists():
        write_bytes(place / CALIBRATION, (run.folder / CALIBRATION).read_bytes())


def _weights(fold: Path, stage: str) -> dict[str, Any]:
    return programs.flat(restore_variables(fold / stage))


def _licence() -> str:
    """The project's own, from what is installed or from the checkout."""
    found = importlib.metadata.distribution("mskjax").read_text("licenses/LICENSE")
    return found or (Path(mskjax.__file__).parents[1] / "LICENSE").read_text()


def _record(folder: Path, name: str, needed: Sequence[str]) -> dict[str, Any]:
    """A record of a run, once it is known to have what is needed of it."""
    path = folder / name
    try:
        content = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read ({error}); export a copy of the run.") from None
    if missing := [key for key in needed if key not in content]:
        raise UserError(
            f"{path} lacks {', '.join(missing)}: it is of an older version of mskjax; write it"
            f" again with: mskjax report --runs {folder}, or export the run with its own version."
        )
    return content
