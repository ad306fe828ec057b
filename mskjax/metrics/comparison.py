"""One grading by several methods on the same cases: figures, baselines, paired differences."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mskjax.metrics import classification as c
from mskjax.metrics.estimates import confusion_entry, in_reading_order
from mskjax.metrics.intervals import paired_patient_bootstrap, patient_bootstrap
from mskjax.tables import Row, floats

Json = dict[str, Any]
STANDARD = "z_score_volume"  # what the published comparison found best


@dataclasses.dataclass(frozen=True)
class Grading:
    """A grading into K classes, and where its columns lie.

    Attributes:
      name: of the head; columns are ``reference_<name>``, ``p_<method>_<name>_<k>`` and
        ``oracle_p_<method>_<name>_<k>``, ``ridge_<name>``, ``majority_<name>``.
      suffix: of its metrics; empty for the grading that is reported first.
      classes: K names.
      ordinal: whether classes have an order: weighted kappa, and the median as the call.
    """

    name: str
    suffix: str
    classes: tuple[str, ...]
    ordinal: bool


def calls(p: np.ndarray, ordinal: bool) -> np.ndarray:
    """(N,) class of (N, K) probabilities: the median where classes are ordered, else the likeliest.

    A row of NaN, a region that was missed, gives K.
    """
    classes = p.shape[1]
    missed = np.isnan(p).any(1)
    filled = np.nan_to_num(p)
    # The median has the least expected absolute error.
    chosen = (np.cumsum(filled, 1) < 0.5).sum(1) if ordinal else filled.argmax(1)
    return np.where(missed, classes, np.minimum(chosen, classes - 1))


def summarise(
    report: Json,
    rows: Sequence[Row],
    grading: Grading,
    methods: Sequence[str],
    resamples: int,
    seed: int,
) -> None:
    """Adds a grading to a report: end to end, oracle, baselines, confusion, table of methods.

    Args:
      report: gets ``end_to_end``, ``oracle_region``, ``baselines``, ``confusion``, ``tables``.
      rows: N rows of cases.csv with a reference.
      grading: see `Grading`.
      methods: the first is the one that end-to-end figures are of.
      resamples: of the bootstrap.
      seed: of the bootstrap.
    """
    settings = {"resamples": resamples, "seed": seed}
    statistic = _Statistic(grading.classes, grading.ordinal)
    data = {m: _data(rows, grading, f"p_{m}") for m in methods}
    patients = [r["patient"] for r in rows]
    ours = data[methods[0]]
    figures = {m: patient_bootstrap(statistic, data[m], patients, **settings) for m in methods}
    report["end_to_end"] |= _json(figures[methods[0]], grading.suffix)
    known = [r for r in rows if r.get(f"oracle_p_{methods[0]}_{grading.name}_0")]
    if known:
        ideal = _data(known, grading, f"oracle_p_{methods[0]}")
        found = patient_bootstrap(statistic, ideal, [r["patient"] for r in known], **settings)
        report["oracle_region"] |= _json(found, grading.suffix)
    labels = _Labels(grading.classes, grading.ordinal)
    for name in ("majority", "ridge"):
        other = _labels(rows, grading, f"{name}_{grading.name}")
        found = patient_bootstrap(labels, other, patients, **settings)
        report["baselines"].setdefault(name, {}).update(_json(found, grading.suffix))
    ridge = _labels(rows, grading, f"ridge_{grading.name}")
    difference = paired_patient_bootstrap(labels, ours, ridge, patients, **settings)
    report["baselines"].setdefault("model_minus_ridge", {}).update(
        _json(difference, grading.suffix)
    )
    report["confusion"][grading.name] = confusion_entry(
        ours["reference"], ours["predicted"], grading.classes
    )
    if len(methods) > 1:
        report["tables"].append(_table(grading, methods, data, figures, patients, settings))
    there = ours["predicted"] < len(grading.classes)
    if there.any() and not there.all():
        part = {k: v[there] for k, v in ours.items()}
        own = [p for p, kept in zip(patients, there, strict=True) if kept]
        alone = patient_bootstrap(statistic, part, own, **settings)
        report["tables"].append(_table_of_misses(grading, figures[methods[0]], alone))


def subgroup_figures(
    rows: Sequence[Row],
    grading: Grading,
    method: str,
    groups: Mapping[str, Mapping[str, np.ndarray]],
    resamples: int,
    seed: int,
) -> Json:
    """Figures of labels in each stratum of each group, as ``report["subgroups"]`` takes them."""
    data = _data(rows, grading, f"p_{method}")
    patients = np.array([r["patient"] for r in rows], object)
    statistic = _Labels(grading.classes, grading.ordinal)

    def figures(mask: np.ndarray) -> Json:
        part = {k: v[mask] for k, v in data.items()}
        own = list(patients[mask])
        return _json(patient_bootstrap(statistic, part, own, resamples, seed), "")

    return {
        group: {name: figures(mask) for name, mask in strata.items()}
        for group, strata in groups.items()
        if strata
    }


def _table(
    grading: Grading,
    methods: Sequence[str],
    data: Mapping[str, Any],
    figures: Mapping[str, Any],
    patients: Sequence[str],
    settings: Mapping[str, int],
) -> Json:
    """A row per method, with the differences to the standard one."""
    standard = STANDARD if STANDARD in methods else methods[0]
    shown = _headings(grading)
    compared = (
        ["quadratic_weighted_kappa"] if grading.ordinal else ["balanced_accuracy", "cohen_kappa"]
    )
    statistic = _Labels(grading.classes, grading.ordinal)
    titles = [f"{shown[name]}, minus {_words(standard)}" for name in compared]
    rows: list[list[Any]] = []
    for method in methods:
        row: list[Any] = [_words(method), *(figures[method][name].as_json() for name in shown)]
        if method == standard:
            row += ["–"] * len(compared)
        else:
            difference = paired_patient_bootstrap(
                statistic, data[method], data[standard], patients, **settings
            )
            row += [difference[name].as_json() for name in compared]
        rows.append(row)
    return {
        "title": f"Normalisations: {grading.name}",
        "note": "Same folds, seeds, boxes and recipe; differences are paired over patients, on the"
        " same resamples.  An interval that holds 0 does not tell the two apart.",
        "columns": ["Normalisation", *shown.values(), *titles],
        "rows": rows,
    }


def _table_of_misses(grading: Grading, all_of_them: Any, found: Any) -> Json:
    """All cases beside those whose region was found."""
    shown = _headings(grading)
    return {
        "title": f"What missed regions cost: {grading.name}",
        "note": "The second row answers how well a region is graded once it is found; the first is"
        " what a patient gets.",
        "columns": ["Cases", "n", *shown.values()],
        "rows": [
            [title, figures["accuracy"].n, *(figures[name].as_json() for name in shown)]
            for title, figures in (("all, a missed one is wrong", all_of_them), ("found", found))
        ],
    }


def _headings(grading: Grading) -> dict[str, str]:
    """Figures that tables show -> their headings."""
    if grading.ordinal:
        return {
            "quadratic_weighted_kappa": "Quadratic weighted kappa",
            "within_one_grade": "Within one grade",
            "balanced_accuracy": "Balanced accuracy",
        }
    return {f"sensitivity_{k}": f"Sensitivity, {k}" for k in grading.classes} | {
        "balanced_accuracy": "Balanced accuracy",
        "f1": "F1, macro",
        "f1_weighted": "F1, weighted",
        "cohen_kappa": "Kappa",
    }


@dataclasses.dataclass(frozen=True)
class _Labels:
    """Figures that need no probability."""

    classes: tuple[str, ...]
    ordinal: bool

    def __call__(self, data: Any, weights: jax.Array) -> dict[str, jax.Array]:
        reference, predicted, count = data["reference"], data["predicted"], len(self.classes)
        matrix = c.confusion_matrix(reference, predicted, count, weights, missed=True)
        figures = {
            "accuracy": c.accuracy(matrix),
            "balanced_accuracy": c.balanced_accuracy(matrix),
        }
        if self.ordinal:
            near = (jnp.abs(reference - predicted) <= 1) & (predicted < count)
            figures["quadratic_weighted_kappa"] = c.quadratic_weighted_kappa(matrix)
            figures["within_one_grade"] = (near * weights).sum() / weights.sum()
            return figures
        sensitivity = c.sensitivity_per_class(matrix)
        figures |= {f"sensitivity_{k}": sensitivity[i] for i, k in enumerate(self.classes)}
        figures["f1"] = c.f1_macro(matrix)
        figures["f1_weighted"] = c.f1_weighted(matrix)
        figures["cohen_kappa"] = c.cohen_kappa(matrix)
        return figures


@dataclasses.dataclass(frozen=True)
class _Statistic(_Labels):
    """All figures, those of probabilities too."""

    def __call__(self, data: Any, weights: jax.Array) -> dict[str, jax.Array]:
        figures = super().__call__(data, weights)
        p, reference = data["p"], data["reference"]
        if len(self.classes) == 2:
            figures["auroc"] = c.auroc(p[:, 1], reference == 1, weights)
        figures["brier"] = c.brier(p, reference, weights)
        figures["ece"] = c.ece(p, reference, weights)
        return figures


def _data(rows: Sequence[Row], grading: Grading, prefix: str) -> dict[str, np.ndarray]:
    count = len(grading.classes)
    p = np.stack([floats(rows, f"{prefix}_{grading.name}_{k}") for k in range(count)], 1)
    reference = floats(rows, f"reference_{grading.name}").astype(np.int32)
    # A missed region: nothing for its own class, the rest shared by the others.
    worst = (np.arange(count) != reference[:, None]) / (count - 1)
    missed = np.isnan(p).any(1)
    return {
        "reference": reference,
        "predicted": calls(p, grading.ordinal).astype(np.int32),
        "p": np.where(missed[:, None], worst, p).astype(np.float32),
    }


def _labels(rows: Sequence[Row], grading: Grading, column: str) -> dict[str, np.ndarray]:
    """As `_data`, for a column of class numbers; empty cells are missed regions."""
    found = floats(rows, column)
    return {
        "reference": floats(rows, f"reference_{grading.name}").astype(np.int32),
        "predicted": np.where(np.isnan(found), len(grading.classes), found).astype(np.int32),
        "p": np.zeros((len(rows), len(grading.classes)), np.float32),
    }


def _json(figures: Mapping[str, Any], suffix: str) -> Json:
    return {f"{name}{suffix}": value for name, value in in_reading_order(dict(figures)).items()}


def _words(name: str) -> str:
    return name.replace("_", " ").replace("z score", "z-score")
