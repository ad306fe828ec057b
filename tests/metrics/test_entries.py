"""What a report draws of a grading, against scikit-learn and by hand."""

import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as sk

from mskjax.metrics import bands, entries
from mskjax.metrics.grading import Grading

FRACTURE = Grading("fracture", ("benign", "malignant"))
RNG = np.random.default_rng(11)
REFERENCE = RNG.integers(0, 2, 60)
SCORE = np.round(0.55 * RNG.random(60) + 0.4 * REFERENCE, 1)  # many ties


def test_confusion_counts_every_case_and_shows_missed_ones():
    reference, predicted = np.array([0, 0, 1, 1, 1]), np.array([0, 1, 1, 1, 2])
    assert entries.confusion(reference, predicted, FRACTURE.classes) == {
        "labels": ["benign", "malignant", "missed"],
        "matrix": [[1, 1, 0], [0, 2, 1]],
    }
    found = predicted < 2
    whole = entries.confusion(reference[found], predicted[found], FRACTURE.classes)
    assert whole == {"labels": ["benign", "malignant"], "matrix": [[1, 1], [0, 2]]}
    json.dumps(whole)


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 3)), min_size=12, max_size=12))
@settings(max_examples=30)
def test_confusion_is_scikit_learns_with_missed_as_a_class_of_its_own(cases):
    reference, predicted = np.array(cases).T
    entry = entries.confusion(reference, predicted, "abc")
    expected = sk.confusion_matrix(reference, predicted, labels=range(4))[:3]
    missed = bool((predicted == 3).any())
    assert entry["labels"] == [*"abc", *["missed"] * missed]
    np.testing.assert_array_equal(entry["matrix"], expected[:, : 3 + missed])


def test_calibration_has_the_bins_with_cases():
    reference = np.array([0, 0, 1, 1, 1])
    positive = np.array([0.1, 0.7, 0.95, 0.95, np.nan])
    p = FRACTURE.priced(reference, np.stack([1 - positive, positive], 1))
    # Confidence .7 wrong; .9, .95, .95 right and the missed one, surely benign, wrong.
    assert entries.calibration(p, reference) == [
        {"confidence": pytest.approx(0.7), "accuracy": 0, "n": 1},
        {"confidence": pytest.approx(0.9), "accuracy": 1, "n": 1},
        {"confidence": pytest.approx(2.9 / 3), "accuracy": pytest.approx(2 / 3), "n": 3},
    ]


def test_roc_has_the_area_of_scikit_learn_with_ties():
    points = np.array(entries.roc(REFERENCE == 1, SCORE))
    assert points[0].tolist() == [0, 0]
    assert points[-1].tolist() == [1, 1]
    assert len(points) == len(np.unique(SCORE)) + 1
    assert sk.auc(*points.T) == pytest.approx(sk.roc_auc_score(REFERENCE, SCORE))


def test_roc_is_of_the_order_of_scores_alone():
    """A score of a regression is as good as a probability."""
    stretched = 10 * SCORE - 3
    assert entries.roc(REFERENCE == 1, stretched) == entries.roc(REFERENCE == 1, SCORE)


def test_a_long_roc_is_thinned_and_keeps_its_shape_and_ends():
    reference = RNG.integers(0, 2, 5000)
    score = RNG.normal(size=5000) + reference
    points = np.array(entries.roc(reference == 1, score))
    assert len(points) == bands.POINTS == 200
    assert points[[0, -1]].tolist() == [[0, 0], [1, 1]]
    assert (np.diff(points, axis=0) >= 0).all()
    assert sk.auc(*points.T) == pytest.approx(sk.roc_auc_score(reference, score), abs=2e-3)


@pytest.mark.parametrize("only", [False, True])
def test_there_is_no_roc_of_one_class(only):
    assert entries.roc(np.full(3, only), np.array([0.1, 0.2, 0.3])) == []


def test_folds_have_mean_and_sample_deviation_of_those_that_are_defined():
    entry = entries.over_folds([0.8, np.nan, 0.6, np.inf])
    json.dumps(entry, allow_nan=False)
    assert entry == {
        "mean": pytest.approx(0.7),
        "sd": pytest.approx(math.sqrt(0.02)),
        "values": [0.8, None, 0.6, None],
        "folds": 2,
    }
    assert entries.over_folds([1.0]) == {"mean": 1, "sd": None, "values": [1], "folds": 1}
    nothing = {"mean": None, "sd": None, "values": [None], "folds": 0}
    assert entries.over_folds([np.nan]) == nothing


@given(st.lists(st.floats(0, 1), min_size=2, max_size=10))
def test_the_spread_over_folds_is_numpys(values):
    entry = entries.over_folds(values)
    assert entry["mean"] == pytest.approx(np.mean(values))
    assert entry["sd"] == pytest.approx(np.std(values, ddof=1), abs=1e-12)
    assert (entry["values"], entry["folds"]) == (values, len(values))
