"""Whether two headers place voxels alike, and how far apart they place them."""

import nibabel as nib
import numpy as np

from mskjax.imaging.volume import Volume

# Voxel axes of a mask and its image that belong together differ by less than this cosine.
_ALIGNED = 0.99


def is_usable(affine: np.ndarray) -> bool:
    """Whether an affine places voxels in space: finite and not singular."""
    if not np.all(np.isfinite(affine)):
        return False
    pitch = np.linalg.norm(affine[:3, :3], axis=0)
    return bool(np.all(pitch > 0)) and abs(np.linalg.det(affine[:3, :3] / pitch)) > 1e-4


def corner_gap(a: np.ndarray, b: np.ndarray, shape: tuple[int, ...]) -> tuple[float, float]:
    """How far the corners of a grid lie apart where two affines place them.

    Args:
      a: (4, 4) of the grid.
      b: (4, 4), the other.
      shape: of the grid.

    Returns:
      The greatest distance in mm, and the greatest along an axis in voxels of `b`.
    """
    corners = np.indices((2, 2, 2)).reshape(3, 8) * (np.array(shape) - 1)[:, None]
    gap = ((a - b) @ np.vstack([corners, np.ones(8)]))[:3]
    voxels = np.linalg.solve(b[:3, :3], gap)
    return float(np.linalg.norm(gap, axis=0).max()), float(np.abs(voxels).max())


def aligned(volume: Volume, affine: np.ndarray) -> Volume:
    """Permutes and flips the axes so that each runs along the same axis of another grid.

    Args:
      volume: in any storage order.
      affine: (4, 4) of the other grid.

    Returns:
      The same voxels at the same places; the volume itself where its axes run along none.
    """
    theirs = affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0)
    cosines = theirs.T @ (volume.affine[:3, :3] / volume.spacing)
    axes = np.abs(cosines).argmax(axis=0)
    signs = np.sign(cosines[axes, range(3)])
    if sorted(axes) != [0, 1, 2] or np.abs(cosines[axes, range(3)]).min() < _ALIGNED:
        return volume
    orientation = np.stack([axes, signs], axis=1)
    data = nib.orientations.apply_orientation(volume.data, orientation)
    turned = volume.affine @ nib.orientations.inv_ornt_aff(orientation, volume.data.shape)
    return Volume(np.ascontiguousarray(data), turned, dict(volume.meta))
