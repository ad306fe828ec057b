"""Where in its input a classifier found the evidence for a class."""

from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp


def grad_cam(
    model: nn.Module,
    variables: Any,
    inputs: Sequence[jax.Array],
    head: str,
    chosen: jax.Array | None = None,
) -> jax.Array:
    """Grad-CAM (Selvaraju et al. 2017) on the last feature map.

    With A_k the maps and y the logit of a class, weights are ``a_k = mean(dy / dA_k)`` over space
    (eq. 1) and the result is ``relu(sum_k a_k A_k)`` (eq. 2).  It is not divided by its maximum, so
    that maps can be compared: of networks that average their last map before a linear head, a value
    is what its place adds to the logit; of others, to first order.  The gradient is taken with
    respect to the model's `tap`, so it runs through the layers after the feature map only and costs
    little more than a prediction.  A pure function of arrays: it may be jitted.

    Args:
      model: takes `inputs`, ``train`` and ``tap``, sows ``intermediates/features`` of shape
        (B, [D,] h, w, K) and returns logits (B, classes) by head.
      variables: its collections.
      inputs: arrays whose first axis is the batch.
      head: name of the grading that is explained.
      chosen: (B,) class that is explained; the one with the highest logit where None.

    Returns:
      (B, [D,] h, w) float32, not negative, in logits; all is zero where nothing speaks for the
      class.  To lay it over the input, resize it to the input's rows and columns.

    Raises:
      ValueError: the model has no such head.
    """

    def forward(tap: jax.Array | None) -> tuple[dict[str, jax.Array], jax.Array]:
        logits, state = model.apply(
            variables, *inputs, train=False, tap=tap, mutable=["intermediates"]
        )
        return logits, state["intermediates"]["features"][0]

    outputs, shape = jax.eval_shape(lambda: forward(None))
    if head not in outputs:
        raise ValueError(f"head is {head!r}; the model has {sorted(outputs)}")

    def evidence(tap: jax.Array) -> tuple[jax.Array, jax.Array]:
        logits, features = forward(tap)
        explained = jnp.argmax(logits[head], -1) if chosen is None else chosen
        picked = jnp.take_along_axis(logits[head], explained[:, None], axis=-1)
        # Examples do not meet at prediction, so the sum's gradient holds each example's own.
        return picked.sum(), features

    gradient, features = jax.grad(evidence, has_aux=True)(jnp.zeros(shape.shape, shape.dtype))
    space = tuple(range(1, features.ndim - 1))
    weights = gradient.astype(jnp.float32).mean(space, keepdims=True)
    return nn.relu((weights * features.astype(jnp.float32)).sum(-1))
