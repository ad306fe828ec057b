"""The peer of each fold of a run: trained on the fold's patients, asked about its test patients.

What `peers` says of method and time is done here; `monai_peer` is the peer.
"""

import dataclasses
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import monai_peer
import numpy as np

from mskjax import applied, cases
from mskjax.data.cohorts import Cohort
from mskjax.imaging import geometry
from mskjax.imaging.volume import Volume
from mskjax.progress import Progress, say
from mskjax.reporting import artefacts
from mskjax.reporting.comparable import Run
from mskjax.results.study import file_stem
from mskjax.stages.slice_segmentation import network_grid
from mskjax.tables import Row
from mskjax.training.mesh import data_mesh
from mskjax.training.stage import Study
from mskjax.two_stage.regions_then_grades import Reading
from mskjax.two_stage.structures import structure_rows
from mskjax.writers import write_json

Json = dict[str, Any]
PEER = "peer"  # the method, in the columns of its cases
MASKS, GRADES = "masks", "grades"


@dataclasses.dataclass(frozen=True)
class Plan:
    """How peers are trained.

    Attributes:
      network: for masks, one of `monai_peer.NETWORKS`.
      minutes: of training, for each fold and stage; None: as long as ours.
      seed: of all trainings.
    """

    network: str
    minutes: float | None
    seed: int


@dataclasses.dataclass(frozen=True)
class Fold:
    """The peer of one fold: trained, and asked about its test patients, unless that is done.

    Attributes:
      run: that it is held against.
      cohort: of the run.
      number: of the fold.
      plan: how it is trained.
      folder: of what the peer says.
    """

    run: Run
    cohort: Cohort
    number: int
    plan: Plan
    folder: Path

    def rows(self) -> list[Row]:
        """Rows of the schema of cases.csv, all values as text."""
        parts = {MASKS: self._masks, GRADES: self._grades}
        system: Any = self.run.system
        if not system.structures:
            del parts[MASKS]
        found: list[Row] = []
        for name, read in parts.items():
            if not (self.folder / f"{name}.json").exists():
                rows, training = read()
                cases.write(self.folder / f"{name}.csv", rows)
                write_json(self.folder / f"{name}.json", training)  # says that all of it is there
            found += cases.read(self.folder / f"{name}.csv")
        return found

    def training(self) -> Iterator[Json]:
        """What each stage took on either side."""
        for path in sorted(self.folder.glob("*.json")):
            yield {"fold": self.number, "part": path.stem, **json.loads(path.read_text())}

    def _masks(self) -> tuple[list[Row], Json]:
        find = self.run.system.stages[0]
        train = [s for s in self._studies("train") if s["has_mask"]]
        classes = 1 + len(find.structures)
        step = _pixel_mm(find)
        patch = [n // find.options.model.stem for n in find.options.patch]
        network = monai_peer.Masks(
            self.plan.network, len(find.channels), classes, patch, self._seed
        )
        pairs = [(_volume(find, s), _fractions(find, s, classes)) for s in train]
        done = self._trained([find.name], network, [*zip(*pairs, strict=True)], find.train)
        rows: list[Row] = []
        for study in self._tested(MASKS):
            if not study["has_mask"]:
                continue
            _, affine = network_grid(study, find.channels[0], step)
            probabilities = network.predict(_volume(find, study))
            shape = study[find.channels[0]].shape
            mask = geometry.labels_to_native(probabilities, affine, shape, study["affine"])
            self._keep(study, mask=mask)
            scored = structure_rows(study, mask, find.structures, (None, step, step))
            rows += (self._who(study) | r for r in scored)
        return rows, done

    def _grades(self) -> tuple[list[Row], Json]:
        values = applied.read_system(self._trained_folder)
        path = self._trained_folder / applied.SYSTEM
        system: Any = applied.build(path, self.run.config, values)
        grader = system.graders[system.method]
        heads = {head.name: head.classes for head in grader.heads}
        examples = [e for s in self._graded(system) if (e := grader.training_examples(s))]
        crops = np.concatenate([e["image"] for e in examples])
        targets = {n: np.concatenate([e[f"target_{n}"] for e in examples]) for n in heads}
        network = monai_peer.Grades(crops.shape[1:], heads, self._seed)
        names = [own.name for own in system.graders.values()]
        done = self._trained(names, network, (crops, targets), grader.train)
        rows: list[Row] = []
        for study in self._tested(GRADES):
            located = system.reference(study)
            said = {}
            if located.regions:
                said = network.predict(system.cut(grader, study, located)["image"])
            self._keep(study, **said)
            reading = Reading(located, {PEER: said})
            pairs = system.pairs(study, located)
            for case, grades in system.grades(study).items():
                row: Row = {**self._who(study), "kind": "grade", "case": case}
                for task in system.tasks:
                    p = reading.of(PEER, task, pairs.get(case))
                    own = task.class_of(grades)
                    row |= cases.cells(task.grading, own, {PEER: None}, {PEER: p}, {})
                rows.append(row)
        return rows, done

    def _graded(self, system: Any) -> Iterator[Study]:
        """The training studies, with the boxes that our grader is trained on."""
        studies = self._numbers("train")
        part: Sequence[Study] = self.cohort.part(studies).studies
        if system.recuts:
            mesh = data_mesh(1)
            fold = applied.load_fold(self._trained_folder, self.run.config, mesh)
            part = system.recut(part, fold.predict)
        return (part[i] for i in range(len(studies)))

    def _trained(self, stages: Sequence[str], network: Any, data: Any, recipe: Any) -> Json:
        costs = [artefacts.content(self._trained_folder / s / "cost.json") for s in stages]
        ours = sum(cost["wall_s"] for cost in costs)
        budget = ours if self.plan.minutes is None else 60 * self.plan.minutes
        say(f"fold_{self.number} peer of {', '.join(stages)}: {budget:.0f} s of training")
        done = network.train(*data, budget, recipe.batch_size)
        say(f"fold_{self.number} peer: {done.steps} steps, loss {done.loss:.4f}")
        return {
            "ours_s": ours,
            "ours_steps": sum(cost["steps"] for cost in costs),
            "ours_device": costs[0]["device"],
            **{f"peer_{name}": value for name, value in dataclasses.asdict(done).items()},
        }

    def _tested(self, part: str) -> Iterator[Study]:
        numbers = self._numbers("test")
        progress = Progress(f"fold_{self.number} peer, {part}", len(numbers), 0)
        for number in numbers:
            yield self.cohort.studies[number]
            progress.advance()
        progress.close()

    def _studies(self, part: str) -> list[Study]:
        return [self.cohort.studies[i] for i in self._numbers(part)]

    def _numbers(self, part: str) -> list[int]:
        patients = {*getattr(self.run.divided.folds[self.number], part)}
        return [i for i, (patient, _) in enumerate(self.cohort.index) if patient in patients]

    def _who(self, study: Study) -> Row:
        who = {"fold": self.number, "seed": self.plan.seed}
        return who | {"patient": study["patient_id"], "study": study["study_id"]}

    def _keep(self, study: Study, **arrays: np.ndarray) -> None:
        """The peer's own words, for who wants to see them: ``predictions/<study>_<what>.npy``."""
        for name, values in arrays.items():
            path = self.folder / "predictions" / f"{file_stem(study['study_id'])}_{name}.npy"
            path.parent.mkdir(parents=True, exist_ok=True)
            np.save(path, values)

    @property
    def _trained_folder(self) -> Path:
        return self.run.folder / f"fold_{self.number}"

    @property
    def _seed(self) -> int:
        return int(np.random.SeedSequence((self.plan.seed, self.number)).generate_state(1)[0])


def _pixel_mm(find: Any) -> float:
    """Of the peer: a place of our network's finest level, so that both see as many slices."""
    return find.options.spacing_mm * find.options.model.stem


def _volume(find: Any, study: Study) -> np.ndarray:
    """(C, S, H, W) float32 at the pixel size of our U-Net."""
    spacing = (None, _pixel_mm(find), _pixel_mm(find))
    volumes = [Volume(np.asarray(study[c], np.float32), study["affine"]) for c in find.channels]
    return np.stack([geometry.resample(v, spacing).data for v in volumes])


def _fractions(find: Any, study: Study, classes: int) -> np.ndarray:
    """(K, S, H, W) float32: the share of each class in the pixels of `_volume`."""
    spacing = (None, _pixel_mm(find), _pixel_mm(find))
    masks = [(study["mask"] == k).astype(np.float32) for k in range(classes)]
    return np.stack([geometry.resample(Volume(m, study["affine"]), spacing).data for m in masks])
