"""What the sources of shoulder series with outlined bones share, and the phantom source."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import numpy as np

from mskjax.imaging.volume import Volume
from tfds_builders.columns import Metadata, shared_part
from tfds_builders.images import image_part
from tfds_builders.phantoms.shoulder_bones import (
    HUMERUS,
    PAPER,
    SCAPULA,
    SMALL,
    Plane,
    bones_phantom,
)
from tfds_builders.raw import Example, GeneratedOptions, GeneratedSource, RawStudy

STRUCTURES: Mapping[str, int] = {"humerus": HUMERUS, "scapula": SCAPULA}
# The paper keeps five of eight patients for training and cross-validation, and three for testing.
_OF_EIGHT, _TRAINING = 8, 5


def example(
    study: RawStudy,
    images: Example,
    mask: np.ndarray,
    side: str,
    sequence: str,
    metadata: Metadata,
) -> Example:
    """Assembles one example of the data set.

    Args:
      study: names it.
      images: the image part, (S, H, W) on the axes of `planes.display_axes`.
      mask: (S, H, W) of 0, 1 and 2.
      side: left, right or empty.
      sequence: any text.
      metadata: the rest.
    """
    return {
        **shared_part(study, metadata),
        **images,
        "mask": np.ascontiguousarray(mask, np.uint8),
        "has_mask": True,
        "side": side,
        "sequence": sequence,
    }


@dataclasses.dataclass(frozen=True)
class PhantomOptions(GeneratedOptions):
    """Generated patients, one series each.

    Of every eight the last three are `validation`, the paper's test patients, and the others
    `training`.

    Attributes:
      size: `small`, 24 slices of 96 x 96, or `paper`, 100 slices of 256 x 256.
      plane: of the slices.
    """

    patients: int = 8
    size: Literal["small", "paper"] = "small"
    plane: Plane = "axial"


class PhantomSource(GeneratedSource):
    """Generated shoulders: the bones are known exactly, appearance is schematic."""

    def __init__(self, options: PhantomOptions, folder: Path | None):
        super().__init__(options, folder)
        self.series = options.plane
        config = {"small": SMALL, "paper": PAPER}[options.size]
        self._config = dataclasses.replace(config, plane=options.plane)

    def read(self, study: RawStudy) -> Example:
        """Draws the patient."""
        phantom = bones_phantom(self.options.seed_of(study.details), self._config)
        metadata = Metadata(
            sex=phantom.sex,
            age=float(phantom.age),
            field_strength_t=phantom.field_strength_t,
            subset="training" if study.details % _OF_EIGHT < _TRAINING else "validation",
        )
        images = image_part(Volume(phantom.image, phantom.affine))
        sequence = self._config.protocol.weighting.lower()
        return example(study, images, phantom.mask, phantom.side, sequence, metadata)
