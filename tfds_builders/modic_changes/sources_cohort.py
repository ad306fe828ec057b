"""A user's own cohort: studies.csv, discs.csv and the files they name (README.md)."""

import math
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from mskjax.errors import UserError
from mskjax.imaging.files import read_mask
from mskjax.imaging.volume import Volume
from tfds_builders.columns import (
    check_subset,
    metadata,
    number,
    pixel_size,
    read_studies,
    whole,
)
from tfds_builders.ids import check_ids, known_study
from tfds_builders.modic_changes.images import CHANNELS, part
from tfds_builders.modic_changes.sources import Disc, ModicSource, places_of_levels
from tfds_builders.paired import Place, check_pair, pair_files, read_pair
from tfds_builders.raw import Example, OwnOptions, RawStudy, folder_of
from tfds_builders.spider import (
    GRADES,
    HIGHEST_LEVEL,
    disc_levels,
    is_instance_mask,
    painted,
    parse_grading,
)
from tfds_builders.tables import Row, TableRow, read_known

STUDY_COLUMNS = ("patient_id", "study_id", "t1", "t2")
STUDY_EXTRAS = (
    "disc_mask", "sex", "age", "manufacturer", "field_strength_t", "subset", "pixel_spacing_mm",
)  # fmt: skip
DISC_COLUMNS = ("study_id", "level", "modic")
BOX_COLUMNS = ("slice", "row0", "col0", "row1", "col1")
_MOST_SLICES = 10_000


class CohortSource(ModicSource):
    """Sagittal T1 and T2 of the user with graded discs, boxed by numbers or by a mask."""

    def __init__(self, options: OwnOptions, folder: Path | None):
        del options
        super().__init__()
        self._folder = folder_of(folder)
        self._discs: defaultdict[str, list[Disc]] = defaultdict(list)

    def studies(self) -> list[RawStudy]:
        """The rows of studies.csv that can be packaged."""
        tables = self._folder / "studies.csv", self._folder / "discs.csv"
        self.tables = tuple(p for p in tables if p.is_file())
        rows = read_studies(self._folder, STUDY_COLUMNS, STUDY_EXTRAS, self.ledger)
        discs = read_known(tables[1], DISC_COLUMNS, (*BOX_COLUMNS, *GRADES), self.ledger)
        self._parse_discs(discs, frozenset(row["study_id"] for row in rows))
        return self._parse_studies(rows, discs)

    def read(self, study: RawStudy) -> Example:
        """T2 in canonical order, T1 sampled on it, and the discs."""
        row: Row = study.details
        files = dict(zip(CHANNELS, study.files[:2], strict=True))
        pair = read_pair(files, CHANNELS, pixel_size(row, "pixel_spacing_mm"))
        t2 = pair.reference
        discs = self._discs[study.study_id]
        if row.get("disc_mask"):
            levels = _levels(read_mask(study.files[2], t2).data, study.files[2])
            gradings = [{"level": d.level, **d.grades} for d in discs]
            discs = self.join_by_label(study, places_of_levels(levels), gradings)
        example = self.example(study, part(t2, pair.other), discs, metadata(row, t2))
        check_pair(pair, _surroundings(discs, t2), "the region of the discs")
        return example

    def _parse_discs(self, rows: Sequence[TableRow], studies: frozenset[str]) -> None:
        columns = {name: name for name in GRADES}
        for row in rows:
            with self.ledger.collecting(row.where):
                study = known_study(row, studies)
                grades = parse_grading(row, "level", columns)
                level = grades.pop("level")
                if any(disc.level == level for disc in self._discs[study]):
                    raise UserError(
                        f"study {study!r}, level {level} occurs twice; a disc has one row, so"
                        " remove one or mend its level."
                    )
                self._discs[study].append(Disc(level, _box(row), grades))

    def _parse_studies(self, rows: Sequence[TableRow], discs: Sequence[Row]) -> list[RawStudy]:
        found: list[RawStudy] = []
        seen: set[str] = set()
        subsets: dict[str, str] = {}
        listed = {row["study_id"] for row in discs}
        for row in rows:
            where = row.where
            with self.ledger.collecting(where):
                check_ids(row, seen)
                check_subset(row, subsets)
                files = self._files(where, row)
                if discs:  # otherwise that table is faulty, and said so
                    self._check_discs(row, listed)
                if files:
                    found.append(RawStudy(row["patient_id"], row["study_id"], files, row, 2))
        return found

    def _check_discs(self, row: Row, listed: set[str]) -> None:
        study = row["study_id"]
        if not row.get("disc_mask") and study not in listed:
            raise UserError(
                f"study {study!r} has no disc: discs.csv has no row of it; add its discs or remove"
                " the study."
            )
        if row.get("disc_mask") and any(disc.place for disc in self._discs[study]):
            raise UserError(
                f"study {study!r} has a disc_mask and boxes in discs.csv; keep one way to say where"
                " the discs are."
            )
        if row.get("disc_mask") and study not in listed:
            self.ledger.restrict(study, "kept for detection only: it is not graded")

    def _files(self, where: str, row: Row) -> tuple[Path, ...]:
        """T2, T1 and the mask of the discs where there is one; none if a file is missing."""
        columns = (*CHANNELS, "disc_mask") if row.get("disc_mask") else CHANNELS
        return pair_files(row, columns, self._folder, where, self.ledger)


def _box(row: Row) -> Place | None:
    given = [c for c in BOX_COLUMNS if row.get(c)]
    if not given:
        return None
    if lacking := [c for c in BOX_COLUMNS if c not in given]:
        raise UserError(
            f"the box lacks {', '.join(lacking)}; fill in {', '.join(BOX_COLUMNS)}, or none of"
            " them for a disc that is graded only."
        )
    row0, col0, row1, col1 = (number(row, c, -math.inf) for c in BOX_COLUMNS[1:])
    return Place(whole(row, "slice", 0, _MOST_SLICES), (row0, col0, row1, col1))


def _levels(labels: np.ndarray, path: Path) -> np.ndarray:
    if is_instance_mask(labels):
        return disc_levels(labels, path)
    if labels.min() < 0 or labels.max() > HIGHEST_LEVEL:
        raise UserError(
            f"{path}: a mask of disc levels holds 0 to {HIGHEST_LEVEL} (1 the lowest disc), or"
            f" SPIDER's labels; this holds {labels.min()} to {labels.max()}{painted(labels)}: write"
            " the level of each disc."
        )
    return labels


def _surroundings(discs: Sequence[Disc], t2: Volume) -> tuple[np.ndarray, np.ndarray]:
    """Lowest and highest index of what the boxes span; the whole image where there is none."""
    places = [disc.place for disc in discs if disc.place]
    if not places:
        return np.zeros(3), np.array(t2.data.shape)
    low = np.min([(p.slice, *p.box[:2]) for p in places], axis=0)
    high = np.max([(p.slice + 1, *p.box[2:]) for p in places], axis=0)
    return low, high
