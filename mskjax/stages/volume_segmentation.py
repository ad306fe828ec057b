"""A 3-D U-Net over whole volumes, thin through plane; and the choice between it and slices."""

import dataclasses
import typing
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np

from mskjax.data.pipeline import Examples
from mskjax.errors import UserError
from mskjax.imaging import augment, geometry
from mskjax.imaging.patch_sampling import patch_start
from mskjax.progress import say
from mskjax.stages.slice_segmentation import (
    Segmentation,
    SliceSegmentation,
    SliceSegmentationOptions,
    canvas,
    classes_of,
    network_grid,
    on_canvas,
    preprocessing,
    scaled,
    shares_of,
    with_background,
)
from mskjax.training.stage import Input, Stage, Study

if TYPE_CHECKING:
    from mskjax.models.unet3d import Schedule, UNet3D


@dataclasses.dataclass(frozen=True)
class VolumeOptions:
    """What `dimensions` 3 adds; nothing of it is read where slices are segmented one by one.

    Attributes:
      slices: of the random training patches; prediction sees whole volumes.
      pitch_mm: distance of neighbouring slices that kernels and pooling through plane are chosen
        for, see `models.unet3d.schedule`; volumes keep their own pitch.
      deep_supervision: whether lower resolutions of the decoder are trained to say the labels too,
        all but the two lowest: of 4 levels or more.
      residual_blocks: of each level of the encoder, as many numbers as ``model.widths``, e.g.
        (1, 3, 4, 6, 6) (Isensee et al. 2024); empty: two convolutions a level.
    """

    slices: int = 16
    pitch_mm: float = 4.0
    deep_supervision: bool = True
    residual_blocks: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        for name in ("slices", "pitch_mm"):
            if not getattr(self, name) > 0:
                raise UserError(f"volume.{name} is {getattr(self, name)}; it must be above 0.")


@dataclasses.dataclass(frozen=True)
class SegmentationOptions(SliceSegmentationOptions):
    """Options of a segmentation of volumes, slice by slice or as a whole.

    Attributes:
      dimensions: 2: a 2-D U-Net sees slices one by one, each with its `neighbours`; 3: a 3-D U-Net
        sees volumes, and neither `neighbours` nor `views` is read.
      flip_slices: probability of training on a volume with its slices in reversed order, left for
        right; of 3 dimensions.
      volume: what 3 dimensions add.
    """

    dimensions: typing.Literal[2, 3] = 2
    flip_slices: float = 0.0
    volume: VolumeOptions = dataclasses.field(default_factory=VolumeOptions)

    def __post_init__(self) -> None:
        super().__post_init__()
        blocks, widths = self.volume.residual_blocks, self.model.widths
        if blocks and (len(blocks) != len(widths) or min(blocks) < 1):
            raise UserError(
                f"volume.residual_blocks is {blocks} and model.widths {widths}; give each level one"
                " block or more, or leave the blocks out."
            )

    @property
    def smallest(self) -> tuple[int, ...]:
        """The canvas while no cohort is measured: a training patch."""
        return (self.volume.slices, *self.patch) if self.dimensions == 3 else self.patch


@dataclasses.dataclass(frozen=True)
class VolumeSegmentation(Segmentation):
    """Segments canonical volumes as a whole.

    Studies as for `SliceSegmentation`.  Labels at network spacing are shares: how much of a voxel
    lies in each structure.

    Attributes:
      name: of the stage.
      options: see `SegmentationOptions`.
      structures: names of the labels 1, 2, ...; label 0 is background.
      canvas: slices, rows and columns that hold every volume to train on, at network spacing.
      channels: the study's volumes that the network sees together.
    """

    name: str
    options: SegmentationOptions
    structures: tuple[str, ...]
    canvas: tuple[int, int, int]
    channels: tuple[str, ...] = ("image",)
    unread = (*Stage.unread, "patch", "neighbours", "volume", "dimensions")

    def hyper(self) -> dict[str, Any]:
        """Strengths of the augmentation."""
        return {
            "augmentation": self.options.augmentation,
            "flip_slices": self.options.flip_slices,
        }

    def model(self) -> "UNet3D":
        """3-D U-Net with one output per structure and one for background."""
        from mskjax.models.unet3d import UNet3D

        m, own = self.options.model, self.options.volume
        return UNet3D(
            classes=len(self.structures) + 1,
            through=self._through(own.pitch_mm),
            widths=m.widths,
            norm=m.norm,
            residual_blocks=own.residual_blocks,
            deep_supervision=own.deep_supervision,
            dtype=jnp.dtype(m.dtype),
            stem=m.stem,
        )

    def _through(self, pitch_mm: float) -> "Schedule":
        from mskjax.models.unet3d import schedule

        m = self.options.model
        place = m.stem * self.options.spacing_mm
        return schedule(len(m.widths), place, pitch_mm, self.options.volume.slices)

    def canvas_for(self, studies: Sequence[Study]) -> tuple[int, int, int]:
        """See `Stage.canvas_for`; with the most slices of a study before rows and columns."""
        name, pitch = self.channels[0], self.options.volume.pitch_mm
        slices = max(int(study[name].shape[0]) for study in studies)
        theirs = float(np.median([np.linalg.norm(s["affine"][:3, 0]) for s in studies]))
        if self._through(theirs) != self._through(pitch):
            say(
                f"note: slices lie {theirs:.3g} mm apart, median of {len(studies)} studies, and"
                f" config.stages.{self.name}.volume.pitch_mm, for which kernels and pooling are"
                f" chosen, is {pitch:g}."
            )
        return (slices, *canvas(studies, self.options.spacing_mm, self.multiple, name))

    @property
    def prediction_batch(self) -> int:
        """One volume at a time: whole ones are many times as large as training patches."""
        return 1

    def signature(self) -> dict[str, Input]:
        """Any number of slices of any size that the U-Net can halve."""
        sides = ("s", f"{self.multiple}*h", f"{self.multiple}*w")
        return {"image": Input.images(*sides, len(self.channels))}

    def preprocessing(self) -> dict[str, Any]:
        """See `Stage.preprocessing`."""
        return preprocessing(self.channels, self.options.spacing_mm, self.canvas[1:])

    def training_examples(self, study: Study) -> Examples | None:
        """The volume of a study, padded to the canvas, as one example.

        Returns:
          ``image`` (1, slices, rows, cols, channels) float32, ``label`` (1, slices, rows, cols,
          structures) as `shares_of` has it, and ``known`` (1, slices) bool, slices with labels.
        """
        reference = self.reference(study)
        if reference is None:
            return None
        mask, numbers = reference
        step = self.options.spacing_mm
        shares = shares_of(mask, study["affine"], step, len(self.structures))
        image = self._image(study)
        shape = (max(self.canvas[0], len(image)), *image.shape[1:3])
        known = np.zeros(shape[0], bool)
        known[numbers] = True
        image = _more_slices(image, shape[0])
        label = geometry.crop_or_pad(shares, (0,) * 4, (*shape, shares.shape[-1]))
        return {"image": image[None], "label": label[None], "known": known[None]}

    def inference_examples(self, study: Study) -> Examples:
        """``image`` (1, slices, rows, cols, channels) of a study of any size, see `canvas_of`.

        The number of slices is rounded up as well, to one of few.
        """
        image = self._image(study)
        return {"image": _more_slices(image, rounded_slices(len(image)))[None]}

    def _image(self, study: Study) -> np.ndarray:
        return on_canvas(scaled(study, self.channels, self.options.spacing_mm), self.canvas[1:])

    def decode(self, study: Study, outputs: dict[str, np.ndarray]) -> np.ndarray:
        """Probabilities (1, slices, rows, cols, classes) of a study -> (S, H, W) uint8 mask."""
        native = study[self.channels[0]].shape
        grid = network_grid(study, self.channels[0], self.options.spacing_mm)
        (slices, rows, cols), affine = grid
        probabilities = np.moveaxis(outputs["probabilities"][0], -1, 0)[:, :slices, :rows, :cols]
        return geometry.labels_to_native(
            probabilities.astype(np.float32), affine, native, study["affine"]
        )

    def augment(
        self, keys: jax.Array, batch: dict[str, jax.Array], hyper: Any
    ) -> dict[str, jax.Array]:
        """A random patch, see `patch_start`, then a transform of all its slices together."""
        whole = batch["label"].shape[1:4]
        size = (min(self.options.volume.slices, whole[0]), *self.patch_of(whole[1:]))

        def one(
            key: jax.Array, image: jax.Array, label: jax.Array, known: jax.Array
        ) -> tuple[jax.Array, jax.Array, jax.Array]:
            place, flip, key = jax.random.split(key, 3)
            everywhere = jnp.broadcast_to(known[:, None, None], label.shape[:-1])
            start = patch_start(place, label > 127, everywhere, size)
            image = jax.lax.dynamic_slice(image, (*start, 0), (*size, image.shape[-1]))
            label = jax.lax.dynamic_slice(label, (*start, 0), (*size, label.shape[-1]))
            known = jax.lax.dynamic_slice(known, (start[0],), size[:1])
            backwards = jax.random.uniform(flip) < hyper["flip_slices"]
            image, label, known = (jnp.where(backwards, x[::-1], x) for x in (image, label, known))
            transform = augment.sample_slice_transform(key, hyper["augmentation"])
            # To the transform slices are channels: they move together.
            image = _slices_first(
                augment.apply_to_image(transform, _slices_last(image)), image.shape
            )
            label = _slices_first(
                augment.apply_to_shares(transform, _slices_last(label)), label.shape
            )
            return image, label, known

        names = ("image", "label", "known")
        found = jax.vmap(one)(keys, *(batch[name] for name in names))
        return {**batch, **dict(zip(names, found, strict=True))}

    def loss(
        self, outputs: Any, batch: dict[str, jax.Array], balance: Any, hyper: Any
    ) -> jax.Array:
        """Cross-entropy plus soft Dice of a volume, over slices with labels.

        In training with deep supervision `outputs` are those of several resolutions.
        """
        from mskjax.models import losses, supervision

        shares, weights = with_background(batch["label"]), _weights(batch)
        if not isinstance(outputs, tuple):
            return losses.segmentation_loss(outputs, shares, weights)
        net = self.model()
        return supervision.deep_loss(outputs, shares, weights, net.supervised, net.multiple)

    def monitor(self, outputs: Any, batch: dict[str, jax.Array]) -> dict[str, jax.Array]:
        """Share of the labelled voxels whose likeliest structure is that of the largest share."""
        weights = _weights(batch)
        right = (jnp.argmax(outputs, -1) == classes_of(batch["label"])).astype(jnp.float32)
        total = jnp.maximum(weights.sum((1, 2, 3)), 1.0)
        return {"voxel_accuracy": jnp.sum(right * weights, (1, 2, 3)) / total}


def segmentation(
    name: str, options: SegmentationOptions, structures: tuple[str, ...], size: tuple[int, ...]
) -> SliceSegmentation | VolumeSegmentation:
    """The stage that `options` ask for by their ``dimensions``.

    Args:
      name: of the stage.
      options: of both kinds.
      structures: names of the labels 1, 2, ...
      size: the canvas, of as many numbers as the stage's.
    """
    if options.dimensions == 3:
        slices, rows, cols = size
        return VolumeSegmentation(name, options, structures, (slices, rows, cols))
    rows, cols = size
    # Without what it does not read, so that examples are those of any stage over slices.
    fields = [f.name for f in dataclasses.fields(SliceSegmentationOptions)]
    plain = SliceSegmentationOptions(**{field: getattr(options, field) for field in fields})
    return SliceSegmentation(name, plain, structures, (rows, cols))


def rounded_slices(slices: int) -> int:
    """The number of slices that a volume is padded to, so that few programs are compiled.

    A multiple of an eighth to a quarter of it: 9 slices are 10, 17 are 20, 60 are 64.
    """
    step = max(1, 2 ** (slices.bit_length() - 3))
    return -(-slices // step) * step


def _more_slices(image: np.ndarray, slices: int) -> np.ndarray:
    """(S, rows, cols, channels) with slices of each channel's minimum behind the last."""
    more = np.broadcast_to(image.min((0, 1, 2)), (slices - len(image), *image.shape[1:]))
    return np.concatenate([image, more])


def _slices_last(x: jax.Array) -> jax.Array:
    """(D, H, W, C) to (H, W, D C)."""
    return jnp.moveaxis(x, 0, 2).reshape(*x.shape[1:3], -1)


def _slices_first(x: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """Undoes `_slices_last`."""
    return jnp.moveaxis(x.reshape(*shape[1:3], shape[0], shape[3]), 2, 0)


def _weights(batch: dict[str, jax.Array]) -> jax.Array:
    """(B, D, H, W) float32: 1 on slices with labels, else 0."""
    known = batch["known"][:, :, None, None]
    return jnp.broadcast_to(known, batch["label"].shape[:-1]).astype(jnp.float32)
