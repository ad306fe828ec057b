"""A user's own shoulder series with outlined bones: studies.csv and its files (README.md)."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mskjax.errors import UserError
from mskjax.imaging.files import read_mask
from mskjax.imaging.planes import display_axes
from mskjax.imaging.volume import Volume
from tfds_builders.columns import SUBSETS, absence, among, check_same, metadata, read_studies
from tfds_builders.ids import check_ids
from tfds_builders.phantoms.shoulder_bones import HUMERUS, SCAPULA
from tfds_builders.raw import Example, OwnOptions, RawStudy, Source, folder_of
from tfds_builders.shoulder_bones.images import check_has_place, read_images
from tfds_builders.shoulder_bones.sources import STRUCTURES, example
from tfds_builders.tables import Row, TableRow

STUDY_COLUMNS = ("patient_id", "study_id", "image")
MASK_COLUMNS = ("mask", *STRUCTURES)
STUDY_EXTRAS = ("side", "sequence", "sex", "age", "manufacturer", "field_strength_t", "subset")


class CohortSource(Source):
    """The user's series: studies.csv and the files it names (README.md)."""

    def __init__(self, options: OwnOptions, folder: Path | None):
        del options
        super().__init__()
        self._folder = folder_of(folder)

    def studies(self) -> list[RawStudy]:
        """The rows of studies.csv that can be packaged."""
        table = self._folder / "studies.csv"
        self.tables = (table,) if table.is_file() else ()
        rows = read_studies(
            self._folder, STUDY_COLUMNS, (*MASK_COLUMNS, *STUDY_EXTRAS), self.ledger
        )
        with self.ledger.collecting(table.name):
            if rows and "mask" not in rows[0] and not set(STRUCTURES) <= set(rows[0]):
                raise UserError(
                    f"{table} lacks the masks; it needs the column mask, or the columns"
                    f" {' and '.join(STRUCTURES)}."
                )
        return self._parse(rows)

    def read(self, study: RawStudy) -> Example:
        """The series with its bones, on display axes."""
        row: Row = study.details
        images = read_images({"image": study.files[0]})
        stored = images.stored
        labels = self._labels(study, stored) if row.get("mask") else self._joined(study, stored)
        mask = display_axes(stored.with_data(labels)).data
        side, sequence = row.get("side", ""), row.get("sequence", "")
        return example(study, images.part, mask, side, sequence, metadata(row, stored))

    def _labels(self, study: RawStudy, image: Volume) -> np.ndarray:
        """One mask with both labels."""
        path = study.files[1]
        labels = read_mask(path, image, labels=tuple(STRUCTURES.values())).data
        if not np.any(labels == HUMERUS):
            raise UserError(
                f"{path}: the mask shows no humerus (label {HUMERUS}); check that it is the mask"
                " of this image."
            )
        if not np.any(labels == SCAPULA):
            self._without_scapula(study, f"its mask has no label {SCAPULA}")
        return labels

    def _joined(self, study: RawStudy, image: Volume) -> np.ndarray:
        """A mask a bone; faults of both are listed."""
        labels = np.zeros(image.data.shape, np.uint8)
        faults = len(self.ledger.bad)
        columns = _masks(study.details)
        for column, path in zip(columns, study.files[1:], strict=True):
            with self.ledger.collecting(study.study_id):
                bone = read_mask(path, image, labels=(1,)).data > 0
                if not bone.any():
                    raise UserError(
                        f"{path}: the mask shows no {column}; check that it is the mask of this"
                        " image."
                    )
                both = int(np.count_nonzero(bone & (labels > 0)))
                if both:
                    raise UserError(
                        f"{path}: {both} voxels of the {column} are humerus too; a voxel belongs to"
                        " one bone."
                    )
                labels[bone] = STRUCTURES[column]
        if columns == ("humerus",) and len(self.ledger.bad) == faults:
            self._without_scapula(study, "it has no mask of it")
        return labels

    def _without_scapula(self, study: RawStudy, why: str) -> None:
        self.ledger.restrict(f"{study.study_id}/scapula", f"the series counts as without: {why}")

    def _parse(self, rows: Sequence[TableRow]) -> list[RawStudy]:
        found: list[RawStudy] = []
        seen: set[str] = set()
        known: dict[tuple[str, str], str] = {}
        for row in rows:
            where, faults = row.where, len(self.ledger.bad)
            masks = _masks(row)
            with self.ledger.collecting(where):
                check_ids(row, seen)
            for column in ("sex", "subset"):
                with self.ledger.collecting(where):
                    check_same(row, column, known)
            with self.ledger.collecting(where):
                _check_masks(row, masks)
            files = self._files(where, row, masks)
            for column, check in _CHECKS.items():
                with self.ledger.collecting(where):
                    check(row, column)
            if len(self.ledger.bad) > faults:
                continue
            if not masks:
                self.ledger.exclude(row["study_id"], "it has no mask")
                continue
            found.append(RawStudy(row["patient_id"], row["study_id"], files, row))
        return found

    def _files(self, where: str, row: Row, masks: Sequence[str]) -> tuple[Path, ...]:
        """Image and masks; what is missing becomes a bad case."""
        files = []
        for column in ("image", *masks):
            path = self._folder / row[column]
            with self.ledger.collecting(where):
                if fault := absence(row, column, self._folder):
                    raise UserError(fault)
                check_has_place(column, path)
            files.append(path)
        return tuple(files)


def _check_masks(row: Row, masks: Sequence[str]) -> None:
    if "mask" in masks and len(masks) > 1:
        raise UserError(
            f"study {row['study_id']!r} has a mask and also {' and '.join(masks[1:])}; give the"
            " mask of labels, or a mask for each bone, not both."
        )
    if masks == ("scapula",):
        raise UserError(
            f"study {row['study_id']!r} has a scapula but no humerus; give both masks (only the"
            " scapula may be left out)."
        )


def _masks(row: Row) -> tuple[str, ...]:
    """The columns that name a mask file."""
    return tuple(c for c in MASK_COLUMNS if row.get(c))


# Each is called for its faults, all of which are said before an image is opened.
_CHECKS: Mapping[str, Callable[[Row, str], Any]] = {
    "side": among("left", "right"),
    "subset": among(*SUBSETS),
}
