"""How single cases lie, as SVG bytes: agreement of grades, figures study by study."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from mskjax.reporting import wording
from mskjax.reporting.figures import BLUE, GREY, ORANGE, VERMILION, drawn, short


def agreement(content: Mapping[str, Any], title: str, *, phantom: bool = False) -> bytes:
    """Bland and Altman's plot of expected against reference grade (Lancet 1986;327:307-310).

    Args:
      content: ``points``, [[mean, difference], ...] of cases; ``bias``, estimate of the mean
        difference; ``limits``, the 95 % limits of agreement; ``classes``, names on the scale of
        the means, of which the first is 0.
      title: one line above the figure.
      phantom: write PHANTOM across the figure.

    Returns:
      An SVG document.
    """
    points = np.array(content["points"], np.float64).reshape(-1, 2)
    bias, limits = content["bias"], content["limits"]

    def draw(figure: Figure) -> None:
        axes = figure.add_subplot()
        axes.axhline(0, color=GREY, lw=1)
        axes.plot(*points.T, "o", color=BLUE, ms=4, alpha=0.35, mew=0)
        axes.axhline(bias["value"], color=VERMILION, lw=1.8)
        if bias.get("ci95"):
            axes.axhspan(*bias["ci95"], color=VERMILION, alpha=0.12, lw=0)
        for limit in limits:
            axes.axhline(limit, color=VERMILION, lw=1.2, ls="--")
        for y, text in zip((bias["value"], *limits), ("mean", "−1.96 SD", "+1.96 SD"), strict=True):
            said = f"{text} {wording.signed(y)}"
            axes.text(1.01, y, said, transform=axes.get_yaxis_transform(), va="center", size=9)
        reach = 1.15 * max(np.abs(points[:, 1]).max(initial=0.5), *map(abs, limits))
        axes.set_ylim(-reach, reach)
        names = content["classes"]
        axes.set_xlim(-0.3, len(names) - 0.7)
        axes.set_xticks(range(len(names)), [short(wording.label(name)) for name in names])
        axes.set_xlabel("Mean of expected and reference grade")
        axes.set_ylabel("Expected minus reference, grades")
        axes.grid(axis="y")
        axes.set_title(f"{title}, n = {len(points)}")

    return drawn(draw, 7.2, 4.2, phantom=phantom)


def studies(
    values: Mapping[str, Sequence[float]], title: str, axis: str, *, phantom: bool = False
) -> bytes:
    """Every study as a point, with median and quartiles, one row for each structure.

    Args:
      values: name of a row -> figure of each study in [0, 1].
      title: one line above the figure.
      axis: what is drawn.
      phantom: write PHANTOM across the figure.

    Returns:
      An SVG document.

    Raises:
      ValueError: there is no value.
    """
    known = {name: np.sort(np.asarray(own, np.float64)) for name, own in values.items() if len(own)}
    if not known:
        raise ValueError("a figure of studies needs at least one")

    def draw(figure: Figure) -> None:
        axes = figure.add_subplot()
        for row, own in enumerate(known.values()):
            # Spread by rank, so that the same values are drawn the same way.
            aside = 0.22 * np.sin(2.4 * np.arange(len(own)))
            axes.plot(own, row + aside, "o", color=BLUE, ms=4, alpha=0.5, mew=0)
            low, middle, high = np.percentile(own, [25, 50, 75])
            axes.hlines(row, low, high, color=ORANGE, lw=6, alpha=0.8)
            axes.vlines(middle, row - 0.28, row + 0.28, color="#111827", lw=1.8)
            said = f"median {middle:.3f}  n = {len(own)}"
            axes.text(1.01, row, said, transform=axes.get_yaxis_transform(), va="center", size=10)
        axes.set_ylim(len(known) - 0.5, -0.5)
        axes.set_yticks(range(len(known)), [short(wording.label(name), 30) for name in known])
        axes.tick_params(axis="y", length=0)
        axes.spines["left"].set_visible(False)
        axes.set_xlabel(axis)
        axes.grid(axis="x")
        axes.set_title(title)

    return drawn(draw, 8.2, 1.5 + 0.62 * len(known), phantom=phantom)
