"""Our side of `speed.py`: a stage's own program on a batch that lies on the device."""

import functools
import time
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np
from speed_cases import Case

from mskjax.models.summary import parameter_count
from mskjax.training.feed import Feed, one_ahead
from mskjax.training.mesh import data_mesh, put_batch, put_replicated
from mskjax.training.program import Program
from mskjax.training.state import train_step
from mskjax.training.trainer import Trainer


class Ours:
    """A network in training, by the product's program, feed and trainer.

    Args:
      case: what is trained.
      streamed: whether batches come from the host, each made while the one before is in use, as
        the product has it where examples do not fit the device.
    """

    def __init__(self, case: Case, streamed: bool = False) -> None:
        mesh, examples = data_mesh(1), case.examples()
        self.program, self._key = Program(case.stage, mesh), put_replicated(jax.random.key(0), mesh)
        targets = {k: v for k, v in examples.items() if k not in case.stage.inputs}
        self._balance = put_replicated(case.stage.balance(targets), mesh)
        self._feed = Feed([examples], mesh, limit_mb=0.0 if streamed else 1e6)
        self._trainer = Trainer([self.program], self._feed, [self._balance], [self._key])
        self._streamed, self._batch = streamed, case.shape[0]
        rows = {**examples, "index": np.arange(self._batch, dtype=np.int32)}
        self._given = put_batch(rows | {"weight": np.ones(self._batch, np.float32)}, mesh)
        state = self.program.init(self._given, put_replicated(jax.random.key(1), mesh))
        self.parameters = int(parameter_count(state.variables["params"]))
        self._state = self._trainer.put([state])

    def seconds(self, what: str, count: int) -> float:
        """A step's time, mean of `count` dispatches in a row.

        Args:
          what: ``training step`` or ``inference``.
          count: dispatches; of training each is of `Trainer.most_steps`.
        """
        if what == "inference":
            start = time.perf_counter()
            for _ in range(count):  # each to its end, or several would run side by side
                jax.block_until_ready(self.program.predict(self._state.average, self._given))
            return (time.perf_counter() - start) / count
        batches = iter(list(self._batches(count))) if not self._streamed else self._batches(count)
        start = time.perf_counter()
        for batch in one_ahead(batches) if self._streamed else batches:
            self._state, _ = self._trainer.step(self._state, batch)
        jax.block_until_ready(self._state)
        return (time.perf_counter() - start) / count / self._trainer.most_steps

    def flops(self) -> float:
        """Floating-point operations of one training step, as the compiler counts them."""
        numbers = np.arange(self._batch)[None]
        batch = self._feed.batch(numbers, self.program.sharding_of_batches(together=False))
        arguments = (self._state, self.program.hyper, self._feed.data, batch)
        return _flops(self.program.training_step((*arguments, self._balance, self._key)))

    def needs(self, what: str) -> tuple[float, float]:
        """Floating-point operations and bytes that one step cannot do without.

        Operations as the compiler counts them before it changes anything; bytes of the state, read
        and written, or of the weights, and of the batch.

        Args:
          what: see `seconds`.
        """
        state, batch = self._state, self._given
        if what == "inference":
            lowered = jax.jit(self.program.predict).lower(state.average, batch)
            return _flops(lowered), float(_bytes(state.average) + _bytes(batch))
        step = jax.jit(functools.partial(train_step, self.program.stage))
        lowered = step.lower(state, self.program.hyper, batch, self._balance, self._key)
        return _flops(lowered), float(2 * _bytes(state) + _bytes(batch))

    def _batches(self, count: int) -> Iterator[Any]:
        """Batches of as many dispatches, of all examples."""
        numbers = np.tile(np.arange(self._batch), (self._trainer.most_steps, 1, 1))
        return (self._trainer.batches(numbers) for _ in range(count))


def _flops(program: Any) -> float:
    """Of a lowered or compiled program."""
    found = program.cost_analysis() or {}
    return float((found[0] if isinstance(found, list) else found).get("flops", 0.0))


def _bytes(tree: Any) -> int:
    return sum(x.nbytes for x in jax.tree.leaves(tree))
