"""A 2-D U-Net over the slices of a volume: semantic masks in, semantic masks out."""

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np

from mskjax.config import Dtype, Norm, TrainConfig, check_norm
from mskjax.data.pipeline import Examples
from mskjax.errors import UserError
from mskjax.imaging import augment, geometry, intensity
from mskjax.imaging.patch_sampling import patch_start
from mskjax.imaging.volume import Volume
from mskjax.training.stage import Input, Stage, Study

if TYPE_CHECKING:
    import flax.linen as nn

# Views of a slice: rows and columns in units of `SHIFT` pixels, which no pooling divides.
SHIFTS = ((0, 0), (1, 0), (-1, 0), (0, 1), (0, -1), (1, 1), (-1, -1), (1, -1), (-1, 1))
SHIFT = 3


@dataclasses.dataclass(frozen=True)
class UNetOptions:
    """Size of the U-Net; see `models.unet.UNet`.  The default is that of Ronneberger et al. 2015.

    Attributes:
      widths: channels of each level, finest first; one level fewer poolings than entries.
      norm: ``batch``, ``group`` or ``instance``.
      dtype: compute type, float32 or bfloat16; parameters are float32.
      stem: rows and columns of pixels that are the channels of one place of the finest level; 2
        sees and outlines at twice the resolution for the cost of the coarser grid.
    """

    widths: tuple[int, ...] = (64, 128, 256, 512, 1024)
    norm: Norm = "batch"
    dtype: Dtype = "float32"
    stem: int = 1

    def __post_init__(self) -> None:
        check_norm(self.norm, *self.widths)
        if self.stem < 1:
            raise UserError(f"model.stem is {self.stem}; it must be at least 1.")


@dataclasses.dataclass(frozen=True)
class SliceSegmentationOptions:
    """Options of the stage.

    Attributes:
      spacing_mm: in-plane pixel size of the network; slices keep their native pitch.
      patch: rows, columns of the random training patches, rounded up to what the U-Net can halve;
        prediction sees whole slices.
      neighbours: slices on each side that the network sees with a slice, as channels.
      views: shifts of a slice by a few pixels whose probabilities are averaged in prediction, at
        most 9; 1 is the slice itself alone.
      model: the network.
      augmentation: strengths; 0 switches one off.
      train: the recipe.
    """

    spacing_mm: float = 1.0
    patch: tuple[int, int] = (256, 256)
    neighbours: int = 0
    views: int = 1
    model: UNetOptions = dataclasses.field(default_factory=UNetOptions)
    train: TrainConfig = dataclasses.field(default_factory=TrainConfig)
    augmentation: augment.SliceAugmentation = dataclasses.field(
        default_factory=augment.SliceAugmentation
    )

    def __post_init__(self) -> None:
        if self.neighbours < 0:
            raise UserError(f"neighbours is {self.neighbours}; it must not be negative.")
        if not 1 <= self.views <= len(SHIFTS):
            raise UserError(f"views is {self.views}; it must be 1 to {len(SHIFTS)}.")


@dataclasses.dataclass(frozen=True)
class Segmentation(Stage):
    """A U-Net that says what structure each pixel is of; subclasses say what it sees at a time.

    Attributes:
      name: of the stage.
      options: dataclass of the stage with at least ``model``, see `UNetOptions`.
      structures: names of the labels 1, 2, ...; label 0 is background.
      canvas: size, at network spacing, that holds every example to train on.
      channels: the study's volumes that the network sees together.
    """

    structures: tuple[str, ...]
    canvas: tuple[int, ...]
    channels: tuple[str, ...] = ("image",)

    def reference(self, study: Study) -> tuple[np.ndarray, np.ndarray] | None:
        """Label mask (S, H, W) and the numbers of the slices it is known on; None without one."""
        if not study["has_mask"]:
            return None
        return study["mask"], np.arange(len(study["mask"]))

    @property
    def multiple(self) -> int:
        """Of which rows and columns must be multiples, so that the U-Net can halve them."""
        model = self.options.model
        return model.stem * 2 ** (len(model.widths) - 1)

    def patch_of(self, image: tuple[int, ...]) -> tuple[int, ...]:
        """The recipe's patch in whole multiples, no larger than an image.

        Padding of the network's own would be in every patch and in no canvas: statistics of the
        normalisation would be of something that prediction never sees.

        Args:
          image: rows and columns, themselves multiples.
        """
        whole = (-(-side // self.multiple) * self.multiple for side in self.options.patch)
        return tuple(min(p, n) for p, n in zip(whole, image, strict=True))

    def activate(self, outputs: jax.Array) -> dict[str, jax.Array]:
        """Softmax; half precision halves what crosses to the host and keeps 3 decimals."""
        return {"probabilities": jax.nn.softmax(outputs).astype(jnp.float16)}


@dataclasses.dataclass(frozen=True)
class SliceSegmentation(Segmentation):
    """Segments canonical volumes slice by slice.

    Studies need ``affine``, a (S, H, W) float volume per channel on that grid and, to train on,
    ``mask`` (S, H, W) uint8 with ``has_mask``.

    Attributes:
      name: of the stage.
      options: see `SliceSegmentationOptions`.
      structures: names of the labels 1, 2, ...; label 0 is background.
      canvas: rows, columns that hold every slice to train on, at network spacing.
      channels: the study's volumes that the network sees together.
    """

    name: str
    options: SliceSegmentationOptions
    structures: tuple[str, ...]
    canvas: tuple[int, int]
    channels: tuple[str, ...] = ("image",)
    unread = (*Stage.unread, "patch")

    def hyper(self) -> dict[str, Any]:
        """Strengths of the augmentation."""
        return {"augmentation": self.options.augmentation}

    def model(self) -> "nn.Module":
        """U-Net with one output per structure and one for background."""
        from mskjax.models.unet import UNet

        m = self.options.model
        return UNet(
            classes=len(self.structures) + 1,
            widths=m.widths,
            stem=m.stem,
            norm=m.norm,
            dtype=jnp.dtype(m.dtype),
        )

    def canvas_for(self, studies: Sequence[Study]) -> tuple[int, int]:
        """See `Stage.canvas_for`."""
        return canvas(studies, self.options.spacing_mm, self.multiple, self.channels[0])

    @property
    def neighbours(self) -> int:
        """Slices on each side that the network sees with a slice."""
        return self.options.neighbours

    @property
    def views(self) -> int:
        """As the options say."""
        return self.options.views

    def view(self, number: int, inputs: dict[str, jax.Array]) -> dict[str, jax.Array]:
        """Slices shifted by a few pixels; what leaves at one side comes in at the other."""
        return {name: _shifted(values, number, 1) for name, values in inputs.items()}

    def returned(self, number: int, outputs: dict[str, jax.Array]) -> dict[str, jax.Array]:
        """Probabilities shifted back."""
        return {name: _shifted(values, number, -1) for name, values in outputs.items()}

    @property
    def input_channels(self) -> int:
        """Of what the network sees: each volume's slice with its neighbours."""
        return len(self.channels) * (2 * self.neighbours + 1)

    def signature(self) -> dict[str, Input]:
        """Any number of slices of any size that the U-Net can halve (`canvas_of`)."""
        sides = (f"{self.multiple}*h", f"{self.multiple}*w")
        return {"image": Input.images(*sides, self.input_channels)}

    def preprocessing(self) -> dict[str, Any]:
        """See `Stage.preprocessing`."""
        found = preprocessing(self.channels, self.options.spacing_mm, self.canvas)
        return found | ({"neighbours": self.neighbours} if self.neighbours else {})

    def training_examples(self, study: Study) -> Examples | None:
        """Slices: ``image`` (N, rows, cols, channels) float32, ``label`` as `shares_of` has it."""
        labelled = self._labels(study)
        if labelled is None:
            return None
        label, known = labelled
        return {"image": self._images(study)[known], "label": label}

    def inference_examples(self, study: Study) -> Examples:
        """As `training_examples`, without labels; slices of any size, see `canvas_of`."""
        return {"image": self._images(study)}

    def _images(self, study: Study) -> np.ndarray:
        images = on_canvas(scaled(study, self.channels, self.options.spacing_mm), self.canvas)
        return with_neighbours(images, self.neighbours)

    def _labels(self, study: Study) -> tuple[np.ndarray, np.ndarray] | None:
        """(N, rows, cols, structures) uint8 shares and the numbers of these slices, if any."""
        reference = self.reference(study)
        if reference is None:
            return None
        mask, known = reference
        label = shares_of(mask, study["affine"], self.options.spacing_mm, len(self.structures))
        shape = (len(label), *canvas_of(label.shape[1:3], self.canvas), label.shape[3])
        return geometry.crop_or_pad(label, (0, 0, 0, 0), shape)[known], known

    def decode(self, study: Study, outputs: dict[str, np.ndarray]) -> np.ndarray:
        """Probabilities (S, rows, cols, classes) of one study -> (S, H, W) uint8 mask.

        Probabilities, not labels, are interpolated to the native grid, so that the outline is as
        smooth as the native pixels allow.
        """
        native = study[self.channels[0]].shape
        (_, rows, cols), affine = network_grid(study, self.channels[0], self.options.spacing_mm)
        probabilities = np.moveaxis(outputs["probabilities"], -1, 0)[:, :, :rows, :cols]
        return geometry.labels_to_native(
            probabilities.astype(np.float32), affine, native, study["affine"]
        )

    def mean_loss(self, study: Study, outputs: dict[str, np.ndarray]) -> float:
        """The loss of one study's slices, at network spacing; NaN without a reference."""
        from mskjax.models import losses

        labelled = self._labels(study)
        if labelled is None:
            return float("nan")
        label, known = labelled
        probabilities = outputs["probabilities"][known].astype(np.float32)
        # Half precision rounds the smallest probabilities to 0.
        smallest = float(np.finfo(np.float16).smallest_subnormal)
        logits = jnp.log(jnp.maximum(probabilities, smallest))
        return float(losses.segmentation_loss(logits, with_background(jnp.asarray(label))).mean())

    def augment(
        self, keys: jax.Array, batch: dict[str, jax.Array], hyper: Any
    ) -> dict[str, jax.Array]:
        """A random patch, then a random transform of image and label together."""
        patch = self.patch_of(self.canvas)

        def one(key: jax.Array, image: jax.Array, label: jax.Array) -> tuple[jax.Array, jax.Array]:
            place, key = jax.random.split(key)
            known = jnp.ones(label.shape[:2], bool)
            start = patch_start(place, label > 127, known, patch)
            image, label = (
                jax.lax.dynamic_slice(x, (*start, 0), (*patch, x.shape[-1])) for x in (image, label)
            )
            transform = augment.sample_slice_transform(key, hyper["augmentation"])
            return (
                augment.apply_to_image(transform, image),
                augment.apply_to_shares(transform, label),
            )

        image, label = jax.vmap(one)(keys, batch["image"], batch["label"])
        return {**batch, "image": image, "label": label}

    def loss(
        self, outputs: jax.Array, batch: dict[str, jax.Array], balance: Any, hyper: Any
    ) -> jax.Array:
        """Cross-entropy plus soft Dice per slice, of the shares of each pixel."""
        from mskjax.models import losses

        return losses.segmentation_loss(outputs, with_background(batch["label"]))

    def monitor(self, outputs: jax.Array, batch: dict[str, jax.Array]) -> dict[str, jax.Array]:
        """Share of pixels with the right label."""
        right = jnp.argmax(outputs, -1) == classes_of(batch["label"])
        return {"pixel_accuracy": jnp.mean(right.astype(jnp.float32), (1, 2))}


def shares_of(
    mask: np.ndarray, affine: np.ndarray, spacing_mm: float, structures: int
) -> np.ndarray:
    """What share each structure has of each pixel at network spacing.

    Each is low-passed as images are, so that a border lies where it lay to a fraction of a pixel;
    the likeliest class of each pixel would cost a disc .04 of Dice at 1 mm.

    Args:
      mask: (S, H, W) labels, 0 background.
      affine: (4, 4) of its grid.
      spacing_mm: in-plane pixel size; slices keep their native pitch.
      structures: number of labels above 0.

    Returns:
      (S, rows, cols, structures) uint8, a whole pixel is 255; the rest is background.
    """
    step = (None, spacing_mm, spacing_mm)
    found = [
        geometry.resample(Volume((mask == c).astype(np.float32), affine), step).data
        for c in range(1, structures + 1)
    ]
    # Rounded where they end when laid one after another: together they are never above a whole.
    ends = np.rint(255 * np.clip(np.cumsum(found, 0), 0.0, 1.0))
    return np.moveaxis(np.diff(ends, axis=0, prepend=0), 0, -1).astype(np.uint8)


def _shifted(images: jax.Array, number: int, direction: int) -> jax.Array:
    """(B, rows, cols, C) in a view of `SHIFTS`, or back where `direction` is -1."""
    rows, cols = SHIFTS[number]
    return jnp.roll(images, (direction * SHIFT * rows, direction * SHIFT * cols), (1, 2))


def with_background(label: jax.Array) -> jax.Array:
    """(..., structures) uint8 of `shares_of` as (..., 1 + structures) float32 that sum to 1."""
    return _all_shares(label).astype(jnp.float32) / 255.0


def classes_of(label: Any) -> Any:
    """(...) int32 class with the largest share, 0 background; of NumPy or JAX as `label` is."""
    return _all_shares(label).argmax(-1).astype(np.int32)


def _all_shares(label: Any) -> Any:
    """(..., 1 + structures) int32 in 255ths, background first."""
    xp = jnp if isinstance(label, jax.Array) else np
    shares = label.astype(np.int32)
    return xp.concatenate([255 - shares.sum(-1, keepdims=True).astype(np.int32), shares], -1)


def with_neighbours(images: np.ndarray, neighbours: int) -> np.ndarray:
    """Each slice with those beside it as further channels; the outermost is its own neighbour.

    Args:
      images: (S, rows, cols, C).
      neighbours: slices on each side.

    Returns:
      (S, rows, cols, (2 neighbours + 1) C): all channels of the lowest slice first.
    """
    if not neighbours:
        return images
    last = len(images) - 1
    offsets = range(-neighbours, neighbours + 1)
    numbers = np.arange(len(images))
    return np.concatenate([images[np.clip(numbers + o, 0, last)] for o in offsets], -1)


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
        found.append(volume.with_data(intensity.standardised(volume.data)))
    return found


def preprocessing(
    channels: Sequence[str], spacing_mm: float, size: tuple[int, int]
) -> dict[str, Any]:
    """What `scaled` and `on_canvas` do, as data."""
    return {
        "channels": list(channels),
        "spacing_mm": [None, spacing_mm, spacing_mm],
        "interpolation": "linear after a Gaussian low-pass",
        "clip_percentiles": list(intensity.CLIPPED),
        "normalisation": "z_score_volume",
        "canvas": list(size),
        "padding": "minimum",
    }


def network_grid(
    study: Study, channel: str, spacing_mm: float
) -> tuple[tuple[int, ...], np.ndarray]:
    """Shape and affine of what `scaled` makes of a volume of the study."""
    return geometry.resampled_grid(
        study[channel].shape, study["affine"], (None, spacing_mm, spacing_mm)
    )


def canvas_of(needed: Sequence[int], size: Sequence[int]) -> tuple[int, int]:
    """The canvas for slices of (rows, columns): `size` where they fit, else few rounded sizes.

    Larger slices are rounded up to multiples of an eighth to a quarter of their length, at least of
    64: all networks halve less often than that, few sizes are compiled, and little is padding.
    """

    def rounded(n: int) -> int:
        step = max(64, 2 ** (n.bit_length() - 3))
        return -(-n // step) * step

    rows, cols = (own if n <= own else rounded(int(n)) for n, own in zip(needed, size, strict=True))
    return rows, cols


def on_canvas(volumes: Sequence[Volume], size: tuple[int, int]) -> np.ndarray:
    """(S, rows, cols, channels) float32 on `canvas_of`, padded with each volume's minimum."""
    slices, *needed = volumes[0].data.shape
    shape = (slices, *canvas_of(needed, size))
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
