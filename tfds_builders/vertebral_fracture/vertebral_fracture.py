"""Benign or malignant vertebral fracture: sagittal T1 and T2, one abnormal segment a patient."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from tfds_builders.common import (
    CohortBuilder,
    own_config,
    phantom_config,
    volume_feature,
)
from tfds_builders.raw import Example
from tfds_builders.vertebral_fracture import images
from tfds_builders.vertebral_fracture.sources import PhantomOptions, PhantomSource
from tfds_builders.vertebral_fracture.sources_cohort import CohortSource

_README = "tfds_builders/vertebral_fracture/README.md describes the layout."


class VertebralFracture(CohortBuilder):
    """One study: T1 and T2 on T1's grid, the abnormal segment, its label and its readings."""

    channels, wanted = images.CHANNELS, images.WANTED
    read_images = staticmethod(images.read_images)

    BUILDER_CONFIGS = [  # noqa: RUF012 (TFDS wants a list)
        phantom_config(
            "Generated spines with one benign or malignant vertebral fracture",
            PhantomOptions(),
            PhantomSource,
        ),
        own_config(CohortSource, f"write studies.csv; {_README}"),
    ]

    def features(self) -> Mapping[str, Any]:
        """See README.md for the meaning of each feature."""
        text, whole = tfds.features.Text(), tfds.features.Scalar(np.int32)
        return {
            "t1": volume_feature(np.float32),
            "t2": volume_feature(np.float32),
            "label": whole,
            "slice": whole,
            "box": tfds.features.Tensor(shape=(4,), dtype=np.float32),
            "level": text,
            "readers": tfds.features.Sequence({"reader": text, "call": whole, "aided_call": whole}),
            "findings": tfds.features.Sequence({"name": text, "present": whole}),
        }

    def graded(self, example: Example) -> Sequence[Mapping[str, int]]:
        """The one abnormal segment, where it has a label."""
        return [{"fracture": example["label"]}] if example["label"] >= 0 else []

    def parts(self, example: Example) -> Mapping[str, bool]:
        """The segment is known of every study; it may have a label."""
        return {"segment": True, "grade": example["label"] >= 0}
