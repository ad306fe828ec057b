import contextlib
import fcntl
import io
import json
import os
from types import SimpleNamespace

import pytest
from commands import command_line, tiny
from commands.command_line import ROOT

from mskjax.main import main


@pytest.fixture(autouse=True)
def _in_the_repository(monkeypatch):
    monkeypatch.chdir(ROOT)  # experiments/ is given relative to it, as a user types it


@pytest.fixture(scope="session")
def data_dir(tmp_path_factory):
    """Where the phantom cohort of six patients is packaged by whoever comes first."""
    return tmp_path_factory.mktemp("data")


@pytest.fixture(scope="session")
def tiny_run(tmp_path_factory, worker_id):
    """The finished run of a system, by its name, made in a process of its own (`commands.tiny`).

    Workers of pytest-xdist share it: the first one makes it and the others wait.  Tests that change
    anything work on a copy.
    """
    root = tmp_path_factory.getbasetemp()
    root = (root if worker_id == "master" else root.parent) / "shared"

    def of(name):
        folder = root / name
        folder.mkdir(parents=True, exist_ok=True)
        said = folder / "said.json"
        with (folder / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not said.exists():
                arguments = tiny.arguments(name, folder)
                process = command_line.run("mskjax.main", *arguments)
                assert process.returncode == 0, process.stderr
                said.write_text(json.dumps([arguments, process.stdout]))
        arguments, stdout = json.loads(said.read_text())
        return SimpleNamespace(
            workdir=folder / "run", data_dir=folder / "data", arguments=arguments, said=stdout
        )

    return of


@pytest.fixture(scope="session")
def finished(tiny_run):
    """The finished run that most tests begin with."""
    return tiny_run("disc_degeneration")


@pytest.fixture
def main_here(monkeypatch):
    """``mskjax.main`` in this process: the same code without the start-up."""

    def call(*arguments):
        for name in ("JAX_COMPILATION_CACHE_DIR", "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"):
            monkeypatch.setenv(name, os.environ[name])
        return main(list(arguments))

    return call


@pytest.fixture(scope="session")
def finish():
    """As `main_here`, for fixtures of a whole module: runs to the end, returns what was said."""

    def call(arguments, command=main):
        with (
            pytest.MonkeyPatch.context() as patch,
            contextlib.redirect_stdout(io.StringIO()) as out,
        ):
            patch.chdir(ROOT)
            assert command(list(arguments)) == 0
        return out.getvalue()

    return call
