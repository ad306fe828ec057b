"""One training: what it is, what it keeps, what the host does at its steps."""

import contextlib
import dataclasses
import json
import resource
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np

from mskjax import roles
from mskjax.data.examples import rows_of
from mskjax.data.pipeline import (
    Examples,
    balanced_order,
    batch_numbers,
    evaluation_batches,
    take,
)
from mskjax.errors import Diverged, UserError
from mskjax.models.summary import parameter_count, parameter_table
from mskjax.training.checkpoints import ARCHITECTURE, COST, Checkpoints, restore_average
from mskjax.training.hyper import effective, learning_rate
from mskjax.training.mesh import own_rows, put_batch, put_replicated
from mskjax.training.program import Program
from mskjax.training.saved import FAILED
from mskjax.training.state import TrainState
from mskjax.writers import Writer, write_json

INITIALISATION = "initialisation.json"

# (program, weights, examples, balance of the loss) -> means.
Validate = Callable[[Program, Any, Examples, Any], dict[str, float]]

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
        """Of the chosen examples, what is not shown to the network; read when it is asked for."""
        shown = self.program.stage.inputs
        return rows_of({k: v for k, v in self.examples.items() if k not in shown}, self.chosen)

    def order(self) -> np.ndarray:
        """Numbers of the examples of an epoch, repeated where classes are balanced."""
        if self.program.stage.train.balance == "sampling":
            classes = self.program.stage.classes(self.targets())
            if classes is not None:
                return self.chosen[balanced_order(np.asarray(classes))]
        return self.chosen


class Member:
    """One training; what of it must survive this process is in its checkpoint.

    Attributes:
      job: what is trained.
      checkpoints: in its folder.
      balance: of `Stage.balance`, on the devices.
      key: of its random numbers.
      length: steps in all.
      step: steps done.
      failure: what ended it early.
      clock: when its time was last added to the record.
      together: how many trainings share the devices, and so the time.
    """

    def __init__(self, job: Job, validate: Validate, opened: contextlib.ExitStack):
        stage = job.program.stage
        self.job, self._validate_by, self._opened = job, validate, opened
        self._config, self.length, self.step = stage.train, stage.train.steps, 0
        self.balance = put_replicated(stage.balance(job.targets()), job.program.mesh)
        self.key = put_replicated(jax.random.key(job.seed), job.program.mesh)
        self.checkpoints = opened.enter_context(
            contextlib.closing(Checkpoints(job.folder / "checkpoints"))
        )
        self._record: dict[str, Any] = {"best_loss": None, "best_step": None, "wall_s": 0.0}
        self.failure: Diverged | None = None
        self.clock, self.together = 0.0, 1

    @property
    def has_ended(self) -> bool:
        """Whether it is trained, or failed."""
        return self.failure is not None or self.step >= self.length

    @property
    def dues(self) -> tuple[int, int, int]:
        """Every so many steps the host has something to do."""
        config = self._config
        return config.log_every, config.validate_every, config.checkpoint_every

    @property
    def is_due(self) -> bool:
        """Whether that is so at this step."""
        return self.step >= self.length or any(self.step % n == 0 for n in self.dues)

    def start(self) -> TrainState:
        """The state to go on from."""
        job, program = self.job, self.job.program
        examples = take(job.examples, job.chosen[:1])
        one = next(evaluation_batches(examples, self._config.batch_size))
        own = own_rows(self._config.batch_size)
        batch = put_batch({k: v[own] for k, v in one.items()}, program.mesh)
        state = program.init(batch, jax.random.fold_in(self.key, 2**31 - 2))
        if self.checkpoints.step("latest") is not None:
            state, self._record = self.checkpoints.restore("latest", state)
            _mend_best(self.checkpoints, state, self._record, job.folder)
        else:
            variables, notes = program.stage.initial(state.variables)
            if notes:
                state = program.start_from(state, variables)
                write_json(job.folder / INITIALISATION, notes)
        self.step = int(state.step)
        if roles.is_first():
            (job.folder / FAILED).unlink(missing_ok=True)
        if not self.has_ended:
            self._writer = self._opened.enter_context(
                contextlib.closing(Writer(job.folder, self.step))
            )
        return state

    def numbers(self) -> Any:
        """Numbers of the examples of each of its batches."""
        return batch_numbers(self.job.order(), self._config.batch_size, self.job.seed)

    def look(self, state: Callable[[], TrainState], values: dict[str, float]) -> str:
        """What the host does at this step: logs, validates, saves.

        Args:
          state: gives its state.
          values: of the step, and ``bad_step``.

        Returns:
          A note for the progress bar.
        """
        bad = int(values.pop("bad_step"))
        if bad >= 0:
            self._fail(bad)
            return f"{self.job.title} ended at step {bad}"
        config, is_last, note = self._config, self.step >= self.length, ""
        if self.step % config.log_every == 0 or is_last:
            rate = float(_rate(self.job.program.hyper, self.step - 1))
            row = {f"train_{k}": v for k, v in values.items()}
            self._writer.write_scalars(self.step, row | {"learning_rate": rate})
            note = f"loss {values['loss']:.4f}"
        validates = self.step % config.validate_every == 0 or is_last
        saves = self.step % config.checkpoint_every == 0 or is_last
        if validates or saves:
            own = state()
            if validates:
                self._validate(own)
            if saves:
                self.save(own)
        return note

    def save(self, state: TrainState) -> None:
        """Saves the state to go on from, unless it is not finite."""
        if int(state.bad_step) >= 0:
            self._fail(int(state.bad_step))
            return
        self._writer.flush()
        self.checkpoints.save("latest", state, self._stamped())

    def conclude(self) -> None:
        """Says in its folder that it is trained, or what ended it early."""
        job, program = self.job, self.job.program
        if self.failure is not None:
            write_json(job.folder / FAILED, {"step": self.step, "why": str(self.failure)})
            return
        selected = self._record["best_step"] if job.selects_best else self.length
        _write_architecture(job.folder, program, selected)
        if not (job.folder / COST).exists():  # or a kill came between the last save and this line
            _write_cost(job.folder, self._record, self.length, program, self.together)

    def _validate(self, state: TrainState) -> None:
        if self.job.validation is None:
            return
        values = self._validate_by(
            self.job.program, state.average, self.job.validation, self.balance
        )
        self._writer.write_scalars(self.step, {f"validation_{k}": v for k, v in values.items()})
        best = self._record["best_loss"]
        if self.job.selects_best and (best is None or values["loss"] < best):
            self._record["best_loss"], self._record["best_step"] = values["loss"], self.step
            self.checkpoints.save("best", state, self._stamped())

    def _stamped(self) -> dict[str, Any]:
        now = time.monotonic()
        self._record["wall_s"] += (now - self.clock) / self.together
        self.clock = now
        return dict(self._record)

    def _fail(self, bad: int) -> None:
        self.failure = Diverged(
            f"{self.job.title}: loss or gradient was not finite at step {bad}; lower"
            " train.learning_rate or train.clip_norm, and look at the images of the training set"
            " (NaN, constant)."
        )


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


def _write_cost(
    folder: Path, record: dict[str, Any], steps: int, program: Program, together: int
) -> None:
    """cost.json of a finished stage; wall-clock adds up over resumed runs.

    Of trainings that shared the devices each has its part of the time.
    """
    device = program.mesh.local_devices[0]  # what others use of their memory is theirs to know
    stats = device.memory_stats() or {}
    peak = stats.get("peak_bytes_in_use", resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)
    several = f" in {count} processes" if (count := jax.process_count()) > 1 else ""
    cost = {
        "wall_s": record["wall_s"],
        "steps": steps,
        "steps_per_s": steps / max(record["wall_s"], 1e-9),
        "trained_together": together,
        "compile_s": program.compile_s,
        "device": f"{program.mesh.size} x {device.device_kind}{several}",
        "peak_memory_bytes": int(peak),
    }
    program.compile_s = 0.0  # the next fold reuses the program
    write_json(folder / COST, cost)
