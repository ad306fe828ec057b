"""Workers of one sweep: all trials are done, once, whoever is killed."""

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest
from optuna.trial import TrialState
from sweeps import stub

from mskjax.errors import Diverged, Preempted, UserError
from mskjax.sweeps.declared import Refused
from mskjax.sweeps.worker import Rung, work


def start(workdir, place, go, **changes):
    arguments = [str(workdir), place, str(go), json.dumps(changes)]
    return subprocess.Popen(
        [sys.executable, str(Path(stub.__file__)), *arguments],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def begun_by(workdir, pid):
    """A trial that a process is in the middle of; None where it is in none."""
    for folder in sorted((workdir / "trials").glob("*")):
        done = stub.steps(folder)
        if done and done[-1][1] == pid and len(done) < stub.FOLDS * stub.STEPS - 1:
            return int(folder.name)
    return None


@pytest.mark.long
@pytest.mark.slow
def test_four_workers_that_start_at_once_finish_every_trial_though_one_is_killed(tmp_path, place):
    workdir, go = tmp_path / "sweep", tmp_path / "go"
    workers = [start(workdir, place, go, trials=10) for _ in range(4)]
    time.sleep(2)
    go.touch()
    victim, end = workers[0], time.monotonic() + 120
    while (killed := begun_by(workdir, victim.pid)) is None:
        assert victim.poll() is None, victim.communicate()
        assert time.monotonic() < end
        time.sleep(0.005)
    victim.send_signal(signal.SIGKILL)
    said = [worker.communicate(timeout=120) for worker in workers]
    assert [worker.returncode for worker in workers] == [-signal.SIGKILL, 0, 0, 0], said

    found = stub.trials(workdir, place, trials=10)
    every = found.study.trials
    assert Counter(t.state for t in every) == {TrialState.COMPLETE: 10}
    assert [t.number for t in every] == list(range(10))
    for t in every:
        done = stub.steps(found.folder(t.number))
        assert [step for step, _ in done] == list(range(stub.FOLDS * stub.STEPS)), "twice, or lost"
        assert len({pid for _, pid in done}) == 1 + (t.number == killed)
        expected = stub.value({"stages.a.rate": t.params["stages.a.rate"]}, fold=1)
        assert t.value == pytest.approx(expected)
    owners = {pid for t in every for _, pid in stub.steps(found.folder(t.number))}
    assert len(owners) > 2, "one worker did it all"
    assert len({t.params["stages.a.rate"] for t in every}) == 10, "two drew the same"
    assert f"trial {killed}, resumed" in "".join(out for out, _ in said[1:])


@pytest.mark.slow
def test_sigterm_is_75_and_the_next_worker_goes_on_with_the_trial(tmp_path):
    workdir, go = tmp_path / "sweep", tmp_path / "go"
    go.touch()
    worker = start(workdir, str(tmp_path / "journal.log"), go)
    while (left := begun_by(workdir, worker.pid)) is None:
        assert worker.poll() is None, worker.communicate()
        time.sleep(0.005)
    worker.send_signal(signal.SIGTERM)
    _, err = worker.communicate(timeout=60)
    assert worker.returncode == 75, err
    trials = stub.trials(workdir, tmp_path / "journal.log")
    assert trials.all()[left].state == TrialState.RUNNING
    work(trials, lambda values, folder: stub.run(values, folder, 0))
    assert {t.state for t in trials.all()} == {TrialState.COMPLETE}
    assert {pid for _, pid in stub.steps(trials.folder(left))} == {worker.pid, os.getpid()}


@pytest.mark.long
@pytest.mark.slow
def test_of_two_sweep_files_on_one_study_one_is_refused(tmp_path, place):
    workdir, go = tmp_path / "sweep", tmp_path / "go"
    workers = [start(workdir, place, go, trials=3, seed=seed) for seed in (1, 2)]
    time.sleep(2)
    go.touch()
    said = [worker.communicate(timeout=120)[1] for worker in workers]
    codes = [worker.returncode for worker in workers]
    assert sorted(codes) == [0, 2], said
    loser = said[codes.index(2)]
    assert "has a study 'toy' of another sweep (sweep.seed was " in loser
    assert "Traceback" not in loser
    done = stub.trials(workdir, place, trials=3, seed=1 + codes.index(0))
    assert [t.state for t in done.all()] == [TrialState.COMPLETE] * 3


def quick(values, folder):
    return stub.run(values, folder, 0)


def test_the_first_trial_has_the_studys_own_values_and_the_others_are_the_same_anywhere(tmp_path):
    for name in ("a", "b"):
        work(stub.trials(tmp_path / name, trials=6), quick)
    first, second = (stub.trials(tmp_path / name, trials=6).all() for name in ("a", "b"))
    assert first[0].params == {
        "stages.a.rate": 0.01,
        "stages.a.width": 8,
        "stages.a.widths": "[8, 16]",
    }
    assert [t.params for t in first] == [t.params for t in second]
    other = stub.trials(tmp_path / "c", trials=6, seed=1)
    work(other, quick)
    assert [t.params for t in other.all()[1:]] != [t.params for t in first[1:]]


@pytest.mark.parametrize("error", [Diverged("not finite at step 3"), Refused("warm-up too long")])
def test_values_that_cannot_be_trained_fail_and_the_sweep_goes_on(tmp_path, error):
    def run(values, folder):
        if folder.name == "0001":
            raise error
        yield from quick(values, folder)

    trials = stub.trials(tmp_path, trials=3)
    work(trials, run)
    states = [t.state.name for t in trials.all()]
    assert states == ["COMPLETE", "FAIL", "COMPLETE"]
    assert trials.all()[1].user_attrs["why"] == str(error)


def test_a_figure_that_is_not_defined_is_a_failed_trial(tmp_path):
    def run(values, folder):
        yield Rung(0, {"value": None, "why": "one class", "n": 2}, 0)

    trials = stub.trials(tmp_path, trials=1)
    work(trials, run)
    assert trials.all()[0].state == TrialState.FAIL
    assert trials.all()[0].user_attrs["why"] == "the figure is not defined: one class"


@pytest.mark.parametrize("error", [UserError("the raw files are gone"), Preempted("stopped")])
def test_whatever_else_ends_the_worker_leaves_the_trial_for_the_next_one(tmp_path, error):
    def run(values, folder):
        (folder / "fold_0").mkdir(exist_ok=True)
        raise error
        yield

    with pytest.raises(type(error)):
        work(stub.trials(tmp_path, trials=2), run)
    trials = stub.trials(tmp_path, trials=2)
    assert [t.state.name for t in trials.all()] == ["RUNNING", "WAITING"]
    assert trials.all()[0].user_attrs["owner"] == {}, "workers elsewhere need not wait"
    work(trials, quick)
    assert {t.state for t in trials.all()} == {TrialState.COMPLETE}


def test_median_ends_a_bad_trial_after_a_fold_but_never_after_the_last(tmp_path):
    def run(values, folder):
        bad = folder.name in ("0004", "0005")
        for fold in range(2):
            (folder / f"fold_{fold}").mkdir(exist_ok=True)
            worth = -1.0 if bad and (fold == 1 or folder.name == "0004") else 1.0
            yield Rung(fold, {"value": worth, "n": 1}, 1 - fold)

    trials = stub.trials(tmp_path, trials=6, pruner="median", startup=2)
    work(trials, run)
    assert [t.state.name for t in trials.all()] == [*["COMPLETE"] * 4, "PRUNED", "COMPLETE"]
    assert not (trials.folder(4) / "fold_1").exists()
    assert trials.all()[4].user_attrs["estimate"]["value"] == -1.0
