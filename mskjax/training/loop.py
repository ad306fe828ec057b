"""The one training loop of all stages of all systems."""

import contextlib
import dataclasses
import json
import resource
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import jax
import numpy as np

from mskjax.data.pipeline import (
    Examples,
    balanced_order,
    evaluation_batches,
    take,
    training_batches,
)
from mskjax.errors import Preempted, UserError
from mskjax.models.summary import parameter_count, parameter_table
from mskjax.progress import Progress
from mskjax.training.checkpoints import (
    ARCHITECTURE,
    COST,
    Checkpoints,
    restore_average,
)
from mskjax.training.hyper import effective, learning_rate
from mskjax.training.mesh import check_batch_size, put_batch, replicated
from mskjax.training.program import Program
from mskjax.training.state import TrainState
from mskjax.writers import Writer, write_json

INITIALISATION = "initialisation.json"

# (program, weights, examples, balance of the loss) -> means.
Validate = Callable[[Program, Any, Examples, Any], dict[str, float]]


class Signal(Protocol):
    """Says when the process must end soon: `preemption.Stop`, or an event."""

    def is_set(self) -> bool:
        """Whether it must."""


_rate = jax.jit(learning_rate)


@dataclasses.dataclass(frozen=True)
class Job:
    """What is to be trained: one stage of one fold.

    Attributes:
      program: the stage's compiled programs.
      examples: of the whole cohort; only the chosen ones are ever drawn.
      chosen: numbers of this fold's training examples.
      validation: examples of the validation patients; None keeps the latest weights.
      folder: ``fold_<k>/<stage>``.
      seed: of initialisation, data order and augmentation.
      title: for the progress bar.
    """

    program: Program
    examples: Examples
    chosen: np.ndarray
    validation: Examples | None
    folder: Path
    seed: int
    title: str

    @property
    def selects_best(self) -> bool:
        """Whether the weights of the lowest validation loss are used, not the latest."""
        return self.validation is not None and self.program.stage.train.select == "best"

    def targets(self) -> Examples:
        """Of the chosen examples, what is not shown to the network."""
        shown = self.program.stage.inputs
        return take({k: v for k, v in self.examples.items() if k not in shown}, self.chosen)

    def order(self) -> np.ndarray:
        """Numbers of the examples of an epoch, repeated where classes are balanced."""
        if self.program.stage.train.balance == "sampling":
            classes = self.program.stage.classes(self.targets())
            if classes is not None:
                return self.chosen[balanced_order(classes)]
        return self.chosen


def fit(job: Job, validate: Validate, stop: Signal) -> None:
    """Trains a stage to its end and says so in its folder.

    Weights come from, in this order: the latest checkpoint in the folder; `Stage.initial`, e.g. a
    file of weights of another task; initialisation from the seed.

    Args:
      job: what is to be trained.
      validate: mean loss and monitors of weights over examples, see `evaluation.validate`.
      stop: says when the process must end soon.

    Raises:
      UserError: a step was not finite, and nothing was saved after it; or a checkpoint that
        training goes on from is gone.
      Preempted: `stop` was set and the state was saved.
    """
    program, folder = job.program, job.folder
    stage, config = program.stage, program.stage.train
    check_batch_size(
        config.batch_size, program.mesh, f"config.stages.{stage.name}.train.batch_size"
    )
    balance = jax.device_put(stage.balance(job.targets()), replicated(program.mesh))
    key = jax.random.key(job.seed)
    batches = training_batches(
        job.examples,
        config.batch_size,
        job.seed,
        job.order(),
        jax.process_index(),
        jax.process_count(),
    )
    first = next(evaluation_batches(take(job.examples, job.chosen[:1]), config.batch_size))
    state = program.init(put_batch(first, program.mesh), jax.random.fold_in(key, 2**31 - 2))
    record: dict[str, Any] = {"best_loss": None, "best_step": None, "wall_s": 0.0, "data": None}
    with (
        contextlib.closing(batches),
        contextlib.closing(Checkpoints(folder / "checkpoints")) as checkpoints,
    ):
        if checkpoints.step("latest") is not None:
            state, record = checkpoints.restore("latest", state)
            _mend_best(checkpoints, state, record, folder)
            if record["data"] is not None:
                batches.set_state(record["data"])
        else:
            variables, notes = stage.initial(state.variables)
            if notes:
                state = program.start_from(state, variables)
                write_json(folder / INITIALISATION, notes)
        if (step := int(state.step)) < config.steps:
            run = _Run(job, validate, checkpoints, batches, record, balance, key, stop)
            with contextlib.closing(Writer(folder, step)) as writer:
                run.steps(state, step, writer)
    selected = record["best_step"] if job.selects_best else config.steps
    _write_architecture(folder, program, selected)
    if not (folder / COST).exists():  # or a kill came between the last save and this line
        _write_cost(folder, record, config.steps, program)


def _mend_best(
    checkpoints: Checkpoints, state: TrainState, record: dict[str, Any], folder: Path
) -> None:
    """Holds ``best`` against the record of ``latest``.

    A later one is in order: the process was killed between the two, and comes to the same step
    again.

    Raises:
      UserError: it is gone and cannot be made again.
    """
    found = checkpoints.step("best")
    # Versions before this did not record it.
    wanted: Any = record.setdefault("best_step", found)
    if record["best_loss"] is None or (found is not None and found >= wanted):
        return
    if wanted != int(state.step):
        raise UserError(
            f"{folder / 'checkpoints' / 'best'} does not hold the weights of the lowest validation"
            f" loss; remove {folder} to train it again."
        )
    checkpoints.save("best", state, record)


@dataclasses.dataclass
class _Run:
    """The steps of one process's life; everything that must survive it is in the checkpoint."""

    job: Job
    validate: Validate
    checkpoints: Checkpoints
    batches: Any
    record: dict[str, Any]
    balance: Any
    key: jax.Array
    stop: Signal

    def steps(self, state: TrainState, step: int, writer: Writer) -> None:
        program, title = self.job.program, self.job.title
        config = program.stage.train
        progress = Progress(title, config.steps, step)
        self._clock = time.monotonic()
        while step < config.steps:
            batch = put_batch(next(self.batches), program.mesh)
            state, scalars = program.train(state, batch, self.balance, self.key)
            step += 1
            note = ""
            if step % config.log_every == 0 or step == config.steps:
                self._check_finite(state)
                values = {k: float(v) for k, v in scalars.items()}
                writer.write_scalars(
                    step,
                    {f"train_{k}": v for k, v in values.items()}
                    | {"learning_rate": float(_rate(program.hyper, step - 1))},
                )
                note = f"loss {values['loss']:.4f}"
            if step % config.validate_every == 0 or step == config.steps:
                self._validate(state, step, writer)
            if step % config.checkpoint_every == 0 or step == config.steps:
                self._save(state, writer)
            if self.stop.is_set() and step < config.steps:
                self._save(state, writer)
                self.checkpoints.wait()
                raise Preempted(f"{title}: saved at step {step} of {config.steps}")
            progress.advance(note)
        self.checkpoints.wait()
        progress.close()

    def _validate(self, state: TrainState, step: int, writer: Writer) -> None:
        if self.job.validation is None:
            return
        self._check_finite(state)
        values = self.validate(self.job.program, state.average, self.job.validation, self.balance)
        writer.write_scalars(step, {f"validation_{k}": v for k, v in values.items()})
        best = self.record["best_loss"]
        if self.job.selects_best and (best is None or values["loss"] < best):
            self.record["best_loss"], self.record["best_step"] = values["loss"], step
            self.checkpoints.save("best", state, self._stamped())

    def _save(self, state: TrainState, writer: Writer) -> None:
        self._check_finite(state)
        writer.flush()
        self.checkpoints.save("latest", state, self._stamped())

    def _stamped(self) -> dict[str, Any]:
        now = time.monotonic()
        self.record["wall_s"] += now - self._clock
        self._clock = now
        self.record["data"] = self.batches.get_state()
        return dict(self.record)

    def _check_finite(self, state: TrainState) -> None:
        if (bad := int(state.bad_step)) >= 0:
            raise UserError(
                f"stage {self.job.program.stage.name}: loss or gradient was not finite at step"
                f" {bad}; lower train.learning_rate or train.clip_norm, and look at the images of"
                " the training set (NaN, constant)."
            )


def _write_architecture(folder: Path, program: Program, selected: int) -> None:
    """architecture.json of a finished stage: what it is, and which of its weights are used."""
    params = restore_average(folder / "checkpoints", selected)["params"]
    notes = folder / INITIALISATION
    content = {
        "parameters": int(parameter_count(params)),
        "table": parameter_table(params),
        "selected_step": selected,
        "effective": effective(program.stage.train),
        "initialisation": json.loads(notes.read_text()) if notes.exists() else ["random"],
    }
    write_json(folder / ARCHITECTURE, content)


def _write_cost(folder: Path, record: dict[str, Any], steps: int, program: Program) -> None:
    """cost.json of a finished stage; wall-clock adds up over resumed runs."""
    device = program.mesh.devices.flat[0]
    stats = device.memory_stats() or {}
    peak = stats.get("peak_bytes_in_use", resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)
    cost = {
        "wall_s": record["wall_s"],
        "steps": steps,
        "steps_per_s": steps / max(record["wall_s"], 1e-9),
        "compile_s": program.compile_s,
        "device": f"{program.mesh.size} x {device.device_kind}",
        "peak_memory_bytes": int(peak),
    }
    program.compile_s = 0.0  # the next fold reuses the program
    write_json(folder / COST, cost)
