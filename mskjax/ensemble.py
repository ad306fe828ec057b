"""The trainings of a run as one: folds, and seeds, that read a study together."""

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from jax.sharding import Mesh

from mskjax import applied
from mskjax.applied import STUDIES_AT_ONCE, Applied
from mskjax.config import StudyConfig
from mskjax.training.stage import Study
from mskjax.two_stage.system import Joint, Member, System


@dataclasses.dataclass(frozen=True)
class Ensemble:
    """Trainings of one system that read together; it reads and scores as an `Applied` does.

    Attributes:
      members: at least one.
    """

    members: tuple[Applied, ...]

    @property
    def system(self) -> System:
        """Scores and draws; what members fitted is used where they read."""
        return self.members[0].system

    @functools.cached_property
    def baselines(self) -> Mapping[str, Any]:
        """Of all members as one, for `System.score`."""
        return self.system.mean_baselines([m.baselines for m in self.members])

    def read(self, studies: Sequence[Study], regions: str = "predicted") -> list[Any]:
        """What all members say together, see `Applied.read`."""
        return self._in_parts(self.system.read_together, studies, regions)

    def read_jointly(self, studies: Sequence[Study], regions: str = "predicted") -> list[Joint]:
        """The same, with what each member says, see `System.read_jointly`."""
        return self._in_parts(self.system.read_jointly, studies, regions)

    def _in_parts(
        self, read: Callable[..., list[Any]], studies: Sequence[Study], regions: str
    ) -> list[Any]:
        members = [Member(m.system, m.predict) for m in self.members]
        found: list[Any] = []
        for start in range(0, len(studies), STUDIES_AT_ONCE):
            found += read(studies[start : start + STUDIES_AT_ONCE], members, regions)
        return found


def load(run: Path, folds: Sequence[int] | None = None, devices: int | None = None) -> Ensemble:
    """The trained folds of a run, of every seed, as one; see `applied.load`.

    Raises:
      UserError: the folder is no run, or a fold is not trained to its end.
    """
    return Ensemble(applied.load(run, folds, devices))


def of(folders: Sequence[Path], config: StudyConfig, mesh: Mesh) -> Ensemble:
    """These trained folds of a run as one; weights are restored when they are first needed.

    Args:
      folders: ``fold_<k>`` of each.
      config: of the run.
      mesh: the devices.

    Raises:
      UserError: a fold is not trained to its end.
    """
    return Ensemble(tuple(applied.load_fold(folder, config, mesh) for folder in folders))
