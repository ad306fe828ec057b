"""Trains folds: one after another, or folds of one or several studies as one program."""

import dataclasses
import functools
import shutil
from collections.abc import Container, Sequence
from pathlib import Path

import numpy as np

from mskjax import applied, profile, roles, systems
from mskjax.data.examples import FOLDER, Prepared, rows_of
from mskjax.errors import Diverged
from mskjax.evaluation import validate
from mskjax.setting import Setting
from mskjax.tables import Row
from mskjax.training import processes
from mskjax.training.checkpoints import is_trained
from mskjax.training.loop import check_alike, check_batch, fit
from mskjax.training.member import Job
from mskjax.training.mesh import data_mesh
from mskjax.training.program import Program
from mskjax.training.stage import Stage, Study
from mskjax.two_stage.system import System


@dataclasses.dataclass(eq=False)
class Fold:
    """A fold of a study that is to be trained, on reference regions.

    Attributes:
      setting: of the study.
      number: of the fold.
      failure: what ended its training early.
    """

    setting: Setting
    number: int
    failure: Diverged | None = None

    @property
    def folder(self) -> Path:
        """``fold_<k>``."""
        return self.setting.folder(self.number)

    @property
    def title(self) -> str:
        """For the log."""
        return self.setting.title(self.number)

    @functools.cached_property
    def system(self) -> System:
        """As fitted to this fold; what is not there yet is fitted and written."""
        setting, studies = self.setting, self.setting.cohort.studies
        module, config = systems.load(setting.config.system), setting.config
        if not (self.folder / applied.SYSTEM).exists():
            train = setting.numbers_of(self.number, "train")
            fitted = {**setting.measured, **setting.system.fit(studies, train)}
            system = module.build(config, fitted)
            rows: list[Row] = []
            watched = profile.watched((studies[i] for i in train), rows)
            baselines = system.fit_baselines(watched)
            profile.write(self.folder, rows, watched)
            applied.write_system(self.folder, system, fitted, baselines)
        processes.sync("fitted")  # whether or not it was here that it was missing
        return module.build(config, applied.read_system(self.folder)["fitted"])

    @functools.cached_property
    def recut(self) -> Sequence[Study]:
        """Studies as the stages after the first are trained on; needs the trained first one."""
        stages, mesh = self.system.stages, self.setting.mesh
        programs = {stage.name: Program(stage, mesh) for stage in stages}
        predict = applied.predictor(self.folder, programs)
        return self.system.recut(self.setting.cohort.studies, predict)

    def job(self, program: Program, prepared: Prepared) -> Job:
        """What `training.loop.fit` is given.

        Raises:
          UserError: there is no training example.
        """
        setting, name = self.setting, program.stage.name
        fold, title = setting.divided.folds[self.number], f"{self.title} {name}"
        held = prepared.rows(fold, "validation")
        entropy = (setting.train_seed, self.number)
        return Job(
            program=program,
            examples=prepared.examples,
            chosen=prepared.training_rows(fold, title),
            validation=rows_of(prepared.examples, held) if len(held) else None,
            folder=self.folder / name,
            seed=int(np.random.SeedSequence(entropy).generate_state(1)[0]),
            title=title,
        )


def train(folds: Sequence[Fold], stages: Container[str] | None = None) -> None:
    """Trains what is not done yet of one fold, or of several as one program.

    Leaves ``fold_<k>/system.json`` and the stages' folders.  A fold that fails says so in its
    `failure`; the others go on.

    Args:
      folds: on the same cohort, of systems that differ in what changes no shape.
      stages: names of those that are trained; None gives all.

    Raises:
      UserError: see `training.loop.fit`.
      Preempted: the process must end; what was trained is saved.
    """
    for position, stage in enumerate(folds[0].system.stages):
        check_alike(
            [f"{f.title} {stage.name}" for f in folds], [_stage(f, position) for f in folds]
        )
    for position, stage in enumerate(folds[0].system.stages):
        if stages is not None and stage.name not in stages:
            continue
        left = [f for f in folds if not f.failure and not is_trained(f.folder / stage.name)]
        if left:
            _fit(left, position, [_examples(fold, position) for fold in left])
    for fold in folds if roles.is_first() else ():
        shutil.rmtree(fold.folder / FOLDER, ignore_errors=True)  # of its own regions alone


def check_devices(folds: Sequence[Fold]) -> None:
    """Whether the batches of folds that train as one program fit the devices.

    Raises:
      UserError: they do not.
    """
    setting = folds[0].setting
    mesh = data_mesh(setting.config.devices, len(folds))
    for stage in setting.system.stages:
        check_batch(stage, mesh, len(folds))


def _examples(fold: Fold, position: int) -> Prepared:
    """What all folds on the cohort share, or what is cut from the regions that this one found."""
    stage = _stage(fold, position)
    if position and fold.system.recuts:
        return fold.setting.cut(stage, fold.recut, [fold.folder / FOLDER])
    return fold.setting.examples(stage)


def _fit(folds: Sequence[Fold], position: int, prepared: Sequence[Prepared]) -> None:
    setting = folds[0].setting
    mesh = data_mesh(setting.config.devices, len(folds))
    stages = [_stage(fold, position) for fold in folds]
    jobs = [
        fold.job(Program(stage, mesh), own)
        for fold, stage, own in zip(folds, stages, prepared, strict=True)
    ]
    with setting.stop.held():  # the loop saves before it ends
        stop = processes.Together(setting.stop)
        failures = fit(jobs, validate, stop, share=setting.config.population.share)
    for fold, failure in zip(folds, failures, strict=True):
        fold.failure = failure


def _stage(fold: Fold, position: int) -> Stage:
    return fold.system.stages[position]
