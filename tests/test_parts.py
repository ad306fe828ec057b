"""Stages by name, and what a stage needs of those before it."""

from pathlib import Path
from types import SimpleNamespace

import pytest
from test_going_on import config_of

from mskjax import parts, study
from mskjax.errors import UserError


def test_a_group_of_the_config_names_all_its_stages():
    config = config_of("modic_changes")
    every = parts.chosen(config, ["boxes", "grades"])
    assert every[0] == "boxes"
    assert len(every) > 2
    assert parts.chosen(config, ["grades"]) == every[1:]
    assert parts.chosen(config, [every[2], "boxes"]) == ["boxes", every[2]]  # in their order
    assert parts.chosen(config, []) == []
    with pytest.raises(UserError, match="modic_changes has no stage 'boxs'; did you mean 'boxes'"):
        parts.chosen(config, ["boxs"])


class Examples:
    def __init__(self):
        self.asked = []

    def __call__(self, stage):
        self.asked.append(stage.name)
        return SimpleNamespace(training_rows=lambda fold, title: None)


def fold_of(folder, recuts):
    stages = tuple(SimpleNamespace(name=name) for name in ("boxes", "grades"))
    examples = Examples()
    setting = SimpleNamespace(
        system=SimpleNamespace(stages=stages, recuts=recuts),
        examples=examples,
        divided=SimpleNamespace(folds=[None]),
    )
    return SimpleNamespace(setting=setting, folder=Path(folder), number=0, title="fold_0"), examples


def test_a_stage_that_learns_from_the_first_one_needs_it(tmp_path):
    fold, examples = fold_of(tmp_path / "fold_0", recuts=True)
    with pytest.raises(UserError, match="grades learns from what boxes finds.*--stages=boxes"):
        study._check_examples([fold], ["grades"])
    study._check_examples([fold], [])
    assert examples.asked == ["boxes"]
    for name in ("architecture.json", "cost.json"):
        path = tmp_path / "fold_0" / "boxes" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("{}")
    study._check_examples([fold], ["grades"])
    assert examples.asked == ["boxes"]


def test_a_stage_that_learns_from_references_alone_does_not(tmp_path):
    fold, examples = fold_of(tmp_path / "fold_0", recuts=False)
    study._check_examples([fold], ["grades"])
    assert examples.asked == ["grades"]
