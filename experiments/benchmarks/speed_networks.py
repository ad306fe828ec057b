"""Part ``networks`` of `speed.py`: training step and inference of each network, float32."""

import argparse
import gc
import math
from collections.abc import Callable, Sequence
from typing import Any

from speed_cases import CASES, Case, case
from speed_ours import Ours
from speed_peer import Peer, named
from speed_rows import Row
from speed_turns import alternate

from mskjax.errors import UserError
from mskjax.progress import say

WHATS = ("training step", "inference")
# Of a measurement: shorter steps are timed several in a row.
LEAST_S, LEAST_QUICK_S = 0.3, 0.0
SETTLE_S = 0.02  # before each


def measure(flags: argparse.Namespace) -> list[Row]:
    """Rows of all networks.

    Args:
      flags: ``networks``, ``rounds``, ``quick``, ``threads``.

    Raises:
      UserError: torch is not installed.
    """
    rows = []
    with Peer(flags.threads) as peer:
        for name in wanted(flags.networks):
            rows += compared(case(name, flags.quick), peer, flags)
    return rows


def wanted(names: Sequence[str] | None) -> list[str]:
    """Names of networks; all where None.

    Raises:
      UserError: there is none of that name.
    """
    if unknown := sorted({*(names or ())} - {*CASES}):
        raise UserError(f"--networks: no {', '.join(unknown)}; there are {', '.join(CASES)}.")
    return [*(names or CASES)]


def compared(own: Case, peer: Peer, flags: argparse.Namespace) -> list[Row]:
    """Rows of one network.

    Args:
      own: the network.
      peer: that has no network, or another one, ready.
      flags: see `measure`.
    """
    best = peer.fastest(own.spec, WHATS)
    ours = Ours(own)
    rows: list[Row] = []
    ready: Any = None
    for what in WHATS:
        if best[what] != ready:
            ready = best[what]
            their_size = peer.prepare(own.spec, ready)
            if their_size != ours.parameters:
                raise RuntimeError(f"{own.name}: {ours.parameters} parameters, torch {their_size}")
        pairs = in_turn(ours.seconds, peer.seconds, what, flags)
        rows.append(Row("networks", own.name, what, own.size, "mskjax", named(ready), pairs))
        say(f"{own.name}, {what}: {rows[-1].ratio:.2f}")
    peer.ask("forget")
    del ours
    gc.collect()  # the next network may need the memory
    return rows


def in_turn(
    ours: Callable[[str, int], float],
    theirs: Callable[[str, int], float],
    what: str,
    flags: argparse.Namespace,
) -> tuple[tuple[float, float], ...]:
    """Pairs of seconds a step, both warmed up, each of at least `LEAST_S` in all.

    Args:
      ours: (what, steps in a row) -> seconds a step.
      theirs: the same.
      what: of `WHATS`.
      flags: ``rounds``, ``quick``.
    """
    counts: list[int] = []
    least = LEAST_QUICK_S if flags.quick else LEAST_S
    for one in (ours, theirs):
        one(what, 1)  # compiles, or allocates
        counts.append(max(1, math.ceil(least / max(one(what, 1), 1e-6))))
    return alternate(
        lambda: ours(what, counts[0]), lambda: theirs(what, counts[1]), flags.rounds, SETTLE_S
    )
