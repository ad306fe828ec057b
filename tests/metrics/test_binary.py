import itertools
import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as sk

from mskjax.errors import UserError
from mskjax.metrics import binary as b

N = 60
RNG = np.random.default_rng(11)
REFERENCE = RNG.integers(0, 2, N)
# Many ties, and calls on the wrong side.
SCORE = np.round(np.clip(0.55 * RNG.random(N) + 0.4 * REFERENCE, 0, 1), 1).astype(np.float32)
GAPS = np.where(RNG.random(N) < 0.15, np.nan, SCORE).astype(np.float32)
PATIENTS = [f"p{i // 2}" for i in range(N)]
BOOTSTRAP = {"resamples": 200, "seed": 3}
CASES = {"all found": b.calls(REFERENCE, SCORE), "some missed": b.calls(REFERENCE, GAPS)}


def values(found):
    return {name: estimate["value"] for name, estimate in found.items()}


def ece_by_hand(reference, p, bins=10):
    confidence, right = np.maximum(p, 1 - p), (p > 0.5) == (reference == 1)
    edges = np.linspace(0, 1, bins + 1).astype(np.float32)
    gaps = []
    for low, high in itertools.pairwise(edges):
        inside = (confidence > low) & (confidence <= high)
        gaps.append(abs(right[inside].sum() - confidence[inside].sum(dtype=float)))
    return sum(gaps) / len(p)


def oracle(reference, predicted, p):
    fpr, tpr, _ = sk.roc_curve(reference, p, drop_intermediate=False)
    of_class = {"labels": [0, 1], "average": None, "zero_division": np.nan}
    specificity, sensitivity = sk.recall_score(reference, predicted, **of_class)
    npv, ppv = sk.precision_score(reference, predicted, **of_class)
    clipped = np.clip(p.astype(float), 1e-6, 1 - 1e-6)
    return {
        "auroc": sk.roc_auc_score(reference, p),
        "accuracy": sk.accuracy_score(reference, predicted),
        "sensitivity": sensitivity,
        "specificity": specificity,
        "ppv": ppv,
        "npv": npv,
        "f1": sk.f1_score(reference, predicted, **of_class)[1],
        "balanced_accuracy": (sensitivity + specificity) / 2,
        "cohen_kappa": sk.cohen_kappa_score(reference, predicted),
        "average_precision": sk.average_precision_score(reference, p),
        "sensitivity_at_specificity_90": tpr[1 - fpr >= 0.9 - 1e-9].max(),
        "log_loss": sk.log_loss(reference, clipped),
        "brier": sk.brier_score_loss(reference, p),
        "ece": ece_by_hand(reference, p),
    }


@pytest.mark.parametrize("case", CASES)
def test_all_figures_agree_with_scikit_learn_in_reading_order(case):
    predicted, p = CASES[case]
    found = b.binary(REFERENCE, predicted, p, PATIENTS, **BOOTSTRAP)
    expected = oracle(REFERENCE, predicted, p)
    assert list(found) == list(expected)
    assert values(found) == pytest.approx(expected, abs=2e-6)
    for estimate in found.values():
        low, high = estimate["ci95"]
        assert low <= estimate["value"] <= high
        assert estimate["method"].startswith("patient bootstrap")


def test_proportions_count_the_cases_and_patients_that_they_are_shares_of():
    reference = np.array([1, 1, 1, 0, 0, 0])
    predicted = np.array([1, 0, b.MISSED, 0, 1, b.MISSED])
    found = b.labels_only(reference, predicted, ["a", "a", "b", "c", "c", "c"], **BOOTSTRAP)
    assert {k: (found[k]["n"], found[k]["patients"]) for k in ("accuracy", "f1")} == {
        "accuracy": (6, 3),
        "f1": (6, 3),
    }
    assert {k: (found[k]["n"], found[k]["patients"]) for k in found if found[k]["n"] != 6} == {
        "sensitivity": (3, 2),
        "specificity": (3, 1),
        "ppv": (2, 2),
        "npv": (2, 2),
    }
    # A missed negative lowers specificity; no missed case is a call.
    assert values(found) == pytest.approx(
        {
            "accuracy": 1 / 3,
            "sensitivity": 1 / 3,
            "specificity": 1 / 3,
            "ppv": 1 / 2,
            "npv": 1 / 2,
            "f1": 2 / 5,
            "balanced_accuracy": 1 / 3,
            "cohen_kappa": sk.cohen_kappa_score(reference, predicted),
        },
        abs=1e-6,
    )


def test_labels_only_and_scores_only_are_parts_of_all_figures():
    predicted, p = CASES["some missed"]
    whole = b.binary(REFERENCE, predicted, p, PATIENTS, **BOOTSTRAP)
    labels = b.labels_only(REFERENCE, predicted, PATIENTS, **BOOTSTRAP)
    scores = b.scores_only(REFERENCE, p, PATIENTS, **BOOTSTRAP)
    assert list(scores) == ["auroc", "average_precision"]
    assert list(labels) == list(whole)[1:9]
    for name, estimate in (labels | scores).items():
        assert estimate["value"] == pytest.approx(whole[name]["value"], abs=1e-6)
        assert estimate["ci95"] == pytest.approx(whole[name]["ci95"], abs=1e-6)


@pytest.mark.parametrize("only", [0, 1])
def test_figures_that_need_both_classes_are_null_with_a_reason_where_one_is_absent(only):
    reference = np.full(4, only)
    predicted, p = b.calls(reference, np.array([0.9, 0.8, 0.2, np.nan]))
    found = b.binary(reference, predicted, p, "abcd", **BOOTSTRAP)
    json.dumps(found, allow_nan=False)
    missing = {name: entry["why"] for name, entry in found.items() if entry["value"] is None}
    absent = {0: ("sensitivity", "no positive case"), 1: ("specificity", "no negative case")}
    assert missing.pop(absent[only][0]) == absent[only][1]
    ranking = {"auroc", "balanced_accuracy", "sensitivity_at_specificity_90"}
    assert set(missing) == ranking | ({"average_precision"} if only == 0 else set())
    assert all(missing.values())
    assert found["accuracy"]["value"] == 0.25 * (1 if only == 0 else 2)


def test_a_predictive_value_without_calls_says_why():
    found = b.labels_only(np.array([0, 1, 1]), np.zeros(3, int), "abc", **BOOTSTRAP)
    assert found["ppv"]["value"] is None
    assert found["ppv"]["why"] == "no case was called positive"
    assert found["npv"]["value"] == pytest.approx(1 / 3)


def test_finding_nothing_is_the_worst_result_there_is():
    predicted, p = b.calls(REFERENCE, np.full(N, np.nan))
    found = values(b.binary(REFERENCE, predicted, p, PATIENTS, **BOOTSTRAP))
    zero = ("auroc", "accuracy", "sensitivity", "specificity", "f1", "balanced_accuracy")
    assert {name: found[name] for name in zero} == dict.fromkeys(zero, 0)
    assert found["log_loss"] == pytest.approx(-math.log(1e-6), rel=1e-5)
    assert (found["brier"], found["ece"], found["ppv"]) == (1, 1, None)


def test_a_perfect_grading_has_no_loss_and_no_negative_zero():
    found = values(b.binary(REFERENCE, REFERENCE, REFERENCE, PATIENTS, **BOOTSTRAP))
    losses = [found.pop(name) for name in ("log_loss", "brier", "ece")]
    assert losses == [0, 0, 0]
    assert all(math.copysign(1, loss) == 1 for loss in losses)
    assert set(found.values()) == {1}


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.tuples(st.booleans(), st.integers(0, 64)), min_size=12, max_size=12),
    st.lists(st.booleans(), min_size=12, max_size=12),
)
def test_swapping_the_classes_swaps_what_belongs_to_them(cases, gaps):
    # Sixty-fourths: 1 - p is exact, and p = .5 would be a call that the swap does not reverse.
    p = np.array([k / 64 if k != 32 else 0.75 for _, k in cases])
    p[np.array(gaps)] = np.nan
    reference = np.array([int(positive) for positive, _ in cases])
    ours, theirs = (
        values(b.binary(r, *b.calls(r, q), range(12), resamples=4, seed=0))
        for r, q in ((reference, p), (1 - reference, 1 - p))
    )
    pairs = {"sensitivity": "specificity", "ppv": "npv", "specificity": "sensitivity", "npv": "ppv"}
    same = ("accuracy", "balanced_accuracy", "auroc", "cohen_kappa", "log_loss", "brier", "ece")
    for name, other in {**pairs, **{k: k for k in same}}.items():
        assert ours[name] == pytest.approx(theirs[other], abs=1e-5), name


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(st.booleans(), st.floats(0, 1, width=32) | st.just(math.nan)),
        min_size=12,
        max_size=12,
    )
)
def test_figures_stay_in_range_for_any_probability(cases):
    reference = np.array([int(positive) for positive, _ in cases])
    predicted, p = b.calls(reference, np.array([q for _, q in cases]))
    found = b.binary(reference, predicted, p, range(12), resamples=4, seed=0)
    json.dumps(found, allow_nan=False)
    highest = {"log_loss": -math.log(1e-6)}
    for name, value in values(found).items():
        lowest = -1 if name == "cohen_kappa" else 0
        assert value is None or lowest <= value <= highest.get(name, 1) * (1 + 1e-6), name


def test_log_loss_weighs_cases_and_does_not_see_hidden_ones():
    weights = RNG.integers(0, 4, N)
    p = np.where(weights == 0, np.nan, 0.01 + 0.98 * SCORE)
    shown = weights > 0
    expected = sk.log_loss(REFERENCE[shown], p[shown], sample_weight=weights[shown])
    assert float(b.log_loss(p, REFERENCE, weights)) == pytest.approx(expected, rel=1e-5)
    assert np.isnan(b.log_loss(p, REFERENCE, np.zeros(N)))


def test_calls_price_a_missed_region_at_the_worst_of_its_class():
    reference = np.array([1, 0, 1, 0, 1])
    predicted, p = b.calls(reference, np.array([np.nan, np.nan, 0.5, 0.49, 1.0]))
    np.testing.assert_array_equal(predicted, [b.MISSED, b.MISSED, 1, 0, 1])
    np.testing.assert_array_equal(p, np.float32([0, 1, 0.5, 0.49, 1]))
    # A score beyond 0 to 1 must not be worse than a region that was not found.
    _, score = b.calls(reference, np.array([np.nan, np.nan, -3.0, 7.0, 1.0]))
    np.testing.assert_array_equal(score, [-3, 7, -3, 7, 1])


def test_difference_is_that_of_the_figures_on_the_same_resamples():
    ours, p = CASES["some missed"]
    theirs, q = b.calls(REFERENCE, 10 * RNG.random(N), threshold=5)
    found = b.difference(REFERENCE, ours, theirs, PATIENTS, p, q, **BOOTSTRAP)
    single = [
        b.labels_only(REFERENCE, x, PATIENTS, **BOOTSTRAP)
        | b.scores_only(REFERENCE, y, PATIENTS, **BOOTSTRAP)
        for x, y in ((ours, p), (theirs, q))
    ]
    assert list(found) == ["auroc", *list(single[0])[:8]]
    for name, estimate in found.items():
        expected = single[0][name]["value"] - single[1][name]["value"]
        assert estimate["value"] == pytest.approx(expected, abs=1e-6)
    labels = b.difference(REFERENCE, ours, theirs, PATIENTS, **BOOTSTRAP)
    assert labels["accuracy"]["ci95"] == pytest.approx(found["accuracy"]["ci95"], abs=1e-6)
    assert "auroc" not in labels
    assert labels["sensitivity"]["n"] == REFERENCE.sum()
    # What is hard for both cancels: against itself nothing differs on any resample.
    itself = b.difference(REFERENCE, ours, ours, PATIENTS, p, p, **BOOTSTRAP)
    assert all(e["value"] == 0 and e["ci95"] == [0, 0] for e in itself.values())


def test_folds_have_the_figures_of_their_own_cases():
    predicted, p = CASES["some missed"]
    folds = np.arange(N) % 4
    found = b.over_folds(REFERENCE, predicted, p, folds)
    assert list(found) == ["auroc", "accuracy", "sensitivity", "specificity", "log_loss"]
    single = [oracle(*(x[folds == k] for x in (REFERENCE, predicted, p))) for k in range(4)]
    for name, entry in found.items():
        expected = [figures[name] for figures in single]
        assert entry["values"] == pytest.approx(expected, abs=1e-5)
        assert entry["mean"] == pytest.approx(np.mean(expected), abs=1e-5)
        assert entry["sd"] == pytest.approx(np.std(expected, ddof=1), abs=1e-5)
        assert entry["folds"] == 4


def test_a_fold_without_a_class_is_left_out_where_that_matters():
    reference = np.array([1, 0, 1, 0, 0, 0])
    p = np.array([0.9, 0.2, 0.4, 0.6, 0.1, 0.3], np.float32)
    found = b.over_folds(reference, p >= 0.5, p, [10, 10, 2, 2, 7, 7])
    json.dumps(found, allow_nan=False)
    # By the number of the fold: 2, 7, 10.
    assert found["auroc"] == {
        "mean": 0.5,
        "sd": pytest.approx(math.sqrt(0.5)),
        "values": [0, None, 1],
        "folds": 2,
    }
    assert found["specificity"]["values"] == [0, 1, 1]
    one = b.over_folds(reference[:2], p[:2] >= 0.5, p[:2], [0, 0])
    assert one["accuracy"] == {"mean": 1, "sd": None, "values": [1], "folds": 1}


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
    found = b.structures_over_folds(rows, ["muscle", "fossa", "bone"])
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
    assert b.structures_over_folds([], ["muscle"]) == {}


def test_tables_count_every_case_and_show_missed_ones():
    reference = np.array([0, 0, 1, 1, 1])
    predicted, p = b.calls(reference, np.array([0.1, 0.7, 0.95, 0.95, np.nan]))
    found = b.tables(reference, predicted, p, ("benign", "malignant"), "fracture")
    assert found["confusion"] == {
        "fracture": {
            "labels": ["benign", "malignant", "missed"],
            "matrix": [[1, 1, 0], [0, 2, 1]],
        }
    }
    # Confidence .7 wrong; .9, .95, .95 right and the missed one, surely benign, wrong.
    assert found["calibration"] == {
        "fracture": [
            {"confidence": pytest.approx(0.7), "accuracy": 0, "n": 1},
            {"confidence": pytest.approx(0.9), "accuracy": 1, "n": 1},
            {"confidence": pytest.approx(2.9 / 3), "accuracy": pytest.approx(2 / 3), "n": 3},
        ]
    }
    whole = b.tables(reference[:4], predicted[:4], p[:4], ("benign", "malignant"), "fracture")
    assert whole["confusion"]["fracture"]["matrix"] == [[1, 1], [0, 2]]


def test_roc_has_the_area_of_scikit_learn_with_ties():
    points = np.array(b.roc(REFERENCE, SCORE))
    assert points[0].tolist() == [0, 0]
    assert points[-1].tolist() == [1, 1]
    assert len(points) == len(np.unique(SCORE)) + 1
    assert sk.auc(*points.T) == pytest.approx(sk.roc_auc_score(REFERENCE, SCORE))


def test_a_long_roc_is_thinned_and_keeps_its_shape_and_ends():
    reference = RNG.integers(0, 2, 5000)
    score = RNG.normal(size=5000) + reference
    points = np.array(b.roc(reference, score))
    assert len(points) == 200
    assert points[[0, -1]].tolist() == [[0, 0], [1, 1]]
    assert (np.diff(points, axis=0) >= 0).all()
    assert sk.auc(*points.T) == pytest.approx(sk.roc_auc_score(reference, score), abs=2e-3)


@pytest.mark.parametrize("only", [0, 1])
def test_there_is_no_roc_of_one_class(only):
    assert b.roc(np.full(3, only), np.array([0.1, 0.2, 0.3])) == []


@pytest.mark.parametrize(
    ("reference", "predicted", "probability", "problem"),
    [
        ([0, 2], [0, 1], [0.1, 0.9], "reference holds 0 to 2"),
        ([0, -1], [0, 1], [0.1, 0.9], "reference holds -1 to 0"),
        ([0, 1], [0, 3], [0.1, 0.9], "predicted holds 0 to 3"),
        ([0, 1], [0], [0.1, 0.9], "shape"),
        ([0, 1], [0, 1], [0.1], "shape"),
        ([0, 1], [0, 1], [0.1, 1.1], "0 to 1"),
        ([0, 1], [0, 1], [0.1, np.nan], "not finite"),
        ([0, 1], [0, 2], [0.1, 0.4], "a missed positive has probability 0"),
        ([0, 1], [2, 1], [0.0, 0.4], "a missed negative 1"),
    ],
)
def test_wrong_arguments_are_refused(reference, predicted, probability, problem):
    arrays = [np.array(x) for x in (reference, predicted, probability)]
    for call in (
        lambda: b.binary(*arrays, "ab", **BOOTSTRAP),
        lambda: b.over_folds(*arrays, [0, 1]),
        lambda: b.tables(*arrays, ("a", "b"), "t"),
    ):
        with pytest.raises(ValueError, match=problem):
            call()


def test_one_score_alone_cannot_be_compared():
    with pytest.raises(ValueError, match="both or none"):
        b.difference(REFERENCE, REFERENCE, REFERENCE, PATIENTS, SCORE, **BOOTSTRAP)


def test_no_cases_is_an_error_of_the_input():
    with pytest.raises(UserError, match="no cases"):
        b.binary(np.array([]), np.array([]), np.array([]), [], **BOOTSTRAP)
