"""Grades against the reference standard: metrics as functions of arrays and case weights.

Common to all functions here:

* ``weights`` are those of `metrics.weights`: of R columns a metric has R values, along a last axis
  that the shapes below leave out.  0 hides a case whatever its other values.
* A case whose reference is not in 0..K-1 (missing grade: -1) is left out, as with weight 0.
* Undefined is NaN, never 0 or 1; each function says when.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from mskjax.metrics.weights import Weights, mean, of_cases, ratio, running, sums

# --------------------------------------------------------------------------------------------
# The confusion matrix and what is computed from it


def confusion_matrix(
    reference: ArrayLike,
    predicted: ArrayLike,
    classes: int,
    weights: Weights = None,
    missed: bool = False,
) -> np.ndarray:
    """Weighted counts of (reference, predicted) pairs.

    Args:
      reference: (N,) int, 0..classes-1; other values are left out.
      predicted: (N,) int, 0..classes-1.
      classes: K.
      weights: see the module.
      missed: what a predicted value outside 0..K-1 means.  True: the case got no prediction (its
        region was not found) and is counted in an extra last column, so that it is an error in
        every metric below.  False: there can be none, and one turns the whole matrix into NaN,
        since leaving the case out in silence would flatter the model.

    Returns:
      (K, K) float64, rows = reference, columns = predicted; (K, K + 1) if ``missed``.
    """
    reference, predicted = np.asarray(reference), np.asarray(predicted)
    column = np.where((predicted >= 0) & (predicted < classes), predicted, classes)
    pairs = np.zeros((len(reference), classes, classes + 1))
    known = np.flatnonzero(_in_range(reference, classes))
    pairs[known, reference[known], column[known]] = 1
    matrix = sums(pairs, weights)
    if missed:
        return matrix
    return np.where(matrix[:, classes].sum(0) > 0, np.nan, matrix[:, :classes])


def accuracy(matrix: ArrayLike) -> np.ndarray:
    """Share of cases on the diagonal; NaN without cases.  ``matrix``: (K, K) or (K, K+1)."""
    hit, reference, _ = _margins(matrix)
    return ratio(hit.sum(0), reference.sum(0))


def sensitivity_per_class(matrix: ArrayLike) -> np.ndarray:
    """(K,) recall TP / (TP + FN); NaN for a class without reference cases."""
    hit, reference, _ = _margins(matrix)
    return ratio(hit, reference)


def specificity_per_class(matrix: ArrayLike) -> np.ndarray:
    """(K,) TN / (TN + FP), class against the rest; NaN where there is no rest.

    A missed case of another class is wrong, as in accuracy: no class was claimed for it, so it is
    not one that was rightly told from this class.
    """
    hit, reference, predicted = _margins(matrix)
    missed = np.asarray(matrix, np.float64)[:, len(hit) :].sum(1)
    rest = reference.sum(0) - reference
    return ratio(rest - (predicted - hit) - (missed.sum(0) - missed), rest)


def ppv_per_class(matrix: ArrayLike) -> np.ndarray:
    """(K,) positive predictive value TP / (TP + FP); NaN for a class never predicted."""
    hit, _, predicted = _margins(matrix)
    return ratio(hit, predicted)


def f1_per_class(matrix: ArrayLike) -> np.ndarray:
    """(K,) 2TP / (2TP + FP + FN); NaN for a class neither present nor predicted."""
    hit, reference, predicted = _margins(matrix)
    return ratio(2 * hit, reference + predicted)


def balanced_accuracy(matrix: ArrayLike) -> np.ndarray:
    """Mean recall over the classes present in the reference; NaN without cases."""
    return _mean_defined(sensitivity_per_class(matrix))


def f1_macro(matrix: ArrayLike) -> np.ndarray:
    """Mean F1 over the classes present or predicted (scikit-learn's default labels)."""
    return _mean_defined(f1_per_class(matrix))


def f1_weighted(matrix: ArrayLike) -> np.ndarray:
    """F1 averaged with the number of reference cases per class; NaN without cases."""
    _, reference, _ = _margins(matrix)
    f1 = np.where(reference > 0, f1_per_class(matrix), 0.0)
    return ratio((f1 * reference).sum(0), reference.sum(0))


def cohen_kappa(matrix: ArrayLike) -> np.ndarray:
    """Unweighted kappa (Cohen 1960); NaN where chance alone would agree always."""
    return _kappa(matrix, np.sign)


def quadratic_weighted_kappa(matrix: ArrayLike) -> np.ndarray:
    """Kappa with disagreement (i - j)^2 (Cohen 1968); a missed case weighs (K - 1)^2."""
    return _kappa(matrix, np.square)


def _kappa(matrix: ArrayLike, disagreement: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    matrix = np.asarray(matrix, np.float64)
    rows, columns = matrix.shape[:2]
    distance = np.abs(np.arange(rows)[:, None] - np.arange(columns))
    distance[:, rows:] = max(rows - 1, 1)
    cost = disagreement(distance).astype(np.float64)
    share = ratio(matrix, matrix.sum((0, 1)))
    expected = share.sum(1)[:, None] * share.sum(0)[None, :]
    observed, by_chance = (np.tensordot(cost, own, 2) for own in (share, expected))
    return 1.0 - ratio(observed, by_chance)


def _margins(matrix: ArrayLike) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(K,) hits, reference counts and predicted counts of a (K, K) or (K, K+1) matrix."""
    matrix = np.asarray(matrix, np.float64)
    each = np.arange(len(matrix))
    return matrix[each, each], matrix.sum(1), matrix.sum(0)[: len(each)]


# --------------------------------------------------------------------------------------------
# Ranking: one score per case


def auroc(scores: ArrayLike, positive: ArrayLike, weights: Weights = None) -> np.ndarray:
    """Area under the ROC curve: P(score of a positive > score of a negative) + P(equal) / 2.

    The Mann-Whitney statistic with mid-ranks; O(N log N).

    Args:
      scores: (N,) float, higher = more likely positive; compared as float32.
      positive: (N,) bool.
      weights: see the module.

    Returns:
      () in [0, 1]; NaN if there is no positive, no negative, or a NaN score with weight > 0.
    """
    ranked = _Ranked.of(scores, positive, weights)
    pairs = ranked.true.total * ranked.false.total
    return ranked.defined(ratio(ranked.true.wins(ranked.false), pairs))


def average_precision(
    scores: ArrayLike, positive: ArrayLike, weights: Weights = None
) -> np.ndarray:
    """Sum over thresholds of (recall step) x (precision), equal scores being one threshold.

    The step form of scikit-learn's ``average_precision_score``, without interpolation.  Arguments
    as ``auroc``; NaN if there is no positive or a NaN score with weight > 0.
    """
    ranked = _Ranked.of(scores, positive, weights)
    true, false = (side.from_(ranked.true.scores) for side in (ranked.true, ranked.false))
    # Where a positive case counts, something lies above its threshold.
    precision = np.nan_to_num(ratio(true, true + false))
    return ranked.defined(ratio((ranked.true.weights * precision).sum(0), ranked.true.total))


def threshold_at_specificity(
    scores: ArrayLike, positive: ArrayLike, specificity: float, weights: Weights = None
) -> np.ndarray:
    """Lowest observed score t for which "score >= t is positive" keeps the specificity.

    Fit it on training patients, apply it to held-out ones.

    Args:
      scores: (N,) float.
      positive: (N,) bool.
      specificity: wanted specificity, 0..1; reached or exceeded.
      weights: see the module.

    Returns:
      () threshold; +inf (nothing is positive) if no observed score will do; NaN without
      negatives or with a NaN score of weight > 0.
    """
    ranked = _Ranked.of(scores, positive, weights)
    return _threshold(ranked, specificity)


def sensitivity_at_specificity(
    scores: ArrayLike, positive: ArrayLike, specificity: float, weights: Weights = None
) -> np.ndarray:
    """Highest sensitivity among the ROC points with at least this specificity.

    Arguments as ``threshold_at_specificity``.  The threshold is chosen on these very cases, so
    this describes the ROC curve, not a deployed operating point.

    Returns:
      () in [0, 1]; NaN if there is no positive, no negative, or a NaN score with weight > 0.
    """
    ranked = _Ranked.of(scores, positive, weights)
    threshold, true = _threshold(ranked, specificity), ranked.true
    above = true.scores.reshape(-1, *[1] * threshold.ndim) >= threshold
    reached = ratio(np.where(above, true.weights, 0.0).sum(0), true.total)
    return np.where(np.isnan(threshold), np.nan, reached)


def aurocs(
    probabilities: ArrayLike, reference: ArrayLike, weights: Weights = None
) -> tuple[np.ndarray, np.ndarray]:
    """Each class against all others, and each pair of classes.

    The AUROC of a pair is the mean of that of p_b for b and that of p_a for a among the cases of
    the two, the probabilities as they are (Hand & Till 2001, A(i, j)): the term of scikit-learn's
    ``roc_auc_score(multi_class="ovo")``.

    Args:
      probabilities: (N, K) float; compared as float32.
      reference: (N,) int.
      weights: see the module.

    Returns:
      (K,) ``ovr`` and (K (K - 1) / 2,) pairs, 0 with 1, 0 with 2, ...; each in [0, 1], NaN where a
      side has no case or a probability of weight > 0 is NaN.
    """
    probabilities, reference = np.asarray(probabilities, np.float32), np.asarray(reference)
    count = probabilities.shape[1]
    own = [np.flatnonzero(reference == k) for k in range(count)]
    totals = sums(reference[:, None] == np.arange(count), weights)
    # wins[k, j]: of the cases of class k over those of class j, by the probability of class k.
    wins = np.zeros((count, *totals.shape))
    for k, p in enumerate(probabilities.T):
        sides = [_Side.of(p, cases, weights) for cases in own]
        for j in {*range(count)} - {k}:
            wins[k, j] = sides[k].wins(sides[j])
    ovr = ratio(wins.sum(1), totals * (totals.sum(0) - totals))
    a, b = np.triu_indices(count, 1)
    pairs = ratio(wins[a, b] + wins[b, a], 2 * totals[a] * totals[b])
    if np.isnan(probabilities).any():
        unknown = sums(np.isnan(probabilities).any(1) & _in_range(reference, count), weights) > 0
        ovr, pairs = (np.where(unknown, np.nan, found) for found in (ovr, pairs))
    return ovr, pairs


class _Side(NamedTuple):
    """Some of the cases in ascending order of score.

    Attributes:
      scores: (n,) float32 without NaN.
      weights: (n,) float64.
      total: () float64, weight of all.
    """

    scores: np.ndarray
    weights: np.ndarray
    total: np.ndarray

    @classmethod
    def of(cls, scores: np.ndarray, cases: np.ndarray, weights: Weights) -> "_Side":
        cases = cases[~np.isnan(scores[cases])]
        cases = cases[np.argsort(scores[cases], kind="stable")]
        own = of_cases(cases, weights)
        return cls(scores[cases], own, own.sum(0))

    def wins(self, other: "_Side") -> np.ndarray:
        """() weight of the pairs in which one of these has the higher score; equal, half of it."""
        before = running(other.weights)
        below, up_to = (
            before[np.searchsorted(other.scores, self.scores, side)] for side in ("left", "right")
        )
        below += up_to
        below *= self.weights
        return below.sum(0) / 2

    def from_(self, thresholds: np.ndarray) -> np.ndarray:
        """(T,) weight of the cases with at least the score of each threshold."""
        return self.total - running(self.weights)[np.searchsorted(self.scores, thresholds)]


class _Ranked(NamedTuple):
    """Positive and negative cases by their score.

    Attributes:
      true: the positive ones.
      false: the negative ones.
      unknown: () weight of the cases whose score is NaN.
    """

    true: _Side
    false: _Side
    unknown: np.ndarray

    @classmethod
    def of(cls, scores: ArrayLike, positive: ArrayLike, weights: Weights) -> "_Ranked":
        scores, positive = np.asarray(scores, np.float32), np.asarray(positive, bool)
        true, false = (
            _Side.of(scores, np.flatnonzero(own), weights) for own in (positive, ~positive)
        )
        return cls(true, false, sums(np.isnan(scores), weights))

    def defined(self, value: np.ndarray) -> np.ndarray:
        """``value``, or NaN if a case that counts has no score."""
        return np.where(self.unknown > 0, np.nan, value)


def _threshold(ranked: _Ranked, specificity: float) -> np.ndarray:
    """See `threshold_at_specificity`."""
    true, false = ranked.true, ranked.false
    scores = np.concatenate([true.scores, false.scores])
    there = np.concatenate([true.weights, false.weights]) > 0
    kept = false.total - false.from_(scores)
    # The slack of 1e-6 absorbs rounding of e.g. .9 x 10 negatives.
    enough = kept >= false.total * specificity * (1 - 1e-6)
    each = scores.reshape(-1, *[1] * (there.ndim - 1))
    lowest = np.where(enough & there, each, np.inf).min(0, initial=np.inf)
    return ranked.defined(np.where(false.total > 0, lowest, np.nan))


# --------------------------------------------------------------------------------------------
# Probabilities


def brier(probabilities: ArrayLike, reference: ArrayLike, weights: Weights = None) -> np.ndarray:
    """Brier score: mean over cases of half the sum over classes of (p_k - [reference = k])^2.

    Range [0, 1] for any number of classes, 0 is perfect; of two classes it is the mean square of
    (p_1 - reference).  Brier's own (1950) has no half, and a range of [0, 2].

    Args:
      probabilities: (N, K) float, rows sum to 1.
      reference: (N,) int.
      weights: see the module.

    Returns:
      () float; NaN without cases.
    """
    probabilities, reference, known = _labelled(probabilities, reference)
    error = np.square(probabilities - np.eye(probabilities.shape[1])[reference]).sum(1) / 2
    return mean(error, weights, known)


def log_loss(
    probabilities: ArrayLike, reference: ArrayLike, least: float, weights: Weights = None
) -> np.ndarray:
    """Mean over cases of -log p of the own class, in nats.

    Args:
      probabilities: (N, K) float, rows sum to 1.
      reference: (N,) int.
      least: probabilities below it count as this, so that one case costs no infinity.
      weights: see the module.

    Returns:
      () float in [0, -log(least)]; NaN without cases.
    """
    probabilities, reference, known = _labelled(probabilities, reference)
    own = np.take_along_axis(probabilities, reference[:, None], 1)[:, 0]
    # Not -log, which makes a perfect loss print as -0.000.
    return mean(np.abs(np.log(np.maximum(own, least))), weights, known)


class CalibrationTable(NamedTuple):
    """Reliability diagram: what was claimed and what came true, per bin of confidence."""

    confidence: np.ndarray  # (bins,) mean top-label probability, NaN in an empty bin
    accuracy: np.ndarray  # (bins,) share correct, NaN in an empty bin
    weight: np.ndarray  # (bins,) cases


def calibration_bin(confidence: ArrayLike, bins: int = 10) -> np.ndarray:
    """Number of the bin ((m-1)/bins, m/bins] of each confidence, from 0 on."""
    edges = np.linspace(0.0, 1.0, bins + 1, dtype=np.float32)[1:-1]
    return np.searchsorted(edges, np.asarray(confidence, np.float32), side="left")


def calibration_table(
    probabilities: ArrayLike, reference: ArrayLike, weights: Weights = None, bins: int = 10
) -> CalibrationTable:
    """Top-label calibration in equal-width bins ((m-1)/bins, m/bins] (Guo et al. 2017).

    Args:
      probabilities: (N, K) float, rows sum to 1.
      reference: (N,) int.
      weights: see the module.
      bins: number of bins over [0, 1].

    Returns:
      Three (bins,) arrays; all NaN if a case of weight > 0 has a NaN.
    """
    probabilities, reference, known = _labelled(probabilities, reference)
    unknown = np.isnan(probabilities).any(1) & known
    known &= ~unknown
    confidence = np.where(known, probabilities.max(1), 0.0)
    right = probabilities.argmax(1) == reference
    inside = np.eye(bins)[calibration_bin(confidence, bins)] * known[:, None]
    total = sums(inside, weights)
    if unknown.any():
        total = np.where(sums(unknown, weights) > 0, np.nan, total)
    claimed, true = (
        ratio(sums(inside * own[:, None], weights), total) for own in (confidence, right)
    )
    return CalibrationTable(claimed, true, total)


def ece(
    probabilities: ArrayLike, reference: ArrayLike, weights: Weights = None, bins: int = 10
) -> np.ndarray:
    """Expected calibration error: mean over cases of |accuracy - confidence| of their bin.

    Arguments as ``calibration_table``.  Range [0, 1]; NaN without cases.
    """
    table = calibration_table(probabilities, reference, weights, bins)
    gap = np.where(table.weight > 0, np.abs(table.accuracy - table.confidence), 0.0)
    return ratio((table.weight * gap).sum(0), table.weight.sum(0))


# --------------------------------------------------------------------------------------------
# Shared arithmetic


def _in_range(reference: np.ndarray, classes: int) -> np.ndarray:
    return (reference >= 0) & (reference < classes)


def _labelled(
    probabilities: ArrayLike, reference: ArrayLike
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Probabilities as float64 of float32, the reference in range, and where it was."""
    probabilities = np.asarray(probabilities, np.float32).astype(np.float64)
    reference = np.asarray(reference)
    known = _in_range(reference, probabilities.shape[1])
    return probabilities, np.where(known, reference, 0), known


def _mean_defined(values: np.ndarray) -> np.ndarray:
    """Mean along the first axis of the entries that are not NaN; NaN if none is."""
    defined = ~np.isnan(values)
    return ratio(np.where(defined, values, 0.0).sum(0), defined.sum(0))
