"""Image files of one study in, the image part of a study out: no table, no mask, no grade.

How files become a study's images is said once a cohort, in `CohortBuilder.read_images`.  Packaging
adds what tables and masks say; a new study of which nothing is known needs no more than this.
"""

import dataclasses
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import numpy as np

from mskjax.errors import UserError
from mskjax.imaging.files import read_volume
from mskjax.imaging.series import ImageFile
from mskjax.imaging.volume import Grid, Volume
from tfds_builders.raw import Example

Weighting = Literal["t1", "t2", "pd"]
Plane = Literal["sagittal", "y-view"]


@dataclasses.dataclass(frozen=True)
class Wanted:
    """What one image of a study must show, so that it can be found among the series of a study.

    Attributes:
      weightings: of the sequences that serve, the first the best; empty where any does.
      plane: of its slices; None where any does.
      optional: whether a study may lack it.
      has_place: whether it must lie in a known place, which a PNG does not.
    """

    weightings: tuple[Weighting, ...] = ()
    plane: Plane | None = None
    optional: bool = False
    has_place: bool = False


@dataclasses.dataclass(frozen=True)
class Images:
    """The images of one study.

    Attributes:
      part: as it is packaged: each volume, (S, H, W) float32, and what `grid_part` says of their
        common grid.  With ``patient_id`` and ``study_id`` it is a study that systems read.
      volume: the image that gives the grid, on that grid; voxels as stored, with the header.
      stored: the same image as its file has it, all slices in their stored order: the grid on
        which masks of it are drawn.
    """

    part: Example
    volume: Volume
    stored: Volume


def grid_part(image: Volume) -> Example:
    """What a study says of its grid.

    ``affine``, (4, 4) float64, index to RAS mm; ``pixel_size_known``, whether mm are true; and
    ``stored_affine``, ``stored_shape`` of the file that the image was read from.
    """
    stored = image.meta.get("grid", Grid(image.data.shape, image.affine))
    return {
        "affine": image.affine,
        "pixel_size_known": bool(image.meta.get("pixel_size_known", True)),
        "stored_affine": stored.affine,
        "stored_shape": np.array(stored.shape, np.int32),
    }


def image_part(image: Volume) -> Example:
    """The image part of a study of one series, on the axes of the cohort."""
    return {**grid_part(image), "image": np.ascontiguousarray(image.data, np.float32)}


def read_stored(path: ImageFile, pixel_mm: float) -> Volume:
    """An image as its file has it.

    Args:
      path: any format of `read_volume`.
      pixel_mm: pixel size of a PNG; NaN where it is not given.

    Raises:
      UserError: the file cannot be read.
    """
    return read_volume(path, spacing=None if math.isnan(pixel_mm) else (pixel_mm, pixel_mm))


def check_files(files: Mapping[str, ImageFile], wanted: Mapping[str, Wanted]) -> None:
    """Whether the named files are those that a cohort reads.

    Args:
      files: name of the volume to its file.
      wanted: the cohort's volumes.

    Raises:
      UserError: one is missing, or is none of the cohort's.
    """
    needed = [name for name, channel in wanted.items() if not channel.optional]
    if missing := [name for name in needed if name not in files]:
        raise UserError(
            f"a study needs {' and '.join(needed)}, but {' and '.join(missing)} is not among the"
            f" files ({', '.join(files) or 'none'}); name its file."
        )
    if unknown := [name for name in files if name not in wanted]:
        raise UserError(
            f"{', '.join(unknown)} is no image of a study ({', '.join(wanted)}); leave it out."
        )


def is_png(path: ImageFile) -> bool:
    """Whether an image is a PNG, which says neither its place nor the size of its pixels."""
    return isinstance(path, Path) and path.suffix.lower() == ".png"


def check_whole(slice_index: int | None) -> None:
    """Refuses the number of a slice where series are read whole.

    Raises:
      UserError: one is given.
    """
    if slice_index is not None:
        raise UserError(
            f"slice is {slice_index}, but all slices of the series are read; leave slice out."
        )
