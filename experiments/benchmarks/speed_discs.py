"""Random discs for a detector: the same for both sides, and of NumPy alone."""

from collections.abc import Sequence

import numpy as np

DISCS = 8  # of a slice


def random_discs(rng: np.random.Generator, shape: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
    """Boxes of the size of a disc in each slice, one below the other, the lowest first.

    Args:
      rng: draws where.
      shape: of the batch, (B, H, W, C).

    Returns:
      (B, `DISCS`, 4) float32 pixels, and (B, `DISCS`) int32 classes: 2 the lowest, 1 the others.
    """
    batch, height, width = shape[:3]
    row = np.linspace(0.9, 0.1, DISCS) * height + rng.uniform(-2, 2, (batch, DISCS))
    col = width / 2 + rng.uniform(-4, 4, (batch, DISCS))
    boxes = np.stack([row - 5, col - 12, row + 5, col + 12], -1).astype(np.float32)
    return boxes, np.tile(np.array([2] + [1] * (DISCS - 1), np.int32), (batch, 1))
