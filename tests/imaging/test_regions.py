"""Discs drawn with known place, tilt and size; real masks where they are at hand."""

import csv
import os
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mskjax.imaging import geometry, regions
from mskjax.imaging.files import read_volume

SHARED = Path(os.environ.get("MSKJAX_SHARED", Path(__file__).resolve().parents[2] / "../shared"))
SPIDER = SHARED / "data" / "spider_t2space"
real = pytest.mark.skipif(not SPIDER.is_dir(), reason=f"no SPIDER masks at {SPIDER}")

SHAPE = (7, 200, 120)
SPACING = np.array([4.0, 0.6, 0.7])
# Axes L, I, P.
AFFINE = np.array([[-4.0, 0, 0, 12], [0, 0, -0.7, 40], [0, -0.6, 0, 60], [0, 0, 0, 1]])


def millimetres(shape=SHAPE):
    """Slice, mm towards the feet and mm towards the back of every voxel centre."""
    i, j, k = np.ogrid[: shape[0], : shape[1], : shape[2]]
    return i, j * SPACING[1], k * SPACING[2]


def box(down, back, angle, width, height, slices=(1, 6)):
    i, v, u = millimetres()
    v, u = v - down, u - back
    along = np.cos(angle) * u + np.sin(angle) * v
    across = np.cos(angle) * v - np.sin(angle) * u
    inside = (np.abs(along) <= width / 2) & (np.abs(across) <= height / 2)
    return inside & (i >= slices[0]) & (i < slices[1])


def spine(angles=(0.5, 0.2, 0.0)):
    """Three discs, the lowest last in the array; returns the mask from the lowest upwards."""
    return [box(100 - 35 * n, 42, angle, 36, 9) for n, angle in enumerate(angles)]


def test_components_touch_at_corners_and_come_largest_first():
    mask = np.zeros((3, 6, 6), bool)
    mask[0, 0, 0] = mask[1, 1, 1] = mask[2, 2, 2] = True
    mask[0, 4, 4] = True
    found = regions.components(mask)
    assert [int(c.sum()) for c in found] == [3, 1]
    np.testing.assert_array_equal(found[0] | found[1], mask)
    assert len(regions.components(mask, min_voxels=2)) == 1
    assert regions.components(np.zeros((2, 2), bool)) == []


def test_regions_are_measured_in_the_patient():
    discs = spine()
    found, dropped = regions.disc_regions(np.any(discs, axis=0), AFFINE)
    assert dropped == 0
    assert [r.level for r in found] == [1, 2, 3]
    for region, disc, angle, down in zip(found, discs, (0.5, 0.2, 0), (100, 65, 30), strict=True):
        np.testing.assert_allclose(region.centre, [0, 40 - 42, 60 - down], atol=0.4)
        assert region.angle == pytest.approx(angle, abs=0.02)
        assert region.width_mm == pytest.approx(36, abs=1.2)
        assert region.height_mm == pytest.approx(9, abs=0.6)
        assert region.voxels == disc.sum()
        again = np.zeros(SHAPE, bool)
        again[region.slices] = region.mask
        np.testing.assert_array_equal(again, disc)


@settings(max_examples=20)
@given(st.floats(-0.8, 0.8), st.floats(25, 45), st.floats(6, 12))
def test_angle_and_size_of_any_disc(angle, width, height):
    (region,), _ = regions.disc_regions(box(60, 42, angle, width, height), AFFINE)
    assert region.angle == pytest.approx(angle, abs=0.05)
    assert region.width_mm == pytest.approx(width, abs=2)
    assert region.height_mm == pytest.approx(height, abs=1)


def test_specks_are_dropped_and_counted_however_many():
    mask = np.any(spine(), axis=0)
    for n in range(12):
        mask[0, 5 + 12 * n, 3] = True
    found, dropped = regions.disc_regions(mask, AFFINE)
    assert len(found) == 3
    assert dropped == 12
    assert regions.disc_regions(np.zeros(SHAPE, bool), AFFINE) == ([], 0)


def test_a_predicted_row_leaves_out_what_is_no_disc_of_it_and_skips_what_was_missed():
    angles = (0.5, 0.2, 0.0, 0.0, 0.0, 0.0)
    discs = [box(112 - 20 * n, 50, angle, 28, 6) for n, angle in enumerate(angles)]
    belly = box(80, 8, 0.0, 12, 8)  # before the spine, between the second disc and the third
    pieces, _ = regions.disc_regions(np.any([*discs, belly], axis=0), AFFINE)
    assert [r.voxels == int(belly.sum()) for r in pieces].index(True) == 2
    kept, row = regions.spine_row(pieces, AFFINE)
    assert [r.level for r in kept] == [1, 2, 3, 4, 5, 6]
    assert [r.voxels for r in kept] == [int(disc.sum()) for disc in discs]
    assert (row.gaps, row.left_out) == (0, 1)
    pieces, _ = regions.disc_regions(np.any([*discs[:3], *discs[4:], belly], axis=0), AFFINE)
    kept, row = regions.spine_row(pieces, AFFINE)
    assert [r.level for r in kept] == [1, 2, 3, 5, 6]
    assert (row.gaps, row.left_out) == (1, 1)
    assert regions.spine_row([], AFFINE)[0] == []


@pytest.mark.parametrize("angle", [-0.6, 0.0, 0.6])
def test_pieces_of_one_disc_are_joined_and_neighbours_are_not(angle):
    whole = box(100, 42, angle, 36, 9)
    _, v, u = millimetres()
    along = np.cos(angle) * (u - 42) + np.sin(angle) * (v - 100)
    split = whole & (np.abs(along - 12) > 1.5)  # the smaller piece is taller than it is long
    assert len(regions.components(split)) == 2
    mask = split | box(70, 42, angle, 36, 9)
    found, dropped = regions.disc_regions(mask, AFFINE)
    assert (len(found), dropped) == (2, 0)
    assert found[0].voxels == split.sum()
    assert found[0].angle == pytest.approx(angle, abs=0.03)


def test_labelled_regions_keep_their_numbering():
    discs = spine()
    levels = np.zeros(SHAPE, np.uint8)
    levels[discs[0]], levels[discs[2]] = 2, 5
    found = regions.labelled_regions(levels, AFFINE)
    assert [r.level for r in found] == [2, 5]
    assert found[1].centre[2] > found[0].centre[2]


@pytest.mark.parametrize("angle", [-0.5, 0.0, 0.4])
def test_crop_shows_the_disc_level_and_centred(angle):
    disc = box(60, 42, angle, 36, 9)
    (region,), _ = regions.disc_regions(disc, AFFINE)
    crop = regions.rotated_crop(disc, AFFINE, region.centre, region.angle, (36, 72), (5, 72, 144))
    assert crop.shape == (5, 72, 144)
    assert crop.dtype == np.float32
    j, k = np.nonzero(crop[2] > 0.5)
    assert j.mean() == pytest.approx(35.5, abs=1)
    assert k.mean() == pytest.approx(71.5, abs=1)
    assert np.ptp(j) + 1 == pytest.approx(18, abs=4)  # 9 mm of .5 mm
    assert np.ptp(k) + 1 == pytest.approx(72, abs=4)


def test_crop_is_right_everywhere():
    """Of a field linear in the plane every pixel of a turned crop is known."""
    i, v, u = millimetres()
    image = (100 * i + 2 * v - 3 * u).astype(np.float32)
    centre = (AFFINE @ [3, 100, 60, 1])[:3]
    angle = 0.35
    crop = regions.rotated_crop(image, AFFINE, centre, angle, (10, 12), (3, 20, 24))
    down = ((np.arange(20) - 9.5) * 0.5)[:, None]
    back = ((np.arange(24) - 11.5) * 0.5)[None]
    row = 60 + np.cos(angle) * down + np.sin(angle) * back
    column = 42 - np.sin(angle) * down + np.cos(angle) * back
    for index, native in enumerate((2, 3, 4)):
        np.testing.assert_allclose(crop[index], 100 * native + 2 * row - 3 * column, atol=1e-3)
    nearer = (AFFINE @ [3.6, 100, 60, 1])[:3]
    stack = regions.rotated_crop(image, AFFINE, nearer, angle, (10, 12), (2, 20, 24))
    np.testing.assert_allclose(stack[1] - crop[1], 100, atol=1e-2)  # slice 4 at index 2 // 2


def test_crop_that_leaves_the_image():
    image = np.ones(SHAPE, np.uint8)
    corner = (AFFINE @ [0, 0, 0, 1])[:3]
    crop = regions.rotated_crop(image, AFFINE, corner, 0.0, (12, 14), (3, 20, 20))
    assert not crop[0].any()  # left out of the image, not repeated
    assert not crop[1, :9].any()
    assert not crop[1, :, :9].any()
    np.testing.assert_allclose(crop[1:, 11:, 11:], 1, atol=1e-6)
    assert not regions.rotated_crop(image, AFFINE, corner + 500, 0.3, (12, 14), (3, 20, 20)).any()


def test_crop_of_one_slice():
    image = np.random.default_rng(0).random((1, 40, 40)).astype(np.float32)
    affine = geometry.shift_affine(AFFINE, (0, 0, 0))
    crop = regions.rotated_crop(
        image, affine, (affine @ [0, 19.5, 19.5, 1])[:3], 0.0, (24, 28), (1, 40, 40)
    )
    np.testing.assert_allclose(crop, image, atol=1e-4)


def test_matching_is_one_to_one_and_best_in_total():
    reference, predicted = np.zeros((2, 1, 1, 60), int)
    reference[..., 0:10], reference[..., 10:20], reference[..., 40:50] = 1, 2, 4
    predicted[..., 4:14], predicted[..., 13:24], predicted[..., 30:41] = 7, 5, 9
    predicted[..., 4:13] = 7
    pairs, extra = regions.match_regions(predicted, reference)
    assert pairs == {1: 7, 2: 5, 4: None}  # 9 touches 4 with an IoU of 1/20
    assert extra == [9]
    nothing = np.zeros_like(reference)
    assert regions.match_regions(nothing, reference) == ({1: None, 2: None, 4: None}, [])
    assert regions.match_regions(predicted, nothing) == ({}, [5, 7, 9])


def test_marrow_is_that_of_the_two_bodies_beside_the_disc():
    angle = 0.3
    disc = box(60, 42, angle, 36, 8)
    (region,), _ = regions.disc_regions(disc, AFFINE)
    image = np.full(SHAPE, 1000.0)
    vertebrae = np.zeros(SHAPE, bool)
    for distance, signal in ((11, 90), (-11, 110), (-52, 500)):
        down, back = 60 + distance * np.cos(angle), 42 - distance * np.sin(angle)
        body = box(down, back, angle, 34, 24 if signal == 500 else 12)
        image[body], vertebrae[body] = signal, True
    arch = box(60, 80, angle, 38, 60) & ~vertebrae  # more voxels than the two bodies
    image[arch], vertebrae[arch] = 5000, True
    for signal, half in ((90, 1), (110, -1)):
        only = vertebrae & ((millimetres()[1] - 60) * half > 0)
        assert regions.neighbour_vertebra_median(image, only, region, AFFINE) == signal
    both = regions.neighbour_vertebra_median(image, vertebrae, region, AFFINE)
    assert 90 <= both <= 110
    far = disc | (image == 500)  # the disc itself is no marrow, and 52 mm is not beside it
    assert regions.neighbour_vertebra_median(image, far, region, AFFINE) == 500
    empty = np.zeros(SHAPE, bool)
    ramp = np.arange(image.size, dtype=np.float64).reshape(SHAPE)
    assert regions.neighbour_vertebra_median(ramp, empty, region, AFFINE) == pytest.approx(
        0.75 * (image.size - 1)
    )


@real
def test_every_disc_of_a_real_spine_is_of_its_row():
    for path in sorted(SPIDER.glob("*_seg.nii.gz")):
        mask = geometry.reorient(read_volume(path))
        discs, _ = regions.disc_regions(mask.data == 2, mask.affine)
        kept, row = regions.spine_row(discs, mask.affine)
        assert [r.level for r in kept] == [r.level for r in discs], path.name
        assert (row.gaps, row.left_out) == (0, 0)


@real
@pytest.mark.parametrize(("patient", "counts"), [("110", (7, 0)), ("146", (7, 1)), ("162", (9, 0))])
def test_real_masks_give_the_graded_discs(patient, counts):
    with (SPIDER / "radiological_gradings.csv").open() as file:
        graded = Counter(row["Patient"] for row in csv.DictReader(file))
    mask = geometry.reorient(read_volume(SPIDER / f"{patient}_seg.nii.gz"))
    found, dropped = regions.disc_regions(mask.data == 2, mask.affine)
    assert (len(found), dropped) == counts
    assert len(found) == graded[patient]
    assert found[0].angle < -0.35  # the lumbosacral disc falls to the front
    assert all(np.diff([r.centre[2] for r in found]) > 15)
    for region in found:
        assert 20 < region.width_mm < 55
        assert 3 < region.height_mm < 14
