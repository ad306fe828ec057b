"""The train state and the one training step."""

from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import struct

from mskjax.config import TrainConfig
from mskjax.training.stage import Stage


class TrainState(struct.PyTreeNode):
    """All that a step reads and writes; what is in here is what a checkpoint holds.

    Attributes:
      step: int32, optimiser steps done.
      variables: Flax collections (``params`` and, with batch norm, ``batch_stats``).
      optimiser: optax state.
      average: exponential moving average of ``variables`` (equal to it where switched off).
      bad_step: int32, first step whose loss or gradient was not finite; -1 while there is none.
    """

    step: jax.Array
    variables: Any
    optimiser: Any
    average: Any
    bad_step: jax.Array


def make_optimiser(config: TrainConfig) -> optax.GradientTransformation:
    """AdamW (Loshchilov & Hutter 2019) with clipping, linear warm-up and cosine decay."""
    schedule = learning_rate(config)

    def decayed(params: Any) -> Any:
        return jax.tree.map(lambda p: p.ndim > 1, params)

    return optax.chain(
        optax.clip_by_global_norm(config.clip_norm),
        optax.adamw(schedule, weight_decay=config.weight_decay, mask=decayed),
    )


def learning_rate(config: TrainConfig) -> optax.Schedule:
    """The learning rate as a function of the step alone."""
    warmup = min(config.warmup_steps, config.steps // 2)
    return optax.warmup_cosine_decay_schedule(
        0.0 if warmup else config.learning_rate, config.learning_rate, warmup, config.steps
    )


def initial_state(stage: Stage, batch: dict[str, jax.Array], key: jax.Array) -> TrainState:
    """State before the first step.

    Args:
      stage: gives the network.
      batch: arrays of the shapes the network will see in training.
      key: typed key of the initialisation.
    """
    inputs = [batch[name][:1] for name in stage.inputs]
    variables = stage.model().init(key, *inputs, train=False)
    return TrainState(
        step=jnp.int32(0),
        variables=variables,
        optimiser=make_optimiser(stage.train).init(variables["params"]),
        average=jax.tree.map(jnp.copy, variables),
        bad_step=jnp.int32(-1),
    )


def example_keys(key: jax.Array, step: jax.Array, index: jax.Array) -> jax.Array:
    """(B,) keys folded from seed, step and example number: independent of place in the batch."""
    key = jax.random.fold_in(key, step)
    return jax.vmap(lambda i: jax.random.fold_in(key, i))(index)


def train_step(
    stage: Stage, state: TrainState, batch: dict[str, jax.Array], balance: Any, key: jax.Array
) -> tuple[TrainState, dict[str, jax.Array]]:
    """One optimiser step; a pure function of its arguments.

    A step that is not finite changes nothing but `bad_step`, so that the state saved before the
    loop stops is the last good one.

    Returns:
      The next state and scalars ``loss``, ``gradient_norm``.
    """
    keys = example_keys(key, state.step, batch["index"])
    view = stage.augment(keys, batch)
    model = stage.model()
    # One key a step for dropout; augmentation has one per example.
    dropout = jax.random.fold_in(jax.random.fold_in(key, state.step), 2**31 - 1)

    def mean_loss(params: Any) -> tuple[jax.Array, Any]:
        outputs, updates = model.apply(
            {**state.variables, "params": params},
            *[view[name] for name in stage.inputs],
            train=True,
            mutable=["batch_stats"],
            rngs={"dropout": dropout},
        )
        return jnp.mean(stage.loss(outputs, view, balance)), updates

    (loss, updates), gradient = jax.value_and_grad(mean_loss, has_aux=True)(
        state.variables["params"]
    )
    norm = optax.tree.norm(gradient)
    change, optimiser = make_optimiser(stage.train).update(
        gradient, state.optimiser, state.variables["params"]
    )
    variables = {
        **state.variables,
        **updates,
        "params": optax.apply_updates(state.variables["params"], change),
    }
    # The average warms up with (1 + t) / (10 + t), or the random start would weigh for long.
    decay = jnp.minimum(stage.train.ema_decay, (1.0 + state.step) / (10.0 + state.step))
    average = jax.tree.map(lambda a, v: decay * a + (1 - decay) * v, state.average, variables)
    finite = jnp.isfinite(loss) & jnp.isfinite(norm)
    new = state.replace(variables=variables, optimiser=optimiser, average=average)
    kept = jax.tree.map(lambda n, o: jnp.where(finite, n, o), new, state)
    kept = kept.replace(
        step=state.step + 1,
        bad_step=jnp.where(~finite & (state.bad_step < 0), state.step, state.bad_step),
    )
    return kept, {"loss": loss, "gradient_norm": norm}
