"""A generated study as a scanner leaves it, with values planted in identifying attributes."""

from pathlib import Path

import numpy as np
from imaging.dicom_writer import CLASSIC_MR, header, numbers
from inputs.dicom_tree import T2, uid
from inputs.planting import plant

_RAS_TO_LPS = np.diag([-1.0, -1.0, 1.0, 1.0])


def write_dicom(folder: Path, image: np.ndarray, affine: np.ndarray) -> dict[str, str]:
    """Writes a sagittal T2 series, a file a slice; returns keyword to value of what is planted.

    Args:
      folder: made.
      image: (S, H, W).
      affine: (4, 4), index to RAS mm.
    """
    folder.mkdir(parents=True)
    lps = _RAS_TO_LPS @ affine
    step, down, across = lps[:3, 0], lps[:3, 1], lps[:3, 2]
    sizes = [np.linalg.norm(v) for v in (down, across)]
    planted: dict[str, str] = {}
    for index, pixels in enumerate(image - image.min()):
        dataset = header(*image.shape[1:], CLASSIC_MR)
        planted |= plant(dataset)
        dataset.StudyInstanceUID, dataset.SeriesInstanceUID = uid("study"), uid("series")
        dataset.FrameOfReferenceUID = uid("frame")
        dataset.ImageType, dataset.ScanningSequence = ["ORIGINAL", "PRIMARY", "M", "ND"], "SE"
        dataset.EchoTime, dataset.RepetitionTime = T2["EchoTime"], T2["RepetitionTime"]
        dataset.ImagePositionPatient = numbers(lps[:3, 3] + step * index)
        dataset.ImageOrientationPatient = numbers(
            np.concatenate([across / sizes[1], down / sizes[0]])
        )
        dataset.PixelSpacing = [f"{v:.6f}" for v in sizes]
        dataset.SliceThickness = f"{np.linalg.norm(step):.4f}"
        dataset.PixelData = np.clip(pixels, 0, 4095).astype(np.uint16).tobytes()
        dataset.save_as(folder / f"IM{index:04d}", enforce_file_format=True)
    uids = ("SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID")
    return {k: v for k, v in planted.items() if k not in uids}
