"""Frames of DICOM files, classic and Enhanced alike: a header each, its place and its traits.

Source: PS3.3 C.7.6.16 (functional groups), C.7.6.2 (image plane).
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from pydicom.dataset import Dataset

from mskjax.errors import UserError
from mskjax.imaging import dicom_fields as fields
from mskjax.imaging.dicom_grid import DIRECTION_TOLERANCE
from mskjax.imaging.limits import damaged

# What tells images at one position apart.
TRAITS = (
    "ImageType", "FrameType", "ComplexImageComponent", "SequenceName", "EchoNumbers", "EchoTime",
    "EffectiveEchoTime", "InversionTime", "FlipAngle", "DiffusionBValue", "TriggerTime",
    "TemporalPositionIdentifier", "TemporalPositionIndex", "AcquisitionNumber", "AcquisitionTime",
)  # fmt: skip
# What places an image, with the number of its values.
PLACE = (("ImagePositionPatient", 3), ("ImageOrientationPatient", 6), ("PixelSpacing", 2))
GROUPS = ("PerFrameFunctionalGroupsSequence", "SharedFunctionalGroupsSequence")


def frame_headers(file: Path, dataset: Dataset, count: int) -> list[Dataset]:
    """The attributes of each frame on one level, as in a classic file.

    Args:
      file: for messages.
      dataset: of the file, with `GROUPS` where it has them.
      count: of its frames.

    Raises:
      UserError: there are several frames and nothing says where they lie, or as many are not
        described.
    """
    per_frame: Sequence[Dataset] = dataset.get(GROUPS[0]) or []
    shared = (dataset.get(GROUPS[1]) or [Dataset()])[0]
    if count > 1 and not per_frame:
        raise UserError(
            f"{file}: holds {count} frames but does not say where they lie (no per-frame "
            "functional groups); export the series again as classic or Enhanced MR."
        )
    if per_frame and len(per_frame) != count:
        raise damaged(file, f"{count} frames announced but {len(per_frame)} described")
    return [_flatten(dataset, shared, own) for own in per_frame] if per_frame else [dataset]


def place(file: Path, header: Dataset) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Position (3,) mm, direction cosines of row and column (6,), pixel spacing (2,) mm.

    Raises:
      UserError: one is missing, or makes no sense.
    """
    found = {keyword: fields.numbers(file, header, keyword, n) for keyword, n in PLACE}
    missing = [keyword for keyword, value in found.items() if value is None]
    if missing:
        raise UserError(
            f"{file}: {' and '.join(missing)} missing, so its place in the patient is unknown; "
            "export the original series again."
        )
    position, orientation, spacing = (v for v in found.values() if v is not None)
    row, column = orientation[:3], orientation[3:]
    if abs(row @ column) > DIRECTION_TOLERANCE or not np.allclose(
        [np.linalg.norm(row), np.linalg.norm(column)], 1, atol=DIRECTION_TOLERANCE
    ):
        raise UserError(
            f"{file}: ImageOrientationPatient is not a pair of orthogonal unit vectors; export the "
            "original series again."
        )
    if np.any(spacing <= 0):
        raise UserError(
            f"{file}: PixelSpacing is {fields.written(header, 'PixelSpacing')}; it must be above 0,"
            " in mm; export the original series again."
        )
    return position, orientation, spacing


def traits(header: Dataset) -> dict[str, str]:
    """What may tell a frame from others at its position, by attribute."""
    return {k: text for k in TRAITS if (text := fields.written(header, k))}


def _flatten(dataset: Dataset, shared: Dataset, own: Dataset) -> Dataset:
    flat = Dataset()
    for keyword in ("SpacingBetweenSlices", "SliceThickness"):
        if keyword in dataset:
            flat[keyword] = dataset[keyword]
    for groups in (shared, own):
        for group in groups:
            if group.VR == "SQ" and group.value and group.keyword:
                flat.update(group.value[0])
    return flat
