"""A user's own cohort: studies.csv, discs.csv and the files they name (README.md)."""

import math
import re
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from mskjax.errors import UserError
from tfds_builders.disc_degeneration.sources import (
    GRADES,
    INSTANCE_CANAL,
    DiscSource,
    Grading,
    Metadata,
    NoOptions,
    as_semantic,
    checked_semantic,
    example,
    parse_grading,
    read_sagittal,
    unused_columns,
)
from tfds_builders.raw import Example, RawStudy, folder_of
from tfds_builders.tables import Row, choice, number, read_table

STUDY_COLUMNS = ("patient_id", "study_id", "image", "mask")
STUDY_EXTRAS = (
    "sex", "age", "manufacturer", "field_strength_t", "subset", "pixel_spacing_mm"
)  # fmt: skip
DISC_COLUMNS = ("study_id", "level", "pfirrmann")
_FILE_NAME = re.compile(r"[\w.+-]+")


class CohortSource(DiscSource):
    """Sagittal T2 studies with masks and gradings of the user."""

    def __init__(self, options: NoOptions, folder: Path | None):
        del options
        super().__init__()
        self._folder = folder_of(folder)
        self._gradings: Mapping[str, list[Grading]] = {}

    def studies(self) -> list[RawStudy]:
        """The rows of studies.csv that can be packaged."""
        tables = self._folder / "studies.csv", self._folder / "discs.csv"
        self.tables = tuple(p for p in tables if p.is_file())
        study_rows: list[dict[str, str]] = []
        with self.ledger.collecting("studies.csv"):
            study_rows = read_table(tables[0], STUDY_COLUMNS)
            self.ledger.notes += unused_columns(
                "studies.csv", study_rows[0], (*STUDY_COLUMNS, *STUDY_EXTRAS)
            )
        with self.ledger.collecting("discs.csv"):
            disc_rows = read_table(tables[1], DISC_COLUMNS)
            self.ledger.notes += unused_columns(
                "discs.csv", disc_rows[0], ("study_id", "level", *GRADES)
            )
            self._gradings = self._parse_discs(disc_rows, {r["study_id"] for r in study_rows})
        return self._parse_studies(study_rows)

    def read(self, study: RawStudy) -> Example:
        """Levels come from instance labels, or from counting the discs of a semantic mask."""
        row: Row = study.details
        spacing = number(row, "pixel_spacing_mm")
        image, labels = read_sagittal(
            study.files, spacing_mm=None if math.isnan(spacing) else spacing
        )
        gradings = self._gradings.get(study.study_id, [])
        levels: np.ndarray | None
        if labels.data.max() >= INSTANCE_CANAL:
            mask, levels = as_semantic(labels.data, study.files[1])
            joined = self.join_by_label(study, levels, gradings)
        else:
            mask = checked_semantic(labels.data, study.files[1])
            levels, joined = self.join_by_count(study, mask, image.affine, gradings)
        strength = number(row, "field_strength_t", 0, 30)
        if math.isnan(strength):
            strength = float(image.meta.get("field_strength_t") or math.nan)
        metadata = Metadata(
            sex=choice(row, "sex", ("M", "F")),
            age=number(row, "age", 0, 130),
            manufacturer=row.get("manufacturer") or str(image.meta.get("manufacturer") or ""),
            field_strength_t=strength,
            subset=choice(row, "subset", ("training", "validation")),
        )
        return example(study, image, mask, levels, joined, metadata)

    def _parse_discs(
        self, rows: list[dict[str, str]], studies: set[str]
    ) -> Mapping[str, list[Grading]]:
        found: defaultdict[str, list[Grading]] = defaultdict(list)
        columns = {name: name for name in GRADES}
        seen = set()
        for n, row in enumerate(rows, start=1):
            where, study = f"discs.csv, row {n}", row["study_id"]
            if studies and study not in studies:
                self.ledger.bad.append((where, f"study_id {study!r} is not in studies.csv."))
                continue
            with self.ledger.collecting(where):
                grading = parse_grading(row, "level", columns)
                if (study, grading["level"]) in seen:
                    raise UserError(
                        f"study {study!r}, level {grading['level']} is graded twice; remove one."
                    )
                seen.add((study, grading["level"]))
                found[study].append(grading)
        return found

    def _parse_studies(self, rows: list[dict[str, str]]) -> list[RawStudy]:
        found: dict[str, RawStudy] = {}
        subsets: dict[str, str] = {}
        for n, row in enumerate(rows, start=1):
            with self.ledger.collecting(f"studies.csv, row {n}"):
                _check_ids(row, found)
                study, patient, subset = row["study_id"], row["patient_id"], row.get("subset", "")
                if subsets.setdefault(patient, subset) != subset:
                    raise UserError(
                        f"patient {patient!r} is in subset {subsets[patient]!r} and {subset!r}; a"
                        " patient must be on one side."
                    )
                if not row["image"]:
                    raise UserError(f"study {study!r} has no image; fill in its path.")
                if not row["mask"]:
                    self.ledger.exclude(study, "it has no mask")
                    continue
                files = self._folder / row["image"], self._folder / row["mask"]
                found[study] = RawStudy(patient, study, files, row)
        return list(found.values())


def _check_ids(row: Row, found: Mapping[str, RawStudy]) -> None:
    patient, study = row["patient_id"], row["study_id"]
    if not patient:
        raise UserError(f"study {study!r} has no patient_id; fill it in.")
    if not _FILE_NAME.fullmatch(study):
        raise UserError(
            f"study_id is {study!r}; it names files, so use letters, digits, '.', '_', '+', '-'."
        )
    if study in found:
        raise UserError(f"study_id {study!r} occurs twice; give every study its own.")
