"""Curves of a report as SVG bytes: learning, calibration, ROC, precision-recall; see `figures`."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from mskjax.reporting import wording
from mskjax.reporting.figures import (
    BLUE,
    CYCLE,
    GREY,
    SKY,
    drawn,
    finite,
    fold_name,
    short,
)

_DASHES: Any = ("-", "--", "-.", ":")
_MARKERS = "oD^vPX*s"


def learning_curves(
    curves: Mapping[Any, Sequence[Mapping[str, Any]]], title: str, *, phantom: bool = False
) -> bytes:
    """One panel for each quantity: training solid, validation dashed, folds in colours.

    Args:
      curves: fold -> rows ``{"step": int, "train_loss": float, "validation_loss": float, ...}``;
        ``train_x`` and ``validation_x`` share the panel x, and losses come first.  A row may
        lack a quantity, or hold None or NaN: that point is left out.
      title: one line above the figure.
      phantom: write PHANTOM across the figure.

    Returns:
      An SVG document.

    Raises:
      ValueError: no row holds a quantity to draw.
    """
    names = {name for rows in curves.values() for row in rows for name in row} - {"step"}
    panels: dict[str, list[str]] = {}
    for name in sorted(names, key=lambda n: ("loss" not in n, _quantity(n), n)):
        panels.setdefault(_quantity(name), []).append(name)
    if not panels:
        raise ValueError("learning curves hold no quantity beside the step")
    columns = min(2, len(panels))
    rows_of_panels = math.ceil(len(panels) / columns)

    def draw(figure: Figure) -> None:
        grid = figure.subplots(rows_of_panels, columns, squeeze=False)
        for axes, (quantity, members) in zip(grid.flat, panels.items(), strict=False):
            _curve_panel(axes, curves, members)
            axes.set_ylabel(wording.metric(quantity))
        for axes in list(grid.flat)[len(panels) :]:
            axes.set_visible(False)
        colours = [
            Line2D([], [], color=CYCLE[i % len(CYCLE)], label=fold_name(fold))
            for i, fold in enumerate(curves)
        ]
        figure.legend(handles=colours, loc="outside lower center", ncols=min(6, len(colours)))
        figure.suptitle(title, x=0.01, ha="left", weight="bold", size=12)

    return drawn(draw, 1.2 + 4.6 * columns, 0.9 + 2.9 * rows_of_panels, phantom=phantom)


def _curve_panel(
    axes: Axes, curves: Mapping[Any, Sequence[Mapping[str, Any]]], members: Sequence[str]
) -> None:
    styles = {name: "--" if name.startswith("val") else "-" for name in members}
    for index, rows in enumerate(curves.values()):
        for name in members:
            points = [(row["step"], row[name]) for row in rows if finite(row.get(name))]
            if not points:
                continue
            steps, values = zip(*points, strict=True)
            # A single point has no line to see.
            marker = "o" if len(points) == 1 else None
            axes.plot(
                steps,
                values,
                styles[name],
                color=CYCLE[index % len(CYCLE)],
                lw=1.6,
                marker=marker,
                ms=4,
            )
    axes.grid(axis="y")
    axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    axes.set_xlabel("Step")
    if len(members) > 1:
        axes.legend(
            handles=[
                Line2D([], [], color="#111827", ls=styles[name], label=name.split("_")[0])
                for name in members
            ]
        )


def _quantity(name: str) -> str:
    """``train_loss`` and ``validation_loss`` are the quantity ``loss``."""
    prefix, _, rest = name.partition("_")
    return rest if rest and prefix in ("train", "validation") else name


def reliability(bins: Sequence[Mapping[str, Any]], title: str, *, phantom: bool = False) -> bytes:
    """Calibration: share of right calls against mean confidence, with the cases of each bin below.

    Args:
      bins: ``{"confidence": [0, 1], "accuracy": [0, 1], "n": int, "ci95": [low, high] | None}``;
        empty bins are left out.
      title: one line above the figure.
      phantom: write PHANTOM across the figure.

    Returns:
      An SVG document.  The expected calibration error written in it is `calibration_error`.

    Raises:
      ValueError: all bins are empty.
    """
    filled = _filled(bins)
    if not filled:
        raise ValueError("a calibration curve needs at least one bin with cases")
    confidence = np.array([b["confidence"] for b in filled])
    accuracy = np.array([b["accuracy"] for b in filled])
    cases = np.array([b["n"] for b in filled])

    def draw(figure: Figure) -> None:
        curve, histogram = figure.subplots(
            2, 1, sharex=True, gridspec_kw={"height_ratios": [3.4, 1]}
        )
        curve.plot([0, 1], [0, 1], ":", color=GREY, lw=1.4, label="perfect calibration")
        for own in filled:
            if own.get("ci95"):
                curve.vlines(own["confidence"], *own["ci95"], color=BLUE, lw=1.2, alpha=0.6)
        curve.plot(confidence, accuracy, "-o", color=BLUE, lw=1.8, ms=6, label="observed")
        curve.set(xlim=(0, 1), ylim=(0, 1), ylabel="Share of right calls")
        curve.grid()
        curve.legend(loc="upper left")
        for own in filled:
            curve.annotate(
                str(own["n"]),
                (own["confidence"], own["accuracy"]),
                (4, -11),
                textcoords="offset points",
                size=8,
                color="#374151",
            )
        said = f"ECE {calibration_error(bins):.3f}\nn = {cases.sum()}"
        curve.text(0.97, 0.05, said, ha="right", transform=curve.transAxes)
        curve.set_title(title)
        histogram.bar(confidence, cases, width=0.05, color=SKY, edgecolor=BLUE)
        histogram.yaxis.set_major_locator(MaxNLocator(3, integer=True))
        histogram.set(xlabel="Mean probability of the likeliest class", ylabel="Cases")

    return drawn(draw, 5.2, 5.6, phantom=phantom)


def calibration_error(bins: Sequence[Mapping[str, Any]]) -> float:
    """Mean of ``|accuracy - confidence|`` over bins weighted by n (Naeini et al., AAAI 2015)."""
    filled = _filled(bins)
    gaps = [abs(b["accuracy"] - b["confidence"]) for b in filled]
    return float(np.average(gaps, weights=[b["n"] for b in filled]))


def _filled(bins: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    return [b for b in bins if b["n"] and finite(b["confidence"]) and finite(b["accuracy"])]


def roc(entries: Sequence[Mapping[str, Any]], title: str, *, phantom: bool = False) -> bytes:
    """Receiver operating characteristics with their bands, and readers as single points.

    Args:
      entries: ``{"label": str, "points": [[fpr, tpr], ...], "band": [[fpr, low, high], ...],
        "auroc": estimate | None}`` draws a curve through its points in their order; without points
        it is listed as not defined, without a band there is none.
        ``{"operating": [{"label": str, "fpr": float, "tpr": float}, ...]}``, alone or in a curve's
        entry, draws single points.  All rates are in [0, 1].
      title: one line above the figure.
      phantom: write PHANTOM across the figure.

    Returns:
      An SVG document.

    Raises:
      ValueError: there is nothing to draw.
    """
    curves = [entry for entry in entries if "points" in entry]
    marks = [mark for entry in entries for mark in entry.get("operating") or ()]
    marks = [mark for mark in marks if finite(mark["fpr"]) and finite(mark["tpr"])]
    if not marks and not any(len(curve["points"]) for curve in curves):
        raise ValueError("an ROC figure needs at least one point")

    def draw(figure: Figure) -> None:
        axes = figure.add_subplot()
        axes.plot([0, 1], [0, 1], color=GREY, lw=1, ls=(0, (1, 3)), label="chance")
        _draw_curves(axes, curves, "AUROC", "auroc")
        for index, mark in enumerate(marks, len(curves)):
            axes.plot(
                mark["fpr"],
                mark["tpr"],
                _MARKERS[index % len(_MARKERS)],
                color=CYCLE[index % len(CYCLE)],
                mec="#111827",
                ms=9,
                ls="none",
                clip_on=False,  # a perfect reader stands in the corner
                zorder=3,
                label=short(mark["label"], 46),
            )
        _in_a_square(axes, "1 − specificity", "Sensitivity", title)
        figure.legend(loc="outside lower center")

    # The square, and below it a line of the legend for each entry.
    return drawn(draw, 5.6, 6.3 + 0.24 * (len(curves) + len(marks)), phantom=phantom)


def precision_recall(
    entries: Sequence[Mapping[str, Any]], title: str, *, phantom: bool = False
) -> bytes:
    """Precision against recall with bands, and the share of positive cases, which is chance.

    Args:
      entries: ``{"label": str, "points": [[recall, precision], ...], "band": [[recall, low, high],
        ...], "average_precision": estimate | None, "prevalence": float}``.
      title: one line above the figure.
      phantom: write PHANTOM across the figure.

    Returns:
      An SVG document.

    Raises:
      ValueError: no entry has points.
    """
    if not any(len(entry["points"]) for entry in entries):
        raise ValueError("a precision-recall figure needs at least one point")

    def draw(figure: Figure) -> None:
        axes = figure.add_subplot()
        _draw_curves(axes, entries, "AP", "average_precision", steps=True)
        for level in sorted({entry["prevalence"] for entry in entries}):
            axes.axhline(level, color=GREY, lw=1, ls=(0, (1, 3)))
        axes.plot([], [], color=GREY, lw=1, ls=(0, (1, 3)), label="chance: share of positive cases")
        _in_a_square(axes, "Recall (sensitivity)", "Precision (PPV)", title)
        figure.legend(loc="outside lower center")

    return drawn(draw, 5.6, 6.3 + 0.24 * len(entries), phantom=phantom)


def _draw_curves(
    axes: Axes, curves: Sequence[Mapping[str, Any]], area: str, key: str, *, steps: bool = False
) -> None:
    for index, curve in enumerate(curves):
        colour = CYCLE[index % len(CYCLE)]
        rates = np.array(curve["points"], np.float64).reshape(-1, 2)
        if band := curve.get("band"):
            x, low, high = np.array(band).T
            axes.fill_between(x, low, high, color=colour, alpha=0.13, lw=0)
        axes.plot(
            *rates.T,
            _DASHES[index % len(_DASHES)],
            color=colour,
            lw=2,
            drawstyle="steps-pre" if steps else "default",
            label=_curve_name(curve, area, key),
        )


def _in_a_square(axes: Axes, x: str, y: str, title: str) -> None:
    axes.set(xlim=(-0.01, 1.01), ylim=(-0.01, 1.01), aspect="equal", xlabel=x, ylabel=y)
    axes.grid()
    axes.set_title(title)


def _curve_name(curve: Mapping[str, Any], area: str, key: str) -> str:
    figure = curve.get(key) or {}
    if not len(curve["points"]):
        text = ", not defined"
    elif figure.get("value") is None:
        text = ""
    else:
        text = f", {area} {figure['value']:.3f}"
        if figure.get("ci95"):
            text += " ({:.3f} to {:.3f})".format(*figure["ci95"])
    return short(curve["label"], 46) + text
