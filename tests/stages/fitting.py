"""What the stages' tests share: a view of a batch, and a few steps on a few examples."""

import functools

import jax
import numpy as np
from training.toy import one_step

from mskjax.data.pipeline import count
from mskjax.training.hyper import Hyper
from mskjax.training.mesh import data_mesh, put_batch, replicated
from mskjax.training.program import Program


@functools.partial(jax.jit, static_argnums=0)
def _augmented(stage, keys, batch, hyper):
    return stage.augment(keys, batch, hyper)


def view_of(stage, examples, seed=0):
    """A random training view, NumPy; stages that are traced alike share one program."""
    keys = jax.random.split(jax.random.key(seed), count(examples))
    hyper = Hyper.of(stage.train, stage.hyper()).stage
    return jax.tree.map(np.asarray, _augmented(stage.traced(), keys, dict(examples), hyper))


def fitted(stage, examples):
    """Takes all steps of the recipe on all examples at once.

    Returns:
      The programs, the average of weights and the loss of each step.
    """
    program = Program(stage, data_mesh(1))
    shown = {k: v for k, v in examples.items() if k != "case"}
    batch = {**shown, "index": np.arange(count(shown), dtype=np.int32)}
    batch, key, losses = put_batch(batch, program.mesh), jax.random.key(0), []
    balance = jax.device_put(stage.balance(shown), replicated(program.mesh))
    state = program.init(batch, key)
    for _ in range(stage.train.steps):
        state, scalars = one_step(program, state, batch, balance, key)
        losses.append(scalars["loss"])
    return program, state.average, np.array(losses)
