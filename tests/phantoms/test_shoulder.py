import hashlib
from dataclasses import replace

import nibabel as nib
import numpy as np
import pytest
from matplotlib.path import Path as Outline
from scipy import ndimage
from scipy.stats import spearmanr

from tfds_builders.phantoms.shoulder import (
    FAT_SHARE,
    Y_VIEW_T2,
    ShoulderPhantomConfig,
    shoulder_phantom,
)
from tfds_builders.phantoms.shoulder_anatomy import MUSCLES, SUPRASPINATUS, area, ellipse, smooth
from tfds_builders.phantoms.shoulder_drawing import Grid, inside

N = 60  # twelve of each grade


@pytest.fixture(scope="module")
def cohort():
    return [shoulder_phantom(seed, seed % 5) for seed in range(N)]


def bright_share(p):
    """Share of the fossa nearer to fat than to muscle, judged by the image alone."""
    image, fossa = p.image[0].astype(float), p.mask[0] > 0
    rows, cols = np.nonzero(fossa)
    near = image[rows.min() - 12 : rows.max() + 12, cols.min() - 12 : cols.max() + 12]
    dark, bright = np.percentile(near, [10, 95])  # muscle or bone, and fat, under the same shading
    return float(np.mean(image[fossa] > (dark + bright) / 2))


def test_arrays_have_the_promised_form(cohort):
    for p in cohort:
        assert p.image.shape == p.mask.shape == (1, 192, 192)
        assert (p.image.dtype, p.mask.dtype) == (np.int16, np.uint8)
        assert p.image.min() >= 0
        assert set(np.unique(p.mask)) == {0, 1}
        assert (p.sex in {"F", "M"}, p.side in {"left", "right"}) == (True, True)
        assert p.field_strength_t in {1.5, 3.0}
        assert 20 <= p.age <= 88
    for name in ("sex", "side", "field_strength_t"):
        assert len({getattr(p, name) for p in cohort}) == 2


def test_the_fossa_is_one_region_of_adult_size_within_the_image(cohort):
    for p in cohort:
        assert ndimage.label(p.mask[0])[1] == 1
        assert ndimage.binary_fill_holes(p.mask[0]).sum() == p.mask.sum()
        assert 450 < p.mask.sum() * 0.8**2 < 1600  # mm2
        rows, cols = np.nonzero(p.mask[0])
        assert (rows.min() > 10, rows.max() < 130) == (True, True)
        assert (cols.min() > 30, cols.max() < 170) == (True, True)
        assert 30 < np.ptp(cols) * 0.8 < 70  # longer than high
        assert np.ptp(rows) < np.ptp(cols)


def test_fat_share_follows_the_grade_without_overlap(cohort):
    for p in cohort:
        low, high = FAT_SHARE[p.grade]
        assert low - 1e-3 <= p.fat_share[SUPRASPINATUS] <= high + 1e-3
    bounds = np.array(FAT_SHARE)
    assert (bounds[1:, 0] > bounds[:-1, 1]).all()
    assert bounds[2, 1] < 0.5  # less fat than muscle
    assert bounds[3].mean() == pytest.approx(0.5)  # as much
    assert bounds[4, 0] > 0.5  # more


def test_what_the_image_shows_follows_the_grade(cohort):
    shares = [[bright_share(p) for p in cohort if p.grade == g] for g in range(5)]
    means = [np.mean(s) for s in shares]
    assert (np.diff(means) > 0.05).all()
    assert means[0] < 0.2
    assert means[4] > 0.65
    assert spearmanr([p.grade for p in cohort], [bright_share(p) for p in cohort])[0] > 0.9


def test_the_muscle_shrinks_loosely_with_the_grade(cohort):
    occupancy = np.array([p.occupancy for p in cohort])
    grade = np.array([p.grade for p in cohort])
    assert -0.97 < spearmanr(grade, occupancy)[0] < -0.7
    assert occupancy[grade == 0].mean() > 0.85
    assert occupancy[grade == 4].mean() < 0.65
    assert occupancy[grade == 2].max() > occupancy[grade == 1].min()


def test_other_muscles_and_who_is_imaged_tell_nothing_of_the_grade(cohort):
    for name in MUSCLES[1:]:
        fat = [p.fat_share.get(name, np.nan) for p in cohort]
        assert np.nanmax(fat) > 0.15, name  # there is something to be misled by
        assert spearmanr([p.grade for p in cohort], fat, nan_policy="omit").pvalue > 0.005, name
    # The same patients with every grade: only the supraspinatus differs.
    for seed in range(3):
        mild, severe = shoulder_phantom(seed, 0), shoulder_phantom(seed, 4)
        for name in set(mild.fat_share) - {SUPRASPINATUS}:
            assert severe.fat_share[name] == pytest.approx(mild.fat_share[name], abs=0.01), name
        for name in ("sex", "age", "side", "field_strength_t"):
            assert getattr(mild, name) == getattr(severe, name)
        np.testing.assert_array_equal(mild.affine, severe.affine)


def test_axes_run_left_down_and_back_and_both_sides_mirror(cohort):
    for p in cohort:
        assert "".join(nib.aff2axcodes(p.affine)) == "LIP"
        spacing = np.linalg.norm(p.affine[:3, :3], axis=0)
        np.testing.assert_allclose(spacing, [4.0, 0.8, 0.8])
        axes = p.affine[:3, :3] / spacing
        np.testing.assert_allclose(axes.T @ axes, np.eye(3), atol=1e-12)
        outwards = -1 if p.side == "left" else 1
        lateral = axes[:, 0] * (1 if p.side == "left" else -1)
        assert lateral[0] * outwards > 0.7
        assert lateral[1] > 0.2  # and to the front, as the scapula lies
        assert (p.affine @ [0, 96, 96, 1])[0] * outwards > 80  # beside the midline


def test_signal_ranks_fat_muscle_air():
    config = ShoulderPhantomConfig(protocol=replace(Y_VIEW_T2, snr=200.0), bias=0.0)
    for seed in range(4):
        healthy, fatty = (shoulder_phantom(seed, g, config=config) for g in (0, 4))
        fossa = ndimage.binary_erosion(healthy.mask[0], iterations=4)
        muscle, fat = (np.median(p.image[0][fossa]) for p in (healthy, fatty))
        air = np.median(healthy.image[0, :3])
        assert fat > 2.5 * muscle
        assert muscle > 5 * air


def test_equal_seeds_give_equal_bytes_and_images_of_a_patient_share_the_grade():
    def digest(p):
        parts = p.image.tobytes(), p.mask.tobytes(), p.affine.tobytes(), repr(p.fat_share).encode()
        return hashlib.sha256(b"".join(parts)).hexdigest()

    first, again, second, other = (
        shoulder_phantom(5, 2),
        shoulder_phantom(5, 2),
        shoulder_phantom(5, 2, 1),
        shoulder_phantom(6, 2),
    )
    assert digest(first) == digest(again)
    assert len({digest(first), digest(second), digest(other)}) == 3
    for name in ("sex", "age", "side", "field_strength_t"):
        assert getattr(first, name) == getattr(second, name)
    low, high = FAT_SHARE[2]
    assert abs(first.fat_share[SUPRASPINATUS] - second.fat_share[SUPRASPINATUS]) < (high - low)
    # Parallel slices, the second nearer to the spine by a few millimetres.
    np.testing.assert_array_equal(first.affine[:3, :3], second.affine[:3, :3])
    centres = [np.linalg.inv(first.affine) @ p.affine[:, 3] for p in (first, second)]
    assert 0.1 < abs(centres[1][0]) * 4 < 8
    overlap = 2 * (first.mask & second.mask).sum() / (first.mask.sum() + second.mask.sum())
    assert 0.7 < overlap < 0.999


@pytest.mark.parametrize("grade", [-1, 5])
def test_no_such_grade(grade):
    with pytest.raises(ValueError, match=f"grade is {grade}"):
        shoulder_phantom(0, grade)


def test_config_is_checked():
    with pytest.raises(ValueError, match="must reach 110 mm"):
        ShoulderPhantomConfig(rows=96)
    with pytest.raises(ValueError, match="at least 1"):
        ShoulderPhantomConfig(supersample=0)
    small = shoulder_phantom(0, 1, config=ShoulderPhantomConfig(rows=160, supersample=1))
    assert small.image.shape == (1, 160, 192)


def test_filling_agrees_with_matplotlib():
    grid = Grid(np.linspace(-20, 30, 101), np.linspace(-25, 24, 99))
    points = np.stack(np.meshgrid(grid.x, grid.y), -1).reshape(-1, 2)
    concave = [(-15.2, -10.1), (0.3, 8.7), (19.9, -12.3), (12.4, 15.8), (-40.0, 18.6), (-9.7, 3.1)]
    for outline in (smooth(concave), ellipse(3.1, -2.2, 12.7, 6.3)):
        expected = Outline(np.vstack([outline, outline[:1]])).contains_points(points)
        np.testing.assert_array_equal(inside(outline, grid).ravel(), expected)


def test_curves_pass_through_their_points_and_area_is_known():
    control = [(0.0, 0.0), (10.0, 1.0), (12.0, 9.0), (2.0, 11.0)]
    curve = smooth(control)
    assert len(curve) == 10 * len(control)
    np.testing.assert_allclose(curve[::10], control)
    assert area(ellipse(3, 4, 10, 5)) == pytest.approx(np.pi * 50, rel=0.01)
    assert area(ellipse(3, 4, 10, 5, shrink=1)) == pytest.approx(np.pi * 36, rel=0.01)
