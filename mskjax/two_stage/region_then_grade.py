"""Systems with one region and one graded case a study: a U-Net outlines it, a 2-D grader grades."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mskjax import cases
from mskjax.data.pipeline import Examples
from mskjax.metrics import estimates
from mskjax.reporting import explained, pictures
from mskjax.reporting.pictures import Label
from mskjax.stages.grading import Grader
from mskjax.stages.region_grading import Place, RegionGrading, largest_region
from mskjax.stages.slice_segmentation import SliceSegmentation
from mskjax.tables import Row
from mskjax.training.stage import Study
from mskjax.two_stage.regions_then_grades import Located, Reading, RegionsThenGrades
from mskjax.two_stage.structures import structure_rows
from mskjax.two_stage.system import (
    Predict,
    Spot,
    letters_of,
    pixel_of,
    predict_parts,
    sized,
    spot_of,
    titled,
)


class RegionThenGrade(RegionsThenGrades):
    """Base of such systems; studies have ``image``, ``mask``, ``has_mask`` and a column of grades.

    Attributes:
      colours: label -> (name, colour) of the structures in pictures.
      column: of the study, that holds the grade, -1 where missing.
    """

    colours: Mapping[int, Label]
    column: str

    def __init__(self, find: SliceSegmentation, grade: RegionGrading):
        self.find, self.grade = find, grade
        self.stages = (find, grade)
        self.graders = {cases.MODEL: grade}
        self.labels = (self.column,)
        self.structures = find.structures

    @property
    def strata(self) -> tuple[str, ...]:  # type: ignore[override]
        """Classes of the first task, and what it leaves out."""
        first = self.tasks[0].grading
        return (*first.classes, f"left out of {first.task}")

    def stratum(self, study: Study) -> int | None:
        """Class of the first task; what it leaves out is one more class."""
        if study[self.column] < 0:
            return None
        own = self.tasks[0].class_of(study)
        return own if own >= 0 else len(self.tasks[0].grading.classes)

    def locate(self, studies: Sequence[Study], predict: Predict) -> list[Located]:
        """The largest region of the U-Net's mask."""
        inputs = [self.find.inference_examples(s) for s in studies]
        outputs = predict_parts(predict, self.find.name, inputs)
        return [_located(self.find.decode(s, o), o) for s, o in zip(studies, outputs, strict=True)]

    def reference(self, study: Study) -> Located:
        """The region of the reference mask; a study without one has an empty mask."""
        return _located(study["mask"])

    def cut(self, grader: Grader, study: Study, located: Located) -> Examples:
        """The square around the region."""
        assert isinstance(grader, RegionGrading)
        return grader.cut(study, located.regions[0] if located.regions else None)

    def spot(self, region: Place) -> Spot:
        """The box around the region in the slice that shows most of it."""
        return spot_of(region)

    def grades(self, study: Study) -> Mapping[str, Mapping[str, int]]:
        """One case, the study, where it is graded."""
        grade = int(study[self.column])
        return {study["study_id"]: {self.column: grade}} if grade >= 0 else {}

    def pairs(self, study: Study, located: Located) -> Mapping[str, int | None]:
        """The one region, if there is one."""
        return {study["study_id"]: 0 if located.regions else None}

    def region_rows(self, study: Study, reading: Reading) -> list[Row]:
        """A row for each structure, with the loss of the first stage, where it is outlined."""
        if not study["has_mask"]:
            return []
        loss = self.find.mean_loss(study, reading.located.found)
        step = self.find.options.spacing_mm
        found = reading.located.mask
        rows = structure_rows(study, found, self.find.structures, (None, step, step))
        return [{**row, "loss": loss} for row in rows]

    def region_figures(self, rows: Sequence[Row], settings: Mapping[str, int]) -> dict[str, Any]:
        """Overlap, surfaces, and the loss."""
        own = [r for r in rows if r["kind"] == "structure"]
        found = estimates.structures(own, self.find.structures, **settings)
        return found | estimates.means(own, ("loss",), **settings)

    def summarise(self, rows: Sequence[Row], resamples: int, seed: int) -> dict[str, Any]:
        """See `System.summarise`; the folds of the structures' figures too."""
        report = super().summarise(rows, resamples, seed)
        own = [r for r in rows if r["kind"] == "structure"]
        folds = estimates.structures_over_folds(own, self.find.structures)
        return report | {"folds": folds | report["folds"]}

    def picture(
        self, study: Study, reading: Reading, reference: Study | None, phantom: bool
    ) -> bytes:
        """The slice with reference and found region, and the crop with Grad-CAM."""
        located = reading.located
        found = located.mask
        outlined = reference["mask"] if reference and reference["has_mask"] else None
        shown = found if located.regions or outlined is None else outlined
        s = int(np.argmax(shown.sum((1, 2))))
        image, pixel, letters = study["image"][s], pixel_of(study), letters_of(study)
        panels = [pictures.Panel("Image", image, pixel, letters=letters)]
        if outlined is not None:
            reference_panel = pictures.Panel("Reference region", image, pixel, outlined[s])
            panels.append(dataclasses.replace(reference_panel, letters=letters))
        said = "Found region" if located.regions else "No region found"
        panels.append(pictures.Panel(said, image, pixel, found[s], letters=letters))
        if located.regions:
            panels += explained.panels(reading, {0: "crop"}, 0)
        return pictures.sheet(
            panels,
            [titled(study, s, len(shown)), *self.calls_of(reading)],
            labels=self.colours,
            phantom=phantom,
            scale_bar=sized(study),
        )


def _located(mask: np.ndarray, outputs: Any = None) -> Located:
    place = largest_region(mask)
    return Located([] if place is None else [place], mask, outputs)
