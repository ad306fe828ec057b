"""Who was studied, and on what: age, sex, scanner, voxels and classes, with what is missing.

Sex and age are of patients, scanner and geometry of studies, classes of cases.  What a cohort does
not say is counted as missing and never guessed.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mskjax.metrics.grading import Grading
from mskjax.tables import Row, floats, read_rows
from mskjax.workdir import PROFILE

Json = dict[str, Any]

NUMBERS = {
    "spacing_slice_mm": "Distance of slices, mm",
    "spacing_row_mm": "Distance of rows, mm",
    "spacing_col_mm": "Distance of columns, mm",
    "slices": "Slices",
    "fov_row_mm": "Height of the image, mm",
    "fov_col_mm": "Width of the image, mm",
}
TITLES = {"manufacturer": "Manufacturer", "field_strength_t": "Field strength", "sex": "Sex"}
_OF_PATIENTS = ("sex", "age")
NOTE = (
    "Numbers: mean (SD; least to greatest). Categories: how many of those that are known. Age and"
    " sex are of patients, scanner and geometry of studies, classes of scored cases; the share that"
    " is missing is of all in the first column. Geometry is that of studies that were trained on."
)


def table(
    workdir: Path,
    rows: Sequence[Row],
    tested: Mapping[str, Sequence[str]],
    gradings: Sequence[Grading],
) -> Json:
    """The table of a report, empty where nothing is known of anybody.

    Args:
      workdir: of a finished study, whose folds have left what they were trained on.
      rows: of its cases.csv.
      tested: name of a column -> patients, such as those whom a fold tests.
      gradings: whose reference classes are counted.
    """
    studies = _studies(workdir, rows)
    graded = cases_of(rows)
    parts = [(studies, graded)]
    for patients in tested.values():
        own = {*patients}
        parts.append(
            (
                [r for r in studies if r["patient"] in own],
                [r for r in graded if r["patient"] in own],
            )
        )
    found: list[list[Any]] = [
        ["Patients", *(str(len({r["patient"] for r in own})) for own, _ in parts), "–"],
        ["Studies", *(str(len(own)) for own, _ in parts), "–"],
    ]
    found += _number("Age, years", [floats(patients_of(own), "age") for own, _ in parts])
    for column, title in TITLES.items():
        of = [patients_of(own) if column in _OF_PATIENTS else own for own, _ in parts]
        found += _category(title, [[category(column, r.get(column)) for r in o] for o in of])
    for column, title in NUMBERS.items():
        found += _number(title, [floats(own, column) for own, _ in parts])
    for grading in gradings:
        column = f"reference_{grading.task}"
        values = [[r.get(column, "") for r in cases] for _, cases in parts]
        found += _category(f"Class, {grading.task}", values, grading.classes)
    return {
        "id": "participants",
        "title": "All, and the test patients of each partition",
        "note": NOTE,
        "columns": ["", "All", *tested, "Missing"],
        "rows": found,
    }


def _studies(workdir: Path, rows: Sequence[Row]) -> list[Row]:
    """A row for each study: as a fold was trained on it, or what cases.csv says of it."""
    found: dict[str, Row] = {}
    for row in rows:
        known = {k: row[k] for k in (*TITLES, "age") if row.get(k)}
        found.setdefault(row["study"], {"patient": row["patient"], "study": row["study"]})
        found[row["study"]] |= known
    for path in sorted(workdir.glob(f"fold_*/{PROFILE}")):
        found |= {row["study"]: row for row in read_rows(path)}
    return [found[name] for name in sorted(found)]


def _number(title: str, values: Sequence[np.ndarray]) -> list[list[Any]]:
    known = [v[~np.isnan(v)] for v in values]
    if not len(known[0]):
        return [[title, *["not known"] * len(values), missing(len(values[0]), len(values[0]))]]
    return [[title, *map(summary, known), missing(len(values[0]) - len(known[0]), len(values[0]))]]


def _category(
    title: str, values: Sequence[Sequence[str]], order: Sequence[str] = ()
) -> list[list[Any]]:
    known = [[v for v in own if v] for own in values]
    absent = missing(len(values[0]) - len(known[0]), len(values[0]))
    if not known[0]:
        return [[title, *["not known"] * len(values), absent]]
    return [
        [f"{title}: {name}", *(share(own.count(name), len(own)) for own in known), absent]
        for name in order or sorted({*known[0]})
    ]


def summary(values: np.ndarray) -> str:
    """Mean, deviation and range of numbers, without gaps."""
    if not len(values):
        return "not known"
    spread = f"{values.std(ddof=1):.2g}; " if len(values) > 1 else ""
    return f"{values.mean():.3g} ({spread}{values.min():.3g} to {values.max():.3g})"


def share(count: int, of: int) -> str:
    """``3 of 4 (75 %)``."""
    return f"{count} of {of} ({100 * count / of:.0f} %)" if of else "not known"


def missing(count: int, of: int) -> str:
    """``25 %``."""
    return f"{100 * count / of:.0f} %" if of else "–"


def category(column: str, value: Any) -> str:
    """A value as it is counted; empty where nothing is known."""
    if value in ("", None):
        return ""
    return f"{float(value):g} T" if column == "field_strength_t" else str(value).strip().title()


def cases_of(rows: Sequence[Row]) -> list[Row]:
    """Each graded case once, however many networks read it."""
    return list({r["case"]: r for r in rows if r["kind"] == "grade"}.values())


def patients_of(rows: Sequence[Row]) -> list[Row]:
    """The first row of each patient."""
    return list({row["patient"]: row for row in reversed(rows)}.values())[::-1]
