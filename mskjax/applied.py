"""A trained run, loaded from its folder alone: reads studies it has never seen, labelled or not.

Nothing of the cohort is needed: weights come from the checkpoints as these describe themselves,
and what a fold measured and fitted from its ``system.json``:

* ``system``, ``labels``, ``gradings``, ``preprocessing``: what its numbers mean and what its images
  went through, see `System.meaning`;
* ``fitted``: what the system is built with, see `System.measure` and `System.fit`;
* ``baselines``: see `System.fit_baselines`.
"""

import dataclasses
import functools
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import numpy as np
from jax.sharding import Mesh

from mskjax import systems
from mskjax.config import StudyConfig
from mskjax.data.pipeline import Examples
from mskjax.errors import UserError
from mskjax.random_weights import untrained
from mskjax.training.mesh import data_mesh, replicated
from mskjax.training.stage import Study
from mskjax.two_stage.system import Predict, System
from mskjax.workdir import config_of, folds_in
from mskjax.writers import write_json

if TYPE_CHECKING:
    from mskjax.training.program import Program

SYSTEM = "system.json"
STUDIES_AT_ONCE = 8  # bounds the memory of network outputs


@dataclasses.dataclass(frozen=True)
class Applied:
    """One trained fold.

    Attributes:
      system: as this fold fitted it.
      baselines: of this fold, for `System.score`.
      predict: runs one of its networks.
      name: of its folder in the run, e.g. ``fold_0`` or ``seed_1/fold_0``.
    """

    system: System
    baselines: Mapping[str, Any]
    predict: Predict
    name: str = ""

    def read(self, studies: Sequence[Study], regions: str = "predicted") -> list[Any]:
        """What the system says of each study.

        Args:
          studies: volumes on their native grids, as the cohort's builder reads them; of any size.
            Labels are looked at for reference regions alone.
          regions: ``predicted``, or ``reference`` for an oracle, see `System.read`.

        Returns:
          A reading per study, the system's own type.
        """
        found: list[Any] = []
        for start in range(0, len(studies), STUDIES_AT_ONCE):
            some = studies[start : start + STUDIES_AT_ONCE]
            found += self.system.read(some, self.predict, regions)
        return found


def load(
    run: Path, folds: Sequence[int] | None = None, devices: int | None = None
) -> tuple[Applied, ...]:
    """The trained folds of a run, of each seed where it was trained from several.

    Args:
      run: folder of a study, ``--workdir`` of the command that trained it.
      folds: numbers; None gives all.
      devices: how many to use; None all.

    Raises:
      UserError: the folder is no run, or a fold is not trained to its end.
    """
    config, chosen, mesh = config_of(run), folders(run, folds), data_mesh(devices)
    return tuple(load_fold(folder, config, mesh) for folder in chosen)


def folders(run: Path, folds: Sequence[int] | None = None) -> list[Path]:
    """Those of a run's folds, of each seed where it was trained from several.

    Args:
      run: folder of a study.
      folds: numbers; None gives all.

    Raises:
      UserError: the run has no such fold.
    """
    if seeds := sorted(run.glob("seed_*")):
        return [fold for seed in seeds for fold in folders(seed, folds)]
    known = folds_in(run)
    chosen = known if folds is None else list(folds)
    missing = [k for k in chosen if k not in known]
    if missing or not chosen:
        raise UserError(
            f"{run} has folds {', '.join(map(str, known)) or 'none'}, not"
            f" {', '.join(map(str, missing)) or 'any'}; train it with --mode=train."
        )
    return [run / f"fold_{k}" for k in chosen]


def load_fold(folder: Path, config: StudyConfig, mesh: Mesh) -> Applied:
    """A trained fold.

    Args:
      folder: ``fold_<k>``.
      config: of its run.
      mesh: the devices.

    Raises:
      UserError: it is not trained to its end, or by a version whose numbers mean something else.
    """
    from mskjax.training.program import Program  # what was exported is read without networks

    values = read_system(folder)
    system = build(folder / SYSTEM, config, values)
    check_trained(folder, system)
    programs = {stage.name: Program(stage, mesh) for stage in system.stages}
    seed = folder.parent.name
    name = f"{seed}/{folder.name}" if seed.startswith("seed_") else folder.name
    return Applied(system, values["baselines"], predictor(folder, programs), name)


def build(path: Path, config: StudyConfig, values: Mapping[str, Any]) -> System:
    """The system of a trained fold.

    Args:
      path: of the file that says what it fitted, for messages.
      config: of its run.
      values: content of that file.

    Raises:
      UserError: it is of a version whose numbers mean something else.
    """
    if missing := [name for name in ("fitted", "baselines") if name not in values]:
        raise UserError(
            f"{path} lacks {', '.join(missing)}: the run is of an older version of mskjax; use the"
            " version in environment.json, or train it again."
        )
    system: System = systems.load(config.system).build(config, values["fitted"])
    changed = [name for name, now in system.meaning().items() if values.get(name) != now]
    if changed:
        raise UserError(
            f"{path}: {', '.join(changed)} of this version of mskjax differ from those that the run"
            " was trained with; use the version in environment.json."
        )
    return system


def predictor(folder: Path, programs: Mapping[str, "Program"]) -> Predict:
    """Runs the trained networks of a fold; weights are restored when they are first needed."""
    from mskjax.evaluation import predict
    from mskjax.training.checkpoints import restore_variables

    def weights(name: str) -> Any:
        return restore_variables(folder / name, replicated(programs[name].mesh))

    def random(name: str, trained: Any) -> Any:
        return jax.device_put(untrained(trained), replicated(programs[name].mesh))

    return running(lambda name, *own: predict(programs[name], *own), weights, random)


def running(
    run: Callable[[str, Any, Examples], dict[str, np.ndarray]],
    weights: Callable[[str], Any],
    random: Callable[[str, Any], Any],
) -> Predict:
    """Runs networks with the weights of a training, or with random ones, by the same programs.

    Args:
      run: (stage name, weights, examples) -> outputs.
      weights: of a stage, asked for once.
      random: (stage name, trained weights) -> those of `random_weights.untrained`, where `run`
        wants them.
    """
    known, bare = functools.cache(weights), functools.cache(lambda name: random(name, known(name)))

    def run_stage(
        name: str, examples: Examples, /, *, untrained: bool = False
    ) -> dict[str, np.ndarray]:
        return run(name, bare(name) if untrained else known(name), examples)

    return run_stage


def is_trained_fold(folder: Path, system: System) -> bool:
    """Whether all that a fold is applied with is in its folder."""
    from mskjax.training.checkpoints import is_trained

    return (folder / SYSTEM).exists() and all(is_trained(folder / s.name) for s in system.stages)


def check_trained(folder: Path, system: System) -> None:
    """Refuses a fold that is not trained to its end.

    Raises:
      UserError: naming what is missing.
    """
    from mskjax.training.checkpoints import is_trained

    for stage in system.stages:
        if not is_trained(folder / stage.name):
            raise UserError(f"{folder / stage.name} is not trained; run with --mode=train first.")
    read_system(folder)


def read_system(folder: Path) -> dict[str, Any]:
    """What a fold measured and fitted, of ``fold_<k>/system.json``.

    Raises:
      UserError: it is missing.
    """
    path = folder / SYSTEM
    if not path.exists():
        raise UserError(f"{path} is missing; run with --mode=train first.")
    return json.loads(path.read_text())


def write_system(
    folder: Path, system: System, fitted: Mapping[str, Any], baselines: Mapping[str, Any]
) -> None:
    """Writes ``fold_<k>/system.json``.

    Args:
      folder: ``fold_<k>``.
      system: built with `fitted`.
      fitted: see `System.measure` and `System.fit`.
      baselines: see `System.fit_baselines`.
    """
    content = {**system.meaning(), "fitted": dict(fitted), "baselines": dict(baselines)}
    write_json(folder / SYSTEM, content)
