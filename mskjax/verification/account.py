"""What a verification says: a line a check, what differs below it, and the same as JSON."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mskjax import manifest
from mskjax.reporting.environment import environment
from mskjax.verification.checks import FAIL, NOT_CHECKED, PASS, Check

_SHOWN = 10  # differences of a check


def lines(check: Check) -> str:
    """A check in a line of a table, and the first of what differs below it."""
    told = [f"  {check.name:20} {check.result:12} {check.what}"]
    told += [f"    {difference}" for difference in check.found[:_SHOWN]]
    if len(check.found) > _SHOWN:
        told.append(f"    and {len(check.found) - _SHOWN} more; --output=DIR writes all of them")
    return "\n".join(told)


def verdict(checks: Sequence[Check]) -> str:
    """``PASS`` or ``FAIL``, with what it is true of."""
    failed = [check.name for check in checks if check.result == FAIL]
    if failed:
        return f"{FAIL}: {', '.join(failed)}"
    left = [check.name for check in checks if check.result == NOT_CHECKED]
    return f"{PASS}, not checked: {', '.join(left)}" if left else PASS


def failed(checks: Sequence[Check]) -> bool:
    """Whether anything differs."""
    return any(check.result == FAIL for check in checks)


def as_json(run: Path, checks: Sequence[Check]) -> dict[str, Any]:
    """The content of verify.json."""
    return {
        "result": FAIL if failed(checks) else PASS,
        "manifest_sha256": manifest.digest(run) if manifest.exists(run) else None,
        "environment": environment(),
        "checks": [
            {
                "name": check.name,
                "result": check.result,
                "what": check.what,
                "differences": [difference._asdict() for difference in check.found],
            }
            for check in checks
        ],
    }
