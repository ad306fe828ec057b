"""Who works on what, where several processes, on several machines, share one folder.

A claim is a file that its process touches as long as it lives.  It spares work and guards nothing:
two processes that do the same write the same bytes, each under a name of its own, and rename them.
So a claim may be taken over on suspicion, and no clock or lock of a shared file system is trusted.
"""

import contextlib
import dataclasses
import json
import os
import threading
import time
from pathlib import Path

from mskjax.locks import Holder

STALE_S = 90.0  # many times what lies between two touches
TOUCH_S = 5.0


class Claims:
    """The claims of a process in a folder; as a context, they are touched until it ends.

    Args:
      folder: made if it is missing.
    """

    def __init__(self, folder: Path):
        self._folder = folder
        self._mine: set[Path] = set()
        self._over = threading.Event()
        # Age is measured by our own clock, from when a change was seen.
        self._seen: dict[Path, tuple[int, float]] = {}
        folder.mkdir(parents=True, exist_ok=True)

    def __enter__(self) -> "Claims":
        threading.Thread(target=self._touch, daemon=True).start()
        return self

    def __exit__(self, *unused: object) -> None:
        self._over.set()
        for path in list(self._mine):
            with contextlib.suppress(OSError):
                self.release(path.name)

    def take(self, name: str) -> bool:
        """Whether this process may work on `name`: nobody does, or who did has ended."""
        path = self._folder / name
        if path in self._mine:
            return True
        content = json.dumps(dataclasses.asdict(Holder.here()))
        try:
            with path.open("x") as file:
                file.write(content)
        except FileExistsError:
            if self._is_live(path):
                return False
            path.write_text(content)
        self._mine.add(path)
        return True

    def holder(self, name: str) -> Holder | None:
        """Who works on `name`, where that can be read."""
        try:
            return Holder.of((self._folder / name).read_text())
        except OSError:
            return None

    def release(self, name: str) -> None:
        """Gives `name` free."""
        self._mine.discard(self._folder / name)
        (self._folder / name).unlink(missing_ok=True)

    def last_sign(self) -> float:
        """When a process last showed that it lives, by the file system's clock; 0 if none does."""
        found = 0.0
        for path in self._folder.iterdir():
            holder = self.holder(path.name)
            if holder is None or not holder.is_dead:
                with contextlib.suppress(OSError):
                    found = max(found, path.stat().st_mtime)
        return found

    def _is_live(self, path: Path) -> bool:
        try:
            changed = path.stat().st_mtime_ns
        except OSError:
            return False
        holder = self.holder(path.name)
        if holder is not None and holder.is_dead:
            return False
        now = time.monotonic()
        before, since = self._seen.get(path, (None, now))
        if before != changed:
            self._seen[path] = (changed, now)
            return True
        return now - since < STALE_S

    def _touch(self) -> None:
        """Shows now and then that this process lives."""
        while not self._over.wait(TOUCH_S):
            for path in list(self._mine):
                with contextlib.suppress(OSError):
                    os.utime(path)
