"""How much each case counts: once, k times, or differently in each of many resamples at once.

A figure of this package takes ``weights``, and has one value for each column of them:

* ``None``: every case counts once.
* (N,): the figure of N cases that count so often; 0 hides a case, k repeats it k times.
* (N, R), or `CaseWeights`, which is the same in fewer numbers: R figures, along a last axis.

So a bootstrap is a figure under R columns, without a loop over resamples.  Most figures are
functions of sums over cases; of these R are one product of matrices (`sums`).
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike


class CaseWeights(NamedTuple):
    """(N, R) weights of cases: that of their unit, such as the patient, times one of their own.

    Attributes:
      of_units: (U, R) float64.
      unit: (N,) int, the unit of each case, 0 to U-1.
      own: (N,) float64; None: ones.
    """

    of_units: np.ndarray
    unit: np.ndarray
    own: np.ndarray | None = None


Weights = ArrayLike | CaseWeights | None


def sums(values: ArrayLike, weights: Weights = None) -> np.ndarray:
    """Weighted sums over cases.

    Args:
      values: (N, ...) numbers, none of them NaN: hidden by a weight of 0 it would still show.
      weights: see the module.

    Returns:
      (...) float64, or (..., R).
    """
    each = np.asarray(values, np.float64)
    if weights is None:
        return each.sum(0)
    if not isinstance(weights, CaseWeights):
        return np.tensordot(each, np.asarray(weights, np.float64), (0, 0))
    if weights.own is not None:
        each = (each.T * weights.own).T
    units = np.zeros((len(weights.of_units), *each.shape[1:]))
    np.add.at(units, weights.unit, each)
    found = units.reshape(len(units), -1).T @ weights.of_units
    return found.reshape(*each.shape[1:], -1)


def of_cases(cases: np.ndarray, weights: Weights = None) -> np.ndarray:
    """(n,) or (n, R) float64 weights of some cases, in their order.

    Args:
      cases: (n,) int, numbers of cases.
      weights: see the module.
    """
    if weights is None:
        return np.ones(len(cases))
    if isinstance(weights, CaseWeights):
        found = weights.of_units[weights.unit[cases]]
        return found if weights.own is None else found * weights.own[cases][:, None]
    return np.asarray(weights, np.float64)[cases]


def running(weights: np.ndarray) -> np.ndarray:
    """(n + 1,) or (n + 1, R) sums of the first 0, 1, ... n of (n,) or (n, R) weights."""
    found = np.zeros((len(weights) + 1, *weights.shape[1:]))
    if weights.ndim == 1:
        np.cumsum(weights, out=found[1:])
        return found
    # A cumulative sum along the first axis of NumPy is seven times slower than its additions.
    for i, own in enumerate(weights):
        np.add(found[i], own, out=found[i + 1])
    return found


def ratio(numerator: ArrayLike, denominator: ArrayLike) -> np.ndarray:
    """float64 quotient, NaN where the denominator is 0."""
    numerator, denominator = np.asarray(numerator), np.asarray(denominator)
    empty = denominator == 0
    return np.where(empty, np.nan, numerator / np.where(empty, 1, denominator))[()]


def mean(
    values: ArrayLike, weights: Weights = None, counted: np.ndarray | None = None
) -> np.ndarray:
    """Weighted mean over cases.

    Args:
      values: (N,) or (N, M) float; +inf makes the mean infinite, -inf is none.
      weights: see the module.
      counted: bool of the shape of `values`; the others are in no mean.  None: all.

    Returns:
      () or (M,) float64, with R behind; NaN where no case counts, or one with the value NaN.
    """
    values = np.asarray(values, np.float64)
    counted = np.ones(values.shape, bool) if counted is None else counted
    unknown, endless = np.isnan(values) & counted, (values == np.inf) & counted
    plain = np.where(counted & ~unknown & ~endless, values, 0.0)
    found = ratio(sums(plain, weights), sums(counted, weights))
    # Seldom there, and each costs as much as the mean itself.
    if endless.any():
        found = np.where(sums(endless, weights) > 0, np.inf, found)
    if unknown.any():
        found = np.where(sums(unknown, weights) > 0, np.nan, found)
    return found
