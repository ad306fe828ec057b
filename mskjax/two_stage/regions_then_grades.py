"""Systems that find regions and grade each of them: how they read, score and summarise.

A system says what a region is, how regions are found and cut, which found region belongs to which
graded case, and what is graded.  Everything else is here, once.
"""

import abc
import dataclasses
import functools
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, cast

import numpy as np

from mskjax import cases, subgroups
from mskjax.baselines import Ridge
from mskjax.data.pipeline import Examples
from mskjax.imaging.levels import spoken
from mskjax.metrics import grading_figures as g
from mskjax.reporting import explained, graded
from mskjax.reporting.graded import Comparison
from mskjax.stages.grading import Grader
from mskjax.tables import Row
from mskjax.training.stage import ATTENTION, Study
from mskjax.two_stage.grading_task import GradingTask
from mskjax.two_stage.system import (
    Joint,
    Member,
    Predict,
    Spot,
    System,
    combined,
    predict_parts,
    remembered,
)

Grades = Mapping[str, int]  # column of the study -> grade of one case, -1 where missing


@dataclasses.dataclass(frozen=True)
class Located:
    """The regions of one study.

    Attributes:
      regions: R regions, of the system's own kind, in the order in which they are cut.
      mask: (S, H, W) uint8 on the native grid; empty where regions come without a mask.
      found: whatever else the first stage said (unsure detections, gaps, losses).
    """

    regions: Sequence[Any]
    mask: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros((0, 0, 0), np.uint8))
    found: Any = None


@dataclasses.dataclass(frozen=True)
class Reading:
    """What a system says of one study.

    Attributes:
      located: the regions.
      probabilities: method -> head -> (R, classes) float32.
      shown: (R, h, w, ...) what the first grader saw of each region, as pictures show it.
      attention: (R, h', w') Grad-CAM of the first head's call on what is shown, in logits.
      untrained: the same of a network with random weights; None where it was not asked.
    """

    located: Located
    probabilities: Mapping[str, Mapping[str, np.ndarray]]
    shown: np.ndarray | None = None
    attention: np.ndarray | None = None
    untrained: np.ndarray | None = None

    def of(self, method: str, task: GradingTask, number: int | None) -> np.ndarray | None:
        """(K,) probabilities of a task on a region; None where there is no such region."""
        heads = self.probabilities.get(method, {})
        if number is None or task.head.name not in heads:
            return None
        return task.probabilities(heads[task.head.name][number])


class RegionsThenGrades(System):
    """Base of such systems.

    Attributes:
      tasks: what is graded, in the order of the report; the first decides what a wrong case is.
      graders: method -> grader; the first is the one that is reported.
      comparison: of the methods; None where there is one, called `cases.MODEL`.
      lead: the figure of the first task that leads the report.
    """

    tasks: tuple[GradingTask, ...]
    graders: Mapping[str, Grader]
    comparison: Comparison | None = None
    lead: str

    @property
    def gradings(self) -> tuple[g.Grading, ...]:  # type: ignore[override]
        """Those of the tasks."""
        return tuple(t.grading for t in self.tasks)

    @property
    def sets(self) -> dict[str, dict[str, list[int]]]:
        """See `System.sets`."""
        return {t.grading.task: t.sets for t in self.tasks if t.sets}

    @property
    def primary(self) -> str:  # type: ignore[override]
        """The leading figure, by the name it has in the report."""
        (name,) = g.named({self.lead: None}, self.tasks[0].grading.task)
        return name

    # What a system says.

    @abc.abstractmethod
    def locate(self, studies: Sequence[Study], predict: Predict) -> list[Located]:
        """Regions that the first stage finds."""

    @abc.abstractmethod
    def reference(self, study: Study) -> Located:
        """The reference regions of a study; none where it has none."""

    @abc.abstractmethod
    def cut(self, grader: Grader, study: Study, located: Located) -> Examples:
        """What a grader sees of the regions, one or more examples a region."""

    @abc.abstractmethod
    def spot(self, region: Any) -> Spot:
        """Where a region lies."""

    @abc.abstractmethod
    def grades(self, study: Study) -> Mapping[str, Grades]:
        """Case id -> grades of the study's graded cases."""

    @abc.abstractmethod
    def pairs(self, study: Study, located: Located) -> Mapping[str, int | None]:
        """Case id -> number of the region that belongs to the case; None where it was missed."""

    @abc.abstractmethod
    def features(self, study: Study, located: Located) -> np.ndarray:
        """(R, F) hand-made features of the regions, R > 0, for the ridge baseline."""

    @abc.abstractmethod
    def region_rows(self, study: Study, reading: Reading) -> list[Row]:
        """Rows of cases.csv that score the regions against the reference."""

    @abc.abstractmethod
    def region_figures(self, rows: Sequence[Row], settings: Mapping[str, int]) -> dict[str, Any]:
        """Figures of the first stage from these rows."""

    def case_columns(self, study: Study, case: str, located: Located, number: int | None) -> Row:
        """Further columns of a case, such as its level, its side, or what readers said.

        Args:
          study: that the case is of.
          case: its id.
          located: what was found.
          number: of the region that belongs to the case; None where it was missed.
        """
        return {}

    def region_columns(self, study: Study, located: Located, number: int) -> Row:
        """Columns that name a region that was found: its case, and its level where it has one."""
        return {"case": study["study_id"]}

    def seen(self, outputs: dict[str, np.ndarray], crops: Examples, located: Located) -> Any:
        """Probabilities by head, what is shown and attention, from the outputs for a study.

        Args:
          outputs: of the grader, N examples; empty where there is none.
          crops: what `cut` gave.
          located: the regions.

        Returns:
          head -> (R, classes), shown (R, h, w, ...), attention (R, h', w') or None.
        """
        heat = outputs.get(ATTENTION)
        heads = {name: p for name, p in outputs.items() if name != ATTENTION}
        return heads, crops["image"], heat

    # What follows from it.

    def cases(self, study: Study) -> list[str]:
        """Ids of the graded cases."""
        return list(self.grades(study))

    def read(self, studies: Sequence[Study], predict: Predict, regions: str) -> list[Reading]:
        """See `System.read`."""
        return self.graded(studies, self._located(studies, predict, regions), predict, regions)

    def _located(
        self, studies: Sequence[Study], predict: Predict, regions: str
    ) -> Sequence[Located]:
        if regions == "reference":
            return [self.reference(s) for s in studies]
        return self.locate(studies, predict)

    def graded(
        self,
        studies: Sequence[Study],
        located: Sequence[Located],
        predict: Predict,
        regions: str = "predicted",
    ) -> list[Reading]:
        """Grades the regions of each study.

        Args:
          studies: to read.
          located: their regions.
          predict: runs the networks.
          regions: whose they are, see `read`: of reference regions nobody looks at maps.
        """
        probabilities: list[dict[str, Any]] = [{} for _ in studies]
        pictured: list[tuple[Any, ...]] = []
        for method, grader in self.graders.items():
            crops = [self.cut(grader, s, where) for s, where in zip(studies, located, strict=True)]
            outputs = predict_parts(predict, grader.name, crops)
            seen = [self.seen(*own) for own in zip(outputs, crops, located, strict=True)]
            for own, (heads, _, _) in zip(probabilities, seen, strict=True):
                own[method] = heads
            if method == self.method:
                bare: list[Any] = [None] * len(studies)
                if regions != "reference" and any(ATTENTION in output for output in outputs):
                    random = functools.partial(predict, untrained=True)
                    maps = predict_parts(random, grader.name, crops)
                    changed = map(_with_map_of, outputs, maps)
                    bare = [self.seen(*own)[2] for own in zip(changed, crops, located, strict=True)]
                pictured = [(*own[1:], other) for own, other in zip(seen, bare, strict=True)]
        return [
            Reading(where, p, *picture)
            for where, p, picture in zip(located, probabilities, pictured, strict=True)
        ]

    def read_together(
        self, studies: Sequence[Study], members: Sequence[Member], regions: str = "predicted"
    ) -> list[Reading]:
        """See `System.read_together`; each training cuts the regions as it was fitted to."""
        readings = self._graded_by_each(studies, members, regions)
        return [_mean(each) for each in zip(*readings, strict=True)]

    def _graded_by_each(
        self, studies: Sequence[Study], members: Sequence[Member], regions: str
    ) -> list[list[Reading]]:
        """What each training says of the regions that all find together."""
        located = self._located(studies, combined(self.stages, members), regions)
        own: list[Any] = [m.system for m in members]  # of this class, as this one
        pairs = zip(own, members, strict=True)
        return [s.graded(studies, located, m.predict, regions) for s, m in pairs]

    def read_jointly(
        self, studies: Sequence[Study], members: Sequence[Member], regions: str = "predicted"
    ) -> list[Joint]:
        """See `System.read_jointly`."""
        own: list[Any] = [m.system for m in members]
        predicts = [remembered(m.predict) for m in members]
        readings = self._graded_by_each(studies, [*map(Member, own, predicts)], regions)
        alone = [s._located(studies, p, regions) for s, p in zip(own, predicts, strict=True)]
        joint = []
        for i, study in enumerate(studies):
            each = [reading[i] for reading in readings]
            rows = [s.columns(study, r) for s, r in zip(own, each, strict=True)]
            masks = [
                s.masks(study, Reading(where[i], {}))[""]
                for s, where in zip(own, alone, strict=True)
            ]
            joint.append(Joint(_mean(each), rows, masks))
        return joint

    @property
    def method(self) -> str:
        """The first grader's."""
        return next(iter(self.graders))

    @property
    def label_names(self) -> dict[str, dict[int, str]]:
        """Those of the structures; of systems that find boxes, the region."""
        return {"": dict(enumerate(self.structures or ("region",), 1))}

    def masks(self, study: Study, reading: Reading) -> dict[str, np.ndarray]:
        """The mask of the first stage; where it finds boxes, the boxes on their slices."""
        if reading.located.mask.size:
            return {"": reading.located.mask}
        painted = np.zeros(study[self.grid].shape, np.uint8)
        for spot in self.spots(study, reading):
            inside = tuple(slice(*(round(float(v)) for v in b)) for b in spot.bounds)
            painted[inside] = spot.label
        return {"": painted}

    def spots(self, study: Study, reading: Reading) -> list[Spot]:
        """See `System.spots`."""
        return [self.spot(region) for region in reading.located.regions]

    def columns(self, study: Study, reading: Reading) -> list[Row]:
        """See `System.columns`; a row for each region."""
        who = {"patient": study["patient_id"], "study": study["study_id"], "kind": "grade"}
        rows = []
        for number in range(len(reading.located.regions)):
            row: Row = {**who, **self.region_columns(study, reading.located, number), "found": 1}
            for task in self.tasks:
                found = {m: reading.of(m, task, number) for m in self.graders}
                row |= cases.called(task.grading, found)
            rows.append(row)
        return rows

    def calls_of(self, reading: Reading) -> list[str]:
        """A line for a picture: what the one region is called in each task, and how probable."""
        if not reading.located.regions:
            return ["region not found"]
        said = []
        for task in self.tasks:
            row = cases.called(task.grading, {self.method: reading.of(self.method, task, 0)})
            name = task.grading.task
            if call := row.get(f"call_{name}"):
                said.append(f"{name}: {call} ({row[f'p_{self.method}_{name}_{call}']:.2f})")
        return ["; ".join(said)]

    def fit_baselines(self, studies: Iterable[Study]) -> dict[str, Any]:
        """Commonest class of each task, and ridge regression of the class on hand-made features."""
        features: list[np.ndarray] = []
        targets: dict[str, list[int]] = {t.grading.task: [] for t in self.tasks}
        for study in studies:
            located = self.reference(study)
            own: Any = self.features(study, located) if located.regions else []
            pairs = self.pairs(study, located)
            for case, grades in self.grades(study).items():
                if (number := pairs.get(case)) is not None:
                    features.append(own[number])
                    for task in self.tasks:
                        targets[task.grading.task].append(task.class_of(grades))
        found: dict[str, Any] = {}
        for name, values in targets.items():
            classes = np.array(values, int)
            known = classes >= 0
            found[name] = {
                "majority": int(np.bincount(classes[known]).argmax()) if known.any() else None,
                "ridge": Ridge.fit(np.array(features)[known], classes[known]).as_json()
                if known.any()
                else None,
            }
        return found

    def mean_baselines(self, fitted: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """The class that is the commonest for most folds, and the mean of the ridge scores."""
        found: dict[str, Any] = {}
        for task in fitted[0]:
            majorities = [own[task]["majority"] for own in fitted]
            known = [m for m in majorities if m is not None]
            ridges = [Ridge.of(own[task]["ridge"]) for own in fitted]
            found[task] = {
                "majority": int(np.bincount(known).argmax()) if known else None,
                "ridge": Ridge.mean_of([r for r in ridges if r is not None]).as_json()
                if any(ridges)
                else None,
            }
        return found

    def score(
        self, study: Study, predicted: Reading, oracle: Reading, baselines: Mapping[str, Any]
    ) -> list[Row]:
        """The rows of the regions, and one for each graded case."""
        who = {"patient": study["patient_id"], "study": study["study_id"]}
        rows = [{**who, **row} for row in self.region_rows(study, predicted)]
        ours = self.pairs(study, predicted.located)
        ideal = self.pairs(study, oracle.located)
        located = predicted.located
        features: Any = self.features(study, located) if located.regions else []
        ridges = {name: Ridge.of(fitted["ridge"]) for name, fitted in baselines.items()}
        for case, grades in self.grades(study).items():
            number = ours.get(case)
            row: Row = {
                **who,
                "kind": "grade",
                "case": case,
                **self.case_columns(study, case, located, number),
                "found": int(number is not None),
                **explained.column(predicted.attention, predicted.untrained, number),
            }
            for task in self.tasks:
                ridge = ridges[task.grading.task]
                row |= cases.cells(
                    task.grading,
                    task.class_of(grades),
                    {m: predicted.of(m, task, number) for m in self.graders},
                    {m: oracle.of(m, task, ideal.get(case)) for m in self.graders},
                    {
                        "majority": baselines[task.grading.task]["majority"],
                        "ridge": ridge.predict(features[number])
                        if ridge is not None and number is not None
                        else None,
                    },
                )
            first = self.tasks[0].grading.task
            if row[f"reference_{first}"]:
                row["wrong"] = int(row.get(f"call_{first}") != row[f"reference_{first}"])
            rows.append(row | subgroups.columns(study))
        return rows

    def facts(self, rows: Sequence[Row]) -> list[tuple[str, str]]:
        """Reference and call of each task, with the probability of the call, case by case."""
        facts = []
        method = self.method
        for row in (r for r in rows if r["kind"] == "grade"):
            where = f"{spoken(row['level'])}, " if row.get("level") else ""
            for task in (t.grading.task for t in self.tasks):
                if not (reference := row.get(f"reference_{task}")):
                    continue
                said = "region not found"
                if call := row.get(f"call_{task}"):
                    said = f"called {call} ({float(row[f'p_{method}_{task}_{call}']):.2f})"
                facts.append((f"{where}{task}", f"{reference}, {said}"))
        return facts

    def summarise(self, rows: Sequence[Row], resamples: int, seed: int) -> dict[str, Any]:
        """See `System.summarise`."""
        settings = {"resamples": resamples, "seed": seed}
        report = graded.summarise(
            rows,
            self.gradings,
            resamples,
            seed,
            comparison=self.comparison,
            groups=subgroups.strata,
        )
        stages = {self.stages[0].name: self.region_figures(rows, settings)}
        for number, grader in enumerate(self.graders.values()):
            stages[grader.name] = {} if number else report["oracle_region"]
        return {"stages": stages, **report}


def _with_map_of(
    outputs: dict[str, np.ndarray], other: dict[str, np.ndarray]
) -> dict[str, np.ndarray]:
    """Outputs with another network's map: they choose, where only a part of it is shown."""
    return outputs | ({ATTENTION: other[ATTENTION]} if ATTENTION in other else {})


def _mean(readings: Sequence[Reading]) -> Reading:
    """What several trainings say of the same regions, as one."""
    first = readings[0]
    probabilities = {
        method: {
            head: np.stack([r.probabilities[method][head] for r in readings]).mean(
                0, dtype=np.float32
            )
            for head in heads
        }
        for method, heads in first.probabilities.items()
    }
    shown = [cast(np.ndarray, r.shown) for r in readings]
    together = readings
    if any(own is None or not np.array_equal(own, shown[0]) for own in shown):
        together = readings[:1]  # trainings look at different slices, and the first one's is shown
    attention, untrained = (_mean_of(maps) for maps in zip(*map(_maps, together), strict=True))
    return dataclasses.replace(
        first, probabilities=probabilities, attention=attention, untrained=untrained
    )


def _maps(reading: Reading) -> tuple[np.ndarray | None, np.ndarray | None]:
    return reading.attention, reading.untrained


def _mean_of(maps: Sequence[np.ndarray | None]) -> np.ndarray | None:
    """The mean of maps, where there are maps."""
    known = [heat for heat in maps if heat is not None]
    return np.stack(known).mean(0) if len(known) == len(maps) else None
