"""Pictures of single cases: the image, the reference standard and the prediction side by side."""

import functools
import io
from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib as mpl
import numpy as np
from PIL import Image, ImageDraw, ImageFont

_PANEL = 400  # longer side of a panel, pixels
_GAP = 10
_MARGIN = 14
_LINE = 22  # height of a line of text, pixels
_FILL = 0.28  # opacity of a structure inside its contour
_WINDOW = (1.0, 99.0)  # percentiles shown as black and white
_INK, _PAPER = (17, 24, 39), (255, 255, 255)

Label = tuple[str, tuple[int, int, int]]


def overlay(
    image: np.ndarray,
    reference: np.ndarray | None,
    predicted: np.ndarray | None,
    spacing: tuple[float, float],
    labels: Mapping[int, Label],
    title: Sequence[str] = (),
    *,
    annotations: Sequence[tuple[float, float, str]] = (),
    phantom: bool = False,
) -> bytes:
    """Draws image | reference standard | prediction with true proportions.

    A structure is a contour with a translucent fill.  The grey window runs from the 1st to the
    99th percentile.  A bar of 20 mm gives the scale.

    Args:
      image: (H, W), any real dtype, row 0 at the top; NaN is shown black.
      reference: (H, W) label mask, 0 background; None leaves its panel out.
      predicted: as ``reference``.
      spacing: pixel pitch along rows (down) and columns (across), mm, positive.
      labels: label -> (name, (red, green, blue) in 0 to 255); other labels are not drawn.
      title: lines above the panels.
      annotations: (row, column, text) in pixels of ``image``, written on the last panel.
      phantom: burn the word PHANTOM into every panel.

    Returns:
      A PNG file.

    Raises:
      ValueError: shapes differ or the spacing is not positive.
    """
    image = np.asarray(image, np.float64)
    if image.ndim != 2:
        raise ValueError(f"a picture shows one slice of shape (H, W), got {image.shape}")
    if min(spacing) <= 0:
        raise ValueError(f"pixel spacing must be positive, got {spacing}")
    masks = [("Reference standard", reference), ("Prediction", predicted)]
    panels = [("Image", np.zeros(image.shape, np.uint8))]
    panels += [(name, np.asarray(mask)) for name, mask in masks if mask is not None]
    for name, mask in panels:
        if mask.shape != image.shape:
            raise ValueError(f"{name.lower()} has shape {mask.shape}, the image {image.shape}")

    size, scale = _panel_size(image.shape, spacing)
    grey = _grey(image, size)
    drawn = [_panel(grey, mask, size, labels) for _, mask in panels]
    _scale_bar(drawn[0], scale)
    to_pixels = (size[1] / image.shape[0], size[0] / image.shape[1])
    for row, column, text in annotations:
        _annotate(drawn[-1], (row + 0.5) * to_pixels[0], (column + 0.5) * to_pixels[1], text)
    if phantom:
        for panel in drawn:
            _burn(panel)
    shown = [label for label in sorted(labels) if any((mask == label).any() for _, mask in panels)]
    sheet = _compose(
        drawn, [name for name, _ in panels], list(title), [labels[label] for label in shown]
    )
    buffer = io.BytesIO()
    sheet.save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


def _panel_size(
    shape: tuple[int, ...], spacing: tuple[float, float]
) -> tuple[tuple[int, int], float]:
    """((width, height) in pixels, pixels per mm) with equal scale along both axes."""
    height_mm, width_mm = shape[0] * spacing[0], shape[1] * spacing[1]
    scale = _PANEL / max(height_mm, width_mm)
    return (max(1, round(width_mm * scale)), max(1, round(height_mm * scale))), scale


def _grey(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """(h, w) float64 in 0 to 255 at panel size."""
    finite = image[np.isfinite(image)]
    low, high = np.percentile(finite, _WINDOW) if finite.size else (0.0, 1.0)
    if high <= low:  # a constant image, or nearly all of it one value
        low, high = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 1.0)
    span = (high - low) or 1.0
    shown = np.nan_to_num(np.clip((image - low) / span, 0, 1), nan=0.0) * 255
    resized = Image.fromarray(shown.astype(np.float32)).resize(size, Image.Resampling.BILINEAR)
    return np.asarray(resized, np.float64)


def _panel(
    grey: np.ndarray, mask: np.ndarray, size: tuple[int, int], labels: Mapping[int, Label]
) -> Image.Image:
    canvas = np.repeat(grey[..., None], 3, axis=2)
    for label, (_, colour) in labels.items():
        inside = Image.fromarray((mask == label).astype(np.uint8) * 255)
        structure = np.asarray(inside.resize(size, Image.Resampling.NEAREST)) > 0
        edge = structure & ~_eroded(structure)
        canvas[structure] = (1 - _FILL) * canvas[structure] + _FILL * np.array(colour)
        canvas[edge] = colour
    return Image.fromarray(canvas.round().astype(np.uint8))


def _eroded(mask: np.ndarray, width: int = 2) -> np.ndarray:
    """Removes ``width`` pixels along the border, the frame of the picture included."""
    for _ in range(width):
        padded = np.pad(mask, 1)
        mask = mask & padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
    return mask


def _scale_bar(panel: Image.Image, scale: float, length_mm: float = 20.0) -> None:
    draw = ImageDraw.Draw(panel)
    length = length_mm * scale
    if length > 0.8 * panel.width:
        return
    right, bottom = panel.width - 12, panel.height - 12
    draw.line([(right - length, bottom), (right, bottom)], fill=_PAPER, width=3)
    draw.text(
        (right, bottom - 6),
        f"{length_mm:.0f} mm",
        fill=_PAPER,
        font=_font(13),
        anchor="rb",
        stroke_width=2,
        stroke_fill=_INK,
    )


def _annotate(panel: Image.Image, y: float, x: float, text: str) -> None:
    draw = ImageDraw.Draw(panel)
    font = _font(13)
    half = draw.textlength(text, font=font) / 2
    # Kept inside the panel: a note half outside cannot be read.
    x = min(max(x, half + 3), max(half + 3, panel.width - half - 3))
    y = min(max(y, 9), panel.height - 9)
    draw.text((x, y), text, fill=_PAPER, font=font, anchor="mm", stroke_width=2, stroke_fill=_INK)


def _burn(panel: Image.Image) -> None:
    draw = ImageDraw.Draw(panel)
    font = _font(max(12, round(0.085 * panel.width)))
    draw.text(
        (10, panel.height - 10),
        "PHANTOM",
        fill=(255, 176, 0),
        font=font,
        anchor="lb",
        stroke_width=2,
        stroke_fill=_INK,
    )


def _compose(
    panels: Sequence[Image.Image],
    names: Sequence[str],
    title: list[str],
    legend: Sequence[Label],
) -> Image.Image:
    height = panels[0].height
    width = sum(panel.width for panel in panels) + _GAP * (len(panels) - 1)
    width = max([width, *(round(_font(15).getlength(line)) for line in title)]) + 2 * _MARGIN
    top = _MARGIN + _LINE * (len(title) + 1)
    below = _MARGIN + (_LINE if legend else 0)
    sheet = Image.new("RGB", (width, top + height + below), _PAPER)
    draw = ImageDraw.Draw(sheet)
    for number, line in enumerate(title):
        draw.text((_MARGIN, _MARGIN - 4 + number * _LINE), line, fill=_INK, font=_font(15))
    x = _MARGIN
    for panel, name in zip(panels, names, strict=True):
        draw.text((x, top - 5), name, fill=(75, 85, 99), font=_font(13), anchor="ls")
        sheet.paste(panel, (x, top))
        x += panel.width + _GAP
    x = _MARGIN
    for name, colour in legend:
        y = top + height + 10
        draw.rectangle((x, y, x + 13, y + 13), fill=colour, outline=_INK)
        draw.text((x + 20, y + 7), name, fill=_INK, font=_font(13), anchor="lm")
        x += 40 + round(draw.textlength(name, font=_font(13)))
    return sheet


@functools.cache
def _font(size: int) -> ImageFont.FreeTypeFont:
    # Matplotlib's copy of DejaVu Sans: the same on every machine, with Greek, Cyrillic and signs.
    return ImageFont.truetype(Path(mpl.get_data_path(), "fonts", "ttf", "DejaVuSans.ttf"), size)
