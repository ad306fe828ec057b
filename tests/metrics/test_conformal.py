import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import softmax

from mskjax.metrics import conformal
from mskjax.metrics.grading import Grading

GRADES = Grading("g", ("a", "b", "c", "d", "e"), ordinal=True)
KINDS = Grading("k", ("a", "b", "c", "d"))

probabilities = st.lists(
    st.lists(st.integers(0, 20), min_size=5, max_size=5).filter(any), min_size=1, max_size=5
).map(lambda rows: np.array(rows, float) / np.sum(rows, 1, keepdims=True))


def clustered(grading, patients, rng, certainty=1.2):
    """Cases of patients who differ in how many they have and in how wrong the network is on them.

    Returns:
      Probabilities (N, K), classes (N,), patients (N,).
    """
    count = len(grading.classes)
    sizes = rng.integers(1, 12, patients)
    owner = np.repeat(np.arange(patients), sizes)
    bias = rng.normal(0, 1.0, (patients, count))[owner]
    truth = rng.integers(0, count, len(owner))
    distance = np.abs(np.arange(count) - truth[:, None]) if grading.ordinal else None
    signal = -distance if distance is not None else 2.0 * np.eye(count)[truth]
    p = softmax(certainty * signal + bias + rng.normal(0, 1, (len(owner), count)), axis=1)
    return p, truth, owner


@pytest.mark.parametrize("grading", [GRADES, KINDS], ids=["ordinal", "nominal"])
@pytest.mark.parametrize("coverage", [0.8, 0.9])
def test_a_random_case_of_a_new_patient_is_in_its_set(grading, coverage):
    """4000 new patients, one case of each, after fits on 30 patients: in the binomial interval.

    Exact coverage lies between what is promised and 2 / (P + 1) more, as scores have ties.
    """
    rng = np.random.default_rng(0)
    held = []
    for _ in range(400):
        p, truth, owner = clustered(grading, 40, rng)
        own = conformal.scores(p, grading.calls(p), grading.ordinal)[np.arange(len(p)), truth]
        old = owner < 30
        fitted = conformal.fit(own[old], owner[old].tolist())
        found = conformal.sets(p, grading.calls(p), grading.ordinal, fitted, coverage)
        for patient in range(30, 40):
            case = rng.choice(np.flatnonzero(owner == patient))
            held.append(found[case, truth[case]])
    share, spread = np.mean(held), math.sqrt(coverage * (1 - coverage) / len(held))
    # Patients of one fit share a quantile: four standard errors of independent cases.
    assert coverage - 4 * spread < share < coverage + 2 / 31 + 4 * spread


def test_cases_taken_for_independent_cover_less():
    """Patients with more cases are harder here: what weighs cases alike misses single-case ones."""
    rng = np.random.default_rng(1)
    weighed, alike = [], []
    for _ in range(200):
        sizes = np.where(rng.random(40) < 0.5, 1, 12)
        owner = np.repeat(np.arange(40), sizes)
        own = rng.random(len(owner)) ** np.where(sizes[owner] == 1, 0.5, 3.0)
        fitted = conformal.fit(own, owner.tolist())
        plain = conformal.fit(own, [str(i) for i in range(len(own))])
        new = rng.random() ** (0.5 if rng.random() < 0.5 else 3.0)
        weighed.append(new <= conformal.quantile(fitted, 0.9))
        alike.append(new <= conformal.quantile(plain, 0.9))
    assert np.mean(weighed) > 0.86
    assert np.mean(alike) < np.mean(weighed) - 0.05


def test_the_quantile_of_one_case_a_patient_is_the_usual_one():
    rng = np.random.default_rng(2)
    for n in (9, 10, 24, 101):
        values = np.sort(rng.random(n))
        fitted = conformal.fit(values, [str(i) for i in range(n)])
        rank = math.ceil(0.9 * (n + 1) - 1e-9)  # the k-th smallest of n
        assert conformal.quantile(fitted, 0.9) == values[rank - 1]


def test_the_quantile_is_that_of_one_case_of_each_patient_drawn_often():
    """The pooled distribution is the mean over draws of one case a patient (Dunn et al.)."""
    rng = np.random.default_rng(3)
    sizes = rng.integers(1, 9, 25)
    owner = np.repeat(np.arange(25), sizes)
    own = rng.random(len(owner))
    ends = np.cumsum(sizes)
    drawn = own[(ends - sizes)[None] + (rng.random((40_000, 25)) * sizes).astype(int)]
    q = conformal.quantile(conformal.fit(own, owner.tolist()), 0.8)
    below = own[own < q].max()
    needed = 0.8 * 26 / 25
    assert (drawn <= q).mean() > needed - 0.002
    assert (drawn <= below).mean() < needed + 0.002


@pytest.mark.parametrize(("coverage", "least"), [(0.8, 4), (0.9, 9), (0.95, 19)])
def test_too_few_patients_leave_no_class_out(coverage, least):
    assert conformal.least_patients(coverage) == least
    p = np.array([[0.97, 0.01, 0.01, 0.01]])
    for count in (0, least - 1, least):
        fitted = conformal.fit(np.zeros(3 * count), [str(i) for i in range(count)] * 3)
        found = conformal.sets(p, KINDS.calls(p), False, fitted, coverage)
        assert found.all() == (count < least)
        assert found[0, 0]


def test_scores_by_hand():
    p = np.array([[0.1, 0.2, 0.4, 0.25, 0.05]])
    ordinal = conformal.scores(p, GRADES.calls(p), True)
    np.testing.assert_allclose(ordinal, [[0.85, 0.65, 0.0, 0.4, 0.95]])
    nominal = conformal.scores(p, np.array([2]), False)
    np.testing.assert_allclose(nominal, [[0.85, 0.65, 0.0, 0.4, 0.95]])
    p = np.array([[0.4, 0.0, 0.15, 0.1, 0.35]])  # the expectation is c, the mode a
    assert GRADES.calls(p) == [2]
    ordinal = conformal.scores(p, GRADES.calls(p), True)
    np.testing.assert_allclose(ordinal, [[0.6, 0.6, 0.0, 0.15, 0.25]])


@settings(deadline=None)
@given(probabilities, st.floats(0, 1.2))
def test_sets_hold_the_call_have_no_hole_and_grow(p, level):
    for ordinal in (True, False):
        grading = GRADES if ordinal else Grading("n", GRADES.classes)
        calls = grading.calls(p)
        found = conformal.scores(p, calls, ordinal)
        assert (found[np.arange(len(p)), calls] == 0).all()
        inside = found <= level
        assert (inside <= (found <= level + 0.1)).all()
        # Whatever is left out is no likelier than what is in, the call apart, without an order.
        for row, (members, own) in enumerate(zip(inside, p, strict=True)):
            if ordinal:
                assert (np.diff(np.flatnonzero(members)) == 1).all()
            else:
                others = members & (np.arange(5) != calls[row])
                assert own[others].min(initial=1) >= own[~members].max(initial=0)


@settings(deadline=None, max_examples=30)
@given(st.randoms(use_true_random=False))
def test_neither_order_nor_names_of_patients_matter(random):
    rng = np.random.default_rng(4)
    p, truth, owner = clustered(GRADES, 20, rng)
    own = conformal.scores(p, GRADES.calls(p), True)[np.arange(len(p)), truth]
    fitted = conformal.fit(own, owner.tolist())
    order, names = list(range(len(own))), list(range(20))
    random.shuffle(order)
    random.shuffle(names)
    mixed = conformal.fit(own[order], [f"n{names[owner[i]]}" for i in order])
    assert mixed == fitted


def test_a_missed_region_has_no_set():
    p = np.array([[0.5, 0.3, 0.1, 0.1], [np.nan] * 4])
    fitted = conformal.fit(np.full(20, 0.6), [str(i) for i in range(20)])
    found = conformal.sets(p, KINDS.calls(p), False, fitted, 0.9)
    assert found.tolist() == [[True, True, False, False], [False] * 4]


@pytest.mark.parametrize("coverage", [0, 1, 1.5, math.nan])
def test_a_coverage_is_a_share(coverage):
    with pytest.raises(ValueError, match="between 0 and 1"):
        conformal.quantile({"scores": [[0.1]]}, coverage)
