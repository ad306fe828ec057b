"""What the sources of graded lumbar discs share, and the phantom source."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mskjax.errors import UserError
from mskjax.imaging.files import read_mask, read_volume
from mskjax.imaging.geometry import reorient, slice_axis
from mskjax.imaging.regions import disc_regions
from mskjax.imaging.volume import Volume
from tfds_builders.phantoms.spine import spine_phantom
from tfds_builders.raw import Example, RawStudy, Source
from tfds_builders.tables import Row, whole

MISSING = -1
VERTEBRA, DISC, CANAL = 1, 2, 3
INSTANCE_CANAL = 100  # no semantic label is as high

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
HIGHEST_LEVEL = 25
_SEEDS_APART = 1_000_000  # patients a phantom cohort may have before it meets the next seed's

Grading = dict[str, int]  # level and grades of one disc


@dataclasses.dataclass(frozen=True)
class NoOptions:
    """Nothing to choose."""


@dataclasses.dataclass(frozen=True)
class Metadata:
    """What is known of a study beside image and grades; ages in years, fields in tesla."""

    sequence: str = "t2"
    sex: str = ""
    age: float = math.nan
    manufacturer: str = ""
    field_strength_t: float = math.nan
    subset: str = ""


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


def read_sagittal(files: Sequence[Path], spacing_mm: float | None = None) -> tuple[Volume, Volume]:
    """A sagittal image and its label mask on the canonical axes L, I, P.

    Args:
      files: image and mask, in any format of `read_volume`, on one grid.
      spacing_mm: pixel size of a PNG.

    Raises:
      UserError: a file cannot be read, the grids differ, or the slices are not sagittal.
    """
    image, mask = files
    spacing = None if spacing_mm is None else (spacing_mm, spacing_mm)
    volume = reorient(read_volume(image, spacing=spacing))
    if len(volume.data) > 1 and slice_axis(volume) != 0:
        raise UserError(
            f"{image}: the slices are not sagittal (their normal is closest to axis"
            f" {'LIP'[slice_axis(volume)]}); give the sagittal series."
        )
    return volume, read_mask(mask, volume)


def example(
    study: RawStudy,
    image: Volume,
    mask: np.ndarray,
    levels: np.ndarray | None,
    gradings: Sequence[Grading],
    metadata: Metadata,
) -> Example:
    """Assembles one example of the data set; `levels` is None where they are unknown.

    Raises:
      UserError: the mask shows no disc.
    """
    if not np.any(mask == DISC):
        raise UserError("the mask shows no disc; check that it is the mask of this image.")
    return {
        "patient_id": study.patient_id,
        "study_id": study.study_id,
        "image": np.ascontiguousarray(image.data, np.float32),
        "mask": np.ascontiguousarray(mask, np.uint8),
        "disc_levels": np.zeros(mask.shape, np.uint8) if levels is None else levels,
        "has_mask": True,
        "affine": image.affine,
        "levels": sorted(gradings, key=lambda g: g["level"]),
        **dataclasses.asdict(metadata),
    }


class DiscSource(Source):
    """A source that joins graded levels with the discs of a mask."""

    def join_by_count(
        self, study: RawStudy, mask: np.ndarray, affine: np.ndarray, gradings: Sequence[Grading]
    ) -> tuple[np.ndarray | None, Sequence[Grading]]:
        """Levels of a semantic mask, if it shows as many discs as were graded.

        Returns:
          The levels and the gradings, or None and none where they cannot be joined: such a study
          is kept for segmentation and listed.
        """
        if not gradings:
            self.ledger.exclude(study.study_id, "kept for segmentation only: it is not graded")
            return None, []
        regions, _ = disc_regions(mask == DISC, affine)
        count = len(regions)
        graded = sorted(g["level"] for g in gradings)
        if graded != list(range(1, count + 1)):
            self.ledger.exclude(
                study.study_id,
                f"kept for segmentation only: the mask shows {count} discs, but {len(graded)} were"
                f" graded (levels {_ranges(graded)})",
            )
            return None, []
        levels = np.zeros(mask.shape, np.uint8)
        for region in regions:
            levels[region.slices][region.mask] = region.level
        return levels, gradings

    def join_by_label(
        self, study: RawStudy, levels: np.ndarray, gradings: Sequence[Grading]
    ) -> Sequence[Grading]:
        """The gradings whose disc an instance mask shows; the others are listed."""
        if not gradings:
            self.ledger.exclude(study.study_id, "kept for segmentation only: it is not graded")
        shown = set(np.unique(levels).tolist())
        for grading in gradings:
            if grading["level"] not in shown:
                self.ledger.exclude(
                    f"{study.study_id}/L{grading['level']}",
                    f"level {grading['level']} is graded, but the mask does not show it",
                )
        return [g for g in gradings if g["level"] in shown]


@dataclasses.dataclass(frozen=True)
class PhantomOptions:
    """Generated patients.

    Attributes:
      patients: how many.
      seed: of the first; two cohorts with different seeds share no patient.
    """

    patients: int = 24
    seed: int = 0

    def __post_init__(self) -> None:
        if not 1 <= self.patients <= _SEEDS_APART:
            raise UserError(
                f"config.data.options.patients is {self.patients}; it must be 1 to {_SEEDS_APART}."
            )
        if self.seed < 0:
            raise UserError(f"config.data.options.seed is {self.seed}; it must not be negative.")


class PhantomSource(Source):
    """Generated spines: geometry and grades are known exactly, appearance is schematic."""

    def __init__(self, options: PhantomOptions, folder: Path | None):
        del folder
        super().__init__()
        self._options = options
        self.ledger.notes.append("PHANTOM: generated images, no patient data.")

    def studies(self) -> list[RawStudy]:
        """One study a patient."""
        return [
            RawStudy(f"phantom{i:04d}", f"phantom{i:04d}_t2", details=i)
            for i in range(self._options.patients)
        ]

    def read(self, study: RawStudy) -> Example:
        """Draws the patient."""
        phantom = spine_phantom(self._options.seed * _SEEDS_APART + study.details)
        return example(
            study,
            Volume(phantom.image, phantom.affine),
            phantom.mask,
            phantom.disc_levels,
            [{k: int(v) for k, v in g.items()} for g in phantom.gradings],
            Metadata(sex=phantom.sex, age=float(phantom.age)),
        )


def _ranges(levels: Sequence[int]) -> str:
    if list(levels) == list(range(levels[0], levels[-1] + 1)):
        return f"{levels[0]} to {levels[-1]}"
    return ", ".join(map(str, levels))


def unused_columns(name: str, row: Row, used: Sequence[str]) -> list[str]:
    """A note on columns that are not read, so that a misspelt name is seen."""
    extra = [c for c in row if c not in used]
    return [f"{name}: columns not used: {', '.join(extra)}"] if extra else []


def checked_semantic(labels: np.ndarray, where: Any) -> np.ndarray:
    """A semantic mask as uint8.

    Args:
      labels: (S, H, W) integers.
      where: the file, for the message.

    Raises:
      UserError: a label other than 0 to 3.
    """
    unknown = sorted(set(np.unique(labels).tolist()) - {0, VERTEBRA, DISC, CANAL})
    if unknown:
        raise UserError(
            f"{where}: unknown label {', '.join(map(str, unknown[:10]))}; a semantic mask may hold"
            " 0 to 3 (background, vertebra, disc, canal)."
        )
    return labels.astype(np.uint8)


def as_semantic(labels: np.ndarray, where: Any) -> tuple[np.ndarray, np.ndarray]:
    """SPIDER's instance labels as a semantic mask and disc levels.

    1 to 25 are vertebrae from the lowest up, 100 the canal, 101 to 125 partly visible vertebrae,
    201 to 225 discs from the lowest up.

    Args:
      labels: (S, H, W) integers.
      where: the file, for the message.

    Returns:
      Semantic mask and levels, both (S, H, W) uint8.

    Raises:
      UserError: another label.
    """
    table = np.zeros(256, np.uint8)
    table[1:26] = table[101:126] = VERTEBRA
    table[INSTANCE_CANAL] = CANAL
    table[201:226] = DISC
    known = np.unique(labels)
    unknown = [int(v) for v in known if v and not (0 <= v < 256 and table[int(v)])]
    if unknown:
        raise UserError(
            f"{where}: unknown label {', '.join(map(str, unknown[:10]))}; an instance mask may hold"
            " 0, 1-25, 100, 101-125 and 201-225."
        )
    mask = table[labels]
    levels = np.where(mask == DISC, labels.astype(np.int64) - 200, 0).astype(np.uint8)
    return mask, levels
