"""The figures of a report as SVG bytes: confusion matrix, curves, ROC, calibration, forest.

Matplotlib's object interface is used and pyplot never: no global state, no display, and the same
data give the same bytes.  Text is drawn as outlines, so a figure looks the same on every machine.
Colours are those of Okabe and Ito (2008), which readers with colour-vision deficiency tell apart;
a line style or a marker always repeats what a colour says.
"""

import io
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from mskjax.reporting import wording

BLUE, ORANGE, GREEN, VERMILION = "#0072B2", "#E69F00", "#009E73", "#D55E00"
PURPLE, SKY, YELLOW, GREY = "#CC79A7", "#56B4E9", "#B8A800", "#6B7280"
CYCLE = (BLUE, ORANGE, GREEN, VERMILION, PURPLE, SKY, YELLOW, GREY)

# Any: Matplotlib types these keys as literals since 3.11 and as strings before.
_STYLE: Any = {
    "axes.axisbelow": True,
    "axes.edgecolor": "#4B5563",
    "axes.grid": False,
    "axes.labelsize": 11,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlelocation": "left",
    "axes.titlesize": 12,
    "axes.titleweight": "bold",
    "font.family": "DejaVu Sans",
    "font.size": 11,
    "grid.color": "#E5E7EB",
    "legend.fontsize": 10,
    "legend.frameon": False,
    "svg.fonttype": "path",
    "svg.hashsalt": "mskjax",
    "xtick.labelsize": 10,
    "ytick.labelsize": 10,
}


def confusion_matrix(
    labels: Sequence[str], matrix: Any, title: str, *, phantom: bool = False
) -> bytes:
    """Counts and row percentages, reference standard in rows and prediction in columns.

    Args:
      labels: the C classes in order; the last may be an outcome that only a prediction can have
        (a missed region), which then has a column and no row.
      matrix: (C, C) or (C - 1, C) non-negative counts, ``matrix[reference][predicted]``.
      title: one line above the figure.
      phantom: write PHANTOM across the figure.

    Returns:
      An SVG document.

    Raises:
      ValueError: the matrix has another shape.
    """
    counts = np.asarray(matrix, np.float64)
    size, height = len(labels), len(counts)
    if counts.shape not in ((size, size), (size - 1, size)):
        raise ValueError(f"{size} labels need a {size} x {size} matrix, got {counts.shape}")
    totals = counts.sum(axis=1, keepdims=True)
    shares = np.divide(counts, totals, out=np.zeros_like(counts), where=totals > 0)
    with mpl.rc_context(_STYLE):
        figure = _figure(2.6 + 0.95 * size, 1.9 + 0.8 * height)
        axes = figure.add_subplot()
        axes.imshow(shares, cmap="Blues", vmin=0, vmax=1, aspect="auto")
        for row, column in np.ndindex(height, size):
            _cell(axes, (row, column), counts, shares)
        axes.set_xticks(range(size), [_short(name) for name in labels])
        axes.set_yticks(
            range(height),
            [f"{_short(name)}\n(n = {totals[i, 0]:.0f})" for i, name in enumerate(labels[:height])],
        )
        axes.tick_params(length=0)
        axes.spines[:].set_visible(False)
        axes.set_xlabel("Predicted")
        axes.set_ylabel("Reference standard")
        axes.set_title(title)
        return _svg(figure, phantom)


def _cell(axes: Axes, at: tuple[int, int], counts: np.ndarray, shares: np.ndarray) -> None:
    row, column = at
    percent = f"{100 * shares[at]:.1f} %" if counts[row].any() else "–"
    style: dict[str, Any] = {
        "ha": "center",
        "va": "center",
        "color": "white" if shares[at] > 0.55 else "#111827",
    }
    axes.text(column, row - 0.1, f"{counts[at]:.0f}", size=13, **style)
    axes.text(column, row + 0.18, percent, size=9, **style)


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
    with mpl.rc_context(_STYLE):
        figure = _figure(1.2 + 4.6 * columns, 0.9 + 2.9 * rows_of_panels)
        grid = figure.subplots(rows_of_panels, columns, squeeze=False)
        for axes, (quantity, members) in zip(grid.flat, panels.items(), strict=False):
            _curve_panel(axes, curves, members)
            axes.set_ylabel(wording.metric(quantity))
        for axes in list(grid.flat)[len(panels) :]:
            axes.set_visible(False)
        colours = [
            Line2D([], [], color=CYCLE[i % len(CYCLE)], label=_fold_name(fold))
            for i, fold in enumerate(curves)
        ]
        figure.legend(handles=colours, loc="outside lower center", ncols=min(6, len(colours)))
        figure.suptitle(title, x=0.01, ha="left", weight="bold", size=12)
        return _svg(figure, phantom)


def _curve_panel(
    axes: Axes, curves: Mapping[Any, Sequence[Mapping[str, Any]]], members: Sequence[str]
) -> None:
    styles = {name: "--" if name.startswith("val") else "-" for name in members}
    for index, rows in enumerate(curves.values()):
        for name in members:
            points = [(row["step"], row[name]) for row in rows if _finite(row.get(name))]
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
    """Calibration: observed frequency against mean confidence, with the cases in each bin below.

    Args:
      bins: ``{"confidence": [0, 1], "accuracy": [0, 1], "n": int}``; empty bins are left out.
      title: one line above the figure.
      phantom: write PHANTOM across the figure.

    Returns:
      An SVG document.  The expected calibration error written in it is the mean of
      ``|accuracy - confidence|`` weighted by n (Naeini et al., AAAI 2015).

    Raises:
      ValueError: all bins are empty.
    """
    filled = [b for b in bins if b["n"] and _finite(b["confidence"]) and _finite(b["accuracy"])]
    if not filled:
        raise ValueError("a calibration curve needs at least one bin with cases")
    confidence = np.array([b["confidence"] for b in filled])
    accuracy = np.array([b["accuracy"] for b in filled])
    cases = np.array([b["n"] for b in filled])
    error = np.average(np.abs(accuracy - confidence), weights=cases)
    with mpl.rc_context(_STYLE):
        figure = _figure(5.2, 5.6)
        curve, histogram = figure.subplots(
            2, 1, sharex=True, gridspec_kw={"height_ratios": [3.4, 1]}
        )
        curve.plot([0, 1], [0, 1], ":", color=GREY, lw=1.4, label="perfect calibration")
        curve.plot(confidence, accuracy, "-o", color=BLUE, lw=1.8, ms=6, label="observed")
        curve.vlines(confidence, confidence, accuracy, color=VERMILION, lw=1.2, label="gap")
        curve.set(xlim=(0, 1), ylim=(0, 1), ylabel="Observed frequency")
        curve.grid()
        curve.legend(loc="upper left")
        curve.text(
            0.97, 0.05, f"ECE {error:.3f}\nn = {cases.sum()}", ha="right", transform=curve.transAxes
        )
        curve.set_title(title)
        histogram.bar(confidence, cases, width=0.05, color=SKY, edgecolor=BLUE)
        histogram.yaxis.set_major_locator(MaxNLocator(3, integer=True))
        histogram.set(xlabel="Mean predicted probability", ylabel="Cases")
        return _svg(figure, phantom)


_DASHES: Any = ("-", "--", "-.", ":")
_MARKERS = "oD^vPX*s"


def roc(entries: Sequence[Mapping[str, Any]], title: str, *, phantom: bool = False) -> bytes:
    """Receiver operating characteristics, with readers as single points.

    Args:
      entries: ``{"label": str, "points": [[fpr, tpr], ...], "auroc": estimate | None}`` draws a
        curve through its points in their order; without points it is listed as not defined.
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
    marks = [mark for mark in marks if _finite(mark["fpr"]) and _finite(mark["tpr"])]
    if not marks and not any(len(curve["points"]) for curve in curves):
        raise ValueError("an ROC figure needs at least one point")
    with mpl.rc_context(_STYLE):
        # The square, and below it a line of the legend for each entry.
        figure = _figure(5.6, 6.3 + 0.24 * (len(curves) + len(marks)))
        axes = figure.add_subplot()
        axes.plot([0, 1], [0, 1], color=GREY, lw=1, ls=(0, (1, 3)), label="chance")
        for index, curve in enumerate(curves):
            rates = np.array(curve["points"], np.float64).reshape(-1, 2)
            style = _DASHES[index % len(_DASHES)]
            axes.plot(
                *rates.T, style, color=CYCLE[index % len(CYCLE)], lw=2, label=_curve_name(curve)
            )
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
                label=_short(mark["label"], 46),
            )
        axes.set(xlim=(-0.01, 1.01), ylim=(-0.01, 1.01), aspect="equal")
        axes.set(xlabel="1 − specificity", ylabel="Sensitivity")
        axes.grid()
        axes.set_title(title)
        figure.legend(loc="outside lower center")
        return _svg(figure, phantom)


def _curve_name(curve: Mapping[str, Any]) -> str:
    auroc = curve.get("auroc") or {}
    if not len(curve["points"]):
        text = ", not defined"
    elif auroc.get("value") is None:
        text = ""
    else:
        text = f", AUROC {auroc['value']:.3f}"
        if auroc.get("ci95"):
            text += " ({:.3f} to {:.3f})".format(*auroc["ci95"])
    return _short(curve["label"], 46) + text


# Marker and colour by where a value comes from; the marker alone suffices in a grey print.
_SOURCES = {
    "model": ("s", BLUE, BLUE),
    "baseline": ("D", GREY, GREY),
    "published": ("o", VERMILION, "white"),
}


def forest(
    rows: Sequence[Mapping[str, Any]],
    title: str,
    *,
    line: float | None = None,
    phantom: bool = False,
) -> bytes:
    """Values with their intervals under one another, to compare a model with what stands beside it.

    Args:
      rows: ``{"name": str, "value": float | None, "lo": float | None, "hi": float | None,
        "n": int | None, "source": "model" | "baseline" | "published"}``; ``source`` is
        "model" where absent.  A row without value is listed as not defined.
      title: the metric.
      line: where a vertical line stands, e.g. 0 for differences.
      phantom: write PHANTOM across the figure.

    Returns:
      An SVG document.

    Raises:
      ValueError: there is no row.
    """
    if not rows:
        raise ValueError("a forest plot needs at least one row")
    with mpl.rc_context(_STYLE):
        figure = _figure(9.2, 1.1 + 0.38 * len(rows))
        axes = figure.add_subplot()
        for position, row in enumerate(rows):
            _forest_row(axes, position, row)
        axes.set_ylim(len(rows) - 0.5, -0.5)
        axes.set_xlim(*_forest_limits(rows, line))
        if line is not None:
            axes.axvline(line, color="#111827", lw=1, ls=(0, (4, 3)))
        axes.set_yticks(range(len(rows)), [_short(row["name"], 46) for row in rows])
        axes.tick_params(axis="y", length=0)
        axes.spines["left"].set_visible(False)
        axes.grid(axis="x")
        axes.set_title(title)
        return _svg(figure, phantom)


def _forest_row(axes: Axes, position: int, row: Mapping[str, Any]) -> None:
    marker, colour, face = _SOURCES[row.get("source", "model")]
    value, lo, hi, n = (row.get(key) for key in ("value", "lo", "hi", "n"))
    text = "not defined"
    if value is not None:
        text = _decimals(value)
        if lo is not None and hi is not None:
            axes.hlines(position, lo, hi, color=colour, lw=1.8)
            text += f" ({_decimals(lo)} to {_decimals(hi)})"
        axes.plot(value, position, marker, color=colour, mfc=face, mew=1.6, ms=7)
    if n is not None:
        text += f"  n = {n}"
    axes.text(1.02, position, text, transform=axes.get_yaxis_transform(), va="center", size=10)


def _decimals(value: float) -> str:
    text = f"{value:.3f}"
    return "0.000" if text == "-0.000" else text


def _forest_limits(rows: Iterable[Mapping[str, Any]], line: float | None) -> tuple[float, float]:
    values = [line, *(row.get(key) for row in rows for key in ("value", "lo", "hi"))]
    finite = [value for value in values if value is not None and math.isfinite(value)]
    if not finite:
        return 0.0, 1.0
    margin = 0.06 * (max(finite) - min(finite)) or 0.05
    return min(finite) - margin, max(finite) + margin


def drawn(
    draw: Callable[[Figure], None], width: float, height: float, *, phantom: bool = False
) -> bytes:
    """Whatever `draw` puts on a figure, in the style of a report.

    Args:
      draw: adds axes.
      width: of the figure, inches.
      height: of the figure, inches.
      phantom: write PHANTOM across the figure.

    Returns:
      An SVG document.
    """
    with mpl.rc_context(_STYLE):
        figure = _figure(width, height)
        draw(figure)
        return _svg(figure, phantom)


def _finite(value: Any) -> bool:
    return value is not None and math.isfinite(value)


def _fold_name(fold: Any) -> str:
    name = str(fold).replace("_", " ")
    return name if name.startswith("fold") else f"fold {name}"


def _short(name: str, limit: int = 18) -> str:
    # A dollar sign would start Matplotlib's mathematics.
    name = str(name).replace("$", r"\$")
    return name if len(name) <= limit else name[: limit - 1] + "…"


def _figure(width: float, height: float) -> Figure:
    return Figure(figsize=(width, height), layout="constrained", facecolor="white")


def _svg(figure: Figure, phantom: bool) -> bytes:
    if phantom:
        # In front of everything and across the middle: it cannot be cropped off with a margin.
        figure.text(
            0.5,
            0.5,
            "PHANTOM",
            ha="center",
            va="center",
            rotation=20,
            size=min(13 * figure.get_figwidth() ** 0.7, 20 * figure.get_figheight()),
            weight="bold",
            color=VERMILION,
            alpha=0.16,
            zorder=100,
            in_layout=False,
        )
    buffer = io.BytesIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None})
    return buffer.getvalue()
