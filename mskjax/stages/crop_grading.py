"""A grader of crops through several slices: SpineNet's 3-D network."""

import dataclasses
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp

from mskjax.config import Dtype, Norm, TrainConfig, check_norm
from mskjax.imaging import augment
from mskjax.stages.grading import Grader, check_views

if TYPE_CHECKING:
    import flax.linen as nn


@dataclasses.dataclass(frozen=True)
class GraderOptions:
    """Size of the 3-D ResNet; see `models.spinenet.SpineNetGrader`.

    Attributes:
      width: channels of the first group; later groups are its multiples.
      blocks: residual blocks of each group.
      norm: ``batch``, ``group`` or ``instance``.
      dtype: compute type, float32 or bfloat16; parameters are float32.
      dropout: rate before the output layers.
    """

    width: int = 64
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
      views: fixed, slightly moved views of a crop whose probabilities are averaged when it is
        graded; 1 is the crop itself alone.
      train: the recipe.
    """

    crop: tuple[int, int, int] = (9, 112, 224)
    model: GraderOptions = dataclasses.field(default_factory=GraderOptions)
    heads: tuple[str, ...] = ()
    train: TrainConfig = dataclasses.field(default_factory=TrainConfig)
    extent: float = 2.0
    emd_weight: float = 0.0
    augmentation: augment.CropAugmentation = dataclasses.field(
        default_factory=augment.CropAugmentation
    )
    views: int = 1

    def __post_init__(self) -> None:
        check_views(self.views)


@dataclasses.dataclass(frozen=True)
class CropGrading(Grader):
    """Grades crops (slices, rows, cols, channels); subclasses say how crops are cut.

    Attributes:
      options: see `CropGradingOptions`.
    """

    options: CropGradingOptions

    def preprocessing(self) -> dict[str, Any]:
        """See `Stage.preprocessing`; subclasses name the normalisation."""
        return {"crop": list(self.options.crop), "extent": self.options.extent}

    def model(self) -> "nn.Module":
        """SpineNet's grader at the configured width."""
        from mskjax.models.spinenet import SpineNetGrader

        m = self.options.model
        return SpineNetGrader(
            heads=tuple((h.name, h.classes) for h in self.heads),
            width=m.width,
            blocks=m.blocks,
            norm=m.norm,
            dtype=jnp.dtype(m.dtype),
            dropout=m.dropout,
        )

    def augment(
        self, keys: jax.Array, batch: dict[str, jax.Array], hyper: Any
    ) -> dict[str, jax.Array]:
        """In-plane motion shared by all slices, slice shift and flip, intensity changes."""
        image = augment.augment_crops(keys, batch["image"], hyper["augmentation"])
        return {**batch, "image": image}
