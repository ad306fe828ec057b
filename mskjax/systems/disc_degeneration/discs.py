"""Grading of intervertebral discs: the crops, what is known of them, and hand-made features."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from mskjax.data.pipeline import Examples
from mskjax.imaging import intensity, regions
from mskjax.imaging.regions import Region
from mskjax.stages.crop_grading import CropGrading
from mskjax.stages.grading import Head
from mskjax.training.stage import Study
from mskjax.two_stage.discs import SIGNS, case_id

VERTEBRA, DISC = 1, 2  # labels of the semantic mask

HEADS = {
    h.name: h
    for h in (
        Head("pfirrmann", 5, lowest=1),
        Head("modic", 4),
        *SIGNS,
    )
}


@dataclasses.dataclass(frozen=True)
class DiscGrading(CropGrading):
    """Grades disc crops: level with the endplates, a multiple of the disc's width wide."""

    def cut(self, study: Study, discs: Sequence[Region], vertebra: np.ndarray) -> Examples:
        """``image`` (N, slices, rows, cols, 1) float32 in [0, 1], 0.25 = neighbouring vertebrae.

        Args:
          study: gives the image and its affine.
          discs: N regions.
          vertebra: (S, H, W) bool, where the vertebrae are taken to be.
        """
        slices, rows, cols = self.options.crop
        crops = []
        for disc in discs:
            width = self.options.extent * disc.width_mm
            crop = regions.rotated_crop(
                study["image"],
                study["affine"],
                disc.centre,
                disc.angle,
                (width * rows / cols, width),
                (slices, rows, cols),
            )
            marrow = regions.neighbour_vertebra_median(
                study["image"], vertebra, disc, study["affine"]
            )
            crops.append(intensity.tissue_reference(crop, marrow))
        shape = (len(crops), slices, rows, cols, 1)
        return {"image": np.array(crops, np.float32).reshape(shape)}

    def preprocessing(self) -> dict[str, Any]:
        """See `Stage.preprocessing`."""
        return {**super().preprocessing(), "normalisation": "tissue_reference"}

    def training_examples(self, study: Study) -> Examples | None:
        """Crops of the graded discs, with targets and case ids."""
        discs, grades = graded_discs(study)
        if not discs:
            return None
        crops = self.cut(study, discs, study["mask"] == VERTEBRA)
        ids = np.array([case_id(study, d.level) for d in discs])
        return {**crops, **self.targets(grades), "case": ids}


def graded_discs(study: Study) -> tuple[list[Region], dict[str, np.ndarray]]:
    """Reference regions of the discs that have a Pfirrmann grade, with the grade columns."""
    columns = grade_columns(study)
    discs = {d.level: d for d in reference_discs(study)[0]}
    kept = np.array(
        [
            g > 0 and int(level) in discs
            for level, g in zip(columns["level"], columns["pfirrmann"], strict=True)
        ],
        bool,
    )
    columns = {k: v[kept] for k, v in columns.items()}
    return [discs[int(level)] for level in columns["level"]], columns


def hand_features(study: Study, disc: Region, vertebra: np.ndarray) -> np.ndarray:
    """(4,) brightness (mean, 90th percentile; relative to marrow) and height (mm, per width)."""
    values = study["image"][disc.slices][disc.mask]
    marrow = regions.neighbour_vertebra_median(study["image"], vertebra, disc, study["affine"])
    bright = np.percentile(values, 90) / marrow
    return np.array(
        [values.mean() / marrow, bright, disc.height_mm, disc.height_mm / disc.width_mm]
    )


def grade_columns(study: Study) -> dict[str, np.ndarray]:
    """The study's table of levels: level and gradings, int32, -1 where missing."""
    return {k: np.asarray(v, np.int32) for k, v in study["levels"].items()}


def reference_discs(study: Study) -> tuple[list[Region], np.ndarray]:
    """Regions of the reference mask with the cohort's level numbers, and the labelled mask."""
    labels = study["disc_levels"]
    return regions.labelled_regions(labels, study["affine"]), labels
