"""The figures of a report as SVG bytes: style, confusion matrix, forest; see also `curves`.

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
        axes.set_xticks(range(size), [short(name) for name in labels])
        axes.set_yticks(
            range(height),
            [f"{short(name)}\n(n = {totals[i, 0]:.0f})" for i, name in enumerate(labels[:height])],
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


_DASHES: Any = ("-", "--", "-.", ":")
_MARKERS = "oD^vPX*s"


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
        axes.set_yticks(range(len(rows)), [short(row["name"], 46) for row in rows])
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


def finite(value: Any) -> bool:
    """Whether a value can be drawn."""
    return value is not None and math.isfinite(value)


def fold_name(fold: Any) -> str:
    """``fold 0`` of 0 and of ``fold_0``."""
    name = str(fold).replace("_", " ")
    return name if name.startswith("fold") else f"fold {name}"


def short(name: str, limit: int = 18) -> str:
    """A name that fits, without a sign that Matplotlib would take for mathematics."""
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
