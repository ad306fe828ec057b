"""Which studies a report shows, the worst first, and what is wrong in each.

A call next to the reference grade is no failure: readers differ by as much.  Failures are a grade
that is two or more off, a wrong class of a grading without order, and a region that was missed.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from mskjax.metrics.grading import Grading
from mskjax.tables import Row

SHOWN = 12  # in the page; all are in the run's folders
_WORST = 8  # of these at most, where there are doubtful references to show as well


class System(Protocol):
    """What is asked of a system, see `reporting.summary.System`."""

    gradings: tuple[Grading, ...]

    def facts(self, rows: Sequence[Row]) -> list[tuple[str, str]]:
        """(name, text) beside the picture of a study, from its rows of cases.csv."""


def gallery(
    workdir: Path, system: System, rows: Sequence[Row], doubted: Sequence[str]
) -> list[dict[str, Any]]:
    """``path``, ``caption``, ``failure`` and ``facts`` of the pictures of a page.

    Args:
      workdir: of a study; a picture that is not there is left out.
      system: of the study.
      rows: of cases.csv.
      doubted: studies with doubtful references, which tables of the page point to.
    """
    studies: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        studies[row["study"]].append(row)
    grading = system.gradings[0] if system.gradings else None
    sizes = {name: [error(r, grading) for r in own] for name, own in studies.items()}
    failures = {name: sum(is_failure(e, grading) for e in own) for name, own in sizes.items()}
    order = sorted(studies, key=lambda s: (-failures[s], -sum(sizes[s]), s))
    there = {s: path for s in order if (path := _picture(workdir, s, studies[s])) is not None}
    wanted = dict.fromkeys(s for s in [*order[:_WORST], *doubted, *order] if s in there)
    chosen = sorted([*wanted][:SHOWN], key=order.index)
    pictures = []
    for name in chosen:
        own, wrong = studies[name], failures[name]
        caption = f"{name}, fold {own[0]['fold']}"
        if wrong:
            cases = len({r["case"] for r in own if r.get("case")})
            words = "off by two grades or missed" if grading and grading.ordinal else "wrong"
            caption += f": {wrong} of {cases} cases {words}" if cases > 1 else f": {words}"
        pictures.append(
            {
                "path": there[name],
                "caption": caption,
                "failure": bool(wrong),
                "facts": [list(fact) for fact in system.facts(own)],
            }
        )
    return pictures


def error(row: Mapping[str, Any], grading: Grading | None) -> int:
    """How far off a row's call is: grades, 1 for a wrong class, more than any for a missed region.

    Args:
      row: of cases.csv.
      grading: by which it is judged; None takes the row's own ``wrong``.
    """
    reference = row.get(f"reference_{grading.task}") if grading else ""
    if grading is None or not reference:
        return int(row.get("wrong") == "1") if grading is None else 0
    call = row.get(f"call_{grading.task}")
    if not call:
        return grading.missed
    distance = abs(grading.classes.index(call) - grading.classes.index(reference))
    return distance if grading.ordinal else int(distance > 0)


def is_failure(size: int, grading: Grading | None) -> bool:
    """Whether an `error` is one that readers would not make."""
    return size > (1 if grading and grading.ordinal else 0)


def _picture(workdir: Path, study: str, rows: Sequence[Row]) -> str | None:
    path = f"fold_{rows[0]['fold']}/pictures/{study}.png"
    return path if (workdir / path).exists() else None
