"""How the processes of a run find each other, before JAX does.

The first one listens until all have come.  So whoever is missing can be named, and processes that
were started with different configs or versions are refused before anything is done together.
"""

import contextlib
import errno
import json
import socket
import time
from collections.abc import Mapping
from typing import Any

from mskjax.config import differences
from mskjax.errors import UserError
from mskjax.progress import duration
from mskjax.training.clusters import COORDINATOR, Cluster

_PORT_S = 60.0  # for the processes of a run before this one to let go of the port
_GREETING_S = 10.0  # who is one of us speaks at once
_LONGEST = 2**22  # bytes of a line
_NAMED = 5  # differences in a message
_WORDS = "{} is {!r} there and {!r} here"


def meet(cluster: Cluster, identity: Mapping[str, Any], timeout_s: float) -> list[str]:
    """Waits for all processes.

    Args:
      cluster: this process's.
      identity: JSON: what must be the same in all of them.
      timeout_s: how long the last one may take.

    Returns:
      The host name of each process.

    Raises:
      UserError: in all that have come: one is missing, two have one number, or one was started
        differently; or the first one cannot listen or be reached.
    """
    greeting = {
        "count": cluster.count,
        "index": cluster.index,
        "host": socket.gethostname(),
        "identity": json.loads(json.dumps(identity)),
    }
    end = time.monotonic() + timeout_s
    answer = (_Host if cluster.index == 0 else _Guest)(cluster, greeting).meet(end, timeout_s)
    if "error" in answer:
        raise UserError(answer["error"])
    return answer["hosts"]


class _Host:
    """The first process: listens, compares, answers all alike."""

    def __init__(self, cluster: Cluster, greeting: dict[str, Any]):
        self._cluster, self._greeting = cluster, greeting
        self._come: dict[int, tuple[socket.socket, dict[str, Any]]] = {}

    def meet(self, end: float, timeout_s: float) -> dict[str, Any]:
        with contextlib.ExitStack() as stack:
            server = stack.enter_context(self._server())
            error = None
            while error is None and len(self._come) < self._cluster.count - 1:
                server.settimeout(max(end - time.monotonic(), 0.01))
                try:
                    guest, _ = server.accept()
                except TimeoutError:
                    error = self._about_missing(timeout_s)
                else:
                    stack.enter_context(guest)
                    error = self._receive(guest)
                    # Who died while it waited comes again, perhaps after all the others.
                    waiting = {i: one for i, one in self._come.items() if _is_open(one[0])}
                    self._come = self._come if error else waiting
            hosts = [
                self._greeting["host"],
                *(self._come[i][1]["host"] for i in sorted(self._come)),
            ]
            answer = {"error": error} if error else {"hosts": hosts}
            for guest, _ in self._come.values():
                with contextlib.suppress(OSError):
                    _send(guest, answer)
                    guest.settimeout(_GREETING_S)
                    guest.recv(1)  # it closes first: its end of the connection may linger
        return answer

    def _server(self) -> socket.socket:
        port = int(self._cluster.address.rpartition(":")[2])
        both = socket.has_dualstack_ipv6()
        family = socket.AF_INET6 if both else socket.AF_INET
        end = time.monotonic() + _PORT_S
        while True:
            try:
                return socket.create_server(
                    ("", port), family=family, backlog=self._cluster.count, dualstack_ipv6=both
                )
            except OSError as error:
                if error.errno != errno.EADDRINUSE or time.monotonic() > end:
                    raise UserError(
                        f"port {port} of {self._greeting['host']} cannot be listened on"
                        f" ({error.strerror}); give another one as {COORDINATOR}, or as"
                        " JAX_COORDINATOR_PORT where the launcher gives the host."
                    ) from None
            time.sleep(0.2)

    def _receive(self, guest: socket.socket) -> str | None:
        """Takes in a guest; what is wrong with it, if anything is."""
        theirs = _receive(guest, _GREETING_S)
        if theirs is None or "identity" not in theirs:
            return None  # none of us
        index, count = theirs["index"], theirs["count"]
        before = self._come.get(index)
        self._come[index] = (guest, theirs)
        if count != self._cluster.count:
            return (
                f"process {index} on {theirs['host']} takes itself for one of {count}, process 0"
                f" on {self._greeting['host']} for one of {self._cluster.count}; start all alike."
            )
        if before is not None and _is_open(before[0]):
            self._come[-1] = before  # for it to be answered
            return (
                f"two processes have the number {index}, on {before[1]['host']} and on"
                f" {theirs['host']}; number them from 0 to {count - 1}."
            )
        ours = self._greeting["identity"]
        changed = [each.lstrip(".") for each in differences(theirs["identity"], ours, "", _WORDS)]
        if not changed:
            return None
        more = f"; and {len(changed) - _NAMED} more" if len(changed) > _NAMED else ""
        return (
            f"process {index} on {theirs['host']} was started differently from process 0 on"
            f" {self._greeting['host']}: {'; '.join(changed[:_NAMED])}{more}; start all processes"
            " with the same command and the same versions."
        )

    def _about_missing(self, timeout_s: float) -> str:
        missing = [str(i) for i in range(1, self._cluster.count) if i not in self._come]
        return (
            f"{len(missing)} of {self._cluster.count} processes did not come to"
            f" {self._cluster.address} within {duration(timeout_s)}: number {', '.join(missing)};"
            " look into what they said, and start all again."
        )


class _Guest:
    """Another process: greets the first one as soon as that listens."""

    def __init__(self, cluster: Cluster, greeting: dict[str, Any]):
        self._cluster, self._greeting = cluster, greeting

    def meet(self, end: float, timeout_s: float) -> dict[str, Any]:
        host, _, port = self._cluster.address.rpartition(":")
        while (left := end - time.monotonic()) > 0:
            with contextlib.suppress(OSError):
                with socket.create_connection((host.strip("[]"), int(port)), _GREETING_S) as first:
                    _send(first, self._greeting)
                    answer = _receive(first, left + _GREETING_S)
                if answer is not None:
                    return answer
            time.sleep(0.2)  # it does not listen yet, or still to a run before this one
        raise UserError(
            f"process {self._cluster.index} on {self._greeting['host']} did not reach process 0 at"
            f" {self._cluster.address} within {duration(timeout_s)}; look into what that one said,"
            " and whether this machine may connect to it."
        )


def _send(connection: socket.socket, content: Any) -> None:
    connection.sendall(json.dumps(content).encode() + b"\n")


def _receive(connection: socket.socket, timeout_s: float) -> dict[str, Any] | None:
    """A line of JSON; None if something else came, or nothing."""
    connection.settimeout(timeout_s)
    try:
        with connection.makefile("rb") as file:
            content = json.loads(file.readline(_LONGEST))
    except (OSError, ValueError):
        return None
    return content if isinstance(content, dict) else None


def _is_open(connection: socket.socket) -> bool:
    """Whether who is at the other end still waits there."""
    connection.setblocking(False)
    try:
        return bool(connection.recv(1))
    except BlockingIOError:
        return True
    except OSError:
        return False
