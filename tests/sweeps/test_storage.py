"""Storages that are wrong, down, restarted, full; and passwords, which no sentence has."""

import json
import threading
import time

import optuna
import pytest
import sqlalchemy
from sweeps import stub
from sweeps.postgres import PASSWORD

from mskjax.errors import UserError
from mskjax.sweeps import storage
from mskjax.sweeps.storage import Journal, Storage


def refused(place, retry_s=0.3):
    with pytest.raises(UserError) as error:
        Storage(place, retry_s)
    assert PASSWORD not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize(
    ("place", "message"),
    [
        ("postgresql://", "--storage="),
        (f"postgresq://u:{PASSWORD}@host/x", "no URL that SQLAlchemy knows"),
        (f"postgresql://u:{PASSWORD}@host:port/x", "no URL that SQLAlchemy knows"),
        (f"://u:{PASSWORD}@host/x", "no URL that SQLAlchemy knows"),
        (f"mysql+mysqldb://u:{PASSWORD}@host/x", "its driver is missing"),
        (f"postgresql://u:{PASSWORD}@127.0.0.1:1/x", "127.0.0.1:1/x has not answered for"),
        (f"postgresql://u:{PASSWORD}@no-such-host.invalid/x", "has not answered for"),
    ],
)
def test_a_wrong_url_is_a_sentence_without_the_password(place, message):
    said = refused(place)
    assert message in said
    assert "\n" not in said


def test_what_another_try_would_not_mend_is_said_at_once(server):
    begun = time.monotonic()
    url = server.empty()
    assert "refuses: " in refused(url.replace(PASSWORD, "wrong"), 30)
    assert "authentication failed" in refused(url.replace(PASSWORD, "wrong"), 30)
    assert "does not exist" in refused(f"{url}x", 30)
    assert time.monotonic() - begun < 10


def test_a_password_of_signs_is_not_said_in_either_spelling(server, monkeypatch):
    url = sqlalchemy.engine.make_url(server.empty()).set(password="p@ss/w:rd")

    def fails(*arguments, **settings):
        raise optuna.exceptions.StorageInternalError(
            f"cannot use {url.render_as_string(hide_password=False)} with p@ss/w:rd"
        )

    monkeypatch.setattr(optuna.storages, "RDBStorage", fails)
    said = refused(url.render_as_string(hide_password=False), 0.1)
    assert "p@ss" not in said
    assert "p%40ss" not in said
    assert "***" in said


def test_a_server_that_restarts_is_waited_for(server, capsys):
    opened = Storage(server.empty(), 60)
    server.stop()
    later = threading.Timer(2.5, server.start)
    later.start()
    try:
        assert opened.retried(opened.backend.get_all_studies) == []
    finally:
        later.join()
    assert "trying again" in capsys.readouterr().out


def test_a_server_that_stays_away_ends_in_a_sentence(server, tmp_path):
    trials = stub.trials(tmp_path, server.empty(), trials=1)
    trials.storage._retry_s = 0.5
    server.stop()
    try:
        with pytest.raises(UserError, match=r"not answered for .*Trials are kept: the same comma"):
            trials.all()
    finally:
        server.start()


def test_waits_double_and_are_drawn(monkeypatch, tmp_path):
    waits = []
    monkeypatch.setattr(storage.time, "sleep", waits.append)
    opened, answers = Storage(str(tmp_path / "journal.log"), 60), [None] * 6

    def call():
        if answers:
            answers.pop()
            raise optuna.exceptions.StorageInternalError("down")
        return 1

    assert opened.retried(call) == 1
    assert len(waits) == 6
    for number, wait in enumerate(waits):
        assert 0.05 * 2**number <= wait <= 0.1 * 2**number


def test_defects_are_not_retried(tmp_path):
    opened = Storage(str(tmp_path / "journal.log"), 60)

    def call():
        raise KeyError("ours")

    with pytest.raises(KeyError):
        opened.retried(call)


def test_a_line_that_a_killed_worker_left_in_part_stops_nobody(tmp_path):
    path = tmp_path / "journal.log"
    trials = stub.trials(tmp_path, trials=2)
    with path.open("a") as file:
        file.write('{"op_code": 4, "worker_id": "gone", "study')
    again = stub.trials(tmp_path, trials=2)
    with again.taken(again.unfinished()[0]) as held:
        held.finish(optuna.trial.TrialState.COMPLETE, 1.0)
    assert [t.state.name for t in trials.all()] == ["COMPLETE", "WAITING"]
    assert all(json.loads(line) for line in path.read_text().splitlines())


def test_a_full_disk_leaves_the_journal_as_it_was(tmp_path, monkeypatch):
    journal = Journal(tmp_path / "journal.log")
    journal.append_logs([{"a": 1}])
    before = (tmp_path / "journal.log").read_bytes()

    def full(descriptor):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(storage.os, "fsync", full)
        with pytest.raises(OSError, match="No space left"):
            journal.append_logs([{"b": 2}, {"c": 3}])
    assert (tmp_path / "journal.log").read_bytes() == before
    journal.append_logs([{"d": "x" * 10_000}])
    assert [*journal.read_logs(0)] == [{"a": 1}, {"d": "x" * 10_000}]
    with (tmp_path / "journal.log").open("a") as file:
        file.write("y" * 9_000)  # a part of a long line
    journal.append_logs([{"e": 5}])
    assert [*Journal(tmp_path / "journal.log").read_logs(0)][-1] == {"e": 5}


def test_sqlite_will_do_for_one_machine(tmp_path):
    place = f"sqlite:///{tmp_path / 'trials.db'}"
    assert len(stub.trials(tmp_path, place, trials=3).all()) == 3
