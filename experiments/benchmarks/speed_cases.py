"""The networks that `speed.py` times: each as a stage of the product and as what the peer builds.

A stage here is the product's own, with its network, loss and recipe, but for its augmentation,
which leaves a batch as it is.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from speed_discs import random_discs

from mskjax.config import TrainConfig
from mskjax.data.pipeline import Examples
from mskjax.stages.box_detection import BoxDetection, BoxDetectionOptions, DetectorOptions
from mskjax.stages.crop_grading import CropGrading, CropGradingOptions, GraderOptions
from mskjax.stages.grading import Head
from mskjax.stages.image_grading import ImageGrading, ImageGradingOptions, NetworkOptions
from mskjax.stages.slice_segmentation import (
    SliceSegmentation,
    SliceSegmentationOptions,
    UNetOptions,
)
from mskjax.systems.shoulder_bones.edges import BoneEdges, BoneEdgesOptions
from mskjax.systems.shoulder_bones.pixels import BlockOptions
from mskjax.training.stage import Stage, Study

DISCS = (Head("pfirrmann", 5), Head("narrowing", 4), Head("bulging", 2))
PUBLISHED_DISCS = (*DISCS, Head("modic", 4), *(Head(f"sign_{k}", 2) for k in range(4)))
BONES = ("humerus", "scapula")
SPINE = ("vertebra", "disc", "canal")


class Bare:
    """Of a stage: nothing is drawn, explained or cut."""

    def augment(self, keys: Any, batch: dict[str, jax.Array], hyper: Any) -> dict[str, jax.Array]:
        """The batch as it is."""
        return batch

    def explain(self, variables: Any, inputs: list[jax.Array]) -> dict[str, jax.Array]:
        """Nothing: the peer has no pictures of what it looked at."""
        return {}

    def training_examples(self, study: Study) -> Examples | None:
        """Batches are random here."""
        raise NotImplementedError


class Masks(Bare, SliceSegmentation):
    """A U-Net."""


class Crops(Bare, CropGrading):
    """SpineNet's grader."""


class Images(Bare, ImageGrading):
    """VGG or ResNet."""


class Pixels(Bare, BoneEdges):
    """AlexNet on blocks."""


class Boxes(Bare, BoxDetection):
    """Faster R-CNN."""


@dataclasses.dataclass(frozen=True)
class Case:
    """One network at one size.

    Attributes:
      name: of it.
      stage: the product's.
      shape: of a batch of images, channels last.
      spec: what the peer builds, see `speed_torch_steps`.
    """

    name: str
    stage: Stage
    shape: tuple[int, ...]
    spec: dict[str, Any]

    @property
    def size(self) -> str:
        """The batch in words."""
        return " x ".join(map(str, self.shape))

    def examples(self) -> Examples:
        """A random batch, as the product's stages cut it."""
        rng, shape = np.random.default_rng(0), self.shape
        found: Examples = {"image": rng.normal(size=shape).astype(np.float32)}
        kind = self.spec["kind"]
        if kind in ("masks", "pixels"):
            structures = len(self.stage.structures)  # type: ignore[attr-defined]
            classes = rng.integers(0, structures + 1, shape[:3])
            label = 255 * (classes[..., None] == np.arange(1, structures + 1)).astype(np.uint8)
            if kind == "pixels":  # the band, which is everywhere
                label = np.concatenate([label, np.full((*shape[:3], 1), 255, np.uint8)], -1)
                place = rng.integers(0, min(shape[1:3]), (shape[0], self.spec["points"], 2))
                found["centres"] = place.astype(np.float32)
            found["label"] = label
        elif kind == "boxes":
            found["boxes"], found["labels"] = random_discs(rng, shape)
        else:
            for name, classes in self.spec["heads"].items():
                target = rng.integers(0, classes, shape[0])
                found[f"target_{name}"] = target.astype(np.int32)
        return found


def unet(name: str, shape: tuple[int, ...], widths: tuple[int, ...], stem: int, dtype: Any) -> Case:
    """A U-Net that finds the structures of a spine."""
    options = SliceSegmentationOptions(
        patch=shape[1:3],  # type: ignore[arg-type]
        model=UNetOptions(widths=widths, stem=stem, dtype=dtype),
        train=recipe(shape),
    )
    spec = unet_spec(shape, options.model, len(SPINE) + 1)
    return Case(name, Masks("regions", options, SPINE, shape[1:3]), shape, spec)  # type: ignore[arg-type]


def image_grader(name: str, shape: tuple[int, ...], model: NetworkOptions, dtype: Any) -> Case:
    """VGG-19 with batch normalisation, or ResNet-50."""
    heads = (Head("A", 2), Head("D", 2))
    model = dataclasses.replace(model, dtype=dtype, mix=model.name == "resnet50")
    crop: Any = shape[1:3]
    options = ImageGradingOptions(crop=crop, model=model, heads=("A", "D"), train=recipe(shape))
    spec = image_spec(shape, model, _of(heads))
    return Case(name, Images("grades", options, heads), shape, spec)


def spinenet(
    name: str,
    shape: tuple[int, ...],
    model: GraderOptions,
    dtype: Any,
    heads: tuple[Head, ...] = DISCS,
) -> Case:
    """The grader of discs."""
    model, crop = dataclasses.replace(model, dtype=dtype), shape[1:4]
    options = CropGradingOptions(
        crop=crop,  # type: ignore[arg-type]
        model=model,
        heads=tuple(h.name for h in heads),
        emd_weight=1.0,
        train=recipe(shape),
    )
    spec = grader_spec(shape, model, _of(heads))
    return Case(name, Crops("grades", options, heads), shape, spec)


def alexnet(name: str, shape: tuple[int, ...], blocks: BlockOptions, dtype: Any) -> Case:
    """AlexNet on the blocks around pixels of a slice."""
    blocks = dataclasses.replace(blocks, dtype=dtype)
    size: Any = shape[1:3]
    options = BoneEdgesOptions(patch=size, blocks=blocks, train=recipe(shape))
    heads = {"pixel": len(BONES) + 1}
    own = {"channels": shape[-1], "heads": heads, "size": blocks.size, "width": blocks.width}
    own |= {"hidden": blocks.hidden, "dropout": blocks.dropout}
    spec: dict[str, Any] = {"network": "alexnet", "options": own, "kind": "pixels"}
    spec |= {"heads": heads, "points": blocks.points, "shape": shape}
    return Case(name, Pixels("edges", options, BONES, size), shape, spec)


def faster_rcnn(name: str, shape: tuple[int, ...], model: DetectorOptions, dtype: Any) -> Case:
    """The detector of discs."""
    model = dataclasses.replace(model, dtype=dtype)
    options = BoxDetectionOptions(model=model, train=recipe(shape))
    fields = ("widths", "channels", "hidden", "anchor_sizes", "anchor_ratios")
    own = {k: getattr(model, k) for k in fields} | {"image_channels": shape[-1]}
    spec = {"network": "faster_rcnn", "options": own, "kind": "boxes", "shape": shape}
    size: Any = shape[1:3]
    return Case(name, Boxes("boxes", options, size), shape, spec)


# --------------------------------------------------------------------------------------------
# What the peer builds


def unet_spec(shape: tuple[int, ...], model: UNetOptions, classes: int) -> dict[str, Any]:
    """A U-Net's, see `speed_torch_steps`.

    Args:
      shape: of a batch.
      model: the product's options.
      classes: of a pixel, background included.
    """
    own = {"channels": shape[-1], "classes": classes, "widths": model.widths, "stem": model.stem}
    spec = {"network": "unet", "options": own, "kind": "masks"}
    return {**spec, "classes": classes, "shape": shape}


def image_spec(
    shape: tuple[int, ...], model: NetworkOptions, heads: dict[str, int]
) -> dict[str, Any]:
    """VGG's or ResNet's, see `unet_spec`; heads are grading -> classes."""
    own: dict[str, Any] = {"channels": shape[-1], "width": model.width, "heads": heads}
    own |= {"blocks": model.blocks} if model.blocks else {}
    if model.name == "vgg19":
        own |= {"hidden": model.hidden, "pool": model.pool, "dropout": model.dropout}
    network = {"vgg19": "vgg", "resnet50": "resnet"}[model.name]
    return {"network": network, "options": own, "kind": "grades", "heads": heads, "shape": shape}


def grader_spec(
    shape: tuple[int, ...], model: GraderOptions, heads: dict[str, int]
) -> dict[str, Any]:
    """SpineNet's, see `image_spec`."""
    own = {"channels": shape[-1], "width": model.width, "blocks": model.blocks, "heads": heads}
    own |= {"norm": model.norm, "dropout": model.dropout}
    return {"network": "spinenet", "options": own, "kind": "grades", "heads": heads, "shape": shape}


def recipe(shape: tuple[int, ...]) -> TrainConfig:
    """Of a training that does not end while it is timed."""
    return TrainConfig(steps=1_000_000, batch_size=shape[0], ema_decay=0.99)


_ONE: Any = (1, 1, 1, 1)
_REAL = GraderOptions(width=16, blocks=_ONE, dropout=0.3)
# Name -> (at its size, at a tiny size); each is given the compute type.
_TINY_VGG = NetworkOptions(width=8, blocks=(1, 1, 1, 1, 1), hidden=8, pool=(1, 1))
_TINY_NET = NetworkOptions("resnet50", width=8, blocks=_ONE)
_TINY_GRADER = GraderOptions(width=8, blocks=_ONE, dropout=0.3)
_TINY_BLOCKS = BlockOptions(size=25, points=2, width=2, hidden=4)
_TINY_BOXES = DetectorOptions(widths=(8, 8, 8), channels=8, hidden=8)
CASES: dict[str, tuple[Callable[..., Case], tuple[Any, ...], tuple[Any, ...]]] = {
    "unet_phantom": (
        unet,
        ((6, 224, 128, 1), (16, 32, 64, 128), 1),
        ((2, 16, 16, 1), (8, 8), 1),
    ),
    "unet_real": (
        unet,
        ((4, 320, 192, 3), (16, 32, 64, 96, 128), 2),
        ((2, 16, 16, 3), (8, 8), 2),
    ),
    "unet_published": (
        unet,
        ((1, 256, 256, 1), (64, 128, 256, 512, 1024), 1),
        ((1, 16, 16, 1), (8, 16, 16), 1),
    ),
    "vgg19_bn": (
        image_grader,
        ((8, 96, 96, 1), NetworkOptions("vgg19")),
        ((2, 32, 32, 1), _TINY_VGG),
    ),
    "vgg19_bn_published": (
        image_grader,
        ((2, 224, 224, 1), NetworkOptions("vgg19")),
        ((2, 32, 32, 1), _TINY_VGG),
    ),
    "resnet50": (
        image_grader,
        ((8, 96, 96, 6), NetworkOptions("resnet50")),
        ((2, 32, 32, 6), _TINY_NET),
    ),
    "spinenet_real": (
        spinenet,
        ((12, 7, 40, 80, 1), _REAL),
        ((2, 3, 16, 32, 1), _TINY_GRADER),
    ),
    "spinenet_published": (
        spinenet,
        ((2, 9, 112, 224, 1), GraderOptions(dropout=0.3)),
        ((2, 3, 16, 32, 1), dataclasses.replace(_TINY_GRADER, norm="group")),
    ),
    "alexnet_blocks": (
        alexnet,
        ((8, 192, 192, 1), BlockOptions(size=25, points=48, width=16, hidden=64, dropout=0.2)),
        ((2, 40, 40, 1), _TINY_BLOCKS),
    ),
    "alexnet_blocks_published": (
        alexnet,
        ((2, 384, 384, 1), BlockOptions()),
        ((2, 40, 40, 1), _TINY_BLOCKS),
    ),
    "faster_rcnn": (
        faster_rcnn,
        ((8, 224, 160, 1), DetectorOptions(anchor_ratios=(0.3, 0.55, 1.0))),
        ((2, 64, 64, 1), _TINY_BOXES),
    ),
}


def case(name: str, tiny: bool = False, dtype: str = "float32") -> Case:
    """A network at its size, or at a tiny one.

    Args:
      name: of `CASES`.
      tiny: for tests and ``--quick``.
      dtype: compute type.
    """
    make, *sizes = CASES[name]
    return make(name, *sizes[tiny], dtype)


def _of(heads: tuple[Head, ...]) -> dict[str, int]:
    return {h.name: h.classes for h in heads}
