"""Readers beside a model, of any system: a table of what they called, read when a report is made.

A reader study is done after a training as a rule, so its calls are no part of the cohort: ``mskjax
report --runs RUN --readers FILE`` keeps them in the report's folder and puts them beside the model.
(A cohort may also be packaged with readers, as `vertebral_fracture` is.)

The file has a row for each case that a reader has read: ``study_id``, ``level`` where a study has
several cases, ``reader``, ``call`` and, read again with the model's output, ``aided_call``.  Calls
are classes of the system's first grading, by their names or as the cohort writes grades.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mskjax.cases import Graded, graded
from mskjax.errors import UserError
from mskjax.metrics import readers
from mskjax.metrics.grading import Grading
from mskjax.tables import Row, read_rows, write_rows
from tfds_builders.tables import read_table

Json = dict[str, Any]
Sets = Mapping[str, Sequence[int]]

FILE = "readers.csv"  # in the report's folder, by case
TITLE = "Readers beside the model"
ORACLE, FOUND = "Model, region given", "Model, region found"
_COLUMNS = ("study_id", "reader", "call")
_ROMAN = ("i", "ii", "iii", "iv", "v", "vi", "vii", "viii", "ix", "x")
_SHOWN = 5


def load(path: Path, rows: Sequence[Row], grading: Grading, sets: Sets) -> list[Row]:
    """The calls of a table, by case.

    Args:
      path: of the user's table.
      rows: of cases.csv, whose graded cases can be read.
      grading: that the readers call.
      sets: class -> the grades that it holds, where the grading puts grades together.

    Returns:
      Rows of ``case``, ``reader``, ``call`` and ``aided_call``, of which the calls are names of
      classes or empty.

    Raises:
      UserError: the table cannot be read, or names studies, levels or calls that are not there;
        with the first few.
    """
    if not path.is_file():
        raise UserError(f"--readers: {path} is no file.")
    table = read_table(path, _COLUMNS)
    known = {
        (r["study"], r.get("level", "").removeprefix("level ")): r["case"]
        for r in rows
        if r["kind"] == "grade"
    }
    alone = {study: case for (study, _), case in known.items()}
    several = {study for study, n in Counter(s for s, _ in known).items() if n > 1}
    found: dict[tuple[str, str], Row] = {}
    problems: list[str] = []
    for row in table:
        study, level = row["study_id"], row.get("level", "")
        case = known.get((study, level))
        if case is None and not level and study not in several:
            case = alone.get(study)
        calls = {name: _class(row.get(name, ""), grading, sets) for name in ("call", "aided_call")}
        if case is None:
            what = f"level {level} of study {study!r}" if level else f"study {study!r}"
            more = ", which has several: give the level" if study in several and not level else ""
            problems.append(f"{row.where}: no held-out case is {what}{more}")
        elif not row["reader"]:
            problems.append(f"{row.where}: reader is empty")
        elif (case, row["reader"]) in found:
            problems.append(f"{row.where}: {row['reader']} has read {case} twice")
        for name, call in calls.items():
            if call is None:
                problems.append(
                    f"{row.where}: {name} is {row[name]!r}; it must be one of"
                    f" {', '.join(grading.classes)}"
                )
        if case is not None:
            found[case, row["reader"]] = {"case": case, "reader": row["reader"], **calls}
    if problems:
        more = f"; and {len(problems) - _SHOWN} more" if len(problems) > _SHOWN else ""
        raise UserError(f"{'; '.join(problems[:_SHOWN])}{more}.")
    if not found:
        raise UserError(f"{path} has no row.")
    return list(found.values())


def keep(folder: Path, calls: Sequence[Row]) -> None:
    """Writes the calls where `kept` finds them."""
    write_rows(folder / FILE, calls)


def kept(folder: Path) -> list[Row]:
    """The calls that a report's folder has; none where nobody has read."""
    return read_rows(folder / FILE) if (folder / FILE).exists() else []


def tables(
    calls: Sequence[Row],
    rows: Sequence[Row],
    grading: Grading,
    method: str,
    resamples: int,
    seed: int,
) -> list[Json]:
    """Tables of a report: figures of readers and model, McNemar, agreement, aided reading.

    Args:
      calls: of `load`.
      rows: of cases.csv.
      grading: that the readers call.
      method: of the system, whose probabilities are called.
      resamples: of the bootstrap over patients.
      seed: of the bootstrap.
    """
    cases = graded(rows, grading)
    p, oracle = (cases.probabilities(grading, method, ideal) for ideal in (False, True))
    models = {FOUND: grading.calls(p)}
    if not np.isnan(oracle).any():
        models = {ORACLE: grading.calls(oracle)} | models
    first = oracle if ORACLE in models else p
    study = readers.ReaderStudy(
        reference=cases.reference,
        patients=cases.patients,
        models=models,
        readers=_by_reader(calls, cases, grading, "call"),
        aided=_by_reader(calls, cases, grading, "aided_call"),
        probability=grading.priced(cases.reference, first)[:, 1],
        grading=grading,
    )
    found = readers.compare(study, resamples=resamples, seed=seed)
    return [{"id": "readers", **found[0]}, *found[1:]]


def operating(calls: Sequence[Row], rows: Sequence[Row], grading: Grading) -> list[Json]:
    """Of two classes, where each reader stands in the ROC figure."""
    if len(grading.classes) != 2:
        return []
    cases, found = graded(rows, grading), []
    for name, own in _by_reader(calls, cases, grading, "call").items():
        positive = cases.reference[own >= 0] == 1
        called = own[own >= 0] == 1
        if positive.any() and not positive.all():
            rates = {"fpr": float(called[~positive].mean()), "tpr": float(called[positive].mean())}
            found.append({"label": name, **rates})
    return found


def _by_reader(
    calls: Sequence[Row], cases: Graded, grading: Grading, column: str
) -> dict[str, np.ndarray]:
    """Reader -> (N,) classes, -1 where not read; of those who have read anything."""
    places = {row["case"]: i for i, row in enumerate(cases.rows)}
    found: dict[str, np.ndarray] = {}
    for row in calls:
        if row.get(column) and row["case"] in places:
            own = found.setdefault(row["reader"], np.full(len(places), readers.UNREAD))
            own[places[row["case"]]] = grading.classes.index(row[column])
    return found


def _class(text: str, grading: Grading, sets: Sets) -> str | None:
    """The class that a call means, empty where there is none; None where it means nothing."""
    said = text.strip().lower()
    if not said or said in grading.classes:
        return said
    if not said.isdigit():
        return None
    for name, grades in sets.items():
        if int(said) in grades:
            return name
    # Grades as cohorts write them: i for 1, grade_2 for 2.
    roman = _ROMAN[int(said) - 1] if 0 < int(said) <= len(_ROMAN) else ""
    return next((k for k in grading.classes if k == roman or k.endswith(f"_{said}")), None)
