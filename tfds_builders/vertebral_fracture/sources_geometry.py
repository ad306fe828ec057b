"""The abnormal segment of a user's study: where it is on T1, and what surrounds it."""

from pathlib import Path

import numpy as np

from mskjax.errors import UserError
from mskjax.imaging.files import read_mask
from mskjax.imaging.volume import Volume
from tfds_builders.columns import number, whole
from tfds_builders.paired import Place, check_place, place_in
from tfds_builders.tables import Row

BOX_COLUMNS = ("row0", "col0", "row1", "col1")


def find_segment(row: Row, t1: Volume, folder: Path) -> Place:
    """The abnormal segment, from the columns slice and row0 to col1 or from a mask on T1's grid.

    Args:
      row: of studies.csv.
      t1: in canonical order.
      folder: of the raw files.

    Raises:
      UserError: neither or both are given, or the segment is not in the image.
    """
    given = [c for c in BOX_COLUMNS if row.get(c)]
    if row.get("box_mask"):
        if given:
            raise UserError(
                f"box_mask and {', '.join(given)} are both given; keep one way to say where the"
                " segment is."
            )
        return _segment_of_mask(row, t1, folder / row["box_mask"])
    if len(given) < 4 or not row.get("slice"):
        lacking = [c for c in ("slice", *BOX_COLUMNS) if not row.get(c)]
        raise UserError(
            f"the segment lacks {', '.join(lacking)}; fill in slice, row0, col0, row1, col1, or"
            " name a box_mask."
        )
    index = whole(row, "slice", 0, len(t1.data) - 1)
    row0, col0, row1, col1 = (number(row, c, -np.inf) for c in BOX_COLUMNS)
    place = Place(index, (row0, col0, row1, col1))
    check_place(place, t1.data.shape, "T1")
    return place


def surroundings(segment: Place) -> tuple[np.ndarray, np.ndarray]:
    """Lowest and highest index of the box at twice its size, in its slice and those beside it."""
    row0, col0, row1, col1 = segment.box
    tall, wide = (row1 - row0) / 2, (col1 - col0) / 2
    low = np.array([segment.slice - 1, row0 - tall, col0 - wide])
    high = np.array([segment.slice + 2, row1 + tall, col1 + wide])
    return low, high


def _segment_of_mask(row: Row, t1: Volume, path: Path) -> Place:
    mask = read_mask(path, t1).data != 0
    areas = mask.sum(axis=(1, 2))
    index = whole(row, "slice", 0, len(mask) - 1) if row.get("slice") else int(areas.argmax())
    if not areas[index]:
        raise UserError(f"{path}: marks nothing in slice {index}; draw the segment there.")
    return place_in(mask, index)
