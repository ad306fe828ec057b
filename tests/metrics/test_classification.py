import functools
import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as sk

from mskjax.metrics import bands
from mskjax.metrics import classification as c
from mskjax.metrics.weights import CaseWeights

CLASSES = 4
N = 60
RNG = np.random.default_rng(7)
REFERENCE = RNG.integers(0, CLASSES, N)
PREDICTED = np.where(RNG.random(N) < 0.5, REFERENCE, RNG.integers(0, CLASSES, N))
PROBABILITIES = RNG.dirichlet(np.ones(CLASSES), N).astype(np.float32)
POSITIVE = RNG.random(N) < 0.4
SCORES = np.round(RNG.random(N) + 0.3 * POSITIVE, 1).astype(np.float32)  # many ties
WEIGHTS = RNG.integers(0, 4, N).astype(np.float32)

# Every metric as (data, weights) -> array, for the properties that all share.
DATA = {"r": REFERENCE, "p": PREDICTED, "P": PROBABILITIES, "s": SCORES, "y": POSITIVE}


def of_matrix(metric):
    return lambda d, w: metric(c.confusion_matrix(d["r"], d["p"], CLASSES, w))


ALL = {
    **{
        m.__name__: of_matrix(m)
        for m in (
            c.accuracy,
            c.balanced_accuracy,
            c.sensitivity_per_class,
            c.specificity_per_class,
            c.ppv_per_class,
            c.f1_macro,
            c.f1_weighted,
            c.cohen_kappa,
            c.quadratic_weighted_kappa,
        )
    },
    "auroc": lambda d, w: c.auroc(d["s"], d["y"], w),
    "average_precision": lambda d, w: c.average_precision(d["s"], d["y"], w),
    "ovr": lambda d, w: c.aurocs(d["P"], d["r"], w)[0],
    "pairs": lambda d, w: c.aurocs(d["P"], d["r"], w)[1],
    "threshold": lambda d, w: c.threshold_at_specificity(d["s"], d["y"], 0.8, w),
    "sensitivity_at_specificity": lambda d, w: c.sensitivity_at_specificity(d["s"], d["y"], 0.8, w),
    "brier": lambda d, w: c.brier(d["P"], d["r"], w),
    "ece": lambda d, w: c.ece(d["P"], d["r"], w),
    "log_loss": lambda d, w: c.log_loss(d["P"], d["r"], 1e-6, w),
}


def every_metric(data, weights):
    return {name: metric(data, weights) for name, metric in ALL.items()}


def pick(data, index):
    return {name: values[index] for name, values in data.items()}


def test_confusion_matrix_counts_weighted_pairs_as_scikit_learn():
    ours = c.confusion_matrix(REFERENCE, PREDICTED, CLASSES, WEIGHTS)
    theirs = sk.confusion_matrix(REFERENCE, PREDICTED, labels=range(CLASSES), sample_weight=WEIGHTS)
    np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (c.accuracy, sk.accuracy_score),
        (c.balanced_accuracy, sk.balanced_accuracy_score),
        (c.f1_macro, functools.partial(sk.f1_score, average="macro")),
        (c.f1_weighted, functools.partial(sk.f1_score, average="weighted")),
        (c.f1_per_class, functools.partial(sk.f1_score, average=None)),
        (c.sensitivity_per_class, functools.partial(sk.recall_score, average=None)),
        (c.ppv_per_class, functools.partial(sk.precision_score, average=None)),
        (c.cohen_kappa, sk.cohen_kappa_score),
        (c.quadratic_weighted_kappa, functools.partial(sk.cohen_kappa_score, weights="quadratic")),
    ],
)
def test_matrix_metrics_agree_with_scikit_learn(ours, theirs):
    matrix = c.confusion_matrix(REFERENCE, PREDICTED, CLASSES, WEIGHTS)
    expected = theirs(REFERENCE, PREDICTED, sample_weight=WEIGHTS)
    np.testing.assert_allclose(ours(matrix), expected, rtol=1e-5)


def test_specificity_is_recall_of_the_rest():
    matrix = c.confusion_matrix(REFERENCE, PREDICTED, CLASSES)
    rest = [(np.not_equal(REFERENCE, k), np.not_equal(PREDICTED, k)) for k in range(CLASSES)]
    expected = [sk.recall_score(truth, found) for truth, found in rest]
    np.testing.assert_allclose(c.specificity_per_class(matrix), expected, rtol=1e-6)


def test_ranking_metrics_agree_with_scikit_learn_with_ties_and_weights():
    np.testing.assert_allclose(
        c.auroc(SCORES, POSITIVE, WEIGHTS),
        sk.roc_auc_score(POSITIVE, SCORES, sample_weight=WEIGHTS),
        rtol=1e-5,
    )
    np.testing.assert_allclose(
        c.average_precision(SCORES, POSITIVE, WEIGHTS),
        sk.average_precision_score(POSITIVE, SCORES, sample_weight=WEIGHTS),
        rtol=1e-5,
    )


@pytest.mark.parametrize("seed", range(4))
def test_areas_are_those_of_scikit_learn_for_any_columns_of_weights(seed):
    rng = np.random.default_rng(seed)
    positive = rng.random(N) < 0.4
    positive[:2] = True, False
    score = np.round((positive * 0.6 + rng.normal(size=N)) * 3) / 12  # with ties
    columns = bands.case_weights([f"p{i}" for i in rng.integers(0, N // 3, N)], 20, seed).T
    columns = np.concatenate([np.ones((N, 1)), columns], 1)
    auroc = c.auroc(score, positive, columns)
    precision = c.average_precision(score, positive, columns)
    compared = 0
    for column, own in enumerate(columns.T):
        if own[positive].sum() and own[~positive].sum():
            expected = sk.roc_auc_score(positive, score, sample_weight=own)
            assert auroc[column] == pytest.approx(expected)
            expected = sk.average_precision_score(positive, score, sample_weight=own)
            assert precision[column] == pytest.approx(expected)
            compared += 1
    assert compared > 10


@pytest.mark.parametrize("specificity", [0.5, 0.8, 0.9, 1.0])
def test_sensitivity_at_specificity_is_the_best_roc_point(specificity):
    fpr, tpr, _ = sk.roc_curve(POSITIVE, SCORES, drop_intermediate=False)
    expected = tpr[1 - fpr >= specificity - 1e-9].max()
    ours = c.sensitivity_at_specificity(SCORES, POSITIVE, specificity)
    np.testing.assert_allclose(ours, expected, rtol=1e-6)


def test_threshold_applied_as_greater_or_equal_keeps_the_specificity():
    threshold = float(c.threshold_at_specificity(SCORES, POSITIVE, 0.8))
    assert np.mean(SCORES[~POSITIVE] < threshold) >= 0.8
    lower = max(score for score in SCORES if score < threshold)
    assert np.mean(SCORES[~POSITIVE] < lower) < 0.8


def test_threshold_is_infinite_where_a_negative_has_the_top_score():
    assert c.threshold_at_specificity([0.1, 0.9], [True, False], 1.0) == np.inf
    assert c.sensitivity_at_specificity([0.1, 0.9], [True, False], 1.0) == 0.0


def test_aurocs_of_pairs_are_the_terms_of_scikit_learns_ovo():
    """The mean of p_a for a and of p_b for b, among the cases of the two, as they are."""
    weights = WEIGHTS + 1
    _, ours = c.aurocs(PROBABILITIES, REFERENCE, weights)
    for found, classes in zip(ours, itertools.combinations(range(CLASSES), 2), strict=True):
        pair = np.isin(REFERENCE, classes)
        of_each = [
            sk.roc_auc_score(
                REFERENCE[pair] == k, PROBABILITIES[pair, k], sample_weight=weights[pair]
            )
            for k in classes
        ]
        assert found == pytest.approx(np.mean(of_each), rel=1e-6)
    _, ours = c.aurocs(PROBABILITIES, REFERENCE)
    expected = sk.roc_auc_score(REFERENCE, PROBABILITIES, multi_class="ovo")
    assert np.mean(ours) == pytest.approx(expected, rel=1e-6)


def test_aurocs_of_classes_against_the_rest_are_those_of_scikit_learn():
    ours, _ = c.aurocs(PROBABILITIES, REFERENCE, WEIGHTS)
    theirs = [
        sk.roc_auc_score(k == REFERENCE, PROBABILITIES[:, k], sample_weight=WEIGHTS)
        for k in range(CLASSES)
    ]
    np.testing.assert_allclose(ours, theirs, rtol=1e-6)


def test_aurocs_with_both_probabilities_zero_are_a_tie():
    probabilities = np.array([[0.0, 0.0, 1.0], [0.0, 0.0, 1.0]])
    np.testing.assert_array_equal(
        c.aurocs(probabilities, np.array([0, 1]))[1], [0.5, np.nan, np.nan]
    )


def test_brier_is_half_the_sum_over_classes_and_ends_at_one():
    ours = c.brier(PROBABILITIES, REFERENCE, WEIGHTS)
    onehot = np.eye(CLASSES)[REFERENCE]
    expected = np.average(((PROBABILITIES - onehot) ** 2).sum(1) / 2, weights=WEIGHTS)
    np.testing.assert_allclose(ours, expected, rtol=1e-5)
    assert c.brier(np.eye(2), np.array([1, 0])) == 1.0
    assert c.brier(np.eye(CLASSES), np.array([1, 0, 3, 2])) == 1.0
    # Of two classes it is scikit-learn's, which has the one probability only.
    columns = np.stack([1 - SCORES / 2, SCORES / 2], 1)
    binary = sk.brier_score_loss(POSITIVE, SCORES / 2)
    np.testing.assert_allclose(c.brier(columns, POSITIVE.astype(int)), binary, rtol=1e-5)


def test_log_loss_agrees_with_scikit_learn_weighs_cases_and_has_a_limit():
    weights = WEIGHTS + (WEIGHTS == 0)
    expected = sk.log_loss(REFERENCE, PROBABILITIES, sample_weight=weights)
    ours = c.log_loss(PROBABILITIES, REFERENCE, 1e-6, weights)
    np.testing.assert_allclose(ours, expected, rtol=1e-5)
    # What a hidden case holds is of no account.
    hidden = np.where(WEIGHTS[:, None] > 0, PROBABILITIES, np.nan)
    shown = WEIGHTS > 0
    expected = sk.log_loss(REFERENCE[shown], PROBABILITIES[shown], sample_weight=WEIGHTS[shown])
    np.testing.assert_allclose(c.log_loss(hidden, REFERENCE, 1e-6, WEIGHTS), expected, rtol=1e-5)
    worst = c.log_loss(np.eye(2), np.array([1, 0]), 1e-6)
    np.testing.assert_allclose(worst, -np.log(1e-6), rtol=1e-5)
    perfect = c.log_loss(np.eye(2), np.array([0, 1]), 1e-6)
    assert (float(perfect), np.copysign(1, perfect)) == (0, 1)  # and not -0


def test_calibration_bins_and_ece_by_hand():
    # Bins (0.5, 0.6] and (0.8, 0.9]: claimed .6 and .9, true 1/2 and 2/3.
    confidence = np.array([0.6, 0.6, 0.9, 0.9, 0.9], np.float32)
    probabilities = np.stack([confidence, 1 - confidence], 1)
    reference = np.array([0, 1, 0, 0, 1])
    table = c.calibration_table(probabilities, reference)
    np.testing.assert_array_equal(table.weight, [0, 0, 0, 0, 0, 2, 0, 0, 3, 0])
    np.testing.assert_allclose(table.accuracy[[5, 8]], [1 / 2, 2 / 3], rtol=1e-6)
    np.testing.assert_allclose(table.confidence[[5, 8]], [0.6, 0.9], rtol=1e-6)
    assert np.isnan(table.accuracy[0])
    expected = 2 / 5 * 0.1 + 3 / 5 * (0.9 - 2 / 3)
    np.testing.assert_allclose(c.ece(probabilities, reference), expected, rtol=1e-5)
    assert c.calibration_table(probabilities, reference, bins=5).weight.shape == (5,)


# ------------------------------------------------------------------- weights


@settings(max_examples=25)
@given(st.lists(st.integers(0, N - 1), min_size=N, max_size=N))
def test_integer_weights_equal_repeated_cases(drawn):
    drawn = np.array(drawn)
    multiplicity = np.bincount(drawn, minlength=N).astype(np.float32)
    weighted = every_metric(DATA, multiplicity)
    repeated = every_metric(pick(DATA, drawn), np.ones(N, np.float32))
    for name in ALL:
        np.testing.assert_allclose(weighted[name], repeated[name], atol=2e-5, err_msg=name)


def test_a_padded_case_counts_nowhere_whatever_it_holds():
    padded = {
        "r": np.append(REFERENCE, [0, -1]),
        "p": np.append(PREDICTED, [-1, 99]),
        "P": np.append(PROBABILITIES, np.full((2, CLASSES), np.nan), 0).astype(np.float32),
        "s": np.append(SCORES, [np.nan, np.inf]).astype(np.float32),
        "y": np.append(POSITIVE, [True, False]),
    }
    plain = every_metric(DATA, np.ones(N, np.float32))
    hidden = every_metric(padded, np.append(np.ones(N), [0, 0]).astype(np.float32))
    for name in ALL:
        np.testing.assert_allclose(hidden[name], plain[name], atol=1e-6, err_msg=name)


@pytest.mark.parametrize("own", [None, RNG.random(N)])
def test_columns_of_weights_are_one_at_a_time_in_numbers_or_by_unit(own):
    of_units = np.random.default_rng(1).integers(0, 3, (7, 5)).astype(float)
    unit = np.arange(N) % 7
    columns = of_units[unit] * (1 if own is None else own[:, None])
    by_unit = every_metric(DATA, CaseWeights(of_units, unit, own))
    together = every_metric(DATA, columns)
    for column in range(5):
        alone = every_metric(DATA, columns[:, column])
        for name in ALL:
            for found in (together, by_unit):
                np.testing.assert_allclose(
                    found[name][..., column], alone[name], atol=1e-9, err_msg=name
                )


# ------------------------------------------------------------------- degenerate input


def test_every_metric_is_nan_without_cases():
    for name, value in every_metric(DATA, np.zeros(N, np.float32)).items():
        assert np.isnan(value).all(), name


def test_one_right_case():
    matrix = c.confusion_matrix([2], [2], 3)
    assert c.accuracy(matrix) == 1
    assert c.balanced_accuracy(matrix) == 1
    np.testing.assert_array_equal(c.sensitivity_per_class(matrix), [np.nan, np.nan, 1])
    np.testing.assert_array_equal(c.specificity_per_class(matrix), [1, 1, np.nan])
    assert np.isnan(c.cohen_kappa(matrix))  # chance alone would agree
    assert np.isnan(c.quadratic_weighted_kappa(matrix))


@pytest.mark.parametrize("positive", [True, False])
def test_ranking_needs_both_classes(positive):
    truth = [positive, positive]
    assert np.isnan(c.auroc([0.1, 0.2], truth))
    assert np.isnan(c.sensitivity_at_specificity([0.1, 0.2], truth, 0.9))


def test_average_precision_of_all_positive_is_one_and_of_none_is_nan():
    assert c.average_precision([0.1, 0.2], [True, True]) == 1
    assert np.isnan(c.average_precision([0.1, 0.2], [False, False]))


def test_equal_scores_are_chance_and_perfect_order_is_one():
    assert c.auroc([0.5, 0.5, 0.5], [True, False, False]) == 0.5
    assert c.auroc([0.1, 0.2, 0.9], [False, False, True]) == 1
    assert c.auroc([0.9, 0.2, 0.1], [False, False, True]) == 0


def test_a_missing_score_that_counts_makes_the_metric_nan():
    assert np.isnan(c.auroc([np.nan, 0.2, 0.3], [True, False, True]))
    assert np.isnan(c.brier([[np.nan, 1.0], [0.5, 0.5]], np.array([0, 1])))


def test_balanced_accuracy_leaves_absent_classes_out():
    matrix = c.confusion_matrix([0, 0, 1, 1], [0, 2, 1, 1], 3)
    assert c.balanced_accuracy(matrix) == 0.75


def test_a_missing_grade_is_left_out():
    matrix = c.confusion_matrix([0, -1, 1], [0, 0, 0], 2)
    np.testing.assert_array_equal(matrix, [[1, 0], [1, 0]])
    one = c.brier(PROBABILITIES[:2], np.array([1, -1]))
    np.testing.assert_allclose(one, c.brier(PROBABILITIES[:1], np.array([1])), rtol=1e-6)


def test_a_missed_region_is_an_error_and_never_dropped():
    reference, predicted = [0, 0, 1, 1], [0, -1, 1, 1]
    assert np.isnan(c.confusion_matrix(reference, predicted, 2)).all()
    matrix = c.confusion_matrix(reference, predicted, 2, missed=True)
    np.testing.assert_array_equal(matrix, [[1, 0, 1], [0, 2, 0]])
    assert c.accuracy(matrix) == 0.75
    np.testing.assert_array_equal(c.sensitivity_per_class(matrix), [0.5, 1])
    # The missed case of class 0 is not one that was rightly told from class 1.
    np.testing.assert_array_equal(c.specificity_per_class(matrix), [1, 0.5])
    np.testing.assert_allclose(c.f1_macro(matrix), (2 / 3 + 1) / 2, rtol=1e-6)
    for kappa in (c.cohen_kappa, c.quadratic_weighted_kappa):
        assert kappa(matrix) < 1


def test_finding_nothing_leaves_no_specificity():
    matrix = c.confusion_matrix(REFERENCE, np.full(N, -1), CLASSES, missed=True)
    np.testing.assert_array_equal(c.specificity_per_class(matrix), np.zeros(CLASSES))


@settings(max_examples=30)
@given(st.lists(st.integers(0, CLASSES), min_size=N, max_size=N))
def test_specificity_is_the_share_of_the_rest_that_was_called_another_class(calls):
    calls = np.array(calls)
    matrix = c.confusion_matrix(REFERENCE, calls, CLASSES, missed=True)
    rest = [calls[np.not_equal(REFERENCE, k)] for k in range(CLASSES)]
    expected = [np.mean((own != k) & (own < CLASSES)) for k, own in enumerate(rest)]
    np.testing.assert_allclose(c.specificity_per_class(matrix), expected, atol=1e-6)


def test_a_missed_region_weighs_as_the_worst_grade_in_weighted_kappa():
    reference = np.array([0, 1, 2, 0])
    missed = c.confusion_matrix(reference, [0, 1, 2, -1], 3, missed=True)
    # Observed cost: one case of four at (K-1)^2; expected cost from the margins, by hand.
    observed = 4 / 4
    cost = np.array([[0, 1, 4, 4], [1, 0, 1, 4], [4, 1, 0, 4]])
    expected = (cost * np.outer([2, 1, 1], [1, 1, 1, 1])).sum() / 16
    np.testing.assert_allclose(
        c.quadratic_weighted_kappa(missed), 1 - observed / expected, rtol=1e-6
    )
