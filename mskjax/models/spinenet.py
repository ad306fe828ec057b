"""The grader of SpineNet: a 3-D residual network with one head per grading."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from mskjax.config import Norm
from mskjax.models.blocks import Conv3D, max_pool_3x3
from mskjax.models.norms import normalisation, normalised_relu


class ResidualBlock3D(nn.Module):
    """Basic residual block (He et al. 2016) of two convolutions.

    Attributes:
      features: output channels.
      stride: in plane, of the first convolution and the shortcut.
      norm: see `norms.normalisation`.
      dtype: compute type.
      kernel_size: odd (slices, rows, columns) of both convolutions.
    """

    features: int
    stride: int
    norm: Norm = "batch"
    dtype: Any = jnp.float32
    kernel_size: tuple[int, int, int] = (3, 3, 3)

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        """(B, D, H, W, C) to (B, D, ceil(H / stride), ceil(W / stride), features)."""
        size, dtype = self.kernel_size, self.dtype
        y = Conv3D(self.features, size, self.stride, dtype, name="conv_1")(x)
        y = normalised_relu(y, self.norm, train, self.dtype, "norm_1")
        y = Conv3D(self.features, size, dtype=dtype, name="conv_2")(y)
        y = normalisation(self.norm, train, self.dtype, "norm_2")(y)
        if x.shape != y.shape:
            # A 1x1x1 convolution with a stride is a matrix product over the voxels it visits.
            x = x[:, :, :: self.stride, :: self.stride]
            x = nn.Dense(self.features, use_bias=False, dtype=self.dtype, name="shortcut")(x)
            x = normalisation(self.norm, train, self.dtype, "norm_shortcut")(x)
        return nn.relu(x + y)


class SpineNetGrader(nn.Module):
    """3-D ResNet with a head per grading (Jamaludin et al. 2017; Windsor et al. 2022).

    Written from the published description.  The defaults are the 3-D ResNet-34: a 3x7x7 stem of
    stride (1, 2, 2), max pooling 1x3x3 of stride (1, 2, 2), four groups of basic blocks whose
    width doubles from group to group, global average pooling and one linear head per grading.  No
    stride passes through slices, so any number of slices from one will do.

    Attributes:
      heads: (name, number of classes) of each grading.
      width: channels of the stem and the first group.
      blocks: residual blocks per group.
      strides: in-plane stride at the start of each group.
      norm: ``batch``, ``group`` or ``instance``.
      dtype: compute type, float32 or bfloat16; parameters, statistics and logits are float32.
      dropout: rate before the heads; draws from the ``dropout`` stream where above 0.
    """

    heads: tuple[tuple[str, int], ...]
    width: int = 64
    blocks: tuple[int, ...] = (3, 4, 6, 3)
    strides: tuple[int, ...] = (1, 1, 2, 2)
    norm: Norm = "batch"
    dtype: Any = jnp.float32
    dropout: float = 0.0

    @nn.compact
    def __call__(
        self, x: jax.Array, train: bool, tap: jax.Array | None = None
    ) -> dict[str, jax.Array]:
        """Logits of each grading.

        Sows the last feature map, (B, slices, rows / 16, columns / 16, 8 width) at the defaults,
        under ``intermediates/features``.

        Args:
          x: (B, slices, rows, columns, channels) crops, normalised.
          train: batch statistics (and their update) and dropout.
          tap: added to the last feature map; see `attention.grad_cam`.

        Returns:
          Head name to (B, classes) float32.

        Raises:
          ValueError: `blocks` and `strides` differ in length.
        """
        if len(self.blocks) != len(self.strides):
            raise ValueError(f"blocks {self.blocks} and strides {self.strides} differ in length")
        x = Conv3D(self.width, (3, 7, 7), stride=2, dtype=self.dtype, name="stem")(x)
        x = normalised_relu(x, self.norm, train, self.dtype, "stem_norm")
        batch, slices = x.shape[:2]
        x = max_pool_3x3(x.reshape(batch * slices, *x.shape[2:]))
        x = x.reshape(batch, slices, *x.shape[1:])
        for group, (count, stride) in enumerate(zip(self.blocks, self.strides, strict=True)):
            for block in range(count):
                x = ResidualBlock3D(
                    self.width * 2**group,
                    stride if block == 0 else 1,
                    self.norm,
                    self.dtype,
                    name=f"group_{group}_block_{block}",
                )(x, train)
        self.sow("intermediates", "features", x)
        x = x if tap is None else x + tap
        features = x.astype(jnp.float32).mean((1, 2, 3))
        features = nn.Dropout(self.dropout, deterministic=not train)(features)
        return {name: nn.Dense(n, name=f"head_{name}")(features) for name, n in self.heads}
