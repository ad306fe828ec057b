"""The train state and the one training step."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import struct

from mskjax.training.hyper import Hyper, average_decay, learning_rate
from mskjax.training.stage import Stage


class TrainState(struct.PyTreeNode):
    """All that a step reads and writes; what is in here is what a checkpoint holds.

    Attributes:
      step: int32, optimiser steps done; it stands still once training has ended or failed.
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


def optimiser(hyper: Hyper, apart: bool) -> optax.GradientTransformation:
    """AdamW (Loshchilov & Hutter 2019) with clipping, linear warm-up and cosine decay.

    The structure of its state does not depend on its arguments; `hyper` may hold traced arrays.

    Args:
      hyper: of the training.
      apart: see `Stage.apart`.
    """

    def decayed(params: Any) -> Any:
        return jax.tree.map(lambda p: p.ndim > 1, params)

    return optax.chain(
        _clipping(hyper.clip_norm, apart),
        optax.adamw(
            functools.partial(learning_rate, hyper),
            weight_decay=hyper.weight_decay,
            mask=decayed,
        ),
    )


def _clipping(norm: Any, apart: bool) -> optax.GradientTransformation:
    """Gradients above a norm are scaled down to it: all together, or each network's by its own."""
    clipping = optax.clip_by_global_norm(norm)
    if not apart:
        return clipping

    def update(gradient: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
        return {name: clipping.update(own, state)[0] for name, own in gradient.items()}, state

    return optax.GradientTransformation(clipping.init, update)


def initial_state(
    stage: Stage, hyper: Hyper, batch: dict[str, jax.Array], key: jax.Array
) -> TrainState:
    """State before the first step.

    Args:
      stage: gives the network.
      hyper: of the training; the state depends on none of its values.
      batch: arrays of the shapes the network will see in training.
      key: typed key of the initialisation.
    """
    inputs = [batch[name][:1] for name in stage.inputs]
    variables = stage.model().init(key, *inputs, train=False)
    return TrainState(
        step=jnp.int32(0),
        variables=variables,
        optimiser=optimiser(hyper, stage.apart).init(variables["params"]),
        average=jax.tree.map(jnp.copy, variables),
        bad_step=jnp.int32(-1),
    )


def example_keys(key: jax.Array, step: jax.Array, index: jax.Array) -> jax.Array:
    """(B,) keys folded from seed, step and example number: independent of place in the batch."""
    key = jax.random.fold_in(key, step)
    return jax.vmap(lambda i: jax.random.fold_in(key, i))(index)


def _augmented(
    stage: Stage, keys: jax.Array, batch: dict[str, jax.Array], hyper: Hyper, step: jax.Array
) -> dict[str, jax.Array]:
    """`Stage.augment`, computed once.

    XLA's CPU back end fuses what is cheap an element, noise and blur too, into each layer and
    gradient that reads the view, and drops optimisation barriers before it does so.  It never fuses
    across a branch, of which it cannot know that it is always taken.
    """

    def augmented() -> dict[str, jax.Array]:
        return stage.augment(keys, batch, hyper.stage)

    def branch() -> dict[str, jax.Array]:
        shapes = jax.eval_shape(augmented)
        nothing = functools.partial(jax.tree.map, lambda s: jnp.zeros(s.shape, s.dtype), shapes)
        return jax.lax.cond(step >= 0, augmented, nothing)

    return jax.lax.platform_dependent(cpu=branch, default=augmented)


def train_step(
    stage: Stage,
    state: TrainState,
    hyper: Hyper,
    batch: dict[str, jax.Array],
    balance: Any,
    key: jax.Array,
) -> tuple[TrainState, dict[str, jax.Array]]:
    """One optimiser step; a pure function of its arguments.

    A state whose training has ended (``step`` at ``hyper.steps`` or beyond) or failed (`bad_step`)
    is frozen: whatever it is given, it comes back bit for bit.  So states of several trainings
    may be stepped together until the last has ended, and one that fails spoils no other.  The step
    that fails changes nothing but `bad_step`: the state is the last good one.

    Args:
      stage: gives augmentation, network and loss.
      state: before the step.
      hyper: scalars; another value compiles nothing.
      batch: arrays of B examples with ``index``.
      balance: of `Stage.balance`.
      key: typed key of the training.

    Returns:
      The next state and scalars ``loss``, ``gradient_norm``.
    """
    keys = example_keys(key, state.step, batch["index"])
    view = _augmented(stage, keys, batch, hyper, state.step)
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
        return jnp.mean(stage.loss(outputs, view, balance, hyper.stage)), updates

    (loss, updates), gradient = jax.value_and_grad(mean_loss, has_aux=True)(
        state.variables["params"]
    )
    norm = optax.tree.norm(gradient)
    change, moments = optimiser(hyper, stage.apart).update(
        gradient, state.optimiser, state.variables["params"]
    )
    variables = {
        **state.variables,
        **updates,
        "params": optax.apply_updates(state.variables["params"], change),
    }
    decay = average_decay(hyper, state.step)
    average = jax.tree.map(lambda a, v: decay * a + (1 - decay) * v, state.average, variables)
    training = (state.bad_step < 0) & (state.step < hyper.steps)
    finite = jnp.isfinite(loss) & jnp.isfinite(norm)
    new = state.replace(
        step=state.step + 1, variables=variables, optimiser=moments, average=average
    )
    kept = jax.tree.map(lambda n, o: jnp.where(training & finite, n, o), new, state)
    failed = training & ~finite
    kept = kept.replace(bad_step=jnp.where(failed, state.step, state.bad_step))
    return kept, {"loss": loss, "gradient_norm": norm}
