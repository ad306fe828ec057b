import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mskjax.models.blocks import adaptive_average_pool
from mskjax.models.summary import parameter_count
from mskjax.models.vgg import VGG

HEADS = (("goutallier", 5), ("fatty", 2))
TINY = VGG(HEADS, widths=(8, 16), convolutions=(1, 2), hidden=12, pool=(2, 3))


def images(channels=1, rows=16, columns=24):
    values = np.random.default_rng(0).normal(size=(2, rows, columns, channels))
    return jnp.asarray(values, jnp.float32)


def init(model, x):
    return jax.jit(lambda x: model.init(jax.random.key(1), x, train=False))(x)


@functools.partial(jax.jit, static_argnums=(0, 3))
def apply(model, variables, x, train=False, seed=0):
    rngs = {"dropout": jax.random.key(seed)}
    return model.apply(variables, x, train=train, rngs=rngs, mutable=["batch_stats"])[0]


@pytest.mark.parametrize(
    ("norm", "count", "collections"),
    [("none", 143_667_240, {"params"}), ("batch", 143_678_248, {"params", "batch_stats"})],
)
def test_parameter_count_of_the_published_network(norm, count, collections):
    model = VGG((("imagenet", 1000),), norm=norm)
    x = jnp.zeros((1, 224, 224, 3))
    variables = jax.eval_shape(lambda: model.init(jax.random.key(0), x, train=False))
    assert parameter_count(variables["params"]) == count
    assert set(variables) == collections


@pytest.mark.parametrize("norm", ["none", "batch", "group"])
def test_a_head_per_grading(norm):
    model = TINY.clone(norm=norm)
    with jax.numpy_dtype_promotion("strict"):
        logits = apply(model, init(model, images()), images())
    assert {name: (v.shape, v.dtype) for name, v in logits.items()} == {
        "goutallier": ((2, 5), jnp.float32),
        "fatty": ((2, 2), jnp.float32),
    }


@pytest.mark.parametrize("norm", ["none", "batch", "group"])
def test_bfloat16_keeps_float32_parameters_and_logits(norm):
    model = TINY.clone(norm=norm, dtype=jnp.bfloat16, mix=True)
    variables = init(model, images())
    logits = apply(model, variables, images())
    assert all(v.dtype == jnp.float32 for v in jax.tree.leaves((logits, variables)))
    exact = apply(model.clone(dtype=jnp.float32), variables, images())
    for name in exact:
        np.testing.assert_allclose(logits[name], exact[name], atol=0.05)


def test_mixing_takes_the_channels_to_three():
    model = TINY.clone(mix=True)
    x = images(channels=6)
    variables = init(model, x)
    params = variables["params"]
    assert params["mix"]["kernel"].shape == (6, 3)
    assert params["block_0_conv_0"]["kernel"].shape == (3, 3, 3, 8)
    mixed = x @ params["mix"]["kernel"] + params["mix"]["bias"][None, None, None]
    ours, plain = apply(model, variables, x), apply(TINY, variables, mixed)
    np.testing.assert_allclose(ours["fatty"], plain["fatty"], atol=1e-5)


def test_dropout_acts_in_training_only():
    variables = init(TINY, images())

    def graded(train, seed):
        return apply(TINY, variables, images(), train, seed)["goutallier"]

    np.testing.assert_array_equal(graded(False, 0), graded(False, 1))
    np.testing.assert_array_equal(graded(True, 0), graded(True, 0))
    assert float(jnp.abs(graded(True, 0) - graded(True, 1)).max()) > 0


def test_the_map_before_the_last_pooling_is_sown_and_tapped():
    model = TINY.clone(norm="batch")
    variables = init(model, images())
    assert set(variables) == {"params", "batch_stats"}

    @jax.jit
    def run(tap):
        return model.apply(variables, images(), train=False, tap=tap, mutable=["intermediates"])

    logits, state = run(None)
    (features,) = state["intermediates"]["features"]
    assert features.shape == (2, 8, 12, 16)
    assert float(features.min()) == 0 < float(features.max())
    # Taking all features away leaves what the biases make of nothing, the same for both images.
    tapped, _ = run(-features)
    np.testing.assert_allclose(tapped["fatty"][0], tapped["fatty"][1], atol=1e-6)
    assert float(jnp.abs(logits["fatty"][0] - logits["fatty"][1]).max()) > 1e-3


def test_images_that_vanish_are_refused():
    with pytest.raises(ValueError, match="images of 3 x 8 pixels are too small for 2 poolings"):
        init(TINY, images(rows=3, columns=8))
    with pytest.raises(ValueError, match=r"widths \(8, 16\) and convolutions \(1,\)"):
        init(TINY.clone(convolutions=(1,)), images())


@pytest.mark.parametrize(
    ("shape", "size"),
    [((7, 7), (7, 7)), ((14, 21), (7, 7)), ((10, 13), (6, 6)), ((1, 3), (7, 6)), ((8, 5), (1, 1))],
)
def test_adaptive_average_pool_agrees_with_pytorch(shape, size):
    torch = pytest.importorskip("torch", reason="the oracle is PyTorch")
    x = np.random.default_rng(1).normal(size=(2, *shape, 3)).astype(np.float32)
    expected = torch.nn.functional.adaptive_avg_pool2d(
        torch.from_numpy(np.moveaxis(x, -1, 1).copy()), size
    )
    ours = adaptive_average_pool(jnp.asarray(x), size)
    np.testing.assert_allclose(np.moveaxis(ours, -1, 1), expected, atol=1e-6)
    assert adaptive_average_pool(jnp.asarray(x, jnp.bfloat16), size).dtype == jnp.bfloat16


def test_adaptive_average_pool_by_hand():
    x = jnp.arange(5.0).reshape(1, 5, 1, 1)
    # Bins of 5 pixels in 3: 0 to 2, 1 to 4, 3 to 5.
    pooled = adaptive_average_pool(x, (3, 1))
    np.testing.assert_allclose(pooled[0, :, 0, 0], [0.5, 2.0, 3.5], atol=1e-6)
