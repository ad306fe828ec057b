"""Processes find each other, or all hear why not; threads stand for them."""

import contextlib
import json
import socket
import threading
import time

import pytest
from training.cluster import free_port

from mskjax.errors import UserError
from mskjax.training import rendezvous
from mskjax.training.clusters import Cluster

SAME = {"config": {"seed": 1}, "versions": {"jax": "0.10"}}


class Meeting:
    """Processes of a run, each in a thread; what they came to by number of start."""

    def __init__(self, count):
        self.count, self.port = count, free_port()
        self.results, self._threads = {}, []

    def start(self, index, identity=SAME, count=None, timeout_s=20.0):
        cluster = Cluster(f"localhost:{self.port}", count or self.count, index)
        number = len(self._threads)

        def work():
            try:
                self.results[number] = rendezvous.meet(cluster, identity, timeout_s)
            except UserError as error:
                self.results[number] = str(error)

        self._threads.append(threading.Thread(target=work))
        self._threads[-1].start()

    def ended(self):
        for thread in self._threads:
            thread.join(60)
        return [self.results[i] for i in range(len(self._threads))]


def greeted(port, text):
    """A connection of something that is no process of a run."""
    end = time.monotonic() + 20
    while time.monotonic() < end:
        with contextlib.suppress(OSError):
            connection = socket.create_connection(("localhost", port), 5)
            connection.sendall(text)
            return connection
        time.sleep(0.05)
    raise AssertionError("nobody listens")


def test_all_come_in_any_order():
    meeting = Meeting(3)
    for index in (2, 0, 1):
        meeting.start(index)
    assert meeting.ended() == [[socket.gethostname()] * 3] * 3


def test_the_port_is_free_afterwards():
    meeting = Meeting(2)
    meeting.start(0)
    meeting.start(1)
    meeting.ended()
    with socket.create_server(("", meeting.port)):
        pass


@pytest.mark.parametrize(
    ("other", "said"),
    [
        (SAME | {"config": {"seed": 2}}, "config.seed is 2 there and 1 here"),
        (SAME | {"versions": {"jax": "0.9"}}, "versions.jax is '0.9' there and '0.10' here"),
        (SAME | {"mode": ["train"]}, "mode is ['train'] there and None here"),
    ],
)
def test_all_hear_of_what_differs(other, said):
    meeting = Meeting(3)
    meeting.start(0)
    meeting.start(1)
    time.sleep(0.5)
    meeting.start(2, other)
    first, second, third = meeting.ended()
    assert first == second == third
    assert said in first
    assert "process 2 on" in first


def test_two_of_one_number_and_two_counts():
    twice = Meeting(3)
    for index in (0, 1, 1):
        twice.start(index)
    said = twice.ended()
    assert len(set(said)) == 1
    assert "two processes have the number 1" in said[0]
    counts = Meeting(2)
    counts.start(0)
    counts.start(1, count=4)
    for text in counts.ended():
        assert "takes itself for one of 4" in text


def test_who_is_missing_is_named_in_all_that_came():
    meeting = Meeting(4)
    meeting.start(0, timeout_s=1.5)
    meeting.start(2, timeout_s=20.0)
    first, second = meeting.ended()
    assert first == second
    assert "2 of 4 processes did not come" in first
    assert "number 1, 3" in first


def test_a_first_process_that_does_not_come():
    meeting = Meeting(2)
    meeting.start(1, timeout_s=1.0)
    assert "process 1 on" in meeting.ended()[0]
    assert "did not reach process 0 at localhost" in meeting.ended()[0]


@pytest.mark.parametrize("order", [(1, 2), (2, 1)])
def test_strangers_are_sent_away_and_a_restarted_process_takes_its_place(order):
    meeting = Meeting(3)
    meeting.start(0)
    greeted(meeting.port, b"GET / HTTP/1.1\r\n\r\n").close()
    died = {"index": 1, "count": 3, "host": "here", "identity": SAME}
    greeted(meeting.port, json.dumps(died).encode() + b"\n").close()
    for number in order:
        time.sleep(0.3)
        meeting.start(number)
    assert meeting.ended() == [[socket.gethostname()] * 3] * 3


def test_a_port_of_another_program(monkeypatch):
    monkeypatch.setattr(rendezvous, "_PORT_S", 0.5)
    meeting = Meeting(2)
    with socket.create_server(("", meeting.port)):
        meeting.start(0)
        (said,) = meeting.ended()
    assert f"port {meeting.port} of" in said
    assert "give another one as MSKJAX_COORDINATOR" in said
