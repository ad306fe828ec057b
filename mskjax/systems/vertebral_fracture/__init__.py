"""Benign or malignant vertebral fracture on paired T1 and T2: ResNet-50 on the abnormal segment.

After Yeh, Zhang, Chen, ... Su, PMC9764339, and the same group's ISMRM 2021 #4049.  Theirs: the
square box around the segment, the slice and its two neighbours of both sequences as six channels,
one 1x1 convolution to three, ResNet-50, ten folds, the comparison with three readers and fifteen
imaging features.  From their CT paper and therefore an inference: the patient's score is the
largest over slices, threshold .5.  Open and therefore ours (fields of the config): crop size,
margin, augmentation, the recipe.  Ours, beyond the paper: a first stage that finds the segment,
which was done by hand there; both are reported.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mskjax import cases
from mskjax.config import StudyConfig
from mskjax.data.pipeline import Examples
from mskjax.errors import UserError
from mskjax.metrics import estimates
from mskjax.metrics.grading import Grading
from mskjax.reporting import explained, pictures
from mskjax.stages.grading import Head
from mskjax.stages.slice_segmentation import SliceSegmentationOptions
from mskjax.systems.vertebral_fracture.segments import (
    CHANNELS,
    LABEL,
    Place,
    SegmentDetection,
    SegmentGrading,
    SegmentGradingOptions,
    box_iou,
    hand_features,
    hit,
    propose,
    reference_place,
)
from mskjax.tables import Row
from mskjax.training.stage import Study
from mskjax.two_stage.grading_task import GradingTask
from mskjax.two_stage.options import NOTHING, canvas_in, stage_options
from mskjax.two_stage.readers import TITLE, reader_columns, reader_facts, reader_tables
from mskjax.two_stage.regions_then_grades import Located, Reading, RegionsThenGrades
from mskjax.two_stage.system import (
    Predict,
    Published,
    Spot,
    letters_of,
    pixel_of,
    predict_parts,
    sized,
    spacing_of,
    spot_of,
    titled,
)

HEAD = Head("malignant", 2, column=LABEL)
GRADING = Grading("malignant", ("benign", "malignant"))
BY_HAND, DETECTED = "Model, segment by hand", "Model, segment found"
REFERENCE_COLOUR, FOUND_COLOUR = (0, 158, 115), (230, 159, 0)
FIGURES = ("regions_found", "box_iou", "slice_error_mm")

YEH = "Yeh et al., PMC9764339"
THEIRS = "190 patients of one centre, segment given by hand; network and recipe partly unpublished"

STAGES = {"segments": SliceSegmentationOptions, "grades": SegmentGradingOptions}


class VertebralFracture(RegionsThenGrades):
    """See the module."""

    name = "vertebral_fracture"
    title = "Vertebral fracture, benign or malignant: ResNet-50 on paired T1 and T2"
    labels = (LABEL,)
    strata = GRADING.classes
    lead = "auroc"
    grid = "t1"
    tasks = (GradingTask(GRADING, HEAD),)
    rules = (
        "As published (reference region): the segment's box and slice are given by hand.  End to"
        " end: the same fold's first stage proposes the segment.",
        "A proposal whose middle lies outside the reference box is a miss: the patient is wrong,"
        " and the probability is 0 for the patient's own class.",
        "The patient's probability of malignancy is the largest over the scored slices; the call"
        " is malignant from .5 on.  Malignant is the positive class.",
        "The first stage is trained on the annotated slice and its two neighbours; on the others"
        " the segment is not annotated.",
        "Intervals are 95 % patient-bootstrap percentile intervals over all folds pooled, unless a"
        " table names another method.",
    )
    limits = ("External performance in the field drops to about .75 to .85.",)
    published = (
        Published("accuracy_malignant", 0.92, 190, "patients", YEH, THEIRS),
        Published("sensitivity_malignant", 0.94, 50, "malignant", YEH, THEIRS, (0.84, 0.98)),
        Published("specificity_malignant", 0.91, 140, "benign", YEH, THEIRS, (0.85, 0.95)),
        *(
            Published(
                "accuracy_malignant",
                value,
                190,
                "patients",
                f"{YEH}: {who}",
                "readers, not a model",
            )
            for who, value in (
                ("senior radiologist", 0.98),
                ("fourth-year resident", 0.96),
                ("first-year resident", 0.66),
            )
        ),
    )

    def __init__(self, find: SegmentDetection, grade: SegmentGrading):
        self.find, self.grade = find, grade
        self.stages = (find, grade)
        self.graders = {cases.MODEL: grade}

    def stratum(self, study: Study) -> int | None:
        """Benign or malignant."""
        return int(study[LABEL]) if study[LABEL] >= 0 else None

    def locate(self, studies: Sequence[Study], predict: Predict) -> list[Located]:
        """The segment that the U-Net proposes."""
        inputs = [self.find.inference_examples(s) for s in studies]
        outputs = predict_parts(predict, self.find.name, inputs)
        places = [propose(self.find.decode(s, o)) for s, o in zip(studies, outputs, strict=True)]
        return [Located([] if place is None else [place]) for place in places]

    def reference(self, study: Study) -> Located:
        """The segment given by hand."""
        return Located([reference_place(study)])

    def cut(self, grader: Any, study: Study, located: Located) -> Examples:
        """Squares around the segment, one per scored slice."""
        return grader.cut(study, located.regions[0] if located.regions else None)

    def seen(self, outputs: dict[str, np.ndarray], crops: Examples, located: Located) -> Any:
        """Of the scored slices the one whose probability of malignancy is the largest."""
        if not located.regions:
            return {}, None, None
        decisive = [int(outputs[HEAD.name][:, 1].argmax())]
        attention = outputs["attention"][decisive] if "attention" in outputs else None
        return {HEAD.name: outputs[HEAD.name][decisive]}, crops["image"][decisive], attention

    @property
    def label_names(self) -> dict[str, dict[int, str]]:
        """The box of the segment, on its slice."""
        return {"": {1: "segment"}}

    def spot(self, region: Place) -> Spot:
        """The box on its slice."""
        return spot_of(region)

    def grades(self, study: Study) -> Mapping[str, Mapping[str, int]]:
        """One case, the patient's segment, where it has a label."""
        return {study["study_id"]: {LABEL: int(study[LABEL])}} if study[LABEL] >= 0 else {}

    def pairs(self, study: Study, located: Located) -> Mapping[str, int | None]:
        """The proposal, if its middle lies in the reference box."""
        there = bool(located.regions) and hit(located.regions[0], reference_place(study))
        return {study["study_id"]: 0 if there else None}

    def features(self, study: Study, located: Located) -> np.ndarray:
        """See `segments.hand_features`."""
        return np.array([hand_features(study, place) for place in located.regions])

    def region_rows(self, study: Study, reading: Reading) -> list[Row]:
        """One row: whether the segment was found, and how far off."""
        number, box = reference_place(study)
        row: Row = {
            "kind": "regions",
            "regions_found": int(self.pairs(study, reading.located)[study["study_id"]] is not None),
            "box_iou": 0.0,
            "slice_error_mm": "",
        }
        for found, place in reading.located.regions:
            row["box_iou"] = round(box_iou(place, box), 6)
            if sized(study):
                row["slice_error_mm"] = round(abs(found - number) * float(spacing_of(study)[0]), 3)
        return [row]

    def region_figures(self, rows: Sequence[Row], settings: Mapping[str, int]) -> dict[str, Any]:
        """Share of segments found, overlap of the boxes, error of the slice."""
        return estimates.means([r for r in rows if r["kind"] == "regions"], FIGURES, **settings)

    def case_columns(self, study: Study, case: str, located: Located, number: int | None) -> Row:
        """The level, what readers called, and what they found."""
        return {"level": study["level"], **reader_columns(study, GRADING)}

    def picture(
        self, study: Study, reading: Reading, reference: Study | None, phantom: bool
    ) -> bytes:
        """T1 and T2 with the given and the found box, and the crops with Grad-CAM."""
        given = [reference_place(reference)] if reference else []
        places = [*reading.located.regions, *given]
        shown = places[0][0] if places else len(study["t1"]) // 2
        boxes = [(*box, REFERENCE_COLOUR, "by hand") for _, box in given]
        boxes += [(*box, FOUND_COLOUR, "found") for _, box in reading.located.regions]
        panels = [
            pictures.Panel(
                name.upper(),
                study[name][shown],
                pixel_of(study),
                boxes=tuple(boxes),
                letters=letters_of(study),
            )
            for name in ("t1", "t2")
        ]
        middle = {"T1": 1, "T2": 4}  # the slice itself, between its neighbours
        for name, channel in middle.items():
            panels += explained.panels(reading, {0: name}, channel)
        title = [titled(study, shown, len(study["t1"])), *self.calls_of(reading)]
        return pictures.sheet(panels, title, phantom=phantom, scale_bar=sized(study))

    def facts(self, rows: Sequence[Row]) -> list[tuple[str, str]]:
        """Reference and call, and what readers called."""
        return [*super().facts(rows), *reader_facts(rows)]

    def summarise(self, rows: Sequence[Row], resamples: int, seed: int) -> dict[str, Any]:
        """See `System.summarise`; tables of readers and findings too, where the cohort has them."""
        report = super().summarise(rows, resamples, seed)
        if tables := reader_tables(rows, GRADING, (BY_HAND, DETECTED), resamples, seed):
            report["tables"] += tables
            report["tables_title"] = TITLE
        return report


def check(config: StudyConfig) -> None:
    """Checks all options and files; raises UserError before any work is done."""
    build(config).grade.check_weights(CHANNELS)


def build(config: StudyConfig, fitted: Mapping[str, Any] = NOTHING) -> VertebralFracture:
    """The system, with what was measured and fitted, see `System.measure` and `System.fit`."""
    find, grade = stage_options(config, STAGES)
    if grade.heads != (HEAD.name,):
        raise UserError(f"config.stages.grades.heads is {grade.heads}; it must be ('malignant',).")
    return VertebralFracture(
        SegmentDetection("segments", find, ("segment",), canvas_in(fitted, "segments", find.patch)),
        SegmentGrading("grades", grade, (HEAD,)),
    )
