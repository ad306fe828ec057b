import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import balanced_accuracy_score, cohen_kappa_score, roc_curve

from mskjax.metrics.grading import Grading
from mskjax.metrics.operating_point import CRITERIA, Scale, fit_scale, fit_threshold

ORACLE = {"balanced_accuracy": balanced_accuracy_score, "cohen_kappa": cohen_kappa_score}


def drawn(n=300, share=0.3, seed=0, decimals=6):
    rng = np.random.default_rng(seed)
    positive = rng.random(n) < share
    return np.round(1 / (1 + np.exp(-rng.normal(2.0 * positive - 3.0, 1.0))), decimals), positive


def test_is_that_of_youden_by_scikit_learn():
    p, positive = drawn()
    found = fit_threshold(p, positive, "balanced_accuracy", 300)
    false, true, thresholds = roc_curve(positive, p, drop_intermediate=False)
    best = int(np.argmax(true - false))
    assert np.array_equal(p >= found.value, p >= thresholds[best])
    assert found.value < 0.4  # positives are rare, and so their probabilities are low
    assert found.why == ""


@given(
    st.lists(st.tuples(st.integers(0, 8), st.booleans()), min_size=2, max_size=30),
    st.sampled_from(CRITERIA),
)
@settings(max_examples=40, deadline=None)
def test_no_threshold_is_better(cases, criterion):
    p, positive = np.array([c[0] / 8 for c in cases]), np.array([c[1] for c in cases])
    found = fit_threshold(p, positive, criterion, 10)
    if len(set(positive.tolist())) < 2:
        assert found == (0.5, f"not fitted: all cases are {'posi' if positive[0] else 'nega'}tive")
        return
    reached = ORACLE[criterion](positive, p >= found.value)
    if found.why:
        assert found.value == 0.5
        assert "better than chance" in found.why
        reached = 0.5 if criterion == "balanced_accuracy" else 0.0
    others = [ORACLE[criterion](positive, p >= t) for t in [*np.unique(p), 2.0]]
    assert reached == pytest.approx(max(others), abs=1e-9)


def test_of_thresholds_that_are_as_good_the_nearest_to_a_half_is_taken():
    p, positive = np.array([0.1, 0.2, 0.9, 0.95]), np.array([False, False, True, True])
    assert fit_threshold(p, positive, "balanced_accuracy", 10).value == pytest.approx(0.55)


def test_kappa_asks_for_more_certainty_where_positives_are_rare():
    p, positive = drawn(20_000, share=0.05)
    by_j, by_kappa = (fit_threshold(p, positive, c, 20_000).value for c in CRITERIA)
    assert by_kappa > by_j + 0.05


def test_nothing_to_fit_on_is_said():
    p, positive = drawn()
    found = fit_threshold(p, positive, "cohen_kappa", 9)
    assert found == (0.5, "not fitted: 9 patients, fewer than 10")
    assert fit_threshold(np.zeros(0), np.zeros(0, bool), "cohen_kappa", 0).value == 0.5
    for p, positive, criterion in (
        (np.array([np.nan, 0.5]), np.array([True, False]), "cohen_kappa"),
        (np.array([0.1]), np.array([True, False]), "cohen_kappa"),
        (np.array([0.1, 0.5]), np.array([True, False]), "accuracy"),
    ):
        with pytest.raises(ValueError, match="p |criterion"):
            fit_threshold(p, positive, criterion, 10)


GRADES = Grading("grade", ("i", "ii", "iii", "iv", "v"), ordinal=True)


def shrunk(n=4_000, seed=0):
    """Grades 0 to 4, and what a network expects that knows half of them and plays safe."""
    rng = np.random.default_rng(seed)
    grade = rng.integers(0, 5, n)
    return 2.2 + 0.4 * (grade - 2) + rng.normal(0, 0.3, n), grade


def test_rescaled_expectations_have_mean_and_deviation_of_the_references():
    expected, grade = shrunk()
    scale = fit_scale(expected, grade, 400)
    scaled = scale.slope * expected + scale.offset
    assert scale.why == ""
    assert scale.slope > 1
    np.testing.assert_allclose([scaled.mean(), scaled.std()], [grade.mean(), grade.std()])
    # Lin's concordance is then the correlation, and no scale or offset has more.
    r = np.corrcoef(expected, grade)[0, 1]
    assert concordance(scaled, grade) == pytest.approx(r)
    for slope, offset in ((1, 0), (0.9, 0), (1.1, 0), (1, 0.2), (1, -0.2)):
        moved = slope * (scaled - grade.mean()) + grade.mean() + offset
        assert concordance(moved, grade) <= r + 1e-12


def concordance(a, b):
    """Lin's, by its definition."""
    return 2 * np.cov(a, b, bias=True)[0, 1] / (a.var() + b.var() + (a.mean() - b.mean()) ** 2)


def test_rescaled_calls_agree_more_than_rounded_ones():
    expected, grade = shrunk()
    before, after = (
        cohen_kappa_score(grade, scale.calls(expected, GRADES), weights="quadratic")
        for scale in (Scale(), fit_scale(expected, grade, 400))
    )
    assert after > before + 0.1
    beyond = np.array([-1.0, 0.1, 0.5, 2.0, np.nan])
    assert Scale(3.0, 0.0).calls(beyond, GRADES).tolist() == [0, 0, 2, 4, GRADES.missed]


def test_a_scale_that_cases_do_not_say_changes_nothing():
    expected, grade = shrunk(50)
    for e, known, patients, why in (
        (expected, grade, 9, "9 patients, fewer than 10"),
        (np.zeros(0), np.zeros(0, int), 0, "0 patients, fewer than 10"),
        (expected, np.full(50, 3), 50, "all cases are of one class"),
        (np.full(50, 2.0), grade, 50, "expectations do not rise with the references"),
        (-expected, grade, 50, "expectations do not rise with the references"),
    ):
        assert fit_scale(e, known, patients) == (1.0, 0.0, f"not fitted: {why}")
    with pytest.raises(ValueError, match="without NaN"):
        fit_scale(np.array([np.nan]), np.array([1]), 10)
    with pytest.raises(ValueError, match="must be"):
        fit_scale(expected, grade[1:], 50)
