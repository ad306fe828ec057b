"""VGG: 3x3 convolutions in blocks, then fully connected layers."""

from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp

from mskjax.models.blocks import (
    adaptive_average_pool,
    he_normal,
    he_normal_fan_out,
    max_pool_2x2,
)
from mskjax.models.norms import normalised_relu


class VGG(nn.Module):
    """VGG (Simonyan & Zisserman 2015); the defaults are configuration E, VGG-19.

    Layers, biases and the adaptive pooling that admits any image size follow torchvision, so that
    its weights fit (`pretrained.load`).  Convolutions start as torchvision's (He et al. 2015,
    fan-out).  Hidden layers start with fan-in scaling, which is close to the published deviation of
    .01 at the published width and lets narrow networks train.

    Attributes:
      heads: (name, number of classes) of each grading.
      widths: channels of each block.
      convolutions: 3x3 convolutions of each block; a 2x2 max pooling ends the block.
      norm: after each convolution: ``none`` (as in the paper), ``batch`` (torchvision's
        VGG-19-BN) or ``group``.
      hidden: units of the two hidden fully connected layers.
      pool: rows and columns of the map that is flattened; (7, 7) leaves images of 224 x 224 as
        they are.
      dropout: rate after each hidden layer; draws from the ``dropout`` stream where above 0.
      mix: whether a 1x1 convolution first takes the channels to three.
      dtype: compute type, float32 or bfloat16; parameters, statistics and logits are float32.
    """

    heads: tuple[tuple[str, int], ...]
    widths: tuple[int, ...] = (64, 128, 256, 512, 512)
    convolutions: tuple[int, ...] = (2, 2, 4, 4, 4)
    norm: Literal["none", "batch", "group"] = "none"
    hidden: int = 4096
    pool: tuple[int, int] = (7, 7)
    dropout: float = 0.5
    mix: bool = False
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(
        self, x: jax.Array, train: bool, tap: jax.Array | None = None
    ) -> dict[str, jax.Array]:
        """Logits of each grading.

        Sows the last block's map before its pooling, (B, H / 16, W / 16, 512) at the defaults,
        under ``intermediates/features``.

        Args:
          x: (B, H, W, C) images, standardised; H and W at least 2 to the number of blocks.
          train: batch statistics (and their update) and dropout.
          tap: added to the sown map; see `attention.grad_cam`.

        Returns:
          Head name to (B, classes) float32.

        Raises:
          ValueError: `widths` and `convolutions` differ in length, or the image is too small.
        """
        if len(self.widths) != len(self.convolutions):
            raise ValueError(
                f"widths {self.widths} and convolutions {self.convolutions} differ in length"
            )
        if min(x.shape[1:3]) < 2 ** len(self.widths):
            raise ValueError(
                f"images of {x.shape[1]} x {x.shape[2]} pixels are too small for"
                f" {len(self.widths)} poolings"
            )
        x = x.astype(self.dtype)
        if self.mix:
            x = nn.Dense(3, dtype=self.dtype, name="mix")(x)
        for block in range(len(self.widths)):
            x = max_pool_2x2(x) if block > 0 else x
            x = self._block(block, x, train)
        self.sow("intermediates", "features", x)
        x = x if tap is None else x + tap
        x = adaptive_average_pool(max_pool_2x2(x), self.pool)
        x = x.reshape(x.shape[0], -1)
        for name in ("fc6", "fc7"):
            x = nn.relu(
                nn.Dense(self.hidden, dtype=self.dtype, kernel_init=he_normal, name=name)(x)
            )
            x = nn.Dropout(self.dropout, deterministic=not train)(x)
        x = x.astype(jnp.float32)
        return {name: nn.Dense(n, name=f"head_{name}")(x) for name, n in self.heads}

    def _block(self, block: int, x: jax.Array, train: bool) -> jax.Array:
        """(B, H, W, C) to (B, H, W, widths[block]), before the pooling."""
        for conv in range(self.convolutions[block]):
            x = nn.Conv(
                self.widths[block],
                (3, 3),
                dtype=self.dtype,
                kernel_init=he_normal_fan_out,
                name=f"block_{block}_conv_{conv}",
            )(x)
            if self.norm == "none":
                x = nn.relu(x)
            else:
                name = f"block_{block}_norm_{conv}"
                x = normalised_relu(x, self.norm, train, self.dtype, name)
        return x
