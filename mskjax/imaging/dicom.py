"""DICOM image series to volumes: classic single-frame MR (or CT) and Enhanced multi-frame MR.

A series is accepted only if its images lie on one regular grid; everything else is refused with
the reason, because a wrong affine is worse than none.
"""

import tempfile
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import SimpleITK as sitk  # noqa: N813
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.uid import RLELossless

from mskjax.errors import UserError
from mskjax.imaging.volume import Volume

_LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])

# Headers round positions to about 1e-3 mm and directions to about 1e-6; scanners place slices
# within a hundredth of their distance.  What exceeds these is another geometry, not rounding.
_DIRECTION_TOLERANCE = 1e-3
_SAME_POSITION_MM = 1e-3
_STEP_TOLERANCE = 0.02
_STEP_TOLERANCE_MM = 0.02

_META = {
    "modality": "Modality",
    "manufacturer": "Manufacturer",
    "model": "ManufacturerModelName",
    "patient_id": "PatientID",
    "study_uid": "StudyInstanceUID",
    "series_uid": "SeriesInstanceUID",
    "series_description": "SeriesDescription",
}
_NUMERIC_META = {
    "field_strength_t": "MagneticFieldStrength",
    "repetition_time_ms": "RepetitionTime",
    "echo_time_ms": "EchoTime",
}

# What a stand-alone file needs for its pixel data to be decoded.
_PIXEL_MODULE = (
    "SamplesPerPixel",
    "PhotometricInterpretation",
    "NumberOfFrames",
    "Rows",
    "Columns",
    "BitsAllocated",
    "BitsStored",
    "HighBit",
    "PixelRepresentation",
    "PixelData",
)
_SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"
_MULTIFRAME_SECONDARY_CAPTURE = {
    8: "1.2.840.10008.5.1.4.1.1.7.2",
    16: "1.2.840.10008.5.1.4.1.1.7.3",
}


@dataclass(frozen=True)
class _Frame:
    """One image plane in DICOM's patient coordinates (LPS, mm)."""

    source: Path
    pixels: np.ndarray
    position: np.ndarray
    orientation: np.ndarray  # (6,) direction cosines of a row (column index grows), of a column
    pixel_spacing: np.ndarray  # (2,) between rows, between columns
    slice_pitch: float | None  # what the header says, for a single slice
    slope: float
    intercept: float
    note: str  # what tells frames at one position apart


def read_dicom(path: str | Path) -> Volume:
    """Reads one DICOM series, or one multi-frame or single-slice file.

    Args:
      path: a file, or a folder (searched with its subfolders) that holds one image series.

    Returns:
      Volume with axes (column, row, slice), slices sorted along the slice normal (PS3.3
      C.7.6.2.1.1), rescaled to modality values: the stored integer dtype where the rescale is the
      identity, else float32.  ``meta`` holds what the header says of ``modality``,
      ``manufacturer``, ``model``, ``field_strength_t``, ``repetition_time_ms``, ``echo_time_ms``,
      ``patient_id``, ``study_uid``, ``series_uid``, ``series_description``, and ``slice_axis``
      and ``files`` (in the order of the slices as read).

    Raises:
      UserError: no DICOM image, several series, damaged or missing pixel data, or images that do
        not form a regular volume; the sentence says which and what to do.
    """
    path = Path(path)
    files = _series_files(path) if path.is_dir() else [path]
    datasets = [(file, _read_file(file)) for file in files]
    frames = [frame for file, dataset in datasets for frame in _frames(file, dataset)]
    order, affine = _grid(path, frames)
    data = np.stack([_rescaled(frames[i]).T for i in order], axis=-1)
    meta = _meta(datasets[0][1])
    meta["slice_axis"] = 2
    meta["files"] = tuple(dict.fromkeys(str(frames[i].source) for i in order))
    return Volume(np.ascontiguousarray(data), _LPS_TO_RAS @ affine, meta)


def _series_files(folder: Path) -> list[Path]:
    """The image files of the one series below a folder."""
    series: dict[str, list[Path]] = {}
    names: dict[str, str] = {}
    for file in sorted(p for p in folder.rglob("*") if p.is_file()):
        try:
            header = pydicom.dcmread(
                file,
                stop_before_pixels=True,
                specific_tags=["SeriesInstanceUID", "SeriesDescription", "Rows", "Modality"],
            )
        except (pydicom.errors.InvalidDicomError, OSError, EOFError, ValueError):
            continue  # notes, pictures and NIfTI files lie about in exported folders
        if "Rows" not in header:
            continue  # DICOMDIR, reports
        uid = str(header.get("SeriesInstanceUID", ""))
        series.setdefault(uid, []).append(file)
        names[uid] = f"{header.get('Modality', '?')} {header.get('SeriesDescription', '')}".strip()
    if not series:
        raise UserError(f"{folder}: no DICOM image in this folder; check the path.")
    if len(series) > 1:
        lines = "; ".join(
            f"{names[uid]!r}, {len(found)} images, {found[0].relative_to(folder)}"
            + (" ..." if len(found) > 1 else "")
            for uid, found in list(series.items())[:20]
        )
        raise UserError(
            f"{folder}: holds {len(series)} series ({lines}); put the one you mean into a folder "
            "of its own and give that."
        )
    return next(iter(series.values()))


def _read_file(file: Path) -> FileDataset:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what matters is checked below
            dataset = pydicom.dcmread(file)
    except (pydicom.errors.InvalidDicomError, OSError, EOFError, ValueError) as error:
        raise _damaged(file, error) from error
    if "PixelData" not in dataset:
        raise UserError(
            f"{file}: has no complete pixel data (the file is cut short, or is no image); copy or "
            "export it again."
        )
    if dataset.get("SamplesPerPixel", 1) != 1:
        raise UserError(f"{file}: is a colour image; give a grey-scale series.")
    return dataset


def _damaged(file: Path, why: object) -> UserError:
    reason = " ".join(str(why).split()) or type(why).__name__
    return UserError(f"{file}: cannot be read ({reason[:300]}); copy or export the file again.")


def _stored_values(file: Path, dataset: FileDataset) -> np.ndarray:
    """(frames, rows, columns) integers as stored, of any transfer syntax."""
    syntax = dataset.file_meta.TransferSyntaxUID
    try:
        if syntax.is_encapsulated and syntax != RLELossless:
            pixels = _decode_with_gdcm(dataset)
        else:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # padding after the pixels is harmless
                pixels = dataset.pixel_array
    except (ValueError, RuntimeError, AttributeError, EOFError, NotImplementedError) as error:
        raise _damaged(file, str(error).rsplit("\n", 1)[-1]) from error
    frames = int(dataset.get("NumberOfFrames") or 1)
    shape = (frames, int(dataset.Rows), int(dataset.Columns))
    if pixels.size != np.prod(shape):
        raise _damaged(file, f"pixel data of shape {pixels.shape} where {shape} is announced")
    return pixels.reshape(shape).astype(pixels.dtype.newbyteorder("="), copy=False)


def _decode_with_gdcm(dataset: FileDataset) -> np.ndarray:
    # GDCM applies a rescale or not depending on the kind of object.  It is handed the pixel module
    # alone, as a secondary capture, so that it always returns stored values.
    bare = Dataset()
    for keyword in _PIXEL_MODULE:
        if keyword in dataset:
            bare[keyword] = dataset[keyword]
    frames = int(dataset.get("NumberOfFrames") or 1)
    bare.SOPClassUID = (
        _SECONDARY_CAPTURE
        if frames == 1
        else _MULTIFRAME_SECONDARY_CAPTURE[16 if dataset.BitsAllocated > 8 else 8]
    )
    bare.SOPInstanceUID = pydicom.uid.generate_uid()
    bare.file_meta = FileMetaDataset()
    bare.file_meta.TransferSyntaxUID = dataset.file_meta.TransferSyntaxUID
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "pixels.dcm"
        bare.save_as(file, enforce_file_format=True)
        return sitk.GetArrayFromImage(sitk.ReadImage(str(file), imageIO="GDCMImageIO"))


def _frames(file: Path, dataset: FileDataset) -> list[_Frame]:
    per_frame: Sequence[Dataset] = dataset.get("PerFrameFunctionalGroupsSequence") or []
    shared = (dataset.get("SharedFunctionalGroupsSequence") or [Dataset()])[0]
    count = int(dataset.get("NumberOfFrames") or 1)
    if count > 1 and not per_frame:
        raise UserError(
            f"{file}: holds {count} frames but does not say where they lie (no per-frame "
            "functional groups); export the series again as classic or Enhanced MR."
        )
    if per_frame and len(per_frame) != count:
        raise _damaged(file, f"{count} frames announced but {len(per_frame)} described")
    pixels = _stored_values(file, dataset)
    return [
        _frame(file, pixels[i], _flatten(dataset, shared, per_frame[i]) if per_frame else dataset)
        for i in range(count)
    ]


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


def _frame(file: Path, pixels: np.ndarray, header: Dataset) -> _Frame:
    missing = [
        keyword
        for keyword, length in (
            ("ImagePositionPatient", 3),
            ("ImageOrientationPatient", 6),
            ("PixelSpacing", 2),
        )
        if len(header.get(keyword) or ()) != length
    ]
    if missing:
        raise UserError(
            f"{file}: {' and '.join(missing)} missing, so its place in the patient is unknown; "
            "export the original series again."
        )
    orientation = np.array(header.ImageOrientationPatient, np.float64)
    row, column = orientation[:3], orientation[3:]
    if abs(row @ column) > _DIRECTION_TOLERANCE or not np.allclose(
        [np.linalg.norm(row), np.linalg.norm(column)], 1, atol=_DIRECTION_TOLERANCE
    ):
        raise UserError(
            f"{file}: ImageOrientationPatient is not a pair of orthogonal unit vectors; export the "
            "original series again."
        )
    pitch = header.get("SpacingBetweenSlices") or header.get("SliceThickness")
    notes = [
        f"{keyword} {header[keyword].value}"
        for keyword in ("EchoTime", "EffectiveEchoTime", "TemporalPositionIndex", "FrameType")
        if header.get(keyword) is not None
    ]
    return _Frame(
        source=file,
        pixels=pixels,
        position=np.array(header.ImagePositionPatient, np.float64),
        orientation=orientation,
        pixel_spacing=np.array(header.PixelSpacing, np.float64),
        slice_pitch=abs(float(pitch)) if pitch else None,
        slope=float(header.get("RescaleSlope", 1)),
        intercept=float(header.get("RescaleIntercept", 0)),
        note=", ".join(notes),
    )


def _rescaled(frame: _Frame) -> np.ndarray:
    if frame.slope == 1 and frame.intercept == 0:
        return frame.pixels
    return (frame.pixels * frame.slope + frame.intercept).astype(np.float32)


def _grid(path: Path, frames: Sequence[_Frame]) -> tuple[np.ndarray, np.ndarray]:
    """The order of the frames along the normal and the (4, 4) affine to LPS mm."""
    first = frames[0]
    _refuse_mixed(path, frames)
    row, column = first.orientation[:3], first.orientation[3:]
    normal = np.cross(row, column)
    positions = np.array([frame.position for frame in frames])
    depth = positions @ normal
    order = np.argsort(depth, kind="stable")
    affine = np.eye(4)
    affine[:3, 0] = row * first.pixel_spacing[1]
    affine[:3, 1] = column * first.pixel_spacing[0]
    affine[:3, 3] = positions[order[0]]
    if len(frames) == 1:
        affine[:3, 2] = normal * (first.slice_pitch or 1.0)
        return order, affine
    steps = np.diff(depth[order])
    _refuse_repeated(path, [frames[i] for i in order], steps)
    step = float(np.median(steps))
    tolerance = max(_STEP_TOLERANCE_MM, _STEP_TOLERANCE * step)
    # A tilted gantry moves each image within its own plane.
    moves = np.diff(positions[order], axis=0)
    shear = np.linalg.norm(moves - steps[:, None] * normal, axis=1)
    tilted = bool(np.any(shear > np.maximum(tolerance, _STEP_TOLERANCE * steps)))
    _refuse_uneven(path, steps, step, tolerance, tilted)
    if tilted:
        angle = np.degrees(np.arctan2(shear.max(), step))
        raise UserError(
            f"{path}: the slices are sheared against each other (gantry tilt, {angle:.1f} degrees),"
            " which no affine of a rectangular grid describes; resample the series first."
        )
    affine[:3, 2] = normal * steps.mean()
    return order, affine


def _refuse_mixed(path: Path, frames: Sequence[_Frame]) -> None:
    kinds: list[_Frame] = []
    for frame in frames:
        if not any(
            np.allclose(frame.orientation, kind.orientation, atol=_DIRECTION_TOLERANCE)
            for kind in kinds
        ):
            kinds.append(frame)
    if len(kinds) > 1:
        raise UserError(
            f"{path}: the images have {len(kinds)} different orientations (a localizer, or several "
            "stacks in one series); separate them and give one."
        )
    shapes = {frame.pixels.shape for frame in frames}
    spacings = {tuple(np.round(frame.pixel_spacing, 4)) for frame in frames}
    if len(shapes) > 1 or len(spacings) > 1:
        raise UserError(
            f"{path}: the images differ in matrix {sorted(shapes)} or pixel spacing "
            f"{sorted(tuple(map(float, s)) for s in spacings)}; separate them and give one kind."
        )


def _refuse_repeated(path: Path, ordered: Sequence[_Frame], steps: np.ndarray) -> None:
    repeated = np.flatnonzero(steps < _SAME_POSITION_MM)
    if not repeated.size:
        return
    places = len(ordered) - repeated.size
    a, b = ordered[repeated[0]], ordered[repeated[0] + 1]
    differ = f" (e.g. {a.note or a.source.name} and {b.note or b.source.name})"
    raise UserError(
        f"{path}: is not one volume: {len(ordered)} images lie at {places} "
        f"position{'s' if places > 1 else ''}{differ}, as echoes, time points or copies do; give "
        "the images of one of them."
    )


def _refuse_uneven(
    path: Path, steps: np.ndarray, step: float, tolerance: float, tilted: bool
) -> None:
    uneven = np.flatnonzero(np.abs(steps - step) > tolerance)
    if not uneven.size:
        return
    also = "; the slices are sheared (gantry tilt) as well" if tilted else ""
    smallest = steps.min()
    multiples = steps / smallest
    gaps = np.round(multiples).astype(int) - 1
    if np.all(np.abs(multiples - gaps - 1) < 2 * _STEP_TOLERANCE):
        after = int(np.flatnonzero(gaps)[0]) + 1
        raise UserError(
            f"{path}: {gaps.sum()} slice{'s are' if gaps.sum() > 1 else ' is'} missing, the first "
            f"after slice {after} of {len(steps) + 1} (a step of {steps[after - 1]:.2f} mm where "
            f"{smallest:.2f} mm is usual){also}; export the whole series."
        )
    raise UserError(
        f"{path}: uneven slice spacing, {smallest:.2f} to {steps.max():.2f} mm{also}; resample the "
        "series to even spacing first."
    )


def _meta(dataset: Dataset) -> dict[str, Any]:
    meta: dict[str, Any] = {}
    for name, keyword in _META.items():
        if dataset.get(keyword):
            meta[name] = str(dataset.get(keyword))
    for name, keyword in _NUMERIC_META.items():
        value = dataset.get(keyword)
        if value not in (None, ""):
            meta[name] = float(value)
    return meta
