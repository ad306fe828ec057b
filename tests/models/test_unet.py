import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mskjax.models.summary import parameter_count
from mskjax.models.unet import UNet

TINY = UNet(3, widths=(4, 8, 16))


def image(height, width, channels=1):
    values = np.random.default_rng(0).normal(size=(2, height, width, channels))
    return jnp.asarray(values, jnp.float32)


def init(model, x):
    return jax.jit(lambda x: model.init(jax.random.key(1), x, train=False))(x)


def logits_of(model, variables, x):
    return jax.jit(lambda v, x: model.apply(v, x, train=False))(variables, x)


@pytest.mark.parametrize(("height", "width"), [(13, 8), (1, 3)])
def test_logits_have_the_size_of_the_image(height, width):
    with jax.numpy_dtype_promotion("strict"):
        x = image(height, width)
        logits = logits_of(TINY, init(TINY, x), x)
    assert logits.shape == (2, height, width, 3)
    assert logits.dtype == jnp.float32


@pytest.mark.parametrize("norm", ["batch", "group"])
def test_bfloat16_computes_low_and_keeps_float32(norm):
    x = image(16, 12)
    low = UNet(3, (8, 16), norm, dtype="bfloat16")
    variables = init(low, x)
    logits = logits_of(low, variables, x)
    updates = jax.eval_shape(
        lambda: low.apply(variables, x, train=True, mutable=["batch_stats"])[1]
    )
    assert logits.dtype == jnp.float32
    assert all(v.dtype == jnp.float32 for v in jax.tree.leaves((variables, updates)))
    exact = logits_of(UNet(3, (8, 16), norm), variables, x)
    error = float(jnp.abs(logits - exact).max())
    assert 0 < error < 0.1 * float(jnp.abs(exact).max())


def test_parameter_count_is_the_hand_computation():
    """3x3 kernels without bias, 2 norm parameters a channel, 2x2 up-convolutions with bias."""
    x = image(8, 8, 2)
    variables = jax.eval_shape(lambda: TINY.init(jax.random.key(0), x, train=False))

    def block(inputs, width):
        return 9 * inputs * width + 9 * width * width + 4 * width

    down = block(2, 4) + block(4, 8) + block(8, 16)
    up = (4 * 16 * 8 + 8) + block(16, 8) + (4 * 8 * 4 + 4) + block(8, 4)
    assert parameter_count(variables["params"]) == down + up + (4 * 3 + 3)


def test_sees_far_and_keeps_place():
    """Deep levels reach far; a finest-level detail changes logits at its own place most."""
    x = image(32, 32)
    variables = init(TINY, x)
    changed = x.at[0, 9, 20, 0].add(1.0)
    change = jnp.abs(logits_of(TINY, variables, changed) - logits_of(TINY, variables, x)).sum(-1)
    assert np.unravel_index(change.argmax(), change.shape)[0] == 0
    rows, columns = np.nonzero(np.asarray(change[0]) > 0)
    assert max(abs(rows - 9).max(), abs(columns - 20).max()) > 8
    row, column = np.unravel_index(change[0].argmax(), (32, 32))
    assert max(abs(row - 9), abs(column - 20)) <= 2
    assert float(change[1].max()) == 0.0


def test_padding_is_cropped_in_place():
    """Zeros added by hand where the network adds them give the same logits in the middle."""
    x = image(9, 6)
    variables = init(TINY, x)
    by_hand = jnp.pad(x, ((0, 0), (1, 2), (1, 1), (0, 0)))
    np.testing.assert_allclose(
        logits_of(TINY, variables, by_hand)[:, 1:10, 1:7],
        logits_of(TINY, variables, x),
        atol=1e-6,
    )


def test_learns_to_copy_a_threshold():
    """A few steps of gradient descent halve the loss, so gradients reach all parameters."""
    x = image(16, 16)
    labels = (x[..., 0] > 0.3).astype(jnp.int32)
    variables = init(TINY, x)

    @jax.jit
    def step(params):
        def loss(params):
            logits, _ = TINY.apply(
                {**variables, "params": params}, x, train=True, mutable=["batch_stats"]
            )
            return -jnp.take_along_axis(jax.nn.log_softmax(logits), labels[..., None], -1).mean()

        value, gradient = jax.value_and_grad(loss)(params)
        return value, jax.tree.map(lambda p, g: p - 0.1 * g, params, gradient), gradient

    params = variables["params"]
    first, params, gradient = step(params)
    assert all(float(jnp.abs(g).max()) > 0 for g in jax.tree.leaves(gradient))
    for _ in range(30):
        last, params, _ = step(params)
    assert float(last) < 0.5 * float(first)


def test_is_hashable_and_compiles_once():
    assert hash(UNet(3, (4, 8))) == hash(UNet(3, (4, 8)))
    assert UNet(3, (4, 8)) != UNet(3, (4, 8), "group")
    traces = []

    @functools.partial(jax.jit, static_argnums=0)
    def forward(model, variables, x):
        traces.append(1)
        return model.apply(variables, x, train=False)

    variables = init(UNet(3, (4, 8)), image(8, 8))
    # A stage builds its network anew at each call; equal networks must share a program.
    forward(UNet(3, (4, 8)), variables, image(8, 8))
    forward(UNet(3, (4, 8)), variables, image(8, 8) + 1)
    assert len(traces) == 1


def test_a_stem_is_the_unet_of_blocks_of_pixels():
    """Each place of the finest level is a block of 2 x 2 pixels: seen as channels, told apart."""
    x = image(16, 24, 2)
    made = UNet(3, (4, 8, 16), stem=2)
    variables = init(made, x)
    inner = UNet(12, (4, 8, 16))
    pixels = np.asarray(x).reshape(2, 8, 2, 12, 2, 2).transpose(0, 1, 3, 2, 4, 5)
    of_blocks = logits_of(inner, variables, jnp.asarray(pixels.reshape(2, 8, 12, 8)))
    expected = np.zeros((2, 16, 24, 3), np.float32)
    for a in range(2):
        for b in range(2):
            own = slice(3 * (2 * a + b), 3 * (2 * a + b) + 3)
            expected[:, a::2, b::2] = of_blocks[..., own]
    np.testing.assert_allclose(logits_of(made, variables, x), expected, rtol=1e-4, atol=1e-5)
    odd = image(13, 7)
    assert logits_of(made, init(made, odd), odd).shape == (2, 13, 7, 3)
