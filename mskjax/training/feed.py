"""From the numbers of examples to batches on the devices.

Two ways, which give the same bits.  *Resident*: the examples lie on every device, only their
numbers are sent, and rows are gathered inside the compiled step.  *Streamed*: rows are gathered on
the host, from arrays that may lie on disk, and sent; each process gathers its own rows alone.

Trainings that share a program share their examples, or each has its own: regions that its own
first stage found, say.  An example's number is then that among its training's own.
"""

import os
from collections.abc import Generator, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding

from mskjax.data.pipeline import Examples, concatenate, count, megabytes
from mskjax.progress import say
from mskjax.training.mesh import put_replicated

Batch = dict[str, jax.Array]
T = TypeVar("T")

# Of a batch: where its examples lie in what is resident, where trainings have some of their own.
ROW = "row"

# Of an accelerator's memory; the rest is for state, activations and prediction.
SHARE_OF_DEVICE = 0.25
# Without an accelerator there is nothing to be sent, and a copy in memory is all that is won.
_HOST_MB = 64.0


class Feed:
    """The examples of a stage, and how batches of them come onto a mesh.

    Args:
      examples: those that all trainings share, or those of each of K trainings, alike in all but
        their number; the arrays may be memory-mapped.
      mesh: the devices.
      limit_mb: megabytes of examples up to which they are resident; None: a quarter of a device's
        memory, and 64 MB where the host is the device.

    Attributes:
      data: what is resident, on every device: all arrays, or none.
    """

    def __init__(self, examples: Sequence[Examples], mesh: Mesh, limit_mb: float | None = None):
        limit = _limit(mesh) if limit_mb is None else limit_mb
        self._examples = tuple(examples)
        self._first = np.cumsum([0, *map(count, self._examples)])[:-1, None]
        self.is_resident = self._megabytes <= limit
        self.data: Batch = put_replicated(self._end_to_end(), mesh) if self.is_resident else {}

    def batch(self, numbers: np.ndarray, sharding: NamedSharding) -> Batch:
        """A batch as a compiled step takes it beside `data`, see `gathered`.

        Args:
          numbers: (..., B) integers; (n, K, B) where each of K trainings has its own examples.
          sharding: of their axes.

        Returns:
          ``index``, int32 in the shape of `numbers`; where nothing is resident also the rows, with
          the axes of an example after those of `numbers`; else `ROW`, where it is not ``index``.
        """

        def put(shape: tuple[int, ...], rows: Any) -> jax.Array:
            return jax.make_array_from_callback(numbers.shape + shape, sharding, rows)

        found = {"index": put((), lambda i: numbers[i].astype(np.int32))}
        if not self.is_resident:
            for name, values in self._examples[0].items():
                own = [examples[name] for examples in self._examples]
                found[name] = put(values.shape[1:], _Rows(own, numbers))
        elif len(self._examples) > 1:
            rows = numbers + self._first
            found[ROW] = put((), lambda i: rows[i].astype(np.int32))
        return found

    def announce(self, title: str) -> None:
        """Says which way it is, with the size."""
        how = "resident on every device" if self.is_resident else "streamed from the host"
        say(f"{title}: {self._megabytes:.0f} MB of examples, {how}")

    @property
    def _megabytes(self) -> float:
        return sum(map(megabytes, self._examples))

    def _end_to_end(self) -> Examples:
        return self._examples[0] if len(self._examples) == 1 else concatenate(self._examples)


class _Rows:
    """Gathers the rows that one device holds, from what all share or from each training's own."""

    def __init__(self, values: Sequence[np.ndarray], numbers: np.ndarray):
        self._values, self._numbers = values, numbers

    def __call__(self, index: tuple[slice, ...]) -> np.ndarray:
        numbers = self._numbers[index[: self._numbers.ndim]]
        if len(self._values) == 1:
            return self._values[0][numbers]
        own = zip(self._values[index[1]], np.moveaxis(numbers, 1, 0), strict=True)
        return np.stack([values[chosen] for values, chosen in own], 1)


def gathered(data: Mapping[str, jax.Array], batch: Mapping[str, jax.Array]) -> Batch:
    """The batch with the rows of what is resident; traced.

    Args:
      data: `Feed.data`.
      batch: of `Feed.batch`, of one axis of B numbers.
    """
    given = dict(batch)
    place = given.pop(ROW, given["index"])
    rows = {k: v.at[place].get(mode="promise_in_bounds") for k, v in data.items()}
    # A gather that melts into what follows would round otherwise than rows that were sent.
    return {**given, **jax.lax.optimization_barrier(rows)}


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
