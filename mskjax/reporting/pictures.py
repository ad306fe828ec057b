"""Pictures of single cases: panels beside one another, each an image with what lies on it."""

import dataclasses
import functools
import io
from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib as mpl
import numpy as np
from PIL import Image, ImageDraw, ImageFont

_PANEL = 400  # longer side of a panel, pixels; less where more than three share the width
_WIDTH = 1300
_GAP = 10
_MARGIN = 14
_LINE = 22  # height of a line of text, pixels
_FILL = 0.28  # opacity of a structure inside its contour
_HEAT = 0.65  # opacity where attention is greatest
_WINDOW = (1.0, 99.0)  # percentiles shown as black and white
_INK, _PAPER, _SOFT = (17, 24, 39), (255, 255, 255), (75, 85, 99)
_SWATCH, _RAMP = 13, 60  # width of a legend's colours, pixels

Colour = tuple[int, int, int]  # red, green, blue in 0 to 255
Label = tuple[str, Colour]
Note = tuple[float, float, str]  # row, column, text
Box = tuple[float, float, float, float, Colour, str]  # row0, col0, row1, col1, colour, text
_Rectangle = tuple[float, float, float, float]  # left, top, right, bottom, pixels of a panel


@dataclasses.dataclass(frozen=True, eq=False)
class Panel:
    """One image of a picture and what is drawn on it.

    Attributes:
      name: stands above the panel.
      image: (H, W), any real dtype, row 0 at the top; NaN is shown black.
      spacing: pixel pitch along rows (down) and columns (across), mm, positive; where lengths
        are not known, in any unit.
      mask: (H, W) label mask, 0 background; each structure is a contour with a translucent fill,
        or a contour alone where there is attention to be seen through it.
      heat: (h, w) attention in [0, 1], NaN as 0; it covers the whole image, whatever its own size,
        in warm colours that grow lighter and more opaque with attention.
      scale: what it shows, for the legend.
      boxes: (row0, col0, row1, col1, colour, text) in pixels of the image; like a slice, a box
        ends before row1 and col1.
      annotations: (row, column, text) in pixels of the image.
      letters: of the patient's directions at the top, the bottom, the left and the right edge, see
        `imaging.planes.edge_letters`; none where they are not known.
    """

    name: str
    image: np.ndarray
    spacing: tuple[float, float]
    mask: np.ndarray | None = None
    heat: np.ndarray | None = None
    scale: str = "attention"
    boxes: tuple[Box, ...] = ()
    annotations: tuple[Note, ...] = ()
    letters: tuple[str, ...] = ()


def captioned(picture: bytes, lines: Sequence[str]) -> bytes:
    """A PNG with lines of text below it.

    Args:
      picture: a PNG, e.g. of `sheet`.
      lines: of text; the picture is widened where one is longer.
    """
    above = Image.open(io.BytesIO(picture)).convert("RGB")
    font = _font(15)
    width = max(above.width, *(round(font.getlength(line)) + 2 * _MARGIN for line in lines))
    whole = Image.new("RGB", (width, above.height + _LINE * len(lines) + _MARGIN), _PAPER)
    whole.paste(above, (0, 0))
    draw = ImageDraw.Draw(whole)
    for number, line in enumerate(lines):
        draw.text((_MARGIN, above.height + number * _LINE), line, fill=_INK, font=font)
    buffer = io.BytesIO()
    whole.save(buffer, "PNG", compress_level=3)
    return buffer.getvalue()


def sheet(
    panels: Sequence[Panel],
    title: Sequence[str] = (),
    *,
    labels: Mapping[int, Label] | None = None,
    phantom: bool = False,
    scale_bar: bool = True,
) -> bytes:
    """Draws panels side by side with true proportions.

    Panels may show different images; the longer sides of all are equally long, and each has its own
    grey window, from the 1st to the 99th percentile.

    Args:
      panels: at least one, from left to right.
      title: lines above the panels.
      labels: label -> (name, colour) of the structures in masks; other labels are not drawn.
      phantom: burn the word PHANTOM into every panel.
      scale_bar: draw 20 mm into the first panel; False where the pixel size is not known.

    Returns:
      A PNG file.

    Raises:
      ValueError: there is no panel, or the arrays or the spacing of one are not as `Panel` says.
    """
    if not panels:
        raise ValueError("a picture needs at least one panel")
    labels = labels or {}
    images = [_checked(panel) for panel in panels]
    drawn: list[Image.Image] = []
    for panel, image in zip(panels, images, strict=True):
        size, scale = _panel_size(image.shape, panel.spacing, min(_PANEL, _WIDTH // len(panels)))
        canvas = _canvas(panel, image, size, labels)
        _boxes(canvas, panel.boxes, image.shape)
        if scale_bar and not drawn:
            _scale_bar(canvas, scale)
        for row, column, text in panel.annotations:
            y, x = _to_canvas((row + 0.5, column + 0.5), image.shape, canvas)
            _annotate(canvas, y, x, text)
        if panel.letters:
            _directions(canvas, panel.letters)
        if phantom:
            _burn(canvas)
        drawn.append(canvas)
    masks = [np.asarray(panel.mask) for panel in panels if panel.mask is not None]
    shown = [label for label in sorted(labels) if any((mask == label).any() for mask in masks)]
    heated = [panel for panel in panels if panel.heat is not None]
    picture = _compose(
        drawn,
        [panel.name for panel in panels],
        list(title),
        [
            *((labels[label][0], _swatch(labels[label][1])) for label in shown),
            *((scale, _ramp()) for scale in dict.fromkeys(panel.scale for panel in heated)),
        ],
    )
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", compress_level=3)  # above, time without gain: noise
    return buffer.getvalue()


def overlay(
    image: np.ndarray,
    reference: np.ndarray | None,
    predicted: np.ndarray | None,
    spacing: tuple[float, float],
    labels: Mapping[int, Label],
    title: Sequence[str] = (),
    *,
    annotations: Sequence[Note] = (),
    further: Sequence[Panel] = (),
    letters: tuple[str, ...] = (),
    phantom: bool = False,
    scale_bar: bool = True,
) -> bytes:
    """Draws image | reference standard | prediction: the `sheet` of a segmentation.

    Args:
      image: (H, W), see `Panel`.
      reference: (H, W) label mask, 0 background; None leaves its panel out.
      predicted: as ``reference``.
      spacing: pixel pitch along rows (down) and columns (across), mm, positive.
      labels: label -> (name, colour); other labels are not drawn.
      title: lines above the panels.
      annotations: (row, column, text) in pixels of ``image``, written on the last of these panels.
      further: panels that follow.
      letters: see `Panel`.
      phantom: burn the word PHANTOM into every panel.
      scale_bar: as in `sheet`.

    Returns:
      A PNG file.

    Raises:
      ValueError: shapes differ or the spacing is not positive.
    """
    masks = [("Reference standard", reference), ("Prediction", predicted)]
    panels = [Panel("Image", image, spacing, letters=letters)]
    panels += [
        Panel(name, image, spacing, mask, letters=letters)
        for name, mask in masks
        if mask is not None
    ]
    panels[-1] = dataclasses.replace(panels[-1], annotations=tuple(annotations))
    return sheet([*panels, *further], title, labels=labels, phantom=phantom, scale_bar=scale_bar)


def _checked(panel: Panel) -> np.ndarray:
    """The image as float64."""
    image = np.asarray(panel.image, np.float64)
    name = panel.name.lower()
    if image.ndim != 2 or not image.size:
        raise ValueError(f"a picture shows one slice of shape (H, W), got {image.shape}")
    if min(panel.spacing) <= 0:
        raise ValueError(f"pixel spacing must be positive, got {panel.spacing}")
    if panel.mask is not None and np.shape(panel.mask) != image.shape:
        raise ValueError(f"{name} has shape {np.shape(panel.mask)}, the image {image.shape}")
    if panel.heat is not None:
        heat = np.asarray(panel.heat, np.float64)
        if heat.ndim != 2 or not heat.size:
            raise ValueError(f"the attention of {name} must have shape (h, w), got {heat.shape}")
        finite = heat[~np.isnan(heat)]
        if finite.size and (finite.min() < 0 or finite.max() > 1):
            raise ValueError(
                f"the attention of {name} must lie in [0, 1], got {finite.min()} to {finite.max()}"
            )
    return image


def _panel_size(
    shape: tuple[int, ...], spacing: tuple[float, float], side: int
) -> tuple[tuple[int, int], float]:
    """((width, height) in pixels, pixels per mm) with equal scale along both axes."""
    height_mm, width_mm = shape[0] * spacing[0], shape[1] * spacing[1]
    scale = side / max(height_mm, width_mm)
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


def _canvas(
    panel: Panel, image: np.ndarray, size: tuple[int, int], labels: Mapping[int, Label]
) -> Image.Image:
    """Image, attention and structures at panel size."""
    canvas = np.repeat(_grey(image, size)[..., None], 3, axis=2)
    fill = _FILL
    if panel.heat is not None:
        heat = Image.fromarray(np.nan_to_num(np.asarray(panel.heat, np.float32)))
        heat_shown = np.asarray(heat.resize(size, Image.Resampling.BILINEAR))
        opacity = _HEAT * heat_shown[..., None]
        canvas = (1 - opacity) * canvas + opacity * _warm(heat_shown)
        fill = 0.0
    mask = np.zeros(image.shape, np.uint8) if panel.mask is None else np.asarray(panel.mask)
    for label, (_, colour) in labels.items():
        inside = Image.fromarray((mask == label).astype(np.uint8) * 255)
        structure = np.asarray(inside.resize(size, Image.Resampling.NEAREST)) > 0
        edge = structure & ~_eroded(structure)
        canvas[structure] = (1 - fill) * canvas[structure] + fill * np.array(colour)
        canvas[edge] = colour
    return Image.fromarray(canvas.round().astype(np.uint8))


def _warm(heat: np.ndarray) -> np.ndarray:
    """Colours (..., 3) in 0 to 255 of values in [0, 1], from dark red to light orange.

    The middle of Matplotlib's inferno: its lightness rises evenly, so the order of values
    survives a grey print and colour-vision deficiency.
    """
    return mpl.colormaps["inferno"](0.4 + 0.45 * heat)[..., :3] * 255


def _to_canvas(
    at: tuple[float, float], shape: tuple[int, ...], canvas: Image.Image
) -> tuple[float, float]:
    """(y, x) on a panel of (row, column) in an image; 0 is the outer edge of the first pixel."""
    return at[0] * (canvas.height / shape[0]), at[1] * (canvas.width / shape[1])


def _boxes(canvas: Image.Image, boxes: Sequence[Box], shape: tuple[int, ...]) -> None:
    draw = ImageDraw.Draw(canvas)
    corners = [_corners(box, shape, canvas) for box in boxes]
    for place, box in zip(corners, boxes, strict=True):
        draw.rectangle(place, outline=box[4], width=2)
    taken: list[_Rectangle] = []
    for place, (*_, colour, text) in zip(corners, boxes, strict=True):
        if text:
            taken.append(_box_text(draw, place, text, colour, taken, corners))


def _corners(box: Box, shape: tuple[int, ...], canvas: Image.Image) -> _Rectangle:
    """Left, top, right, bottom pixel of a box; a side beyond the image lies on its border."""
    top, left = _to_canvas((box[0], box[1]), shape, canvas)
    bottom, right = _to_canvas((box[2], box[3]), shape, canvas)
    left, right = (round(min(max(x, 0), canvas.width - 1)) for x in (left, right - 1))
    top, bottom = (round(min(max(y, 0), canvas.height - 1)) for y in (top, bottom - 1))
    return left, top, max(left, right), max(top, bottom)


def _box_text(
    draw: ImageDraw.ImageDraw,
    corners: _Rectangle,
    text: str,
    colour: Colour,
    taken: Sequence[_Rectangle],
    boxes: Sequence[_Rectangle],
) -> _Rectangle:
    """Writes where nothing is hidden: above, left, right or below of the box, else in it.

    A place that hides part of a box is better than one that hides a text.

    Returns:
      What the text covers.
    """
    left, top, right, bottom = corners
    width, height = round(draw.textlength(text, font=_font(13))) + 6, 17
    across = max(0, min(left, draw.im.size[0] - width))
    middle = (top + bottom + 1 - height) // 2
    places = [
        (x, y, x + width, y + height)
        for x, y in (
            (across, top - height),
            (left - width, middle),
            (right + 1, middle),
            (across, bottom + 1),
            (across, top + 2),
        )
    ]
    on_canvas = [
        p for p in places if min(p[:2]) >= 0 and p[2] <= draw.im.size[0] and p[3] <= draw.im.size[1]
    ]
    legible = [p for p in on_canvas if not any(_overlap(p, t) for t in taken)]
    clear = [p for p in legible if not any(_overlap(p, b) for b in boxes)]
    x, y, *_ = place = [*clear, *legible, places[-1]][0]
    draw.rectangle((x, y, x + width - 1, y + height - 1), fill=colour)
    dark = np.dot(colour, (0.2126, 0.7152, 0.0722)) < 128
    ink = _PAPER if dark else _INK
    draw.text((x + 3, y + height / 2), text, fill=ink, font=_font(13), anchor="lm")
    return place


def _overlap(a: _Rectangle, b: _Rectangle) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


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


def _directions(panel: Image.Image, letters: Sequence[str]) -> None:
    """Letters at the edges, beside their middles: what is looked at lies in the middle."""
    width, height = panel.size
    across, down = width // 5, height // 2
    places = ((across, 12), (across, height - 40), (12, down), (width - 12, down))
    for (x, y), text in zip(places, letters, strict=True):
        _annotate(panel, y, x, text)


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


def _swatch(colour: Colour) -> Image.Image:
    return Image.new("RGB", (_SWATCH - 1, _SWATCH - 1), colour)


def _ramp() -> Image.Image:
    """The colours of attention on mid-grey, from none to greatest."""
    heat = np.tile(np.linspace(0, 1, _RAMP - 1), (_SWATCH - 1, 1))
    opacity = _HEAT * heat[..., None]
    colours = (1 - opacity) * 127 + opacity * _warm(heat)
    return Image.fromarray(colours.round().astype(np.uint8))


def _compose(
    panels: Sequence[Image.Image],
    names: Sequence[str],
    title: list[str],
    legend: Sequence[tuple[str, Image.Image]],
) -> Image.Image:
    small, large = _font(13), _font(15)
    # A narrow panel still has room for its name.
    places = [
        max(panel.width, round(small.getlength(name)))
        for panel, name in zip(panels, names, strict=True)
    ]
    entries = [swatch.width + 28 + round(small.getlength(name)) for name, swatch in legend]
    lines = [round(large.getlength(line)) for line in title]
    width = max([sum(places) + _GAP * (len(panels) - 1), sum(entries), *lines]) + 2 * _MARGIN
    height = max(panel.height for panel in panels)
    top = _MARGIN + _LINE * (len(title) + 1)
    below = _MARGIN + (_LINE if legend else 0)
    picture = Image.new("RGB", (width, top + height + below), _PAPER)
    draw = ImageDraw.Draw(picture)
    for number, line in enumerate(title):
        draw.text((_MARGIN, _MARGIN - 4 + number * _LINE), line, fill=_INK, font=large)
    x = _MARGIN
    for panel, name, place in zip(panels, names, places, strict=True):
        draw.text((x, top - 5), name, fill=_SOFT, font=small, anchor="ls")
        picture.paste(panel, (x, top))
        x += place + _GAP
    x, y = _MARGIN, top + height + 10
    for (name, swatch), entry in zip(legend, entries, strict=True):
        draw.rectangle((x, y, x + swatch.width + 1, y + swatch.height + 1), outline=_INK)
        picture.paste(swatch, (x + 1, y + 1))
        draw.text((x + swatch.width + 8, y + 7), name, fill=_INK, font=small, anchor="lm")
        x += entry
    return picture


@functools.cache
def _font(size: int) -> ImageFont.FreeTypeFont:
    # Matplotlib's copy of DejaVu Sans: the same on every machine, with Greek, Cyrillic and signs.
    return ImageFont.truetype(Path(mpl.get_data_path(), "fonts", "ttf", "DejaVuSans.ttf"), size)
