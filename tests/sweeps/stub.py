"""Workers of a sweep in which nothing is trained: each step of a trial is a line of a file.

    python stub.py WORKDIR STORAGE GO [CHANGES]

imports everything, waits for the file GO, and works; CHANGES are of the sweep, as JSON.
"""

import json
import math
import os
import sys
import time
from pathlib import Path

from mskjax.commands import run as command
from mskjax.config import StudyConfig, parse
from mskjax.sweeps import space
from mskjax.sweeps.declared import Sweep, SweepConfig
from mskjax.sweeps.storage import Storage
from mskjax.sweeps.trials import Timing, Trials
from mskjax.sweeps.worker import Rung, work

FOLDS, STEPS, STEP_S = 2, 4, 0.05
FAST = Timing(beat=0.1, grace=1.0, poll=0.1, retry=20.0)
BASE = {
    "system": "toy",
    "variant": "phantom",
    "data": {"cohort": "toy", "config": "phantom"},
    "stages": {"a": {"rate": 0.01, "width": 8, "widths": (8, 16)}},
}
SPACE = {
    "stages.a.rate": {"low": 1e-4, "high": 1.0, "log": True},
    "stages.a.width": {"low": 4, "high": 16, "step": 4},
    "stages.a.widths": {"choices": ((8, 16), (16, 32))},
}


class Toy(Sweep):
    """A sweep of a system that does not exist."""

    def config_of(self, values):
        return parse(StudyConfig, space.applied(self.base, values))


def sweep(**changes):
    """A sweep of a system that does not exist."""
    settings = {"study": "toy", "space": SPACE, "trials": 12, "name": "toy", "startup": 3}
    settings |= {"objective": "figure", "direction": "maximize"}
    config = SweepConfig(**(settings | changes))
    parameters = {
        k: space.parameter(k, spec, space.value_at(BASE, k)) for k, spec in config.space.items()
    }
    return Toy(config, BASE, parameters)


def trials(workdir, place=None, timing=FAST, **changes):
    """This process's view of the trials."""
    storage = Storage(str(place or Path(workdir) / "journal.log"), timing.retry)
    return Trials(sweep(**changes), storage, Path(workdir), timing)


def value(values, fold=0):
    """Best at a rate of 0.01."""
    return -abs(math.log10(values["stages.a.rate"]) + 2) + 0.01 * fold


def run(values, folder, step_s=STEP_S):
    """Goes on after the last step that the folder has."""
    done = steps(folder)
    for fold in range(FOLDS):
        for step in range(fold * STEPS, (fold + 1) * STEPS):
            if step >= len(done):
                time.sleep(step_s)
                with (folder / "steps.jsonl").open("a") as file:
                    file.write(json.dumps([step, os.getpid()]) + "\n")
        estimate = {"value": value(values, fold), "ci95": None, "n": 5, "patients": 2}
        yield Rung(fold, estimate, FOLDS - 1 - fold, estimate["value"])


def steps(folder):
    """(step, process) in the order in which they were done."""
    path = Path(folder) / "steps.jsonl"
    return (
        [tuple(json.loads(line)) for line in path.read_text().splitlines()] if path.exists() else []
    )


def main(argv):
    """One worker."""
    workdir, place, go, *changes = argv
    while not Path(go).exists():
        time.sleep(0.01)
    work(trials(workdir, place, **json.loads("".join(changes) or "{}")), run)


if __name__ == "__main__":
    sys.exit(command(main, sys.argv[1:]))
