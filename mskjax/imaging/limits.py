"""What every reader checks before it reads pixels, and how it says that a file cannot be read."""

import contextlib
import math
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path

from mskjax.errors import FileNote, UserError
from mskjax.imaging.planes import through_plane
from mskjax.imaging.volume import Volume

# Voxels of one volume.  A reader holds about 16 bytes for each of them at most, 8 GiB in all; an
# MR series of 1024 x 1024 x 320, the largest that is met, has two thirds of the voxels.
MOST_VOXELS = 2**29
# Deflate makes nothing smaller than this (zlib.net/zlib_tech.html, "Maximum Compression Factor").
DEFLATE_RATIO = 1032
PIXEL_MM = (0.05, 20.0)
SLICE_MM = (0.1, 50.0)


def damaged(path: str | Path, why: object) -> UserError:
    """The sentence for a file that cannot be read, from a reason or an exception."""
    reason = " ".join(str(why).split()) or type(why).__name__
    return UserError(f"{path}: cannot be read ({reason[:300]}); copy or export the file again.")


@contextlib.contextmanager
def reading(path: str | Path) -> Iterator[None]:
    """Turns whatever a damaged file makes a library raise into the file's own `UserError`.

    Warnings of libraries are dropped: what matters is checked.  `FileNote`s go on.

    Args:
      path: of the one file that the block reads.
    """
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            yield
        except UserError:
            raise
        except Exception as error:
            raise damaged(path, error) from error
    for warning in caught:
        if isinstance(warning.message, FileNote):
            warnings.warn(warning.message, stacklevel=3)


def check_voxels(path: str | Path, shape: Sequence[int]) -> int:
    """The number of voxels that a header declares.

    Raises:
      UserError: a length is not positive, or they are more than `MOST_VOXELS`.
    """
    size = " x ".join(map(str, shape))
    if min(shape) < 1:
        raise UserError(f"{path}: holds no voxels: its header declares {size}; export it again.")
    count = math.prod(shape)
    if count > MOST_VOXELS:
        raise UserError(
            f"{path}: its header declares {size} voxels, more than the {MOST_VOXELS} that are read"
            " of one volume; export it again, or crop it if it is that large."
        )
    return count


def check_bytes(path: str | Path, needed: int, there: int, ratio: int = 1) -> None:
    """Whether a file can hold what its header declares.

    Args:
      path: of the file.
      needed: bytes of voxels, unpacked.
      there: bytes of the file that can hold them.
      ratio: greatest one at which its compression packs.

    Raises:
      UserError: it cannot.
    """
    if needed > there * ratio:
        packed = " even unpacked" if ratio > 1 else ""
        raise damaged(path, f"its header declares {needed} bytes of voxels, but {there} are there"
                      f" and cannot hold them{packed}")  # fmt: skip


def check_spacing(path: str | Path, volume: Volume, pixel_field: str, slice_field: str) -> None:
    """Whether a scanner could have made pixels and slices of this size.

    Args:
      path: of the file.
      volume: as read.
      pixel_field: the header field that says how large pixels are.
      slice_field: the one that says how far slices are apart.

    Raises:
      UserError: pixels are not `PIXEL_MM` or, where there are several, slices not `SLICE_MM`.
    """
    slices = through_plane(volume)
    for axis, pitch in enumerate(volume.spacing):
        between = axis == slices
        low, high = SLICE_MM if between else PIXEL_MM
        if between and volume.data.shape[axis] == 1:
            continue
        if not low * (1 - 1e-6) <= pitch <= high * (1 + 1e-6):
            raise UserError(
                f"{path}: {slice_field if between else pixel_field} gives {pitch:.6g} mm"
                f" {'between slices' if between else 'per pixel'}, but scanners make {low:g} to"
                f" {high:g} mm; check unit and value, and write the header again."
            )
