"""Losses per example; the training loop averages them."""

from collections.abc import Mapping

import jax
import jax.numpy as jnp
import optax

# A logit so low that its softmax is exactly 0 in float32, yet finite.
_IMPOSSIBLE = -1e9


def segmentation_loss(
    logits: jax.Array,
    labels: jax.Array,
    class_weights: jax.Array | None = None,
    valid: jax.Array | None = None,
) -> jax.Array:
    """Cross-entropy plus soft Dice loss (Milletari et al. 2016; sum as in nnU-Net, Isensee 2021).

    The cross-entropy is averaged over valid pixels, weighted by the class of each.  The Dice loss
    is averaged over foreground classes, each ``1 - (2 I + 2) / (P + T + 2)`` with I the sum of
    probabilities inside the reference, P the sum of probabilities and T the pixels of the
    reference; a class absent from both costs nothing.

    Args:
      logits: (B, ..., K), K >= 2, class 0 is background.
      labels: (B, ...) int in 0..K-1; any value where not `valid`.
      class_weights: (K,) >= 0 of the cross-entropy; ones where None.
      valid: (B, ...) bool, pixels that count; all where None.

    Returns:
      (B,) float32; 0 for an example without valid pixels.

    Raises:
      ValueError: a single output channel.
    """
    classes = logits.shape[-1]
    if classes < 2:
        raise ValueError(f"segmentation needs background and foreground logits, got {classes}")
    logits = logits.astype(jnp.float32)
    labels = labels.astype(jnp.int32)
    if valid is None:
        valid = jnp.ones(labels.shape, bool)
    # A pixel to ignore becomes certain, correct background: it then costs nothing in either term
    # and passes no gradient.
    certain = jnp.full(classes, _IMPOSSIBLE, jnp.float32).at[0].set(0.0)
    logits = jnp.where(valid[..., None], logits, certain)
    labels = jnp.where(valid, labels, 0)
    one_hot = jax.nn.one_hot(labels, classes, dtype=jnp.float32)
    weights = jnp.ones(classes, jnp.float32) if class_weights is None else class_weights
    pixel_weights = jnp.where(valid, one_hot @ weights, 0.0)
    entropy = optax.losses.softmax_cross_entropy(logits, one_hot)
    axes = tuple(range(1, labels.ndim))
    total = jnp.sum(pixel_weights, axes)
    cross_entropy = jnp.sum(pixel_weights * entropy, axes) / jnp.where(total > 0, total, 1.0)
    dice = optax.losses.dice_loss(logits, one_hot, smooth=1.0, ignore_background=True)
    return cross_entropy + dice


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
