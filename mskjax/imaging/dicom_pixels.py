"""Pixels of DICOM images: as stored, and as a viewer shows them.

Source: PS3.3 C.7.6.3 (Image Pixel), C.11.1 (Modality LUT), C.11.6 (Presentation LUT Shape).
"""

import dataclasses
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pydicom
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.pixels import apply_color_lut, apply_modality_lut, pixel_array
from pydicom.uid import (
    UID,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    RLELossless,
)

from mskjax.errors import UserError
from mskjax.imaging.dicom_decode import decode_files
from mskjax.imaging.dicom_fields import numbers, whole, written
from mskjax.imaging.limits import check_bytes, check_voxels, damaged

# RLE packs 128 bytes into 2.  The JPEG family leaves of a slice without signal its markers alone:
# 150 bytes of JPEG 2000 are 2048 x 2048 pixels.
_RLE_RATIO, _JPEG_RATIO = 64, 200_000

# What a file needs for GDCM to decode it to stored values.  It would apply a rescale or a palette,
# or not, depending on the kind of object, so it is handed a grey secondary capture.
_PIXEL_MODULE = (
    "Rows", "Columns", "BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation",
    "NumberOfFrames", "PixelData",
)  # fmt: skip
_SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"
_MULTIFRAME_SECONDARY_CAPTURE = {
    8: "1.2.840.10008.5.1.4.1.1.7.2",
    16: "1.2.840.10008.5.1.4.1.1.7.3",
}


@dataclasses.dataclass(frozen=True)
class Layout:
    """How the pixels of a file are stored; checked.

    Attributes:
      shape: frames, rows, columns.
      allocated: bits a pixel.
      stored: bits of these that are used.
      signed: whether they are signed.
      syntax: the transfer syntax.
      is_named: whether the header names the syntax; else it is the one the data show.
    """

    shape: tuple[int, int, int]
    allocated: int
    stored: int
    signed: bool
    syntax: UID
    is_named: bool

    @property
    def is_packed(self) -> bool:
        """Whether the pixels are compressed in a way that pydicom leaves to others."""
        return self.syntax.is_encapsulated and self.syntax != RLELossless


def layout(file: Path, dataset: FileDataset) -> Layout:
    """Checks what is said of the pixels before they are decoded.

    Raises:
      UserError: there are none, too many, more than the file can hold, or they are in colour.
    """
    if "PixelData" not in dataset:
        raise UserError(
            f"{file}: has no complete pixel data (the file is cut short, or is no image); copy or "
            "export it again."
        )
    if whole(file, dataset, "SamplesPerPixel", 1) != 1:
        raise UserError(f"{file}: is a colour image; give a grey-scale series.")
    frames = whole(file, dataset, "NumberOfFrames", 1) or 1
    shape = frames, whole(file, dataset, "Rows"), whole(file, dataset, "Columns")
    allocated = whole(file, dataset, "BitsAllocated")
    stored = whole(file, dataset, "BitsStored", allocated)
    if allocated not in (1, 8, 16, 32) or not 1 <= stored <= allocated:
        raise damaged(file, f"BitsStored is {stored} and BitsAllocated {allocated}")
    signed = whole(file, dataset, "PixelRepresentation", 0) == 1
    is_named = bool(written(dataset.file_meta, "TransferSyntaxUID"))
    if not is_named:
        dataset.file_meta.TransferSyntaxUID = _syntax_of_data(file, dataset)
    syntax = UID(dataset.file_meta.TransferSyntaxUID)
    found = Layout(shape, allocated, stored, signed, syntax, is_named)
    voxels = check_voxels(file, shape)
    if found.syntax.is_encapsulated:
        ratio = _JPEG_RATIO if found.is_packed else _RLE_RATIO
        there = len(dataset["PixelData"].value or b"")
        check_bytes(file, voxels * -(-allocated // 8), there, ratio)
    return found


def _syntax_of_data(file: Path, dataset: FileDataset) -> UID:
    """The transfer syntax in which pydicom found the data set to be written."""
    if dataset["PixelData"].is_undefined_length:
        raise UserError(
            f"{file}: has no TransferSyntaxUID though its pixels are compressed, so they cannot be"
            " decoded; export it again."
        )
    implicit, little = dataset.original_encoding
    if not little:
        return ExplicitVRBigEndian
    return ImplicitVRLittleEndian if implicit else ExplicitVRLittleEndian


def unpacked(
    images: Sequence[tuple[Path, FileDataset, Layout]],
) -> Mapping[Path, np.ndarray | str]:
    """Pixels of the images that are compressed, or why they cannot be decoded, by file."""
    packed = [(file, dataset, how) for file, dataset, how in images if how.is_packed]
    if not packed:
        return {}
    with tempfile.TemporaryDirectory() as folder:
        parts = [Path(folder, f"{i}.dcm") for i in range(len(packed))]
        for part, (_, dataset, how) in zip(parts, packed, strict=True):
            _bare(dataset, how).save_as(part, enforce_file_format=True)
        largest = max(int(np.prod(how.shape)) for _, _, how in packed)
        results = decode_files(parts, largest)
    return {file: result for (file, _, _), result in zip(packed, results, strict=True)}


def _bare(dataset: FileDataset, how: Layout) -> Dataset:
    bare = Dataset()
    for keyword in _PIXEL_MODULE:
        if keyword in dataset:
            bare[keyword] = dataset[keyword]
    bare.SamplesPerPixel, bare.PhotometricInterpretation = 1, "MONOCHROME2"
    bare.SOPClassUID = (
        _SECONDARY_CAPTURE
        if how.shape[0] == 1
        else _MULTIFRAME_SECONDARY_CAPTURE[16 if how.allocated > 8 else 8]
    )
    bare.SOPInstanceUID = pydicom.uid.generate_uid()
    bare.file_meta = FileMetaDataset()
    bare.file_meta.TransferSyntaxUID = how.syntax
    return bare


def stored_values(
    file: Path, dataset: FileDataset, how: Layout, decoded: np.ndarray | str | None
) -> np.ndarray:
    """(frames, rows, columns) integers as stored, of any transfer syntax.

    Args:
      file: for messages.
      dataset: with PixelData, which is dropped when it has been read.
      how: its layout.
      decoded: what `unpacked` has of the file.

    Raises:
      UserError: the pixels cannot be decoded, or are not as many as announced.
    """
    if isinstance(decoded, str):
        raise damaged(file, decoded)
    pixels = pixel_array(dataset) if decoded is None else decoded
    del dataset.PixelData
    if pixels.size != np.prod(how.shape) or pixels.dtype.kind not in "iu":
        raise damaged(file, f"pixel data of shape {pixels.shape} where {how.shape} is announced")
    return pixels.reshape(how.shape).astype(pixels.dtype.newbyteorder("="), copy=False)


def is_inverted(dataset: Dataset) -> bool:
    """Whether low values are shown white."""
    return (
        written(dataset, "PhotometricInterpretation") == "MONOCHROME1"
        or written(dataset, "PresentationLUTShape") == "INVERSE"
    )


def shown(
    file: Path, dataset: Dataset, header: Dataset, how: Layout, pixels: np.ndarray
) -> np.ndarray:
    """One frame as a viewer shows it, before windowing.

    Args:
      file: for messages.
      dataset: of the file.
      header: attributes of the frame.
      how: layout of the file.
      pixels: (rows, columns) as stored.

    Returns:
      (rows, columns): through the palette, or inverted where low values are shown white, then
      through the Modality LUT or the rescale, as float32; the stored dtype if neither changes it.

    Raises:
      UserError: the palette is coloured, the rescale is no number or has slope 0, or a value leaves
        the bits stored.
    """
    if written(dataset, "PhotometricInterpretation") == "PALETTE COLOR":
        colours = apply_color_lut(pixels, dataset)
        if not np.all(colours == colours[..., :1]):
            raise UserError(f"{file}: is a colour image (PALETTE COLOR); give a grey-scale series.")
        return np.ascontiguousarray(colours[..., 0])
    if header.get("ModalityLUTSequence"):
        values = apply_modality_lut(pixels, header)
        top = 2 ** int(header.ModalityLUTSequence[0].LUTDescriptor[2]) - 1
        return (top - values if is_inverted(dataset) else values).astype(np.float32)
    if is_inverted(dataset):
        high = (1 << (how.stored - how.signed)) - 1
        low = -high - 1 if how.signed else 0
        if pixels.min() < low or pixels.max() > high:
            raise damaged(file, f"its pixels leave the {how.stored} bits of BitsStored")
        pixels = (low + high - pixels.astype(np.int64)).astype(pixels.dtype)
    slope, intercept = _rescale(file, header)
    if slope == 1 and intercept == 0:
        return pixels
    return (pixels * slope + intercept).astype(np.float32)


def _rescale(file: Path, header: Dataset) -> tuple[float, float]:
    """Slope and intercept; what has no value changes nothing."""
    slope = numbers(file, header, "RescaleSlope", 1)
    intercept = numbers(file, header, "RescaleIntercept", 1)
    if slope is not None and slope[0] == 0:
        raise UserError(
            f"{file}: RescaleSlope is 0, so all pixels would be equal; export the original series"
            " again."
        )
    return (
        1.0 if slope is None else float(slope[0]),
        0.0 if intercept is None else float(intercept[0]),
    )
