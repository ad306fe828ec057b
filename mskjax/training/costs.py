"""What a training step costs: counted without data, or compiled and timed on zeros."""

import dataclasses
import functools
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mskjax.data.pipeline import Examples
from mskjax.training.hyper import Hyper
from mskjax.training.mesh import data_mesh, replicated, sharded
from mskjax.training.stage import Stage
from mskjax.training.state import initial_state, train_step

TIMED_STEPS = 3


@dataclasses.dataclass(frozen=True)
class Step:
    """A training step whose arguments are shapes.

    Attributes:
      stage: as far as it is traced.
      hyper: scalars.
      state: before the step, shapes.
      batch: as it comes from the host, shapes.
      view: the batch as augmented, shapes.
      balance: of the loss.
      key: shape of a typed key.
    """

    stage: Stage
    hyper: Hyper
    state: Any
    batch: dict[str, Any]
    view: dict[str, Any]
    balance: Any
    key: Any

    @classmethod
    def of(cls, stage: Stage, examples: Examples, size: int) -> "Step":
        """The step on batches of a size, from any number of examples."""
        traced, hyper = stage.traced(), Hyper.of(stage.train, stage.hyper())
        batch = {
            k: jax.ShapeDtypeStruct((size, *v.shape[1:]), v.dtype) for k, v in examples.items()
        }
        batch["index"] = jax.ShapeDtypeStruct((size,), jnp.int32)
        key = jax.eval_shape(lambda: jax.random.key(0))
        keys = jax.eval_shape(lambda: jax.random.split(jax.random.key(0), size))
        view = jax.eval_shape(traced.augment, keys, batch, hyper.stage)
        state = jax.eval_shape(functools.partial(initial_state, traced), hyper, view, key)
        targets = {k: v for k, v in examples.items() if k not in stage.inputs}
        balance = jax.tree.map(jnp.asarray, stage.balance(targets))
        return cls(traced, hyper, state, batch, view, balance, key)

    @property
    def arguments(self) -> tuple[Any, ...]:
        """Of `training.state.train_step`, after the stage."""
        return self.state, self.hyper, self.batch, self.balance, self.key

    def flops(self) -> float:
        """Floating-point operations, as counted in the program that is not compiled yet."""
        lowered = jax.jit(functools.partial(train_step, self.stage)).lower(*self.arguments)
        return float((lowered.cost_analysis() or {}).get("flops", 0.0))

    def activation_bytes(self) -> int:
        """Bytes of what the gradient of the loss needs of the forward pass, but for weights."""

        def kept(variables: Any, view: Any, key: jax.Array) -> Any:
            def mean_loss(params: Any) -> jax.Array:
                outputs, _ = self.stage.model().apply(
                    {**variables, "params": params},
                    *[view[name] for name in self.stage.inputs],
                    train=True,
                    mutable=["batch_stats"],
                    rngs={"dropout": key},
                )
                return jnp.mean(self.stage.loss(outputs, view, self.balance, self.hyper.stage))

            return jax.vjp(mean_loss, variables["params"])[1]

        variables = self.state.variables
        found = jax.eval_shape(kept, variables, self.view, self.key)
        return max(0, nbytes(found) - nbytes(variables["params"]))


def compile_and_time(step: Step, devices: int) -> tuple[int, float]:
    """Compiles a training step for devices that are present, and runs it on zeros.

    Args:
      step: on the whole batch.
      devices: the first ones.

    Returns:
      Bytes that it needs on each device, arguments included, and seconds a step.
    """
    mesh = data_mesh(devices)
    whole, parts = replicated(mesh), sharded(mesh)
    compiled = (
        jax.jit(
            functools.partial(train_step, step.stage),
            in_shardings=(whole, whole, parts, whole, whole),
            out_shardings=(whole, whole),
            donate_argnums=0,
        )
        .lower(*step.arguments)
        .compile()
    )
    found: Any = compiled.memory_analysis()
    needed = (
        found.argument_size_in_bytes
        + found.output_size_in_bytes
        + found.temp_size_in_bytes
        - found.alias_size_in_bytes
    )
    zeros = functools.partial(jax.tree.map, lambda s: jnp.zeros(s.shape, s.dtype))
    state = jax.device_put(zeros(step.state), whole)
    batch = jax.device_put(zeros(step.batch), parts)
    rest = jax.device_put((step.balance, jax.random.key(0)), whole)
    hyper = jax.device_put(step.hyper, whole)
    state, _ = jax.block_until_ready(compiled(state, hyper, batch, *rest))
    start = time.monotonic()
    for _ in range(TIMED_STEPS):
        state, _ = compiled(state, hyper, batch, *rest)
    jax.block_until_ready(state)
    return int(needed), (time.monotonic() - start) / TIMED_STEPS


def nbytes(tree: Any) -> int:
    """Bytes of all arrays, or shapes of arrays, of a pytree."""
    return sum(int(np.prod(x.shape)) * x.dtype.itemsize for x in jax.tree.leaves(tree))
