import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from tfds_builders.phantoms.acquisition import (
    SAGITTAL_T1,
    SAGITTAL_T2,
    Protocol,
    bias_field,
    render,
    rician_noise,
    smooth_noise,
    spin_echo_signal,
    surface_coil,
    tissue_signal,
)
from tfds_builders.phantoms.tissues import TISSUES


def test_spin_echo_at_points_known_by_hand():
    # TR = T1 ln 2 recovers half, TE = T2 ln 2 leaves half of that.
    assert spin_echo_signal(0.8, 900.0, 60.0, 900 * np.log(2), 60 * np.log(2)) == pytest.approx(0.2)
    assert spin_echo_signal(0.8, 900.0, 60.0, 1e9, 0.0) == pytest.approx(0.8)
    assert spin_echo_signal(0.8, 900.0, 60.0, 0.0, 10.0) == 0


def test_spin_echo_agrees_with_the_bloch_equation():
    """Integrates dMz/dt and dMxy/dt step by step through one steady-state period."""
    pd, t1, t2, tr, te, dt = 0.9, 700.0, 80.0, 500.0, 30.0, 0.01
    mz = 0.0  # a 90 degree pulse has just tipped everything; TE << TR as in the closed form
    for _ in range(round(tr / dt)):
        mz += dt * (pd - mz) / t1
    mxy = mz
    for _ in range(round(te / dt)):
        mxy -= dt * mxy / t2
    assert spin_echo_signal(pd, t1, t2, tr, te) == pytest.approx(mxy, rel=1e-3)


def test_contrast_is_that_of_lumbar_mr():
    t2 = {name: tissue_signal(TISSUES[name], SAGITTAL_T2) for name in TISSUES}
    t1 = {name: tissue_signal(TISSUES[name], SAGITTAL_T1) for name in TISSUES}
    assert t2["csf"] > t2["vertebral_marrow"] > t2["muscle"] > t2["annulus"] > t2["cortical_bone"]
    assert t1["fat"] > t1["vertebral_marrow"] > t1["spinal_cord"] > t1["csf"]
    # Modic's signature, relative to normal marrow.
    assert t1["oedematous_marrow"] < t1["vertebral_marrow"] < t1["fatty_marrow"]
    assert t2["oedematous_marrow"] > t2["vertebral_marrow"]
    assert t2["fatty_marrow"] > t2["vertebral_marrow"]
    for weighting in (t1, t2):
        assert weighting["sclerotic_bone"] < 0.5 * weighting["vertebral_marrow"]
    # Tumour replaces marrow fat: dark on T1, not dark on T2.
    assert t1["tumour"] < 0.7 * t1["vertebral_marrow"]


@settings(max_examples=15)
@given(st.integers(0, 1000), st.tuples(*[st.integers(1, 3)] * 3))
def test_partial_volume_conserves(seed, factors):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 5, [n * f for n, f in zip((2, 4, 3), factors, strict=True)], np.uint8)
    values = rng.random(5)
    image = render(labels, values, factors)
    assert image.shape == (2, 4, 3)
    assert image.mean() == pytest.approx(values[labels].mean(), rel=1e-5)
    shares = np.stack([render(labels, np.arange(5) == k, factors) for k in range(5)])
    np.testing.assert_allclose(shares.sum(axis=0), 1, rtol=1e-6)
    # The signal of a voxel is the mean of its tissues' signals, weighted by their shares.
    np.testing.assert_allclose(np.tensordot(values, shares, 1), image, rtol=1e-5)


def test_render_averages_the_right_neighbours():
    labels = np.zeros((1, 4, 4), np.uint8)
    labels[0, :2, 2:] = 1
    labels[0, 3, 0] = 1
    np.testing.assert_allclose(render(labels, np.array([0, 4]), (1, 2, 2)), [[[0, 4], [1, 0]]])


def test_render_refuses_a_ragged_map():
    with pytest.raises(ValueError, match="do not divide"):
        render(np.zeros((2, 5, 6), np.uint8), np.ones(1), (2, 2, 2))


def test_noise_follows_rice():
    sigma, n = 3.0, 200_000
    air = rician_noise(np.random.default_rng(0), np.zeros(n, np.float32), sigma)
    assert air.dtype == np.float32
    assert air.mean() == pytest.approx(sigma * np.sqrt(np.pi / 2), rel=0.01)
    assert air.std() == pytest.approx(sigma * np.sqrt(2 - np.pi / 2), rel=0.01)
    tissue = rician_noise(np.random.default_rng(1), np.full(n, 6.0, np.float32), sigma)
    assert stats.kstest(tissue[:5000], stats.rice(2.0, scale=sigma).cdf).pvalue > 0.01
    bright = rician_noise(np.random.default_rng(2), np.full(n, 300.0, np.float32), sigma)
    assert bright.mean() == pytest.approx(300.0, rel=1e-3)
    assert bright.std() == pytest.approx(sigma, rel=0.01)


def test_bias_field_is_smooth_positive_and_of_the_asked_strength():
    field = bias_field(np.random.default_rng(4), (5, 40, 30), 0.2)
    assert field.dtype == np.float32
    log = np.log(field)
    assert log.std() == pytest.approx(0.2, rel=1e-3)
    assert log.mean() == pytest.approx(0, abs=1e-4)
    assert np.abs(np.diff(log, axis=1)).max() < 0.2  # no step between neighbours
    np.testing.assert_array_equal(bias_field(np.random.default_rng(4), (5, 40, 30), 0.0), 1)
    assert np.isfinite(bias_field(np.random.default_rng(4), (1, 40, 30), 0.2)).all()


def test_smooth_noise_passes_through_its_knots():
    noise = smooth_noise(np.random.default_rng(5), (1, 13, 9), (1, 5, 3))
    knots = np.random.default_rng(5).standard_normal((1, 5, 3))
    np.testing.assert_allclose(noise[:, ::3, ::4], knots, atol=1e-5)


def test_surface_coil_on_axis():
    assert surface_coil(np.array(0.0), 100) == 1
    assert surface_coil(np.array(100.0), 100) == pytest.approx(2**-1.5)


@pytest.mark.parametrize(
    ("change", "message"),
    [({"tr_ms": 0.0}, "tr_ms must be positive"), ({"slice_pitch_mm": 2.0}, "slices overlap")],
)
def test_impossible_protocols_are_refused(change, message):
    usual = {
        "weighting": "T2",
        "tr_ms": 3500.0,
        "te_ms": 100.0,
        "pixel_mm": 1.0,
        "slice_thickness_mm": 4.0,
        "slice_pitch_mm": 4.0,
    }
    with pytest.raises(ValueError, match=message):
        Protocol(**(usual | change))
