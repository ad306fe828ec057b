import io

import numpy as np
import pytest
from PIL import Image

from mskjax.reporting.pictures import overlay

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


def test_wrong_input_is_refused():
    image = np.zeros((4, 4))
    with pytest.raises(ValueError, match=r"prediction has shape \(4, 5\)"):
        overlay(image, None, np.zeros((4, 5), np.uint8), (1, 1), LABELS)
    with pytest.raises(ValueError, match="one slice"):
        overlay(np.zeros((2, 4, 4)), None, None, (1, 1), LABELS)
    with pytest.raises(ValueError, match="positive"):
        overlay(image, None, None, (0, 1), LABELS)
