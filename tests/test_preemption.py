"""SIGTERM wherever a command is: 75 soon, and nobody takes it for a fault of a file."""

import contextlib
import signal
import subprocess
import sys
import threading
import time

import pytest

from mskjax import commands, preemption
from mskjax.errors import EXIT_PREEMPTED, Preempted

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGTERM to hear")

COMMAND = """
import hashlib, sys, time
from mskjax import commands, preemption
preemption.GRACE_S = {grace}

def work(argv):
    print("begun", flush=True)
    {work}

sys.exit(commands.run(work, []))
"""
READS_A_FILE = """
    while True:
        try:
            time.sleep(0.01)
        except Exception:
            print("a fault of the file", flush=True)
"""
HOLDS = """
    with preemption.listening() as stop, stop.held():
        preemption.hand_on()
        preemption.hand_on()
        time.sleep(3)
        print("saved", flush=True)
"""
# A library that returns to the interpreter once it is done; much longer than any test.
COMPUTES = "hashlib.pbkdf2_hmac('sha256', b'', b'', 2**31 - 1)"


@contextlib.contextmanager
def started(work, grace=60.0):
    script = COMMAND.format(work=work.strip(), grace=grace)
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen([sys.executable, "-c", script], **pipes) as process:
        try:
            assert process.stdout.readline() == "begun\n"
            time.sleep(1)  # what comes after the line has begun
            yield process
        finally:
            process.kill()


def ended(process, within):
    began = time.monotonic()
    out, err = process.communicate(timeout=60)
    assert time.monotonic() - began < within
    assert process.returncode == EXIT_PREEMPTED, err
    assert "Traceback" not in err
    assert "run the same command to go on" in err
    return out


def test_it_ends_where_it_is_and_is_no_fault_of_a_file():
    with started(READS_A_FILE) as process:
        process.send_signal(signal.SIGTERM)
        assert "fault" not in ended(process, within=10)


def test_what_does_not_come_back_is_ended_when_the_grace_is_over():
    with started(COMPUTES, grace=0.5) as process:
        process.send_signal(signal.SIGTERM)
        ended(process, within=10)


def test_a_second_signal_ends_at_once():
    with started(COMPUTES) as process:
        process.send_signal(signal.SIGTERM)
        time.sleep(0.5)
        assert process.poll() is None
        process.send_signal(signal.SIGTERM)
        ended(process, within=10)


def test_a_signal_that_another_process_handed_on_is_no_second_one():
    with started(HOLDS) as process:  # schedulers signal every process of a run, each at its time
        process.send_signal(signal.SIGTERM)
        assert "saved" in ended(process, within=10)


def test_who_holds_it_looks_and_goes_on():
    with preemption.listening() as stop:
        assert not stop.is_set()
        held = stop.held()
        held.__enter__()
        signal.raise_signal(signal.SIGTERM)
        assert stop.is_set()
        with pytest.raises(Preempted):
            held.__exit__(None, None, None)
    with preemption.listening() as fresh:
        assert not fresh.is_set()


def test_there_is_one_listener_and_the_handler_before_it_comes_back():
    before = signal.getsignal(signal.SIGTERM)
    threads = threading.active_count()
    with preemption.listening() as outer, preemption.listening() as inner:
        assert inner is outer
        assert signal.getsignal(signal.SIGTERM) is not before
    assert signal.getsignal(signal.SIGTERM) is before
    assert threading.active_count() == threads


def test_outside_the_main_thread_nothing_is_heard_and_nothing_breaks():
    codes = []
    thread = threading.Thread(target=lambda: codes.append(commands.run(lambda argv: None, [])))
    thread.start()
    thread.join()
    assert codes == [0]
