"""A user's own Y-views: studies.csv and the files it names (README.md)."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from mskjax.errors import UserError
from mskjax.imaging.files import read_mask
from tfds_builders.columns import (
    SUBSETS,
    absence,
    among,
    check_same,
    metadata,
    pixel_size,
    read_studies,
    whole,
)
from tfds_builders.fatty_infiltration.images import read_images, upright
from tfds_builders.fatty_infiltration.sources import FOSSA, MISSING, example
from tfds_builders.ids import check_ids
from tfds_builders.phantoms.shoulder import GRADES
from tfds_builders.raw import Example, OwnOptions, RawStudy, Source, folder_of
from tfds_builders.tables import Row, TableRow

STUDY_COLUMNS = ("patient_id", "study_id", "image", "mask", "grade")
STUDY_EXTRAS = (
    "side", "slice", "pixel_mm", "sequence", "sex", "age", "manufacturer", "field_strength_t",
    "subset",
)  # fmt: skip


class CohortSource(Source):
    """One image in Y-view a row, or a series and which of its slices that is."""

    def __init__(self, options: OwnOptions, folder: Path | None):
        del options
        super().__init__()
        self._folder = folder_of(folder)

    def studies(self) -> list[RawStudy]:
        """The rows of studies.csv that can be packaged."""
        table = self._folder / "studies.csv"
        self.tables = (table,) if table.is_file() else ()
        rows = read_studies(self._folder, STUDY_COLUMNS, STUDY_EXTRAS, self.ledger)
        with self.ledger.collecting(table.name):
            if rows and not any(row["mask"] for row in rows):
                raise UserError(
                    "no study has a mask, so finding the fossa cannot be learnt; outline it in at"
                    " least some studies and fill in the column mask."
                )
        return self._parse(rows)

    def read(self, study: RawStudy) -> Example:
        """The one Y-view image of the study and its mask, upright."""
        row: Row = study.details
        path, *masks = study.files
        index = _index(row, "slice")
        pixel_mm = pixel_size(row, "pixel_mm")
        images = read_images({"image": path}, pixel_mm=pixel_mm, slice_index=index)
        mask = None
        for outlined in masks:
            labels = read_mask(outlined, images.stored, labels=(FOSSA,))
            mask = upright(labels, index, outlined).data
            if not mask.any():
                raise UserError(
                    f"{outlined}: the mask shows no fossa in slice {index or 0}; check mask and"
                    " slice, or leave the mask empty."
                )
        side, sequence = row.get("side", ""), row.get("sequence", "")
        grade = _grade(row, "grade")
        who = metadata(row, images.stored)
        return example(study, images.part, mask, grade, side, sequence, who)

    def _parse(self, rows: Sequence[TableRow]) -> list[RawStudy]:
        found: list[RawStudy] = []
        seen: set[str] = set()
        known: dict[tuple[str, str], str] = {}
        for row in rows:
            where, faults = row.where, len(self.ledger.bad)
            with self.ledger.collecting(where):
                check_ids(row, seen)
            for column in ("sex", "subset"):
                with self.ledger.collecting(where):
                    check_same(row, column, known)
            files = self._files(where, row)
            for column, check in _CHECKS.items():
                with self.ledger.collecting(where):
                    check(row, column)
            if len(self.ledger.bad) == faults and self._is_usable(row):
                found.append(RawStudy(row["patient_id"], row["study_id"], files, row))
        return found

    def _files(self, where: str, row: Row) -> tuple[Path, ...]:
        """Image, and mask where there is one; what is missing becomes a bad case."""
        columns = ("image", "mask") if row["mask"] else ("image",)
        faults = [fault for column in columns if (fault := absence(row, column, self._folder))]
        self.ledger.bad += [(where, fault) for fault in faults]
        return tuple(self._folder / row[column] for column in columns)

    def _is_usable(self, row: Row) -> bool:
        """Whether a study has a mask or a grade; lists what is missing."""
        study, mask, grade = row["study_id"], row["mask"], row["grade"]
        if not mask and not grade:
            self.ledger.exclude(study, "it has neither mask nor grade")
        elif not mask:
            self.ledger.restrict(study, "kept for grading only: it has no mask")
        elif not grade:
            self.ledger.restrict(study, "kept for segmentation only: it is not graded")
        return bool(mask or grade)


def _grade(row: Row, column: str) -> int:
    return whole(row, column, 0, GRADES - 1) if row[column] else MISSING


def _index(row: Row, column: str) -> int | None:
    return whole(row, column, 0, 9999) if row.get(column) else None


# Each is called for its faults, all of which are said before an image is opened.
_CHECKS: Mapping[str, Callable[[Row, str], Any]] = {
    "grade": _grade,
    "slice": _index,
    "pixel_mm": pixel_size,
    "side": among("left", "right"),
    "subset": among(*SUBSETS),
}
