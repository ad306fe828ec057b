"""The DICOM images that were read, as far as what is derived from them may know them.

A derived object copies patient and study from its sources.  So it is given stand-ins: data sets
that hold geometry and references and nothing else, and whatever else a header holds cannot
arrive in a file that is written.  References are replaced by keyed hashes, see `Uids`.
"""

import dataclasses
import hashlib
import hmac
import re
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from pydicom.config import RAISE
from pydicom.datadict import dictionary_VR
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset, FileDataset
from pydicom.uid import (
    UID,
    CTImageStorage,
    EnhancedCTImageStorage,
    EnhancedMRImageStorage,
    LegacyConvertedEnhancedCTImageStorage,
    LegacyConvertedEnhancedMRImageStorage,
    MRImageStorage,
    generate_uid,
)
from pydicom.valuerep import format_number_as_ds

from mskjax.imaging import dicom_fields as fields
from mskjax.imaging import headers
from mskjax.imaging.dicom_file import open_dicom
from mskjax.imaging.grids import aligned, corner_gap
from mskjax.imaging.volume import Volume
from mskjax.results.result import Result

_CLASSIC = {MRImageStorage: "MR", CTImageStorage: "CT"}
_MULTIFRAME = {
    EnhancedMRImageStorage: "MR",
    LegacyConvertedEnhancedMRImageStorage: "MR",
    EnhancedCTImageStorage: "CT",
    LegacyConvertedEnhancedCTImageStorage: "CT",
}
_SAME_PLACE_VOXELS = 0.1
_SAME_PLACE_MM = 1e-3
_LONGEST_NAME = 63  # characters of a patient's name, VR PN and LO
_LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])

# Of patient and study, what a derived object has in common with its source where ids are kept.
# Descriptions stay behind: they are of the source.
IDENTIFYING = (
    "PatientName", "PatientID", "IssuerOfPatientID", "PatientBirthDate", "PatientSex", "PatientAge",
    "StudyDate", "StudyTime", "StudyID", "AccessionNumber", "ReferringPhysicianName",
)  # fmt: skip
# What was once compressed with loss is marked so for ever (PS3.3 C.7.6.1.1.5).
_LOSSY = ("LossyImageCompression", "LossyImageCompressionMethod", "LossyImageCompressionRatio")
_WANTED = (
    *IDENTIFYING, "SpecificCharacterSet", "SOPClassUID", "SOPInstanceUID", "StudyInstanceUID",
    "SeriesInstanceUID", "FrameOfReferenceUID", "Rows", "Columns", "NumberOfFrames",
    "ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "SpacingBetweenSlices",
    "SliceThickness", *_LOSSY, "SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence",
)  # fmt: skip

_METHOD = re.compile(r"ISO_\d+_\d+")


class Unreferable(Exception):
    """Why no DICOM object can refer to the images: a clause for a note."""


class Uids:
    """UIDs of the sources as they are written.

    Args:
      salt: key of the hashes, the same for all that shall refer to the same images; None keeps the
        UIDs as they are.
    """

    def __init__(self, salt: bytes | None):
        self._salt = salt

    def __call__(self, uid: str) -> UID:
        """A UID derived from a UUID (PS3.5 B.2) of 122 bits of a keyed hash."""
        if self._salt is None:
            return UID(uid)
        digest = hmac.new(self._salt, uid.encode(), hashlib.sha256).digest()
        return UID(f"2.25.{uuid.UUID(bytes=digest[:16], version=4).int}")


@dataclasses.dataclass(frozen=True)
class Images:
    """The images of one channel.

    Attributes:
      stand_ins: a data set per file, all of one series.
      frames: (file, frame) of each image plane, from 0.
      order: (slices,) numbers of planes in `frames`, sorted along the normal.
      affine: (4, 4) of their grid, voxel (column, row, slice) to RAS mm.
      header: of the first file, with the attributes in `IDENTIFYING`.
    """

    stand_ins: tuple[Dataset, ...]
    frames: tuple[tuple[int, int], ...]
    order: np.ndarray
    affine: np.ndarray
    header: Dataset

    @property
    def is_multiframe(self) -> bool:
        """Whether frames of one file are referred to by number."""
        return self.stand_ins[0].SOPClassUID in _MULTIFRAME

    @property
    def shape(self) -> tuple[int, int, int]:
        """Columns, rows, slices."""
        first = self.stand_ins[0]
        return first.Columns, first.Rows, len(self.order)

    def on_planes(self, mask: Volume) -> np.ndarray | None:
        """Labels of a mask on the planes of the images.

        Args:
          mask: on the grid of the images, whatever the order of its axes.

        Returns:
          (planes, rows, columns) of the mask's dtype, in the order of `frames`; None where the grid
          is another one.
        """
        turned = aligned(mask, self.affine)
        if turned.data.shape != self.shape:
            return None
        if corner_gap(turned.affine, self.affine, self.shape)[1] > _SAME_PLACE_VOXELS:
            return None
        columns, rows, _ = self.shape
        planes = np.zeros((len(self.frames), rows, columns), mask.data.dtype)
        planes[self.order] = turned.data.transpose(2, 1, 0)
        return planes


def images_of(
    files: Sequence[Path], frames: Mapping[Path, Sequence[int]], study: str, uids: Uids
) -> Images:
    """Reads the headers of the files of a channel.

    Args:
      files: of one classic series, or one Enhanced multi-frame file; what is no image is left out.
      frames: file -> numbers, from 0, of the frames that were read, where these are not all.
      study: stands for the patient in what is derived.
      uids: how UIDs are written.

    Raises:
      Unreferable: naming what the headers lack.
    """
    found = {file: open_dicom(file, _WANTED) for file in files}
    images = {file: header for file, header in found.items() if fields.written(header, "Rows")}
    if not images:
        raise Unreferable("they are no images")
    files, opened = list(images), list(images.values())
    first = opened[0]
    kind = UID(fields.written(first, "SOPClassUID"))
    if kind not in _CLASSIC | _MULTIFRAME:
        raise Unreferable(f"they are not MR or CT images but {kind.name or 'of no kind'}")
    if kind in _MULTIFRAME and len(files) > 1:
        raise Unreferable("they are several multi-frame files")
    for keyword in ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID"):
        if not all(fields.written(header, keyword) for header in opened):
            raise Unreferable(f"they have no {keyword}")
    if len({fields.written(header, "SeriesInstanceUID") for header in opened}) > 1:
        raise Unreferable("they are of several series")
    places = [
        _place(files[number], number, frame, header)
        for number, dataset in enumerate(opened)
        for frame, header in enumerate(_frame_headers(dataset))
    ]
    read = [p.frame in frames.get(files[p.file], (p.frame,)) for p in places]
    order, affine = _grid(places, np.flatnonzero(read))
    positions = _apart(places, order, affine)
    frame_of_reference = fields.written(first, "FrameOfReferenceUID") or generate_uid()
    common = _common(first, kind, study, uids)
    common.FrameOfReferenceUID = uids(frame_of_reference)
    stand_ins = []
    for number, header in enumerate(opened):
        own = [at for at, place in zip(positions, places, strict=True) if place.file == number]
        stand_ins.append(_stand_in(header, common, own, affine, uids))
    return Images(tuple(stand_ins), tuple((p.file, p.frame) for p in places), order, affine, first)


def identify(dataset: Dataset, header: Dataset) -> None:
    """Copies what identifies patient and study, as it is in the header, into a derived object.

    What makes no sense there is left empty.
    """
    for keyword in IDENTIFYING:
        try:
            text = str(header.get(keyword) or "")
            element = DataElement(keyword, dictionary_VR(keyword), text, validation_mode=RAISE)
        except Exception:  # whatever a library makes of damaged bytes, nothing depends on them
            element = DataElement(keyword, dictionary_VR(keyword), None)
        if element.value or keyword in dataset:
            dataset[keyword] = element


def _frame_headers(dataset: FileDataset) -> list[Dataset]:
    per_frame = dataset.get("PerFrameFunctionalGroupsSequence") or []
    if not per_frame:
        return [dataset]
    shared = (dataset.get("SharedFunctionalGroupsSequence") or [Dataset()])[0]
    flat = []
    for own in per_frame:
        header = Dataset()
        for group in ("PlanePositionSequence", "PlaneOrientationSequence", "PixelMeasuresSequence"):
            for groups in (shared, own):
                if groups.get(group):
                    header.update(groups[group].value[0])
        flat.append(header)
    return flat


class _Place(NamedTuple):
    """An image plane: where it is stored and, in LPS mm, where it lies.

    The pitch is that of the slices, as the header says.
    """

    file: int
    frame: int
    position: np.ndarray
    orientation: np.ndarray
    spacing: np.ndarray
    pitch: float


def _place(path: Path, file: int, frame: int, header: Dataset) -> _Place:
    position, orientation, spacing = (
        fields.numbers(path, header, keyword, count)
        for keyword, count in (
            ("ImagePositionPatient", 3),
            ("ImageOrientationPatient", 6),
            ("PixelSpacing", 2),
        )
    )
    if position is None or orientation is None or spacing is None:
        raise Unreferable("they do not say where they lie")
    pitches = (
        abs(headers.number(fields.written(header, keyword)))
        for keyword in ("SpacingBetweenSlices", "SliceThickness")
    )
    pitch = next((p for p in pitches if p > 0), 1.0)
    return _Place(file, frame, position, orientation, spacing, pitch)


def _grid(places: Sequence[_Place], read: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The order of the planes along the normal and the (4, 4) affine to RAS mm.

    Args:
      places: of all planes.
      read: numbers of those that were read.  Of several at one place the first one is the slice.
    """
    first = places[int(read[0])]
    row, column = first.orientation[:3], first.orientation[3:]
    normal = np.cross(row, column)
    depths = np.array([place.position @ normal for place in places])
    order = read[np.argsort(depths[read], kind="stable")]
    order = order[np.concatenate([[True], np.diff(depths[order]) > _SAME_PLACE_MM])]
    step = float(np.diff(depths[order]).mean()) if len(order) > 1 else first.pitch
    affine = np.eye(4)
    affine[:3, 0], affine[:3, 1] = row * first.spacing[1], column * first.spacing[0]
    affine[:3, 2], affine[:3, 3] = normal * step, places[int(order[0])].position
    return order, _LPS_TO_RAS @ affine


def _apart(places: Sequence[_Place], order: np.ndarray, affine: np.ndarray) -> list[np.ndarray]:
    """Positions of all planes in LPS mm; those that were not read lie beyond the last slice.

    No frame of a derived object is made of them, and no two planes may lie at one place.
    """
    lps = _LPS_TO_RAS @ affine
    positions = [lps[:3, 3] + lps[:3, 2] * (len(order) + n) for n in range(len(places))]
    for number in order.tolist():
        positions[number] = places[number].position
    return positions


def _common(first: Dataset, kind: UID, study: str, uids: Uids) -> Dataset:
    """What the stand-ins of a series share: references, size, a patient called like the study."""
    common = Dataset()
    common.SpecificCharacterSet = "ISO_IR 192"
    name = re.sub(r"[\\^=]", "_", study)[:_LONGEST_NAME]
    common.PatientName, common.PatientID = f"{name}^", name
    common.PatientBirthDate = common.PatientSex = common.AccessionNumber = ""
    common.StudyID = common.ReferringPhysicianName = ""
    common.StudyDate = common.StudyTime = None
    common.SOPClassUID, common.Modality = kind, (_CLASSIC | _MULTIFRAME)[kind]
    common.StudyInstanceUID = uids(fields.written(first, "StudyInstanceUID"))
    common.SeriesInstanceUID = uids(fields.written(first, "SeriesInstanceUID"))
    common.Rows, common.Columns = int(first.Rows), int(first.Columns)
    lossy, methods, ratios = (fields.written(first, keyword).split("\\") for keyword in _LOSSY)
    known = len(methods) == len(ratios) and all(map(_METHOD.fullmatch, methods))
    if lossy == ["01"] and known and all(headers.number(ratio) > 0 for ratio in ratios):
        common.LossyImageCompression, common.LossyImageCompressionMethod = "01", methods
        common.LossyImageCompressionRatio = [f"{headers.number(r):.6g}" for r in ratios]
    return common


def _stand_in(
    header: Dataset,
    common: Dataset,
    positions: Sequence[np.ndarray],
    affine: np.ndarray,
    uids: Uids,
) -> Dataset:
    """One file; direction and pitch of the grid stand for those of its frames."""
    dataset = Dataset()
    dataset.update(common)
    dataset.SOPInstanceUID = uids(fields.written(header, "SOPInstanceUID"))
    across, down, pitch = np.linalg.norm(affine[:3, :3], axis=0)
    cosines = (_LPS_TO_RAS @ affine)[:3, :2] / (across, down)
    measures, orientation = Dataset(), Dataset()
    measures.PixelSpacing = _decimals(np.array([down, across]))
    measures.SliceThickness = measures.SpacingBetweenSlices = format_number_as_ds(float(pitch))
    orientation.ImageOrientationPatient = _decimals(cosines.T.ravel())
    places = [Dataset() for _ in positions]
    for place, position in zip(places, positions, strict=True):
        place.ImagePositionPatient = _decimals(position)
    if dataset.SOPClassUID in _CLASSIC:
        for part in (measures, orientation, places[0]):
            dataset.update(part)
        return dataset
    shared = Dataset()
    shared.PixelMeasuresSequence, shared.PlaneOrientationSequence = [measures], [orientation]
    per_frame = [Dataset() for _ in places]
    for frame, place in zip(per_frame, places, strict=True):
        frame.PlanePositionSequence = [place]
    dataset.NumberOfFrames = len(places)
    dataset.SharedFunctionalGroupsSequence = [shared]
    dataset.PerFrameFunctionalGroupsSequence = per_frame
    return dataset


def _decimals(values: np.ndarray) -> list[str]:
    return [format_number_as_ds(float(v)) for v in values]


def by_channel(result: Result, uids: Uids) -> tuple[dict[str, Images], list[str]]:
    """Images of all channels that have some, and notes on channels that cannot be referred to."""
    found: dict[str, Images] = {}
    notes = []
    for channel, files in result.sources.items():
        if not files:
            continue
        try:
            frames = result.frames.get(channel, {})
            found[channel] = images_of(files, frames, result.study, uids)
        except Unreferable as why:
            notes.append(f"no DICOM file refers to the images of {channel}: {why}.")
    return found, notes
