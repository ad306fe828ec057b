"""Folds of patients: grouped, stratified, written once, refusable.

A fold lists *patients*.  Two scans of one patient are therefore never on both sides, whatever the
number of studies or cases of a patient; the overlap is computed from the lists all the same and
printed, not assumed.
"""

import dataclasses
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from mskjax.errors import UserError


@dataclasses.dataclass(frozen=True)
class Fold:
    """One division of the cohort.

    Attributes:
      train, validation, test: patient ids.
      cases: for the leaky case-wise division only, case id -> ``train`` | ``validation`` |
        ``test``; None for divisions by patient.
      held_out: whether its test patients are in no other fold; its figures stand apart from those
        of cross-validation.
    """

    train: tuple[str, ...]
    validation: tuple[str, ...]
    test: tuple[str, ...]
    cases: Mapping[str, str] | None = None
    held_out: bool = False

    @property
    def overlap(self) -> int:
        """Number of patients that are in more than one part."""
        return len(
            (set(self.train) & set(self.test))
            | (set(self.train) & set(self.validation))
            | (set(self.validation) & set(self.test))
        )


@dataclasses.dataclass(frozen=True)
class Splits:
    """All folds of a study.

    Attributes:
      folds: one or more divisions.
      kind: ``folds``, ``official``, ``folds_and_official``, ``supplied`` or ``by_case``.
      fingerprint: of the cohort that was divided.
    """

    folds: tuple[Fold, ...]
    kind: str
    fingerprint: str

    @property
    def patient_overlap(self) -> int:
        """Patients that any fold has on both sides; 0 for every division by patient."""
        return sum(fold.overlap for fold in self.folds)


def grouped_folds(
    strata: Mapping[str, int | None], folds: int, validation_fraction: float, seed: int
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

    Raises:
      UserError: a class has fewer patients than folds.
    """
    counts = Counter(s for s in strata.values() if s is not None)
    short = {c: n for c, n in sorted(counts.items()) if n < folds}
    if short:
        listing = ", ".join(f"class {c}: {n}" for c, n in sorted(counts.items()))
        raise UserError(
            f"{folds} folds need {folds} patients of every class, but there are {listing}; lower"
            " config.data.folds or merge classes."
        )
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
) -> tuple[Fold, ...]:
    """Cross-validation of the cohort's training part, then all of it against the held-out part.

    Args:
      subsets: see `official_fold`.
      strata: see `grouped_folds`.
      folds: k.
      validation_fraction: see `grouped_folds`.
      seed: of the shuffles.

    Returns:
      k folds of the training part, and one that is held out.

    Raises:
      UserError: as `official_fold` and `grouped_folds`.
    """
    (official,) = official_fold(subsets, validation_fraction, seed)
    inner = {p: s for p, s in strata.items() if subsets[p] == "training"}
    crossed = grouped_folds(inner, folds, validation_fraction, seed)
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


def load(path: Path, patients: Sequence[str], fingerprint: str, kind: str) -> Splits:
    """Reads splits.json and holds it against the cohort.

    Raises:
      UserError: not such a file, patients that the cohort lacks, patients on both sides, or a
        file of another cohort (``kind`` other than ``supplied``).
    """
    try:
        content = json.loads(path.read_text())
        folds = tuple(
            Fold(
                tuple(f["train"]),
                tuple(f.get("validation", ())),
                tuple(f["test"]),
                f.get("cases"),
                bool(f.get("held_out", False)),
            )
            for f in content["folds"]
        )
    except FileNotFoundError:
        raise UserError(f"{path} does not exist; give an existing splits.json.") from None
    except (json.JSONDecodeError, KeyError, TypeError) as error:
        raise UserError(
            f"{path} is not a splits file ({error!r}); it needs"
            ' {"folds": [{"train": [...], "validation": [...], "test": [...]}]}.'
        ) from None
    known = set(patients)
    for k, fold in enumerate(folds):
        unknown = sorted({*fold.train, *fold.validation, *fold.test} - known)
        if unknown:
            raise UserError(
                f"{path}, fold {k}: {len(unknown)} patients are not in the cohort"
                f" ({', '.join(unknown[:5])}...); mend the file."
            )
        if not fold.train or not fold.test:
            raise UserError(f"{path}, fold {k}: train and test must not be empty.")
        if fold.overlap and fold.cases is None:
            both = sorted(set(fold.train) & (set(fold.test) | set(fold.validation)))
            raise UserError(
                f"{path}, fold {k}: {fold.overlap} patients are on both sides"
                f" ({', '.join(both[:5])}); a patient must be in one part only."
            )
    if kind != "supplied" and content.get("fingerprint") != fingerprint:
        raise UserError(
            f"{path} was made for another cohort; give another --workdir for the new data."
        )
    return Splits(folds, content.get("kind", kind) if kind != "supplied" else kind, fingerprint)


def save(path: Path, splits: Splits) -> None:
    """Writes splits.json under its final name only when complete."""
    content = {
        "unit": "case" if splits.kind == "by_case" else "patient",
        "kind": splits.kind,
        "fingerprint": splits.fingerprint,
        "patient_overlap": splits.patient_overlap,
        "folds": [dataclasses.asdict(f) for f in splits.folds],
    }
    temporary = path.with_suffix(".tmp")
    temporary.write_text(json.dumps(content, indent=2) + "\n")
    temporary.replace(path)


def _hold_out(
    patients: Sequence[str], fraction: float, seed: tuple[int, ...]
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    shuffled = [str(p) for p in np.random.default_rng(seed).permutation(sorted(patients))]
    count = 0 if fraction == 0 else max(1, round(fraction * len(shuffled)))
    return tuple(sorted(shuffled[count:])), tuple(sorted(shuffled[:count]))
