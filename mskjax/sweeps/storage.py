"""Where trials are recorded: a journal file beside them, or a data base by its URL.

Every call is made through `Storage.retried`: a data base that is empty (several workers make its
tables at once), down or restarted is asked again with back-off, and in the end there is a sentence,
which never has the password of the URL.
"""

import contextlib
import errno
import fcntl
import json
import os
import random
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import optuna
import sqlalchemy
from optuna.storages.journal import JournalFileBackend

from mskjax.errors import UserError
from mskjax.progress import duration, say

T = TypeVar("T")

JOURNAL = "journal.log"
RETRY_S = 60.0
_FIRST_WAIT_S, _LONGEST_WAIT_S = 0.1, 5.0
# What another try would not mend; the last of them is MySQL's.
_FINAL = re.compile(
    r"authentication failed|no password supplied|(database|role|user) \S+ does not exist"
    r"|permission denied|[Aa]ccess denied|Unknown database"
)
_TRANSIENT = (
    optuna.exceptions.StorageInternalError,
    sqlalchemy.exc.DBAPIError,
    sqlalchemy.exc.TimeoutError,
)


class Storage:
    """Trials of all workers of a sweep.

    Args:
      place: a URL of SQLAlchemy, or a path of a journal file.
      retry_s: for how long a call is repeated.

    Raises:
      UserError: the URL is wrong, its driver is missing, or nobody answers.
    """

    def __init__(self, place: str, retry_s: float = RETRY_S):
        self._retry_s, self._secrets = retry_s, [""]
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        if "://" in place:
            url = self._url(place)
            self.shown = url.render_as_string(hide_password=True)
            self._secrets = [url.password or "", _quoted(url)]
            self.backend: optuna.storages.BaseStorage = self.retried(lambda: self._data_base(url))
        else:
            self.shown = place
            path = Path(place)
            path.parent.mkdir(parents=True, exist_ok=True)
            self.backend = optuna.storages.JournalStorage(Journal(path))

    def retried(self, call: Callable[[], T]) -> T:
        """What a call gives, in the end.

        Raises:
          UserError: the storage does not answer, or refuses.
        """
        begun, wait, told = time.monotonic(), _FIRST_WAIT_S, False
        while True:
            try:
                return call()
            except _TRANSIENT as error:
                why = self._said(error)
                if _FINAL.search(why):
                    raise UserError(
                        f"--storage={self.shown} refuses: {why}; check the user, the password and"
                        " the data base, which must exist."
                    ) from None
                spent = time.monotonic() - begun
                if spent + wait > self._retry_s:
                    raise UserError(
                        f"--storage={self.shown} has not answered for {duration(spent)} ({why});"
                        " check the URL and that the server runs.  Trials are kept: the same"
                        " command goes on."
                    ) from None
                if not told and wait > 1:
                    say(f"storage {self.shown}: {why}; trying again")
                    told = True
                # Workers that failed together must not come back together.
                time.sleep(wait * random.uniform(0.5, 1.0))
                wait = min(2 * wait, _LONGEST_WAIT_S)

    def _url(self, place: str) -> sqlalchemy.engine.URL:
        try:
            url = sqlalchemy.engine.make_url(place)
            if url.drivername == "postgresql":  # which driver that means depends on the version
                url = url.set(drivername="postgresql+psycopg")
            url.get_dialect().import_dbapi()
        except ImportError as error:
            driver = place.partition(":")[0]
            raise UserError(
                f"--storage={driver}://...: its driver is missing ({error}); for PostgreSQL run"
                " pip install 'mskjax[sweep]'."
            ) from None
        except Exception:  # the library's sentence may have the password
            raise UserError(
                "--storage is no URL that SQLAlchemy knows; write"
                " postgresql://USER@HOST:PORT/DATABASE, or the path of a journal file."
            ) from None
        return url

    def _data_base(self, url: sqlalchemy.engine.URL) -> optuna.storages.BaseStorage:
        # A connection for each call: hundreds of workers that train hold none, and none is left
        # over from before a restart of the server.
        settings: dict[str, Any] = {"poolclass": sqlalchemy.pool.NullPool}
        waits = {"postgresql": {"connect_timeout": 10}, "sqlite": {"timeout": 30}}
        settings["connect_args"] = waits.get(url.get_backend_name(), {})
        return optuna.storages.RDBStorage(
            url.render_as_string(hide_password=False), engine_kwargs=settings
        )

    def _said(self, error: BaseException) -> str:
        """What the data base itself said, on a line, without a password."""
        while not isinstance(error, sqlalchemy.exc.DBAPIError) and error.__cause__ is not None:
            error = error.__cause__
        origin = getattr(error, "orig", None) or error
        said = " ".join(str(origin).split()) or type(origin).__name__
        for secret in filter(None, self._secrets):
            said = said.replace(secret, "***")
        return said if len(said) <= 200 else f"{said[:200]}..."


def _quoted(url: sqlalchemy.engine.URL) -> str:
    """The password as it stands in the URL."""
    shown = url.set(username="u", host="h").render_as_string(hide_password=False)
    return shown.partition("u:")[2].partition("@h")[0] if url.password else ""


class Journal(JournalFileBackend):
    """Optuna's journal file, which a full disk and a killed worker leave readable.

    Its lines are appended under a lock of the kernel, which ends with its holder.  A line that was
    written in part is cut off by whoever writes next; before, one worker that died there stopped
    all others for good.

    Args:
      path: of the file.
    """

    def __init__(self, path: Path):
        super().__init__(str(path))
        self._path = path

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        """Appends lines, all or none of them."""
        text = "".join(json.dumps(log, separators=(",", ":")) + "\n" for log in logs).encode()
        with _locked(self._path.with_suffix(".lock")), self._path.open("r+b") as file:
            end = _end_of_lines(file)
            try:
                file.truncate(end)
                file.seek(end)
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            except OSError:
                with contextlib.suppress(OSError):
                    os.truncate(self._path, end)
                raise


def _end_of_lines(file: Any) -> int:
    """Position after the last complete line."""
    end = file.seek(0, os.SEEK_END)
    while end:
        start = max(end - 4096, 0)
        file.seek(start)
        found = file.read(end - start).rfind(b"\n")
        if found >= 0:
            return start + found + 1
        end = start
    return 0


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    except OSError as error:
        if error.errno not in (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP):
            raise
        raise UserError(
            f"{path}: this file system knows no locks ({error.strerror}); put --workdir elsewhere,"
            " or give --storage=postgresql://..."
        ) from None
    finally:
        os.close(descriptor)
