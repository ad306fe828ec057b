"""A folder, or a part of one, that one process at a time may work in.

The lock is a file that names its holder and that the kernel keeps locked (`flock`) until the holder
ends, however it ends: what is left by a process that was killed can be told from what is in use.
Where a file system knows no such locks, making the file is the lock, and the number of the process
tells whether it still runs.
"""

import contextlib
import dataclasses
import datetime
import fcntl
import json
import os
import socket
import time
from pathlib import Path

from mskjax.errors import UserError
from mskjax.progress import duration, say

LOCK = ".lock"
_REMOVAL = "-removal"
_ATTEMPTS = 50  # each lost to a process that released the lock at that moment
_WAIT_S = 0.02  # 50 times: what a holder may need from making the file to writing its name


class InUse(UserError):
    """Another process works in the folder, or left a lock on another machine.

    Attributes:
      holder: that process; None where it is not known.
    """

    def __init__(self, sentence: str, holder: "Holder | None" = None):
        super().__init__(sentence)
        self.holder = holder


@dataclasses.dataclass(frozen=True)
class Holder:
    """The process that works in a folder.

    Attributes:
      host: name of its machine.
      pid: its number there.
      started: when it took the lock, seconds since 1970.
    """

    host: str
    pid: int
    started: float

    @classmethod
    def here(cls) -> "Holder":
        """This process."""
        return cls(socket.gethostname(), os.getpid(), time.time())

    @classmethod
    def of(cls, text: str) -> "Holder | None":
        """The holder that a lock names; None where it names none."""
        try:
            content = json.loads(text)
            return cls(str(content["host"]), int(content["pid"]), float(content["started"]))
        except (ValueError, KeyError, TypeError):
            return None

    def __str__(self) -> str:
        since = datetime.datetime.fromtimestamp(self.started, datetime.UTC)
        return f"process {self.pid} on {self.host} since {since:%Y-%m-%d %H:%M} UTC"

    @property
    def is_local(self) -> bool:
        """Whether its number says something about the processes of this machine."""
        return self.host == socket.gethostname()

    @property
    def is_dead(self) -> bool:
        """Whether it is known to have ended: no process of this machine has its number."""
        if not self.is_local:
            return False
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return True
        except PermissionError:  # it runs, as another user
            return False
        return False


class Lock:
    """A lock that is held; see `acquire`."""

    def __init__(self, path: Path, descriptor: int):
        self._path, self._descriptor = path, descriptor

    def release(self) -> None:
        """Gives the folder free.  Nobody else's lock is removed, whatever became of the file."""
        with contextlib.suppress(FileNotFoundError):
            if _is_at(self._descriptor, self._path):
                self._path.unlink()
        os.close(self._descriptor)


def acquire(folder: Path, part: str = "") -> Lock:
    """Takes the lock of a folder, which is made if it is missing, or of a part of it.

    What a process of this machine left when it was killed is taken over, and said.

    Args:
      folder: where the lock's file will lie until `Lock.release`.
      part: name of what is locked of the folder; empty: all of it.  The two know nothing of one
        another.

    Raises:
      InUse: another process works there, or left a lock on another machine.
      OSError: the folder cannot be made or written.
    """
    path = file_of(folder, part)
    for _ in range(_ATTEMPTS):
        folder.mkdir(parents=True, exist_ok=True)
        try:
            descriptor, is_new = _open(path)
        except FileNotFoundError:  # released, or the folder was removed, at this moment
            continue
        try:
            if _claim(descriptor, is_new, path):
                return Lock(path, descriptor)
        except BaseException as error:
            if is_new and isinstance(error, OSError):  # the disk is full: no name was written
                Lock(path, descriptor).release()
            else:
                os.close(descriptor)
            raise
        os.close(descriptor)
        time.sleep(_WAIT_S)
    if _guard(path).exists():
        raise UserError(
            f"{_what(path)} is being taken over from a dead process; if no other process works"
            f" there, delete {_guard(path)}."
        )
    raise UserError(f"{_what(path)} is taken and given free all the time; give another --workdir.")


def file_of(folder: Path, part: str = "") -> Path:
    """The file that is the lock of a folder, or of a part of it."""
    return folder / (f"{LOCK}-{part}" if part else LOCK)


def parts(folder: Path) -> list[str]:
    """The parts of a folder that have a lock of their own now, whoever holds it."""
    names = (p.name.removeprefix(f"{LOCK}-") for p in folder.glob(f"{LOCK}-*"))
    return sorted(name for name in names if not name.endswith(_REMOVAL))


def holder_of(folder: Path, part: str = "") -> Holder | None:
    """Who a lock names, dead or alive; the lock is not touched, and None where there is none."""
    try:
        return Holder.of(file_of(folder, part).read_text(errors="replace"))
    except OSError:
        return None


def _open(path: Path) -> tuple[int, bool]:
    try:
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666), True
    except FileExistsError:
        return os.open(path, os.O_RDWR), False


def _claim(descriptor: int, is_new: bool, path: Path) -> bool:
    """Makes the open file this process's lock; False: the file is no longer the one at its path."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        holder = _holder(descriptor)
        raise InUse(_about_use(path, holder), holder) from None
    except OSError:  # not known to this file system
        if not is_new:
            _remove_dead(descriptor, path)
            return False
    else:
        # Whoever held it before may have removed the file between our opening and locking it.
        if not _is_at(descriptor, path):
            return False
        if text := _read(descriptor):
            _take_over(path, Holder.of(text))
    content = json.dumps(dataclasses.asdict(Holder.here())) + "\n"
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, content.encode(), 0)
    return True


def _remove_dead(descriptor: int, path: Path) -> None:
    """Removes what a dead process left, where making the file is the lock.

    One process at a time may remove, so that none removes the lock that another one has made since
    the dead one was read.

    Raises:
      UserError: the process lives, or nobody can tell from here.
    """
    holder = _holder(descriptor)
    if holder is not None and holder.is_local and not holder.is_dead:
        raise InUse(
            f"{_about_use(path, holder)}  If process {holder.pid} is none of mskjax, its number was"
            f" given anew: delete {path} then.",
            holder,
        )
    try:
        os.close(os.open(_guard(path), os.O_CREAT | os.O_EXCL))
    except FileExistsError:
        return
    try:
        if _is_at(descriptor, path):
            _take_over(path, holder)
            path.unlink()
    finally:
        _guard(path).unlink()


def _what(path: Path) -> Path:
    """What is locked, for a sentence."""
    return path.parent / path.name.removeprefix(LOCK).removeprefix("-")


def _guard(path: Path) -> Path:
    return path.with_name(path.name + _REMOVAL)


def _take_over(path: Path, holder: Holder | None) -> None:
    """Says whose lock is taken over.

    Raises:
      UserError: nobody can tell from here whether its holder has ended.
    """
    if holder is None:
        raise UserError(
            f"{path} names no process; delete that file if no other process works in {_what(path)}."
        )
    if not holder.is_local:
        age = duration(max(time.time() - holder.started, 0))
        raise InUse(
            f"{_what(path)} was taken by {holder} ({age} ago), and from {socket.gethostname()} it"
            " cannot be seen whether that process has ended; wait for it, give another --workdir,"
            f" or, once you know that it has ended, delete {path}.",
            holder,
        )
    # The number of a dead process may have been given anew, or the folder is a copy.
    why = "has ended" if holder.is_dead else "does not hold it"
    say(f"{_what(path)}: taken over from {holder}, which {why}")


def _about_use(path: Path, holder: Holder | None) -> str:
    # A lock that names a dead process and is held all the same was taken over at this moment.
    who = "another process" if holder is None or holder.is_dead else holder
    return f"{_what(path)} is in use by {who}; wait for it or give another --workdir."


def _holder(descriptor: int) -> Holder | None:
    """Who a lock names; whoever has just taken it gets the time to write its name."""
    holder = None
    for _ in range(_ATTEMPTS):
        holder = Holder.of(_read(descriptor))
        if holder and not holder.is_dead:
            break
        time.sleep(_WAIT_S)
    return holder


def _read(descriptor: int) -> str:
    return os.pread(descriptor, 4096, 0).decode(errors="replace")


def _is_at(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False
