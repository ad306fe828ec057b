"""The series of a study, in any plane."""

import math
from collections.abc import Mapping

from mskjax.errors import UserError
from mskjax.imaging.planes import display_axes
from mskjax.imaging.series import ImageFile
from tfds_builders.columns import note_pixel_size
from tfds_builders.images import (
    Images,
    Wanted,
    check_files,
    check_whole,
    image_part,
    is_png,
    read_stored,
)

WANTED = {"image": Wanted(has_place=True)}
CHANNELS = ("image",)


def read_images(
    files: Mapping[str, ImageFile], *, pixel_mm: float = math.nan, slice_index: int | None = None
) -> Images:
    """See `CohortBuilder.read_images`; on the axes of `planes.display_axes`.

    Raises:
      UserError: the file cannot be read, or is a PNG.
    """
    check_files(files, WANTED)
    check_whole(slice_index)
    path = files["image"]
    check_has_place("image", path)
    stored = read_stored(path, pixel_mm)
    note_pixel_size(pixel_mm, stored)
    image = display_axes(stored)
    return Images(image_part(image), image, stored)


def check_has_place(column: str, path: ImageFile) -> None:
    """Refuses a PNG.

    Args:
      column: what the file is.
      path: its name.

    Raises:
      UserError: it is one.
    """
    if is_png(path):
        raise UserError(
            f"{column} is {path}: a PNG is one slice without a place; give the series as .nii.gz,"
            " .mha or DICOM."
        )
