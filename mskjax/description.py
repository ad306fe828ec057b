"""What an ensemble says of a new study, as the plain values that are written for others."""

import dataclasses
import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mskjax import profile, quality
from mskjax.calibration import Calibration
from mskjax.imaging.levels import CAVEAT, level_name
from mskjax.imaging.volume import Grid
from mskjax.metrics.grading import Grading
from mskjax.predictions import on_stored_grid
from mskjax.profile import Range
from mskjax.results.result import Box, Flag, Grade, Mask, Region
from mskjax.tables import Row
from mskjax.training.stage import Study
from mskjax.two_stage.system import Joint, Spot, System, sized

AGREEING_DICE = (
    0.7  # mean overlap of the members' masks with the joint one, below which they differ
)
_FEW = 10  # voxels; below, a structure is none


@dataclasses.dataclass(frozen=True)
class Describer:
    """Turns what was read into results.

    Attributes:
      system: that read.
      calibration: of the run.
      coverage: of the conformal sets.
      ranges: of the training studies, see `profile.ranges`.
      levels: least and greatest number of regions of a study of the run; None where not known.
    """

    system: System
    calibration: Calibration
    coverage: float
    ranges: Mapping[str, Range]
    levels: tuple[int, int] | None

    def regions(self, study: Study, joint: Joint) -> tuple[Region, ...]:
        """The regions with their grades; of a system that looks for one, also the one not found."""
        rows = self.system.columns(study, joint.reading)
        spots = self.system.spots(study, joint.reading)
        names = self.system.label_names[""]
        if self.system.gradings and not spots and len(names) == 1:
            return (Region(names[1], note="not found"),)
        found = []
        for number, (row, spot) in enumerate(zip(rows, spots, strict=True)):
            each = [own[number] for own in joint.rows]
            grades = tuple(self._grade(g, row, each) for g in self.system.gradings)
            box = _box(study, spot)
            if spot.level is None:
                found.append(Region(names[spot.label], score=spot.score, box=box, grades=grades))
            else:
                name = level_name(spot.level)
                found.append(Region(name, CAVEAT, spot.level, spot.score, box, grades))
        return tuple(found)

    def masks(self, study: Study, joint: Joint) -> tuple[Mask, ...]:
        """Label maps on the grid of the input."""
        names = self.system.label_names
        return tuple(
            Mask(name, on_stored_grid(study, mask), names[name])
            for name, mask in self.system.masks(study, joint.reading).items()
        )

    def volumes_ml(self, study: Study, joint: Joint) -> dict[str, float]:
        """Volume of each structure, ml; none where lengths are not known, or boxes are found."""
        if not self.system.structures or not sized(study):
            return {}
        mask = self.system.masks(study, joint.reading)[""]
        voxel = abs(float(np.linalg.det(study["affine"][:3, :3]))) / 1000
        return {
            name: float((mask == label).sum()) * voxel
            for label, name in enumerate(self.system.structures, 1)
        }

    def flags(self, study: Study, joint: Joint) -> tuple[Flag, ...]:
        """Reasons to look twice."""
        spots = self.system.spots(study, joint.reading)
        found = [*self._missed(study, joint, spots)]
        found += quality.flags(profile.measure(study), self.ranges)
        levels = [spot.level for spot in spots if spot.level is not None]
        if levels:
            gaps = max(levels) - min(levels) + 1 - len(set(levels))
            found += quality.level_flags(levels, gaps, self.levels)
        if len(joint.masks) > 1:
            found += [*self._apart(study, joint), *self._otherwise(study, joint)]
        return tuple(found)

    def _grade(self, grading: Grading, row: Row, each: Sequence[Row]) -> Grade:
        method, call = self.system.method, row[f"call_{grading.task}"]
        p = _probabilities(grading, row, method)
        calibrated = self.calibration.calibrated(grading.task, method, p)
        chosen = self.calibration.set_of(grading.task, method, p, self.coverage)
        same = [own[f"call_{grading.task}"] == call for own in each]
        return Grade(
            grading.task,
            call,
            {name: float(v) for name, v in zip(grading.classes, calibrated, strict=True)},
            grading.ordinal,
            tuple(name for name, is_in in zip(grading.classes, chosen, strict=True) if is_in),
            float(np.mean(same)) if len(same) > 1 else None,
        )

    def _missed(self, study: Study, joint: Joint, spots: Sequence[Spot]) -> list[Flag]:
        names = self.system.label_names[""]
        if not self.system.structures:
            what = next(iter(names.values())) if len(names) == 1 else "disc"
            return [] if spots else [Flag("region_missed", f"No {what} was found.")]
        mask = self.system.masks(study, joint.reading)[""]
        lacking = [name for k, name in names.items() if (mask == k).sum() < _FEW]
        return [Flag("region_missed", f"No {name} was found.") for name in lacking]

    def _apart(self, study: Study, joint: Joint) -> list[Flag]:
        """Structures that the members outline differently, each for itself."""
        mask = self.system.masks(study, joint.reading)[""]
        found = []
        for label, name in self.system.label_names[""].items():
            own = mask == label
            if not own.any():
                continue
            dice = [
                2 * (own & (other == label)).sum() / (own.sum() + (other == label).sum())
                for other in joint.masks
            ]
            if np.mean(dice) < AGREEING_DICE:
                text = (
                    f"The {len(dice)} networks outline the {name} differently: Dice of each with"
                    f" all together {min(dice):.2f} to {max(dice):.2f}."
                )
                found.append(Flag("disagreement", text))
        return found

    def _otherwise(self, study: Study, joint: Joint) -> list[Flag]:
        """Regions that the members grade differently."""
        found = []
        spots = self.system.spots(study, joint.reading)
        for number, spot in enumerate(spots):
            where = "" if spot.level is None else f"{level_name(spot.level)}: "
            for grading in self.system.gradings:
                p = [_probabilities(grading, r[number], self.system.method) for r in joint.rows]
                if (flag := quality.disagreement(grading, np.array(p)).flag) is not None:
                    found.append(Flag(flag.kind, f"{where}{flag.text}"))
        return found


def _probabilities(grading: Grading, row: Row, method: str) -> np.ndarray:
    return np.array([float(row[f"p_{method}_{grading.task}_{name}"]) for name in grading.classes])


def _box(study: Study, spot: Spot) -> Box:
    """A place on the study's grid as one on the grid of the input."""
    grid = Grid(tuple(int(n) for n in study["stored_shape"]), study["stored_affine"])
    step = np.linalg.inv(grid.affine) @ study["affine"]
    faces = np.array(list(itertools.product(*spot.bounds))) - 0.5
    placed = faces @ step[:3, :3].T + step[:3, 3] + 0.5
    low = np.clip(np.round(placed.min(0)), 0, np.array(grid.shape) - 1).astype(int)
    high = np.clip(np.round(placed.max(0)), low + 1, grid.shape).astype(int)
    return Box.on(grid.affine, low.tolist(), high.tolist())


def statements(system: System, calibration: Calibration, coverage: float) -> dict[str, Any]:
    """What probabilities and sets rest on, for each task."""
    return {g.task: calibration.statement(g.task, system.method, coverage) for g in system.gradings}
