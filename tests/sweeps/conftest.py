import os

import pytest
from sweeps import postgres


@pytest.fixture(scope="session")
def server():
    """A PostgreSQL server on the loopback; skips where the programs are absent."""
    folder = postgres.programs()
    if folder is None:
        pytest.skip("no initdb and postgres here: install Debian's package postgresql")
    started = postgres.Server(folder)
    yield started
    started.remove()


@pytest.fixture(params=["journal", "postgresql"])
def place(request, tmp_path):
    """What ``--storage`` is: a journal file, or the URL of an empty data base."""
    if request.param == "journal":
        return str(tmp_path / "journal.log")
    return request.getfixturevalue("server").empty()


@pytest.fixture(autouse=True)
def _no_password_elsewhere(monkeypatch):
    for name in [n for n in os.environ if n.startswith("PG")]:
        monkeypatch.delenv(name)
