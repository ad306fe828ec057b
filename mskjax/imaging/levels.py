"""Levels of discs from where they lie along the spine."""

from dataclasses import dataclass

import numpy as np

# Discs of one spine lie a vertebra apart, and neighbours differ by less than a third.
_GAP = 1.6  # a step of more than this many median steps skips a disc
_TWIN = 0.4  # of less than this many is the same disc found twice


@dataclass(frozen=True)
class Levels:
    """Discs in order.

    Attributes:
      kept: (K,) int, numbers of the discs that are kept, from the lowest upwards.
      levels: (K,) int32, 1 for the lowest; a gap skips numbers.
      gaps: levels that are skipped.
      twins: discs that are left out because another one lies in their place.
    """

    kept: np.ndarray
    levels: np.ndarray
    gaps: int
    twins: int


def assign_levels(centres_mm: np.ndarray, scores: np.ndarray) -> Levels:
    """Counts discs from the lowest upwards; gaps are reported, not closed.

    Args:
      centres_mm: (N, 2) rows (downwards) and columns (backwards) of the discs' centres.
      scores: (N,) confidence; of two discs in one place the surer one is kept.
    """
    centres = np.asarray(centres_mm, np.float64).reshape(-1, 2)
    order = np.argsort(-centres[:, 0], kind="stable")
    steps = np.linalg.norm(np.diff(centres[order], axis=0), axis=1)
    typical = float(np.median(steps)) if len(steps) else 0.0
    kept: list[int] = []
    for number in order.tolist():
        twin = kept and np.linalg.norm(centres[number] - centres[kept[-1]]) < _TWIN * typical
        if not twin:
            kept.append(number)
        elif scores[number] > scores[kept[-1]]:
            kept[-1] = number
    between = np.linalg.norm(np.diff(centres[kept], axis=0), axis=1)
    typical = float(np.median(between)) if len(between) else 1.0
    jumps = np.where(between > _GAP * typical, np.rint(between / typical), 1).astype(np.int32)
    levels = np.cumsum(np.concatenate([[1], jumps])).astype(np.int32)[: len(kept)]
    return Levels(np.array(kept, int), levels, int((jumps - 1).sum()), len(centres) - len(kept))


def tilts(centres_mm: np.ndarray) -> np.ndarray:
    """(N,) angle of each disc, radians, positive where its posterior end lies lower.

    A disc is taken to lie across the line through its neighbours' centres; one disc alone is level.

    Args:
      centres_mm: (N, 2) rows and columns of the centres, from the lowest disc upwards.
    """
    centres = np.asarray(centres_mm, np.float64).reshape(-1, 2)
    if len(centres) < 2:
        return np.zeros(len(centres))
    # Downwards, between the neighbours on both sides, or to the one there is at the ends.
    padded = np.concatenate([centres[:1], centres, centres[-1:]])
    down = padded[:-2] - padded[2:]
    return np.arctan2(-down[:, 1], down[:, 0])
