"""What was found in one study: plain values, for files that others read.

Nothing here knows a network or a system.  A study is called by its pseudonym, and nothing of a
file's header is in a result: what identifies a patient cannot be written by accident.
"""

import dataclasses
import itertools
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from mskjax.imaging.volume import Volume

DISCLAIMER = "Research use only, not a medical device"
_SUM_TOLERANCE = 1e-3  # float32, or figures that were rounded

Point = tuple[float, float, float]


@dataclasses.dataclass(frozen=True)
class Grade:
    """One grading of one region.

    Attributes:
      task: of the grading, e.g. ``pfirrmann``.
      call: the class that is called.
      probabilities: calibrated, by class, in the order of the classes; they sum to 1.
      ordinal: whether the order of the classes means something.
      prediction_set: classes of the conformal set, which may be empty; None where none is fitted.
      agreement: share of the ensemble's members that make the same call; None of one member.
    """

    task: str
    call: str
    probabilities: Mapping[str, float]
    ordinal: bool = False
    prediction_set: tuple[str, ...] | None = None
    agreement: float | None = None

    def __post_init__(self) -> None:
        values = list(self.probabilities.values())
        if not all(0 <= p <= 1 for p in values) or abs(math.fsum(values) - 1) > _SUM_TOLERANCE:
            raise ValueError(f"probabilities of {self.task} do not sum to 1: {values}")
        unknown = {self.call, *(self.prediction_set or ())} - set(self.probabilities)
        if unknown:
            raise ValueError(f"{sorted(unknown)} are no classes of {self.task}")


@dataclasses.dataclass(frozen=True)
class Box:
    """A box along the axes of the input's grid.

    Attributes:
      start: first voxel (i, j, k).
      stop: voxel (i, j, k) behind the last.
      corners_mm: its 8 corners in RAS mm, on the faces of the outer voxels; i runs slowest.
    """

    start: tuple[int, int, int]
    stop: tuple[int, int, int]
    corners_mm: tuple[Point, ...]

    @classmethod
    def on(cls, affine: np.ndarray, start: Sequence[int], stop: Sequence[int]) -> "Box":
        """A box on a grid.

        Args:
          affine: (4, 4) of the grid, voxel index to RAS mm.
          start: first voxel (i, j, k).
          stop: behind the last.
        """
        low, high = (tuple(int(v) for v in bound) for bound in (start, stop))
        if len(low) != 3 or len(high) != 3 or any(a >= b for a, b in zip(low, high, strict=True)):
            raise ValueError(f"{low} to {high} is no box")
        faces = np.array(list(itertools.product(*zip(low, high, strict=True)))) - 0.5
        corners = faces @ affine[:3, :3].T + affine[:3, 3]
        points = tuple((float(x), float(y), float(z)) for x, y, z in corners)
        return cls((low[0], low[1], low[2]), (high[0], high[1], high[2]), points)


@dataclasses.dataclass(frozen=True)
class Region:
    """A region that was looked for, e.g. a disc.

    Attributes:
      name: as radiologists say it, e.g. ``L5/S1`` (`imaging.levels.level_name`), or ``segment``.
      caveat: what the name rests on, e.g. `imaging.levels.CAVEAT`.
      level: of a disc, 1 for the lowest.
      score: of the detector, 0 to 1.
      box: where it lies.
      grades: empty where it is not graded, or was not found.
      note: e.g. ``not found``.
    """

    name: str
    caveat: str = ""
    level: int | None = None
    score: float | None = None
    box: Box | None = None
    grades: tuple[Grade, ...] = ()
    note: str = ""


@dataclasses.dataclass(frozen=True)
class Mask:
    """A label map.

    Attributes:
      name: empty for the first of a study, e.g. ``levels`` for another.
      volume: uint8 labels on the input's own grid, in its own order of axes.
      labels: names of the labels, those that are not in the volume too; 0 is the background.
    """

    name: str
    volume: Volume
    labels: Mapping[int, str]

    def __post_init__(self) -> None:
        if self.volume.data.dtype != np.uint8:
            raise ValueError(f"labels are uint8, not {self.volume.data.dtype}")


class Flag(NamedTuple):
    """A reason to look twice.

    Attributes:
      kind: ``region_missed``, ``levels``, ``spacing``, ``intensity``, ``size`` or ``disagreement``.
      text: a sentence.
    """

    kind: str
    text: str


@dataclasses.dataclass(frozen=True)
class Result:
    """What was found in one study.

    Attributes:
      study: its pseudonym, or its id where ids are kept.
      system: name of the system.
      title: of the system, for people.
      run: JSON; what the study was read with: versions, fingerprint of the cohort, commit, members,
        calibration.
      series: channel -> the series that was chosen, in words.
      regions: in the order in which they are reported.
      masks: all on the grid of one channel.
      flags: reasons to look twice.
      volumes_ml: of each structure, ml; empty where lengths are not known.
      notes: what is worth knowing of the study, sentences.
      picture: PNG.
      coverage: stated coverage of the conformal sets, 0 to 1; None where none are fitted.
      sources: DICOM files that were read, by channel; empty of other formats.
      frames: of the sources, by channel: file -> numbers, from 0, of the frames that were read,
        where these are not all that a multi-frame file has.
    """

    study: str
    system: str
    title: str
    run: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    series: Mapping[str, str] = dataclasses.field(default_factory=dict)
    regions: tuple[Region, ...] = ()
    masks: tuple[Mask, ...] = ()
    flags: tuple[Flag, ...] = ()
    volumes_ml: Mapping[str, float] = dataclasses.field(default_factory=dict)
    notes: tuple[str, ...] = ()
    picture: bytes | None = None
    coverage: float | None = None
    sources: Mapping[str, Sequence[Path]] = dataclasses.field(default_factory=dict)
    frames: Mapping[str, Mapping[Path, Sequence[int]]] = dataclasses.field(default_factory=dict)

    def without_images(self) -> "Result":
        """All but masks and picture, for `summary.write_summary` over many studies."""
        return dataclasses.replace(self, masks=(), picture=None)
