"""What two tables, or two trees of JSON, differ in, cell by cell and number by number."""

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from mskjax.metrics.grading import Grading
from mskjax.tables import Row
from mskjax.verification.tolerances import FIGURE, Tolerance

MISSING = "missing"
_NAMED_BY = ("study", "kind", "name", "case", "method")  # of a row; more of one name stand in order


class Difference(NamedTuple):
    """One thing that is not what it was.

    Attributes:
      file: below the run's folder.
      where: row, field or patient; empty where it is the file.
      then: what the run says.
      now: what is found.
    """

    file: str
    where: str
    then: str
    now: str

    def __str__(self) -> str:
        place = f"{self.file}, {self.where}" if self.where else self.file
        return f"{place}: then {self.then}, now {self.now}"


def of_rows(
    file: str,
    then: Sequence[Row],
    now: Sequence[Row],
    tolerance: Tolerance,
    gradings: Sequence[Grading] = (),
) -> list[Difference]:
    """What differs between two tables of cases.csv.

    Args:
      file: of the first one.
      then: rows as they were written.
      now: rows that were computed again.
      tolerance: of numbers.
      gradings: of the system; a call of these may change where the probabilities of the classes
        are as good as equal.

    Returns:
      Rows that are missing or new, and cells; the place is ``row [...], column ...``.
    """
    old, new = _named(then), _named(now)
    found = []
    for name in [*old, *(n for n in new if n not in old)]:
        place = f"row [{', '.join(part for part in name if part)}]"
        if name not in new or name not in old:
            told = [("row" if name in side else MISSING) for side in (old, new)]
            found.append(Difference(file, place, *told))
            continue
        one, other = old[name], new[name]
        calls = _close_calls(one, other, tolerance, gradings)
        for column in dict.fromkeys([*one, *other]):
            a, b = one.get(column) or "", other.get(column) or ""
            if a != b and not (column in calls or _close(a, b, tolerance.of(column))):
                cells = (a or "empty", b or "empty")
                found.append(Difference(file, f"{place}, column {column}", *cells))
    return found


def of_json(file: str, then: Any, now: Any, tolerance: float = 0.0) -> list[Difference]:
    """What differs between two trees of JSON; the place is the path of fields.

    Args:
      file: of the first one.
      then: as it was written.
      now: as it is found.
      tolerance: of floating-point numbers, by their magnitude where it is above 1.
    """
    return list(_in_trees(file, "", then, now, tolerance))


def of_figures(file: str, then: Any, now: Any) -> list[Difference]:
    """As `of_json`, for what is computed from one table."""
    return of_json(file, then, now, FIGURE)


def numbers(tree: Any) -> int:
    """How many numbers a tree of JSON has."""
    if isinstance(tree, Mapping):
        return sum(map(numbers, tree.values()))
    if isinstance(tree, list):
        return sum(map(numbers, tree))
    return int(isinstance(tree, int | float) and not isinstance(tree, bool))


def _in_trees(file: str, path: str, then: Any, now: Any, tolerance: float) -> Iterator[Difference]:
    if isinstance(then, Mapping) and isinstance(now, Mapping):
        for name in dict.fromkeys([*then, *now]):
            inner = f"{path}.{name}" if path else str(name)
            if name in then and name in now:
                yield from _in_trees(file, inner, then[name], now[name], tolerance)
            else:
                told = [_told(side[name]) if name in side else MISSING for side in (then, now)]
                yield Difference(file, inner, *told)
    elif isinstance(then, list) and isinstance(now, list) and len(then) == len(now):
        for number, (one, other) in enumerate(zip(then, now, strict=True)):
            yield from _in_trees(file, f"{path}[{number}]", one, other, tolerance)
    elif not _equal(then, now, tolerance):
        yield Difference(file, path, _told(then), _told(now))


def _equal(one: Any, other: Any, tolerance: float) -> bool:
    if isinstance(one, float) and isinstance(other, float) and tolerance:
        return math.isclose(one, other, rel_tol=tolerance, abs_tol=tolerance)
    return type(one) is type(other) and one == other


def _told(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _named(rows: Sequence[Row]) -> dict[tuple[str, ...], Row]:
    """Rows by name; of several of one name each has its number."""
    found: dict[tuple[str, ...], Row] = {}
    times: Counter[tuple[str, ...]] = Counter()
    for row in rows:
        name = tuple(str(row.get(part) or "") for part in _NAMED_BY)
        times[name] += 1
        found[(*name, f"number {times[name]}" if times[name] > 1 else "")] = row
    return found


def _close(one: str, other: str, tolerance: float) -> bool:
    if not tolerance:
        return False
    try:
        return abs(float(one) - float(other)) <= tolerance
    except ValueError:
        return False


def _close_calls(
    then: Row, now: Row, tolerance: Tolerance, gradings: Sequence[Grading]
) -> set[str]:
    """The columns of calls that may differ, and ``wrong`` where one may."""
    columns = set()
    for grading in gradings if not tolerance.is_exact else ():
        name = f"call_{grading.task}"
        one, other = then.get(name), now.get(name)
        if one and other and one != other and _is_tie(then, one, other, tolerance, grading):
            columns |= {name, "wrong"}
    return columns


def _is_tie(row: Row, one: str, other: str, tolerance: Tolerance, grading: Grading) -> bool:
    """Whether a case lies, to the tolerance, between the two classes that it was called."""
    if not {one, other} <= {*grading.classes}:
        return False
    suffixes = [f"_{grading.task}_{name}" for name in grading.classes]
    method = next(
        (
            c.removesuffix(suffixes[0])
            for c in row
            if c.startswith("p_") and c.endswith(suffixes[0])
        ),
        None,
    )
    if method is None:
        return False
    p = [float(row.get(method + suffix) or "nan") for suffix in suffixes]
    first, last = sorted(map(grading.classes.index, (one, other)))
    if len(p) == 2:
        return abs(p[1] - 0.5) <= tolerance.probability
    if grading.ordinal:  # the expected class lies on each border that was crossed
        expected = math.fsum(k * own for k, own in enumerate(p))
        # The most that it moves while each probability moves by the tolerance and sums stay.
        reach = math.fsum(abs(k - (len(p) - 1) / 2) for k in range(len(p))) * tolerance.probability
        return all(abs(expected - k - 0.5) <= reach for k in range(first, last))
    return abs(p[first] - p[last]) <= tolerance.probability
