import pytest

from mskjax.reporting import wording


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("dice_disc", "Dice, disc"),
        ("quadratic_weighted_kappa", "Quadratic weighted kappa"),
        ("accuracy", "Accuracy"),
        ("balanced_accuracy", "Balanced accuracy"),
        ("auroc_mild_vs_moderate", "AUROC, mild vs moderate"),
        ("sensitivity_mc1", "Sensitivity, MC1"),
        ("hd95_humerus", "95th-percentile Hausdorff distance, humerus (mm)"),
        ("ap50", "Average precision at IoU 0.50"),
        ("mean_iou", "Mean IoU"),
        ("regions_found", "Regions found"),
    ],
)
def test_metric_names_are_readable(name, expected):
    assert wording.metric(name) == expected


def test_numbers_have_three_decimals_and_null_is_not_defined():
    assert wording.number(0.71234) == "0.712"
    assert wording.number(1.0) == "1.000"
    assert wording.number(12) == "12"
    assert wording.number(None) == wording.number(float("nan")) == "not defined"
    assert wording.interval([0.5, 0.98765]) == "0.500 to 0.988"
    assert wording.interval(None) == "–"


def test_settings_keep_their_precision():
    assert wording.setting(1e-5) == "1e-05"
    assert wording.setting(0.00031) == "0.00031"
    assert wording.setting([1, {"a": None}]) == "1, a: none"
    assert wording.setting("") == "none"


def test_costs_have_units():
    assert wording.cost("wall_s", 4361.0) == "1 h 12 min"
    assert wording.cost("wall_s", 125) == "2 min 5 s"
    assert wording.cost("compile_s", 4.25) == "4.2 s"
    assert wording.cost("peak_memory_bytes", 3 * 2**30) == "3.0 GiB"
    assert wording.cost("steps_per_s", {"grade": 5.5}) == "Grade 5.50 /s"
    assert wording.cost("stages", {"grade": {"wall_s": 61.0}}) == "Grade Wall 1 min 1 s"
    assert wording.cost("peak_memory_bytes", None) == "not measured"
