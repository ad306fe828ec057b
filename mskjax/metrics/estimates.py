"""Means and ratios over cases with patient-bootstrap intervals, from rows of cases.csv."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mskjax.metrics.entries import over_folds
from mskjax.metrics.intervals import DRAWS, patient_bootstrap
from mskjax.metrics.segmentation import cases_defined, mean_over_cases
from mskjax.metrics.weights import Weights, ratio, sums
from mskjax.tables import Row, floats

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
      After Dice, where the rows have it, what the grid of the network leaves of it:
      ``dice_ceiling`` and ``dice_ceiling_least``, that of the worst study, without an interval.
    """
    found: Json = {}
    for name in names:
        own = [r for r in rows if r["name"] == name]
        if not own:
            continue
        figures = means(own, STRUCTURE_METRICS, resamples, seed)
        ceiling = floats(own, "dice_ceiling")
        if not np.isnan(ceiling).all():
            first = {"dice": figures["dice"], **means(own, ("dice_ceiling",), resamples, seed)}
            first["dice_ceiling_least"] = {
                **first["dice_ceiling"],
                "value": float(np.nanmin(ceiling)),
                "ci95": None,
                "method": "of the study where it is least",
            }
            first["dice_ceiling_least"].pop(DRAWS, None)
            figures = first | figures
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
    values = np.array([[_number(r.get(c)) for c in columns] for r in rows], np.float32)
    estimates = patient_bootstrap(
        mean_over_cases, values, [r["patient"] for r in rows], resamples, seed
    )
    return {
        name: dataclasses.replace(e, n=int(n)).as_json()
        for name, e, n in zip(columns, estimates, cases_defined(values), strict=True)
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
    pairs = [[[_number(r.get(part)) for part in pair] for pair in columns.values()] for r in rows]
    estimates = patient_bootstrap(
        _ratios_of_sums, np.array(pairs, np.float32), [r["patient"] for r in rows], resamples, seed
    )
    return {name: e.as_json() for name, e in zip(columns, estimates, strict=True)}


def structures_over_folds(
    rows: Sequence[Row],
    names: Sequence[str],
    metrics: Sequence[str] = ("dice", "pixel_accuracy"),
) -> Json:
    """Figures of each structure by fold: mean of each fold, then their mean and SD.

    Args:
      rows: ``kind`` structure: fold, name and the metrics.
      names: structures to report; one without rows is left out.
      metrics: columns.

    Returns:
      ``<metric>_<structure>`` -> entry as of `entries.over_folds`.  Absent structures (empty cells)
      are left out of their fold's mean.
    """
    folds = sorted({int(r["fold"]) for r in rows})
    found: Json = {}
    for name in names:
        own = [r for r in rows if r["name"] == name]
        for metric in metrics if own else ():
            parts = [floats([r for r in own if int(r["fold"]) == k], metric) for k in folds]
            found[f"{metric}_{name}"] = over_folds([float(mean_over_cases(v)) for v in parts])
    return found


def _ratios_of_sums(pairs: np.ndarray, weights: Weights) -> np.ndarray:
    above, below = np.moveaxis(sums(pairs, weights), 1, 0)
    return ratio(above, below)


def _number(text: Any) -> float:
    """The number in a cell; NaN for an empty one."""
    return float(text) if text not in ("", None) else float("nan")
