import jax
import numpy as np
import pytest

from mskjax.config import TrainConfig
from mskjax.training.hyper import Hyper
from mskjax.training.state import optimiser

HYPER = Hyper.of(TrainConfig(steps=20, learning_rate=0.1, warmup_steps=0, clip_norm=1.0))


def steps(apart, params, gradients):
    """What the optimiser makes of parameters in a few steps."""
    own = optimiser(HYPER, apart)
    state = own.init(params)
    for gradient in gradients:
        change, state = own.update(gradient, state, params)
        params = jax.tree.map(np.add, params, change)
    return params


@pytest.fixture
def two():
    """Parameters of two networks and gradients of three steps, the first network's far larger."""
    rng = np.random.default_rng(0)
    params = {name: {"kernel": rng.normal(size=(4, 3))} for name in ("loud", "quiet")}
    gradients = [
        {
            "loud": {"kernel": 10.0 ** rng.integers(1, 4) * rng.normal(size=(4, 3))},
            "quiet": {"kernel": 0.1 * rng.normal(size=(4, 3))},
        }
        for _ in range(3)
    ]
    return jax.tree.map(np.float32, params), jax.tree.map(np.float32, gradients)


def test_networks_that_are_apart_are_trained_as_they_would_be_alone(two):
    params, gradients = two
    together = steps(True, params, gradients)
    for name in params:
        alone = steps(False, {name: params[name]}, [{name: g[name]} for g in gradients])
        np.testing.assert_allclose(together[name]["kernel"], alone[name]["kernel"], rtol=1e-5)


def test_one_network_is_clipped_by_the_norm_of_all_of_it(two):
    params, gradients = two
    whole = steps(False, params, gradients)
    alone = steps(False, {"quiet": params["quiet"]}, [{"quiet": g["quiet"]} for g in gradients])
    assert not np.allclose(whole["quiet"]["kernel"], alone["quiet"]["kernel"], atol=1e-3)
