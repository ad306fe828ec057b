"""Deep supervision: the loss of a segmentation at several resolutions."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp

from mskjax.models.losses import segmentation_loss
from mskjax.models.unet3d import padding


def deep_loss(
    outputs: Sequence[jax.Array],
    shares: jax.Array,
    weights: jax.Array,
    strides: Sequence[tuple[int, int, int]],
    multiple: tuple[int, int, int],
) -> jax.Array:
    """The loss of every resolution, each half as heavy as the one above it.

    The weights 1, 1/2, 1/4, ... are divided by their sum (Isensee et al. 2021).  A voxel of a lower
    resolution is labelled with the mean share of the voxels that it stands for, of those that are
    known, and counts as much as of it is known.

    Args:
      outputs: logits as `unet3d.UNet3D` gives them in training, (B, D, H, W, K) first.
      shares: (B, D, H, W, K) and
      weights: (B, D, H, W), see `losses.segmentation_loss`.
      strides: of each output, `unet3d.UNet3D.supervised`.
      multiple: to which the network pads, `unet3d.UNet3D.multiple`.

    Returns:
      (B,) float32.
    """
    heavy = [0.5**i for i in range(len(outputs))]
    loss = heavy[0] * segmentation_loss(outputs[0], shares, weights)
    pad = ((0, 0), *padding(weights.shape[1:], multiple), (0, 0))
    known = jnp.pad(weights[..., None], pad)
    marked = jnp.pad(shares, pad) * known
    for own, logits, stride in zip(heavy[1:], outputs[1:], strides[1:], strict=True):
        weight = _means(known, stride)
        mean = _means(marked, stride) / jnp.where(weight > 0, weight, 1.0)
        loss = loss + own * segmentation_loss(logits, mean, weight[..., 0])
    return loss / sum(heavy)


def _means(x: jax.Array, stride: tuple[int, int, int]) -> jax.Array:
    """(B, D, H, W, C) averaged over windows of `stride`, which divides it."""
    batch, *size, channels = x.shape
    windows = [n for axis, s in zip(size, stride, strict=True) for n in (axis // s, s)]
    return x.reshape(batch, *windows, channels).mean((2, 4, 6))
