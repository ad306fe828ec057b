"""A model beside human readers on one cohort: figures, paired tests, agreement, aided reading."""

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from mskjax.metrics import classification as c
from mskjax.metrics.grading import Grading
from mskjax.metrics.grading_figures import denominators, label_figures
from mskjax.metrics.intervals import (
    Estimate,
    Statistic,
    holm,
    mcnemar,
    patient_bootstrap,
    wilson,
)
from mskjax.metrics.segmentation import mean_over_cases
from mskjax.metrics.weights import Weights, mean, ratio, sums

Json = dict[str, Any]
Cell = str | int | float | None | Json

UNREAD = -1
TWO = Grading("read", ("negative", "positive"))
_OF_TWO = {
    "accuracy": "Accuracy",
    "sensitivity": "Sensitivity",
    "specificity": "Specificity",
    "ppv": "PPV",
    "npv": "NPV",
}
_NOMINAL = {
    "accuracy": "Accuracy",
    "balanced_accuracy": "Balanced accuracy",
    "cohen_kappa": "Kappa with the reference",
}
_ORDINAL = {
    "accuracy": "Accuracy",
    "within_one_grade": "Within one grade",
    "balanced_accuracy": "Balanced accuracy",
    "quadratic_weighted_kappa": "Quadratic weighted kappa with the reference",
}


@dataclass(frozen=True, eq=False)
class ReaderStudy:
    """Calls of readers and models on the same N cases, of K classes.

    Attributes:
      reference: (N,) 0 to K-1, the reference standard.
      patients: N patient ids; one case each as a rule.
      models: name -> (N,) calls, 0 to K-1, or K where the region was missed, which is an error.
      readers: name -> (N,) calls, 0 to K-1, or -1 where the reader did not read the case.
      aided: reader -> (N,) calls that were observed with the model's help, or -1; may be empty.
      probability: (N,) of class 1 by the first of `models`, for aid by rule where none was
        observed and K is 2; None for no such table.  What it holds in missed cases is not looked
        at.
      grading: the classes, and whether they have an order.
      sure: the rule's threshold, above 1/2 and up to 1, see `aided_by_rule`.

    Raises:
      ValueError: if a shape or a value is another, or a name stands for a reader and a model.
    """

    reference: np.ndarray
    patients: Sequence[str]
    models: Mapping[str, np.ndarray]
    readers: Mapping[str, np.ndarray]
    aided: Mapping[str, np.ndarray] = field(default_factory=dict)
    probability: np.ndarray | None = None
    grading: Grading = TWO
    sure: float = 0.9

    def __post_init__(self) -> None:
        cases, classes = len(self.patients), tuple(range(self.grading.missed))
        _check("reference", self.reference, cases, classes)
        for name, values in self.models.items():
            _check(name, values, cases, (*classes, self.grading.missed))
        for name, values in [*self.readers.items(), *self.aided.items()]:
            _check(name, values, cases, (UNREAD, *classes))
        if both := self.models.keys() & self.readers.keys():
            raise ValueError(f"{sorted(both)} are names of readers and of models")
        if self.probability is not None and (
            not self.models or np.shape(self.probability) != (cases,)
        ):
            raise ValueError("probability is one number a case, of the first model")

    @property
    def is_of_two(self) -> bool:
        """Whether there are two classes, the second the positive one."""
        return self.grading.missed == 2

    @property
    def figures(self) -> Mapping[str, str]:
        """Figures of each reader and model -> their headings."""
        if self.is_of_two:
            return _OF_TWO
        return _ORDINAL if self.grading.ordinal else _NOMINAL

    @property
    def one_case_a_patient(self) -> bool:
        """Whether cases are independent, as Wilson's intervals and McNemar's test assume."""
        return len(set(self.patients)) == len(self.patients)


def compare(study: ReaderStudy, resamples: int, seed: int) -> list[Json]:
    """Tables of a reader study: figures, McNemar, agreement, and readers with aid.

    Args:
      study: see `ReaderStudy`.
      resamples: of the patient bootstrap.
      seed: of the patient bootstrap.

    Returns:
      Tables ``{"title", "note", "columns", "rows"}``, those without rows left out.  A cell is
      text, a number, an estimate (value, ci95, n, why...) or None, where a p-value does not exist.
      A reader's rows use the cases that this reader has read, which their ``n`` counts.

    Raises:
      ValueError: if ``study.sure`` is out of range.
    """
    figures = _Figures(study, resamples, seed)
    tables = [_alone(figures), _tests(figures), _agreement(figures), _aided(figures)]
    return [table for table in tables if table["rows"]]


def aided_by_rule(reader: np.ndarray, probability: np.ndarray, sure: float = 0.9) -> np.ndarray:
    """What a reader would call who gives in to a model that is sure, a rule and no observation.

    Args:
      reader: (N,) 0, 1, or -1 where the case was not read, which remains.
      probability: (N,) of class 1, compared as float32; NaN where there is no call to show.
      sure: the model's call is taken where the probability is at least this or at most
        1 - `sure`; above 1/2, up to 1.

    Returns:
      (N,) int32 calls.

    Raises:
      ValueError: if `sure` is out of range.
    """
    if not 0.5 < sure <= 1:
        raise ValueError(f"sure is {sure}; it must be above 0.5 and at most 1")
    reader, p = np.asarray(reader, np.int32), np.asarray(probability, np.float32)
    given = np.select([p >= np.float32(sure), p <= np.float32(1 - sure)], [1, 0], reader)
    return np.where(reader == UNREAD, UNREAD, given).astype(np.int32)


def fleiss_kappa(ratings: np.ndarray, classes: int, weights: Weights = None) -> np.ndarray:
    """Agreement beyond chance of R raters on nominal classes (Fleiss 1971).

    (P - P_e) / (1 - P_e), with P the share of agreeing pairs of raters, averaged over cases, and
    P_e the sum of the squared shares of the classes among all ratings.

    Args:
      ratings: (N, R) int, R of 2 or more; the order of raters is of no account.
      classes: K; a case with any rating outside 0 to K-1 is left out.
      weights: see `metrics.weights`.

    Returns:
      () float64, at most 1; NaN without cases or where all ratings are of one class.

    Raises:
      ValueError: if there are fewer than two raters.
    """
    ratings = np.asarray(ratings)
    _, raters = ratings.shape
    if raters < 2:
        raise ValueError(f"agreement of {raters} rater")
    whole = np.all((ratings >= 0) & (ratings < classes), 1)
    counts = (ratings[:, :, None] == np.arange(classes)).sum(1) * whole[:, None]
    disagreeing = (counts * (raters - counts)).sum(1) / (raters * (raters - 1))
    share = ratio(sums(counts, weights), raters * sums(whole, weights))
    # 1 - P and 1 - P_e as sums of what disagrees: exactly 0 where all ratings are of one class.
    expected = (share * (1 - share)).sum(0)
    return 1 - ratio(mean(disagreeing, weights, whole), expected)


# --------------------------------------------------------------------------------------------
# The tables


def _alone(figures: "_Figures") -> Json:
    study = figures.study
    rated = {**study.models, **study.readers}
    rated |= {f"{name}, aided by the model": calls for name, calls in study.aided.items()}
    rows: list[list[Cell]] = []
    for name, calls in rated.items():
        own = figures.proportions(calls)
        rows.append([name, _count(calls), *(own[figure] for figure in study.figures)])
    intervals = "Intervals come from the patient bootstrap"
    if study.one_case_a_patient and study.is_of_two:
        intervals = (
            "Intervals are Wilson's score intervals, as is usual in reader studies: every patient"
            " has one case"
        )
    elif not study.one_case_a_patient:
        intervals += ": some patients have several cases"
    missed = "A region that the model missed is an error"
    if study.is_of_two:
        missed += " in accuracy, sensitivity and specificity; PPV and NPV are of the calls made"
    note = (
        f"{intervals}. A case that a reader has not read counts in no figure of this reader."
        f" {missed}."
    )
    return _table("Readers and model", note, ["", "n read", *study.figures.values()], rows)


def _tests(figures: "_Figures") -> Json:
    study = figures.study
    rows: list[list[Cell]] = []
    p_values: list[float | None] = []
    for (reader, theirs), (model, ours) in itertools.product(
        study.readers.items(), study.models.items()
    ):
        pair = figures.paired(ours, theirs)
        rows.append([reader, model, *pair.counts, pair.difference, pair.p])
        p_values.append(pair.p)
    rows = [[*row, p] for row, p in zip(rows, holm(p_values), strict=True)]
    columns = ["Reader", "Model", "n", "Both right", "Only model right", "Only reader right"]
    columns += ["Both wrong", "Accuracy, model minus reader", "p", "p (Holm)"]
    note = (
        "Each reader against each model on the cases that the reader has read. p is of the exact"
        " two-sided McNemar test; Holm's correction is over this table. The interval of the"
        f" difference comes from the patient bootstrap of the pairs.{figures.reservation}"
    )
    return _table("McNemar", note, columns, rows)


def _agreement(figures: "_Figures") -> Json:
    study = figures.study
    rated = {**study.readers, **study.models}
    classes = study.grading.missed
    has_order = study.grading.ordinal and not study.is_of_two
    rows: list[list[Cell]] = []
    for a, b in itertools.combinations(rated, 2):
        pair = [rated[a], rated[b]]
        cohen = figures.agreement(_cohen(classes + 1), pair)
        rows.append([f"{a} and {b}", "Cohen's kappa", *cohen])
        if has_order and a in study.readers:
            weighted = figures.agreement(_weighted(classes), pair)
            rows.append([f"{a} and {b}", "Quadratic weighted kappa", *weighted])
    # One who has read nothing would leave no case that all have read.
    reading = {name: calls for name, calls in study.readers.items() if _count(calls)}
    together = [dict(reading), *({**reading, name: m} for name, m in study.models.items())]
    rows += [
        [
            "; ".join(group),
            "Fleiss' kappa",
            *figures.agreement(_fleiss(classes + 1), list(group.values())),
        ]
        for group in together
        if len(reading) > 1
    ]
    note = (
        "On the cases that all the named have read. A region that a model missed is a kind of call"
        " of its own, on which only another model that missed it agrees"
        + ("; in the weighted kappa it disagrees most" if has_order else "")
        + ". Intervals come from the patient bootstrap."
    )
    return _table("Agreement", note, ["Between", "Figure", "n", "Kappa"], rows)


def _aided(figures: "_Figures") -> Json:
    study = figures.study
    title, note = "Readers aided by the model's call", "Aided calls as observed in the cohort."
    aided = study.aided
    if not aided and study.probability is not None and study.is_of_two:
        model, calls = next(iter(study.models.items()))
        # The price of a missed region depends on the reference, so no reader may be shown it.
        shown = np.where(calls == study.grading.missed, np.nan, study.probability)
        aided = {
            name: aided_by_rule(calls, shown, study.sure) for name, calls in study.readers.items()
        }
        title += ", BY RULE, NOT OBSERVED"
        note = (
            "BY RULE, NOT OBSERVED: no reader was shown a call. The rule: the reader keeps"
            f' their call unless the probability of "{model}" is at most {1 - study.sure:.3g} or at'
            f" least {study.sure:.3g}; then the model's call is taken. It says what such a rule"
            " would do, not what a reader would. A region that the model missed shows no call."
        )
    rows: list[list[Cell]] = []
    for name, with_aid in aided.items():
        alone = study.readers.get(name, np.full_like(with_aid, UNREAD))
        pair = figures.paired(with_aid, alone)
        n, _, made_right, made_wrong, _ = pair.counts
        both = (alone != UNREAD) & (with_aid != UNREAD)
        accuracies = [
            figures.proportions(np.where(both, calls, UNREAD))["accuracy"]
            for calls in (alone, with_aid)
        ]
        rows.append([name, n, *accuracies, pair.difference, made_right, made_wrong, pair.p])
    columns = ["Reader", "n", "Accuracy alone", "Accuracy aided", "Aided minus alone"]
    columns += ["Made right", "Made wrong", "McNemar p"]
    note += (
        " On the cases read both alone and aided. p is of the exact two-sided McNemar test, not"
        " corrected for the number of readers. The interval of the difference comes from the"
        f" patient bootstrap of the pairs.{figures.reservation}"
    )
    return _table(title, note, columns, rows)


def _table(title: str, note: str, columns: list[str], rows: list[list[Cell]]) -> Json:
    return {"title": title, "note": note, "columns": columns, "rows": rows}


# --------------------------------------------------------------------------------------------
# What stands in the rows


@dataclass(frozen=True)
class _Pair:
    """Two raters on the cases that both have read."""

    counts: tuple[int, int, int, int, int]  # n, both right, only a, only b, both wrong
    difference: Json  # accuracy of a minus that of b
    p: float | None


@dataclass(frozen=True)
class _Figures:
    """Estimates of a study by one bootstrap."""

    study: ReaderStudy
    resamples: int
    seed: int

    @property
    def reservation(self) -> str:
        if self.study.one_case_a_patient:
            return ""
        return (
            " p is APPROXIMATE, and too small as a rule: McNemar's test takes cases for"
            " independent, but some patients have several."
        )

    def proportions(self, calls: np.ndarray) -> Json:
        """Estimates of `ReaderStudy.figures` on the cases with a call."""
        read, study = calls != UNREAD, self.study
        if not read.any():
            return {name: _undefined("no case read") for name in study.figures}
        reference, calls = study.reference[read], calls[read]
        if not (study.one_case_a_patient and study.is_of_two):
            patients = self._patients(read)
            return label_figures(
                study.grading, reference, calls, patients, resamples=self.resamples, seed=self.seed
            )
        # Each is the share of right calls among its cases.
        over = denominators(study.grading, reference, calls)
        every = np.ones(len(reference), bool), "no case"
        right = reference == calls
        return {
            name: _wilson(right[cases], why)
            for name, (cases, why) in ((n, over.get(n, every)) for n in study.figures)
        }

    def paired(self, a: np.ndarray, b: np.ndarray) -> _Pair:
        """Compares a with b; p is None where they have no case in common."""
        read = (a != UNREAD) & (b != UNREAD)
        if not read.any():
            return _Pair((0, 0, 0, 0, 0), _undefined("no case read by both"), None)
        right_a, right_b = ((calls == self.study.reference)[read] for calls in (a, b))
        test = mcnemar(right_a, right_b)
        gain = right_a.astype(np.float32) - right_b.astype(np.float32)
        both, neither = int((right_a & right_b).sum()), int((~right_a & ~right_b).sum())
        counts = (len(gain), both, test.only_a, test.only_b, neither)
        return _Pair(counts, self._bootstrap(mean_over_cases, gain, read), test.p)

    def agreement(self, statistic: Statistic, raters: Sequence[np.ndarray]) -> tuple[int, Json]:
        """How many cases all have read, and kappa on them."""
        calls = np.stack(raters, 1).astype(np.int32)
        read = (calls != UNREAD).all(1)
        if not read.any():
            return 0, _undefined("no case read by all")
        kappa = self._bootstrap(statistic, calls[read], read)
        if kappa["value"] is None:
            kappa["why"] = "all calls are the same, which chance alone would agree on"
        return int(read.sum()), kappa

    def _bootstrap(self, statistic: Statistic, values: np.ndarray, read: np.ndarray) -> Json:
        found = patient_bootstrap(
            statistic, values, self._patients(read), self.resamples, self.seed
        )
        return found.as_json()

    def _patients(self, read: np.ndarray) -> list[str]:
        return list(itertools.compress(self.study.patients, read))


def _cohen(kinds: int) -> Statistic:
    def kappa(calls: np.ndarray, weights: Weights) -> np.ndarray:
        return c.cohen_kappa(c.confusion_matrix(calls[:, 0], calls[:, 1], kinds, weights))

    return kappa


def _weighted(classes: int) -> Statistic:
    def kappa(calls: np.ndarray, weights: Weights) -> np.ndarray:
        # A reader, who misses nothing, stands in the rows.
        matrix = c.confusion_matrix(calls[:, 0], calls[:, 1], classes, weights, missed=True)
        return c.quadratic_weighted_kappa(matrix)

    return kappa


def _fleiss(kinds: int) -> Statistic:
    def kappa(calls: np.ndarray, weights: Weights) -> np.ndarray:
        return fleiss_kappa(calls, kinds, weights)

    return kappa


def _wilson(right: np.ndarray, why: str) -> Json:
    n = len(right)
    if not n:
        return _undefined(why)
    low, high = wilson(int(right.sum()), n)
    return Estimate(float(right.mean()), low, high, n, n, "Wilson score interval").as_json()


def _undefined(why: str) -> Json:
    return Estimate(math.nan, math.nan, math.nan, 0, 0, "none", why).as_json()


def _count(calls: np.ndarray) -> int:
    return int((calls != UNREAD).sum())


def _check(name: str, values: np.ndarray, cases: int, allowed: tuple[int, ...]) -> None:
    if np.shape(values) != (cases,):
        raise ValueError(f"{name} has shape {np.shape(values)} for {cases} cases")
    if not np.isin(values, allowed).all():
        raise ValueError(f"{name} holds values other than {allowed}")
