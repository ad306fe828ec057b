"""Cuts known examples; as a program, in a process of its own that can be killed."""

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


def logged(log, seconds=0.0):
    """Cuts slowly and writes down which study."""

    def cut(number):
        with log.open("a") as file:
            file.write(f"{number}\n")
        time.sleep(seconds)
        return examples_of(number)

    return cut


if __name__ == "__main__":
    folder, log, seconds = sys.argv[1:]
    shards.make(Path(folder), "toy", logged(Path(log), float(seconds)), STUDIES, {})
