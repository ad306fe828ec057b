"""PNG: one slice, as a viewer shows it or, of a mask, as it is stored.

Source: Portable Network Graphics (PNG) Specification, third edition (W3C).
"""

import dataclasses
import math
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO

import numpy as np
from PIL import Image

from mskjax.errors import UserError
from mskjax.imaging import geometry
from mskjax.imaging.limits import (
    DEFLATE_RATIO,
    check_bytes,
    check_spacing,
    check_voxels,
    damaged,
)
from mskjax.imaging.volume import Volume

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_GREY, _INDEXED = 0, 3  # colour types
_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
_WANTED = (b"IHDR", b"PLTE", b"tRNS", b"acTL")
# Grey levels of a palette that are this close cannot be told apart by eye: they are values.
_CLOSE_GREYS = 8


@dataclasses.dataclass(frozen=True)
class _Header:
    """What is said before the pixels."""

    width: int
    height: int
    bits: int
    colour: int
    palette: np.ndarray  # (colours, 3) uint8; none unless indexed
    transparency: bytes


def read_png(path: Path, spacing: tuple[float, float] | None, stored: bool) -> Volume:
    """Reads one grey image.

    Args:
      path: the file.
      spacing: (row, column) pitch, mm; 1 mm where it is not known.
      stored: the stored numbers, as masks need them, instead of the grey levels shown.  They differ
        where the image is indexed or has fewer than 8 bits.

    Returns:
      One sagittal slice, (1, H, W) uint8 or uint16, with axes L, I, P.
      ``meta["pixel_size_known"]`` is False where `spacing` was not given.

    Raises:
      UserError: damaged, too large, in colour, partly transparent, or of several frames.
    """
    header = _header(path)
    with Image.open(path, formats=("PNG",)) as image:
        pixels = np.asarray(image)
    if header.colour == _INDEXED:
        grey = _indexed(path, header, pixels, stored)
    elif header.colour == _GREY:
        grey = _levels(path, header, pixels, stored)
    else:
        grey = _equal_channels(path, header, pixels)
    meta = {} if spacing else {"pixel_size_known": False}
    volume = Volume(grey[np.newaxis], _sagittal_affine(spacing or (1.0, 1.0)), meta)
    check_spacing(path, volume, "the pixel size of the table", "")
    return volume


def write_png(path: Path, volume: Volume) -> None:
    """Writes one sagittal slice of uint8 or uint16."""
    upright = geometry.reorient(volume)
    if len(upright.data) != 1 or upright.data.dtype not in (np.uint8, np.uint16):
        raise UserError(
            f"{path}: a PNG holds one sagittal slice of uint8 or uint16, not "
            f"{upright.data.shape} of {upright.data.dtype}."
        )
    Image.fromarray(upright.data[0]).save(path)


def _sagittal_affine(spacing: Sequence[float]) -> np.ndarray:
    affine = np.zeros((4, 4))
    affine[0, 0] = -1.0  # slices towards the left
    affine[2, 1] = -spacing[0]  # rows towards the feet
    affine[1, 2] = -spacing[1]  # columns towards the back
    affine[3, 3] = 1.0
    return affine


def _header(path: Path) -> _Header:
    chunks: dict[bytes, bytes] = {}
    packed = 0
    with path.open("rb") as file:
        if file.read(len(_SIGNATURE)) != _SIGNATURE:
            raise damaged(path, "it is not a PNG, whatever its name says")
        for kind, length, content in _chunks(file, path):
            packed += length if kind == b"IDAT" else 0
            chunks.setdefault(kind, content)
    if len(chunks.get(b"IHDR", b"")) != 13 or b"IEND" not in chunks:
        raise damaged(path, "it has no header or no end")
    if b"acTL" in chunks:
        raise UserError(f"{path}: holds several frames (an animated PNG); save the one you mean.")
    width, height = (int.from_bytes(chunks[b"IHDR"][i : i + 4], "big") for i in (0, 4))
    bits, colour = chunks[b"IHDR"][8:10]
    palette = chunks.get(b"PLTE", b"")
    if colour not in _CHANNELS or bits not in (1, 2, 4, 8, 16) or len(palette) % 3:
        raise damaged(path, f"it declares colour type {colour} of {bits} bits")
    check_voxels(path, (height, width))
    row = math.ceil(width * bits * _CHANNELS[colour] / 8) + 1
    check_bytes(path, height * row, packed, DEFLATE_RATIO)
    colours = np.frombuffer(palette, np.uint8).reshape(-1, 3)
    return _Header(width, height, bits, colour, colours, chunks.get(b"tRNS", b""))


def _chunks(file: IO[bytes], path: Path) -> Iterator[tuple[bytes, int, bytes]]:
    """Type, length and content of each chunk; checksums of the critical ones are compared.

    Pillow skips those of the pixels, so a damaged file might be read as another picture.
    """
    there = path.stat().st_size
    while True:
        head = file.read(8)
        length, kind = int.from_bytes(head[:4], "big"), head[4:]
        if len(head) < 8 or file.tell() + length + 4 > there:
            raise damaged(path, "it is cut short")
        content = file.read(length)
        is_critical = not kind[0] & 32
        if int.from_bytes(file.read(4), "big") != zlib.crc32(kind + content) and is_critical:
            raise damaged(path, f"a checksum ({kind.decode('latin-1')}) does not fit")
        yield kind, length, content if kind in _WANTED else b""
        if kind == b"IEND":
            return


def _indexed(path: Path, header: _Header, indices: np.ndarray, stored: bool) -> np.ndarray:
    used = np.unique(indices)
    if used[-1] >= len(header.palette):
        raise damaged(path, f"it uses colour {used[-1]} of a palette of {len(header.palette)}")
    colours = header.palette[used]
    is_grey = bool(np.all(colours == colours[:, :1]))
    if stored:
        if is_grey:
            _check_labels(path, used, colours[:, 0])
        return indices
    if not is_grey:
        raise _in_colour(path)
    opacity = np.frombuffer(header.transparency, np.uint8)
    if np.any(opacity[used[used < len(opacity)]] < 255):
        raise _transparent(path)
    return header.palette[indices, 0]


def _check_labels(path: Path, used: np.ndarray, greys: np.ndarray) -> None:
    """A palette for the eye leaves labels to the indices; one that holds labels competes."""
    different = np.flatnonzero(used != greys)
    closest = np.diff(np.sort(greys.astype(int))).min(initial=255)
    if different.size and closest < _CLOSE_GREYS:
        k = different[0]
        raise UserError(
            f"{path}: its palette shows {greys[k]} where index {used[k]} is stored, so it is not"
            " clear which is the label; save the mask as 8-bit grey, not indexed."
        )


def _levels(path: Path, header: _Header, pixels: np.ndarray, stored: bool) -> np.ndarray:
    """Grey of any depth; Pillow scales 2 and 4 bits to 8, and makes 1 bit true or false."""
    numbers: np.ndarray
    top = 255 // ((1 << min(header.bits, 8)) - 1)  # shown for each step that is stored
    if header.bits == 16:
        numbers = pixels.astype(np.uint16)
    elif header.bits == 1:
        numbers = pixels.astype(np.uint8)
    else:
        numbers = pixels // np.uint8(top)
    if stored:
        return numbers
    if len(header.transparency) == 2 and np.any(
        numbers == int.from_bytes(header.transparency, "big")
    ):
        raise _transparent(path)
    return numbers if header.bits == 16 else numbers * np.uint8(top)


def _equal_channels(path: Path, header: _Header, pixels: np.ndarray) -> np.ndarray:
    """The one grey image that all colours repeat."""
    if header.bits != 8:  # Pillow would drop half of the bits
        raise UserError(f"{path}: has 16-bit colours or transparency; save it as 16-bit grey.")
    has_alpha = header.colour in (4, 6)
    colours = pixels[..., :-1] if has_alpha else pixels
    if not np.all(colours == colours[..., :1]):
        raise _in_colour(path)
    grey = np.ascontiguousarray(colours[..., 0])
    if has_alpha and np.any(pixels[..., -1] < 255):
        raise _transparent(path)
    if len(header.transparency) == 6:
        clear = [int.from_bytes(header.transparency[i : i + 2], "big") for i in (0, 2, 4)]
        if len(set(clear)) == 1 and np.any(grey == clear[0]):
            raise _transparent(path)
    return grey


def _in_colour(path: Path) -> UserError:
    return UserError(f"{path}: is a colour image; save it as 8- or 16-bit grey.")


def _transparent(path: Path) -> UserError:
    return UserError(
        f"{path}: is transparent in places, so what is seen depends on the viewer; save it as grey"
        " without transparency."
    )
