"""Counts of a step that is never run, against the real one; FLOPs: tests/test_plan.py."""

import functools

import jax
import numpy as np
import pytest
from training.toy import toy, toy_examples

from mskjax.data.pipeline import take
from mskjax.training.costs import Step, compile_and_time, nbytes
from mskjax.training.hyper import Hyper
from mskjax.training.state import initial_state


@pytest.fixture
def toy_step():
    return functools.partial(Step.of, toy(), toy_examples())


def test_state_and_parameters_are_those_of_the_real_initialisation(toy_step):
    step, stage = toy_step(8), toy()
    batch = {**take(toy_examples(), np.arange(8)), "index": np.arange(8, dtype=np.int32)}
    real = initial_state(
        stage.traced(), Hyper.of(stage.train, stage.hyper()), batch, jax.random.key(0)
    )
    assert jax.tree.map(lambda x: (x.shape, x.dtype), real) == jax.tree.map(
        lambda x: (x.shape, x.dtype), step.state
    )


def test_what_is_compiled_needs_no_less_than_state_and_batch(toy_step):
    step = toy_step(8)
    found, seconds = compile_and_time(step, 1)
    floor = nbytes((step.state, step.batch, step.balance, step.hyper))
    assert floor <= found < 10 * floor
    assert 0 < seconds < 1
