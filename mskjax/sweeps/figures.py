"""The figures of a sweep as SVG bytes: its history, the importance of fields, a slice of each."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, NullFormatter

from mskjax.reporting import figures
from mskjax.reporting.figures import BLUE, GREEN, GREY, ORANGE, VERMILION
from mskjax.sweeps import space
from mskjax.sweeps.results import Trial

_COLUMNS = 2


def history(
    trials: Sequence[Trial], figure: str, maximize: bool, *, phantom: bool = False
) -> bytes:
    """Values in the order of the trials, with rough intervals, and the best so far.

    Args:
      trials: at least one of them complete.
      figure: readable name of the objective.
      maximize: whether more is better.
      phantom: write PHANTOM across the figure.

    Returns:
      An SVG document.
    """

    def draw(canvas: Figure) -> None:
        axes = canvas.add_subplot()
        complete = [t for t in trials if t.state == "complete" and t.value is not None]
        for t in complete:
            if t.estimate.get("ci95"):
                axes.vlines(t.number, *t.estimate["ci95"], color=GREY, lw=1, alpha=0.5)
        _points(axes, trials, lambda t: t.number)
        best: list[float] = []
        for t in complete:
            better = max if maximize else min
            best.append(better([*best[-1:], float(t.value or 0.0)]))
        numbers = [t.number for t in complete]
        axes.step(numbers, best, where="post", color=VERMILION, lw=1.6, label="best so far")
        failed = [t.number for t in trials if t.state == "failed"]
        if failed:
            height = axes.get_ylim()[0]
            axes.plot(failed, [height] * len(failed), "x", color=VERMILION, label="failed")
        axes.xaxis.set_major_locator(MaxNLocator(12, integer=True))
        axes.grid(axis="y")
        axes.set_xlabel("Trial")
        axes.set_title(figure)
        canvas.legend(loc="outside lower center", ncols=5)

    return figures.drawn(draw, 9.2, 4.4, phantom=phantom)


def importances(shares: Mapping[str, float], *, phantom: bool = False) -> bytes:
    """Bars of the share of each field; see `results.importance`."""

    def draw(canvas: Figure) -> None:
        axes = canvas.add_subplot()
        ordered = sorted(shares.items(), key=lambda pair: pair[1])
        axes.barh([space.title(k) for k, _ in ordered], [v for _, v in ordered], color=BLUE)
        for row, (_, value) in enumerate(ordered):
            axes.text(value, row, f" {value:.2f}", va="center")
        axes.set_xlim(0, max(1.15 * max(shares.values()), 1e-9))
        axes.set_xlabel("Importance (PED-ANOVA; the shares add up to 1)")

    return figures.drawn(draw, 9.2, 1.2 + 0.42 * len(shares), phantom=phantom)


def slices(
    trials: Sequence[Trial],
    parameters: Mapping[str, space.Parameter],
    figure: str,
    *,
    phantom: bool = False,
) -> bytes:
    """One panel for each field: its value across, the objective up.

    Args:
      trials: of a sweep.
      parameters: dotted field -> what it may be.
      figure: readable name of the objective.
      phantom: write PHANTOM across the figure.

    Returns:
      An SVG document.
    """
    rows = math.ceil(len(parameters) / _COLUMNS)

    def draw(canvas: Figure) -> None:
        grid = canvas.subplots(rows, _COLUMNS, squeeze=False, sharey=True)
        for axes, (name, known) in zip(grid.flat, parameters.items(), strict=False):
            _slice(axes, trials, name, known)
            axes.set_xlabel(space.title(name))
        for axes in list(grid.flat)[len(parameters) :]:
            axes.set_visible(False)
        canvas.suptitle(figure, x=0.01, ha="left", weight="bold", size=12)
        handles, names = grid[0, 0].get_legend_handles_labels()
        canvas.legend(handles, names, loc="outside lower center", ncols=4)

    return figures.drawn(draw, 9.2, 0.8 + 3.0 * rows, phantom=phantom)


def _slice(axes: Axes, trials: Sequence[Trial], name: str, known: space.Parameter) -> None:
    if isinstance(known, space.Choice):
        places = {known.stored(choice): k for k, choice in enumerate(known.choices)}
        axes.set_xticks(range(len(places)), [space.text(c) for c in known.choices])
        axes.set_xlim(-0.5, len(places) - 0.5)
        _points(axes, trials, lambda t: places[known.stored(t.values[name])])
    else:
        if known.log:
            axes.set_xscale("log")
            axes.xaxis.set_minor_formatter(NullFormatter())  # they overlap within a decade
        margin = (known.high / known.low) ** 0.05 if known.log else 0.05 * (known.high - known.low)
        axes.set_xlim(
            *(known.low / margin, known.high * margin)
            if known.log
            else (known.low - margin, known.high + margin)
        )
        _points(axes, trials, lambda t: t.values[name])
    axes.grid(axis="y")


def _points(axes: Axes, trials: Sequence[Trial], across: Any) -> None:
    """Complete trials, pruned ones and the study's own values, told apart by marker and colour."""
    kinds = (
        ("complete", "o", BLUE, [t for t in trials if t.state == "complete" and not t.is_declared]),
        ("study's own values", "*", GREEN, [t for t in trials if t.is_declared]),
        ("pruned", "v", ORANGE, [t for t in trials if t.state == "pruned"]),
    )
    for label, marker, colour, some in kinds:
        points = [(across(t), t.value) for t in some if t.value is not None]
        if points:
            size = 11 if marker == "*" else 6
            axes.plot(*zip(*points, strict=True), marker, color=colour, ms=size, label=label)
