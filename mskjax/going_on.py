"""More steps for a study that is begun: what they make stale goes before anything is trained.

A stage goes on from its last state, and its learning rate is from then on that of the new number
of steps (docs/going_on.md).  Results go first, what vouches for others before what it vouches for;
then the stages' own records, then config.json has the new steps.  A process that is killed on its
way leaves a study of the old steps that lacks results, which the old command makes again; or one of
the new steps that has none of the old results.
"""

import json
import os
import shutil
from collections.abc import Container, Iterable, Sequence
from pathlib import Path

from mskjax import history, roles, systems
from mskjax import workdir as workdirs
from mskjax.config import StudyConfig, to_json
from mskjax.data.examples import FOLDER
from mskjax.errors import UserError
from mskjax.history import Extension
from mskjax.progress import say
from mskjax.training.checkpoints import ARCHITECTURE, COST, is_trained
from mskjax.training.saved import FAILED, saved_step
from mskjax.two_stage.system import System
from mskjax.writers import write_text

# What is made from trained weights, in the order in which it is removed: patterns in a workdir.
RESULTS = (
    "manifest.json",
    "report/report.html",
    "report",
    "comparison",
    "external",
    workdirs.ENSEMBLE,
    "calibration.json",
    "cases.csv",
    "fold_*/cases.csv",
    "fold_*/cases.part.jsonl",
    "fold_*/validation_cases.csv",
    "fold_*/validation_cases.part.jsonl",
    "fold_*/environment.json",
    "fold_*/predictions",
    "fold_*/pictures",
)
_REMOVED = ".removed.tmp"  # how the name of a folder ends that is being removed


def check(workdir: Path, config: StudyConfig) -> bool:
    """Whether stages are to have more steps, and every training a state to go on from.

    Args:
      workdir: of a single study, which `workdir.check` lets pass.
      config: of the command.

    Raises:
      UserError: a training's last state is gone.
    """
    if not workdirs.is_extended(workdir, config):
        return False
    system = _system(config)
    going_on = _going_on(system, _more_steps(workdir, system))
    for folder in (workdir / fold / name for name in going_on for fold in _folds(workdir)):
        if is_trained(folder) and saved_step(folder) is None:
            raise UserError(
                f"{folder / 'checkpoints' / 'latest'} is gone, so there is no state to go on from;"
                " copy it back, or give another --workdir to train all steps."
            )
    return True


def extend(workdir: Path, config: StudyConfig, folds: Sequence[int] = ()) -> None:
    """Gives stages the steps of a config, where these are more than they have.

    Args:
      workdir: of a study, or of one that consists of others.
      config: of the command.
      folds: that the caller owns, see `workdir.owned`.

    Raises:
      UserError: another process owns a fold.
    """
    if not roles.is_first() or not workdirs.is_extended(workdir, config):
        return
    for name, holder in workdirs.busy(workdir, folds).items():
        raise UserError(
            f"{workdir / name} is in use by {holder}, and more steps concern all folds; wait for it"
            " and run the same command again."
        )
    system = _system(config)
    more = _more_steps(workdir, system)
    anew = _anew(system, more)
    extensions = [  # what a member has of its own stands in its own folder
        Extension(s.name, *more[s.name], _at(workdir, s.name, anew), history.now(), tuple(anew))
        for s in system.stages
        if s.name in more
    ]
    steps = {s.name: more.get(s.name, (s.train.steps,))[0] for s in system.stages}
    remove_results(workdir)
    for fold in workdir.glob("fold_*"):
        _remove_records(fold, system, more)
    if extensions:
        history.write(workdir, [*history.read(workdir, steps), *extensions])
    write_text(workdir / workdirs.CONFIG, to_json(config))
    for extension in extensions:
        say(f"{workdir}: {extension}")


def _more_steps(workdir: Path, system: System) -> dict[str, tuple[int, int]]:
    """Stages of a system that have more steps than in a folder's config -> steps there, and now.

    A group of ``config.stages`` may be the options of several stages.
    """
    before = {s.name: s.train.steps for s in _system(workdirs.config_of(workdir)).stages}
    steps = {s.name: (before[s.name], s.train.steps) for s in system.stages}
    return {name: (then, now) for name, (then, now) in steps.items() if then != now}


def _at(workdir: Path, stage: str, anew: Sequence[str]) -> dict[str, int]:
    """Fold -> the step that its training of a stage goes on from."""
    return {
        fold: 0 if stage in anew else saved_step(workdir / fold / stage) or 0
        for fold in _folds(workdir)
    }


def _folds(workdir: Path) -> list[str]:
    """The folds of a study, or of those that it consists of."""
    if parts := sorted(workdirs.parts_of(workdir)):
        return [f"{part.name}/{fold}" for part in parts for fold in _folds(part)]
    division = workdir / "splits.json"
    count = len(json.loads(division.read_text())["folds"]) if division.exists() else 0
    return [f"fold_{k}" for k in range(count)]


def remove_results(workdir: Path) -> None:
    """Removes what was made of a study's weights; these stay."""
    patterns = (f"*{_REMOVED}", f"fold_*/*{_REMOVED}", *RESULTS)
    _remove(path for pattern in patterns for path in sorted(workdir.glob(pattern)))


def _remove_records(fold: Path, system: System, more: Container[str]) -> None:
    """Removes what says that stages are trained, and stages that are trained anew."""
    going_on = _going_on(system, more)
    _remove(fold / name / file for name in going_on for file in (FAILED, COST, ARCHITECTURE))
    if anew := _anew(system, more):
        _remove([fold / FOLDER, *(fold / name for name in reversed(anew))])


def _going_on(system: System, more: Container[str]) -> list[str]:
    """The stages that go on from their last state."""
    anew = _anew(system, more)
    return [s.name for s in system.stages if s.name in more and s.name not in anew]


def _anew(system: System, more: Container[str]) -> list[str]:
    """The stages whose examples are cut from what the first one finds, which will be different."""
    names = [stage.name for stage in system.stages]
    return names[1:] if system.recuts and names[0] in more else []


def _remove(paths: Iterable[Path]) -> None:
    """Removes files and folders; of a folder, nothing is left under its name once it begins."""
    for path in paths:
        if path.is_dir() and not path.is_symlink():
            aside = path if path.name.endswith(_REMOVED) else path.with_name(path.name + _REMOVED)
            os.replace(path, aside)
            shutil.rmtree(aside)
        else:
            path.unlink(missing_ok=True)


def _system(config: StudyConfig) -> System:
    return systems.load(config.system).build(config)
