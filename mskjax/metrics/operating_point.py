"""The probability from which on a case of two classes is called positive, fitted on cases.

Half is right where probabilities are and both errors cost the same.  Few networks are calibrated,
and where positives are rare or frequent neither holds, so a threshold is fitted on patients whom
nothing is reported of.  What it is chosen by has to be said, because the choices differ:

* ``balanced_accuracy``, and so Youden's J = sensitivity + specificity - 1 (Cancer 1950;3:32-35).
  It does not depend on how frequent positives are.
* ``cohen_kappa``.  It does: the best threshold moves with the prevalence of the patients that it
  was fitted on.
"""

from typing import NamedTuple

import numpy as np

from mskjax.metrics.temperature import LEAST_PATIENTS

CRITERIA = ("balanced_accuracy", "cohen_kappa")
HALF = 0.5  # where nothing is fitted
_EQUAL = 1e-12  # of figures that are ratios of counts


class Threshold(NamedTuple):
    """A threshold.

    Attributes:
      value: a case is called positive from this probability on.
      why: it was not fitted, and is a half; "" as a rule.
    """

    value: float
    why: str = ""


def fit_threshold(p: np.ndarray, positive: np.ndarray, criterion: str, patients: int) -> Threshold:
    """The threshold at which a figure of these cases is highest.

    Args:
      p: (N,) float in [0, 1], probability of the positive class; no NaN.
      positive: (N,) bool.
      criterion: one of `CRITERIA`.
      patients: how many the cases are of.

    Returns:
      Halfway between two neighbouring probabilities; of several that are as good the nearest to a
      half.  A half, with the reason, where the cases do not say: of fewer than `LEAST_PATIENTS`
      patients, of one class alone, or where nothing is better than chance.

    Raises:
      ValueError: shapes differ, a probability is NaN, or the criterion is none.
    """
    p, positive = np.asarray(p, np.float64), np.asarray(positive, bool)
    if p.ndim != 1 or p.shape != positive.shape or np.isnan(p).any():
        raise ValueError(f"p {p.shape} and positive {positive.shape} must be (N,), without NaN")
    if criterion not in CRITERIA:
        raise ValueError(f"criterion is {criterion!r}, not one of {', '.join(CRITERIA)}")
    if patients < LEAST_PATIENTS:
        return Threshold(HALF, f"not fitted: {patients} patients, fewer than {LEAST_PATIENTS}")
    if positive.all() or not positive.any():
        which = "positive" if positive.all() else "negative"
        return Threshold(HALF, f"not fitted: all cases are {which}")
    order = np.argsort(-p, kind="stable")
    ranked = p[order]
    # Equal probabilities pass a threshold together: one stands below the last of them.
    last = np.append(np.diff(ranked) != 0, True)
    true, false = (np.cumsum(member[order])[last] for member in (positive, ~positive))
    figure = _figure(criterion, true, false, int(positive.sum()), int((~positive).sum()))
    best = figure.max()
    if best <= _EQUAL:
        return Threshold(HALF, "not fitted: no threshold is better than chance")
    halfway = (ranked[last] + np.append(ranked[last][1:], 0.0)) / 2
    candidates = halfway[figure >= best - _EQUAL]
    return Threshold(float(candidates[np.argmin(np.abs(candidates - HALF))]))


def _figure(
    criterion: str, true: np.ndarray, false: np.ndarray, positives: int, negatives: int
) -> np.ndarray:
    """(M,) what is chosen by, 0 at chance, from true and false positives at M thresholds."""
    if criterion == "balanced_accuracy":
        return np.asarray(true / positives - false / negatives)
    n = positives + negatives
    agreed = (true + negatives - false) / n
    called = (true + false) / n
    by_chance = called * positives / n + (1 - called) * negatives / n
    return np.asarray((agreed - by_chance) / (1 - by_chance))
