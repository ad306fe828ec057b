"""A grader of the one region of a mask: the square around it in the slice that shows most."""

import dataclasses

import numpy as np

from mskjax.data.pipeline import Examples
from mskjax.imaging import regions
from mskjax.imaging.intensity import standardised
from mskjax.stages.image_grading import ImageGrading, bounding_box, square_crops
from mskjax.training.stage import Study

Place = tuple[int, tuple[float, float, float, float]]  # slice; row0, col0, row1, col1, half-open

LEAST_PIXELS = 10  # a smaller region is noise


@dataclasses.dataclass(frozen=True)
class RegionGrading(ImageGrading):
    """Grades the square around the region of a mask.

    Studies need ``image`` (S, H, W) and ``affine`` and, to train on, ``mask`` with ``has_mask`` and
    the columns of grades that the heads read, -1 where missing.
    """

    def cut(self, study: Study, place: Place | None) -> Examples:
        """``image`` (N, rows, cols, 1) float32: the region's crop, N = 1, or 0 without a place."""
        crops = np.zeros((0, *self.options.crop), np.float32)
        if place is not None:
            number, box = place
            crops = square_crops(
                standardised(study["image"]),
                study["affine"],
                np.array([number]),
                box,
                self.options.margin,
                self.options.crop,
            )
        return {"image": crops[..., None]}

    def training_examples(self, study: Study) -> Examples | None:
        """The crop at the reference region; None where region or every target is missing."""
        place = largest_region(study["mask"]) if study["has_mask"] else None
        columns = {h.column or h.name for h in self.heads}
        targets = self.targets({c: np.array([study[c]]) for c in columns if c in study})
        if place is None or all(t[0] < 0 for t in targets.values()):
            return None
        return {**self.cut(study, place), **targets, "case": np.array([study["study_id"]])}


def largest_region(mask: np.ndarray) -> Place | None:
    """Slice and box of the largest connected region of a (S, H, W) mask; None if there is none.

    The slice is the one that shows most of it.  A region below `LEAST_PIXELS` is none.
    """
    pieces = regions.components(mask > 0, LEAST_PIXELS)
    if not pieces:
        return None
    number = int(np.argmax(pieces[0].sum((1, 2))))
    return number, bounding_box(pieces[0][number])
