"""Sagittal T1 and T2 of a study, on T1's grid."""

import math
from collections.abc import Mapping

from mskjax.imaging.series import ImageFile
from tfds_builders.images import Images, Wanted, check_files, check_whole
from tfds_builders.paired import check_pair, paired_part, read_pair

WANTED = {"t1": Wanted(("t1",), "sagittal"), "t2": Wanted(("t2",), "sagittal")}
CHANNELS = ("t1", "t2")


def read_images(
    files: Mapping[str, ImageFile], *, pixel_mm: float = math.nan, slice_index: int | None = None
) -> Images:
    """See `CohortBuilder.read_images`; T1 on the canonical axes L, I, P, and T2 sampled on it.

    Packaging does the same, but needs T2 to show no more of T1 than the segment's surroundings.

    Raises:
      UserError: a file cannot be read, its slices are not sagittal, or the two do not fit.
    """
    check_files(files, WANTED)
    check_whole(slice_index)
    pair = read_pair(files, CHANNELS, pixel_mm)
    check_pair(pair)
    return pair.images(paired_part(pair.reference, pair.other, CHANNELS))
