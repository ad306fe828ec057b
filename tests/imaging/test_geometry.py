"""Grids: what moves, what must not, and how well a mask survives the way there and back."""

import os
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from mskjax.imaging import geometry
from mskjax.imaging.files import read_volume
from mskjax.imaging.volume import Volume

SHARED = Path(os.environ.get("MSKJAX_SHARED", Path(__file__).resolve().parents[2] / "../shared"))
SPIDER = SHARED / "data" / "spider_t2space"

CODES = st.permutations(["LR", "AP", "IS"]).flatmap(
    lambda axes: st.tuples(*(st.sampled_from(letters) for letters in axes))
)
SHAPES = st.tuples(*[st.integers(1, 9)] * 3)
SPACINGS = st.tuples(*[st.floats(0.4, 4)] * 3)


def volume(shape, spacing=(1, 1, 1), seed=0, tilt=0.3) -> Volume:
    rng = np.random.default_rng(seed)
    skew = np.array([[0, 1, -0.4], [-1, 0, 0.7], [0.4, -0.7, 0]]) * tilt
    rotation, _ = np.linalg.qr(np.eye(3) + skew)
    rotation *= np.sign(np.diag(rotation))
    affine = np.eye(4)
    affine[:3, :3] = rotation * spacing
    affine[:3, 3] = [10, -20, 30]
    return Volume(rng.normal(size=shape).astype(np.float32), affine)


def dice(a: np.ndarray, b: np.ndarray) -> float:
    return float(2 * np.count_nonzero(a & b) / (np.count_nonzero(a) + np.count_nonzero(b)))


@settings(max_examples=30)
@given(SHAPES, SPACINGS, CODES, CODES)
def test_reorient_moves_no_voxel_in_the_patient(shape, spacing, first, second):
    start = geometry.reorient(volume(shape, spacing), first)
    turned = geometry.reorient(start, second)
    assert nib.aff2axcodes(turned.affine) == second
    index = np.indices(start.data.shape).reshape(3, -1)
    ras = start.affine @ [*index, np.ones(index.shape[1])]
    there = np.linalg.solve(turned.affine, ras)[:3]
    np.testing.assert_allclose(there, np.round(there), atol=1e-6)
    moved = turned.data[tuple(np.round(there).astype(int))]
    np.testing.assert_array_equal(moved, start.data.ravel())
    back = geometry.reorient(turned, first)
    np.testing.assert_array_equal(back.data, start.data)
    np.testing.assert_allclose(back.affine, start.affine, atol=1e-9)


def test_reorient_takes_the_slice_axis_along():
    start = volume((3, 4, 5), tilt=0)
    start.meta["slice_axis"] = 2
    assert geometry.reorient(start, "SRA").meta["slice_axis"] == 0
    assert start.meta["slice_axis"] == 2


@settings(max_examples=30)
@given(SHAPES, SPACINGS, SPACINGS, st.sampled_from([0, 1, 3]))
def test_resample_keeps_centre_and_covers_the_extent(shape, old, new, order):
    start = volume(shape, old)
    out = geometry.resample(start, new, order)
    np.testing.assert_allclose(out.spacing, new, rtol=1e-6)

    def centre(v):
        return v.affine @ [*((np.array(v.data.shape) - 1) / 2), 1]

    np.testing.assert_allclose(centre(out), centre(start), atol=1e-9)
    length = np.array(out.data.shape) * new - np.array(shape) * old
    assert (length > -2e-3 * np.array(new)).all()
    assert (length < np.array(new)).all()
    if order < 2:
        assert out.data.min() >= start.data.min() - 1e-5
        assert out.data.max() <= start.data.max() + 1e-5


def test_resample_keeps_the_axes_it_is_told_to():
    start = volume((5, 6, 7), (4, 0.5, 0.5))
    out = geometry.resample(start, (None, 0.25, float("nan")))
    assert out.data.shape == (5, 12, 7)
    np.testing.assert_allclose(out.spacing, [4, 0.25, 0.5])
    same = geometry.resample(start, start.spacing.tolist())
    np.testing.assert_array_equal(same.data, start.data)
    assert not np.shares_memory(same.data, start.data)
    with pytest.raises(ValueError, match="positive"):
        geometry.resample(start, (0, 1, 1))


def test_resample_of_a_mask_keeps_its_labels():
    mask = volume((8, 9, 10)).with_data(np.random.default_rng(0).integers(0, 4, (8, 9, 10)))
    out = geometry.resample(mask, (0.7, 1.9, 1.3), order=0)
    assert out.data.dtype == mask.data.dtype
    assert set(np.unique(out.data)) <= set(np.unique(mask.data))


def test_thinning_removes_what_the_new_grid_cannot_show():
    """A pattern above the new Nyquist frequency would fold into stripes that are not there."""
    column = np.arange(120)
    stripes = np.broadcast_to(np.sin(2 * np.pi * 0.3 * column), (2, 8, 120)).astype(np.float32)
    slow = np.broadcast_to(np.sin(2 * np.pi * 0.02 * column), (2, 8, 120)).astype(np.float32)
    inner = (slice(None), slice(None), slice(5, 35))
    amplitude = [
        np.abs(geometry.resample(Volume(x, np.eye(4)), (1, 1, 3)).data[inner]).max()
        for x in (stripes, slow)
    ]
    assert amplitude[0] < 0.15
    assert amplitude[1] > 0.95


@settings(max_examples=25)
@given(SHAPES, SPACINGS, SPACINGS, CODES, st.integers(0, 1), st.tuples(*[st.floats(-3, 3)] * 3))
def test_axis_by_axis_equals_point_by_point(shape, old, new, codes, order, shift):
    """The fast way gives what map_coordinates gives at the same points."""
    start = volume(shape, old)
    target = geometry.reorient(volume((4, 5, 6), new), codes)
    affine = target.affine.copy()
    affine[:3, 3] += shift
    got = geometry.resample_to(
        start.data, start.affine, target.data.shape, affine, order, cval=-9.0
    )
    index = np.indices(target.data.shape).reshape(3, -1)
    points = np.linalg.solve(start.affine, affine @ [*index, np.ones(index.shape[1])])[:3]
    size = np.array(shape)[:, None]
    fraction = np.abs(points - np.floor(points) - 0.5)
    inside = ((points >= -0.5) & (points <= size - 0.5)).all(0)
    clear = (np.abs(points + 0.5) > 1e-4).all(0) & (np.abs(points - size + 0.5) > 1e-4).all(0)
    if order == 0:
        clear &= (fraction > 1e-4).all(0)
    expected = ndimage.map_coordinates(start.data, points, order=order, mode="nearest")
    expected = np.where(inside, expected, -9.0)
    np.testing.assert_allclose(got.ravel()[clear], expected[clear], atol=2e-3)


def test_oblique_target_samples_a_linear_field_exactly():
    """A field linear in space has one right value anywhere, whatever the two grids."""
    source = volume((12, 14, 16), (1, 0.8, 0.7), tilt=0)
    gradient = np.array([0.5, -1.25, 2.0])

    def field(affine, shape):
        index = np.indices(shape).reshape(3, -1)
        return (gradient @ (affine @ [*index, np.ones(index.shape[1])])[:3]).reshape(shape)

    data = field(source.affine, source.data.shape)
    target = volume((5, 5, 5), (0.6, 0.6, 0.6), tilt=0.2).affine
    middle = source.affine @ [5.5, 6.5, 7.5, 1]
    target[:3, 3] = middle[:3] - target[:3, :3] @ [2, 2, 2]
    for order in (1, 3):
        out = geometry.resample_to(data, source.affine, (5, 5, 5), target, order)
        np.testing.assert_allclose(out, field(target, (5, 5, 5)), atol=1e-2 if order == 3 else 1e-9)
    far = geometry.resample_to(data, source.affine, (5, 5, 5), target + 1e3 * (target == 1), cval=7)
    assert far.shape == (5, 5, 5)


@settings(max_examples=30)
@given(SHAPES, st.tuples(*[st.integers(-6, 6)] * 3), st.tuples(*[st.integers(1, 8)] * 3))
def test_crop_that_may_leave_the_array(shape, start, size):
    data = np.random.default_rng(0).integers(1, 100, shape)
    box = geometry.crop_or_pad(data, start, size, cval=-1)
    affine = volume(shape).affine
    moved = geometry.shift_affine(affine, start)
    for index in np.ndindex(*size):
        old = np.add(index, start)
        inside = (old >= 0).all() and (old < shape).all()
        assert box[index] == (data[tuple(old)] if inside else -1)
    np.testing.assert_allclose(moved @ [0, 0, 0, 1], affine @ [*start, 1])


def blobs(seed: int, shape: tuple[int, int, int], sigma: float) -> np.ndarray:
    """Three classes of smooth structures, several voxels thick."""
    noise = np.random.default_rng(seed).normal(size=(3, *shape))
    smooth = np.stack([ndimage.gaussian_filter(n, (0.6, sigma, sigma)) for n in noise])
    return np.argmax(smooth, axis=0).astype(np.uint8)


def there_and_back(mask: Volume, spacing, point_sampled: bool) -> np.ndarray:
    onehot = (np.arange(mask.data.max() + 1)[:, None, None, None] == mask.data).astype(np.float32)
    network = [geometry.resample(mask.with_data(c), spacing) for c in onehot]
    grid = network[0]
    probabilities = np.stack(
        [
            geometry.resample_to(c, mask.affine, grid.data.shape, grid.affine)
            if point_sampled
            else n.data
            for c, n in zip(onehot, network, strict=True)
        ]
    )
    return geometry.labels_to_native(probabilities, grid.affine, mask.data.shape, mask.affine)


@settings(max_examples=15)
@given(st.integers(0, 10**6), st.floats(0.3, 1.0))
def test_finer_or_equal_network_grid_gives_the_mask_back(seed, ratio):
    mask = volume((4, 48, 40), (3, 0.5, 0.5)).with_data(blobs(seed, (4, 48, 40), 5))
    back = there_and_back(mask, (None, 0.5 * ratio, 0.5 * ratio), point_sampled=False)
    for label in np.unique(mask.data):
        if np.count_nonzero(mask.data == label) > 200:
            assert dice(back == label, mask.data == label) >= 0.99
    if ratio == 1.0:
        np.testing.assert_array_equal(back, mask.data)


@pytest.mark.skipif(not SPIDER.is_dir(), reason=f"no SPIDER masks at {SPIDER}")
@pytest.mark.parametrize("patient", ["110", "141"])
def test_real_masks_through_a_coarser_grid(patient):
    """From .47 mm to 1 mm and back: Dice .98 after a low-pass, .97 from single points."""
    mask = geometry.reorient(read_volume(SPIDER / f"{patient}_seg.nii.gz"))
    mask = Volume(mask.data[3:6], geometry.shift_affine(mask.affine, (3, 0, 0)))
    for point_sampled, floor in ((False, 0.98), (True, 0.97)):
        back = there_and_back(mask, (None, 1.0, 1.0), point_sampled)
        for label in (1, 2, 3):
            assert dice(back == label, mask.data == label) > floor


@pytest.mark.skipif(not SPIDER.is_dir(), reason=f"no SPIDER masks at {SPIDER}")
def test_native_labels_of_a_turned_file(monkeypatch):
    stored = read_volume(SPIDER / "127_seg.nii.gz")
    mask = geometry.reorient(stored)
    onehot = (np.arange(4)[:, None, None, None] == mask.data).astype(np.float32)
    # The general interpolation takes seconds where permuted axes need a tenth of one.
    monkeypatch.delattr(ndimage, "affine_transform")
    labels = geometry.labels_to_native(onehot, mask.affine, stored.data.shape, stored.affine)
    np.testing.assert_array_equal(labels, stored.data)


def test_outside_the_network_grid_lies_background():
    affine = np.eye(4)
    ones = np.stack([np.zeros((1, 4, 4)), np.ones((1, 4, 4))])
    native = geometry.shift_affine(affine, (0, -2, -2))
    labels = geometry.labels_to_native(ones, affine, (1, 8, 8), native)
    expected = np.zeros((1, 8, 8))
    expected[:, 2:6, 2:6] = 1
    np.testing.assert_array_equal(labels, expected)
    # Unnormalised scores, all of them negative, are scores all the same.
    np.testing.assert_array_equal(
        geometry.labels_to_native(ones - 5, affine, (1, 8, 8), native), expected
    )
