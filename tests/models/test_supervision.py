"""The loss with weights, at one resolution and at several, against loops."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mskjax.models.losses import segmentation_loss
from mskjax.models.supervision import deep_loss
from mskjax.models.unet3d import Schedule, UNet3D, padding


def shares_of(rng, *shape):
    values = rng.dirichlet(np.full(shape[-1], 0.4), shape[:-1])
    return values.astype(np.float32)


def oracle(logits, shares, weights):
    """Loop over examples, voxels and classes in float64."""
    losses = []
    for z, t, w in zip(
        *(np.asarray(a, np.float64) for a in (logits, shares, weights)), strict=True
    ):
        entropy, total = 0.0, 0.0
        twice, both = np.zeros(z.shape[-1]), np.zeros(z.shape[-1])
        for place in np.ndindex(w.shape):
            p = np.exp(z[place] - z[place].max())
            p /= p.sum()
            total += w[place]
            entropy -= w[place] * (t[place] * np.log(p)).sum()
            both += w[place] * (p + t[place])
            twice += w[place] * 2 * np.minimum(p, t[place])
        dice = [1 - (a + 2) / (b + 2) for a, b in zip(twice[1:], both[1:], strict=True)]
        losses.append(entropy / total + np.mean(dice))
    return np.array(losses)


def test_shares_and_weights_against_a_loop():
    rng = np.random.default_rng(1)
    logits = rng.normal(size=(2, 2, 3, 4, 3)).astype(np.float32)
    shares, weights = shares_of(rng, 2, 2, 3, 4, 3), rng.uniform(size=(2, 2, 3, 4))
    weights = weights.astype(np.float32)
    found = segmentation_loss(jnp.asarray(logits), jnp.asarray(shares), jnp.asarray(weights))
    np.testing.assert_allclose(found, oracle(logits, shares, weights), rtol=1e-5)


def test_nothing_known_costs_nothing_and_passes_no_gradient():
    shares = jnp.asarray(shares_of(np.random.default_rng(3), 1, 2, 2, 2, 3))
    none = jnp.zeros(shares.shape[:-1])
    value, gradient = jax.value_and_grad(lambda z: segmentation_loss(z, shares, none).sum())(shares)
    assert float(value) == 0
    assert not np.asarray(gradient).any()


@pytest.mark.parametrize("shape", [(4, 8, 8), (3, 10, 6)])
def test_deep_supervision_against_numpy(shape):
    """Each resolution by the loop; its labels by averaging what is known, window by window."""
    rng = np.random.default_rng(4)
    net = UNet3D(3, Schedule((1, 3, 3, 3, 3), (1, 2, 1, 1)), (8,) * 5)
    padded = [n + sum(p) for n, p in zip(shape, padding(shape, net.multiple), strict=True)]
    grids = [[n // s for n, s in zip(padded, stride, strict=True)] for stride in net.strides]
    outputs = [
        rng.normal(size=(1, *grid, 3)).astype(np.float32) for grid in [list(shape), *grids[1:3]]
    ]
    shares = shares_of(rng, 1, *shape, 3)
    weights = (rng.uniform(size=(1, *shape)) < 0.6).astype(np.float32)
    found = jax.jit(lambda *arrays: deep_loss(*arrays, net.supervised, net.multiple))(
        outputs, shares, weights
    )
    # Where the volume lies in the padded one: missing voxels are split, the odd one goes behind.
    missing = [-n % m for n, m in zip(shape, net.multiple, strict=True)]
    pad = [(n // 2, n - n // 2) for n in missing]
    losses = [oracle(outputs[0], shares, weights)[0]]
    for logits, stride in zip(outputs[1:], net.supervised[1:], strict=True):
        lower = np.zeros(logits.shape)
        weight = np.zeros(logits.shape[:-1])
        for place in itertools.product(*map(range, logits.shape[1:4])):
            voxels = [
                v
                for v in itertools.product(
                    *(
                        range(i * s - before, (i + 1) * s - before)
                        for i, s, (before, _) in zip(place, stride, pad, strict=True)
                    )
                )
                if all(0 <= a < n for a, n in zip(v, shape, strict=True)) and weights[(0, *v)]
            ]
            weight[(0, *place)] = len(voxels) / np.prod(stride)
            if voxels:
                lower[(0, *place)] = np.mean([shares[(0, *v)] for v in voxels], 0)
        losses.append(oracle(logits, lower, weight)[0])
    expected = (losses[0] + losses[1] / 2 + losses[2] / 4) / 1.75
    np.testing.assert_allclose(found, [expected], rtol=1e-4)
