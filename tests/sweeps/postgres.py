"""A PostgreSQL server of its own for tests: on the loopback, as an ordinary user."""

import contextlib
import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import uuid
from pathlib import Path

import psycopg
import pytest

USER, PASSWORD = "sweeper", "S3cret-word"


def programs():
    """Folder of ``initdb`` and ``postgres``; None where they are not installed."""
    folders = [Path("/usr/local/bin"), Path("/usr/bin"), Path("/bin")]
    folders += sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    if found := shutil.which("initdb"):
        folders.insert(0, Path(found).parent)
    return next((f for f in folders if (f / "initdb").exists() and (f / "postgres").exists()), None)


class Server:
    """A server that can be stopped and started again."""

    def __init__(self, bin_folder):
        self._bin = bin_folder
        # pytest's folders are closed to the user that the server runs as.
        self.folder = Path(tempfile.mkdtemp(prefix="mskjax-postgres-"))
        self._as = {}
        if os.getuid() == 0:  # PostgreSQL refuses to run as root
            other = _ordinary_user()
            self._as = {"user": other.pw_uid, "group": other.pw_gid, "extra_groups": []}
            os.chown(self.folder, other.pw_uid, other.pw_gid)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        words = self.folder / "password"
        words.write_text(PASSWORD)
        words.chmod(0o644)
        made = self._run(
            "initdb", "-D", "data", "-U", USER, "-A", "scram-sha-256", f"--pwfile={words}",
            "--no-sync", "--no-locale", "-E", "UTF8",
        )  # fmt: skip
        if made.returncode:
            pytest.skip(f"initdb does not work here: {made.stderr.strip().splitlines()[-1]}")
        self.process = None
        self.start()

    def _run(self, program, *arguments):
        return subprocess.run(
            [self._bin / program, *arguments],
            cwd=self.folder, capture_output=True, text=True, check=False, **self._as,
        )  # fmt: skip

    def start(self):
        """Starts it and waits until it answers."""
        settings = {
            "port": self.port, "listen_addresses": "127.0.0.1", "unix_socket_directories": "",
            "fsync": "off", "max_connections": 60, "shared_buffers": "16MB",
        }  # fmt: skip
        options = [word for name, v in settings.items() for word in ("-c", f"{name}={v}")]
        with (self.folder / "log").open("a") as log:
            self.process = subprocess.Popen(
                [self._bin / "postgres", "-D", "data", *options],
                cwd=self.folder, stdout=log, stderr=log, **self._as,
            )  # fmt: skip
        for _ in range(300):
            with contextlib.suppress(psycopg.OperationalError):
                psycopg.connect(self._dsn("postgres")).close()
                return
            if self.process.poll() is not None:
                break
            time.sleep(0.1)
        pytest.fail(f"PostgreSQL does not start: {(self.folder / 'log').read_text()[-500:]}")

    def stop(self):
        """Stops it at once; clients lose their connections."""
        self.process.send_signal(signal.SIGINT)
        self.process.wait(30)

    def _dsn(self, name):
        return f"postgresql://{USER}:{PASSWORD}@127.0.0.1:{self.port}/{name}"

    def empty(self):
        """URL of a new data base without a table."""
        name = f"s{uuid.uuid4().hex[:12]}"
        with psycopg.connect(self._dsn("postgres"), autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name}")
        return self._dsn(name)

    def remove(self):
        """Ends it and takes its files away."""
        if self.process is not None and self.process.poll() is None:
            self.stop()
        shutil.rmtree(self.folder, ignore_errors=True)


def _ordinary_user():
    for name in ("postgres", "nobody"):
        with contextlib.suppress(KeyError):
            return pwd.getpwnam(name)
    return pytest.skip("this is root, and there is no user that PostgreSQL could run as")
