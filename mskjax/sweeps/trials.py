"""Who works on which trial, so that every trial of the budget is finished once.

A study in the storage has all its trials from the start, waiting: their number is the budget.  A
worker takes one by two locks: that of the trial's folder, and the storage's own change from waiting
to running, which one worker alone succeeds with.  A trial that its worker has lost (it was killed,
its machine is gone) still says that it is running.  On the worker's own machine its folder is then
unlocked; on another one its heartbeat, a count in the storage, stands still.  Whoever finds it goes
on with the same trial in the same folder, so nothing is counted twice.

Heartbeats are counted by the one who looks, on its own clock: clocks need not agree.
"""

import contextlib
import dataclasses
import json
import os
import socket
import sys
import threading
import time
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from optuna.trial import FrozenTrial, TrialState

from mskjax import locks
from mskjax import workdir as workdirs
from mskjax.config import differences
from mskjax.errors import EXIT_PREEMPTED, UserError
from mskjax.sweeps.declared import Sweep
from mskjax.sweeps.storage import JOURNAL, RETRY_S, Storage

OPEN = (TrialState.WAITING, TrialState.RUNNING)
IDENTITY, CONTENT, OWNER, BEAT = "sweep", "content", "owner", "beat"
_STALLED = 20  # polls without a new trial, after which whoever entered them counts as gone
_NAMED = 5  # differences in a message


@dataclasses.dataclass(frozen=True)
class Timing:
    """How long is waited for what, in seconds.

    Attributes:
      beat: between two signs of life of a running trial.
      grace: without one, after which a worker on another machine counts as lost.
      poll: between two looks at the trials of others.
      retry: how long a storage may not answer.
    """

    beat: float = 20.0
    grace: float = 180.0
    poll: float = 3.0
    retry: float = RETRY_S


class Trials:
    """The trials of one sweep.

    Args:
      sweep: resolved.
      storage: of all its workers.
      workdir: of this worker; trials lie in ``trials/<number>``.
      timing: see `Timing`.

    Raises:
      UserError: the study in the storage is another sweep's; with what differs.
    """

    def __init__(self, sweep: Sweep, storage: Storage, workdir: Path, timing: Timing):
        self.sweep, self.storage, self.timing = sweep, storage, timing
        self._folder = workdir / "trials"
        self._seen: dict[int, tuple[Any, float]] = {}  # id -> (sign of life, since when)
        self.study, is_new = storage.retried(self._opened)
        self._seed(is_new)
        self._folder.mkdir(parents=True, exist_ok=True)
        self._me = {"id": uuid.uuid4().hex, "pid": os.getpid(), "place": _place(self._folder)}

    def folder(self, number: int) -> Path:
        """Folder of a trial, an ordinary run."""
        return self._folder / f"{number:04d}"

    def all(self) -> list[FrozenTrial]:
        """The trials that count, in their order; as many as the budget."""
        return self._own(self._every())[: self.sweep.config.trials]

    def _own(self, every: list[FrozenTrial]) -> list[FrozenTrial]:
        return [t for t in every if t.user_attrs.get(IDENTITY) == self.sweep.identity]

    def unfinished(self) -> list[FrozenTrial]:
        """Trials that are still to be done, those that were begun first."""
        found = [t for t in self.all() if t.state in OPEN]
        return sorted(found, key=lambda t: (t.state == TrialState.WAITING, t.number))

    @contextlib.contextmanager
    def taken(self, trial: FrozenTrial) -> Iterator["Held | None"]:
        """Holds a trial until the block ends; None: another worker has it, or it is done."""
        free = trial.state == TrialState.WAITING or self._is_lost(trial)
        with contextlib.ExitStack() as stack:
            if not free or not self._is_mine_to_lock(trial, stack):
                yield None
                return
            held = self._claimed(trial)
            if held is None:
                yield None
                return
            stack.enter_context(held.beating())
            yield held

    def _is_mine_to_lock(self, trial: FrozenTrial, stack: contextlib.ExitStack) -> bool:
        folder = self.folder(trial.number)
        if trial.state == TrialState.RUNNING and not self._was_here(trial):
            if not self._won(trial):
                return False
            # Its worker is gone, with the machine that alone could have told so.
            (folder / locks.LOCK).unlink(missing_ok=True)
        try:
            stack.enter_context(workdirs.owned(folder))
        except locks.InUse:
            return False
        return True

    def _was_here(self, trial: FrozenTrial) -> bool:
        return (trial.user_attrs.get(OWNER) or {}).get("place") == self._me["place"]

    def _is_lost(self, trial: FrozenTrial) -> bool:
        """Whether a running trial may have no worker any more; on this machine the lock decides."""
        owner = trial.user_attrs.get(OWNER)
        if self._was_here(trial) or owner == {}:
            return True
        sign, now = (json.dumps(owner), trial.user_attrs.get(BEAT)), time.monotonic()
        before, since = self._seen.setdefault(trial._trial_id, (sign, now))
        if before != sign:
            self._seen[trial._trial_id] = sign, now
            return False
        return now - since > self.timing.grace

    def _won(self, trial: FrozenTrial) -> bool:
        """Whether this worker, of those who found a trial lost, is the one to go on with it."""
        if self._fresh(trial).user_attrs.get(OWNER) != trial.user_attrs.get(OWNER):
            return False
        self._set(trial._trial_id, OWNER, self._me)
        time.sleep(self.timing.poll)  # the last one to write its name here has it
        return self._fresh(trial).user_attrs.get(OWNER) == self._me

    def _claimed(self, trial: FrozenTrial) -> "Held | None":
        fresh = self._fresh(trial)
        if fresh.state.is_finished():
            return None
        if fresh.state == TrialState.WAITING:
            if not self._began(trial):
                return None
        elif fresh.user_attrs.get(OWNER) not in (trial.user_attrs.get(OWNER), self._me):
            return None
        self._set(trial._trial_id, OWNER, self._me)
        declared = self.sweep.declared
        if declared is not None and trial.number == self.all()[0].number:
            self._fix(trial._trial_id, declared)
        self.study.sampler = _sampler(self.sweep, trial.number)
        bound = self.storage.retried(lambda: optuna.trial.Trial(self.study, trial._trial_id))
        return Held(self, bound, self._me, fresh)

    def _began(self, trial: FrozenTrial) -> bool:
        backend = self.storage.backend
        try:
            return self.storage.retried(
                lambda: backend.set_trial_state_values(trial._trial_id, TrialState.RUNNING)
            )
        except optuna.exceptions.UpdateFinishedTrialError:
            return False

    def _fresh(self, trial: FrozenTrial) -> FrozenTrial:
        return self.storage.retried(lambda: self.storage.backend.get_trial(trial._trial_id))

    def _set(self, trial_id: int, name: str, value: Any) -> None:
        backend = self.storage.backend
        self.storage.retried(lambda: backend.set_trial_user_attr(trial_id, name, value))

    def _fix(self, trial_id: int, values: Mapping[str, Any]) -> None:
        """Lets a trial have these values, as `optuna.Study.enqueue_trial` does."""
        stored = {name: p.stored(values[name]) for name, p in self.sweep.parameters.items()}
        backend = self.storage.backend
        self.storage.retried(
            lambda: backend.set_trial_system_attr(trial_id, "fixed_params", stored)
        )

    def _opened(self) -> tuple[optuna.Study, bool]:
        """The study, and whether this worker made it: of many that begin at once, one does."""
        config = self.sweep.config
        settings: dict[str, Any] = {
            "storage": self.storage.backend,
            "study_name": config.name,
            "pruner": _pruner(self.sweep),
        }
        direction = optuna.study.StudyDirection[config.direction.upper()]
        try:
            return optuna.create_study(direction=direction, **settings), True
        except optuna.exceptions.DuplicatedStudyError:
            return optuna.load_study(**settings), False

    def _seed(self, is_new: bool) -> None:
        """Enters the trials of the budget; the first one says whose study this is.

        Whoever made the study does so.  If it was killed meanwhile, the others do, and may enter
        more than there should be: `all` leaves those out.

        Raises:
          UserError: the study is another sweep's.
        """
        count, since = 0, time.monotonic()
        while True:
            every = self._every()
            self._check(every)
            missing = self.sweep.config.trials - len(self._own(every))
            if missing <= 0:
                return
            if is_new or time.monotonic() - since > _STALLED * self.timing.poll:
                for number in range(missing):
                    self._enter(is_first=not every and number == 0)
            else:
                time.sleep(self.timing.poll / 4)
            if len(every) != count:
                count, since = len(every), time.monotonic()

    def _every(self) -> list[FrozenTrial]:
        return self.storage.retried(lambda: self.study.get_trials(deepcopy=False))

    def _enter(self, is_first: bool = False) -> None:
        own = {IDENTITY: self.sweep.identity}
        first: dict[str, Any] = {CONTENT: self.sweep.content} if is_first else {}
        waiting = optuna.trial.create_trial(state=TrialState.WAITING, user_attrs=own | first)
        self.storage.retried(lambda: self.study.add_trial(waiting))

    def _check(self, every: list[FrozenTrial]) -> None:
        # Which trial is the first is for the storage to say, however many workers begin at once.
        if not every or every[0].user_attrs.get(IDENTITY) == self.sweep.identity:
            return
        content = every[0].user_attrs.get(CONTENT)
        who = f"{self.storage.shown} has a study {self.sweep.config.name!r}"
        if content is None:
            raise UserError(f"{who} that is no sweep of mskjax; set another name in the sweep.")
        changed = differences(content, json.loads(json.dumps(self.sweep.content)), "sweep")
        more = f"; and {len(changed) - _NAMED} more" if len(changed) > _NAMED else ""
        raise UserError(
            f"{who} of another sweep ({'; '.join(changed[:_NAMED])}{more}); use the file that it"
            " was begun with, or set another name in the sweep and give another --workdir."
        )


class Held:
    """A trial that this worker works on.

    Args:
      trials: whose it is.
      trial: of Optuna.
      owner: this worker.
      fresh: the trial when it was taken.
    """

    def __init__(self, trials: Trials, trial: optuna.trial.Trial, owner: Any, fresh: FrozenTrial):
        self._trials, self._trial, self._owner, self._fresh = trials, trial, owner, fresh
        self._gone = threading.Event()
        self._over = threading.Event()

    @property
    def number(self) -> int:
        """Of the trial in the study."""
        return self._fresh.number

    @property
    def is_resumed(self) -> bool:
        """Whether another worker had begun it."""
        return self._fresh.state == TrialState.RUNNING

    def values(self) -> dict[str, Any]:
        """Dotted field -> value."""
        parameters = self._trials.sweep.parameters
        return self._trials.storage.retried(
            lambda: {name: p.suggest(self._trial, name) for name, p in parameters.items()}
        )

    def report(self, rung: int, value: float) -> bool:
        """Notes the value after a fold; returns whether the trial should end here."""
        retried = self._trials.storage.retried
        if rung not in self._fresh.intermediate_values:
            retried(lambda: self._trial.report(value, rung))
        return retried(self._trial.should_prune)

    def note(self, name: str, value: Any) -> None:
        """Keeps JSON with the trial."""
        self._trials._set(self._trial._trial_id, name, value)

    def finish(self, state: TrialState, value: float | None = None) -> None:
        """Ends the trial, unless another worker has done so."""
        self._stop()
        values = None if value is None else [value]
        study = self._trials.study

        def tell() -> None:
            # After a lost answer the trial is finished already.
            study.tell(self._trial, values, state, skip_if_finished=True)

        with contextlib.suppress(optuna.exceptions.UpdateFinishedTrialError):
            self._trials.storage.retried(tell)

    @contextlib.contextmanager
    def beating(self) -> Iterator[None]:
        """Gives signs of life until the block ends, and gives an unfinished trial free then."""
        thread = threading.Thread(target=self._beat, daemon=True)
        thread.start()
        try:
            yield
        except BaseException:
            self._stop()
            self._give_free()
            raise
        finally:
            self._stop()
            thread.join()

    def _stop(self) -> None:
        self._over.set()

    def _beat(self) -> None:
        backend, number = self._trials.storage.backend, self._trial._trial_id
        count = int(self._fresh.user_attrs.get(BEAT) or 0)
        while not self._over.wait(self._trials.timing.beat):
            count += 1
            # A storage that is down for a while is for the worker itself to wait for.
            with contextlib.suppress(Exception):
                backend.set_trial_user_attr(number, BEAT, count)
                owner = backend.get_trial(number).user_attrs.get(OWNER)
                if owner != self._owner and not self._over.is_set():
                    self._gone.set()
                    leave(self.number)
                    return

    def _give_free(self) -> None:
        """Lets workers of other machines go on at once; one try, for time may be short."""
        backend, number = self._trials.storage.backend, self._trial._trial_id
        with contextlib.suppress(Exception):
            if not self._gone.is_set():
                backend.set_trial_user_attr(number, OWNER, {})


def _place(folder: Path) -> str:
    """What two workers share if the lock of a folder tells each whether the other lives.

    Machines may bear one name, and containers of one machine may have files of their own.
    """
    boot, where = Path("/proc/sys/kernel/random/boot_id"), folder.stat()
    kernel = boot.read_text().strip() if boot.exists() else ""
    return f"{socket.gethostname()} {kernel} {where.st_dev}:{where.st_ino}"


def leave(number: int) -> None:
    """Ends this process at once: another one has its trial, and perhaps writes into its folder.

    Workers that were cut off from the storage, and are thought dead, come here.
    """
    print(
        f"pre-empted: trial {number} was taken over by another worker, which heard nothing of this"
        " one; run the same command to go on.",
        file=sys.stderr,
        flush=True,
    )
    os._exit(EXIT_PREEMPTED)


def forget(folder: Path, is_new: bool) -> None:
    """Takes away what a sweep has left that a wrong study or cohort has ended at its start.

    Args:
      folder: ``--workdir`` of the sweep.
      is_new: whether this command made the journal there; it goes if no trial was begun.
    """
    runs = [*(folder / "trials").glob("*")]
    begun = any((run / locks.LOCK).exists() or workdirs.is_begun(run) for run in runs)
    if is_new and not begun:
        for path in (folder / JOURNAL, (folder / JOURNAL).with_suffix(".lock")):
            path.unlink(missing_ok=True)
    for empty in (folder / "trials", folder):
        with contextlib.suppress(OSError):
            empty.rmdir()


def _sampler(sweep: Sweep, number: int) -> optuna.samplers.BaseSampler:
    # Of the trial alone: workers with one seed would draw the same values.
    seed = int(np.random.SeedSequence((sweep.config.seed, number)).generate_state(1)[0])
    if sweep.config.sampler == "random":
        return optuna.samplers.RandomSampler(seed=seed)
    return optuna.samplers.TPESampler(
        seed=seed, n_startup_trials=sweep.config.startup, constant_liar=True
    )


def _pruner(sweep: Sweep) -> optuna.pruners.BasePruner:
    if sweep.config.pruner == "none":
        return optuna.pruners.NopPruner()
    return optuna.pruners.MedianPruner(n_startup_trials=sweep.config.startup)
