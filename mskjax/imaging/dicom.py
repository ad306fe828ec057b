"""DICOM image series to volumes: classic single-frame MR (or CT) and Enhanced multi-frame MR."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from pydicom.dataset import Dataset, FileDataset

from mskjax.errors import note
from mskjax.imaging import dicom_fields as fields
from mskjax.imaging import headers
from mskjax.imaging.dicom_file import has_mark, open_dicom
from mskjax.imaging.dicom_folder import every, series_files, shown_below
from mskjax.imaging.dicom_frames import frame_headers, place, traits
from mskjax.imaging.dicom_grid import Frame, grid
from mskjax.imaging.dicom_pixels import (
    Layout,
    is_inverted,
    layout,
    shown,
    stored_values,
    unpacked,
)
from mskjax.imaging.limits import check_spacing, reading
from mskjax.imaging.series import Series
from mskjax.imaging.volume import Volume

_LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])

_Image = tuple[Path, FileDataset, Layout]


def read_dicom(path: str | Path | Series, *, stored: bool = False) -> Volume:
    """Reads one DICOM series, or one multi-frame or single-slice file.

    Args:
      path: a file, a folder (searched with its subfolders) that holds one image series, or the list
        of a series' files.
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
    series = path if isinstance(path, Series) else None
    path = series.where if series else Path(str(path))
    with reading(path):
        files = [path] if path.is_file() else series_files(path, series.files if series else None)
        images = every(path, files, _open)
        decoded = unpacked(images)
        by_file = {file: (dataset, how) for file, dataset, how in images}

        def frames_of(file: Path) -> list[Frame]:
            dataset, how = by_file[file]
            pixels = stored_values(file, dataset, how, decoded.get(file))
            some = series.frames.get(file) if series else None
            return _frames(path, (file, dataset, how), pixels, stored, some)

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


def _frames(
    path: Path,
    image: _Image,
    pixels: np.ndarray,
    stored: bool,
    some: Sequence[int] | None,
) -> list[Frame]:
    file, dataset, how = image
    count = len(pixels)
    headers_of = frame_headers(file, dataset, count)
    name = shown_below(path, file)
    found = []
    for i in range(count) if some is None else some:
        header = headers_of[i]
        values = pixels[i] if stored else shown(file, dataset, header, how, pixels[i])
        label = f"frame {i + 1} of {name}" if count > 1 else name
        instance = "" if count > 1 else fields.written(dataset, "SOPInstanceUID")
        found.append(_frame(file, label, instance, values, header))
    return found


def _frame(file: Path, label: str, instance: str, pixels: np.ndarray, header: Dataset) -> Frame:
    position, orientation, spacing = place(file, header)
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
        traits=traits(header),
    )
