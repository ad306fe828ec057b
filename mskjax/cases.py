"""The columns of cases.csv, the one table that all figures of a report come from (docs/cases.md).

A row is a structure of a study, what a study's regions are, a box, or a graded case.  A cell is
empty where there is nothing to say: a region that was not found has no call and no probability,
and what that costs is decided where figures are computed (`metrics.grading`).
"""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from mskjax.errors import UserError
from mskjax.metrics.grading import Grading
from mskjax.tables import Row, floats, read_rows, write_rows

MODEL = "model"  # the method of a system that compares none

_WHO = ("fold", "seed", "patient", "study", "kind", "name", "case", "level", "side", "method")
_STRUCTURE = (
    "dice", "iou", "ppv", "sensitivity", "pixel_accuracy", "nsd", "hd95", "assd", "dice_ceiling",
    "loss",
)  # fmt: skip
_REGIONS = (
    "regions_reference", "regions_found", "regions_extra", "levels_right", "gaps", "left_out",
    "graded", "graded_without_region", "box_iou", "slice_error_mm",
)  # fmt: skip
_BOX = ("score", "row0", "col0", "row1", "col1")
_CASE = ("boxed", "in_image", "found", "level_found", "map_correlation", "wrong")
_SUBGROUPS = ("sex", "age", "manufacturer", "field_strength_t")
FIXED = (*_WHO, *_STRUCTURE, *_REGIONS, *_BOX, *_CASE, *_SUBGROUPS)
KINDS = ("structure", "regions", "detection", "box", "grade")
_PATTERN = re.compile(
    r"(reference|call)_\w+|(oracle_)?p_\w+|baseline_(majority|ridge)_\w+|(reader|aided|finding)_.+"
)
_NUMBERS = re.compile(r"(oracle_)?p_\w+|baseline_ridge_\w+")
_FIXED_NUMBERS = {"seed", *_STRUCTURE, *_REGIONS, *_BOX, *_CASE, "age", "field_strength_t"}
_SHOWN = 5  # problems in a message


def write(path: Path, rows: Sequence[Row]) -> None:
    """Writes rows of the schema; the file appears under its name only when complete.

    Raises:
      ValueError: a row is not of the schema.
    """
    try:
        check(rows, path)
    except UserError as error:
        raise ValueError(str(error)) from error
    write_rows(path, rows)


def read(path: Path) -> list[Row]:
    """Rows of cases.csv, all values as text.

    Raises:
      UserError: they are not of the schema.
    """
    rows = read_rows(path)
    check(rows, path)
    return rows


def check(rows: Sequence[Row], where: Any) -> None:
    """Whether rows keep to the schema.

    Args:
      rows: of cases.csv, with all their columns.
      where: the file, for the message.

    Raises:
      UserError: a column, a kind or a number is not of the schema, or a row does not say whose it
        is; with the first few of such rows.
    """
    columns = {k for row in rows for k in row if k is not None}
    unknown = {k for k in columns if k not in FIXED and not _PATTERN.fullmatch(k)}
    if unknown:
        raise UserError(
            f"{where}: unknown column {', '.join(sorted(unknown))}; docs/cases.md lists what"
            " cases.csv holds, and another version may have written it."
        )
    numbers = [k for k in columns if k in _FIXED_NUMBERS or _NUMBERS.fullmatch(k)]
    problems = [
        f"line {number}: {problem}"
        for number, row in enumerate(rows, start=2)
        for problem in _problems(row, numbers)
    ]
    if problems:
        more = f"; and {len(problems) - _SHOWN} more" if len(problems) > _SHOWN else ""
        raise UserError(f"{where}, {'; '.join(problems[:_SHOWN])}{more}.")


def _problems(row: Row, numbers: Sequence[str]) -> list[str]:
    """What is wrong with a row, given the columns that hold numbers."""
    found = [f"{name} is empty" for name in ("patient", "study") if not row.get(name)]
    if None in row:  # as csv.DictReader says it
        found.append("more cells than the table has columns")
    if row.get("kind") not in KINDS:
        found.append(f"kind is {row.get('kind')!r}, not one of {', '.join(KINDS)}")
    if not str(row.get("fold", "")).isdigit():
        found.append(f"fold is {row.get('fold')!r}, not the number of a fold")
    for name in numbers:
        try:
            float(row.get(name) or 0)
        except ValueError:
            found.append(f"{name} is {row[name]!r}, not a number")
    return found


def called(grading: Grading, found: Mapping[str, np.ndarray | None]) -> Row:
    """The columns that say what is predicted of one case.

    Args:
      grading: see `metrics.grading`.
      found: method -> (K,) probabilities on the region that was found; None where none was.  The
        call is that of the first method.
    """
    first = next(iter(found.values()))
    if first is None:
        return {}
    # Of the probability that is written: whoever reads the table comes to the same call.
    written = np.array([[_rounded(v) for v in first]])
    call = grading.classes[int(grading.calls(written)[0])]
    return {f"call_{grading.task}": call, **_probabilities("p", grading, found)}


def cells(
    grading: Grading,
    reference: int,
    found: Mapping[str, np.ndarray | None],
    oracle: Mapping[str, np.ndarray | None],
    baselines: Mapping[str, float | None],
) -> Row:
    """The columns of one grading of one case.

    Args:
      grading: see `metrics.grading`.
      reference: class, or -1 where the case has no label of this task.
      found: see `called`.
      oracle: the same on the reference region; None where there is no such region.
      baselines: ``majority``, a class, and ``ridge``, a score on the scale of class numbers; None
        where there is none.
    """
    row: Row = {f"reference_{grading.task}": grading.classes[reference] if reference >= 0 else ""}
    row |= called(grading, found) | _probabilities("oracle_p", grading, oracle)
    if (majority := baselines.get("majority")) is not None:
        row[f"baseline_majority_{grading.task}"] = grading.classes[int(majority)]
    if (ridge := baselines.get("ridge")) is not None:
        row[f"baseline_ridge_{grading.task}"] = _rounded(ridge)
    return row


def _probabilities(prefix: str, grading: Grading, methods: Mapping[str, np.ndarray | None]) -> Row:
    return {
        f"{prefix}_{method}_{grading.task}_{name}": _rounded(v)
        for method, p in methods.items()
        if p is not None
        for name, v in zip(grading.classes, p, strict=True)
    }


def _rounded(value: Any) -> float:
    return round(float(value), 6)


class Graded(NamedTuple):
    """The cases of one grading, from rows of cases.csv.

    Attributes:
      rows: N rows with a label of the task.
      patients: N patient ids.
      reference: (N,) int32 classes.
    """

    rows: Sequence[Row]
    patients: list[str]
    reference: np.ndarray

    def probabilities(self, grading: Grading, method: str, oracle: bool = False) -> np.ndarray:
        """(N, K) float64; NaN in the rows of missed regions."""
        prefix = "oracle_p" if oracle else "p"
        columns = [f"{prefix}_{method}_{grading.task}_{name}" for name in grading.classes]
        return np.stack([floats(self.rows, column) for column in columns], 1)

    def baseline(self, grading: Grading, name: str) -> np.ndarray:
        """(N,) float64: class numbers of ``majority``, scores of ``ridge``; NaN where missed."""
        column = f"baseline_{name}_{grading.task}"
        if name == "ridge":
            return floats(self.rows, column)
        known = [r.get(column, "") for r in self.rows]
        return np.array([grading.classes.index(v) if v else np.nan for v in known], np.float64)


def graded(rows: Sequence[Row], grading: Grading) -> Graded:
    """The rows of ``kind`` grade that have a label of the task.

    Raises:
      UserError: a label, a call or a baseline is no class of the grading.
    """
    column = f"reference_{grading.task}"
    own = [r for r in rows if r["kind"] == "grade" and r.get(column)]
    for name in (column, f"call_{grading.task}", f"baseline_majority_{grading.task}"):
        if unknown := sorted({r[name] for r in own if r.get(name)} - set(grading.classes)):
            raise UserError(
                f"cases.csv: {name} is {unknown[0]!r}; it must be one of"
                f" {', '.join(grading.classes)}."
            )
    reference = np.array([grading.classes.index(r[column]) for r in own], np.int32)
    return Graded(own, [r["patient"] for r in own], reference)
