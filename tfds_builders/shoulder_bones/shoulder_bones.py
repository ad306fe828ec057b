"""Humerus and scapula in MR series of the shoulder."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from tfds_builders.common import CohortBuilder, own_config, phantom_config, volume_feature
from tfds_builders.raw import Example
from tfds_builders.shoulder_bones import images
from tfds_builders.shoulder_bones.sources import STRUCTURES, PhantomOptions, PhantomSource
from tfds_builders.shoulder_bones.sources_cohort import CohortSource

_README = "tfds_builders/shoulder_bones/README.md describes the layout."


class ShoulderBones(CohortBuilder):
    """One series of one shoulder with its bones."""

    channels, wanted = images.CHANNELS, images.WANTED
    read_images = staticmethod(images.read_images)

    BUILDER_CONFIGS = [  # noqa: RUF012 (TFDS wants a list)
        phantom_config(
            "Generated shoulders with known humerus and scapula", PhantomOptions(), PhantomSource
        ),
        own_config(CohortSource, f"write studies.csv; {_README}"),
    ]

    def features(self) -> Mapping[str, Any]:
        """See README.md for the meaning of each feature."""
        text = tfds.features.Text()
        return {
            "image": volume_feature(np.float32),
            "mask": volume_feature(np.uint8),
            "has_mask": tfds.features.Scalar(np.bool_),
            "side": text,
            "sequence": text,
        }

    def graded(self, example: Example) -> Sequence[Mapping[str, int]]:
        """One case a structure that the mask shows, counted by its label."""
        return [
            {"structure": label}
            for label in STRUCTURES.values()
            if np.any(example["mask"] == label)
        ]

    def parts(self, example: Example) -> Mapping[str, bool]:
        """The bones are outlined."""
        return {"mask": bool(example["has_mask"])}
