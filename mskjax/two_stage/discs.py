"""What systems that grade the discs of a spine share: levels, calls, which discs are explained."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from mskjax.data.pipeline import Examples
from mskjax.imaging.levels import level_name
from mskjax.reporting import explained, pictures
from mskjax.stages.grading import Head
from mskjax.tables import Row
from mskjax.training.stage import Study
from mskjax.two_stage.regions_then_grades import Located, Reading, RegionsThenGrades

# Signs that SPIDER and SpineNet grade beside Pfirrmann and Modic.
SIGNS = (
    Head("narrowing", 4),
    Head("bulging", 2),
    Head("herniation", 2),
    Head("spondylolisthesis", 3),
    Head("upper_endplate", 2),
    Head("lower_endplate", 2),
)


# Labels of a map of discs.
LEVELS = {level: f"disc {level_name(level)}" for level in range(1, 24)}


class GradedDiscs(RegionsThenGrades):
    """Base of such systems: many regions a study, each with a ``level``, 1 the lowest.

    Case ids end with the level, see `level_of`; graders see crops (slices, rows, cols, channels).

    Attributes:
      shown_channel: of the crops, in pictures.
    """

    shown_channel: int = 0

    def seen(self, outputs: dict[str, np.ndarray], crops: Examples, located: Located) -> Any:
        """The middle slice of each crop."""
        heads, image, heat = super().seen(outputs, crops, located)
        middle = image[:, image.shape[1] // 2, ..., self.shown_channel]
        return heads, middle, None if heat is None else heat[:, heat.shape[1] // 2]

    def case_columns(self, study: Study, case: str, located: Located, number: int | None) -> Row:
        """The level, and the level that the found disc was given."""
        level = level_of(case)
        found = "" if number is None else located.regions[number].level
        return {"name": level, "level": f"level {level}", "level_found": found}

    def region_columns(self, study: Study, located: Located, number: int) -> Row:
        """The level that the disc was given."""
        level = located.regions[number].level
        return {"name": level, "case": case_id(study, level), "level": f"level {level}"}

    def call(self, reading: Reading, number: int | None) -> int:
        """Class of the first task that a region is given; `Grading.missed` where there is none."""
        grading = self.tasks[0].grading
        p = reading.of(self.method, self.tasks[0], number)
        return grading.missed if p is None else int(grading.calls(p[None])[0])

    def grad_cams(self, reading: Reading, reference: Study | None) -> Sequence[pictures.Panel]:
        """What the first grader looked at in two discs: the furthest off, then the worst grades."""
        located = reading.located
        known: dict[int, int] = {}
        if reference is not None:
            pairs = self.pairs(reference, located)
            classes = {c: self.tasks[0].class_of(g) for c, g in self.grades(reference).items()}
            known = {n: classes[c] for c, n in pairs.items() if n is not None and classes[c] >= 0}

        def urgency(number: int) -> tuple[int, int]:
            call = self.call(reading, number)
            right = known.get(number, call)
            return abs(call - right), right

        worst = sorted(range(len(located.regions)), key=urgency, reverse=True)[:2]
        names = {i: level_name(located.regions[i].level) for i in worst}
        return explained.panels(reading, names)


def case_id(study: Study, level: int) -> str:
    """Id of a graded disc."""
    return f"{study['study_id']}/{level}"


def level_of(case: str) -> int:
    """Level of a case, 1 the lowest."""
    return int(case.rpartition("/")[2])
