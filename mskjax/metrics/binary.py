"""Figures of a grading into two classes: with intervals, over folds, as tables and as a ROC curve.

Arguments common to all functions here:

* ``reference``: (N,) int, 1 for the positive class, 0 for the other.
* ``predicted``: (N,) int, 0 or 1, or `MISSED` where the region to grade was not found.
* ``probability``: (N,) float32 of class 1, 0 to 1; a missed positive has 0, a missed negative 1.
* ``patients``: N patient ids, the units of the bootstrap.

A missed case is wrong whatever its class.  So specificity is the share of negatives that were
called negative, and not 1 - FP / negatives, which a detector could raise by finding nothing.  PPV
and NPV are shares of the calls made; a missed case is none.
"""

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from mskjax.metrics import classification as c
from mskjax.metrics.estimates import calibration_entry, confusion_entry, float_or_nan
from mskjax.metrics.intervals import (
    Estimate,
    Statistic,
    mean_sd_over_folds,
    padded,
    paired_patient_bootstrap,
    patient_bootstrap,
    room,
)
from mskjax.tables import Row

Json = dict[str, Any]

MISSED = 2
LEAST_PROBABILITY = 1e-6  # of the log loss: one missed case costs 13.8 nats, not infinity
ROC_POINTS = 200

_ORDER = (
    "auroc",
    "accuracy",
    "sensitivity",
    "specificity",
    "ppv",
    "npv",
    "f1",
    "balanced_accuracy",
    "cohen_kappa",
    "average_precision",
    "sensitivity_at_specificity_90",
    "log_loss",
    "brier",
    "ece",
)
_OF_FOLDS = ("auroc", "accuracy", "sensitivity", "specificity", "log_loss")
_OF_STRUCTURES = ("dice", "pixel_accuracy")

# Why a proportion has no value: what it is a share of is empty.
NO_CASES = {
    "accuracy": "no case",
    "sensitivity": "no positive case",
    "specificity": "no negative case",
    "ppv": "no case was called positive",
    "npv": "no case was called negative",
}


def calls(
    reference: np.ndarray, probability: np.ndarray, threshold: float = 0.5
) -> tuple[np.ndarray, np.ndarray]:
    """Calls and scores as the functions here take them, from probabilities with gaps.

    Args:
      reference: (N,) 0 or 1.
      probability: (N,) of class 1, or any other score; NaN where the region was missed.
      threshold: the call is 1 from here on.

    Returns:
      (N,) int32 calls, 0, 1 or `MISSED`, and (N,) float32 scores, in which a missed case has the
      worst of its class: 0 and 1, or the extremes of scores that go beyond these.
    """
    reference, score = np.asarray(reference), np.asarray(probability, np.float32)
    missed = np.isnan(score)
    # These two pass over NaN.
    lowest, highest = np.fmin.reduce(score, initial=0.0), np.fmax.reduce(score, initial=1.0)
    predicted = np.where(missed, MISSED, score >= threshold).astype(np.int32)
    worst = np.where(reference == 1, lowest, highest)
    return predicted, np.where(missed, worst, score).astype(np.float32)


def proportions(reference: np.ndarray, predicted: np.ndarray) -> dict[str, np.ndarray]:
    """The cases that accuracy, sensitivity, specificity, PPV and NPV are shares of, (N,) bool.

    Each of the five is the share of right calls among its cases.
    """
    return {
        "accuracy": np.ones(len(reference), bool),
        "sensitivity": reference == 1,
        "specificity": reference == 0,
        "ppv": predicted == 1,
        "npv": predicted == 0,
    }


def binary(
    reference: np.ndarray,
    predicted: np.ndarray,
    probability: np.ndarray,
    patients: Sequence[str],
    resamples: int,
    seed: int,
) -> Json:
    """All figures of a grading with probabilities, with patient-bootstrap intervals.

    Arguments as in the module; ``resamples`` and ``seed`` are of the bootstrap.

    Returns:
      Estimates in reading order.  ``balanced_accuracy`` is the mean of sensitivity and
      specificity, ``f1`` that of the positive class, ``log_loss`` in nats with probabilities from
      1e-6, ``brier`` the mean square of (probability - reference), range [0, 1], and ``ece`` that
      of the likelier class.  ``n`` of sensitivity, specificity, PPV and NPV is the number of cases
      they are shares of.  A figure is null, with ``why``, where the classes that it needs have no
      case.

    Raises:
      UserError: if there are no cases.
      ValueError: if the arrays are not as the module says.
    """
    data = _checked(reference, predicted, probability)
    return _bootstrapped(_all_figures, data, patients, resamples, seed)


def labels_only(
    reference: np.ndarray,
    predicted: np.ndarray,
    patients: Sequence[str],
    resamples: int,
    seed: int,
) -> Json:
    """The figures of `binary` that need no probability (baselines, readers, subgroups)."""
    return _bootstrapped(_label_figures, _checked(reference, predicted), patients, resamples, seed)


def scores_only(
    reference: np.ndarray, score: np.ndarray, patients: Sequence[str], resamples: int, seed: int
) -> Json:
    """AUROC and average precision of a score, which is higher for positives and of any scale."""
    data = _checked(reference) | {"score": _finite(score, reference)}
    return _bootstrapped(_score_figures, data, patients, resamples, seed)


def difference(
    reference: np.ndarray,
    predicted: np.ndarray,
    other: np.ndarray,
    patients: Sequence[str],
    score: np.ndarray | None = None,
    other_score: np.ndarray | None = None,
    *,
    resamples: int,
    seed: int,
) -> Json:
    """Figures of `predicted` minus those of `other` on the same cases and the same resamples.

    Args:
      reference: (N,) 0 or 1.
      predicted: (N,) 0, 1 or `MISSED`.
      other: the same of the other method.
      patients: N patient ids.
      score: (N,) probability or score of `predicted`; None for the figures of labels alone.
      other_score: of `other`, on a scale of its own; given if and only if `score` is.
      resamples: of the bootstrap.
      seed: of the bootstrap.

    Returns:
      Differences of the figures of `labels_only`, and of the AUROC where there are scores.
    """
    if (score is None) != (other_score is None):
        raise ValueError("scores are compared in pairs: give both or none")
    ours, theirs = _checked(reference, predicted), _checked(reference, other)
    if score is not None and other_score is not None:
        ours["score"], theirs["score"] = _finite(score, reference), _finite(other_score, reference)
    estimates = paired_patient_bootstrap(
        _compared_figures, ours, theirs, list(patients), resamples, seed
    )
    # What sensitivity and specificity are shares of is the same for both, unlike PPV and NPV.
    shares = proportions(ours["reference"], ours["predicted"])
    shared = {name: shares[name] for name in ("accuracy", "sensitivity", "specificity")}
    return _in_reading_order(estimates, shared, patients)


def over_folds(
    reference: np.ndarray,
    predicted: np.ndarray,
    probability: np.ndarray,
    folds: Sequence[int] | np.ndarray,
) -> Json:
    """Figures of each fold, their mean and standard deviation, as papers print them.

    Args:
      reference: (N,) 0 or 1.
      predicted: (N,) 0, 1 or `MISSED`.
      probability: (N,) as in the module.
      folds: N numbers of the fold in which a case was held out.

    Returns:
      AUROC, accuracy, sensitivity, specificity and log loss, each with ``mean``, ``sd`` (ddof 1),
      ``values`` by the number of the fold and ``folds``, how many have a value.  A fold where the
      figure is undefined is null in ``values`` and left out of the rest.
    """
    data = _checked(reference, predicted, probability)
    numbers = np.asarray(folds, int)
    _one_each(numbers, reference)
    # A fold is a vector of case weights, so folds of any size are one program.
    weights = (np.unique(numbers)[:, None] == numbers).astype(np.float32)
    size = room(len(numbers))
    figures = jax.device_get(_figures_of_folds(padded(data, size), padded(weights.T, size).T))
    return {name: _spread(figures[name]) for name in _OF_FOLDS}


def structures_over_folds(rows: Sequence[Row], names: Sequence[str]) -> Json:
    """Dice and pixel accuracy of each structure: mean of each fold, then their mean and SD.

    Args:
      rows: ``kind`` structure: fold, name, dice and pixel_accuracy.
      names: structures to report; one without rows is left out.

    Returns:
      ``<metric>_<structure>`` -> entry as of `over_folds`.  Absent structures (empty cells) are
      left out of their fold's mean.
    """
    folds = sorted({int(r["fold"]) for r in rows})
    found: Json = {}
    for name in names:
        own = [r for r in rows if r["name"] == name]
        for metric in _OF_STRUCTURES if own else ():
            values = [[float_or_nan(r[metric]) for r in own if int(r["fold"]) == k] for k in folds]
            found[f"{metric}_{name}"] = _spread([_mean_defined(v) for v in values])
    return found


def tables(
    reference: np.ndarray,
    predicted: np.ndarray,
    probability: np.ndarray,
    class_names: Sequence[str],
    name: str,
) -> Json:
    """Confusion matrix and calibration of a report, under the name of the grading.

    Args:
      reference: (N,) 0 or 1.
      predicted: (N,) 0, 1 or `MISSED`; a last column of the matrix where there are any.
      probability: (N,) as in the module.
      class_names: of class 0 and class 1.
      name: of the grading.

    Returns:
      ``confusion`` and ``calibration`` as of `estimates.tables`.
    """
    data = _checked(reference, predicted, probability)
    both = np.stack([1 - data["score"], data["score"]], 1)
    return {
        "confusion": {name: confusion_entry(data["reference"], data["predicted"], class_names)},
        "calibration": {name: calibration_entry(both, data["reference"])},
    }


def roc(reference: np.ndarray, score: np.ndarray) -> list[list[float]]:
    """Points of the ROC curve for a figure.

    Args:
      reference: (N,) 0 or 1.
      score: (N,) float, a probability or any other score.

    Returns:
      At most 200 points [1 - specificity, sensitivity], from [0, 0] to [1, 1], one for each
      threshold or, of more, evenly chosen ones; empty if a class has no case.
    """
    positive, score = _checked(reference)["reference"] == 1, _finite(score, reference)
    if positive.all() or not positive.any():
        return []
    order = np.argsort(-score, kind="stable")
    # Equal scores pass the threshold together, so a point stands after the last of them.
    last = np.append(np.diff(score[order]) != 0, True)
    true, false = (np.cumsum(member[order])[last] for member in (positive, ~positive))
    points = np.stack([false / (~positive).sum(), true / positive.sum()], 1)
    points = np.concatenate([np.zeros((1, 2)), points])
    chosen = np.linspace(0, len(points) - 1, min(len(points), ROC_POINTS)).round().astype(int)
    return points[chosen].tolist()


def log_loss(
    probability: ArrayLike, reference: ArrayLike, weights: ArrayLike | None = None
) -> jax.Array:
    """Mean over cases of -log p of the own class, in nats, p being at least 1e-6.

    Args:
      probability: (N,) float of class 1, 0 to 1.
      reference: (N,) 0 or 1.
      weights: (N,) case weights, None = ones; 0 hides a case whatever its probability.

    Returns:
      () float in [0, 13.9]; NaN without cases.
    """
    p, reference = jnp.asarray(probability, jnp.float32), jnp.asarray(reference)
    weights = jnp.ones_like(p) if weights is None else jnp.asarray(weights, jnp.float32)
    own = jnp.maximum(jnp.where(reference == 1, p, 1 - p), LEAST_PROBABILITY)
    loss = jnp.abs(jnp.log(own))  # not -log, which makes a perfect loss print as -0.000
    total = weights.sum()
    mean = jnp.where(weights > 0, weights * loss, 0.0).sum() / jnp.where(total > 0, total, 1.0)
    return jnp.where(total > 0, mean, jnp.nan)


# --------------------------------------------------------------------------------------------
# Statistics: module-level functions, so that a bootstrap is compiled once per shape


def _label_figures(data: Mapping[str, Any], weights: jax.Array) -> dict[str, jax.Array]:
    matrix = c.confusion_matrix(data["reference"], data["predicted"], 2, weights, missed=True)
    specificity, sensitivity = c.sensitivity_per_class(matrix)
    npv, ppv = c.ppv_per_class(matrix)
    return {
        "accuracy": c.accuracy(matrix),
        # Undefined without one of the classes, where `c.balanced_accuracy` has that of the other.
        "balanced_accuracy": (sensitivity + specificity) / 2,
        "sensitivity": sensitivity,
        "specificity": specificity,
        "ppv": ppv,
        "npv": npv,
        "f1": c.f1_per_class(matrix)[1],
        "cohen_kappa": c.cohen_kappa(matrix),
    }


def _score_figures(data: Mapping[str, Any], weights: jax.Array) -> dict[str, jax.Array]:
    score, positive = data["score"], data["reference"] == 1
    return {
        "auroc": c.auroc(score, positive, weights),
        "average_precision": c.average_precision(score, positive, weights),
    }


def _all_figures(data: Mapping[str, Any], weights: jax.Array) -> dict[str, jax.Array]:
    p, reference = data["score"], data["reference"]
    both = jnp.stack([1 - p, p], 1)
    return {
        **_label_figures(data, weights),
        **_score_figures(data, weights),
        "sensitivity_at_specificity_90": c.sensitivity_at_specificity(
            p, reference == 1, 0.9, weights
        ),
        "log_loss": log_loss(p, reference, weights),
        # Summed over two classes, the form of `c.brier` counts each error twice.
        "brier": c.brier(both, reference, weights) / 2,
        "ece": c.ece(both, reference, weights),
    }


def _compared_figures(data: Mapping[str, Any], weights: jax.Array) -> dict[str, jax.Array]:
    figures = _label_figures(data, weights)
    if "score" in data:
        figures["auroc"] = c.auroc(data["score"], data["reference"] == 1, weights)
    return figures


@jax.jit
def _figures_of_folds(data: dict[str, Any], weights: jax.Array) -> dict[str, jax.Array]:
    return jax.vmap(functools.partial(_all_figures, data))(weights)


# --------------------------------------------------------------------------------------------
# Arguments and results


def _checked(
    reference: np.ndarray,
    predicted: np.ndarray | None = None,
    probability: np.ndarray | None = None,
) -> dict[str, np.ndarray]:
    """The data of a statistic; raises ValueError where they are not as the module says."""
    data = {"reference": _labels("reference", reference, 1, reference)}
    if predicted is not None:
        data["predicted"] = _labels("predicted", predicted, MISSED, reference)
    if probability is not None:
        p = data["score"] = _finite(probability, reference)
        if not ((p >= 0) & (p <= 1)).all():
            raise ValueError("probability must lie in 0 to 1")
        missed = data["predicted"] == MISSED
        if (p[missed] != 1 - data["reference"][missed]).any():
            raise ValueError("a missed positive has probability 0, a missed negative 1; see calls")
    return data


def _labels(name: str, labels: np.ndarray, highest: int, reference: np.ndarray) -> np.ndarray:
    labels = np.asarray(labels, np.int32)
    _one_each(labels, reference)
    if labels.size and not 0 <= labels.min() <= labels.max() <= highest:
        raise ValueError(f"{name} holds {labels.min()} to {labels.max()}, not 0 to {highest}")
    return labels


def _finite(score: np.ndarray, reference: np.ndarray) -> np.ndarray:
    score = np.asarray(score, np.float32)
    _one_each(score, reference)
    if not np.isfinite(score).all():
        raise ValueError("a score is not finite; see calls for missed regions")
    return score


def _one_each(values: np.ndarray, reference: np.ndarray) -> None:
    if values.shape != np.shape(reference):
        raise ValueError(f"shape {values.shape} for {np.shape(reference)} references")


def _bootstrapped(
    statistic: Statistic,
    data: dict[str, np.ndarray],
    patients: Sequence[str],
    resamples: int,
    seed: int,
) -> Json:
    estimates = patient_bootstrap(statistic, data, list(patients), resamples, seed)
    called = "predicted" in data
    shares = proportions(data["reference"], data["predicted"]) if called else {}
    return _in_reading_order(estimates, shares, patients)


def _in_reading_order(
    estimates: Mapping[str, Estimate],
    shares: Mapping[str, np.ndarray],
    patients: Sequence[str],
) -> Json:
    """JSON, with the cases that the proportions are really taken over."""
    found: Json = {}
    for name in (n for n in _ORDER if n in estimates):
        estimate = estimates[name]
        if name in shares:
            members = {p for p, inside in zip(patients, shares[name], strict=True) if inside}
            why = estimate.why if shares[name].any() else NO_CASES[name]
            estimate = dataclasses.replace(
                estimate, n=int(shares[name].sum()), patients=len(members), why=why
            )
        found[name] = estimate.as_json()
    return found


def _spread(values: Sequence[float] | np.ndarray) -> Json:
    spread = mean_sd_over_folds(values)
    return {
        "mean": _number(spread.mean),
        "sd": _number(spread.sd),
        "values": [_number(value) for value in values],
        "folds": spread.folds,
    }


def _mean_defined(values: Sequence[float]) -> float:
    defined = [v for v in values if not np.isnan(v)]
    return float(np.mean(defined)) if defined else np.nan


def _number(value: float) -> float | None:
    return None if np.isnan(value) else float(value)
