"""Bands around curves and intervals of bins, by a bootstrap over patients; for drawings.

A curve has no single number, so its band is pointwise: at each abscissa the 2.5th and 97.5th
percentile of the ordinate over resamples of patients.  A whole curve leaves such a band more often
than one time in twenty.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from mskjax.metrics.paired import multiplicities

Json = dict[str, Any]

GRID = np.linspace(0.0, 1.0, 41)  # abscissas of a band
RESAMPLES = 2_000  # a drawing needs no more
POINTS = 200  # of a curve
_LEAST = 0.5  # share of resamples in which an ordinate must be defined
_NUDGE = 1e-7


class Counts(NamedTuple):
    """What lies above each threshold, the highest first.

    Attributes:
      true: (R, T) weight of the positive cases from the threshold on.
      false: (R, T) that of the negative ones.
    """

    true: np.ndarray
    false: np.ndarray


def case_weights(patients: Sequence[str], resamples: int, seed: int) -> np.ndarray:
    """(R, N) float32: how often each case is drawn, all cases of a patient together.

    Args:
      patients: N ids.
      resamples: R; no more than `RESAMPLES` are made.
      seed: of the draws.
    """
    names, owner = np.unique(np.asarray(patients, str), return_inverse=True)
    drawn = multiplicities(len(names), min(resamples, RESAMPLES), seed)
    return drawn[:, owner].astype(np.float32)


def above(positive: np.ndarray, score: np.ndarray, weights: np.ndarray) -> Counts:
    """Counts above every threshold; equal scores pass it together.

    Args:
      positive: (N,) bool.
      score: (N,) float without NaN.
      weights: (R, N) case weights, of whose type the counts are.
    """
    positive, score = np.asarray(positive, bool), np.asarray(score, np.float32)
    order = np.argsort(-score, kind="stable")
    last = np.append(np.diff(score[order]) != 0, True)
    own, hit = weights[:, order], positive[order]
    return Counts(*(np.cumsum(own * member, 1)[:, last] for member in (hit, ~hit)))


def roc_band(counts: Counts) -> list[list[float]]:
    """``[1 - specificity, low, high]`` of the sensitivity, where enough resamples have one."""
    false, true = (_shares(c) for c in (counts.false, counts.true))
    found = np.full((len(true), len(GRID)), np.nan)
    for row, (x, y) in enumerate(zip(false, true, strict=True)):
        if not (np.isnan(x[-1]) or np.isnan(y[-1])):
            # Where a curve rises, its upper end is what the operating point can reach.
            x = np.append(0.0, x) + _NUDGE * np.linspace(0, 1, len(x) + 1)
            found[row] = np.interp(GRID + 2 * _NUDGE, x, np.append(0.0, y))
    return _band(found)


def precision_band(counts: Counts) -> list[list[float]]:
    """``[recall, low, high]`` of the precision, where enough resamples have one."""
    recall = _shares(counts.true)
    precision = _precision(counts)
    found = np.full((len(recall), len(GRID)), np.nan)
    for row, (r, p) in enumerate(zip(recall, precision, strict=True)):
        if not np.isnan(r[-1]):
            found[row] = p[np.minimum(np.searchsorted(r, GRID - _NUDGE), len(p) - 1)]
    return _band(found)


def precision_points(positive: np.ndarray, score: np.ndarray) -> list[list[float]]:
    """At most 200 points [recall, precision], from recall 0 on; empty without a positive case."""
    positive = np.asarray(positive, bool)
    if not positive.any():
        return []
    counts = above(positive, score, np.ones((1, len(positive))))
    points = np.stack([counts.true[0] / positive.sum(), _precision(counts)[0]], 1)
    return thinned(np.concatenate([[[0.0, points[0, 1]]], points]))


def thinned(points: np.ndarray) -> list[list[float]]:
    """At most `POINTS` of the (P, 2) points of a curve, evenly chosen, its ends among them."""
    chosen = np.linspace(0, len(points) - 1, min(len(points), POINTS)).round().astype(int)
    return points[chosen].tolist()


def estimate(observed: float, resampled: np.ndarray, n: int, patients: int) -> Json:
    """A figure of a drawing, as those of reports."""
    known = resampled[~np.isnan(resampled)]
    enough = len(known) >= _LEAST * max(len(resampled), 1)
    bounds = None
    if enough and patients > 1 and not np.isnan(observed):
        bounds = [float(v) for v in np.percentile(known, [2.5, 97.5])]
    return {
        "value": None if np.isnan(observed) else float(observed),
        "ci95": bounds,
        "n": n,
        "patients": patients,
    }


def share_interval(
    hit: np.ndarray, inside: np.ndarray, weights: np.ndarray
) -> tuple[float, float] | None:
    """95 % interval of the share of the cases `inside` that are hit; None with few patients.

    Args:
      hit: (N,) bool.
      inside: (N,) bool.
      weights: (R, N) case weights.
    """
    total = weights[:, inside].sum(1)
    known = total > 0
    if known.mean() < _LEAST:
        return None
    shares = weights[:, inside & hit].sum(1)[known] / total[known]
    low, high = np.percentile(shares, [2.5, 97.5])
    return float(low), float(high)


def _precision(counts: Counts) -> np.ndarray:
    """(R, T) share of positive cases among those above each threshold; 0 above which is none."""
    return counts.true / np.maximum(counts.true + counts.false, 1e-9)


def _shares(counts: np.ndarray) -> np.ndarray:
    """(R, T) of the last of each row; NaN in rows without any."""
    total = counts[:, -1:]
    return np.divide(counts, total, out=np.full(counts.shape, np.nan), where=total > 0)


def _band(values: np.ndarray) -> list[list[float]]:
    known = ~np.isnan(values).all(1)
    if known.mean() < _LEAST:
        return []
    low, high = np.percentile(values[known], [2.5, 97.5], axis=0)
    return [[float(x), float(a), float(b)] for x, a, b in zip(GRID, low, high, strict=True)]
