"""How an external cohort differs from the one that a run was trained on, in one table.

Differences are standardised, so that they have no unit and do not grow with the number of patients
as p-values do (Austin, Statistics in Medicine 28:3083, 2009): of numbers the difference of means
over the root of the mean variance, of a category the same of its two proportions.  Beyond .1 to .2
in size groups are commonly called unlike.
"""

import dataclasses
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from mskjax.metrics.grading import Grading
from mskjax.reporting.characteristics import (
    NUMBERS,
    TITLES,
    cases_of,
    category,
    missing,
    patients_of,
    share,
    summary,
)
from mskjax.tables import Row, floats

Json = dict[str, Any]

_SIZES = {"Studies": "study", "Patients": "patient"}
NOTE = (
    "Numbers: mean (SD; least to greatest). Categories: how many of all that are known. Sex and age"
    " are of patients, geometry and scanner of studies, grades of cases with a reference."
    " Standardised difference: the second cohort less the first, over the root of their mean"
    " variance; a dash where it is not defined."
)


@dataclasses.dataclass(frozen=True)
class Side:
    """One of the two cohorts.

    Attributes:
      name: heading of its columns.
      profile: a row a study, of `profile.read` or `profile.measure`.
      cases: rows of its cases.csv; of a run that was not cross-validated these are its test
        patients' and not those that it was trained on.
    """

    name: str
    profile: Sequence[Row]
    cases: Sequence[Row] = ()


def shift_table(ours: Side, theirs: Side, gradings: Sequence[Grading] = ()) -> Json:
    """Spacing, size, scanner, age, sex and grades of two cohorts side by side.

    Args:
      ours: that the run was trained on.
      theirs: that it is tested on.
      gradings: whose reference grades are compared.

    Returns:
      A table of ``report["tables"]``; what neither cohort says is left out.
    """
    sides = (ours, theirs)
    rows: list[list[Any]] = [[t, *_sizes(sides, c)] for t, c in _SIZES.items()]
    for name, title in NUMBERS.items():
        rows += _number(title, [floats(side.profile, name) for side in sides])
    people = [patients_of(side.profile) for side in sides]
    rows += _number("Age, years", [floats(own, "age") for own in people])
    named: dict[str, Callable[[Side], Sequence[Row]]] = {
        "sex": lambda side: patients_of(side.profile),
        "manufacturer": lambda side: side.profile,
        "field_strength_t": lambda side: side.profile,
    }
    for column, of in named.items():
        values = [[category(column, r.get(column, "")) for r in of(side)] for side in sides]
        order = sorted({v for own in values for v in own if v})
        rows += _categories(TITLES[column], order, values)
    for grading in gradings:
        column = f"reference_{grading.task}"
        values = [[r[column] for r in cases_of(side.cases) if r.get(column)] for side in sides]
        rows += _categories(f"Reference, {grading.task}", grading.classes, values)
    return {
        "id": "shift",
        "title": f"What differs: {ours.name} and {theirs.name}",
        "note": NOTE,
        "columns": ["", ours.name, "Missing", theirs.name, "Missing", "Standardised difference"],
        "rows": rows,
    }


def _sizes(sides: Sequence[Side], column: str) -> list[Any]:
    a, b = (str(len({row[column] for row in side.profile})) for side in sides)
    return [a, "", b, "", None]


def _number(title: str, values: Sequence[np.ndarray]) -> Iterator[list[Any]]:
    known = [v[~np.isnan(v)] for v in values]
    if not any(map(len, known)):
        return
    cells: list[Any] = [title]
    for every, own in zip(values, known, strict=True):
        cells += [summary(own), missing(len(every) - len(own), len(every))]
    a, b = known
    if len(a) > 1 and len(b) > 1:
        cells.append(_standardised(a.mean(), b.mean(), a.var(ddof=1), b.var(ddof=1)))
    else:
        cells.append(None)
    yield cells


def _categories(
    title: str, order: Sequence[str], values: Sequence[Sequence[str]]
) -> Iterator[list[Any]]:
    known = [[v for v in own if v] for own in values]
    for name in order:
        cells: list[Any] = [f"{title}: {name}"]
        shares = []
        for every, own in zip(values, known, strict=True):
            count = own.count(name)
            shares.append(count / len(own) if own else math.nan)
            cells += [share(count, len(own)), missing(len(every) - len(own), len(every))]
        a, b = shares
        cells.append(_standardised(a, b, a * (1 - a), b * (1 - b)))
        yield cells


def _standardised(a: float, b: float, variance_a: float, variance_b: float) -> float | None:
    """None where it is not defined: nothing is known, or nothing varies."""
    scale = math.sqrt((variance_a + variance_b) / 2) if variance_a + variance_b >= 0 else math.nan
    if math.isnan(a + b) or math.isnan(scale) or (scale == 0 and a != b):
        return None
    return float((b - a) / scale) if scale else 0.0
