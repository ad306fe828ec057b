"""Levels of discs from where they lie along the spine, and their names."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import logit

# Neighbouring discs lie a vertebra apart, and neighbouring vertebrae differ by less than a third.
_GAP = 1.6  # a step of more than this many typical steps skips a disc
_TWIN = 0.4  # of less than this many is the same disc found twice
_FAR = 3.6  # of more than this many leads to something else
_LEAN = np.deg2rad(75)  # of a step against the vertical, at most
_BEND = np.deg2rad(60)  # of a step against the one below, at most; spinous processes need more
_USUAL = np.deg2rad(25)  # bend that any spine makes
# Log odds, as what a disc adds.
_BENDING = 3.0  # that one radian more costs: of like rows the straighter one is taken
_SKIPPING = 2.5  # that a skipped level costs: an unsure disc is better than a gap
_SUREST = 0.98  # of nothing a detector is surer than this
_SAME_MM = 5.0  # centres nearer than this are of one disc
_END = 3  # steps at an end of a row by which it is continued

CAVEAT = (
    "levels are counted upwards from the lowest disc that was found, which is taken for L5/S1; a"
    " transitional vertebra, or a lowest disc that was missed or lies outside the images, shifts"
    " all names"
)
_VERTEBRAE = (
    "S1",
    *(f"{part}{n}" for part, count in (("L", 5), ("T", 12), ("C", 7)) for n in range(count, 0, -1)),
)  # from below
_TOP = _VERTEBRAE.index("C2")  # there is no disc between C1 and C2


def level_name(level: int) -> str:
    """What radiologists call a disc: ``L5/S1`` for level 1, ``T12/L1`` for 6, ``C2/C3`` for 23.

    This is a name by counting, see `CAVEAT`.

    Args:
      level: counted from the lowest disc, 1.

    Returns:
      The vertebrae above and below; ``level 24`` and so on above the highest disc of a spine.

    Raises:
      ValueError: the level is below 1.
    """
    if level < 1:
        raise ValueError(f"levels begin with 1, got {level}")
    if level > _TOP:
        return f"level {level}"
    return f"{_VERTEBRAE[level]}/{_VERTEBRAE[level - 1]}"


def spoken(text: str) -> str:
    """``level 3`` of a table as `level_name`; any other text as it is.

    >>> spoken("level 3"), spoken("L1 (given by hand)")
    ('L3/L4', 'L1 (given by hand)')
    """
    number = text.removeprefix("level ")
    return level_name(int(number)) if number != text and number.isdigit() else text


@dataclass(frozen=True)
class Levels:
    """Discs in order.

    Attributes:
      kept: (K,) int, numbers of the discs that are kept, from the lowest upwards.
      levels: (K,) int32, 1 for the lowest; a gap skips numbers.
      gaps: levels that are skipped.
      left_out: sure detections that are not kept: a disc found twice, or nothing in the row.
    """

    kept: np.ndarray
    levels: np.ndarray
    gaps: int
    left_out: int


def assign_levels(
    centres_mm: np.ndarray, scores: np.ndarray, lowest: np.ndarray, confidence: float
) -> Levels:
    """Counts discs from the lowest upwards; gaps are reported, not closed.

    Of all rows of detections whose steps go upwards, are of a disc's length and bend no more than a
    spine does, the spine is the likeliest one, less a price for bends and for skipped levels.  A
    detection of score s adds the log odds of s over those of `confidence`, and the log of how much
    the first of the row looks like the lowest disc and each other one does not.  So an unsure
    detection counts where it fills a gap between sure ones or is the lowest disc, and nowhere else;
    what lies below the lowest disc is left out; and of two that look like it the lower one is, if
    it is a disc at all.

    Args:
      centres_mm: (N, 2) rows (downwards) and columns (backwards) of the discs' centres.
      scores: (N,) in [0, 1], of unsure detections too.
      lowest: (N,) in [0, 1], how much a detection looks like the lowest disc.
      confidence: score at which a detection is sure.
    """
    centres = np.asarray(centres_mm, np.float64).reshape(-1, 2)
    gains = _log_odds(scores) - _log_odds(confidence)
    if not (gains >= 0).any():
        return Levels(np.zeros(0, int), np.zeros(0, np.int32), 0, 0)
    order = np.argsort(-centres[:, 0], kind="stable")
    first = gains + np.log(np.clip(lowest, 1 - _SUREST, 1))
    later = gains + np.log(np.clip(1 - np.asarray(lowest), 1 - _SUREST, 1))
    kept = order[_best_row(centres[order], first[order], later[order])]
    between = np.linalg.norm(np.diff(centres[kept], axis=0), axis=1)
    typical = float(np.median(between)) if len(between) else 1.0
    jumps = np.where(between > _GAP * typical, np.rint(between / typical), 1).astype(np.int32)
    levels = np.cumsum(np.concatenate([[1], jumps])).astype(np.int32)[: len(kept)]
    left_out = int((np.delete(gains, kept) >= 0).sum())
    return Levels(kept.astype(int), levels, int((jumps - 1).sum()), left_out)


def _log_odds(p: ArrayLike) -> np.ndarray:
    return np.asarray(logit(np.clip(np.asarray(p, np.float64), 1 - _SUREST, _SUREST)))


def _best_row(centres: np.ndarray, first: np.ndarray, later: np.ndarray) -> np.ndarray:
    """Numbers, from the lowest upwards, of the surest row that a spine could make.

    Dynamic programming over the last two discs of a row.

    Args:
      centres: (N, 2), from the lowest upwards.
      first: (N,) what a disc adds to a row that begins with it.
      later: (N,) what it adds to a row that it continues.
    """
    count = len(centres)
    if count < 2:
        return np.arange(count)
    step = centres[None] - centres[:, None]  # from, to
    length = np.linalg.norm(step, axis=-1)
    angle = np.arctan2(step[..., 1], -step[..., 0])  # 0 straight up
    upwards = np.triu(np.ones((count, count), bool), 1) & (np.abs(angle) <= _LEAN)
    # A disc's next one upwards is the nearest; the median forgives gaps and strays.
    next_up = np.where(upwards & (length > _SAME_MM), length, np.inf).min(1)
    known = next_up[np.isfinite(next_up)]
    if not len(known):
        return np.array([int(np.argmax(first))])
    typical = float(np.median(known))
    allowed = upwards & (length >= _TWIN * typical) & (length <= _FAR * typical)
    skipped = np.where(length > _GAP * typical, np.rint(length / typical) - 1, 0)
    gained = later[None] - _SKIPPING * skipped  # by a step, from, to

    best = np.where(allowed, first[:, None] + gained, -np.inf)  # of rows that end with i, j
    before = np.full((count, count), -1)
    for i in range(count):  # sorted: whatever ends with i is known by now
        for j in np.flatnonzero(allowed[i]).tolist():
            bend = np.abs(angle[i, j] - angle[:, i])
            price = _BENDING * np.maximum(bend - _USUAL, 0)
            longer = np.where(bend <= _BEND, best[:, i] + gained[i, j] - price, -np.inf)
            k = int(np.argmax(longer))
            if longer[k] > best[i, j]:
                best[i, j], before[i, j] = longer[k], k
    if best.max(initial=-np.inf) <= first.max():
        return np.array([int(np.argmax(first))])
    i, j = (int(v) for v in np.unravel_index(int(np.argmax(best)), best.shape))
    row = [j, i]
    while (k := int(before[i, j])) >= 0:
        row.append(k)
        i, j = k, i
    return np.array(row[::-1])


def is_shown(
    level: int, levels: np.ndarray, centres: np.ndarray, shape: tuple[int, int]
) -> bool | None:
    """Whether a disc that nobody found can lie in an image, by the row of the discs that are known.

    Beyond an end the row goes on by the median of its last steps there.

    Args:
      level: of the disc, counted from the lowest, 1.
      levels: (N,) int of the known discs, ascending.
      centres: (N, 2) their rows and columns, in pixels.
      shape: rows and columns of the image.

    Returns:
      True of a level that is known or lies between two that are; else whether the image holds the
      centre of the disc.  None with fewer than two known discs, which have no step.
    """
    levels, centres = np.asarray(levels, int), np.asarray(centres, np.float64).reshape(-1, 2)
    if level in levels:
        return True
    if len(levels) < 2:
        return None
    if levels[0] < level < levels[-1]:
        return True
    steps = np.diff(centres, axis=0) / np.diff(levels)[:, None]
    up = level > levels[-1]
    step = np.median(steps[-_END:] if up else steps[:_END], axis=0)
    end = -1 if up else 0
    place = centres[end] + (level - levels[end]) * step
    return bool(((place >= -0.5) & (place <= np.array(shape) - 0.5)).all())


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
