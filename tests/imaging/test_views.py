"""The fixed views of an example: how far they move, and that nothing of them is random."""

import jax
import jax.numpy as jnp
import numpy as np
from scipy import ndimage

from mskjax.imaging import views

moved = jax.jit(views.moved, static_argnums=0)


def moves(number):
    """Rotation, zoom, rows and columns of a view as fractions of what is allowed."""
    own = views.in_plane(number)
    return np.array(
        [
            float(own.rotation) / np.deg2rad(views.ROTATION),
            np.log(float(own.scale)) / np.log1p(views.SCALE),
            *(np.asarray(own.translation) / views.TRANSLATION),
        ]
    )


def test_the_first_view_is_the_example_and_the_others_are_pairs_about_it():
    np.testing.assert_array_equal(moves(0), 0)
    for pair in range(1, 9):
        one, other = moves(2 * pair - 1), moves(2 * pair)
        np.testing.assert_allclose(one, -other, atol=1e-4)
        assert np.abs(one).max() <= 1 + 1e-5


def test_views_fill_the_range_evenly():
    """Each half and each quarter of each move has its share of many pairs; no two are alike."""
    points = np.array([moves(2 * pair - 1) for pair in range(1, 65)])
    for move in points.T:
        shares, _ = np.histogram(move, bins=4, range=(-1, 1))
        assert shares.min() >= 8, shares  # of 16
    apart = np.abs(points[:, None] - points[None]).max(-1) + np.eye(64)
    assert apart.min() > 0.1


def test_half_of_many_views_are_mirrored_and_the_example_itself_is_not():
    mirrored = [views.is_mirrored(k) for k in range(9)]
    assert mirrored == [False, True, True, False, False, True, True, False, False]


def test_a_view_is_what_scipy_makes_of_its_motion():
    image = np.random.default_rng(0).normal(size=(1, 17, 12, 1)).astype(np.float32)
    own, (height, width) = views.in_plane(3), image.shape[1:3]
    angle, scale = float(own.rotation), float(own.scale)
    matrix = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]]) / scale
    centre = np.array([(height - 1) / 2, (width - 1) / 2])
    offset = centre - matrix @ (centre + np.asarray(own.translation) * [height, width])
    expected = ndimage.affine_transform(image[0, ..., 0], matrix, offset, order=1, cval=np.nan)
    found, known = np.asarray(moved(3, jnp.asarray(image)))[0, ..., 0], np.isfinite(expected)
    assert known.mean() > 0.7
    np.testing.assert_allclose(found[known], expected[known], atol=1e-3)
    assert found.min() >= image.min() - 1e-6  # what comes from outside is the minimum


def test_slices_and_channels_of_a_crop_move_alike():
    crops = np.random.default_rng(0).normal(size=(2, 3, 9, 8, 2)).astype(np.float32)
    crops[:, :, 0, 0] = -9  # one minimum for all
    found = moved(2, jnp.asarray(crops))
    assert found.shape == crops.shape
    for example in range(2):
        for k in range(3):
            alone = moved(2, jnp.asarray(crops[example : example + 1, k]))
            np.testing.assert_allclose(found[example, k], alone[0], atol=1e-6)
