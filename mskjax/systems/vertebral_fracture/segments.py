"""One abnormal vertebral segment on paired T1 and T2: where it is, and what it is."""

import dataclasses

import numpy as np

from mskjax.data.pipeline import Examples
from mskjax.errors import UserError
from mskjax.imaging import regions
from mskjax.imaging.intensity import standardised
from mskjax.stages.image_grading import (
    ImageGrading,
    ImageGradingOptions,
    bounding_box,
    square_crops,
)
from mskjax.stages.slice_segmentation import SliceSegmentation
from mskjax.training.stage import Study

SEQUENCES = ("t1", "t2")
LABEL = "label"  # the study's column: 0 benign, 1 malignant, -1 unknown
NEIGHBOURS = 1  # slices on each side of a slice that the network sees with it
CHANNELS = len(SEQUENCES) * (2 * NEIGHBOURS + 1)
LEAST_PIXELS = 10  # a smaller region is noise, not a vertebra

Box = tuple[float, float, float, float]
Place = tuple[int, Box]  # slice number; row0, col0, row1, col1 in pixels, half-open


@dataclasses.dataclass(frozen=True)
class SegmentDetection(SliceSegmentation):
    """Segments the box of the abnormal segment on the slices where it was annotated.

    Studies need ``t1`` and ``t2`` (S, H, W) on one grid, ``slice`` and ``box``.
    """

    channels: tuple[str, ...] = SEQUENCES

    def reference(self, study: Study) -> tuple[np.ndarray, np.ndarray] | None:
        """The box on its slice and the two beside it; what the others show is not annotated."""
        number, box = reference_place(study)
        mask = np.zeros(study["t1"].shape, np.uint8)
        known = np.arange(number - NEIGHBOURS, number + NEIGHBOURS + 1)
        known = known[(known >= 0) & (known < len(mask))]
        row0, col0, row1, col1 = (round(v) for v in box)
        mask[known, row0:row1, col0:col1] = 1
        return mask, known


@dataclasses.dataclass(frozen=True)
class SegmentGradingOptions(ImageGradingOptions):
    """Options of the grader.

    Attributes:
      scored_slices: odd number of slices, the annotated one in their middle, that are graded each
        with its neighbours; the patient's score is their largest.
    """

    scored_slices: int = 3

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.scored_slices < 1 or self.scored_slices % 2 == 0:
            raise UserError(f"scored_slices is {self.scored_slices}; it must be odd.")


@dataclasses.dataclass(frozen=True)
class SegmentGrading(ImageGrading):
    """Grades the square around a segment: a slice and its two neighbours, T1 and T2."""

    options: SegmentGradingOptions

    crop_channels = CHANNELS

    def cut(self, study: Study, place: Place | None) -> Examples:
        """``image`` (N, rows, cols, 6): T1 of the slice before, the slice, the one after; then T2.

        N is the number of scored slices, 0 without a place.
        """
        rows, cols = self.options.crop
        if place is None:
            return {"image": np.zeros((0, rows, cols, CHANNELS), np.float32)}
        number, box = place
        half = self.options.scored_slices // 2
        needed = np.arange(number - half - NEIGHBOURS, number + half + NEIGHBOURS + 1)
        stacks = [
            square_crops(
                standardised(study[name]),
                study["affine"],
                needed,
                box,
                self.options.margin,
                self.options.crop,
            )
            for name in SEQUENCES
        ]
        width = 2 * NEIGHBOURS + 1
        scored = [
            np.concatenate([stack[i : i + width] for stack in stacks])
            for i in range(self.options.scored_slices)
        ]
        return {"image": np.moveaxis(np.array(scored, np.float32), 1, -1)}

    def training_examples(self, study: Study) -> Examples | None:
        """One example per scored slice, all with the patient's label."""
        if study[LABEL] < 0:
            return None
        examples = self.cut(study, reference_place(study))
        count = self.options.scored_slices
        case = np.array([study["study_id"]] * count)
        return {**examples, **self.targets({LABEL: np.full(count, study[LABEL])}), "case": case}


def reference_place(study: Study) -> Place:
    """Slice and box that were given by hand."""
    row0, col0, row1, col1 = (float(v) for v in study["box"])
    return int(study["slice"]), (row0, col0, row1, col1)


def propose(mask: np.ndarray) -> Place | None:
    """The segment in a (S, H, W) mask: the largest region, on its middle slice.

    None where no region has `LEAST_PIXELS`.
    """
    pieces = regions.components(mask > 0, LEAST_PIXELS)
    if not pieces:
        return None
    areas = pieces[0].sum((1, 2))
    shown = np.flatnonzero(areas)
    middle = (np.arange(len(areas)) * areas).sum() / areas.sum()
    number = int(shown[np.argmin(np.abs(shown - middle))])
    return number, bounding_box(pieces[0][number])


def box_iou(a: Box, b: Box) -> float:
    """Intersection over union of two boxes."""
    rows = min(a[2], b[2]) - max(a[0], b[0])
    cols = min(a[3], b[3]) - max(a[1], b[1])
    common = max(rows, 0.0) * max(cols, 0.0)
    union = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - common
    return common / union if union else 0.0


def hit(found: Place, reference: Place) -> bool:
    """Whether the middle of the found box lies within the reference box."""
    row, col = (found[1][0] + found[1][2]) / 2, (found[1][1] + found[1][3]) / 2
    row0, col0, row1, col1 = reference[1]
    return row0 <= row < row1 and col0 <= col < col1


def hand_features(study: Study, place: Place) -> np.ndarray:
    """(7,) of a segment: mean, deviation and 90th percentile on T1 and on T2, height over width."""
    number, box = place
    row0, col0, row1, col1 = (round(v) for v in box)
    features = []
    for name in SEQUENCES:
        values = standardised(study[name])[number, row0:row1, col0:col1]
        features += [values.mean(), values.std(), np.percentile(values, 90)]
    return np.array([*features, (box[2] - box[0]) / (box[3] - box[1])])
