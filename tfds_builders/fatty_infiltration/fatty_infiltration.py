"""Fatty infiltration of the supraspinatus: shoulder images in Y-view, the fossa and its grade."""

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
from tfds_builders.fatty_infiltration import images
from tfds_builders.fatty_infiltration.sources import PhantomOptions, PhantomSource
from tfds_builders.fatty_infiltration.sources_cohort import CohortSource
from tfds_builders.raw import Example

_README = "tfds_builders/fatty_infiltration/README.md describes the layout."


class FattyInfiltration(CohortBuilder):
    """One image in Y-view with the supraspinatus fossa and Goutallier's grade."""

    channels, wanted = images.CHANNELS, images.WANTED
    read_images = staticmethod(images.read_images)

    BUILDER_CONFIGS = [  # noqa: RUF012 (TFDS wants a list)
        phantom_config(
            "Generated shoulders in Y-view with known fossa and Goutallier grade",
            PhantomOptions(),
            PhantomSource,
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
            "grade": tfds.features.Scalar(np.int32),
            "side": text,
            "sequence": text,
        }

    def graded(self, example: Example) -> Sequence[Mapping[str, int]]:
        """The one supraspinatus of the image, where it is graded."""
        return [{"goutallier": example["grade"]}] if example["grade"] >= 0 else []

    def parts(self, example: Example) -> Mapping[str, bool]:
        """The fossa is outlined; it has a grade."""
        return {"mask": bool(example["has_mask"]), "grade": example["grade"] >= 0}
