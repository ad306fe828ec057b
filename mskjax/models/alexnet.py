"""AlexNet in its single-column form, for images and for small patches."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from mskjax.models.blocks import adaptive_average_pool, he_normal, max_pool_3x3


class AlexNet(nn.Module):
    """AlexNet (Krizhevsky, Sutskever, Hinton 2012) in one column (Krizhevsky 2014).

    Layers follow torchvision, so that its weights fit (`pretrained.load`); there is no local
    response normalisation.  He initialisation (He et al. 2015).

    Attributes:
      heads: (name, number of classes) of each grading.
      width: channels of the first convolution; the others have 3, 6, 4 and 4 times as many.
      stem: kernel size, stride and padding of the first convolution.  The default leaves nothing of
        images below 63 pixels; for patches of 32 x 32, (3, 1, 1) does.
      hidden: units of the two hidden fully connected layers.
      dropout: rate before each hidden layer; draws from the ``dropout`` stream where above 0.
      mix: whether a 1x1 convolution first takes the channels to three.
      dtype: compute type, float32 or bfloat16; parameters and logits are float32.
    """

    heads: tuple[tuple[str, int], ...]
    width: int = 64
    stem: tuple[int, int, int] = (11, 4, 2)
    hidden: int = 4096
    dropout: float = 0.5
    mix: bool = False
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(
        self, x: jax.Array, train: bool, tap: jax.Array | None = None
    ) -> dict[str, jax.Array]:
        """Logits of each grading.

        Sows the last convolution's map before its pooling, (B, 13, 13, 256) at the defaults and
        224 x 224 pixels, under ``intermediates/features``.

        Args:
          x: (B, H, W, C) images, standardised.
          train: dropout.
          tap: added to the sown map; see `attention.grad_cam`.

        Returns:
          Head name to (B, classes) float32.

        Raises:
          ValueError: the image is too small for `stem` and the three poolings.
        """
        self._check_size(x.shape[1:3])
        x = x.astype(self.dtype)
        if self.mix:
            x = nn.Dense(3, dtype=self.dtype, name="mix")(x)
        x = max_pool_3x3(self._conv(x, 1, 1, *self.stem), padding=0)
        x = max_pool_3x3(self._conv(x, 2, 3, 5, 1, 2), padding=0)
        x = self._conv(x, 3, 6, 3, 1, 1)
        x = self._conv(x, 4, 4, 3, 1, 1)
        x = self._conv(x, 5, 4, 3, 1, 1)
        self.sow("intermediates", "features", x)
        x = x if tap is None else x + tap
        x = adaptive_average_pool(max_pool_3x3(x, padding=0), (6, 6))
        x = x.reshape(x.shape[0], -1)
        for name in ("fc6", "fc7"):
            x = nn.Dropout(self.dropout, deterministic=not train)(x)
            x = nn.relu(
                nn.Dense(self.hidden, dtype=self.dtype, kernel_init=he_normal, name=name)(x)
            )
        x = x.astype(jnp.float32)
        return {name: nn.Dense(n, name=f"head_{name}")(x) for name, n in self.heads}

    def _conv(
        self, x: jax.Array, number: int, times: int, kernel: int, stride: int, padding: int
    ) -> jax.Array:
        """Convolution `number`, of `times` the width, and its ReLU."""
        conv = nn.Conv(
            times * self.width,
            (kernel, kernel),
            strides=stride,
            padding=padding,
            dtype=self.dtype,
            kernel_init=he_normal,
            name=f"conv_{number}",
        )
        return nn.relu(conv(x))

    def _check_size(self, size: tuple[int, ...]) -> None:
        kernel, stride, padding = self.stem
        for pixels in size:
            left = (pixels + 2 * padding - kernel) // stride + 1
            for _ in range(3):
                left = (left - 3) // 2 + 1
            if left < 1:
                raise ValueError(
                    f"images of {size[0]} x {size[1]} pixels are too small for the stem {self.stem}"
                    " (kernel, stride, padding) and three poolings"
                )
