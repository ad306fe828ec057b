"""Which of the processes of a run this one is: the first alone writes files and speaks.

A command that runs in one process, as most do, is the first of one.
"""

_index, _count = 0, 1


def index() -> int:
    """Number of this process, from 0."""
    return _index


def count() -> int:
    """Number of processes that compute together."""
    return _count


def is_first() -> bool:
    """Whether this process writes and speaks for all."""
    return _index == 0


def take(index: int, count: int) -> None:
    """Makes this process one of several; `training.processes.start` alone calls it."""
    global _index, _count
    _index, _count = index, count
