import re
import xml.etree.ElementTree as ET
from typing import Any

import numpy as np
import pytest

from mskjax.reporting import curves, figures, spreads


def words(svg: bytes) -> list[str]:
    """Text drawn in a figure: Matplotlib notes each string beside its outlines."""
    return re.findall(r"<!-- (.*?) -->", svg.decode())


CURVES: dict[int, list[dict[str, Any]]] = {
    0: [{"step": 0, "train_loss": 1.0, "validation_loss": 1.2}, {"step": 5, "train_loss": 0.5}],
    1: [{"step": 0, "train_loss": float("nan"), "dice_disc": None}, {"step": 5, "dice_disc": 0.5}],
}
AUROC = {"value": 0.8512, "ci95": [0.7, 0.9501], "n": 5}
FIGURES = {
    "confusion": lambda phantom: figures.confusion_matrix(
        ["mild", "severe"], [[3, 1], [0, 0]], "Grade", phantom=phantom
    ),
    "curves": lambda phantom: curves.learning_curves(CURVES, "Segment", phantom=phantom),
    "roc": lambda phantom: curves.roc(
        [
            {"label": "Model", "points": [[0, 0], [0.2, 0.9], [1, 1]], "auroc": AUROC},
            {"label": "One class", "points": [], "auroc": {"value": None, "ci95": None}},
            {"label": "Ridge", "points": [[0, 0], [1, 1]], "auroc": None},
            {"operating": [{"label": "Senior", "fpr": 0.0, "tpr": 1.0}]},
        ],
        "Malignant",
        phantom=phantom,
    ),
    "reliability": lambda phantom: curves.reliability(
        [
            {"confidence": 0.2, "accuracy": 0.5, "n": 1},
            {"confidence": 0.9, "accuracy": 0.8, "n": 3},
        ],
        "Severe",
        phantom=phantom,
    ),
    "precision_recall": lambda phantom: curves.precision_recall(
        [
            {
                "label": "Model",
                "points": [[0, 1], [0.5, 1], [1, 0.6]],
                "band": [[0, 0.8, 1], [1, 0.5, 0.7]],
                "average_precision": {"value": 0.8, "ci95": [0.7, 0.9]},
                "prevalence": 0.4,
            },
            {"label": "Nobody", "points": [], "average_precision": None, "prevalence": 0.0},
        ],
        "Malignant",
        phantom=phantom,
    ),
    "agreement": lambda phantom: spreads.agreement(
        {
            "points": [[1.0, 0.5], [2.5, -0.5], [2.0, 0.3]],
            "bias": {"value": 0.1, "ci95": [-0.4, 0.6]},
            "limits": [-0.937, 1.137],
            "classes": ["i", "ii", "iii", "iv"],
        },
        "Pfirrmann",
        phantom=phantom,
    ),
    "studies": lambda phantom: spreads.studies(
        {"disc": [0.9, 0.8, 0.85], "canal": [0.95], "nothing": []},
        "Dice of each study",
        "Dice",
        phantom=phantom,
    ),
    "forest": lambda phantom: figures.forest(
        [
            {"name": "Model", "value": 0.8123, "lo": 0.7511, "hi": 0.8704, "n": 9},
            {"name": "Costs $5$", "value": 0.5, "source": "baseline"},
            {"name": "Published", "value": None, "source": "published"},
        ],
        "Accuracy",
        phantom=phantom,
    ),
}


@pytest.mark.parametrize("name", FIGURES)
def test_figures_are_svg_that_repeat_byte_for_byte(name):
    drawn = FIGURES[name](False)
    assert ET.fromstring(drawn).tag.endswith("svg")
    assert drawn == FIGURES[name](False)


@pytest.mark.parametrize("name", FIGURES)
def test_only_phantom_figures_carry_the_word(name):
    assert "PHANTOM" in words(FIGURES[name](True))
    assert "PHANTOM" not in words(FIGURES[name](False))


def test_confusion_matrix_gives_counts_and_row_percentages():
    drawn = words(FIGURES["confusion"](False))
    # 3 and 1 of 4 mild cases; a class without cases has no percentages.
    assert {"75.0 %", "25.0 %", "Reference standard", "Predicted"} <= set(drawn)
    assert drawn.count("–") == 2
    assert "0.0 %" not in drawn


def test_confusion_matrix_has_a_column_and_no_row_for_missed_regions():
    drawn = words(
        figures.confusion_matrix(["mild", "severe", "missed"], [[3, 0, 1], [0, 2, 2]], "t")
    )
    assert drawn.count("Missed") + drawn.count("missed") == 1
    assert {"75.0 %", "25.0 %"} <= set(drawn)
    assert drawn.count("50.0 %") == 2


def test_roc_names_curves_and_readers():
    drawn = words(FIGURES["roc"](False))
    assert {
        "chance",
        "Model, AUROC 0.851 (0.700 to 0.950)",
        "One class, not defined",
        "Ridge",
        "Senior",
        "Sensitivity",
        "1 − specificity",
    } <= set(drawn)


def line_of(svg: bytes, colour: str) -> np.ndarray:
    """Points (x, y) of the longest line of a colour."""
    paths = [
        path.get("d")
        for path in ET.fromstring(svg).iter("{http://www.w3.org/2000/svg}path")
        if f"stroke: {colour.lower()}" in path.get("style", "").lower()
    ]
    found = [np.array(re.findall(r"[ML] (\S+) (\S+)", path), float) for path in paths]
    return max(found, key=np.ptp)


def test_roc_is_drawn_to_scale_on_equal_axes():
    points = np.array([[0, 0], [0.2, 0.9], [1, 1]])
    curve = line_of(curves.roc([{"label": "m", "points": points}], "t"), figures.BLUE)
    # SVG counts y downwards.
    moved = (curve - curve[0]) * [1, -1]
    assert moved[-1, 0] == pytest.approx(moved[-1, 1], rel=1e-3)
    np.testing.assert_allclose(moved / moved[-1], points, atol=1e-3)


def test_readers_stand_where_their_rates_are():
    curve = {"label": "m", "points": [[0, 0], [1, 1]]}
    readers = {"operating": [{"label": "r", "fpr": 0.25, "tpr": 0.75}]}
    drawn = curves.roc([curve, readers], "t")
    start, end = line_of(drawn, figures.BLUE)[[0, -1]]
    places = [
        (float(use.get("x", "nan")), float(use.get("y", "nan")))
        for use in ET.fromstring(drawn).iter("{http://www.w3.org/2000/svg}use")
        if figures.ORANGE.lower() in use.get("style", "").lower()
    ]
    expected = start + (end - start) * [0.25, 0.75]
    assert min(np.abs(np.array(place) - expected).max() for place in places) < 0.1


def test_reliability_writes_the_weighted_gap():
    drawn = words(FIGURES["reliability"](False))
    assert "ECE 0.150" in drawn  # (1 * 0.3 + 3 * 0.1) / 4
    assert "n = 4" in drawn


def test_forest_writes_values_intervals_and_undefined_rows():
    drawn = " | ".join(words(FIGURES["forest"](False)))
    assert "0.812 (0.751 to 0.870)  n = 9" in drawn
    assert "not defined" in drawn


def test_learning_curves_draw_training_beside_validation():
    drawn = words(FIGURES["curves"](False))
    # Two panels: the loss of both kinds, and a metric.
    assert {"train", "validation", "Loss", "Dice, disc", "fold 0", "fold 1"} <= set(drawn)
    assert drawn.count("Step") == 2


def test_precision_and_recall_name_area_and_chance():
    drawn = words(FIGURES["precision_recall"](False))
    assert "Model, AP 0.800 (0.700 to 0.900)" in drawn
    assert "Nobody, not defined" in drawn
    assert "chance: share of positive cases" in drawn


def test_a_band_is_drawn_around_its_curve():
    points, band = [[0, 0], [1, 1]], [[0, 0, 0.2], [1, 0.8, 1]]
    bare = curves.roc([{"label": "m", "points": points}], "t")
    banded = curves.roc([{"label": "m", "points": points, "band": band}], "t")
    assert b"FillBetween" in banded
    assert b"FillBetween" not in bare


def test_agreement_writes_bias_and_limits():
    drawn = words(FIGURES["agreement"](False))
    assert {"mean +0.100", "−1.96 SD −0.937", "+1.96 SD +1.137"} <= set(drawn)
    assert "Pfirrmann, n = 3" in drawn
    assert {"I", "II", "III", "IV"} <= set(drawn)


def test_studies_write_median_and_n():
    drawn = words(FIGURES["studies"](False))
    assert {"Disc", "Canal", "median 0.850  n = 3", "median 0.950  n = 1"} <= set(drawn)
    assert "Nothing" not in drawn


def test_empty_or_misshapen_data_are_refused():
    with pytest.raises(ValueError, match="2 labels need a 2 x 2 matrix"):
        figures.confusion_matrix(["a", "b"], [[1, 2, 3]], "t")
    with pytest.raises(ValueError, match="at least one bin"):
        curves.reliability([{"confidence": 0.5, "accuracy": 0.5, "n": 0}], "t")
    with pytest.raises(ValueError, match="at least one point"):
        curves.roc([{"label": "one class", "points": [], "auroc": None}], "t")
    with pytest.raises(ValueError, match="at least one point"):
        curves.precision_recall([{"label": "m", "points": [], "prevalence": 0}], "t")
    with pytest.raises(ValueError, match="at least one"):
        spreads.studies({"disc": []}, "t", "Dice")
    with pytest.raises(ValueError, match="no quantity"):
        curves.learning_curves({0: [{"step": 1}]}, "t")
    with pytest.raises(ValueError, match="at least one row"):
        figures.forest([], "t")
