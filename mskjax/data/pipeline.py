"""The order of examples, with Grain, and the batches of an evaluation.

An `Examples` is a dict of NumPy arrays, in memory or memory-mapped, with one leading axis over
examples; all examples of a stage have one shape, so it is also what a batch looks like.  Batches
carry two extra arrays: ``index`` (int32, the example's number, to which augmentation is keyed) and,
in evaluation, ``weight`` (float32, 1 for a real example and 0 for padding).
"""

import functools
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import grain

Examples = dict[str, np.ndarray]


def count(examples: Examples) -> int:
    """Number of examples."""
    return len(next(iter(examples.values())))


def concatenate(parts: Sequence[Examples]) -> Examples:
    """Examples of several studies as one; all parts have the same keys and shapes."""
    return {k: np.concatenate([p[k] for p in parts]) for k in parts[0]}


def take(examples: Examples, chosen: np.ndarray) -> Examples:
    """The examples with the given numbers, or where a boolean array is true."""
    return {k: v[chosen] for k, v in examples.items()}


def balanced_order(classes: np.ndarray) -> np.ndarray:
    """Example numbers in which every class occurs equally often (up to rounding).

    Each example of a class with n of m (the largest class) is repeated m / n times; the rest of
    the division goes to the first examples, so the order is deterministic.

    Args:
      classes: (N,) integer class of each example; examples of a negative one, which belong to no
        class, occur once.
    """
    members = [np.flatnonzero(classes == c) for c in np.unique(classes[classes >= 0])]
    largest = max((len(m) for m in members), default=0)
    balanced = [np.resize(m, largest) for m in members]
    return np.sort(np.concatenate([*balanced, np.flatnonzero(classes < 0)]))


def batch_numbers(order: np.ndarray, batch_size: int, seed: int) -> "grain.MapDataset":
    """Numbers of the examples of every batch of a training: endless, shuffled anew each epoch.

    A pure function of the step, so a training that goes on needs no more than its step to see what
    it would have seen.  Nothing here depends on the number of processes or devices: each takes its
    rows of the one batch.

    Args:
      order: numbers of the examples that make up an epoch: a fold's own, repeated where classes
        are balanced.
      batch_size: examples a batch, over all devices.
      seed: of the shuffle.

    Returns:
      ``[step]`` gives (batch_size,) int64, the numbers of the step-th batch, from 0 on.
    """
    import grain  # late: what is evaluated, or was exported, needs none of it

    return grain.MapDataset.source(_Batches(np.asarray(order), batch_size, seed))


class _Batches:
    """The batches, as a source of Grain; see `batch_numbers`.

    Not Grain's own shuffle: that walks a cipher over 65 536 numbers until one falls among the
    examples, which takes 5 ms for a batch of 8 of 40 examples, more than many a step.
    """

    def __init__(self, order: np.ndarray, batch_size: int, seed: int):
        self._order, self._batch_size, self._seed = order, batch_size, seed
        self._epoch = functools.lru_cache(maxsize=2)(self._shuffled)

    def __len__(self) -> int:
        return sys.maxsize  # without end

    def __getitem__(self, step: int) -> np.ndarray:
        epoch, first = divmod(int(step) * self._batch_size, len(self._order))
        found = self._epoch(epoch)[first:]
        while len(found) < self._batch_size:  # an epoch ends inside the batch
            epoch += 1
            found = np.concatenate([found, self._epoch(epoch)])
        return found[: self._batch_size]

    def _shuffled(self, epoch: int) -> np.ndarray:
        """The numbers of an epoch, from bits that every version of NumPy makes alike."""
        bits = np.random.Philox(np.random.SeedSequence((self._seed, epoch)))
        return self._order[np.argsort(bits.random_raw(len(self._order)), kind="stable")]


def evaluation_batches(examples: Examples, batch_size: int) -> Iterator[Examples]:
    """Every example once, in order; the last batch is padded with zeros of weight 0."""
    n = count(examples)
    for start in range(0, n, batch_size):
        rows = np.arange(start, min(start + batch_size, n))
        batch: Examples = {
            "index": rows.astype(np.int32),
            "weight": np.ones(len(rows), np.float32),
            **take(examples, rows),
        }
        missing = batch_size - len(rows)
        yield {k: np.pad(v, [(0, missing)] + [(0, 0)] * (v.ndim - 1)) for k, v in batch.items()}


def in_batches(
    run: Callable[[Examples], Mapping[str, Any]], examples: Examples, batch_size: int
) -> Examples:
    """What a function of batches says of all examples, in their order.

    Args:
      run: is given each padded batch of `evaluation_batches`, and gives arrays of as many rows.
      examples: N of them.
      batch_size: examples a batch.

    Returns:
      Arrays of N rows, on the host.
    """
    parts = []
    for batch in evaluation_batches(examples, batch_size):
        real = int(batch["weight"].sum())
        parts.append({name: np.asarray(v)[:real] for name, v in run(batch).items()})
    return concatenate(parts)


def megabytes(examples: Examples) -> float:
    """Host memory that the examples take, MB."""
    return sum(v.nbytes for v in examples.values()) / 1e6
