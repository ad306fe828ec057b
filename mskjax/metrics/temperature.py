"""Temperature scaling: one number that makes probabilities say how often they hold.

A network is as a rule surer than it is right.  Temperature scaling (Guo, Pleiss, Sun and
Weinberger, ICML 2017, section 4.2) divides its logits by one T > 0, chosen by likelihood on cases
that it was not trained on; T > 1 makes it less sure.  The order of the classes stays, so the
likeliest class and every AUROC of two classes do.

Logits are taken from the probabilities, ``log p``: what is added to all logits of a case does not
matter.  Probabilities below `LEAST_PROBABILITY` count as this, the floor of the log loss too, so
that a probability that a table rounds to 0 does not decide the fit.
"""

import dataclasses
import math
from collections.abc import Sequence

import numpy as np
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax, softmax

from mskjax.metrics.grading_statistic import LEAST_PROBABILITY

BOUNDS = (0.05, 20.0)  # of T; beyond these probabilities are certainty, or a uniform guess
LEAST_PATIENTS = 10  # from fewer a temperature would follow the chance of who they are
_AT_BOUND = 1e-3  # of log T


@dataclasses.dataclass(frozen=True)
class Temperature:
    """A fitted temperature.

    Attributes:
      value: T; 1 leaves probabilities as they are.
      why: T was not fitted, or is a bound; "" as a rule.
    """

    value: float
    why: str = ""


def fit_temperature(
    probabilities: np.ndarray, reference: np.ndarray, weights: np.ndarray, patients: int
) -> Temperature:
    """The temperature of least weighted negative log-likelihood.

    With b = 1/T the loss ``sum_n w_n (log sum_k p_nk^b - b log p_ny)`` is convex in b, so that the
    bounded search over log T finds its one minimum.

    Args:
      probabilities: (N, K) float, rows sum to 1; no NaN.
      reference: (N,) int, 0 to K-1.
      weights: (N,) positive.  `mskjax.calibration` lets each patient weigh alike: cases of a
        patient share scanner, posture and reader, and are not as many observations.
      patients: how many the cases are of.

    Returns:
      T = 1, with the reason, where the likelihood does not say: fewer than `LEAST_PATIENTS`, one
      class alone, or all cases right, whose likelihood grows without end as T falls.  A class that
      has no case is no obstacle: T is the same for all classes.

    Raises:
      ValueError: an argument is not as above.
    """
    p, reference = np.asarray(probabilities, np.float64), np.asarray(reference, int)
    weights = np.asarray(weights, np.float64)
    if p.ndim != 2 or reference.shape != p.shape[:1] or weights.shape != p.shape[:1]:
        raise ValueError(f"shapes {p.shape}, {reference.shape} and {weights.shape} do not match")
    if np.isnan(p).any() or (weights <= 0).any():
        raise ValueError("probabilities must be numbers and weights positive")
    if patients < LEAST_PATIENTS:
        return Temperature(1.0, f"not fitted: {patients} patients, fewer than {LEAST_PATIENTS}")
    if len(np.unique(reference)) < 2:
        return Temperature(1.0, "not fitted: all cases are of one class")
    if (p.argmax(1) == reference).all():
        return Temperature(1.0, "not fitted: the likeliest class is right in all cases")
    logits = _logits(p)

    def loss(log_t: float) -> float:
        own = log_softmax(logits / math.exp(log_t), axis=1)[np.arange(len(p)), reference]
        return -float(np.average(own, weights=weights))

    ends = tuple(map(math.log, BOUNDS))
    found = minimize_scalar(loss, bounds=ends, method="bounded", options={"xatol": 1e-6}).x
    for end, value in zip(ends, BOUNDS, strict=True):
        if abs(found - end) < _AT_BOUND:
            return Temperature(value, f"at the bound {value:g}, beyond which nothing is searched")
    return Temperature(float(f"{math.exp(found):.6g}"))  # as it is written


def apply_temperature(probabilities: np.ndarray, temperature: float) -> np.ndarray:
    """Probabilities at a temperature: ``p_k^(1/T) / sum_j p_j^(1/T)``.

    Args:
      probabilities: (..., K) float; NaN where a region was missed, which stays.
      temperature: T > 0.  T = 1 gives them as they are, but for the floor.

    Returns:
      (..., K) float64, rows sum to 1.
    """
    return softmax(_logits(np.asarray(probabilities, np.float64)) / temperature, axis=-1)


def patient_weights(patients: Sequence[str]) -> np.ndarray:
    """(N,) float64 weights of cases by which each patient weighs alike: 1 over their number."""
    _, codes, counts = np.unique(np.asarray(patients, str), return_inverse=True, return_counts=True)
    return 1.0 / counts[codes]


def _logits(p: np.ndarray) -> np.ndarray:
    return np.log(np.maximum(p, LEAST_PROBABILITY))
