"""One worker of a sweep: takes a trial, trains it fold by fold, tells its figure; and so on."""

import dataclasses
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

from optuna.trial import FrozenTrial, TrialState

from mskjax.errors import Diverged
from mskjax.progress import duration, say
from mskjax.sweeps import space
from mskjax.sweeps.declared import Refused
from mskjax.sweeps.trials import Held, Trials

# What is kept with a trial beside its values.
ESTIMATE, FOLDS, WHY, SPENT = "estimate", "folds", "why", "spent_s"


@dataclasses.dataclass(frozen=True)
class Rung:
    """What a trial is worth after a fold.

    Attributes:
      fold: its number.
      estimate: of the validation patients of all folds so far, as in report.json.
      left: how many folds follow.
      alone: value of this fold's validation patients; None where it is not defined.
    """

    fold: int
    estimate: Mapping[str, Any]
    left: int
    alone: float | None = None


class Run(Protocol):
    """What a trial does."""

    def __call__(self, values: Mapping[str, Any], folder: Path) -> Iterator[Rung]:
        """Trains and reads fold after fold, in a folder that this worker owns.

        Raises:
          Refused, Diverged: the values are to blame; the trial fails and the sweep goes on.
          UserError: something else is wrong; the sweep ends.
        """


def work(trials: Trials, run: Run) -> None:
    """Works until every trial of the budget is finished, by this worker or another.

    Raises:
      UserError: see `Run`, `Storage`.
      Preempted: SIGTERM arrived; the trial goes on in the next worker.
    """
    waits = False
    while unfinished := trials.unfinished():
        if any(_work_on(trials, run, trial) for trial in unfinished):
            waits = False
            continue
        if not waits:
            say(
                f"waiting for {len(unfinished)} trial(s) of other workers, to go on with what they"
                " may lose; this worker may be ended at any time"
            )
            waits = True
        time.sleep(trials.timing.poll)


def _work_on(trials: Trials, run: Run, trial: FrozenTrial) -> bool:
    """Whether this worker had the trial, and did with it what there was to do."""
    with trials.taken(trial) as held:
        if held is None:
            return False
        _finish(trials, run, held)
        return True


def _finish(trials: Trials, run: Run, held: Held) -> None:
    values, begun = held.values(), time.monotonic()
    told = ", ".join(space.shown(name, value) for name, value in values.items())
    say(f"trial {held.number}{', resumed' if held.is_resumed else ''}: {told}")
    folder, found = trials.folder(held.number), None
    folds: dict[str, float | None] = {}
    try:
        for number, rung in enumerate(run(values, folder)):
            found, value = rung.estimate, rung.estimate["value"]
            folds[str(rung.fold)] = rung.alone
            if value is not None and held.report(number, value) and rung.left:
                _note(held, found, folds, begun)
                held.finish(TrialState.PRUNED)
                say(f"trial {held.number}: {value:.4f} after {number + 1} fold(s), pruned")
                return
    except (Refused, Diverged) as error:
        _fail(held, str(error), begun)
        return
    if found is None or found["value"] is None:
        why = (found or {}).get("why") or "no case of a validation patient has a reference"
        _fail(held, f"the figure is not defined: {why}", begun)
        return
    _note(held, found, folds, begun)
    held.finish(TrialState.COMPLETE, found["value"])
    spent = duration(time.monotonic() - begun)
    say(f"trial {held.number}: {trials.sweep.config.objective} {found['value']:.4f}, {spent}")


def _fail(held: Held, why: str, begun: float) -> None:
    held.note(WHY, why)
    held.note(SPENT, round(time.monotonic() - begun, 1))
    held.finish(TrialState.FAIL)
    say(f"trial {held.number} failed: {why}")


def _note(
    held: Held, estimate: Mapping[str, Any], folds: Mapping[str, float | None], begun: float
) -> None:
    kept = {name: estimate.get(name) for name in ("value", "ci95", "n", "patients")}
    held.note(ESTIMATE, kept)
    held.note(FOLDS, dict(folds))
    held.note(SPENT, round(time.monotonic() - begun, 1))
