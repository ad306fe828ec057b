"""Every field is declared with a default and a meaning, and can be set on the command line."""

import dataclasses
import typing

import pytest
from ml_collections import ConfigDict

from mskjax import commands, experiment, systems
from mskjax.config import DataConfig, StudyConfig
from mskjax.errors import UserError
from mskjax.fields import attributes, completed, groups, meanings


@pytest.fixture(autouse=True)
def _environment_stays(monkeypatch):
    monkeypatch.setattr(commands, "configure_runtime", lambda: None)


REQUIRED = {"system", "variant", "data.cohort", "data.config"}


def leaves(cls, path=()):
    """(Dotted name, type) of the fields of a dataclass and of those in it."""
    for field in dataclasses.fields(cls):
        hint = typing.get_type_hints(cls)[field.name]
        if dataclasses.is_dataclass(hint):
            yield from leaves(hint, (*path, field.name))
        else:
            yield ".".join((*path, field.name)), hint


def fields_of(system):
    stages, options = systems.declared(system)
    found = dict(leaves(StudyConfig))
    for name in ("stages", "options"):
        del found[name]
    for name, cls in stages.items():
        found |= dict(leaves(cls, ("stages", name)))
    return found | (dict(leaves(options, ("options",))) if options else {})


def value_of(config, path):
    for name in path.split("."):
        config = config[name]
    return config


@pytest.mark.parametrize("system", systems.names())
def test_every_field_has_a_default_and_a_meaning(system):
    config = completed(ConfigDict({"system": system}))
    listed = {
        f"{group.path}.{name}".lstrip("."): text
        for group in groups(config)
        for name, text in group.fields.items()
    }
    assert set(listed) == set(fields_of(system))
    for name, (value, meaning) in listed.items():
        assert (value == "required") == (name in REQUIRED - {"system"}), name
        assert meaning, name


def other(value, hint):
    """A value of the field's type that it does not have yet."""
    if value is None:
        return {int: 3, str: "file"}[typing.get_args(hint)[0]]
    if isinstance(value, ConfigDict):
        return {"a": 1}
    if isinstance(value, bool):
        return not value
    return {int: lambda v: v + 1, float: lambda v: v / 2 or 0.25}.get(type(value), lambda v: 2 * v)(
        value
    )


@pytest.mark.parametrize("system", systems.names())
def test_every_field_can_be_set_on_the_command_line(system):
    config = completed(experiment.load(system))
    asked = {n: other(value_of(config, n), hint) for n, hint in fields_of(system).items()}
    asked |= {"system": system, "data.split": "by_case"}  # no other than these would do
    asked |= {"population.folds": "all", "population.share": "mapped"}
    arguments = [f"--config.{name}={value}" for name, value in asked.items()]
    given = commands.study_flags([f"--config={system}", "--workdir=x", *arguments]).config
    given = dataclasses.asdict(given)
    assert {name: value_of(given, name) for name in asked} == asked


def test_a_field_that_the_experiment_leaves_out_changes_by_a_flag():
    flags = [
        "--config=modic_changes",
        "--workdir=x",
        "--config.stages.boxes.augmentation.noise=0",
        "--config.stages.boxes.train.balance=weights",
        "--config.stages.grades.model.dropout=1e-1",
        "--config.stages.boxes.model.anchor_ratios=(0.5, 1.0, 2.0)",
        "--config.seed",
        "4",
        "--config.data.shuffle_labels",
    ]
    config = commands.study_flags(flags).config
    boxes = config.stages["boxes"]
    assert boxes["augmentation"]["noise"] == 0.0
    assert boxes["train"]["balance"] == "weights"
    assert config.stages["grades"]["model"]["dropout"] == 0.1
    assert boxes["model"]["anchor_ratios"] == (0.5, 1.0, 2.0)
    assert config.seed == 4
    assert config.data.shuffle_labels is True


def test_wrong_values_stay_for_the_parser_to_name():
    values = {
        "system": "shoulder_bones",
        "sead": 1,
        "stages": {"edges": {"trian": {}, "train": 3}, "edge": {}},
    }
    config = completed(ConfigDict(values)).to_dict()
    assert config["sead"] == 1
    assert config["stages"]["edges"]["train"] == 3
    assert "trian" in config["stages"]["edges"]
    assert set(config["stages"]) == {"proposals", "edges", "edge"}
    with pytest.raises(UserError, match="did you mean 'shoulder_bones'"):
        completed(ConfigDict({"system": "shoulder_bone"}))


def test_whole_numbers_of_a_file_become_fractions_where_a_fraction_is_meant():
    values = {"system": "shoulder_bones", "stages": {"edges": {"spacing_mm": 1, "patch": [8, 8]}}}
    edges = completed(ConfigDict(values)).stages.edges
    assert isinstance(edges.spacing_mm, float)
    assert edges.patch == (8, 8)


def test_meanings_come_from_the_docstring():
    doc = """First.

    Attributes:
      one: ``code`` and `names`
        go on here.
      two, three: both.

      four: after a blank line: with a colon.

    Raises:
      five: no field.
    """
    assert attributes(doc) == {
        "one": "code and names go on here.",
        "two": "both.",
        "three": "both.",
        "four": "after a blank line: with a colon.",
    }
    assert attributes("First.") == {}


def test_meanings_of_bases_are_inherited():
    @dataclasses.dataclass
    class Base:
        """B.

        Attributes:
          a: base.
          b: base.
        """

        a: int = 0
        b: int = 0

    @dataclasses.dataclass
    class Derived(Base):
        """D.

        Attributes:
          b: derived.
        """

    assert meanings(Derived) == {"a": "base.", "b": "derived."}
    assert set(meanings(DataConfig)) == {f.name for f in dataclasses.fields(DataConfig)}
