"""Bands, against scikit-learn and a bootstrap that is written out."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import precision_recall_curve

from mskjax.metrics import bands


def data(seed, n=60, levels=12):
    rng = np.random.default_rng(seed)
    positive = rng.random(n) < 0.4
    positive[:2] = True, False
    score = np.round((positive * 0.6 + rng.normal(size=n)) * levels / 4) / levels  # with ties
    return positive, score, [f"p{i}" for i in rng.integers(0, n // 3, n)]


def test_cases_of_a_patient_are_drawn_together():
    patients = ["b", "a", "b", "c"]
    weights = bands.case_weights(patients, 50, 0)
    assert (weights[:, 0] == weights[:, 2]).all()
    assert (weights[:, [0, 1, 3]].sum(1) == 3).all()
    assert len(bands.case_weights(patients, 10**6, 0)) == bands.RESAMPLES


def test_points_are_those_of_scikit_learn():
    positive, score, _ = data(5)
    precision, recall, _ = precision_recall_curve(positive, score)
    found = np.array(bands.precision_points(positive, score))
    assert found[0, 0] == 0
    expected = {(round(r, 6), round(p, 6)) for r, p in zip(recall, precision, strict=True) if r > 0}
    # Its curve goes on through thresholds below the last positive case, at recall 1.
    assert {(round(r, 6), round(p, 6)) for r, p in found[1:]} == expected
    assert bands.precision_points(np.zeros(3, bool), np.arange(3)) == []


def test_a_band_holds_what_resampling_by_hand_gives():
    positive, score, patients = data(1)
    weights = bands.case_weights(patients, 200, 3)
    counts = bands.above(positive, score, weights)
    at = 10
    by_hand = []
    for own in weights:
        p, n = own * positive, own * ~positive
        if not (p.sum() and n.sum()):
            continue
        reached = [0.0]
        for threshold in np.unique(score):
            if n[score >= threshold].sum() / n.sum() <= bands.GRID[at] + 1e-9:
                reached.append(p[score >= threshold].sum() / p.sum())
        by_hand.append(max(reached))
    x, low, high = bands.roc_band(counts)[at]
    assert x == bands.GRID[at]
    # Between two operating points the curve is a straight line, which lies above the lower one.
    assert low >= np.percentile(by_hand, 2.5) - 1e-6
    assert high >= np.percentile(by_hand, 97.5) - 1e-6
    assert low <= np.percentile(by_hand, 60)


@given(st.integers(0, 1000))
def test_bands_hold_their_curve_and_stay_in_the_square(seed):
    positive, score, patients = data(seed, n=40)
    counts = bands.above(positive, score, bands.case_weights(patients, 60, seed))
    for band in (bands.roc_band(counts), bands.precision_band(counts)):
        for _, low, high in band:
            assert 0 <= low <= high <= 1 + 1e-9
    upper = np.array(bands.roc_band(counts))[:, 2]
    assert (np.diff(upper) >= -1e-9).all()


def test_one_class_has_no_band():
    weights = np.ones((5, 3), np.float32)
    counts = bands.above(np.ones(3, bool), np.arange(3.0), weights)
    assert bands.roc_band(counts) == []


def test_a_share_has_the_interval_of_its_patients():
    hit, inside = np.array([1, 1, 0, 0, 1], bool), np.array([1, 1, 1, 1, 0], bool)
    weights = bands.case_weights(list("aabbc"), 500, 0)
    assert bands.share_interval(hit, inside, weights) == (0.0, 1.0)  # a is all right, b all wrong
    assert bands.share_interval(hit, np.zeros(5, bool), weights) is None


def test_an_estimate_says_nothing_that_it_does_not_know():
    known = bands.estimate(0.8, np.array([0.7, 0.8, 0.9]), 10, 4)
    assert known["value"] == 0.8
    assert 0.7 <= known["ci95"][0] < known["ci95"][1] <= 0.9
    assert bands.estimate(np.nan, np.full(3, np.nan), 0, 0) == {
        "value": None, "ci95": None, "n": 0, "patients": 0
    }  # fmt: skip
    assert bands.estimate(0.8, np.array([0.8]), 10, 1)["ci95"] is None
