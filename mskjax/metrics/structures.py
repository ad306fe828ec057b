"""All segmentation figures of one study: overlap and surfaces of each structure."""

from collections.abc import Sequence

import numpy as np

from mskjax.metrics import segmentation, surfaces

NSD_TOLERANCE_MM = 1.0  # about two native pixels; readers differ by as much


def score_structures(
    reference: np.ndarray,
    predicted: np.ndarray,
    names: Sequence[str],
    spacing: Sequence[float] | np.ndarray | None,
    tolerance_mm: float,
) -> dict[str, dict[str, float]]:
    """Scores the labels 1, 2, ... of two masks on one grid.

    Args:
      reference: (I, J, K) uint8.
      predicted: (I, J, K) uint8.
      names: of the labels 1, 2, ...
      spacing: voxel pitch along each axis, mm; None where it is not known.
      tolerance_mm: of the normalised surface distance.

    Returns:
      name -> dice, iou, ppv, sensitivity, pixel_accuracy (fractions), nsd (fraction), hd95 and
      assd (mm), all three NaN without a spacing; the rules for empty masks are those of
      `segmentation` and `surfaces`.
    """
    matrix = segmentation.confusion_counts(reference, predicted, len(names) + 1)
    scores = {}
    for label, name in enumerate(names, 1):
        counts = segmentation.counts_of(matrix, label)
        scores[name] = {
            "dice": float(segmentation.dice(counts)),
            "iou": float(segmentation.iou(counts)),
            "ppv": float(segmentation.ppv(counts)),
            "sensitivity": float(segmentation.sensitivity(counts)),
            "pixel_accuracy": float(segmentation.pixel_accuracy(counts)),
            **surfaces.surface_metrics(
                reference == label, predicted == label, spacing, tolerance_mm
            ),
        }
    return scores
