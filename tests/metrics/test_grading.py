"""How a class is chosen, and what a missed region costs."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mskjax.metrics.grading import Grading

TWO = Grading("task_a", ("low", "high"))
THREE = Grading("severity", ("mild", "moderate", "severe"))
FIVE = Grading("pfirrmann", ("i", "ii", "iii", "iv", "v"), ordinal=True)


def test_calls():
    p = np.array([[0.3, 0.3, 0.4], [0.8, 0.1, 0.1], [np.nan] * 3])
    assert THREE.calls(p).tolist() == [2, 0, 3]
    ordered = Grading("grade", THREE.classes, ordinal=True)
    assert ordered.calls(p).tolist() == [1, 0, 3]
    half = np.array([[0.5, 0.5], [0.51, 0.49], [np.nan, np.nan]])
    assert TWO.calls(half).tolist() == [1, 0, 2]
    assert FIVE.rounded(np.array([-3.0, 0.5, 1.49, 9.0, np.nan])).tolist() == [0, 1, 1, 4, 5]


def test_scores_beyond_0_and_1_price_a_missed_case_at_their_extremes():
    reference = np.array([0, 1, 0, 1])
    score = np.array([-0.4, 1.3, np.nan, np.nan])
    assert TWO.priced_scores(reference, score) == pytest.approx([-0.4, 1.3, 1.3, -0.4])


@settings(max_examples=60)
@given(st.lists(st.integers(0, 9), min_size=5, max_size=5).filter(any))
def test_the_call_of_ordered_classes_is_the_least_wrong_one_on_average(counts):
    p = np.array(counts) / np.sum(counts)
    (chosen,) = FIVE.calls(p[None])
    costs = np.square(np.subtract.outer(np.arange(5), np.arange(5))) @ p
    assert costs[chosen] == pytest.approx(costs.min())
    nominal = Grading("type", FIVE.classes)
    assert nominal.calls(p[None])[0] == p.argmax()


@settings(max_examples=60)
@given(st.lists(st.lists(st.floats(0, 1), min_size=5, max_size=5), min_size=1, max_size=8))
def test_the_call_of_ordered_classes_is_the_rounded_expectation(rows):
    p = np.array(rows) + 1e-3
    p /= p.sum(1, keepdims=True)
    expected = np.array([sum(k * row[k] for k in range(5)) for row in p])
    clear = np.abs(expected % 1 - 0.5) > 1e-4
    found = FIVE.calls(p)
    np.testing.assert_array_equal(found[clear], np.rint(expected)[clear])
    written = np.round(p, 6)  # as cases.csv has it, and as a network gives it
    np.testing.assert_array_equal(FIVE.calls(written)[clear], found[clear])
    np.testing.assert_array_equal(FIVE.calls(p.astype(np.float32))[clear], found[clear])


def test_halfway_between_classes_the_higher_is_called_in_float32_too():
    p = np.array([[0, 0.3, 0.4, 0.2, 0.1], [0.05, 0.45, 0.45, 0.05, 0], [0.1, 0.3, 0.6, 0, 0]])
    np.testing.assert_allclose(FIVE.expected(p), [2.1, 1.5, 1.5])
    assert FIVE.calls(p).tolist() == FIVE.calls(p.astype(np.float32)).tolist() == [2, 2, 2]


def test_rules_are_said():
    assert TWO.rule == "high from a probability of .5 on"
    assert THREE.rule == "the likeliest class"
    assert "nearest to the expected class number" in FIVE.rule


def test_a_missed_case_has_nothing_for_its_own_class_and_the_others_share_the_rest():
    p = np.array([[0.2, 0.3, 0.5], [np.nan] * 3, [np.nan] * 3])
    priced = THREE.priced(np.array([0, 1, 2]), p)
    assert priced.dtype == np.float32
    np.testing.assert_allclose(priced, [[0.2, 0.3, 0.5], [0.5, 0, 0.5], [0.5, 0.5, 0]])


def test_one_class_is_no_grading():
    with pytest.raises(ValueError, match="needs two classes"):
        Grading("severity", ("mild",))
