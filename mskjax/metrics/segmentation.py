"""Overlap of a predicted with a reference mask, one structure at a time.

One rule for empty masks, here and in ``surfaces``:

================== ================= =================== ========= ================ ==========
reference          prediction        Dice, IoU, NSD      PPV       sensitivity      HD95, ASSD
================== ================= =================== ========= ================ ==========
empty              empty             NaN                 NaN       NaN              NaN
empty              not empty         0                   0         NaN              +inf
not empty          empty             0                   NaN       0                +inf
================== ================= =================== ========= ================ ==========

NaN: the structure is absent, or the question has no meaning (sensitivity without a reference).
Such cases are left out of a mean and counted separately (``mean_over_cases``, ``cases_defined``);
an invented or missed structure is not: it costs a Dice of 0.
"""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from mskjax.metrics.weights import Weights, mean, ratio, sums


class Counts(NamedTuple):
    """Voxels of one structure, or arrays of such counts of any common shape."""

    tp: Any
    fp: Any
    fn: Any
    tn: Any


def confusion_counts(reference: np.ndarray, predicted: np.ndarray, classes: int) -> np.ndarray:
    """Voxel counts of every (reference, predicted) label pair, in one pass on the host.

    Args:
      reference: integer or bool labels of any shape, 0..classes-1.
      predicted: the same shape.
      classes: number of labels K, background included.

    Returns:
      (K, K) int64, rows = reference.

    Raises:
      ValueError: if the shapes differ or a label is outside 0..classes-1.
    """
    reference, predicted = np.asarray(reference), np.asarray(predicted)
    _same_shape(reference, predicted)
    for name, labels in (("reference", reference), ("predicted", predicted)):
        if labels.size and not 0 <= labels.min() <= labels.max() < classes:
            raise ValueError(
                f"{name} mask holds labels {labels.min()} to {labels.max()}, "
                f"outside 0 to {classes - 1}"
            )
    # The smallest type that holds every pair: a cast of the whole volume to int64 costs more
    # than the counting.
    small = np.min_scalar_type(classes * classes)
    pairs = reference.astype(small) * small.type(classes) + predicted.astype(small)
    return np.bincount(pairs.ravel(), minlength=classes * classes).reshape(classes, classes)


def counts_of(matrix: np.ndarray, label: int) -> Counts:
    """Counts of one structure against the rest, from a (K, K) matrix of ``confusion_counts``."""
    tp = matrix[label, label]
    fp = matrix[:, label].sum() - tp
    fn = matrix[label, :].sum() - tp
    return Counts(tp, fp, fn, matrix.sum() - tp - fp - fn)


def dice(counts: Counts) -> Any:
    """2TP / (2TP + FP + FN) in [0, 1]; NaN where reference and prediction are empty."""
    return ratio(2 * counts.tp, 2 * counts.tp + counts.fp + counts.fn)


def iou(counts: Counts) -> Any:
    """Jaccard index TP / (TP + FP + FN) in [0, 1]; NaN where both are empty."""
    return ratio(counts.tp, counts.tp + counts.fp + counts.fn)


def ppv(counts: Counts) -> Any:
    """Positive predictive value TP / (TP + FP); NaN where the prediction is empty."""
    return ratio(counts.tp, counts.tp + counts.fp)


def sensitivity(counts: Counts) -> Any:
    """TP / (TP + FN); NaN where the reference is empty."""
    return ratio(counts.tp, counts.tp + counts.fn)


def pixel_accuracy(counts: Counts) -> Any:
    """(TP + TN) / all pixels, of one structure against the rest; NaN without pixels.

    Over all classes at once it is ``classification.accuracy`` of the confusion matrix.
    """
    return ratio(counts.tp + counts.tn, sum(counts))


def mean_over_cases(values: ArrayLike, weights: Weights = None) -> np.ndarray:
    """Weighted mean over cases, NaN values (absent structures) left out.

    Args:
      values: (N,) or (N, M) float.
      weights: see `metrics.weights`.

    Returns:
      () or (M,) float64, with the columns of the weights behind; NaN if no case of weight > 0 has a
      value.
    """
    values = np.asarray(values, np.float64)
    return mean(values, weights, ~np.isnan(values))


def cases_defined(values: ArrayLike, weights: Weights = None) -> np.ndarray:
    """Number (sum of weights) of the cases that ``mean_over_cases`` averages."""
    return sums(~np.isnan(np.asarray(values, np.float64)), weights)


def _same_shape(reference: np.ndarray, predicted: np.ndarray) -> None:
    if reference.shape != predicted.shape:
        raise ValueError(f"reference is {reference.shape} but prediction {predicted.shape}")
