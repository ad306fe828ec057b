"""Part ``accelerator`` of `speed.py`: bfloat16 where there is an accelerator; elsewhere no rows.

Of each network three ratios: the training step beside `torch.compile` under autocast (where torch
has CUDA); the share of the peak, the time that the step's operations would take at
``--peak-tflops`` by the time of the step; and the step on a resident batch by the step on batches
that are sent from the host, which is 1 where feeding costs nothing.  ``--anyway`` runs on a CPU.
"""

import argparse
import gc
from typing import Any

import jax
from speed_cases import case
from speed_networks import in_turn, wanted
from speed_ours import Ours
from speed_peer import Peer
from speed_rows import Row

from mskjax.errors import UserError
from mskjax.progress import say

WHAT = "training step"
PEAK = "at its peak"


def measure(flags: argparse.Namespace) -> list[Row]:
    """Rows of all networks.

    Args:
      flags: ``networks``, ``rounds``, ``quick``, ``threads``, ``peak_tflops``, ``anyway``.
    """
    if jax.devices()[0].platform == "cpu" and not flags.anyway:
        say("accelerator: there is none")
        return []
    peer = _peer(flags.threads)
    rows = []
    try:
        for name in wanted(flags.networks):
            rows += _network(name, peer, flags)
            gc.collect()  # the next network may need the memory
    finally:
        if peer is not None:
            peer.__exit__()
    return rows


def _peer(threads: int) -> Peer | None:
    """A child whose torch has CUDA, if there is one."""
    try:
        peer = Peer(threads)
    except UserError as error:
        say(f"accelerator, ours alone: {error}")
        return None
    if peer.ask("environment")["cuda"]:
        return peer
    say("accelerator, ours alone: torch has no CUDA")
    peer.__exit__()
    return None


def _network(name: str, peer: Peer | None, flags: argparse.Namespace) -> list[Row]:
    own = case(name, flags.quick, "bfloat16")
    resident = Ours(own)

    def row(what: str, ours: str, beside: str, theirs: Any) -> Row:
        pairs = in_turn(resident.seconds, theirs, WHAT, flags)
        return Row("accelerator", name, what, own.size, ours, beside, pairs)

    rows = []
    if peer is not None:
        peer.prepare({**own.spec, "device": "cuda", "bfloat16": True}, ("channels_last", True))
        rows.append(row(WHAT, "mskjax, bfloat16", "torch.compile, bfloat16", peer.seconds))
        peer.ask("forget")
    if flags.peak_tflops:
        least = resident.flops() / (1e12 * flags.peak_tflops)
        rows.append(row("share of the peak", "mskjax, bfloat16", PEAK, lambda *_: least))
    streamed = Ours(own, streamed=True)
    fed = in_turn(streamed.seconds, resident.seconds, WHAT, flags)
    rows.append(Row("accelerator", name, "feeding", own.size, "streamed", "resident", fed))
    return rows
