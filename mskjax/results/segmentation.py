"""Masks as a DICOM Segmentation (PS3.3 A.51): a segment per label that is there.

Binary rather than a label map, which few viewers read yet; and segments of several masks, e.g.
discs as such and each disc by its level, overlap.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from mskjax import __version__
from mskjax.results import codes
from mskjax.results.result import DISCLAIMER, Result
from mskjax.results.sources import Images

MAKER = "mskjax"
SERIES_NUMBER = 9001


class Segment(NamedTuple):
    """One segment as it is written.

    Attributes:
      number: from 1.
      label: name of the label.
      mask: name of the label's mask.
      value: the label's number.
      uid: tracks it across objects.
      planes: numbers of the planes that it covers, of `Images.frames`.
    """

    number: int
    label: str
    mask: str
    value: int
    uid: str
    planes: tuple[int, ...]


def segmentation(result: Result, images: Images) -> tuple[Any, tuple[Segment, ...]]:
    """Builds the object.

    Args:
      result: with masks on the grid of the images; others are left out.
      images: the sources.

    Returns:
      The data set, a `highdicom.seg.Segmentation`, or None where no voxel has a label; and its
      segments.
    """
    import highdicom

    segments, stack = _segments(result, images)
    if not segments:
        return None, ()
    described = [_describe(segment, result) for segment in segments]
    dataset = highdicom.seg.Segmentation(
        source_images=images.stand_ins,
        pixel_array=stack,
        segmentation_type=highdicom.seg.SegmentationTypeValues.BINARY,
        segment_descriptions=described,
        content_label="MASKS",
        content_description=DISCLAIMER,
        sop_instance_uid=highdicom.UID(),
        omit_empty_frames=True,
        **series(result, SERIES_NUMBER, "masks"),
    )
    return dataset, segments


def series(result: Result, number: int, what: str) -> dict[str, Any]:
    """What objects of every kind say of series, equipment and use.

    Args:
      result: gives system and run.
      number: of the series.
      what: for its description.
    """
    import highdicom

    return {
        "series_instance_uid": highdicom.UID(),
        "series_number": number,
        "instance_number": 1,
        "series_description": short(f"RESEARCH USE ONLY: {what}, {result.system}"),
        "manufacturer": MAKER,
        "manufacturer_model_name": short(result.title),
        "software_versions": __version__,
        "device_serial_number": short(str(result.run.get("fingerprint") or "none")),
        "content_qualification": highdicom.ContentQualificationValues.RESEARCH,
        "coding_schemes": [
            highdicom.coding_schemes.CodingSchemeIdentificationItem(
                designator=codes.SCHEME, name=codes.SCHEME_NAME, responsible_organization=MAKER
            )
        ],
    }


def short(text: str) -> str:
    """Text that fits VR LO: 64 characters, no backslash."""
    return text.replace("\\", "/")[:64]


def _segments(result: Result, images: Images) -> tuple[tuple[Segment, ...], np.ndarray]:
    """The segments and (planes, rows, columns, segments) uint8 of 0 and 1."""
    import highdicom

    found: list[Segment] = []
    layers: list[np.ndarray] = []
    for mask in result.masks:
        planes = images.on_planes(mask.volume)
        if planes is None:
            continue
        for value, label in mask.labels.items():
            layer = planes == value
            covered = np.flatnonzero(layer.any((1, 2)))
            if covered.size:
                number, uid = len(found) + 1, str(highdicom.UID())
                numbers = tuple(covered.tolist())
                found.append(Segment(number, label, mask.name, value, uid, numbers))
                layers.append(layer)
    stack: Sequence[np.ndarray] = layers or [np.zeros((0, 0, 0), bool)]
    return tuple(found), np.stack(stack, axis=-1).view(np.uint8)


def _describe(segment: Segment, result: Result) -> Any:
    import highdicom
    from pydicom.sr.codedict import codes as dictionary

    algorithm = highdicom.AlgorithmIdentificationSequence(
        name=short(result.title),
        family=dictionary.cid7162.ArtificialIntelligence,
        version=__version__,
    )
    return highdicom.seg.SegmentDescription(
        segment_number=segment.number,
        segment_label=short(segment.label),
        segmented_property_category=dictionary.cid7150.AnatomicalStructure,
        segmented_property_type=codes.structure(segment.label) or codes.own(segment.label),
        algorithm_type=highdicom.seg.SegmentAlgorithmTypeValues.AUTOMATIC,
        algorithm_identification=algorithm,
        tracking_id=short(f"{segment.mask or 'structures'}: {segment.label}"),
        tracking_uid=segment.uid,
    )
