"""A sweep file: which study, what may differ, how it is searched, by which figure."""

import dataclasses
import difflib
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mskjax import experiment, extensions, fields, systems
from mskjax.config import StudyConfig, parse, to_json
from mskjax.errors import UserError
from mskjax.sweeps import space
from mskjax.workdir import without_movable

SAMPLERS = ("tpe", "random")
PRUNERS = ("none", "median")
DIRECTIONS = ("maximize", "minimize")
# Beginnings of the names of figures that are better where they are lower.
_LOWER = ("assd", "brier", "ece", "hd95", "log_loss", "mean_absolute_error", "missed")


class Refused(UserError):
    """The values of a trial make no config together: this trial fails, others need not."""


@dataclasses.dataclass(frozen=True)
class SweepConfig:
    """What a sweep file sets.

    Attributes:
      study: experiment that is varied, NAME[:VARIANT].
      space: dotted field -> {"low", "high", "log", "step"} or {"choices"}.
      trials: budget: how many trials there are, failed and pruned ones included.
      name: of the study in the storage; left out: the name of the file.
      overrides: dotted field -> value that all trials have.
      objective: end-to-end figure that is searched for; left out: the system's primary one.
      direction: maximize or minimize; left out: what the figure's name says.
      sampler: tpe (models the trials so far) or random.
      pruner: none, or median: after each fold, a trial below the median of the others ends.
      startup: trials that are drawn at random before tpe models and before median ends any.
      folds: numbers of the folds of a trial; left out: all that cross-validate. With one of several
        folds its test patients are sealed: no trial trains, validates or tests on them.
      seed: of the sampler; each trial draws from (seed, number), on whichever worker.
    """

    study: str
    space: Mapping[str, Any]
    trials: int
    name: str = ""
    overrides: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    objective: str = ""
    direction: str = ""
    sampler: str = "tpe"
    pruner: str = "none"
    startup: int = 10
    folds: tuple[int, ...] = ()
    seed: int = 0

    def __post_init__(self) -> None:
        for name, allowed in (
            ("sampler", SAMPLERS),
            ("pruner", PRUNERS),
            ("direction", ("", *DIRECTIONS)),
        ):
            if getattr(self, name) not in allowed:
                known = ", ".join(a for a in allowed if a)
                raise UserError(f"sweep.{name} is {getattr(self, name)!r}; give one of {known}.")
        if self.trials < 1:
            raise UserError(f"sweep.trials is {self.trials}; it must be at least 1.")
        if not self.space:
            raise UserError("sweep.space is empty; name at least one field that may differ.")
        if self.pruner != "none" and len(self.folds) == 1:
            raise UserError(
                "sweep.pruner compares trials after each fold but the last, and there is one;"
                ' name more folds, or set pruner "none".'
            )


@dataclasses.dataclass(frozen=True)
class Sweep:
    """A sweep, resolved.

    Attributes:
      config: what the file sets, with nothing left out.
      base: the study's config, complete, with the overrides.
      parameters: dotted field -> what it may be.
    """

    config: SweepConfig
    base: Mapping[str, Any]
    parameters: Mapping[str, space.Parameter]

    def config_of(self, values: Mapping[str, Any]) -> StudyConfig:
        """The config of a trial.

        Raises:
          Refused: these values make no config.
        """
        try:
            made = parse(StudyConfig, space.applied(self.base, values))
            module = systems.load(made.system)
            module.check(made)
            module.build(made)
        except UserError as error:
            raise Refused(str(error)) from None
        return made

    @property
    def declared(self) -> dict[str, Any] | None:
        """The study's own values; None where one of them is outside of the space."""
        own = {name: space.value_at(self.base, name) for name in self.parameters}
        inside = all(p.holds(own[name]) for name, p in self.parameters.items())
        return own if inside else None

    @property
    def content(self) -> dict[str, Any]:
        """What two workers of one sweep agree on, as JSON: all but where things lie."""
        own = json.loads(to_json(self.config))
        del own["study"], own["overrides"]  # both are in what they lead to
        return {**own, "base": without_movable(json.loads(to_json(self.config_of({}))))}

    @property
    def identity(self) -> str:
        """Short hash of `content`."""
        text = json.dumps(self.content, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]


def names() -> dict[str, Path]:
    """Name -> file of the shipped sweeps and of those in a user's own folders."""
    own = [f"{folder}/sweeps" for folder in extensions.folders("experiments")]
    return extensions.found("experiments", [str(experiment.SHIPPED / "sweeps"), *own])


def find(name: str) -> Path:
    """The file that ``--config`` names: a sweep's name, or a path.

    Raises:
      UserError: there is none.
    """
    path, known = Path(name), names()
    if path.suffix == ".py" and path.is_file():
        return path
    if name in known:
        return known[name]
    near = difflib.get_close_matches(path.stem, known, 1)
    hint = f"did you mean {near[0]!r}?" if near else f"known sweeps: {', '.join(known)}."
    raise UserError(f"--config={name} is neither a sweep file nor a sweep's name; {hint}")


def load(name: str) -> Sweep:
    """The sweep that ``--config`` names; imports jax.

    Raises:
      UserError: the file, a field, the space or the study is wrong.
    """
    file = find(name)
    values = experiment.made(file)
    if not isinstance(values, Mapping):
        shipped = experiment.SHIPPED / "sweeps"
        raise UserError(f"--config: get_config of {file} gives no mapping; see {shipped}.")
    return resolved(parse(SweepConfig, values, "sweep"), file.stem)


def resolved(config: SweepConfig, name: str) -> Sweep:
    """A sweep with nothing left open, and every end of its space tried.

    Args:
      config: what a file sets.
      name: that it has where it names itself nothing.

    Raises:
      UserError: a field, a figure or an end of the space is wrong, or nobody validates.
    """
    study = fields.completed(experiment.load(config.study)).to_dict()
    base = space.applied(study, config.overrides)
    parameters = {
        key: space.parameter(key, spec, space.value_at(base, key))
        for key, spec in config.space.items()
    }
    sweep = Sweep(config, base, parameters)
    made = sweep.config_of({})
    _check_division(made)
    for key, known in parameters.items():
        for value in known.ends:
            try:
                sweep.config_of({key: value})
            except UserError as error:
                raise UserError(f"sweep.space.{key}, {value!r}: {error}") from None
    objective = config.objective or systems.load(made.system).build(made).primary
    direction = config.direction or direction_of(objective)
    told = dataclasses.replace(
        config, name=config.name or name, objective=objective, direction=direction
    )
    return dataclasses.replace(sweep, config=told)


def direction_of(figure: str) -> str:
    """Whether a figure is better where it is higher, by its name."""
    lower = figure.startswith(_LOWER) or "error" in figure.split("_")
    return "minimize" if lower else "maximize"


def _check_division(config: StudyConfig) -> None:
    if config.data.splits is None and config.data.validation_fraction == 0:
        raise UserError(
            "config.data.validation_fraction is 0: a sweep chooses by validation patients; set it"
            " in the sweep's overrides, e.g. to 0.2."
        )
    if config.data.split == "by_case":
        raise UserError(
            "config.data.split is by_case: cases of one patient lie on both sides, so choosing by"
            " them would read test patients; use another division."
        )
