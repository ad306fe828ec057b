"""The train state and the one training step."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import struct

from mskjax.training.hyper import Hyper, average_decay, learning_rate
from mskjax.training.stage import Stage

BETA_1, BETA_2, EPSILON = 0.9, 0.999, 1e-8  # of Adam (Kingma & Ba 2015)


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


Settle = Callable[[Any, Any], Any]


def optimiser(
    hyper: Hyper, apart: bool, settle: Settle = lambda new, old: new
) -> optax.GradientTransformation:
    """AdamW (Loshchilov & Hutter 2019) with clipping, linear warm-up and cosine decay.

    The structure of its state does not depend on its arguments; `hyper` may hold traced arrays.

    Args:
      hyper: of the training.
      apart: see `Stage.apart`.
      settle: makes of new and old moments those that are kept, which the change is made from.
    """

    def decayed(params: Any) -> Any:
        return jax.tree.map(lambda p: p.ndim > 1, params)

    adamw = optax.chain(
        _adam(settle),
        optax.add_decayed_weights(hyper.weight_decay, decayed),
        optax.scale_by_learning_rate(functools.partial(learning_rate, hyper)),
    )
    return optax.chain(_clipping(hyper.clip_norm, apart), adamw)


def _adam(settle: Settle) -> optax.GradientTransformation:
    """`optax.scale_by_adam`, whose change is made from the moments as they are kept."""
    adam = optax.scale_by_adam(BETA_1, BETA_2)

    def update(gradient: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
        new = adam.update(gradient, state, params)[1]
        mu, nu = settle((new.mu, new.nu), (state.mu, state.nu))
        # Of the bias; factors, since XLA would draw two divisions in a row together (`_settled`).
        count = new.count.astype(jnp.float32)
        mean, square = (1.0 / (1.0 - beta**count) for beta in (BETA_1, BETA_2))
        change = jax.tree.map(lambda m, v: mean * m / (jnp.sqrt(square * v) + EPSILON), mu, nu)
        return change, new._replace(mu=mu, nu=nu)

    return optax.GradientTransformation(adam.init, update)


def _clipping(most: Any, apart: bool) -> optax.GradientTransformation:
    """Gradients above a norm are scaled down to it: all together, or each network's by its own.

    By one factor: a division, as `optax.clip_by_global_norm` has, XLA keeps as another gradient.
    """

    def clipped(gradient: Any) -> Any:
        return optax.tree.scale(jnp.minimum(1.0, most / optax.tree.norm(gradient)), gradient)

    def update(gradient: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
        if apart:
            return {name: clipped(own) for name, own in gradient.items()}, state
        return clipped(gradient), state

    return optax.GradientTransformation(optax.init_empty_state, update)


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

    params = state.variables["params"]
    (loss, updates), gradient = jax.value_and_grad(mean_loss, has_aux=True)(params)
    norm = optax.tree.norm(gradient)
    training = (state.bad_step < 0) & (state.step < hyper.steps)
    finite = jnp.isfinite(loss) & jnp.isfinite(norm)
    kept = functools.partial(_kept, training & finite)
    settled = functools.partial(_settled, training & finite, state.step)
    change, moments = optimiser(hyper, stage.apart, settled).update(
        gradient, state.optimiser, params
    )
    stepped = settled(optax.apply_updates(params, change), params)
    variables = {**state.variables, **updates, "params": stepped}
    decay = average_decay(hyper, state.step)
    average = jax.tree.map(lambda a, v: decay * a + (1 - decay) * v, state.average, variables)
    failed = training & ~finite
    new = state.replace(
        step=kept(state.step + 1, state.step),
        variables={**kept(variables, state.variables), "params": stepped},
        optimiser=jax.tree.map(  # moments are settled, counts are not
            lambda new, old: new if jnp.issubdtype(new.dtype, jnp.floating) else kept(new, old),
            moments,
            state.optimiser,
        ),
        average=kept(average, state.average),
        bad_step=jnp.where(failed, state.step, state.bad_step),
    )
    return new, {"loss": loss, "gradient_norm": norm}


def _kept(is_kept: jax.Array, new: Any, old: Any) -> Any:
    return jax.tree.map(lambda n, o: jnp.where(is_kept, n, o), new, old)


def _settled(is_kept: jax.Array, step: jax.Array, new: Any, old: Any) -> Any:
    """`_kept`, computed once and in the place of the old.

    XLA's CPU back end computes anew in each reader what is cheap; so the change of the weights read
    the old moments, and the average the old weights, of which each step then made a copy.  It does
    not compute a division twice, and cannot know that this one is by 1.
    """
    one = jnp.where(step >= 0, 1.0, 2.0)
    return jax.tree.map(lambda x: x / one.astype(x.dtype), _kept(is_kept, new, old))
