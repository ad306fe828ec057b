"""Weights of cases, against sums that are written out."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mskjax.metrics import weights as w
from mskjax.metrics.weights import CaseWeights

N, UNITS, COLUMNS = 12, 4, 3
RNG = np.random.default_rng(0)
OF_UNITS = RNG.integers(0, 3, (UNITS, COLUMNS)).astype(float)
UNIT = RNG.integers(0, UNITS, N)
OWN = RNG.random(N)
BY_UNIT = {
    "units alone": (CaseWeights(OF_UNITS, UNIT), OF_UNITS[UNIT]),
    "and cases": (CaseWeights(OF_UNITS, UNIT, OWN), OF_UNITS[UNIT] * OWN[:, None]),
}


@pytest.mark.parametrize("shape", [(N,), (N, 2), (N, 2, 5)])
@pytest.mark.parametrize("name", BY_UNIT)
def test_sums_are_those_of_each_column(name, shape):
    values = RNG.normal(size=shape)
    by_unit, columns = BY_UNIT[name]
    expected = [
        sum(weight * value for weight, value in zip(column, values, strict=True))
        for column in columns.T
    ]
    expected = np.stack(expected, -1)
    np.testing.assert_allclose(w.sums(values, by_unit), expected)
    np.testing.assert_allclose(w.sums(values, columns), expected)
    np.testing.assert_allclose(w.sums(values, columns[:, 1]), expected[..., 1])
    np.testing.assert_allclose(w.sums(values), values.sum(0))


@pytest.mark.parametrize("name", BY_UNIT)
def test_weights_of_some_cases_come_in_their_order(name):
    by_unit, columns = BY_UNIT[name]
    cases = np.array([5, 0, 5, 11])
    np.testing.assert_array_equal(w.of_cases(cases, by_unit), columns[cases])
    np.testing.assert_array_equal(w.of_cases(cases, columns), columns[cases])
    np.testing.assert_array_equal(w.of_cases(cases, columns[:, 0]), columns[cases, 0])
    np.testing.assert_array_equal(w.of_cases(cases), np.ones(4))


@given(st.lists(st.integers(0, 5), max_size=6))
def test_running_sums_start_with_nothing(numbers):
    own = np.array(numbers, float)
    expected = [sum(numbers[:k]) for k in range(len(numbers) + 1)]
    np.testing.assert_array_equal(w.running(own), expected)
    both = w.running(np.stack([own, 2 * own], 1))
    np.testing.assert_array_equal(both, np.stack([expected, 2 * np.array(expected)], 1))


def test_a_ratio_of_nothing_is_not_defined():
    np.testing.assert_array_equal(w.ratio([1, 2, 0], [2, 0, 0]), [0.5, np.nan, np.nan])
    assert w.ratio(1, 4) == 0.25


def test_a_mean_is_of_what_counts_and_infinite_or_unknown_where_that_is_drawn():
    values = np.array([1.0, 3.0, np.inf, np.nan])
    columns = np.array([[1, 1, 1, 0], [3, 1, 0, 1], [0, 0, 1, 0], [0, 0, 0, 1]])
    np.testing.assert_array_equal(w.mean(values, columns), [2.5, 2, np.inf, np.nan])
    counted = np.array([True, True, False, False])
    np.testing.assert_array_equal(w.mean(values, columns, counted), [2.5, 2, 1, 3])
    both = w.mean(np.stack([values, -values], 1)[:2], columns[:2])
    np.testing.assert_array_equal(both, [[2.5, 2, 1, 3], [-2.5, -2, -1, -3]])
    assert np.isnan(w.mean(values, np.zeros(4)))
