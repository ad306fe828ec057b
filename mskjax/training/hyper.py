"""Hyper-parameters that leave shapes unchanged: arrays beside the state, no constants.

Whatever `Hyper` holds may change without compiling anything: another learning rate, decay, number
of steps, loss weight or strength of augmentation runs on the program of the one before.  Class
weights travel on their own, as `Stage.balance`.  Rates of dropout stay in the network: Flax
refuses traced ones.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from mskjax.config import TrainConfig


class Hyper(struct.PyTreeNode):
    """The recipe of a stage as scalars; see `TrainConfig` for what each does.

    Attributes:
      steps: int32.
      learning_rate: float32.
      warmup_steps: int32.
      weight_decay: float32.
      clip_norm: float32.
      ema_decay: float32.
      stage: float32 scalars in the structure of `Stage.hyper`.
    """

    steps: Any
    learning_rate: Any
    warmup_steps: Any
    weight_decay: Any
    clip_norm: Any
    ema_decay: Any
    stage: Any = ()

    @classmethod
    def of(cls, config: TrainConfig, stage: Any = ()) -> "Hyper":
        """The hyper-parameters of a recipe and what `Stage.hyper` gives, as NumPy scalars."""
        return cls(
            steps=np.int32(config.steps),
            learning_rate=np.float32(config.learning_rate),
            warmup_steps=np.int32(config.warmup_steps),
            weight_decay=np.float32(config.weight_decay),
            clip_norm=np.float32(config.clip_norm),
            ema_decay=np.float32(config.ema_decay),
            stage=jax.tree.map(np.float32, stage),
        )


def learning_rate(hyper: Hyper, step: Any) -> jax.Array:
    r"""Linear warm-up to the peak, then cosine decay to zero.

    .. math:: r(t) = r_{max} t / w \text{ for } t < w, \quad
      r(t) = r_{max} (1 + \cos(\pi (t - w) / (n - w))) / 2 \text{ for } w \le t \le n

    with w steps of warm-up of n in all; 0 from n on.  Equal to
    ``optax.warmup_cosine_decay_schedule(0, peak, w, n)``, which refuses traced values, and to
    ``optax.cosine_decay_schedule(peak, n)`` where w is 0.

    Args:
      hyper: gives peak, warm-up and steps.
      step: optimiser steps done.

    Returns:
      () float32.
    """
    done, warmup = _float(step), _float(hyper.warmup_steps)
    falling = _float(hyper.steps) - warmup
    rising = done / jnp.maximum(warmup, 1.0)
    down = 0.5 * (1.0 + jnp.cos(jnp.pi * jnp.minimum(done - warmup, falling) / falling))
    return hyper.learning_rate * jnp.where(done < warmup, rising, down)


def average_decay(hyper: Hyper, step: Any) -> jax.Array:
    """Decay of the average of weights: ``min(ema_decay, (1 + t) / (10 + t))``.

    It warms up, or the random start would weigh for long.

    Args:
      hyper: gives the decay.
      step: optimiser steps done, t.

    Returns:
      () float32.
    """
    return jnp.minimum(hyper.ema_decay, (1.0 + _float(step)) / (10.0 + _float(step)))


def effective(config: TrainConfig) -> dict[str, Any]:
    """What a recipe comes to, for the record of a run.

    Returns:
      JSON: the learning rate's peak and the step with it, and the decay of the average of weights
      at the last step, which is below ``ema_decay`` where the run is too short to warm it up.
    """
    hyper = Hyper.of(config)
    return {
        "peak_learning_rate": config.learning_rate,
        "peak_step": config.warmup_steps,
        "last_ema_decay": round(float(average_decay(hyper, config.steps - 1)), 6),
    }


def _float(value: Any) -> jax.Array:
    return jnp.asarray(value).astype(jnp.float32)
