"""Cuts known examples; as a program, in a process of its own that can be killed."""

import dataclasses
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
    """Cuts slowly and writes down which study and who."""

    log: Path
    seconds: float = 0.0
    bad: int = -1

    def __call__(self, number):
        with self.log.open("a") as file:
            file.write(f"{number} {os.getpid()}\n")
        time.sleep(self.seconds)
        if number == self.bad:
            raise ValueError(f"cannot cut study {number}")
        return examples_of(number)


if __name__ == "__main__":
    from data.cutting import Logged  # under the name by which helpers find it

    folder, log, seconds, worth, size = sys.argv[1:]
    shards.WORTH_HELP_S, shards.STUDIES_PER_SHARD = float(worth), int(size)
    shards.make(Path(folder), "toy", Logged(Path(log), float(seconds)), STUDIES, {})
