"""One training, or several as one program, behind one face: what the loop steps."""

import functools
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from mskjax.training import population
from mskjax.training.feed import Batch, Feed
from mskjax.training.mesh import replicated
from mskjax.training.population import CHOSEN
from mskjax.training.program import Program
from mskjax.training.state import TrainState

# Longer dispatches save nothing more and would keep a signal waiting.
MOST_STEPS = 10


class Trainer:
    """The step of K trainings of like stages.

    Args:
      programs: of each training; all alike (`loop.check_alike`).
      feed: of the examples that they share, or that each has.
      balances: of `Stage.balance`, of each.
      keys: typed key of each.
      share: how they share a device, see `population.chosen`.
    """

    def __init__(
        self,
        programs: Sequence[Program],
        feed: Feed,
        balances: Sequence[Any],
        keys: Sequence[jax.Array],
        share: str = CHOSEN,
    ):
        self._program, self._feed = programs[0], feed
        self._mesh, count = self._program.mesh, len(programs)
        platform = self._mesh.devices.flat[0].platform
        self._share = None if count == 1 else population.chosen(share, platform)
        self._steps: dict[int, Any] = {}
        if count == 1:
            self._rest = (self._program.hyper, balances[0]), keys[0]
        else:
            own = self._program.sharding_of_members()
            stack = jax.jit(lambda *trees: population.stacked(trees), out_shardings=own)
            hypers = [program.hyper for program in programs]
            self._rest = stack(*zip(hypers, balances, strict=True)), stack(*keys)
            self._stack = stack
            whole = replicated(self._mesh)
            self._member = jax.jit(population.member, out_shardings=whole)
            self._everywhere = jax.jit(lambda tree: tree, out_shardings=whole)
        # A scan slows convolutions down on a CPU, and it has no dispatch worth saving.
        self.most_steps = MOST_STEPS if feed.is_resident and platform != "cpu" else 1

    def put(self, states: Sequence[TrainState]) -> TrainState:
        """The states of all trainings, as `step` takes them."""
        return states[0] if self._share is None else self._stack(*states)

    def batches(self, numbers: np.ndarray) -> Batch:
        """Batches on the devices.

        Args:
          numbers: (n, K, B) integers: of n steps of K trainings.
        """
        together = self._share is not None
        numbers = numbers if together else numbers[:, 0]
        return self._feed.batch(numbers, self._program.sharding_of_batches(together))

    def step(self, states: TrainState, batches: Batch) -> tuple[TrainState, dict[str, jax.Array]]:
        """The steps of one dispatch; consumes the states.

        Args:
          states: of `put`.
          batches: of `batches`.

        Returns:
          The next states, and scalars of the last step, (K,) or () of one training.
        """
        (hyper, balance), key = self._rest
        arguments = (states, hyper, self._feed.data, batches, balance, key)
        count = batches["index"].shape[0]
        if count not in self._steps:
            self._steps[count] = self._program.training_step(arguments, self._share)
        return self._steps[count](*arguments)

    def of(self, states: TrainState, k: int) -> TrainState:
        """The k-th training's state, on every device."""
        return states if self._share is None else self._member(states, k)

    def values(
        self, states: TrainState, scalars: dict[str, jax.Array]
    ) -> Sequence[dict[str, float]]:
        """The scalars of each training on the host, and its ``bad_step``."""
        found = {**scalars, "bad_step": states.bad_step}
        if self._share is not None:
            found = self._everywhere(found)
        rows = {k: np.atleast_1d(v).tolist() for k, v in jax.device_get(found).items()}
        return [dict(zip(rows, row, strict=True)) for row in zip(*rows.values(), strict=True)]

    @functools.cached_property
    def how(self) -> str:
        """In words, for the log; empty of one training."""
        if self._share is None:
            return ""
        count, side = len(self._rest[1]), self._mesh.shape[population.MEMBER]
        return f"{count} trainings as one program, {count // side} a device, {self._share}"
