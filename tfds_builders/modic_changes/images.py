"""Sagittal T2 and T1 of a study, on T2's grid."""

import math
from collections.abc import Mapping

from mskjax.imaging.series import ImageFile
from mskjax.imaging.volume import Volume
from tfds_builders.images import Images, Wanted, check_files, check_whole
from tfds_builders.paired import check_pair, paired_part, read_pair
from tfds_builders.raw import Example

WANTED = {
    "t2": Wanted(("t2",), "sagittal"),
    "t1": Wanted(("t1",), "sagittal", optional=True),
}
CHANNELS = ("t2", "t1")


def read_images(
    files: Mapping[str, ImageFile], *, pixel_mm: float = math.nan, slice_index: int | None = None
) -> Images:
    """See `CohortBuilder.read_images`; T2 on the canonical axes L, I, P, and T1 sampled on it.

    T1 may be left out.  Packaging does the same, but needs T1 to show no more of T2 than the region
    of the discs.

    Raises:
      UserError: a file cannot be read, its slices are not sagittal, or the two do not fit.
    """
    check_files(files, WANTED)
    check_whole(slice_index)
    pair = read_pair(files, CHANNELS, pixel_mm)
    check_pair(pair)
    return pair.images(part(pair.reference, pair.other))


def part(t2: Volume, t1: Volume | None) -> Example:
    """The image part of a study; T1 is sampled, linearly, at T2's voxel centres.

    Args:
      t2: in canonical order.
      t1: in any order, in T2's space; None where there is none, which ``has_t1`` says.
    """
    return {**paired_part(t2, t1, CHANNELS), "has_t1": t1 is not None}
