"""A user's own cohort: studies.csv, discs.csv and the files they name (README.md)."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from mskjax.errors import UserError
from mskjax.imaging.files import read_mask
from tfds_builders.columns import (
    absence,
    check_subset,
    metadata,
    pixel_size,
    read_studies,
)
from tfds_builders.disc_degeneration.images import read_images
from tfds_builders.disc_degeneration.sources import (
    DiscSource,
    as_semantic,
    checked_semantic,
    example,
)
from tfds_builders.ids import check_ids, known_study
from tfds_builders.raw import Example, OwnOptions, RawStudy, folder_of
from tfds_builders.spider import GRADES, Grading, is_instance_mask, parse_grading
from tfds_builders.tables import Row, TableRow, read_known

STUDY_COLUMNS = ("patient_id", "study_id", "image", "mask")
STUDY_EXTRAS = (
    "sex", "age", "manufacturer", "field_strength_t", "subset", "pixel_spacing_mm"
)  # fmt: skip
DISC_COLUMNS = ("study_id", "level", "pfirrmann")


class CohortSource(DiscSource):
    """Sagittal T2 studies with masks and gradings of the user."""

    def __init__(self, options: OwnOptions, folder: Path | None):
        del options
        super().__init__()
        self._folder = folder_of(folder)
        self._gradings: Mapping[str, list[Grading]] = {}

    def studies(self) -> list[RawStudy]:
        """The rows of studies.csv that can be packaged."""
        tables = self._folder / "studies.csv", self._folder / "discs.csv"
        self.tables = tuple(p for p in tables if p.is_file())
        study_rows = read_studies(self._folder, STUDY_COLUMNS, STUDY_EXTRAS, self.ledger)
        disc_rows = read_known(tables[1], DISC_COLUMNS, tuple(GRADES), self.ledger)
        studies = frozenset(row["study_id"] for row in study_rows)
        self._gradings = self._parse_discs(disc_rows, studies)
        return self._parse_studies(study_rows)

    def read(self, study: RawStudy) -> Example:
        """Levels come from instance labels, or from counting the discs of a semantic mask."""
        row: Row = study.details
        image, outlined = study.files
        pixel_mm = pixel_size(row, "pixel_spacing_mm")
        images = read_images({"image": image}, pixel_mm=pixel_mm)
        labels = read_mask(outlined, images.volume).data
        gradings = self._gradings.get(study.study_id, [])
        levels: np.ndarray | None
        if is_instance_mask(labels):
            mask, levels = as_semantic(labels, outlined)
            joined = self.join_by_label(study, levels, gradings)
        else:
            mask = checked_semantic(labels, outlined)
            levels, joined = self.join_by_count(study, mask, images.part["affine"], gradings)
        who = metadata(row, images.volume)
        return example(study, images.part, mask, levels, joined, "t2", who)

    def _parse_discs(
        self, rows: Sequence[TableRow], studies: frozenset[str]
    ) -> Mapping[str, list[Grading]]:
        found: defaultdict[str, list[Grading]] = defaultdict(list)
        columns = {name: name for name in GRADES}
        for row in rows:
            with self.ledger.collecting(row.where):
                study, grading = known_study(row, studies), parse_grading(row, "level", columns)
                if any(other["level"] == grading["level"] for other in found[study]):
                    raise UserError(
                        f"study {study!r}, level {grading['level']} is graded twice; remove one."
                    )
                found[study].append(grading)
        return found

    def _parse_studies(self, rows: Sequence[TableRow]) -> list[RawStudy]:
        found: list[RawStudy] = []
        seen: set[str] = set()
        subsets: dict[str, str] = {}
        for row in rows:
            with self.ledger.collecting(row.where):
                check_ids(row, seen)
                check_subset(row, subsets)
                columns = ("image", "mask") if row["mask"] else ("image",)
                for column in columns:
                    if fault := absence(row, column, self._folder):
                        raise UserError(fault)
                if row["mask"]:
                    files = tuple(self._folder / row[column] for column in columns)
                    found.append(RawStudy(row["patient_id"], row["study_id"], files, row))
                else:
                    self.ledger.exclude(row["study_id"], "it has no mask")
        return found
