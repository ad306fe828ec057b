"""What all folds of a study share: cohort, division, and examples that are cut once."""

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jax.sharding import Mesh

from mskjax import preemption, systems
from mskjax.config import StudyConfig
from mskjax.data import splits
from mskjax.data.cohorts import Cohort
from mskjax.data.examples import FOLDER, Cutting, Prepared, key_of, prepare
from mskjax.training.mesh import data_mesh
from mskjax.training.stage import Stage, Study
from mskjax.two_stage.system import System


@dataclasses.dataclass(frozen=True)
class Setting:
    """What all folds of a study share.

    Attributes:
      config: of the study.
      cohort: all patients.
      system: not fitted to any fold.
      measured: what it was built with, see `System.measure`; nothing where nothing is trained.
      divided: the division.
      workdir: folder of the study.
      stop: says when the process must end soon.
      name: of one of several studies that train together; empty otherwise.
      prepared: examples of the stages that are cut already, by name.
    """

    config: StudyConfig
    cohort: Cohort
    system: System
    measured: Mapping[str, Any]
    divided: splits.Splits
    workdir: Path
    stop: preemption.Stop
    name: str = ""
    prepared: dict[str, Prepared] = dataclasses.field(default_factory=dict)

    def folder(self, number: int) -> Path:
        """``fold_<k>``."""
        return self.workdir / f"fold_{number}"

    def numbers_of(self, number: int, part: str) -> list[int]:
        """Numbers of the studies of one part of a fold."""
        patients = set(getattr(self.divided.folds[number], part))
        return [i for i, (patient, _) in enumerate(self.cohort.index) if patient in patients]

    def replica(self, config: StudyConfig, workdir: Path, name: str) -> "Setting":
        """Another study on the same patients, division and examples.

        Args:
          config: differs in what leaves all three alone.
          workdir: its folder.
          name: for the log.
        """
        system = systems.load(config.system).build(config, self.measured)
        return dataclasses.replace(self, config=config, workdir=workdir, system=system, name=name)

    @property
    def train_seed(self) -> int:
        """Seed of the trainings."""
        seed = self.config.train_seed
        return self.config.seed if seed is None else seed

    def title(self, number: int) -> str:
        """Of a fold, for the log."""
        return f"{self.name} fold_{number}".strip()

    @functools.cached_property
    def mesh(self) -> Mesh:
        """The devices, for what is done alone."""
        return data_mesh(self.config.devices)

    def examples(self, stage: Stage) -> Prepared:
        """The examples of a stage that is cut once for all folds."""
        if stage.name not in self.prepared:
            folders = (self.cohort.folder / FOLDER, self.workdir / FOLDER)
            self.prepared[stage.name] = self.cut(stage, self.cohort.studies, folders)
        return self.prepared[stage.name]

    def cut(self, stage: Stage, studies: Sequence[Study], folders: Sequence[Path]) -> Prepared:
        """The examples of a stage from these studies of all patients, kept in a folder."""
        cutting, shuffled = stage.cutting(), self.config.data.shuffle_labels
        key = key_of(
            self.cohort.audit["fingerprint"],
            dataclasses.asdict(cutting),
            (*type(stage).__mro__, *type(self.system).__mro__),
            shuffled=self.config.seed if shuffled else None,
            studies=[study for _, study in self.cohort.index],  # may be a part of the cohort
        )
        patients = [patient for patient, _ in self.cohort.index]
        return prepare(stage.name, key, Cutting(cutting, studies), patients, folders)
