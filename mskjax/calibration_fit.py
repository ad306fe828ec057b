"""Fits temperatures and conformal sets of a run, and measures what they are worth.

Everything comes from ``cases.csv``: its cases were read by networks that had not seen their
patients.  Every reading of a case (one a seed, one a repetition of cross-validation) is a row of
its patient, and each patient weighs alike: no patient counts twice.  Patients of held-out folds are
no part of the fit; it is measured on them too.

**Measured** is a fit on cases that it was not made on: for each fold, temperature and sets are
fitted on the patients of the other folds and applied to its own.  Of a run of few folds that would
leave many patients out, and sets of few patients are larger than those of the run: its patients are
divided into more groups.
"""

import dataclasses
import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mskjax import cases
from mskjax.config import StudyConfig
from mskjax.data import splits
from mskjax.metrics import classification as c
from mskjax.metrics import conformal
from mskjax.metrics.grading import Grading
from mskjax.metrics.grading_statistic import LEAST_PROBABILITY
from mskjax.metrics.intervals import Estimate, patient_bootstrap
from mskjax.metrics.operating_point import CRITERIA, SPREAD, fit_scale, fit_threshold
from mskjax.metrics.temperature import (
    Temperature,
    apply_temperature,
    fit_temperature,
    patient_weights,
)
from mskjax.metrics.weights import CaseWeights, mean
from mskjax.tables import Row
from mskjax.workdir import config_of

Json = dict[str, Any]

COVERAGES = (0.8, 0.9, 0.95)  # that are measured; sets of any other can be made
FITTED_TO = [*CRITERIA, SPREAD]  # of operating points
GROUPS = 5  # at least, into which patients are divided to measure a fit
_SCORES = ("log_loss", "ece", "brier")


def fit(run: Path, gradings: Sequence[Grading]) -> Json:
    """The content of calibration.json.

    Args:
      run: folder of an evaluated run.
      gradings: of its system.

    Returns:
      ``tasks``: task -> method -> what `Calibration` applies (``temperature``, ``scores``), what it
      was fitted on (``cases``, ``patients``, ``readings``, ``missed``), its ``check`` and, where
      folds were held out, ``held_out``, see `_measured`; its operating point
      (`metrics.operating_point`): of two classes ``thresholds``, criterion -> ``value`` and
      ``why``, of ordered ones ``scale``, ``slope``, ``offset`` and ``why``; ``caveats``;
      ``criteria``; and
      ``cases_sha256`` of the table that all was made from.
    """
    config = config_of(run)
    audit = json.loads((run / "cohort.json").read_text())
    known = sorted({patient for patient, _ in audit["index"]})
    kind, images = config.data.split, splits.images_of(audit)
    divided = splits.load(run / "splits.json", known, audit["fingerprint"], kind, images)
    apart = {k for k, fold in enumerate(divided.folds) if fold.held_out}
    every = cases.read(run / "cases.csv")
    rows = [r for r in every if int(r["fold"]) not in apart]
    last = [r for r in every if int(r["fold"]) in apart]
    tasks: Json = {}
    for grading in gradings:
        for method in _methods(every, grading, gradings):
            crossed, other = (_Cases.of(some, grading, method) for some in (rows, last))
            tasks.setdefault(grading.task, {})[method] = _entry(crossed, other, grading, config)
    return {
        "cases_sha256": hash_of(run / "cases.csv"),
        "gradings": as_json(gradings),
        "criteria": FITTED_TO,
        "weights": "each patient weighs alike",
        "caveats": _caveats(config, audit, divided),
        "tasks": tasks,
    }


@dataclasses.dataclass(frozen=True)
class _Cases:
    """Readings of the cases of a grading by one method.

    Attributes:
      p: (N, K) float64 as the network gave them; NaN where the region was missed.
      reference: (N,) int.
      patients: (N,) str.
      ids: (N,) str of the cases; a case has a reading of each seed and repetition.
      folds: (N,) int.
    """

    p: np.ndarray
    reference: np.ndarray
    patients: np.ndarray
    ids: np.ndarray
    folds: np.ndarray

    @classmethod
    def of(cls, rows: Sequence[Row], grading: Grading, method: str) -> "_Cases":
        own = cases.graded(rows, grading)
        p = own.probabilities(grading, method) if own.rows else np.zeros((0, len(grading.classes)))
        ids = np.array([r["case"] for r in own.rows], str)
        folds = np.array([int(r["fold"]) for r in own.rows], int)
        return cls(p, own.reference, np.array(own.patients, str), ids, folds)

    @property
    def found(self) -> np.ndarray:
        """(N,) bool, whether there is anything to calibrate."""
        return np.asarray(~np.isnan(self.p).any(1))

    def those(self, inside: np.ndarray) -> "_Cases":
        """The readings where `inside`, (N,) bool."""
        return _Cases(*(getattr(self, f.name)[inside] for f in dataclasses.fields(self)))


@dataclasses.dataclass(frozen=True)
class _Fit:
    """Temperature and scores of some cases."""

    temperature: Temperature
    scores: Json

    @classmethod
    def on(cls, some: _Cases, grading: Grading) -> "_Fit":
        own = some.those(some.found)
        count = len(set(own.patients))
        weights = patient_weights(own.patients.tolist())
        temperature = fit_temperature(own.p, own.reference, weights, count)
        # The one number is fitted on the cases that the quantile is taken of; the check is not.
        after = apply_temperature(own.p, temperature.value)
        found = conformal.scores(after, grading.calls(own.p), grading.ordinal)
        mine = found[np.arange(len(found)), own.reference]
        return cls(temperature, conformal.fit(mine, own.patients.tolist()))


def _entry(crossed: _Cases, apart: _Cases, grading: Grading, config: StudyConfig) -> Json:
    """The entry of a task and a method, from cross-validated and from held-out patients."""
    found = crossed.those(crossed.found)
    missed = len(crossed.ids) - len(found.ids)
    if not len(found.ids):
        return nothing(len(set(crossed.ids)), missed) | _operating_point(found, grading)
    fit, groups = _Fit.on(crossed, grading), _groups(crossed)
    fits = [_Fit.on(crossed.those(groups != g), grading) for g in range(groups.max() + 1)]
    entry = {
        "temperature": fit.temperature.value,
        "why": fit.temperature.why,
        "cases": len(set(found.ids)),
        "patients": len(set(found.patients)),
        "readings": len(found.ids),
        "missed": missed,
        **fit.scores,
        **_operating_point(found, grading),
        "check": {
            "temperatures": [own.temperature.value for own in fits],
            **_measured(crossed, grading, fits, groups, config),
        },
    }
    if apart.found.any():
        whole = np.zeros(len(apart.ids), int)
        entry["held_out"] = _measured(apart, grading, [fit], whole, config)
    return entry


def nothing(count: int, missed: int) -> Json:
    """The entry where there is no probability to fit anything on."""
    return {
        "temperature": 1.0, "why": "not fitted: no held-out case with a probability",
        "cases": count, "patients": 0, "readings": 0, "missed": missed,
        "scores": [], "thresholds": {}, "scale": {}, "check": None,
    }  # fmt: skip


def _operating_point(found: _Cases, grading: Grading) -> Json:
    """``thresholds`` of the probability as the network gave it, and ``scale`` of its expectation.

    The first is empty where there are more than two classes, the second where these have no order.
    Each reading weighs alike, as in the figures that a threshold is chosen by.
    """
    count, reference = len(set(found.patients)), found.reference
    if len(grading.classes) == 2:
        cases = found.p[:, 1], reference == 1
        own = {by: fit_threshold(*cases, by, count)._asdict() for by in CRITERIA}
        return {"thresholds": own, "scale": {}}
    if not grading.ordinal:
        return {"thresholds": {}, "scale": {}}
    scale = fit_scale(grading.expected(found.p), reference, count)
    return {"thresholds": {}, "scale": scale._asdict()}


def _groups(every: _Cases) -> np.ndarray:
    """(N,) int: the group of patients with which a reading is left out of the fit of its check.

    Those of one fold; where folds were repeated, of the first that tested the patient.  Of fewer
    folds than `GROUPS`, as many groups of patients.
    """
    first: dict[str, int] = {}
    for patient, fold in zip(every.patients.tolist(), every.folds.tolist(), strict=True):
        first[patient] = min(fold, first.get(patient, fold))
    if len(set(first.values())) < GROUPS:
        first = {p: i % GROUPS for i, p in enumerate(sorted(first))}
    numbers = np.unique(list(first.values()), return_inverse=True)[1]
    group = dict(zip(first, numbers.tolist(), strict=True))
    return np.array([group[patient] for patient in every.patients.tolist()], int)


def _measured(
    every: _Cases, grading: Grading, fits: Sequence[_Fit], groups: np.ndarray, config: StudyConfig
) -> Json:
    """How fits did on cases that they were not made on.

    Args:
      every: N readings.
      grading: of them.
      fits: one for each group.
      groups: (N,) int, number of the fit that is applied to each reading.
      config: of the study, for the bootstrap.

    Returns:
      ``log_loss``, ``ece`` and ``brier``, each ``before`` and ``after``, estimates over the regions
      that were found; ``change`` of the log loss; and ``sets``, of each of `COVERAGES`: ``held``,
      the share of found cases whose set holds the reference; ``held_by_case``, where each case
      weighs alike; ``held_or_missed``, where a missed region is a reference that was not held;
      mean ``size``, and the shares of ``empty`` and ``full`` sets.
    """
    found, after = every.found, np.full(every.p.shape, np.nan)
    inside = np.zeros((len(COVERAGES), *every.p.shape), bool)
    for number, fit in enumerate(fits):
        own = groups == number
        after[own] = apply_temperature(every.p[own], fit.temperature.value)
        calls = grading.calls(every.p[own])
        for place, coverage in enumerate(COVERAGES):
            inside[place, own] = conformal.sets(
                after[own], calls, grading.ordinal, fit.scores, coverage
            )
    held = inside[:, np.arange(len(found)), every.reference].T
    data = {
        "reference": every.reference.astype(np.int32),
        "before": np.where(found[:, None], every.p, 0).astype(np.float32),
        "after": np.where(found[:, None], after, 0).astype(np.float32),
        "held": held.astype(np.float32),
        "found": found.astype(np.float32),
        "weight": np.zeros(len(found), np.float32),
        "weight_of_all": patient_weights(every.patients.tolist()).astype(np.float32),
    }
    data["weight"][found] = patient_weights(every.patients[found].tolist())
    patients = every.patients.tolist()
    estimates = patient_bootstrap(_figures, data, patients, config.resamples, config.seed)
    seen, sizes = every.those(found), inside[:, found].sum(2)

    def shown(name: str, place: int | None = None) -> Json:
        estimate: Estimate = estimates[name] if place is None else estimates[name][place]
        own = every if name == "held_or_missed" else seen
        ids, people = len(set(own.ids)), len(set(own.patients))
        return dataclasses.replace(estimate, n=ids, patients=people).as_json()

    def mean(values: np.ndarray) -> float:
        return float(np.average(values, weights=data["weight"][found]))

    return {
        **{
            name: {when: shown(f"{name}_{when}") for when in ("before", "after")}
            for name in _SCORES
        },
        "change": shown("change"),
        "sets": [
            {
                "coverage": coverage,
                **{k: shown(k, i) for k in ("held", "held_by_case", "held_or_missed")},
                "size": mean(sizes[i]),
                "empty": mean(sizes[i] == 0),
                "full": mean(sizes[i] == every.p.shape[1]),
            }
            for i, coverage in enumerate(COVERAGES)
        ],
    }


def _figures(data: Mapping[str, np.ndarray], weights: CaseWeights) -> dict[str, np.ndarray]:
    """The statistic of `_measured`'s bootstrap."""
    reference, own = data["reference"], weights._replace(own=data["weight"])
    found: dict[str, np.ndarray] = {}
    for when in ("before", "after"):
        p = data[when]
        found[f"log_loss_{when}"] = c.log_loss(p, reference, LEAST_PROBABILITY, own)
        found[f"ece_{when}"] = c.ece(p, reference, own)
        found[f"brier_{when}"] = c.brier(p, reference, own)
    found["change"] = found["log_loss_after"] - found["log_loss_before"]
    shares = {"held": "weight", "held_by_case": "found", "held_or_missed": "weight_of_all"}
    return found | {
        name: mean(data["held"], weights._replace(own=data[by])) for name, by in shares.items()
    }


def _methods(rows: Sequence[Row], grading: Grading, gradings: Sequence[Grading]) -> list[str]:
    """The graders that gave probabilities of a task, the reported one first."""

    def matched(column: str, own: Grading) -> str | None:
        # Where no region at all was found, the columns of reference regions are there alone.
        found = re.fullmatch(f"(?:oracle_)?p_(.+)_{own.task}_{own.classes[0]}", column)
        return found[1] if found else None

    longer = [g for g in gradings if g.task.endswith(f"_{grading.task}")]
    found = [
        name
        for column in (rows[0] if rows else ())
        if (name := matched(column, grading)) and not any(matched(column, g) for g in longer)
    ]
    return list(dict.fromkeys(found))


def _caveats(config: StudyConfig, audit: Mapping[str, Any], divided: splits.Splits) -> list[str]:
    """What keeps the promise from holding for new patients."""
    found = []
    if config.data.shuffle_labels:
        found.append("CONTROL RUN: labels were shuffled between patients; use it for nothing else.")
    if divided.unit == "case":
        found.append(
            "LEAKING SPLIT: networks had seen other cases of these patients; temperature and sets"
            " are too small for new patients."
        )
    elif divided.patient_overlap:
        found.append("Patients who share an image lie on both sides of a fold.")
    if audit["kind"] == "phantom":
        found.append("PHANTOM: fitted on generated images, which says nothing about patients.")
    return found


def as_json(gradings: Sequence[Grading]) -> list[Json]:
    """What was graded, by which a kept calibration is known to be of these gradings."""
    return [
        {"task": g.task, "classes": list(g.classes), "ordinal": bool(g.ordinal)} for g in gradings
    ]


def hash_of(path: Path) -> str:
    """SHA-256 of a table, by which a kept calibration is known to be of it."""
    return hashlib.sha256(path.read_bytes()).hexdigest()
