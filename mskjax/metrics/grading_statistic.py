"""The figures of a grading as functions of arrays and case weights, for the patient bootstrap.

The statistic knows no names of classes; `metrics.grading_figures` gives the figures their names.
"""

from collections.abc import Callable, Mapping

import numpy as np

from mskjax.metrics import classification as c
from mskjax.metrics.grading import Grading
from mskjax.metrics.weights import Weights, mean

Data = Mapping[str, np.ndarray]
Figures = dict[str, np.ndarray]

LEAST_PROBABILITY = 1e-6  # of the log loss: one missed case costs 13.8 nats, not infinity


def _of_labels(grading: Grading, data: Data, weights: Weights) -> Figures:
    reference, predicted, count = data["reference"], data["predicted"], grading.missed
    matrix = c.confusion_matrix(reference, predicted, count, weights, missed=True)
    sensitivity, specificity = c.sensitivity_per_class(matrix), c.specificity_per_class(matrix)
    ppv = c.ppv_per_class(matrix)
    found = {
        "accuracy": c.accuracy(matrix),
        "balanced_accuracy": c.balanced_accuracy(matrix),
        "cohen_kappa": c.cohen_kappa(matrix),
        "f1_macro": c.f1_macro(matrix),
        "f1_weighted": c.f1_weighted(matrix),
    }
    if grading.ordinal:
        near = (np.abs(reference - predicted) <= 1) & (predicted < count)
        found["quadratic_weighted_kappa"] = c.quadratic_weighted_kappa(matrix)
        found["within_one_grade"] = mean(near, weights)
    if count == 2:
        return found | {
            "balanced_accuracy": sensitivity.mean(0),  # null unless both classes occur
            "sensitivity": sensitivity[1],
            # The share of negatives called negative: a missed negative is none of them.
            "specificity": sensitivity[0],
            "ppv": ppv[1],
            "npv": ppv[0],
            "f1": c.f1_per_class(matrix)[1],
        }
    return found | {
        "specificity_macro": specificity.mean(0),
        "sensitivity": sensitivity,
        "specificity": specificity,
        "ppv": ppv,
    }


def _of_probabilities(grading: Grading, data: Data, weights: Weights) -> Figures:
    p, reference = data["p"], data["reference"]
    found = {
        "brier": c.brier(p, reference, weights),
        "log_loss": c.log_loss(p, reference, LEAST_PROBABILITY, weights),
        "ece": c.ece(p, reference, weights),
    }
    if grading.missed == 2:
        return found
    ovr, pairs = c.aurocs(p, reference, weights)
    return found | {
        "auroc_ovr_macro": ovr.mean(0), "auroc_ovo_macro": pairs.mean(0), "auroc": pairs,
    }  # fmt: skip


def _of_ranks(grading: Grading, data: Data, weights: Weights) -> Figures:
    score, positive = _score(data), data["reference"] == 1
    return {
        "auroc": c.auroc(score, positive, weights),
        "average_precision": c.average_precision(score, positive, weights),
    }


def _auroc(grading: Grading, data: Data, weights: Weights) -> Figures:
    return {"auroc": c.auroc(_score(data), data["reference"] == 1, weights)}


def _operating_point(grading: Grading, data: Data, weights: Weights) -> Figures:
    reached = c.sensitivity_at_specificity(_score(data), data["reference"] == 1, 0.9, weights)
    return {"sensitivity_at_specificity_90": reached}


def _score(data: Data) -> np.ndarray:
    return data["score"] if "score" in data else data["p"][:, 1]


_PARTS: Mapping[str, Callable[[Grading, Data, Weights], Figures]] = {
    "labels": _of_labels,
    "probabilities": _of_probabilities,
    "ranks": _of_ranks,
    "auroc": _auroc,
    "operating_point": _operating_point,
}
ALL = ("labels", "probabilities")
_OF_TWO = ("ranks", "operating_point")


def statistic(grading: Grading, parts: tuple[str, ...] = ALL) -> Callable[[Data, Weights], Figures]:
    """(data, weights) -> figures, for `intervals.patient_bootstrap`.

    Args:
      grading: its number of classes, K, and their order matter, its names do not.
      parts: which figures; those of probabilities include the ranks where K = 2.

    Returns:
      A function of ``data`` ((N,) int ``reference``, (N,) int ``predicted`` and, as the parts need,
      (N, K) ``p`` or (N,) ``score``) and `metrics.weights`; a vector has one figure for each class
      or pair of classes.
    """
    if parts == ALL and len(grading.classes) == 2:
        parts += _OF_TWO

    def figures(data: Data, weights: Weights) -> Figures:
        found: Figures = {}
        for part in parts:
            found |= _PARTS[part](grading, data, weights)
        return found

    return figures
