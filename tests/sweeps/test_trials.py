"""Who may work on a trial: claims, lost trials here and on other machines, whose study it is."""

import contextlib
import shutil
import subprocess
import sys
import time

import optuna
import pytest
from optuna.trial import TrialState
from sweeps import stub

from mskjax import locks
from mskjax.errors import Preempted, UserError
from mskjax.sweeps.trials import forget


def from_elsewhere(workdir, place):
    """The view of a worker on another machine that shares the folder."""
    trials = stub.trials(workdir, place, trials=2)
    trials._me["place"] = "far"
    return trials


def test_the_budget_is_entered_once_and_stays(tmp_path, place):
    first = stub.trials(tmp_path, place, trials=5)
    second = stub.trials(tmp_path, place, trials=5)
    for trials in (first, second):
        assert [t.number for t in trials.all()] == list(range(5))
        assert len(trials.study.trials) == 5


def test_a_surplus_trial_of_a_race_is_never_taken(tmp_path):
    trials = stub.trials(tmp_path, trials=2)
    trials._enter()
    assert len(trials.study.trials) == 3
    assert [t.number for t in trials.unfinished()] == [0, 1]


def test_what_a_worker_that_was_killed_at_the_start_left_out_is_entered(tmp_path, monkeypatch):
    entered = []

    def dies(self, is_first=False):
        if len(entered) == 2:
            raise SystemExit
        entered.append(enter(self, is_first))

    with monkeypatch.context() as patch:
        enter = stub.Trials._enter
        patch.setattr(stub.Trials, "_enter", dies)
        with pytest.raises(SystemExit):
            stub.trials(tmp_path, trials=5)
    assert len(stub.trials(tmp_path, trials=5).all()) == 5


def test_a_trial_is_one_workers(tmp_path, place):
    mine, other = (stub.trials(tmp_path, place, trials=2) for _ in range(2))
    (first, _), seen = mine.unfinished(), other.unfinished()
    with mine.taken(first) as held, other.taken(seen[0]) as refused:
        assert held.number == 0
        assert not held.is_resumed
        assert refused is None
        assert [t.number for t in other.unfinished()] == [0, 1]
        with other.taken(other.unfinished()[0]) as again:  # it runs now, and its folder is locked
            assert again is None
        held.finish(TrialState.COMPLETE, 1.0)
    with other.taken(seen[0]) as late:  # an old look at it
        assert late is None
    assert [t.number for t in other.unfinished()] == [1]


def test_a_worker_that_was_killed_between_two_calls_loses_nothing(tmp_path):
    first = stub.trials(tmp_path, trials=1)
    backend, number = first.storage.backend, first.all()[0]._trial_id
    assert backend.set_trial_state_values(number, TrialState.RUNNING)  # and dead: it has no owner
    trials = stub.trials(tmp_path, trials=1)
    end = time.monotonic() + 20
    while True:
        (trial,) = trials.unfinished()
        with trials.taken(trial) as held:
            if held is not None:
                assert held.is_resumed
                assert set(held.values()) == set(stub.SPACE)
                held.finish(TrialState.COMPLETE, 1.0)
                break
        assert time.monotonic() < end
        time.sleep(0.1)


def test_on_another_machine_a_heartbeat_says_that_a_trial_lives(tmp_path, place):
    far, here = from_elsewhere(tmp_path, place), stub.trials(tmp_path, place, trials=2)
    with contextlib.ExitStack() as machine:
        held = machine.enter_context(far.taken(far.unfinished()[0]))
        assert held is not None
        begun = time.monotonic()
        while time.monotonic() - begun < 2 * stub.FAST.grace:  # it beats
            with here.taken(here.unfinished()[0]) as lost:
                assert lost is None
            time.sleep(0.2)
        held._stop()  # the machine is gone, with its lock in the shared folder
        end = time.monotonic() + 20
        while True:
            with here.taken(here.unfinished()[0]) as lost:
                if lost is not None:
                    assert lost.number == held.number
                    assert lost.is_resumed
                    lost.finish(TrialState.COMPLETE, 2.0)
                    break
            assert time.monotonic() < end
            time.sleep(0.1)
        assert time.monotonic() - begun > 2 * stub.FAST.grace + 0.8 * stub.FAST.grace
        # It was only away: what it says late changes nothing.
        held.finish(TrialState.COMPLETE, 3.0)
    assert here.all()[0].value == 2.0


def test_who_was_thought_dead_and_is_not_ends_at_once(tmp_path, place, monkeypatch):
    left = []
    monkeypatch.setattr("mskjax.sweeps.trials.leave", left.append)
    far, here = from_elsewhere(tmp_path, place), stub.trials(tmp_path, place, trials=2)
    with far.taken(far.unfinished()[0]) as held:
        here._set(held._trial._trial_id, "owner", here._me)
        end = time.monotonic() + 20
        while not left:
            assert time.monotonic() < end
            time.sleep(0.05)
    assert left == [0]
    assert here.all()[0].user_attrs["owner"] == here._me


def test_machines_of_one_name_with_files_of_their_own_are_two(tmp_path):
    here = stub.trials(tmp_path / "a", tmp_path / "journal.log", trials=2)
    other = stub.trials(tmp_path / "b", tmp_path / "journal.log", trials=2)
    with here.taken(here.unfinished()[0]) as held, other.taken(other.unfinished()[0]) as second:
        assert held.number == 0
        assert second is None, "its folder is free, which says nothing"


def test_leaving_is_75_with_a_sentence():
    code = "from mskjax.sweeps import trials; trials.leave(3)"
    process = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False
    )
    assert process.returncode == 75
    assert "trial 3 was taken over by another worker" in process.stderr


def test_a_trial_that_its_worker_gave_free_is_taken_on_any_machine_at_once(tmp_path, place):
    far, here = from_elsewhere(tmp_path, place), stub.trials(tmp_path, place, trials=2)
    with contextlib.suppress(Preempted), far.taken(far.unfinished()[0]) as held:
        assert held.number == 0
        raise Preempted("stopped")
    begun = time.monotonic()
    with here.taken(here.unfinished()[0]) as again:
        assert again.number == 0
    assert time.monotonic() - begun < stub.FAST.grace
    assert not (here.folder(0) / locks.LOCK).exists()


def test_another_sweep_of_that_name_is_refused_with_what_differs(tmp_path, place):
    stub.trials(tmp_path, place)
    with pytest.raises(UserError, match=r"another sweep \(sweep.trials was 12, now 13\); use the"):
        stub.trials(tmp_path, place, trials=13)
    changed = {"stages.a.rate": {"low": 1e-3, "high": 1.0, "log": True}}
    with pytest.raises(UserError, match=r"sweep.space.stages.a.rate.low was 0.0001, now 0.001"):
        stub.trials(tmp_path, place, space=stub.SPACE | changed)
    stub.trials(tmp_path, place, name="other", trials=13)


def test_a_study_of_somebody_else_is_left_alone(tmp_path):
    trials = stub.trials(tmp_path, name="mine", trials=1)
    theirs = optuna.create_study(storage=trials.storage.backend, study_name="theirs")
    theirs.optimize(lambda trial: trial.suggest_float("x", 0, 1), n_trials=1)
    with pytest.raises(UserError, match="'theirs' that is no sweep of mskjax; set another name"):
        stub.trials(tmp_path, name="theirs", trials=1)
    assert len(theirs.trials) == 1


def test_a_journal_is_forgotten_only_while_nothing_was_begun(tmp_path):
    trials = stub.trials(tmp_path / "sweep", trials=2)
    with trials.taken(trials.unfinished()[0]):
        forget(tmp_path / "sweep", True)  # somebody works there
        assert (tmp_path / "sweep" / "journal.log").exists()
    run = trials.folder(0)
    (run / "fold_0").mkdir(parents=True)
    (run / "fold_0" / "cases.csv").touch()
    forget(tmp_path / "sweep", True)
    assert (tmp_path / "sweep" / "journal.log").exists()
    shutil.rmtree(run)
    forget(tmp_path / "sweep", False)  # an earlier command made it
    assert (tmp_path / "sweep" / "journal.log").exists()
    forget(tmp_path / "sweep", True)
    assert not list(tmp_path.iterdir())
