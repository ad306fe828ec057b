"""Blocks and where they are cut, against plain loops over pixels."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import ndimage

from mskjax.imaging import patches


def slice_of(shape, channels=1, seed=0):
    return np.random.default_rng(seed).normal(size=(*shape, channels)).astype(np.float32)


def cut_by_hand(image, row, col, size):
    half = size // 2
    low = image.min((0, 1))
    block = np.empty((size, size, image.shape[-1]), np.float32)
    for i in range(size):
        for j in range(size):
            r, c = row + i - half, col + j - half
            inside = 0 <= r < image.shape[0] and 0 <= c < image.shape[1]
            block[i, j] = image[r, c] if inside else low
    return block


@pytest.mark.parametrize("channels", [1, 2])
def test_a_block_is_the_pixels_around_its_centre_and_air_beyond_the_slice(channels):
    image = slice_of((9, 12), channels)
    centres = np.array([(0, 0), (8, 11), (4, 6), (0, 5), (7, 1)], np.float32)
    blocks = patches.cut(jnp.asarray(image), jnp.asarray(centres), 5)
    expected = [cut_by_hand(image, int(r), int(c), 5) for r, c in centres]
    np.testing.assert_array_equal(blocks, np.stack(expected))


def test_a_block_between_pixels_is_interpolated():
    image = slice_of((11, 11))
    centre = np.array([[4.25, 5.5]], np.float32)
    offsets = np.arange(3) - 1
    at = np.meshgrid(4.25 + offsets, 5.5 + offsets, indexing="ij")
    expected = ndimage.map_coordinates(image[..., 0], at, order=1)
    block = patches.cut(jnp.asarray(image), jnp.asarray(centre), 3)
    np.testing.assert_allclose(block[0, ..., 0], expected, rtol=1e-5, atol=1e-6)


def test_a_centre_outside_is_moved_to_the_border():
    image = jnp.asarray(slice_of((6, 7)))
    outside = patches.cut(image, jnp.array([[-3.0, 99.0]]), 3)
    np.testing.assert_array_equal(outside, patches.cut(image, jnp.array([[0.0, 6.0]]), 3))


def test_a_block_without_a_middle_pixel_is_refused():
    with pytest.raises(ValueError, match="odd"):
        patches.cut(jnp.zeros((8, 8, 1)), jnp.zeros((1, 2)), 4)


@given(st.integers(1, 30), st.integers(1, 30), st.integers(1, 7))
def test_no_pixel_is_farther_than_half_a_stride_from_the_lattice(rows, cols, stride):
    grid = patches.lattice((rows, cols), stride)
    assert grid.shape == (-(-rows // stride), -(-cols // stride), 2)
    for axis, size in enumerate((rows, cols)):
        marks = np.unique(grid[..., axis])
        assert np.abs(np.arange(size)[:, None] - marks).min(1).max() <= stride / 2


def test_the_lattice_has_the_affine_of_its_pixels():
    affine = np.array([[0, 0, -2.0, 5], [0, -2.0, 0, 7], [3.0, 0, 0, 1], [0, 0, 0, 1]])
    grid = patches.lattice((9, 10), 4)
    for i, j in np.ndindex(grid.shape[:2]):
        expected = affine @ [2, *grid[i, j], 1]
        found = patches.lattice_affine(affine, 4) @ [2, i, j, 1]
        np.testing.assert_allclose(found, expected)


def classes_of(label, classes=3):
    return label == np.arange(classes)[:, None, None]


def test_classes_are_drawn_in_equal_shares_wherever_they_lie():
    label = np.zeros((20, 30), int)
    label[3, 4:8], label[15:18, 20:25] = 1, 2
    uniform = np.random.default_rng(0).random(3000, np.float32)
    centres = patches.draw_centres(uniform, classes_of(label)).astype(int)
    drawn = label[centres[:, 0], centres[:, 1]]
    assert np.bincount(drawn).tolist() == [1000, 1000, 1000]
    # Each pixel of the smallest class comes as often as the others.
    counts = np.bincount(centres[drawn == 1][:, 1])[4:8]
    assert counts.min() > 200
    assert set(map(tuple, centres[drawn == 2])) == set(map(tuple, np.argwhere(label == 2)))


def test_an_absent_class_leaves_its_share_to_the_others():
    label = np.zeros((8, 8), int)
    label[2, 2] = 2
    centres = patches.draw_centres(np.linspace(0, 0.999, 10), classes_of(label)).astype(int)
    assert np.bincount(label[centres[:, 0], centres[:, 1]]).tolist() == [5, 0, 5]


def test_draws_are_the_same_on_host_and_device():
    label = np.random.default_rng(1).integers(0, 3, (13, 17))
    uniform = np.random.default_rng(2).random(64, np.float32)
    on_device = jax.jit(patches.draw_centres)(uniform, jnp.asarray(classes_of(label)))
    np.testing.assert_array_equal(on_device, patches.draw_centres(uniform, classes_of(label)))


@pytest.mark.parametrize("extreme", [0.0, np.nextafter(np.float32(1), np.float32(0))])
def test_the_first_and_the_last_pixel_of_a_class_can_be_drawn(extreme):
    inside = np.zeros((1, 5, 6), bool)
    inside[0, 1, 2] = inside[0, 3, 4] = True
    (centre,) = patches.draw_centres(np.array([extreme], np.float32), inside)
    assert centre.tolist() == ([1, 2] if extreme == 0 else [3, 4])


def test_without_candidates_the_first_pixel_stands_in():
    none = np.zeros((3, 4, 5), bool)
    assert patches.draw_centres(np.array([0.5]), none).tolist() == [[0, 0]]
    assert patches.draw_centres(jnp.array([0.5]), jnp.asarray(none)).tolist() == [[0, 0]]


def band_by_hand(mask, spacing, width):
    """Every pair of pixels of a slice, one on each side of the edge of some structure."""
    found = np.zeros(mask.shape, bool)
    pixels = np.argwhere(np.ones(mask.shape[1:], bool))
    far = (pixels[:, None] - pixels) * spacing
    near = np.hypot(far[..., 0], far[..., 1]) <= width + 1e-9
    for number, labels in enumerate(mask):
        flat = labels.ravel()
        for label in set(flat) - {0}:
            across = (flat == label)[:, None] != (flat == label)
            found[number] |= (near & across).any(1).reshape(labels.shape)
    return found


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("spacing", [(1.0, 1.0), (0.7, 1.6)])
@pytest.mark.parametrize("width", [0.5, 2.0, 3.5])
def test_band_agrees_with_all_pairs_of_pixels(seed, spacing, width):
    rng = np.random.default_rng(seed)
    smooth = ndimage.gaussian_filter(rng.normal(size=(3, 14, 15)), (0, 2, 2))
    mask = np.digitize(smooth, [0.02, 0.15]).astype(np.uint8)
    mask[1] = 0
    expected = band_by_hand(mask, spacing, width)
    np.testing.assert_array_equal(patches.band(mask, spacing, width), expected)
    assert not expected[1].any()


def test_the_border_of_the_image_is_no_edge():
    mask = np.ones((1, 6, 6), np.uint8)
    assert not patches.band(mask, (1.0, 1.0), 3.0).any()
