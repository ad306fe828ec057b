"""How images are varied, beside NumPy and SciPy; `test_augment` has the slices."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from mskjax.imaging.appearance import Appearance, vary

SHAPE = (3, 9, 8, 2)
NEUTRAL = {"gain": 1.0, "gamma": 1.0, "contrast": 1.0, "noise": 0.0, "blur": 0.0}
FIELD = (0.1, -0.05, 0.02, 0.04, -0.03)

varied = jax.jit(vary)


def drawn(seed=0, bias_field=(0.0,) * 5, **changes):
    numbers = {k: jnp.float32(v) for k, v in (NEUTRAL | changes).items()}
    return Appearance(
        bias_field=jnp.asarray(bias_field, jnp.float32), noise_key=jax.random.key(seed), **numbers
    )


def crop(seed=0, shape=SHAPE):
    """Two channels of other scales, both with negative values, as z-scores have."""
    image = np.random.default_rng(seed).normal(size=shape) * [1.0, 40.0] + [0.0, -300.0]
    return image.astype(np.float32)


def extremes(image):
    axes = tuple(range(image.ndim - 1))
    return (jnp.asarray(f(image, axes, keepdims=True)) for f in (np.min, np.max))


def by_hand(image, gain, gamma, contrast, bias_field, blur):
    """The formulas one after another, in float64."""
    axes = (0, 1, 2)
    low, high = image.min(axes, keepdims=True), image.max(axes, keepdims=True)
    unit = (image.astype(float) - low) / (high - low)
    r, c = np.linspace(-1, 1, image.shape[1])[:, None], np.linspace(-1, 1, image.shape[2])[None]
    terms = np.array([r + 0 * c, c + 0 * r, r * c, r * r + 0 * c, c * c + 0 * r])
    field = np.exp(np.tensordot(bias_field, terms, 1))[None, ..., None]
    found = unit**gamma * gain * field
    mean = found.mean(axes, keepdims=True)
    found = mean + contrast * (found - mean)
    found = ndimage.gaussian_filter(found, (0, blur, blur, 0), mode="nearest", radius=2)
    return low + (high - low) * found


@settings(max_examples=15, deadline=None)
@given(
    gain=st.floats(0.8, 1.25),
    gamma=st.floats(0.7, 1.4),
    contrast=st.floats(0.8, 1.2),
    field=st.lists(st.floats(-0.2, 0.2), min_size=5, max_size=5),
    blur=st.floats(0.2, 1.0),
)
def test_a_crop_is_varied_as_numpy_and_scipy_would(gain, gamma, contrast, field, blur):
    image = crop()
    draw = drawn(gain=gain, gamma=gamma, contrast=contrast, bias_field=field, blur=blur)
    expected = by_hand(image, gain, gamma, contrast, field, blur)
    found = varied(draw, jnp.asarray(image), *extremes(image))
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-3)


@given(seed=st.integers(0, 99))
@settings(max_examples=10, deadline=None)
def test_what_is_neutral_changes_no_bit(seed):
    image = crop(seed)
    np.testing.assert_array_equal(varied(drawn(), jnp.asarray(image), *extremes(image)), image)


def test_each_parameter_alone_changes_the_crop():
    image = crop()
    for change in (
        {"gain": 1.1}, {"gamma": 1.2}, {"contrast": 0.9}, {"bias_field": FIELD}, {"noise": 0.02},
        {"blur": 0.5},
    ):  # fmt: skip
        found = np.asarray(varied(drawn(**change), jnp.asarray(image), *extremes(image)))
        # In every slice of every channel.
        assert (np.abs(found - image).max((1, 2)) > 0.005 * np.ptp(image, (0, 1, 2))).all(), change


def test_a_sequence_that_is_missing_stays_missing():
    image = crop()
    image[..., 0] = 0
    draw = drawn(1, FIELD, gain=1.1, gamma=1.2, contrast=0.9, noise=0.1, blur=0.8)
    found = varied(draw, jnp.asarray(image), *extremes(image))
    np.testing.assert_array_equal(found[..., 0], 0)
    assert float(jnp.abs(found - image)[..., 1].max()) > 1


def test_slices_share_field_and_blur_and_noise_is_each_voxels_own():
    image = np.broadcast_to(crop()[:1], SHAPE)
    smooth = varied(drawn(0, FIELD, blur=0.7), jnp.asarray(image), *extremes(image))
    np.testing.assert_allclose(smooth[0], smooth[2], atol=1e-5)
    noisy = np.asarray(varied(drawn(noise=0.05), jnp.asarray(image), *extremes(image))) - image
    assert abs(np.corrcoef(noisy[0].ravel(), noisy[2].ravel())[0, 1]) < 0.3


def test_noise_is_a_fraction_of_each_channels_range():
    image = crop(shape=(4, 40, 40, 2))
    noise = np.asarray(varied(drawn(noise=0.05), jnp.asarray(image), *extremes(image))) - image
    assert noise.std((0, 1, 2)) / np.ptp(image, (0, 1, 2)) == pytest.approx([0.05] * 2, rel=0.05)


def test_the_result_does_not_depend_on_the_normalisation():
    image = crop()
    draw = drawn(3, FIELD, gain=0.95, gamma=1.1, contrast=1.1, noise=0.02, blur=0.4)
    found = varied(draw, jnp.asarray(image), *extremes(image))
    other = 300 * image - 40
    again = varied(draw, jnp.asarray(other), *extremes(other))
    span = np.ptp(other, (0, 1, 2))
    np.testing.assert_allclose(
        np.asarray(again) / span, (300 * np.asarray(found) - 40) / span, atol=1e-4
    )


@pytest.mark.parametrize("plane", [(3, 4), (4, 5), (5, 2), (7, 1)])
def test_planes_narrower_than_the_blur_are_blurred_as_scipy_would(plane):
    image = crop(shape=(2, *plane, 2))
    expected = by_hand(image, 1.0, 1.0, 1.0, FIELD, 0.8)
    found = varied(drawn(bias_field=FIELD, blur=0.8), jnp.asarray(image), *extremes(image))
    np.testing.assert_allclose(found, expected, atol=2e-3)


def test_one_channel_is_varied_as_it_is_among_others():
    image, draw = crop(), drawn(gain=1.1, gamma=1.2, contrast=0.9, bias_field=FIELD, blur=0.7)
    together = varied(draw, jnp.asarray(image), *extremes(image))
    for c in range(2):
        own = image[..., c : c + 1]
        found = varied(draw, jnp.asarray(own), *extremes(own))
        np.testing.assert_allclose(found, together[..., c : c + 1], rtol=1e-5, atol=1e-4)
