"""A stage small enough that the loops are what is tested: two-class logistic regression."""

import dataclasses
import threading
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import orbax.checkpoint as ocp

from mskjax.config import TrainConfig
from mskjax.evaluation import validate
from mskjax.training.checkpoints import is_trained, restore_variables, selected_step
from mskjax.training.loop import fit
from mskjax.training.member import Job
from mskjax.training.stage import Stage


class Net(nn.Module):
    """Batch norm, dropout and a dense layer: state, randomness and parameters."""

    @nn.compact
    def __call__(self, image, train):
        x = nn.BatchNorm(use_running_average=not train, momentum=0.9)(image)
        x = nn.Dropout(0.2, deterministic=not train)(x)
        return nn.Dense(2)(x)


@dataclasses.dataclass(frozen=True)
class ToyOptions:
    train: TrainConfig
    noise: float = 0.1
    penalty: float = 0.0


@dataclasses.dataclass(frozen=True)
class Toy(Stage):
    options: ToyOptions
    break_at: int = -1

    def hyper(self):
        return {"noise": self.options.noise, "penalty": self.options.penalty}

    def model(self):
        return Net()

    def training_examples(self, study):
        raise NotImplementedError

    def augment(self, keys, batch, hyper):
        noise = jax.vmap(lambda k: jax.random.normal(k, batch["image"].shape[1:]))(keys)
        return {**batch, "image": batch["image"] + hyper["noise"] * noise}

    def loss(self, outputs, batch, balance, hyper):
        loss = optax.softmax_cross_entropy_with_integer_labels(outputs, batch["label"])
        loss = loss + hyper["penalty"] * jnp.square(outputs).sum(-1)
        return jnp.where(batch["label"] == self.break_at, jnp.nan, loss)

    def monitor(self, outputs, batch):
        return {"accuracy": (outputs.argmax(-1) == batch["label"]).astype(jnp.float32)}

    def activate(self, outputs):
        return {"probabilities": jax.nn.softmax(outputs)}

    def classes(self, examples):
        return examples["label"]


def toy_examples(n=40, seed=0):
    rng = np.random.default_rng(seed)
    label = rng.integers(0, 2, n).astype(np.int32)
    image = (rng.normal(size=(n, 6)) + 1.5 * label[:, None]).astype(np.float32)
    return {"image": image, "label": label}


def toy_config(**changes):
    fields = {
        "steps": 12,
        "batch_size": 8,
        "validate_every": 4,
        "checkpoint_every": 3,
        "log_every": 2,
        "ema_decay": 0.5,
        "learning_rate": 0.05,
        "warmup_steps": 6,
        "select": "best",
    }
    return TrainConfig(**(fields | changes))


def toy(break_at=-1, noise=0.1, penalty=0.0, **changes):
    return Toy("toy", ToyOptions(toy_config(**changes), noise, penalty), break_at)


def stored_state(folder, kind="latest"):
    """All that a checkpoint holds of the state, read without the project's code."""
    (step,) = (folder / "checkpoints" / kind).resolve().glob("[0-9]*")
    handler = ocp.PyTreeCheckpointHandler()
    tree = handler.metadata(step / "state").tree
    arrays = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), tree)
    return handler.restore(step / "state", args=ocp.args.PyTreeRestore(restore_args=arrays))


class StopAt:
    """A stop event that is set once step k has been asked about."""

    def __init__(self, k):
        self.left = k

    def is_set(self):
        self.left -= 1
        return self.left <= 0


def train(program, folder, stop=None, seed=7, settings=None, **changes):
    """Trains on 40 examples of the toy, with 20 to validate on; the selected weights and step."""
    job = Job(
        program=program,
        examples=toy_examples(),
        chosen=np.arange(40),
        validation=toy_examples(20, 1),
        folder=folder,
        seed=seed,
        title="toy",
    )
    if not is_trained(folder):  # as `study.train_fold` asks
        job = dataclasses.replace(job, **changes)
        (failure,) = fit([job], validate, stop or threading.Event(), **(settings or {}))
        if failure:
            raise failure
    return Fitted(restore_variables(folder), selected_step(folder))


def one_step(program, state, batch, balance, key):
    """One training step on rows that were sent."""
    several = {k: v[None] for k, v in batch.items()}
    several = jax.device_put(several, program.sharding_of_batches(together=False))
    arguments = (state, program.hyper, {}, several, balance, key)
    return program.training_step(arguments)(*arguments)


class Fitted(NamedTuple):
    variables: Any
    step: int
