"""Flags on what is read of a new study: where the figures of the run's report may not hold.

A flag is a sentence with numbers; it changes no result.  None says that a reading is wrong, and
none of them being raised says nothing about it either.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from mskjax.metrics.grading import Grading
from mskjax.profile import COUNTS, LENGTHS, SHAPE, Range, images_of
from mskjax.results.result import Flag
from mskjax.tables import Row, floats

# Beyond least and greatest of the training studies, so that not every few studies one is flagged
# for chance: of n training studies a further one like them lies outside with probability 2/(n+1),
# in each quantity.
ROOM_OF_LENGTHS = 1.1  # factor
ROOM_OF_SHAPE = (0.05, 0.1)  # of the intensity range, and of what the training studies span
AGREEING = 2 / 3  # share of the networks; see `disagreement`

_WORDS = {
    "spacing_slice_mm": ("spacing", "slices lie {} mm apart"),
    "spacing_row_mm": ("spacing", "rows lie {} mm apart"),
    "spacing_col_mm": ("spacing", "columns lie {} mm apart"),
    "fov_row_mm": ("size", "the image is {} mm high"),
    "fov_col_mm": ("size", "the image is {} mm wide"),
    "slices": ("size", "it has {} slices"),
    "rows": ("size", "it has {} rows"),
    "cols": ("size", "it has {} columns"),
    "median": ("intensity", "the median voxel of {} lies at {} of its intensity range"),
    "body": ("intensity", "the median bright voxel of {} lies at {} of its intensity range"),
    "mean": ("intensity", "voxels of {} lie at {} of its intensity range on average"),
}


class Disagreement(NamedTuple):
    """What the networks of an ensemble call one case, each for itself.

    Attributes:
      agreeing: networks that call what the ensemble calls.
      members: networks that were asked.
      flag: None where they agree well enough.
    """

    agreeing: int
    members: int
    flag: Flag | None


def flags(study: Row, ranges: Mapping[str, Range]) -> list[Flag]:
    """Where a study lies outside what the run was trained on.

    Args:
      study: `profile.measure` of it.
      ranges: `profile.ranges` of the training studies; of nothing, nothing is flagged.
    """
    return [*_of_geometry(study, ranges), *_of_intensity(study, ranges)]


def _of_geometry(study: Row, ranges: Mapping[str, Range]) -> Iterator[Flag]:
    measured = [*LENGTHS, "slices"]
    if study[LENGTHS[0]] == "" and LENGTHS[0] in ranges:
        yield Flag(
            "spacing",
            "The file does not say how large its pixels are; lengths cannot be held against the"
            " training studies.",
        )
        measured = list(COUNTS)
    for name in measured:
        if study[name] != "" and (own := ranges.get(name)):
            value, low, high = float(study[name]), own.low, own.high
            if not low / ROOM_OF_LENGTHS <= value <= high * ROOM_OF_LENGTHS:
                kind, words = _WORDS[name]
                yield Flag(kind, _outside(words.format(f"{value:.3g}"), own))


def _of_intensity(study: Row, ranges: Mapping[str, Range]) -> Iterator[Flag]:
    for image in images_of(study):
        usual = ranges.get(f"{image}_{SHAPE[0]}")
        if study[f"{image}_{SHAPE[0]}"] == "":
            if usual and usual.n < ranges["slices"].n:
                continue  # so it was in training studies, e.g. where a sequence is not there
            yield Flag("intensity", f"Nearly all voxels of {image} have one intensity.")
            continue
        for name in SHAPE:
            own = ranges.get(f"{image}_{name}")
            if own is None:
                continue
            value, least, share = float(study[f"{image}_{name}"]), *ROOM_OF_SHAPE
            room = least + share * (own.high - own.low)
            if not own.low - room <= value <= own.high + room:
                kind, words = _WORDS[name]
                said = _outside(words.format(image, f"{value:.2f}"), own)
                yield Flag(kind, f"{said} Is it the sequence that the run was trained on?")
                break  # one is enough to look at the image


def _outside(said: str, own: Range) -> str:
    said = said[0].upper() + said[1:]
    return f"{said}; in the {own.n} training studies {own.low:.3g} to {own.high:.3g}."


def levels_seen(rows: Sequence[Row]) -> tuple[int, int] | None:
    """Least and greatest number of reference regions that a study of the run has.

    Args:
      rows: of its cases.csv.
    """
    counts = floats([r for r in rows if r["kind"] == "regions"], "regions_reference")
    counts = counts[counts > 0]
    return (int(counts.min()), int(counts.max())) if len(counts) else None


def level_flags(levels: Sequence[int], gaps: int, seen: tuple[int, int] | None) -> list[Flag]:
    """Whether levels can be trusted: a disc that is missed shifts the names of those above it.

    Args:
      levels: of the regions that were found, 1 the lowest.
      gaps: levels that were skipped.
      seen: see `levels_seen`; None where the run does not say.
    """
    found = []
    if gaps:
        levels_skipped = "1 level is" if gaps == 1 else f"{gaps} levels are"
        found.append(
            Flag("levels", f"{levels_skipped} skipped between discs that were found; count them.")
        )
    if len(set(levels)) < len(levels):
        found.append(Flag("levels", "Two regions were given one level."))
    if seen and not seen[0] <= len(levels) <= seen[1]:
        usual = f"{seen[0]}" if seen[0] == seen[1] else f"{seen[0]} to {seen[1]}"
        found.append(
            Flag(
                "levels",
                f"{len(levels)} regions were found; studies of the run have {usual}. The lowest may"
                " not be level 1.",
            )
        )
    return found


def disagreement(grading: Grading, members: np.ndarray) -> Disagreement:
    """Whether the networks of an ensemble would call one case alike.

    The threshold is a choice and not fitted: in cross-validation one network reads each case, so
    that nothing shows how often ensembles disagree.  Two thirds asks of five networks that four
    agree.  Of ordinal grades two networks that differ by two grades or more are flagged as well.

    Args:
      grading: how each calls.
      members: (M, K) probabilities of the networks, as they gave them; NaN in the row of one that
        missed the region, which then agrees with none.
    """
    p = np.asarray(members, np.float64)
    calls = grading.calls(p)
    there = calls < grading.missed
    if not there.any():
        return Disagreement(0, len(p), None)
    call = int(grading.calls(p[there].mean(0, keepdims=True))[0])
    agreeing = int((calls == call).sum())
    apart = int(np.ptp(calls[there])) if grading.ordinal else 0
    if len(p) < 2 or (agreeing >= AGREEING * len(p) - 1e-9 and apart < 2):
        return Disagreement(agreeing, len(p), None)
    others = [
        f"{int((calls == k).sum())} {name}"
        for k, name in enumerate((*grading.classes, "no region"))
        if k != call and (calls == k).any()
    ]
    text = f"{agreeing} of {len(p)} networks call {grading.task} {grading.classes[call]}"
    return Disagreement(agreeing, len(p), Flag("disagreement", f"{text}, {', '.join(others)}."))
