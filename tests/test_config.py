import dataclasses
from collections.abc import Mapping
from typing import Any

import pytest

from mskjax import experiment, systems
from mskjax.config import StudyConfig, TrainConfig, parse
from mskjax.errors import UserError
from mskjax.fields import completed


def phantom():
    return completed(experiment.load("disc_degeneration")).to_dict()


def parse_and_check(values):
    config = parse(StudyConfig, values)
    systems.load(config.system).check(config)


@dataclasses.dataclass(frozen=True)
class Inner:
    rate: float = 0.1
    sizes: tuple[int, ...] = (1, 2)
    pair: tuple[int, str] = (1, "a")
    name: str | None = None
    on: bool = False
    free: Mapping[str, Any] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Outer:
    needed: int
    inner: Inner = Inner()


def test_parse_converts_what_is_unambiguous():
    parsed = parse(Outer, {"needed": 3, "inner": {"rate": 1, "sizes": [4], "name": "x"}})
    assert parsed == Outer(3, Inner(rate=1.0, sizes=(4,), name="x"))
    assert isinstance(parsed.inner.rate, float)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({}, "config lacks needed"),
        (
            {"needed": 1, "inner": {"raet": 1}},
            "config.inner.raet is not a field; did you mean 'rate'",
        ),
        ({"needed": 1.5}, "config.needed is 1.5; it must be of type int"),
        ({"needed": True}, "config.needed is True"),
        ({"needed": 1, "inner": {"sizes": 3}}, "config.inner.sizes is 3; it must be a tuple"),
        ({"needed": 1, "inner": {"on": 1}}, "config.inner.on is 1; it must be of type bool"),
        ({"needed": 1, "inner": 4}, "config.inner is 4; it must be a group of fields"),
    ],
)
def test_parse_names_field_and_fix(values, message):
    with pytest.raises(UserError, match=message):
        parse(Outer, values)


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("data.split", "random", "config.data.split is 'random'; it must be one of folds"),
        ("data.folds", 1, "config.data.folds is 1"),
        ("data.validation_fraction", 1.0, "validation_fraction is 1.0"),
        ("stages.regions.train.steps", 0, "train.steps is 0; it must be above 0"),
        ("stages.regions.train.select", "last", "train.select is 'last'"),
        ("stages.grades.heads", ("modic",), "the first must be pfirrmann"),
        ("stages.grades.model.widht", 3, "widht is not a field; did you mean 'width'"),
        ("stages.grades.model.norm", "layer", "norm is 'layer'; it must be one of batch, group"),
        ("options.severity", ((1,), (2,), (3,)), "must divide the grades 1 to 5"),
        ("system", "disc_degenration", "did you mean 'disc_degeneration'"),
    ],
)
def test_a_wrong_study_is_refused_before_any_work(path, value, message):
    values = phantom()
    *parents, last = path.split(".")
    node = values
    for parent in parents:
        node = node[parent]
    node[last] = value
    with pytest.raises(UserError, match=message):
        parse_and_check(values)


def test_ema_decay_of_one_would_never_learn():
    with pytest.raises(UserError, match="ema_decay"):
        TrainConfig(steps=1, batch_size=1, ema_decay=1.0)
