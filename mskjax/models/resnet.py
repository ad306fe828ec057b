"""ResNet of bottleneck blocks."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from mskjax.config import Norm
from mskjax.models.blocks import he_normal_fan_out, max_pool_3x3
from mskjax.models.norms import normalisation, normalised_relu

EXPANSION = 4  # output channels of a bottleneck over its inner ones


class Bottleneck(nn.Module):
    """Residual block of 1x1, 3x3 and 1x1 convolutions (He et al. 2016).

    1x1 convolutions are matrix products, which are faster on CPU; their kernels are (C, features).

    Attributes:
      features: inner channels; `EXPANSION` times as many leave the block.
      stride: of the block and its shortcut.
      stride_in_first: see `ResNet`.
      norm: see `norms.normalisation`.
      dtype: compute type.
    """

    features: int
    stride: int
    stride_in_first: bool = False
    norm: Norm = "batch"
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        """(B, H, W, C) to (B, ceil(H / stride), ceil(W / stride), 4 features)."""
        out, first = EXPANSION * self.features, self.stride if self.stride_in_first else 1
        y = self._pointwise(x, self.features, first, "conv_1")
        y = normalised_relu(y, self.norm, train, self.dtype, "norm_1")
        # "SAME" would pad strided convolutions unevenly.
        y = nn.Conv(
            self.features,
            (3, 3),
            strides=self.stride // first,
            padding=1,
            use_bias=False,
            dtype=self.dtype,
            kernel_init=he_normal_fan_out,
            name="conv_2",
        )(y)
        y = normalised_relu(y, self.norm, train, self.dtype, "norm_2")
        y = self._norm("norm_3", train)(self._pointwise(y, out, 1, "conv_3"))
        if x.shape != y.shape:
            x = self._pointwise(x, out, self.stride, "shortcut")
            x = self._norm("norm_shortcut", train)(x)
        return nn.relu(x + y)

    def _pointwise(self, x: jax.Array, features: int, stride: int, name: str) -> jax.Array:
        dense = nn.Dense(
            features, use_bias=False, dtype=self.dtype, kernel_init=he_normal_fan_out, name=name
        )
        return dense(x[:, ::stride, ::stride])

    def _norm(self, name: str, train: bool) -> nn.Module:
        return normalisation(self.norm, train, self.dtype, name)


class ResNet(nn.Module):
    """ResNet of bottlenecks (He et al. 2016); the defaults are ResNet-50.

    Layers follow torchvision, so that its weights fit (`pretrained.load`): normal initialisation of
    kernels with deviation sqrt(2 / fan-out) (He et al. 2015), scales of the normalisation 1.

    Attributes:
      heads: (name, number of classes) of each grading.
      width: channels of the stem and inner channels of the first group; doubled in each next group.
      blocks: bottlenecks of each group.
      norm: ``batch`` or ``group``.
      stride_in_first: where groups after the first have their stride of 2: in the 3x3 convolution
        (False: "v1.5", torchvision) or in the first 1x1 (True: He et al. 2016, Keras).
      mix: whether a 1x1 convolution first takes the channels to three.
      dtype: compute type, float32 or bfloat16; parameters, statistics and logits are float32.
    """

    heads: tuple[tuple[str, int], ...]
    width: int = 64
    blocks: tuple[int, ...] = (3, 4, 6, 3)
    norm: Norm = "batch"
    stride_in_first: bool = False
    mix: bool = False
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(
        self, x: jax.Array, train: bool, tap: jax.Array | None = None
    ) -> dict[str, jax.Array]:
        """Logits of each grading.

        Sows the last feature map, (B, H / 32, W / 32, 2048) at the defaults, under
        ``intermediates/features``.

        Args:
          x: (B, H, W, C) images, standardised.
          train: batch statistics and their update.
          tap: added to the sown map; see `attention.grad_cam`.

        Returns:
          Head name to (B, classes) float32.
        """
        x = x.astype(self.dtype)
        if self.mix:
            x = nn.Dense(3, dtype=self.dtype, name="mix")(x)
        x = nn.Conv(
            self.width,
            (7, 7),
            strides=2,
            padding=3,
            use_bias=False,
            dtype=self.dtype,
            kernel_init=he_normal_fan_out,
            name="stem",
        )(x)
        x = normalised_relu(x, self.norm, train, self.dtype, "stem_norm")
        x = max_pool_3x3(x)
        for group, count in enumerate(self.blocks):
            for block in range(count):
                x = Bottleneck(
                    self.width * 2**group,
                    2 if group > 0 and block == 0 else 1,
                    self.stride_in_first,
                    self.norm,
                    self.dtype,
                    name=f"group_{group}_block_{block}",
                )(x, train)
        self.sow("intermediates", "features", x)
        x = x if tap is None else x + tap
        x = x.astype(jnp.float32).mean((1, 2))
        return {name: nn.Dense(n, name=f"head_{name}")(x) for name, n in self.heads}
