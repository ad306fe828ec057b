"""Knee effusion (a toy): sagittal T2, the suprapatellar recess outlined, a grade.

Raw files: studies.csv and what it names.  Columns: patient_id, study_id, image, mask (1 inside the
recess) and effusion (0 absent, 1 small, 2 large; invented); those of EXTRAS may be there.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from mskjax.errors import UserError
from mskjax.imaging.files import read_mask
from tfds_builders.columns import (
    absence,
    check_subset,
    metadata,
    read_studies,
    shared_part,
    whole,
)
from tfds_builders.common import CohortBuilder, own_config, volume_feature
from tfds_builders.disc_degeneration.images import CHANNELS, WANTED, read_images
from tfds_builders.ids import check_ids
from tfds_builders.raw import Example, NoOptions, RawStudy, Source, folder_of
from tfds_builders.tables import Row

FILES = ("image", "mask")
COLUMNS = ("patient_id", "study_id", *FILES, "effusion")
EXTRAS = ("sex", "age", "manufacturer", "field_strength_t", "subset")


class CohortSource(Source):
    """One series, mask and grade a row of studies.csv."""

    def __init__(self, options: NoOptions, folder: Path | None):
        del options
        super().__init__()
        self._folder = folder_of(folder)

    def studies(self) -> list[RawStudy]:
        """The rows that can be packaged."""
        rows = read_studies(self._folder, COLUMNS, EXTRAS, self.ledger)
        self.tables = (self._folder / "studies.csv",)
        found: list[RawStudy] = []
        seen: set[str] = set()
        subsets: dict[str, str] = {}
        for row in rows:
            with self.ledger.collecting(row.where):
                check_ids(row, seen)
                check_subset(row, subsets)
                _grade(row)
                for column in FILES:
                    if fault := absence(row, column, self._folder):
                        raise UserError(fault)
                files = tuple(self._folder / row[column] for column in FILES)
                found.append(RawStudy(row["patient_id"], row["study_id"], files, row))
        return found

    def read(self, study: RawStudy) -> Example:
        """The series on axes L, I, P, and the recess on its grid."""
        images = read_images({"image": study.files[0]})
        mask = read_mask(study.files[1], images.volume, labels=(1,)).data
        return {
            **shared_part(study, metadata(study.details, images.volume)),
            **images.part,
            "mask": np.ascontiguousarray(mask, np.uint8),
            "has_mask": True,
            "effusion": _grade(study.details),
        }


class KneeEffusion(CohortBuilder):
    """See the module."""

    channels, wanted = CHANNELS, WANTED
    read_images = staticmethod(read_images)

    BUILDER_CONFIGS = [own_config(CohortSource, "write studies.csv.")]  # noqa: RUF012

    def features(self) -> Mapping[str, Any]:
        """Image and mask (S, H, W); effusion 0 to 2."""
        return {
            "image": volume_feature(np.float32),
            "mask": volume_feature(np.uint8),
            "has_mask": tfds.features.Scalar(np.bool_),
            "effusion": tfds.features.Scalar(np.int32),
        }

    def graded(self, example: Example) -> Sequence[Mapping[str, int]]:
        """The one knee."""
        return [{"effusion": example["effusion"]}]

    def parts(self, example: Example) -> Mapping[str, bool]:
        """Every knee has both."""
        return {"mask": True, "grade": True}


def _grade(row: Row) -> int:
    return whole(row, "effusion", 0, 2)
