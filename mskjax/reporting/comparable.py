"""Which runs may be compared, and on which cases.

What is refused or left out, and why (docs/compare.md tells it to users):

- Runs of different systems: no figure of one is a figure of the other.
- A run without the figure that leads the other.
- Control runs: their labels are not the patients'.
- Divisions by case: the networks have seen the patients that they are tested on.
- Generated beside real patients.
- A run and a part of it, such as a study and one of its seeds: they share networks.
- Cross-validated patients beside those of a single test set.  Recipes are chosen by
  cross-validation, and its networks have seen most of what a single test set keeps apart.
- Cases of one id with different reference labels, or studies of one id of different patients.
- Masks as references of different cohorts: cases.csv does not hold them, so nothing shows that
  they are the same.  Figures of grades are compared, those on reference regions are not.
- Patients who are on both sides of a fold of either run, by a shared image, or by whom a sweep
  chose one of the recipes: their cases are left out.
- Runs that share no case.

Other folds of the same patients are no obstacle: each run has read every shared patient with
networks that have not seen the patient.  The difference then holds the division too, which is said.
"""

import dataclasses
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from mskjax import cases
from mskjax.config import StudyConfig
from mskjax.data.splits import Splits, images_of, load
from mskjax.errors import UserError
from mskjax.reporting import artefacts
from mskjax.reporting.summary import System
from mskjax.tables import Row
from mskjax.workdir import config_of

Json = dict[str, Any]

CROSSED, HELD_OUT = "cross_validation", "held_out"  # parts of a run's cases
_FILES = ("cases.csv", "cohort.json", "splits.json", "report/report.json", "report/report.html")
_NAMED = 3  # cases in a message


@dataclasses.dataclass(frozen=True)
class Run:
    """A finished run, as a comparison needs it.

    Attributes:
      name: by which it is told from the others.
      folder: its workdir.
      system: of its config.
      config: resolved.
      report: content of report.json.
      audit: content of cohort.json.
      divided: its folds.
      parts: `CROSSED` and, where there are such patients, `HELD_OUT` -> rows of cases.csv of each
        seed; of repeated cross-validation the first.
    """

    name: str
    folder: Path
    system: System
    config: StudyConfig
    report: Json
    audit: Json
    divided: Splits
    parts: Mapping[str, Sequence[Sequence[Row]]]

    @property
    def fingerprint(self) -> str:
        """Of its cohort."""
        return str(self.audit["fingerprint"])

    @property
    def seeds(self) -> int:
        """From how many seeds it was trained."""
        return len(self.parts[CROSSED])


def read(name: str, folder: Path, system: System) -> Run:
    """Reads a finished run.

    Args:
      name: by which it is told from the others.
      folder: its workdir.
      system: built from its config.

    Raises:
      UserError: it is not finished, or a file is not one of this version.
    """
    config = config_of(folder)
    for file in _FILES:
        if not (folder / file).exists():
            raise UserError(f"{folder / file} is missing; finish the run first.")
    audit = artefacts.content(folder / "cohort.json")
    patients = sorted({patient for patient, _ in audit["index"]})
    divided = load(
        folder / "splits.json", patients, audit["fingerprint"], config.data.split, images_of(audit)
    )
    apart = {k for k, fold in enumerate(divided.folds) if fold.held_out}
    folds = {CROSSED: {*divided.crossed(0)}} | ({HELD_OUT: apart} if apart else {})
    by_seed: dict[str, list[Row]] = {}
    for row in cases.read(folder / "cases.csv"):
        by_seed.setdefault(row.get("seed", ""), []).append(row)
    if not by_seed:
        raise UserError(f"{folder / 'cases.csv'} has no rows; finish the run first.")
    return Run(
        name,
        folder,
        system,
        config,
        artefacts.content(folder / "report" / "report.json"),
        audit,
        divided,
        {
            part: tuple([r for r in rows if int(r["fold"]) in own] for rows in by_seed.values())
            for part, own in folds.items()
        },
    )


def check(run: Run, standard: Run) -> None:
    """Whether a run may be compared with another at all.

    Raises:
      UserError: it may not; why, and what to do.
    """
    for one in (standard, run):
        if one.config.data.shuffle_labels:
            raise UserError(
                f"{one.name} is a control run with shuffled labels, which are not the patients';"
                " compare runs with data.shuffle_labels=False."
            )
        if one.divided.unit == "case":
            raise UserError(
                f"{one.name} was divided by case, so its networks have seen the patients that they"
                " are tested on; compare runs that are divided by patient."
            )
    if run.config.system != standard.config.system:
        raise UserError(
            f"{standard.name} is a run of {standard.config.system}, {run.name} one of"
            f" {run.config.system}; compare runs of one system."
        )
    if run.audit["kind"] != standard.audit["kind"]:
        raise UserError(
            f"the patients of {standard.name} are {_kind(standard)}, those of {run.name} are"
            f" {_kind(run)}; compare runs on the same patients."
        )
    for one in (standard, run):
        if standard.system.primary not in one.report["end_to_end"]:
            raise UserError(
                f"{one.name} has no figure {standard.system.primary}, which leads"
                f" {standard.name}; compare runs that grade the same."
            )
    _check_apart(run.folder.resolve(), standard.folder.resolve())
    single = {r.name: len(r.divided.crossed(0)) == 1 for r in (standard, run)}
    if single[run.name] != single[standard.name]:
        crossed, apart = sorted(single, key=lambda name: single[name])
        raise UserError(
            f"{crossed} cross-validates its patients, {apart} has a single test set: what is chosen"
            " while cross-validating has seen such patients; divide both in the same way"
            " (config.data.split, config.data.splits)."
        )
    if run.fingerprint != standard.fingerprint and not run.system.gradings:
        raise UserError(
            f"{standard.name} and {run.name} have different cohorts ({standard.fingerprint[:12]},"
            f" {run.fingerprint[:12]}), and nothing shows that their reference masks are the same;"
            " compare runs on one packaged cohort."
        )


def _kind(run: Run) -> str:
    return "generated" if run.audit["kind"] == "phantom" else "real"


def _check_apart(run: Path, standard: Path) -> None:
    if run == standard:
        raise UserError(f"--runs: {run} is given twice; give each run once.")
    for inner, outer in ((run, standard), (standard, run)):
        if outer in inner.parents:
            raise UserError(
                f"--runs: {inner} is a part of {outer}, and they share networks; give either the"
                " whole study or its parts."
            )


@dataclasses.dataclass(frozen=True)
class Shared:
    """What two runs have both read.

    Attributes:
      rows: of the standard and of the other run: rows of each seed, of the shared cases alone.
      patients: whose cases these are.
      studies: of these.
      cases: graded ones; 0 of systems that grade nothing.
      alone: cases (studies, where nothing is graded) that the standard has alone, and the other.
      left_out: sentences on patients whose cases are left out.
      keys: what the rows are of; the same for the same cases.
    """

    rows: tuple[Sequence[Sequence[Row]], Sequence[Sequence[Row]]]
    patients: tuple[str, ...]
    studies: int
    cases: int
    alone: tuple[int, int]
    left_out: tuple[str, ...]
    keys: frozenset[tuple[str, str]]

    def as_json(self) -> Json:
        """Counts, for comparison.json."""
        counts = {"patients": len(self.patients), "studies": self.studies, "cases": self.cases}
        return counts | {"alone": {"reference": self.alone[0], "run": self.alone[1]}}


def shared(standard: Run, run: Run) -> dict[str, Shared]:
    """What two runs have both read, by part.

    Raises:
      UserError: nothing; or a case of one id has different references.
    """
    parts = [part for part in (CROSSED, HELD_OUT) if part in standard.parts and part in run.parts]
    every = {part: _shared(standard, run, part) for part in parts}
    found = {part: own for part, own in every.items() if own.patients}
    if not found:
        why = " ".join(sentence for own in every.values() for sentence in own.left_out)
        raise UserError(
            f"{standard.name} and {run.name} share no case that both test"
            f"{f' and that may be compared ({why})' if why else ''}; compare runs that test the"
            " same patients."
        )
    return found


def _shared(standard: Run, run: Run, part: str) -> Shared:
    """The cases of a part that both have read.

    Raises:
      UserError: a case of one id has different references.
    """
    tables = [own.parts[part][0] for own in (standard, run)]
    tainted = _tainted(standard) | _tainted(run)
    common = {*_index(tables[0])} & {*_index(tables[1])}
    _check_references(standard, run, part, common)
    patient = _index(tables[0])
    out = {patient[key] for key in common} & {*tainted}
    kept = {key for key in common if patient[key] not in tainted}
    rows = [[[r for r in t if _key(r) in kept] for t in own.parts[part]] for own in (standard, run)]
    graded = [{k for k in _index(table) if k[0] == "case"} for table in tables]
    counted = graded if any(graded) else [{*_index(table)} for table in tables]
    return Shared(
        (rows[0], rows[1]),
        tuple(sorted({r["patient"] for r in rows[0][0]})),
        len({r["study"] for r in rows[0][0]}),
        sum(key[0] == "case" for key in kept),
        (len(counted[0] - counted[1]), len(counted[1] - counted[0])),
        tuple(
            f"{_listed([p for p in sorted(out) if tainted[p] == why])}: left out, {why}."
            for why in sorted({tainted[p] for p in out})
        ),
        frozenset(kept),
    )


def _key(row: Row) -> tuple[str, str]:
    """What a row is of: a graded case, or a study."""
    return ("case", row["case"]) if row["kind"] == "grade" else ("study", row["study"])


def _index(rows: Sequence[Row]) -> dict[tuple[str, str], str]:
    """What there are rows of -> the patient."""
    return {_key(row): row["patient"] for row in rows}


def _check_references(standard: Run, run: Run, part: str, common: set[tuple[str, str]]) -> None:
    ours, theirs = (
        {_key(r): r for r in own.parts[part][0] if _key(r) in common} for own in (standard, run)
    )
    names = [f"reference_{grading.task}" for grading in standard.system.gradings]
    names = [n for n in names if all(any(n in r for r in own.values()) for own in (ours, theirs))]
    for what, column in (("patient", "patient"), *(("reference label", n) for n in names)):
        other = sorted(k[1] for k in common if ours[k].get(column) != theirs[k].get(column))
        if other:
            raise UserError(
                f"{len(other)} cases of {standard.name} and {run.name} have one id and another"
                f" {what} ({column} of {_some(other)}); compare runs on the same cases."
            )


def _tainted(run: Run) -> dict[str, str]:
    """Patients whom the networks, or who chose the recipe, have seen -> why."""
    found = dict.fromkeys(
        run.divided.overlapping, f"{run.name} has their images on both sides of a fold"
    )
    sweep = run.folder.resolve().parent / "sweep.json"
    if not sweep.exists():
        return found
    content = json.loads(sweep.read_text())
    numbers = (content.get("cohort") or {}).get("folds") or range(len(run.divided.folds))
    folds = [run.divided.folds[k] for k in numbers]
    seen = {p for fold in folds for p in (*fold.train, *fold.validation)}
    why = f"the sweep that chose the recipe of {run.name} trained or validated on them"
    return found | dict.fromkeys(seen, why)


def remarks(standard: Run, run: Run, both: Mapping[str, Shared]) -> Iterator[str]:
    """Sentences on what a reader must know of a comparison that is made.

    Args:
      standard: the run that the other is held against.
      run: the other.
      both: part -> what they share.
    """
    for part in both.values():
        yield from part.left_out
    yield from _about_divisions(standard, run, both)
    if run.fingerprint != standard.fingerprint:
        yield from _about_cohorts(standard, run, both)
    for one in (standard, run):
        if one.divided.repetitions > 1:
            yield (
                f"{one.name} repeats its cross-validation {one.divided.repetitions} times; the"
                " first is compared."
            )
    if (standard.seeds > 1) != (run.seeds > 1):
        one = run if standard.seeds > 1 else standard
        yield f"{one.name} was trained from one seed, so the intervals do not hold its spread."


def _about_divisions(standard: Run, run: Run, both: Mapping[str, Shared]) -> Iterator[str]:
    patients = {p for part in both.values() for p in part.patients}
    ours, theirs = ({p: _trained(r, p) for p in patients} for r in (standard, run))
    other = sum(ours[p] != theirs[p] for p in patients)
    if other:
        sizes = [
            f"{min(n)} to {max(n)} in {r.name}"
            for r, found in ((standard, ours), (run, theirs))
            if (n := [len(v) for v in found.values()])
        ]
        yield (
            f"{other} of {len(patients)} shared patients were read by networks that were trained on"
            f" other patients ({' and '.join(sizes)}): the difference holds the division too."
        )


def _trained(run: Run, patient: str) -> frozenset[str]:
    """Training patients of the fold whose networks read a patient; of several, of the first."""
    folds = (fold for fold in run.divided.folds if patient in fold.test)
    first = next(folds, None)
    return frozenset(first.train) if first else frozenset()


def _about_cohorts(standard: Run, run: Run, both: Mapping[str, Shared]) -> Iterator[str]:
    studies = {r["study"] for part in both.values() for r in part.rows[0][0]}
    ours, theirs = (r.audit.get("images", {}) for r in (standard, run))
    other = sum(not ours.get(s) or ours.get(s) != theirs.get(s) for s in studies)
    yield (
        "The cohorts are different packages; the reference labels of the shared cases are the same,"
        f" and the images of {len(studies) - other} of {len(studies)} shared studies are. Reference"
        " regions are not known to be the same, so figures on them are not compared."
    )


def _listed(patients: Sequence[str]) -> str:
    return f"{len(patients)} patient{'s' * (len(patients) != 1)} ({_some(patients)})"


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(names[:_NAMED]) + more
