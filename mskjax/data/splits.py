"""The folds of a study: what is in them, who is on both sides, who is left out, and their file.

Overlap is computed from the lists of every fold, and over images as well as ids: one person with
two ids is one person.
"""

import dataclasses
import difflib
import functools
import json
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from mskjax.errors import BadCases, UserError
from mskjax.writers import write_json
from tfds_builders.ids import plain

PARTS = ("train", "validation", "test")
_FORM = '{"folds": [{"train": [...], "validation": [...], "test": [...]}]}'
_NAMED = 20  # unknown ids in a message


@dataclasses.dataclass(frozen=True)
class Fold:
    """One division of the cohort.

    Attributes:
      train, validation, test: patient ids.
      cases: for the leaky case-wise division only, case id -> ``train`` | ``validation`` |
        ``test``; None for divisions by patient.
      held_out: whether its test patients are in no other fold; its figures stand apart from those
        of cross-validation.
      repetition: number of the cross-validation that the fold belongs to, from 0 on.  Each
        repetition divides the patients anew, and its figures stand apart.
    """

    train: tuple[str, ...]
    validation: tuple[str, ...]
    test: tuple[str, ...]
    cases: Mapping[str, str] | None = None
    held_out: bool = False
    repetition: int = 0

    @functools.cached_property
    def parts(self) -> dict[str, tuple[str, ...]]:
        """Patient -> the parts that list it."""
        found: dict[str, tuple[str, ...]] = {}
        for part in PARTS:
            for patient in dict.fromkeys(getattr(self, part)):
                found[patient] = (*found.get(patient, ()), part)
        return found

    def overlapping(self, person: Mapping[str, str]) -> dict[str, tuple[str, ...]]:
        """Persons of whom more than one part has something.

        Args:
          person: patient id -> the person, see `same_persons`; a patient who is not in it is one.

        Returns:
          Person -> the ids under which the fold lists it.
        """
        parts: dict[str, set[str]] = {}
        names: dict[str, list[str]] = {}
        for patient in sorted(self.parts):
            who = person.get(patient, patient)
            parts.setdefault(who, set()).update(self.parts[patient])
            names.setdefault(who, []).append(patient)
        return {who: tuple(names[who]) for who, found in parts.items() if len(found) > 1}


@dataclasses.dataclass(frozen=True)
class Splits:
    """All folds of a study.

    Attributes:
      folds: one or more divisions.
      kind: ``folds``, ``official``, ``folds_and_official``, ``supplied`` or ``by_case``.
      fingerprint: of the cohort that was divided.
      patients: ids of the cohort.
      images: patient id -> hashes of the patient's images, see `images_of`.
    """

    folds: tuple[Fold, ...]
    kind: str
    fingerprint: str
    patients: tuple[str, ...] = ()
    images: Mapping[str, Collection[str]] = dataclasses.field(default_factory=dict)

    @property
    def unit(self) -> str:
        """What was divided: ``patient``, or ``case``, where a patient may be on both sides."""
        return "case" if any(fold.cases is not None for fold in self.folds) else "patient"

    @functools.cached_property
    def _overlapping(self) -> dict[str, tuple[str, ...]]:
        person = same_persons(self.images)
        found: dict[str, tuple[str, ...]] = {}
        for fold in self.folds:
            for who, names in fold.overlapping(person).items():
                found[who] = tuple(sorted({*found.get(who, ()), *names}))
        return found

    @property
    def patient_overlap(self) -> int:
        """Persons that any fold has on both sides; 0 for every sound division by patient."""
        return len(self._overlapping)

    @property
    def overlapping(self) -> list[str]:
        """The ids of these persons."""
        return sorted(name for names in self._overlapping.values() for name in names)

    @property
    def has_images(self) -> bool:
        """Whether images are known, so that overlap was computed over them too."""
        return any(self.images.values())

    @functools.cached_property
    def left_out(self) -> dict[str, tuple[int, ...]]:
        """Patient -> numbers of the folds that list the patient in no part.

        Those whom a fold keeps for its held-out test are meant to be in no other fold.
        """
        apart = {p for fold in self.folds if fold.held_out for p in fold.test}
        numbers = {
            patient: tuple(k for k, fold in enumerate(self.folds) if patient not in fold.parts)
            for patient in self.patients
            if patient not in apart
        }
        return {patient: folds for patient, folds in numbers.items() if folds}

    def crossed(self, repetition: int) -> list[int]:
        """Numbers of the folds of one cross-validation."""
        return [
            k
            for k, fold in enumerate(self.folds)
            if not fold.held_out and fold.repetition == repetition
        ]

    @property
    def repetitions(self) -> int:
        """How often the patients were divided anew; 1 for plain cross-validation."""
        return 1 + max((f.repetition for f in self.folds if not f.held_out), default=0)

    def remarks(self) -> list[str]:
        """A sentence on patients on both sides, and one on each fold that leaves patients out."""
        found = []
        if self.patient_overlap and self.unit == "patient":
            # Ids on both sides are refused; images may be in the cohort under two ids.
            found.append(
                "Patients who share an image lie on both sides of a fold:"
                f" {', '.join(self.overlapping)}."
            )
        by_folds: dict[tuple[int, ...], list[str]] = {}
        for patient, folds in self.left_out.items():
            by_folds.setdefault(folds, []).append(patient)
        for folds, patients in sorted(by_folds.items(), key=lambda of: (-len(of[0]), of)):
            everywhere = len(folds) == len(self.folds)
            where = "every fold" if everywhere else _plural("fold", folds)
            found.append(f"Left out of {where}: {_plural('patient', patients)}.")
        return found


def images_of(audit: Mapping[str, Any]) -> dict[str, set[str]]:
    """Hashes of the images of each patient; none in a cohort packaged before images were hashed.

    Args:
      audit: of a packaged cohort, with ``index`` and, study id -> hashes, ``images``.
    """
    hashes = audit.get("images", {})
    found: dict[str, set[str]] = {}
    for patient, study in audit["index"]:
        found.setdefault(patient, set()).update(hashes.get(study, ()))
    return found


def same_persons(images: Mapping[str, Iterable[str]]) -> dict[str, str]:
    """Patient -> the first id of the person: patients who share an image are one person.

    Args:
      images: patient id -> hashes of the patient's images.
    """
    above = {patient: patient for patient in images}

    def first(patient: str) -> str:
        while above[patient] != patient:
            patient = above[patient]
        return patient

    owner: dict[str, str] = {}
    for patient in sorted(images):
        for image in images[patient]:
            one, other = first(patient), first(owner.setdefault(image, patient))
            above[max(one, other)] = min(one, other)
    return {patient: first(patient) for patient in images}


def load(
    path: Path,
    patients: Sequence[str],
    fingerprint: str,
    kind: str,
    images: Mapping[str, Collection[str]] | None = None,
) -> Splits:
    """Reads splits.json and holds it against the cohort.

    Args:
      path: JSON ``{"folds": [{"train": [...], "validation": [...], "test": [...]}]}``; the fields
        of a fold are those of `Fold`, of which ``train`` and ``test`` are needed.
      patients: ids of the cohort; those of the file must be spelt as here.
      fingerprint: of the cohort.
      kind: of the division; ``supplied`` for a file that a user gives.
      images: see `images_of`.

    Raises:
      UserError: not such a file; patients that the cohort lacks, listed twice, in two parts of a
        fold, or tested by two folds of one repetition (all are named); or a file of another cohort
        (``kind`` other than ``supplied``).
    """
    content = _read(path)
    if kind != "supplied" and content.get("fingerprint") != fingerprint:
        raise UserError(
            f"{path} was made for another cohort; give another --workdir for the new data."
        )
    try:
        folds = tuple(_fold(k, fields) for k, fields in enumerate(content["folds"]))
    except _FormError as error:
        raise UserError(f"{path} is not a splits file ({error}); it needs {_FORM}.") from None
    bad = [(f"fold {k}", why) for k, fold in enumerate(folds) for why in _faults(fold, patients)]
    bad += [("test parts", why) for why in _faults_between(folds)]
    if len(bad) == 1:
        raise UserError(f"{path}, {': '.join(bad[0])}")
    if bad:
        raise BadCases(f"{path} cannot be used, {len(bad)} things are wrong", bad)
    kind = content.get("kind", kind) if kind != "supplied" else kind
    return Splits(folds, kind, fingerprint, tuple(patients), images or {})


def save(path: Path, splits: Splits) -> None:
    """Writes splits.json under its final name only when complete."""
    write_json(path, as_json(splits))


def as_json(splits: Splits) -> dict[str, Any]:
    """The content of splits.json."""
    content = {
        "unit": splits.unit,
        "kind": splits.kind,
        "fingerprint": splits.fingerprint,
        "patient_overlap": splits.patient_overlap,
        "overlapping": splits.overlapping,
        "left_out": splits.left_out,
        "folds": [dataclasses.asdict(f) for f in splits.folds],
    }
    return json.loads(json.dumps(content))


def are_same(path: Path, splits: Splits) -> bool:
    """Whether a file of `save` has these folds."""
    ours = json.loads(json.dumps([dataclasses.asdict(fold) for fold in splits.folds]))
    return json.loads(path.read_text())["folds"] == ours


class _FormError(Exception):
    """What is wrong with the form of a splits file."""


def _read(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text())
    except FileNotFoundError:
        raise UserError(f"{path} does not exist; give an existing splits.json.") from None
    except (OSError, ValueError) as error:
        raise UserError(f"{path} is not a splits file ({error}); it needs {_FORM}.") from None
    folds = content.get("folds") if isinstance(content, dict) else None
    if not isinstance(folds, list) or not folds:
        raise UserError(f"{path} is not a splits file (it has no folds); it needs {_FORM}.")
    return content


def _fold(number: int, fields: Any) -> Fold:
    where = f"fold {number}"
    known = [f.name for f in dataclasses.fields(Fold)]
    if not isinstance(fields, dict):
        raise _FormError(f"{where} is {fields!r}")
    for name in fields:
        if name not in known:
            near = difflib.get_close_matches(name, known, 1)
            hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(known)}"
            raise _FormError(f"{where} has {name!r}; {hint}")
    if lacking := [part for part in ("train", "test") if part not in fields]:
        raise _FormError(f"{where} lacks {' and '.join(lacking)}")
    cases, held_out = fields.get("cases"), fields.get("held_out", False)
    repetition = fields.get("repetition", 0)
    if cases is not None and not (isinstance(cases, dict) and {*cases.values()} <= {*PARTS}):
        raise _FormError(f"{where}: cases must give each case one of {', '.join(PARTS)}")
    if not isinstance(held_out, bool):
        raise _FormError(f"{where}: held_out is {held_out!r}, not true or false")
    if not isinstance(repetition, int) or isinstance(repetition, bool) or repetition < 0:
        raise _FormError(f"{where}: repetition is {repetition!r}, not a number from 0 on")
    train, validation, test = (_ids(fields.get(part, []), f"{where}, {part}") for part in PARTS)
    return Fold(train, validation, test, cases, held_out, repetition)


def _ids(values: Any, where: str) -> tuple[str, ...]:
    """Ids, which a file may give as numbers."""
    if not isinstance(values, list):
        raise _FormError(f"{where} is {values!r}, not a list of patient ids")
    for value in values:
        if not isinstance(value, str | int | float) or isinstance(value, bool):
            raise _FormError(f"{where} has {value!r}, which is no patient id")
    return tuple(str(value) for value in values)


def _faults(fold: Fold, patients: Collection[str]) -> Iterator[str]:
    """What is wrong within a fold."""
    for part in PARTS:
        counts = Counter(getattr(fold, part))
        if twice := sorted(p for p, n in counts.items() if n > 1):
            yield f"{part} lists {_plural('patient', twice)} more than once; list each once."
    known = set(patients)
    if unknown := sorted(fold.parts.keys() - known):
        yield (
            f"{len(unknown)} patients are not in the cohort ({_some(unknown)});"
            f" {_meant(unknown, known) or 'mend the file.'}"
        )
    if not fold.train or not fold.test:
        yield "train and test must not be empty."
    if fold.cases is None:
        both = {p: " and ".join(parts) for p, parts in sorted(fold.parts.items()) if len(parts) > 1}
        if both:
            yield (
                f"{len(both)} patients are on both sides ({_grouped(both)}); a patient must be in"
                " one part only."
            )


def _faults_between(folds: Sequence[Fold]) -> Iterator[str]:
    """What is wrong with the test parts of all folds."""
    testing: dict[tuple[int, str], list[int]] = {}
    inside: dict[str, list[int]] = {}
    for k, fold in enumerate(folds):
        for patient in fold.parts:
            inside.setdefault(patient, []).append(k)
        for patient in dict.fromkeys(fold.test if not fold.held_out else ()):
            testing.setdefault((fold.repetition, patient), []).append(k)
    twice = {p: _plural("fold", ks) for (_, p), ks in sorted(testing.items()) if len(ks) > 1}
    if twice:
        yield (
            f"{len(twice)} patients are tested by more than one fold ({_grouped(twice)}), so that"
            " their cases would count more than once; test each patient once or, if the"
            " cross-validation is repeated, give the folds of each repetition their"
            ' "repetition": 0, 1, ...'
        )
    for k, fold in enumerate(folds):
        elsewhere = {p: [n for n in inside[p] if n != k] for p in sorted(fold.test)}
        seen = {p: _plural("fold", ks) for p, ks in elsewhere.items() if ks and fold.held_out}
        if seen:
            yield (
                f"fold {k} is held out, but {len(seen)} of its test patients are in other folds"
                f" ({_grouped(seen)}); take them out there, or do not call the fold held out."
            )
    numbers = sorted({f.repetition for f in folds if not f.held_out})
    if numbers != list(range(len(numbers))):
        yield f"the repetitions are numbered {_some(map(str, numbers))}; number them 0, 1, ..."
    elif not numbers:
        yield "every fold is held out; at least one must not be."


def _meant(unknown: Iterable[str], known: Iterable[str]) -> str:
    """``did you mean`` for ids that differ from those of the cohort in spelling alone."""
    by_spelling: dict[str, list[str]] = {}
    for name in sorted(known):
        by_spelling.setdefault(plain(name), []).append(repr(name))
    near = {name: by_spelling.get(plain(name), []) for name in unknown}
    meant = [f"{' or '.join(names)} for {name!r}" for name, names in near.items() if names]
    return f"did you mean {_some(meant)}?" if meant else ""


def _plural(what: str, values: Sequence[Any]) -> str:
    """``fold 0``, ``folds 0 and 1``, ``folds 0, 1 and 2``."""
    names = [str(v) for v in values]
    if len(names) == 1:
        return f"{what} {names[0]}"
    return f"{what}s {', '.join(names[:-1])} and {names[-1]}"


def _grouped(where: Mapping[str, str]) -> str:
    """All patients, those of one place together: ``folds 0 and 1: a, b; folds 0 and 2: c``."""
    found: dict[str, list[str]] = {}
    for patient, place in where.items():
        found.setdefault(place, []).append(patient)
    return "; ".join(f"{place}: {', '.join(patients)}" for place, patients in found.items())


def _some(names: Iterable[str]) -> str:
    """All names where they are few; else the first of them, and how many more there are."""
    listed = list(names)
    more = f" and {len(listed) - _NAMED} more" if len(listed) > _NAMED else ""
    return ", ".join(listed[:_NAMED]) + more
