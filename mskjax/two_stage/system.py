"""What a system declares.  The journey that runs the declaration is in `mskjax.study`."""

import abc
import dataclasses
import itertools
import types
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np

from mskjax.cases import MODEL
from mskjax.data.pipeline import Examples, concatenate, count
from mskjax.imaging.planes import edge_letters
from mskjax.metrics.grading import Grading
from mskjax.tables import Row
from mskjax.training.stage import Stage, Study


class Predict(Protocol):
    """Runs the networks of a training."""

    def __call__(
        self, stage: str, examples: Examples, /, *, untrained: bool = False
    ) -> dict[str, np.ndarray]:
        """What one of them says.

        Args:
          stage: its name.
          examples: N of them.
          untrained: with random weights (`random_weights.untrained`), whose maps are held against
            those of the training.

        Returns:
          Arrays of N rows, as `Stage.activate` and `Stage.explain` name them.
        """


@dataclasses.dataclass(frozen=True)
class Published:
    """A published figure, set beside ours as a reference and never as a claim.

    Attributes:
      metric: name of our figure, with its task.
      value: as published.
      n: how many it was measured on; None where that is not published.
      of: what `n` counts, or what is known instead.
      source: the publication.
      why: it is not comparable with ours.
      ci: 95 % interval, of patients or cases.
      spread: what is published of how the value varies and is no such interval, in words.
      needs: what a run must have for a figure of ours, where the default run has none.
    """

    metric: str
    value: float
    n: int | None
    of: str
    source: str
    why: str
    ci: tuple[float, float] | None = None
    spread: str = ""
    needs: str = ""

    def __post_init__(self) -> None:
        low, high = self.ci or (0.0, 1.0)
        if not 0 <= low <= high <= 1:
            raise ValueError(f"{self.metric}: {self.ci} is no interval of a share; see spread")

    def as_json(self) -> dict[str, Any]:
        """The row of report.json; no published figure here shares cohort and protocol with us."""
        return {**dataclasses.asdict(self), "comparable": False}


class Spot(NamedTuple):
    """Where a region that was found lies, on the grid of its study.

    Attributes:
      bounds: (3, 2) first and end of slices, rows and columns, half-open.
      label: of the region in the first of `System.masks`.
      level: of a disc, 1 the lowest; None where regions have none.
      score: confidence of a detector; None where there is none.
    """

    bounds: np.ndarray
    label: int
    level: int | None = None
    score: float | None = None


class Member(NamedTuple):
    """One of several trainings of a system.

    Attributes:
      system: as it was fitted there.
      predict: runs one of its networks.
    """

    system: "System"
    predict: Predict


class Joint(NamedTuple):
    """What several trainings say of one study together, and each of them alone.

    Attributes:
      reading: of all together.
      rows: of each, its `System.columns` on the regions that all found together.
      masks: of each, the first of `System.masks` as its own first stage gives it.
    """

    reading: Any
    rows: Sequence[list[Row]]
    masks: Sequence[np.ndarray]


class System(abc.ABC):
    """A two-stage system: stages, hand-over, scoring.

    Attributes:
      name: as in ``config.system``.
      title: for the report.
      stages: in the order in which they are trained.
      labels: features of a study that hold its grades; a control run shuffles them.
      strata: names of the classes of `stratum`, from 0 on.
      primary: the end-to-end figure that leads the report.
      structures: names of the labels 1, 2, ... of the masks; empty where there are none.
      grid: the volume of a study that gives the grid.
      gradings: what is graded, in the order of the report.
      segmenter: method of the rows of cases.csv of structures that the system segments end to end;
        empty where no others are compared.
      answers: of questions of reporting standards that this system answers otherwise than others,
        see `reporting.checklist_answers`.
      recuts: whether the stages after the first are cut anew for each fold, see `recut`.
    """

    name: str
    title: str
    stages: tuple[Stage, ...]
    labels: tuple[str, ...]
    strata: tuple[str, ...] = ()
    primary: str
    structures: tuple[str, ...] = ()
    grid: str = "image"
    gradings: tuple[Grading, ...] = ()
    recuts: bool = False
    segmenter: str = ""
    published: tuple[Published, ...]
    answers: Mapping[str, str] = types.MappingProxyType({})
    rules: tuple[str, ...]  # scoring rules, printed in the report
    limits: tuple[str, ...]

    @abc.abstractmethod
    def stratum(self, study: Study) -> int | None:
        """Class of a study by which folds are stratified; None where it has none.

        Args:
          study: its outline, whose volumes have no values (`tfds_builders.outlines`).
        """

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

    def measure(self, studies: Sequence[Study]) -> dict[str, Any]:
        """What the stages must know of a cohort before anything is cut; no label enters.

        Args:
          studies: outlines, whose volumes have shapes and no values (`tfds_builders.outlines`).

        Returns:
          JSON, for ``build(config, fitted)`` of the system's module.

        Raises:
          UserError: the system cannot be trained on this cohort.
        """
        sizes = {s.name: s.canvas_for(studies) for s in self.stages}
        return {"canvas": {name: list(size) for name, size in sizes.items() if size}}

    def fit(self, studies: Sequence[Study], train: Sequence[int]) -> dict[str, Any]:
        """What a fold fits on its training patients for reading, e.g. intensities.

        Networks stay the same.

        Args:
          studies: all of the cohort.
          train: numbers of the studies of the fold's training patients.

        Returns:
          JSON, for ``build(config, fitted)`` beside what `measure` gave.
        """
        return {}

    def recut(self, studies: Sequence[Study], predict: Predict) -> Sequence[Study]:
        """Studies as the stages after the first are trained on, where `recuts` says so.

        Args:
          studies: all of the cohort.
          predict: runs the fold's first stage, e.g. to find regions that have no reference.
        """
        return studies

    @property
    def method(self) -> str:
        """The method of columns of cases.csv that calls are made by."""
        return MODEL

    @property
    def label_names(self) -> dict[str, dict[int, str]]:
        """Names of the labels of each of `masks`."""
        return {"": dict(enumerate(self.structures, 1))}

    @abc.abstractmethod
    def masks(self, study: Study, reading: Any) -> dict[str, np.ndarray]:
        """Label maps of what is found in a study.

        Returns:
          Name, empty for the first, to (S, H, W) uint8 on the study's grid; 0 is background.
        """

    def spots(self, study: Study, reading: Any) -> list[Spot]:
        """Where the regions lie, in the order of the rows of `columns`."""
        return []

    def read_together(
        self, studies: Sequence[Study], members: Sequence[Member], regions: str = "predicted"
    ) -> list[Any]:
        """The readings of `read_jointly` alone, without what each training says."""
        return self.read(studies, combined(self.stages, members), regions)

    def read_jointly(
        self, studies: Sequence[Study], members: Sequence[Member], regions: str = "predicted"
    ) -> list[Joint]:
        """Applies several trainings of the system, an ensemble, to studies.

        Outputs of their networks are combined (`Stage.combine`) before anything is decided, so
        regions that all found together are graded by all.

        Args:
          studies: as for `read`.
          members: at least one; of equal options.
          regions: as for `read`.
        """
        members = [Member(m.system, remembered(m.predict)) for m in members]
        together = self.read_together(studies, members, regions)
        alone = [m.system.read(studies, m.predict, regions) for m in members]
        return [
            Joint(
                reading,
                [m.system.columns(study, own[i]) for m, own in zip(members, alone, strict=True)],
                [m.system.masks(study, own[i])[""] for m, own in zip(members, alone, strict=True)],
            )
            for i, (study, reading) in enumerate(zip(studies, together, strict=True))
        ]

    def columns(self, study: Study, reading: Any) -> list[Row]:
        """What is predicted of a study, in columns of cases.csv; no label is looked at.

        Returns:
          A row for each graded region that was found; none of systems that grade nothing.
        """
        return []

    @abc.abstractmethod
    def fit_baselines(self, studies: Iterable[Study]) -> dict[str, Any]:
        """Fits the trivial baselines on the training studies of a fold; JSON, for `score`.

        Args:
          studies: one after the other; keep none, or memory grows with the cohort.
        """

    def mean_baselines(self, fitted: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """What `fit_baselines` gave for several folds as one, for an ensemble of them."""
        return dict(fitted[0])

    @abc.abstractmethod
    def score(
        self, study: Study, predicted: Any, oracle: Any, baselines: Mapping[str, Any]
    ) -> list[Row]:
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

    def meaning(self) -> dict[str, Any]:
        """What numbers in its masks and gradings mean, and what images go through; JSON."""
        return {
            "system": self.name,
            "labels": {str(k): name for k, name in enumerate(self.structures, 1)},
            "gradings": [
                {
                    "task": g.task,
                    "classes": list(g.classes),
                    "ordinal": g.ordinal,
                    "call": g.rule,
                }
                for g in self.gradings
            ],
            "preprocessing": {s.name: s.preprocessing() for s in self.stages},
        }

    @property
    def sets(self) -> dict[str, dict[str, list[int]]]:
        """Task -> class -> the grades that it holds, of gradings that put grades together."""
        return {}

    def facts(self, rows: Sequence[Row]) -> list[tuple[str, str]]:
        """What stands beside the picture of a study: (name, text), from the study's rows."""
        return []

    @abc.abstractmethod
    def summarise(self, rows: Sequence[Row], resamples: int, seed: int) -> dict[str, Any]:
        """The figures of report.json, computed from the rows of cases.csv alone."""


def combined(stages: Sequence[Stage], members: Sequence[Member]) -> Predict:
    """Runs the networks of all members over the same examples and combines their outputs."""
    by_name = {stage.name: stage for stage in stages}

    def run(name: str, examples: Examples, /, *, untrained: bool = False) -> dict[str, np.ndarray]:
        each = [m.predict(name, examples, untrained=untrained) for m in members]
        return by_name[name].combine(each)

    return run


def remembered(predict: Predict) -> Predict:
    """The same, but the outputs of examples that it was given before are not computed again."""
    known: list[tuple[tuple[str, bool], Examples, dict[str, np.ndarray]]] = []

    def run(name: str, examples: Examples, /, *, untrained: bool = False) -> dict[str, np.ndarray]:
        asked = name, untrained
        for before, inputs, outputs in known:
            if before == asked and _same(inputs, examples):
                return outputs
        known.append((asked, examples, predict(name, examples, untrained=untrained)))
        return known[-1][2]

    return run


def _same(a: Examples, b: Examples) -> bool:
    return a.keys() == b.keys() and all(np.array_equal(a[k], b[k]) for k in a)


def spot_of(
    place: tuple[int, Sequence[float]],
    label: int = 1,
    level: int | None = None,
    score: float | None = None,
) -> Spot:
    """A box on a slice: number of the slice; row0, col0, row1, col1, half-open."""
    number, (row0, col0, row1, col1) = place
    bounds = np.array([(number, number + 1), (row0, row1), (col0, col1)], np.float64)
    return Spot(bounds, label, level, score)


def spacing_of(study: Study) -> np.ndarray:
    """(3,) voxel pitch along slices, rows and columns; mm, or pixels where `sized` is False."""
    return np.linalg.norm(study["affine"][:3, :3], axis=0)


def pixel_of(study: Study) -> tuple[float, float]:
    """Pitch of rows and columns, for a picture's proportions; see `spacing_of`."""
    _, rows, columns = spacing_of(study)
    return float(rows), float(columns)


def letters_of(study: Study) -> tuple[str, ...]:
    """Directions at the edges of a picture, see `planes.edge_letters`."""
    return edge_letters(study["affine"])


def titled(study: Study, number: int, count: int) -> str:
    """Title of the picture of one slice of a study."""
    return f"{study['study_id']}, slice {number + 1} of {count}"


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
    outputs: list[dict[str, np.ndarray]] = [{} for _ in parts]
    alike: dict[Any, list[int]] = {}  # studies of one size go together
    for number, part in enumerate(parts):
        alike.setdefault(tuple(v.shape[1:] for v in part.values()), []).append(number)
    for numbers in alike.values():
        sizes = [count(parts[i]) for i in numbers]
        if not sum(sizes):
            continue
        found = predict(stage, concatenate([parts[i] for i in numbers]))
        for i, (a, b) in zip(numbers, itertools.pairwise(np.cumsum([0, *sizes])), strict=True):
            outputs[i] = {k: v[a:b] for k, v in found.items()}
    return outputs
