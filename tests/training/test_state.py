import functools

import flax.linen as nn
import jax
import numpy as np
import optax
import pytest
from training.toy import Toy, toy, toy_examples

from mskjax.config import TrainConfig
from mskjax.training.hyper import Hyper
from mskjax.training.mesh import data_mesh, put_batch
from mskjax.training.program import Program
from mskjax.training.state import optimiser, train_step

RECIPE = {"steps": 20, "learning_rate": 0.1, "warmup_steps": 0, "clip_norm": 1.0}
HYPER = Hyper.of(TrainConfig(**RECIPE))


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


@pytest.mark.parametrize("largest", [0.01, 1000.0])
def test_the_optimiser_is_adamw_of_optax_behind_its_clipping(two, largest):
    params, gradients = two
    hyper = Hyper.of(TrainConfig(**RECIPE | {"clip_norm": largest, "weight_decay": 0.1}))
    rate = optax.cosine_decay_schedule(RECIPE["learning_rate"], RECIPE["steps"])
    theirs = optax.chain(
        optax.clip_by_global_norm(largest), optax.adamw(rate, weight_decay=np.float32(0.1))
    )
    ours = optimiser(hyper, False)
    own, other = ours.init(params), theirs.init(params)
    assert jax.tree.structure(own[1][0]) == jax.tree.structure(other[1][0])
    for gradient in gradients:
        change, own = ours.update(gradient, own, params)
        with jax.numpy_dtype_promotion("standard"):  # optax's schedule asks for it
            expected, other = theirs.update(gradient, other, params)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-5), change, expected)


def test_a_gradient_of_nothing_is_not_divided_by_its_norm(two):
    params, gradients = two
    nothing = jax.tree.map(np.zeros_like, gradients[0])
    own = optimiser(HYPER, False)
    change, _ = own.update(nothing, own.init(params), params)
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(change))


class Wide(nn.Module):
    """Nearly all of its weights are of one layer."""

    @nn.compact
    def __call__(self, image, train):
        return nn.Dense(2)(nn.Dense(1024)(nn.Dense(1024)(image)))


class WideToy(Toy):
    def model(self):
        return Wide()


def test_a_step_holds_the_gradient_and_its_squares_but_no_copy_of_the_state():
    """XLA would keep moments and weights of before the step for what reads them afterwards."""
    stage, mesh = WideToy("toy", toy().options), data_mesh(1)
    program = Program(stage, mesh)
    batch = put_batch({**toy_examples(8), "index": np.arange(8, dtype=np.int32)}, mesh)
    state = program.init(batch, jax.random.key(0))
    step = jax.jit(functools.partial(train_step, stage), donate_argnums=0)
    compiled = step.lower(state, program.hyper, batch, (), jax.random.key(0)).compile()
    weights = sum(x.nbytes for x in jax.tree.leaves(state.variables["params"]))
    assert compiled.memory_analysis().temp_size_in_bytes < 2.3 * weights
