"""The two ways a run ends early on purpose, and what is worth knowing though it goes on.

Everything else that escapes is a defect.
"""

import warnings
from collections.abc import Iterable, Sequence
from pathlib import Path

EXIT_DONE = 0
EXIT_DEFECT = 1
EXIT_USER = 2
EXIT_SOME = 3  # some studies of many failed; the others are done
EXIT_PREEMPTED = 75  # EX_TEMPFAIL of sysexits.h: run the same command again.


class UserError(Exception):
    """The user's input is wrong: one sentence that says what, where and what to do.

    The commands print the message without a traceback and exit with code 2.
    """


class SomeFailed(Exception):
    """Some of many studies could not be read; results of the others are complete."""


class Diverged(UserError):
    """Training ended in numbers that are not finite: this recipe fails, another one may not."""


class BadCases(UserError):
    """Several cases are wrong; all are listed at once so that they are mended at once.

    Args:
      what: opening clause, e.g. ``"3 of 40 studies cannot be packaged"``.
      cases: (case id, reason) pairs.
    """

    def __init__(self, what: str, cases: Iterable[tuple[str, str]]):
        self.cases: Sequence[tuple[str, str]] = tuple(cases)
        lines = [f"  {name}: {why}" for name, why in self.cases]
        super().__init__("\n".join([what + ":", *lines]))


class Preempted(BaseException):
    """A termination signal arrived; the same command goes on from what is complete.

    It may arrive anywhere, so it is no `Exception`: what catches the faults of a file must not take
    it for one.
    """


class FileNote(UserWarning):
    """Something about a file that its user should know, though the file is read.

    Readers emit it with `note`; whoever reads many files collects the notes and says each once,
    with the files that it is true of.

    Args:
      file: the file or folder.
      what: a clause that is the same for all files of its kind, e.g. ``"has no preamble"``.
      detail: what differs from file to file, e.g. the two numbers that do not agree.
    """

    def __init__(self, file: str | Path, what: str, detail: str = ""):
        self.file, self.what, self.detail = str(file), what, detail
        super().__init__(f"{file}: {what}{f' ({detail})' if detail else ''}")


def note(file: str | Path, what: str, detail: str = "") -> None:
    """Emits a `FileNote`."""
    warnings.warn(FileNote(file, what, detail), stacklevel=2)
