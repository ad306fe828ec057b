"""Single DICOM files: told by content, opened, and what they hold if not an image.

Source: PS3.10 chapter 7 (preamble and mark), PS3.5 chapter 7 (data elements).
"""

import codecs
import logging
import zlib
from pathlib import Path

import pydicom
from pydicom.dataset import FileDataset
from pydicom.uid import UID, DeflatedExplicitVRLittleEndian

from mskjax.imaging.dicom_fields import written
from mskjax.imaging.limits import MOST_VOXELS, damaged

# What it warns of is checked here; a command's own log handler would print it nevertheless.
logging.getLogger("pydicom").propagate = False

_MARK = slice(128, 132)
_META_LENGTH = b"\x02\0\0\0UL\x04\0"  # (0002,0000), the first element behind the mark
_MOST_INFLATED = 4 * MOST_VOXELS  # bytes
_PIECE = 1 << 16
_LONG = 1 << 14  # bytes
_STANDARD = "1.2.840.10008."
_VRS = frozenset(
    b"AE AS AT CS DA DS DT FD FL IS LO LT OB OD OF OL OV OW PN SH SL SQ SS ST SV TM UC UI UL UN UR"
    b" US UT UV".split()
)

# What lies about in exported folders, by how it begins.
_OTHER_KINDS = (
    (b"\x89PNG", "a PNG picture"), (b"\xff\xd8\xff", "a JPEG picture"), (b"GIF8", "a GIF picture"),
    (b"BM", "a BMP picture"), (b"II*\0", "a TIFF picture"), (b"MM\0*", "a TIFF picture"),
    (b"\0\0\1\0", "an icon"), (b"%PDF", "a PDF"), (b"PK\3\4", "a ZIP archive"),
    (b"\x1f\x8b", "a gzip-compressed file"), (b"BZh", "an archive"), (b"7z\xbc\xaf", "an archive"),
    (b"Rar!", "an archive"), (b"MSCF", "an archive"), (b"MZ", "a program"),
    (b"\x7fELF", "a program"), (b"\xca\xfe\xba\xbe", "a program"),
    (b"\xcf\xfa\xed\xfe", "a program"),
    (b"\xd0\xcf\x11\xe0", "a Windows system or Office file"), (b"L\0\0\0\1\x14\2\0", "a shortcut"),
    (b"SQLite format 3", "a database"), (b"\0\0\0\1Bud1", "a macOS system file"),
    (b"\0\5\x16\7", "a macOS system file"), (b"bplist00", "a macOS system file"),
    (b"\x5c\1\0\0", "NIfTI or Analyze"), (b"\0\0\1\x5c", "NIfTI or Analyze"),
    (b"\x1c\2\0\0", "NIfTI"), (b"\0\0\2\x1c", "NIfTI"), (b"ObjectType", "MetaImage"),
    (b"NRRD", "NRRD"), (b"\x89HDF", "HDF5"), (b"\x93NUMPY", "a NumPy array"), (b"RIFF", "a video"),
    (b"MATLAB", "a MATLAB file"), (b"\xff\xfe", "text"), (b"\xfe\xff", "text"),
)  # fmt: skip
_TEXT_BYTES = frozenset(b"\t\n\f\r\x1a\x1b") | frozenset(range(0x20, 0x100)) - {0x7F}


def has_mark(path: Path) -> bool:
    """Whether a file has the preamble and the mark ``DICM``."""
    return _head(path, 132)[_MARK] == b"DICM"


def is_dicom(path: Path) -> bool:
    """Whether a file has the mark, or begins as a data set without preamble does."""
    head = _head(path, 132)
    return head[_MARK] == b"DICM" or _begins_as_data_set(head)


def other_kind(path: Path) -> str:
    """What a file is that is not DICOM, by its content; empty where that cannot be told."""
    head = _head(path, 4096)
    for start, kind in _OTHER_KINDS:
        if head.startswith(start):
            return kind
    if head and _TEXT_BYTES.issuperset(head) and _is_decodable(head):
        return "text"
    return "a hidden file" if path.name.startswith(".") else ""


def open_dicom(path: Path, tags: tuple[str, ...] = (), lazy: bool = False) -> FileDataset:
    """Opens a file with or without preamble.

    Args:
      path: of a file for which `is_dicom` holds.
      tags: keywords of what is wanted of the header; everything by default.
      lazy: leaves long values, pixels above all, in the file until they are asked for.

    Raises:
      UserError: it unpacks to more than is read.
      Exception: of any kind, where it is damaged.
    """
    if not is_dicom(path):
        raise damaged(path, "it is not DICOM: it has no mark, and does not begin as a data set")
    if DeflatedExplicitVRLittleEndian.encode() in _head(path, 4096):
        _check_inflated(path)
    wanted = list(tags) or None
    return pydicom.dcmread(
        path,
        defer_size=_LONG if lazy else None,
        force=True,
        stop_before_pixels=bool(tags),
        specific_tags=wanted,
    )


def no_image(dataset: FileDataset) -> str:
    """Which kind of object a data set without Rows is; empty where it should be an image."""
    uid = UID(
        written(dataset, "SOPClassUID") or written(dataset.file_meta, "MediaStorageSOPClassUID")
    )
    if not uid.is_valid or not uid or "Image" in uid.name:
        return ""
    if uid.startswith(_STANDARD):
        return f"DICOM, {uid.name}" if uid.name != uid else ""
    return f"DICOM of a private kind without image, {uid}"


def _head(path: Path, size: int) -> bytes:
    with path.open("rb") as file:
        return file.read(size)


def _is_decodable(head: bytes) -> bool:
    """Whether bytes are UTF-8, or mostly ASCII as in other encodings of the West."""
    try:
        codecs.getincrementaldecoder("utf-8")().decode(head)
    except UnicodeDecodeError:
        return sum(byte < 0x80 for byte in head) > 0.7 * len(head)
    return True


def _begins_as_data_set(head: bytes) -> bool:
    """Whether a tag of group 2 or 8 with a plausible length comes first."""
    for order in ("little", "big"):
        group, element, length = (
            int.from_bytes(part, order)  # type: ignore[arg-type]
            for part in (head[:2], head[2:4], head[4:8])
        )
        if len(head) > 8 and group in (2, 8) and element <= 0x0120:
            return head[4:6] in _VRS or length < 1 << 16
    return False


def _check_inflated(path: Path) -> None:
    """Counts, piece by piece, what pydicom would unpack as a whole."""
    with path.open("rb") as file:
        head = file.read(144)
        if head[132:140] != _META_LENGTH:
            raise damaged(path, "it is deflated, and does not say where")
        file.seek(int.from_bytes(head[140:144], "little"), 1)
        unpack, size = zlib.decompressobj(-zlib.MAX_WBITS), 0
        while not unpack.eof and size <= _MOST_INFLATED:
            piece = unpack.unconsumed_tail or file.read(_PIECE)
            if not piece:
                break
            size += len(unpack.decompress(piece, 1 << 22))
    if size > _MOST_INFLATED:
        raise damaged(path, f"it unpacks to more than {_MOST_INFLATED} bytes")
