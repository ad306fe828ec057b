"""Normalisations against their formulas, and what they promise of any image."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from mskjax.imaging import intensity
from mskjax.imaging.intensity import Landmarks

IMAGES = arrays(np.float32, (3, 5, 4), elements=st.floats(-1000, 4000, width=32))
FLAT = np.full((2, 3, 4), 7, np.int16)


@settings(max_examples=30)
@given(IMAGES)
def test_ranges(image):
    for scaled in (intensity.min_max(image), intensity.percentile(image, 5, 95)):
        assert scaled.dtype == np.float32
        assert scaled.shape == image.shape
        assert scaled.min() >= 0
        assert scaled.max() <= 1
    if np.ptp(image) > 1:
        assert intensity.min_max(image).max() == 1
        standard = intensity.z_score(image)
        assert abs(standard.mean()) < 1e-4
        assert abs(standard.std() - 1) < 1e-4


@settings(max_examples=30)
@given(IMAGES, st.floats(0.1, 50), st.floats(-100, 100))
def test_gain_and_offset_of_the_scanner_do_not_matter(image, gain, offset):
    image = np.round(image).astype(np.float64)
    if np.ptp(image) < 10:
        return
    other = image * gain + offset
    for normalise in (intensity.min_max, intensity.percentile, intensity.z_score):
        np.testing.assert_allclose(normalise(other), normalise(image), atol=1e-4)


def test_flat_images_become_zero():
    for normalise in (intensity.min_max, intensity.percentile, intensity.z_score):
        np.testing.assert_array_equal(normalise(FLAT), np.zeros(FLAT.shape, np.float32))


def test_none_keeps_the_values():
    np.testing.assert_array_equal(intensity.none(FLAT), FLAT)
    assert intensity.none(FLAT).dtype == np.float32


def test_percentile_of_a_ramp():
    ramp = np.arange(101)
    scaled = intensity.percentile(ramp, 10, 90)
    np.testing.assert_allclose(scaled, np.clip((ramp - 10) / 80, 0, 1), rtol=1e-6)
    with pytest.raises(ValueError, match="lo < hi"):
        intensity.percentile(ramp, 90, 10)


def test_tissue_reference():
    scaled = intensity.tissue_reference(np.array([0, 100, 200, 400, 9000]), 100)
    np.testing.assert_allclose(scaled, [0, 0.25, 0.5, 1, 1])
    with pytest.raises(ValueError, match="positive"):
        intensity.tissue_reference(FLAT, 0)


def tissues(rng: np.random.Generator, gain: float, gamma: float) -> np.ndarray:
    image = np.concatenate([rng.normal(m, 0.02, 3000) for m in (0.0, 0.35, 0.6, 0.9)]).clip(0, None)
    return gain * image**gamma


def test_landmarks_align_the_tissues_of_unlike_scanners():
    rng = np.random.default_rng(0)
    landmarks = Landmarks.fit(tissues(rng, g, c) for g, c in ((300, 1), (900, 1.3), (50, 0.8)))
    a = landmarks.apply(tissues(rng, 2000, 0.9))
    b = landmarks.apply(tissues(rng, 100, 1.2))
    for tissue in (1, 2, 3):  # 0 is air: no landmark lies there
        where = slice(3000 * tissue, 3000 * (tissue + 1))
        assert abs(np.median(a[where]) - np.median(b[where])) < 0.02
    before = [intensity.min_max(tissues(rng, g, c)) for g, c in ((2000, 0.9), (100, 1.2))]
    assert abs(np.median(before[0][3000:6000]) - np.median(before[1][3000:6000])) > 0.05


@settings(max_examples=30)
@given(IMAGES)
def test_landmarks_keep_the_order_of_intensities(image):
    landmarks = Landmarks((1, 50, 99), (0.0, 0.3, 1.0))
    out = landmarks.apply(image).ravel()[np.argsort(image, axis=None)]
    assert (np.diff(out) >= -1e-5 * max(1.0, float(np.abs(out).max()))).all()


def test_landmarks_that_float32_cannot_tell_apart_are_one():
    image = np.full(60, 4.4117e-41, np.float32)
    image[:2] = 0, -1
    out = Landmarks((1, 50, 99), (0.0, 0.3, 1.0)).apply(image)
    assert np.isfinite(out).all()
    assert np.ptp(out[2:]) == 0


def test_landmarks_map_an_image_of_the_standard_shape_to_its_percentiles():
    body = np.linspace(100, 300, 2001)
    image = np.concatenate([np.zeros(4000), body])
    landmarks = Landmarks((0, 50, 100), (0.0, 0.2, 1.0))
    out = landmarks.apply(image)[4000:]
    np.testing.assert_allclose(out[[0, 500, 1000, 1500, 2000]], [0, 0.1, 0.2, 0.6, 1], atol=1e-6)
    assert landmarks.apply(np.append(image, 0.0))[-1] == pytest.approx(-0.2, abs=1e-3)


def test_landmarks_survive_json():
    landmarks = Landmarks.fit([np.arange(1000.0), np.arange(1000.0) ** 2])
    assert Landmarks.from_json(landmarks.to_json()) == landmarks
    with pytest.raises(ValueError, match="no image"):
        Landmarks.fit([FLAT])
    np.testing.assert_array_equal(landmarks.apply(FLAT), np.zeros(FLAT.shape))
