"""Labelled studies, read by one training or by several, as rows of cases.csv."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from mskjax import cases, roles, tables
from mskjax.applied import STUDIES_AT_ONCE
from mskjax.data.cohorts import Cohort
from mskjax.data.splits import Fold
from mskjax.progress import Progress
from mskjax.tables import Row
from mskjax.training import processes
from mskjax.training.stage import Study
from mskjax.two_stage.system import System


class Reader(Protocol):
    """What reads and scores: `applied.Applied` or `ensemble.Ensemble`."""

    @property
    def system(self) -> System:
        """Scores what was read."""

    @property
    def baselines(self) -> Mapping[str, Any]:
        """For `System.score`."""

    def read(self, studies: Sequence[Study], regions: str = "predicted") -> list[Any]:
        """What is found in each study."""


def rows_of_fold(
    fold: Reader,
    studies: Sequence[Study],
    seen: Callable[[Study, Any], None] = lambda study, reading: None,
) -> list[Row]:
    """Reads and scores labelled studies on predicted and on reference regions.

    Args:
      fold: trained.
      studies: a handful, so that what was read of them fits in memory.
      seen: is given each study and what was read of it, e.g. to draw it.

    Returns:
      Rows of cases.csv, without ``fold`` and ``seed``.
    """
    rows: list[Row] = []
    predicted, oracle = fold.read(studies), fold.read(studies, "reference")
    for study, ours, ideal in zip(studies, predicted, oracle, strict=True):
        rows += fold.system.score(study, ours, ideal, fold.baselines)
        seen(study, ours)
    return rows


def write_rows(
    fold: Reader,
    cohort: Cohort,
    numbers: Sequence[int],
    path: Path,
    who: Row,
    title: str,
    *,
    kept: Callable[[Row], bool] = lambda row: True,
    seen: Callable[[Study, Any], None] = lambda study, reading: None,
) -> None:
    """Reads studies of a cohort and writes their rows.

    Rows of the studies that are read lie in a file beside the table until all are: a process that
    ends before is not asked to read them again.

    Args:
      fold: trained.
      cohort: of the studies.
      numbers: of these studies.
      path: of the table.
      who: ``fold`` and ``seed`` of every row; of several seeds together the latter is empty.
      title: for the log.
      kept: whether a row belongs to the table.
      seen: see `rows_of_fold`.
    """
    partial = path.with_suffix(".part.jsonl")
    index, read = cohort.index, {row["study"] for row in tables.appended(partial)}
    processes.sync("begun")
    left = [i for i in numbers if index[i][1] not in read]
    progress = Progress(title, len(numbers), len(numbers) - len(left))
    for start in range(0, len(left), STUDIES_AT_ONCE):
        some = [cohort.studies[i] for i in left[start : start + STUDIES_AT_ONCE]]
        found = rows_of_fold(fold, some, seen)
        tables.append(partial, [{**who, **row} for row in found if kept(row)])
        for _ in some:
            progress.advance()
    progress.close()
    if roles.is_first():
        cases.write(path, tables.appended(partial))
    processes.sync("evaluated")
    if roles.is_first():
        partial.unlink(missing_ok=True)


def is_of(row: Row, fold: Fold, part: str) -> bool:
    """Whether a row is of a part of a fold, which of a division by case not all of a study are."""
    case = row.get("case")
    return fold.cases is None or not case or fold.cases.get(case) == part
