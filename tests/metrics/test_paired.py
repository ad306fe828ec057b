import itertools

import numpy as np
import pytest
from scipy import stats

from mskjax.metrics import paired
from mskjax.metrics.intervals import keeping_draws, patient_bootstrap, weighting
from mskjax.metrics.segmentation import mean_over_cases


def test_each_resample_draws_as_many_patients_as_there_are():
    drawn = paired.multiplicities(7, 4000, seed=3)
    assert drawn.dtype == np.uint8
    assert not drawn.flags.writeable  # it is kept for all who ask
    np.testing.assert_array_equal(drawn.sum(1), 7)
    # Binomial(7, 1/7): mean 1, variance 6/7.
    np.testing.assert_allclose(drawn.mean(0), 1, atol=0.06)
    np.testing.assert_allclose(drawn.var(0), 6 / 7, atol=0.08)


def test_few_patients_have_all_their_exchanges_once():
    found = paired.exchanges(4, 16, seed=0)
    assert not found[0].any()
    assert {tuple(row) for row in found} == {*itertools.product((0.0, 1.0), repeat=4)}
    assert paired.is_complete(4, 16)


def test_many_patients_have_random_exchanges_behind_none():
    found = paired.exchanges(5, 31, seed=0)
    assert found.shape == (32, 5)
    assert not found[0].any()
    assert not paired.is_complete(5, 31)
    np.testing.assert_array_equal(found, paired.exchanges(5, 31, seed=0))
    assert not np.array_equal(found, paired.exchanges(5, 31, seed=1))


def test_p_of_a_mean_is_that_of_scipys_sign_flips():
    own = np.random.default_rng(0).normal(0.4, 1, 9)
    signs = 1 - 2 * paired.exchanges(9, 512, seed=0)
    theirs = stats.permutation_test(
        (own,), np.mean, permutation_type="samples", n_resamples=np.inf
    ).pvalue
    assert paired.p_value(own.mean(), (signs * own).mean(1)) == pytest.approx(theirs)


def test_a_p_value_is_never_0_and_nothing_is_1():
    flips = np.array([0.5, *np.zeros(99)])
    assert paired.p_value(0.5, flips) == 0.01
    assert paired.p_value(0.0, np.zeros(100)) == 1
    # What is not defined speaks for no difference.
    assert paired.p_value(0.5, np.array([0.5, *np.full(99, np.nan)])) == 1


def test_given_weights_are_those_of_the_patients_whatever_rows_there_are():
    values = np.array([[1.0], [2.0], [6.0]], np.float32)
    weights = {"a": np.array([1, 0, 2.0]), "b": np.array([1, 2, 0.0]), "c": np.array([9, 9, 9.0])}
    with weighting(weights):
        (found,) = patient_bootstrap(mean_over_cases, values, ["b", "a", "b"])
        (less,) = patient_bootstrap(mean_over_cases, values[1:], ["a", "b"])
    np.testing.assert_allclose(found.draws, [3, 3.5, 2])
    np.testing.assert_allclose(less.draws, [4, 6, 2])
    assert found.value == 3
    assert (found.n, found.patients) == (3, 2)


def test_more_weights_than_fit_at_once_come_back_in_order():
    values = np.array([[0.0], [1.0]], np.float32)
    share = np.linspace(0, 1, 1500)
    with weighting({"a": 1 - share, "b": share}):
        (found,) = patient_bootstrap(mean_over_cases, values, ["a", "b"])
    np.testing.assert_allclose(found.draws, share, atol=1e-6)
    assert found.value == 0.5


def test_drawn_multiplicities_give_the_interval_of_the_bootstrap():
    rng = np.random.default_rng(0)
    values = rng.normal(size=(90, 1)).astype(np.float32)
    ids = [f"p{i % 30}" for i in range(90)]
    weights = paired.multiplicities(30, 4000, seed=1)
    with weighting({f"p{i}": weights[:, i] for i in range(30)}):
        (ours,) = patient_bootstrap(mean_over_cases, values, ids)
    with keeping_draws():
        (theirs,) = patient_bootstrap(mean_over_cases, values, ids, 4000)
    assert ours.value == theirs.value
    assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high), abs=0.03)
