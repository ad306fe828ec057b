"""Reads new studies with a finished run and writes what was found, study by study."""

import contextlib
import dataclasses
import hashlib
import json
import shutil
import time
import traceback
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from mskjax import __version__, calibration, cases, ensemble, profile, quality, systems
from mskjax.config import to_json
from mskjax.data.cohorts import builder_class
from mskjax.description import Describer, statements
from mskjax.ensemble import Ensemble
from mskjax.errors import FileNote, SomeFailed, UserError
from mskjax.imaging.dicom_file import is_dicom
from mskjax.imaging.series import ImageFile, Series
from mskjax.inputs.pseudonyms import pseudonyms
from mskjax.inputs.studies import find_studies, write_names
from mskjax.inputs.study import NewStudy, Refused, scrub
from mskjax.progress import Progress, say
from mskjax.reporting.environment import environment
from mskjax.reporting.pictures import captioned
from mskjax.results.document import restored
from mskjax.results.result import DISCLAIMER, Result
from mskjax.results.study import RESULT, write_study
from mskjax.results.summary import write_summary
from mskjax.workdir import config_of
from mskjax.writers import write_json

SUMMARY, CALL = "summary.csv", "predict.json"
_FLAGS_SHOWN = 6  # on the picture
PHANTOM = (
    "PHANTOM: the networks were trained on generated images; what they say of a patient means"
    " nothing."
)


@dataclasses.dataclass(frozen=True)
class Wish:
    """What was asked for.

    Attributes:
      run: folder of the run.
      paths: of the studies.
      output: where results go.
      folds: of the run; None gives all.
      series, pixel_mm, slice_index: see `inputs.find_studies`.
      coverage: of the conformal sets, in (0, 1).
      keep_ids: whether names, ids and paths may be written.
      hash_uids: whether keyed hashes stand for the UIDs in DICOM files.
      mapping: file for the table that maps names back; None writes none.
    """

    run: Path
    paths: Sequence[Path]
    output: Path
    folds: Sequence[int] | None = None
    series: str | None = None
    pixel_mm: float | None = None
    slice_index: int | None = None
    coverage: float = calibration.COVERAGE
    keep_ids: bool = False
    hash_uids: bool = False
    mapping: Path | None = None


def run(wish: Wish) -> Path:
    """Reads the studies; one that cannot be read is told and the others go on.

    Returns:
      The table over all of them.

    Raises:
      UserError: the run, the input or the output is wrong, or no study can be read.
      SomeFailed: some of the studies could not be read.
    """
    config = config_of(wish.run)
    builder = builder_class(config.data.cohort)
    gradings = systems.load(config.system).build(config).gradings
    fitted = calibration.load(wish.run, gradings)  # refuses a run that was never evaluated
    names = None if wish.keep_ids else pseudonyms()
    found = find_studies(
        wish.paths,
        builder.wanted,
        series=wish.series,
        pixel_mm=wish.pixel_mm,
        slice_index=wish.slice_index,
        names=names,
    )
    together = ensemble.load(wish.run, wish.folds, config.devices)
    _claim(wish)
    describer = Describer(
        together.system,
        fitted,
        wish.coverage,
        profile.ranges(profile.read(wish.run)),
        quality.levels_seen(cases.read(wish.run / "cases.csv")),
    )
    if wish.mapping is not None:
        write_names(wish.mapping, [*found.studies, *found.refused])
    for sentence in found.notes:
        say(f"note: {sentence}")
    salt = (names or pseudonyms()).salt if wish.hash_uids else None
    reader = _Reader(wish, builder, together, describer, about(wish, together, fitted), salt)
    _read_all(wish, reader, found.studies, found.refused)
    return wish.output / SUMMARY


def _claim(wish: Wish) -> None:
    """Refuses a folder that holds something else; a call that was stopped goes on.

    Raises:
      UserError: it does.
    """
    own = {
        "config_sha256": hashlib.sha256(to_json(config_of(wish.run)).encode()).hexdigest(),
        "folds": None if wish.folds is None else list(wish.folds),
        "coverage": wish.coverage,
        "keep_ids": wish.keep_ids,
        "hash_uids": wish.hash_uids,
    }
    path = wish.output / CALL
    if path.exists():
        if json.loads(path.read_text()) != own:
            raise UserError(
                f"--output: {wish.output} holds results of another run or of other flags; give a"
                " new folder."
            )
    elif wish.output.exists() and (not wish.output.is_dir() or any(wish.output.iterdir())):
        raise UserError(f"--output: {wish.output} is not empty; give a new folder.")
    write_json(path, own)


def about(wish: Wish, together: Ensemble, fitted: calibration.Calibration) -> dict[str, Any]:
    """What a result says of the run it was made with."""
    audit = json.loads((wish.run / "cohort.json").read_text())
    machine = environment()
    return {
        "mskjax": __version__,
        "git_commit": machine["git_commit"],
        "backend": machine["backend"],
        "members": [member.name for member in together.members],
        "combined": "means of the members' outputs; detections by weighted boxes fusion",
        "calls": {grading.task: grading.rule for grading in together.system.gradings},
        "test_time_views": {stage.name: stage.views for stage in together.system.stages},
        "cohort": {k: audit[k] for k in ("name", "version", "kind", "fingerprint", "patients")},
        "calibration": statements(together.system, fitted, wish.coverage),
    }


@dataclasses.dataclass(frozen=True)
class _Reader:
    """Reads one study at a time."""

    wish: Wish
    builder: Any
    ensemble: Ensemble
    describer: Describer
    about: Mapping[str, Any]
    salt: bytes | None

    def read(self, new: NewStudy) -> Result:
        """The result of one study.

        Raises:
          UserError: its images cannot be read.
        """
        with _noting() as noted:
            images = new.read(self.builder.read_images)
        study = {**images.part, "patient_id": new.name, "study_id": new.name}
        (joint,) = self.ensemble.read_jointly([study])
        system, describer = self.ensemble.system, self.describer
        notes = [*new.remarks, *(scrub(n, new, self.wish.keep_ids) for n in noted)]
        lines = [DISCLAIMER]
        if self.about["cohort"]["kind"] == "phantom":
            notes.insert(0, PHANTOM)
            lines.append(PHANTOM)
        flags = describer.flags(study, joint)
        lines += [f"Flag: {flag.text}" for flag in flags[:_FLAGS_SHOWN]]
        if len(flags) > _FLAGS_SHOWN:
            lines.append(f"and {len(flags) - _FLAGS_SHOWN} more flags, see {RESULT}")
        picture = system.picture(study, joint.reading, None, False)
        return Result(
            study=new.name,
            system=system.name,
            title=system.title,
            run=self.about,
            series=new.chosen,
            regions=describer.regions(study, joint),
            masks=describer.masks(study, joint),
            flags=flags,
            volumes_ml=describer.volumes_ml(study, joint),
            notes=tuple(notes),
            picture=captioned(picture, lines),
            coverage=self.wish.coverage if system.gradings else None,
            sources={name: _dicom_files(file) for name, file in new.files.items()},
            frames={n: file.frames for n, file in new.files.items() if isinstance(file, Series)},
        )


def _read_all(
    wish: Wish,
    reader: _Reader,
    studies: Sequence[NewStudy],
    refused: Sequence[Refused],
) -> None:
    results: list[Result] = []
    noted: dict[str, None] = {}
    failed = {study.name: study.why for study in refused}
    for study in refused:
        say(f"{study.name}: {study.why}")
    progress = Progress("predict", len(studies))
    for new in studies:
        started = time.monotonic()
        folder = wish.output / new.name
        if (folder / RESULT).exists():  # of a call that was stopped
            results.append(restored(json.loads((folder / RESULT).read_text())))
            progress.advance()
            continue
        try:
            result = reader.read(new)
            notes = write_study(folder, result, keep_ids=wish.keep_ids, salt=reader.salt)
        except OSError:
            raise  # the disk, which the next study would need, too
        except Exception as error:
            failed[new.name] = _why(error, new, wish.keep_ids)
            say(f"{new.name}: {failed[new.name]}")
            shutil.rmtree(folder, ignore_errors=True)
        else:
            noted.update(dict.fromkeys(notes))
            results.append(result.without_images())
            _tell(result, time.monotonic() - started)
        progress.advance()
    progress.close()
    for note in noted:
        say(f"note: {note}")
    write_summary(wish.output / SUMMARY, results, failed)
    total = len(studies) + len(refused)
    say(f"{total - len(failed)} of {total} studies read: {wish.output / SUMMARY}")
    say(DISCLAIMER)
    if len(failed) == total:
        raise UserError("no study could be read; the reasons stand above and in summary.csv.")
    if failed:
        raise SomeFailed(f"{len(failed)} of {total} studies could not be read; see {SUMMARY}.")


def _why(error: Exception, new: NewStudy, keep_ids: bool) -> str:
    """Why a study was not read; a defect that it meets is told, so that the others go on."""
    said = scrub(str(error), new, keep_ids)
    if isinstance(error, UserError):
        return said
    frame = traceback.extract_tb(error.__traceback__)[-1]
    where = f"{Path(frame.filename).name}, line {frame.lineno}"
    return f"a defect of mskjax ({type(error).__name__} in {where}: {said}); please report it."


def _tell(result: Result, seconds: float) -> None:
    """One line on a study: its series, how many regions, flags."""
    chosen = "; ".join(f"{k}: {v}" for k, v in result.series.items())
    kinds = ", ".join(dict.fromkeys(flag.kind for flag in result.flags))
    regions = f", {len(result.regions)} region(s)" if result.regions else ""
    flags = f", look twice: {kinds}" if kinds else ""
    say(f"{result.study}: {chosen}{regions}{flags} ({seconds:.1f} s)")


@contextlib.contextmanager
def _noting() -> Iterator[list[str]]:
    """Collects `FileNote`s as sentences."""
    noted: list[str] = []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", FileNote)
        yield noted
    for warning in caught:
        if isinstance(warning.message, FileNote):
            noted.append(str(warning.message))
        else:
            warnings.warn_explicit(
                warning.message, warning.category, warning.filename, warning.lineno
            )


def _dicom_files(file: ImageFile) -> tuple[Path, ...]:
    """The files of a DICOM series; none of another format."""
    if isinstance(file, Series):
        return file.files
    files = sorted(p for p in file.rglob("*") if p.is_file()) if file.is_dir() else [file]
    return tuple(p for p in files if is_dicom(p))
