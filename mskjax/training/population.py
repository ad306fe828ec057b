"""Several trainings as one program: folds, seeds, recipes that leave shapes unchanged.

The states of K members carry a leading axis, which is divided over the mesh axis ``member``;
members never communicate.  What a member is given and what it becomes does not depend on the
others: it equals the training alone up to rounding, is frozen where it has ended or failed, and is
saved by itself.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, PartitionSpec

from mskjax.training.mesh import MEMBER

# How the members of one device are computed: side by side in the program; as one more axis of
# every array; one after another.
SHARES = ("unrolled", "vmapped", "mapped")
CHOSEN = "chosen"


def chosen(share: str, platform: str) -> str:
    """How members share a device, one of `SHARES`; see docs/scaling.md for the measurements.

    On a CPU a convolution over a batch of weights, or inside a loop, loses the library's fast
    form; a program that holds each member's own does not.
    """
    if share != CHOSEN:
        return share
    return "unrolled" if platform == "cpu" else "vmapped"


def together(step: Callable[..., Any], share: str, mesh: Mesh) -> Callable[..., Any]:
    """The step of K members.

    Args:
      step: (state, hyper, data, batch, balance, key) -> (state, scalars), of one.
      share: of `SHARES`.
      mesh: whose axis ``member`` divides K; the axis ``data`` is left to XLA.

    Returns:
      The same function of arguments and results with a leading axis of K, but for ``data``, which
      all share.
    """
    ways = {"unrolled": _unrolled, "vmapped": _vmapped, "mapped": _mapped}
    own, whole = PartitionSpec(MEMBER), PartitionSpec()
    return jax.shard_map(
        ways[share](step),
        mesh=mesh,
        in_specs=(own, own, whole, own, own, own),
        out_specs=(own, own),
        axis_names={MEMBER},
        check_vma=False,  # nothing is replicated over members but `data`, which is only read
    )


def stacked(trees: Sequence[Any]) -> Any:
    """Trees of K members as one with a leading axis; traced or not."""
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *trees)


def member(tree: Any, k: int) -> Any:
    """The k-th member's part of a tree with a leading axis; traced or not."""
    return jax.tree.map(lambda x: x[k], tree)


def _vmapped(step: Callable[..., Any]) -> Callable[..., Any]:
    return jax.vmap(step, in_axes=(0, 0, None, 0, 0, 0))


def _mapped(step: Callable[..., Any]) -> Callable[..., Any]:
    def run(state: Any, hyper: Any, data: Any, batch: Any, balance: Any, key: Any) -> Any:
        def one(own: Any) -> Any:
            state, hyper, batch, balance, key = own
            return step(state, hyper, data, batch, balance, key)

        return jax.lax.map(one, (state, hyper, batch, balance, key))

    return run


def _unrolled(step: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(step)
    def run(state: Any, hyper: Any, data: Any, batch: Any, balance: Any, key: Any) -> Any:
        one_each = [
            step(*member((state, hyper), k), data, *member((batch, balance, key), k))
            for k in range(len(state.step))
        ]
        return stacked(one_each)

    return run
