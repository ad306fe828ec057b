"""What a report draws of a grading: confusion matrix, reliability, ROC points, figures of folds.

Plain JSON, under ``confusion``, ``calibration``, ``roc`` and ``folds`` of report.json.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from mskjax.metrics import bands
from mskjax.metrics import classification as c
from mskjax.metrics.intervals import mean_sd_over_folds

Json = dict[str, Any]


def confusion(reference: np.ndarray, predicted: np.ndarray, names: Sequence[str]) -> Json:
    """One confusion matrix.

    Args:
      reference: (N,) int, 0 to K-1.
      predicted: (N,) int, 0 to K-1, or K for a region that was missed.
      names: of the K classes.

    Returns:
      ``labels`` and ``matrix`` (rows = reference), with a last column ``missed`` if there is any.
    """
    matrix = np.asarray(c.confusion_matrix(reference, predicted, len(names), missed=True), int)
    labels = [*names, "missed"]
    if not matrix[:, -1].any():
        matrix, labels = matrix[:, :-1], list(names)
    return {"labels": labels, "matrix": matrix.tolist()}


def calibration(probabilities: np.ndarray, reference: np.ndarray) -> list[Json]:
    """The reliability diagram: confidence, accuracy and n of each bin with cases.

    Args:
      probabilities: (N, K) float, rows sum to 1.
      reference: (N,) int, 0 to K-1.
    """
    table = c.calibration_table(probabilities, reference)
    return [
        {"confidence": float(a), "accuracy": float(b), "n": int(n)}
        for a, b, n in zip(table.confidence, table.accuracy, table.weight, strict=True)
        if n > 0
    ]


def roc(positive: np.ndarray, score: np.ndarray) -> list[list[float]]:
    """Points of the ROC curve.

    Args:
      positive: (N,) bool.
      score: (N,) float without NaN, a probability or any other score.

    Returns:
      At most 200 points [1 - specificity, sensitivity], from [0, 0] to [1, 1], one for each
      threshold or, of more, evenly chosen ones; empty if a class has no case.
    """
    positive = np.asarray(positive, bool)
    if positive.all() or not positive.any():
        return []
    counts = bands.above(positive, score, np.ones((1, len(positive))))
    points = np.stack([counts.false[0] / (~positive).sum(), counts.true[0] / positive.sum()], 1)
    return bands.thinned(np.concatenate([np.zeros((1, 2)), points]))


def over_folds(values: Sequence[float] | np.ndarray) -> Json:
    """Figures of folds, as papers print them: ``mean``, ``sd`` (ddof 1), ``values``, ``folds``.

    Args:
      values: by the number of the fold; a fold whose figure is undefined (NaN) or infinite is null
        in ``values`` and left out of the rest; ``folds`` counts the others.
    """
    defined = [float(v) if np.isfinite(v) else np.nan for v in values]
    spread = mean_sd_over_folds(defined)
    return {
        "mean": _number(spread.mean),
        "sd": _number(spread.sd),
        "values": [_number(value) for value in defined],
        "folds": spread.folds,
    }


def _number(value: float) -> float | None:
    return None if np.isnan(value) else float(value)
