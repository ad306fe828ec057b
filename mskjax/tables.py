"""Tables of rows as CSV: cases.csv is written and read here alone."""

import csv
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mskjax import roles
from mskjax.writers import write_text

Row = dict[str, Any]


def write_rows(path: Path, rows: Sequence[Row]) -> None:
    """Writes a table whose columns are the union of the rows' keys, in order of appearance.

    The file appears under its name only when complete.
    """
    columns = list(dict.fromkeys(k for row in rows for k in row))
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, columns, restval="")
    writer.writeheader()
    writer.writerows(rows)
    write_text(path, text.getvalue())


def read_rows(path: Path) -> list[Row]:
    """Rows of a table, all values as text."""
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def as_text(rows: Sequence[Row]) -> list[Row]:
    """Rows as they come back from a file."""
    return [{k: "" if v is None else str(v) for k, v in row.items()} for row in rows]


def append(path: Path, rows: Sequence[Row]) -> None:
    """Adds rows that belong together, as text, to a file that `appended` reads.

    Nothing that is in the file is written again, and what a kill left of a line is removed.
    """
    if not roles.is_first():
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    text = as_text(rows)
    with path.open("a+b") as file:
        if end := file.tell():
            file.seek(end - 1)
            if file.read(1) != b"\n":
                file.truncate(len(_whole_lines(path)))
        file.write(json.dumps(text).encode() + b"\n")


def appended(path: Path) -> list[Row]:
    """The rows of a file of `append`, all values as text; none where there is no file."""
    lines = _whole_lines(path).splitlines() if path.exists() else []
    return [row for line in lines for row in json.loads(line)]


def _whole_lines(path: Path) -> bytes:
    content = path.read_bytes()
    return content[: content.rfind(b"\n") + 1]


def floats(rows: Sequence[Row], column: str) -> np.ndarray:
    """(N,) float64 values of a column; NaN where a row has none."""
    return np.array([float(v) if (v := r.get(column)) not in ("", None) else np.nan for r in rows])
