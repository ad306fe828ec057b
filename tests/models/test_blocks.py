import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from mskjax.models.blocks import (
    Conv3D,
    ConvBlock2D,
    ConvBlock3D,
    Pointwise,
    UpConv2x2,
    UpConv3D,
    conv3d,
    max_pool_2x2,
    max_pool_3d,
    max_pool_3x3,
)
from mskjax.models.norms import add_bias, normalisation


def normal(seed, *shape):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


def value_and_gradients(function, *args):
    """The output and the gradients of a function that weighs each output differently."""

    @jax.jit
    def both(*args):
        out, pull = jax.vjp(function, *args)
        return out, pull(normal(99, *out.shape))

    return both(*args)


def assert_same_map(new, reference, *args, atol=1e-4):
    for ours, theirs in zip(
        jax.tree.leaves(value_and_gradients(new, *args)),
        jax.tree.leaves(value_and_gradients(reference, *args)),
        strict=True,
    ):
        np.testing.assert_allclose(ours, theirs, atol=atol)


def textbook_conv3d(x, kernel, stride):
    return lax.conv_general_dilated(
        x,
        kernel,
        (1, stride, stride),
        [(k // 2, k // 2) for k in kernel.shape[:3]],
        dimension_numbers=("NDHWC", "DHWIO", "NDHWC"),
    )


@pytest.mark.parametrize(
    ("shape", "kernel", "stride"),
    [
        ((2, 4, 6, 7, 3), (3, 3, 3), 1),
        ((2, 4, 6, 7, 3), (3, 3, 3), 2),
        ((1, 1, 5, 5, 2), (3, 3, 3), 2),
        ((1, 3, 9, 12, 1), (3, 7, 7), 2),
        ((1, 2, 3, 3, 2), (5, 1, 3), 1),
    ],
)
def test_conv3d_is_the_3d_convolution(shape, kernel, stride):
    weights = normal(1, *kernel, shape[-1], 4)
    assert_same_map(
        lambda x, k: conv3d(x, k, stride),
        lambda x, k: textbook_conv3d(x, k, stride),
        normal(0, *shape),
        weights,
    )


def test_conv3d_layer_takes_the_weights_of_flax_conv():
    x = normal(0, 2, 3, 6, 5, 2)
    flax_layer = nn.Conv(4, (3, 3, 3), padding=1, use_bias=False)
    variables = flax_layer.init(jax.random.key(1), x)
    ours, theirs = (jnp.asarray(m.apply(variables, x)) for m in (Conv3D(4), flax_layer))
    np.testing.assert_allclose(ours, theirs, atol=1e-5)


def test_upconv_is_the_transposed_convolution():
    x = normal(0, 2, 3, 5, 4)
    textbook, ours = nn.ConvTranspose(6, (2, 2), (2, 2)), UpConv2x2(6)
    params = {"kernel": normal(1, 2, 2, 4, 6), "bias": normal(2, 6)}
    assert jax.tree.map(jnp.shape, textbook.init(jax.random.key(0), x)["params"]) == jax.tree.map(
        jnp.shape, ours.init(jax.random.key(0), x)["params"]
    )

    def flipped(params):
        return {**params, "kernel": jnp.flip(params["kernel"], (0, 1))}

    assert_same_map(
        lambda x, p: ours.apply({"params": p}, x),
        lambda x, p: textbook.apply({"params": flipped(p)}, x),
        x,
        params,
    )


def test_upconv_initialisation_keeps_the_variance():
    x = normal(0, 4, 8, 8, 256)
    out, _ = UpConv2x2(64).init_with_output(jax.random.key(1), x)
    assert float(out.std()) == pytest.approx(1.0, abs=0.1)


@pytest.mark.parametrize(("height", "width"), [(6, 4), (7, 9)])
def test_max_pool_2x2_is_flax_max_pool(height, width):
    x = jnp.asarray(np.random.default_rng(0).permutation(2 * height * width * 3), jnp.float32)
    x = x.reshape(2, height, width, 3)  # no ties
    assert_same_map(max_pool_2x2, lambda x: nn.max_pool(x, (2, 2), (2, 2)), x)


@pytest.mark.parametrize(("height", "width"), [(6, 4), (7, 1)])
def test_max_pool_3x3_is_flax_max_pool(height, width):
    x = jnp.asarray(np.random.default_rng(0).permutation(2 * height * width * 3), jnp.float32)
    x = x.reshape(2, height, width, 3) - 20  # below zero too: the padding must not win
    assert_same_map(max_pool_3x3, lambda x: nn.max_pool(x, (3, 3), (2, 2), ((1, 1), (1, 1))), x)


def test_tied_maxima_share_the_gradient():
    for pool in (max_pool_2x2, max_pool_3x3):
        gradient = jax.grad(lambda x, pool=pool: pool(x).sum())(jnp.ones((1, 2, 2, 1)))
        np.testing.assert_allclose(gradient, 0.25)


@pytest.mark.parametrize("norm", ["batch", "group", "instance"])
def test_normalisation_statistics_are_float32(norm):
    """In bfloat16 a mean of 300 leaves a spread of 1 below the spacing of the numbers."""
    x = (300.0 + normal(0, 4, 16, 16, 16)).astype(jnp.float32)
    layer = normalisation(norm, True, jnp.bfloat16)
    (out, variables) = layer.init_with_output(jax.random.key(0), x)
    assert out.dtype == jnp.bfloat16
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(variables))
    assert float(out.astype(jnp.float32).std()) == pytest.approx(1.0, abs=0.05)
    assert float(out.astype(jnp.float32).mean()) == pytest.approx(0.0, abs=0.05)


def test_instance_norm_sees_one_example_and_one_channel():
    x = normal(0, 2, 4, 4, 3) * jnp.asarray([1.0, 10.0, 100.0])[None, None, None]
    layer = normalisation("instance", True, jnp.float32)
    out, _ = layer.init_with_output(jax.random.key(0), x)
    np.testing.assert_allclose(out.mean((1, 2)), 0.0, atol=1e-4)
    np.testing.assert_allclose(out.std((1, 2)), 1.0, atol=1e-2)


def test_unknown_norm_is_refused():
    with pytest.raises(ValueError, match=r"'layer'.*'batch', 'group' or 'instance'"):
        normalisation("layer", True, jnp.float32)  # type: ignore[arg-type]


def test_conv_block_repeats_and_has_no_bias():
    variables = ConvBlock2D(8, repeats=3).init(jax.random.key(0), normal(0, 1, 4, 4, 2), False)
    kernels = [v["kernel"].shape for k, v in sorted(variables["params"].items()) if "Conv" in k]
    assert kernels == [(3, 3, 2, 8), (3, 3, 8, 8), (3, 3, 8, 8)]
    assert not any("bias" in v for k, v in variables["params"].items() if "Conv" in k)


@pytest.mark.parametrize("slices", [1, 2])
def test_max_pool_3d_is_flax_max_pool(slices):
    x = jnp.asarray(np.random.default_rng(0).permutation(2 * 4 * 6 * 4 * 3), jnp.float32)
    x, window = x.reshape(2, 4, 6, 4, 3), (slices, 2, 2)  # no ties
    assert_same_map(lambda x: max_pool_3d(x, slices), lambda x: nn.max_pool(x, window, window), x)


@pytest.mark.parametrize("slices", [1, 2])
def test_up_convolution_over_slices_is_the_transposed_convolution(slices):
    window = (slices, 2, 2)
    kernel, bias, x = normal(1, *window, 3, 5), normal(2, 5), normal(0, 2, 3, 4, 5, 3)

    def textbook(x, kernel, bias):
        layer = nn.ConvTranspose(5, window, window)
        flipped = kernel[::-1, ::-1, ::-1]
        return layer.apply({"params": {"kernel": flipped, "bias": bias}}, x)

    def ours(x, kernel, bias):
        return UpConv3D(5, slices).apply({"params": {"kernel": kernel, "bias": bias}}, x)

    assert_same_map(ours, textbook, x, kernel, bias)


def test_conv_block_over_slices_has_kernels_of_its_size():
    block = ConvBlock3D(8, 2, (1, 3, 3))
    variables = jax.eval_shape(
        lambda: block.init(jax.random.key(0), normal(0, 1, 2, 4, 4, 2), False)
    )
    kernels = [v["kernel"].shape for k, v in sorted(variables["params"].items()) if "Conv" in k]
    assert kernels == [(1, 3, 3, 2, 8), (1, 3, 3, 8, 8)]
    assert not any("bias" in v for k, v in variables["params"].items() if "Conv" in k)


def test_pointwise_is_dense():
    x, params = normal(0, 2, 3, 5, 4), {"kernel": normal(1, 4, 6), "bias": normal(2, 6)}
    assert_same_map(
        lambda x, p: Pointwise(6).apply({"params": p}, x),
        lambda x, p: nn.Dense(6).apply({"params": p}, x),
        x,
        params,
    )


@pytest.mark.parametrize("shape", [(2, 3, 5, 4), (1, 7, 1, 4), (3, 4)])
def test_bias_and_its_gradient_are_those_of_a_sum(shape):
    assert_same_map(
        add_bias, lambda x, b: x + jnp.broadcast_to(b, x.shape), normal(0, *shape), normal(1, 4)
    )


@pytest.mark.parametrize("shape", [(1, 1, 3, 4), (3, 5, 2, 4)])
def test_upconv_in_half_precision_and_of_several_networks_is_the_transposed_convolution(shape):
    x, kernel, bias = normal(0, 2, *shape), normal(1, 2, 2, 4, 6), normal(2, 6)
    flipped = {"kernel": jnp.flip(kernel, (0, 1)), "bias": bias}
    textbook = nn.ConvTranspose(6, (2, 2), (2, 2), dtype=jnp.bfloat16)
    ours = UpConv2x2(6, jnp.bfloat16)
    found = jax.vmap(lambda x: ours.apply({"params": {"kernel": kernel, "bias": bias}}, x))(x)
    expected = jax.vmap(lambda x: textbook.apply({"params": flipped}, x))(x)
    assert found.dtype == jnp.bfloat16
    np.testing.assert_allclose(
        found.astype(jnp.float32), expected.astype(jnp.float32), rtol=0.02, atol=0.05
    )
