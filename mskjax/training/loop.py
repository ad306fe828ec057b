"""The one training loop of all stages of all systems."""

import dataclasses
import resource
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

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
from mskjax.evaluation import validate
from mskjax.progress import Progress
from mskjax.training.checkpoints import Checkpoints
from mskjax.training.mesh import check_batch_size, put_batch, replicated
from mskjax.training.program import Program
from mskjax.training.state import TrainState, learning_rate
from mskjax.writers import Writer, write_json


@dataclasses.dataclass(frozen=True)
class Fit:
    """What training leaves in memory.

    Attributes:
      variables: the selected weights (moving average).
      state: the last state.
      step: the step whose weights were selected.
    """

    variables: Any
    state: TrainState
    step: int


@contextmanager
def preemption() -> Iterator[threading.Event]:
    """An event that SIGTERM sets; cloud schedulers send it before they take a machine away."""
    event = threading.Event()
    before = signal.signal(signal.SIGTERM, lambda *_: event.set())
    try:
        yield event
    finally:
        signal.signal(signal.SIGTERM, before)


def fit(
    program: Program,
    examples: Examples,
    chosen: np.ndarray,
    validation: Examples | None,
    folder: Path,
    seed: int,
    stop: threading.Event,
    title: str,
) -> Fit:
    """Trains a stage, or goes on from its latest checkpoint, or finds it finished.

    Weights come from, in this order: the finished training in `folder`; the latest checkpoint
    there; `Stage.initial`, e.g. a file of weights of another task; initialisation from `seed`.

    Args:
      program: the stage's compiled programs.
      examples: of the whole cohort; only the chosen ones are ever drawn.
      chosen: numbers of this fold's training examples.
      validation: examples of the validation patients; None keeps the latest weights.
      folder: ``fold_<k>/<stage>``.
      seed: of initialisation, data order and augmentation.
      stop: set when the process must end soon.
      title: for the progress bar.

    Raises:
      UserError: a step was not finite; nothing was saved after it.
      Preempted: `stop` was set and the state was saved.
    """
    stage, config = program.stage, program.stage.train
    check_batch_size(
        config.batch_size, program.mesh, f"config.stages.{stage.name}.train.batch_size"
    )
    balance = stage.balance(take(_targets(program, examples), chosen))
    balance = jax.device_put(balance, replicated(program.mesh))
    key = jax.random.key(seed)
    batches = training_batches(
        examples,
        config.batch_size,
        seed,
        _order(program, examples, chosen),
        jax.process_index(),
        jax.process_count(),
    )
    checkpoints = Checkpoints(folder / "checkpoints")
    one = next(evaluation_batches(take(examples, chosen[:1]), config.batch_size))
    state = program.init(put_batch(one, program.mesh), jax.random.fold_in(key, 2**31 - 2))
    record: dict[str, Any] = {"best_loss": None, "wall_s": 0.0, "data": None}
    if checkpoints.step("latest") is not None:
        state, record = checkpoints.restore("latest", state)
        if record["data"] is not None:
            batches.set_state(record["data"])
    else:
        variables, notes = stage.initial(state.variables)
        if notes:
            state = program.start_from(state, variables)
            write_json(folder / "initialisation.json", notes)
    step = int(state.step)
    if step < config.steps:
        run = _Run(program, checkpoints, batches, record, validation, balance, key, stop)
        writer = Writer(folder, step)
        try:
            state = run.steps(state, step, writer, title)
        finally:
            writer.close()
            checkpoints.close()
        checkpoints = Checkpoints(folder / "checkpoints")
    if not (folder / "cost.json").exists():  # or a kill came between the last save and this line
        _write_cost(folder, record, config.steps, program)
    selected = state
    if validation is not None and config.select == "best" and checkpoints.step("best"):
        selected, _ = checkpoints.restore("best", state)
    checkpoints.close()
    if hasattr(batches, "close"):
        batches.close()
    return Fit(selected.average, state, int(selected.step))


@dataclasses.dataclass
class _Run:
    """The steps of one process's life; everything that must survive it is in the checkpoint."""

    program: Program
    checkpoints: Checkpoints
    batches: Any
    record: dict[str, Any]
    validation: Examples | None
    balance: Any
    key: jax.Array
    stop: threading.Event

    def steps(self, state: TrainState, step: int, writer: Writer, title: str) -> TrainState:
        config = self.program.stage.train
        rate = learning_rate(config)
        progress = Progress(title, config.steps, step)
        self._clock = time.monotonic()
        while step < config.steps:
            batch = put_batch(next(self.batches), self.program.mesh)
            state, scalars = self.program.train(state, batch, self.balance, self.key)
            step += 1
            note = ""
            if step % config.log_every == 0 or step == config.steps:
                self._check_finite(state)
                values = {k: float(v) for k, v in scalars.items()}
                writer.write_scalars(
                    step,
                    {f"train_{k}": v for k, v in values.items()}
                    | {"learning_rate": float(rate(step - 1))},
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
        return state

    def _validate(self, state: TrainState, step: int, writer: Writer) -> None:
        if self.validation is None:
            return
        self._check_finite(state)
        values = validate(self.program, state.average, self.validation, self.balance)
        writer.write_scalars(step, {f"validation_{k}": v for k, v in values.items()})
        best = self.record["best_loss"]
        if best is None or values["loss"] < best:
            self.record["best_loss"] = values["loss"]
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
                f"stage {self.program.stage.name}: loss or gradient was not finite at step {bad};"
                " lower train.learning_rate or train.clip_norm, and look at the images of the"
                " training set (NaN, constant)."
            )


def _targets(program: Program, examples: Examples) -> Examples:
    """The arrays that are not shown to the network: small, so that they may be copied."""
    return {k: v for k, v in examples.items() if k not in program.stage.inputs}


def _order(program: Program, examples: Examples, chosen: np.ndarray) -> np.ndarray:
    if program.stage.train.balance == "sampling":
        classes = program.stage.classes(take(_targets(program, examples), chosen))
        if classes is not None:
            return chosen[balanced_order(classes)]
    return chosen


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
    write_json(folder / "cost.json", cost)
