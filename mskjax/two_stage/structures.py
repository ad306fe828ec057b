"""Structures that a first stage segments, scored against the reference."""

from collections.abc import Sequence

import numpy as np

from mskjax.metrics.structures import score_structures
from mskjax.tables import Row
from mskjax.training.stage import Study
from mskjax.two_stage.system import sized, spacing_of

NSD_TOLERANCE_MM = 1.0  # about two native pixels; readers differ by as much


def structure_rows(study: Study, mask: np.ndarray, names: Sequence[str]) -> list[Row]:
    """A row of cases.csv for each structure, in 3-D on the native grid.

    Args:
      study: with ``mask`` (S, H, W), the reference.
      mask: (S, H, W) uint8, what was found.
      names: of the labels 1, 2, ...
    """
    spacing = spacing_of(study) if sized(study) else None
    scores = score_structures(study["mask"], mask, names, spacing, NSD_TOLERANCE_MM)
    return [{"kind": "structure", "name": name, **values} for name, values in scores.items()]
