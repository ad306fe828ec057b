"""Lumbar disc degeneration: sagittal T2, spine masks and graded discs."""

from collections.abc import Mapping, Sequence

import numpy as np
import tensorflow_datasets as tfds

from tfds_builders.common import CohortBuilder, CohortConfig
from tfds_builders.disc_degeneration.sources import GRADES, NoOptions, PhantomOptions, PhantomSource
from tfds_builders.disc_degeneration.sources_cohort import CohortSource
from tfds_builders.disc_degeneration.sources_spider import (
    SpiderOptions,
    SpiderSource,
    T2SpaceSource,
)
from tfds_builders.raw import Example

_SPIDER = (
    "van der Graaf et al., Lumbar spine segmentation in MR images: a dataset and a public"
    " benchmark, Scientific Data 11:264 (2024), Zenodo record 10159290"
)
_README = "tfds_builders/disc_degeneration/README.md describes the layout."


class DiscDegeneration(CohortBuilder):
    """One sagittal series with its mask and the grades of its discs."""

    BUILDER_CONFIGS = [  # noqa: RUF012 (TFDS wants a list)
        CohortConfig(
            name="phantom",
            description="Generated lumbar spines with known masks and grades",
            kind="phantom",
            licence="Apache-2.0",
            citation="mskjax (generated)",
            options=PhantomOptions(),
            source=PhantomSource,
        ),
        CohortConfig(
            name="spider",
            description="SPIDER as published on Zenodo",
            kind="real",
            licence="CC BY 4.0",
            citation=_SPIDER,
            options=SpiderOptions(),
            source=SpiderSource,
            obtain=f"get and unpack https://zenodo.org/records/10159290; {_README}",
        ),
        CohortConfig(
            name="spider_t2space",
            description="T2-SPACE series of SPIDER, every second slice, semantic masks",
            kind="real",
            licence="CC BY 4.0",
            citation=_SPIDER,
            options=NoOptions(),
            source=T2SpaceSource,
            obtain=f"NIfTI pairs and SPIDER's two tables; {_README}",
        ),
        CohortConfig(
            name="cohort",
            description="The user's own studies",
            kind="real",
            licence="the user's own",
            citation="the user's own",
            options=NoOptions(),
            source=CohortSource,
            obtain=f"write studies.csv and discs.csv; {_README}",
        ),
    ]

    def features(self) -> tfds.features.FeaturesDict:
        """See README.md for the meaning of each feature."""
        text, whole = tfds.features.Text(), tfds.features.Scalar(np.int32)
        real = tfds.features.Scalar(np.float32)
        return tfds.features.FeaturesDict(
            {
                "patient_id": text,
                "study_id": text,
                "image": _volume(np.float32),
                "mask": _volume(np.uint8),
                "disc_levels": _volume(np.uint8),
                "has_mask": tfds.features.Scalar(np.bool_),
                "affine": tfds.features.Tensor(shape=(4, 4), dtype=np.float64),
                "levels": tfds.features.Sequence({"level": whole, **dict.fromkeys(GRADES, whole)}),
                "sequence": text,
                "sex": text,
                "age": real,
                "manufacturer": text,
                "field_strength_t": real,
                "subset": text,
            }
        )

    def graded(self, example: Example) -> Sequence[Mapping[str, int]]:
        """The graded discs."""
        return [{g: row[g] for g in GRADES} for row in example["levels"]]


def _volume(dtype: type) -> tfds.features.Tensor:
    # zlib: an unencoded tensor may have one unknown dimension only.
    return tfds.features.Tensor(shape=(None, None, None), dtype=dtype, encoding="zlib")
