"""Losses per example; the training loop averages them."""

from collections.abc import Mapping

import jax
import jax.numpy as jnp
import optax


def segmentation_loss(
    logits: jax.Array, targets: jax.Array, weights: jax.Array | None = None
) -> jax.Array:
    """Cross-entropy plus soft Dice loss, of targets that may be shares of a pixel.

    The cross-entropy is averaged over pixels.  The Dice loss is averaged over foreground classes,
    each ``1 - (P + T - D + 2) / (P + T + 2)`` with P the sum of probabilities, T that of targets
    and D that of their absolute differences (Wang et al., Dice semimetric losses, MICCAI 2023).
    Where a pixel is of one class alone, P + T - D is twice the sum of probabilities inside the
    reference, and the loss that of Milletari et al. 2016; their sum is that of nnU-Net (Isensee
    2021).  Unlike Milletari's it is least where probabilities are the shares.  A class absent from
    both costs nothing.

    Args:
      logits: (B, ..., K), K >= 2, class 0 is background.
      targets: (B, ..., K) float in [0, 1], the share of each class; they sum to 1.
      weights: (B, ...) float >= 0 of the pixels in all means and sums, 0 where nothing is known;
        ones where None.

    Returns:
      (B,) float32; 0 for an example without weight.

    Raises:
      ValueError: a single output channel.
    """
    if logits.shape[-1] < 2:
        raise ValueError(
            f"segmentation needs background and foreground logits, got {logits.shape[-1]}"
        )
    logits, targets = logits.astype(jnp.float32), targets.astype(jnp.float32)
    axes = tuple(range(1, logits.ndim - 1))
    entropy = optax.losses.softmax_cross_entropy(logits, targets)
    found, wanted = jax.nn.softmax(logits)[..., 1:], targets[..., 1:]
    if weights is None:
        entropy = entropy.mean(axes)
    else:
        total = weights.sum(axes)
        entropy = (weights * entropy).sum(axes) / jnp.where(total > 0, total, 1.0)
        found, wanted = weights[..., None] * found, weights[..., None] * wanted
    both = (found + wanted).sum(axes)
    apart = jnp.abs(found - wanted).sum(axes)
    return entropy + (1.0 - (both - apart + 2.0) / (both + 2.0)).mean(-1)


def squared_emd(logits: jax.Array, labels: jax.Array) -> jax.Array:
    """Squared earth mover's distance between ordered classes (Hou, Yu & Samaras 2016).

    The sum over classes of the squared difference of the cumulative distributions: an error by
    two grades costs more than one by one grade.

    Args:
      logits: (..., K), classes in order.
      labels: (...) int in 0..K-1.

    Returns:
      (...) float32 in 0..K-1.
    """
    predicted = jnp.cumsum(jax.nn.softmax(logits.astype(jnp.float32)), axis=-1)
    classes = jnp.arange(logits.shape[-1]).reshape((1,) * labels.ndim + (-1,))
    reference = classes >= labels[..., None]
    return jnp.sum((predicted - reference.astype(jnp.float32)) ** 2, axis=-1)


def masked_heads_loss(
    logits: Mapping[str, jax.Array],
    targets: Mapping[str, jax.Array],
    weights: Mapping[str, jax.Array],
    emd_weight: float | jax.Array,
) -> jax.Array:
    """Multi-head classification loss in which missing labels count for nothing.

    Per head: class weight times cross-entropy, plus `emd_weight` times `squared_emd`.  Heads are
    averaged over the labels that an example has.

    Args:
      logits: head name to (B, K).
      targets: head name to (B,) int in 0..K-1, or -1 where missing; the same names.
      weights: head name to (K,) class weights; a head that is not named is not weighted.
      emd_weight: () >= 0, may be traced.

    Returns:
      (B,) float32; 0 for an example without labels.

    Raises:
      ValueError: `logits` and `targets` name different heads.
    """
    if set(logits) != set(targets):
        raise ValueError(f"heads {sorted(logits)} do not match targets {sorted(targets)}")
    losses, labelled = [], []
    for name in sorted(logits):
        present = targets[name] >= 0
        label = jnp.where(present, targets[name], 0)
        # Masked before the loss as well: not even a NaN may come back from a missing label.
        output = jnp.where(present[:, None], logits[name].astype(jnp.float32), 0.0)
        loss = optax.losses.softmax_cross_entropy_with_integer_labels(output, label)
        if name in weights:
            loss = loss * weights[name][label]
        loss = loss + emd_weight * squared_emd(output, label)
        losses.append(jnp.where(present, loss, 0.0))
        labelled.append(present.astype(jnp.float32))
    return sum(losses[1:], losses[0]) / jnp.maximum(sum(labelled[1:], labelled[0]), 1.0)
