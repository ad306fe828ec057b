"""Examples on disk: cut study by study into shards, by any number of processes, then joined.

A folder of examples has one ``.npy`` an array, ``case.npy`` where examples are graded cases, and
``examples.json``, which is written last: without it nothing there is read.  Until then shards of
studies lie in ``parts``.  A process claims a shard by a lock (`flock`, which the kernel gives free
when its holder ends, however it ends), writes it under a name of its own and renames it, so a kill
costs the shard that was being cut and nothing else.  The last shard's process, or whoever comes
next, joins them.  Memory is that of one study.

Where a file system knows no locks, two processes may cut the same shard: the first one's is taken.
"""

import contextlib
import dataclasses
import errno
import fcntl
import functools
import json
import math
import os
import shutil
import socket
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mskjax.data.helpers import helping
from mskjax.data.pipeline import Examples
from mskjax.errors import UserError
from mskjax.progress import Progress, say

CONTENT = "examples.json"
PARTS = "parts"
_JOIN = "join.lock"
STUDIES_PER_SHARD = 16
CASE = "case"  # the one array of text: ids of graded cases, never given to a network
WORTH_HELP_S = 60.0  # of cutting that is left
_POLL_S = 0.3
_COPIED_AT_ONCE = 2**24  # bytes
_FULL = (errno.ENOSPC, errno.EDQUOT)

Cut = Callable[[int], Examples | None]


@dataclasses.dataclass(frozen=True)
class Stored:
    """Examples in a folder.

    Attributes:
      examples: arrays with N rows, memory-mapped: nothing is read before it is asked for.
      counts: (studies,) int64, examples of each study, in order.
      cases: (N,) case ids; None where examples are not graded cases.
    """

    examples: Examples
    counts: np.ndarray
    cases: np.ndarray | None

    @property
    def nbytes(self) -> int:
        """Bytes of the arrays on disk."""
        return sum(v.nbytes for v in self.examples.values())


def load(folder: Path) -> Stored | None:
    """The examples of a folder; None where they are not complete, or a file is not whole."""
    try:
        content = json.loads((folder / CONTENT).read_text())
        for name, size in content["bytes"].items():
            if (folder / f"{name}.npy").stat().st_size != size:
                return None
        arrays = {name: np.load(folder / f"{name}.npy", mmap_mode="r") for name in content["bytes"]}
        cases = arrays.pop(CASE, None)
        counts = np.array(content["counts"], np.int64)
        return Stored(arrays, counts, None if cases is None else np.array(cases))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def make(folder: Path, stage: str, cut: Cut, studies: int, notes: Mapping[str, Any]) -> Stored:
    """Cuts what is not cut yet, together with other processes that do the same, and joins it.

    Args:
      folder: of these examples alone.
      stage: its name.
      cut: number of a study -> its examples, all of one shape and type; None where it has none.
        ``case`` among them are case ids.
      studies: number of studies.
      notes: what the examples were cut with, JSON; kept beside them.

    Raises:
      UserError: no study has an example; or the disk is full, and the shards that are cut stay.
      OSError: the folder cannot be written.
    """
    shards = [
        _Shard(folder / PARTS, first, min(first + STUDIES_PER_SHARD, studies))
        for first in range(0, studies, STUDIES_PER_SHARD)
    ]
    _clear_damaged(folder)
    progress = Progress(f"preparing {stage}", studies)
    try:
        with contextlib.ExitStack() as crew:
            stored = _made(folder, stage, shards, cut, notes, progress, crew)
    except OSError as error:
        if error.errno not in _FULL:
            raise
        raise UserError(
            f"no space left on the disk for the examples in {folder}; free some and run the same"
            f" command again: what is cut so far ({_size_of(folder) / 1e6:.0f} MB) is kept."
        ) from error
    progress.close()
    if (folder / PARTS).exists():
        with contextlib.suppress(OSError), _claimed(folder / PARTS / _JOIN) as ours:
            if ours and (folder / CONTENT).exists():
                shutil.rmtree(folder / PARTS, ignore_errors=True)
    return stored


def _made(
    folder: Path,
    stage: str,
    shards: Sequence["_Shard"],
    cut: Cut,
    notes: Mapping[str, Any],
    progress: Progress,
    crew: contextlib.ExitStack,
) -> Stored:
    alone, waiting, pending = True, False, list(shards)
    while (stored := load(folder)) is None:
        began = time.monotonic()
        if _cut_one(folder, pending, cut, progress.advance):
            if alone and len(pending) * (time.monotonic() - began) > WORTH_HELP_S:
                alone = False
                _call_help(folder, stage, shards, cut, crew)
        elif _join(folder, stage, shards, notes):
            pending = list(shards)  # some may not have been whole
        else:
            if not waiting:
                say(f"preparing {stage}: other processes cut what is left; waiting for them")
            waiting = True
            time.sleep(_POLL_S)
    return stored


def _call_help(
    folder: Path,
    stage: str,
    shards: Sequence["_Shard"],
    cut: Cut,
    crew: contextlib.ExitStack,
) -> None:
    """Starts helpers, unless another process has some here."""
    if crew.enter_context(_claimed(folder / PARTS / "helpers.lock")):
        work = functools.partial(help_to_cut, folder, shards, cut)
        if count := crew.enter_context(helping(work)):
            say(f"preparing {stage}: with {count} further processes")


def _cut_one(folder: Path, pending: list["_Shard"], cut: Cut, advance: Callable[[], None]) -> bool:
    """Cuts the first shard that nobody has cut or is cutting; False where there is none.

    Args:
      folder: of the examples.
      pending: shards that may not be cut yet; those that are leave it.
      cut: see `make`.
      advance: is called for each study that is cut, by whomever.
    """
    for shard in tuple(pending):
        mine = False
        if not shard.is_cut:
            with _claimed(shard.lock) as ours:
                # Somebody may have been quicker, to the very end.
                if ours and not shard.is_cut and not (folder / CONTENT).exists():
                    try:
                        shard.cut(cut, advance)
                    except FileNotFoundError:  # without locks: all is done and tidied up
                        if not (folder / CONTENT).exists():
                            raise
                        return False
                    mine = True
        if shard.is_cut:
            pending.remove(shard)
            if mine:
                return True
            for _ in range(shard.first, shard.end):
                advance()
    return False


def help_to_cut(folder: Path, shards: Sequence["_Shard"], cut: Cut) -> None:
    """Cuts shards until there is none that nobody has cut or is cutting."""
    pending = list(shards)
    while _cut_one(folder, pending, cut, lambda: None):
        pass


@dataclasses.dataclass(frozen=True)
class _Shard:
    """The studies from `first` to `end`; ``parts/<first>/`` once they are cut."""

    parts: Path
    first: int
    end: int

    @property
    def folder(self) -> Path:
        return self.parts / f"{self.first:06}"

    @property
    def lock(self) -> Path:
        return self.parts / f"{self.first:06}.lock"

    @property
    def is_cut(self) -> bool:
        return (self.folder / CONTENT).exists()

    def content(self) -> dict[str, Any]:
        """``layout``: name -> type and shape of a row; ``counts``; ``cases`` or None."""
        return json.loads((self.folder / CONTENT).read_text())

    def raw(self, name: str) -> Path:
        """The rows of an array; empty, with another suffix, once they are copied."""
        return self.folder / f"{name}.raw"

    def cut(self, cut: Cut, advance: Callable[[], None]) -> None:
        """Cuts the studies; whoever calls it holds the lock."""
        host = socket.gethostname()
        for old in self.parts.glob(f"{self.first:06}.{host}-*.tmp"):
            if _has_ended(int(old.stem.rpartition("-")[2])):
                shutil.rmtree(old, ignore_errors=True)
        own = self.parts / f"{self.first:06}.{host}-{os.getpid()}.tmp"
        own.mkdir()
        try:
            with contextlib.ExitStack() as files:
                written = _Written(own, files)
                for number in range(self.first, self.end):
                    written.add(cut(number))
                    advance()
            (own / CONTENT).write_text(written.content())
            try:
                own.rename(self.folder)
            except OSError as error:
                if error.errno not in (errno.EEXIST, errno.ENOTEMPTY):  # another was quicker
                    raise
        finally:
            shutil.rmtree(own, ignore_errors=True)


class _Written:
    """Appends the examples of one study after the other to files of raw rows."""

    def __init__(self, folder: Path, files: contextlib.ExitStack):
        self._folder, self._files = folder, files
        self._open: dict[str, Any] = {}
        self._layout: dict[str, list[Any]] = {}
        self._counts: list[int] = []
        self._cases: list[str] = []

    def add(self, examples: Examples | None) -> None:
        arrays = dict(examples or {})
        cases = [str(case) for case in arrays.pop(CASE, ())]
        layout = {k: [v.dtype.str, list(v.shape[1:])] for k, v in arrays.items()}
        counts = {len(v) for v in arrays.values()} | ({len(cases)} if cases else set())
        if len(counts) > 1:
            raise ValueError(f"arrays of {sorted(counts)} examples in one study")
        if arrays:
            _check_alike(self._layout or layout, layout)
            self._layout = layout
        for name, values in arrays.items():
            if name not in self._open:
                file = (self._folder / f"{name}.raw").open("wb")
                self._open[name] = self._files.enter_context(file)
            # Not `tofile`, whose error does not say that the disk is full.
            self._open[name].write(np.ascontiguousarray(values).reshape(-1).view(np.uint8).data)
        self._counts.append(next(iter(counts), 0))
        self._cases += cases

    def content(self) -> str:
        """What `_Shard.content` reads."""
        cases = self._cases or None
        return json.dumps({"layout": self._layout, "counts": self._counts, "cases": cases})


def _check_alike(one: Mapping[str, Any], other: Mapping[str, Any]) -> None:
    if dict(one) != dict(other):
        raise ValueError(f"examples of one stage are not alike: {dict(one)} and {dict(other)}")


def _join(folder: Path, stage: str, shards: Sequence[_Shard], notes: Mapping[str, Any]) -> bool:
    """Copies the rows of all shards into one array each; False where others do, or cut still.

    A shard's rows are removed once they are copied: what a process that was killed here has left is
    gone on with, and the disk holds the examples once.
    """
    with (
        _claimed(folder / PARTS / _JOIN) as ours,
        contextlib.suppress(FileNotFoundError),  # where there are no locks: another was quicker
    ):
        if not ours or (folder / CONTENT).exists() or not all(s.is_cut for s in shards):
            return False
        contents = [shard.content() for shard in shards]
        known = [c["layout"] for c in contents if c["layout"]]
        counts = [n for c in contents for n in c["counts"]]
        if not known:
            shutil.rmtree(folder)
            raise UserError(f"the cohort has no training example for stage {stage}.")
        for layout in known:
            _check_alike(known[0], layout)
        arrays = {
            name: _allocated(folder, name, (sum(counts), *shape), np.dtype(kind))
            for name, (kind, shape) in known[0].items()
        }
        start = 0
        for shard, content in zip(shards, contents, strict=True):
            rows = sum(content["counts"])
            for name, array in arrays.items():
                if array is None:
                    _start_over(folder, shards)
                    return True
                if not _copy(shard.raw(name), *array, start, rows):
                    shutil.rmtree(shard.folder)  # not whole: it is cut anew
                    return True
            start += rows
        cases = [case for c in contents for case in c["cases"] or ()]
        _finish(folder, [*arrays], cases, {"counts": counts, "cut_with": notes})
        return True
    return False


def _finish(
    folder: Path, names: list[str], cases: Sequence[str], content: Mapping[str, Any]
) -> None:
    """Gives the arrays, whose rows are all there, their place; the content is written last."""
    for making in (folder / PARTS).glob("*.npy"):
        making.replace(folder / making.name)
    if cases:
        np.save(folder / f"{CASE}.npy", np.array(cases))
        names = [*names, CASE]
    sizes = {name: (folder / f"{name}.npy").stat().st_size for name in names}
    temporary = folder / PARTS / CONTENT
    temporary.write_text(json.dumps({"bytes": sizes, **content}))
    temporary.replace(folder / CONTENT)


def _allocated(
    folder: Path, name: str, shape: tuple[int, ...], dtype: np.dtype
) -> tuple[Path, int, int] | None:
    """An array's file, where its rows begin and how many bytes a row has; made if missing.

    None where rows were copied to a file that is gone or not whole.
    """
    final, making = folder / f"{name}.npy", folder / PARTS / f"{name}.npy"
    path = final if final.exists() else making
    if not path.exists():
        if any((folder / PARTS).glob(f"*/{name}.copied")):
            return None
        temporary = making.with_suffix(".tmp")
        np.lib.format.open_memmap(temporary, mode="w+", dtype=dtype, shape=shape)
        temporary.replace(path)
    try:
        array = np.load(path, mmap_mode="r")
    except ValueError:
        return None
    row = math.prod(shape[1:]) * dtype.itemsize
    return (path, int(array.offset), row) if array.shape == shape else None


def _start_over(folder: Path, shards: Sequence[_Shard]) -> None:
    for path in (*folder.glob("*.npy"), *(folder / PARTS).glob("*.npy")):
        path.unlink()
    for shard in shards:
        shutil.rmtree(shard.folder)


def _copy(raw: Path, target: Path, offset: int, row: int, start: int, rows: int) -> bool:
    """Moves raw rows to their place; True where that is done, False where they are not whole."""
    copied = raw.with_suffix(".copied")
    if not rows or copied.exists():
        return True
    if not raw.exists() or raw.stat().st_size != rows * row:
        return False
    with raw.open("rb") as source, target.open("r+b") as file:
        file.seek(offset + start * row)
        shutil.copyfileobj(source, file, _COPIED_AT_ONCE)
        file.flush()
        os.fsync(file.fileno())  # or a power cut could take both
    raw.rename(copied)
    os.truncate(copied, 0)
    return True


def _clear_damaged(folder: Path) -> None:
    """Removes examples whose files are not whole, so that they are cut anew."""
    if not (folder / CONTENT).exists() or load(folder) is not None:
        return
    with _claimed(folder / PARTS / _JOIN) as ours:
        if ours and load(folder) is None:
            say(f"{folder} is damaged; its examples are cut anew")
            for path in folder.glob("*.npy"):
                path.unlink()
            (folder / CONTENT).unlink(missing_ok=True)


@contextlib.contextmanager
def _claimed(path: Path) -> Iterator[bool]:
    """Whether this process holds a lock until the block ends; it never waits for it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        file = path.open("w")
    except FileNotFoundError:  # all is done, and was tidied up at this moment
        yield False
        return
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        except OSError:  # not known to this file system, see the module
            pass
        yield True


def _has_ended(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    except PermissionError:  # it runs, as another user
        return False
    return False


def _size_of(folder: Path) -> int:
    return sum(p.stat().st_blocks * 512 for p in folder.rglob("*") if p.is_file())
