"""Examples on disk: what is cut is cut once, whoever is killed, and comes back as it was."""

import errno
import fcntl
import os
import shutil
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from data.cutting import STUDIES, Logged, examples_of, lines, unknown

from mskjax.data import shards
from mskjax.errors import UserError

PROGRAM = Path(__file__).with_name("cutting.py")


def expected():
    parts = [e for e in map(examples_of, range(STUDIES)) if e is not None]
    return {name: np.concatenate([p[name] for p in parts]) for name in parts[0]}


def assert_whole(stored, folder):
    wanted = expected()
    assert set(stored.examples) == {"image", "label"}
    for name, values in stored.examples.items():
        assert isinstance(values, np.memmap)
        assert values.dtype == wanted[name].dtype
        np.testing.assert_array_equal(values, wanted[name])
    np.testing.assert_array_equal(stored.cases, wanted["case"])
    np.testing.assert_array_equal(stored.counts, [n % 4 for n in range(STUDIES)])
    # Nothing is left of how it was made.
    assert {p.name for p in folder.iterdir()} == {
        "image.npy", "label.npy", "case.npy", "examples.json",
    }  # fmt: skip


def started(folder, log, seconds, alone=STUDIES):
    command = [sys.executable, str(PROGRAM), *map(str, (folder, log, seconds, alone))]
    path = os.pathsep.join([str(PROGRAM.parents[1]), *sys.path])
    return subprocess.Popen(command, env={**os.environ, "PYTHONPATH": path, "MSKJAX_WORKERS": "3"})


def numbers(log):
    return [number for number, _ in lines(log)]


def wait_for(process, log, count):
    end = time.monotonic() + 60
    while len(numbers(log)) < count:
        assert time.monotonic() < end
        assert process.poll() is None
        time.sleep(0.002)


def test_what_is_cut_comes_back(tmp_path):
    cut = Logged(tmp_path / "log")
    assert_whole(shards.make(tmp_path / "e", "toy", cut, STUDIES, {}), tmp_path / "e")
    assert_whole(shards.load(tmp_path / "e"), tmp_path / "e")
    assert_whole(shards.make(tmp_path / "e", "toy", cut, STUDIES, {}), tmp_path / "e")
    assert numbers(tmp_path / "log") == list(range(STUDIES))


def test_a_killed_process_costs_the_shard_that_it_was_cutting(tmp_path):
    folder, log = tmp_path / "e", tmp_path / "log"
    process = started(folder, log, 0.01)
    wait_for(process, log, 20)  # in the second shard
    process.kill()
    process.wait()
    assert shards.load(folder) is None
    before = set(numbers(log))
    log.unlink()
    assert len(list(folder.glob("parts/*.tmp"))) == 1

    def cut(number):
        assert len(list(folder.glob("parts/*.tmp"))) == 1  # ours: what was left is gone
        return Logged(log)(number)

    assert_whole(shards.make(folder, "toy", cut, STUDIES, {}), folder)
    assert 20 <= len(before) < 32
    assert numbers(log) == list(range(shards.STUDIES_PER_SHARD, STUDIES))


@pytest.mark.parametrize("moment", ["_copy", "_allocated", "os.fsync", "np.save"])
def test_a_process_that_ends_while_it_joins_is_followed_by_another(tmp_path, monkeypatch, moment):
    folder, log = tmp_path / "e", tmp_path / "log"
    *owner, name = moment.split(".")
    owner = {"os": os, "np": np}[owner[0]] if owner else shards
    real, calls = getattr(owner, name), []

    def ends(*args, **kwargs):
        calls.append(name)
        if len(calls) == 2 or name == "save":
            raise KeyboardInterrupt
        return real(*args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(owner, name, ends)
        with pytest.raises(KeyboardInterrupt):
            shards.make(folder, "toy", Logged(log), STUDIES, {})
    assert shards.load(folder) is None
    assert_whole(shards.make(folder, "toy", Logged(log), STUDIES, {}), folder)
    assert numbers(log) == list(range(STUDIES))  # none was cut again


def test_processes_share_the_work(tmp_path):
    folder, log = tmp_path / "e", tmp_path / "log"
    processes = [started(folder, log, 0.03) for _ in range(2)]
    assert [p.wait(timeout=120) for p in processes] == [0, 0]
    assert_whole(shards.load(folder), folder)
    assert Counter(numbers(log)) == Counter(range(STUDIES))


def test_the_shard_of_a_process_that_was_killed_meanwhile_is_taken_over(tmp_path, capsys):
    folder, log = tmp_path / "e", tmp_path / "log"
    slow = started(folder, log, 0.2)
    wait_for(slow, log, 1)  # holds the first shard
    other = started(folder, tmp_path / "other", 0.0)
    wait_for(other, tmp_path / "other", STUDIES - 16)
    time.sleep(0.2)
    assert other.poll() is None  # it waits for the first
    slow.kill()
    slow.wait()
    assert other.wait(timeout=60) == 0
    assert_whole(shards.load(folder), folder)
    assert sorted(numbers(tmp_path / "other")) == list(range(STUDIES))


def test_where_it_takes_long_further_processes_help(tmp_path, monkeypatch, capsys):
    folder, log = tmp_path / "e", tmp_path / "log"
    monkeypatch.setenv("MSKJAX_WORKERS", "2")
    monkeypatch.setattr(shards, "WORTH_HELP_S", 0.0)
    monkeypatch.setattr(shards, "STUDIES_PER_SHARD", 4)
    stored = shards.make(folder, "toy", Logged(log, alone=4), STUDIES, {})
    assert_whole(stored, folder)
    assert Counter(numbers(log)) == Counter(range(STUDIES))
    assert len({who for _, who in lines(log)}) == 2
    assert "preparing toy: with 1 further processes" in capsys.readouterr().out


def test_helpers_end_with_a_process_that_is_killed(tmp_path):
    folder, log = tmp_path / "e", tmp_path / "log"
    process = started(folder, log, 0.2, alone=4)
    end = time.monotonic() + 60
    while len({who for _, who in lines(log)}) < 2:
        assert time.monotonic() < end
        assert process.poll() is None
        time.sleep(0.01)
    process.kill()
    process.wait()
    time.sleep(0.3)
    ended = lines(log)
    time.sleep(0.5)
    assert lines(log) == ended
    assert len(ended) < STUDIES


def test_what_cannot_be_pickled_is_cut_alone(tmp_path, monkeypatch):
    monkeypatch.setattr(shards, "WORTH_HELP_S", 0.0)
    cut = Logged(tmp_path / "log")
    stored = shards.make(tmp_path / "e", "toy", lambda number: cut(number), STUDIES, {})
    assert_whole(stored, tmp_path / "e")


def test_an_error_of_a_helper_is_met_by_its_starter(tmp_path, monkeypatch):
    monkeypatch.setenv("MSKJAX_WORKERS", "2")
    monkeypatch.setattr(shards, "WORTH_HELP_S", 0.0)
    with pytest.raises(ValueError, match="cannot cut study 39"):
        shards.make(tmp_path / "e", "toy", Logged(tmp_path / "log", 0.01, 39), STUDIES, {})


def test_where_the_file_system_knows_no_locks(tmp_path, monkeypatch):
    monkeypatch.setattr(fcntl, "flock", unknown)
    log = tmp_path / "log"
    assert_whole(shards.make(tmp_path / "e", "toy", Logged(log), STUDIES, {}), tmp_path / "e")


def test_two_processes_without_locks_are_only_slower(tmp_path, monkeypatch):
    monkeypatch.setenv("WITHOUT_LOCKS", "1")
    folder, log = tmp_path / "e", tmp_path / "log"
    processes = [started(folder, log, 0.01) for _ in range(2)]
    assert [p.wait(timeout=120) for p in processes] == [0, 0]
    shutil.rmtree(folder / "parts", ignore_errors=True)  # the other may have looked in again
    assert_whole(shards.load(folder), folder)


@pytest.mark.parametrize("name", ["image.npy", "label.npy", "case.npy", "examples.json"])
@pytest.mark.parametrize("damage", ["cut off", "gone"])
def test_what_is_not_whole_is_cut_anew(tmp_path, capsys, name, damage):
    folder, log = tmp_path / "e", tmp_path / "log"
    shards.make(folder, "toy", Logged(log), STUDIES, {})
    if damage == "gone":
        (folder / name).unlink()
    else:
        os.truncate(folder / name, (folder / name).stat().st_size - 1)
    assert shards.load(folder) is None
    assert_whole(shards.make(folder, "toy", Logged(log), STUDIES, {}), folder)
    if (name, damage) != ("examples.json", "gone"):
        assert f"{folder} is damaged; its examples are cut anew" in capsys.readouterr().out
    assert numbers(log) == 2 * list(range(STUDIES))


def test_a_shard_that_is_not_whole_is_cut_anew(tmp_path, monkeypatch):
    folder, log = tmp_path / "e", tmp_path / "log"

    def ends(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(shards, "_join", ends)
        with pytest.raises(KeyboardInterrupt):
            shards.make(folder, "toy", Logged(log), STUDIES, {})
    os.truncate(folder / "parts" / "000016" / "image.raw", 7)
    assert_whole(shards.make(folder, "toy", Logged(log), STUDIES, {}), folder)
    assert numbers(log) == [*range(STUDIES), *range(16, 32)]


@pytest.mark.parametrize("damage", ["cut off", "gone"])
def test_what_was_joined_so_far_and_is_not_whole_is_cut_anew(tmp_path, monkeypatch, damage):
    folder, log = tmp_path / "e", tmp_path / "log"

    def ends(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(np, "save", ends)  # of the case ids, when all rows are copied
        with pytest.raises(KeyboardInterrupt):
            shards.make(folder, "toy", Logged(log), STUDIES, {})
    if damage == "gone":
        (folder / "image.npy").unlink()
    else:
        os.truncate(folder / "image.npy", 200)
    assert_whole(shards.make(folder, "toy", Logged(log), STUDIES, {}), folder)
    assert numbers(log) == 2 * list(range(STUDIES))


def test_a_full_disk_is_said_and_what_is_cut_stays(tmp_path):
    folder, log = tmp_path / "e", tmp_path / "log"

    def full(number):
        if number == 20:
            raise OSError(errno.ENOSPC, "No space left on device")
        return Logged(log)(number)

    with pytest.raises(UserError, match="no space left on the disk for the examples in .*kept"):
        shards.make(folder, "toy", full, STUDIES, {})
    assert not list(folder.glob("parts/*.tmp"))
    log.unlink()
    assert_whole(shards.make(folder, "toy", Logged(log), STUDIES, {}), folder)
    assert numbers(log) == list(range(16, STUDIES))


def test_no_example_at_all_is_said_and_leaves_nothing(tmp_path):
    with pytest.raises(UserError, match="the cohort has no training example for stage toy"):
        shards.make(tmp_path / "e", "toy", lambda number: None, 3, {})
    assert not (tmp_path / "e").exists()


def test_examples_that_are_not_alike_are_refused(tmp_path):
    with pytest.raises(ValueError, match="not alike"):
        shards.make(tmp_path / "e", "toy", lambda n: {"image": np.zeros((1, n + 1))}, 20, {})
    with pytest.raises(ValueError, match="not alike"):  # in different shards
        shards.make(tmp_path / "f", "toy", lambda n: {"image": np.zeros((1, n // 16 + 1))}, 20, {})
