"""A grader of region crops: several gradings at once, missing ones left out of the loss."""

import dataclasses
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from mskjax.config import TrainConfig
from mskjax.data.pipeline import Examples
from mskjax.imaging import augment
from mskjax.models import losses
from mskjax.models.blocks import Dtype, Norm, check_norm
from mskjax.models.spinenet import SpineNetGrader
from mskjax.training.stage import Stage


@dataclasses.dataclass(frozen=True)
class Head:
    """One grading.

    Attributes:
      name: of the grading; also the study's column.
      classes: number of grades.
      lowest: the value of the first grade in the study (Pfirrmann starts at 1).
    """

    name: str
    classes: int
    lowest: int = 0

    def target(self, grade: np.ndarray) -> np.ndarray:
        """Grades as class numbers, int32; a missing grade (-1) stays -1."""
        grade = np.asarray(grade, np.int32)
        return np.where(grade < 0, -1, np.clip(grade - self.lowest, 0, self.classes - 1))


@dataclasses.dataclass(frozen=True)
class GraderOptions:
    """Size of the 3-D ResNet; see `models.spinenet.SpineNetGrader`."""

    width: int
    blocks: tuple[int, int, int, int] = (3, 4, 6, 3)
    norm: Norm = "batch"
    dtype: Dtype = "float32"
    dropout: float = 0.0

    def __post_init__(self) -> None:
        check_norm(self.norm, self.width)


@dataclasses.dataclass(frozen=True)
class CropGradingOptions:
    """Options of the stage.

    Attributes:
      crop: slices, rows, columns of a crop.
      extent: columns of the crop as a multiple of the region's width.
      model: the network.
      heads: names of the gradings that are trained; the first is the one that is reported.
      emd_weight: weight of the squared earth mover's distance on ordinal heads.
      augmentation: strengths; 0 switches one off.
      train: the recipe.
    """

    crop: tuple[int, int, int]
    model: GraderOptions
    heads: tuple[str, ...]
    train: TrainConfig
    extent: float = 2.0
    emd_weight: float = 0.0
    augmentation: augment.CropAugmentation = dataclasses.field(
        default_factory=augment.CropAugmentation
    )


@dataclasses.dataclass(frozen=True)
class CropGrading(Stage):
    """Grades crops (slices, rows, cols, channels); subclasses say how crops are cut.

    Attributes:
      name: of the stage.
      options: see `CropGradingOptions`.
      heads: the gradings, in the order of `options.heads`.
    """

    name: str
    options: CropGradingOptions
    heads: tuple[Head, ...]

    @property
    def train(self) -> TrainConfig:  # type: ignore[override]
        """The recipe."""
        return self.options.train

    def model(self) -> nn.Module:
        """SpineNet's grader at the configured width."""
        m = self.options.model
        return SpineNetGrader(
            heads=tuple((h.name, h.classes) for h in self.heads),
            width=m.width,
            blocks=m.blocks,
            norm=m.norm,
            dtype=jnp.dtype(m.dtype),
            dropout=m.dropout,
        )

    def augment(self, keys: jax.Array, batch: dict[str, jax.Array]) -> dict[str, jax.Array]:
        """In-plane motion shared by all slices, slice shift and flip, intensity changes."""

        def one(key: jax.Array, crop: jax.Array) -> jax.Array:
            transform = augment.sample_crop_transform(key, self.options.augmentation)
            return augment.apply_to_crop(transform, crop)

        return {**batch, "image": jax.vmap(one)(keys, batch["image"])}

    def loss(self, outputs: Any, batch: dict[str, jax.Array], balance: Any) -> jax.Array:
        """Cross-entropy (and earth mover's distance) per example over the labels it has."""
        targets = {h.name: batch[f"target_{h.name}"] for h in self.heads}
        return losses.masked_heads_loss(outputs, targets, balance, self.options.emd_weight)

    def monitor(self, outputs: Any, batch: dict[str, jax.Array]) -> dict[str, jax.Array]:
        """Whether the first head is right."""
        first = self.heads[0].name
        right = jnp.argmax(outputs[first], -1) == batch[f"target_{first}"]
        return {f"accuracy_{first}": right.astype(jnp.float32)}

    def activate(self, outputs: Any) -> dict[str, jax.Array]:
        """Softmax of each head, float32."""
        return {name: jax.nn.softmax(logits) for name, logits in outputs.items()}

    def classes(self, examples: Examples) -> np.ndarray:
        """The class of the first head, by which sampling balances."""
        return examples[f"target_{self.heads[0].name}"]

    def balance(self, examples: Examples) -> Any:
        """Class weights per head: inverse frequency with mean 1 over the examples, or ones."""
        weights = {}
        for head in self.heads:
            target = examples[f"target_{head.name}"]
            counts = np.bincount(target[target >= 0], minlength=head.classes)
            if self.train.balance == "weights" and counts.sum():
                # Classes that do not occur get weight 0; they occur in no loss term either.
                inverse = np.where(counts > 0, counts.sum() / np.maximum(counts, 1), 0.0)
                weights[head.name] = (inverse / np.count_nonzero(counts)).astype(np.float32)
            else:
                weights[head.name] = np.ones(head.classes, np.float32)
        return weights

    def targets(self, grades: dict[str, Any]) -> Examples:
        """``target_<head>`` arrays, int32, from a study's grade columns; absent columns -1."""
        size = len(next(iter(grades.values())))
        return {
            f"target_{h.name}": h.target(grades.get(h.name, np.full(size, -1))) for h in self.heads
        }
