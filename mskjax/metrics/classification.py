"""Grades against the reference standard: metrics as functions of arrays and case weights.

Common to all functions here:

* ``weights`` is (N,) float, >= 0: 0 hides a padded case whatever its other values, 1 is an
  ordinary case, k is a case drawn k times.  ``None`` means all ones.
* A case whose reference is not in 0..K-1 (missing grade: -1) is left out, as with weight 0.
* Undefined is NaN, never 0 or 1; each function says when.
* Everything is float32 ``jax.numpy``, works under ``jit``, and under ``vmap`` over ``weights``
  sorts scores once, not once per weight vector.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

# --------------------------------------------------------------------------------------------
# The confusion matrix and what is computed from it


def confusion_matrix(
    reference: ArrayLike,
    predicted: ArrayLike,
    classes: int,
    weights: ArrayLike | None = None,
    missed: bool = False,
) -> jax.Array:
    """Weighted counts of (reference, predicted) pairs.

    Args:
      reference: (N,) int, 0..classes-1; other values are left out.
      predicted: (N,) int, 0..classes-1.
      classes: K.
      weights: (N,) case weights.
      missed: what a predicted value outside 0..K-1 means.  True: the case got no prediction (its
        region was not found) and is counted in an extra last column, so that it is an error in
        every metric below.  False: there can be none, and one turns the whole matrix into NaN,
        since leaving the case out in silence would flatter the model.

    Returns:
      (K, K) float32, rows = reference, columns = predicted; (K, K + 1) if ``missed``.
    """
    reference, weights = _labelled(reference, classes, weights)
    predicted = jnp.asarray(predicted)
    column = jnp.where((predicted >= 0) & (predicted < classes), predicted, classes)
    # One product with a weight-free one-hot matrix: a bootstrap's vmap makes it a single matmul.
    pairs = jax.nn.one_hot(reference * (classes + 1) + column, classes * (classes + 1))
    matrix = _matmul(weights, pairs).reshape(classes, classes + 1)
    if missed:
        return matrix
    return jnp.where(matrix[:, classes].sum() > 0, jnp.nan, matrix[:, :classes])


def accuracy(matrix: ArrayLike) -> jax.Array:
    """Share of cases on the diagonal; NaN without cases.  ``matrix``: (K, K) or (K, K+1)."""
    hit, reference, _ = _margins(matrix)
    return _ratio(hit.sum(), reference.sum())


def sensitivity_per_class(matrix: ArrayLike) -> jax.Array:
    """(K,) recall TP / (TP + FN); NaN for a class without reference cases."""
    hit, reference, _ = _margins(matrix)
    return _ratio(hit, reference)


def specificity_per_class(matrix: ArrayLike) -> jax.Array:
    """(K,) TN / (TN + FP), class against the rest; NaN where there is no rest.

    A missed case of another class is wrong, as in accuracy: no class was claimed for it, so it is
    not one that was rightly told from this class.
    """
    hit, reference, predicted = _margins(matrix)
    missed = jnp.asarray(matrix, jnp.float32)[:, hit.shape[0] :].sum(1)
    rest = reference.sum() - reference
    return _ratio(rest - (predicted - hit) - (missed.sum() - missed), rest)


def ppv_per_class(matrix: ArrayLike) -> jax.Array:
    """(K,) positive predictive value TP / (TP + FP); NaN for a class never predicted."""
    hit, _, predicted = _margins(matrix)
    return _ratio(hit, predicted)


def f1_per_class(matrix: ArrayLike) -> jax.Array:
    """(K,) 2TP / (2TP + FP + FN); NaN for a class neither present nor predicted."""
    hit, reference, predicted = _margins(matrix)
    return _ratio(2 * hit, reference + predicted)


def balanced_accuracy(matrix: ArrayLike) -> jax.Array:
    """Mean recall over the classes present in the reference; NaN without cases."""
    return _mean_defined(sensitivity_per_class(matrix))


def f1_macro(matrix: ArrayLike) -> jax.Array:
    """Mean F1 over the classes present or predicted (scikit-learn's default labels)."""
    return _mean_defined(f1_per_class(matrix))


def f1_weighted(matrix: ArrayLike) -> jax.Array:
    """F1 averaged with the number of reference cases per class; NaN without cases."""
    _, reference, _ = _margins(matrix)
    f1 = jnp.where(reference > 0, f1_per_class(matrix), 0.0)
    return _ratio((f1 * reference).sum(), reference.sum())


def cohen_kappa(matrix: ArrayLike) -> jax.Array:
    """Unweighted kappa (Cohen 1960); NaN where chance alone would agree always."""
    return _kappa(matrix, lambda distance: (distance > 0).astype(jnp.float32))


def quadratic_weighted_kappa(matrix: ArrayLike) -> jax.Array:
    """Kappa with disagreement (i - j)^2 (Cohen 1968); a missed case weighs (K - 1)^2."""
    return _kappa(matrix, jnp.square)


def _kappa(matrix: ArrayLike, disagreement) -> jax.Array:
    matrix = jnp.asarray(matrix, jnp.float32)
    rows, columns = matrix.shape
    distance = jnp.abs(jnp.arange(rows)[:, None] - jnp.arange(columns)[None, :])
    distance = jnp.where(jnp.arange(columns) >= rows, max(rows - 1, 1), distance)
    cost = disagreement(distance.astype(jnp.float32))
    share = _ratio(matrix, matrix.sum())
    expected = share.sum(1)[:, None] * share.sum(0)[None, :]
    return 1.0 - _ratio((cost * share).sum(), (cost * expected).sum())


def _margins(matrix: ArrayLike) -> tuple[jax.Array, jax.Array, jax.Array]:
    """(K,) hits, reference counts and predicted counts of a (K, K) or (K, K+1) matrix."""
    matrix = jnp.asarray(matrix, jnp.float32)
    classes = matrix.shape[0]
    return jnp.diagonal(matrix), matrix.sum(1), matrix.sum(0)[:classes]


# --------------------------------------------------------------------------------------------
# Ranking: one score per case


def auroc(scores: ArrayLike, positive: ArrayLike, weights: ArrayLike | None = None) -> jax.Array:
    """Area under the ROC curve: P(score of a positive > score of a negative) + P(equal) / 2.

    The Mann-Whitney statistic with mid-ranks; O(N log N).

    Args:
      scores: (N,) float, higher = more likely positive; compared as float32.
      positive: (N,) bool.
      weights: (N,) case weights.

    Returns:
      () in [0, 1]; NaN if there is no positive, no negative, or a NaN score with weight > 0.
    """
    ranked = _rank(scores, positive, weights)
    below = ranked.negatives[ranked.first]
    up_to = ranked.negatives[ranked.after]
    wins = (ranked.positive_weight * (below + up_to) / 2).sum()
    return ranked.defined(_ratio(wins, ranked.positives[-1] * ranked.negatives[-1]))


def average_precision(
    scores: ArrayLike, positive: ArrayLike, weights: ArrayLike | None = None
) -> jax.Array:
    """Sum over thresholds of (recall step) x (precision), equal scores being one threshold.

    The step form of scikit-learn's ``average_precision_score``, without interpolation.  Arguments
    as ``auroc``; NaN if there is no positive or a NaN score with weight > 0.
    """
    ranked = _rank(scores, positive, weights)
    true = ranked.positives[-1] - ranked.positives[ranked.first]
    false = ranked.negatives[-1] - ranked.negatives[ranked.first]
    precision = true / jnp.maximum(true + false, jnp.finfo(jnp.float32).tiny)
    gain = (ranked.positive_weight * precision).sum()
    return ranked.defined(_ratio(gain, ranked.positives[-1]))


def threshold_at_specificity(
    scores: ArrayLike,
    positive: ArrayLike,
    specificity: float,
    weights: ArrayLike | None = None,
) -> jax.Array:
    """Lowest observed score t for which "score >= t is positive" keeps the specificity.

    Fit it on training patients, apply it to held-out ones.

    Args:
      scores: (N,) float.
      positive: (N,) bool.
      specificity: wanted specificity, 0..1; reached or exceeded.
      weights: (N,) case weights.

    Returns:
      () threshold; +inf (nothing is positive) if no observed score will do; NaN without
      negatives or with a NaN score of weight > 0.
    """
    ranked = _rank(scores, positive, weights)
    negatives = ranked.negatives[-1]
    # The slack of 1e-6 absorbs float32 rounding of e.g. .9 x 10 negatives.
    enough = ranked.negatives[ranked.first] >= negatives * specificity * (1 - 1e-6)
    usable = enough & (ranked.weight > 0)
    lowest = jnp.where(usable, ranked.scores, jnp.inf).min()
    return ranked.defined(jnp.where(negatives > 0, lowest, jnp.nan))


def sensitivity_at_specificity(
    scores: ArrayLike,
    positive: ArrayLike,
    specificity: float,
    weights: ArrayLike | None = None,
) -> jax.Array:
    """Highest sensitivity among the ROC points with at least this specificity.

    Arguments as ``threshold_at_specificity``.  The threshold is chosen on these very cases, so
    this describes the ROC curve, not a deployed operating point.

    Returns:
      () in [0, 1]; NaN if there is no positive, no negative, or a NaN score with weight > 0.
    """
    threshold = threshold_at_specificity(scores, positive, specificity, weights)
    scores = jnp.asarray(scores, jnp.float32)
    weight = jnp.where(jnp.asarray(positive, bool), _weights(weights, scores.shape[0]), 0.0)
    found = jnp.where(scores >= threshold, weight, 0.0).sum()
    return jnp.where(jnp.isnan(threshold), jnp.nan, _ratio(found, weight.sum()))


def pairwise_auroc(
    probabilities: ArrayLike,
    reference: ArrayLike,
    a: int | jax.Array,
    b: int | jax.Array,
    weights: ArrayLike | None = None,
) -> jax.Array:
    """Separation of classes a and b among their own cases (Hand & Till 2001, A(i, j)).

    Mean of the AUROC of p_b for b and of the AUROC of p_a for a, the probabilities as they are:
    the pair's term of scikit-learn's ``roc_auc_score(multi_class="ovo")``.

    Args:
      probabilities: (N, K) float.
      reference: (N,) int.
      a: one class.
      b: the other.
      weights: (N,) case weights.

    Returns:
      () in [0, 1]; NaN if either class has no case.
    """
    probabilities = jnp.asarray(probabilities, jnp.float32)
    reference = jnp.asarray(reference)
    member = (reference == a) | (reference == b)
    weights = jnp.where(member, _weights(weights, reference.shape[0]), 0.0)
    of_a, of_b = (auroc(probabilities[:, k], reference == k, weights) for k in (a, b))
    return (of_a + of_b) / 2


class _Ranked(NamedTuple):
    """Cases in ascending order of score; cumulative sums start with 0 and have N + 1 entries."""

    scores: jax.Array
    weight: jax.Array
    positive_weight: jax.Array
    positives: jax.Array  # (N + 1,) weight of positives before each position
    negatives: jax.Array
    first: jax.Array  # (N,) first position of the run of equal scores
    after: jax.Array  # (N,) position after that run

    def defined(self, value: jax.Array) -> jax.Array:
        """``value``, or NaN if a case that counts has no score."""
        return jnp.where((jnp.isnan(self.scores) & (self.weight > 0)).any(), jnp.nan, value)


def _rank(scores: ArrayLike, positive: ArrayLike, weights: ArrayLike | None) -> _Ranked:
    scores = jnp.asarray(scores, jnp.float32)
    order = jnp.argsort(scores)
    scores = scores[order]
    weight = _weights(weights, scores.shape[0])[order]
    positive_weight = jnp.where(jnp.asarray(positive, bool)[order], weight, 0.0)
    zero = jnp.zeros(1, jnp.float32)
    return _Ranked(
        scores=scores,
        weight=weight,
        positive_weight=positive_weight,
        positives=jnp.concatenate([zero, jnp.cumsum(positive_weight)]),
        negatives=jnp.concatenate([zero, jnp.cumsum(weight - positive_weight)]),
        first=jnp.searchsorted(scores, scores, side="left"),
        after=jnp.searchsorted(scores, scores, side="right"),
    )


# --------------------------------------------------------------------------------------------
# Probabilities


def brier(
    probabilities: ArrayLike, reference: ArrayLike, weights: ArrayLike | None = None
) -> jax.Array:
    """Brier score: mean over cases of half the sum over classes of (p_k - [reference = k])^2.

    Range [0, 1] for any number of classes, 0 is perfect; of two classes it is the mean square of
    (p_1 - reference).  Brier's own (1950) has no half, and a range of [0, 2].

    Args:
      probabilities: (N, K) float, rows sum to 1.
      reference: (N,) int.
      weights: (N,) case weights.

    Returns:
      () float; NaN without cases.
    """
    probabilities = jnp.asarray(probabilities, jnp.float32)
    classes = probabilities.shape[1]
    reference, weights = _labelled(reference, classes, weights)
    error = jnp.square(probabilities - jax.nn.one_hot(reference, classes)).sum(1) / 2
    return _mean(error, weights)


def log_loss(
    probabilities: ArrayLike,
    reference: ArrayLike,
    least: float,
    weights: ArrayLike | None = None,
) -> jax.Array:
    """Mean over cases of -log p of the own class, in nats.

    Args:
      probabilities: (N, K) float, rows sum to 1.
      reference: (N,) int.
      least: probabilities below it count as this, so that one case costs no infinity.
      weights: (N,) case weights.

    Returns:
      () float in [0, -log(least)]; NaN without cases.
    """
    probabilities = jnp.asarray(probabilities, jnp.float32)
    reference, weights = _labelled(reference, probabilities.shape[1], weights)
    own = jnp.take_along_axis(probabilities, reference[:, None], 1)[:, 0]
    # Not -log, which makes a perfect loss print as -0.000.
    return _mean(jnp.abs(jnp.log(jnp.maximum(own, least))), weights)


class CalibrationTable(NamedTuple):
    """Reliability diagram: what was claimed and what came true, per bin of confidence."""

    confidence: jax.Array  # (bins,) mean top-label probability, NaN in an empty bin
    accuracy: jax.Array  # (bins,) share correct, NaN in an empty bin
    weight: jax.Array  # (bins,) cases


def calibration_bin(confidence: ArrayLike, bins: int = 10) -> jax.Array:
    """Number of the bin ((m-1)/bins, m/bins] of each confidence, from 0 on."""
    edges = jnp.linspace(0.0, 1.0, bins + 1)[1:-1]
    return jnp.searchsorted(edges, jnp.asarray(confidence, jnp.float32), side="left")


def calibration_table(
    probabilities: ArrayLike,
    reference: ArrayLike,
    weights: ArrayLike | None = None,
    bins: int = 10,
) -> CalibrationTable:
    """Top-label calibration in equal-width bins ((m-1)/bins, m/bins] (Guo et al. 2017).

    Args:
      probabilities: (N, K) float, rows sum to 1.
      reference: (N,) int.
      weights: (N,) case weights.
      bins: number of bins over [0, 1].

    Returns:
      Three (bins,) arrays.
    """
    probabilities = jnp.asarray(probabilities, jnp.float32)
    reference, weights = _labelled(reference, probabilities.shape[1], weights)
    # A hidden case may hold NaN, which would survive the multiplication by its weight 0.
    hidden = jnp.isnan(probabilities).any(1) & (weights == 0)
    confidence = jnp.where(hidden, 0.0, probabilities.max(1))
    correct = (probabilities.argmax(1) == reference).astype(jnp.float32)
    member = jax.nn.one_hot(calibration_bin(confidence, bins), bins)
    weight = _matmul(weights, member)
    return CalibrationTable(
        confidence=_ratio(_matmul(weights, member * confidence[:, None]), weight),
        accuracy=_ratio(_matmul(weights, member * correct[:, None]), weight),
        weight=weight,
    )


def ece(
    probabilities: ArrayLike,
    reference: ArrayLike,
    weights: ArrayLike | None = None,
    bins: int = 10,
) -> jax.Array:
    """Expected calibration error: mean over cases of |accuracy - confidence| of their bin.

    Arguments as ``calibration_table``.  Range [0, 1]; NaN without cases.
    """
    table = calibration_table(probabilities, reference, weights, bins)
    gap = jnp.where(table.weight > 0, jnp.abs(table.accuracy - table.confidence), 0.0)
    return _ratio((table.weight * gap).sum(), table.weight.sum())


# --------------------------------------------------------------------------------------------
# Shared arithmetic


def _weights(weights: ArrayLike | None, cases: int) -> jax.Array:
    return jnp.ones(cases, jnp.float32) if weights is None else jnp.asarray(weights, jnp.float32)


def _labelled(
    reference: ArrayLike, classes: int, weights: ArrayLike | None
) -> tuple[jax.Array, jax.Array]:
    """Reference in range, and weights that hide the cases where it was not."""
    reference = jnp.asarray(reference)
    valid = (reference >= 0) & (reference < classes)
    weights = jnp.where(valid, _weights(weights, reference.shape[0]), 0.0)
    return jnp.where(valid, reference, 0).astype(jnp.int32), weights


def _matmul(a: jax.Array, b: jax.Array) -> jax.Array:
    # Accelerators multiply float32 in bfloat16 or TF32 unless told; counts must stay exact.
    return jnp.matmul(a, b, precision=jax.lax.Precision.HIGHEST)


def _ratio(numerator: jax.Array, denominator: jax.Array) -> jax.Array:
    """Quotient, NaN where the denominator is 0."""
    safe = jnp.where(denominator == 0, 1.0, denominator)
    return jnp.where(denominator == 0, jnp.nan, numerator / safe)


def _mean(values: jax.Array, weights: jax.Array) -> jax.Array:
    """Weighted mean of values of cases; what a hidden case holds is of no account."""
    return _ratio(jnp.where(weights > 0, weights * values, 0.0).sum(), weights.sum())


def _mean_defined(values: jax.Array) -> jax.Array:
    """Mean of the entries that are not NaN; NaN if none is."""
    defined = ~jnp.isnan(values)
    return _ratio(jnp.where(defined, values, 0.0).sum(), defined.sum(dtype=jnp.float32))
