"""The journey of a study: cohort -> folds -> stages -> end-to-end evaluation -> report.

Everything a study leaves lies in its workdir (docs/architecture.md lists the files).  Each part is
skipped when its result is there, so running a study again resumes it, and running a finished one
says so.
"""

import contextlib
from collections.abc import Container, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

from mskjax import (
    applied,
    cases,
    comparing,
    fold_ensemble,
    fold_training,
    going_on,
    held_out,
    manifest,
    opening,
    parts,
    preemption,
    replicas,
    roles,
    systems,
)
from mskjax import workdir as workdirs
from mskjax.calibration import write as write_calibration
from mskjax.config import MODES, StudyConfig
from mskjax.data import folds, splits
from mskjax.data.cohorts import Cohort, with_shuffled
from mskjax.errors import Diverged, UserError
from mskjax.fold_ensemble import FoldEnsemble
from mskjax.fold_training import Fold
from mskjax.progress import say
from mskjax.replicas import Replica
from mskjax.reporting.summary import write_report
from mskjax.setting import Setting
from mskjax.tables import Row
from mskjax.training import processes
from mskjax.training.checkpoints import is_trained
from mskjax.two_stage.system import System


def run(
    config: StudyConfig,
    workdir: Path,
    modes: Sequence[str] = MODES,
    folds: Sequence[int] = (),
    stages: Sequence[str] = (),
) -> parts.Left:
    """Runs, resumes or finds finished a study, or a part of it.

    Args:
      config: the resolved config.
      workdir: folder of this study alone.
      modes: any of `MODES`; ``evaluate`` needs trained stages, ``report`` needs all folds.
      folds: numbers of those to work on, beside other processes; none gives all.  Tables and report
        are made by a command that is given none.
      stages: names of those to train; none gives all.

    Raises:
      UserError: the config, the cohort or the folder is wrong, or another process works there; the
        folder is then as it was, unless something was trained in it.  Or a training failed.
      Preempted: SIGTERM arrived; run again to go on.
    """
    whole = replicas.of(config, workdir)
    for single in whole.single():
        systems.load(single.config.system).check(single.config)
    chosen = parts.chosen(config, stages)
    if set(modes) == set(MODES) and not folds and _is_finished(whole):
        for page in sorted(workdir.glob("**/report/report.html")):
            say(f"finished: {page}")
        return parts.Left()
    workdirs.check(workdir, config)  # once before anything is touched, once when it is ours
    processes.sync("checked")
    with contextlib.ExitStack() as owned:
        for replica in whole.every():
            is_part = replica is not whole
            owned.enter_context(workdirs.owned(replica.workdir, folds, is_part))
        return _run(whole, modes, folds, chosen)


def _run(
    whole: Replica, modes: Sequence[str], folds: Sequence[int], stages: Sequence[str]
) -> parts.Left:
    """As `run`, in a workdir of its own; nothing is written before everything is checked."""
    config, workdir = whole.config, whole.workdir
    begun, *_ = [workdirs.check(part.workdir, part.config) for part in whole.every()]
    extended = [going_on.check(single.workdir, single.config) for single in whole.single()]
    if any(extended) and "train" not in modes:
        raise UserError(f"{workdir} is to have more steps; leave --mode out, or train first.")
    cohort = opening.open_cohort(config)
    module = systems.load(config.system)
    system = module.build(config)
    measured: dict[str, Any] = {}
    if "train" in modes:
        measured = system.measure(cohort.outlines)
        system = module.build(config, measured)
    if config.data.shuffle_labels:
        cohort = with_shuffled(cohort, system.relabelled, config.seed)
    before = workdir / "splits.json"
    divided = make_splits(config, cohort, system, before if begun else None)
    with preemption.listening() as stop:
        setting = Setting(config, cohort, system, measured, divided, workdir, stop)
        settings = [setting.replica(s.config, s.workdir, s.name) for s in whole.single()]
        groups = parts.groups(settings, folds)
        together = fold_ensemble.of(whole, setting, groups)
        # Before anything is written, which whoever fails first would take away under the others.
        for group in groups if "train" in modes else ():
            fold_training.check_devices(group)
        processes.sync("divided")  # of what was there before
        kept = _kept(whole, [*chain(*groups)], together, modes, stages)
        opening.begin(whole, cohort, divided, folds, kept)
        say(
            f"{system.name}: {len(cohort.patients)} patients, {len(cohort.studies)} studies,"
            f" {len(divided.folds)} fold(s), patients on both sides: {divided.patient_overlap}"
        )
        for remark in divided.remarks():
            say(f"note: {remark}")
        failed = _run_folds(groups, together, modes, stages)
    if roles.is_first() and not folds:
        _conclude(whole, len(divided.folds), modes, {fold.setting.workdir for fold in failed})
    if failed:
        more = f"  {len(failed)} trainings failed in all." if len(failed) > 1 else ""
        raise Diverged(f"{failed[0].failure}{more}")
    every = parts.groups(settings)
    return _left(whole, [*chain(*every)], fold_ensemble.of(whole, setting, every))


def _kept(
    whole: Replica,
    folds: Sequence[Fold],
    together: Sequence[FoldEnsemble],
    modes: Sequence[str],
    stages: Sequence[str],
) -> set[Path]:
    """Folders of finished studies in which nothing is to be trained or read."""
    busy = {
        fold.setting.workdir
        for fold in folds
        if ("train" in modes and not _is_trained(fold, stages))
        or ("evaluate" in modes and not _is_read(fold))
    }
    if "evaluate" in modes:
        busy |= {own.study for own in together if not own.is_read}
    return {
        part.workdir
        for part in whole.every()
        if manifest.exists(part.workdir)
        and not any(going_on.check(single.workdir, single.config) for single in part.single())
        and not any(own.workdir in busy for own in part.every())
    }


def _left(whole: Replica, every: Sequence[Fold], together: Sequence[FoldEnsemble]) -> parts.Left:
    train = {f.number for f in every if not _is_trained(f)}
    evaluate = {f.number for f in every if not _is_read(f)}
    evaluate |= {own.number for own in together if not own.is_read}
    evaluate -= train
    return parts.Left(tuple(sorted(train)), tuple(sorted(evaluate)), not _is_finished(whole))


def _is_finished(study: Replica) -> bool:
    each = [_is_finished(part) for part in study.parts]
    own = workdirs.is_finished(study.workdir, study.config)
    if study.seeds:
        own = own and (study.workdir / workdirs.ENSEMBLE / "cases.csv").exists()
    return all(each) and (own or bool(study.config.population.members))


def _run_folds(
    groups: Sequence[Sequence[Fold]],
    together: Sequence[FoldEnsemble],
    modes: Sequence[str],
    stages: Sequence[str] = (),
) -> list[Fold]:
    """Trains and evaluates what is not done yet, group by group.

    Args:
      groups: of `parts.groups`.
      together: these folds, of each study that was trained from several seeds.
      modes: see `run`.
      stages: see `run`.

    Returns:
      The folds whose training failed.

    Raises:
      Diverged: so did the only study's.
    """
    every = [*chain(*groups)]
    train = [f for f in every if "train" in modes and not _is_trained(f, stages)]
    evaluate = [f for f in every if "evaluate" in modes and not _is_read(f)]
    stale = [own for own in together if any(fold in train for fold in own.members)]
    jointly = [own for own in together if own in stale or not own.is_read]
    if "evaluate" not in modes:
        jointly = []
    needed = [*evaluate, *chain(*(own.members for own in jointly))]
    for fold in (f for f in needed if f not in train):
        applied.check_trained(fold.folder, fold.setting.system)
    processes.sync("listed")  # of what was there before
    _check_examples(train, stages)
    for own in stale:
        own.discard()
    studies = len({fold.setting.workdir for fold in every})
    for group in groups:
        if wanted := [fold for fold in group if fold in train]:
            fold_training.train(wanted, stages or None)
            if studies == 1 and (failures := [f.failure for f in wanted if f.failure]):
                raise failures[0]
        for fold in (f for f in group if f in evaluate and not f.failure):
            setting = fold.setting
            loaded = applied.load_fold(fold.folder, setting.config, setting.mesh)
            held_out.write(loaded, setting, fold.number, setting.train_seed)
        for own in (own for own in jointly if own.members[0] in group):
            if not any(fold.failure for fold in own.members):
                own.evaluate()
    return [fold for fold in train if fold.failure]


def _is_trained(fold: Fold, stages: Sequence[str] = ()) -> bool:
    system = fold.setting.system
    if not stages:
        return applied.is_trained_fold(fold.folder, system)
    return all(is_trained(fold.folder / name) for name in stages)


def _is_read(fold: Fold) -> bool:
    return (fold.folder / held_out.CASES["test"]).exists()


def _check_examples(folds: Sequence[Fold], stages: Sequence[str]) -> None:
    """Whether every training has what it learns from, before hours are spent on those before it.

    Raises:
      UserError: one has no example, or needs a stage that is not trained.
    """
    for fold in folds:
        system = fold.setting.system
        first, *later = system.stages
        chosen = [s for s in system.stages if not stages or s.name in stages]
        if system.recuts and first not in chosen and not is_trained(fold.folder / first.name):
            raise UserError(
                f"{fold.folder}: {chosen[0].name} learns from what {first.name} finds, which is not"
                f" trained; run --mode=train --stages={first.name} first."
            )
        once = [s for s in chosen if not (system.recuts and s in later)]
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
        if "report" in modes and len(whole) > 1:
            comparing.write([p.workdir for p in whole], study.workdir / comparing.FOLDER)
        if "report" in modes and len(whole) == len(study.parts):
            _vouch(study.workdir)
        return
    singles = [single.workdir for single in study.single()]
    if any(folder in failed for folder in singles):
        return
    system = systems.load(study.config.system).build(study.config)
    tables = [study.workdir / "cases.csv"]
    if study.seeds:
        tables.append(study.workdir / workdirs.ENSEMBLE / "cases.csv")
    if "evaluate" in modes or ("report" in modes and not all(map(Path.exists, tables))):
        rows = [row for folder in singles for row in gather_rows(folder, folds)]
        cases.write(study.workdir / "cases.csv", rows)
        if study.seeds:
            together = study.workdir / workdirs.ENSEMBLE
            cases.write(together / "cases.csv", gather_rows(together, folds))
        write_calibration(study.workdir, system.gradings)
    if "report" in modes:
        page = write_report(study.workdir, system)
        say(f"report: {page}")
        _vouch(study.workdir)


def _vouch(workdir: Path) -> None:
    """Leaves the manifest of a run that is finished; nothing is written after it."""
    if manifest.exists(workdir):
        manifest.follow(workdir)
    else:
        manifest.write(workdir)


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
    """Rows of all folds; each was written when its fold was complete.

    Raises:
      UserError: naming the folds that are missing.
    """
    table = held_out.CASES["test"]
    paths = [workdir / f"fold_{k}" / table for k in range(folds)]
    if missing := [path.parent.name for path in paths if not path.exists()]:
        raise UserError(
            f"{workdir}: no {table} of {', '.join(missing)}; run --mode=train,evaluate of them"
            " first, here or on other machines (--folds)."
        )
    return [row for path in paths for row in cases.read(path)]


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
