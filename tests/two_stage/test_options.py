"""Options of a system and of its stages from a config."""

import dataclasses

import pytest

from mskjax.config import StudyConfig, parse
from mskjax.errors import UserError
from mskjax.two_stage.options import stage_options


@dataclasses.dataclass(frozen=True)
class Width:
    width: int = 8


@dataclasses.dataclass(frozen=True)
class Rule:
    rule: str = "majority"


STAGES = {"regions": Width, "grades": Width}


def config(stages, **options):
    values = {"system": "s", "variant": "v", "data": {"cohort": "s", "config": "v"}}
    return parse(StudyConfig, {**values, "stages": stages, "options": options})


def test_options_come_in_the_order_of_the_stages_and_the_systems_last():
    given = config({"grades": {"width": 3}, "regions": {}}, rule="any")
    assert stage_options(given, STAGES, Rule) == [Width(8), Width(3), Rule("any")]
    assert stage_options(config({"regions": {}, "grades": {}}), STAGES) == [Width(8), Width(8)]


@pytest.mark.parametrize(
    ("stages", "options", "system", "message"),
    [
        ({"regions": {}}, {}, None, "config.stages has regions; it needs regions, grades"),
        ({"regions": {}, "grades": {}, "edges": {}}, {}, None, "has regions, grades, edges; it"),
        ({"regions": {}, "grades": {}}, {"rule": "any"}, None, "has rule; this system has none"),
        ({"regions": {}, "grades": {"widht": 3}}, {}, None, r"config\.stages\.grades.*widht"),
        ({"regions": {}, "grades": {}}, {"role": "any"}, Rule, r"config\.options.*role"),
    ],
)
def test_what_does_not_belong_there_is_refused(stages, options, system, message):
    with pytest.raises(UserError, match=message):
        stage_options(config(stages, **options), STAGES, system)
