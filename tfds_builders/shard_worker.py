"""A process that packages shards for another one (`crew`), and ends with it.

Tasks come in on its standard input and news goes out on its standard output, as pickles.
"""

import os
import pickle
import queue
import signal
import sys
import threading
import traceback
from typing import Any, BinaryIO


def main() -> None:
    """Works until its input ends."""
    # Signals reach all processes of a terminal or a batch step; who gave the tasks decides.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    news = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # whatever a reader prints is no news
    tasks: queue.SimpleQueue[Any] = queue.SimpleQueue()
    threading.Thread(target=_listen, args=(sys.stdin.buffer, tasks), daemon=True).start()
    try:
        _work(tasks, news)
    except BrokenPipeError:
        os._exit(0)  # nobody is there to be told; `_listen` may hear of it later
    except BaseException as error:
        error.add_note(f"In a worker:\n{traceback.format_exc()}")
        _send(news, _sendable(error))


def _work(tasks: queue.SimpleQueue, news: BinaryIO) -> None:
    from tfds_builders.crew import Spec
    from tfds_builders.shards import Packer

    spec: Spec = tasks.get()
    packer = Packer(spec.builder())
    _send(news, [s.study_id for s in packer.studies] == list(spec.studies))
    while True:
        shard, checking = tasks.get()
        bad = packer.package(spec.layout, shard, checking, lambda study: _send(news, study))
        _send(news, (shard, bad))


def _listen(source: BinaryIO, tasks: queue.SimpleQueue) -> None:
    """Hands tasks on; ends the process at once when nobody can give any more."""
    while True:
        try:
            tasks.put(pickle.load(source))
        except (EOFError, OSError, pickle.UnpicklingError):
            os._exit(0)


def _sendable(error: BaseException) -> BaseException:
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        return RuntimeError("\n".join([repr(error), *error.__notes__]))
    return error


def _send(news: BinaryIO, content: Any) -> None:
    pickle.dump(content, news)
    news.flush()


if __name__ == "__main__":
    main()
