"""What a reader must know first, whatever a run found."""

import pytest

from mskjax.reporting import key

PRIMARY = "quadratic_weighted_kappa_pfirrmann"


def estimate(value, low=None, high=None, n=100):
    ci95 = None if low is None else [low, high]
    return {"value": value, "ci95": ci95, "n": n, "patients": 20}


def report(**changes):
    base = {
        "primary": PRIMARY,
        "end_to_end": {
            PRIMARY: estimate(0.8, 0.7, 0.9),
            "accuracy_pfirrmann": estimate(0.6, 0.5, 0.7),
            "sensitivity_i_pfirrmann": estimate(0.5, 0.2, 0.8, n=10),
            "sensitivity_ii_pfirrmann": estimate(0.9, 0.8, 1.0, n=90),
            "ece_pfirrmann": estimate(0.05, 0.03, 0.09),
        },
        "oracle_region": {PRIMARY: estimate(0.85, 0.8, 0.9)},
        "stages": {"regions": {"level_accuracy": estimate(0.9, 0.8, 1.0)}},
        "baselines": {
            "majority": {PRIMARY: estimate(0.0), "accuracy_pfirrmann": estimate(0.5)},
            "ridge": {PRIMARY: estimate(0.7, 0.6, 0.8), "accuracy_pfirrmann": estimate(0.65)},
            "model_minus_ridge": {PRIMARY: estimate(0.1, 0.02, 0.2)},
        },
        "gradings": {
            "pfirrmann": {
                "figures": [PRIMARY, "accuracy_pfirrmann", "sensitivity_i_pfirrmann"],
                "further": ["sensitivity_i_pfirrmann"],
                "classes": ["i", "ii"],
                "sets": {},
            }
        },
        "confusion": {
            "pfirrmann": {"labels": ["i", "ii", "iii", "missed"],
                          "matrix": [[5, 5, 0, 0], [3, 81, 3, 3], [0, 0, 0, 0]]},
        },
        "subgroups": {"level": {"L5/S1": {PRIMARY: estimate(0.5, n=20)},
                                "L4/L5": {PRIMARY: estimate(0.9, n=20)}}},
        "cohort": {"excluded": [], "restricted": []},
        "flow": [],
    }  # fmt: skip
    return base | changes


def said(**changes):
    return {m["topic"]: m for m in key.messages(report(**changes))}


def test_every_message_says_its_number_with_interval_and_n():
    found = said()
    assert [*found] == ["Found", "Leading figure", "Best baseline", "Weakest class",
                        "Weakest level", "Calibration", "Not scored"]  # fmt: skip
    text = {topic: m["text"] for topic, m in found.items()}
    assert text["Found"] == (
        "The region of 97 of 100 graded cases was found; 3 missed cases count as wrong in every"
        " figure. Of the regions found, 0.900 (0.800 to 1.000) were given the right level."
    )
    assert "Cohen 1968" in text["Leading figure"]
    assert "Classes: I, II." in text["Leading figure"]
    assert "reference region given it is 0.850 (0.800 to 0.900)" in text["Leading figure"]
    assert text["Weakest class"] == (
        "I: 0.500 (0.200 to 0.800) of its 10 cases are called so. No case is III."
    )
    assert text["Weakest level"].startswith("L5/S1: Quadratic weighted kappa, Pfirrmann 0.500")
    assert text["Not scored"] == "Nothing was left out."


@pytest.mark.parametrize(
    ("interval", "verdict", "alarm"),
    [
        ((0.02, 0.2), "the model is better", False),
        ((-0.02, 0.2), "THE BASELINE IS AS GOOD", True),
        ((0.0, 0.2), "THE BASELINE IS AS GOOD", True),
        ((-0.2, -0.02), "THE BASELINE IS BETTER THAN THE MODEL", True),
    ],
)
def test_a_baseline_that_is_as_good_is_said_in_words(interval, verdict, alarm):
    baselines = report()["baselines"] | {"model_minus_ridge": {PRIMARY: estimate(0.1, *interval)}}
    message = said(baselines=baselines)["Best baseline"]
    assert message["text"].startswith("Ridge regression on hand-made features: 0.700")
    assert verdict in message["text"]
    assert message["alarm"] is alarm
    # Accuracy leads too; single classes do not.
    assert message["text"].endswith("Of 2 figures that both have, the baseline is ahead in 1.")


def test_nothing_found_is_said_before_anything_else():
    confusion = {"pfirrmann": {"labels": ["i", "ii", "missed"], "matrix": [[0, 0, 4], [0, 0, 6]]}}
    first = key.messages(report(confusion=confusion))[0]
    assert first["text"].startswith("NOTHING WAS FOUND: of 10 graded cases")
    assert first["alarm"]


def test_what_was_not_scored_is_counted():
    flow = [{"step": "packaged, with grade", "cases": 120},
            {"step": "scored on held-out folds, grades", "cases": 100}]  # fmt: skip
    stages = {"regions": {"graded_without_region": estimate(0.1, n=130)}}
    cohort = {"excluded": [{"id": "a", "why": "b"}], "restricted": [1, 2]}
    text = said(flow=flow, stages=stages, cohort=cohort)["Not scored"]["text"]
    assert text == (
        "1 exclusion, each with its reason under Cohort; 2 kept in part; 20 of 120 graded cases"
        " were not scored; 10.0% of 130 graded levels have no reference region."
    )


def test_two_classes_have_sensitivity_and_specificity():
    gradings = {"x": {"figures": ["auroc_x"], "further": [], "classes": ["no", "yes"],
                      "sets": {"no": [0, 1], "yes": [3]}}}  # fmt: skip
    end = {"auroc_x": estimate(0.9, 0.8, 1.0), "sensitivity_x": estimate(0.9, n=10),
           "specificity_x": estimate(0.7, n=30)}  # fmt: skip
    found = said(
        primary="auroc_x", gradings=gradings, end_to_end=end, oracle_region={}, baselines={},
        confusion={"x": {"labels": ["no", "yes"], "matrix": [[21, 9], [1, 9]]}}, subgroups={},
    )  # fmt: skip
    assert found["Weakest class"]["text"] == "No: 0.700 of its 30 cases are called so."
    assert found["Leading figure"]["text"].endswith("Classes: No {0, 1}, Yes {3}.")


def test_a_segmentation_that_finds_nothing_says_so():
    nothing = {"gradings": {}, "confusion": {}, "subgroups": {}, "baselines": {}}
    zero = {"humerus": [0.0, 0.0], "scapula": [0.0, 0.0]}
    found = said(primary="dice_humerus", studies=zero, **nothing)["Found"]
    assert found["text"] == "NOTHING WAS FOUND: Dice is 0 in all 4 structures."
    assert found["alarm"]
    assert "Found" not in said(primary="dice_humerus", studies={"humerus": [0.0, 0.9]}, **nothing)


def test_a_segmentation_names_its_weakest_structure():
    end = {"dice_humerus": estimate(0.97), "dice_scapula": estimate(0.72, 0.68, 0.76),
           "dice_ceiling_humerus": estimate(0.5)}  # fmt: skip
    baselines = {"vote": {"dice_humerus": estimate(0.96)},
                 "model_minus_vote": {"dice_humerus": estimate(0.01, 0.005, 0.015)}}  # fmt: skip
    found = said(
        primary="dice_humerus", end_to_end=end, oracle_region={}, baselines=baselines,
        gradings={}, confusion={}, subgroups={}, stages={"proposals": {}},
    )  # fmt: skip
    assert found["Weakest structure"]["text"] == "Scapula: Dice 0.720 (0.680 to 0.760)."
    assert "the model is better" in found["Best baseline"]["text"]
    assert "Found" not in found
