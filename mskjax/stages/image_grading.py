"""A grader of 2-D crops with any number of channels: VGG-19 or ResNet-50."""

import dataclasses
from typing import TYPE_CHECKING, Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from mskjax.config import Dtype, TrainConfig, check_norm
from mskjax.errors import UserError
from mskjax.imaging import augment, intensity, regions
from mskjax.stages.grading import Grader, check_views

if TYPE_CHECKING:
    from mskjax.models.pretrained import Classifier


@dataclasses.dataclass(frozen=True)
class NetworkOptions:
    """The network and its size; the defaults are the published sizes.

    Attributes:
      name: ``vgg19`` (Simonyan & Zisserman 2015) or ``resnet50`` (He et al. 2016).
      norm: ``none`` (VGG only), ``batch`` or ``group``.
      width: channels of the first group; later groups are its multiples.
      blocks: convolutions (VGG, five groups) or bottlenecks (ResNet, four groups) of each group;
        empty gives those of the name.
      hidden: units of VGG's two hidden layers.
      pool: rows and columns of VGG's last pooling; 7 x 7 belongs to crops of 224 x 224.
      dropout: rate of VGG's hidden layers.
      mix: whether a 1x1 convolution first takes the channels to three.
      dtype: compute type; parameters are float32.
      pretrained: file of ImageNet weights (torchvision or Keras) to start from; see
        `models.pretrained`.
      stride_in_first: ResNet with the stride in the first 1x1, as Keras has it.
    """

    name: Literal["vgg19", "resnet50"] = "vgg19"
    norm: Literal["none", "batch", "group"] = "batch"
    width: int = 64
    blocks: tuple[int, ...] = ()
    hidden: int = 4096
    pool: tuple[int, int] = (7, 7)
    dropout: float = 0.5
    mix: bool = False
    dtype: Dtype = "float32"
    pretrained: str | None = None
    stride_in_first: bool = False

    def __post_init__(self) -> None:
        check_norm(self.norm, self.width)
        if self.name == "resnet50" and self.norm == "none":
            raise UserError("model.norm is 'none'; resnet50 needs 'batch' or 'group'.")
        groups = {"vgg19": 5, "resnet50": 4}[self.name]
        if self.blocks and (len(self.blocks) != groups or min(self.blocks) < 1):
            raise UserError(
                f"model.blocks is {self.blocks}; {self.name} has {groups} groups of at least one."
            )

    def build(self, heads: tuple[tuple[str, int], ...]) -> "Classifier":
        """The network with one output layer per head."""
        from mskjax.models.resnet import ResNet
        from mskjax.models.vgg import VGG

        dtype = jnp.dtype(self.dtype)
        if self.name == "resnet50" and self.norm != "none":
            return ResNet(
                heads=heads,
                width=self.width,
                blocks=self.blocks or (3, 4, 6, 3),
                norm=self.norm,
                stride_in_first=self.stride_in_first,
                mix=self.mix,
                dtype=dtype,
            )
        return VGG(
            heads=heads,
            widths=tuple(self.width * k for k in (1, 2, 4, 8, 8)),
            convolutions=self.blocks or (2, 2, 4, 4, 4),
            norm=self.norm,
            hidden=self.hidden,
            pool=self.pool,
            dropout=self.dropout,
            mix=self.mix,
            dtype=dtype,
        )


@dataclasses.dataclass(frozen=True)
class ImageGradingOptions:
    """Options of the stage.

    Attributes:
      crop: rows, columns of a crop; its pixels are square.
      model: the network.
      heads: names of the gradings that are trained; the first is the one that is reported first.
      train: the recipe.
      margin: share of a region's longer side that is added on each side of it.
      emd_weight: weight of the squared earth mover's distance on ordinal heads.
      augmentation: strengths; 0 switches one off.
      views: fixed, slightly moved views of a crop whose probabilities are averaged when it is
        graded; 1 is the crop itself alone.
    """

    crop: tuple[int, int] = (224, 224)
    model: NetworkOptions = dataclasses.field(default_factory=NetworkOptions)
    heads: tuple[str, ...] = ()
    train: TrainConfig = dataclasses.field(default_factory=TrainConfig)
    margin: float = 0.1
    emd_weight: float = 0.0
    augmentation: augment.SliceAugmentation = dataclasses.field(
        default_factory=augment.SliceAugmentation
    )
    views: int = 1

    def __post_init__(self) -> None:
        check_views(self.views)
        if self.margin < 0:
            raise UserError(f"margin is {self.margin}; it must not be negative.")
        least = {"vgg19": 32, "resnet50": 1}[self.model.name]  # VGG halves the map five times
        if min(self.crop) < least:
            raise UserError(
                f"crop is {self.crop}; {self.model.name} needs at least {least} rows and columns."
            )
        if len(set(self.heads)) < len(self.heads):
            raise UserError(f"heads is {self.heads}; each may be named once.")


@dataclasses.dataclass(frozen=True)
class ImageGrading(Grader):
    """Grades crops ``image`` (N, rows, cols, channels); subclasses say how they are cut.

    Attributes:
      options: see `ImageGradingOptions`.
    """

    options: ImageGradingOptions

    mirroring = ("flip", 2)

    def model(self) -> "Classifier":
        """The configured network."""
        return self.options.model.build(tuple((h.name, h.classes) for h in self.heads))

    def preprocessing(self) -> dict[str, Any]:
        """See `Stage.preprocessing`."""
        return {
            "crop": list(self.options.crop),
            "margin": self.options.margin,
            "clip_percentiles": list(intensity.CLIPPED),
            "normalisation": "z_score_volume",
        }

    def check_weights(self, channels: int) -> None:
        """Refuses a file of weights that does not fit, before anything is trained.

        Raises:
          UserError: lists every mismatch.
        """
        if self.options.model.pretrained is None:
            return
        from mskjax.models import pretrained

        image = jnp.zeros((1, *self.options.crop, channels), jnp.float32)
        shapes = jax.eval_shape(
            lambda key: self.model().init(key, image, train=False), jax.random.key(0)
        )
        empty = jax.tree.map(lambda s: np.broadcast_to(np.float32(0), s.shape), shapes)
        pretrained.load(self.options.model.pretrained, self.model(), empty)

    def initial(self, variables: Any) -> tuple[Any, list[str]]:
        """ImageNet weights where the config names a file of them."""
        path = self.options.model.pretrained
        if path is None:
            return variables, []
        from mskjax.models import pretrained

        loaded = pretrained.load(path, self.model(), variables)
        return loaded.variables, loaded.notes()

    def augment(
        self, keys: jax.Array, batch: dict[str, jax.Array], hyper: Any
    ) -> dict[str, jax.Array]:
        """Motion, intensities, blur and noise; all channels alike."""

        def one(key: jax.Array, image: jax.Array) -> jax.Array:
            transform = augment.sample_slice_transform(key, hyper["augmentation"])
            return augment.apply_to_image(transform, image)

        return {**batch, "image": jax.vmap(one)(keys, batch["image"])}


def square_crops(
    image: np.ndarray,
    affine: np.ndarray,
    slices: np.ndarray,
    box: tuple[float, float, float, float],
    margin: float,
    shape: tuple[int, int],
) -> np.ndarray:
    """The smallest square around a box, with a margin, from several slices.

    Args:
      image: (S, H, W) canonical.
      affine: (4, 4).
      slices: (N,) slice numbers; those beyond the stack give the outermost slice.
      box: row0, col0, row1, col1 in pixels, half-open.
      margin: share of the box's longer side that is added on each side.
      shape: rows, columns of a crop.

    Returns:
      (N, rows, columns) float32; what lies outside the image has the image's least value.
    """
    row0, col0, row1, col1 = box
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    side = max((row1 - row0) * spacing[1], (col1 - col0) * spacing[2]) * (1 + 2 * margin)
    stack = image[np.clip(slices, 0, len(image) - 1)]
    middle = np.array([len(stack) // 2, (row0 + row1 - 1) / 2, (col0 + col1 - 1) / 2, 1.0])
    lowest = float(image.min())
    crop = regions.rotated_crop(
        stack - lowest, affine, (affine @ middle)[:3], 0.0, (side, side), (len(stack), *shape)
    )
    return crop + np.float32(lowest)


def bounding_box(mask: np.ndarray) -> tuple[float, float, float, float]:
    """Row0, col0, row1, col1 (half-open) of a (H, W) mask that is not empty."""
    rows, cols = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    return float(rows[0]), float(cols[0]), float(rows[-1] + 1), float(cols[-1] + 1)
