"""Draws a shoulder in Y-view as a fine map of materials.

Coordinates are those of `shoulder_anatomy`.  Bones come first, and what follows fills only the fat
that is still free, so that the share of fat in a muscle is counted over what is drawn of it.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum

import numpy as np
from scipy import ndimage

from tfds_builders.phantoms.shoulder_anatomy import SUPRASPINATUS, Anatomy

SKIN_MM = 1.6
_PERIMYSIUM = 0.3  # share of what is left of a muscle, around the streaks


class M(IntEnum):
    """Materials of the fine map."""

    AIR = 0
    SKIN = 1
    FAT = 2
    SEPTUM = 3  # fibrous strands of fat
    FASCIA = 4
    MUSCLE = 5
    PERIMYSIUM = 6  # muscle with the connective tissue between its fascicles
    STREAK = 7  # fat that replaced muscle
    TENDON = 8
    CORTEX = 9
    MARROW = 10
    ARTERY = 11
    VEIN = 12


@dataclass(frozen=True)
class Grid:
    """Fine sample positions, mm: x (X,), y (Y,), both evenly spaced."""

    x: np.ndarray
    y: np.ndarray

    @property
    def pitch(self) -> float:
        """Distance between samples."""
        return float(self.x[1] - self.x[0])


@dataclass(frozen=True, eq=False)
class Drawing:
    """A drawn slice.

    Attributes:
      labels: (Y, X) uint8 of `M`.
      fossa: (Y, X) bool, the contents of the fossa: muscle, what replaced it, and its tendon.
      fat: share of fat in each muscle; NaN for one that is not in view.
      occupancy: area of the supraspinatus over that of the fossa.
    """

    labels: np.ndarray
    fossa: np.ndarray
    fat: Mapping[str, float]
    occupancy: float


def inside(outline: np.ndarray, grid: Grid) -> np.ndarray:
    """(Y, X) bool: samples within a closed outline (N, 2), by the even-odd rule."""
    x0, y0 = outline.T
    x1, y1 = np.roll(outline, -1, 0).T
    row, edge = np.nonzero((y0 <= grid.y[:, None]) != (y1 <= grid.y[:, None]))
    slope = (x1[edge] - x0[edge]) / (y1[edge] - y0[edge])
    column = np.searchsorted(grid.x, x0[edge] + (grid.y[row] - y0[edge]) * slope)
    shape = grid.y.size, grid.x.size + 1
    crossings = np.bincount(row * shape[1] + column, minlength=shape[0] * shape[1])
    odd = (crossings & 1).astype(np.uint8).reshape(shape)[:, :-1]
    return np.bitwise_xor.accumulate(odd, axis=1).astype(bool)


def draw(
    anatomy: Anatomy,
    grid: Grid,
    fat_share: Mapping[str, float],
    skin_fat_mm: float,
    streaks: np.ndarray,
) -> Drawing:
    """Fills the fine map.

    Args:
      anatomy: outlines.
      grid: sample positions.
      fat_share: share of fat in each muscle, 0 to 1.
      skin_fat_mm: thickness of the subcutaneous fat.
      streaks: (Y, X) float; where it is lowest, muscle turns into fat first.
    """
    labels = np.full((grid.y.size, grid.x.size), M.FAT, np.uint8)
    _draw_surface(labels, anatomy, grid, skin_fat_mm, streaks)
    deep = labels == M.FAT
    fossa = inside(anatomy.fossa, grid)
    for material, face in ((M.CORTEX, 0), (M.MARROW, 1)):  # marrow joins the bones
        for faces in anatomy.bones:
            bone = inside(faces[face], grid) & deep
            labels[bone] = material
    labels[inside(anatomy.lung, grid) & (labels == M.FAT)] = M.AIR
    fossa &= labels == M.FAT
    for outline in anatomy.fasciae:
        labels[inside(outline, grid) & (labels == M.FAT) & ~fossa] = M.FASCIA
    tendons = np.any([inside(t, grid) for t in anatomy.tendons], axis=0)
    fat: dict[str, float] = {}
    supraspinatus = 0
    for name, outline in anatomy.muscles.items():
        free = (labels == M.FAT) & deep
        muscle = inside(outline, grid) & free & (fossa if name == SUPRASPINATUS else ~fossa)
        labels[muscle & tendons] = M.TENDON
        if name == SUPRASPINATUS:
            supraspinatus = int(muscle.sum())
        fat[name] = _infiltrate(labels, muscle & ~tendons, fat_share[name], streaks)
    for outlines, material in ((anatomy.veins, M.VEIN), (anatomy.arteries, M.ARTERY)):
        for outline in outlines:
            labels[inside(outline, grid) & (labels == M.FAT) & ~fossa & deep] = material
    return Drawing(labels, fossa, fat, supraspinatus / max(int(fossa.sum()), 1))


def _infiltrate(labels: np.ndarray, muscle: np.ndarray, share: float, streaks: np.ndarray) -> float:
    """Draws a muscle of which a share is fat; returns the share of the samples that became it."""
    order = streaks[muscle]
    if not order.size:
        return float("nan")
    count = round(share * order.size)
    between = count + int(_PERIMYSIUM * (order.size - count))
    kinds = np.full(order.size, M.MUSCLE, np.uint8)
    lowest = np.argpartition(order, [max(count - 1, 0), max(between - 1, 0)])
    kinds[lowest[:between]] = M.PERIMYSIUM
    kinds[lowest[:count]] = M.STREAK
    labels[muscle] = kinds
    return count / order.size


def _draw_surface(
    labels: np.ndarray, anatomy: Anatomy, grid: Grid, skin_fat_mm: float, streaks: np.ndarray
) -> None:
    """Subcutaneous fat with its septa, skin and air about the sheath of the muscles."""
    outside = ~inside(anatomy.sheath, grid)
    distance = ndimage.distance_transform_edt(outside) * grid.pitch
    thin = np.quantile(streaks, 0.05)
    labels[outside & (streaks < thin) & (distance > 1.5)] = M.SEPTUM
    labels[outside & (distance < 0.5)] = M.FASCIA
    # Fat is thicker below than on top of the shoulder.
    thickness = skin_fat_mm * (0.8 + 0.4 / (1 + np.exp(-grid.y / 25)))[:, None]
    labels[distance > thickness] = M.SKIN
    labels[distance > thickness + SKIN_MM] = M.AIR
