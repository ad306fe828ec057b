"""DICOM image series to volumes: classic single-frame MR (or CT) and Enhanced multi-frame MR."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from pydicom.dataset import Dataset, FileDataset

from mskjax.errors import UserError, note
from mskjax.imaging import dicom_fields as fields
from mskjax.imaging import headers
from mskjax.imaging.dicom_file import has_mark, open_dicom
from mskjax.imaging.dicom_folder import every, series_files
from mskjax.imaging.dicom_grid import DIRECTION_TOLERANCE, Frame, grid
from mskjax.imaging.dicom_pixels import (
    Layout,
    is_inverted,
    layout,
    shown,
    stored_values,
    unpacked,
)
from mskjax.imaging.limits import check_spacing, damaged, reading
from mskjax.imaging.volume import Volume

_LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])
# What tells images at one position apart.
_TRAITS = (
    "ImageType", "FrameType", "ComplexImageComponent", "SequenceName", "EchoNumbers", "EchoTime",
    "EffectiveEchoTime", "InversionTime", "FlipAngle", "DiffusionBValue", "TriggerTime",
    "TemporalPositionIdentifier", "TemporalPositionIndex", "AcquisitionNumber", "AcquisitionTime",
)  # fmt: skip
_PLACE = (("ImagePositionPatient", 3), ("ImageOrientationPatient", 6), ("PixelSpacing", 2))

_Image = tuple[Path, FileDataset, Layout]


def read_dicom(path: str | Path, *, stored: bool = False) -> Volume:
    """Reads one DICOM series, or one multi-frame or single-slice file.

    Args:
      path: a file, or a folder (searched with its subfolders) that holds one image series.
      stored: the stored numbers, as a mask needs them, instead of what a viewer shows.

    Returns:
      Volume with axes (column, row, slice), slices sorted along the slice normal (PS3.3
      C.7.6.2.1.1), as a viewer shows them before windowing (`dicom_pixels.shown`): the stored
      integer dtype where nothing changes it, else float32.  ``meta`` holds what the header says of
      ``modality``, ``manufacturer``, ``model``, ``field_strength_t``, ``repetition_time_ms``,
      ``echo_time_ms``, ``age`` (years), ``sex`` (M or F), ``patient_id``, ``study_uid``,
      ``series_uid``, ``series_description``, ``frame_of_reference_uid``, and ``slice_axis`` and
      ``files`` (in the order of the slices as read).

    Raises:
      UserError: no DICOM image, several series, a file that cannot be read, damaged or missing
        pixel data, or images that do not form a regular volume; the sentence says which and what to
        do.
    """
    path = Path(path)
    with reading(path):
        files = series_files(path) if path.is_dir() else [path]
        images = every(path, files, _open)
        decoded = unpacked(images)
        by_file = {file: (dataset, how) for file, dataset, how in images}

        def frames_of(file: Path) -> list[Frame]:
            dataset, how = by_file[file]
            pixels = stored_values(file, dataset, how, decoded.get(file))
            return _frames(path, (file, dataset, how), pixels, stored)

        frames = [frame for some in every(path, files, frames_of) for frame in some]
        order, affine = grid(path, frames)
        data = np.stack([frames[i].pixels.T for i in order], axis=-1)
        first = images[0][1]
        meta = fields.metadata(path, first)
        meta["slice_axis"] = 2
        meta["files"] = tuple(dict.fromkeys(str(frames[i].source) for i in order))
        volume = Volume(np.ascontiguousarray(data), _LPS_TO_RAS @ affine, meta)
        check_spacing(path, volume, "PixelSpacing", "ImagePositionPatient")
        _note_odd(path, images, stored)
        return volume


def _note_odd(path: Path, images: Sequence[_Image], stored: bool) -> None:
    bare = [file for file, _, _ in images if not has_mark(file)]
    unnamed = [file for file, _, how in images if not how.is_named and file not in bare]
    for files, what in (
        (bare, "is DICOM without preamble"),
        (unnamed, "has no TransferSyntaxUID; the one that its data show is used"),
    ):
        if files:
            note(path, what, f"{len(files)} of {len(images)} files, e.g. {files[0].name}")
    if not stored and is_inverted(images[0][1]):
        note(path, "is stored with low values white (MONOCHROME1); inverted, as a viewer shows it")


def _open(file: Path) -> _Image:
    dataset = open_dicom(file)
    return file, dataset, layout(file, dataset)


def _frames(path: Path, image: _Image, pixels: np.ndarray, stored: bool) -> list[Frame]:
    file, dataset, how = image
    per_frame: Sequence[Dataset] = dataset.get("PerFrameFunctionalGroupsSequence") or []
    shared = (dataset.get("SharedFunctionalGroupsSequence") or [Dataset()])[0]
    count = len(pixels)
    if count > 1 and not per_frame:
        raise UserError(
            f"{file}: holds {count} frames but does not say where they lie (no per-frame "
            "functional groups); export the series again as classic or Enhanced MR."
        )
    if per_frame and len(per_frame) != count:
        raise damaged(file, f"{count} frames announced but {len(per_frame)} described")
    name = str(file.relative_to(path)) if file != path else file.name
    found = []
    for i, frame in enumerate(pixels):
        header = _flatten(dataset, shared, per_frame[i]) if per_frame else dataset
        values = frame if stored else shown(file, dataset, header, how, frame)
        label = f"frame {i + 1} of {name}" if count > 1 else name
        instance = "" if count > 1 else fields.written(dataset, "SOPInstanceUID")
        found.append(_frame(file, label, instance, values, header))
    return found


def _flatten(dataset: Dataset, shared: Dataset, own: Dataset) -> Dataset:
    """The attributes of one frame in one level, as in a classic file."""
    flat = Dataset()
    for keyword in ("SpacingBetweenSlices", "SliceThickness"):
        if keyword in dataset:
            flat[keyword] = dataset[keyword]
    for groups in (shared, own):
        for group in groups:
            if group.VR == "SQ" and group.value and group.keyword:
                flat.update(group.value[0])
    return flat


def _frame(file: Path, label: str, instance: str, pixels: np.ndarray, header: Dataset) -> Frame:
    place = {keyword: fields.numbers(file, header, keyword, n) for keyword, n in _PLACE}
    missing = [keyword for keyword, value in place.items() if value is None]
    if missing:
        raise UserError(
            f"{file}: {' and '.join(missing)} missing, so its place in the patient is unknown; "
            "export the original series again."
        )
    position, orientation, spacing = (v for v in place.values() if v is not None)
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
    pitches = (
        abs(headers.number(fields.written(header, keyword)))
        for keyword in ("SpacingBetweenSlices", "SliceThickness")
    )
    return Frame(
        source=file,
        label=label,
        pixels=pixels,
        position=position,
        orientation=orientation,
        pixel_spacing=spacing,
        slice_pitch=next((pitch for pitch in pitches if pitch > 0), None),
        instance=instance,
        traits={k: text for k in _TRAITS if (text := fields.written(header, k))},
    )
