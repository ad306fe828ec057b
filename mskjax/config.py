"""ConfigDict in, frozen dataclasses out, every field checked once.

A study reads its options only through these dataclasses, so a misspelt or mistyped field is an
error before anything is packaged or trained.  Systems declare the options of their stages as
dataclasses of their own (see `systems/disc_degeneration`) and parse them with `parse`.
"""

import dataclasses
import difflib
import json
import types
import typing
from collections.abc import Iterator, Mapping
from typing import Any, TypeVar

from mskjax.errors import UserError

T = TypeVar("T")

MODES = ("train", "evaluate", "report")  # the parts of a study, in order
SPLITS = ("folds", "official", "folds_and_official", "by_case")

# What networks may be asked for.  It stands here because options are read where no network is, of a
# model that was exported.
Norm = typing.Literal["batch", "group", "instance"]
Dtype = typing.Literal["float32", "bfloat16"]  # of the computation; parameters are float32
GROUPS = 8  # of channels, in group normalisation


@dataclasses.dataclass(frozen=True)
class DataConfig:
    """Which cohort, where it lies and how its patients are divided.

    Attributes:
      cohort: builder name, a package of `tfds_builders`.
      config: builder config, e.g. ``phantom`` or ``spider_t2space``.
      data_dir: folder of packaged cohorts; relative paths are relative to the working directory.
      manual_dir: the user's raw files; not needed once the cohort is packaged.
      options: fields of the builder config to change (e.g. number of phantom patients).
      split: ``folds`` (patient-grouped, stratified), ``official`` (the cohort's own division),
        ``folds_and_official`` (folds of its training part, then all of it against its held-out
        part) or ``by_case`` (cases of one patient on both sides; only to show what leakage does).
      splits: a splits.json to use instead of making one, see `data.splits.load`; the way to leave
        patients out, and to repeat cross-validation.
      folds: number of folds of ``folds`` and ``folds_and_official``.
      validation_fraction: share of each fold's training patients that is kept from training, for
        the selection of checkpoints; 0 keeps none.
      shuffle_labels: control run: every study gets the labels of a study drawn at random, so that
        figures above chance reveal a leak.
    """

    cohort: str
    config: str
    data_dir: str = "data"
    manual_dir: str | None = None
    options: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    split: str = "folds"
    splits: str | None = None
    folds: int = 5
    validation_fraction: float = 0.1
    shuffle_labels: bool = False


@dataclasses.dataclass(frozen=True)
class TrainConfig:
    """How one stage is trained: AdamW, linear warm-up, cosine decay to zero.

    From ``steps`` to ``ema_decay``, but for the batch size, a change compiles nothing: see
    `training.hyper`.

    Attributes:
      steps: optimiser steps in all.  A training that is begun may be given more: it goes on from
        its last state, at the rate that the new number's schedule has there (docs/going_on.md).
      batch_size: examples a step, over all devices; a multiple of the number of devices.
      learning_rate: peak of the schedule.
      warmup_steps: steps of the linear rise from 0; fewer than `steps`.
      weight_decay: decoupled decay, on weights of rank 2 and more only.
      clip_norm: global gradient norm above which gradients are scaled down.
      ema_decay: decay of the exponential moving average of weights that is evaluated; 0 = none.
        It warms up, see `training.hyper.average_decay`.
      balance: ``none``, ``weights`` (inverse class frequency in the loss) or ``sampling``
        (each class drawn equally often; of several heads, by the first).
      validate_every: steps between evaluations on the validation patients.
      checkpoint_every: steps between saves of the latest state.
      log_every: steps between rows of metrics.jsonl.
      select: ``best`` (lowest validation loss) or ``latest`` weights are used after training;
        without validation patients it is always the latest.
    """

    steps: int = 1_000
    batch_size: int = 8
    learning_rate: float = 1e-3
    warmup_steps: int = 10
    weight_decay: float = 1e-4
    clip_norm: float = 1.0
    ema_decay: float = 0.0
    balance: str = "none"
    validate_every: int = 100
    checkpoint_every: int = 100
    log_every: int = 10
    select: str = "latest"

    def __post_init__(self) -> None:
        _positive(
            self,
            "train",
            "steps",
            "batch_size",
            "learning_rate",
            "clip_norm",
            "validate_every",
            "checkpoint_every",
            "log_every",
        )
        _one_of(self.balance, ("none", "weights", "sampling"), "train.balance")
        _one_of(self.select, ("best", "latest"), "train.select")
        if not 0 <= self.ema_decay < 1:
            raise UserError(f"train.ema_decay is {self.ema_decay}; it must be in [0, 1).")
        if not 0 <= self.warmup_steps < self.steps:
            raise UserError(
                f"train.warmup_steps is {self.warmup_steps} and train.steps is {self.steps}; the"
                " warm-up must be shorter than the run: change one of the two."
            )


@dataclasses.dataclass(frozen=True)
class PopulationConfig:
    """Trainings that run as one program, see `training.population`.

    Attributes:
      seeds: trainings of each fold, of as many seeds from ``train_seed`` on, which the report
        pools; each lies in ``seed_<s>`` as a run of its own.
      folds: ``one`` after another, or ``all`` together.
      members: recipes that train together, name -> what differs below the config, e.g.
        ``{"fast": {"stages": {"regions": {"train": {"learning_rate": 0.003}}}}}``; each lies in
        ``member_<name>`` as a run of its own.  What changes shapes is refused.
      share: how trainings share a device: ``unrolled``, ``vmapped``, ``mapped``, or ``chosen`` by
        platform.
    """

    seeds: int = 1
    folds: typing.Literal["one", "all"] = "one"
    members: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    share: typing.Literal["chosen", "unrolled", "vmapped", "mapped"] = "chosen"

    def __post_init__(self) -> None:
        _positive(self, "config.population", "seeds")


@dataclasses.dataclass(frozen=True)
class StudyConfig:
    """A whole study.

    Attributes:
      system: name of a module of `mskjax.systems`.
      variant: name of the experiment's variant, for the report.
      data: cohort and division.
      stages: options per stage, parsed by the system.
      options: options of the system itself (e.g. which grades are "moderate").
      seed: the one seed: folds, initialisation, data order, augmentation and bootstrap.
      train_seed: another seed for initialisation, data order and augmentation, on the same folds;
        None takes `seed`.
      population: trainings that run as one program.
      resamples: bootstrap resamples of the report's intervals.
      devices: number of devices on the mesh axis ``data``; None = all.
    """

    system: str
    variant: str
    data: DataConfig
    stages: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    options: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    seed: int = 0
    train_seed: int | None = None
    population: PopulationConfig = dataclasses.field(default_factory=PopulationConfig)
    resamples: int = 10_000
    devices: int | None = None

    def __post_init__(self) -> None:
        _positive(self, "config", "resamples")
        _one_of(self.data.split, SPLITS, "config.data.split")
        if self.data.folds < 2:
            raise UserError(f"config.data.folds is {self.data.folds}; it must be at least 2.")
        if not 0 <= self.data.validation_fraction < 1:
            raise UserError(
                f"config.data.validation_fraction is {self.data.validation_fraction}; it must be"
                " in [0, 1)."
            )


def parse(cls: type[T], values: Mapping[str, Any], where: str = "config") -> T:
    """Builds dataclass `cls` from nested mappings.

    Args:
      cls: a dataclass; fields may be scalars, tuples, mappings, optionals or dataclasses.
      values: nested mapping, e.g. a ConfigDict's `to_dict()`.
      where: dotted path of `values`, used in messages.

    Raises:
      UserError: a field is unknown (with the nearest known one), missing, or of a wrong type.
    """
    hints = typing.get_type_hints(cls)
    fields = {f.name: f for f in dataclasses.fields(cls)}  # type: ignore[arg-type]
    for name in values:
        if name not in fields:
            near = difflib.get_close_matches(name, fields, 1)
            hint = f"did you mean {near[0]!r}?" if near else f"known fields: {', '.join(fields)}."
            raise UserError(f"{where}.{name} is not a field; {hint}")
    missing = [
        name
        for name, f in fields.items()
        if values.get(name) is None
        and f.default is dataclasses.MISSING
        and f.default_factory is dataclasses.MISSING
    ]
    if missing:
        raise UserError(f"{where} lacks {', '.join(missing)}; set it in the experiment file.")
    built = {name: _convert(hints[name], v, f"{where}.{name}") for name, v in values.items()}
    return cls(**built)


def check_norm(norm: str, *widths: int) -> None:
    """Refuses widths that group normalisation cannot divide.

    Raises:
      UserError: with the width.
    """
    for width in widths:
        if norm == "group" and width % GROUPS:
            raise UserError(
                f"model.norm is 'group', which divides channels into {GROUPS} groups, but a width"
                f" is {width}; choose a multiple of {GROUPS}, or norm 'batch' or 'instance'."
            )


def to_json(config: Any) -> str:
    """The resolved config as JSON; equal configs give equal text."""
    return json.dumps(dataclasses.asdict(config), indent=2, sort_keys=True) + "\n"


def differences(
    old: Mapping[str, Any],
    new: Mapping[str, Any],
    where: str = "config",
    words: str = "{} was {!r}, now {!r}",
) -> list[str]:
    """What two JSON configs differ in: `words` with dotted name and both values of each field."""
    return [words.format(*change) for change in changes(old, new, where)]


def changes(
    old: Mapping[str, Any], new: Mapping[str, Any], where: str = "config"
) -> Iterator[tuple[str, Any, Any]]:
    """Dotted name and both values of each field that two JSON configs differ in."""
    for name in sorted({*old, *new}):
        a, b = old.get(name), new.get(name)
        path = f"{where}.{name}"
        if isinstance(a, Mapping) and isinstance(b, Mapping):
            yield from changes(a, b, path)
        elif a != b:
            yield path, a, b


def _convert(hint: Any, value: Any, where: str) -> Any:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (types.UnionType, typing.Union):
        if value is None:
            return None
        return _convert(next(a for a in arguments if a is not type(None)), value, where)
    if hint is Any:
        return value
    if origin is typing.Literal:
        _one_of(value, arguments, where)
        return value
    if dataclasses.is_dataclass(hint):
        if not isinstance(value, Mapping):
            raise UserError(f"{where} is {value!r}; it must be a group of fields.")
        return parse(typing.cast(type, hint), value, where)
    if origin is tuple:
        if not isinstance(value, (list, tuple)):
            raise UserError(f"{where} is {value!r}; it must be a tuple.")
        if len(_items(arguments, value)) != len(value):
            raise UserError(f"{where} is {value!r}; it must have {len(arguments)} values.")
        return tuple(
            _convert(a, v, where) for a, v in zip(_items(arguments, value), value, strict=True)
        )
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return dict(value)
    return _scalar(hint, value, where)


def _items(arguments: tuple, value: Any) -> tuple:
    return arguments[:1] * len(value) if arguments[-1] is Ellipsis else arguments


def _scalar(hint: type, value: Any, where: str) -> Any:
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if not isinstance(value, hint) or (isinstance(value, bool) and hint is not bool):
        raise UserError(f"{where} is {value!r}; it must be of type {hint.__name__}.")
    return value


def _positive(config: Any, where: str, *names: str) -> None:
    for name in names:
        if not getattr(config, name) > 0:
            raise UserError(f"{where}.{name} is {getattr(config, name)}; it must be above 0.")


def _one_of(value: Any, allowed: tuple[Any, ...], where: str) -> None:
    if value not in allowed:
        raise UserError(f"{where} is {value!r}; it must be one of {', '.join(map(str, allowed))}.")
