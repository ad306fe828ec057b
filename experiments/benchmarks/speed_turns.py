"""Two sides in turn, in one process, and whether the libraries of the other side are there."""

import importlib.util
import time
from collections.abc import Callable

from mskjax.errors import UserError

Work = Callable[[], object]
Timed = Callable[[], float]  # does its work and gives its seconds
Pairs = tuple[tuple[float, float], ...]


def alternate(ours: Timed, theirs: Timed, rounds: int, settle_s: float = 0.0) -> Pairs:
    """(ours, theirs) seconds of each round; who is first alternates, so that neither gains by it.

    Args:
      ours: one measurement; what compiles has been called before.
      theirs: the same of the other side.
      rounds: pairs.
      settle_s: of rest before each: threads that have done their work spin for a while before they
        sleep.
    """
    pairs = []
    for number in range(rounds):
        told = {}
        for side in (ours, theirs) if number % 2 == 0 else (theirs, ours):
            time.sleep(settle_s)
            told[side] = side()
        pairs.append((told[ours], told[theirs]))
    return tuple(pairs)


def in_turn(ours: Work, theirs: Work, rounds: int, share: float = 1.0) -> Pairs:
    """`alternate` of work that is timed here.

    Args:
      ours: one measurement; what compiles has been called before.
      theirs: the same of the other side.
      rounds: pairs.
      share: of its work that the other side does; its seconds are divided by it.
    """
    return alternate(lambda: seconds(ours), lambda: seconds(theirs) / share, rounds)


def seconds(work: Work) -> float:
    """How long one call takes."""
    start = time.perf_counter()
    work()
    return max(time.perf_counter() - start, 1e-9)


def check_there(*names: str) -> None:
    """Raises UserError if a library of the other side is not installed.

    Args:
      *names: of modules.
    """
    missing = [name for name in names if importlib.util.find_spec(name) is None]
    if missing:
        raise UserError(
            f"the peer needs {' and '.join(missing)}: pip install -e '.[bench]', and"
            " pip install --no-deps monai."
        )
