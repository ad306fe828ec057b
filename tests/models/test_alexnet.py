import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from mskjax.models.alexnet import AlexNet
from mskjax.models.blocks import max_pool_3x3
from mskjax.models.summary import parameter_count

HEADS = (("bone", 3), ("edge", 2))
PATCHES = AlexNet(HEADS, width=4, stem=(3, 1, 1), hidden=10)


def images(channels=1, rows=32, columns=32):
    values = np.random.default_rng(0).normal(size=(2, rows, columns, channels))
    return jnp.asarray(values, jnp.float32)


def init(model, x):
    return jax.jit(lambda x: model.init(jax.random.key(1), x, train=False))(x)


@functools.partial(jax.jit, static_argnums=(0, 3))
def apply(model, variables, x, train=False, seed=0, tap=None):
    rngs = {"dropout": jax.random.key(seed)}
    return model.apply(
        variables, x, train=train, tap=tap, rngs=rngs, mutable=["batch_stats", "intermediates"]
    )


def shapes(model, size, channels=3):
    x = jnp.zeros((1, size, size, channels))
    return jax.eval_shape(
        lambda: model.init_with_output(
            jax.random.key(0), x, train=False, mutable=["params", "intermediates"]
        )
    )


def test_parameter_count_and_map_of_the_published_network():
    _, state = shapes(AlexNet((("imagenet", 1000),)), 224)
    assert parameter_count(state["params"]) == 61_100_840
    assert state["intermediates"]["features"][0].shape == (1, 13, 13, 256)


def test_width_scales_every_convolution():
    _, state = shapes(AlexNet(HEADS, width=16), 224)
    widths = [state["params"][f"conv_{i}"]["bias"].shape[0] for i in range(1, 6)]
    assert widths == [16, 48, 96, 64, 64]


def test_small_patches_with_a_small_stem():
    with jax.numpy_dtype_promotion("strict"):
        logits, state = apply(PATCHES, init(PATCHES, images()), images())
    assert {name: (v.shape, v.dtype) for name, v in logits.items()} == {
        "bone": ((2, 3), jnp.float32),
        "edge": ((2, 2), jnp.float32),
    }
    assert state["intermediates"]["features"][0].shape == (2, 7, 7, 16)


@pytest.mark.parametrize(("size", "fits"), [(63, True), (62, False)])
def test_images_that_vanish_are_refused(size, fits):
    if fits:
        shapes(AlexNet(HEADS), size)
    else:
        with pytest.raises(ValueError, match=f"images of {size} x {size} pixels are too small"):
            shapes(AlexNet(HEADS), size)


def test_bfloat16_keeps_float32_parameters_and_logits():
    model = PATCHES.clone(dtype=jnp.bfloat16, mix=True)
    variables = init(model, images(6))
    assert variables["params"]["mix"]["kernel"].shape == (6, 3)
    assert variables["params"]["conv_1"]["kernel"].shape == (3, 3, 3, 4)
    logits, _ = apply(model, variables, images(6))
    assert all(v.dtype == jnp.float32 for v in jax.tree.leaves((logits, variables)))
    exact, _ = apply(model.clone(dtype=jnp.float32), variables, images(6))
    for name in exact:
        np.testing.assert_allclose(logits[name], exact[name], atol=0.05)


def test_dropout_acts_in_training_only():
    variables = init(PATCHES, images())

    def graded(train, seed):
        return apply(PATCHES, variables, images(), train, seed)[0]["bone"]

    np.testing.assert_array_equal(graded(False, 0), graded(False, 1))
    np.testing.assert_array_equal(graded(True, 0), graded(True, 0))
    assert float(jnp.abs(graded(True, 0) - graded(True, 1)).max()) > 0


def test_the_tap_replaces_the_last_map():
    variables = init(PATCHES, images())
    logits, state = apply(PATCHES, variables, images())
    (features,) = state["intermediates"]["features"]
    # Image 0 with the features of image 1 gets the logits of image 1.
    swapped, _ = apply(PATCHES, variables, images(), tap=features[::-1] - features)
    np.testing.assert_allclose(swapped["bone"], logits["bone"][::-1], atol=1e-5)
    assert float(jnp.abs(logits["bone"][0] - logits["bone"][1]).max()) > 1e-3


@pytest.mark.parametrize("shape", [(2, 13, 13, 3), (1, 8, 3, 2), (2, 6, 11, 1)])
def test_max_pool_3x3_without_padding_is_flax_max_pool(shape):
    x = jnp.asarray(np.random.default_rng(2).normal(size=shape), jnp.float32)
    weights = jnp.asarray(np.random.default_rng(3).normal(size=shape), jnp.float32)

    def ours(x):
        return max_pool_3x3(x, padding=0)

    def textbook(x):
        return nn.max_pool(x, (3, 3), (2, 2))

    np.testing.assert_array_equal(ours(x), textbook(x))
    (_, tangent), (_, expected) = (jax.jvp(f, (x,), (weights,)) for f in (ours, textbook))
    np.testing.assert_allclose(tangent, expected, atol=1e-6)
