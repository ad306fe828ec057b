"""Grading of discs on paired T1 and T2 from their boxes, with a choice of normalisations."""

import dataclasses
import itertools
from collections.abc import Mapping, Sequence
from typing import Any, Literal, Self, get_args

import numpy as np

from mskjax.data.pipeline import Examples
from mskjax.errors import UserError
from mskjax.imaging import intensity, levels, regions
from mskjax.imaging.intensity import Landmarks
from mskjax.stages.crop_grading import CropGrading
from mskjax.stages.grading import Head
from mskjax.training.stage import Study
from mskjax.two_stage.boxes import as_box
from mskjax.two_stage.discs import SIGNS, case_id

SEQUENCES = ("t1", "t2")
Normalisation = Literal[
    "none",
    "min_max",
    "percentile",
    "z_score_volume",
    "z_score_crop",
    "landmarks",
    "tissue_reference",
]
NORMALISATIONS: tuple[str, ...] = get_args(Normalisation)
STORED_RANGE = 255.0  # "none" divides by it, the same for every image

HEADS = {
    h.name: h
    for h in (
        Head("modic", 3, grouped=(0, 1, 2, -1)),  # type 3 is too rare to be a class
        Head("presence", 2, column="modic", grouped=(0, 1, 1, 1)),
        Head("pfirrmann", 5, lowest=1),
        # Signs that are graded beside them: learnt together they help, but they are not reported.
        *SIGNS,
    )
}
REPORTED = ("modic", "presence", "pfirrmann")


@dataclasses.dataclass(frozen=True)
class Disc:
    """Where a disc lies.

    Attributes:
      level: counted from the lowest, which is 1; 0 where unknown.
      slice: number.
      box: row0, col0, row1, col1, half-open, native pixels.
      score: confidence of a detection, 1 for a reference box.
    """

    level: int
    slice: int
    box: tuple[float, float, float, float]
    score: float = 1.0

    def centre(self, spacing: np.ndarray) -> np.ndarray:
        """(2,) row and column, mm from the first pixel, given the (3,) voxel size."""
        row0, col0, row1, col1 = self.box
        middle = np.array([(row0 + row1 - 1) / 2, (col0 + col1 - 1) / 2])
        return middle * spacing[1:]


@dataclasses.dataclass(frozen=True)
class PairedDiscGrading(CropGrading):
    """Grades discs in crops (slices, rows, cols, 2) of T1 and T2, level with the disc.

    Attributes:
      normalisation: how intensities become comparable between images.
      landmarks: of T1 and T2, for ``landmarks``; fitted on a fold's training patients.
    """

    normalisation: Normalisation = "z_score_volume"
    landmarks: tuple[Landmarks, Landmarks] | None = None

    crop_channels = len(SEQUENCES)

    def traced(self) -> Self:
        """Normalisations differ in what the host cuts, not in the network."""
        return dataclasses.replace(super().traced(), normalisation="none", landmarks=None)

    def preprocessing(self) -> dict[str, Any]:
        """See `Stage.preprocessing`."""
        channels = {"channels": list(SEQUENCES), "normalisation": self.normalisation}
        return {**super().preprocessing(), **channels}

    def cut(self, study: Study, discs: Sequence[Disc]) -> Examples:
        """``image`` (N, slices, rows, cols, 2) float32; T1 is 0 where a study has none.

        Args:
          study: canonical.
          discs: N of them, from the lowest upwards.
        """
        slices, rows, cols = self.options.crop
        crops = np.zeros((len(discs), slices, rows, cols, 2), np.float32)
        spacing = np.linalg.norm(study["affine"][:3, :3], axis=0)
        centres = np.array([d.centre(spacing) for d in discs]).reshape(-1, 2)
        angles = levels.tilts(centres)
        for channel, name in enumerate(SEQUENCES):
            if name == "t1" and not study["has_t1"]:
                continue
            image = self._image(study[name], channel)
            marrow = marrow_signals(study[name], discs)
            lowest = float(image.min())
            for i, disc in enumerate(discs):
                index = np.array([disc.slice, *(centres[i] / spacing[1:]), 1.0])
                width = self.options.extent * (disc.box[3] - disc.box[1]) * spacing[2]
                crop = lowest + regions.rotated_crop(
                    image - lowest,
                    study["affine"],
                    (study["affine"] @ index)[:3],
                    float(angles[i]),
                    (width * rows / cols, width),
                    self.options.crop,
                )
                if self.normalisation == "z_score_crop":
                    crop = intensity.z_score(crop)
                elif self.normalisation == "tissue_reference":
                    crop = intensity.tissue_reference(crop, marrow[i])
                crops[i, ..., channel] = crop
        return {"image": crops}

    def training_examples(self, study: Study) -> Examples | None:
        """Crops of the boxed discs that have a grade, with targets and case ids."""
        discs, grades = boxed_discs(study)
        graded = [i for i, d in enumerate(discs) if is_graded(grades, i) and d.level]
        targets = self.targets({k: v[graded] for k, v in grades.items()}) if graded else {}
        labelled = [
            j for j in range(len(graded)) if any(target[j] >= 0 for target in targets.values())
        ]
        if not labelled:
            return None
        # Crops are cut with all discs of the spine, which give each other's tilt.
        crops = self.cut(study, discs)["image"][np.array(graded)[labelled]]
        return {
            "image": crops,
            **{k: v[labelled] for k, v in targets.items()},
            "case": np.array([case_id(study, discs[graded[j]].level) for j in labelled]),
        }

    def _image(self, image: np.ndarray, channel: int) -> np.ndarray:
        """The whole volume, normalised where the normalisation is that of the volume."""
        if self.normalisation == "min_max":
            return intensity.min_max(image)
        if self.normalisation == "percentile":
            return intensity.percentile(image)
        if self.normalisation == "z_score_volume":
            return intensity.z_score(image)
        if self.normalisation == "landmarks":
            if self.landmarks is None:
                raise ValueError("landmarks are fitted on training studies first")
            return self.landmarks[channel].apply(image)
        scale = STORED_RANGE if self.normalisation == "none" else 1.0
        return np.asarray(image, np.float32) / np.float32(scale)


def fit_landmarks(studies: Sequence[Study], train: Sequence[int]) -> dict[str, Landmarks]:
    """Landmarks of each sequence, learnt from training studies.

    Args:
      studies: of the cohort.
      train: numbers of those to learn from.

    Raises:
      UserError: none of them has a T1.
    """
    marks: dict[str, list[np.ndarray]] = {name: [] for name in SEQUENCES}
    for i in train:
        study = studies[i]
        for name in SEQUENCES:
            if name != "t1" or study["has_t1"]:
                marks[name].append(Landmarks.marks(study[name]))
    if not marks["t1"]:
        raise UserError(
            "no training patient has a T1 whose landmarks could be learnt; leave landmarks out"
            " of config.options.normalisations."
        )
    return {name: Landmarks.of(found) for name, found in marks.items()}


def boxed_discs(study: Study) -> tuple[list[Disc], dict[str, np.ndarray]]:
    """The boxed discs of a study from the lowest upwards, and their grades; -1 is missing."""
    table = study["boxes"]
    rows = [i for i, boxed in enumerate(table["boxed"]) if boxed]
    rows.sort(key=lambda i: -float(table["box"][i][0] + table["box"][i][2]))
    discs = [
        Disc(int(table["level"][i]), int(table["slice"][i]), as_box(table["box"][i])) for i in rows
    ]
    columns = {h.column or h.name for h in HEADS.values()} & set(table)
    return discs, {c: np.array([int(table[c][i]) for i in rows], int) for c in columns}


def is_shown(study: Study, level: int, found: Sequence[Disc]) -> bool | None:
    """Whether the image can show a graded disc that no region belongs to.

    Where boxes have no levels, the image shows as many discs as are boxed, counted from the lowest.
    Else the row of the boxed discs says where the disc would lie (`imaging.levels.is_shown`), and
    of a study without boxes that of the discs that were found, which a wrong count misleads.

    Args:
      study: with its reference boxes, if any.
      level: of the disc.
      found: what was found, from the lowest upwards.

    Returns:
      None where nothing says so.
    """
    reference = boxed_discs(study)[0]
    named = [d for d in reference if d.level]
    if reference and not named:
        return level <= len(reference)
    row = named if len(named) > 1 else found
    centres = np.array([d.centre(np.ones(3)) for d in row]).reshape(-1, 2)
    _, rows, columns = study["t2"].shape
    return levels.is_shown(level, np.array([d.level for d in row], int), centres, (rows, columns))


def is_graded(grades: Mapping[str, Any], row: int) -> bool:
    """Whether a row has any of the grades that the heads read."""
    return any(int(values[row]) >= 0 for values in grades.values())


def marrow_signals(image: np.ndarray, discs: Sequence[Disc]) -> np.ndarray:
    """(N,) median signal of the vertebral bodies beside each disc, at least .001 of the maximum.

    The body lies half-way to the next disc; at the ends of the row there is one neighbour.  Without
    any neighbour the image's median above zero stands in.

    Args:
      image: (S, H, W), non-negative.
      discs: N of them, from the lowest upwards.
    """
    floor = float(np.max(image, initial=0.0)) / 1000 + 1e-6
    pixels = np.asarray(image)[np.asarray(image) > 0]
    between = []
    for below, above in itertools.pairwise(discs):
        row = (below.box[0] + above.box[2]) / 2
        col = (below.box[1] + below.box[3] + above.box[1] + above.box[3]) / 4
        height = max((below.box[0] - above.box[2]) / 4, 1.0)
        width = max((below.box[3] - below.box[1] + above.box[3] - above.box[1]) / 8, 1.0)
        patch = image[
            below.slice,
            max(round(row - height), 0) : round(row + height) + 1,
            max(round(col - width), 0) : round(col + width) + 1,
        ]
        between.append(float(np.median(patch)) if patch.size else floor)
    fallback = float(np.median(pixels)) if pixels.size else floor
    signals = [
        float(np.mean(between[max(i - 1, 0) : i + 1])) if between else fallback
        for i in range(len(discs))
    ]
    return np.maximum(np.array(signals), floor)


def hand_features(study: Study, discs: Sequence[Disc]) -> np.ndarray:
    """(N, 10) of each box: signals relative to the bodies beside it, and its shape.

    On T1 and on T2: mean and deviation in the middle of the disc, and mean of the strips above and
    below the box, where Modic changes lie.  On T2: the largest signal in the middle, and the mean
    relative to the brightest disc of the spine.  Height in mm, and height over width.
    """
    spacing = np.linalg.norm(study["affine"][:3, :3], axis=0)
    columns: list[list[float]] = [[] for _ in discs]
    for name in ("t1", "t2"):
        signals = marrow_signals(study[name], discs)
        middles = [_middle(study[name][d.slice], d) for d in discs]
        brightest = max((float(m.mean()) for m in middles), default=0.0) or 1.0
        for features, disc, marrow, middle in zip(columns, discs, signals, middles, strict=True):
            row0, col0, row1, col1 = (round(v) for v in disc.box)
            reach = max((row1 - row0) // 2, 1)
            image = np.asarray(study[name][disc.slice], np.float64)
            beside = [
                image[max(row0 - reach, 0) : row0, col0:col1],
                image[row1 : row1 + reach, col0:col1],
            ]
            around = np.concatenate([b.ravel() for b in beside]) / marrow
            features += [float(middle.mean()) / marrow, float(middle.std()) / marrow]
            features.append(float(around.mean()) if around.size else 1.0)
            if name == "t2":
                features += [float(middle.max()) / marrow, float(middle.mean()) / brightest]
    for features, disc in zip(columns, discs, strict=True):
        height_mm = (disc.box[2] - disc.box[0]) * float(spacing[1])
        width_mm = (disc.box[3] - disc.box[1]) * float(spacing[2])
        features += [height_mm, height_mm / max(width_mm, 1.0)]
    return np.array(columns).reshape(len(discs), 10)


def _middle(image: np.ndarray, disc: Disc) -> np.ndarray:
    """The middle half of a box, at least a pixel."""
    row0, col0, row1, col1 = disc.box
    rows, cols = (row1 - row0) / 4, (col1 - col0) / 4
    top = min(max(round(row0 + rows), 0), image.shape[0] - 1)
    left = min(max(round(col0 + cols), 0), image.shape[1] - 1)
    found = image[top : max(round(row1 - rows), top + 1), left : max(round(col1 - cols), left + 1)]
    return np.asarray(found, np.float64)
