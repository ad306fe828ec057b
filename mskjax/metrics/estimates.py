"""Groups of figures with patient-bootstrap intervals, from arrays or from rows of cases.csv.

The statistics are frozen dataclasses: equal ones hash equal, so that a bootstrap is compiled once
per shape however often it is asked for.
"""

import dataclasses
import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mskjax.metrics import classification as c
from mskjax.metrics.intervals import (
    Estimate,
    paired_patient_bootstrap,
    patient_bootstrap,
)
from mskjax.metrics.segmentation import cases_defined, mean_over_cases
from mskjax.tables import Row

Json = dict[str, Any]
STRUCTURE_METRICS = ("dice", "iou", "ppv", "sensitivity", "pixel_accuracy", "nsd", "hd95", "assd")


def structures(rows: Sequence[Row], names: Sequence[str], resamples: int, seed: int) -> Json:
    """Mean over studies of each segmentation metric of each structure.

    Args:
      rows: ``kind`` structure: patient, name and the columns of `STRUCTURE_METRICS`.
      names: structures to report.
      resamples: of the bootstrap.
      seed: of the bootstrap.

    Returns:
      ``<metric>_<structure>`` -> estimate; ``n`` is the number of studies in which it is defined.
    """
    found: Json = {}
    for name in names:
        own = [r for r in rows if r["name"] == name]
        if not own:
            continue
        figures = means(own, STRUCTURE_METRICS, resamples, seed)
        found |= {f"{metric}_{name}": figure for metric, figure in figures.items()}
    return found


def means(rows: Sequence[Row], columns: Sequence[str], resamples: int, seed: int) -> Json:
    """Mean over cases of columns of cases.csv.

    Args:
      rows: with ``patient`` and the columns; an empty cell is left out of its column's mean.
      columns: names, which become those of the figures.
      resamples: of the bootstrap.
      seed: of the bootstrap.

    Returns:
      Column -> estimate; ``n`` counts the cells that are not empty.  Nothing without rows.
    """
    if not rows:
        return {}
    values = np.array([[float_or_nan(r.get(c)) for c in columns] for r in rows], np.float32)
    estimates = patient_bootstrap(
        _column_means, values, [r["patient"] for r in rows], resamples, seed
    )
    return {
        name: dataclasses.replace(e, n=int(cases_defined(values[:, i]))).as_json()
        for i, (name, e) in enumerate(zip(columns, estimates, strict=True))
    }


def ratios(
    rows: Sequence[Row], columns: Mapping[str, tuple[str, str]], resamples: int, seed: int
) -> Json:
    """Ratios of sums over cases, such as detections per reference.

    Args:
      rows: with ``patient`` and the columns.
      columns: figure -> (column of the numerator, column of the denominator).
      resamples: of the bootstrap.
      seed: of the bootstrap.

    Returns:
      Figure -> estimate; nothing without rows.
    """
    if not rows:
        return {}
    pairs = [[[float_or_nan(r[part]) for part in pair] for pair in columns.values()] for r in rows]
    estimates = patient_bootstrap(
        _ratios_of_sums, np.array(pairs, np.float32), [r["patient"] for r in rows], resamples, seed
    )
    return {name: e.as_json() for name, e in zip(columns, estimates, strict=True)}


def detection(rows: Sequence[Row], resamples: int, seed: int) -> Json:
    """Share of reference regions found, share of found ones at the right level, extra per study.

    Args:
      rows: ``kind`` detection: patient and the counts reference_discs, found_discs, extra_discs,
        right_level of each study.
      resamples: of the bootstrap.
      seed: of the bootstrap.
    """
    columns = {
        "disc_detection_sensitivity": ("found_discs", "reference_discs"),
        "extra_discs_per_study": ("extra_discs", "studies"),
        "level_accuracy": ("right_level", "found_discs"),
    }
    return ratios([{**r, "studies": 1} for r in rows], columns, resamples, seed)


def ordinal(
    reference: np.ndarray,
    predicted: np.ndarray,
    probabilities: np.ndarray,
    groups: np.ndarray,
    group_names: Sequence[str],
    patients: Sequence[str],
    name: str,
    group: str,
    resamples: int,
    seed: int,
) -> Json:
    """Figures of an ordinal grading and of the classes its grades are grouped into.

    Args:
      reference: (N,) grades, 0 to K-1.
      predicted: (N,) grades, K for a region that was missed.
      probabilities: (N, K); a missed region has 0 for every grade of its own class.
      groups: (K,) class of each grade.
      group_names: names of the G classes.
      patients: N patient ids.
      name: of the grading, suffix of its own figures.
      group: what the classes are called together, e.g. severity.
      resamples: of the bootstrap.
      seed: of the bootstrap.

    Returns:
      Figures of the classes without suffix (accuracy, sensitivity, auroc...), figures of the
      grades with the suffix ``_<name>``; ``quadratic_weighted_kappa`` is that of the grades.
    """
    statistic = _Ordinal(group, tuple(int(g) for g in groups), tuple(group_names), name)
    data = _labels(reference, predicted)
    data["probabilities"] = np.asarray(probabilities, np.float32)
    estimates = patient_bootstrap(statistic, data, list(patients), resamples, seed)
    return in_reading_order(estimates)


def labels_only(
    reference: np.ndarray,
    predicted: np.ndarray,
    groups: np.ndarray,
    patients: Sequence[str],
    name: str,
    resamples: int,
    seed: int,
) -> Json:
    """As `ordinal`, for predictions without probabilities (baselines, readers, subgroups)."""
    statistic = _Labels(tuple(int(g) for g in groups), name)
    data = _labels(reference, predicted)
    estimates = patient_bootstrap(statistic, data, list(patients), resamples, seed)
    return in_reading_order(estimates)


def difference(
    reference: np.ndarray,
    predicted: np.ndarray,
    other: np.ndarray,
    groups: np.ndarray,
    patients: Sequence[str],
    name: str,
    resamples: int,
    seed: int,
) -> Json:
    """Figures of `predicted` minus those of `other` on the same cases and the same resamples.

    Arguments as `labels_only`.
    """
    statistic = _Labels(tuple(int(g) for g in groups), name)
    ours, theirs = _labels(reference, predicted), _labels(reference, other)
    estimates = paired_patient_bootstrap(statistic, ours, theirs, list(patients), resamples, seed)
    return in_reading_order(estimates)


def tables(
    reference: np.ndarray,
    predicted: np.ndarray,
    probabilities: np.ndarray,
    groups: np.ndarray,
    grade_names: Sequence[str],
    group_names: Sequence[str],
    name: str,
    group: str,
) -> Json:
    """Confusion matrices of grades and classes, and the calibration of the classes.

    Arguments as `ordinal`.  Matrices have a last column of missed regions where there are any.
    """
    grouped = _group(np.asarray(probabilities), groups, len(group_names))
    group_reference = groups[reference]
    missed = predicted == len(grade_names)
    group_predicted = np.where(missed, len(group_names), grouped.argmax(1))
    return {
        "confusion": {
            group: confusion_entry(group_reference, group_predicted, group_names),
            name: confusion_entry(reference, predicted, grade_names),
        },
        "calibration": {group: calibration_entry(grouped, group_reference)},
    }


def _labels(reference: np.ndarray, predicted: np.ndarray) -> dict[str, np.ndarray]:
    return {
        "reference": np.asarray(reference, np.int32),
        "predicted": np.asarray(predicted, np.int32),
    }


@dataclasses.dataclass(frozen=True)
class _Labels:
    groups: tuple[int, ...]
    name: str

    def __call__(self, data: Any, weights: jax.Array) -> dict[str, jax.Array]:
        reference, predicted = data["reference"], data["predicted"]
        # One more entry: a missed region belongs to no class.
        groups = jnp.array((*self.groups, max(self.groups) + 1))
        classes = _matrix_figures(
            groups[reference], groups[predicted], max(self.groups) + 1, weights
        )
        return classes | self.grades(reference, predicted, weights)

    def grades(
        self, reference: jax.Array, predicted: jax.Array, weights: jax.Array
    ) -> dict[str, jax.Array]:
        matrix = c.confusion_matrix(reference, predicted, len(self.groups), weights, missed=True)
        near = (jnp.abs(reference - predicted) <= 1) & (predicted < len(self.groups))
        return {
            "quadratic_weighted_kappa": c.quadratic_weighted_kappa(matrix),
            f"accuracy_{self.name}": c.accuracy(matrix),
            f"balanced_accuracy_{self.name}": c.balanced_accuracy(matrix),
            f"within_one_grade_{self.name}": (near * weights).sum() / weights.sum(),
        }


@dataclasses.dataclass(frozen=True)
class _Ordinal:
    group: str
    groups: tuple[int, ...]
    group_names: tuple[str, ...]
    name: str

    def __call__(self, data: Any, weights: jax.Array) -> dict[str, jax.Array]:
        reference, predicted = data["reference"], data["predicted"]
        count = len(self.group_names)
        groups = jnp.array(self.groups)
        p = _group(data["probabilities"], groups, count)
        own = groups[reference]
        chosen = jnp.where(predicted == len(self.groups), count, jnp.argmax(p, 1))
        figures = _matrix_figures(own, chosen, count, weights)
        matrix = c.confusion_matrix(own, chosen, count, weights, missed=True)
        figures["cohen_kappa"] = c.cohen_kappa(matrix)
        figures[f"quadratic_weighted_kappa_{self.group}"] = c.quadratic_weighted_kappa(matrix)
        figures["f1_weighted"] = c.f1_weighted(matrix)
        sensitivity, specificity = c.sensitivity_per_class(matrix), c.specificity_per_class(matrix)
        ppv = c.ppv_per_class(matrix)
        for k, group in enumerate(self.group_names):
            figures[f"sensitivity_{group}"] = sensitivity[k]
            figures[f"specificity_{group}"] = specificity[k]
            figures[f"ppv_{group}"] = ppv[k]
        pairs = {
            f"auroc_{self.group_names[a]}_vs_{self.group_names[b]}": c.pairwise_auroc(
                p, own, a, b, weights
            )
            for a, b in itertools.combinations(range(count), 2)
        }
        figures["auroc"] = jnp.mean(jnp.stack(list(pairs.values())))
        figures |= pairs
        figures["brier"] = c.brier(p, own, weights)
        figures["ece"] = c.ece(p, own, weights)
        return figures | _Labels(self.groups, self.name).grades(reference, predicted, weights)


def _matrix_figures(
    reference: jax.Array, predicted: jax.Array, classes: int, weights: jax.Array
) -> dict[str, jax.Array]:
    matrix = c.confusion_matrix(reference, predicted, classes, weights, missed=True)
    return {
        "accuracy": c.accuracy(matrix),
        "balanced_accuracy": c.balanced_accuracy(matrix),
        "sensitivity": jnp.nanmean(c.sensitivity_per_class(matrix)),
        "specificity": jnp.nanmean(c.specificity_per_class(matrix)),
        "f1": c.f1_macro(matrix),
    }


def _column_means(values: jax.Array, weights: jax.Array) -> jax.Array:
    return jax.vmap(mean_over_cases, (1, None))(values, weights)


def _ratios_of_sums(pairs: jax.Array, weights: jax.Array) -> jax.Array:
    sums = (weights[:, None, None] * pairs).sum(0)
    return sums[:, 0] / sums[:, 1]


def _group(probabilities: Any, groups: Any, count: int) -> Any:
    """(N, K) probabilities of grades -> (N, G) of classes."""
    xp = jnp if isinstance(probabilities, jax.Array) else np
    member = xp.asarray(groups)[:, None] == xp.arange(count)[None, :]
    return (probabilities[:, :, None] * member[None]).sum(1)


def confusion_entry(reference: np.ndarray, predicted: np.ndarray, names: Sequence[str]) -> Json:
    """One confusion matrix of a report.

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


def calibration_entry(probabilities: np.ndarray, reference: np.ndarray) -> list[Json]:
    """The reliability diagram of a report: confidence, accuracy and n of each bin with cases.

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


# What a reader looks for first stands first; figures of one kind stay together.  The first is the
# headline of a report, which is never accuracy alone.
_ORDER = (
    "quadratic_weighted_kappa",
    "balanced",
    "accuracy",
    "within",
    "sensitivity",
    "specificity",
    "ppv",
    "f1",
    "auroc",
    "cohen",
    "brier",
    "ece",
)


def in_reading_order(estimates: Mapping[str, Estimate]) -> Json:
    """JSON in the order in which figures are read; a bootstrap returns them by the alphabet."""

    def place(name: str) -> tuple[int, str]:
        kind = next((i for i, start in enumerate(_ORDER) if name.startswith(start)), len(_ORDER))
        return kind, name

    return {name: estimates[name].as_json() for name in sorted(estimates, key=place)}


def float_or_nan(text: Any) -> float:
    """The number in a cell of cases.csv; NaN for an empty one."""
    return float(text) if text not in ("", None) else float("nan")
