"""Conformal sets of classes: the classes that a case may have, with a stated coverage.

A set of coverage 1 - alpha holds the reference class of a random case of a new patient with at
least this probability, whatever the network is like, if new patients are exchangeable with those
that the sets were fitted on, and neither were trained on (Vovk, Gammerman and Shafer 2005).

**Scores.**  Classes enter a set one after another, and the score of a class is the probability of
those that entered before it; the set holds the classes whose score is at most a quantile of the
scores that the reference classes had.  The class that is called enters first, with score 0, so a
set is never empty and always holds the call:

* classes without order enter by their probability (adaptive prediction sets: Romano, Sesia and
  Candes, NeurIPS 2020);
* of ordinal grades the likelier neighbour of those that are in enters next, so that a set has no
  hole (Lu, Angelopoulos and Pomerantz, MICCAI 2022, who begin with the mode; here it is the
  rounded expectation, which is the call).

Adaptive sets are exact where a class on the border is left out by chance.  Here nothing is random,
for two readings of one scan must not differ: where the call alone is right more often than
1 - alpha, sets of one class cover more than was asked for.  Scores 1 - p, whose sets are the
smallest on average, would cover exactly there by leaving the least sure cases an empty set, which
tells a reader nothing.

**Patients are the units.**  Cases of a patient are alike, so patients are exchangeable and discs
are not.  The quantile is that of hierarchical conformal prediction (Lee, Barber and Willett 2023,
arXiv 2306.06342): of P patients with n_i cases each, a case weighs 1 / ((P + 1) n_i), and a weight
of 1 / (P + 1) lies at infinity, for the new patient.  Coverage is that of a case drawn at random
from a patient drawn at random.  It is deterministic and holds for any P; one case of each patient,
drawn often (Dunn, Wasserman and Ramdas, JASA 2023), averages to the same weights.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

_DIGITS = 6  # of scores, as they are written, so that those of a file are those of its cases
_SLACK = 1e-9  # of sums of weights


def scores(probabilities: np.ndarray, calls: np.ndarray, ordinal: bool) -> np.ndarray:
    """Scores of all classes: the probability of the classes that enter a set before each.

    Args:
      probabilities: (N, K) float; NaN where a region was missed.
      calls: (N,) int, the class that enters first (`Grading.calls`); anything where missed.
      ordinal: whether a set must have no hole.

    Returns:
      (N, K) float64 in [0, 1], 0 for the call; NaN where missed.
    """
    p = np.asarray(probabilities, np.float64)
    missed = np.asarray(np.isnan(p).any(1))
    p = np.where(missed[:, None], 1 / p.shape[1], p)
    first = np.where(missed, 0, np.asarray(calls, int))
    order = _neighbours(p, first) if ordinal else _by_probability(p, first)
    entering = np.take_along_axis(p, order, 1)
    before = np.cumsum(entering, 1) - entering
    found = np.empty_like(p)
    np.put_along_axis(found, order, before, 1)
    found = np.round(found.clip(0, 1), _DIGITS)
    return np.where(missed[:, None], np.nan, found)


def fit(own: np.ndarray, patients: Sequence[str]) -> dict[str, Any]:
    """What sets of any coverage are made from; JSON.

    Args:
      own: (N,) float, the score that the reference class of each case has; no NaN.
      patients: N patient ids.  Several rows of one case (seeds) are rows of its patient.

    Returns:
      ``scores``, a sorted list for each patient, in an order that tells nothing of who they are.
    """
    by_patient: dict[str, list[float]] = {}
    for patient, score in zip(patients, np.asarray(own, np.float64).tolist(), strict=True):
        by_patient.setdefault(patient, []).append(score)
    return {"scores": sorted(sorted(found) for found in by_patient.values())}


def quantile(fitted: Mapping[str, Any], coverage: float) -> float:
    """The largest score of a class that is in a set; infinite where patients are too few.

    Args:
      fitted: see `fit`.
      coverage: 1 - alpha, in (0, 1).

    Raises:
      ValueError: the coverage is no such number.
    """
    if not 0 < coverage < 1:
        raise ValueError(f"a coverage lies between 0 and 1, not {coverage}")
    lists = fitted["scores"]
    if not lists:
        return math.inf
    values = np.concatenate([np.asarray(own, np.float64) for own in lists])
    weights = np.concatenate([np.full(len(own), 1 / len(own)) for own in lists])
    order = np.argsort(values, kind="stable")
    reached = np.cumsum(weights[order]) >= coverage * (len(lists) + 1) - _SLACK
    return float(values[order][np.argmax(reached)]) if reached.any() else math.inf


def least_patients(coverage: float) -> int:
    """How many patients it takes for a set of this coverage to leave a class out."""
    return math.ceil(coverage / (1 - coverage) - _SLACK)


def sets(
    probabilities: np.ndarray,
    calls: np.ndarray,
    ordinal: bool,
    fitted: Mapping[str, Any],
    coverage: float,
) -> np.ndarray:
    """The classes that each case may have.

    Args:
      probabilities: (N, K) float; NaN where a region was missed.
      calls: (N,) int, see `scores`.
      ordinal: see `scores`.
      fitted: see `fit`.
      coverage: of the sets, in (0, 1).

    Returns:
      (N, K) bool.  All classes where patients are too few, see `least_patients`.  No class where
      the region was missed: there is no set, and the promise is about cases that were graded.
    """
    found = scores(probabilities, calls, ordinal)
    return ~np.isnan(found) & (np.nan_to_num(found) <= quantile(fitted, coverage))


def _by_probability(p: np.ndarray, first: np.ndarray) -> np.ndarray:
    """(N, K) classes in the order in which they enter; of equals the lower class is first."""
    ranked = p.copy()
    np.put_along_axis(ranked, first[:, None], np.inf, 1)
    return np.argsort(-ranked, axis=1, kind="stable")


def _neighbours(p: np.ndarray, first: np.ndarray) -> np.ndarray:
    """As `_by_probability`, each beside those before it; of equals the higher grade is first."""
    count = p.shape[1]
    walled = np.pad(p, ((0, 0), (1, 1)), constant_values=-1.0)  # nothing enters from outside
    low = high = first.copy()
    order, rows = [first], np.arange(len(p))
    for _ in range(count - 1):
        below, above = walled[rows, low], walled[rows, high + 2]
        up = above >= below
        low, high = np.where(up, low, low - 1), np.where(up, high + 1, high)
        order.append(np.where(up, high, low))
    return np.stack(order, 1)
