"""Fatty infiltration of the supraspinatus on shoulder MRI: a U-Net finds the fossa, VGG-19 grades.

After Saavedra et al., Front Med 2024, 10.3389/fmed.2024.1416169, and their Front Med
2023;10:1070499.  Theirs: the two networks, the Y-view, five folds, the binary tasks A to E of 2023.
Open and therefore ours (fields of the config): which task the 2024 figures belong to (their
equality with task A of 2023 suggests A), input size, margin, augmentation, the recipe, and the
joint training of tasks as heads of one network.  The grades are Goutallier's (Clin Orthop
1994;304:78-83): 0 no fat, 1 streaks, 2 less fat than muscle, 3 as much, 4 more.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from mskjax.config import StudyConfig
from mskjax.errors import UserError
from mskjax.imaging.intensity import standardised
from mskjax.metrics.grading import Grading
from mskjax.metrics.structures import NSD_TOLERANCE_MM
from mskjax.stages.grading import Head
from mskjax.stages.image_grading import ImageGradingOptions
from mskjax.stages.region_grading import RegionGrading
from mskjax.stages.slice_segmentation import SliceSegmentation, SliceSegmentationOptions
from mskjax.tables import Row
from mskjax.training.stage import Study
from mskjax.two_stage.grading_task import GradingTask
from mskjax.two_stage.options import NOTHING, canvas_in, stage_options
from mskjax.two_stage.region_then_grade import RegionThenGrade
from mskjax.two_stage.regions_then_grades import Located
from mskjax.two_stage.system import Published, pixel_of

STRUCTURES = ("fossa",)
COLOURS = {1: ("supraspinatus fossa", (230, 159, 0))}
CHANNELS = 1
# Class of grades 0 to 4 in each task of the 2023 paper; -1 is left out of the task.
TASKS: Mapping[str, tuple[int, ...]] = {
    "A": (0, 0, -1, 1, 1),
    "B": (0, 0, 1, 1, 1),
    "C": (0, 0, 1, -1, -1),
    "D": (0, 0, 0, 1, 1),
    "E": (-1, -1, 0, 1, 1),
}
ORDINAL = "goutallier"
ALWAYS = "D"  # the task that leaves no grade out: a clinic cannot leave grade 2 out either
HEADS = {name: Head(name, 2, column="grade", grouped=classes) for name, classes in TASKS.items()}
HEADS[ORDINAL] = Head(ORDINAL, 5, column="grade")

SAAVEDRA = "Saavedra et al., Front Med 2024, 10.3389/fmed.2024.1416169"
# Called a 95 % interval there; it is symmetrical and goes beyond 1, so it is a spread of folds.
FOLDS = "± {} over five folds"
EARLIER = "Front Med 2023;10:1070499, task {}"
THEIRS = (
    "900 images of 606 shoulders of one centre; their folds, task and recipe are not published;"
    " mean over five folds"
)

STAGES = {"regions": SliceSegmentationOptions, "grades": ImageGradingOptions}


class FattyInfiltration(RegionThenGrade):
    """See the module."""

    name = "fatty_infiltration"
    title = "Fatty infiltration of the supraspinatus: U-Net and VGG-19 on the Y-view"
    colours, column, lead = COLOURS, "grade", "auroc"
    rules = (
        "Task A: Goutallier grades 0, 1 against 3, 4; B: 0, 1 against 2, 3, 4; C: 0, 1 against 2;"
        " D: 0, 1, 2 against 3, 4; E: 2 against 3, 4.  Task D, which leaves no grade out, is always"
        " reported.",
        "A task is read from its own head.  Where the network has no head of task D, its figures"
        " are those of the first task's probability on all grades.",
        "A held-out image is graded on the region that the same fold's own U-Net found;"
        " oracle_region repeats the figures on the reference region.  An image without a found"
        " region is wrong, and its probability is 0 for its own class.",
        "The call is the class of probability .5 or more.",
        "Dice, IoU, PPV, sensitivity and surface metrics are computed per image on the native grid"
        f" and averaged over patients' images.  NSD uses a tolerance of {NSD_TOLERANCE_MM:g} mm.",
        "loss is the first stage's (cross-entropy and soft Dice), log_loss the grader's"
        " cross-entropy in nats.",
        "Intervals are 95 % patient-bootstrap percentile intervals over all folds pooled; mean and"
        " SD over folds, as the paper prints them, stand in a table of their own.",
    )
    limits = (
        "Which task, input size and recipe the 2024 paper used is open; ours are in the recipe.",
    )
    published = (
        *(
            Published(metric, value, n, of, SAAVEDRA, THEIRS, spread=FOLDS.format(around))
            for metric, value, around, n, of in (
                ("dice_fossa", 0.9441, ".0031", 900, "images"),
                ("pixel_accuracy_fossa", 0.9977, ".0002", 900, "images"),
                ("auroc_task_a", 0.9903, ".0092", None, "task not stated"),
                ("accuracy_task_a", 0.9731, ".0230", None, "task not stated"),
                ("sensitivity_task_a", 0.9000, ".0980", None, "task not stated"),
                ("specificity_task_a", 0.9788, ".0257", None, "task not stated"),
            )
        ),
        Published("auroc_task_d", 0.977, 606, "shoulders", EARLIER.format("D"), THEIRS),
        Published("accuracy_task_d", 0.942, 606, "shoulders", EARLIER.format("D"), THEIRS),
        Published("auroc_task_a", 0.991, None, "task A", EARLIER.format("A"), THEIRS),
        Published("sensitivity_task_a", 0.947, None, "task A", EARLIER.format("A"), THEIRS),
        Published("specificity_task_a", 0.975, None, "task A", EARLIER.format("A"), THEIRS),
        Published(
            "cohen_kappa_goutallier",
            0.51,
            None,
            "readers",
            "agreement of readers on Goutallier grades",
            "five grades, between readers; no model is meant",
            needs="a head for goutallier in config.stages.grades.heads",
        ),
    )

    def __init__(self, find: SliceSegmentation, grade: RegionGrading):
        super().__init__(find, grade)
        heads = [h.name for h in grade.heads]
        binary = [name for name in heads if name in TASKS]
        self.tasks = tuple(
            GradingTask(
                Grading(f"task_{name.lower()}", ("low_grade", "high_grade")),
                HEADS[name if name in heads else binary[0]],
                target=HEADS[name],
            )
            for name in dict.fromkeys([*binary, ALWAYS])
        )
        if ORDINAL in heads:
            five = Grading(ORDINAL, tuple(f"grade_{k}" for k in range(5)), ordinal=True)
            self.tasks += (GradingTask(five, HEADS[ORDINAL]),)

    def features(self, study: Study, located: Located) -> np.ndarray:
        """(1, 5) mean, deviation, 90th percentile, share of bright pixels, area in mm2.

        Intensities are those of the standardised image; bright means above its mean plus one SD,
        where fat lies on T2.
        """
        values = standardised(study["image"])[located.mask > 0]
        rows, columns = pixel_of(study)
        bright, area = (values > 1).mean(), len(values) * rows * columns
        return np.array([[values.mean(), values.std(), np.percentile(values, 90), bright, area]])

    def case_columns(self, study: Study, case: str, located: Located, number: int | None) -> Row:
        """The side."""
        return {"side": study["side"]}


def check(config: StudyConfig) -> None:
    """Checks all options and files; raises UserError before any work is done."""
    build(config).grade.check_weights(CHANNELS)


def build(config: StudyConfig, fitted: Mapping[str, Any] = NOTHING) -> FattyInfiltration:
    """The system, with what was measured and fitted, see `System.measure` and `System.fit`."""
    find, grade = stage_options(config, STAGES)
    unknown = set(grade.heads) - set(HEADS)
    if unknown or not grade.heads or grade.heads[0] not in TASKS:
        raise UserError(
            f"config.stages.grades.heads is {grade.heads}; the first must be a task"
            f" ({', '.join(TASKS)}), the others any of {', '.join(HEADS)}."
        )
    return FattyInfiltration(
        SliceSegmentation("regions", find, STRUCTURES, canvas_in(fitted, "regions", find.patch)),
        RegionGrading("grades", grade, tuple(HEADS[name] for name in grade.heads)),
    )
