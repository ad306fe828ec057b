"""Ranges and choices: what they accept, draw and store; dotted fields of a config."""

import optuna
import pytest

from mskjax.errors import UserError
from mskjax.sweeps import space

CONFIG = {
    "seed": 0,
    "data": {"cohort": "c", "options": {"patients": 6}},
    "stages": {"grades": {"crop": (3, 8), "train": {"steps": 10, "learning_rate": 1e-3}}},
}


def drawn(known, count=40):
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    return [known.suggest(study.ask(), "x") for _ in range(count)]


def test_whole_numbers_make_whole_numbers_and_a_float_field_makes_floats():
    steps = space.parameter("steps", {"low": 10, "high": 50, "step": 20}, 10)
    assert set(drawn(steps)) == {10, 30, 50}
    rate = space.parameter("rate", {"low": 1, "high": 2}, 1e-3)
    assert all(isinstance(v, float) and 1 <= v <= 2 for v in drawn(rate))


def test_a_logarithmic_range_draws_each_octave_alike():
    values = drawn(space.parameter("rate", {"low": 1e-4, "high": 1.0, "log": True}, 0.1), 400)
    assert min(values) >= 1e-4
    assert sum(v < 1e-2 for v in values) / 400 == pytest.approx(0.5, abs=0.08)


def test_choices_may_be_tuples_and_come_back_as_they_were():
    known = space.parameter("widths", {"choices": ((8, 16), (16, 32), None)}, (8, 16))
    assert {*drawn(known)} == {(8, 16), (16, 32), None}
    assert known.value(known.stored((8, 16))) == (8, 16)
    assert known.holds((8, 16))
    assert known.holds([8, 16])
    assert not known.holds((8, 8))


@pytest.mark.parametrize(
    ("value", "inside"), [(10, True), (30, True), (20, False), (70, False), (True, False)]
)
def test_a_range_says_whether_it_holds_a_value(value, inside):
    known = space.parameter("steps", {"low": 10, "high": 50, "step": 20}, 10)
    assert known.holds(value) == inside


@pytest.mark.parametrize(
    ("value", "near"), [(1e-4, True), (1.1e-4, True), (2e-4, False), (1e-3, False), (9.9e-3, True)]
)
def test_a_value_near_an_end_is_told_on_the_ranges_own_scale(value, near):
    assert space.Range(1e-4, 1e-2, log=True).is_near_end(value) == near
    assert space.Range(0.0, 1.0).is_near_end(0.02)
    assert not space.Range(0.0, 1.0).is_near_end(0.2)
    assert not space.Choice((1, 2)).is_near_end(2)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (3, "space.f is 3; give low and high"),
        ({"low": 1}, "give low and high"),
        ({"low": 1, "high": 2, "lgo": True}, "give low and high"),
        ({"low": 2, "high": 1}, "goes from 2 to 1; low must be below high"),
        ({"low": 0, "high": 1, "log": True}, "low must be above 0"),
        ({"low": 1, "high": 9, "step": 3}, "no whole number of steps of 3 leads from 1 to 9"),
        ({"low": 1, "high": 9, "step": 0}, "must be above 0"),
        ({"low": 1, "high": 2.5}, "holds whole numbers"),
        ({"low": "a", "high": 2}, "'a', which is no number"),
        ({"choices": ()}, "at least one value"),
        ({"choices": (1, 1)}, "has a value twice"),
    ],
)
def test_what_makes_no_sense_is_refused(spec, message):
    with pytest.raises(UserError, match=message):
        space.parameter("f", spec, 5)


def test_fields_are_changed_in_a_copy():
    made = space.applied(
        CONFIG,
        {"stages.grades.train.steps": 20, "config.seed": 3, "data.options.seed": 1},
    )
    assert made["stages"]["grades"]["train"] == {"steps": 20, "learning_rate": 1e-3}
    assert made["seed"] == 3
    assert made["data"]["options"] == {"patients": 6, "seed": 1}  # the builder knows its options
    assert CONFIG["stages"]["grades"]["train"]["steps"] == 10


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("stages.grades.train.learning_rat", "no field 'learning_rat'; did you mean 'learning_ra"),
        ("stages.grade.train.steps", "no field 'grade'; did you mean 'grades'"),
        ("seed.x", "'seed' is a value, not a group"),
    ],
)
def test_unknown_fields_are_named_with_the_nearest(name, message):
    with pytest.raises(UserError, match=message):
        space.applied(CONFIG, {name: 1})
    with pytest.raises(UserError, match=message):
        space.value_at(CONFIG, name)


def test_a_reader_sees_short_names_and_few_digits():
    shown = space.shown("stages.grades.train.learning_rate", 0.00212345)
    assert shown == "grades.train.learning_rate 0.002123"
