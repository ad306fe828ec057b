"""The journey of a study: cohort -> folds -> stages -> end-to-end evaluation -> report.

Everything a study leaves lies in its workdir (docs/architecture.md lists the files).  Each part is
skipped when its result is there, so running a study again resumes it, and running a finished one
says so.
"""

import dataclasses
import functools
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jax.sharding import Mesh

from mskjax import applied, cases, preemption, roles, systems, tables
from mskjax import workdir as workdirs
from mskjax.applied import STUDIES_AT_ONCE, Applied
from mskjax.config import MODES, StudyConfig
from mskjax.data import folds, splits
from mskjax.data.cohorts import Cohort, prepare_cohort, with_shuffled
from mskjax.data.examples import FOLDER, Prepared, key_of, prepare, rows_of
from mskjax.errors import UserError
from mskjax.evaluation import validate
from mskjax.progress import Progress, say
from mskjax.reporting.environment import environment
from mskjax.reporting.summary import write_report
from mskjax.tables import Row
from mskjax.training.checkpoints import is_trained
from mskjax.training.loop import fit
from mskjax.training.member import Job
from mskjax.training.mesh import data_mesh
from mskjax.training.program import Program
from mskjax.training.stage import Stage, Study
from mskjax.two_stage.system import System
from mskjax.writers import write_bytes, write_json

CASES = {"test": "cases.csv", "validation": "validation_cases.csv"}  # rows of a part of a fold


def run(config: StudyConfig, workdir: Path, modes: Sequence[str] = MODES) -> None:
    """Runs, resumes or finds finished a study.

    Args:
      config: the resolved config.
      workdir: folder of this study alone.
      modes: any of `MODES`; ``evaluate`` needs trained stages, ``report`` needs cases.csv.

    Raises:
      UserError: the config, the cohort or the folder is wrong, or another process works there; the
        folder is then as it was, unless something was trained in it.
      Preempted: SIGTERM arrived; run again to go on.
    """
    systems.load(config.system).check(config)
    if set(modes) == set(MODES) and workdirs.is_finished(workdir, config):
        say(f"finished: {workdir / 'report' / 'report.html'}")
        return
    workdirs.check(workdir, config)  # once before anything is touched, once when it is ours
    with workdirs.owned(workdir):
        _run(config, workdir, modes)


def _run(config: StudyConfig, workdir: Path, modes: Sequence[str]) -> None:
    """As `run`, in a workdir of its own; nothing is written before everything is checked."""
    begun = workdirs.check(workdir, config)
    cohort = open_cohort(config)
    module = systems.load(config.system)
    system = module.build(config)
    measured: dict[str, Any] = {}
    if "train" in modes:
        measured = system.measure(cohort.outlines)
        system = module.build(config, measured)
    if config.data.shuffle_labels:
        cohort = with_shuffled(cohort, system.relabelled, config.seed)
    kept = workdir / "splits.json"
    divided = make_splits(config, cohort, system, kept if begun else None)
    begin(config, workdir, cohort, divided, begun)
    say(
        f"{system.name}: {len(cohort.patients)} patients, {len(cohort.studies)} studies,"
        f" {len(divided.folds)} fold(s), patients on both sides: {divided.patient_overlap}"
    )
    for remark in divided.remarks():
        say(f"note: {remark}")
    with preemption.listening() as stop:
        _run_folds(Setting(config, cohort, system, measured, divided, workdir, stop), modes)
    if "evaluate" in modes:
        cases.write(workdir / "cases.csv", gather_rows(workdir, len(divided.folds)))
    if "report" in modes:
        page = write_report(workdir, system)
        say(f"report: {page}")


def open_cohort(config: StudyConfig) -> Cohort:
    """The cohort of a study, packaged if it is missing."""
    return prepare_cohort(
        config.data.cohort,
        config.data.config,
        config.data.data_dir,
        config.data.manual_dir,
        **config.data.options,
    )


def begin(
    config: StudyConfig, workdir: Path, cohort: Cohort, divided: splits.Splits, begun: bool
) -> None:
    """Writes what a run says of itself before it trains."""
    workdirs.claim(workdir, config)
    write_json(workdir / "environment.json", environment())
    write_json(workdir / "cohort.json", cohort.audit)
    if not begun or not (workdir / "splits.json").exists():
        splits.save(workdir / "splits.json", divided)


@dataclasses.dataclass(frozen=True)
class Setting:
    """What all folds of a study share.

    Attributes:
      config: of the study.
      cohort: all patients.
      system: not fitted to any fold.
      measured: what it was built with, see `System.measure`; nothing where nothing is trained.
      divided: the division.
      workdir: folder of the study.
      stop: says when the process must end soon.
      prepared: examples of the stages that are cut already, by name.
    """

    config: StudyConfig
    cohort: Cohort
    system: System
    measured: Mapping[str, Any]
    divided: splits.Splits
    workdir: Path
    stop: preemption.Stop
    prepared: dict[str, Prepared] = dataclasses.field(default_factory=dict)

    def folder(self, number: int) -> Path:
        """``fold_<k>``."""
        return self.workdir / f"fold_{number}"

    def numbers_of(self, number: int, part: str) -> list[int]:
        """Numbers of the studies of one part of a fold."""
        patients = set(getattr(self.divided.folds[number], part))
        return [i for i, (patient, _) in enumerate(self.cohort.index) if patient in patients]

    @functools.cached_property
    def mesh(self) -> Mesh:
        """The devices."""
        return data_mesh(self.config.devices)

    def examples(self, stage: Stage) -> Prepared:
        """The examples of a stage that is cut once for all folds."""
        if stage.name not in self.prepared:
            folders = (self.cohort.folder / FOLDER, self.workdir / FOLDER)
            self.prepared[stage.name] = self.cut(stage, self.cohort.studies, folders)
        return self.prepared[stage.name]

    def cut(self, stage: Stage, studies: Sequence[Study], folders: Sequence[Path]) -> Prepared:
        """The examples of a stage from these studies of all patients, kept in a folder."""
        cutting, shuffled = stage.cutting(), self.config.data.shuffle_labels
        key = key_of(
            self.cohort.audit["fingerprint"],
            dataclasses.asdict(cutting),
            (*type(stage).__mro__, *type(self.system).__mro__),
            shuffled=self.config.seed if shuffled else None,
        )
        patients = [patient for patient, _ in self.cohort.index]
        return prepare(
            stage.name, key, lambda i: cutting.training_examples(studies[i]), patients, folders
        )


def _run_folds(setting: Setting, modes: Sequence[str]) -> None:
    """Trains and evaluates what is not done yet, fold by fold."""
    numbers = range(len(setting.divided.folds))
    train = [
        k
        for k in numbers
        if "train" in modes and not applied.is_trained_fold(setting.folder(k), setting.system)
    ]
    evaluate = [
        k for k in numbers if "evaluate" in modes and not (setting.folder(k) / "cases.csv").exists()
    ]
    for k in evaluate:
        if k not in train:
            applied.check_trained(setting.folder(k), setting.system)
    once = setting.system.stages[:1] if setting.system.recuts else setting.system.stages
    for k in train:  # before hours are spent on the stages before it
        for stage in (s for s in once if not is_trained(setting.folder(k) / s.name)):
            setting.examples(stage).training_rows(
                setting.divided.folds[k], f"fold_{k} {stage.name}"
            )
    for k in numbers:
        if k in train:
            train_fold(setting, k)
        if k in evaluate:
            _evaluate_fold(setting, k)


def train_fold(setting: Setting, number: int) -> None:
    """Fits and trains what is not done yet of one fold, on reference regions.

    Leaves ``fold_<k>/system.json`` and the stages' folders.

    Raises:
      UserError: see `training.loop.fit`.
      Preempted: the process must end; what was trained is saved.
    """
    folder, studies = setting.folder(number), setting.cohort.studies
    module, config = systems.load(setting.config.system), setting.config
    if not (folder / applied.SYSTEM).exists():
        train = setting.numbers_of(number, "train")
        fitted = {**setting.measured, **setting.system.fit(studies, train)}
        system = module.build(config, fitted)
        baselines = system.fit_baselines(studies[i] for i in train)
        applied.write_system(folder, system, fitted, baselines)
    system = module.build(config, applied.read_system(folder)["fitted"])
    # Folds share what is compiled.
    programs = {stage.name: Program(stage, setting.mesh) for stage in system.stages}
    for stage in system.stages:
        if is_trained(folder / stage.name):
            continue
        if system.recuts and stage is not system.stages[0]:
            if studies is setting.cohort.studies:
                studies = system.recut(studies, applied.predictor(folder, programs))
            prepared = setting.cut(stage, studies, [folder / FOLDER])
        else:
            prepared = setting.examples(stage)
        with setting.stop.held():  # the loop saves before it ends
            job = _job(setting, number, programs[stage.name], prepared)
            (failure,) = fit([job], validate, setting.stop)
        if failure:
            raise failure
    shutil.rmtree(folder / FOLDER, ignore_errors=True)  # of this fold's regions alone


def _job(setting: Setting, number: int, program: Program, prepared: Prepared) -> Job:
    name, fold = program.stage.name, setting.divided.folds[number]
    title = f"fold_{number} {name}"
    held = prepared.rows(fold, "validation")
    entropy = (setting.config.seed, number)
    return Job(
        program=program,
        examples=prepared.examples,
        chosen=prepared.training_rows(fold, title),
        validation=rows_of(prepared.examples, held) if len(held) else None,
        folder=setting.folder(number) / name,
        seed=int(np.random.SeedSequence(entropy).generate_state(1)[0]),
        title=title,
    )


def rows_of_fold(
    fold: Applied,
    studies: Sequence[Study],
    seen: Callable[[Study, Any], None] = lambda study, reading: None,
) -> list[Row]:
    """Reads and scores labelled studies on predicted and on reference regions.

    Args:
      fold: trained.
      studies: a handful, so that what was read of them fits in memory.
      seen: is given each study and what was read of it, e.g. to draw it.

    Returns:
      Rows of cases.csv, without ``fold`` and ``seed``.
    """
    rows: list[Row] = []
    predicted, oracle = fold.read(studies), fold.read(studies, "reference")
    for study, ours, ideal in zip(studies, predicted, oracle, strict=True):
        rows += fold.system.score(study, ours, ideal, fold.baselines)
        seen(study, ours)
    return rows


def _evaluate_fold(setting: Setting, number: int) -> None:
    """Writes pictures and cases.csv of the held-out studies of a trained fold."""
    phantom = setting.cohort.audit["kind"] == "phantom"
    pictures = setting.folder(number) / "pictures"

    def draw(fold: Applied, study: Study, reading: Any) -> None:
        if roles.is_first():
            picture = fold.system.picture(study, reading, study, phantom)
            write_bytes(pictures / f"{study['study_id']}.png", picture)

    read_fold(setting, number, "test", draw)


def read_fold(
    setting: Setting,
    number: int,
    part: str,
    seen: Callable[[Applied, Study, Any], None] = lambda fold, study, reading: None,
) -> None:
    """Reads one part (``test``, ``validation``) of a trained fold and writes its rows (`CASES`).

    Rows of the studies that are read lie in a file beside it until all are: a process that ends
    before is not asked to read them again.
    """
    folder, fold = setting.folder(number), setting.divided.folds[number]
    loaded = applied.load_fold(folder, setting.config, setting.mesh)
    path = folder / CASES[part]
    partial = path.with_suffix(".part.jsonl")
    index, read = setting.cohort.index, {row["study"] for row in tables.appended(partial)}
    numbers = setting.numbers_of(number, part)
    left = [i for i in numbers if index[i][1] not in read]
    who = {"fold": number, "seed": setting.config.seed}
    title = "evaluation" if part == "test" else part
    progress = Progress(f"fold_{number} {title}", len(numbers), len(numbers) - len(left))
    for start in range(0, len(left), STUDIES_AT_ONCE):
        some = [setting.cohort.studies[i] for i in left[start : start + STUDIES_AT_ONCE]]
        found = rows_of_fold(loaded, some, functools.partial(seen, loaded))
        tables.append(partial, [{**who, **r} for r in found if _is_of(r, fold, part)])
        for _ in some:
            progress.advance()
    progress.close()
    cases.write(path, tables.appended(partial))
    if roles.is_first():
        partial.unlink(missing_ok=True)


def make_splits(
    config: StudyConfig, cohort: Cohort, system: System, path: Path | None
) -> splits.Splits:
    """The study's division; see `DataConfig.split`.

    Args:
      config: of the study.
      cohort: that is divided.
      system: says by which classes.
      path: splits.json of a study that goes on, which keeps its division; None for a new one.
    """
    fingerprint, images = cohort.audit["fingerprint"], splits.images_of(cohort.audit)
    kind = config.data.split
    if path is None or not path.exists():
        if config.data.splits is None:
            made = _divide(config, cohort, system)
            return splits.Splits(made, kind, fingerprint, cohort.patients, images)
        path, kind = Path(config.data.splits), "supplied"
    return splits.load(path, cohort.patients, fingerprint, kind, images)


def gather_rows(workdir: Path, folds: int) -> list[Row]:
    """Rows of all folds; each was written when its fold was complete."""
    rows: list[Row] = []
    for number in range(folds):
        path = workdir / f"fold_{number}" / "cases.csv"
        if not path.exists():
            raise UserError(f"{path} is missing; run with --mode=train,evaluate first.")
        rows += cases.read(path)
    return rows


def _divide(config: StudyConfig, cohort: Cohort, system: System) -> tuple[splits.Fold, ...]:
    strata: dict[str, int | None] = {}
    subsets: dict[str, str] = {}
    for number, (patient, _) in enumerate(cohort.index):
        study = cohort.outlines[number]
        found = [s for s in (strata.get(patient), system.stratum(study)) if s is not None]
        strata[patient] = max(found, default=None)
        subsets[patient] = study.get("subset", "")
    data = config.data
    if data.split == "official":
        return folds.official_fold(subsets, data.validation_fraction, config.seed)
    if data.split == "folds_and_official":
        return folds.folds_and_official(
            subsets, strata, data.folds, data.validation_fraction, config.seed, system.strata
        )
    if data.split == "by_case":
        cases = {
            case: patient
            for number, (patient, _) in enumerate(cohort.index)
            for case in system.cases(cohort.studies[number])
        }
        return folds.by_case_fold(cases, config.seed)
    return folds.grouped_folds(
        strata, data.folds, data.validation_fraction, config.seed, system.strata
    )


def _is_of(row: Row, fold: splits.Fold, part: str) -> bool:
    case = row.get("case")
    return fold.cases is None or not case or fold.cases.get(case) == part
