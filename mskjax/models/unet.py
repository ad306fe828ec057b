"""U-Net for semantic segmentation of 2-D images."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from mskjax.config import Norm
from mskjax.models.blocks import (
    ConvBlock2D,
    Pointwise,
    UpConv2x2,
    depth_to_space,
    he_normal,
    max_pool_2x2,
    space_to_depth,
)


class UNet(nn.Module):
    """U-Net (Ronneberger, Fischer, Brox 2015) with same padding and normalisation.

    Images of any size: they are zero-padded evenly to a multiple of stem 2^(levels - 1) and the
    logits cropped back.  He initialisation (He et al. 2015).  With a stem, blocks of pixels are
    the channels of one place, and its logits are those of the block's pixels (sub-pixel
    convolution, Shi et al. 2016).

    Attributes:
      classes: output channels, background included.
      widths: channels of each level, finest first; one level fewer poolings than entries.
      norm: ``batch``, ``group`` or ``instance``.
      dtype: compute type, float32 or bfloat16; parameters, statistics and logits are float32.
      stem: rows and columns of such a block; 1 is the U-Net as published.
    """

    classes: int
    widths: tuple[int, ...] = (16, 32, 64, 128)
    norm: Norm = "batch"
    dtype: Any = jnp.float32
    stem: int = 1

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        """Logits of each pixel.

        Args:
          x: (B, H, W, C) images, normalised.
          train: batch statistics (and their update) instead of running averages.

        Returns:
          (B, H, W, classes) float32.
        """
        multiple = self.stem * 2 ** (len(self.widths) - 1)
        x, window = _pad_to_multiple(x.astype(self.dtype), multiple)
        x = space_to_depth(x, self.stem)
        skips = []
        for level, width in enumerate(self.widths):
            x = self._block(width, f"down_{level}")(x, train)
            if level < len(self.widths) - 1:
                skips.append(x)
                x = max_pool_2x2(x)
        for level in reversed(range(len(skips))):
            width = self.widths[level]
            x = UpConv2x2(width, self.dtype, name=f"upsample_{level}")(x)
            x = jnp.concatenate([skips[level], x], axis=-1)
            x = self._block(width, f"up_{level}")(x, train)
        if self.stem == 1:
            x = x[:, window[0], window[1]]
        # A 1x1 convolution is a matrix product over channels.
        outputs = self.classes * self.stem**2
        x = Pointwise(outputs, kernel_init=he_normal, name="logits")(x.astype(jnp.float32))
        return x if self.stem == 1 else depth_to_space(x, self.stem)[:, window[0], window[1]]

    def _block(self, width: int, name: str) -> ConvBlock2D:
        return ConvBlock2D(width, 2, self.norm, self.dtype, name=name)


def _pad_to_multiple(x: jax.Array, multiple: int) -> tuple[jax.Array, tuple[slice, slice]]:
    """Zero-padded (B, H, W, C) and where in it the image lies."""
    _, height, width, _ = x.shape
    rows, columns = -height % multiple, -width % multiple
    top, left = rows // 2, columns // 2
    padding = ((0, 0), (top, rows - top), (left, columns - left), (0, 0))
    return jnp.pad(x, padding), (slice(top, top + height), slice(left, left + width))
