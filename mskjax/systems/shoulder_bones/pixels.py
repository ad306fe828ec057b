"""AlexNet on the block around a pixel: what its stages share.

An example is a whole slice and the centres of some of its pixels.  Blocks are cut on the device,
out of the augmented slice in training, so that blocks that overlap are stored once, and the
network runs over all of them as one batch.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mskjax.config import Dtype
from mskjax.data.pipeline import Examples
from mskjax.errors import UserError
from mskjax.imaging import patches
from mskjax.stages.slice_segmentation import SliceSegmentation, classes_of
from mskjax.training.stage import Input, Study


@dataclasses.dataclass(frozen=True)
class BlockOptions:
    """Size of the blocks and of AlexNet; the network's defaults are the published ones.

    Attributes:
      size: odd, rows and columns of a block in pixels of the network's spacing.
      points: pixels of a slice that a training step classifies.
      at_once: blocks of a slice that are in memory together in prediction.
      width: channels of the first convolution; the others are its multiples.
      stem: kernel size, stride and padding of the first convolution.
      hidden: units of the two hidden layers.
      dropout: rate of the hidden layers.
      dtype: compute type; parameters are float32.
    """

    size: int = 33
    points: int = 128
    at_once: int = 1024
    width: int = 64
    stem: tuple[int, int, int] = (3, 1, 1)
    hidden: int = 4096
    dropout: float = 0.5
    dtype: Dtype = "float32"

    def __post_init__(self) -> None:
        if self.size < 1 or self.size % 2 == 0:
            raise UserError(f"blocks.size is {self.size}; it must be odd, or no pixel is central.")
        for name in ("points", "at_once", "width", "hidden"):
            if getattr(self, name) < 1:
                raise UserError(f"blocks.{name} is {getattr(self, name)}; it must be at least 1.")
        if not 0 <= self.dropout < 1:
            raise UserError(f"blocks.dropout is {self.dropout}; it must be in [0, 1).")


@dataclasses.dataclass(frozen=True)
class PixelClassification(SliceSegmentation):
    """Slices with pixels to classify; subclasses say which pixels and by which networks.

    Examples have ``centres`` (N, points, 2) float32 beside image and label: those of training
    examples are drawn once, for validation; a training step draws its own.

    Attributes:
      options: dataclass of the stage with at least ``spacing_mm``, ``patch``, ``augmentation`` and
        ``train``, see `SliceSegmentationOptions`, and ``blocks``, see `BlockOptions`.
    """

    options: Any

    inputs = ("image", "centres")

    @property
    def views(self) -> int:
        """The slice itself: centres are not shifted with it."""
        return 1

    def centres(self, points: int) -> Input:
        """What `signature` says of so many centres a slice."""
        place = "row and column of a pixel of the slice, from 0 on, in pixels"
        return Input(f"b, {points}, 2", "float32", "batch, points, (row, column)", place)

    def training_examples(self, study: Study) -> Examples | None:
        """As `SliceSegmentation.training_examples`, with centres drawn by a fixed generator."""
        examples = super().training_examples(study)
        return None if examples is None else self.with_centres(examples)

    def with_centres(self, examples: Examples) -> Examples:
        """Adds ``centres``, from the labels alone."""
        uniform = np.random.default_rng((0, 5)).random(
            (len(examples["label"]), self.options.blocks.points), np.float32
        )
        centres = [
            patches.draw_centres(u, self.candidates(label))
            for u, label in zip(uniform, examples["label"], strict=True)
        ]
        # A study may have no slice to train on.
        shape = (-1, self.options.blocks.points, 2)
        return {**examples, "centres": np.array(centres, np.float32).reshape(shape)}

    def augment(
        self, keys: jax.Array, batch: dict[str, jax.Array], hyper: Any
    ) -> dict[str, jax.Array]:
        """A random view of slice and label, and pixels drawn from it, balanced by class."""
        pair = jax.vmap(lambda key: jax.random.split(key))(keys)
        view = super().augment(pair[:, 0], batch, hyper)

        def draw(key: jax.Array, label: jax.Array) -> jax.Array:
            uniform = jax.random.uniform(key, (self.options.blocks.points,))
            return patches.draw_centres(uniform, self.candidates(label))

        return {**view, "centres": jax.vmap(draw)(pair[:, 1], view["label"])}

    @property
    def classes_of_a_pixel(self) -> int:
        """Background and structures."""
        return len(self.structures) + 1

    def candidates(self, label: Any) -> Any:
        """(classes, H, W) bool: the pixels of each class, of which equally many are drawn.

        Args:
          label: (H, W, structures) uint8 shares; a pixel is of the class with the largest.

        Where the view is a patch of the slice, blocks end within it; at the border of the slice
        itself a block sees air, in training as in prediction.
        """
        inside = np.ones(label.shape[:2], bool)
        half = self.options.blocks.size // 2
        for axis, (seen, whole) in enumerate(zip(label.shape[:2], self.canvas, strict=True)):
            if seen < whole and seen > 2 * half:
                pixel = np.arange(seen)
                kept = (pixel >= half) & (pixel < seen - half)
                inside &= kept[:, None] if axis == 0 else kept
        classes = np.arange(self.classes_of_a_pixel, dtype=np.int32)[:, None, None]
        return (classes_of(label)[None] == classes) & inside[None]

    def classified(self, logits: jax.Array, label: jax.Array, valid: Any) -> tuple[Any, Any]:
        """Cross-entropy and accuracy per example, over the valid pixels among the centres.

        Args:
          logits: (B, N, classes).
          label: (B, N) int.
          valid: (B, N) bool.

        Returns:
          (B,) float32 each; 0 for an example without a valid pixel.
        """
        import optax

        weight = jnp.asarray(valid, jnp.float32)
        total = jnp.maximum(weight.sum(1), 1.0)
        label = jnp.where(valid, label, 0).astype(jnp.int32)
        entropy = optax.losses.softmax_cross_entropy_with_integer_labels(logits, label)
        right = (jnp.argmax(logits, -1) == label).astype(jnp.float32)
        return (entropy * weight).sum(1) / total, (right * weight).sum(1) / total

    def check_size(self) -> None:
        """Refuses blocks that are too small for the network.

        Raises:
          UserError: with the sizes.
        """
        image = jnp.zeros((1, *self.canvas, self.input_channels), jnp.float32)
        centres = jnp.zeros((1, 1, 2), jnp.float32)
        try:
            jax.eval_shape(
                lambda key: self.model().init(key, image, centres, train=False), jax.random.key(0)
            )
        except ValueError as error:
            raise UserError(f"config.stages.{self.name}.blocks.size: {error}.") from None


def at_centres(values: jax.Array, centres: jax.Array) -> jax.Array:
    """(B, N, ...) of (B, H, W, ...) at the pixels of (B, N, 2) centres, which are whole numbers."""
    place = centres.astype(jnp.int32)
    return jax.vmap(lambda v, at: v[at[:, 0], at[:, 1]])(values, place)
