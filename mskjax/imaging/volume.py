"""A scalar volume and where its voxels lie in the patient."""

from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np


class Grid(NamedTuple):
    """Where the voxels of a volume lie.

    Attributes:
      shape: (3,) of the array.
      affine: (4, 4) float64, index to RAS mm.
    """

    shape: tuple[int, ...]
    affine: np.ndarray


@dataclass(frozen=True, eq=False)
class Volume:
    """Voxels with their geometry.

    Attributes:
      data: (I, J, K) array of any real dtype; a single image has one axis of length 1.
      affine: (4, 4) float64, voxel index (centre) to RAS+ millimetres, as in NIfTI-1.
      meta: what the file said of the acquisition and is worth reporting (e.g. ``modality``,
        ``manufacturer``, ``field_strength_t``); empty where the format has no such header.
    """

    data: np.ndarray
    affine: np.ndarray
    meta: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.data.ndim != 3:
            raise ValueError(f"a volume has 3 axes, got shape {self.data.shape}")
        object.__setattr__(self, "affine", np.asarray(self.affine, np.float64))
        if self.affine.shape != (4, 4):
            raise ValueError(f"an affine is 4 x 4, got {self.affine.shape}")

    @property
    def spacing(self) -> np.ndarray:
        """(3,) voxel pitch along each array axis, mm."""
        return np.linalg.norm(self.affine[:3, :3], axis=0)

    def with_data(self, data: np.ndarray) -> "Volume":
        """The same grid holding other values, e.g. a mask of this image."""
        if data.shape != self.data.shape:
            raise ValueError(f"shape {data.shape} does not fit the grid {self.data.shape}")
        return Volume(data, self.affine, self.meta)
