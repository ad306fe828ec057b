"""Several processes that compute one study together, and end together.

All run the same command and come to the same decisions; the first alone writes and speaks
(`roles`).  They talk to each other through the key-value store of JAX's coordination service, never
through the devices: a device waits for the one that does not come, while a word in the store can be
looked for.

A thread of each process says every second that it lives and looks at the others.  A process that
ends before the work is done says why; SIGTERM to one is handed on to all; who says nothing any
more has vanished.  The others then end with that sentence and that exit code: by themselves where
the interpreter has the turn, by the thread where they wait for a device.
"""

import contextlib
import ctypes
import functools
import json
import logging
import os
import socket
import sys
import threading
import time
import traceback
import warnings
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NoReturn, Protocol

from mskjax import preemption, roles
from mskjax.errors import EXIT_DEFECT, EXIT_PREEMPTED, EXIT_USER, Preempted, UserError
from mskjax.training import clusters, rendezvous

START_S = 300.0  # for all processes to start
BEAT_S = 1.0  # between two signs of life
LOST_S = 30.0  # without one
SUSPECT_S = 10.0  # the same, once a collective has failed
LEAVE_S = 5.0  # to end by itself once another has ended
AGREE_S = 1.0  # between two agreements on stopping

_END, _STOP, _BEAT = "mskjax/now/end", "mskjax/now/stop", "mskjax/now/beat/"
_GONE = "mskjax/now/gone/"
Tell = Callable[[BaseException], tuple[int, str]]


class Signal(Protocol):
    """Says when the process must end soon: `preemption.Stop`, or an event."""

    def is_set(self) -> bool:
        """Whether it must."""


class PeerError(Exception):
    """Another process of this run ended with a defect."""


def start(identity: Mapping[str, Any], timeout_s: float = START_S) -> None:
    """Makes this process one of several, where it was started as one (`clusters`).

    To be called before JAX is used.

    Args:
      identity: JSON: what must be the same in all of them, e.g. config and versions.
      timeout_s: how long the last one may take to come.

    Raises:
      UserError: see `clusters.visible` and `rendezvous.meet`.
    """
    global _peers
    cluster = clusters.visible()
    if cluster is None:
        return
    hosts = rendezvous.meet(cluster, identity, timeout_s)
    import jax

    roles.take(cluster.index, cluster.count)
    if not roles.is_first():
        warnings.simplefilter("ignore")
        logging.disable(logging.WARNING)
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    jax.config.update("jax_enable_preemption_service", False)  # or SIGTERM is its own
    with _survivable():
        jax.distributed.initialize(
            cluster.address,
            cluster.count,
            cluster.index,
            list(cluster.devices) if cluster.devices else None,
            cluster_detection_method="deactivate",
            heartbeat_timeout_seconds=10 * int(LOST_S),  # ours is heard before
        )
    _peers = _Peers(cluster.address, hosts)


def sync(name: str) -> None:
    """Returns when all processes are here; what the first has written is then there for all."""
    gather(name, None)


def gather(name: str, value: Any) -> list[Any]:
    """What all processes say at the same place, by number; nothing computes meanwhile.

    However long one of them takes, it is waited for as long as it lives.

    Args:
      name: of the place.
      value: JSON.
    """
    return [value] if _peers is None else _peers.gather(name, value)


def agree(flag: bool) -> bool:
    """Whether it is true in any process; all hear the same."""
    return any(gather("agree", flag))


class Together:
    """A signal that all processes see set at the same time it is asked for.

    They must ask equally often.  They agree about every second and not every time, which the first
    one's clock decides for all.

    Args:
      signal: of this process.
    """

    def __init__(self, signal: Signal):
        self._signal, self._left, self._every = signal, 0, 1
        self._asked = time.monotonic()

    def is_set(self) -> bool:
        """Whether the signal was set in any process when they last agreed."""
        if _peers is None:
            return self._signal.is_set()
        if self._left > 0:
            self._left -= 1
            return False
        now = time.monotonic()
        took, self._asked = now - self._asked, now
        ours = max(1, min(2 * self._every, round(self._every * AGREE_S / max(took, 1e-3))))
        said = gather("stop", [self._signal.is_set(), ours])
        self._every = said[0][1]
        self._left = self._every - 1
        return any(heard for heard, _ in said)


@contextlib.contextmanager
def ending(tell: Tell) -> Iterator[None]:
    """The whole of a command: of several processes all end as the first of them that ends.

    Alone, whatever is raised goes on; of several processes none comes back from it.

    Args:
      tell: exit code and sentence of what was raised.
    """
    try:
        yield
        if _peers is not None:
            _peers.finish()
    except BaseException as error:
        if _peers is None:
            raise
        preemption.ignore()
        for _ in range(3):  # the watch may raise in here, at the last moment
            with contextlib.suppress(Exception, Preempted):
                _peers.end(error, tell)
        os._exit(EXIT_DEFECT)


class _Peers:
    """This process among the others."""

    def __init__(self, address: str, hosts: list[str]):
        from jax._src import distributed  # the store has no public name

        self._client: Any = distributed.global_state.client
        self._address, self._hosts = address, hosts
        self._met = 0
        self._main = threading.main_thread().ident
        self._leaving, self._over = threading.Event(), threading.Event()
        self._suspecting = self._is_mute = False
        self._ends = threading.Lock()
        self._end: dict[str, Any] | None = None  # of whoever ended first
        now = time.monotonic()
        self._beats = {i: (0, now) for i in range(len(hosts)) if i != roles.index()}
        self._watch = threading.Thread(target=self._watching, daemon=True)
        self._watch.start()

    def gather(self, name: str, value: Any) -> list[Any]:
        self._met += 1
        place, count = f"mskjax/meet/{self._met}/", roles.count()
        self._client.key_value_set(f"{place}{roles.index()}", json.dumps([name, value]))
        pause = 1e-4
        while len(found := self._client.key_value_dir_get(place)) < count:
            time.sleep(pause)
            pause = min(1.5 * pause, 0.2)
        said = {int(key.rpartition("/")[2]): json.loads(text) for key, text in found}
        if len({where for where, _ in said.values()}) > 1:
            raise RuntimeError(f"processes are at different places: {said}")
        if roles.is_first():  # whoever is here has read what was said before
            self._client.key_value_delete(f"mskjax/meet/{self._met - 1}/")
        return [said[i][1] for i in range(count)]

    def finish(self) -> None:
        """Ends what was begun in `start`, once the work of all is done."""
        import jax

        self.gather("finish", None)
        self._leaving.set()
        self._over.set()
        self._watch.join()
        jax.distributed.shutdown()

    def end(self, error: BaseException, tell: Tell) -> NoReturn:
        """Ends this process with the others, because of an error here or of one of theirs."""
        self._leaving.set()
        if _is_of_runtime(error):
            self._find_out()
        if self._end is None:
            self._publish(*tell(error), roles.index())
        assert self._end is not None
        if self._end["code"] == EXIT_DEFECT and self._end["process"] == roles.index():
            traceback.print_exception(error)
        self._exit(self._end)

    def _publish(self, code: int, sentence: str, process: int | None) -> None:
        """Makes this the end of all, unless another one was before."""
        mine = {"code": code, "sentence": sentence, "process": process}
        self._end = mine
        with contextlib.suppress(RuntimeError):  # the store is gone, or has another one's
            self._client.key_value_set(_END, json.dumps(mine))
        with contextlib.suppress(RuntimeError):
            self._end = json.loads(self._client.key_value_try_get(_END))

    def _exit(self, end: Mapping[str, Any]) -> NoReturn:
        """Says why and ends, the first process last: the others hear of it through that one."""
        self._ends.acquire()  # whoever comes second waits here for the end
        which = end["process"]
        there = "" if which in (None, roles.index()) else f" (process {which} of {roles.count()})"
        if end["code"] != EXIT_DEFECT or which != roles.index():  # which has its traceback
            print(f"{end['sentence']}{there}", file=sys.stderr)
        sys.stdout.flush()
        sys.stderr.flush()
        with contextlib.suppress(RuntimeError):
            if not self._is_mute:
                self._leave()
        os._exit(end["code"])

    def _leave(self) -> None:
        """Says that this process is about to end; the first one waits for all others to say so."""
        self._client.key_value_set(f"{_GONE}{roles.index()}", "")
        until = time.monotonic() + preemption.GRACE_S
        while roles.is_first() and time.monotonic() < until:
            gone = dict(self._client.key_value_dir_get(_GONE))
            if all(f"{_GONE}{i}" in gone or self._is_lost(i) for i in self._beats):
                break
            time.sleep(0.05)

    def _find_out(self) -> None:
        """After a collective has failed: returns when it is known whether another one has ended."""
        self._suspecting = True
        before = {i: beat for i, (beat, _) in self._beats.items()}
        while self._end is None and self._watch.is_alive():
            # One sign may be on its way still from who has vanished, a third one not.
            if all(beat > before[i] + 2 for i, (beat, _) in self._beats.items()):
                return
            time.sleep(0.05)

    def _watching(self) -> None:
        beat = 0
        while self._end is None and not self._over.wait(BEAT_S):
            beat += 1
            try:
                self._client.key_value_set(f"{_BEAT}{roles.index()}", str(beat), True)
                self._look(dict(self._client.key_value_dir_get("mskjax/now/")))
            except RuntimeError:
                if not self._over.is_set():
                    self._end = self._about_lost(0)
        if not self._over.is_set():
            self._make_main_end()

    def _look(self, found: Mapping[str, str]) -> None:
        """At what the others say."""
        now = time.monotonic()
        for i, (beat, _) in self._beats.items():
            if (last := int(found.get(f"{_BEAT}{i}", "0"))) > beat:
                self._beats[i] = (last, now)
        if _STOP in found:
            preemption.hand_on()
        elif preemption.is_heard():
            self._client.key_value_set(_STOP, "", True)
        if _END in found:
            self._end = json.loads(found[_END])
        lost = [i for i in self._beats if self._is_lost(i) and f"{_GONE}{i}" not in found]
        if lost and self._end is None:
            self._publish(**self._about_lost(lost[0]))

    def _is_lost(self, index: int) -> bool:
        limit = SUSPECT_S if self._suspecting else LOST_S
        return time.monotonic() - self._beats[index][1] > limit

    def _about_lost(self, index: int) -> dict[str, Any]:
        who = f"process {index} of {roles.count()} on {self._hosts[index]}"
        sentence = f"pre-empted: {who} has vanished; run the same command in all of them to go on."
        return {"code": EXIT_PREEMPTED, "sentence": sentence, "process": None}

    def lose_first(self) -> None:
        """Ends this process because the store has gone, and with it the first one.

        To be called in the client's own thread, without which no word comes from the store.
        """
        host, _, port = self._address.rpartition(":")
        for _ in range(50):  # a process that is killed lets go of its port a little later
            try:
                socket.create_connection((host.strip("[]"), int(port)), LEAVE_S).close()
            except OSError:
                break
            time.sleep(0.1)
        else:
            os.abort()  # it is there: that was another fault of a library
        self._is_mute = True
        self._end = self._end or self._about_lost(0)
        self._make_main_end()

    def _make_main_end(self) -> None:
        """Raises in the main thread; ends the process if that does not come to `end`."""
        end, heard = self._end, preemption.is_heard()
        assert end is not None
        if not heard and not self._leaving.is_set():
            kinds = {EXIT_USER: UserError, EXIT_PREEMPTED: Preempted}
            kind = ctypes.py_object(kinds.get(end["code"], PeerError))
            ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(self._main or 0), kind)
        # Who has heard SIGTERM is saving, and has its own watch.
        if not self._leaving.wait(preemption.GRACE_S if heard else LEAVE_S):
            self._exit(end)
        time.sleep(preemption.GRACE_S + LEAVE_S)  # more than `_leave` takes
        os._exit(end["code"])


_peers: _Peers | None = None


def _is_of_runtime(error: BaseException | None) -> bool:
    """Whether the runtime of JAX, which notices a vanished process as well, is what has failed."""
    while error is not None:
        if any(kind.__name__ == "JaxRuntimeError" for kind in type(error).__mro__):
            return True
        error = error.__cause__ or error.__context__
    return False


@contextlib.contextmanager
def _survivable() -> Iterator[None]:
    """The client that `jax.distributed` makes in this block does not abort with the first process.

    It would, with pages of stack, as soon as that one has gone.  Given a callback it calls that
    instead; or rather it fails to, in jaxlib 0.10, and C++ ends the process: there it is stopped.
    """
    from jax._src.lib import _jax

    original = _jax.get_distributed_runtime_client
    _jax.get_distributed_runtime_client = functools.partial(
        original, missed_heartbeat_callback=lambda *status: _lost(), rpc_timeout=int(LOST_S)
    )
    with contextlib.suppress(OSError, AttributeError):  # of another C++ library
        ctypes.CDLL("libstdc++.so.6")._ZSt13set_terminatePFvvE(_lost)
    try:
        yield
    finally:
        _jax.get_distributed_runtime_client = original


@ctypes.CFUNCTYPE(None)
def _lost() -> None:
    """Never returns: C++ would end the process at once."""
    if _peers is None:
        os.abort()
    _peers.lose_first()
    while True:
        time.sleep(LOST_S)
