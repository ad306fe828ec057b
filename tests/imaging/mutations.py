"""Small valid image files of every kind, and seeded damage to image files.

As a program (``python mutations.py FOLDER FIRST LAST FILE ...``) it reads damaged copies of files,
one seed each, and says of each what came of it; whoever started it sees hangs and crashes.
"""

import gzip
import io
import resource
import struct
import sys
import traceback
import warnings
import zlib
from pathlib import Path

import nibabel as nib
import numpy as np
import pydicom
import SimpleITK as sitk  # noqa: N813
from PIL import Image
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import (
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    RLELossless,
)

from mskjax.errors import UserError
from mskjax.imaging.files import read_mask, read_volume
from mskjax.imaging.volume import Volume

MOST_SECONDS = 5.0
SMALL_SERIES = ("shoulder_series_hitachi", "002_non_isotropic")
ABSURD = (0, 1, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 50_000, 1_000_000)
WORDS = (
    b"", b"0", b"-1", b"1e30", b"nan", b"inf", b"0,8", b"0,8\\0,8", b"x", b"\\", b"99999999999",
    b"1\\2", b"MONOCHROME1", b"PALETTE COLOR", b"061Y", b"\xff\xfe", b"1.2.840.10008.1.2.4.90",
    b"True", b"LOCAL", b"LIST", b"MET_DOUBLE", b"65535 65535 65535", b"0 0 0", b"../x",
)  # fmt: skip


def samples(folder: Path) -> list[Path]:
    """Writes one small valid file of each kind; DICOM files are alone in folders of their own."""
    rng = np.random.default_rng(0)
    stack = rng.integers(0, 200, (5, 6, 4)).astype(np.int16)
    affine = np.array([[0, 0, 3.0, -10], [-0.8, 0, 0, 50], [0, -0.8, 0, 60], [0, 0, 0, 1]])
    nib.Nifti1Image(stack, affine).to_filename(folder / "a.nii")
    scaled = nib.Nifti1Image(stack, affine)
    scaled.header.set_slope_inter(0.5, 3)
    scaled.set_qform(affine, 1)
    scaled.to_filename(folder / "a.nii.gz")
    nib.Nifti2Image(stack.astype(np.float32), affine).to_filename(folder / "b.nii.gz")
    image = sitk.GetImageFromArray(stack)
    image.SetSpacing((0.8, 0.8, 3.0))
    sitk.WriteImage(image, str(folder / "a.mha"))
    sitk.WriteImage(image, str(folder / "b.mha"), useCompression=True)
    sitk.WriteImage(image, str(folder / "c.mhd"))
    flat = rng.integers(0, 4, (9, 7)).astype(np.uint8)
    Image.fromarray(flat).save(folder / "grey.png")
    Image.fromarray(flat.astype(np.uint16) * 999).save(folder / "deep.png")
    Image.fromarray(np.stack([flat] * 3, -1)).save(folder / "rgb.png")
    indexed = Image.fromarray(flat, mode="P")
    indexed.putpalette([0, 0, 0, 90, 90, 90, 180, 180, 180, 255, 255, 255])
    indexed.save(folder / "indexed.png", bits=2)
    for name, syntax in (
        ("plain", ExplicitVRLittleEndian),
        ("implicit", ImplicitVRLittleEndian),
        ("rle", RLELossless),
        ("j2k", JPEG2000Lossless),
    ):
        _write_dicom(folder / f"{name}.dcm", syntax, rng)
    enhanced = _enhanced(rng)
    enhanced.save_as(folder / "enhanced.dcm", enforce_file_format=True)
    return sorted(p for p in folder.iterdir() if p.suffix != ".raw")


def _header(rows: int, columns: int) -> Dataset:
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.SOPClassUID, dataset.SOPInstanceUID = "1.2.840.10008.5.1.4.1.1.4", "1.2.3.4"
    dataset.Modality, dataset.SeriesInstanceUID, dataset.PatientAge = "MR", "1.2.3", "061Y"
    dataset.MagneticFieldStrength, dataset.EchoTime = "1.5", "80"
    dataset.Rows, dataset.Columns, dataset.SamplesPerPixel = rows, columns, 1
    dataset.PhotometricInterpretation = "MONOCHROME2"
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 16, 12, 11
    dataset.PixelRepresentation = 0
    return dataset


def _write_dicom(path: Path, syntax: str, rng: np.random.Generator) -> None:
    dataset = _header(8, 10)
    dataset.ImagePositionPatient = ["0", "-10", "20"]
    dataset.ImageOrientationPatient = ["0", "1", "0", "0", "0", "-1"]
    dataset.PixelSpacing, dataset.SliceThickness = ["0.8", "0.8"], "3"
    dataset.RescaleSlope, dataset.RescaleIntercept = "2", "-1"
    pixels = rng.integers(0, 4000, (8, 10)).astype(np.uint16)
    dataset.PixelData = pixels.tobytes()
    if syntax == RLELossless:
        dataset.compress(RLELossless)
    elif syntax == JPEG2000Lossless:
        stream = io.BytesIO()
        Image.fromarray(pixels).save(stream, "JPEG2000", irreversible=False, no_jp2=True)
        dataset.PixelData = encapsulate([stream.getvalue()])
        dataset["PixelData"].is_undefined_length = True
    dataset.file_meta.TransferSyntaxUID = syntax
    if syntax == ImplicitVRLittleEndian:
        del dataset.file_meta
        dataset.save_as(path, implicit_vr=True, little_endian=True)
    else:
        dataset.save_as(path, enforce_file_format=True)


def _enhanced(rng: np.random.Generator) -> Dataset:
    dataset = _header(4, 5)
    dataset.NumberOfFrames = 3
    dataset.PixelData = rng.integers(0, 4000, (3, 4, 5)).astype(np.uint16).tobytes()
    shared, plane, measures = Dataset(), Dataset(), Dataset()
    plane.ImageOrientationPatient = ["0", "1", "0", "0", "0", "-1"]
    measures.PixelSpacing, measures.SliceThickness = ["1", "1"], "3"
    shared.PlaneOrientationSequence, shared.PixelMeasuresSequence = [plane], [measures]
    dataset.SharedFunctionalGroupsSequence = [shared]
    dataset.PerFrameFunctionalGroupsSequence = groups = []
    for depth in range(3):
        group, place = Dataset(), Dataset()
        place.ImagePositionPatient = [str(3 * depth), "0", "0"]
        group.PlanePositionSequence = [place]
        groups.append(group)
    dataset.PerFrameFunctionalGroupsSequence = groups
    return dataset


def damaged(whole: bytes, name: str, rng: np.random.Generator) -> bytes:
    """A damaged copy of a file: of its bytes or, half of the time, of its fields."""
    fields = {".nii": _nifti, ".gz": _nifti, ".mha": _metaimage, ".mhd": _metaimage, ".png": _png}
    if rng.random() < 0.5:
        for _ in range(rng.integers(1, 4)):
            whole = fields.get(Path(name).suffix, _dicom)(whole, rng)
        return whole
    return _bytes(whole, rng)


def _bytes(whole: bytes, rng: np.random.Generator) -> bytes:
    blob = bytearray(whole)
    reach = len(blob) if rng.random() < 0.5 else min(len(blob), 1024)  # headers come first
    at = int(rng.integers(0, max(reach, 1)))
    run = int(rng.integers(1, 64))
    kind = rng.integers(0, 7)
    if kind == 0:
        return bytes(blob[:at])
    if kind == 1:
        blob[at : at + run] = bytes(run)
    elif kind == 2:
        blob[at:at] = rng.bytes(run)
    elif kind == 3:
        del blob[at : at + run]
    elif kind == 4:
        order = rng.choice(["little", "big"])
        blob[at : at + 4] = int(rng.choice(ABSURD)).to_bytes(4, order)
    else:
        for _ in range(rng.integers(1, 16)):
            blob[int(rng.integers(0, max(reach, 1))) % max(len(blob), 1)] ^= 1 << int(
                rng.integers(0, 8)
            )
    return bytes(blob)


def _nifti(whole: bytes, rng: np.random.Generator) -> bytes:
    packed = whole[:2] == b"\x1f\x8b"
    try:
        blob = bytearray(gzip.decompress(whole) if packed else whole)
    except (OSError, EOFError, zlib.error):
        return _bytes(whole, rng)
    kind = nib.Nifti2Header if blob[:4] == struct.pack("<i", 540) else nib.Nifti1Header
    order = "<" if blob[0] in (0x5C, 0x1C) else ">"
    header = np.frombuffer(blob[: kind.template_dtype.itemsize], kind.template_dtype)
    header = header.view(kind.template_dtype.newbyteorder(order)).copy()
    if not header.size:
        return _bytes(whole, rng)
    field = rng.choice(list(kind.template_dtype.names))
    cell = np.atleast_1d(header[field][0])
    if cell.dtype.kind == "f":
        cell.flat[rng.integers(cell.size)] = rng.choice([0, -1, np.nan, np.inf, 1e30, 1e-30, 350])
    elif cell.dtype.kind in "iu":
        value = int(rng.choice([*ABSURD, 2, 3, 4, 5, 8, 16, 64, 512, 1792, 2304]))
        info = np.iinfo(cell.dtype)
        cell.flat[rng.integers(cell.size)] = min(max(value, info.min), info.max)
    header[field] = cell if header[field][0].shape else cell[0]
    blob[: header.nbytes] = header.tobytes()
    return gzip.compress(bytes(blob), 1) if packed else bytes(blob)


def _metaimage(whole: bytes, rng: np.random.Generator) -> bytes:
    end = whole.find(b"\n", max(whole.find(b"ElementDataFile"), 0)) + 1
    lines, rest = whole[:end].split(b"\n"), whole[end:]
    at = int(rng.integers(0, len(lines)))
    if rng.random() < 0.3:
        del lines[at]
    else:
        value = rng.choice([*WORDS, *(str(n).encode() for n in ABSURD)])
        lines[at] = lines[at].partition(b"=")[0] + b"= " + value
    return b"\n".join(lines) + rest


def _png(whole: bytes, rng: np.random.Generator) -> bytes:
    """Changes a chunk and mends its checksum, so that the change is believed."""
    chunks, at = [], 8
    while at + 12 <= len(whole):
        length = int.from_bytes(whole[at : at + 4], "big")
        chunks.append((whole[at + 4 : at + 8], bytearray(whole[at + 8 : at + 8 + length])))
        at += 12 + length
    if not chunks:
        return _bytes(whole, rng)
    k = int(rng.integers(0, len(chunks)))
    kind, content = chunks[k]
    if kind == b"IHDR" and rng.random() < 0.7 and len(content) == 13:
        field = int(rng.choice([0, 4, 8, 9, 12]))
        if field < 8:
            content[field : field + 4] = int(rng.choice(ABSURD)).to_bytes(4, "big")
        else:
            content[field] = int(rng.choice([0, 1, 2, 3, 4, 6, 8, 16, 255]))
    elif rng.random() < 0.3:
        del chunks[k]
    elif rng.random() < 0.3:
        chunks.insert(1, (bytes(rng.choice([b"acTL", b"tRNS", b"PLTE"])), bytearray(rng.bytes(6))))
    elif content:
        content[int(rng.integers(0, len(content)))] ^= 1 << int(rng.integers(0, 8))
    return whole[:8] + b"".join(
        len(c).to_bytes(4, "big") + n + bytes(c) + zlib.crc32(n + bytes(c)).to_bytes(4, "big")
        for n, c in chunks
    )


def _dicom(whole: bytes, rng: np.random.Generator) -> bytes:
    """Empties, overwrites, retypes or miscounts one element."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            dataset = pydicom.dcmread(io.BytesIO(whole), force=True)
            elements = _elements(dataset)
    except Exception:  # what was damaged before
        return _bytes(whole, rng)
    if not elements:
        return _bytes(whole, rng)
    element = elements[int(rng.integers(0, len(elements)))]
    blob, start = bytearray(whole), element.value_tell
    length = min(element.length, len(blob) - start)
    short = element.is_implicit_VR or element.VR not in pydicom.valuerep.EXPLICIT_VR_LENGTH_32
    width = 2 if short and not element.is_implicit_VR else 4
    kind = rng.integers(0, 4)
    order = "little" if element.is_little_endian else "big"
    if element.length == 0xFFFFFFFF or kind == 0:
        absurd = int(rng.choice(ABSURD)) & ((1 << 8 * width) - 1)
        blob[start - width : start] = absurd.to_bytes(width, order)
    elif kind == 1:
        blob[start - width : start + length] = bytes(width)
    elif kind == 2 and not element.is_implicit_VR:
        at = start - (4 if short else 8)
        blob[at : at + 2] = bytes(rng.choice([b"UN", b"DS", b"SQ", b"US", b"FD", b"OB", b"XX"]))
    else:
        word = bytes(rng.choice(WORDS)) if rng.random() < 0.6 else rng.bytes(4)
        blob[start : start + length] = word.ljust(length, b" ")[:length]
    return bytes(blob)


def _elements(dataset: Dataset) -> list[RawDataElement]:
    """All elements that still stand as they were read, those of sequences included."""
    found = []
    for tag in list(dataset.keys()):
        element = dataset.get_item(tag)
        if isinstance(element, RawDataElement) and element.VR != "SQ":
            found.append(element)
        elif element.VR == "SQ":
            for item in dataset[tag].value:
                found += _elements(item)
    return found


def is_compressed(file: Path) -> bool:
    """Whether a file is a DICOM with compressed pixels."""
    if not file.name.endswith(".dcm"):
        return False
    meta = pydicom.dcmread(file, stop_before_pixels=True, force=True).file_meta
    return meta.get("TransferSyntaxUID", ExplicitVRLittleEndian).is_compressed


def siblings_of(file: Path) -> list[Path]:
    """What belongs to a file: the data of a header, the other slices of a small series."""
    if file.suffix == ".mhd":
        return [file.with_suffix(".raw")]
    is_slice = file.suffix == ".dcm" and file.parent.name in SMALL_SERIES
    return [p for p in file.parent.iterdir() if p != file] if is_slice else []


def outcome(file: Path, seed: int, folder: Path) -> str:
    """Reads a damaged copy, as image or as mask; ``read``, ``refused``, or what is wrong."""
    siblings = siblings_of(file)
    rng = np.random.default_rng((seed, len(file.name)))
    copy = folder / file.name
    for sibling in siblings:
        (folder / sibling.name).write_bytes(sibling.read_bytes())
    copy.write_bytes(damaged(file.read_bytes(), file.name, rng))
    target = folder if siblings and file.suffix == ".dcm" else copy
    started = processor_seconds()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            if rng.random() < 0.3:
                read_mask(target, _REFERENCE, (1, 2))
            else:
                volume = read_volume(target)
                assert volume.data.ndim == 3
                assert np.isfinite(volume.affine).all()
        result = "read"
    except UserError as error:
        result = "refused" if file.name in str(error) or str(folder) in str(error) else str(error)
    except Exception:
        result = traceback.format_exc()
    seconds = processor_seconds() - started
    return result if seconds < MOST_SECONDS else f"took {seconds:.1f} s ({result})"


def processor_seconds() -> float:
    """Used by this process and those that it started; a busy machine does not change it."""
    kinds = resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN
    return sum(u.ru_utime + u.ru_stime for u in map(resource.getrusage, kinds))


def peak_megabytes() -> int:
    """Most memory that this program has held.

    Linux hands ``ru_maxrss`` of a parent on to the programs that it starts; its status does not.
    """
    status = Path("/proc/self/status")
    if status.exists():
        line = next(x for x in status.read_text().splitlines() if x.startswith("VmHWM:"))
        return int(line.split()[1]) // 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024


_REFERENCE = Volume(np.ones((5, 6, 4), np.uint8), np.diag([1.0, 1, 1, 1]))


def main(folder: Path, first: int, last: int, files: list[Path]) -> None:
    """One line a seed when it begins and one when it is done."""
    resource.setrlimit(resource.RLIMIT_AS, (8 << 30, 8 << 30))
    for seed in range(first, last):
        file = files[seed % len(files)]
        print(f"{seed} begins {file}", flush=True)
        for old in folder.iterdir():
            old.unlink()
        result = outcome(file, seed, folder)
        print(f"{seed} {peak_megabytes()} {' | '.join(result.splitlines())}", flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), [Path(p) for p in sys.argv[4:]])
