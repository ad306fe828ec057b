"""Validation patients of a study, read end to end: what configs are chosen by, and no test patient.

The loss of a stage cannot choose between configs that change the loss, and says nothing of the
stages together; so whole folds are trained and their validation patients are read as test patients
would be, on the regions that the fold's own first stage predicts.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

from mskjax import (
    applied,
    cases,
    going_on,
    held_out,
    opening,
    preemption,
    replicas,
    study,
    systems,
)
from mskjax import workdir as workdirs
from mskjax.config import StudyConfig
from mskjax.data import splits
from mskjax.data.cohorts import Cohort, with_shuffled
from mskjax.errors import UserError
from mskjax.fold_training import Fold, train
from mskjax.setting import Setting
from mskjax.tables import Row


def validated(
    config: StudyConfig, workdir: Path, numbers: Sequence[int] = ()
) -> Iterator[tuple[int, list[Row], int]]:
    """Trains folds and reads their validation patients, to choose between configs.

    No fold reads its test patients.  Patients who are test patients of these folds, and neither
    train nor validate in another of them, are sealed: once the cohort is divided, nothing of them
    is opened.  Resumes as `run` does, and `run` goes on from the folder that this leaves.

    Args:
      config: the resolved config.
      workdir: folder of this study alone, which the caller owns (`workdir.owned`).
      numbers: of the folds; none gives all that cross-validate.

    Yields:
      The number of a fold, the rows of its validation patients
      (``fold_<k>/validation_cases.csv``) when they are there, those of all seeds, and how many
      folds are left.

    Raises:
      UserError: see `run`; or a fold has no validation patients.
      Preempted: SIGTERM arrived.
    """
    whole = replicas.of(config, workdir)
    if config.population.members:
        raise UserError("config.population.members must be empty: one config is chosen at a time.")
    module = systems.load(config.system)
    module.check(config)
    begun = workdirs.check(workdir, config)
    for single in whole.single():
        going_on.check(single.workdir, single.config)
    cohort = opening.open_cohort(config)
    kept = workdir / "splits.json"
    divided = study.make_splits(config, cohort, module.build(config), kept if begun else None)
    numbers = check_validation(divided, numbers)
    cohort = _without_sealed(cohort, divided, numbers)
    measured = module.build(config).measure(cohort.outlines)
    system = module.build(config, measured)
    if config.data.shuffle_labels:
        cohort = with_shuffled(cohort, system.relabelled, config.seed)
    opening.begin(whole, cohort, divided)
    with preemption.listening() as stop:
        setting = Setting(config, cohort, system, measured, divided, workdir, stop)
        settings = [setting.replica(s.config, s.workdir, s.name) for s in whole.single()]
        every = [[Fold(s, k) for s in settings] for k in numbers]
        if config.population.folds == "all":
            _train([fold for group in every for fold in group])
        for left, group in zip(reversed(range(len(numbers))), every, strict=True):
            _train(group)
            yield group[0].number, [row for fold in group for row in _rows(fold)], left


def _train(folds: Sequence[Fold]) -> None:
    """Trains what is not trained, as one program.

    Raises:
      Diverged: a training failed.
    """
    left = [f for f in folds if not applied.is_trained_fold(f.folder, f.setting.system)]
    if left:
        train(left)
    for fold in left:
        if fold.failure:
            raise fold.failure


def _rows(fold: Fold) -> list[Row]:
    """Rows of the validation patients, read if they are not there."""
    path = fold.folder / held_out.CASES["validation"]
    if not path.exists():
        setting = fold.setting
        loaded = applied.load_fold(fold.folder, setting.config, setting.mesh)
        held_out.write_rows(loaded, setting, fold.number, "validation", setting.train_seed)
    return cases.read(path)


def check_validation(divided: splits.Splits, numbers: Sequence[int]) -> list[int]:
    """The folds that choose between configs.

    Args:
      divided: the division.
      numbers: of folds; none means all of the (first) cross-validation.

    Raises:
      UserError: there is no such fold, or a fold keeps nobody for validation.
    """
    chosen = list(numbers) or list(divided.crossed(0))
    if divided.unit == "case":
        raise UserError(
            "config.data.split=by_case has cases of one patient on both sides, so that choosing by"
            " it reads test patients; use another division."
        )
    for k in chosen:
        if not 0 <= k < len(divided.folds):
            raise UserError(f"there is no fold {k}; the division has {len(divided.folds)}.")
        if not divided.folds[k].validation:
            raise UserError(
                f"fold_{k} has no validation patients to choose by; set"
                " config.data.validation_fraction above 0."
            )
    return chosen


def sealed(divided: splits.Splits, numbers: Sequence[int]) -> set[str]:
    """Test patients of some folds whom none of these folds trains or validates on."""
    folds_ = [divided.folds[k] for k in numbers]
    test = {p for fold in divided.folds for p in fold.test}
    return test - {p for fold in folds_ for p in (*fold.train, *fold.validation)}


def _without_sealed(cohort: Cohort, divided: splits.Splits, numbers: Sequence[int]) -> Cohort:
    shut = sealed(divided, numbers)
    kept = [i for i, (patient, _) in enumerate(cohort.index) if patient not in shut]
    return cohort.part(kept)
