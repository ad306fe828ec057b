import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import softmax

from mskjax.metrics.temperature import (
    BOUNDS,
    apply_temperature,
    fit_temperature,
    patient_weights,
)


def drawn(truth=1.0, n=400, classes=3, seed=0):
    """Probabilities, and classes drawn from what they would be at temperature `truth`."""
    rng = np.random.default_rng(seed)
    p = softmax(rng.normal(0, 2, (n, classes)), axis=1)
    right = apply_temperature(p, truth)
    return p, (right.cumsum(1) < rng.random(n)[:, None]).sum(1).clip(0, classes - 1)


def fitted(p, reference, weights=None, patients=100):
    weights = np.ones(len(p)) if weights is None else weights
    return fit_temperature(p, reference, weights, patients)


@pytest.mark.parametrize("classes", [2, 5])
@pytest.mark.parametrize("truth", [0.5, 1.0, 2.5])
def test_finds_the_temperature_that_made_the_data(truth, classes):
    assert fitted(*drawn(truth, 20_000, classes)).value == pytest.approx(truth, rel=0.05)


def test_is_that_of_torch_and_lbfgs():
    torch = pytest.importorskip("torch", reason="the oracle needs PyTorch")
    p, reference = drawn(2.0)
    weights = np.random.default_rng(1).uniform(0.1, 1, len(p))
    log_t = torch.zeros((), dtype=torch.float64, requires_grad=True)
    logits, target = torch.log(torch.tensor(p)), torch.tensor(reference)
    optimiser = torch.optim.LBFGS([log_t], max_iter=200, line_search_fn="strong_wolfe")

    def closure():
        optimiser.zero_grad()
        loss = torch.nn.functional.cross_entropy(logits / log_t.exp(), target, reduction="none")
        loss = (loss * torch.tensor(weights)).sum()
        loss.backward()
        return loss

    optimiser.step(closure)
    expected = log_t.detach().exp().item()
    assert fitted(p, reference, weights).value == pytest.approx(expected, rel=1e-4)


def test_is_that_of_all_temperatures_tried():
    p, reference = drawn(1.7, 60, 4)
    weights = np.random.default_rng(2).uniform(0.1, 1, len(p))
    tried = np.exp(np.linspace(*np.log(BOUNDS), 20_001))
    powers = p[None] ** (1 / tried)[:, None, None]
    own = powers[:, np.arange(60), reference] / powers.sum(2)
    loss = -(weights * np.log(own)).sum(1)
    assert fitted(p, reference, weights).value == pytest.approx(tried[loss.argmin()], rel=1e-3)


@given(
    st.lists(st.lists(st.floats(0.001, 1), min_size=4, max_size=4), min_size=1, max_size=6),
    st.floats(0.2, 20),
)
def test_order_stays_and_rows_sum_to_one(rows, temperature):
    p = np.array(rows) / np.sum(rows, 1, keepdims=True)
    q = apply_temperature(p, temperature)
    np.testing.assert_allclose(q.sum(1), 1)
    for before, after in zip(p, q, strict=True):
        order = np.argsort(before, kind="stable")
        assert (np.diff(after[order]) >= -1e-12).all()


def test_one_is_no_change_and_what_is_missed_stays():
    p, _ = drawn()
    np.testing.assert_allclose(apply_temperature(p, 1.0), p, atol=1e-5)
    p[3] = np.nan
    q = apply_temperature(p, 2.0)
    assert np.isnan(q[3]).all()
    assert not np.isnan(np.delete(q, 3, 0)).any()


def test_a_probability_of_zero_costs_no_infinity():
    p, reference = drawn(1.0, 400, 2)
    p[0] = [0.0, 1.0]
    reference[0] = 0
    assert 0.8 < fitted(p, reference).value < 1.5
    np.testing.assert_allclose(apply_temperature(p[0], 2.0), [1e-3, 1], atol=2e-3)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"patients": 9}, "9 patients, fewer than 10"),
        ({"reference": np.zeros(400, int)}, "all cases are of one class"),
        ({"reference": drawn()[0].argmax(1)}, "right in all cases"),
    ],
)
def test_where_the_likelihood_does_not_say_probabilities_stay(change, why):
    p, reference = drawn()
    found = fitted(**{"p": p, "reference": reference, **change})
    assert found.value == 1.0
    assert why in found.why


def test_a_class_without_a_case_is_no_obstacle():
    p, reference = drawn(2.0, 4000, 4)
    kept = reference != 3
    q = p[kept][:, :3] / p[kept][:, :3].sum(1, keepdims=True)
    assert fitted(p[kept], reference[kept]).value > 1.0
    assert fitted(q, reference[kept]).value == pytest.approx(2.0, rel=0.1)


def test_what_tells_less_than_nothing_stops_at_a_bound():
    p, reference = drawn()
    found = fitted(p, p.argmin(1))
    assert found.value == BOUNDS[1]
    assert "at the bound 20" in found.why
    assert not fitted(p, reference).why


@settings(deadline=None, max_examples=20)
@given(st.permutations(range(40)))
def test_order_of_cases_is_of_no_account(order):
    p, reference = drawn(1.5, 40)
    weights = np.linspace(0.1, 1, 40)
    whole = fitted(p, reference, weights).value
    mixed = fitted(p[order], reference[order], weights[order]).value
    assert mixed == pytest.approx(whole, rel=1e-5)


def test_a_patient_with_many_cases_weighs_as_one_with_one():
    weights = patient_weights(["b", "a", "b", "b", "c"])
    np.testing.assert_allclose(weights, [1 / 3, 1, 1 / 3, 1 / 3, 1])
    p, reference = drawn(2.0, 30)
    often = np.concatenate([[0] * 9, np.arange(30)])
    ids = [str(i) for i in often]
    once = fitted(p, reference).value
    assert fitted(p[often], reference[often], patient_weights(ids)).value == pytest.approx(
        once, rel=1e-5
    )
    assert fitted(p[often], reference[often]).value != pytest.approx(once, rel=1e-3)


@pytest.mark.parametrize(
    "arguments",
    [
        (np.ones((3, 2)) / 2, [0, 1], np.ones(3)),
        (np.full((2, 2), np.nan), [0, 1], np.ones(2)),
        (np.ones((2, 2)) / 2, [0, 1], np.array([1.0, 0.0])),
    ],
)
def test_wrong_arguments_are_refused(arguments):
    with pytest.raises(ValueError, match="match|must be"):
        fit_temperature(*arguments, 20)
