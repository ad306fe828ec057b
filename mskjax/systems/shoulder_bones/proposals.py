"""Four networks propose bone, and a vote fixes where it lies.

Three U-Nets, one for each structure and one for both as one, and a block-wise AlexNet are members
of one network: one optimiser steps them on the sum of their losses.  They share no weight, and
each clips its gradient by its own norm, so that none is trained otherwise than it would be alone.
"""

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from mskjax.data.pipeline import Examples
from mskjax.errors import UserError
from mskjax.imaging import geometry, patches, regions
from mskjax.stages.slice_segmentation import (
    SliceSegmentationOptions,
    canvas_of,
    classes_of,
    network_grid,
    with_background,
)
from mskjax.systems.shoulder_bones.pixels import (
    BlockOptions,
    PixelClassification,
    at_centres,
)
from mskjax.training.stage import Input, Study

if TYPE_CHECKING:
    from mskjax.systems.shoulder_bones.networks import Members

STRUCTURES = ("humerus", "scapula")
UNETS = ("unet_humerus", "unet_scapula", "unet_both")
ALEXNET = "alexnet"
Rule = Literal["any", "majority", "all", "mean"]
VOTES: Mapping[str, int] = {"any": 1, "majority": 2, "all": 3}  # of a structure's three voters
VOTERS = 3


@dataclasses.dataclass(frozen=True, kw_only=True)
class BoneProposalsOptions(SliceSegmentationOptions):
    """Options of the stage; ``model`` is that of each U-Net.

    Attributes:
      blocks: of AlexNet.
      stride: pixels between the pixels that AlexNet classifies in prediction; probabilities
        between them are interpolated linearly.
      vote: how many of a structure's three voters (its own U-Net, the U-Net of both, AlexNet)
        must agree; ``mean`` asks instead whether their mean probability is above one half, so that
        a voter that is unsure counts for little either way.
      smallest_part: connected parts of a structure below this share of its largest part are
        dropped; 0 keeps all, 1 the largest alone.  A scapula may well be in several parts: its thin
        plate breaks where it is thinner than a pixel.
    """

    blocks: BlockOptions = dataclasses.field(default_factory=BlockOptions)
    stride: int = 4
    vote: Rule = "majority"
    smallest_part: float = 0.05

    def __post_init__(self) -> None:
        if self.stride < 1:
            raise UserError(f"config.stages.proposals.stride is {self.stride}; it must be >= 1.")
        if not 0 <= self.smallest_part <= 1:
            raise UserError(
                f"config.stages.proposals.smallest_part is {self.smallest_part}; it must be in"
                " [0, 1]."
            )


@dataclasses.dataclass(frozen=True)
class BoneProposals(PixelClassification):
    """See the module."""

    options: BoneProposalsOptions
    apart = True

    def model(self) -> "Members":
        """The four networks."""
        from mskjax.systems.shoulder_bones.networks import Members

        return Members(
            self.options.model, self.options.blocks, UNETS, ALEXNET, self.classes_of_a_pixel
        )

    def signature(self) -> dict[str, Input]:
        """Any number of slices on the canvas, of which the lattice of centres has the size."""
        rows, cols, _ = patches.lattice(self.canvas, self.options.stride).shape
        image = Input.images(*self.canvas, self.input_channels)
        return {"image": image, "centres": self.centres(rows * cols)}

    def inference_examples(self, study: Study) -> Examples:
        """Whole slices, and as centres a lattice over each."""
        examples = super().inference_examples(study)
        slices, rows, cols, _ = examples["image"].shape
        centres = patches.lattice((rows, cols), self.options.stride).reshape(1, -1, 2)
        return {**examples, "centres": np.broadcast_to(centres, (slices, *centres.shape[1:]))}

    def loss(
        self, outputs: Any, batch: dict[str, jax.Array], balance: Any, hyper: Any
    ) -> jax.Array:
        """The sum over members: cross-entropy and soft Dice of U-Nets, cross-entropy of AlexNet.

        AlexNet sees classes in equal shares, which would make it find bone everywhere.  Its logits
        are therefore those of the true shares: the loss adds what `balance` says (Menon et al.,
        ICLR 2021).
        """
        from mskjax.models import losses

        targets = _targets(batch["label"])
        terms = [losses.segmentation_loss(outputs[name], targets[name]) for name in UNETS]
        return sum(terms, self._alexnet(outputs[ALEXNET] + balance[None, None], batch)[0])

    def balance(self, examples: Examples) -> np.ndarray:
        """(classes,) log of a class's share of the drawn pixels over its share of all pixels."""
        classes, label = range(self.classes_of_a_pixel), examples["label"]
        masks = (classes_of(own) for own in label)  # one by one
        shares = np.array([[(mask == c).mean() for c in classes] for mask in masks])
        present = shares > 0
        drawn = (present / present.sum(1, keepdims=True)).mean(0)
        # A class that does not occur is drawn as often as it occurs.
        return np.log((drawn + 1e-6) / (shares.mean(0) + 1e-6)).astype(np.float32)

    def monitor(self, outputs: Any, batch: dict[str, jax.Array]) -> dict[str, jax.Array]:
        """Share of pixels that each member has right; AlexNet's of those drawn for it."""
        found = {}
        for name, target in _targets(batch["label"]).items():
            right = jnp.argmax(outputs[name], -1) == jnp.argmax(target, -1)
            found[f"accuracy_{name}"] = jnp.mean(right.astype(jnp.float32), (1, 2))
        return {**found, f"accuracy_{ALEXNET}": self._alexnet(outputs[ALEXNET], batch)[1]}

    def activate(self, outputs: Any) -> dict[str, jax.Array]:
        """Probability of foreground (B, H, W) of each U-Net, (B, N, 2) of structures by AlexNet."""
        p = {name: jax.nn.softmax(logits)[..., 1:] for name, logits in outputs.items()}
        p |= {name: p[name][..., 0] for name in UNETS}
        return {name: values.astype(jnp.float16) for name, values in p.items()}

    def members(self, study: Study, outputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Probabilities of one study on its native grid.

        Args:
          study: gives the grid.
          outputs: as `activate` names them, one row per slice.

        Returns:
          ``unet_humerus``, ``unet_scapula``, ``unet_both`` (S, H, W) and ``alexnet`` (2, S, H, W),
          float32; 0 outside the slices.
        """
        (slices, rows, cols), affine = network_grid(
            study, self.channels[0], self.options.spacing_mm
        )
        native = study["image"].shape, study["affine"]

        def bring(values: np.ndarray, affine: np.ndarray) -> np.ndarray:
            return geometry.resample_to(values.astype(np.float32), affine, *native)

        found = {name: bring(outputs[name][:, :rows, :cols], affine) for name in UNETS}
        size = canvas_of((rows, cols), self.canvas)
        grid = patches.lattice(size, self.options.stride).shape[:2]
        coarse = patches.lattice_affine(affine, self.options.stride)
        blocks = outputs[ALEXNET].reshape(slices, *grid, len(STRUCTURES))
        found[ALEXNET] = np.stack([bring(p, coarse) for p in np.moveaxis(blocks, -1, 0)])
        return found

    def decode(self, study: Study, outputs: dict[str, np.ndarray]) -> np.ndarray:
        """The vote, (S, H, W) uint8 on the native grid."""
        return self.elect(self.members(study, outputs))

    def elect(self, probabilities: Mapping[str, np.ndarray]) -> np.ndarray:
        """The vote over the native probabilities of `members`, (S, H, W) uint8."""
        return without_crumbs(vote(probabilities, self.options.vote), self.options.smallest_part)

    def _alexnet(
        self, logits: jax.Array, batch: dict[str, jax.Array]
    ) -> tuple[jax.Array, jax.Array]:
        label = classes_of(at_centres(batch["label"], batch["centres"]))
        return self.classified(logits, label, jnp.ones(label.shape, bool))


def member_masks(probabilities: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """What each member alone would say, uint8: 0, and 1 humerus, 2 scapula, or 1 bone.

    A U-Net says yes above .5, AlexNet takes the likeliest class; ties go to background.
    """
    humerus, scapula = probabilities[ALEXNET]
    background = 1 - humerus - scapula
    structure = np.where(scapula > humerus, 2, 1)
    masks = {
        name: np.uint8(value) * (probabilities[name] > 0.5)
        for name, value in zip(UNETS, (1, 2, 1), strict=True)
    }
    likeliest = np.where(np.maximum(humerus, scapula) > background, structure, 0)
    return {**masks, ALEXNET: likeliest.astype(np.uint8)}


def voters(probabilities: Mapping[str, np.ndarray]) -> np.ndarray:
    """(structures, ...) float32 mean probability of each structure's voters, see `vote`."""
    both = probabilities["unet_both"]
    found = [
        probabilities[f"unet_{name}"] + both + blocks
        for name, blocks in zip(STRUCTURES, probabilities[ALEXNET], strict=True)
    ]
    return np.stack(found) / np.float32(VOTERS)


def vote(probabilities: Mapping[str, np.ndarray], rule: str) -> np.ndarray:
    """Elects each pixel's structure.

    A structure's voters are its own U-Net, the U-Net of both as one and AlexNet.  Where both
    structures win, the one whose voters have the higher mean probability is taken, the humerus
    where they are equal.

    Args:
      probabilities: of `BoneProposals.members`, of any one shape.
      rule: a key of `VOTES`, or ``mean``.

    Returns:
      uint8 of that shape: 0 background, 1 humerus, 2 scapula.
    """
    masks, certainty = member_masks(probabilities), voters(probabilities)
    wins = []
    for label, name in enumerate(STRUCTURES, 1):
        if rule == "mean":
            wins.append(certainty[label - 1] > 0.5)
            continue
        own = masks[f"unet_{name}"] == label
        voices = (own, masks["unet_both"] == 1, masks[ALEXNET] == label)
        wins.append(np.sum(voices, axis=0) >= VOTES[rule])
    humerus = wins[0] & (~wins[1] | (certainty[0] >= certainty[1]))
    return np.where(humerus, 1, np.where(wins[1], 2, 0)).astype(np.uint8)


def without_crumbs(mask: np.ndarray, smallest_part: float) -> np.ndarray:
    """The mask without parts of a structure below a share of its largest part.

    Args:
      mask: (S, H, W) uint8: 0 background, 1 humerus, 2 scapula.
      smallest_part: in [0, 1]; see `BoneProposalsOptions`.
    """
    kept = np.zeros_like(mask)
    for label in range(1, len(STRUCTURES) + 1):
        for part in regions.large_components(mask == label, smallest_part):
            kept[part] = label
    return kept


def _targets(label: Any) -> dict[str, jax.Array]:
    """(B, H, W, 2) shares of background and bone for each U-Net."""
    humerus, scapula = with_background(label)[..., 1:2], with_background(label)[..., 2:]
    found = (humerus, scapula, humerus + scapula)
    return {n: jnp.concatenate([1.0 - f, f], -1) for n, f in zip(UNETS, found, strict=True)}
