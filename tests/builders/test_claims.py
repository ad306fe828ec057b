"""Claims: taken from the dead at once, from the silent after a while, and from nobody else."""

import dataclasses
import json
import os
import subprocess
import sys
import time

import pytest

from mskjax.locks import Holder
from tfds_builders import claims
from tfds_builders.claims import Claims


@pytest.fixture
def written(tmp_path):
    """Writes the claim of another process."""

    def write(name, **changes):
        holder = dataclasses.replace(Holder.here(), **changes)
        (tmp_path / name).write_text(json.dumps(dataclasses.asdict(holder)))

    return write


def test_one_process_works_on_one_thing(tmp_path):
    first, second = Claims(tmp_path), Claims(tmp_path)
    assert first.take("a")
    assert first.take("a")
    assert not second.take("a")
    assert second.take("b")
    assert second.holder("a") == first.holder("a")
    first.release("a")
    assert second.take("a")
    assert Claims(tmp_path).holder("c") is None


def test_what_a_dead_process_claimed_is_taken_at_once(tmp_path, written):
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    written("a", pid=ended.pid)
    assert Claims(tmp_path).take("a")
    assert Claims(tmp_path).holder("a").pid == os.getpid()


def test_what_is_not_touched_any_more_is_taken_after_a_while(tmp_path, written, monkeypatch):
    written("a", host="another")
    now = [1000.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    mine = Claims(tmp_path)
    assert not mine.take("a")
    now[0] += claims.STALE_S - 1
    assert not mine.take("a")
    os.utime(tmp_path / "a")  # it lives, slowly
    now[0] += 2
    assert not mine.take("a")
    now[0] += claims.STALE_S + 1
    assert mine.take("a")


def test_a_claim_is_touched_now_and_then_until_it_is_given_free(tmp_path, monkeypatch):
    monkeypatch.setattr(claims, "TOUCH_S", 0.01)
    path = tmp_path / "a"
    with Claims(tmp_path) as mine:
        mine.take("a")
        os.utime(path, (0, 0))
        end = time.monotonic() + 30
        while not path.stat().st_mtime:
            assert time.monotonic() < end
            time.sleep(0.01)
    assert not list(tmp_path.iterdir())


def test_the_last_sign_of_life_is_of_those_that_may_live(tmp_path, written):
    assert Claims(tmp_path).last_sign() == 0
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    written("dead", pid=ended.pid)
    assert Claims(tmp_path).last_sign() == 0
    written("far", host="another")
    assert Claims(tmp_path).last_sign() == (tmp_path / "far").stat().st_mtime
