"""Humerus and scapula in MR series of the shoulder."""

from collections.abc import Mapping, Sequence

import numpy as np
import tensorflow_datasets as tfds

from tfds_builders.common import CohortBuilder, CohortConfig
from tfds_builders.raw import Example
from tfds_builders.shoulder_bones.sources import (
    STRUCTURES,
    CohortSource,
    NoOptions,
    PhantomOptions,
    PhantomSource,
)


class ShoulderBones(CohortBuilder):
    """One series of one shoulder with its bones."""

    BUILDER_CONFIGS = [  # noqa: RUF012 (TFDS wants a list)
        CohortConfig(
            name="phantom",
            description="Generated shoulders with known humerus and scapula",
            kind="phantom",
            licence="Apache-2.0",
            citation="mskjax (generated)",
            options=PhantomOptions(),
            source=PhantomSource,
        ),
        CohortConfig(
            name="cohort",
            description="The user's own series",
            kind="real",
            licence="the user's own",
            citation="the user's own",
            options=NoOptions(),
            source=CohortSource,
            obtain=(
                "write studies.csv; tfds_builders/shoulder_bones/README.md describes the layout."
            ),
        ),
    ]

    def features(self) -> tfds.features.FeaturesDict:
        """See README.md for the meaning of each feature."""
        text, real = tfds.features.Text(), tfds.features.Scalar(np.float32)
        return tfds.features.FeaturesDict(
            {
                "patient_id": text,
                "study_id": text,
                "image": _volume(np.float32),
                "mask": _volume(np.uint8),
                "has_mask": tfds.features.Scalar(np.bool_),
                "affine": tfds.features.Tensor(shape=(4, 4), dtype=np.float64),
                "side": text,
                "sequence": text,
                "sex": text,
                "age": real,
                "manufacturer": text,
                "field_strength_t": real,
                "subset": text,
            }
        )

    def graded(self, example: Example) -> Sequence[Mapping[str, int]]:
        """One case a structure that the mask shows, counted by its label."""
        return [
            {"structure": label}
            for label in STRUCTURES.values()
            if np.any(example["mask"] == label)
        ]


def _volume(dtype: type) -> tfds.features.Tensor:
    # zlib: an unencoded tensor may have one unknown dimension only.
    return tfds.features.Tensor(shape=(None, None, None), dtype=dtype, encoding="zlib")
