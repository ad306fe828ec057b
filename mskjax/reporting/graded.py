"""All that a report says of gradings, from rows of cases.csv: one summariser for all systems."""

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from mskjax.cases import MODEL, Graded, graded
from mskjax.metrics import entries
from mskjax.metrics import grading_figures as g
from mskjax.metrics.grading import Grading
from mskjax.metrics.grading_statistic import statistic
from mskjax.metrics.intervals import under
from mskjax.reporting import grading_drawings as drawings
from mskjax.reporting.grading_drawings import Scores
from mskjax.reporting.key import MINUS
from mskjax.tables import Row

Json = dict[str, Any]
Groups = Mapping[str, Mapping[str, np.ndarray]]  # group -> stratum -> (N,) bool

# Figures of folds, as papers print them.
_OF_FOLDS_OF_TWO = ("auroc", "accuracy", "sensitivity", "specificity", "log_loss")
_OF_FOLDS = ("quadratic_weighted_kappa", "balanced_accuracy", "accuracy")


@dataclasses.dataclass(frozen=True)
class Comparison:
    """Methods that are compared with one another on the same cases.

    Below them stands what all say together, the mean of their probabilities: an ensemble, which is
    no candidate for the best of them.

    Attributes:
      methods: name in the columns -> name in words; the first is the one that is reported.
      standard: the method that the others are held against.
      title: of the section of the report, and of its tables, before the task.
      column: heading of the column of methods.
      note: under the title.
    """

    methods: Mapping[str, str]
    standard: str
    title: str
    column: str
    note: str


@dataclasses.dataclass(frozen=True)
class _Method:
    """One method on the cases of one grading; arguments of `metrics.grading_figures`."""

    reference: np.ndarray
    predicted: np.ndarray
    p: np.ndarray
    patients: Sequence[str]

    @classmethod
    def of(cls, cases: Graded, grading: Grading, *methods: str, oracle: bool = False) -> "_Method":
        """Of several methods the mean of their probabilities, as an ensemble of them."""
        p = np.mean([cases.probabilities(grading, m, oracle) for m in methods], 0)
        priced = grading.priced(cases.reference, p)
        return cls(cases.reference, grading.calls(p), priced, cases.patients)

    def those(self, inside: np.ndarray) -> "_Method":
        """The cases where `inside`, (N,) bool."""
        patients = [p for p, kept in zip(self.patients, inside, strict=True) if kept]
        return _Method(self.reference[inside], self.predicted[inside], self.p[inside], patients)


def summarise(
    rows: Sequence[Row],
    gradings: Sequence[Grading],
    resamples: int,
    seed: int,
    *,
    comparison: Comparison | None = None,
    groups: Callable[[Sequence[Row]], Groups] | None = None,
) -> Json:
    """Parts of report.json: figures, baselines, confusion, calibration, ROC, folds, subgroups.

    All figures carry the name of their task, ``<figure>_<task>``.

    Args:
      rows: of cases.csv.
      gradings: in the order in which they are reported; one without a case is left out.
      resamples: of the bootstrap.
      seed: of the bootstrap.
      comparison: of methods; None where there is one, called `MODEL`.
      groups: makes the `Groups` of N rows, for the subgroups of the first grading.

    Returns:
      ``end_to_end``, ``oracle_region``, ``baselines``, ``confusion``, ``calibration``, ``roc``,
      ``precision_recall``, ``agreement`` (of ordinal gradings), ``folds``, ``subgroups``,
      ``tables``, ``tables_title`` where methods are compared, and ``gradings``: task -> names of
      its ``figures``, and of those to show apart (``further``).
    """
    names = ["end_to_end", "oracle_region", "baselines", "confusion", "calibration", "roc"]
    names += ["precision_recall", "agreement", "folds", "subgroups", "gradings"]
    report: Json = {name: {} for name in names} | {"tables": []}
    settings = {"resamples": resamples, "seed": seed}
    methods = list(comparison.methods) if comparison else [MODEL]
    for grading in gradings:
        cases = graded(rows, grading)
        if not cases.rows:
            continue
        part = _Part(grading, cases, methods[0], settings)
        part.add_figures(report)
        part.add_drawings(report)
        if comparison and len(methods) > 1:
            report["tables"].append(part.table_of_methods(comparison))
            if part.ideal is not None:
                report["tables"].append(part.table_of_methods(comparison, oracle=True))
            report["tables_title"] = comparison.title
        report["tables"] += [t for t in (part.table_of_misses(), part.table_of_shown()) if t]
        if grading is gradings[0] and groups is not None:
            report["subgroups"] = part.subgroups(groups(cases.rows))
    return report


class _Part:
    """What one grading adds to a report."""

    def __init__(self, grading: Grading, cases: Graded, method: str, settings: Mapping[str, int]):
        self.grading, self.cases, self.method, self.task = grading, cases, method, grading.task
        self.settings = dict(settings)
        self.ours = _Method.of(cases, grading, method)
        self.figures = self._figures(self.ours)
        self.ideal = self._oracle()
        self.ideal_figures = self._figures(self.ideal) if self.ideal else {}
        self.ridge = cases.baseline(grading, "ridge")
        self.ridge_figures = g.score_figures(
            grading, cases.reference, self.ridge, cases.patients, **self.settings
        )

    def add_figures(self, report: Json) -> None:
        """End to end, on reference regions, baselines, and the model against ridge."""
        report["gradings"][self.task] = {
            "figures": list(g.named(self.figures, self.task)),
            "further": list(g.named(dict.fromkeys(g.further(self.grading)), self.task)),
        }
        report["end_to_end"] |= g.named(self.figures, self.task)
        report["oracle_region"] |= g.named(self.ideal_figures, self.task)
        reference, patients = self.cases.reference, self.cases.patients
        majority = self.grading.rounded(self.cases.baseline(self.grading, "majority"))
        ours, ridge = self.ours.predicted, self.grading.rounded(self.ridge)
        common = functools.partial(g.label_figures, self.grading, reference)
        minus = functools.partial(g.difference, self.grading, reference)
        for name, figures in {
            "majority": common(majority, patients, **self.settings),
            "ridge": self.ridge_figures,
            f"{MINUS}majority": minus((ours, majority), None, patients, **self.settings),
            f"{MINUS}ridge": minus((ours, ridge), self._scores(), patients, **self.settings),
        }.items():
            report["baselines"].setdefault(name, {}).update(g.named(figures, self.task))

    def add_drawings(self, report: Json) -> None:
        """Confusion, calibration, curves, agreement, and the figures of each fold."""
        grading, ours, name = self.grading, self.ours, self.grading.task
        report["confusion"][name] = entries.confusion(
            ours.reference, ours.predicted, grading.classes
        )
        report["calibration"][name] = drawings.calibration(
            ours.p, ours.reference, ours.patients, **self.settings
        )
        for kind, curves in drawings.curves(self._curves(), **self.settings).items():
            report[kind][name] = curves
        if grading.ordinal:
            found = ours.those(ours.predicted < grading.missed)
            agreement = drawings.agreement(
                grading, found.p, found.reference, found.patients, **self.settings
            )
            report["agreement"] |= {name: agreement} if agreement else {}
        folds = np.array([int(r["fold"]) for r in self.cases.rows])
        report["folds"] |= g.named(_over_folds(grading, ours, folds), self.task)

    def table_of_methods(self, comparison: Comparison, oracle: bool = False) -> Json:
        """A row per method, with the differences to the standard one, and one of all together.

        Args:
          comparison: of the methods.
          oracle: on reference regions, the cases that have one, and not end to end.
        """
        shown, compared = _headings(self.grading), _compared(self.grading)
        groups: dict[str, tuple[str, ...]] = {t: (m,) for m, t in comparison.methods.items()}
        groups[f"mean of all {len(groups)}"] = (*comparison.methods,)
        standard, words = self._of(comparison.standard, oracle=oracle), comparison.methods
        known = self.ideal_figures if oracle else self.figures
        rows: list[list[Any]] = []
        for title, methods in groups.items():
            own = self._of(*methods, oracle=oracle)
            figures = known if methods == (self.method,) else self._figures(own)
            row: list[Any] = [title, *(figures[name] for name in shown)]
            if methods == (comparison.standard,):
                row += ["–"] * len(compared)
            else:
                pair = own.predicted, standard.predicted
                differences = g.difference(
                    self.grading, own.reference, pair, None, own.patients, **self.settings
                )
                row += [differences[name] for name in compared]
            rows.append(row)
        titles = [f"{shown[name]}, minus {words[comparison.standard]}" for name in compared]
        where = ", on reference regions" if oracle else ""
        return {
            "title": f"{comparison.title}{where}: {self.grading.task}",
            "note": f"{comparison.note}  The last row is an ensemble and no candidate: the mean of"
            " the probabilities of all.".strip(),
            "columns": [comparison.column, *shown.values(), *titles],
            "rows": rows,
        }

    def table_of_misses(self) -> Json | None:
        """All cases beside those whose region was found; None where all or none were."""
        return self._beside(
            self.ours.predicted < self.grading.missed,
            f"What missed regions cost: {self.grading.task}",
            "The second row answers how well a region is graded once it is found; the first is what"
            " a patient gets.",
            ("all, a missed one is wrong", "found"),
        )

    def table_of_shown(self) -> Json | None:
        """All cases beside those that the image can show; None where it shows all of them."""
        return self._beside(
            np.array([r.get("in_image") != "0" for r in self.cases.rows], bool),
            f"Cases that lie outside the image: {self.grading.task}",
            "All graded cases are the result; one that was missed counts as wrong also where the"
            " image does not show it. The second row leaves those out. Where there is no reference"
            " to say so, a case lies outside if the row of the regions that were found, continued"
            " by its pitch, leaves the image there: a wrong count of levels may excuse a miss.",
            ("all graded", "that the image can show"),
        )

    def _beside(
        self, inside: np.ndarray, title: str, note: str, names: tuple[str, str]
    ) -> Json | None:
        """A table of all cases beside those `inside`, (N,) bool; None where all or none are."""
        if inside.all() or not inside.any():
            return None
        shown = _headings(self.grading)
        alone = self._figures(self.ours.those(inside))
        return {
            "title": title,
            "note": note,
            "columns": ["Cases", "n", *shown.values()],
            "rows": [
                [name, figures["accuracy"]["n"], *(figures[k] for k in shown)]
                for name, figures in zip(names, (self.figures, alone), strict=True)
            ],
        }

    def subgroups(self, groups: Groups) -> Json:
        """Figures of labels in each stratum of each group."""
        return {
            group: {name: self._of_stratum(mask) for name, mask in strata.items()}
            for group, strata in groups.items()
            if strata
        }

    def _of_stratum(self, mask: np.ndarray) -> Json:
        own = self.ours.those(mask)
        figures = g.label_figures(
            self.grading, own.reference, own.predicted, own.patients, **self.settings
        )
        return g.named(figures, self.task)

    def _figures(self, own: _Method) -> Json:
        return g.figures(
            self.grading, own.reference, own.predicted, own.p, own.patients, **self.settings
        )

    def _oracle(self) -> _Method | None:
        """On reference regions, the cases that have one; None where none has."""
        there = ~np.isnan(self.cases.probabilities(self.grading, self.method, True)).any(1)
        return self._of(self.method, oracle=True) if there.any() else None

    def _of(self, *methods: str, oracle: bool) -> _Method:
        """Methods on all cases, or on those that have a reference region."""
        own = _Method.of(self.cases, self.grading, *methods, oracle=oracle)
        if not oracle:
            return own
        there = ~np.isnan(self.cases.probabilities(self.grading, self.method, True)).any(1)
        return own.those(there)

    def _scores(self) -> tuple[np.ndarray, np.ndarray] | None:
        """Model and ridge, where the grading has two classes and so an AUROC."""
        if len(self.grading.classes) > 2:
            return None
        return self.ours.p[:, 1], self.grading.priced_scores(self.cases.reference, self.ridge)

    def _curves(self) -> list[Scores]:
        """Two classes: end to end, reference region, ridge.  More: each class against the rest."""
        scores, ours = self._scores(), self.ours
        if scores is None:
            return [
                Scores(f"{name} v rest", ours.reference == k, ours.p[:, k], ours.patients)
                for k, name in enumerate(self.grading.classes)
                if (ours.reference == k).any()
            ]
        positive = ours.reference == 1
        model, ridge = scores
        found = [Scores("end to end", positive, model, ours.patients, self.figures["auroc"])]
        if (ideal := self.ideal) is not None:
            auroc = self.ideal_figures["auroc"]
            own = ideal.reference == 1, ideal.p[:, 1], ideal.patients, auroc
            found.append(Scores("reference region", *own))
        return [
            *found,
            Scores("ridge", positive, ridge, ours.patients, self.ridge_figures["auroc"]),
        ]


def _compared(grading: Grading) -> list[str]:
    """Figures by which methods are told apart."""
    return ["quadratic_weighted_kappa"] if grading.ordinal else ["balanced_accuracy", "cohen_kappa"]


def _headings(grading: Grading) -> dict[str, str]:
    """Figures that tables show -> their headings."""
    if grading.ordinal:
        return {
            "quadratic_weighted_kappa": "Quadratic weighted kappa",
            "within_one_grade": "Within one grade",
            "balanced_accuracy": "Balanced accuracy",
        }
    if len(grading.classes) == 2:
        return {
            "auroc": "AUROC",
            "sensitivity": "Sensitivity",
            "specificity": "Specificity",
            "balanced_accuracy": "Balanced accuracy",
            "cohen_kappa": "Kappa",
        }
    return {f"sensitivity_{k}": f"Sensitivity, {k}" for k in grading.classes} | {
        "balanced_accuracy": "Balanced accuracy",
        "f1_macro": "F1, macro",
        "f1_weighted": "F1, weighted",
        "cohen_kappa": "Kappa",
    }


def _over_folds(grading: Grading, method: _Method, folds: np.ndarray) -> Json:
    """Figures of each fold: a fold is a unit, and a column of weights shows one of them."""
    numbers, units = np.unique(folds, return_inverse=True)
    data = {"reference": method.reference, "predicted": method.predicted, "p": method.p}
    found = under(statistic(grading), data, units, np.eye(len(numbers)))
    names = _OF_FOLDS_OF_TWO if len(grading.classes) == 2 else _OF_FOLDS
    return {name: entries.over_folds(found[name]) for name in names if name in found}
