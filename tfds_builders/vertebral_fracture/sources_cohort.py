"""A user's own cohort: studies.csv, readers.csv, findings.csv and their files (README.md)."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from tfds_builders.columns import check_subset, metadata, pixel_size, read_studies
from tfds_builders.ids import check_ids
from tfds_builders.paired import check_pair, pair_files, paired_part, read_pair
from tfds_builders.raw import Example, OwnOptions, RawStudy, Source, folder_of
from tfds_builders.tables import Row, TableRow, read_known, read_table
from tfds_builders.vertebral_fracture.images import CHANNELS
from tfds_builders.vertebral_fracture.sources import Finding, Reading, example
from tfds_builders.vertebral_fracture.sources_geometry import find_segment, surroundings
from tfds_builders.vertebral_fracture.sources_readings import (
    FINDING_COLUMNS,
    READER_COLUMNS,
    parse_class,
    parse_findings,
    parse_readers,
)

STUDY_COLUMNS = ("patient_id", "study_id", *CHANNELS, "label")
STUDY_EXTRAS = (
    "slice", "row0", "col0", "row1", "col1", "box_mask", "level", "sex", "age", "manufacturer",
    "field_strength_t", "subset", "pixel_spacing_mm",
)  # fmt: skip


class CohortSource(Source):
    """Sagittal T1 and T2 of the user, with the abnormal segment and optional readings."""

    def __init__(self, options: OwnOptions, folder: Path | None):
        del options
        super().__init__()
        self._folder = folder_of(folder)
        self._readings: Mapping[str, list[Reading]] = {}
        self._findings: Mapping[str, list[Finding]] = {}

    def studies(self) -> list[RawStudy]:
        """The rows of studies.csv that can be packaged."""
        names = "studies.csv", "readers.csv", "findings.csv"
        paths = [self._folder / name for name in names]
        self.tables = tuple(path for path in paths if path.is_file())
        rows = read_studies(self._folder, STUDY_COLUMNS, STUDY_EXTRAS, self.ledger)
        found = self._parse_studies(rows)
        listed = list(dict.fromkeys(row["study_id"] for row in rows))
        if paths[1].exists():
            table = read_known(paths[1], READER_COLUMNS, ("aided_call",), self.ledger)
            self._readings = parse_readers(table, listed, self.ledger)
        if paths[2].exists():
            present: list[TableRow] = []
            with self.ledger.collecting(names[2]):
                present = read_table(paths[2], FINDING_COLUMNS)  # every other column is a finding
            self._findings = parse_findings(present, listed, self.ledger)
        return found

    def read(self, study: RawStudy) -> Example:
        """T1 in canonical order, T2 sampled on it, and the segment."""
        row: Row = study.details
        files = dict(zip(CHANNELS, study.files[:2], strict=True))
        pair = read_pair(files, CHANNELS, pixel_size(row, "pixel_spacing_mm"))
        segment = find_segment(row, pair.reference, self._folder)
        check_pair(pair, surroundings(segment), "the surroundings of the segment")
        return example(
            study,
            paired_part(pair.reference, pair.other, CHANNELS),
            parse_class(row, "label"),
            segment,
            row.get("level", ""),
            self._readings.get(study.study_id, []),
            self._findings.get(study.study_id, []),
            metadata(row, pair.reference),
        )

    def _parse_studies(self, rows: Sequence[TableRow]) -> list[RawStudy]:
        found: list[RawStudy] = []
        seen: set[str] = set()
        subsets: dict[str, str] = {}
        for row in rows:
            where = row.where
            with self.ledger.collecting(where):
                check_ids(row, seen)
                check_subset(row, subsets)
                parse_class(row, "label")
                files = self._files(where, row)
                if files:
                    found.append(RawStudy(row["patient_id"], row["study_id"], files, row, 2))
        if unknown := sum(not row["label"] for row in rows):
            self.ledger.notes.append(f"label: {unknown} of {len(rows)} studies have none")
        return found

    def _files(self, where: str, row: Row) -> tuple[Path, ...]:
        """T1, T2 and the mask of the segment where there is one; none if a file is missing."""
        columns = (*CHANNELS, "box_mask") if row.get("box_mask") else CHANNELS
        return pair_files(row, columns, self._folder, where, self.ledger)
