"""``summary.csv``: a row per study and region, over all studies of a call."""

from collections.abc import Iterable, Mapping
from pathlib import Path

from mskjax.results.result import DISCLAIMER, Grade, Region, Result
from mskjax.tables import Row, write_rows

COLUMNS = (
    "study", "status", "reason", "region", "level", "score", "i0", "j0", "k0", "i1", "j1", "k1",
    "flags", "note", "disclaimer",
)  # fmt: skip
DONE, REFUSED = "done", "refused"


def write_summary(path: Path, results: Iterable[Result], refused: Mapping[str, str]) -> None:
    """Writes the table; it appears under its name only when complete.

    Args:
      path: of the file.
      results: studies that were read, in the order of the table; without images will do.
      refused: study -> why it was not read.
    """
    rows = [row for result in results for row in rows_of(result)]
    rows += [{"study": study, "status": REFUSED, "reason": why} for study, why in refused.items()]
    found = dict.fromkeys(column for row in rows for column in row)
    columns = [*COLUMNS, *(c for c in found if c not in COLUMNS)]
    said = [{**row, "disclaimer": DISCLAIMER} for row in rows]
    write_rows(path, [{column: row.get(column, "") for column in columns} for row in said])


def rows_of(result: Result) -> list[Row]:
    """Rows of a study: one for each region, or one for a study without regions."""
    volumes = {f"volume_ml_{name}": value for name, value in result.volumes_ml.items()}
    flags = " ".join(dict.fromkeys(flag.kind for flag in result.flags))
    study = {"study": result.study, "status": DONE, "flags": flags}
    return [{**study, **_of_region(region), **volumes} for region in result.regions or [Region("")]]


def _of_region(region: Region) -> Row:
    row: Row = {"region": region.name, "level": region.level, "score": region.score}
    if region.box is not None:
        row |= dict(zip(("i0", "j0", "k0"), region.box.start, strict=True))
        row |= dict(zip(("i1", "j1", "k1"), region.box.stop, strict=True))
    row["note"] = region.note
    for grade in region.grades:
        row |= _of_grade(grade)
    return row


def _of_grade(grade: Grade) -> Row:
    task = grade.task
    row: Row = {f"call_{task}": grade.call}
    row |= {f"p_{task}_{name}": p for name, p in grade.probabilities.items()}
    if grade.prediction_set is not None:
        row[f"set_{task}"] = " ".join(grade.prediction_set) or "empty"
    if grade.agreement is not None:
        row[f"agreement_{task}"] = grade.agreement
    return row
