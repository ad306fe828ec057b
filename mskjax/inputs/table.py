"""A table of studies: which file is which channel, said in full."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from mskjax.errors import UserError
from mskjax.imaging.limits import PIXEL_MM
from tfds_builders.columns import pixel_size, whole
from tfds_builders.images import Wanted
from tfds_builders.tables import Row, nearest, read_table

_MOST_SLICES = 100_000


@dataclass(frozen=True)
class Listed:
    """One row.

    Attributes:
      name: of the study.
      files: channel to file or folder.
      pixel_mm: pixel size of a PNG; NaN where it is not given.
      slice_index: of the slice that is meant, from 0; None where it is not given.
      why: what is wrong with the row; it says nothing of names.  Empty where nothing is.
    """

    name: str
    files: Mapping[str, Path] = field(default_factory=dict)
    pixel_mm: float = float("nan")
    slice_index: int | None = None
    why: str = ""


def read_listed(path: Path, needs: Mapping[str, Wanted]) -> list[Listed]:
    """Rows of a table with the columns ``study``, a channel each, and ``pixel_mm`` and ``slice``.

    Paths are relative to the table's folder.  A row that is wrong says so and stops no other.

    Raises:
      UserError: the table cannot be read, lacks a column, or has one that is not known.
    """
    required = [name for name, wanted in needs.items() if not wanted.optional]
    optional = [name for name, wanted in needs.items() if wanted.optional]
    rows = read_table(path, ("study", *required))
    known = ("study", *needs, "pixel_mm", "slice")
    if unknown := [name for name in rows[0] if name not in known]:
        near = nearest(unknown[0], known)
        raise UserError(
            f"{path} has a column {unknown[0]!r}, which is not known; "
            + (f"did you mean {near!r}?" if near else f"columns are {', '.join(known)}.")
        )
    seen: dict[str, int] = {}
    listed = []
    for number, row in enumerate(rows, start=1):
        name = row["study"]
        try:
            if not name:
                raise UserError("has no study; fill it in.")
            if name in seen:
                raise UserError(f"is the study of row {seen[name]}; give every study its own name.")
            seen[name] = number
            listed.append(_row(row, path.parent, required, optional))
        except UserError as error:
            listed.append(Listed(name, why=f"row {number} {error}"))
    return listed


def _row(row: Row, folder: Path, required: list[str], optional: list[str]) -> Listed:
    files = {c: folder / row[c] for c in (*required, *optional) if row.get(c)}
    for channel in required:
        if channel not in files:
            raise UserError(f"has no {channel}; fill in its path.")
    for channel, path in files.items():
        if "\0" in str(path) or not path.exists():
            raise UserError(f"has a {channel} that does not exist; check the path.")
        if not (path.is_file() or path.is_dir()):
            raise UserError(f"has a {channel} that is neither a file nor a folder.")
    try:
        pixel_mm = pixel_size(row, "pixel_mm")
    except UserError as error:
        low, high = PIXEL_MM
        raise UserError(f"has a pixel_mm that is no number from {low:g} to {high:g}.") from error
    try:
        index = whole(row, "slice", 0, _MOST_SLICES) if row.get("slice") else None
    except UserError as error:
        raise UserError("has a slice that is no whole number from 0 on.") from error
    return Listed(row["study"], files, pixel_mm, index)
