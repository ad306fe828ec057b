"""Ways to divide patients into folds: grouped and stratified, the cohort's own, case by case.

A fold lists *patients*.  Two scans of one patient are therefore never on both sides, whatever the
number of studies or cases of a patient, but for the one division that is there to leak.
"""

import dataclasses
from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np

from mskjax.data.splits import Fold
from mskjax.errors import UserError


def grouped_folds(
    strata: Mapping[str, int | None],
    folds: int,
    validation_fraction: float,
    seed: int,
    names: Sequence[str] = (),
) -> tuple[Fold, ...]:
    """Stratified k-fold over patients.

    Patients of a stratum are shuffled and dealt to the folds in turn, going on where the stratum
    before stopped, so that fold sizes differ by at most one.

    Args:
      strata: patient id -> class of the patient (e.g. worst grade); None for a patient without
        one, who is dealt last.
      folds: k.
      validation_fraction: share of each fold's training patients kept for validation.
      seed: of the shuffles.
      names: of the classes 0, 1, ..., for messages.

    Raises:
      UserError: a class has fewer patients than folds.
    """
    counts = Counter(s for s in strata.values() if s is not None)
    if counts and min(counts.values()) < folds:
        raise UserError(_about_classes(counts, folds, names))
    if len(strata) < folds:
        raise UserError(
            f"{folds} folds need {folds} patients, there are {len(strata)}; lower"
            " config.data.folds."
        )
    rng = np.random.default_rng((seed, 1))
    dealt: list[list[str]] = [[] for _ in range(folds)]
    position = 0
    for stratum in (*sorted(counts), None):
        members = sorted(p for p, s in strata.items() if s == stratum)
        for patient in rng.permutation(members):
            dealt[position % folds].append(str(patient))
            position += 1
    made = []
    for k in range(folds):
        rest = [p for j in range(folds) if j != k for p in dealt[j]]
        train, validation = _hold_out(rest, validation_fraction, (seed, 2, k))
        made.append(Fold(train, validation, tuple(sorted(dealt[k]))))
    return tuple(made)


def official_fold(
    subsets: Mapping[str, str], validation_fraction: float, seed: int
) -> tuple[Fold, ...]:
    """The cohort's own division: train on its training part, test on the rest.

    Args:
      subsets: patient id -> ``training`` or ``validation`` (the cohort's word for its test part).
      validation_fraction: share of the *training* patients kept for checkpoint selection; the
        cohort's own validation part is the test set here and selects nothing.
      seed: of that choice.

    Raises:
      UserError: the cohort has no such division or one part of it is empty.
    """
    parts = Counter(subsets.values())
    if set(parts) != {"training", "validation"}:
        raise UserError(
            "the cohort's own division needs every patient marked training or validation; found"
            f" {dict(parts)}. Use config.data.split=folds."
        )
    rest = [p for p, s in subsets.items() if s == "training"]
    train, validation = _hold_out(rest, validation_fraction, (seed, 3))
    test = tuple(sorted(p for p, s in subsets.items() if s == "validation"))
    return (Fold(train, validation, test),)


def folds_and_official(
    subsets: Mapping[str, str],
    strata: Mapping[str, int | None],
    folds: int,
    validation_fraction: float,
    seed: int,
    names: Sequence[str] = (),
) -> tuple[Fold, ...]:
    """Cross-validation of the cohort's training part, then all of it against the held-out part.

    Args:
      subsets: see `official_fold`.
      strata: see `grouped_folds`.
      folds: k.
      validation_fraction: see `grouped_folds`.
      seed: of the shuffles.
      names: see `grouped_folds`.

    Returns:
      k folds of the training part, and one that is held out.

    Raises:
      UserError: as `official_fold` and `grouped_folds`.
    """
    (official,) = official_fold(subsets, validation_fraction, seed)
    inner = {p: s for p, s in strata.items() if subsets[p] == "training"}
    crossed = grouped_folds(inner, folds, validation_fraction, seed, names)
    return (*crossed, dataclasses.replace(official, held_out=True))


def by_case_fold(cases: Mapping[str, str], seed: int) -> tuple[Fold, ...]:
    """Random division of *cases* in the published proportion 300 / 72 / 94.

    Cases of one patient fall on both sides: the figures that follow are optimistic.  It exists to
    show by how much.

    Args:
      cases: case id -> patient id.
      seed: of the shuffle.
    """
    order = [str(c) for c in np.random.default_rng((seed, 4)).permutation(sorted(cases))]
    n = len(order)
    first, second = round(n * 300 / 466), round(n * 372 / 466)
    part = {
        c: "train" if i < first else "validation" if i < second else "test"
        for i, c in enumerate(order)
    }
    patients = {
        p: tuple(sorted({cases[c] for c in order if part[c] == p}))
        for p in ("train", "validation", "test")
    }
    return (Fold(patients["train"], patients["validation"], patients["test"], part),)


def _about_classes(counts: Mapping[int, int], folds: int, names: Sequence[str]) -> str:
    listing = ", ".join(
        f"{names[c] if c < len(names) else f'class {c}'}: {n}" for c, n in sorted(counts.items())
    )
    least = min(counts.values())
    fix = (
        f"set config.data.folds to {least}"
        if least > 1
        else "add patients of that class, or divide the patients yourself (config.data.splits)"
    )
    return f"{folds} folds need {folds} patients of every class, but there are {listing}; {fix}."


def _hold_out(
    patients: Sequence[str], fraction: float, seed: tuple[int, ...]
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    shuffled = [str(p) for p in np.random.default_rng(seed).permutation(sorted(patients))]
    count = 0 if fraction == 0 else max(1, round(fraction * len(shuffled)))
    return tuple(sorted(shuffled[count:])), tuple(sorted(shuffled[:count]))
