"""AlexNet refines the edge of bone: it classifies each pixel of a band around the edge."""

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Literal

import jax
import numpy as np

from mskjax.config import TrainConfig
from mskjax.data.pipeline import Examples, take
from mskjax.errors import UserError
from mskjax.imaging import augment, patches
from mskjax.stages.slice_segmentation import SliceSegmentation, classes_of, on_canvas, scaled
from mskjax.systems.shoulder_bones.pixels import (
    BlockOptions,
    PixelClassification,
    at_centres,
)
from mskjax.training.stage import Input, Study

if TYPE_CHECKING:
    from mskjax.systems.shoulder_bones.networks import PixelAlexNet

PIXELS_AT_ONCE = 2**16  # bounds the memory of the examples of one study
Place = tuple[np.ndarray, ...]  # slices, rows, columns of pixels
Classify = Callable[[Examples], dict[str, np.ndarray]]
Judge = Literal["alexnet", "mean"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class BoneEdgesOptions:
    """Options of the stage.

    Attributes:
      spacing_mm: in-plane pixel size of the network; slices keep their native pitch.
      patch: rows, columns of the random training patches; prediction sees whole slices.
      blocks: size of AlexNet and of what it sees.
      train: the recipe.
      augmentation: strengths; 0 switches one off.
      band_mm: the band reaches as far to each side of the edge, in the plane of the slice, and at
        least to the pixels beside it.
      judge: whose word a pixel of the band has: ``alexnet``'s alone; or ``mean``, a structure whose
        probability by AlexNet and mean probability by its voters average above one half, so that
        an AlexNet that is unsure leaves the vote as it is.
    """

    spacing_mm: float = 1.0
    patch: tuple[int, int] = (256, 256)
    blocks: BlockOptions = dataclasses.field(default_factory=BlockOptions)
    train: TrainConfig = dataclasses.field(default_factory=TrainConfig)
    augmentation: augment.SliceAugmentation = dataclasses.field(
        default_factory=augment.SliceAugmentation
    )
    band_mm: float = 3.0
    judge: Judge = "alexnet"

    def __post_init__(self) -> None:
        if not self.band_mm > 0:
            raise UserError(f"config.stages.edges.band_mm is {self.band_mm}; it must be above 0.")


@dataclasses.dataclass(frozen=True)
class BoneEdges(PixelClassification):
    """Trained on the band around the reference edge, applied to the band around any edge."""

    options: BoneEdgesOptions

    @property
    def multiple(self) -> int:
        """Any size will do: blocks are cut around pixels."""
        return 1

    @property
    def neighbours(self) -> int:
        """None: the published block is of one slice."""
        return 0

    def model(self) -> "PixelAlexNet":
        """AlexNet with background and the structures as classes."""
        from mskjax.systems.shoulder_bones.networks import PixelAlexNet

        return PixelAlexNet(self.options.blocks, self.classes_of_a_pixel)

    def signature(self) -> dict[str, Input]:
        """Slices of any size, each with as many centres as a training step draws."""
        image = Input.images("h", "w", self.input_channels)
        return {"image": image, "centres": self.centres(self.options.blocks.points)}

    def training_examples(self, study: Study) -> Examples | None:
        """Slices with an edge; ``label`` has the band around it as a further, last share."""
        # The pixels to draw are not known before the band is.
        examples = SliceSegmentation.training_examples(self, study)
        if examples is None:
            return None
        step = self.options.spacing_mm
        band = self._band(classes_of(examples["label"]), (step, step))
        chosen = np.flatnonzero(band.any((1, 2)))
        if not len(chosen):
            return None
        label = np.concatenate([examples["label"], np.uint8(255) * band[..., None]], -1)
        return self.with_centres(take({**examples, "label": label}, chosen))

    def candidates(self, label: Any) -> Any:
        """(1, H, W) bool, the band: its pixels are drawn evenly, or the edge would be biased."""
        return super().candidates(label[..., :-1]).any(0)[None] & (label[..., -1] > 127)[None]

    def loss(
        self, outputs: jax.Array, batch: dict[str, jax.Array], balance: Any, hyper: Any
    ) -> jax.Array:
        """Cross-entropy; a view that has lost its band costs nothing."""
        return self._scored(outputs, batch)[0]

    def monitor(self, outputs: jax.Array, batch: dict[str, jax.Array]) -> dict[str, jax.Array]:
        """Share of the pixels that is right."""
        return {"accuracy": self._scored(outputs, batch)[1]}

    def activate(self, outputs: jax.Array) -> dict[str, jax.Array]:
        """(B, N, classes) probabilities of each pixel, float32."""
        return {"p": jax.nn.softmax(outputs)}

    def refine(
        self, study: Study, mask: np.ndarray, classify: Classify, voters: np.ndarray | None = None
    ) -> np.ndarray:
        """Gives each pixel near the edge of a mask a class, see `BoneEdgesOptions.judge`.

        Args:
          study: gives image and grid.
          mask: (S, H, W) uint8 on the native grid.
          classify: runs the network over examples.
          voters: (structures, S, H, W) mean probabilities of each structure's voters; without them
            AlexNet alone judges.

        Returns:
          A new mask; pixels outside the band keep their label.
        """
        _, *pitch = np.linalg.norm(study["affine"][:3, :3], axis=0)
        band = self._band(mask, pitch)
        refined = mask.copy()
        for examples, place, taken in self._band_examples(study, band):
            p = classify(examples)["p"][taken]
            if voters is None or self.options.judge == "alexnet":
                refined[place] = p.argmax(-1)
            else:
                together = (p[:, 1:] + np.moveaxis(voters, 0, -1)[place]) / 2
                refined[place] = np.where(together.max(-1) > 0.5, together.argmax(-1) + 1, 0)
        return refined

    def _band(self, mask: np.ndarray, pitch: Sequence[float]) -> np.ndarray:
        return patches.band(mask, pitch, max(self.options.band_mm, *pitch))

    def _band_examples(
        self, study: Study, band: np.ndarray
    ) -> Iterator[tuple[Examples, Place, np.ndarray]]:
        """Examples of the band's pixels, some slices at a time.

        Yields:
          Examples; the pixels they stand for; (examples, points) bool, which of their centres
          these are, in this order, the others being padding.
        """
        slices = np.flatnonzero(band.any((1, 2)))
        if not len(slices):
            return
        volumes = scaled(study, self.channels, self.options.spacing_mm)
        images = on_canvas(volumes, self.canvas)
        step = np.linalg.inv(volumes[0].affine) @ study["affine"]
        groups = min(len(slices), -(-int(band.sum()) // PIXELS_AT_ONCE))
        for some in np.array_split(slices, groups):
            places, centres, taken, shown = [], [], [], []
            for number in some:
                rows, cols = np.nonzero(band[number])
                place = np.stack([np.full(len(rows), number), rows, cols])
                own, real = self._in_examples((step[1:3, :3] @ place + step[1:3, 3:]).T)
                places.append(place)
                centres.append(own)
                taken.append(real)
                shown += [number] * len(own)
            examples = {"image": images[shown], "centres": np.concatenate(centres)}
            yield examples, tuple(np.concatenate(places, 1)), np.concatenate(taken)

    def _in_examples(self, centres: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(N, 2) centres of one slice as (examples, points, 2) float32, and which are real."""
        points = self.options.blocks.points
        missing = -len(centres) % points
        real = np.arange(len(centres) + missing) < len(centres)
        padded = np.pad(centres.astype(np.float32), ((0, missing), (0, 0)))
        return padded.reshape(-1, points, 2), real.reshape(-1, points)

    def _scored(
        self, outputs: jax.Array, batch: dict[str, jax.Array]
    ) -> tuple[jax.Array, jax.Array]:
        label = at_centres(batch["label"], batch["centres"])
        return self.classified(outputs, classes_of(label[..., :-1]), label[..., -1] > 127)
