import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mskjax.models.roi_align import roi_align

# Op by op, each of a dozen small operations would be compiled by itself.
ALIGN = jax.jit(roi_align, static_argnums=(2, 3, 4, 5))

# Inside, over each edge, far outside, smaller than a pixel, empty, and ending before its start.
BOXES = np.array(
    [
        [4.0, 6.0, 20.0, 25.0],
        [-9.0, -5.0, 12.0, 9.0],
        [20.0, 30.0, 45.0, 50.0],
        [-60.0, 2.0, -30.0, 9.0],
        [9.1, 9.2, 9.6, 9.9],
        [8.0, 8.0, 8.0, 8.0],
        [12.0, 12.0, 6.0, 20.0],
        [1.0, 1.0, 4.0, 31.0],
    ],
    np.float32,
)


def features(height=8, width=9, channels=3):
    values = np.random.default_rng(0).normal(size=(height, width, channels))
    return np.asarray(values, np.float32)


def bilinear(image, y, x):
    """One sample, by the published rule for borders."""
    height, width = image.shape[:2]
    if y < -1 or y > height or x < -1 or x > width:
        return 0 * image[0, 0]
    y, x = max(y, 0.0), max(x, 0.0)
    y0, x0 = int(y), int(x)
    if y0 >= height - 1:
        y0 = y1 = height - 1
        y = float(y0)
    else:
        y1 = y0 + 1
    if x0 >= width - 1:
        x0 = x1 = width - 1
        x = float(x0)
    else:
        x1 = x0 + 1
    ly, lx = y - y0, x - x0
    return (
        (1 - ly) * (1 - lx) * image[y0, x0]
        + (1 - ly) * lx * image[y0, x1]
        + ly * (1 - lx) * image[y1, x0]
        + ly * lx * image[y1, x1]
    )


def loops(image, boxes, output, scale, ratio, aligned, stack=np.stack):
    """RoIAlign sample by sample; works on NumPy arrays and torch tensors alike."""
    result = []
    for box in np.float64(boxes):
        top, left, bottom, right = box * scale - (0.5 if aligned else 0)
        height, width = bottom - top, right - left
        if not aligned:
            height, width = max(height, 1), max(width, 1)
        for i in range(output[0]):
            for j in range(output[1]):
                samples = [
                    bilinear(
                        image,
                        top + (i + (a + 0.5) / ratio) * height / output[0],
                        left + (j + (c + 0.5) / ratio) * width / output[1],
                    )
                    for a in range(ratio)
                    for c in range(ratio)
                ]
                result.append(sum(samples[1:], samples[0]) / ratio**2)
    return stack(result).reshape(len(boxes), *output, -1)


@pytest.mark.parametrize("aligned", [True, False])
@pytest.mark.parametrize(("ratio", "output"), [(1, (2, 3)), (2, (7, 7)), (3, (1, 2))])
def test_is_the_loop_over_samples(aligned, ratio, output):
    image = features()
    with jax.numpy_dtype_promotion("strict"):
        found = ALIGN(jnp.asarray(image), jnp.asarray(BOXES), output, 0.25, ratio, aligned)
    assert found.shape == (len(BOXES), *output, 3)
    expected = loops(np.float64(image), BOXES, output, 0.25, ratio, aligned)
    np.testing.assert_allclose(found, expected, atol=2e-5)
    assert float(jnp.abs(found[3]).max()) == 0.0  # far outside


def test_aligned_reads_pixels_in_place():
    """A box on whole feature pixels, with one sample per cell, returns those pixels."""
    image = jnp.asarray(features())
    found = ALIGN(image, jnp.array([[8.0, 4.0, 24.0, 28.0]]), (4, 6), 0.25, 1)
    np.testing.assert_allclose(found[0], image[2:6, 1:7], atol=1e-6)


def test_mean_of_a_ramp_is_its_value_at_the_cell_centre():
    row, column = np.mgrid[:20, :20].astype(np.float32)
    image = jnp.asarray(np.stack([row, column], -1))
    found = ALIGN(image, jnp.array([[3.0, 5.0, 13.0, 9.0]]), (5, 2), 1.0)[0]
    np.testing.assert_allclose(found[:, 0, 0], 3.5 + np.arange(5) * 2, atol=1e-5)
    np.testing.assert_allclose(found[0, :, 1], 5.5 + np.arange(2) * 2, atol=1e-5)


def test_gradients_are_finite_differences():
    rng = np.random.default_rng(1)
    image, boxes = features(), BOXES[[0, 1, 7]] + 0.13  # off the kinks of the hat function
    upstream = rng.normal(size=(3, 2, 2, 3))

    def value(image, boxes):
        return (loops(image, boxes, (2, 2), 0.25, 2, True) * upstream).sum()

    @jax.jit
    @jax.grad
    def gradient(arguments):
        found = roi_align(*arguments, (2, 2), 0.25)
        return jnp.sum(found * jnp.asarray(upstream, jnp.float32))

    by_image, by_boxes = gradient((jnp.asarray(image), jnp.asarray(boxes)))
    step = 1e-4
    for index in [(0, 0, 0), (2, 3, 1), (7, 8, 2), (1, 2, 2), (5, 6, 0)]:
        moved = np.zeros(image.shape)
        moved[index] = step
        slope = (value(image + moved, boxes) - value(image - moved, boxes)) / (2 * step)
        assert float(by_image[index]) == pytest.approx(slope, abs=1e-4)
    for index in [(0, 0), (0, 3), (1, 2), (2, 1)]:
        moved = np.zeros(boxes.shape)
        moved[index] = step
        slope = (value(image, boxes + moved) - value(image, boxes - moved)) / (2 * step)
        assert float(by_boxes[index]) == pytest.approx(slope, abs=1e-3)
    assert float(jnp.abs(by_image).sum()) > 1


def test_gradient_of_all_features_is_that_of_torch():
    torch = pytest.importorskip("torch", reason="the oracle of the gradient needs PyTorch")
    image = torch.tensor(features(), dtype=torch.float64, requires_grad=True)
    upstream = np.random.default_rng(2).normal(size=(len(BOXES), 2, 2, 3))
    found = loops(image, BOXES, (2, 2), 0.25, 2, True, stack=torch.stack)
    (found * torch.tensor(upstream)).sum().backward()

    @jax.jit
    def gradient(image, upstream):
        return jax.vjp(lambda f: roi_align(f, jnp.asarray(BOXES), (2, 2), 0.25), image)[1](upstream)

    (ours,) = gradient(jnp.asarray(features()), jnp.asarray(upstream, jnp.float32))
    np.testing.assert_allclose(ours, image.grad.numpy(), atol=1e-4)


def test_half_precision_features_keep_float32_positions():
    image = jnp.asarray(features()).astype(jnp.bfloat16)
    found = ALIGN(image, jnp.asarray(BOXES), (7, 7), 0.25)
    assert found.dtype == jnp.bfloat16
    exact = ALIGN(jnp.asarray(features()), jnp.asarray(BOXES), (7, 7), 0.25)
    np.testing.assert_allclose(found.astype(jnp.float32), exact, atol=0.05)


def test_bad_ratio_is_refused():
    with pytest.raises(ValueError, match="sampling_ratio is 0"):
        roi_align(jnp.asarray(features()), jnp.asarray(BOXES), (7, 7), 0.25, 0)
