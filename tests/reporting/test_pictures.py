import io

import numpy as np
import pytest
from PIL import Image

from mskjax.reporting.pictures import Panel, captioned, overlay, sheet

LABELS = {1: ("vertebra", (86, 180, 233)), 2: ("disc", (230, 159, 0))}
DISC = np.array(LABELS[2][1])
PANEL, MARGIN, GAP, LINE = 400, 14, 10, 22  # frame of a picture, as drawn


def square(rows: int, columns: int, at: slice) -> np.ndarray:
    mask = np.zeros((rows, columns), np.uint8)
    mask[at, at] = 2
    return mask


def pixels(png: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(png)).convert("RGB")).astype(int)


def panels(picture: np.ndarray, number: int) -> list[np.ndarray]:
    width = (picture.shape[1] - 2 * MARGIN - (number - 1) * GAP) // number
    starts = [MARGIN + i * (width + GAP) for i in range(number)]
    return [picture[MARGIN + LINE : MARGIN + LINE + PANEL, x : x + width] for x in starts]


def test_masks_are_drawn_where_they_lie_in_their_own_panels():
    image = np.tile(np.arange(40.0), (40, 1))
    reference, predicted = square(40, 40, slice(5, 15)), square(40, 40, slice(20, 35))
    drawn = pixels(overlay(image, reference, predicted, (1.0, 1.0), LABELS))
    scale = PANEL / 40
    for panel, mask in zip(panels(drawn, 3)[1:], (reference, predicted), strict=True):
        contour = np.argwhere((panel == DISC).all(axis=2))
        rows = np.argwhere(mask)[:, 0]
        assert contour.min(axis=0) == pytest.approx([rows.min() * scale] * 2, abs=2)
        assert contour.max(axis=0) == pytest.approx([(rows.max() + 1) * scale] * 2, abs=2)
    assert not (panels(drawn, 3)[0] == DISC).all(axis=2).any()


def test_a_picture_has_the_proportions_of_the_patient():
    # 20 x 60 pixels of 3 x 1 mm cover a square of 60 mm.
    drawn = pixels(overlay(np.random.default_rng(0).random((20, 60)), None, None, (3, 1), LABELS))
    assert drawn.shape[1] == PANEL + 2 * MARGIN


def test_window_ignores_outliers_and_survives_flat_and_missing_values():
    image = np.tile(np.linspace(0, 1, 50), (50, 1))
    image[25, 25] = 1e6
    grey = panels(pixels(overlay(image, None, None, (1, 1), LABELS)), 1)[0][..., 0]
    assert grey[100, 5] < 20
    assert grey[100, -6] > 230
    flat = panels(pixels(overlay(np.full((9, 9), 7.0), None, None, (1, 1), LABELS)), 1)[0]
    assert flat[:250].max() == 0
    empty = panels(pixels(overlay(np.full((9, 9), np.nan), None, None, (1, 1), LABELS)), 1)[0]
    assert empty[:250].max() == 0


def test_phantom_is_burnt_into_every_panel():
    image, mask = np.zeros((30, 30)), np.zeros((30, 30), np.uint8)
    plain = panels(pixels(overlay(image, mask, mask, (1, 1), LABELS)), 3)
    burnt = panels(pixels(overlay(image, mask, mask, (1, 1), LABELS, phantom=True)), 3)
    for before, after in zip(plain, burnt, strict=True):
        changed = np.argwhere((before != after).any(axis=2))
        assert np.ptp(changed[:, 1]) > 0.3 * after.shape[1]


def test_a_note_stays_inside_the_last_panel():
    image, mask = np.zeros((30, 30)), np.zeros((30, 30), np.uint8)
    note = [(0.0, 29.0, "L1 ref III pred IV")]
    plain = pixels(overlay(image, mask, mask, (1, 1), LABELS))
    noted = pixels(overlay(image, mask, mask, (1, 1), LABELS, annotations=note))
    changed = np.argwhere((plain != noted).any(axis=2))
    assert len(changed) > 100
    left = MARGIN + 2 * (PANEL + GAP)
    assert changed[:, 1].min() >= left
    assert changed[:, 1].max() < left + PANEL - 1  # not cut at the edge


def test_long_titles_widen_the_picture():
    narrow = pixels(overlay(np.zeros((9, 3)), None, None, (1, 1), LABELS))
    wide = pixels(overlay(np.zeros((9, 3)), None, None, (1, 1), LABELS, ["a long title " * 9]))
    assert wide.shape[1] > narrow.shape[1]
    assert (wide[:, -5:] == 255).all()


def frames(picture: np.ndarray, sizes: list[tuple[int, int]]) -> list[np.ndarray]:
    """Panels of given (height, width)."""
    shown, x = [], MARGIN
    for height, width in sizes:
        shown.append(picture[MARGIN + LINE : MARGIN + LINE + height, x : x + width])
        x += width + GAP
    return shown


def colourful(panel: np.ndarray) -> np.ndarray:
    return np.ptp(panel, axis=2)


def test_an_overlay_is_the_sheet_of_its_panels():
    image = np.random.default_rng(0).random((20, 30))
    reference, predicted = square(20, 30, slice(2, 9)), square(20, 30, slice(4, 12))
    notes = ((4.0, 20.0, "IV"),)
    ours = overlay(image, reference, predicted, (1, 1), LABELS, ["t"], annotations=notes)
    same = sheet(
        [
            Panel("Image", image, (1, 1)),
            Panel("Reference standard", image, (1, 1), reference),
            Panel("Prediction", image, (1, 1), predicted, annotations=notes),
        ],
        ["t"],
        labels=LABELS,
    )
    assert ours == same


def test_attention_is_warm_where_it_lies_and_grey_elsewhere():
    image = np.tile(np.linspace(0, 1, 40), (40, 1))
    heat = np.zeros((8, 8), np.float16)
    heat[1:3, 5:7] = 1.0
    heat[6, 1] = 0.4
    heat[7, 7] = np.nan
    png = sheet([Panel("Image", image, (1, 1)), Panel("Grad-CAM", image, (1, 1), heat=heat)])
    plain, warm = frames(pixels(png), [(PANEL, PANEL)] * 2)
    at = colourful(warm)
    cell = PANEL // 8
    # Bilinear resizing carries attention half a cell beyond its own, and no farther.
    outside = np.ones((PANEL, PANEL), bool)
    outside[cell // 2 : 3 * cell + cell // 2, 4 * cell + cell // 2 : 7 * cell + cell // 2] = False
    outside[5 * cell + cell // 2 :, : 2 * cell + cell // 2] = False
    np.testing.assert_array_equal(
        warm[outside & (np.arange(PANEL)[:, None] < 360)],
        plain[outside & (np.arange(PANEL)[:, None] < 360)],
    )
    hottest = np.argwhere(at > at.max() - 40).mean(axis=0)
    assert hottest == pytest.approx([2 * cell, 6 * cell], abs=cell / 2)
    red, _, blue = warm[2 * cell, 6 * cell]
    assert red > blue + 80
    assert 0 < at[6 * cell + cell // 2, cell + cell // 2] < at.max()


def lightness(colours: np.ndarray) -> np.ndarray:
    return colours @ [0.2126, 0.7152, 0.0722]


def test_more_attention_is_lighter_and_its_legend_is_drawn():
    ramp = np.linspace(0, 1, 64)[None, :]
    black = np.zeros((10, 64))
    with_heat = pixels(sheet([Panel("a", black, (1, 1), heat=ramp)]))
    without = pixels(sheet([Panel("a", black, (1, 1))]))
    panel = with_heat[MARGIN + LINE + 5, MARGIN : MARGIN + PANEL]
    assert (np.diff(lightness(panel)[4:-4]) >= -1).all()
    assert lightness(panel)[-5] > lightness(panel)[5] + 60
    assert with_heat.shape[0] == without.shape[0] + LINE
    assert colourful(with_heat[without.shape[0] :]).max() > 60


def test_a_structure_on_attention_is_a_contour_without_fill():
    image, mask = np.zeros((40, 40)), square(40, 40, slice(10, 30))
    still = np.zeros((4, 4))
    (filled,) = frames(
        pixels(sheet([Panel("a", image, (1, 1), mask)], labels=LABELS)), [(PANEL, PANEL)]
    )
    (outlined,) = frames(
        pixels(sheet([Panel("a", image, (1, 1), mask, still)], labels=LABELS)), [(PANEL, PANEL)]
    )
    assert filled[200, 200].max() > 0
    assert outlined[200, 200].max() == 0
    assert (outlined[100, 200] == DISC).all()


BLUE = (0, 114, 178)


def extent(panel: np.ndarray, colour: tuple[int, int, int]) -> list[int]:
    """First row and column of a colour, and the row and column after its last."""
    found = np.argwhere((panel == colour).all(axis=2))
    return [*found.min(axis=0), *(found.max(axis=0) + 1)]


def test_boxes_lie_on_the_pixels_they_bound():
    image = np.zeros((80, 40))
    boxes = ((10, 5, 30, 25, BLUE, ""), (60.5, 10, 79.5, 39, (0, 158, 115), ""))
    (panel,) = frames(pixels(sheet([Panel("a", image, (0.5, 0.5), boxes=boxes)])), [(400, 200)])
    assert extent(panel, BLUE) == [50, 25, 150, 125]  # 5 screen pixels to one of the image
    assert extent(panel, (0, 158, 115)) == pytest.approx([302.5, 50, 397.5, 195], abs=1)
    assert (panel[60:140, 35:115] == 0).all()  # an outline alone


def test_a_box_beyond_the_image_is_drawn_on_its_border():
    boxes = ((-9, -9, 10, 99, BLUE, ""), (60, 60, 70, 70, BLUE, ""))
    (panel,) = frames(
        pixels(sheet([Panel("a", np.zeros((40, 40)), (1, 1), boxes=boxes)])), [(PANEL, PANEL)]
    )
    assert extent(panel[:200], BLUE) == [0, 0, 100, 400]


def test_texts_of_boxes_that_overlap_do_not():
    image = np.zeros((40, 40))
    green, red = (0, 200, 0), (200, 0, 0)
    boxes = ((10, 10, 20, 20, green, "reference"), (10, 10, 20, 20, red, "predicted .93"))
    named = [Panel("a", image, (1, 1), boxes=boxes)]
    bare = [Panel("a", image, (1, 1), boxes=tuple((*b[:5], "") for b in boxes))]
    (with_text,) = frames(pixels(sheet(named)), [(PANEL, PANEL)])
    (without,) = frames(pixels(sheet(bare)), [(PANEL, PANEL)])
    changed = (with_text != without).any(axis=2)
    left = changed[100:200, :100]  # the first stands above the boxes, the other beside them
    assert changed[:100].sum() > 50
    assert left.sum() > 50
    assert changed.sum() == changed[:100].sum() + left.sum()
    assert not (with_text[100:200, :100] == green).all(axis=2).any()
    assert not (with_text[:100] == red).all(axis=2).any()


def test_texts_of_a_column_of_boxes_hide_none_of_them():
    discs = [(10 + 8 * k, 30, 14 + 8 * k, 60) for k in range(9)]  # 16 pixels high, 16 apart
    image = np.zeros((100, 100))
    named, bare = (
        sheet([Panel("a", image, (1, 1), boxes=tuple((*d, BLUE, text) for d in discs))])
        for text in ("L1: present", "")
    )
    (with_text,), (without,) = (frames(pixels(p), [(PANEL, PANEL)]) for p in (named, bare))
    hidden = (with_text != without).any(axis=2)
    assert hidden.sum() > 500
    for row0, col0, row1, col1 in discs:
        assert not hidden[4 * row0 : 4 * row1, 4 * col0 : 4 * col1].any()


def test_text_of_a_box_at_the_top_stays_on_the_panel():
    named, bare = (
        pixels(
            sheet([Panel("a", np.zeros((40, 40)), (1, 1), boxes=((0, 39, 40, 40, BLUE, text),))])
        )
        for text in ("malignant .93", "")
    )
    text = np.argwhere((named != bare).any(axis=2))
    assert np.ptp(text[:, 1]) > 70
    assert (text.min(axis=0) >= [MARGIN + LINE, MARGIN]).all()
    assert text[:, 1].max() < MARGIN + PANEL - 1  # not cut at the edge


def test_a_crop_stands_beside_its_slice_and_the_first_has_the_scale():
    tall, wide = np.zeros((40, 20)), np.zeros((10, 20))
    drawn = pixels(sheet([Panel("slice", tall, (2, 2)), Panel("crop", wide, (1, 1))]))
    assert drawn.shape[1] == 2 * MARGIN + 200 + GAP + 400
    first, second = frames(drawn, [(400, 200), (200, 400)])
    assert (second == 0).all()
    bar = np.argwhere((first[380:] == 255).all(axis=2))
    assert np.ptp(bar[:, 1]) + 1 == pytest.approx(20 * 400 / 80, abs=2)
    below = drawn[MARGIN + LINE + 200 : MARGIN + LINE + 400, MARGIN + 200 + GAP :]
    assert (below == 255).all()


def test_many_panels_share_the_width():
    drawn = pixels(sheet([Panel("a", np.zeros((9, 9)), (1, 1))] * 5))
    assert drawn.shape[1] < 1400


def test_names_and_legends_of_narrow_panels_are_not_cut():
    narrow = np.zeros((80, 8))
    mask = np.ones((80, 8), np.uint8)
    labels = {1: ("a structure with a long name", BLUE)}
    drawn = pixels(sheet([Panel("A name far wider", narrow, (1, 1), mask)], labels=labels))
    assert (drawn[:, -MARGIN // 2 :] == 255).all()
    assert drawn.shape[1] > 200


def test_phantom_is_burnt_into_crops_and_attention_too():
    panels = [
        Panel("a", np.zeros((40, 40)), (1, 1)),
        Panel("b", np.zeros((20, 40)), (1, 1), heat=np.ones((2, 2))),
    ]
    sizes = [(400, 400), (200, 400)]
    plain, burnt = (frames(pixels(sheet(panels, phantom=p)), sizes) for p in (False, True))
    for before, after in zip(plain, burnt, strict=True):
        changed = np.argwhere((before != after).any(axis=2))
        assert np.ptp(changed[:, 1]) > 0.3 * after.shape[1]


@pytest.mark.parametrize(
    ("heat", "message"),
    [
        (np.full((2, 2), 1.5), r"attention of a must lie in \[0, 1\]"),
        (np.full((2, 2), -0.1), r"must lie in \[0, 1\]"),
        (np.ones(4), r"must have shape \(h, w\), got \(4,\)"),
    ],
)
def test_wrong_attention_is_refused(heat, message):
    with pytest.raises(ValueError, match=message):
        sheet([Panel("a", np.zeros((4, 4)), (1, 1), heat=heat)])


def test_wrong_input_is_refused():
    image = np.zeros((4, 4))
    with pytest.raises(ValueError, match=r"prediction has shape \(4, 5\)"):
        overlay(image, None, np.zeros((4, 5), np.uint8), (1, 1), LABELS)
    with pytest.raises(ValueError, match="one slice"):
        overlay(np.zeros((2, 4, 4)), None, None, (1, 1), LABELS)
    with pytest.raises(ValueError, match="positive"):
        overlay(image, None, None, (0, 1), LABELS)
    with pytest.raises(ValueError, match="at least one panel"):
        sheet([])


def test_a_caption_stands_below_and_is_never_cut():
    plain = sheet([Panel("a", np.eye(9), (1, 1), letters=("H", "F", "A", "P"))])
    with_text = captioned(plain, ["short", "a line that is far longer than " * 4])
    before, after = (np.asarray(Image.open(io.BytesIO(p))) for p in (plain, with_text))
    assert after.shape[0] > before.shape[0]
    assert after.shape[1] > before.shape[1]
    np.testing.assert_array_equal(after[: before.shape[0], : before.shape[1]], before)
    assert (after[:, -6:] == 255).all()
    without = sheet([Panel("a", np.eye(9), (1, 1))])
    assert without != plain
