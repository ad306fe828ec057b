"""Progress on a terminal as a bar, elsewhere as plain lines (logs, CI, batch queues).

Of several processes the first alone speaks.
"""

import sys
import time

import tqdm

from mskjax import roles

LINE_EVERY_S = 20.0


def say(text: str) -> None:
    """One line of news; safe beside a bar."""
    if roles.is_first():
        tqdm.tqdm.write(text, file=sys.stdout)
        sys.stdout.flush()


def duration(seconds: float) -> str:
    """Seconds in the units a reader thinks in: ``1 h 12 min``, ``3 min 5 s``, ``4.2 s``."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    return f"{minutes // 60} h {minutes % 60} min"


class Progress:
    """Counts towards a total.

    Args:
      title: e.g. ``fold 0 regions``.
      total: number of units.
      done: units done before (a resumed run).
    """

    def __init__(self, title: str, total: int, done: int = 0):
        self._title, self._total, self._done, self._note = title, total, done, ""
        self._started = self._told = time.monotonic()
        self._first = done
        self._bar = (
            tqdm.tqdm(total=total, initial=done, desc=title, leave=False)
            if sys.stderr.isatty() and roles.is_first()
            else None
        )

    def advance(self, note: str = "") -> None:
        """One unit done; `note` (e.g. the loss) replaces the last one where given."""
        self._done += 1
        self._note = note or self._note
        if self._bar is not None:
            self._bar.update()
            if note:
                self._bar.set_postfix_str(note, refresh=False)
        elif time.monotonic() - self._told > LINE_EVERY_S:
            self._tell()

    def close(self) -> None:
        """Ends the bar, or writes the last line."""
        if self._bar is not None:
            self._bar.close()
        else:
            self._tell()

    def _tell(self) -> None:
        self._told = time.monotonic()
        rate = (self._done - self._first) / max(self._told - self._started, 1e-9)
        say(f"{self._title}: {self._done}/{self._total}, {rate:.2f}/s {self._note}".rstrip())
