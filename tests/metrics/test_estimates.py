"""Means and ratios of columns of cases.csv, by hand."""

import json
import math

import pytest

from mskjax.metrics import estimates

SETTINGS = {"resamples": 20, "seed": 0}


def test_means_leave_empty_cells_out_and_ratios_divide_sums():
    cells = (("1", "2", "4"), ("", "1", "2"), ("4", "0", "3"))
    rows = [
        {"patient": f"p{i}", "gaps": a, "right": b, "found": c} for i, (a, b, c) in enumerate(cells)
    ]
    means = estimates.means(rows, ("gaps", "right"), **SETTINGS)
    assert (means["gaps"]["value"], means["gaps"]["n"]) == (2.5, 2)
    assert (means["right"]["value"], means["right"]["n"]) == (1, 3)
    share = estimates.ratios(rows, {"share": ("right", "found")}, **SETTINGS)["share"]
    assert share["value"] == pytest.approx(3 / 9)
    low, high = share["ci95"]
    assert 0 <= low < share["value"] < high <= 0.5
    assert estimates.means([], ("gaps",), **SETTINGS) == {}
    assert estimates.ratios([], {"share": ("right", "found")}, **SETTINGS) == {}


def test_structures_are_means_over_the_studies_that_have_them():
    metrics = estimates.STRUCTURE_METRICS
    rows = [
        {"patient": f"p{i}", "name": name, **dict.fromkeys(metrics, value)}
        for i, (name, value) in enumerate(
            [("muscle", "0.8"), ("muscle", "0.6"), ("muscle", ""), ("fossa", "0.4")]
        )
    ]
    found = estimates.structures(rows, ("muscle", "fossa", "bone"), **SETTINGS)
    assert list(found) == [f"{m}_{s}" for s in ("muscle", "fossa") for m in metrics]
    assert found["dice_muscle"]["value"] == pytest.approx(0.7)
    assert found["dice_muscle"]["n"] == 2
    assert found["hd95_fossa"]["value"] == pytest.approx(0.4)


def test_what_the_grid_leaves_stands_after_dice_with_its_worst_study():
    rows = [
        {"patient": f"p{i}", "name": name, "dice": dice, "dice_ceiling": ceiling}
        for i, (name, dice, ceiling) in enumerate(
            [("disc", "0.8", "0.95"), ("disc", "0.7", "0.91"), ("disc", "", ""), ("bone", "1", "")]
        )
    ]
    found = estimates.structures(rows, ("disc", "bone"), **SETTINGS)
    assert list(found)[:3] == ["dice_disc", "dice_ceiling_disc", "dice_ceiling_least_disc"]
    assert found["dice_ceiling_disc"]["value"] == pytest.approx(0.93)
    assert found["dice_ceiling_disc"]["n"] == 2
    assert found["dice_ceiling_least_disc"]["value"] == pytest.approx(0.91)
    assert found["dice_ceiling_least_disc"]["ci95"] is None
    assert "dice_ceiling_bone" not in found


def test_structures_over_folds_average_the_cases_of_a_fold_first():
    rows = [
        {"fold": fold, "name": name, "dice": dice, "pixel_accuracy": "0.5"}
        for fold, name, dice in [
            ("0", "muscle", "0.8"),
            ("0", "muscle", "0.6"),
            ("0", "muscle", ""),
            ("10", "muscle", "0.9"),
            ("2", "fossa", "0.4"),
        ]
    ]
    found = estimates.structures_over_folds(rows, ["muscle", "fossa", "bone"])
    json.dumps(found, allow_nan=False)
    assert list(found) == [
        f"{m}_{s}" for s in ("muscle", "fossa") for m in ("dice", "pixel_accuracy")
    ]
    assert found["dice_muscle"] == {
        "mean": pytest.approx(0.8),
        "sd": pytest.approx(0.1 * math.sqrt(2)),
        "values": [pytest.approx(0.7), None, pytest.approx(0.9)],
        "folds": 2,
    }
    assert found["dice_fossa"]["values"] == [None, pytest.approx(0.4), None]
    assert estimates.structures_over_folds([], ["muscle"]) == {}
    (only,) = estimates.structures_over_folds(rows, ["fossa"], ("dice",))
    assert only == "dice_fossa"


def test_an_infinite_distance_has_no_mean():
    rows = [{"patient": f"p{i}", "hd95": v} for i, v in enumerate(("1.0", "inf", "2.0"))]
    figure = estimates.means(rows, ("hd95",), **SETTINGS)["hd95"]
    assert (figure["value"], figure["n"], figure["why"]) == (None, 3, "infinite")
