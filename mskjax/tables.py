"""Tables of rows as CSV: cases.csv is written and read here alone."""

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

Row = dict[str, Any]


def write_rows(path: Path, rows: Sequence[Row]) -> None:
    """Writes a table whose columns are the union of the rows' keys, in order of appearance.

    The file appears under its name only when complete.
    """
    columns = list(dict.fromkeys(k for row in rows for k in row))
    temporary = path.with_suffix(".tmp")
    with temporary.open("w", newline="") as file:
        writer = csv.DictWriter(file, columns, restval="")
        writer.writeheader()
        writer.writerows(rows)
    temporary.replace(path)


def read_rows(path: Path) -> list[Row]:
    """Rows of a table, all values as text."""
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def floats(rows: Sequence[Row], column: str) -> np.ndarray:
    """(N,) float64 values of a column; NaN where a row has none."""
    return np.array([float(v) if (v := r.get(column)) not in ("", None) else np.nan for r in rows])
