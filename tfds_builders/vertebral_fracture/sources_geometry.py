"""The geometry of a user's T1, T2 and abnormal segment: read, and checked against each other."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pydicom

from mskjax.errors import UserError
from mskjax.imaging.files import read_mask, read_volume
from mskjax.imaging.geometry import reorient, resample_to, shift_affine, slice_axis
from mskjax.imaging.volume import Volume
from tfds_builders.tables import Row, number, whole
from tfds_builders.vertebral_fracture.sources import Segment

BOX_COLUMNS = ("row0", "col0", "row1", "col1")
LEAST_OVERLAP = 0.5  # share of the surroundings of the box that T2 must show


def read_series(path: Path, name: str, spacing_mm: float | None = None) -> Volume:
    """A sagittal series on the canonical axes L, I, P.

    Args:
      path: any format of `read_volume`.
      name: what the table calls it, for the message.
      spacing_mm: pixel size of a PNG.

    Raises:
      UserError: the file cannot be read, or its slices are not sagittal.
    """
    spacing = None if spacing_mm is None else (spacing_mm, spacing_mm)
    volume = reorient(read_volume(path, spacing=spacing))
    if len(volume.data) > 1 and slice_axis(volume) != 0:
        raise UserError(
            f"{path}: the slices of this {name} are not sagittal (their normal is closest to axis"
            f" {'LIP'[slice_axis(volume)]}); give the sagittal series."
        )
    return volume


def find_segment(row: Row, t1: Volume, folder: Path) -> Segment:
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
    place = whole(row, "slice", 0, len(t1.data) - 1)
    row0, col0, row1, col1 = (number(row, c, -np.inf) for c in BOX_COLUMNS)
    height, width = t1.data.shape[1:]
    if row1 <= row0 or col1 <= col0:
        raise UserError(
            f"the box is empty: rows {row0:g} to {row1:g}, columns {col0:g} to {col1:g}; row1 and"
            " col1 are the first row and column beyond the segment."
        )
    if row0 < 0 or col0 < 0 or row1 > height or col1 > width:
        raise UserError(
            f"the box (rows {row0:g} to {row1:g}, columns {col0:g} to {col1:g}) leaves the T1 slice"
            f" of {height} rows and {width} columns; count as README.md says."
        )
    return Segment(place, (row0, col0, row1, col1))


def _segment_of_mask(row: Row, t1: Volume, path: Path) -> Segment:
    mask = read_mask(path, t1).data != 0
    areas = mask.sum(axis=(1, 2))
    place = whole(row, "slice", 0, len(mask) - 1) if row.get("slice") else int(areas.argmax())
    if not areas[place]:
        raise UserError(f"{path}: marks nothing in slice {place}; draw the segment there.")
    rows, cols = (np.flatnonzero(mask[place].any(axis=axis)) for axis in (1, 0))
    return Segment(place, (rows[0], cols[0], rows[-1] + 1, cols[-1] + 1))


def check_pair(t1: Volume, t2: Volume, segment: Segment, files: Sequence[Path]) -> None:
    """Whether T2 shows what T1 shows, as far as headers can say.

    Args:
      t1: in canonical order.
      t2: in canonical order.
      segment: on T1's grid.
      files: of T1 and T2.

    Raises:
      UserError: the two are one image, lie in different spaces, or T2 shows less than half of the
        surroundings of the segment: the box at twice its size, in its slice and the two beside it.
    """
    first, second = files[:2]
    if np.array_equal(t1.data, t2.data):
        raise UserError(f"{second} holds the same image as {first}; name two series.")
    flat = [path.suffix.lower() == ".png" for path in (first, second)]
    if any(flat) and (not all(flat) or t1.data.shape != t2.data.shape):
        raise UserError(
            f"{first} and {second} cannot be matched: a PNG does not say where it lies, so give two"
            " PNGs of equal size, or a format with a header for both."
        )
    frames = [_frame_of_reference(volume) for volume in (t1, t2)]
    if all(frames) and frames[0] != frames[1]:
        raise UserError(
            f"{first} and {second} have different frames of reference, so the patient was moved"
            " between them; register T2 to T1 and give both as NIfTI."
        )
    whole_t1 = _shown(t2, t1.affine, t1.data.shape)
    if not whole_t1:
        raise UserError(f"{first} and {second} do not overlap; check that they are of one study.")
    share = _shown(t2, *_surroundings(t1, segment))
    if share < LEAST_OVERLAP:
        raise UserError(
            f"{second} shows only {share:.0%} of the surroundings of the segment in {first};"
            f" {LEAST_OVERLAP:.0%} are needed: check the box, and that both are of one study."
        )


def _surroundings(t1: Volume, segment: Segment) -> tuple[np.ndarray, tuple[int, ...]]:
    """Affine and shape of T1 cut to the box at twice its size and the slices beside it."""
    row0, col0, row1, col1 = segment.box
    tall, wide = (row1 - row0) / 2, (col1 - col0) / 2
    low = np.array([segment.slice - 1, row0 - tall, col0 - wide])
    high = np.array([segment.slice + 2, row1 + tall, col1 + wide])
    low = np.maximum(np.floor(low), 0).astype(int)
    high = np.minimum(np.ceil(high), t1.data.shape).astype(int)
    return shift_affine(t1.affine, low), tuple(int(n) for n in high - low)


def _shown(volume: Volume, affine: np.ndarray, shape: Sequence[int]) -> float:
    """Share of a grid's voxel centres that lie inside a volume."""
    inside = np.ones(volume.data.shape, np.uint8)
    return float(resample_to(inside, volume.affine, shape, affine, order=0).mean())


def _frame_of_reference(volume: Volume) -> str:
    """UID of the coordinate system of a DICOM series; empty for other formats."""
    files = volume.meta.get("files")
    if not files:
        return ""
    header = pydicom.dcmread(
        files[0], stop_before_pixels=True, specific_tags=["FrameOfReferenceUID"]
    )
    return str(header.get("FrameOfReferenceUID", ""))
