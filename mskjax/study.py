"""The journey of a study: cohort -> folds -> stages -> end-to-end evaluation -> report.

Everything a study leaves lies in its workdir (docs/architecture.md lists the files).  Each part is
skipped when its result is there, so running a study again resumes it, and running a finished one
says so.
"""

import dataclasses
import threading
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from mskjax import cases, systems
from mskjax import workdir as workdirs
from mskjax.config import MODES, StudyConfig
from mskjax.data import folds, pipeline, splits
from mskjax.data.cohorts import Cohort, prepare_cohort, with_shuffled
from mskjax.data.pipeline import Examples
from mskjax.errors import Preempted, UserError
from mskjax.evaluation import predict
from mskjax.progress import Progress, say
from mskjax.reporting.environment import environment
from mskjax.reporting.summary import write_report
from mskjax.tables import Row
from mskjax.training.loop import Fit, fit, preemption
from mskjax.training.mesh import data_mesh
from mskjax.training.program import Program
from mskjax.training.stage import Stage
from mskjax.two_stage.system import Predict, System
from mskjax.writers import write_json

STUDIES_AT_ONCE = 8  # bounds the memory of network outputs during evaluation


def run(config: StudyConfig, workdir: Path, modes: Sequence[str] = MODES) -> None:
    """Runs, resumes or finds finished a study.

    Args:
      config: the resolved config.
      workdir: folder of this study alone.
      modes: any of `MODES`; ``evaluate`` needs trained stages, ``report`` needs cases.csv.

    Raises:
      UserError: the config, the cohort or the folder is wrong, or another process works there; the
        folder is then as it was, unless something was trained in it.
      Preempted: SIGTERM arrived; run again to go on.
    """
    systems.load(config.system).check(config)
    if set(modes) == set(MODES) and workdirs.is_finished(workdir, config):
        say(f"finished: {workdir / 'report' / 'report.html'}")
        return
    workdirs.check(workdir, config)  # once before anything is touched, once when it is ours
    with workdirs.owned(workdir):
        _run(config, workdir, modes)


def _run(config: StudyConfig, workdir: Path, modes: Sequence[str]) -> None:
    """As `run`, in a workdir of its own; nothing is written before everything is checked."""
    begun = workdirs.check(workdir, config)
    cohort = prepare_cohort(
        config.data.cohort,
        config.data.config,
        config.data.data_dir,
        config.data.manual_dir,
        **config.data.options,
    )
    system = systems.load(config.system).build(config, cohort.studies)
    if config.data.shuffle_labels:
        cohort = with_shuffled(cohort, system.relabelled, config.seed)
    kept = workdir / "splits.json"
    divided = make_splits(config, cohort, system, kept if begun else None)
    workdirs.claim(workdir, config)
    write_json(workdir / "environment.json", environment())
    write_json(workdir / "cohort.json", cohort.audit)
    if not begun or not kept.exists():
        splits.save(kept, divided)
    say(
        f"{system.name}: {len(cohort.patients)} patients, {len(cohort.studies)} studies,"
        f" {len(divided.folds)} fold(s), patients on both sides: {divided.patient_overlap}"
    )
    for remark in divided.remarks():
        say(f"note: {remark}")
    with preemption() as stop:
        _run_folds(config, cohort, system, divided, workdir, modes, stop)
    if "evaluate" in modes:
        cases.write(workdir / "cases.csv", gather_rows(workdir, len(divided.folds)))
    if "report" in modes:
        page = write_report(workdir)
        say(f"report: {page}")


def _run_folds(
    config: StudyConfig,
    cohort: Cohort,
    system: System,
    divided: splits.Splits,
    workdir: Path,
    modes: Sequence[str],
    stop: threading.Event,
) -> None:
    """Trains and evaluates what is not done yet, fold by fold."""
    folders = {workdir / f"fold_{k}": fold for k, fold in enumerate(divided.folds)}
    done = "cases.csv" if "evaluate" in modes else f"{system.stages[-1].name}/cost.json"
    left = {folder: fold for folder, fold in folders.items() if not (folder / done).exists()}
    if not left or not {"train", "evaluate"} & set(modes):
        return
    if "train" not in modes:
        untrained = [
            f for f in left for s in system.stages if not (f / s.name / "cost.json").exists()
        ]
        if untrained:
            raise UserError(f"{untrained[0]} is not trained; run with --mode=train first.")
    mesh = data_mesh(config.devices)
    programs = {stage.name: Program(stage, mesh) for stage in system.stages}
    cut_once = system.stages[:1] if system.recuts else system.stages
    prepared = {stage.name: prepare_examples(cohort, stage) for stage in cut_once}
    for folder, fold in left.items():
        for name, examples in prepared.items():  # before hours are spent on the stages before it
            training_rows(examples, fold, f"{folder.name} {name}")
    for folder, fold in left.items():
        runner = _Fold(config, cohort, system, programs, prepared, fold, folder, stop)
        fits, adapted = runner.train()
        if "evaluate" in modes:
            runner.evaluate(fits, adapted)


def make_splits(
    config: StudyConfig, cohort: Cohort, system: System, path: Path | None
) -> splits.Splits:
    """The study's division; see `DataConfig.split`.

    Args:
      config: of the study.
      cohort: that is divided.
      system: says by which classes.
      path: splits.json of a study that goes on, which keeps its division; None for a new one.
    """
    fingerprint, images = cohort.audit["fingerprint"], splits.images_of(cohort.audit)
    kind = config.data.split
    if path is None or not path.exists():
        if config.data.splits is None:
            made = _divide(config, cohort, system)
            return splits.Splits(made, kind, fingerprint, cohort.patients, images)
        path, kind = Path(config.data.splits), "supplied"
    return splits.load(path, cohort.patients, fingerprint, kind, images)


@dataclasses.dataclass(frozen=True)
class Prepared:
    """The training examples of one stage, of the whole cohort; folds choose rows of it.

    Attributes:
      examples: arrays with N rows.
      patients: N patient ids.
      cases: N case ids, or None where examples are not graded cases.
    """

    examples: Examples
    patients: np.ndarray
    cases: np.ndarray | None

    def rows(self, fold: splits.Fold, part: str) -> np.ndarray:
        """Numbers of the examples of one part (``train``, ``validation``, ``test``) of a fold."""
        if fold.cases is not None and self.cases is not None:
            inside = [fold.cases.get(str(c)) == part for c in self.cases]
        else:
            inside = list(np.isin(self.patients, getattr(fold, part)))
        return np.flatnonzero(inside)


def prepare_examples(cohort: Cohort, stage: Stage) -> Prepared:
    """Cuts every training example of a stage once, for all folds.

    Raises:
      UserError: the cohort has none.
    """
    parts, patients, cases = [], [], []
    progress = Progress(f"preparing {stage.name}", len(cohort.index))
    for number, (patient, _) in enumerate(cohort.index):
        examples = stage.training_examples(cohort.studies[number])
        if examples is not None:
            cases += list(examples.pop("case", ()))
            patients += [patient] * pipeline.count(examples)
            parts.append(examples)
        progress.advance()
    progress.close()
    if not parts:
        raise UserError(f"the cohort has no training example for stage {stage.name}.")
    examples = pipeline.concatenate(parts)
    say(
        f"stage {stage.name}: {pipeline.count(examples)} examples,"
        f" {pipeline.megabytes(examples):.0f} MB in memory"
    )
    return Prepared(examples, np.array(patients), np.array(cases) if cases else None)


def training_rows(prepared: Prepared, fold: splits.Fold, title: str) -> np.ndarray:
    """Numbers of the training examples of a fold.

    Raises:
      UserError: it has none.
    """
    chosen = prepared.rows(fold, "train")
    if not len(chosen):
        raise UserError(
            f"{title}: no training example among {len(fold.train)} patients; give a division with"
            " patients who have what this stage learns from."
        )
    return chosen


@dataclasses.dataclass(frozen=True)
class _Fold:
    """One fold of a study.

    Attributes:
      config: of the study.
      cohort: of all patients.
      system: as declared, not adapted to any fold.
      programs: of the stages, by name.
      prepared: examples of the stages that are cut once for all folds.
      fold: the division.
      folder: ``fold_<k>``.
      stop: set when the process must end soon.
    """

    config: StudyConfig
    cohort: Cohort
    system: System
    programs: dict[str, Program]
    prepared: dict[str, Prepared]
    fold: splits.Fold
    folder: Path
    stop: threading.Event

    def train(self) -> tuple[dict[str, Fit], System]:
        """Trains every stage on reference regions, or restores what is trained.

        Returns:
          The fit of each stage, and the system adapted to the fold.
        """
        fits: dict[str, Fit] = {}
        prepared, system = self.prepared, self.system
        for number, name in enumerate(self.programs):
            if number == 1 and system.recuts:
                system, studies = system.adapted(
                    self.cohort.studies, self._studies_of("train"), self._predict(fits)
                )
                cohort = dataclasses.replace(self.cohort, studies=studies)
                prepared = {s.name: prepare_examples(cohort, s) for s in system.stages[1:]}
            fits[name] = self._fit(name, prepared[name])
        return fits, system

    def _fit(self, name: str, prepared: Prepared) -> Fit:
        own, title = self.folder / name, f"{self.folder.name} {name}"
        chosen = training_rows(prepared, self.fold, title)
        held = prepared.rows(self.fold, "validation")
        validation = pipeline.take(prepared.examples, held) if len(held) else None
        entropy = (self.config.seed, _number(self.folder))
        seed = int(np.random.SeedSequence(entropy).generate_state(1)[0])
        program = self.programs[name]
        return fit(program, prepared.examples, chosen, validation, own, seed, self.stop, title)

    def evaluate(self, fits: dict[str, Fit], system: System) -> None:
        """Reads and scores the held-out studies on predicted and on reference regions."""
        predict, test = self._predict(fits), self._studies_of("test")
        studies = self.cohort.studies
        baselines = system.fit_baselines([studies[i] for i in self._studies_of("train")])
        pictures = self.folder / "pictures"
        pictures.mkdir(parents=True, exist_ok=True)
        rows: list[Row] = []
        progress = Progress(f"{self.folder.name} evaluation", len(test))
        for start in range(0, len(test), STUDIES_AT_ONCE):
            if self.stop.is_set():
                raise Preempted(f"{self.folder.name}: stopped before evaluation was complete")
            chunk = [studies[i] for i in test[start : start + STUDIES_AT_ONCE]]
            predicted = system.read(chunk, predict, "predicted")
            oracle = system.read(chunk, predict, "reference")
            for study, ours, ideal in zip(chunk, predicted, oracle, strict=True):
                scored = system.score(study, ours, ideal, baselines)
                rows += [r for r in scored if _held_out(r, self.fold)]
                picture = system.picture(study, ours, study, self.cohort.audit["kind"] == "phantom")
                (pictures / f"{study['study_id']}.png").write_bytes(picture)
                progress.advance()
        progress.close()
        number = _number(self.folder)
        who = {"fold": number, "seed": self.config.seed}
        cases.write(self.folder / "cases.csv", [{**who, **r} for r in rows])

    def _studies_of(self, part: str) -> list[int]:
        patients = set(getattr(self.fold, part))
        return [i for i, (patient, _) in enumerate(self.cohort.index) if patient in patients]

    def _predict(self, fits: dict[str, Fit]) -> Predict:
        def run_stage(name: str, examples: Examples) -> dict[str, np.ndarray]:
            return predict(self.programs[name], fits[name].variables, examples)

        return run_stage


def gather_rows(workdir: Path, folds: int) -> list[Row]:
    """Rows of all folds; each was written when its fold was complete."""
    rows: list[Row] = []
    for number in range(folds):
        path = workdir / f"fold_{number}" / "cases.csv"
        if not path.exists():
            raise UserError(f"{path} is missing; run with --mode=train,evaluate first.")
        rows += cases.read(path)
    return rows


def _divide(config: StudyConfig, cohort: Cohort, system: System) -> tuple[splits.Fold, ...]:
    strata: dict[str, int | None] = {}
    subsets: dict[str, str] = {}
    cases: dict[str, str] = {}
    for number, (patient, _) in enumerate(cohort.index):
        study = cohort.studies[number]
        found = [s for s in (strata.get(patient), system.stratum(study)) if s is not None]
        strata[patient] = max(found, default=None)
        subsets[patient] = study.get("subset", "")
        cases |= dict.fromkeys(system.cases(study), patient)
    data = config.data
    if data.split == "official":
        return folds.official_fold(subsets, data.validation_fraction, config.seed)
    if data.split == "folds_and_official":
        return folds.folds_and_official(
            subsets, strata, data.folds, data.validation_fraction, config.seed, system.strata
        )
    if data.split == "by_case":
        return folds.by_case_fold(cases, config.seed)
    return folds.grouped_folds(
        strata, data.folds, data.validation_fraction, config.seed, system.strata
    )


def _held_out(row: Row, fold: splits.Fold) -> bool:
    case = row.get("case")
    return fold.cases is None or not case or fold.cases.get(case) == "test"


def _number(folder: Path) -> int:
    return int(folder.name.removeprefix("fold_"))
