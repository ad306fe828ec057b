"""Lumbar disc degeneration: sagittal T2, spine masks and graded discs."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from tfds_builders.common import (
    CohortBuilder,
    CohortConfig,
    own_config,
    phantom_config,
    volume_feature,
)
from tfds_builders.disc_degeneration import images
from tfds_builders.disc_degeneration.sources import PhantomSource
from tfds_builders.disc_degeneration.sources_cohort import CohortSource
from tfds_builders.disc_degeneration.sources_spider import (
    SpiderOptions,
    SpiderSource,
    T2SpaceSource,
)
from tfds_builders.raw import Example, GeneratedOptions, NoOptions
from tfds_builders.spider import ARCHIVE, CITATION, GRADES, LICENCE

_README = "tfds_builders/disc_degeneration/README.md describes the layout."


class DiscDegeneration(CohortBuilder):
    """One sagittal series with its mask and the grades of its discs."""

    channels, wanted = images.CHANNELS, images.WANTED
    read_images = staticmethod(images.read_images)

    BUILDER_CONFIGS = [  # noqa: RUF012 (TFDS wants a list)
        phantom_config(
            "Generated lumbar spines with known masks and grades",
            GeneratedOptions(patients=24),
            PhantomSource,
        ),
        CohortConfig(
            name="spider",
            description="SPIDER as published on Zenodo",
            kind="real",
            licence=LICENCE,
            citation=CITATION,
            options=SpiderOptions(),
            source=SpiderSource,
            obtain=f"get and unpack {ARCHIVE}; {_README}",
        ),
        CohortConfig(
            name="spider_t2space",
            description="T2-SPACE series of SPIDER, every second slice, semantic masks",
            kind="real",
            licence=LICENCE,
            citation=CITATION,
            options=NoOptions(),
            source=T2SpaceSource,
            obtain=f"NIfTI pairs and SPIDER's two tables; {_README}",
        ),
        own_config(CohortSource, f"write studies.csv and discs.csv; {_README}"),
    ]

    def features(self) -> Mapping[str, Any]:
        """See README.md for the meaning of each feature."""
        whole = tfds.features.Scalar(np.int32)
        return {
            "image": volume_feature(np.float32),
            "mask": volume_feature(np.uint8),
            "disc_levels": volume_feature(np.uint8),
            "has_mask": tfds.features.Scalar(np.bool_),
            "levels": tfds.features.Sequence({"level": whole, **dict.fromkeys(GRADES, whole)}),
            "sequence": tfds.features.Text(),
        }

    def graded(self, example: Example) -> Sequence[Mapping[str, int]]:
        """The graded discs."""
        return [{g: row[g] for g in GRADES} for row in example["levels"]]

    def parts(self, example: Example) -> Mapping[str, bool]:
        """The structures are outlined; any disc has a Pfirrmann grade."""
        graded = any(row["pfirrmann"] >= 0 for row in example["levels"])
        return {"mask": bool(example["has_mask"]), "grade": graded}
