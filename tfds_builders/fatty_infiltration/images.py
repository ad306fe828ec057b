"""The Y-view of a study: the slice of a series that is meant, upright."""

import math
from collections.abc import Mapping

from mskjax.errors import UserError
from mskjax.imaging.planes import one_slice, y_view, y_view_axis
from mskjax.imaging.series import ImageFile
from mskjax.imaging.volume import Volume
from tfds_builders.columns import note_pixel_size
from tfds_builders.images import Images, Wanted, check_files, image_part, read_stored

WANTED = {"image": Wanted(("t1", "pd"), "y-view")}
CHANNELS = ("image",)


def read_images(
    files: Mapping[str, ImageFile], *, pixel_mm: float = math.nan, slice_index: int | None = None
) -> Images:
    """See `CohortBuilder.read_images`; the one slice of a Y-view, on the axes of `y_view`.

    Raises:
      UserError: the file cannot be read, which of its slices is meant is open, or it shows another
        plane.
    """
    check_files(files, WANTED)
    path = files["image"]
    stored = read_stored(path, pixel_mm)
    note_pixel_size(pixel_mm, stored)
    image = upright(stored, slice_index, path)
    return Images(image_part(image), image, stored)


def upright(series: Volume, slice_index: int | None, path: ImageFile) -> Volume:
    """The Y-view of a series or of its mask.

    Args:
      series: as stored.
      slice_index: of the Y-view, 0 being the first as stored; None where there is one slice.
      path: for the message.

    Raises:
      UserError: there are several slices and none is given, the given one is not among them, or
        they show another plane.
    """
    axis = y_view_axis(series)
    count = series.data.shape[axis]
    if slice_index is None and count > 1:
        raise UserError(
            f"{path}: has {count} slices and it is not said which is the Y-view; give slice a"
            f" number, 0 to {count - 1}."
        )
    if slice_index is not None and not 0 <= slice_index < count:
        raise UserError(
            f"{path}: slice is {slice_index}, but the file has {count}; it must be 0 to"
            f" {count - 1}."
        )
    return y_view(one_slice(series, axis, slice_index or 0), path)
