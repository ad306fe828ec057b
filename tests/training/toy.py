"""A stage small enough that the loops are what is tested: two-class logistic regression."""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from mskjax.config import TrainConfig
from mskjax.training.stage import Stage


class Net(nn.Module):
    """Batch norm, dropout and a dense layer: state, randomness and parameters."""

    @nn.compact
    def __call__(self, image, train):
        x = nn.BatchNorm(use_running_average=not train, momentum=0.9)(image)
        x = nn.Dropout(0.2, deterministic=not train)(x)
        return nn.Dense(2)(x)


@dataclasses.dataclass(frozen=True)
class Toy(Stage):
    train: TrainConfig
    name: str = "toy"
    break_at: int = -1

    def model(self):
        return Net()

    def training_examples(self, study):
        raise NotImplementedError

    def augment(self, keys, batch):
        noise = jax.vmap(lambda k: jax.random.normal(k, batch["image"].shape[1:]))(keys)
        return {**batch, "image": batch["image"] + 0.1 * noise}

    def loss(self, outputs, batch, balance):
        loss = optax.softmax_cross_entropy_with_integer_labels(outputs, batch["label"])
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
    image = rng.normal(size=(n, 6)).astype(np.float32) + 1.5 * label[:, None]
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
    }
    return TrainConfig(**(fields | changes))
