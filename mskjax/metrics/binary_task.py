"""All that a report says of one binary task, from rows of cases.csv."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mskjax.metrics import binary
from mskjax.tables import Row, floats

Json = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Task:
    """Where the columns of a task lie and what it is called.

    Attributes:
      name: in titles, e.g. ``task A``.
      suffix: of its metrics; empty for the task that is reported first.
      classes: names of class 0 and 1.
      model: column with the probability of class 1, end to end; empty cells are missed regions.
      oracle: the same on reference regions; empty cells have no reference region.
      ridge: column with the score of the baseline on hand-made features.
      majority: column with the commonest class of the training patients.
    """

    name: str
    suffix: str
    classes: tuple[str, str]
    model: str
    oracle: str
    ridge: str
    majority: str


def summarise(
    rows: Sequence[Row],
    reference: np.ndarray,
    task: Task,
    groups: Mapping[str, Mapping[str, np.ndarray]],
    resamples: int,
    seed: int,
) -> Json:
    """Parts of report.json: figures, baselines, confusion, calibration, ROC, folds, subgroups.

    Args:
      rows: N rows of cases.csv that belong to the task.
      reference: (N,) 0 or 1.
      task: see `Task`.
      groups: group -> stratum -> (N,) bool, for the subgroups; may be empty.
      resamples: of the bootstrap.
      seed: of the bootstrap.
    """
    settings = {"resamples": resamples, "seed": seed}
    patients = [r["patient"] for r in rows]
    calls, p = binary.calls(reference, floats(rows, task.model))
    ridge_calls, ridge_score = binary.calls(reference, floats(rows, task.ridge))
    majority = floats(rows, task.majority).astype(int)
    tables = binary.tables(reference, calls, p, task.classes, task.name)
    end_to_end = binary.binary(reference, calls, p, patients, **settings)
    curves = [_curve("end to end", reference, p, end_to_end["auroc"])]
    oracle: Json = {}
    known = ~np.isnan(floats(rows, task.oracle))
    if known.any():
        own = reference[known]
        oracle_calls, oracle_p = binary.calls(own, floats(rows, task.oracle)[known])
        members = [q for q, k in zip(patients, known, strict=True) if k]
        oracle = binary.binary(own, oracle_calls, oracle_p, members, **settings)
        curves.append(_curve("reference region", own, oracle_p, oracle["auroc"]))
    ridge = binary.scores_only(reference, ridge_score, patients, **settings)
    curves.append(_curve("ridge", reference, ridge_score, ridge["auroc"]))
    baselines = {
        "majority": binary.labels_only(reference, majority, patients, **settings),
        "ridge": ridge | binary.labels_only(reference, ridge_calls, patients, **settings),
        "model_minus_ridge": binary.difference(
            reference, calls, ridge_calls, patients, p, ridge_score, **settings
        ),
    }
    folds = binary.over_folds(reference, calls, p, [int(r["fold"]) for r in rows])
    return {
        "end_to_end": _named(end_to_end, task.suffix),
        "oracle_region": _named(oracle, task.suffix),
        "baselines": {name: _named(values, task.suffix) for name, values in baselines.items()},
        "confusion": tables["confusion"],
        "calibration": tables["calibration"],
        "roc": {task.name: curves},
        "folds": _named(folds, task.suffix),
        "subgroups": {
            group: {
                stratum: binary.labels_only(
                    reference[mask],
                    calls[mask],
                    [q for q, inside in zip(patients, mask, strict=True) if inside],
                    **settings,
                )
                for stratum, mask in strata.items()
            }
            for group, strata in groups.items()
            if strata
        },
    }


def merge(report: Json, part: Mapping[str, Any]) -> None:
    """Adds a part to a report, group by group."""
    for name, value in part.items():
        if isinstance(value, Mapping) and isinstance(report.get(name), dict):
            merge(report[name], value)
        else:
            report[name] = value


def _curve(label: str, reference: np.ndarray, score: np.ndarray, auroc: Any) -> Json:
    return {"label": label, "points": binary.roc(reference, score), "auroc": auroc}


def _named(figures: Mapping[str, Any], suffix: str) -> Json:
    return {f"{name}{suffix}": value for name, value in figures.items()}
