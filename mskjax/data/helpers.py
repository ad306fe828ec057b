"""Further processes that cut examples, where cutting takes long enough to be worth their start.

A helper is given what cuts and a folder of shards, claims shards as any process does and ends when
there is none left, or with the process that started it, however that ended.  What a helper fails at
is left for its starter, who then meets the same error, or cuts it alone.
"""

import contextlib
import os
import pickle
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from tfds_builders.crew import workers


@contextlib.contextmanager
def helping(work: Callable[[], Any]) -> Iterator[int]:
    """Runs `work` in `crew.workers` - 1 further processes beside what the block does.

    Args:
      work: can be pickled; otherwise nobody helps.

    Yields:
      How many help.
    """
    try:
        content = pickle.dumps(work)
    except (pickle.PicklingError, AttributeError, TypeError):  # of a system of a user's own
        yield 0
        return
    processes = [_started(content) for _ in range(workers() - 1)]
    try:
        yield len(processes)
    finally:
        for process in processes:
            process.kill()
        for process in processes:
            process.wait()
            assert process.stdin is not None
            with contextlib.suppress(BrokenPipeError):
                process.stdin.close()


def _started(content: bytes) -> subprocess.Popen:
    path = os.pathsep.join(str(Path(p).absolute()) for p in sys.path)
    one = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    # Cutting needs no device, and must take none from training.
    env = {**one, **os.environ, "PYTHONPATH": path, "JAX_PLATFORMS": "cpu"}
    command = [sys.executable, "-m", "mskjax.data.helpers"]
    process = subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=env,
    )
    assert process.stdin is not None
    with contextlib.suppress(BrokenPipeError):
        process.stdin.write(content)
        process.stdin.flush()  # and stays open: its end says that we have ended
    return process


def _main() -> None:
    work = pickle.load(sys.stdin.buffer)
    threading.Thread(target=_end_with_the_starter, daemon=True).start()
    work()


def _end_with_the_starter() -> None:
    sys.stdin.buffer.read()
    os._exit(0)


if __name__ == "__main__":
    _main()
