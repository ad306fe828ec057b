"""Sweep files: what they may say, how they are found, and what is refused before anything runs."""

import dataclasses

import pytest

from mskjax.errors import UserError
from mskjax.sweeps import declared
from mskjax.sweeps.declared import Refused, SweepConfig

RATE = "stages.grades.train.learning_rate"
SPACE = {RATE: {"low": 1e-4, "high": 1e-2, "log": True}}


def resolved(**changes):
    settings = {"study": "disc_degeneration", "space": SPACE, "trials": 4} | changes
    return declared.resolved(SweepConfig(**settings), "mine")


@pytest.mark.parametrize("name", declared.names())
def test_shipped_sweeps_are_whole(name):
    sweep = declared.load(name)
    assert sweep.config.name == name
    assert sweep.declared is not None, "the study's own values are the first trial"
    assert sweep.config_of(sweep.declared) == sweep.config_of({})


def test_left_out_fields_follow_from_the_study():
    sweep = resolved()
    assert sweep.config.name == "mine"
    assert sweep.config.objective == "quadratic_weighted_kappa_pfirrmann"
    assert sweep.config.direction == "maximize"
    assert sweep.config_of({RATE: 5e-3}).stages["grades"]["train"]["learning_rate"] == 5e-3
    assert resolved(overrides={"seed": 7}).config_of({}).seed == 7


@pytest.mark.parametrize(
    ("figure", "direction"),
    [
        ("dice_humerus", "maximize"),
        ("hd95_disc", "minimize"),
        ("slice_error_mm", "minimize"),
        ("brier_malignant", "minimize"),
        ("auroc_task_a", "maximize"),
    ],
)
def test_the_name_of_a_figure_says_where_it_is_better(figure, direction):
    assert declared.direction_of(figure) == direction


def test_the_study_itself_is_no_trial_where_the_space_leaves_it_out():
    assert resolved().declared == {RATE: 2e-3}
    assert resolved(space={RATE: {"low": 3e-3, "high": 1e-2}}).declared is None


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"trials": 0}, "sweep.trials is 0"),
        ({"sampler": "tpa"}, "sweep.sampler is 'tpa'; give one of tpe, random"),
        ({"pruner": "median", "folds": (0,)}, "after each fold but the last, and there is one"),
        ({"space": {}}, "sweep.space is empty"),
        ({"study": "disc_degeneratio"}, "did you mean 'disc_degeneration'"),
        ({"space": {"stages.grades.train.rate": {"choices": (1,)}}}, "no field 'rate'; "),
        (
            {"space": {RATE: {"low": -1.0, "high": 1.0}}},
            r"sweep.space.stages.grades.train.learning_rate, -1.0: .*must be above 0",
        ),
        (
            {"space": {"stages.grades.model.width": {"choices": (8, 12)}}},
            "sweep.space.stages.grades.model.width, 12: .*a width is 12; choose a multiple of 8",
        ),
        ({"space": {"stages.grades.model.norm": {"choices": ("group", "grp")}}}, "'grp'"),
        ({"overrides": {"data.validation_fraction": 0.0}}, "a sweep chooses by validation patien"),
        ({"overrides": {"data.split": "by_case"}}, "would read test patients"),
    ],
)
def test_mistakes_are_named_before_anything_is_trained(changes, message):
    with pytest.raises(UserError, match=message):
        resolved(**changes)


def test_values_that_do_not_go_together_are_the_trials_own_fault():
    sweep = resolved(space={"stages.grades.train.steps": {"low": 20, "high": 400}})
    with pytest.raises(Refused, match="warm-up must be shorter"):
        sweep.config_of({"stages.grades.train.steps": 5})


def test_two_files_are_one_sweep_if_they_differ_in_nothing_but_places():
    assert resolved().identity == resolved().identity
    assert resolved().identity == resolved(overrides={"data.data_dir": "elsewhere"}).identity
    for changes in (
        {"trials": 5},
        {"seed": 1},
        {"overrides": {"seed": 1}},
        {"space": {RATE: {"low": 1e-4, "high": 2e-2, "log": True}}},
    ):
        assert resolved(**changes).identity != resolved().identity


def test_files_are_found_by_name_and_path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert declared.find("disc_degeneration_rates").is_file()
    own = tmp_path / "experiments" / "sweeps"
    own.mkdir(parents=True)
    (own / "mine.py").write_text(
        "def get_config():\n"
        "    return {'study': 'disc_degeneration', 'trials': 3,\n"
        f"            'space': {SPACE!r}}}\n"
    )
    assert declared.load("experiments/sweeps/mine.py").config.trials == 3
    monkeypatch.setenv("MSKJAX_PATH", str(tmp_path))
    assert declared.find("mine") == own / "mine.py"
    with pytest.raises(UserError, match="did you mean 'disc_degeneration_rates'"):
        declared.find("disc_degeneration_rate")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("def get_config(", r"mine.py, line 1: "),
        ("x = 1", "mine.py has no get_config"),
        ("def get_config():\n    return 3\n", "gives no mapping"),
        ("def get_config():\n    return {'studdy': 1}\n", "sweep.studdy is not a field; did you"),
        ("def get_config():\n    return {'study': 'x'}\n", "sweep lacks space, trials"),
        ("def get_config():\n    return 1 / 0\n", "line 2: ZeroDivisionError"),
    ],
)
def test_faulty_files_are_named(tmp_path, text, message):
    file = tmp_path / "mine.py"
    file.write_text(text)
    with pytest.raises(UserError, match=message):
        declared.load(str(file))


def test_every_field_says_what_it_means():
    from mskjax import fields

    named = {field.name for field in dataclasses.fields(SweepConfig)}
    assert named == set(fields.meanings(SweepConfig))
