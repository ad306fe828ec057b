"""What became of a study after it was begun: trainings that were given more steps.

``history.json`` lies beside config.json, which has the steps of now (docs/going_on.md).
"""

import dataclasses
import datetime
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mskjax.writers import write_json

HISTORY = "history.json"


@dataclasses.dataclass(frozen=True)
class Extension:
    """More steps for a stage.

    Attributes:
      stage: its name.
      before: steps that it had.
      after: steps that it has.
      at: fold (``fold_<k>``, with the folders above it) -> step at which its training was then; 0
        where it had not begun, so that nothing was restarted.
      when: ISO 8601, UTC.
      anew: stages that are trained anew, since their examples are cut from what this one finds.
    """

    stage: str
    before: int
    after: int
    at: Mapping[str, int]
    when: str
    anew: Sequence[str] = ()

    def __str__(self) -> str:
        steps = sorted(set(self.at.values()))
        if len(steps) == 1:
            where = f"step {steps[0]}"
        else:
            where = f"steps {', '.join(f'{step} ({fold})' for fold, step in self.at.items())}"
        anew = f"; {', '.join(self.anew)} trained anew" if self.anew else ""
        return f"{self.stage}: extended from {self.before} to {self.after} steps at {where}{anew}"


def now() -> str:
    """The time as a history has it."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


def read(workdir: Path, steps: Mapping[str, Any]) -> list[Extension]:
    """The extensions of a run, in their order.

    Args:
      workdir: of the run.
      steps: stage -> steps of its config.json.  What goes beyond them was written by a command that
        ended before it changed anything, and is left out.
    """
    path = workdir / HISTORY
    if not path.exists():
        return []
    rows = json.loads(path.read_text())["extensions"]
    found = [
        Extension(r["stage"], r["from"], r["to"], r["at"], r["when"], tuple(r["anew"]))
        for r in rows
    ]
    return [e for e in found if e.after <= steps.get(e.stage, 0)]


def write(workdir: Path, extensions: Sequence[Extension]) -> None:
    """Writes history.json."""
    rows = [
        {
            "stage": e.stage,
            "from": e.before,
            "to": e.after,
            "at": dict(e.at),
            "when": e.when,
            "anew": list(e.anew),
        }
        for e in extensions
    ]
    write_json(workdir / HISTORY, {"extensions": rows})
