"""What a report draws of a grading: confusion, calibration, curves with bands, agreement."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from mskjax.metrics import bands, entries
from mskjax.metrics import classification as c
from mskjax.metrics.grading import Grading

Json = dict[str, Any]

# Fields of a report that are drawn and not pooled over seeds.
FIELDS = ("confusion", "calibration", "roc", "precision_recall", "agreement", "studies")


class Scores(NamedTuple):
    """Of one method, by which positive cases are told from the others.

    Attributes:
      label: in the legend.
      positive: (N,) bool.
      score: (N,) without NaN.
      patients: N ids.
      auroc: estimate that tables have; None computes one.
    """

    label: str
    positive: np.ndarray
    score: np.ndarray
    patients: Sequence[str]
    auroc: Json | None = None


def calibration(
    p: np.ndarray, reference: np.ndarray, patients: Sequence[str], resamples: int, seed: int
) -> list[Json]:
    """The bins of `entries.calibration`, each with the interval of its share of right calls.

    Args:
      p: (N, K) probabilities.
      reference: (N,) classes.
      patients: N ids.
      resamples: of the bootstrap over patients.
      seed: of the bootstrap.
    """
    found = entries.calibration(p, reference)
    p = np.asarray(p, np.float32)
    confidence, right = p.max(1), p.argmax(1) == reference
    number = c.calibration_bin(confidence)
    weights = bands.case_weights(patients, resamples, seed)
    for own, k in zip(found, np.unique(number), strict=True):
        interval = bands.share_interval(right, number == k, weights)
        own["ci95"] = None if interval is None else list(interval)
    return found


def curves(methods: Sequence[Scores], resamples: int, seed: int) -> dict[str, list[Json]]:
    """``roc`` and ``precision_recall``: a curve of each method, with its band.

    Args:
      methods: in the order of the legend.
      resamples: of the bootstrap over patients.
      seed: of the bootstrap.
    """
    found: dict[str, list[Json]] = {"roc": [], "precision_recall": []}
    for own in methods:
        points = entries.roc(own.positive, own.score)
        area: Json = {"label": own.label, "points": points, "band": [], "auroc": own.auroc}
        share = float(np.mean(own.positive))
        precision: Json = {"label": own.label, "points": [], "band": [], "average_precision": None}
        if points:
            weights = bands.case_weights(own.patients, resamples, seed)
            counts = bands.above(own.positive, own.score, weights)
            auroc = own.auroc or _estimate(c.auroc, own, weights)
            area |= {"band": bands.roc_band(counts), "auroc": auroc}
            precision |= {
                "points": bands.precision_points(own.positive, own.score),
                "band": bands.precision_band(counts),
                "average_precision": _estimate(c.average_precision, own, weights),
            }
        found["roc"].append(area)
        found["precision_recall"].append({**precision, "prevalence": share})
    return found


def _estimate(figure: Callable[..., np.ndarray], own: Scores, weights: np.ndarray) -> Json:
    """A figure of scores, and its interval under (R, N) weights."""
    value, drawn = (figure(own.score, own.positive, of) for of in (None, weights.T))
    return bands.estimate(float(value), drawn, len(own.score), len(set(own.patients)))


def agreement(
    grading: Grading,
    p: np.ndarray,
    reference: np.ndarray,
    patients: Sequence[str],
    resamples: int,
    seed: int,
) -> Json:
    """Expected against reference grade: Bland and Altman's mean difference and limits.

    Args:
      grading: ordinal.
      p: (N, K) probabilities of cases whose region was found.
      reference: (N,) classes.
      patients: N ids.
      resamples: of the bootstrap over patients.
      seed: of the bootstrap.

    Returns:
      ``points`` [[mean, expected minus reference], ...], ``bias`` (an estimate), ``limits``, the
      mean -+ 1.96 SD of cases, and ``classes``; nothing with fewer than two cases.
    """
    if len(reference) < 2:
        return {}
    expected = grading.expected(p)
    difference = expected - reference
    weights = bands.case_weights(patients, resamples, seed)
    total = weights.sum(1)
    means = (weights @ difference)[total > 0] / total[total > 0]
    bias, spread = float(difference.mean()), float(1.96 * difference.std(ddof=1))
    points = np.stack([(expected + reference) / 2, difference], 1).round(3)
    return {
        "points": points.tolist(),
        "bias": bands.estimate(bias, means, len(reference), len(set(patients))),
        "limits": [bias - spread, bias + spread],
        "classes": list(grading.classes),
    }
