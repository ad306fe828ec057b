"""DICOM studies as scanners leave them: series in a tree, with headers that say what they are."""

import itertools
from pathlib import Path

import numpy as np
from imaging.dicom_writer import CLASSIC_MR, ENHANCED_MR, header, numbers
from pydicom.dataset import Dataset
from pydicom.uid import generate_uid

# Direction cosines of row and column (LPS).
PLANES = {
    "sagittal": (0, 1, 0, 0, 0, -1),
    "coronal": (1, 0, 0, 0, 0, -1),
    "axial": (1, 0, 0, 0, 1, 0),
    "y-view": (0.6427876, 0.7660444, 0, 0, 0, -1),  # normal 40 degrees from left-right
    "coronal oblique": (0.7660444, -0.6427876, 0, 0, 0, -1),  # 50 degrees from left-right
}
T2 = {"EchoTime": 101, "RepetitionTime": 3600, "SeriesDescription": "t2_tse_sag"}
T1 = {"EchoTime": 11, "RepetitionTime": 550, "SeriesDescription": "t1_tse_sag"}
STIR = {
    "EchoTime": 60, "RepetitionTime": 4000, "InversionTime": 160, "ScanningSequence": ["SE", "IR"],
    "SeriesDescription": "t2_tirm_sag",
}  # fmt: skip
LOCALISER = {
    "EchoTime": 5, "RepetitionTime": 20, "ScanningSequence": "GR", "SeriesDescription": "localizer",
    "ImageType": ["ORIGINAL", "PRIMARY", "M", "LOCALIZER"],
}  # fmt: skip
_numbers = itertools.count(1)


def uid(text: str) -> str:
    """A UID that a word always has."""
    return generate_uid(entropy_srcs=[text])


def write_images(
    folder: Path,
    name: str,
    *,
    study: str = "study",
    patient: str = "PAT-4711",
    plane: str = "sagittal",
    slices: int = 5,
    step: float = 4.0,
    number: int = 1,
    origin: tuple[float, float, float] = (0, 0, 0),
    prefix: str = "IM",
    **attributes,
) -> list[Path]:
    """Writes one series, a file a slice; returns its files in the order of the slices.

    `name` makes the SeriesInstanceUID; an attribute is of all slices.
    """
    folder.mkdir(parents=True, exist_ok=True)
    directions = np.array(PLANES[plane], float)
    normal = np.cross(directions[:3], directions[3:])
    pixels = np.random.default_rng(len(name) + number).integers(0, 900, (slices, 24, 20))
    files = []
    for index in range(slices):
        dataset = header(24, 20, CLASSIC_MR)
        dataset.StudyInstanceUID, dataset.SeriesInstanceUID = uid(study), uid(study + name)
        dataset.PatientID, dataset.SeriesNumber = patient, number
        dataset.FrameOfReferenceUID = uid(study + "frame")
        dataset.ImageType = ["ORIGINAL", "PRIMARY", "M", "ND"]
        dataset.ScanningSequence = "SE"
        dataset.ImagePositionPatient = numbers(np.array(origin) + normal * step * index)
        dataset.ImageOrientationPatient = numbers(directions)
        dataset.PixelSpacing, dataset.SliceThickness = ["0.7", "0.7"], f"{step}"
        dataset.PixelData = pixels[index].astype(np.uint16).tobytes()
        for keyword, value in attributes.items():
            setattr(dataset, keyword, value)
        files.append(folder / f"{prefix}{next(_numbers):06d}")
        dataset.save_as(files[-1], enforce_file_format=True)
    return files


def write_enhanced(path: Path, name: str, stacks, *, study: str = "study", patient="PAT-4711"):
    """Writes one Enhanced MR file of several stacks, each (plane, slices, frame attributes).

    Returns the number of the frames of each stack.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    dataset = header(24, 20, ENHANCED_MR)
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID = uid(study), uid(study + name)
    dataset.PatientID, dataset.SeriesNumber = patient, 9
    measures = Dataset()
    measures.PixelSpacing, measures.SliceThickness = ["0.7", "0.7"], "4"
    shared = Dataset()
    shared.PixelMeasuresSequence = [measures]
    groups = []
    for plane, slices, attributes in stacks:
        directions = np.array(PLANES[plane], float)
        normal = np.cross(directions[:3], directions[3:])
        for index in range(slices):
            group, place, turned, echo, kind, timing = (Dataset() for _ in range(6))
            place.ImagePositionPatient = numbers(normal * 4.0 * index)
            turned.ImageOrientationPatient = numbers(directions)
            echo.EffectiveEchoTime = attributes.get("EffectiveEchoTime", 100.0)
            timing.RepetitionTime = attributes.get("RepetitionTime", 3000.0)
            kind.FrameType = attributes.get("FrameType", ["ORIGINAL", "PRIMARY", "T2", "NONE"])
            group.PlanePositionSequence, group.PlaneOrientationSequence = [place], [turned]
            group.MREchoSequence, group.MRImageFrameTypeSequence = [echo], [kind]
            group.MRTimingAndRelatedParametersSequence = [timing]
            groups.append(group)
    dataset.NumberOfFrames = len(groups)
    dataset.SharedFunctionalGroupsSequence = [shared]
    dataset.PerFrameFunctionalGroupsSequence = groups
    rng = np.random.default_rng(7)
    dataset.PixelData = rng.integers(0, 900, (len(groups), 24, 20)).astype(np.uint16).tobytes()
    dataset.save_as(path, enforce_file_format=True)
    ends = np.cumsum([slices for _, slices, _ in stacks])
    return [
        tuple(range(end - s, end)) for end, (_, s, _) in zip(ends.tolist(), stacks, strict=True)
    ]
