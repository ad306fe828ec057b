"""Operating points: gradings into two classes at thresholds that their own cases did not choose.

The figures above are of calls at a half.  Here the threshold of a fold is fitted on the held-out
cases of the other folds (`metrics.operating_point`), so no case that is counted has a say in it.
Their networks were trained on patients of the fold, as networks of folds are: the threshold is not
independent of these patients as that of another cohort would be, but no grade of theirs is in it.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

from mskjax.cases import graded
from mskjax.metrics import grading_figures as g
from mskjax.metrics.grading import Grading
from mskjax.metrics.intervals import patient_bootstrap
from mskjax.metrics.operating_point import CRITERIA, HALF, fit_threshold
from mskjax.reporting import wording
from mskjax.tables import Row

Json = dict[str, Any]

FIGURES = ("balanced_accuracy", "sensitivity", "specificity", "cohen_kappa")
GROUPS = 5  # of patients, where there is one fold
_RULES = {
    "half": "p ≥ .5",
    "balanced_accuracy": "fitted for balanced accuracy",
    "cohen_kappa": "fitted for kappa",
}


def crossed(
    rows: Sequence[Row], gradings: Sequence[Grading], method: str, resamples: int, seed: int
) -> Json:
    """Every grading into two classes, with thresholds fitted on the patients of the other folds.

    Args:
      rows: of cases.csv; of repeated cross-validation one repetition.
      gradings: of the system.
      method: that the report is of.
      resamples: of the bootstrap.
      seed: of the bootstrap.

    Returns:
      task -> ``prevalence``, the share of positive cases, and ``auroc``, which no threshold
      changes, estimates; ``fitted_on``, in words; ``rules``: of ``half`` and each of `CRITERIA`
      the ``figures`` (`FIGURES`) and ``thresholds``, a list of ``fold`` (or group), ``threshold``,
      ``why`` it was not fitted, and the ``cases`` and ``patients`` that it was fitted on.
      A threshold is taken as given in the intervals.
    """
    return _each(rows, gradings, method, {"resamples": resamples, "seed": seed}, _fitted)


def given(
    rows: Sequence[Row],
    gradings: Sequence[Grading],
    method: str,
    calibration: Mapping[str, Any],
    resamples: int,
    seed: int,
) -> Json:
    """As `crossed`, of other patients than the run's, at the thresholds that the run keeps.

    Args:
      rows: of cases.csv.
      gradings: of the system.
      method: that the report is of.
      calibration: content of the run's calibration.json.
      resamples: of the bootstrap.
      seed: of the bootstrap.
    """
    tasks = calibration["tasks"]

    def kept(own: "_Cases", grading: Grading, criterion: str) -> tuple[np.ndarray, list[Json]]:
        entry = tasks.get(grading.task, {}).get(method, {})
        known = entry.get("thresholds", {}).get(criterion)
        threshold = known or {"value": HALF, "why": "not fitted: the run has no such case"}
        told = {
            "fold": "all",
            "threshold": threshold["value"],
            "why": threshold["why"],
            "cases": entry.get("cases", 0),
            "patients": entry.get("patients", 0),
        }
        return np.full(len(own.p), threshold["value"]), [told]

    settings = {"resamples": resamples, "seed": seed}
    found = _each(rows, gradings, method, settings, kept)
    return {
        task: {**own, "fitted_on": "all held-out cases of the run"} for task, own in found.items()
    }


class _Cases:
    """Cases of a grading by one method.

    Attributes:
      p: (N,) float64, probability of the positive class; NaN where the region was missed.
      reference: (N,) int32.
      patients: (N,) str.
      groups: (N,) int: the fold, or a group of patients where there is one fold.
      of_one_fold: whether that is so.
      fitted_on: which cases the threshold of a group is fitted on, in words.
    """

    def __init__(self, rows: Sequence[Row], grading: Grading, method: str):
        own = graded(rows, grading)
        size = (0, 2)
        self.probabilities = own.probabilities(grading, method) if own.rows else np.zeros(size)
        self.p, self.reference = self.probabilities[:, 1], own.reference
        self.patients = np.array(own.patients, str)
        self.groups = np.array([int(r["fold"]) for r in own.rows], int)
        self.fitted_on = "held-out cases of the other folds"
        self.of_one_fold = len(set(self.groups.tolist())) < 2
        if self.of_one_fold:
            numbers = {p: i % GROUPS for i, p in enumerate(sorted(set(own.patients)))}
            self.groups = np.array([numbers[p] for p in own.patients], int)
            self.fitted_on = f"cases of other patients of the one fold, {GROUPS} groups in turn"

    @property
    def found(self) -> np.ndarray:
        """(N,) bool, whether the region was found."""
        return ~np.isnan(self.p)


def _each(
    rows: Sequence[Row],
    gradings: Sequence[Grading],
    method: str,
    settings: Mapping[str, int],
    thresholds: Any,
) -> Json:
    content: Json = {}
    for grading in gradings:
        own = _Cases(rows, grading, method)
        if len(grading.classes) != 2 or not len(own.p):
            continue
        rules = [_rule("half", own, grading, np.full(len(own.p), HALF), [], settings)]
        for criterion in CRITERIA:
            applied, told = thresholds(own, grading, criterion)
            rules.append(_rule(criterion, own, grading, applied, told, settings))
        patients = own.patients.tolist()
        priced = grading.priced(own.reference, own.probabilities)[:, 1]
        ranked = g.score_figures(grading, own.reference, priced, patients, **settings)
        positive = (own.reference == 1).astype(np.float32)
        content[grading.task] = {
            "prevalence": patient_bootstrap(_mean, positive, patients, **settings).as_json(),
            "auroc": ranked["auroc"],
            "fitted_on": own.fitted_on,
            "rules": rules,
        }
    return content


def _rule(
    name: str,
    own: _Cases,
    grading: Grading,
    thresholds: np.ndarray,
    told: list[Json],
    settings: Mapping[str, int],
) -> Json:
    """A rule with its figures, at (N,) thresholds."""
    above = (np.nan_to_num(own.p) >= thresholds).astype(np.int32)
    calls = np.where(own.found, above, grading.missed)
    patients = own.patients.tolist()
    figures = g.label_figures(grading, own.reference, calls, patients, **settings)
    return {"rule": name, "thresholds": told, "figures": {k: figures[k] for k in FIGURES}}


def _fitted(own: _Cases, grading: Grading, criterion: str) -> tuple[np.ndarray, list[Json]]:
    """(N,) thresholds, each fitted without the patients of its group, and what is told of them."""
    applied, told = np.full(len(own.p), HALF), []
    for group in np.unique(own.groups).tolist():
        inside = own.groups == group
        rest = own.found & ~np.isin(own.patients, own.patients[inside])
        people = len(set(own.patients[rest]))
        fit = fit_threshold(own.p[rest], own.reference[rest] == 1, criterion, people)
        applied[inside] = fit.value
        told.append(
            {
                "fold": f"group {group + 1}" if own.of_one_fold else group,
                "threshold": fit.value,
                "why": fit.why,
                "cases": int(rest.sum()),
                "patients": people,
            }
        )
    return applied, told


def _mean(values: jax.Array, weights: jax.Array) -> jax.Array:
    return (values * weights).sum() / weights.sum()


# --------------------------------------------------------------------------------------------
# Tables

_NOTE = (
    "The calls of this report are made at p ≥ .5. A fitted threshold never saw the patients that it"
    " is applied to: it is fitted on {fitted_on}. Intervals take it as given. Balanced accuracy"
    " (Youden's J) and AUROC do not depend on how frequent positives are; kappa does, so compare it"
    " only between patients of a like prevalence. Missed regions are wrong at every threshold."
)


def tables(content: Mapping[str, Any], inside: Mapping[str, Any] | None = None) -> list[Json]:
    """The tables of `crossed` or `given`, in the form of ``report["tables"]``.

    Args:
      content: what these gave.
      inside: of an external test, what `crossed` gave of the run's own patients: their prevalence
        stands beside.
    """
    if not content:
        return []
    fitted_on = "; ".join(dict.fromkeys(own["fitted_on"] for own in content.values()))
    columns = ["Grading", "Positive from", *(wording.metric(name) for name in FIGURES)]
    beside = ["AUROC", "Prevalence"] + ["Prevalence, the run's own"] * (inside is not None)
    rows: list[list[Any]] = []
    for task, own in content.items():
        for number, rule in enumerate(own["rules"]):
            # What no threshold changes stands once.
            further = [own["auroc"], own["prevalence"]]
            further += [] if inside is None else [inside.get(task, {}).get("prevalence")]
            name = _rule_name(rule) if inside is not None else _RULES[rule["rule"]]
            row = [wording.label(task), name, *(rule["figures"][k] for k in FIGURES)]
            rows.append([*row, *(further if not number else [None] * len(further))])
    first = {
        "id": "operating",
        "title": "At the threshold of the run" if inside is not None else "At a fitted threshold",
        "note": _NOTE.format(fitted_on=fitted_on),
        "columns": [*columns, *beside],
        "rows": rows,
    }
    return [first] if inside is not None else [first, _table_of_thresholds(content)]


def _rule_name(rule: Mapping[str, Any]) -> str:
    name = _RULES[rule["rule"]]
    return ", ".join([name, *(_threshold(own) for own in rule["thresholds"])])


def _threshold(own: Mapping[str, Any]) -> str:
    why = f" ({own['why']})" if own["why"] else ""
    return f"p ≥ {own['threshold']:.3f}{why}".replace("≥ 0.", "≥ .")


def _table_of_thresholds(content: Mapping[str, Any]) -> Json:
    rows = [
        [wording.label(task), _RULES[rule["rule"]], str(own["fold"]), own["threshold"],
         own["cases"], own["patients"], own["why"]]
        for task, found in content.items()
        for rule in found["rules"]
        for own in rule["thresholds"]
    ]  # fmt: skip
    return {
        "id": "thresholds",
        "title": "The thresholds of each fold",
        "note": "Applied to the fold, fitted without its patients. Thresholds that lie far apart"
        " say that the networks of the folds are not equally sure, or that the cases are few.",
        "columns": ["Grading", "Criterion", "Fold", "Threshold", "Fitted on cases", "Patients",
                    "Remark"],
        "rows": rows,
    }  # fmt: skip
