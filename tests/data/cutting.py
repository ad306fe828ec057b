"""Cuts known examples; as a program, in a process of its own that can be killed."""

import dataclasses
import errno
import fcntl
import os
import sys
import time
from pathlib import Path

import numpy as np

from mskjax.data import shards

STUDIES = 40  # two whole shards and a half


def examples_of(number):
    """None, or up to three examples that say whose they are."""
    count = number % 4
    if not count:
        return None
    return {
        "image": np.full((count, 5, 3), number, np.float32),
        "label": np.arange(count, dtype=np.uint8) + number,
        "case": np.array([f"{number}/{k}" for k in range(count)]),
    }


@dataclasses.dataclass(frozen=True)
class Logged:
    """Cuts slowly and writes down which study and who.

    Attributes:
      log: number of the study and of the process, a line a study.
      seconds: that a study takes.
      bad: number of a study that cannot be cut.
      alone: studies that are cut before another process must have joined.
    """

    log: Path
    seconds: float = 0.0
    bad: int = -1
    alone: int = STUDIES

    def __call__(self, number):
        with self.log.open("a") as file:
            file.write(f"{number} {os.getpid()}\n")
        time.sleep(self.seconds)
        end = time.monotonic() + 60
        while number >= self.alone and len({who for _, who in lines(self.log)}) < 2:
            assert time.monotonic() < end, "nobody joined"
            time.sleep(0.01)
        if number == self.bad:
            raise ValueError(f"cannot cut study {number}")
        return examples_of(number)


def unknown(*_):
    """In the place of `fcntl.flock`."""
    raise OSError(errno.ENOLCK, "No locks available")


def lines(log):
    """(study, process) of each study that was begun."""
    text = log.read_text() if log.exists() else ""
    return [[int(word) for word in line.split()] for line in text.splitlines()]


if __name__ == "__main__":
    from data.cutting import Logged  # under the name by which helpers find it

    folder, log, seconds, alone = sys.argv[1:]
    if int(alone) < STUDIES:
        shards.WORTH_HELP_S, shards.STUDIES_PER_SHARD = 0.0, int(alone)
    if os.environ.get("WITHOUT_LOCKS"):
        fcntl.flock = unknown
    cut = Logged(Path(log), float(seconds), alone=int(alone))
    shards.make(Path(folder), "toy", cut, STUDIES, {})
