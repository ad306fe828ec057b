"""Structures that a first stage segments, scored against the reference."""

from collections.abc import Sequence

import numpy as np

from mskjax.imaging import geometry
from mskjax.imaging.volume import Volume
from mskjax.metrics import segmentation
from mskjax.metrics.structures import NSD_TOLERANCE_MM, score_structures
from mskjax.tables import Row
from mskjax.training.stage import Study
from mskjax.two_stage.system import sized, spacing_of


def structure_rows(
    study: Study, mask: np.ndarray, names: Sequence[str], grid_mm: Sequence[float | None]
) -> list[Row]:
    """A row of cases.csv for each structure, in 3-D on the native grid.

    Args:
      study: with ``mask`` (S, H, W), the reference.
      mask: (S, H, W) uint8, what was found.
      names: of the labels 1, 2, ...
      grid_mm: voxel pitch of the network that found it, see `dice_ceilings`.
    """
    spacing = spacing_of(study) if sized(study) else None
    scores = score_structures(study["mask"], mask, names, spacing, NSD_TOLERANCE_MM)
    ceilings = dice_ceilings(study["mask"], study["affine"], names, grid_mm)
    return [
        {"kind": "structure", "name": name, **values, "dice_ceiling": ceilings[name]}
        for name, values in scores.items()
    ]


def dice_ceilings(
    mask: np.ndarray, affine: np.ndarray, names: Sequence[str], grid_mm: Sequence[float | None]
) -> dict[str, float]:
    """What the grid of a network leaves of Dice: the reference, brought there and back.

    Each class is low-passed onto the network's grid, which gives the share of a network voxel that
    it fills; a network that says these shares everywhere is decoded as any other is
    (`geometry.labels_to_native`).  So it is Dice of a network that makes no error of its own.

    Args:
      mask: (S, H, W) uint8, the reference on its native grid.
      affine: (4, 4) of that grid.
      names: of the labels 1, 2, ...
      grid_mm: (3,) voxel pitch of the network along slices, rows and columns; None keeps an axis.

    Returns:
      name -> Dice of the two; NaN of a structure that the reference does not have.
    """
    labels = range(len(names) + 1)
    there = [
        geometry.resample(Volume((mask == k).astype(np.float32), affine), grid_mm) for k in labels
    ]
    shares = np.stack([volume.data for volume in there])
    back = geometry.labels_to_native(shares, there[0].affine, mask.shape, affine)
    matrix = segmentation.confusion_counts(mask, back, len(names) + 1)
    return {
        name: float(segmentation.dice(segmentation.counts_of(matrix, k)))
        for k, name in enumerate(names, 1)
    }
