"""The studies that a study consists of: named recipes, and trainings from several seeds.

Each lies in a folder of its own inside the study's, ``member_<name>`` or ``seed_<s>``, and is a run
as if it had been started alone: it goes on, is applied and reported by itself.  What
they share is the cohort, the division of patients and the examples.
"""

import dataclasses
import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from mskjax.config import PopulationConfig, StudyConfig, differences, parse, to_json
from mskjax.errors import UserError

_NAME = re.compile(r"\w[\w.-]*")


@dataclasses.dataclass(frozen=True)
class Replica:
    """A study, and those it consists of.

    Attributes:
      config: of a single study where it has no parts.
      workdir: its folder.
      name: of its folders, below that of the whole study.
      parts: named recipes, or the same from several seeds; empty where it is single.
    """

    config: StudyConfig
    workdir: Path
    name: str = ""
    parts: tuple["Replica", ...] = ()

    def every(self) -> Iterator["Replica"]:
        """It and all that it consists of."""
        yield self
        for part in self.parts:
            yield from part.every()

    @property
    def seeds(self) -> tuple["Replica", ...]:
        """Its parts, where they are the same from several seeds."""
        return () if self.config.population.members else self.parts

    def single(self) -> Iterator["Replica"]:
        """All that is trained."""
        return (replica for replica in self.every() if not replica.parts)


def of(config: StudyConfig, workdir: Path, name: str = "") -> Replica:
    """The replicas that a config asks for.

    Args:
      config: of the whole study.
      workdir: its folder.
      name: of its folders.

    Raises:
      UserError: a member changes more than the stages, or its name is no name of a folder.
    """
    population = config.population
    parts: list[Replica] = []
    if population.members:
        rest = dataclasses.replace(population, members={})
        for key, changes in population.members.items():
            own = dataclasses.replace(_changed(config, key, changes), population=rest)
            parts.append(_part(own, workdir, name, f"member_{key}"))
    elif population.seeds > 1:
        first = config.seed if config.train_seed is None else config.train_seed
        rest = PopulationConfig(folds=population.folds, share=population.share)
        for seed in range(first, first + population.seeds):
            own = dataclasses.replace(config, train_seed=seed, population=rest)
            parts.append(_part(own, workdir, name, f"seed_{seed}"))
    return Replica(config, workdir, name, tuple(parts))


def _part(config: StudyConfig, workdir: Path, name: str, folder: str) -> Replica:
    return of(config, workdir / folder, f"{name} {folder}".strip())


def _changed(config: StudyConfig, name: str, changes: Mapping[str, Any]) -> StudyConfig:
    if not _NAME.fullmatch(name):
        raise UserError(
            f"config.population.members has a member {name!r}; give names of letters, digits, dots"
            " and dashes: they become folders."
        )
    before = json.loads(to_json(config))
    after = _merged(before, changes, f"config.population.members.{name}")
    outside = [d for d in differences(before, after) if not d.startswith("config.stages.")]
    if outside:
        raise UserError(
            f"config.population.members.{name} changes {outside[0].partition(' ')[0]}; members of a"
            " population differ in their stages alone: give it a study of its own."
        )
    return parse(StudyConfig, after)


def _merged(values: Any, changes: Any, where: str) -> Any:
    if not isinstance(changes, Mapping) or not isinstance(values, Mapping):
        return changes
    unknown = [key for key in changes if key not in values]
    if unknown:
        raise UserError(f"{where}.{unknown[0]} is not a field; known fields: {', '.join(values)}.")
    found = {key: _merged(values[key], v, f"{where}.{key}") for key, v in changes.items()}
    return {**values, **found}
