"""Grades, detections and volumes as a DICOM Structured Report (PS3.16 TID 1500).

A measurement group for each region and for each structure that has a volume.  What a group is of is
a segment of the segmentation (TID 1411), else the outline of a box on an image (TID 1410), else the
images as a whole (TID 1501).  Classes that are called are qualitative evaluations; probabilities,
scores and volumes are measurements.  Their names are codes of a private scheme, since none of the
gradings has a code of its own.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from mskjax import __version__
from mskjax.results import codes
from mskjax.results.result import DISCLAIMER, Box, Grade, Region, Result
from mskjax.results.segmentation import MAKER, Segment, series, short
from mskjax.results.sources import Images

SERIES_NUMBER = 9002
_DIGITS = 6  # of a number; VR DS has 16 characters


class Segments(NamedTuple):
    """The segmentation that a report refers to.

    Attributes:
      dataset: `highdicom.seg.Segmentation`.
      items: its segments.
      images: its sources.
    """

    dataset: Any
    items: tuple[Segment, ...]
    images: Images

    def of_region(self, region: Region) -> Segment | None:
        """The segment of a region: the label of its name, else of its level among the levels."""
        for segment in self.items:
            if segment.label == region.name:
                return segment
        for segment in self.items:
            if segment.mask == "levels" and segment.value == region.level:
                return segment
        return None


def structured_report(
    result: Result, channels: Mapping[str, Images], segments: Segments | None
) -> Any:
    """Builds the report.

    Args:
      result: what was found.
      channels: the images that were read, at least of one channel.
      segments: the segmentation; None where there is none.

    Returns:
      A `highdicom.sr.Comprehensive3DSR`.
    """
    import highdicom
    from pydicom.sr.codedict import codes as dictionary

    stand_ins = [image for images in channels.values() for image in images.stand_ins]
    is_mr = stand_ins[0].Modality == "MR"
    regions = dictionary.cid100
    procedure = regions.MRIUnspecifiedBodyRegion if is_mr else regions.CTUnspecifiedBodyRegion
    content = highdicom.sr.MeasurementReport(
        observation_context=highdicom.sr.ObservationContext(_observer(result)),
        procedure_reported=procedure,
        imaging_measurements=list(_groups(result, channels, segments)),
    )
    content[0].ContentSequence.extend(_comments(result))
    return highdicom.sr.Comprehensive3DSR(
        evidence=[*stand_ins, *([segments.dataset] if segments else [])],
        content=content[0],
        sop_instance_uid=highdicom.UID(),
        is_complete=True,
        is_final=False,
        is_verified=False,
        **series(result, SERIES_NUMBER, "report"),
    )


def _observer(result: Result) -> Any:
    import highdicom
    from pydicom.sr.codedict import codes as dictionary

    return highdicom.sr.ObserverContext(
        observer_type=dictionary.DCM.Device,
        observer_identifying_attributes=highdicom.sr.DeviceObserverIdentifyingAttributes(
            uid=highdicom.UID(), name=MAKER, manufacturer_name=MAKER, model_name=short(result.title)
        ),
    )


def _comments(result: Result) -> Iterator[Any]:
    """What stands beside the measurements, the disclaimer first."""
    yield _comment(f"{DISCLAIMER.upper()}.")
    if result.coverage is not None:
        yield _comment(f"Prediction sets are to hold {result.coverage:.0%} of the true classes.")
    for channel, chosen in result.series.items():
        yield _comment(f"Series read as {channel}: {chosen}")
    for flag in result.flags:
        yield _comment(f"Look twice ({flag.kind}): {flag.text}")
    for note in result.notes:
        yield _comment(note)


def _comment(text: str) -> Any:
    import highdicom
    from pydicom.sr.codedict import codes as dictionary

    return highdicom.sr.TextContentItem(
        name=dictionary.DCM.Comment,
        value=text,
        relationship_type=highdicom.sr.RelationshipTypeValues.CONTAINS,
    )


def _groups(
    result: Result, channels: Mapping[str, Images], segments: Segments | None
) -> Iterator[Any]:
    import highdicom

    count = 0
    taken = set()
    for region in result.regions:
        segment = segments.of_region(region) if segments else None
        taken.add(segment)
        yield _region_group(result, region, segment, channels, segments)
        count += 1
    if segments:
        for segment in segments.items:
            volume = result.volumes_ml.get(segment.label)
            if segment not in taken and volume is not None:
                yield _group(result, segment.label, segment, segments, [_volume(volume)], [])
                count += 1
    if not count:
        nothing = highdicom.sr.QualitativeEvaluation(
            name=codes.own("finding"), value=codes.own("none", "nothing was found")
        )
        images = next(iter(channels.values()))
        yield _whole_group(result, "study", images, [], [nothing])


def _region_group(
    result: Result,
    region: Region,
    segment: Segment | None,
    channels: Mapping[str, Images],
    segments: Segments | None,
) -> Any:
    measured = [m for grade in region.grades for m in _measurements(grade)]
    if region.score is not None:
        measured.append(_number("detection_score", "Detection score", region.score))
    if segment and (volume := result.volumes_ml.get(segment.label)) is not None:
        measured.append(_volume(volume))
    called = [e for grade in region.grades for e in _evaluations(grade, result.coverage)]
    outline = _outline(region.box, channels) if region.box else None
    if segment and segments:
        group = _group(result, region.name, segment, segments, measured, called)
    elif outline is not None:
        group = _planar_group(result, region.name, outline, measured, called)
    else:
        group = _whole_group(result, region.name, next(iter(channels.values())), measured, called)
    for text in (region.caveat, region.note):
        if text:
            group[0].ContentSequence.append(_comment(text))
    return group


def _group(
    result: Result,
    name: str,
    segment: Segment,
    segments: Segments,
    measurements: Sequence[Any],
    evaluations: Sequence[Any],
) -> Any:
    """TID 1411: a group on a segment."""
    import highdicom

    images = segments.images
    by_file: dict[int, list[int]] = {}
    for plane in segment.planes:
        file, frame = images.frames[plane]
        by_file.setdefault(file, []).append(frame + 1)
    reference = highdicom.sr.ReferencedSegment(
        sop_class_uid=segments.dataset.SOPClassUID,
        sop_instance_uid=segments.dataset.SOPInstanceUID,
        segment_number=segment.number,
        source_images=[
            highdicom.sr.SourceImageForSegmentation(
                images.stand_ins[file].SOPClassUID,
                images.stand_ins[file].SOPInstanceUID,
                frames if images.is_multiframe else None,
            )
            for file, frames in by_file.items()
        ],
    )
    return highdicom.sr.VolumetricROIMeasurementsAndQualitativeEvaluations(
        **_of(result, name, segment.uid),
        referenced_segment=reference,
        measurements=measurements,
        qualitative_evaluations=evaluations,
    )


def _planar_group(
    result: Result, name: str, outline: Any, measurements: Sequence[Any], evaluations: Sequence[Any]
) -> Any:
    """TID 1410: a group on an outline."""
    import highdicom

    return highdicom.sr.PlanarROIMeasurementsAndQualitativeEvaluations(
        **_of(result, name, str(highdicom.UID())),
        referenced_region=outline,
        measurements=measurements,
        qualitative_evaluations=evaluations,
    )


def _whole_group(
    result: Result,
    name: str,
    images: Images,
    measurements: Sequence[Any],
    evaluations: Sequence[Any],
) -> Any:
    """TID 1501: a group on images, without a place in them."""
    import highdicom

    return highdicom.sr.MeasurementsAndQualitativeEvaluations(
        **_of(result, name, str(highdicom.UID())),
        measurements=measurements,
        qualitative_evaluations=evaluations,
        source_images=[
            highdicom.sr.SourceImageForMeasurementGroup(i.SOPClassUID, i.SOPInstanceUID)
            for i in images.stand_ins
        ],
    )


def _of(result: Result, name: str, uid: str) -> dict[str, Any]:
    """What a group is of, and what made it."""
    import highdicom

    site = codes.structure(name)
    return {
        "tracking_identifier": highdicom.sr.TrackingIdentifier(uid=uid, identifier=name),
        "algorithm_id": highdicom.sr.AlgorithmIdentification(
            name=result.title, version=__version__, manufacturer=MAKER
        ),
        "finding_sites": [highdicom.sr.FindingSite(anatomic_location=site)] if site else None,
    }


def _evaluations(grade: Grade, coverage: float | None) -> Iterator[Any]:
    """The call, and each class of the prediction set."""
    import highdicom

    task = grade.task.replace("_", " ")
    yield highdicom.sr.QualitativeEvaluation(
        name=codes.own(grade.task, task), value=codes.own(grade.call)
    )
    if grade.prediction_set is None:
        return
    share = "" if coverage is None else f" ({coverage:.0%})"
    name = codes.own(f"{grade.task}_set", f"prediction set{share} of {task}")
    for value in grade.prediction_set or ("empty",):
        yield highdicom.sr.QualitativeEvaluation(name=name, value=codes.own(value))


def _measurements(grade: Grade) -> Iterator[Any]:
    task = grade.task.replace("_", " ")
    for name, p in grade.probabilities.items():
        yield _number(f"{grade.task}_p_{name}", f"probability of {task} {name}", p)
    if grade.agreement is not None:
        meaning = f"share of members that call {task} alike"
        yield _number(f"{grade.task}_agreement", meaning, grade.agreement)


def _number(value: str, meaning: str, number: float) -> Any:
    import highdicom
    from pydicom.sr.codedict import codes as dictionary

    return highdicom.sr.Measurement(
        name=codes.own(value, meaning),
        value=float(f"{number:.{_DIGITS}g}"),
        unit=dictionary.UCUM.NoUnits,
    )


def _volume(millilitres: float) -> Any:
    import highdicom
    from pydicom.sr.codedict import codes as dictionary
    from pydicom.sr.coding import Code

    return highdicom.sr.Measurement(
        name=dictionary.SCT.Volume,
        value=float(f"{millilitres:.{_DIGITS}g}"),
        unit=Code("mL", "UCUM", "milliliter"),
    )


def _outline(box: Box, channels: Mapping[str, Images]) -> Any:
    """The box on the image of its middle slice, in the first channel that has one there."""
    import highdicom

    corners = np.array(box.corners_mm)
    for images in channels.values():
        inverse = np.linalg.inv(images.affine)
        voxels = corners @ inverse[:3, :3].T + inverse[:3, 3]
        middle = round(float(voxels[:, 2].mean()) - 1e-6)  # of two, the first
        if not 0 <= middle < len(images.order):
            continue
        # SCOORD counts from a pixel's corner (PS3.3 C.18.6), an affine from its centre.
        (left, top), (right, bottom) = (voxels[:, :2].min(0) + 0.5, voxels[:, :2].max(0) + 0.5)
        file, frame = images.frames[int(images.order[middle])]
        return highdicom.sr.ImageRegion(
            graphic_type=highdicom.sr.GraphicTypeValues.POLYLINE,
            graphic_data=np.array(
                [[left, top], [right, top], [right, bottom], [left, bottom], [left, top]]
            ),
            source_image=highdicom.sr.SourceImageForRegion(
                images.stand_ins[file].SOPClassUID,
                images.stand_ins[file].SOPInstanceUID,
                [frame + 1] if images.is_multiframe else None,
            ),
        )
    return None
