"""Maps of where a grader found its evidence: as pictures show them, and whether they say anything.

A map is shown beside that of the same network with random weights (the model parameter
randomisation test of Adebayo et al., Sanity Checks for Saliency Maps, 2018): what both show comes
from the input and the architecture, and nothing of it was learnt.  A map that ranks the places of a
crop as that of random weights does is left out, as is one that ranks none, or too few to tell.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
from scipy import stats

from mskjax.reporting.pictures import Panel
from mskjax.tables import Row, floats

COLUMN = "map_correlation"  # of cases.csv
PLACES = 9  # fewer are too coarse to show where, and any two maps rank them alike by chance
ALIKE = 0.7  # rank correlation from which a map says no more than that of random weights


def rank_correlation(heat: np.ndarray, other: np.ndarray) -> float | None:
    """Spearman's correlation of two maps of one case, place by place.

    Args:
      heat: of any shape, finite.
      other: of the same shape.

    Returns:
      In [-1, 1]; None where one of them is the same everywhere, so that it ranks nothing, or of
      fewer than `PLACES`.
    """
    if heat.size < PLACES or np.ptp(heat) == 0 or np.ptp(other) == 0:
        return None
    return float(stats.spearmanr(heat.ravel(), other.ravel()).statistic)


class Explained(Protocol):
    """What is asked of a reading, see `two_stage.regions_then_grades.Reading`."""

    @property
    def shown(self) -> np.ndarray | None:
        """(R, h, w) or (R, h, w, channels) what was graded."""

    @property
    def attention(self) -> np.ndarray | None:
        """(R, h', w') of each, in logits, not negative."""

    @property
    def untrained(self) -> np.ndarray | None:
        """The same of random weights."""


def panels(reading: Explained, names: Mapping[int, str], channel: int | None = None) -> list[Panel]:
    """Panels that show where a grader found the evidence in some of the crops it graded.

    All maps of a study have one scale, from 0 to the study's greatest value, so that they compare;
    those of random weights, which are drawn below, have their own.

    Args:
      reading: of a study.
      names: number of a region -> what its crop shows, in the order of the panels.
      channel: of the crops that is drawn, where they have several.

    Returns:
      None where there is no map.
    """
    crops, maps, untrained = reading.shown, reading.attention, reading.untrained
    if crops is None or maps is None:
        return []
    crops = crops if channel is None else crops[..., channel]
    top = float(maps.max(initial=0))
    below = float(untrained.max(initial=0)) if untrained is not None else 0.0
    scale = f"Grad-CAM, 0 to {top:.2g} logits"
    if untrained is not None:
        scale += f"; below it that of random weights, 0 to {below:.2g}"
    found = []
    for i, name in names.items():
        crop = crops[i]
        if why := _left_out(maps[i], None if untrained is None else untrained[i]):
            found.append(Panel(f"{name}, no Grad-CAM: {why}", crop, (1.0, 1.0)))
            continue
        heat = maps[i] / top
        if untrained is not None:
            crop = np.concatenate([crop, crop])
            heat = np.concatenate([heat, untrained[i] / (below or 1.0)])
        found.append(Panel(f"Grad-CAM, {name}", crop, (1.0, 1.0), heat=heat, scale=scale))
    return found


def _left_out(heat: np.ndarray, untrained: np.ndarray | None) -> str:
    """Why a map is not shown; empty where it is."""
    if heat.size < PLACES:
        return f"{heat.size} places are too few"
    if not heat.any():
        return "nothing speaks for the call"
    if np.ptp(heat) == 0:
        return "the same everywhere"
    correlation = None if untrained is None else rank_correlation(heat, untrained)
    if correlation is not None and correlation >= ALIKE:
        return "as of random weights"
    return ""


def column(maps: np.ndarray | None, untrained: np.ndarray | None, number: int | None) -> Row:
    """The cell of cases.csv that says how alike the two maps of a region are, to three decimals.

    Args:
      maps: (R, h', w') of the regions; None where there are none.
      untrained: the same of random weights.
      number: of the region; None where it was missed.

    Returns:
      Nothing where there is no map.
    """
    if maps is None or untrained is None or number is None:
        return {}
    correlation = rank_correlation(maps[number], untrained[number])
    return {COLUMN: "" if correlation is None else round(correlation, 3)}


def summary(rows: Sequence[Row]) -> dict[str, Any]:
    """What a report says of the maps of all cases.

    Args:
      rows: of cases.csv.

    Returns:
      ``cases`` with a map, ``compared`` (those whose map ranks places), ``median``,
      ``lower_quartile`` and ``upper_quartile`` of the rank correlation with random weights, and
      ``alike``, how many reach ``threshold``; empty where no row has a map.
    """
    told = [row for row in rows if row["kind"] == "grade" and row.get("found") == "1"]
    told = [row for row in told if COLUMN in row]
    values = floats(told, COLUMN)
    known = values[np.isfinite(values)]
    if not known.size:
        return {}
    low, median, high = (round(float(q), 3) for q in np.quantile(known, (0.25, 0.5, 0.75)))
    return {
        "cases": len(told),
        "compared": len(known),
        "median": median,
        "lower_quartile": low,
        "upper_quartile": high,
        "alike": int((known >= ALIKE).sum()),
        "threshold": ALIKE,
    }
