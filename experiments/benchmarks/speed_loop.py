"""Part ``loop`` of `speed.py`: what the product's training loop costs a step.

A network of one layer is trained by `mskjax.training.loop.fit`, with what a run has: batches of
numbers made a step ahead, scalars read and written every ``log_every`` steps, one checkpoint at the
end.  Beside it the same steps, on the same batches, as one compiled scan, which has no host in it.
"""

import argparse
import contextlib
import dataclasses
import io
import json
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from speed_rows import Row

from mskjax.config import TrainConfig
from mskjax.data.pipeline import Examples
from mskjax.evaluation import validate
from mskjax.progress import say
from mskjax.training.feed import Feed
from mskjax.training.loop import fit
from mskjax.training.member import Job
from mskjax.training.mesh import data_mesh, put_batch, put_replicated
from mskjax.training.program import Program
from mskjax.training.stage import Stage, Study
from mskjax.training.trainer import Trainer

STEPS, QUICK_STEPS = 5_000, 200
EXAMPLES, FEATURES, BATCH = 40, 6, 8
LOGGED = (10, STEPS)  # as recipes have it, and never but at the end


class Layer(nn.Module):
    """A dense layer."""

    @nn.compact
    def __call__(self, image: jax.Array, train: bool) -> jax.Array:
        """(B, `FEATURES`) to (B, 2)."""
        return nn.Dense(2)(image)


@dataclasses.dataclass(frozen=True)
class Options:
    """Of the stage: the recipe alone."""

    train: TrainConfig


@dataclasses.dataclass(frozen=True)
class Nothing(Stage):
    """A stage without images: two-class logistic regression."""

    options: Options

    def model(self) -> nn.Module:
        """One layer."""
        return Layer()

    def training_examples(self, study: Study) -> Examples | None:
        """Examples are random here."""
        raise NotImplementedError

    def augment(self, keys: Any, batch: dict[str, jax.Array], hyper: Any) -> dict[str, jax.Array]:
        """The batch as it is."""
        return batch

    def loss(self, outputs: Any, batch: dict[str, jax.Array], balance: Any, hyper: Any) -> Any:
        """Cross-entropy."""
        return optax.softmax_cross_entropy_with_integer_labels(outputs, batch["label"])

    def activate(self, outputs: Any) -> dict[str, jax.Array]:
        """Softmax."""
        return {"probabilities": jax.nn.softmax(outputs)}


def measure(flags: argparse.Namespace) -> list[Row]:
    """A row for each number of steps between logs.

    Args:
      flags: ``rounds``, ``quick``.
    """
    steps = QUICK_STEPS if flags.quick else STEPS
    scan = Scan(steps)
    rows = []
    for every in LOGGED:
        program = Program(stage(steps, min(every, steps)), data_mesh(1))
        fitted(program)  # compiles
        pairs = tuple((fitted(program), scan.seconds()) for _ in range(flags.rounds))
        size = f"{steps} steps, batch {BATCH} x {FEATURES}"
        what = f"step, logged every {min(every, steps)}"
        rows.append(Row("loop", "one layer", what, size, "fit", "one compiled scan", pairs))
        rates = [f"{steps / np.median(own):,.0f}" for own in zip(*pairs, strict=True)]
        say(f"loop, {what}: {rates[0]} steps/s; one compiled scan {rates[1]}")
    return rows


def stage(steps: int, log_every: int) -> Nothing:
    """The stage with the recipe of a run that looks at nothing before its end.

    Args:
      steps: in all.
      log_every: steps between rows of metrics.jsonl.
    """
    config = TrainConfig(
        steps=steps,
        batch_size=BATCH,
        ema_decay=0.95,
        validate_every=steps,
        checkpoint_every=steps,
        log_every=log_every,
    )
    return Nothing("nothing", Options(config))


def examples() -> Examples:
    """Random examples of two classes."""
    rng = np.random.default_rng(0)
    image = rng.normal(size=(EXAMPLES, FEATURES)).astype(np.float32)
    return {"image": image, "label": rng.integers(0, 2, EXAMPLES).astype(np.int32)}


def fitted(program: Program) -> float:
    """Seconds of a whole training by `fit`, as its cost.json has them.

    Args:
      program: of `Nothing`; where its step is compiled, that is not in it.
    """
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
        job = Job(
            program=program,
            examples=examples(),
            chosen=np.arange(EXAMPLES),
            validation=None,
            folder=Path(folder) / "nothing",
            seed=0,
            title="nothing",
        )
        (failure,) = fit([job], validate, threading.Event())
        if failure is not None:
            raise failure
        return float(json.loads((job.folder / "cost.json").read_text())["wall_s"])


class Scan:
    """The same steps as one program.

    Args:
      steps: of it.
    """

    def __init__(self, steps: int) -> None:
        mesh, own = data_mesh(1), examples()
        program = Program(stage(steps + 1, steps), mesh)
        feed, key = Feed([own], mesh, limit_mb=1e6), put_replicated(jax.random.key(0), mesh)
        self._trainer = Trainer([program], feed, [()], [key])
        first = {k: v[:BATCH] for k, v in own.items()} | {"index": np.arange(BATCH, dtype=np.int32)}
        self._first = program.init(put_batch(first, mesh), key)
        order = np.random.default_rng(0).integers(0, EXAMPLES, (steps, 1, BATCH))
        self._batches = self._trainer.batches(order)
        self.seconds()  # compiles

    def seconds(self) -> float:
        """Of all steps, from the first state."""
        state = self._trainer.put([jax.tree.map(jnp.copy, self._first)])  # a step consumes it
        jax.block_until_ready(state)
        start = time.perf_counter()
        jax.block_until_ready(self._trainer.step(state, self._batches))
        return time.perf_counter() - start
