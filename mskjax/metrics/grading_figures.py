"""Figures of a grading into K >= 2 classes: one meaning per name, whichever system asks.

Arguments common to the functions here:

* ``reference``: (N,) int, class of each case, 0 to K-1.
* ``predicted``: (N,) int, the call, or K where the region to grade was not found (missed).
* ``p``: (N, K) float32 probabilities; a missed case has its price (`Grading.priced`).
* ``patients``: N patient ids, the units of the bootstrap.

A missed case is right in no class.  So the specificity of a class is the share of the other cases
that were called another class, and a detector cannot raise it by finding nothing; predictive values
are shares of the calls made, and a missed case is none.
"""

import dataclasses
import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mskjax.metrics.grading import Grading
from mskjax.metrics.grading_statistic import ALL, statistic
from mskjax.metrics.intervals import Estimate, paired_patient_bootstrap, patient_bootstrap

Json = dict[str, Any]

_NOBODY = np.zeros(0, int)


def figures(
    grading: Grading,
    reference: np.ndarray,
    predicted: np.ndarray,
    p: np.ndarray,
    patients: Sequence[str],
    *,
    resamples: int,
    seed: int,
) -> Json:
    """All figures of a grading with probabilities, with 95 % patient-bootstrap intervals.

    Returns:
      Estimates in reading order; ``n`` and ``patients`` of each are those of its denominator.

      Of labels: ``accuracy``; ``balanced_accuracy``, the mean sensitivity of the classes that
      occur, of two classes null unless both do; ``cohen_kappa``; ``f1_macro`` and, weighted by
      cases, ``f1_weighted``.  Ordinal: ``quadratic_weighted_kappa`` and ``within_one_grade``.
      K > 2: ``sensitivity_<class>``, ``specificity_<class>``, ``ppv_<class>``, and
      ``specificity_macro``, the mean over classes (of sensitivity that is the balanced accuracy).
      K = 2:
      ``sensitivity``, ``specificity``, ``ppv``, ``npv``, ``f1`` of the positive class.

      Of probabilities: ``brier``, half the sum over classes of (p_k - [reference = k])^2, so that
      the range is [0, 1] for any K (scikit-learn's ``scale_by_half=True``); ``log_loss`` in nats,
      probabilities from 1e-6; ``ece`` of the likeliest class in 10 bins.  K = 2: ``auroc``,
      ``average_precision``, ``sensitivity_at_specificity_90``.  K > 2: ``auroc_ovr_macro``, the
      mean over classes of each against all others; ``auroc_ovo_macro``, the mean over pairs; and
      ``auroc_<a>_vs_<b>``, the pair's, mean of the AUROC by p_b and by -p_a among the cases of the
      two (Hand & Till 2001; scikit-learn's ``ovr`` and ``ovo``).

      A figure is null, with ``why``, where its denominator has no case.

    Raises:
      UserError: there are no cases.
      ValueError: an argument is not as the module says.
    """
    data = _labels(grading, reference, predicted) | {"p": _probabilities(grading, reference, p)}
    return _bootstrapped(grading, ALL, data, patients, resamples, seed)


def label_figures(
    grading: Grading,
    reference: np.ndarray,
    predicted: np.ndarray,
    patients: Sequence[str],
    *,
    resamples: int,
    seed: int,
) -> Json:
    """The figures of `figures` that need no probability (baselines, readers, subgroups)."""
    data = _labels(grading, reference, predicted)
    return _bootstrapped(grading, ("labels",), data, patients, resamples, seed)


def score_figures(
    grading: Grading,
    reference: np.ndarray,
    score: np.ndarray,
    patients: Sequence[str],
    *,
    resamples: int,
    seed: int,
) -> Json:
    """Figures of a score, on the scale of class numbers, and of the class nearest to it.

    Args:
      grading: see `Grading`.
      reference: as in the module.
      score: (N,), e.g. of a regression; NaN where the region was missed.
      patients: as in the module.
      resamples: of the bootstrap.
      seed: of the bootstrap.

    Returns:
      Those of `label_figures` and, of two classes, ``auroc`` and ``average_precision``.
    """
    data = _labels(grading, reference, grading.rounded(score))
    parts: tuple[str, ...] = ("labels",)
    if len(grading.classes) == 2:
        data["score"] = grading.priced_scores(reference, score)
        parts = ("labels", "ranks")
    return _bootstrapped(grading, parts, data, patients, resamples, seed)


def difference(
    grading: Grading,
    reference: np.ndarray,
    predicted: tuple[np.ndarray, np.ndarray],
    scores: tuple[np.ndarray, np.ndarray] | None,
    patients: Sequence[str],
    *,
    resamples: int,
    seed: int,
) -> Json:
    """Figures of one method minus those of another on the same cases and the same resamples.

    Args:
      grading: see `Grading`.
      reference: as in the module.
      predicted: calls of the two methods.
      scores: of two classes, (N,) scores of the two without gaps, each on a scale of its own, for
        the difference of the AUROC; None for labels alone.
      patients: as in the module.
      resamples: of the bootstrap.
      seed: of the bootstrap.

    Returns:
      Differences of the figures of `label_figures`, and of ``auroc`` where there are scores.
      ``n`` of a predictive value is that of all cases: its denominator differs between the two.
    """
    ours, theirs = (_labels(grading, reference, calls) for calls in predicted)
    parts: tuple[str, ...] = ("labels",)
    if scores is not None:
        ours["score"], theirs["score"] = (np.asarray(s, np.float32) for s in scores)
        parts = ("labels", "auroc")
    estimates = paired_patient_bootstrap(
        statistic(grading, parts), ours, theirs, list(patients), resamples, seed
    )
    return _as_json(grading, estimates, np.asarray(reference), None, patients)


def named(figures: Mapping[str, Any], task: str) -> Json:
    """Figures with the task behind their names, as reports have them."""
    return {f"{name}_{task}": value for name, value in figures.items()}


def further(grading: Grading) -> list[str]:
    """Names of the figures that a report shows apart from the leading ones.

    Of K > 2 those of single classes and of pairs of classes; of two classes, whose figures are
    few, the means of F1 over both.
    """
    if len(grading.classes) == 2:
        return ["f1_macro", "f1_weighted"]
    # Every figure with a denominator of its own is a class's or a pair's.
    return list(denominators(grading, _NOBODY, _NOBODY))


def denominators(
    grading: Grading, reference: np.ndarray, predicted: np.ndarray | None
) -> dict[str, tuple[np.ndarray, str]]:
    """Figure -> the cases it is taken over, (N,) bool, and why it is null without any.

    Figures that are not listed are taken over all cases.

    Args:
      grading: see `Grading`.
      reference: (N,) classes.
      predicted: (N,) calls; None leaves out what is a share of calls.
    """
    found: dict[str, tuple[np.ndarray, str]] = {}
    binary = len(grading.classes) == 2
    for k, name in enumerate(grading.classes):
        if binary and k == 0:
            continue
        end, words = ("", "positive") if binary else (f"_{name}", name)
        own = reference == k
        found[f"sensitivity{end}"] = own, f"no {words} case"
        found[f"specificity{end}"] = ~own, f"no {'negative' if binary else 'other'} case"
        if predicted is not None:
            found[f"ppv{end}"] = predicted == k, f"no case was called {words}"
    if binary:
        found["sensitivity_at_specificity_90"] = reference == 1, "no positive case"
        if predicted is not None:
            found["npv"] = predicted == 0, "no case was called negative"
            found["f1"] = (reference == 1) | (predicted == 1), "no positive case or call"
    else:
        for a, b in itertools.combinations(range(len(grading.classes)), 2):
            name = f"auroc_{grading.classes[a]}_vs_{grading.classes[b]}"
            found[name] = (reference == a) | (reference == b), "no case of the two classes"
    return found


# What a reader looks for first stands first; figures of one kind stay together.
_ORDER = (
    "quadratic_weighted_kappa", "auroc", "balanced_accuracy", "accuracy", "auroc_",
    "within_one_grade", "sensitivity", "specificity", "ppv", "npv", "f1", "cohen_kappa",
    "average_precision", "brier", "log_loss", "ece",
)  # fmt: skip


def in_reading_order(names: Sequence[str]) -> list[str]:
    """Names of figures as a report lists them: the many of pairs of classes come last."""

    def place(name: str) -> tuple[bool, int, str]:
        kinds = (i for i, kind in enumerate(_ORDER) if name == kind)
        alike = (i for i, kind in enumerate(_ORDER) if kind != "auroc" and name.startswith(kind))
        return "_vs_" in name, next(itertools.chain(kinds, alike), len(_ORDER)), name

    return sorted(names, key=place)


# --------------------------------------------------------------------------------------------
# Arguments and results


def _labels(
    grading: Grading, reference: np.ndarray, predicted: np.ndarray
) -> dict[str, np.ndarray]:
    reference, predicted = np.asarray(reference, np.int32), np.asarray(predicted, np.int32)
    for name, labels, highest in (
        ("reference", reference, grading.missed - 1),
        ("predicted", predicted, grading.missed),
    ):
        if labels.shape != reference.shape or labels.ndim != 1:
            raise ValueError(f"{name} has shape {labels.shape}, reference {reference.shape}")
        if labels.size and not 0 <= labels.min() <= labels.max() <= highest:
            raise ValueError(f"{name} must hold 0 to {highest}, has {np.unique(labels)}")
    return {"reference": reference, "predicted": predicted}


def _probabilities(grading: Grading, reference: np.ndarray, p: np.ndarray) -> np.ndarray:
    p = np.asarray(p, np.float32)
    if p.shape != (len(reference), len(grading.classes)):
        raise ValueError(f"{grading.task}: probabilities have shape {p.shape}")
    if not np.isfinite(p).all() or (p.size and (p.min() < 0 or p.max() > 1)):
        raise ValueError(f"{grading.task}: a probability lies outside [0, 1]")
    return p


def _bootstrapped(
    grading: Grading,
    parts: tuple[str, ...],
    data: dict[str, np.ndarray],
    patients: Sequence[str],
    resamples: int,
    seed: int,
) -> Json:
    figures_of = statistic(grading, parts)
    estimates = patient_bootstrap(figures_of, data, list(patients), resamples, seed)
    return _as_json(grading, estimates, data["reference"], data["predicted"], patients)


def _as_json(
    grading: Grading,
    estimates: Mapping[str, Estimate | tuple[Estimate, ...]],
    reference: np.ndarray,
    predicted: np.ndarray | None,
    patients: Sequence[str],
) -> Json:
    """JSON in reading order, each figure with the cases that it is really taken over."""
    over = denominators(grading, reference, predicted)
    owners = np.array(patients, object)
    named = _by_name(grading, estimates)
    found: Json = {}
    for name in in_reading_order(list(named)):
        estimate = named[name]
        if name in over:
            inside, empty = over[name]
            estimate = dataclasses.replace(
                estimate,
                n=int(inside.sum()),
                patients=len(set(owners[inside])),
                why=estimate.why if inside.any() else empty,
            )
        found[name] = estimate.as_json()
    return found


def _by_name(
    grading: Grading, estimates: Mapping[str, Estimate | tuple[Estimate, ...]]
) -> dict[str, Estimate]:
    """Estimates by name; those of a vector are named after their classes."""
    pairs = [f"{a}_vs_{b}" for a, b in itertools.combinations(grading.classes, 2)]
    found = {}
    for name, value in estimates.items():
        if isinstance(value, Estimate):
            found[name] = value
            continue
        ends = pairs if name == "auroc" else grading.classes
        found |= {f"{name}_{end}": one for end, one in zip(ends, value, strict=True)}
    return found
