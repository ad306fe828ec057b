"""Benign or malignant vertebral fracture: sagittal T1 and T2, one abnormal segment a patient."""

from collections.abc import Mapping, Sequence

import numpy as np
import tensorflow_datasets as tfds

from tfds_builders.common import CohortBuilder, CohortConfig
from tfds_builders.raw import Example
from tfds_builders.vertebral_fracture.sources import NoOptions, PhantomOptions, PhantomSource
from tfds_builders.vertebral_fracture.sources_cohort import CohortSource

_README = "tfds_builders/vertebral_fracture/README.md describes the layout."


class VertebralFracture(CohortBuilder):
    """One study: T1 and T2 on T1's grid, the abnormal segment, its label and its readings."""

    BUILDER_CONFIGS = [  # noqa: RUF012 (TFDS wants a list)
        CohortConfig(
            name="phantom",
            description="Generated spines with one benign or malignant vertebral fracture",
            kind="phantom",
            licence="Apache-2.0",
            citation="mskjax (generated)",
            options=PhantomOptions(),
            source=PhantomSource,
        ),
        CohortConfig(
            name="cohort",
            description="The user's own studies",
            kind="real",
            licence="the user's own",
            citation="the user's own",
            options=NoOptions(),
            source=CohortSource,
            obtain=f"write studies.csv; {_README}",
        ),
    ]

    def features(self) -> tfds.features.FeaturesDict:
        """See README.md for the meaning of each feature."""
        text, whole = tfds.features.Text(), tfds.features.Scalar(np.int32)
        real = tfds.features.Scalar(np.float32)
        # zlib: an unencoded tensor may have one unknown dimension only.
        volume = tfds.features.Tensor(shape=(None, None, None), dtype=np.float32, encoding="zlib")
        return tfds.features.FeaturesDict(
            {
                "patient_id": text,
                "study_id": text,
                "t1": volume,
                "t2": volume,
                "affine": tfds.features.Tensor(shape=(4, 4), dtype=np.float64),
                "label": whole,
                "slice": whole,
                "box": tfds.features.Tensor(shape=(4,), dtype=np.float32),
                "level": text,
                "readers": tfds.features.Sequence(
                    {"reader": text, "call": whole, "aided_call": whole}
                ),
                "findings": tfds.features.Sequence({"name": text, "present": whole}),
                "sex": text,
                "age": real,
                "manufacturer": text,
                "field_strength_t": real,
                "subset": text,
            }
        )

    def graded(self, example: Example) -> Sequence[Mapping[str, int]]:
        """The one abnormal segment."""
        return [{"fracture": example["label"]}]
