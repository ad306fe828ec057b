"""Reading the tables that come with a cohort: every fault names file, line and column."""

import csv
import math
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from mskjax.errors import UserError

Row = Mapping[str, str]


def read_table(path: Path, required: Sequence[str]) -> list[dict[str, str]]:
    """Rows of a comma-separated table with a header.

    Args:
      path: UTF-8 file, with or without a byte order mark.
      required: columns that must be there.

    Returns:
      One dict a row, column to text; names and values are stripped of outer blanks.  Blank lines
      are skipped.

    Raises:
      UserError: the file is missing, not such a table, lacks a column, or has no row.
    """
    if not path.is_file():
        raise UserError(f"{path} is missing; it needs the columns {', '.join(required)}.")
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            lines = list(csv.reader(file, strict=True))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(
            f"{path} cannot be read as a comma-separated UTF-8 table ({error}); export it again."
        ) from None
    header = [name.strip() for name in lines[0]] if lines else []
    missing = [name for name in required if name not in header]
    if missing:
        raise UserError(
            f"{path} lacks the column {', '.join(missing)}; it has {', '.join(header) or 'none'}."
        )
    repeated = sorted({name for name in header if header.count(name) > 1})
    if repeated:
        raise UserError(f"{path} has the column {', '.join(repeated)} twice; remove one.")
    rows = []
    for number, line in enumerate(lines[1:], start=2):
        if not any(value.strip() for value in line):
            continue
        if len(line) != len(header):
            raise UserError(
                f"{path}, line {number}, has {len(line)} values for {len(header)} columns; mend"
                " the line."
            )
        rows.append({name: value.strip() for name, value in zip(header, line, strict=True)})
    if not rows:
        raise UserError(f"{path} has a header but no rows; fill it in.")
    return rows


def whole(row: Row, column: str, low: int, high: int) -> int:
    """A whole number of a row; ``2.0``, as spreadsheets write it, counts as whole.

    Raises:
      UserError: not a whole number from `low` to `high`.
    """
    text = row[column]
    value = _parse(text)
    if not (value is not None and value.is_integer() and low <= value <= high):
        raise UserError(f"{column} is {text!r}; it must be a whole number, {low} to {high}.")
    return int(value)


def number(row: Row, column: str, low: float = 0.0, high: float = math.inf) -> float:
    """A number of a row; NaN where the column or its value is missing.

    Raises:
      UserError: not a number from `low` to `high`.
    """
    text = row.get(column, "")
    if not text:
        return math.nan
    value = _parse(text)
    if value is None or not low <= value <= high:
        raise UserError(f"{column} is {text!r}; it must be a number, {low:g} to {high:g}.")
    return value


def choice(row: Row, column: str, allowed: Collection[str]) -> str:
    """One of a few words; empty where the column or its value is missing.

    Raises:
      UserError: another word.
    """
    text = row.get(column, "")
    if text and text not in allowed:
        raise UserError(f"{column} is {text!r}; it must be {', '.join(allowed)} or empty.")
    return text


def _parse(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None
