"""Batch normalisation in the form of `models.norms` against `flax.linen.BatchNorm`."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from mskjax.models.norms import BatchNorm, channel_sums, normalised_relu


def normal(seed, *shape):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


class Textbook(nn.Module):
    """What Flax has, under the names that `Ours` has."""

    train: bool
    relu: bool
    dtype: str

    @nn.compact
    def __call__(self, x):
        x = nn.BatchNorm(not self.train, momentum=0.9, dtype=jnp.dtype(self.dtype))(x)
        return nn.relu(x) if self.relu else x


class Ours(Textbook):
    @nn.compact
    def __call__(self, x):
        return BatchNorm(self.train, self.relu, jnp.dtype(self.dtype))(x)


def variables_for(channels):
    """Parameters and statistics that leave nothing out."""
    return {
        "params": {"BatchNorm_0": {"scale": 1 + normal(1, channels), "bias": normal(2, channels)}},
        "batch_stats": {
            "BatchNorm_0": {"mean": normal(3, channels), "var": normal(4, channels) ** 2 + 0.5}
        },
    }


def everything(layer, variables, x):
    """Output, new statistics, and gradients of parameters and input."""

    @jax.jit
    def run(params, x):
        def apply(params, x):
            return layer.apply({**variables, "params": params}, x, mutable=["batch_stats"])

        y, pull, updates = jax.vjp(apply, params, x, has_aux=True)
        return y, updates, pull(normal(99, *y.shape).astype(y.dtype))

    return run(variables["params"], x)


def assert_close(ours, theirs, **tolerance):
    assert jax.tree.structure(ours) == jax.tree.structure(theirs)
    for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        assert a.dtype == b.dtype
        np.testing.assert_allclose(
            np.asarray(a, np.float32), np.asarray(b, np.float32), **tolerance
        )


@pytest.mark.parametrize("relu", [False, True])
@pytest.mark.parametrize("train", [False, True])
@pytest.mark.parametrize("shape", [(2, 5, 7, 3), (1, 4, 3, 5), (2, 3, 4, 5, 2), (6, 4), (1, 1, 3)])
def test_batch_norm_is_that_of_flax(shape, train, relu):
    x, variables = 3 * normal(0, *shape) + 1, variables_for(shape[-1])
    layers = [kind(train, relu, "float32") for kind in (Ours, Textbook)]
    assert_close(*(everything(layer, variables, x) for layer in layers), rtol=1e-4, atol=1e-4)


def test_batch_norm_starts_as_that_of_flax():
    x = normal(0, 2, 4, 4, 3)
    ours, theirs = (
        kind(True, False, "float32").init(jax.random.key(0), x) for kind in (Ours, Textbook)
    )
    assert_close(ours, theirs, rtol=0)


@pytest.mark.parametrize("relu", [False, True])
def test_batch_norm_in_half_precision_is_that_of_flax(relu):
    """Statistics and their gradients are float32; only what enters and leaves is rounded."""
    x, variables = normal(0, 4, 6, 5, 3).astype(jnp.bfloat16), variables_for(3)
    layers = [kind(True, relu, "bfloat16") for kind in (Ours, Textbook)]
    ours, theirs = (everything(layer, variables, x) for layer in layers)
    assert ours[0].dtype == jnp.bfloat16
    assert_close(ours, theirs, rtol=0.02, atol=0.02)


def test_batch_norm_of_several_networks_at_once_is_that_of_each():
    x, variables = normal(0, 3, 2, 4, 5, 3), variables_for(3)
    layer = Ours(True, True, "float32")
    together = jax.vmap(lambda x: everything(layer, variables, x))(x)
    for k in range(3):
        own = everything(layer, variables, x[k])
        assert_close(jax.tree.map(lambda v, k=k: v[k], together), own, rtol=1e-4, atol=1e-5)


def test_batch_norm_of_a_divided_batch_is_that_of_the_whole():
    devices = jax.devices()
    if len(devices) < 2:
        pytest.skip("one device")
    x, variables = normal(0, 4, 6, 5, 3), variables_for(3)
    layer = Ours(True, True, "float32")
    divided = NamedSharding(Mesh(np.array(devices[:2]), ("data",)), PartitionSpec("data"))
    assert_close(
        everything(layer, variables, jax.device_put(x, divided)),
        everything(layer, variables, x),
        rtol=1e-4,
        atol=1e-5,
    )


def test_gradient_of_a_constant_channel_is_finite():
    x, variables = jnp.full((2, 3, 3, 2), 7.3), variables_for(2)
    found = everything(Ours(True, True, "float32"), variables, x)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(found))


@pytest.mark.parametrize("shape", [(6, 64, 48, 16), (3, 5, 7, 2), (4, 3), (5, 1)])
def test_channel_sums_are_sums(shape):
    x = normal(0, *shape) + 2
    exact = np.asarray(x, np.float64).sum(tuple(range(x.ndim - 1)))
    np.testing.assert_allclose(jax.jit(channel_sums)(x), exact, rtol=2e-6)


@pytest.mark.parametrize("norm", ["batch", "group", "instance"])
def test_relu_follows_every_normalisation(norm):
    class Layer(nn.Module):
        @nn.compact
        def __call__(self, x):
            return normalised_relu(x, norm, True, jnp.float32, "here")

    out, variables = Layer().init_with_output(jax.random.key(0), normal(0, 2, 4, 4, 8))
    assert float(out.min()) == 0.0
    assert float((out > 0).mean()) == pytest.approx(0.5, abs=0.1)
    assert list(variables["params"]) == ["here"]
