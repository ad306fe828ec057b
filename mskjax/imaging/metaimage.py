"""MetaImage: a text header and the voxels, in one file (.mha) or beside it (.mhd).

Source: the MetaIO manual (itk.org/Wiki/MetaIO/Documentation).  It is read here and not by ITK,
which fills in what a header does not say, and which reads before it checks.
"""

import dataclasses
import zlib
from pathlib import Path

import numpy as np
import SimpleITK as sitk  # noqa: N813

from mskjax.errors import UserError, note
from mskjax.imaging.limits import (
    DEFLATE_RATIO,
    check_bytes,
    check_spacing,
    check_voxels,
    damaged,
)
from mskjax.imaging.volume import Volume

_LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])
_LONGEST_HEADER = 1 << 16  # bytes
_ZLIB_OR_GZIP = 47  # window bits that let zlib tell the two apart, as MetaIO does
_TYPES = {
    "MET_CHAR": "i1", "MET_UCHAR": "u1", "MET_SHORT": "i2", "MET_USHORT": "u2",
    "MET_INT": "i4", "MET_UINT": "u4", "MET_LONG": "i4", "MET_ULONG": "u4",
    "MET_LONG_LONG": "i8", "MET_ULONG_LONG": "u8", "MET_FLOAT": "f4", "MET_DOUBLE": "f8",
}  # fmt: skip
# Field to the names it goes by, and how many numbers it has.
_GEOMETRY = {
    "ElementSpacing": (("ElementSpacing", "ElementSize"), 1),
    "Offset": (("Offset", "Position", "Origin"), 1),
    "TransformMatrix": (("TransformMatrix", "Orientation", "Rotation"), 2),
}
_IDENTITY = "its direction is the identity, as of arrays that were written without one"


@dataclasses.dataclass(frozen=True)
class _Header:
    """Fields by name, as written, and where the header ends in its file."""

    path: Path
    fields: dict[str, str]
    end: int

    def numbers(self, names: tuple[str, ...], count: int) -> np.ndarray:
        """The numbers of the first of some fields that is there.

        Raises:
          UserError: they are not `count` finite numbers.
        """
        name = next(n for n in names if n in self.fields)
        text = self.fields[name]
        try:
            values = np.array([float(part) for part in text.split()])
        except ValueError:
            values = np.empty(0)
        if len(values) != count or not np.all(np.isfinite(values)):
            raise UserError(
                f"{self.path}: {name} is {text!r}; it must be {count} numbers; write the file"
                " again."
            )
        return values

    def says(self, *names: str) -> bool:
        """Whether one of some fields is there and true."""
        return any(self.fields.get(n, "")[:1] in ("T", "t", "1") for n in names)


def read_metaimage(path: Path) -> Volume:
    """Reads one volume.

    Args:
      path: ``.mha`` or ``.mhd``.

    Returns:
      The volume as stored.  Where its direction is the identity, ``meta["orientation_doubt"]`` is
      a clause that says so, since arrays written without a direction look like that.

    Raises:
      UserError: damaged, too large, not scalar, not three-dimensional, without spacing, offset or
        direction, or its data file is missing.
    """
    header = _header(path)
    shape = _shape(header)
    affine, plain = _affine(header)
    meta = {"orientation_doubt": _IDENTITY} if plain else {}
    volume = Volume(_voxels(header, shape), affine, meta)
    check_spacing(path, volume, "ElementSpacing", "ElementSpacing")
    if plain:
        note(path, _IDENTITY)
    return volume


def write_metaimage(path: Path, volume: Volume) -> None:
    """Writes one compressed ``.mha``."""
    image = sitk.GetImageFromArray(np.ascontiguousarray(volume.data.transpose(2, 1, 0)))
    affine = _LPS_TO_RAS @ volume.affine
    image.SetSpacing(volume.spacing.tolist())
    image.SetDirection((affine[:3, :3] / volume.spacing).ravel().tolist())
    image.SetOrigin(affine[:3, 3].tolist())
    sitk.WriteImage(image, str(path), useCompression=True)


def _header(path: Path) -> _Header:
    with path.open("rb") as file:
        block = file.read(_LONGEST_HEADER)
    fields, end = {}, 0
    for line in block.split(b"\n"):
        end += len(line) + 1
        name, _, value = line.decode("latin-1").partition("=")
        fields[name.strip()] = value.strip()
        if name.strip() == "ElementDataFile":
            return _Header(path, fields, end)
    raise damaged(path, "its header has no line ElementDataFile")


def _shape(header: _Header) -> tuple[int, int, int]:
    path, fields = header.path, header.fields
    dimensions = fields.get("NDims", "")
    if dimensions == "2":
        raise UserError(
            f"{path}: a 2-D MetaImage does not say where it lies; write it 3-D, with direction."
        )
    missing = [name for name in ("DimSize", "ElementType") if name not in fields]
    if missing:
        raise damaged(path, f"its header has no line {' and '.join(missing)}")
    size = fields["DimSize"].split()
    channels = fields.get("ElementNumberOfChannels", "1")
    if dimensions not in ("3", "4") or size[3:] not in ([], ["1"]) or channels != "1":
        raise UserError(
            f"{path}: has {dimensions or 'unknown'} dimensions ({fields['DimSize']}) and"
            f" {channels} values a voxel, but one 3-D scalar volume is needed; extract the volume"
            " you mean."
        )
    if len(size) != int(dimensions) or not all(n.isascii() and n.isdecimal() for n in size):
        raise UserError(
            f"{path}: DimSize is {fields['DimSize']!r}; it must be {dimensions} whole numbers;"
            " write the file again."
        )
    return int(size[0]), int(size[1]), int(size[2])


def _affine(header: _Header) -> tuple[np.ndarray, bool]:
    """The affine to RAS mm, and whether the direction is the identity."""
    missing = [
        field for field, (names, _) in _GEOMETRY.items() if not set(names) & set(header.fields)
    ]
    if missing:
        raise UserError(
            f"{header.path}: has no {' and no '.join(missing)}, so size, place or direction of its"
            " voxels is unknown; write it again with all of them."
        )
    n = int(header.fields["NDims"])
    spacing, offset, matrix = (
        header.numbers(names, n**power) for names, power in _GEOMETRY.values()
    )
    if np.any(spacing[:3] <= 0):
        raise UserError(
            f"{header.path}: ElementSpacing is {' '.join(f'{s:g}' for s in spacing)}; it must be"
            " above 0, in mm; write the file again."
        )
    direction = matrix.reshape(n, n)[:3, :3].T  # the file lists the direction of each axis
    lengths = np.linalg.norm(direction, axis=0)
    if np.any(np.abs(lengths - 1) > 1e-2) or abs(np.linalg.det(direction)) < 1e-4:
        raise UserError(
            f"{header.path}: TransformMatrix is no rotation, so it does not place the voxels in"
            " space (singular, or scaled); write the file again with a valid direction."
        )
    affine = np.eye(4)
    affine[:3, :3] = direction * spacing[:3]
    affine[:3, 3] = offset[:3]
    return _LPS_TO_RAS @ affine, bool(np.allclose(direction, np.eye(3), atol=1e-6))


def _voxels(header: _Header, shape: tuple[int, int, int]) -> np.ndarray:
    path, fields = header.path, header.fields
    kind = fields["ElementType"]
    if kind not in _TYPES:
        raise UserError(f"{path}: holds {kind} voxels; a scalar image is needed.")
    if "BinaryData" in fields and not header.says("BinaryData"):
        raise UserError(f"{path}: holds its voxels as text; write it with BinaryData = True.")
    big = header.says("BinaryDataByteOrderMSB", "ElementByteOrderMSB")
    dtype = np.dtype(_TYPES[kind]).newbyteorder(">" if big else "<")
    size = check_voxels(path, shape) * dtype.itemsize
    block = _block(header, size)
    data = np.frombuffer(block, dtype).reshape(shape, order="F")
    return data.astype(dtype.newbyteorder("="))


def _block(header: _Header, size: int) -> bytes:
    """The bytes of the voxels, unpacked."""
    file, start = _data_file(header)
    there = file.stat().st_size - start
    packed = header.says("CompressedData")
    if not packed and header.fields.get("HeaderSize") == "-1":
        start, there = max(0, start + there - size), start + there
    check_bytes(header.path, size, there, DEFLATE_RATIO if packed else 1)
    with file.open("rb") as stream:
        stream.seek(start)
        if not packed:
            return stream.read(size)
        unpack = zlib.decompressobj(_ZLIB_OR_GZIP)
        block = unpack.decompress(stream.read(), size)
    if len(block) < size or not _is_complete(unpack):
        raise damaged(header.path, f"its compressed voxels are not the {size} bytes declared")
    return block


def _is_complete(unpack: "zlib._Decompress") -> bool:
    """Whether nothing but the checksum, which zlib compares, was left to unpack."""
    return not unpack.decompress(unpack.unconsumed_tail, 1) and unpack.eof


def _data_file(header: _Header) -> tuple[Path, int]:
    """The file that holds the voxels, and where they begin in it."""
    path, name = header.path, header.fields["ElementDataFile"]
    if name.upper() == "LOCAL":
        file, start = path, header.end
    else:
        if name.upper().startswith("LIST") or "%" in name:
            raise UserError(
                f"{path}: spreads its slices over several files (ElementDataFile is {name}); write"
                " it as one .mha."
            )
        file, start = path.parent / name, 0
        if not name or not file.is_file():
            raise UserError(
                f"{path}: its data file {file} is missing; put it beside the header, or write one"
                " .mha."
            )
    skip = header.fields.get("HeaderSize", "0")
    if not (skip.isascii() and skip.isdecimal()) and skip != "-1":
        raise UserError(f"{path}: HeaderSize is {skip!r}; it must be a whole number, or -1.")
    return file, start if int(skip) <= 0 else int(skip)
