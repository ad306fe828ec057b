"""What a trial is worth: validation patients of its folds together, fold by fold."""

from types import SimpleNamespace

import pytest

from mskjax.errors import UserError
from mskjax.sweeps import objective
from mskjax.sweeps.objective import Objective, estimate

CONFIG = SimpleNamespace(system="toy", seed=3)


class System:
    """Its figure is the share of right cases."""

    def summarise(self, rows, resamples, seed):
        self.asked = (resamples, seed)
        right = [r["right"] for r in rows]
        figure = {"value": sum(right) / len(right), "ci95": [0, 1], "n": len(right)}
        return {"end_to_end": {"accuracy_toy": figure}, "oracle_region": {"other": figure}}


@pytest.fixture
def system(monkeypatch):
    made = System()
    module = SimpleNamespace(build=lambda config: made)
    monkeypatch.setattr(objective.systems, "load", lambda name: module)
    return made


def test_folds_are_pooled_case_by_case_not_averaged(system, monkeypatch, tmp_path):
    folds = {0: [1, 1, 1, 0], 2: [0]}

    def validated(config, folder, numbers):
        assert (config, folder, numbers) == (CONFIG, tmp_path, (0, 2))
        for left, (fold, right) in zip((1, 0), folds.items(), strict=True):
            yield fold, [{"right": r, "seed": "0"} for r in right], left

    monkeypatch.setattr(objective.validation, "validated", validated)
    sweep = SimpleNamespace(
        config_of=lambda values: CONFIG,
        config=SimpleNamespace(objective="accuracy_toy", folds=(0, 2)),
    )
    first, second = Objective(sweep)({}, tmp_path)
    assert (first.fold, first.left, first.alone) == (0, 1, 0.75)
    assert first.estimate["value"] == 0.75
    assert (second.fold, second.left, second.alone) == (2, 0, 0.0)
    assert second.estimate == {"value": 3 / 5, "ci95": [0, 1], "n": 5}
    assert system.asked == (objective.RESAMPLES, 3)


def test_a_figure_that_the_system_lacks_is_named_with_the_nearest(system):
    rows = [{"right": 1, "seed": "0"}]
    assert estimate(CONFIG, rows, "accuracy_toy", 10)["value"] == 1
    with pytest.raises(UserError, match="no end-to-end figure 'acuracy_toy'; did you mean 'accur"):
        estimate(CONFIG, rows, "acuracy_toy", 10)
    with pytest.raises(UserError, match="known: accuracy_toy"):
        estimate(CONFIG, rows, "xyz", 10)
