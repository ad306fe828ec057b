"""SIGTERM, from the first line of a command to its last.

Cloud schedulers send it before they take a machine away, and kill soon after.  Nothing that is
half-done stands under its final name, so a command may end wherever it is: the signal raises
`Preempted` there and the same command goes on from what is complete.  Training has more to lose;
it holds the signal, looks at it after every step and saves.

The interpreter hears a signal only between two of its instructions, which may be minutes away (a
compilation).  So a thread hears it as well, and ends the process when its grace is over.
"""

import contextlib
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator
from types import FrameType

from mskjax.errors import EXIT_PREEMPTED, Preempted

GRACE_S = 15.0  # schedulers give 20 to 120 s


class Stop:
    """Whether the process must end soon."""

    def __init__(self) -> None:
        self._heard, self._over = threading.Event(), threading.Event()
        self._held = 0
        self.handed = 0  # signals that are no second one: schedulers signal every process

    def is_set(self) -> bool:
        """Whether a signal arrived."""
        return self._heard.is_set()

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Until the block ends the signal does not raise; who holds it looks at `is_set`.

        Raises:
          Preempted: it arrived and nobody looked.
        """
        self._held += 1
        try:
            yield
        finally:
            self._held -= 1
        if self.is_set() and not self._held:
            raise Preempted("stopped")

    @contextlib.contextmanager
    def listening(self) -> Iterator[None]:
        """Hears SIGTERM until the block ends; in the main thread only."""
        mine, others = socket.socketpair()
        mine.setblocking(False)
        before = signal.signal(signal.SIGTERM, self._raise)
        wakeup = signal.set_wakeup_fd(mine.fileno(), warn_on_full_buffer=False)
        watch = threading.Thread(target=self._watch, args=(others,), daemon=True)
        watch.start()
        try:
            yield
        finally:
            signal.set_wakeup_fd(wakeup)
            signal.signal(signal.SIGTERM, before)
            self._over.set()
            mine.close()  # which ends the thread
            watch.join()
            others.close()

    def _raise(self, number: int, frame: FrameType | None) -> None:
        before = self.is_set()
        self._heard.set()
        if not before and not self._held:
            raise Preempted("stopped")

    def _watch(self, signals: socket.socket) -> None:
        """Ends the process at a second SIGTERM, or when the grace after the first is over."""
        count, end = 0, 0.0
        while True:
            signals.settimeout(max(end - time.monotonic(), 1e-3) if count else None)
            try:
                heard = signals.recv(1)
            except TimeoutError:
                break
            if not heard:
                return
            count += heard[0] == signal.SIGTERM
            if count > 1 + self.handed:
                break
            if count and not end:
                end = time.monotonic() + GRACE_S
        if not self._over.is_set():
            print("pre-empted: ended at once; run the same command to go on.", file=sys.stderr)
            sys.stderr.flush()
            os._exit(EXIT_PREEMPTED)


_active: list[Stop] = []


def is_heard() -> bool:
    """Whether SIGTERM has arrived in this process."""
    return any(stop.is_set() for stop in _active)


def hand_on() -> None:
    """Has this process hear the SIGTERM that another one of its run has heard."""
    if _active and not is_heard():
        _active[-1].handed += 1
        os.kill(os.getpid(), signal.SIGTERM)


def ignore() -> None:
    """From now on SIGTERM raises nothing: the process is ending as it is."""
    for stop in _active:
        stop._held += 1


@contextlib.contextmanager
def listening() -> Iterator[Stop]:
    """Hears SIGTERM until the block ends; inside another such block, that one's `Stop`.

    Outside the main thread, where Python lets nobody hear signals, nothing is heard.
    """
    if _active or threading.current_thread() is not threading.main_thread():
        yield _active[-1] if _active else Stop()
        return
    stop = Stop()
    _active.append(stop)
    try:
        with stop.listening():
            yield stop
    finally:
        _active.pop()
