"""A 2-D U-Net over the slices of a volume: semantic masks in, semantic masks out."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from mskjax.config import TrainConfig
from mskjax.data.pipeline import Examples
from mskjax.imaging import augment, geometry, intensity
from mskjax.imaging.volume import Volume
from mskjax.models import losses
from mskjax.models.blocks import Dtype, Norm, check_norm
from mskjax.models.unet import UNet
from mskjax.training.stage import Stage, Study


@dataclasses.dataclass(frozen=True)
class UNetOptions:
    """Size of the U-Net; see `models.unet.UNet`."""

    widths: tuple[int, ...]
    norm: Norm = "batch"
    dtype: Dtype = "float32"

    def __post_init__(self) -> None:
        check_norm(self.norm, *self.widths)


@dataclasses.dataclass(frozen=True)
class SliceSegmentationOptions:
    """Options of the stage.

    Attributes:
      spacing_mm: in-plane pixel size of the network; slices keep their native pitch.
      patch: rows, columns of the random training patches; prediction sees whole slices.
      model: the network.
      augmentation: strengths; 0 switches one off.
      train: the recipe.
    """

    spacing_mm: float
    patch: tuple[int, int]
    model: UNetOptions
    train: TrainConfig
    augmentation: augment.SliceAugmentation = dataclasses.field(
        default_factory=augment.SliceAugmentation
    )


@dataclasses.dataclass(frozen=True)
class SliceSegmentation(Stage):
    """Segments canonical volumes slice by slice.

    Studies need ``affine``, a (S, H, W) float volume per channel on that grid and, to train on,
    ``mask`` (S, H, W) uint8 with ``has_mask``.

    Attributes:
      name: of the stage.
      options: see `SliceSegmentationOptions`.
      structures: names of the labels 1, 2, ...; label 0 is background.
      canvas: rows, columns that hold every slice at network spacing.
      channels: the study's volumes that the network sees together.
    """

    name: str
    options: SliceSegmentationOptions
    structures: tuple[str, ...]
    canvas: tuple[int, int]
    channels: tuple[str, ...] = ("image",)

    def hyper(self) -> dict[str, Any]:
        """Strengths of the augmentation."""
        return {"augmentation": self.options.augmentation}

    def model(self) -> nn.Module:
        """U-Net with one output per structure and one for background."""
        m = self.options.model
        return UNet(
            classes=len(self.structures) + 1,
            widths=m.widths,
            norm=m.norm,
            dtype=jnp.dtype(m.dtype),
        )

    def reference(self, study: Study) -> tuple[np.ndarray, np.ndarray] | None:
        """Label mask (S, H, W) and the numbers of the slices it is known on; None without one."""
        if not study["has_mask"]:
            return None
        return study["mask"], np.arange(len(study["mask"]))

    def training_examples(self, study: Study) -> Examples | None:
        """Slices: ``image`` (N, rows, cols, channels) float32, ``label`` (N, rows, cols) uint8."""
        reference = self.reference(study)
        if reference is None:
            return None
        mask, known = reference
        # Low-passed class by class: point samples would shift borders by up to half a pixel.
        step = self.options.spacing_mm
        classes = [
            geometry.resample(
                Volume((mask == c).astype(np.float32), study["affine"]), (None, step, step)
            ).data
            for c in range(len(self.structures) + 1)
        ]
        label = np.argmax(classes, 0).astype(np.uint8)
        canvas = (len(label), *self.canvas)
        return {
            "image": self._images(study)[known],
            "label": geometry.crop_or_pad(label, (0, 0, 0), canvas)[known],
        }

    def inference_examples(self, study: Study) -> Examples:
        """As `training_examples`, without labels."""
        return {"image": self._images(study)}

    def _images(self, study: Study) -> np.ndarray:
        return on_canvas(scaled(study, self.channels, self.options.spacing_mm), self.canvas)

    def decode(self, study: Study, outputs: dict[str, np.ndarray]) -> np.ndarray:
        """Probabilities (S, rows, cols, classes) of one study -> (S, H, W) uint8 mask.

        Probabilities, not labels, are interpolated to the native grid, so that the outline is as
        smooth as the native pixels allow.
        """
        native = study[self.channels[0]].shape
        first = scaled(study, self.channels[:1], self.options.spacing_mm)[0]
        _, rows, cols = first.data.shape
        probabilities = np.moveaxis(outputs["probabilities"], -1, 0)[:, :, :rows, :cols]
        return geometry.labels_to_native(
            probabilities.astype(np.float32), first.affine, native, study["affine"]
        )

    def mean_loss(self, study: Study, outputs: dict[str, np.ndarray]) -> float:
        """The loss of one study's slices, at network spacing; NaN without a reference."""
        reference, examples = self.reference(study), self.training_examples(study)
        if reference is None or examples is None:
            return float("nan")
        probabilities = outputs["probabilities"][reference[1]].astype(np.float32)
        # Half precision rounds the smallest probabilities to 0.
        logits = jnp.log(jnp.maximum(probabilities, np.finfo(np.float16).smallest_subnormal))
        return float(losses.segmentation_loss(logits, jnp.asarray(examples["label"])).mean())

    def augment(
        self, keys: jax.Array, batch: dict[str, jax.Array], hyper: Any
    ) -> dict[str, jax.Array]:
        """A random patch, then a random transform of image and label together."""
        patch = tuple(min(p, c) for p, c in zip(self.options.patch, self.canvas, strict=True))

        def one(key: jax.Array, image: jax.Array, label: jax.Array) -> tuple[jax.Array, jax.Array]:
            place, key = jax.random.split(key)
            room = jnp.array(label.shape) - jnp.array(patch) + 1
            start = jnp.floor(jax.random.uniform(place, (2,)) * room).astype(jnp.int32)
            size = (*patch, image.shape[-1])
            image = jax.lax.dynamic_slice(image, (start[0], start[1], 0), size)
            label = jax.lax.dynamic_slice(label, (start[0], start[1]), patch)
            transform = augment.sample_slice_transform(key, hyper["augmentation"])
            return (
                augment.apply_to_image(transform, image),
                augment.apply_to_mask(transform, label),
            )

        image, label = jax.vmap(one)(keys, batch["image"], batch["label"])
        return {**batch, "image": image, "label": label}

    def loss(
        self, outputs: jax.Array, batch: dict[str, jax.Array], balance: Any, hyper: Any
    ) -> jax.Array:
        """Cross-entropy plus soft Dice per slice."""
        return losses.segmentation_loss(outputs, batch["label"].astype(jnp.int32))

    def monitor(self, outputs: jax.Array, batch: dict[str, jax.Array]) -> dict[str, jax.Array]:
        """Share of pixels with the right label."""
        right = jnp.argmax(outputs, -1) == batch["label"]
        return {"pixel_accuracy": jnp.mean(right.astype(jnp.float32), (1, 2))}

    def activate(self, outputs: jax.Array) -> dict[str, jax.Array]:
        """Softmax; half precision halves what crosses to the host and keeps 3 decimals."""
        return {"probabilities": jax.nn.softmax(outputs).astype(jnp.float16)}


def scaled(study: Study, channels: Sequence[str], spacing_mm: float) -> list[Volume]:
    """Volumes of a study at network spacing, zero mean and unit deviation after clipping outliers.

    Args:
      study: canonical.
      channels: names of its volumes.
      spacing_mm: in-plane pixel size; slices keep their native pitch.
    """
    found = []
    for name in channels:
        volume = Volume(np.asarray(study[name], np.float32), study["affine"])
        volume = geometry.resample(volume, (None, spacing_mm, spacing_mm), order=1)
        # The brightest 0.5 % is surface fat near the coil: clipped, or it sets the scale.
        image = intensity.percentile(volume.data, 0.5, 99.5)
        found.append(volume.with_data(intensity.z_score(image)))
    return found


def on_canvas(volumes: Sequence[Volume], size: tuple[int, int]) -> np.ndarray:
    """(S, rows, cols, channels) float32 of at least `size`, padded with each volume's minimum."""
    slices, rows, cols = volumes[0].data.shape
    shape = (slices, max(size[0], rows), max(size[1], cols))
    padded = [geometry.crop_or_pad(v.data, (0, 0, 0), shape, float(v.data.min())) for v in volumes]
    return np.stack(padded, -1).astype(np.float32)


def canvas(
    studies: Sequence[Study], spacing_mm: float, multiple: int, channel: str = "image"
) -> tuple[int, int]:
    """Rows and columns that hold every slice of the studies at network spacing.

    Args:
      studies: canonical studies.
      spacing_mm: in-plane pixel size.
      multiple: both are rounded up to a multiple of this (2 ** depth of the U-Net).
      channel: the study's volume that is measured.
    """
    extents = []
    for study in studies:
        pitch = np.linalg.norm(study["affine"][:3, :3], axis=0)
        shape = np.array(study[channel].shape)
        extents.append(np.ceil(shape[1:] * pitch[1:] / spacing_mm) + 1)
    largest = np.max(extents, axis=0)
    rows, cols = (int(-(-n // multiple) * multiple) for n in largest)
    return rows, cols
