"""Lives of ``mskjax.main`` that end at a chosen moment; the product has no hook for it.

Run as a program it is a server: it imports everything once, and then forks a process for every
life, which saves the seconds of a start.  No process of jax has begun before the fork.
"""

import json
import os
import re
import signal
import subprocess
import sys
import threading
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


class Server:
    """Starts lives, one at a time.

    Args:
      log: file that gets what they print.
    """

    def __init__(self, log):
        self._log = log
        with log.open("a") as file:
            self._process = subprocess.Popen(
                [sys.executable, __file__],
                cwd=ROOT,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=file,
                text=True,
                env={**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path])},
            )
        self._process.stdout.readline()  # everything is imported

    def live(self, arguments, aim=None, after=None, by=signal.SIGKILL):
        """One life; its exit code, or minus the signal that ended it.

        Args:
          arguments: of ``mskjax.main``.
          aim: (what, pattern, n): it kills itself at the n-th time that it does `what` to something
            that matches: ``mkdir`` or ``rename`` a path, or ``call`` a function, by
            ``module:name``.
          after: seconds after which it gets a signal from outside.
          by: that signal.
        """
        self._process.stdin.write(json.dumps([arguments, aim]) + "\n")
        self._process.stdin.flush()
        child = int(self._process.stdout.readline())
        timer = None
        if after is not None:
            # The server reaps a child only after the line below was read: the id stays its own.
            timer = threading.Timer(after, os.kill, (child, by))
            timer.start()
        ended = json.loads(self._process.stdout.readline())
        if timer is not None:
            timer.cancel()
            timer.join()
        self._process.stdin.write("reap\n")
        self._process.stdin.flush()
        return ended

    def said(self):
        """All that they printed."""
        return self._log.read_text()

    def close(self):
        """Ends the server."""
        self._process.stdin.close()
        self._process.stdout.close()
        assert self._process.wait(timeout=60) == 0, self.said()


def _serve():
    """Reads lives from standard input until it ends."""
    import mskjax.main
    import mskjax.reading
    import mskjax.study

    mskjax.reading.STUDIES_AT_ONCE = 1  # so that a handful of studies is read in several calls
    print("ready", flush=True)
    for line in sys.stdin:
        arguments, aim = json.loads(line)
        child = os.fork()
        if not child:
            _live(mskjax.main.main, arguments, aim)
        print(child, flush=True)
        how = os.waitid(os.P_PID, child, os.WEXITED | os.WNOWAIT)
        killed = how.si_code != os.CLD_EXITED
        print(-how.si_status if killed else how.si_status, flush=True)
        sys.stdin.readline()
        os.waitpid(child, 0)


def _live(main, arguments, aim):
    """The child: never returns."""
    code = 1
    try:
        os.dup2(2, 1)
        if aim is not None:
            _take_aim(*aim)
        print("life:", aim, file=sys.stderr, flush=True)
        code = main(arguments)
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _take_aim(what, pattern, n):
    """Makes this process kill itself, see `Server.live`."""
    if what == "call":
        module, _, path = pattern.partition(":")
        __import__(module)
        *above, name = path.split(".")
        owner = sys.modules[module]
        for part in above:
            owner = getattr(owner, part)
        _kill_in(owner, name, lambda *_: True, n)
        return
    for name in {"mkdir": ("mkdir",), "rename": ("rename", "replace")}[what]:
        _kill_in(os, name, lambda path, *_: bool(re.search(pattern, os.fspath(path))), n)


def _kill_in(owner, name, meant, n):
    """SIGKILL instead of the n-th call of a function that is meant."""
    inner, left = getattr(owner, name), [n]

    def fatal(*arguments, **options):
        if meant(*arguments):
            left[0] -= 1
            if not left[0]:
                print(f"killed in {name} {arguments[:1]}", file=sys.stderr, flush=True)
                os.kill(os.getpid(), signal.SIGKILL)
        return inner(*arguments, **options)

    setattr(owner, name, fatal)


if __name__ == "__main__":
    _serve()
