"""Reading the tables that come with a cohort: every fault names file, line and column.

The second half is what the users' own studies.csv have in common, whatever the cohort.
"""

import csv
import dataclasses
import math
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path

from mskjax.errors import UserError
from mskjax.imaging.volume import Volume
from tfds_builders.raw import Ledger

Row = Mapping[str, str]

SEXES = ("M", "F")
SUBSETS = ("training", "validation")
_FILE_NAME = re.compile(r"[\w.+-]+")


@dataclasses.dataclass(frozen=True)
class Metadata:
    """What is known of a study beside images and grades; ages in years, fields in tesla."""

    sex: str = ""
    age: float = math.nan
    manufacturer: str = ""
    field_strength_t: float = math.nan
    subset: str = ""


def read_table(path: Path, required: Sequence[str]) -> list[dict[str, str]]:
    """Rows of a comma-separated table with a header.

    Args:
      path: UTF-8 file, with or without a byte order mark.
      required: columns that must be there.

    Returns:
      One dict a row, column to text; names and values are stripped of outer blanks.  Blank lines
      are skipped.

    Raises:
      UserError: the file is missing, not such a table, lacks a column, or has no row.
    """
    if not path.is_file():
        raise UserError(f"{path} is missing; it needs the columns {', '.join(required)}.")
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            lines = list(csv.reader(file, strict=True))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(
            f"{path} cannot be read as a comma-separated UTF-8 table ({error}); export it again."
        ) from None
    header = [name.strip() for name in lines[0]] if lines else []
    missing = [name for name in required if name not in header]
    if missing:
        raise UserError(
            f"{path} lacks the column {', '.join(missing)}; it has {', '.join(header) or 'none'}."
        )
    repeated = sorted({name for name in header if header.count(name) > 1})
    if repeated:
        raise UserError(f"{path} has the column {', '.join(repeated)} twice; remove one.")
    rows = []
    for number, line in enumerate(lines[1:], start=2):
        if not any(value.strip() for value in line):
            continue
        if len(line) != len(header):
            raise UserError(
                f"{path}, line {number}, has {len(line)} values for {len(header)} columns; mend"
                " the line."
            )
        rows.append({name: value.strip() for name, value in zip(header, line, strict=True)})
    if not rows:
        raise UserError(f"{path} has a header but no rows; fill it in.")
    return rows


def read_known(
    path: Path, required: Sequence[str], optional: Sequence[str], ledger: Ledger
) -> list[dict[str, str]]:
    """Rows of a table of which every column is known; none where it is faulty.

    Args:
      path: as in `read_table`.
      required: columns that must be there.
      optional: columns that may be there.
      ledger: takes the fault, and a note on columns that are not read, so that a misspelt name is
        seen.
    """
    with ledger.collecting(path.name):
        rows = read_table(path, required)
        unread = [name for name in rows[0] if name not in (*required, *optional)]
        if unread:
            ledger.notes.append(f"{path.name}: columns not used: {', '.join(unread)}")
        return rows
    return []


def whole(row: Row, column: str, low: int, high: int) -> int:
    """A whole number of a row; ``2.0``, as spreadsheets write it, counts as whole.

    Raises:
      UserError: not a whole number from `low` to `high`.
    """
    text = row[column]
    value = _parse(text)
    if not (value is not None and value.is_integer() and low <= value <= high):
        raise UserError(f"{column} is {text!r}; it must be a whole number, {low} to {high}.")
    return int(value)


def number(row: Row, column: str, low: float = 0.0, high: float = math.inf) -> float:
    """A number of a row; NaN where the column or its value is missing.

    Raises:
      UserError: not a number from `low` to `high`.
    """
    text = row.get(column, "")
    if not text:
        return math.nan
    value = _parse(text)
    if value is None or not low <= value <= high:
        raise UserError(f"{column} is {text!r}; it must be a number, {low:g} to {high:g}.")
    return value


def choice(row: Row, column: str, allowed: Collection[str]) -> str:
    """One of a few words; empty where the column or its value is missing.

    Raises:
      UserError: another word.
    """
    text = row.get(column, "")
    if text and text not in allowed:
        raise UserError(f"{column} is {text!r}; it must be {', '.join(allowed)} or empty.")
    return text


def check_ids(row: Row, seen: set[str]) -> None:
    """Whether a row of studies.csv names patient and study; `seen` takes the study's id.

    Raises:
      UserError: an id is empty, no file name, or occurs twice.
    """
    patient, study = row["patient_id"], row["study_id"]
    if not patient:
        raise UserError(f"study {study!r} has no patient_id; fill it in.")
    if not _FILE_NAME.fullmatch(study):
        raise UserError(
            f"study_id is {study!r}; it names files, so use letters, digits, '.', '_', '+', '-'."
        )
    if study in seen:
        raise UserError(f"study_id {study!r} occurs twice; give every study its own.")
    seen.add(study)


def check_subset(row: Row, subsets: dict[str, str]) -> None:
    """Whether all studies of a patient are in one subset; `subsets` takes the patient's.

    Raises:
      UserError: an unknown subset, or a second one.
    """
    patient, subset = row["patient_id"], choice(row, "subset", SUBSETS)
    if subsets.setdefault(patient, subset) != subset:
        raise UserError(
            f"patient {patient!r} is in subset {subsets[patient]!r} and {subset!r}; a patient must"
            " be on one side."
        )


def check_same(row: Row, column: str, known: dict[tuple[str, str], str]) -> None:
    """Whether all studies of a patient say the same; sex, but not subset, may be left out of some.

    Args:
      row: with patient_id; the column may be missing.
      column: of the patient's.
      known: takes what the patient's first study says.

    Raises:
      UserError: two studies differ.
    """
    patient, value = row["patient_id"], row.get(column, "")
    if not patient or (column == "sex" and not value):
        return
    first = known.setdefault((patient, column), value)
    if first != value:
        raise UserError(
            f"patient {patient!r} has {column} {first!r} and {value!r}; a patient has one."
        )


def among(*allowed: str) -> Callable[[Row, str], str]:
    """`choice` with its words given beforehand."""
    return lambda row, column: choice(row, column, allowed)


def known_study(row: Row, studies: Collection[str]) -> str:
    """The study that a row of another table is about.

    Args:
      row: with the column study_id.
      studies: ids of studies.csv; none are known where that table itself is faulty.

    Raises:
      UserError: the study is not among them.
    """
    study = row["study_id"]
    if studies and study not in studies:
        raise UserError(f"study_id {study!r} is not in studies.csv; add the study or remove this.")
    return study


def absence(row: Row, column: str, folder: Path) -> str:
    """Why the file that a column of studies.csv names cannot be read; empty where it is there."""
    study, path = row["study_id"], folder / row[column]
    if not row[column]:
        return f"study {study!r} has no {column}; fill in its path or remove the row."
    if not path.exists():
        return f"the {column} of study {study!r}, {path}, does not exist; check the path."
    return ""


def metadata(row: Row, volume: Volume) -> Metadata:
    """The optional columns of studies.csv; scanner and field of the DICOM header where absent.

    Raises:
      UserError: a value is not of its kind.
    """
    strength = number(row, "field_strength_t", 0, 30)
    if math.isnan(strength):
        strength = float(volume.meta.get("field_strength_t") or math.nan)
    return Metadata(
        sex=choice(row, "sex", SEXES),
        age=number(row, "age", 0, 130),
        manufacturer=row.get("manufacturer") or str(volume.meta.get("manufacturer") or ""),
        field_strength_t=strength,
        subset=choice(row, "subset", SUBSETS),
    )


def _parse(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None
