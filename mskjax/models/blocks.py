"""The layers that the networks share, in forms that are fast on CPU, GPU and TPU alike.

XLA's CPU back end is slow at some textbook forms (gradients of transposed convolutions and of
window reductions, 3-D convolutions).  Each function here computes the same map in another form;
the tests hold it to the textbook one, and its parameters keep the textbook shape.
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from mskjax.config import Norm
from mskjax.models.norms import add_bias, normalised_relu

he_normal = nn.initializers.he_normal()
# He et al. 2015, eq. 14: keeps the scale of the gradient, as published residual networks do.
he_normal_fan_out = nn.initializers.variance_scaling(2.0, "fan_out", "normal")


class ConvBlock2D(nn.Module):
    """3x3 convolution with same padding, normalisation and ReLU, `repeats` times.

    Attributes:
      features: output channels.
      repeats: convolutions.
      norm: see `normalisation`.
      dtype: compute type; parameters are float32.
    """

    features: int
    repeats: int = 2
    norm: Norm = "batch"
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        """(B, H, W, C) to (B, H, W, features) of `dtype`."""
        for _ in range(self.repeats):
            # No bias: the normalisation that follows would remove it.
            x = nn.Conv(
                self.features, (3, 3), use_bias=False, dtype=self.dtype, kernel_init=he_normal
            )(x)
            x = normalised_relu(x, self.norm, train, self.dtype)
        return x


class ConvBlock3D(nn.Module):
    """As `ConvBlock2D` over slices: convolution, normalisation and ReLU, `repeats` times.

    Attributes:
      features: output channels.
      repeats: convolutions.
      kernel_size: odd (slices, rows, columns); one slice sees no neighbour.
      norm: see `normalisation`.
      dtype: compute type; parameters are float32.
    """

    features: int
    repeats: int = 2
    kernel_size: tuple[int, int, int] = (3, 3, 3)
    norm: Norm = "batch"
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        """(B, D, H, W, C) to (B, D, H, W, features) of `dtype`."""
        for _ in range(self.repeats):
            x = Conv3D(self.features, self.kernel_size, dtype=self.dtype)(x)
            x = normalised_relu(x, self.norm, train, self.dtype)
        return x


class Pointwise(nn.Dense):
    """A 1x1 convolution: ``nn.Dense`` of pixels in one row, whose gradient needs no transposes."""

    @nn.compact
    def __call__(self, inputs: jax.Array) -> jax.Array:
        """(..., C) to (..., features)."""
        flat = super().__call__(inputs.reshape(-1, inputs.shape[-1]))
        return flat.reshape(*inputs.shape[:-1], self.features)


class UpConv2x2(nn.Module):
    """Transposed convolution 2x2 of stride 2: two matrix products, one for every other row.

    With kernel and stride equal, no two inputs touch the same output, so each input pixel yields
    its own 2x2 block: ``y[2 i + a, 2 j + b] = x[i, j] @ kernel[a, b] + bias``.  A row of inputs
    yields both its rows of outputs as they lie in memory.  ``kernel``
    (2, 2, C, features) is that of ``nn.ConvTranspose(features, (2, 2), (2, 2))`` with its two
    window axes flipped, and ``bias`` (features,) the same.

    Attributes:
      features: output channels.
      dtype: compute type; parameters are float32.
    """

    features: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """(B, H, W, C) to (B, 2 H, 2 W, features) of `dtype`."""
        channels = x.shape[-1]
        # Each output depends on C inputs only, so the window is left out of the fan-in.
        init = nn.initializers.variance_scaling(
            1.0, "fan_in", "truncated_normal", batch_axis=(0, 1)
        )
        kernel = self.param("kernel", init, (2, 2, channels, self.features), jnp.float32)
        bias = self.param("bias", nn.initializers.zeros_init(), (self.features,), jnp.float32)
        x, kernel, bias = nn.dtypes.promote_dtype(x, kernel, bias, dtype=self.dtype)
        return add_bias(_doubled(x, kernel), bias)


def _doubled(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """See `UpConv2x2`, without the bias: (B, H, W, C) and (2, 2, C, F) to (B, 2 H, 2 W, F)."""
    batch, height, width, channels = x.shape
    pixels, features = x.reshape(-1, channels), kernel.shape[-1]
    rows = [
        (pixels @ kernel[a].transpose(1, 0, 2).reshape(channels, -1)).reshape(
            batch * height, 1, 2 * width, features
        )
        for a in range(2)
    ]
    return jnp.concatenate(rows, 1).reshape(batch, 2 * height, 2 * width, features)


def space_to_depth(x: jax.Array, size: int) -> jax.Array:
    """Blocks of pixels as the channels of one: pixel (a, b) of a block before (a, b + 1).

    Args:
      x: (B, H, W, C), both multiples of `size`.
      size: rows and columns of a block.

    Returns:
      (B, H / size, W / size, size size C).
    """
    if size == 1:
        return x
    batch, height, width, channels = x.shape
    blocks = x.reshape(batch, height // size, size, width // size, size, channels)
    blocks = blocks.transpose(0, 1, 3, 2, 4, 5)
    return blocks.reshape(batch, height // size, width // size, size * size * channels)


def depth_to_space(x: jax.Array, size: int) -> jax.Array:
    """The way back of `space_to_depth`: (B, h, w, size size C) to (B, size h, size w, C)."""
    batch, height, width, channels = x.shape
    features = channels // size**2
    blocks = x.reshape(batch, height, width, size, size, features).transpose(0, 1, 3, 2, 4, 5)
    return blocks.reshape(batch, size * height, size * width, features)


class UpConv3D(nn.Module):
    """Transposed convolution over slices, rows and columns, of equal kernel and stride.

    As `UpConv2x2`: ``kernel`` (d, 2, 2, C, features) is that of ``nn.ConvTranspose`` with its
    window axes flipped.

    Attributes:
      features: output channels.
      slices: of the window: 1 leaves them as they are, 2 doubles them.
      dtype: compute type; parameters are float32.
    """

    features: int
    slices: int = 1
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """(B, D, H, W, C) to (B, slices D, 2 H, 2 W, features) of `dtype`."""
        batch, depth, height, width, channels = x.shape
        window = (self.slices, 2, 2)
        init = nn.initializers.variance_scaling(
            1.0, "fan_in", "truncated_normal", batch_axis=(0, 1, 2)
        )
        kernel = self.param("kernel", init, (*window, channels, self.features), jnp.float32)
        bias = self.param("bias", nn.initializers.zeros_init(), (self.features,), jnp.float32)
        x, kernel, bias = nn.dtypes.promote_dtype(x, kernel, bias, dtype=self.dtype)
        planes = x.reshape(batch * depth, height, width, channels)
        slices = [
            _doubled(planes, own).reshape(batch, depth, 1, 2 * height, 2 * width, self.features)
            for own in kernel
        ]
        shape = (batch, self.slices * depth, 2 * height, 2 * width, self.features)
        return add_bias(jnp.concatenate(slices, 2).reshape(shape), bias)


def max_pool_3d(x: jax.Array, slices: int = 1) -> jax.Array:
    """Max pooling of stride 2 in plane, and over slices where asked for; see `max_pool_2x2`.

    Args:
      x: (B, D, H, W, C), D a multiple of `slices`, H and W even.
      slices: of the window.

    Returns:
      (B, D / slices, H / 2, W / 2, C) of the same dtype.
    """
    batch, depth, *image = x.shape
    if slices > 1:
        depth = depth // slices
        x = x.reshape(batch, depth, slices, *image).max(2)
    pooled = max_pool_2x2(x.reshape(batch * depth, *image))
    return pooled.reshape(batch, depth, *pooled.shape[1:])


def max_pool_2x2(x: jax.Array) -> jax.Array:
    """Max pooling 2x2 of stride 2 without padding, by reshape and maximum.

    The gradient of tied maxima is shared among them, where `flax.linen.max_pool` gives it to one.

    Args:
      x: (B, H, W, C); a last odd row or column is dropped, as by `flax.linen.max_pool`.

    Returns:
      (B, H // 2, W // 2, C) of the same dtype.
    """
    batch, height, width, channels = x.shape
    x = x[:, : height // 2 * 2, : width // 2 * 2]
    return x.reshape(batch, height // 2, 2, width // 2, 2, channels).max((2, 4))


def max_pool_3x3(x: jax.Array, padding: int = 1) -> jax.Array:
    """Max pooling 3x3 of stride 2, rows before columns.

    Twice as fast with its gradient as a window reduction on CPU.  The gradient of tied maxima is
    shared among them.

    Args:
      x: (B, H, W, C), floating point.
      padding: pixels on each side: 1 in residual networks, 0 in AlexNet.

    Returns:
      (B, (H - 3 + 2 padding) // 2 + 1, (W - 3 + 2 padding) // 2 + 1, C) of the same dtype.
    """
    border = (padding, padding)
    x = jnp.pad(x, ((0, 0), border, border, (0, 0)), constant_values=-jnp.inf)
    rows, columns = (x.shape[1] - 1) // 2 * 2, (x.shape[2] - 1) // 2 * 2
    over_rows = jnp.maximum(
        jnp.maximum(x[:, 0:rows:2], x[:, 1 : rows + 1 : 2]), x[:, 2 : rows + 2 : 2]
    )
    left, middle = over_rows[:, :, 0:columns:2], over_rows[:, :, 1 : columns + 1 : 2]
    return jnp.maximum(jnp.maximum(left, middle), over_rows[:, :, 2 : columns + 2 : 2])


def adaptive_average_pool(x: jax.Array, size: tuple[int, int]) -> jax.Array:
    """Averages over a fixed number of bins whatever the image's size.

    PyTorch's bins: of n pixels, bin i of m averages floor(i n / m) to ceil((i + 1) n / m), so that
    bins overlap where m does not divide n and repeat pixels where m is greater.

    Args:
      x: (B, H, W, C), floating point, H and W at least 1.
      size: bins along rows and columns.

    Returns:
      (B, *size, C) of the same dtype; `x` itself where it has that size.
    """
    if x.shape[1:3] == tuple(size):
        return x
    rows, columns = (_bins(n, m) for n, m in zip(x.shape[1:3], size, strict=True))
    # The default precision of matrix products on accelerators would round the pixels.
    mean = jnp.einsum(
        "bhwc,ih,jw->bijc", x.astype(jnp.float32), rows, columns, precision=lax.Precision.HIGHEST
    )
    return mean.astype(x.dtype)


def _bins(pixels: int, bins: int) -> np.ndarray:
    """(bins, pixels) float32: the weight of each pixel in each bin's average."""
    weights = np.zeros((bins, pixels), np.float32)
    for i in range(bins):
        start, stop = i * pixels // bins, -(-(i + 1) * pixels // bins)
        weights[i, start:stop] = 1 / (stop - start)
    return weights


def conv3d(x: jax.Array, kernel: jax.Array, stride: int = 1) -> jax.Array:
    """3-D convolution of stride (1, stride, stride), computed as one 2-D convolution.

    The slices that a kernel sees are laid side by side as channels, and all slices of all examples
    form one batch.  Padding is (k - 1) / 2 on both sides of each axis, as in the reference
    implementations of residual networks (``SAME`` pads strided convolutions unevenly).

    On two CPU cores (jaxlib 0.10.2, 16 to 128 channels), forward and backward, 1.6 to 3.3 times as
    fast as XLA's 3-D convolution at stride 1 and 7 to 15 times at stride 2.

    Args:
      x: (B, D, H, W, C).
      kernel: (kD, kH, kW, C, features), odd sizes.
      stride: in plane.

    Returns:
      (B, D, ceil(H / stride), ceil(W / stride), features).
    """
    batch, slices, rows, columns, channels = x.shape
    depth, height, width, _, features = kernel.shape
    half = depth // 2
    padded = jnp.pad(x, ((0, 0), (half, half), (0, 0), (0, 0), (0, 0)))
    neighbours = jnp.concatenate([padded[:, d : d + slices] for d in range(depth)], axis=-1)
    image = lax.conv_general_dilated(
        neighbours.reshape(batch * slices, rows, columns, depth * channels),
        kernel.transpose(1, 2, 0, 3, 4).reshape(height, width, depth * channels, features),
        (stride, stride),
        ((height // 2, height // 2), (width // 2, width // 2)),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )
    return image.reshape(batch, slices, *image.shape[1:])


class Conv3D(nn.Module):
    """3-D convolution without bias and without a stride through slices; see `conv3d`.

    The parameter ``kernel`` has the standard shape (kD, kH, kW, C, features).

    Attributes:
      features: output channels.
      kernel_size: odd (depth, height, width).
      stride: in plane.
      dtype: compute type; the parameter is float32.
    """

    features: int
    kernel_size: tuple[int, int, int] = (3, 3, 3)
    stride: int = 1
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """(B, D, H, W, C) to (B, D, ceil(H / stride), ceil(W / stride), features) of `dtype`."""
        shape = (*self.kernel_size, x.shape[-1], self.features)
        kernel = self.param("kernel", he_normal, shape, jnp.float32)
        x, kernel = nn.dtypes.promote_dtype(x, kernel, dtype=self.dtype)
        return conv3d(x, kernel, self.stride)
