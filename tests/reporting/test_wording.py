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
        ("dice_scapula_unet_scapula", "Dice, scapula U-Net scapula"),
        ("hd95_humerus", "95th-percentile Hausdorff distance, humerus (mm)"),
        ("ap50", "Average precision at IoU 0.50"),
        ("map", "Mean average precision"),
        ("share_iou_over_70", "Share with IoU above 0.70"),
        ("mean_iou", "Mean IoU"),
        ("regions_found", "Regions found"),
        ("log_loss", "Log loss (nats)"),
        ("npv", "Negative predictive value"),
        ("average_precision", "Average precision"),
        ("ap50_disc", "Average precision at IoU 0.50, disc"),
        ("sensitivity_at_specificity_90", "Sensitivity at specificity 0.90"),
        ("sensitivity_at_specificity_90_task_d", "Sensitivity at specificity 0.90, task D"),
        ("auroc_task_d", "AUROC, task D"),
        ("log_loss_task_a", "Log loss, task A (nats)"),
        ("within_one_grade_goutallier", "Within one grade, Goutallier"),
        ("within_5_mm", "Within 5 mm"),
        ("slice_error_mm", "Slice error (mm)"),
        ("angle_error_deg", "Angle error (°)"),
        ("box_iou", "Box IoU"),
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


def test_unknown_numbers_are_dashes_where_a_table_explains_them():
    assert wording.number_or_dash(None) == wording.number_or_dash(float("nan")) == "–"
    assert wording.number_or_dash(0.5) == "0.500"
    assert wording.number_or_dash("text") == "text"


@pytest.mark.parametrize(
    ("p", "expected"),
    [
        (0.0, "< .001"),
        (0.00099, "< .001"),
        (0.001, ".001"),
        (0.0496, ".050"),
        (0.5, ".500"),
        (1, "1.000"),
        (None, "–"),
        (float("nan"), "–"),
    ],
)
def test_p_values_never_claim_to_be_zero(p, expected):
    assert wording.p_value(p) == expected


def test_a_single_letter_is_a_task_only_after_the_word():
    assert wording.label("task_d") == "Task D"
    assert wording.label("steps_per_s") == "Steps per s"


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
