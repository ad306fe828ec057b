"""The two ways a run ends early on purpose; everything else that escapes is a defect."""

from collections.abc import Iterable, Sequence

EXIT_DONE = 0
EXIT_DEFECT = 1
EXIT_USER = 2
EXIT_PREEMPTED = 75  # EX_TEMPFAIL of sysexits.h: run the same command again.


class UserError(Exception):
    """The user's input is wrong: one sentence that says what, where and what to do.

    The commands print the message without a traceback and exit with code 2.
    """


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


class Preempted(Exception):
    """A termination signal arrived and the state was saved; the same command continues."""
