"""Blocks: square patches whose middle pixel is classified.  Where to cut them, and cutting them.

Centres are (row, column) in pixels of a slice.  `cut` and `draw_centres` run inside jit as well.
"""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from scipy import ndimage


def cut(image: jax.Array, centres: jax.Array, size: int) -> jax.Array:
    """Cuts blocks out of one slice.

    Args:
      image: (H, W, C) float32; beyond its border lies its own minimum, as in `augment`.
      centres: (N, 2) float32, moved into the slice where they lie outside; between pixels the
        block is interpolated linearly, at whole numbers it is the pixels themselves.
      size: odd; rows and columns of a block.

    Returns:
      (N, size, size, C) float32.

    Raises:
      ValueError: `size` is even, so that a block has no middle pixel.
    """
    if size < 1 or size % 2 == 0:
        raise ValueError(f"a block of {size} pixels has no middle pixel; its size must be odd")
    rows, cols, channels = image.shape
    half = size // 2
    # One pixel more behind: the right-hand neighbour of an interpolation.
    padded = jnp.broadcast_to(image.min((0, 1)), (rows + size, cols + size, channels))
    padded = padded.at[half : half + rows, half : half + cols].set(image)
    inside = jnp.clip(centres, 0.0, jnp.array([[rows - 1, cols - 1]], jnp.float32))
    corner = jnp.floor(inside).astype(jnp.int32)

    def window(at: jax.Array) -> jax.Array:
        return jax.lax.dynamic_slice(padded, (at[0], at[1], 0), (size + 1, size + 1, channels))

    windows = jax.vmap(window)(corner)
    down, right = (
        (inside - corner.astype(jnp.float32))[:, axis, None, None, None] for axis in (0, 1)
    )
    between = (1.0 - right) * windows[:, :, :-1] + right * windows[:, :, 1:]
    return (1.0 - down) * between[:, :-1] + down * between[:, 1:]


def lattice(shape: tuple[int, int], stride: int) -> np.ndarray:
    """Evenly spaced pixels, every one the middle of `stride` x `stride` pixels of the slice.

    Args:
      shape: rows, columns of the slice.
      stride: pixels from one to the next; 1 takes every pixel.

    Returns:
      (ceil(H / stride), ceil(W / stride), 2) float32 centres; the last may lie outside the slice.
    """
    axes = [(stride - 1) // 2 + stride * np.arange(-(-n // stride)) for n in shape]
    return np.stack(np.meshgrid(*axes, indexing="ij"), -1).astype(np.float32)


def lattice_affine(affine: np.ndarray, stride: int) -> np.ndarray:
    """(4, 4) affine of the grid (slice, lattice row, lattice column) in slices of `affine`."""
    step = np.diag([1.0, stride, stride, 1.0])
    step[1:3, 3] = (stride - 1) // 2
    return affine @ step


def draw_centres(uniform: Any, candidates: Any) -> Any:
    """Draws pixels of a slice, equally many of each class that is present, with replacement.

    Args:
      uniform: (N,) random numbers in [0, 1); centre n is of the n-th class present, in turn.
      candidates: (K, H, W) bool, the pixels of each class that may be drawn.

    Returns:
      (N, 2) float32 whole numbers, of NumPy or JAX as `candidates` is; the first pixel of the slice
      where none may be drawn.
    """
    xp = jnp if isinstance(candidates, jax.Array) else np
    classes, _, cols = candidates.shape
    member = candidates.reshape(classes, -1)
    counts = member.sum(1)
    present = counts > 0
    in_turn = xp.argsort(~present, stable=True)  # the classes present come first
    number = xp.arange(len(uniform))
    own = in_turn[number % xp.maximum(present.sum(), 1)]
    rank = xp.minimum((uniform * counts[own].astype(float)).astype(np.int32), counts[own] - 1)
    # The pixel at which the running count of its class passes the rank; searching class by class
    # needs no (N, H W) array.
    passed = xp.cumsum(member, 1)
    found = xp.stack([xp.searchsorted(passed[c], rank, side="right") for c in range(classes)])
    place = found[own, number]
    return xp.stack([place // cols, place % cols], -1).astype(np.float32)


def band(mask: np.ndarray, spacing: Sequence[float], width_mm: float) -> np.ndarray:
    """Pixels at the edge of any structure, measured in the plane of each slice.

    A pixel belongs to the band if a pixel on the other side of some structure's edge lies at most
    `width_mm` from it, centre to centre.  The border of the image is no edge.

    Args:
      mask: (S, H, W) labels, 0 background.
      spacing: pixel pitch along rows and columns, mm.
      width_mm: >= 0.

    Returns:
      (S, H, W) bool.
    """
    found = np.zeros(mask.shape, bool)
    reach = [int(np.ceil(width_mm / pitch)) + 1 for pitch in spacing]
    for label in np.unique(mask[mask > 0]):
        for number in np.flatnonzero((mask == label).any((1, 2))):
            inside = mask[number] == label
            box = _box(inside, reach)
            inside = inside[box]
            if inside.all():
                continue
            # Distance of each pixel to the nearest one across the edge; no pixel has both.
            across = ndimage.distance_transform_edt(inside, spacing)
            across += ndimage.distance_transform_edt(~inside, spacing)
            found[number][box] |= across <= width_mm * (1 + 1e-9)
    return found


def _box(mask: np.ndarray, margin: list[int]) -> tuple[slice, slice]:
    """Bounding box with a margin, within the slice."""
    sides = []
    for axis, more in enumerate(margin):
        taken = np.flatnonzero(mask.any(1 - axis))
        sides.append(slice(max(int(taken[0]) - more, 0), int(taken[-1]) + 1 + more))
    return sides[0], sides[1]
