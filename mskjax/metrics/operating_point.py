"""Where calls change, fitted on cases: the threshold of two classes, the scale of ordered ones.

**Two classes.**  Half is right where probabilities are and both errors cost the same.  Few networks
are calibrated, and where positives are rare or frequent neither holds, so a threshold is fitted on
patients whom nothing is reported of.  What it is chosen by has to be said, because the choices
differ:

* ``balanced_accuracy``, and so Youden's J = sensitivity + specificity - 1 (Cancer 1950;3:32-35).
  It does not depend on how frequent positives are.
* ``cohen_kappa``.  It does: the best threshold moves with the prevalence of the patients that it
  was fitted on.

**Ordered classes.**  The call is the expected class, rounded.  A network that is unsure, as one of
few patients is, expects the middle: its calls vary less than the references do.  The quadratic
weighted kappa is Lin's concordance (Biometrics 1989;45:255-268): the correlation times a factor
that is 1 where both have the same mean and standard deviation.  A scale gives expectations those of
the references, and no reference decides on more than these two numbers.  What it costs is that
errors of a call that is wrong grow.
"""

from typing import NamedTuple

import numpy as np

from mskjax.metrics.grading import Grading
from mskjax.metrics.temperature import LEAST_PATIENTS

CRITERIA = ("balanced_accuracy", "cohen_kappa")
HALF = 0.5  # where nothing is fitted
SPREAD = "spread"  # what the scale of ordered classes is fitted to
_EQUAL = 1e-12  # of figures that are ratios of counts


class Threshold(NamedTuple):
    """A threshold.

    Attributes:
      value: a case is called positive from this probability on.
      why: it was not fitted, and is a half; "" as a rule.
    """

    value: float
    why: str = ""

    def calls(self, p: np.ndarray, grading: Grading) -> np.ndarray:
        """(N,) int32, 1 where (N,) probabilities reach it; `Grading.missed` where they are NaN."""
        above = np.nan_to_num(p) >= self.value
        return np.where(np.isnan(p), grading.missed, above).astype(np.int32)


class Scale(NamedTuple):
    """What expected classes are multiplied by, and what is added.

    Attributes:
      slope: above 1 where expectations vary less than references.
      offset: in classes.
      why: it was not fitted, and changes nothing; "" as a rule.
    """

    slope: float = 1.0
    offset: float = 0.0
    why: str = ""

    def calls(self, expected: np.ndarray, grading: Grading) -> np.ndarray:
        """(N,) int32, see `Grading.rounded`, of (N,) expected classes on this scale."""
        return grading.rounded(self.slope * np.asarray(expected) + self.offset)


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


def fit_scale(expected: np.ndarray, reference: np.ndarray, patients: int) -> Scale:
    """The scale that gives expected classes the mean and standard deviation of the references.

    Args:
      expected: (N,) float, expected class numbers; no NaN.
      reference: (N,) int, class numbers.
      patients: how many the cases are of.

    Returns:
      Slope 1 and offset 0, with the reason, where the cases do not say: of fewer than
      `LEAST_PATIENTS` patients, all of one class or of one expectation, or where the two are not
      correlated above 0.

    Raises:
      ValueError: shapes differ, or an expectation is NaN.
    """
    e, known = np.asarray(expected, np.float64), np.asarray(reference, np.float64)
    if e.ndim != 1 or e.shape != known.shape or np.isnan(e).any():
        raise ValueError(
            f"expected {e.shape} and reference {known.shape} must be (N,), without NaN"
        )
    if patients < LEAST_PATIENTS:
        return Scale(why=f"not fitted: {patients} patients, fewer than {LEAST_PATIENTS}")
    if np.ptp(known) == 0:
        return Scale(why="not fitted: all cases are of one class")
    if np.ptp(e) == 0 or np.corrcoef(e, known)[0, 1] <= _EQUAL:
        return Scale(why="not fitted: expectations do not rise with the references")
    slope = float(known.std() / e.std())
    return Scale(slope, float(known.mean() - slope * e.mean()))


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
