"""Which part of a study a command works on, and what it leaves."""

import dataclasses
import difflib
from collections.abc import Sequence

from mskjax import systems
from mskjax.config import StudyConfig
from mskjax.errors import UserError
from mskjax.fold_training import Fold
from mskjax.setting import Setting


@dataclasses.dataclass(frozen=True)
class Left:
    """What a study still lacks when a command ends.

    Attributes:
      train: numbers of the folds that have a stage that is not trained.
      evaluate: numbers of those that are trained and whose patients are not read.
      report: whether the tables and the report of all folds are missing.
    """

    train: tuple[int, ...] = ()
    evaluate: tuple[int, ...] = ()
    report: bool = False


def chosen(config: StudyConfig, names: Sequence[str]) -> list[str]:
    """The stages of a system that are meant by their names or by that of their config's group.

    Raises:
      UserError: there is no such stage.
    """
    every = [stage.name for stage in systems.load(config.system).build(config).stages]
    groups = {name: [name] for name in every}
    for group in systems.declared(config.system)[0]:
        groups.setdefault(group, [name for name in every if name.startswith(f"{group}_")])
    for name in (name for name in names if not groups.get(name)):
        near = difflib.get_close_matches(name, groups, 1)
        hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(groups)}."
        raise UserError(f"--stages: {config.system} has no stage {name!r}; {hint}")
    return [name for name in every if any(name in groups[given] for given in names)]


def groups(settings: Sequence[Setting], folds: Sequence[int] = ()) -> list[list[Fold]]:
    """The folds that train together, of all studies that train together.

    Args:
      settings: of these studies; one as a rule.
      folds: numbers; none gives all.

    Raises:
      UserError: there is no such fold.
    """
    count = len(settings[0].divided.folds)
    if unknown := [k for k in folds if not 0 <= k < count]:
        raise UserError(
            f"--folds: there is no fold {unknown[0]}; the division has folds 0 to {count - 1}."
        )
    numbers = sorted(set(folds)) or range(count)
    found = [[Fold(s, k) for s in settings] for k in numbers]
    if settings[0].config.population.folds == "all":
        return [[fold for group in found for fold in group]]
    return found
