"""What may differ between the trials of a sweep: ranges and choices of config fields."""

import dataclasses
import difflib
import json
import math
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from mskjax.errors import UserError

_RANGE, _CHOICE = {"low", "high", "log", "step"}, {"choices"}
_END = 0.05  # of a range, on its own scale
_SCALARS = (bool, int, float, str, type(None))


class Suggests(Protocol):
    """What is asked of an Optuna trial."""

    def suggest_int(self, name: str, low: int, high: int, *, step: int, log: bool) -> int:
        """A whole number."""

    def suggest_float(
        self, name: str, low: float, high: float, *, step: float | None, log: bool
    ) -> float:
        """A number."""

    def suggest_categorical(self, name: str, choices: Sequence[Any]) -> Any:
        """One of the choices."""


@dataclasses.dataclass(frozen=True)
class Range:
    """Numbers of an interval, both ends included.

    Attributes:
      low, high: whole numbers make a range of whole numbers, unless the field holds a float.
      log: whether every octave is drawn as often as every other one.
      step: distance of neighbours; None for floats means any number.
    """

    low: float
    high: float
    log: bool = False
    step: float | None = None

    @property
    def ends(self) -> tuple[Any, ...]:
        """Values that are tried before anything is trained."""
        return self.low, self.high

    def holds(self, value: Any) -> bool:
        """Whether a trial could have this value."""
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            return False
        steps = 0.0 if self.step is None else (value - self.low) / self.step
        return self.low <= value <= self.high and abs(steps - round(steps)) < 1e-9

    def is_near_end(self, value: float) -> bool:
        """Whether a value lies in the outer twentieth of the range, so that a wider one may pay."""
        low, high = (math.log(v) if self.log else v for v in (self.low, self.high))
        place = ((math.log(value) if self.log else value) - low) / (high - low)
        return not _END < place < 1 - _END

    def stored(self, value: Any) -> Any:
        """As the storage holds it."""
        return value

    def value(self, stored: Any) -> Any:
        """The value that the storage holds so."""
        return stored

    def suggest(self, trial: Suggests, name: str) -> Any:
        """The value of a trial."""
        low, high, step = self.low, self.high, self.step
        if isinstance(low, int) and isinstance(high, int):
            return trial.suggest_int(name, low, high, step=int(step or 1), log=self.log)
        return trial.suggest_float(name, low, high, step=step, log=self.log)


@dataclasses.dataclass(frozen=True)
class Choice:
    """One of several values, of which no order is assumed.

    Attributes:
      choices: scalars, or tuples, which a storage holds as text.
    """

    choices: tuple[Any, ...]

    @property
    def ends(self) -> tuple[Any, ...]:
        """Values that are tried before anything is trained."""
        return self.choices

    def holds(self, value: Any) -> bool:
        """Whether a trial could have this value."""
        return self.stored(value) in map(self.stored, self.choices)

    def is_near_end(self, value: Any) -> bool:
        """Never: choices have no order."""
        return False

    def stored(self, value: Any) -> Any:
        """As the storage holds it: Optuna's categories are scalars."""
        return value if isinstance(value, _SCALARS) else json.dumps(value)

    def value(self, stored: Any) -> Any:
        """The value that the storage holds so."""
        return {self.stored(value): value for value in self.choices}[stored]

    def suggest(self, trial: Suggests, name: str) -> Any:
        """The value of a trial."""
        return self.value(trial.suggest_categorical(name, [*map(self.stored, self.choices)]))


Parameter = Range | Choice


def parameter(name: str, spec: Any, current: Any) -> Parameter:
    """What a sweep file says of one field.

    Args:
      name: of the field, for messages.
      spec: ``{"low", "high"[, "log"][, "step"]}`` or ``{"choices"}``.
      current: value of the field in the study; a float there makes a range one of floats.

    Raises:
      UserError: the ends, the step or the choices make no sense.
    """
    where = f"space.{name}"
    keys = set(spec) if isinstance(spec, Mapping) else set()
    if keys == _CHOICE:
        choices = spec["choices"]
        if not isinstance(choices, (list, tuple)) or not choices:
            raise UserError(f"{where}.choices is {choices!r}; give at least one value.")
        found = Choice(tuple(choices))
        if len({found.stored(c) for c in choices}) < len(choices):
            raise UserError(f"{where}.choices has a value twice.")
        return found
    if not {"low", "high"} <= keys <= _RANGE:
        raise UserError(
            f"{where} is {spec!r}; give low and high, and perhaps log or step, or choices."
        )
    low, high, step = spec["low"], spec["high"], spec.get("step")
    log = bool(spec.get("log", False))
    for value in (low, high, *([] if step is None else [step])):
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise UserError(f"{where} has {value!r}, which is no number; use choices for that.")
    if not low < high:
        raise UserError(f"{where} goes from {low} to {high}; low must be below high.")
    if log and (low <= 0 or step is not None):
        raise UserError(f"{where} is logarithmic: low must be above 0, and there is no step.")
    if step is not None and step <= 0:
        raise UserError(f"{where}.step is {step}; it must be above 0.")
    if isinstance(current, float):
        return Range(float(low), float(high), log, None if step is None else float(step))
    if isinstance(current, int) and not all(isinstance(v, int) for v in (low, high, step or 1)):
        raise UserError(f"{where}: the field holds whole numbers; give whole numbers.")
    if step is not None and not Range(low, high, log, step).holds(high):
        raise UserError(f"{where}: no whole number of steps of {step} leads from {low} to {high}.")
    return Range(low, high, log, step)


def applied(config: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """A config with some fields changed.

    Args:
      config: nested, complete.
      changes: dotted name -> value; ``config.`` before a name may be left out.

    Raises:
      UserError: there is no such field, with the nearest one.
    """
    made = _copied(config)
    for name, value in changes.items():
        node, last = _place(made, name)
        node[last] = value
    return made


def value_at(config: Mapping[str, Any], name: str) -> Any:
    """Value of a dotted field.

    Raises:
      UserError: there is no such field, with the nearest one.
    """
    node, last = _place(dict(config), name)
    return node.get(last)


def shown(name: str, value: Any) -> str:
    """A field and its value for a reader: ``grades.train.learning_rate 0.0021``."""
    return f"{title(name)} {text(value)}"


def title(name: str) -> str:
    """A field's name without what all fields of stages begin with."""
    return name.removeprefix("config.").removeprefix("stages.")


def text(value: Any) -> str:
    """A value of a trial; floats with four digits."""
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _place(config: dict[str, Any], name: str) -> tuple[dict[str, Any], str]:
    """The group that holds a field, and the field's name there."""
    *groups, last = name.removeprefix("config.").split(".")
    node = config
    for depth, part in enumerate([*groups, last]):
        # What a cohort's builder takes is declared by the builder, which checks it.
        free = groups[:depth] == ["data", "options"]
        if part not in node and not free:
            near = difflib.get_close_matches(part, node, 1)
            hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(node)}."
            raise UserError(f"{name}: there is no field {part!r}; {hint}")
        if depth < len(groups):
            if not isinstance(node[part], dict):
                raise UserError(f"{name}: {part!r} is a value, not a group of fields.")
            node = node[part]
    return node, last


def _copied(config: Mapping[str, Any]) -> dict[str, Any]:
    return {k: _copied(v) if isinstance(v, Mapping) else v for k, v in config.items()}
