"""SPIDER's conventions: gradings by level, its two tables, and the labels of its masks.

van der Graaf et al., Lumbar spine segmentation in MR images: a dataset and a public benchmark,
Scientific Data 11:264 (2024).
"""

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mskjax.errors import UserError
from mskjax.imaging import headers
from tfds_builders.columns import SUBSETS, Metadata, choice, lenient, whole
from tfds_builders.ids import check_names, check_table
from tfds_builders.raw import Ledger
from tfds_builders.tables import Row, TableRow, read_table

CITATION = (
    "van der Graaf et al., Lumbar spine segmentation in MR images: a dataset and a public"
    " benchmark, Scientific Data 11:264 (2024), Zenodo record 10159290"
)
LICENCE = "CC BY 4.0"
ARCHIVE = "https://zenodo.org/records/10159290"
MISSING = -1
HIGHEST_LEVEL = 25
# Lowest and highest grade of each grading.  SPIDER grades all but Pfirrmann and Modic as absent or
# present; narrowing and spondylolisthesis leave room for SpineNet's finer scales.
GRADES: Mapping[str, tuple[int, int]] = {
    "pfirrmann": (1, 5),
    "modic": (0, 3),
    "narrowing": (0, 3),
    "bulging": (0, 1),
    "herniation": (0, 1),
    "spondylolisthesis": (0, 2),
    "upper_endplate": (0, 1),
    "lower_endplate": (0, 1),
}
# The archive's own spelling.
LEVEL = "IVD label"
GRADING_COLUMNS = {
    "pfirrmann": "Pfirrman grade",
    "modic": "Modic",
    "narrowing": "Disc narrowing",
    "bulging": "Disc bulging",
    "herniation": "Disc herniation",
    "spondylolisthesis": "Spondylolisthesis",
    "upper_endplate": "UP endplate",
    "lower_endplate": "LOW endplate",
}
INSTANCE_CANAL = 100
_INSTANCE_LABELS = {0, *range(1, 26), INSTANCE_CANAL, *range(101, 126), *range(201, 226)}
_GRADINGS = "radiological_gradings.csv"
_DISC = 200  # label of the disc of level k: 200 + k

Grading = dict[str, int]  # level and grades of one disc


def parse_grading(row: Row, level_column: str, columns: Mapping[str, str]) -> Grading:
    """One row of a table of gradings.

    Args:
      row: of the table.
      level_column: holds the level, counted from the lowest disc, which is 1.
      columns: grading to column; a grading without a column or with an empty value is missing.

    Raises:
      UserError: a level or grade is not a whole number of its range.
    """
    grading = {"level": whole(row, level_column, 1, HIGHEST_LEVEL)}
    for name, (low, high) in GRADES.items():
        column = columns.get(name, "")
        grading[name] = whole(row, column, low, high) if row.get(column) else MISSING
    return grading


class SpiderTables:
    """overview.csv and radiological_gradings.csv.

    Args:
      folder: holds the two.
      ledger: takes faults and exclusions.

    Attributes:
      files: the tables that are there.
      gradings: patient to the gradings of their discs.
      overview: series (``<patient>_<t1|t2|t2_SPACE>``) to its row.
    """

    def __init__(self, folder: Path, ledger: Ledger):
        overview, gradings = folder / "overview.csv", folder / _GRADINGS
        self.files = tuple(p for p in (overview, gradings) if p.is_file())
        self._ledger = ledger
        self.gradings: Mapping[str, list[Grading]] = {}
        self.overview: Mapping[str, Row] = {}
        with ledger.collecting(overview.name):
            rows = read_table(overview, ["new_file_name", "sex", "birth_date", "subset"])
            self.overview = _by_series(rows)
        with ledger.collecting(gradings.name):
            rows = read_table(gradings, ["Patient", LEVEL, *GRADING_COLUMNS.values()])
            self.gradings = _gradings(gradings.name, rows, ledger)

    def check_patients(self, patients: Iterable[str]) -> None:
        """Refuses patients of the files whom the table of gradings writes in another way.

        Args:
          patients: ids from the names of the files.
        """
        known = frozenset(patients)
        check_names(sorted(known), "patient", self._ledger)
        check_table(_GRADINGS, self.gradings, known, self._ledger)

    def metadata(self, series: str) -> Metadata:
        """What overview.csv says of a series; empty where it has no row.

        Raises:
          UserError: a value is not of its kind.
        """
        row = self.overview.get(series, {})
        return Metadata(
            sex=lenient(row, "sex", headers.sex),
            age=lenient(row, "birth_date", headers.age_years),  # the archive stores the age there
            manufacturer=row.get("Manufacturer", ""),
            field_strength_t=lenient(row, "MagneticFieldStrength", headers.field_strength_t),
            subset=choice(row, "subset", SUBSETS),
        )

    def is_stir(self, series: str) -> bool:
        """Whether overview.csv describes a short-tau inversion recovery series."""
        row = self.overview.get(series, {})
        description = row.get("SeriesDescription", "").upper()
        return (
            "STIR" in description
            or "TIRM" in description
            or "IR" in re.findall(r"[A-Z]+", row.get("ScanningSequence", "").upper())
            or row.get("SequenceName", "").startswith("*tir")
        )


def is_instance_mask(labels: np.ndarray) -> bool:
    """Whether a mask holds a label that only SPIDER's instance masks have.

    Args:
      labels: integers of any shape.
    """
    return any(k >= INSTANCE_CANAL and k in _INSTANCE_LABELS for k in np.unique(labels).tolist())


def painted(labels: np.ndarray) -> str:
    """What to say of a mask of 0 and 255; empty for others."""
    if set(np.unique(labels).tolist()) <= {0, 255}:
        return " (programs for pictures save a mask as 255)"
    return ""


def disc_levels(labels: np.ndarray, where: Any) -> np.ndarray:
    """Levels of the discs of an instance mask.

    1 to 25 are vertebrae from the lowest up, 100 the canal, 101 to 125 partly visible vertebrae,
    201 to 225 discs from the lowest up.

    Args:
      labels: (S, H, W) integers.
      where: the file, for the message.

    Returns:
      (S, H, W) uint8, 0 where there is no disc.

    Raises:
      UserError: another label.
    """
    unknown = sorted(set(np.unique(labels).tolist()) - _INSTANCE_LABELS)
    if unknown:
        raise UserError(
            f"{where}: unknown label {', '.join(map(str, unknown[:10]))}{painted(labels)}; an"
            " instance mask may hold 0, 1-25, 100, 101-125 and 201-225."
        )
    return np.where(labels > _DISC, labels.astype(np.int64) - _DISC, 0).astype(np.uint8)


def _by_series(rows: Sequence[TableRow]) -> Mapping[str, Row]:
    found: dict[str, TableRow] = {}
    for row in rows:
        first = found.setdefault(row["new_file_name"], row)
        if first is not row and first != row:
            raise UserError(
                f"new_file_name {row['new_file_name']!r} has two rows that differ, in line"
                f" {first.line} and {row.line}; remove one."
            )
    return found


def _gradings(table: str, rows: Sequence[TableRow], ledger: Ledger) -> Mapping[str, list[Grading]]:
    found: defaultdict[str, list[Grading]] = defaultdict(list)
    for row in rows:
        where, patient = row.where, row["Patient"]
        if not patient:
            ledger.bad.append((where, "Patient is empty; fill it in."))
        elif row[LEVEL] == "0":
            ledger.exclude(
                f"{patient}/L0", f"{LEVEL} 0 names no disc; this row of {table} is left out"
            )
        else:
            with ledger.collecting(where):
                found[patient].append(parse_grading(row, LEVEL, GRADING_COLUMNS))
    for patient, gradings in found.items():
        counts = Counter(g["level"] for g in gradings)
        for level in (k for k, n in counts.items() if n > 1):
            ledger.bad.append(
                (f"{table}, patient {patient}", f"level {level} is graded twice; remove one.")
            )
    return found
