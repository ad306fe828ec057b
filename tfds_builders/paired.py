"""Sagittal series: read in canonical order, checked in pairs, and places in them.

Two series of a study are brought onto one grid by their headers alone, so headers must fit.
"""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from mskjax.errors import UserError
from mskjax.imaging.geometry import reorient, resample_to, shift_affine
from mskjax.imaging.planes import doubt_of, is_isotropic, note_other_slices, slice_axis
from mskjax.imaging.series import ImageFile
from mskjax.imaging.volume import Volume
from tfds_builders.columns import absence, note_pixel_size
from tfds_builders.images import Images, grid_part, is_png, read_stored
from tfds_builders.raw import Example, Ledger
from tfds_builders.tables import Row

LEAST_OVERLAP = 0.5  # share of the place looked at that the other series must show


@dataclasses.dataclass(frozen=True)
class Place:
    """Where something is seen, in canonical (L, I, P) order.

    Attributes:
      slice: index of the slice.
      box: row0, col0, row1, col1 in pixels of that slice, half-open.
    """

    slice: int
    box: tuple[float, float, float, float]


@dataclasses.dataclass(frozen=True)
class Pair:
    """Two sagittal series of a study, each in canonical order on its own grid.

    Attributes:
      files: of the two, the reference first.
      reference: the series whose grid the study has.
      other: to be sampled on that grid; None where a study lacks it.
      stored: the reference as its file has it.
    """

    files: tuple[ImageFile, ...]
    reference: Volume
    other: Volume | None
    stored: Volume

    def images(self, part: Example) -> Images:
        """The pair as the images of a study whose image part is given."""
        return Images(part, self.reference, self.stored)


def check_place(place: Place, shape: Sequence[int], name: str) -> None:
    """Whether a box holds something of an image.

    Args:
      place: of the box.
      shape: (S, H, W) of the image.
      name: of the series, for the message.

    Raises:
      UserError: its area is zero, or it leaves the image.
    """
    slices, height, width = shape
    row0, col0, row1, col1 = place.box
    if row1 <= row0 or col1 <= col0:
        raise UserError(
            f"the box is empty: rows {row0:g} to {row1:g}, columns {col0:g} to {col1:g}; its end is"
            " the first row and column beyond what it holds."
        )
    if not 0 <= place.slice < slices:
        raise UserError(f"slice is {place.slice}; {name} has the slices 0 to {slices - 1}.")
    if row0 < 0 or col0 < 0 or row1 > height or col1 > width:
        raise UserError(
            f"the box (rows {row0:g} to {row1:g}, columns {col0:g} to {col1:g}) leaves the {name}"
            f" slice of {height} rows and {width} columns; count as README.md says."
        )


def place_in(marked: np.ndarray, index: int) -> Place:
    """The box of what is marked in a slice.

    Args:
      marked: (S, H, W) bool, with something marked in that slice.
      index: of the slice.
    """
    rows, cols = np.nonzero(marked[index])
    box = rows.min(), cols.min(), rows.max() + 1, cols.max() + 1
    return Place(index, (float(box[0]), float(box[1]), float(box[2]), float(box[3])))


def pair_files(
    row: Row, columns: Sequence[str], folder: Path, where: str, ledger: Ledger
) -> tuple[Path, ...]:
    """The files that a row of studies.csv names; none if one is missing.

    Args:
      row: of studies.csv.
      columns: those of the two series, t1 and t2 in any order, then others.
      folder: of the raw files.
      where: the row, for the ledger.
      ledger: takes every missing file.

    Raises:
      UserError: both series are one file.
    """
    faults = [fault for column in columns if (fault := absence(row, column, folder))]
    ledger.bad += [(where, fault) for fault in faults]
    if faults:
        return ()
    files = tuple(folder / row[column] for column in columns)
    if files[0].resolve() == files[1].resolve():
        raise UserError(
            f"study {row['study_id']!r} has {row['t1']} as its t1 and its t2; name two series."
        )
    return files


def read_series(path: ImageFile, name: str = "", pixel_mm: float = math.nan) -> Volume:
    """A sagittal series on the canonical axes L, I, P: see `read_stored` and `sagittal`."""
    return sagittal(read_stored(path, pixel_mm), path, name)


def sagittal(stored: Volume, path: ImageFile, name: str = "") -> Volume:
    """A sagittal series on the canonical axes L, I, P.

    Args:
      stored: as its file has it.
      path: of that file.
      name: what the table calls it, for the message.

    Raises:
      UserError: its slices are not sagittal; an isotropic volume has no slices of its own.
    """
    volume = reorient(stored)
    if is_isotropic(volume):
        note_other_slices(volume, 0, path)
    elif len(volume.data) > 1 and slice_axis(volume) != 0:
        which = f" of this {name}" if name else ""
        raise UserError(
            f"{path}: the slices{which} are not sagittal (their normal is closest to axis"
            f" {'LIP'[slice_axis(volume)]}); give the sagittal series{doubt_of(volume)}."
        )
    return volume


def read_pair(files: Mapping[str, ImageFile], channels: tuple[str, str], pixel_mm: float) -> Pair:
    """Two series of a study.

    Args:
      files: name of the series to its file, in any format of `read_volume`; the second may lack.
      channels: names of the reference and of the other series.
      pixel_mm: pixel size of a PNG; NaN where it is not given.

    Raises:
      UserError: as `read_series`.
    """
    first, second = channels
    stored = read_stored(files[first], pixel_mm)
    reference = sagittal(stored, files[first], first)
    other = read_series(files[second], second, pixel_mm) if second in files else None
    note_pixel_size(pixel_mm, reference)
    paths = tuple(files[name] for name in channels if name in files)
    return Pair(paths, reference, other, stored)


def paired_part(reference: Volume, other: Volume | None, channels: tuple[str, str]) -> Example:
    """The image part of a study of two series.

    Args:
      reference: in canonical order.
      other: in any order, in the space of `reference`; None where there is none.
      channels: names of the two.

    Returns:
      The two on the grid of `reference`, the other one sampled, linearly, at its voxel centres, or
      0 where there is none; and the grid.
    """
    first, second = channels
    grid = reference.data.shape, reference.affine
    matched = np.zeros(grid[0]) if other is None else resample_to(other.data, other.affine, *grid)
    return {
        **grid_part(reference),
        first: np.ascontiguousarray(reference.data, np.float32),
        second: np.ascontiguousarray(matched, np.float32),
    }


def check_pair(
    pair: Pair, place: tuple[np.ndarray, np.ndarray] | None = None, name: str = "the image"
) -> None:
    """Whether the second series shows what the first one shows, as far as headers can say.

    Args:
      pair: as read; one without its other series is not looked at.
      place: lowest and highest index, (3,) each and half-open, of what is looked at in the
        reference; the whole image where it is not known.
      name: of the place, for the message.

    Raises:
      UserError: the two are one image, lie in different spaces, do not overlap, or the second shows
        less than half of the place.
    """
    reference, other = pair.reference, pair.other
    if other is None:
        return
    first, second = pair.files
    boxed = "" if place is None else "what was boxed, and "
    place = place or (np.zeros(3), np.array(reference.data.shape))
    if np.array_equal(reference.data, other.data):
        raise UserError(f"{second} holds the same image as {first}; name two series.")
    flat = [is_png(path) for path in (first, second)]
    if any(flat) and (not all(flat) or reference.data.shape != other.data.shape):
        raise UserError(
            f"{first} and {second} cannot be matched: a PNG does not say where it lies, so give two"
            " PNGs of equal size, or a format with a header for both."
        )
    frames = [_frame_of_reference(volume) for volume in (reference, other)]
    if all(frames) and frames[0] != frames[1]:
        raise UserError(
            f"{first} and {second} have different frames of reference, so the patient was moved"
            " between them; register one to the other and give both as NIfTI."
        )
    if not _shown(other, reference.affine, reference.data.shape):
        raise UserError(f"{first} and {second} do not overlap; check that they are of one study.")
    low = np.maximum(np.floor(place[0]), 0).astype(int)
    high = np.minimum(np.ceil(place[1]), reference.data.shape).astype(int)
    share = _shown(other, shift_affine(reference.affine, low.tolist()), high - low)
    if share < LEAST_OVERLAP:
        raise UserError(
            f"{second} shows only {share:.0%} of {name} in {first}; {LEAST_OVERLAP:.0%} are needed:"
            f" check {boxed}that both are of one study."
        )


def _shown(volume: Volume, affine: np.ndarray, shape: Sequence[int] | np.ndarray) -> float:
    """Share of a grid's voxel centres that lie inside a volume."""
    inside = np.ones(volume.data.shape, np.uint8)
    return float(resample_to(inside, volume.affine, tuple(shape), affine, order=0).mean())


def _frame_of_reference(volume: Volume) -> str:
    """UID of the coordinate system of a DICOM series; empty for other formats."""
    return str(volume.meta.get("frame_of_reference_uid", ""))
