"""A user's own cohort: studies.csv, readers.csv, findings.csv and their files (README.md)."""

import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from mskjax.errors import UserError
from mskjax.imaging.volume import Volume
from tfds_builders.raw import Example, RawStudy, Source, folder_of
from tfds_builders.tables import Row, choice, number, read_table
from tfds_builders.vertebral_fracture.sources import (
    Finding,
    Metadata,
    NoOptions,
    Reading,
    example,
)
from tfds_builders.vertebral_fracture.sources_geometry import check_pair, find_segment, read_series
from tfds_builders.vertebral_fracture.sources_readings import (
    FINDING_COLUMNS,
    READER_COLUMNS,
    parse_class,
    parse_findings,
    parse_readers,
)

SERIES = ("t1", "t2")
STUDY_COLUMNS = ("patient_id", "study_id", *SERIES, "label")
STUDY_EXTRAS = (
    "slice", "row0", "col0", "row1", "col1", "box_mask", "level", "sex", "age", "manufacturer",
    "field_strength_t", "subset", "pixel_spacing_mm",
)  # fmt: skip
_FILE_NAME = re.compile(r"[\w.+-]+")


class CohortSource(Source):
    """Sagittal T1 and T2 of the user, with the abnormal segment and optional readings."""

    def __init__(self, options: NoOptions, folder: Path | None):
        del options
        super().__init__()
        self._folder = folder_of(folder)
        self._readings: Mapping[str, list[Reading]] = {}
        self._findings: Mapping[str, list[Finding]] = {}

    def studies(self) -> list[RawStudy]:
        """The rows of studies.csv that can be packaged."""
        names = "studies.csv", "readers.csv", "findings.csv"
        self.tables = tuple(p for n in names if (p := self._folder / n).is_file())
        rows = self._table(names[0], STUDY_COLUMNS, STUDY_EXTRAS)
        found = self._parse_studies(rows)
        listed = list(dict.fromkeys(row["study_id"] for row in rows))
        if (self._folder / names[1]).exists():
            table = self._table(names[1], READER_COLUMNS, ("aided_call",))
            self._readings = parse_readers(table, listed, self.ledger)
        if (self._folder / names[2]).exists():
            table = self._table(names[2], FINDING_COLUMNS)
            self._findings = parse_findings(table, listed, self.ledger)
        return found

    def read(self, study: RawStudy) -> Example:
        """T1 in canonical order, T2 sampled on it, and the segment."""
        row: Row = study.details
        value = number(row, "pixel_spacing_mm")
        spacing = None if math.isnan(value) else value
        t1 = read_series(study.files[0], "t1", spacing)
        t2 = read_series(study.files[1], "t2", spacing)
        segment = find_segment(row, t1, self._folder)
        check_pair(t1, t2, segment, study.files)
        return example(
            study,
            t1,
            t2,
            parse_class(row, "label"),
            segment,
            self._readings.get(study.study_id, []),
            self._findings.get(study.study_id, []),
            _metadata(row, t1),
        )

    def _table(
        self, name: str, required: Sequence[str], optional: Sequence[str] | None = None
    ) -> list[dict[str, str]]:
        """Rows of a table, none where it is faulty; columns are free where `optional` is None."""
        with self.ledger.collecting(name):
            rows = read_table(self._folder / name, required)
            if optional is not None:
                extra = [c for c in rows[0] if c not in (*required, *optional)]
                if extra:  # so that a misspelt name is seen
                    self.ledger.notes.append(f"{name}: columns not used: {', '.join(extra)}")
            return rows
        return []

    def _parse_studies(self, rows: Sequence[Row]) -> list[RawStudy]:
        found: list[RawStudy] = []
        seen: set[str] = set()
        subsets: dict[str, str] = {}
        for n, row in enumerate(rows, start=1):
            where = f"studies.csv, row {n}"
            with self.ledger.collecting(where):
                _check_ids(row, seen)
                _check_subset(row, subsets)
                parse_class(row, "label")
                files = self._files(where, row)
                if files:
                    found.append(RawStudy(row["patient_id"], row["study_id"], files, row))
        if unknown := sum(not row["label"] for row in rows):
            self.ledger.notes.append(f"label: {unknown} of {len(rows)} studies have none")
        return found

    def _files(self, where: str, row: Row) -> tuple[Path, ...]:
        """T1, T2 and the mask of the segment where there is one; none if a series is missing."""
        faults = [fault for name in SERIES if (fault := self._absence(row, name))]
        self.ledger.bad += [(where, fault) for fault in faults]
        if faults:
            return ()
        t1, t2 = (self._folder / row[name] for name in SERIES)
        if t1.resolve() == t2.resolve():
            raise UserError(
                f"study {row['study_id']!r} has {row['t1']} as its t1 and its t2; name two series."
            )
        mask = (self._folder / row["box_mask"],) if row.get("box_mask") else ()
        return t1, t2, *mask

    def _absence(self, row: Row, name: str) -> str:
        study, path = row["study_id"], self._folder / row[name]
        if not row[name]:
            return f"study {study!r} has no {name}; fill in its path or remove the row."
        if not path.exists():
            return f"the {name} of study {study!r}, {path}, does not exist; check the path."
        return ""


def _check_ids(row: Row, seen: set[str]) -> None:
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


def _check_subset(row: Row, subsets: dict[str, str]) -> None:
    patient, subset = row["patient_id"], choice(row, "subset", ("training", "validation"))
    if subsets.setdefault(patient, subset) != subset:
        raise UserError(
            f"patient {patient!r} is in subset {subsets[patient]!r} and {subset!r}; a patient must"
            " be on one side."
        )


def _metadata(row: Row, t1: Volume) -> Metadata:
    strength = number(row, "field_strength_t", 0, 30)
    if math.isnan(strength):
        strength = float(t1.meta.get("field_strength_t") or math.nan)
    return Metadata(
        level=row.get("level", ""),
        sex=choice(row, "sex", ("M", "F")),
        age=number(row, "age", 0, 130),
        manufacturer=row.get("manufacturer") or str(t1.meta.get("manufacturer") or ""),
        field_strength_t=strength,
        subset=choice(row, "subset", ("training", "validation")),
    )
