"""From the numbers of examples to batches on the devices.

Two ways, which give the same bits.  *Resident*: the examples lie on every device, only their
numbers are sent, and rows are gathered inside the compiled step.  *Streamed*: rows are gathered on
the host, from arrays that may lie on disk, and sent; each process gathers its own rows alone.
"""

import os
from collections.abc import Generator, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding

from mskjax.data.pipeline import Examples, megabytes
from mskjax.progress import say
from mskjax.training.mesh import put_replicated

Batch = dict[str, jax.Array]
T = TypeVar("T")

# Of an accelerator's memory; the rest is for state, activations and prediction.
SHARE_OF_DEVICE = 0.25
# Without an accelerator there is nothing to be sent, and a copy in memory is all that is won.
_HOST_MB = 64.0


class Feed:
    """The examples of a stage, and how batches of them come onto a mesh.

    Args:
      examples: N examples; the arrays may be memory-mapped.
      mesh: the devices.
      limit_mb: megabytes of examples up to which they are resident; None: a quarter of a device's
        memory, and 64 MB where the host is the device.

    Attributes:
      data: what is resident, on every device: all arrays, or none.
    """

    def __init__(self, examples: Examples, mesh: Mesh, limit_mb: float | None = None):
        limit = _limit(mesh) if limit_mb is None else limit_mb
        self._examples = examples
        self.is_resident = megabytes(examples) <= limit
        self.data: Batch = put_replicated(examples, mesh) if self.is_resident else {}

    def batch(self, numbers: np.ndarray, sharding: NamedSharding) -> Batch:
        """A batch as a compiled step takes it beside `data`, see `gathered`.

        Args:
          numbers: (..., B) integers.
          sharding: of their axes.

        Returns:
          ``index``, int32 in the shape of `numbers`; where nothing is resident also the rows, with
          the axes of an example after those of `numbers`.
        """

        def put(shape: tuple[int, ...], rows: Any) -> jax.Array:
            return jax.make_array_from_callback(numbers.shape + shape, sharding, rows)

        found = {"index": put((), lambda i: numbers[i].astype(np.int32))}
        if not self.is_resident:
            for name, values in self._examples.items():
                found[name] = put(values.shape[1:], _Rows(values, numbers))
        return found

    def announce(self, title: str) -> None:
        """Says which way it is, with the size."""
        how = "resident on every device" if self.is_resident else "streamed from the host"
        say(f"{title}: {megabytes(self._examples):.0f} MB of examples, {how}")


class _Rows:
    """Gathers the rows that one device holds."""

    def __init__(self, values: np.ndarray, numbers: np.ndarray):
        self._values, self._numbers = values, numbers

    def __call__(self, index: tuple[slice, ...]) -> np.ndarray:
        return self._values[self._numbers[index[: self._numbers.ndim]]]


def gathered(data: Mapping[str, jax.Array], batch: Mapping[str, jax.Array]) -> Batch:
    """The batch with the rows of what is resident; traced.

    Args:
      data: `Feed.data`.
      batch: of `Feed.batch`, of one axis of B numbers.
    """
    rows = {k: v.at[batch["index"]].get(mode="promise_in_bounds") for k, v in data.items()}
    # A gather that melts into what follows would round otherwise than rows that were sent.
    return {**batch, **jax.lax.optimization_barrier(rows)}


def one_ahead(items: Iterator[T]) -> Generator[T, None, None]:
    """The items, each made by a thread while the one before it is in use."""
    end = object()
    with ThreadPoolExecutor(1, thread_name_prefix="feed") as pool:
        coming = pool.submit(next, items, end)
        while (item := coming.result()) is not end:
            coming = pool.submit(next, items, end)
            yield item  # type: ignore[misc]


def _limit(mesh: Mesh) -> float:
    """Megabytes of examples that a device of the mesh may hold."""
    device = mesh.local_devices[0]
    if device.platform == "cpu":
        return _HOST_MB / mesh.size  # one host has the copies of all its devices
    stats = device.memory_stats() or {}
    whole = stats.get("bytes_limit", os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    return SHARE_OF_DEVICE * whole / 1e6
