"""Operating points: calls at thresholds, and on scales, that their own cases did not choose.

The figures above are of calls at a half, and of rounded expectations.  Here the threshold of a
grading into two classes and the scale of ordered ones are fitted, for a fold, on the held-out
cases of the other folds (`metrics.operating_point`), so no case that is counted has a say in it.
Their networks were trained on patients of the fold, as networks of folds are: what is fitted is not
independent of these patients as that of another cohort would be, but no grade of theirs is in it.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from mskjax.cases import graded
from mskjax.metrics import grading_figures as g
from mskjax.metrics.grading import Grading
from mskjax.metrics.intervals import patient_bootstrap
from mskjax.metrics.operating_point import (
    CRITERIA,
    HALF,
    SPREAD,
    Scale,
    Threshold,
    fit_scale,
    fit_threshold,
)
from mskjax.metrics.weights import mean
from mskjax.reporting import wording
from mskjax.tables import Row

Json = dict[str, Any]
Point = Threshold | Scale

FIGURES = ("balanced_accuracy", "sensitivity", "specificity", "cohen_kappa")
OF_ORDERED = ("quadratic_weighted_kappa", "within_one_grade", "accuracy", "balanced_accuracy")
GROUPS = 5  # of patients, where there is one fold
_RULES = {
    "half": "p ≥ .5",
    "balanced_accuracy": "fitted for balanced accuracy",
    "cohen_kappa": "fitted for kappa",
    "expectation": "rounded",
    SPREAD: "rescaled",
}


def crossed(
    rows: Sequence[Row], gradings: Sequence[Grading], method: str, resamples: int, seed: int
) -> Json:
    """Gradings into two or into ordered classes, at what was fitted on patients of other folds.

    Args:
      rows: of cases.csv; of repeated cross-validation one repetition.
      gradings: of the system.
      method: that the report is of.
      resamples: of the bootstrap.
      seed: of the bootstrap.

    Returns:
      task -> ``fitted_on``, in words, and ``rules``: of each the name, its ``figures`` and its
      ``thresholds``, a list of ``fold`` (or group), what was fitted, ``why`` it was not, and the
      ``cases`` and ``patients`` that it was fitted on.
      Of two classes: the rules ``half`` and each of `CRITERIA`, figures `FIGURES`, fitted is
      ``threshold``; also ``prevalence``, the share of positive cases, and ``auroc``, which no
      threshold changes, estimates.
      Of more, ordered ones: the rules ``expectation`` and `SPREAD`, figures `OF_ORDERED`, fitted
      are ``slope`` and ``offset``; the second has ``minus_expectation``, differences on the same
      resamples.
      What was fitted is taken as given in the intervals.
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
    """As `crossed`, of other patients than the run's, at what the run keeps.

    Args:
      rows: of cases.csv.
      gradings: of the system.
      method: that the report is of.
      calibration: content of the run's calibration.json.
      resamples: of the bootstrap.
      seed: of the bootstrap.
    """
    tasks = calibration["tasks"]

    def kept(own: "_Cases", grading: Grading, rule: str) -> list[tuple[np.ndarray, Point, Json]]:
        entry = tasks.get(grading.task, {}).get(method, {})
        known = entry.get("scale") if rule == SPREAD else entry.get("thresholds", {}).get(rule)
        why = "not fitted: the run has no such case"
        point: Point
        if rule == SPREAD:
            point = Scale(**known) if known else Scale(why=why)
        else:
            point = Threshold(**known) if known else Threshold(HALF, why)
        told = _told("all", point, entry.get("cases", 0), entry.get("patients", 0))
        return [(np.ones(len(own.score), bool), point, told)]

    settings = {"resamples": resamples, "seed": seed}
    found = _each(rows, gradings, method, settings, kept)
    return {
        task: {**own, "fitted_on": "all held-out cases of the run"} for task, own in found.items()
    }


class _Cases:
    """Cases of a grading by one method.

    Attributes:
      probabilities: (N, K).
      score: (N,) float64: of two classes the probability of the positive one, of ordered ones the
        expected class; NaN where the region was missed.
      reference: (N,) int32.
      patients: (N,) str.
      groups: (N,) int: the fold, or a group of patients where there is one fold.
      of_one_fold: whether that is so.
      fitted_on: which cases the threshold or scale of a group is fitted on, in words.
    """

    def __init__(self, rows: Sequence[Row], grading: Grading, method: str):
        own = graded(rows, grading)
        size = (0, len(grading.classes))
        self.probabilities = own.probabilities(grading, method) if own.rows else np.zeros(size)
        p = self.probabilities
        self.score = p[:, 1] if len(grading.classes) == 2 else grading.expected(p)
        self.reference = own.reference
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
        return ~np.isnan(self.score)


# (cases, grading, rule) -> which cases, the point that they are called at, what is told of it.
Points = Callable[[_Cases, Grading, str], list[tuple[np.ndarray, Point, Json]]]


def _each(
    rows: Sequence[Row],
    gradings: Sequence[Grading],
    method: str,
    settings: Mapping[str, int],
    points: Points,
) -> Json:
    content: Json = {}
    for grading in gradings:
        own = _Cases(rows, grading, method)
        if not len(own.score):
            continue
        if len(grading.classes) == 2:
            content[grading.task] = _of_two(own, grading, points, settings)
        elif grading.ordinal:
            content[grading.task] = _of_ordered(own, grading, points, settings)
    return content


def _of_two(own: _Cases, grading: Grading, points: Points, settings: Mapping[str, int]) -> Json:
    patients = own.patients.tolist()
    rules = [_rule("half", own, grading, grading.calls(own.probabilities), [], settings)]
    for criterion in CRITERIA:
        calls, told = _called(own, grading, points(own, grading, criterion))
        rules.append(_rule(criterion, own, grading, calls, told, settings))
    priced = grading.priced(own.reference, own.probabilities)[:, 1]
    ranked = g.score_figures(grading, own.reference, priced, patients, **settings)
    positive = own.reference == 1
    return {
        "prevalence": patient_bootstrap(mean, positive, patients, **settings).as_json(),
        "auroc": ranked["auroc"],
        "fitted_on": own.fitted_on,
        "rules": rules,
    }


def _of_ordered(own: _Cases, grading: Grading, points: Points, settings: Mapping[str, int]) -> Json:
    before = grading.calls(own.probabilities)
    calls, told = _called(own, grading, points(own, grading, SPREAD))
    rules = [
        _rule("expectation", own, grading, before, [], settings),
        _rule(SPREAD, own, grading, calls, told, settings),
    ]
    minus = g.difference(
        grading, own.reference, (calls, before), None, own.patients.tolist(), **settings
    )
    rules[1]["minus_expectation"] = {name: minus[name] for name in OF_ORDERED}
    return {"fitted_on": own.fitted_on, "rules": rules}


def _called(
    own: _Cases, grading: Grading, points: Sequence[tuple[np.ndarray, Point, Json]]
) -> tuple[np.ndarray, list[Json]]:
    """(N,) calls, each at its point, and what is told of the points."""
    calls = np.full(len(own.score), grading.missed, np.int32)
    for inside, point, _ in points:
        calls[inside] = point.calls(own.score[inside], grading)
    return calls, [told for *_, told in points]


def _rule(
    name: str,
    own: _Cases,
    grading: Grading,
    calls: np.ndarray,
    told: list[Json],
    settings: Mapping[str, int],
) -> Json:
    """A rule with the figures of its (N,) calls."""
    patients = own.patients.tolist()
    figures = g.label_figures(grading, own.reference, calls, patients, **settings)
    shown = FIGURES if len(grading.classes) == 2 else OF_ORDERED
    return {"rule": name, "thresholds": told, "figures": {k: figures[k] for k in shown}}


def _fitted(own: _Cases, grading: Grading, rule: str) -> list[tuple[np.ndarray, Point, Json]]:
    """Of each group its cases, the point fitted without its patients, what is told of that."""
    found = []
    for group in np.unique(own.groups).tolist():
        inside = own.groups == group
        rest = own.found & ~np.isin(own.patients, own.patients[inside])
        people = len(set(own.patients[rest]))
        point: Point
        if rule == SPREAD:
            point = fit_scale(own.score[rest], own.reference[rest], people)
        else:
            point = fit_threshold(own.score[rest], own.reference[rest] == 1, rule, people)
        fold = f"group {group + 1}" if own.of_one_fold else group
        found.append((inside, point, _told(fold, point, int(rest.sum()), people)))
    return found


def _told(fold: int | str, point: Point, cases: int, patients: int) -> Json:
    values = (
        {"slope": point.slope, "offset": point.offset}
        if isinstance(point, Scale)
        else {"threshold": point.value}
    )
    return {"fold": fold, **values, "why": point.why, "cases": cases, "patients": patients}


# --------------------------------------------------------------------------------------------
# Tables

_NOTE = (
    "The calls of this report are made at p ≥ .5. A fitted threshold never saw the patients that it"
    " is applied to: it is fitted on {fitted_on}. Intervals take it as given. Balanced accuracy"
    " (Youden's J) and AUROC do not depend on how frequent positives are; kappa does, so compare it"
    " only between patients of a like prevalence. Missed regions are wrong at every threshold."
)


_NOTE_OF_ORDERED = (
    "The calls of this report are rounded expectations, which an unsure network draws to the"
    " middle. Rescaled, expectations have the mean and the standard deviation of the references"
    " of other patients ({fitted_on}), with which quadratic weighted kappa is highest (Lin 1989)."
    " That helps agreement and is no better knowledge: a call that is wrong is then further off."
    " Intervals take the scale as given. Missed regions are wrong on every scale."
)


_THRESHOLDS: Json = {
    "id": "thresholds",
    "title": "The thresholds of each fold",
    "note": "Applied to the fold, fitted without its patients. Thresholds that lie far apart"
    " say that the networks of the folds are not equally sure, or that the cases are few.",
    "rule": "Criterion",
    "values": {"threshold": "Threshold"},
}
_SCALES: Json = {
    "id": "scales",
    "title": "The scales of each fold",
    "note": "Expected class numbers, the lowest 0, times the slope plus the offset, rounded."
    " Applied to the fold, fitted without its patients.",
    "rule": "Call",
    "values": {"slope": "Slope", "offset": "Offset"},
}


def tables(content: Mapping[str, Any], inside: Mapping[str, Any] | None = None) -> list[Json]:
    """The tables of `crossed` or `given`, in the form of ``report["tables"]``.

    Args:
      content: what these gave.
      inside: of an external test, what `crossed` gave of the run's own patients: their prevalence
        stands beside.
    """
    of_two = {task: own for task, own in content.items() if "prevalence" in own}
    ordered = {task: own for task, own in content.items() if task not in of_two}
    found = [_table_of_two(of_two, inside)] if of_two else []
    found += [_table_of_ordered(ordered, inside is not None)] if ordered else []
    if inside is None:
        found += [_table_of_points(of_two, **_THRESHOLDS)] if of_two else []
        found += [_table_of_points(ordered, **_SCALES)] if ordered else []
    return found


def _fitted_on(content: Mapping[str, Any]) -> str:
    return "; ".join(dict.fromkeys(own["fitted_on"] for own in content.values()))


def _table_of_two(content: Mapping[str, Any], inside: Mapping[str, Any] | None) -> Json:
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
    return {
        "id": "operating",
        "title": "At the threshold of the run" if inside is not None else "At a fitted threshold",
        "note": _NOTE.format(fitted_on=_fitted_on(content)),
        "columns": [*columns, *beside],
        "rows": rows,
    }


def _table_of_ordered(content: Mapping[str, Any], of_run: bool) -> Json:
    kappa = OF_ORDERED[0]
    rows: list[list[Any]] = []
    for task, own in content.items():
        for rule in own["rules"]:
            name = _rule_name(rule) if of_run else _RULES[rule["rule"]]
            minus = rule.get("minus_expectation", {}).get(kappa)
            figures = [rule["figures"][k] for k in OF_ORDERED]
            rows.append([wording.label(task), name, *figures, minus])
    words = [wording.metric(name) for name in OF_ORDERED]
    return {
        "id": "scale",
        "title": "On the scale of the run" if of_run else "On a fitted scale",
        "note": _NOTE_OF_ORDERED.format(fitted_on=_fitted_on(content)),
        "columns": ["Grading", "Call", *words, f"{words[0]}, rescaled minus rounded"],
        "rows": rows,
    }


def _rule_name(rule: Mapping[str, Any]) -> str:
    name = _RULES[rule["rule"]]
    return ", ".join([name, *map(_point, rule["thresholds"])])


def _point(own: Mapping[str, Any]) -> str:
    why = f" ({own['why']})" if own["why"] else ""
    if "slope" in own:
        return f"{own['slope']:.2f} e {wording.signed(own['offset'])}{why}"
    return f"p ≥ {own['threshold']:.3f}{why}".replace("≥ 0.", "≥ .")


def _table_of_points(
    content: Mapping[str, Any], values: Mapping[str, str], rule: str, **words: str
) -> Json:
    """What was fitted for each fold.

    Args:
      content: of gradings of one kind.
      values: what was fitted -> its heading.
      rule: heading of what it was fitted to.
      **words: ``id``, ``title`` and ``note``.
    """
    return {
        **words,
        "columns": ["Grading", rule, "Fold", *values.values(), "Fitted on cases", "Patients",
                    "Remark"],
        "rows": [
            [wording.label(task), _RULES[own["rule"]], str(point["fold"]),
             *(point[name] for name in values), point["cases"], point["patients"], point["why"]]
            for task, found in content.items()
            for own in found["rules"]
            for point in own["thresholds"]
        ],
    }  # fmt: skip
