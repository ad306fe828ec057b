"""What a training has left in its folder, read without JAX: how far it is, and how it ended."""

import json
from pathlib import Path
from typing import Any

FAILED = "failed.json"  # of a training that ended in numbers that are not finite


def saved_step(folder: Path) -> int | None:
    """The step of the state that a stage goes on from; None where there is none.

    Args:
      folder: ``fold_<k>/<stage>``.
    """
    # A step has its plain number as name once Orbax has written all of it.
    names = (p.name for p in (folder / "checkpoints" / "latest").glob("*"))
    return max((int(name) for name in names if name.isdigit()), default=None)


def saved_record(folder: Path) -> dict[str, Any]:
    """The loop's record beside that state: ``wall_s``, ``best_loss``, ``best_step``; may be empty.

    Args:
      folder: ``fold_<k>/<stage>``.
    """
    step = saved_step(folder)
    path = folder / "checkpoints" / "latest" / str(step) / "record" / "metadata"
    try:
        found = json.loads(path.read_text())
    except (OSError, ValueError):  # there is none, or its training has just saved another one
        return {}
    return found if isinstance(found, dict) else {}
