"""Processes that package shards side by side, and what becomes of them.

They are plain children that talk over pipes.  A child whose parent has ended, however it ended,
reads the end of its input and ends; a parent reads the end of a child's news.
"""

import contextlib
import dataclasses
import importlib
import os
import pickle
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from mskjax.errors import UserError
from tfds_builders.shards import Builder, Layout, Packer, Unfinished

VARIABLE = "MSKJAX_WORKERS"
_QUOTA = Path("/sys/fs/cgroup/cpu.max")  # microseconds of all cores, in a period
_WAIT_S = 1.0
_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
_THREADS_OF_ITK = "ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS"


def workers() -> int:
    """How many processes package: ``MSKJAX_WORKERS``, or one a core.

    Raises:
      UserError: the variable is no positive number.
    """
    text = os.environ.get(VARIABLE, "")
    if not text:
        return _cores()
    if not text.isdecimal() or int(text) < 1:
        raise UserError(f"{VARIABLE} is {text!r}; it must be a whole number from 1 on.")
    return int(text)


def _cores() -> int:
    """Cores that this process may use; a container may have fewer than its machine."""
    has_affinity = hasattr(os, "sched_getaffinity")  # not on macOS
    cores = len(os.sched_getaffinity(0)) if has_affinity else os.cpu_count() or 1
    try:
        quota, period = map(int, _QUOTA.read_text().split())
    except (OSError, ValueError):  # another system, or "max"
        return cores
    return max(min(cores, quota // period), 1)


@dataclasses.dataclass(frozen=True)
class Spec:
    """What a worker must know.

    Attributes:
      module: of the builder's class.
      cls: its name.
      arguments: of its constructor.
      layout: where shards lie.
      studies: ids of what is packaged, in order.
    """

    module: str
    cls: str
    arguments: Mapping[str, Any]
    layout: Layout
    studies: Sequence[str]

    def builder(self) -> Builder:
        """The builder, made anew."""
        return getattr(importlib.import_module(self.module), self.cls)(**self.arguments)


@dataclasses.dataclass
class _Worker:
    process: subprocess.Popen
    thread: threading.Thread | None = None  # hears its news
    shard: int | None = None  # what it was given
    study: str = ""  # what it reads


class Alone:
    """In the place of a crew: this process packages."""

    def __init__(self, packer: Packer, layout: Layout):
        self._packer, self._layout = packer, layout
        self._task: tuple[int, bool] | None = None

    def __enter__(self) -> "Alone":
        return self

    def __exit__(self, *unused: object) -> None:
        pass

    @property
    def idle(self) -> int:
        """See `Crew`."""
        return self._task is None

    def give(self, shard: int, checking: bool) -> None:
        """See `Crew`."""
        self._task = shard, checking

    def hear(self, tell: Callable[[str], None]) -> tuple[int, bool] | None:
        """See `Crew`."""
        assert self._task is not None
        shard, checking = self._task
        bad = self._packer.package(self._layout, shard, checking, tell)
        self._task = None
        return shard, bad


class Crew:
    """Workers that are given shards.

    Args:
      spec: of the cohort.
      count: how many.
    """

    def __init__(self, spec: Spec, count: int):
        self._spec = spec
        self._news: queue.SimpleQueue[tuple[_Worker, Any]] = queue.SimpleQueue()
        self._workers: list[_Worker] = []
        self._count = count

    def __enter__(self) -> "Crew":
        try:
            for _ in range(self._count):
                self._workers.append(self._start())
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(self, *unused: object) -> None:
        self._end()

    @property
    def idle(self) -> int:
        """How many wait for a shard."""
        return sum(worker.shard is None for worker in self._workers)

    def give(self, shard: int, checking: bool) -> None:
        """Gives a shard to a worker that is idle."""
        worker = next(w for w in self._workers if w.shard is None)
        worker.shard = shard
        self._send(worker, (shard, checking))

    def hear(self, tell: Callable[[str], None]) -> tuple[int, bool] | None:
        """Waits a moment for news.

        Args:
          tell: is called with the id of a study that is being read, and with an empty one after.

        Returns:
          A shard that is done and whether a study of it is bad; None where no shard was.

        Raises:
          Unfinished: a worker was killed.
          UserError: a worker finds other studies than are packaged.
          Exception: whatever a worker raised.
        """
        try:
            worker, content = self._news.get(timeout=_WAIT_S)
        except queue.Empty:
            return None
        if content is None:
            self._raise_end(worker)
        if isinstance(content, BaseException):
            raise content
        if isinstance(content, bool):
            if not content:
                raise UserError(
                    "the raw files were changed while they were packaged; run the same command"
                    " again."
                )
            return None
        if isinstance(content, str):
            worker.study = content
            tell(content)
            return None
        worker.shard = None
        return content

    def _start(self) -> _Worker:
        threads = {**dict.fromkeys(_THREADS, "1"), _THREADS_OF_ITK: "1"}
        process = subprocess.Popen(
            [sys.executable, "-m", "tfds_builders.shard_worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**threads, **os.environ, "PYTHONPATH": os.pathsep.join(map(_absolute, sys.path))},
        )
        worker = _Worker(process)
        worker.thread = threading.Thread(target=self._listen, args=(worker,), daemon=True)
        worker.thread.start()
        self._send(worker, self._spec)
        return worker

    def _send(self, worker: _Worker, content: Any) -> None:
        assert worker.process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # its end is heard
            pickle.dump(content, worker.process.stdin)
            worker.process.stdin.flush()

    def _listen(self, worker: _Worker) -> None:
        for content in _pickles(worker.process):
            self._news.put((worker, content))
        self._news.put((worker, None))

    def _raise_end(self, worker: _Worker) -> None:
        code = worker.process.wait()
        reading = f" while it read study {worker.study}" if worker.study else ""
        how = signal.Signals(-code).name if code < 0 else f"exit code {code}"
        if -code in (signal.SIGTERM, signal.SIGINT):
            time.sleep(_WAIT_S)  # it reaches this process as well, and says more than we could
        raise Unfinished(
            f"a worker of packaging ended{reading} ({how}).  SIGKILL as a rule means that memory"
            f" ran out: run the same command with {VARIABLE}={max(self._count // 2, 1)}, or with"
            " more memory.  Anything else means that a library cannot read a file of that study:"
            " check it.  Shards that are finished are kept."
        )

    def _end(self) -> None:
        for worker in self._workers:
            worker.process.kill()
        for worker in self._workers:
            worker.process.wait()
            assert worker.thread is not None
            worker.thread.join()
            assert worker.process.stdin is not None
            assert worker.process.stdout is not None
            worker.process.stdout.close()
            with contextlib.suppress(BrokenPipeError):  # what it was being sent is lost
                worker.process.stdin.close()


def _pickles(process: subprocess.Popen) -> Iterator[Any]:
    assert process.stdout is not None
    while True:
        try:
            yield pickle.load(process.stdout)
        except (EOFError, OSError, ValueError, pickle.UnpicklingError):
            return


def _absolute(path: str) -> str:
    return str(Path(path).absolute())
