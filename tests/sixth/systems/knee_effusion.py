"""Knee effusion on sagittal T2: a U-Net finds the suprapatellar recess, a small VGG grades it.

A toy, which shows that a system is a declaration: its grades (absent, small, large) are invented,
no paper stands behind it, and what it says of a knee means nothing.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from mskjax.config import StudyConfig
from mskjax.imaging.intensity import standardised
from mskjax.metrics.grading import Grading
from mskjax.stages.grading import Head
from mskjax.stages.image_grading import ImageGradingOptions
from mskjax.stages.region_grading import RegionGrading
from mskjax.stages.slice_segmentation import SliceSegmentation, SliceSegmentationOptions
from mskjax.training.stage import Study
from mskjax.two_stage.grading_task import GradingTask
from mskjax.two_stage.options import NOTHING, canvas_in, stage_options
from mskjax.two_stage.region_then_grade import RegionThenGrade
from mskjax.two_stage.regions_then_grades import Located

GRADES = Grading("effusion", ("absent", "small", "large"), ordinal=True)
HEAD = Head("effusion", 3)
STAGES = {"regions": SliceSegmentationOptions, "grades": ImageGradingOptions}


class KneeEffusion(RegionThenGrade):
    """See the module."""

    name = "knee_effusion"
    title = "Knee effusion on sagittal T2 (a toy)"
    colours, column = {1: ("suprapatellar recess", (86, 180, 233))}, "effusion"
    tasks, lead = (GradingTask(GRADES, HEAD),), "quadratic_weighted_kappa"
    rules = ("A knee whose recess is not found is wrong.",)
    limits = ("A toy: its grades are invented.",)
    published = ()

    def features(self, study: Study, located: Located) -> np.ndarray:
        """(1, 2) mean of the standardised image in the recess, and the recess in voxels."""
        values = standardised(study["image"])[located.mask > 0]
        return np.array([[values.mean(), len(values)]])


def check(config: StudyConfig) -> None:
    """Checks all options and files."""
    build(config).grade.check_weights(channels=1)


def build(config: StudyConfig, fitted: Mapping[str, Any] = NOTHING) -> KneeEffusion:
    """The system, with what was measured and fitted."""
    find, grade = stage_options(config, STAGES)
    return KneeEffusion(
        SliceSegmentation("regions", find, ("recess",), canvas_in(fitted, "regions", find.patch)),
        RegionGrading("grades", grade, (HEAD,)),
    )
