"""Modic changes of the lumbar spine: paired T1 and T2 with boxed and graded discs."""

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
from tfds_builders.modic_changes import images
from tfds_builders.modic_changes.sources import PhantomOptions, PhantomSource, is_graded
from tfds_builders.modic_changes.sources_cohort import CohortSource
from tfds_builders.modic_changes.sources_spider import MidsagittalSource, SpiderSource
from tfds_builders.raw import Example, NoOptions
from tfds_builders.spider import ARCHIVE, CITATION, GRADES, LICENCE

_README = "tfds_builders/modic_changes/README.md describes the layout."


class ModicChanges(CohortBuilder):
    """One lumbar study: T1 and T2 on T2's grid, and its discs with box, level and grades."""

    channels, wanted = images.CHANNELS, images.WANTED
    read_images = staticmethod(images.read_images)

    BUILDER_CONFIGS = [  # noqa: RUF012 (TFDS wants a list)
        phantom_config(
            "Generated lumbar spines with known boxes and Modic types",
            PhantomOptions(),
            PhantomSource,
        ),
        CohortConfig(
            name="spider",
            description="T1 and T2 of SPIDER as published on Zenodo",
            kind="real",
            licence=LICENCE,
            citation=CITATION,
            options=NoOptions(),
            source=SpiderSource,
            obtain=f"get and unpack {ARCHIVE}; {_README}",
        ),
        CohortConfig(
            name="spider_midsagittal",
            description="One mid-sagittal slice per T1 and T2 series of SPIDER, 8 bit",
            kind="real",
            licence=LICENCE,
            citation=CITATION,
            options=NoOptions(),
            source=MidsagittalSource,
            obtain=f"PNG images, disc_boxes.csv and SPIDER's two tables; {_README}",
        ),
        own_config(CohortSource, f"write studies.csv and discs.csv; {_README}"),
    ]

    def features(self) -> Mapping[str, Any]:
        """See README.md for the meaning of each feature."""
        whole, yes = tfds.features.Scalar(np.int32), tfds.features.Scalar(np.bool_)
        return {
            "t1": volume_feature(np.float32),
            "t2": volume_feature(np.float32),
            "has_t1": yes,
            "boxes": tfds.features.Sequence(
                {
                    "level": whole,
                    "boxed": whole,
                    "slice": whole,
                    "box": tfds.features.Tensor(shape=(4,), dtype=np.float32),
                    **dict.fromkeys(GRADES, whole),
                }
            ),
            "has_boxes": yes,
        }

    def graded(self, example: Example) -> Sequence[Mapping[str, int]]:
        """The graded discs, boxed or not."""
        return [
            {"modic": row["modic"], "pfirrmann": row["pfirrmann"]}
            for row in example["boxes"]
            if is_graded(row)
        ]

    def parts(self, example: Example) -> Mapping[str, bool]:
        """Any disc is boxed; any disc is graded."""
        graded = any(is_graded(row) for row in example["boxes"])
        return {"boxes": bool(example["has_boxes"]), "grade": graded}
