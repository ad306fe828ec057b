"""Which series of a study serves which channel: by what is shown, or as the user says."""

import itertools
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from mskjax.errors import UserError
from mskjax.inputs.sequence import Shown
from tfds_builders.images import Wanted

_NEARER_DEGREES = 20.0  # by which one of two oblique planes is clearly nearer to left-right
_MOST_LISTED = 12


class Unclear(Exception):
    """No series of a study serves, or several do; a sentence that quotes nothing of the header."""


@dataclass(frozen=True)
class Pick:
    """What ``--series`` says of one channel: a number in the list of a study, or a UID."""

    number: int = 0
    uid: str = ""


def parse_series(text: str | None, needs: Mapping[str, Wanted]) -> Mapping[str, Pick]:
    """``--series``: ``3`` or a SeriesInstanceUID, of two channels ``t1=3,t2=5``.

    Raises:
      UserError: it is none of these.
    """
    if not text:
        return {}
    picks: dict[str, Pick] = {}
    form = ",".join(f"{channel}=NUMBER" for channel in needs) if len(needs) > 1 else "NUMBER"
    wrong = f"--series is {text!r}; write {form}, with the number or the UID of a series."
    for part in text.split(","):
        channel, _, value = part.rpartition("=")
        channel = channel.strip() or (next(iter(needs)) if len(needs) == 1 else "")
        value = value.strip()
        if channel not in needs or channel in picks:
            raise UserError(wrong)
        if value.isdecimal() and 0 < len(value) < 7 and int(value):
            picks[channel] = Pick(number=int(value))
        elif re.fullmatch(r"[0-9]+(\.[0-9]+)+", value):
            picks[channel] = Pick(uid=value)
        else:
            raise UserError(wrong)
    return picks


def choose(
    series: Sequence[Shown], needs: Mapping[str, Wanted], picks: Mapping[str, Pick]
) -> Mapping[str, int]:
    """The index in `series` that serves each channel; optional channels may be missing.

    Args:
      series: of one study.
      needs: what each channel must show.
      picks: what the user says; it is taken whatever it shows.

    Raises:
      Unclear: a channel has no series, or several that are equally good.
    """
    best = {
        channel: _picked(series, channel, picks[channel])
        if applies(series, picks.get(channel))
        else _best(series, channel, wanted)
        for channel, wanted in needs.items()
    }
    best = {channel: found for channel, found in best.items() if found}
    combinations = [
        dict(zip(best, some, strict=True))
        for some in itertools.product(*best.values())
        if len(set(some)) == len(some)
    ]
    if not combinations:
        channels = " and ".join(best)
        raise Unclear(f"{channels} would be one series; {_ask(needs)} {_listed(series)}.")
    if len(combinations) > 1:
        fitting = [c for c in combinations if _fit([series[i] for i in c.values()])]
        combinations = fitting or combinations
    if len(combinations) > 1:
        open_ = [c for c in best if len({combination[c] for combination in combinations}) > 1]
        among = sorted({combination[c] for combination in combinations for c in open_})
        raise Unclear(
            f"several series serve equally well as {' and '.join(open_)}; {_ask(needs)}"
            f" {_listed(series, among)}."
        )
    return combinations[0]


def label(series: Sequence[Shown], index: int) -> str:
    """What a series is called, e.g. ``series 3 of 7: sagittal T2, TE 101 ms, 15 slices``."""
    return f"series {index + 1} of {len(series)}: {series[index].words()}"


def applies(series: Sequence[Shown], pick: Pick | None) -> bool:
    """Whether a pick is of this study: a UID is of one alone, the others are decided without it."""
    return pick is not None and (bool(pick.number) or any(s.stack.uid == pick.uid for s in series))


def _picked(series: Sequence[Shown], channel: str, pick: Pick) -> list[int]:
    if pick.number:
        if pick.number > len(series):
            raise Unclear(
                f"--series gives {channel} the number {pick.number}, but there are"
                f" {len(series)}: {_listed(series)}."
            )
        return [pick.number - 1]
    same = [i for i, s in enumerate(series) if s.stack.uid == pick.uid]
    taken = [i for i in same if series[i].is_taken] or same
    least = min(series[i].badness for i in taken)
    return [i for i in taken if series[i].badness == least]


def _best(series: Sequence[Shown], channel: str, wanted: Wanted) -> list[int]:
    """The best series for a channel, none where an optional one has none."""
    ranks = {i: rank for i, s in enumerate(series) if (rank := _rank(s, wanted)) is not None}
    if not ranks:
        if wanted.optional:
            return []
        raise Unclear(
            f"no series shows what {channel} must ({demand(wanted)}); choose one with --series"
            f" if one does all the same: {_listed(series)}."
        )
    best = [i for i, rank in ranks.items() if rank == min(ranks.values())]
    return _nearest_to_sideways(series, best) if wanted.plane == "y-view" else best


def demand(wanted: Wanted) -> str:
    """What is wanted, in words."""
    plane = {"sagittal": "sagittal", "y-view": "sagittal oblique (Y-view)", None: ""}[wanted.plane]
    weightings = " or ".join(w.upper() for w in wanted.weightings)
    return " ".join(filter(None, (plane, weightings))) or "an image with a place"


def _rank(shown: Shown, wanted: Wanted) -> tuple[int, ...] | None:
    """Least is best; None where it does not serve.

    A weighting that the header does not say comes behind every known one, and is not enough for
    what a study may lack.
    """
    if not (shown.is_taken and shown.fits(wanted.plane)):
        return None
    if not wanted.weightings:
        return (0, shown.badness, 0)
    if not shown.weighting:
        return None if wanted.optional else (1, shown.badness, 0)
    names: tuple[str, ...] = wanted.weightings
    if shown.weighting not in names:
        return None
    return (0, shown.badness, names.index(shown.weighting))


def _nearest_to_sideways(series: Sequence[Shown], some: list[int]) -> list[int]:
    """Of oblique planes those nearest to left-right: a coronal oblique may pass for a Y-view."""
    angles = {}
    for i in some:
        normal = series[i].stack.normal
        angles[i] = 0.0 if normal is None else float(np.degrees(np.arccos(min(abs(normal[0]), 1))))
    least = min(angles.values())
    return [i for i in some if angles[i] < least + _NEARER_DEGREES]


def _fit(pair: Sequence[Shown]) -> bool:
    """Whether series lie in one space and show much of the same place."""
    frames = {f for s in pair if (f := s.stack.facts.get("FrameOfReferenceUID", ""))}
    boxes = [box for s in pair if (box := s.stack.box()) is not None]
    if len(frames) > 1 or len(boxes) < len(pair):
        return False
    low = np.max([box[0] for box in boxes], axis=0)
    high = np.min([box[1] for box in boxes], axis=0)
    smaller = np.min([box[1] - box[0] for box in boxes], axis=0)
    return bool(np.all(high - low >= 0.5 * smaller))


def _ask(needs: Mapping[str, Wanted]) -> str:
    form = ",".join(f"{channel}=NUMBER" for channel in needs) if len(needs) > 1 else "NUMBER"
    return f"say which with --series={form}:"


def _listed(series: Sequence[Shown], some: Sequence[int] | None = None) -> str:
    """Numbers and words; neighbours of the same words are one entry."""
    chosen = list(range(len(series)) if some is None else some)
    alike = [list(own) for _, own in itertools.groupby(chosen, lambda i: series[i].words())]
    entries = [
        f"{own[0] + 1}{f' to {own[-1] + 1}' * (len(own) > 1)} {series[own[0]].words()}"
        for own in alike[:_MOST_LISTED]
    ]
    more = len(chosen) - sum(map(len, alike[:_MOST_LISTED]))
    return "; ".join(entries) + (f"; and {more} more" if more else "")
