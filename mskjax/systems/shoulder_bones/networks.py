"""The networks: AlexNet on the block around a pixel, and U-Nets beside it."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from mskjax.imaging import patches
from mskjax.models.alexnet import AlexNet
from mskjax.models.unet import UNet
from mskjax.stages.slice_segmentation import UNetOptions
from mskjax.systems.shoulder_bones.pixels import BlockOptions


class PixelAlexNet(nn.Module):
    """AlexNet applied to the block around each of many pixels.

    Attributes:
      options: of the blocks and the network.
      classes: of a pixel.
    """

    options: BlockOptions
    classes: int

    @nn.compact
    def __call__(self, image: jax.Array, centres: jax.Array, train: bool) -> jax.Array:
        """Logits of each pixel.

        Args:
          image: (B, H, W, C) float32 slices.
          centres: (B, N, 2) float32, see `patches.cut`.
          train: dropout.

        Returns:
          (B, N, classes) float32.
        """
        o = self.options
        network = AlexNet(
            heads=(("pixel", self.classes),),
            width=o.width,
            stem=o.stem,
            hidden=o.hidden,
            dropout=o.dropout,
            dtype=jnp.dtype(o.dtype),
            name="alexnet",
        )
        logits: list[jax.Array] = []
        # Few and large groups, unrolled: a convolution inside a device loop is slow on CPU.
        for start in range(0, centres.shape[1], o.at_once):
            own = centres[:, start : start + o.at_once]
            if logits:
                # Adds 0.  One group waits for the other, or the compiler holds all of them at
                # once; an optimisation barrier is dropped on CPU.
                own = own + jnp.minimum(jnp.square(logits[-1]).max((1, 2), keepdims=True), 0.0)
            blocks = jax.vmap(patches.cut, (0, 0, None))(image, own, o.size)
            found = network(blocks.reshape(-1, *blocks.shape[2:]), train)["pixel"]
            logits.append(found.reshape(*own.shape[:2], self.classes))
        return jnp.concatenate(logits, 1)


class Members(nn.Module):
    """The networks that propose bone, side by side.

    Attributes:
      unet: size of each U-Net.
      blocks: size of AlexNet.
      unets: names of the U-Nets.
      alexnet: name of AlexNet.
      classes: of a pixel, to AlexNet.
    """

    unet: UNetOptions
    blocks: BlockOptions
    unets: tuple[str, ...]
    alexnet: str
    classes: int

    @nn.compact
    def __call__(self, image: jax.Array, centres: jax.Array, train: bool) -> dict[str, jax.Array]:
        """Logits of each member.

        Args:
          image: (B, H, W, 1) float32 slices.
          centres: (B, N, 2) float32 of the pixels that AlexNet classifies.
          train: batch statistics and dropout.

        Returns:
          U-Net -> (B, H, W, 2), AlexNet -> (B, N, classes), float32.
        """
        o = self.unet
        outputs = {
            name: UNet(2, o.widths, o.norm, jnp.dtype(o.dtype), o.stem, name=name)(image, train)
            for name in self.unets
        }
        alexnet = PixelAlexNet(self.blocks, self.classes, name=self.alexnet)
        return {**outputs, self.alexnet: alexnet(image, centres, train)}
