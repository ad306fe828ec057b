"""One process at a time, whatever ends the one before, on file systems with and without locks."""

import errno
import json
import os
import signal
import socket
import subprocess
import sys
import time

import pytest

from mskjax import locks
from mskjax.errors import UserError
from mskjax.locks import LOCK, acquire

ELSEWHERE = {"host": "another-machine", "pid": 4711, "started": time.time() - 7200}

HOLD = """
import sys, time
from pathlib import Path
from mskjax import locks
lock = locks.acquire(Path(sys.argv[1]))
print("held", flush=True)
time.sleep(60)
"""

# Takes the lock many times, and gives it free or dies with it; what it does inside shows any other
# who is inside.
CONTEND = """
import fcntl, json, os, sys, time
from pathlib import Path
from mskjax import locks
from mskjax.errors import UserError

def no_flock(*_):
    raise OSError(95, "Operation not supported")

folder, flock, times, dead = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), sys.argv[4]
if flock == "without":
    fcntl.flock = no_flock
locks._WAIT_S = 1e-3
while not (folder / "go").exists():
    time.sleep(1e-3)
done = 0
while done < times:
    try:
        lock = locks.acquire(folder)
    except UserError as error:
        assert any(s in str(error) for s in ("in use", "all the time", "being taken")), error
        continue
    os.close(os.open(folder / "inside", os.O_CREAT | os.O_EXCL))  # fails where another one is
    count = folder / "count"
    count.write_text(str(int(count.read_text()) + 1))
    os.unlink(folder / "inside")
    if done % 3:
        lock.release()
    else:
        os.pwrite(lock._descriptor, dead.ljust(200).encode(), 0)
        os.close(lock._descriptor)
    done += 1
"""


def python(program, *arguments):
    return subprocess.Popen(
        [sys.executable, "-c", program, *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.fixture
def holder(tmp_path):
    """Another process that holds the lock of a folder."""
    process = python(HOLD, tmp_path)
    assert process.stdout.readline() == "held\n", process.stderr.read()
    yield process
    process.kill()
    process.communicate()


@pytest.fixture
def no_flock(monkeypatch):
    """A file system that knows no locks, as some that lie on a network."""

    def refuse(*_):
        raise OSError(errno.ENOTSUP, os.strerror(errno.ENOTSUP))

    monkeypatch.setattr("mskjax.locks.fcntl.flock", refuse)


def refusal(folder):
    with pytest.raises(UserError) as caught:
        acquire(folder)
    return str(caught.value)


def test_the_file_names_the_holder_and_goes_with_it(tmp_path):
    before = time.time()
    lock = acquire(tmp_path / "new" / "folder")
    content = json.loads((tmp_path / "new" / "folder" / LOCK).read_text())
    assert content["host"] == socket.gethostname()
    assert content["pid"] == os.getpid()
    assert before <= content["started"] <= time.time()
    lock.release()
    assert not list((tmp_path / "new" / "folder").iterdir())
    acquire(tmp_path).release()


def test_a_second_process_is_told_who_works_there(tmp_path, holder):
    before = (tmp_path / LOCK).read_text()
    said = refusal(tmp_path)
    assert f"{tmp_path} is in use by process {holder.pid} on {socket.gethostname()} since " in said
    assert said.endswith("UTC; wait for it or give another --workdir.")
    assert (tmp_path / LOCK).read_text() == before


def test_what_a_killed_process_left_is_taken_over(tmp_path, holder, capsys):
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    assert (tmp_path / LOCK).exists()
    lock = acquire(tmp_path)
    assert json.loads((tmp_path / LOCK).read_text())["pid"] == os.getpid()
    said = capsys.readouterr().out
    assert f"taken over from process {holder.pid} on" in said
    assert said.endswith("which has ended\n")
    lock.release()
    assert not (tmp_path / LOCK).exists()


def test_a_copy_of_a_folder_in_use_is_free_and_nothing_untrue_is_said(tmp_path, holder, capsys):
    (tmp_path / "copy").mkdir()
    (tmp_path / "copy" / LOCK).write_text((tmp_path / LOCK).read_text())
    acquire(tmp_path / "copy").release()
    assert capsys.readouterr().out.endswith("which does not hold it\n")
    assert "is in use by" in refusal(tmp_path)


@pytest.mark.parametrize("flock", ["with", "without"])
def test_the_lock_of_another_machine_stays_until_it_is_deleted(tmp_path, request, flock):
    if flock == "without":
        request.getfixturevalue("no_flock")
    (tmp_path / LOCK).write_text(json.dumps(ELSEWHERE))
    said = refusal(tmp_path)
    assert f"{tmp_path} was taken by process 4711 on another-machine since " in said
    assert "(2 h " in said
    assert f"delete {tmp_path / LOCK}" in said
    assert json.loads((tmp_path / LOCK).read_text()) == ELSEWHERE
    (tmp_path / LOCK).unlink()
    acquire(tmp_path).release()


def test_a_full_disk_leaves_no_lock(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr("mskjax.locks.os.pwrite", full)
        with pytest.raises(OSError, match="No space left"):
            acquire(tmp_path / "run")
    assert not list((tmp_path / "run").iterdir())
    acquire(tmp_path / "run").release()


def test_a_lock_without_a_name(tmp_path):
    (tmp_path / LOCK).write_text("")  # its maker died before it wrote
    acquire(tmp_path).release()
    (tmp_path / LOCK).write_text("my notes")
    assert f"{tmp_path / LOCK} names no process; delete that file if" in refusal(tmp_path)
    assert (tmp_path / LOCK).read_text() == "my notes"


def test_the_lock_of_whoever_came_after_is_not_removed(tmp_path):
    lock = acquire(tmp_path)
    (tmp_path / LOCK).unlink()  # as told to someone who thought that the process had ended
    other = acquire(tmp_path)
    lock.release()
    assert (tmp_path / LOCK).exists()
    other.release()
    assert not (tmp_path / LOCK).exists()


def test_without_flock_the_file_is_the_lock(tmp_path, holder, no_flock, capsys):
    said = refusal(tmp_path)
    assert f"is in use by process {holder.pid} on" in said
    assert f"delete {tmp_path / LOCK} then" in said  # the number may have been given anew
    holder.kill()
    holder.wait()
    lock = acquire(tmp_path)
    assert f"taken over from process {holder.pid} on" in capsys.readouterr().out
    assert json.loads((tmp_path / LOCK).read_text())["pid"] == os.getpid()
    assert "is in use by" in refusal(tmp_path)
    lock.release()
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("flock", "times"), [("with", 100), ("without", 30)])
def test_never_two_at_once(tmp_path, flock, times):
    (tmp_path / "count").write_text("0")
    ended = python("")
    ended.communicate()
    dead = json.dumps({**ELSEWHERE, "host": socket.gethostname(), "pid": ended.pid})
    contenders = [python(CONTEND, tmp_path, flock, times, dead) for _ in range(4)]
    (tmp_path / "go").touch()
    for process in contenders:
        _, said = process.communicate(timeout=120)
        assert process.returncode == 0, said
    assert (tmp_path / "count").read_text() == str(4 * times)
    assert {p.name for p in tmp_path.iterdir()} <= {"count", "go", LOCK}


def test_a_process_that_died_while_it_took_over_is_told_of(tmp_path, no_flock, monkeypatch):
    monkeypatch.setattr("mskjax.locks._WAIT_S", 1e-4)
    ended = python("")
    ended.communicate()
    content = {**ELSEWHERE, "host": socket.gethostname(), "pid": ended.pid}
    (tmp_path / LOCK).write_text(json.dumps(content))
    (tmp_path / f"{LOCK}-removal").touch()
    assert f"delete {tmp_path / LOCK}-removal." in refusal(tmp_path)
    (tmp_path / f"{LOCK}-removal").unlink()
    acquire(tmp_path).release()


def test_parts_of_a_folder_are_locked_by_themselves(tmp_path):
    whole, part = locks.acquire(tmp_path), locks.acquire(tmp_path, "fold_2")
    try:
        assert locks.parts(tmp_path) == ["fold_2"]
        assert locks.holder_of(tmp_path, "fold_2").pid == os.getpid()
        assert locks.holder_of(tmp_path, "fold_3") is None
        said = f"{tmp_path / 'fold_2'} is in use by process {os.getpid()} on"
        with pytest.raises(locks.InUse, match=said) as caught:
            locks.acquire(tmp_path, "fold_2")
        assert caught.value.holder.pid == os.getpid()
        locks.acquire(tmp_path, "fold_3").release()
    finally:
        part.release()
        whole.release()
    assert not list(tmp_path.iterdir())
