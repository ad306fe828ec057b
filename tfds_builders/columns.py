"""Values of columns, and what the users' own studies.csv have in common, whatever the cohort."""

import dataclasses
import math
import os
import re
import unicodedata
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mskjax.errors import UserError, note
from mskjax.imaging import headers
from mskjax.imaging.limits import PIXEL_MM
from mskjax.imaging.volume import Volume
from tfds_builders.ids import CHECKED, check_spellings
from tfds_builders.raw import Example, Ledger, RawStudy
from tfds_builders.tables import Row, TableRow, read_known

_SAME_SIZE = 0.01  # sizes are written with two or three digits
SUBSETS = ("training", "validation")


@dataclasses.dataclass(frozen=True)
class Metadata:
    """What is known of a study beside images and grades; ages in years, fields in tesla."""

    sex: str = ""
    age: float = math.nan
    manufacturer: str = ""
    field_strength_t: float = math.nan
    subset: str = ""


def read_studies(
    folder: Path, required: Sequence[str], optional: Sequence[str], ledger: Ledger
) -> list[TableRow]:
    """The rows of studies.csv; one person under several ids is a bad case.

    Args:
      folder: of the raw files.
      required: columns that must be there.
      optional: columns that may be there, beside `ids.CHECKED`.
      ledger: takes faults.
    """
    rows = read_known(folder / "studies.csv", required, (*optional, CHECKED), ledger)
    for column in ("patient_id", "study_id"):
        check_spellings(rows, column, ledger)
    return rows


def shared_part(study: RawStudy, metadata: Metadata) -> Example:
    """What the examples of all cohorts have beside images and labels: ids and metadata."""
    return {
        "patient_id": study.patient_id,
        "study_id": study.study_id,
        **dataclasses.asdict(metadata),
    }


def whole(row: Row, column: str, low: int, high: int) -> int:
    """A whole number of a row; ``2.0``, as spreadsheets write it, counts as whole.

    Raises:
      UserError: not a whole number from `low` to `high`.
    """
    text = row[column]
    value = _parse(row, text)
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
    value = _parse(row, text)
    if value is None or not low <= value <= high:
        comma = " with a decimal point" if re.fullmatch(r"[+-]?\d+,\d+", text) else ""
        raise UserError(f"{column} is {text!r}; it must be a number{comma}, {low:g} to {high:g}.")
    return value


def pixel_size(row: Row, column: str) -> float:
    """Size of a pixel, mm; NaN where the column or its value is missing.

    Raises:
      UserError: no size that a scanner makes.
    """
    return number(row, column, *PIXEL_MM)


def note_pixel_size(given: float, image: Volume) -> None:
    """Notes that a pixel size of a table is not that of the image, which says its own.

    Args:
      given: mm; NaN where the table says nothing.
      image: as read, whose format may or may not store a pixel size.
    """
    known = image.spacing
    if not math.isnan(given) and not np.isclose(known, given, rtol=_SAME_SIZE).any():
        note(
            image.meta["files"][0],
            "the pixel size of the table is not that of the file, which is used",
            f"{given:g} mm; voxels of {' x '.join(f'{mm:.3g}' for mm in known)} mm",
        )


def choice(row: Row, column: str, allowed: Collection[str]) -> str:
    """One of a few words; empty where the column or its value is missing.

    Raises:
      UserError: another word.
    """
    text = row.get(column, "")
    if text and text not in allowed:
        raise UserError(f"{column} is {text!r}; it must be {', '.join(allowed)} or empty.")
    return text


def among(*allowed: str) -> Callable[[Row, str], str]:
    """`choice` with its words given beforehand."""
    return lambda row, column: choice(row, column, allowed)


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
    if column == "sex":
        value, _ = headers.sex(value)
    if not patient or (column == "sex" and not value):
        return
    first = known.setdefault((patient, column), value)
    if first != value:
        raise UserError(
            f"patient {patient!r} has {column} {first!r} and {value!r}; a patient has one."
        )


def absence(row: Row, column: str, folder: Path) -> str:
    """Why the file or folder of a column of studies.csv cannot be read; empty where it is there."""
    study, path = row["study_id"], folder / row[column]
    if not row[column]:
        return f"study {study!r} has no {column}; fill in its path or remove the row."
    if not os.path.exists(path):  # unlike `Path.exists`, of a name that no file can have as well
        near = _namesake(folder, row[column])
        advice = f"did you mean {near}?" if near else "check the path."
        return f"the {column} of study {study!r}, {path}, does not exist; {advice}"
    return ""


def _namesake(folder: Path, written: str) -> str:
    """The file that is there and meant, as far as case, Unicode form and backslashes can tell."""
    found = folder
    for part in Path(written.replace("\\", "/")).parts:
        there = sorted(os.listdir(found)) if found.is_dir() and os.access(found, os.R_OK) else []
        same = [name for name in there if _alike(name) == _alike(part)]
        if not same:
            return ""
        found /= same[0]
    return found.relative_to(folder).as_posix()


def _alike(name: str) -> str:
    return unicodedata.normalize("NFC", name.strip()).casefold()


def metadata(row: Row, volume: Volume) -> Metadata:
    """The optional columns of studies.csv, and what the image's header says where they are empty.

    None of it is needed to read an image, so a value that cannot be understood is missing, with a
    note; only the subset must be right.

    Raises:
      UserError: the subset is unknown.
    """
    meta = volume.meta
    return Metadata(
        sex=lenient(row, "sex", headers.sex) or str(meta.get("sex", "")),
        age=_first(lenient(row, "age", headers.age_years), meta.get("age")),
        manufacturer=row.get("manufacturer") or str(meta.get("manufacturer") or ""),
        field_strength_t=_first(
            lenient(row, "field_strength_t", headers.field_strength_t),
            meta.get("field_strength_t"),
        ),
        subset=choice(row, "subset", SUBSETS),
    )


def lenient(row: Row, column: str, read: Callable[[object], tuple[Any, str]]) -> Any:
    """A value that is missing where it cannot be understood; the reason is a note.

    Args:
      row: of a table; the column may be missing.
      column: that is read.
      read: text to value and remark, see `mskjax.imaging.headers`.
    """
    text = row.get(column, "")
    value, remark = read(text)
    if remark:
        note(getattr(row, "where", column), remark, text)
    return value


def _first(value: float, other: float | None) -> float:
    return value if not math.isnan(value) or other is None else float(other)


def _parse(row: Row, text: str) -> float | None:
    if "," in text and not getattr(row, "decimal_comma", False):
        return None
    value = headers.number(text)
    return value if math.isfinite(value) else None
