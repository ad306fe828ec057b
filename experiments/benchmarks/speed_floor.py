"""Part ``floor`` of `speed.py`: how near each network comes to the least time it can take.

The least time is the larger of two: the floating-point operations of the network's mathematics at
the rate of a large product of matrices (XLA's or NumPy's, whichever is faster), and the bytes that
cannot be spared at the rate of an array that is read and written (the roofline model, Williams et
al. 2009).  Of a training step these are the state, read and written, and the batch; of an inference
the weights and the batch.  Activations are left out, as if they stayed in the caches: the floor is
what hardly anything gets below, not what one reaches.  Both rates are measured beside each step.

A ratio is the share of the floor: 1 is at the floor, .5 takes twice as long.
"""

import argparse
import dataclasses
import gc

import jax
import jax.numpy as jnp
import numpy as np
from speed_cases import Case, case
from speed_networks import WHATS, in_turn, wanted
from speed_ours import Ours
from speed_rows import Row
from speed_turns import seconds

from mskjax.progress import say

SIDE, QUICK_SIDE = 3_072, 128  # of the product
LENGTH, QUICK_LENGTH = 1 << 27, 1 << 16  # of the array, 512 MiB: no cache holds it


@dataclasses.dataclass(frozen=True)
class Need:
    """What a step cannot do without.

    Attributes:
      flops: floating-point operations; a multiplication and an addition are two.
      bytes: that are read or written.
    """

    flops: float
    bytes: float

    def seconds(self, flops_per_s: float, bytes_per_s: float) -> float:
        """The least time at these rates."""
        return max(self.flops / flops_per_s, self.bytes / bytes_per_s)


class Machine:
    """The rates of the device, measured anew each time.

    Args:
      quick: whether tiny arrays do.
    """

    def __init__(self, quick: bool) -> None:
        side, length = (QUICK_SIDE, QUICK_LENGTH) if quick else (SIDE, LENGTH)
        self._square, self._array = jnp.ones((side, side)), jnp.ones(length)
        # On a CPU the BLAS of NumPy may be the faster library.
        on_host = jax.devices()[0].platform == "cpu"
        self._host = np.asarray(self._square) if on_host else None
        self._product = jax.jit(jnp.matmul)
        # In place, as a step has it: new pages would take longer than the memory does.
        self._pass = jax.jit(lambda x: x + 1.0, donate_argnums=0)
        self._flops, self._bytes = 2.0 * side**3, 2.0 * self._array.nbytes
        self.rates()  # compiles

    def rates(self) -> tuple[float, float]:
        """FLOP/s and bytes/s."""
        product = seconds(lambda: self._product(self._square, self._square).block_until_ready())
        if (host := self._host) is not None:
            product = min(product, seconds(lambda: np.matmul(host, host)))
        through = seconds(self._through)
        return self._flops / product, self._bytes / through

    def _through(self) -> None:
        self._array = self._pass(self._array).block_until_ready()


def measure(flags: argparse.Namespace) -> list[Row]:
    """Rows of all networks.

    Args:
      flags: ``networks``, ``rounds``, ``quick``.
    """
    machine = Machine(flags.quick)
    rows = []
    for name in wanted(flags.networks):
        rows += _network(case(name, flags.quick), machine, flags)
        gc.collect()  # the next network may need the memory
    return rows


def _network(own: Case, machine: Machine, flags: argparse.Namespace) -> list[Row]:
    ours = Ours(own)
    rows = []
    for what in WHATS:
        need = Need(*ours.needs(what))

        def least(what: str, count: int, need: Need = need) -> float:
            return need.seconds(*machine.rates())

        pairs = in_turn(ours.seconds, least, what, flags)
        floor = f"{need.flops / 1e9:.3g} GFLOP, {need.bytes / 1e6:.3g} MB"
        rows.append(Row("floor", own.name, what, own.size, "mskjax", floor, pairs))
        say(f"{own.name}, {what}: {rows[-1].ratio:.2f} of the floor")
    return rows
