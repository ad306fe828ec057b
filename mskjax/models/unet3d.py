"""U-Net for semantic segmentation of volumes whose slices may lie far apart."""

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from mskjax.config import Norm
from mskjax.models.blocks import (
    ConvBlock3D,
    UpConv3D,
    depth_to_space,
    he_normal,
    max_pool_3d,
    space_to_depth,
)
from mskjax.models.spinenet import ResidualBlock3D

# Ratio of pitch to pixel size from which slices are neither convolved nor pooled together, and the
# fewest slices that pooling may leave (both Isensee et al. 2021, nnU-Net).
ANISOTROPIC = 2.0
FEWEST_SLICES = 4


class Schedule(NamedTuple):
    """What each level does through plane; in plane kernels are 3x3 and each pooling halves.

    Attributes:
      kernels: slices that the kernels of each level see, 1 or 3.
      pools: slices that the pooling after each level but the last takes together, 1 or 2.
    """

    kernels: tuple[int, ...]
    pools: tuple[int, ...]


def schedule(levels: int, pixel_mm: float, pitch_mm: float, slices: int) -> Schedule:
    """Kernels and pooling through plane, by the rule of nnU-Net (Isensee et al. 2021).

    Slices are left alone while they lie at least twice as far apart as the pixels of a level; from
    the first level on where they do not, kernels are 3x3x3 and slices are pooled too, as long as
    a patch keeps at least four of them.  The lowest level's kernels are 3x3x3 in any case.

    >>> schedule(4, pixel_mm=0.6, pitch_mm=4.4, slices=16)
    Schedule(kernels=(1, 1, 3, 3), pools=(1, 1, 2))

    Args:
      levels: of the U-Net.
      pixel_mm: in plane, at the finest level.
      pitch_mm: of the slices.
      slices: of a training patch.
    """
    kernels, pools = [], []
    for _ in range(levels - 1):
        close = pitch_mm / pixel_mm < ANISOTROPIC
        kernels.append(3 if close or 3 in kernels else 1)
        pools.append(2 if close and slices >= 2 * FEWEST_SLICES else 1)
        pixel_mm, pitch_mm, slices = 2 * pixel_mm, pools[-1] * pitch_mm, -(-slices // pools[-1])
    return Schedule((*kernels, 3), tuple(pools))


class UNet3D(nn.Module):
    """U-Net over slices (Cicek et al. 2016), thin through plane where slices lie far apart.

    Volumes of any size: they are zero-padded evenly to what the pooling divides and the logits
    cropped back.  Every 3-D convolution is computed as a 2-D one (`blocks.conv3d`).

    Attributes:
      classes: output channels, background included.
      through: kernels and pooling through plane, of as many levels as there are widths.
      widths: channels of each level, finest first.
      norm: ``batch``, ``group`` or ``instance``.
      residual_blocks: residual blocks of each level of the encoder, after a convolution as stem,
        with a single convolution at each level of the decoder (Isensee et al. 2024, "nnU-Net
        revisited"); empty: two convolutions at each level of both.
      deep_supervision: whether further logits are given in training, see `__call__`.
      dtype: compute type, float32 or bfloat16; parameters, statistics and logits are float32.
      stem: rows and columns of pixels that are the channels of one place, see `unet.UNet`.
    """

    classes: int
    through: Schedule
    widths: tuple[int, ...] = (16, 32, 64, 128)
    norm: Norm = "batch"
    residual_blocks: tuple[int, ...] = ()
    deep_supervision: bool = False
    dtype: Any = jnp.float32
    stem: int = 1

    @property
    def strides(self) -> tuple[tuple[int, int, int], ...]:
        """Voxels of the volume, (slices, rows, columns), that a place of each level stands for."""
        pools, plane = self.through.pools, self.stem
        levels = range(len(self.through.kernels))
        return tuple((math.prod(pools[:i]), plane * 2**i, plane * 2**i) for i in levels)

    @property
    def supervised(self) -> tuple[tuple[int, int, int], ...]:
        """Strides of all outputs in training: single voxels, then all but the two lowest levels."""
        return ((1, 1, 1), *self.strides[1:-2])

    @property
    def multiple(self) -> tuple[int, int, int]:
        """To what volumes are padded."""
        return self.strides[-1]

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array | tuple[jax.Array, ...]:
        """Logits of each voxel.

        Args:
          x: (B, D, H, W, C) volumes, normalised.
          train: batch statistics (and their update) instead of running averages.

        Returns:
          (B, D, H, W, classes) float32.  With deep supervision and `train` a tuple: these, then
          those of lower levels, each on the padded volume's grid (`padding`) divided by the
          strides that `supervised` has for it.
        """
        size = x.shape[1:4]
        pad = padding(size, self.multiple)
        x = jnp.pad(x.astype(self.dtype), ((0, 0), *pad, (0, 0)))
        x = _by_slice(lambda x: space_to_depth(x, self.stem), x)
        if self.residual_blocks:
            x = self._block(0, 1, "stem")(x, train)
        skips = []
        for level, pool in enumerate(self.through.pools):
            skips.append(self._encode(x, level, train))
            x = max_pool_3d(skips[-1], pool)
        x = self._encode(x, len(skips), train)
        logits = []
        for level in reversed(range(len(skips))):
            slices = self.through.pools[level]
            up = UpConv3D(self.widths[level], slices, self.dtype, name=f"upsample_{level}")(x)
            x = jnp.concatenate([skips[level], up], axis=-1)
            x = self._block(level, 1 if self.residual_blocks else 2, f"up_{level}")(x, train)
            if self.deep_supervision and 0 < level < len(self.supervised):
                logits.append(self._logits(x, f"logits_{level}"))
        whole = self._logits(x, "logits", self.stem**2)
        whole = _by_slice(lambda x: depth_to_space(x, self.stem), whole)
        inside = [slice(a, a + n) for (a, _), n in zip(pad, size, strict=True)]
        whole = whole[:, inside[0], inside[1], inside[2]]
        return (whole, *reversed(logits)) if self.deep_supervision and train else whole

    def _encode(self, x: jax.Array, level: int, train: bool) -> jax.Array:
        if not self.residual_blocks:
            return self._block(level, 2, f"down_{level}")(x, train)
        for number in range(self.residual_blocks[level]):
            x = ResidualBlock3D(
                self.widths[level],
                1,
                self.norm,
                self.dtype,
                self._kernel(level),
                name=f"down_{level}_{number}",
            )(x, train)
        return x

    def _block(self, level: int, repeats: int, name: str) -> ConvBlock3D:
        width, kernel = self.widths[level], self._kernel(level)
        return ConvBlock3D(width, repeats, kernel, self.norm, self.dtype, name=name)

    def _kernel(self, level: int) -> tuple[int, int, int]:
        return (self.through.kernels[level], 3, 3)

    def _logits(self, x: jax.Array, name: str, voxels: int = 1) -> jax.Array:
        dense = nn.Dense(voxels * self.classes, kernel_init=he_normal, name=name)
        return dense(x.astype(jnp.float32))


def _by_slice(move: Callable[[jax.Array], jax.Array], x: jax.Array) -> jax.Array:
    """(B, D, H, W, C) through a function of (N, H, W, C)."""
    batch, slices, *image = x.shape
    moved = move(x.reshape(batch * slices, *image))
    return moved.reshape(batch, slices, *moved.shape[1:])


def padding(size: Sequence[int], multiple: Sequence[int]) -> tuple[tuple[int, int], ...]:
    """(before, after) of each axis: evenly up to the next multiple."""
    # Written so that a size that an export leaves open is a multiple by its form.
    missing = [-(-n // m) * m - n for n, m in zip(size, multiple, strict=True)]
    return tuple((n // 2, n - n // 2) for n in missing)
