"""The journey of a study: cohort -> folds -> stages -> end-to-end evaluation -> report.

Everything a study leaves lies in its workdir (docs/architecture.md lists the files).  Each part is
skipped when its result is there, so running a study again resumes it, and running a finished one
says so.
"""

import contextlib
import functools
import itertools
from collections.abc import Callable, Container, Sequence
from pathlib import Path
from typing import Any

from mskjax import (
    applied,
    cases,
    fold_training,
    predictions,
    preemption,
    reading,
    replicas,
    roles,
    systems,
)
from mskjax import workdir as workdirs
from mskjax.applied import Applied
from mskjax.calibration import write as write_calibration
from mskjax.config import MODES, StudyConfig
from mskjax.data import folds, splits
from mskjax.data.cohorts import Cohort, prepare_cohort, with_shuffled
from mskjax.errors import Diverged, UserError
from mskjax.fold_training import Fold
from mskjax.progress import say
from mskjax.replicas import Replica
from mskjax.reporting.environment import environment
from mskjax.reporting.pooled import compare
from mskjax.reporting.summary import write_report
from mskjax.setting import Setting
from mskjax.tables import Row
from mskjax.training import processes
from mskjax.training.checkpoints import is_trained
from mskjax.training.stage import Study
from mskjax.two_stage.system import System
from mskjax.writers import write_json

CASES = {"test": "cases.csv", "validation": "validation_cases.csv"}  # rows of a part of a fold


def run(config: StudyConfig, workdir: Path, modes: Sequence[str] = MODES) -> None:
    """Runs, resumes or finds finished a study.

    Args:
      config: the resolved config.
      workdir: folder of this study alone.
      modes: any of `MODES`; ``evaluate`` needs trained stages, ``report`` needs cases.csv.

    Raises:
      UserError: the config, the cohort or the folder is wrong, or another process works there; the
        folder is then as it was, unless something was trained in it.  Or a training failed.
      Preempted: SIGTERM arrived; run again to go on.
    """
    whole = replicas.of(config, workdir)
    for single in whole.single():
        systems.load(single.config.system).check(single.config)
    if set(modes) == set(MODES) and _is_finished(whole):
        for page in sorted(workdir.glob("**/report/report.html")):
            say(f"finished: {page}")
        return
    workdirs.check(workdir, config)  # once before anything is touched, once when it is ours
    processes.sync("checked")
    with contextlib.ExitStack() as owned:
        for replica in whole.every():
            owned.enter_context(workdirs.owned(replica.workdir))
        _run(whole, modes)


def _run(whole: Replica, modes: Sequence[str]) -> None:
    """As `run`, in a workdir of its own; nothing is written before everything is checked."""
    config, workdir = whole.config, whole.workdir
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
    processes.sync("divided")  # of what was there before
    begin(whole, cohort, divided, begun)
    say(
        f"{system.name}: {len(cohort.patients)} patients, {len(cohort.studies)} studies,"
        f" {len(divided.folds)} fold(s), patients on both sides: {divided.patient_overlap}"
    )
    for remark in divided.remarks():
        say(f"note: {remark}")
    with preemption.listening() as stop:
        setting = Setting(config, cohort, system, measured, divided, workdir, stop)
        settings = [setting.replica(s.config, s.workdir, s.name) for s in whole.single()]
        failed = _run_folds(settings, modes)
    if roles.is_first():
        _conclude(whole, len(divided.folds), modes, {fold.setting.workdir for fold in failed})
    if failed:
        more = f"  {len(failed)} trainings failed in all." if len(failed) > 1 else ""
        raise Diverged(f"{failed[0].failure}{more}")


def _is_finished(study: Replica) -> bool:
    parts = [_is_finished(part) for part in study.parts]
    own = workdirs.is_finished(study.workdir, study.config)
    return all(parts) and (own or bool(study.config.population.members))


def open_cohort(config: StudyConfig) -> Cohort:
    """The cohort, which the first process packages where it is missing and the others open.

    Raises:
      UserError: see `prepare_cohort`; or the processes find different cohorts.
    """
    if not roles.is_first():
        processes.sync("packaged")
    data = config.data
    cohort = prepare_cohort(
        data.cohort, data.config, data.data_dir, data.manual_dir, **data.options
    )
    if roles.is_first():
        processes.sync("packaged")
    prints = processes.gather("cohort", cohort.audit["fingerprint"])
    if other := [i for i, found in enumerate(prints) if found != prints[0]]:
        raise UserError(
            f"process {other[0]} finds another cohort in {data.data_dir} than process 0; give all"
            " a config.data.data_dir and a config.data.manual_dir of a file system that they share."
        )
    return cohort


def begin(whole: Replica, cohort: Cohort, divided: splits.Splits, begun: bool) -> None:
    """Writes what a study, and those that it consists of, say of themselves before they train."""
    machine = environment()
    for part in whole.every():
        started = begun if part is whole else workdirs.check(part.workdir, part.config)
        workdirs.claim(part.workdir, part.config)
        write_json(part.workdir / "environment.json", machine)
        write_json(part.workdir / "cohort.json", cohort.audit)
        if not started or not (part.workdir / "splits.json").exists():
            splits.save(part.workdir / "splits.json", divided)


def _run_folds(settings: Sequence[Setting], modes: Sequence[str]) -> list[Fold]:
    """Trains and evaluates what is not done yet, fold by fold or all folds together.

    Args:
      settings: of studies that train together; one as a rule.
      modes: see `run`.

    Returns:
      The folds whose training failed.

    Raises:
      Diverged: so did the only study's.
    """
    every = [Fold(s, k) for k in range(len(settings[0].divided.folds)) for s in settings]
    train = [f for f in every if "train" in modes and not _is_trained(f)]
    evaluate = [f for f in every if "evaluate" in modes and not _is_read(f)]
    for fold in (f for f in evaluate if f not in train):
        applied.check_trained(fold.folder, fold.setting.system)
    processes.sync("listed")  # of what was there before
    _check_examples(train)
    together = settings[0].config.population.folds == "all"
    groups = [every] if together else _by_fold(every)
    for group in groups:
        if wanted := [fold for fold in group if fold in train]:
            fold_training.train(wanted)
            if len(settings) == 1 and (failures := [f.failure for f in wanted if f.failure]):
                raise failures[0]
        for fold in (f for f in group if f in evaluate and not f.failure):
            _evaluate_fold(fold.setting, fold.number)
    return [fold for fold in train if fold.failure]


def _by_fold(folds: Sequence[Fold]) -> list[list[Fold]]:
    return [list(own) for _, own in itertools.groupby(folds, lambda fold: fold.number)]


def _is_trained(fold: Fold) -> bool:
    return applied.is_trained_fold(fold.folder, fold.setting.system)


def _is_read(fold: Fold) -> bool:
    return (fold.folder / CASES["test"]).exists()


def _check_examples(folds: Sequence[Fold]) -> None:
    """Whether every training has examples, before hours are spent on the stages before it.

    Raises:
      UserError: one has none.
    """
    for fold in folds:
        system = fold.setting.system
        once = system.stages[:1] if system.recuts else system.stages
        for stage in (s for s in once if not is_trained(fold.folder / s.name)):
            fold.setting.examples(stage).training_rows(
                fold.setting.divided.folds[fold.number], f"{fold.title} {stage.name}"
            )


def _conclude(study: Replica, folds: int, modes: Sequence[str], failed: Container[Path]) -> None:
    """Tables and reports of a study and of those it consists of, but for what failed."""
    for part in study.parts:
        _conclude(part, folds, modes, failed)
    if study.config.population.members:
        whole = [p for p in study.parts if not any(s.workdir in failed for s in p.single())]
        if "report" in modes:
            compare(study.workdir, {p.workdir.name: p.workdir for p in whole})
        return
    singles = [single.workdir for single in study.single()]
    if any(folder in failed for folder in singles):
        return
    system = systems.load(study.config.system).build(study.config)
    if "evaluate" in modes:
        rows = [row for folder in singles for row in gather_rows(folder, folds)]
        cases.write(study.workdir / "cases.csv", rows)
        write_calibration(study.workdir, system.gradings)
    if "report" in modes:
        page = write_report(study.workdir, system)
        say(f"report: {page}")


def _evaluate_fold(setting: Setting, number: int) -> None:
    """Writes pictures, label maps and cases.csv of the held-out studies of a trained fold."""
    phantom = setting.cohort.audit["kind"] == "phantom"

    def leave(fold: Applied, study: Study, found: Any) -> None:
        predictions.leave(setting.folder(number), fold.system, study, found, phantom)

    read_fold(setting, number, "test", leave)


def read_fold(
    setting: Setting,
    number: int,
    part: str,
    seen: Callable[[Applied, Study, Any], None] = lambda fold, study, reading: None,
) -> None:
    """Reads one part (``test``, ``validation``) of a trained fold and writes its rows (`CASES`)."""
    folder, fold = setting.folder(number), setting.divided.folds[number]
    loaded = applied.load_fold(folder, setting.config, setting.mesh)
    reading.write_rows(
        loaded,
        setting.cohort,
        setting.numbers_of(number, part),
        folder / CASES[part],
        {"fold": number, "seed": setting.train_seed},
        f"{setting.title(number)} {'evaluation' if part == 'test' else part}",
        kept=lambda row: _is_of(row, fold, part),
        seen=functools.partial(seen, loaded),
    )


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
