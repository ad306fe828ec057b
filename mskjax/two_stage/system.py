"""What a system declares.  The journey that runs the declaration is in `mskjax.study`."""

import abc
import dataclasses
import itertools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from mskjax.data.pipeline import Examples, concatenate, count
from mskjax.tables import Row
from mskjax.training.stage import Stage, Study

Predict = Callable[[str, Examples], dict[str, np.ndarray]]  # (stage name, examples) -> outputs


@dataclasses.dataclass(frozen=True)
class Published:
    """A published figure, set beside ours as a reference and never as a claim."""

    metric: str
    value: float
    n: str
    source: str
    why: str
    ci: tuple[float, float] | None = None

    def as_json(self) -> dict[str, Any]:
        """The row of report.json; no published figure here shares cohort and protocol with us."""
        return {**dataclasses.asdict(self), "comparable": False}


class System(abc.ABC):
    """A two-stage system: stages, hand-over, scoring.

    Attributes:
      name: as in ``config.system``.
      title: for the report.
      stages: in the order in which they are trained.
      labels: features of a study that hold its grades; a control run shuffles them.
      strata: names of the classes of `stratum`, from 0 on.
      primary: the end-to-end figure that leads the report.
      recuts: whether the stages after the first are cut anew for each fold, see `adapted`.
    """

    name: str
    title: str
    stages: tuple[Stage, ...]
    labels: tuple[str, ...]
    strata: tuple[str, ...] = ()
    primary: str
    recuts: bool = False
    published: tuple[Published, ...]
    rules: tuple[str, ...]  # scoring rules, printed in the report
    limits: tuple[str, ...]

    @abc.abstractmethod
    def stratum(self, study: Study) -> int | None:
        """Class of a study by which folds are stratified; None where it has none."""

    @abc.abstractmethod
    def cases(self, study: Study) -> list[str]:
        """Ids of the graded cases of a study, ``study_id/...``."""

    def relabelled(self, study: Study, donor: Study) -> Study:
        """The study with the labels of another one, for a control run."""
        return {**study, **{name: donor[name] for name in self.labels}}

    @abc.abstractmethod
    def read(self, studies: Sequence[Study], predict: Predict, regions: str) -> list[Any]:
        """Applies the stages to studies.

        Args:
          studies: a handful at a time, so that outputs fit in memory.
          predict: runs one stage's network over examples.
          regions: ``predicted`` hands the first stage's regions on, as in use; ``reference``
            hands the reference regions on, as an oracle.

        Returns:
          One reading per study, the system's own type.
        """

    def adapted(
        self, studies: Sequence[Study], train: Sequence[int], predict: Predict
    ) -> tuple["System", Sequence[Study]]:
        """A fold's own system and studies, once its first stage is trained.

        For what the later stages need of a fold: intensities fitted on its training patients, and
        regions of studies that have no reference region, found by its own first stage.  Networks
        stay the same.

        Args:
          studies: all of the cohort.
          train: numbers of the studies of the fold's training patients.
          predict: runs the fold's first stage.
        """
        return self, studies

    @abc.abstractmethod
    def fit_baselines(self, studies: Sequence[Study]) -> Any:
        """Fits the trivial baselines on the training studies of a fold."""

    @abc.abstractmethod
    def score(self, study: Study, predicted: Any, oracle: Any, baselines: Any) -> list[Row]:
        """Rows of cases.csv of one held-out study (`mskjax.cases`); ``fold`` is the caller's."""

    @abc.abstractmethod
    def picture(self, study: Study, reading: Any, reference: Study | None, phantom: bool) -> bytes:
        """PNG of one study: image, reference, prediction.

        Args:
          study: what was read.
          reading: what `read` said of it.
          reference: the study with its labels; None where it has none.
          phantom: burn the word PHANTOM in.
        """

    def facts(self, rows: Sequence[Row]) -> list[tuple[str, str]]:
        """What stands beside the picture of a study: (name, text), from the study's rows."""
        return []

    @abc.abstractmethod
    def summarise(self, rows: Sequence[Row], resamples: int, seed: int) -> dict[str, Any]:
        """The figures of report.json, computed from the rows of cases.csv alone."""


def spacing_of(study: Study) -> np.ndarray:
    """(3,) voxel pitch along slices, rows and columns; mm, or pixels where `sized` is False."""
    return np.linalg.norm(study["affine"][:3, :3], axis=0)


def pixel_of(study: Study) -> tuple[float, float]:
    """Pitch of rows and columns, for a picture's proportions; see `spacing_of`."""
    _, rows, columns = spacing_of(study)
    return float(rows), float(columns)


def sized(study: Study) -> bool:
    """Whether the file of a study said how large its pixels are, so that lengths are in mm."""
    return bool(study.get("pixel_size_known", True))


def predict_parts(
    predict: Predict, stage: str, parts: Sequence[Examples]
) -> list[dict[str, np.ndarray]]:
    """Runs a stage over the examples of several studies at once and divides the outputs again.

    Args:
      predict: runs one stage over examples.
      stage: its name.
      parts: examples of each study; a study may have none.

    Returns:
      Outputs of each study; empty where no study has an example.
    """
    sizes = [count(p) for p in parts]
    if not sum(sizes):
        return [{} for _ in parts]
    outputs = predict(stage, concatenate(parts))
    ends = np.cumsum([0, *sizes])
    return [{k: v[a:b] for k, v in outputs.items()} for a, b in itertools.pairwise(ends)]
