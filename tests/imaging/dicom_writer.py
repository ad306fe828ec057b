"""Small DICOM series whose geometry is known by construction."""

from pathlib import Path

import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, generate_uid

DELETED = object()
CLASSIC_MR = "1.2.840.10008.5.1.4.1.1.4"
ENHANCED_MR = "1.2.840.10008.5.1.4.1.1.4.1"


def oblique() -> np.ndarray:
    """An orthonormal LPS frame far from every axis: row, column, normal."""
    q, _ = np.linalg.qr(np.random.default_rng(3).normal(size=(3, 3)))
    q[:, 2] = np.cross(q[:, 0], q[:, 1])
    return q


def header(rows: int, columns: int, sop_class: str) -> Dataset:
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.SOPClassUID, dataset.SOPInstanceUID = sop_class, generate_uid()
    dataset.Modality = "MR"
    dataset.SeriesInstanceUID = "1.2.3"
    dataset.Rows, dataset.Columns = rows, columns
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 16, 12, 11
    dataset.PixelRepresentation = 0
    return dataset


def numbers(values: np.ndarray) -> list[str]:
    return [f"{v:.9f}" for v in values]


def write_series(folder: Path, depths=(0.0, 3.0, 6.0, 9.0), **changes) -> tuple[np.ndarray, ...]:
    """Writes one file per slice in shuffled name order; returns voxels and the LPS frame.

    A change is an attribute to one value a slice; DELETED leaves it out.
    """
    frame, origin = oblique(), np.array([12.5, -40.25, 7.75])
    voxels = np.random.default_rng(0).integers(0, 4000, (len(depths), 5, 7)).astype(np.uint16)
    for index, depth in enumerate(depths):
        dataset = header(5, 7, CLASSIC_MR)
        dataset.ImagePositionPatient = numbers(origin + frame[:, 2] * depth)
        dataset.ImageOrientationPatient = numbers(frame[:, :2].T.ravel())
        dataset.PixelSpacing = ["0.5", "0.8"]
        dataset.SliceThickness = "2"
        dataset.PixelData = voxels[index].tobytes()
        for keyword, values in changes.items():
            if values[index] is DELETED:
                delattr(dataset, keyword)
            else:
                setattr(dataset, keyword, values[index])
        dataset.save_as(folder / f"{(index * 7 + 3) % 11:02d}.dcm", enforce_file_format=True)
    return voxels, frame, origin
