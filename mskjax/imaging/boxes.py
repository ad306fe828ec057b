"""Boxes and their overlap.

A box is (row0, column0, row1, column1) in pixels, half-open: pixel (i, j) covers [i, i + 1) x
[j, j + 1), so a box of one pixel has area 1.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np


def iou_matrix(a: Any, b: Any) -> Any:
    """Intersection over union of every box of one set with every box of another.

    Args:
      a: (N, 4).
      b: (M, 4).

    Returns:
      (N, M) in [0, 1]; 0 where the union is empty.  A box whose end lies before its start is
      empty.  NumPy in, NumPy out; ``jax.Array`` in, ``jax.Array`` out.
    """
    xp: Any = jnp if isinstance(a, jax.Array) or isinstance(b, jax.Array) else np
    top = xp.maximum(a[:, None, :2], b[None, :, :2])
    bottom = xp.minimum(a[:, None, 2:], b[None, :, 2:])
    sides = xp.maximum(bottom - top, 0)
    intersection = sides[..., 0] * sides[..., 1]
    union = box_area(a)[:, None] + box_area(b)[None, :] - intersection
    return xp.where(union > 0, intersection / xp.where(union > 0, union, 1), 0)


def box_area(boxes: Any) -> Any:
    """(...,) areas of (..., 4) boxes in square pixels; 0 where an end lies before its start."""
    rows = boxes[..., 2] - boxes[..., 0]
    columns = boxes[..., 3] - boxes[..., 1]
    return rows.clip(0) * columns.clip(0)
