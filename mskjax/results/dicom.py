"""The DICOM objects of a study, from stand-ins of its images (`sources`)."""

from typing import Any, NamedTuple

from mskjax.results.result import Result
from mskjax.results.segmentation import segmentation
from mskjax.results.sources import Uids, by_channel, identify
from mskjax.results.structured_report import Segments, structured_report


class Objects(NamedTuple):
    """What is written; None where there is nothing to write."""

    segmentation: Any = None
    report: Any = None


def dicom_objects(
    result: Result, keep_ids: bool, salt: bytes | None
) -> tuple[Objects, tuple[str, ...]]:
    """Segmentation and structured report.

    Args:
      result: with sources.
      keep_ids: whether the patient's own values are kept.
      salt: key of the hashes that stand for UIDs; None keeps the UIDs.

    Returns:
      The objects, and notes on what could not be referred to.
    """
    channels, notes = by_channel(result, Uids(salt))
    if not channels:
        return Objects(), tuple(notes)
    segments = None
    for images in channels.values():
        dataset, items = segmentation(result, images)
        if dataset is not None:
            segments = Segments(dataset, items, images)
            break
    if segments is None and any(mask.volume.data.any() for mask in result.masks):
        notes.append("no segmentation.dcm: the masks are not on the grid of the DICOM images.")
    report = structured_report(result, channels, segments)
    objects = Objects(segments.dataset if segments else None, report)
    if keep_ids:
        header = next(iter(channels.values())).header
        for dataset in objects:
            if dataset is not None:
                identify(dataset, header)
    if salt is not None:
        notes.append(
            "The DICOM files refer to the images by hashes of their UIDs, so that no viewer lays"
            " them over the originals."
        )
    elif not keep_ids:
        notes.append(
            "The DICOM files refer to the images by their UIDs, by which whoever has the archive"
            " finds the patient; --hash-uids replaces them."
        )
    return objects, tuple(notes)
