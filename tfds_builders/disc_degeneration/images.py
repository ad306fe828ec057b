"""The sagittal T2 series of a study."""

import math
from collections.abc import Mapping

from mskjax.imaging.series import ImageFile
from tfds_builders.columns import note_pixel_size
from tfds_builders.images import Images, Wanted, check_files, check_whole, image_part, read_stored
from tfds_builders.paired import sagittal

WANTED = {"image": Wanted(("t2",), "sagittal")}
CHANNELS = ("image",)


def read_images(
    files: Mapping[str, ImageFile], *, pixel_mm: float = math.nan, slice_index: int | None = None
) -> Images:
    """See `CohortBuilder.read_images`; on the canonical axes L, I, P.

    Raises:
      UserError: the file cannot be read, or its slices are not sagittal.
    """
    check_files(files, WANTED)
    check_whole(slice_index)
    path = files["image"]
    stored = read_stored(path, pixel_mm)
    image = sagittal(stored, path)
    note_pixel_size(pixel_mm, image)
    return Images(image_part(image), image, stored)
