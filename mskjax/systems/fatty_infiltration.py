"""Fatty infiltration of the supraspinatus on shoulder MRI: a U-Net finds the fossa, VGG-19 grades.

After Saavedra et al., Front Med 2024, 10.3389/fmed.2024.1416169, and their Front Med
2023;10:1070499.  Theirs: the two networks, the Y-view, five folds, the binary tasks A to E of 2023.
Open and therefore ours (fields of the config): which task the 2024 figures belong to (their
equality with task A of 2023 suggests A), input size, margin, augmentation, the recipe, and the
joint training of tasks as heads of one network.  The grades are Goutallier's (Clin Orthop
1994;304:78-83): 0 no fat, 1 streaks, 2 less fat than muscle, 3 as much, 4 more.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mskjax import subgroups
from mskjax.baselines import Ridge
from mskjax.config import StudyConfig, parse
from mskjax.data.pipeline import Examples
from mskjax.errors import UserError
from mskjax.imaging import regions
from mskjax.metrics import binary, binary_task, estimates
from mskjax.metrics.binary_task import Task
from mskjax.metrics.structures import score_structures
from mskjax.reporting import pictures
from mskjax.stages.grading import Head
from mskjax.stages.image_grading import (
    ImageGrading,
    ImageGradingOptions,
    bounding_box,
    square_crops,
    standardised,
)
from mskjax.stages.slice_segmentation import (
    SliceSegmentation,
    SliceSegmentationOptions,
    canvas,
)
from mskjax.systems.base import Predict, Published, System, predict_parts
from mskjax.tables import Row, floats
from mskjax.training.stage import Study

STRUCTURES = ("fossa",)
COLOURS = {1: ("supraspinatus fossa", (230, 159, 0))}
GRADES = 5
CHANNELS = 1
# Class of grades 0 to 4 in each task of the 2023 paper; -1 is left out of the task.
TASKS: Mapping[str, tuple[int, ...]] = {
    "A": (0, 0, -1, 1, 1),
    "B": (0, 0, 1, 1, 1),
    "C": (0, 0, 1, -1, -1),
    "D": (0, 0, 0, 1, 1),
    "E": (-1, -1, 0, 1, 1),
}
ORDINAL = "goutallier"
ALWAYS = "D"  # the task that leaves no grade out: a clinic cannot leave grade 2 out either
HEADS = {name: Head(name, 2, column="grade", grouped=classes) for name, classes in TASKS.items()}
HEADS[ORDINAL] = Head(ORDINAL, GRADES, column="grade")
NSD_TOLERANCE_MM = 1.0
LEAST_PIXELS = 10  # a smaller region is noise, not a fossa

SAAVEDRA = "Saavedra et al., Front Med 2024, 10.3389/fmed.2024.1416169"
EARLIER = "Front Med 2023;10:1070499, task {}"
THEIRS = (
    "900 images of 606 shoulders of one centre; their folds, task and recipe are not published;"
    " mean over five folds"
)


@dataclasses.dataclass(frozen=True)
class Reading:
    """What the system says of one image.

    Attributes:
      mask: (S, H, W) uint8 on the native grid.
      place: slice number and box (row0, col0, row1, col1) of the region; None if none was found.
      crop: (rows, cols) float32, what the grader saw; None without a region.
      probabilities: head -> (classes,) float32; empty without a region.
      attention: (h, w) in [0, 1], Grad-CAM of the first head's call.
      loss: of the first stage on this image; NaN without a reference or on reference regions.
    """

    mask: np.ndarray
    place: tuple[int, tuple[float, float, float, float]] | None
    crop: np.ndarray | None = None
    probabilities: Mapping[str, np.ndarray] = dataclasses.field(default_factory=dict)
    attention: np.ndarray | None = None
    loss: float = float("nan")


@dataclasses.dataclass(frozen=True)
class FossaGrading(ImageGrading):
    """Grades the square around the fossa."""

    def cut(self, study: Study, mask: np.ndarray) -> Examples:
        """``image`` (N, rows, cols, 1): the region's crop, N = 1, or 0 where there is none."""
        place = find_region(mask)
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
        if not study["has_mask"] or study["grade"] < 0:
            return None
        targets = self.targets({"grade": np.array([study["grade"]])})
        if all(t[0] < 0 for t in targets.values()):
            return None
        return {**self.cut(study, study["mask"]), **targets, "case": np.array([study["study_id"]])}


class FattyInfiltration(System):
    """See the module."""

    name = "fatty_infiltration"
    title = "Fatty infiltration of the supraspinatus: U-Net and VGG-19 on the Y-view"
    labels = ("grade",)
    rules = (
        "Task A: Goutallier grades 0, 1 against 3, 4; B: 0, 1 against 2, 3, 4; C: 0, 1 against 2;"
        " D: 0, 1, 2 against 3, 4; E: 2 against 3, 4.  Figures without a suffix are those of the"
        " first task of the config; task D, which leaves no grade out, is always reported.",
        "A task is read from its own head.  Where the network has no head of task D, its figures"
        " are those of the first task's probability on all grades.",
        "A held-out image is graded on the region that the same fold's own U-Net found;"
        " oracle_region repeats the figures on the reference region.  An image without a found"
        " region is wrong, and its probability is 0 for its own class.",
        "The call is the class of probability .5 or more.",
        "Dice, IoU, PPV, sensitivity and surface metrics are computed per image on the native grid"
        f" and averaged over patients' images.  NSD uses a tolerance of {NSD_TOLERANCE_MM:g} mm.",
        "loss is the first stage's (cross-entropy and soft Dice), log_loss the grader's"
        " cross-entropy in nats.",
        "Intervals are 95 % patient-bootstrap percentile intervals over all folds pooled; mean and"
        " SD over folds, as the paper prints them, stand in a table of their own.",
    )
    limits = (
        "One run with one seed; the spread over seeds is not in the intervals.",
        "Which task, input size and recipe the 2024 paper used is open; ours are in the recipe.",
    )
    published = (
        Published("dice_fossa", 0.9441, "900 images", SAAVEDRA, THEIRS, (0.9410, 0.9472)),
        Published("pixel_accuracy_fossa", 0.9977, "900 images", SAAVEDRA, THEIRS, (0.9975, 0.9979)),
        Published("auroc", 0.9903, "task not stated", SAAVEDRA, THEIRS, (0.9811, 0.9995)),
        Published("accuracy", 0.9731, "task not stated", SAAVEDRA, THEIRS, (0.9501, 0.9961)),
        Published("sensitivity", 0.9000, "task not stated", SAAVEDRA, THEIRS, (0.8020, 0.9980)),
        Published("specificity", 0.9788, "task not stated", SAAVEDRA, THEIRS, (0.9531, 1.0045)),
        Published("auroc_task_d", 0.977, "606 shoulders", EARLIER.format("D"), THEIRS),
        Published("accuracy_task_d", 0.942, "606 shoulders", EARLIER.format("D"), THEIRS),
        Published("auroc", 0.991, "task A", EARLIER.format("A"), THEIRS),
        Published("sensitivity", 0.947, "task A", EARLIER.format("A"), THEIRS),
        Published("specificity", 0.975, "task A", EARLIER.format("A"), THEIRS),
        Published(
            "cohen_kappa",
            0.51,
            "readers",
            "agreement of readers on Goutallier grades",
            "five grades, between readers; no model is meant",
        ),
    )

    def __init__(self, find: SliceSegmentation, grade: FossaGrading):
        self.find, self.grade = find, grade
        self.stages = (find, grade)
        self._heads = {h.name for h in grade.heads}
        trained = [h.name for h in grade.heads if h.name in TASKS]
        self.tasks = tuple(dict.fromkeys([*trained, ALWAYS]))

    def stratum(self, study: Study) -> int | None:
        """Class of the grade in the first task; grades it leaves out are one more class."""
        grade = int(study["grade"])
        return None if grade < 0 else TASKS[self.tasks[0]][grade] % 3

    def cases(self, study: Study) -> list[str]:
        """One case, the image, where it is graded."""
        return [study["study_id"]] if study["grade"] >= 0 else []

    def read(self, studies: Sequence[Study], predict: Predict, regions: str) -> list[Reading]:
        """See `System.read`; on reference regions, studies without one are not read."""
        losses = [float("nan")] * len(studies)
        if regions == "reference":
            masks = [s["mask"] for s in studies]
        else:
            inputs = [self.find.inference_examples(s) for s in studies]
            outputs = predict_parts(predict, self.find.name, inputs)
            masks = [self.find.decode(s, o) for s, o in zip(studies, outputs, strict=True)]
            losses = [self.find.mean_loss(s, o) for s, o in zip(studies, outputs, strict=True)]
        crops = [self.grade.cut(s, m) for s, m in zip(studies, masks, strict=True)]
        graded = predict_parts(predict, self.grade.name, crops)
        readings = []
        for mask, crop, found, loss in zip(masks, crops, graded, losses, strict=True):
            if not len(crop["image"]):
                readings.append(Reading(mask, None, loss=loss))
                continue
            first = {name: values[0] for name, values in found.items()}
            attention = first.pop("attention")
            image = crop["image"][0, ..., 0]
            readings.append(Reading(mask, find_region(mask), image, first, attention, loss))
        return readings

    def fit_baselines(self, studies: Sequence[Study]) -> dict[str, Any]:
        """Commonest class of each task, and ridge regression on intensities of the region."""
        known = [s for s in studies if s["grade"] >= 0 and s["has_mask"] and s["mask"].any()]
        features = np.array([hand_features(s, s["mask"]) for s in known])
        baselines: dict[str, Any] = {}
        for task in self.tasks:
            classes = HEADS[task].target([s["grade"] for s in known])
            inside = classes >= 0
            baselines[task] = {
                "majority": int(np.bincount(classes[inside]).argmax()),
                "ridge": Ridge.fit(features[inside], classes[inside]),
            }
        return baselines

    def score(self, study: Study, predicted: Reading, oracle: Reading, baselines: Any) -> list[Row]:
        """A row of the region and a row of the grade."""
        who = {"patient": study["patient_id"], "study": study["study_id"]}
        rows: list[Row] = []
        if study["has_mask"]:
            spacing = np.linalg.norm(study["affine"][:3, :3], axis=0)
            scored = score_structures(
                study["mask"], predicted.mask, STRUCTURES, spacing, NSD_TOLERANCE_MM
            )
            rows += [
                {**who, "kind": "structure", "name": name, **values, "loss": predicted.loss}
                for name, values in scored.items()
            ]
        if study["grade"] < 0:
            return rows
        grade = int(study["grade"])
        row: Row = {
            **who,
            "kind": "case",
            "case": study["study_id"],
            "reference": grade,
            "found": int(predicted.place is not None),
        }
        row |= _probabilities(predicted, "p") | _probabilities(oracle, "oracle_p")
        for task in self.tasks:
            row[f"majority_{task}"] = baselines[task]["majority"]
            if predicted.place is not None:
                features = hand_features(study, predicted.mask)
                row[f"ridge_{task}"] = round(baselines[task]["ridge"].predict(features), 6)
        first = TASKS[self.tasks[0]][grade]
        if first >= 0:
            right = predicted.place is not None and first == _call(predicted, self.tasks[0])
            row["wrong"] = int(not right)
        return [*rows, row | {"side": study["side"]} | subgroups.columns(study)]

    def picture(self, study: Study, predicted: Reading, phantom: bool) -> bytes:
        """The slice with reference and found region, and the crop with Grad-CAM."""
        shown = predicted.mask if predicted.place is not None else study["mask"]
        s = int(np.argmax(shown.sum((1, 2))))
        spacing = np.linalg.norm(study["affine"][:3, :3], axis=0)
        pixel = (float(spacing[1]), float(spacing[2]))
        panels = [pictures.Panel("Image", study["image"][s], pixel)]
        if study["has_mask"]:
            reference = study["mask"][s]
            panels.append(pictures.Panel("Reference region", study["image"][s], pixel, reference))
        panels.append(pictures.Panel("Found region", study["image"][s], pixel, predicted.mask[s]))
        if predicted.crop is not None:
            panels.append(
                pictures.Panel("Grad-CAM", predicted.crop, (1.0, 1.0), heat=predicted.attention)
            )
        return pictures.sheet(panels, [study["study_id"]], labels=COLOURS, phantom=phantom)

    def facts(self, rows: Sequence[Row]) -> list[tuple[str, str]]:
        """Reference grade and probability of each task."""
        facts = []
        for row in (r for r in rows if r["kind"] == "case"):
            facts.append(("Goutallier grade, reference", str(row["reference"])))
            if row["found"] == "0":
                facts.append(("Region", "not found"))
            for task in self.tasks:
                if row.get(f"p_{task}"):
                    facts.append((f"Probability, task {task}", f"{float(row[f'p_{task}']):.2f}"))
        return facts

    def summarise(self, rows: Sequence[Row], resamples: int, seed: int) -> dict[str, Any]:
        """See `System.summarise`."""
        settings = {"resamples": resamples, "seed": seed}
        structures = [r for r in rows if r["kind"] == "structure"]
        found = estimates.structures(structures, STRUCTURES, **settings)
        report: dict[str, Any] = {
            "stages": {self.find.name: found | estimates.means(structures, ("loss",), **settings)},
            "end_to_end": {},
            "oracle_region": {},
            "baselines": {},
            "folds": binary.structures_over_folds(structures, STRUCTURES),
        }
        graded = [r for r in rows if r["kind"] == "case"]
        for number, task in enumerate(self.tasks):
            classes = np.array([TASKS[task][int(r["reference"])] for r in graded], int)
            cases = [r for r, c in zip(graded, classes, strict=True) if c >= 0]
            if not cases:
                continue
            head = task if task in self._heads else self.tasks[0]
            columns = Task(
                f"task {task}",
                f"_task_{task.lower()}" if number else "",
                ("low grade", "high grade"),
                f"p_{head}",
                f"oracle_p_{head}",
                f"ridge_{task}",
                f"majority_{task}",
            )
            groups = {} if number else _groups(cases)
            part = binary_task.summarise(cases, classes[classes >= 0], columns, groups, **settings)
            binary_task.merge(report, {k: v for k, v in part.items() if v})
        if ORDINAL in self._heads and graded:
            self._summarise_grades(report, graded, settings)
        report["stages"][self.grade.name] = report["oracle_region"]
        return report

    def _summarise_grades(self, report: dict[str, Any], rows: Sequence[Row], settings: Any) -> None:
        """Figures of the five grades, where the network has a head for them."""
        reference = np.array([int(r["reference"]) for r in rows])
        patients = [r["patient"] for r in rows]
        for place, prefix in (("end_to_end", "p"), ("oracle_region", "oracle_p")):
            p = np.stack([floats(rows, f"{prefix}_{ORDINAL}_{g}") for g in range(GRADES)], 1)
            missed = np.isnan(p).any(1)
            if place == "oracle_region" and missed.all():
                continue
            # The median grade has the least expected absolute error.
            grade = np.where(missed, GRADES, (np.cumsum(np.nan_to_num(p), 1) < 0.5).sum(1))
            grade = np.where(missed, GRADES, np.minimum(grade, GRADES - 1))
            figures = estimates.labels_only(
                reference, grade, np.arange(GRADES), patients, ORDINAL, **settings
            )
            report[place] |= {
                k: v for k, v in figures.items() if k.endswith(ORDINAL) or k.startswith("quadratic")
            }


def check(config: StudyConfig) -> None:
    """Checks all options and files; raises UserError before any work is done."""
    build(config, ()).grade.check_weights(CHANNELS)


def build(config: StudyConfig, studies: Sequence[Study]) -> FattyInfiltration:
    """The system for a cohort; `studies` (may be empty) set the canvas of the U-Net."""
    find, grade = _parse(config)
    multiple = 2 ** (len(find.model.widths) - 1)
    size = canvas(studies, find.spacing_mm, multiple) if len(studies) else find.patch
    return FattyInfiltration(
        SliceSegmentation("regions", find, STRUCTURES, size),
        FossaGrading("grades", grade, tuple(HEADS[name] for name in grade.heads)),
    )


def find_region(mask: np.ndarray) -> tuple[int, tuple[float, float, float, float]] | None:
    """Slice and box of the largest connected region of a (S, H, W) mask; None if there is none."""
    pieces = regions.components(mask > 0, LEAST_PIXELS)
    if not pieces:
        return None
    number = int(np.argmax(pieces[0].sum((1, 2))))
    return number, bounding_box(pieces[0][number])


def hand_features(study: Study, mask: np.ndarray) -> np.ndarray:
    """(5,) of the region: mean, deviation, 90th percentile, share of bright pixels, area in mm2.

    Intensities are those of the standardised image; bright means above its mean plus one SD, where
    fat lies on T2.
    """
    values = standardised(study["image"])[mask > 0]
    spacing = np.linalg.norm(study["affine"][:3, :3], axis=0)
    area = len(values) * spacing[1] * spacing[2]
    return np.array(
        [values.mean(), values.std(), np.percentile(values, 90), (values > 1).mean(), area]
    )


def _parse(config: StudyConfig) -> tuple[SliceSegmentationOptions, ImageGradingOptions]:
    if config.options:
        raise UserError(f"config.options has {', '.join(config.options)}; this system has none.")
    if set(config.stages) != {"regions", "grades"}:
        raise UserError(f"config.stages has {', '.join(config.stages)}; it needs regions, grades.")
    find = parse(SliceSegmentationOptions, config.stages["regions"], "config.stages.regions")
    grade = parse(ImageGradingOptions, config.stages["grades"], "config.stages.grades")
    unknown = set(grade.heads) - set(HEADS)
    if unknown or not grade.heads or grade.heads[0] not in TASKS:
        raise UserError(
            f"config.stages.grades.heads is {grade.heads}; the first must be a task"
            f" ({', '.join(TASKS)}), the others any of {', '.join(HEADS)}."
        )
    return find, grade


def _groups(rows: Sequence[Row]) -> dict[str, dict[str, np.ndarray]]:
    sides = subgroups.divide([r.get("side", "") for r in rows], [r["patient"] for r in rows])
    return ({"side": sides} if len(sides) > 1 else {}) | subgroups.strata(rows)


def _call(reading: Reading, task: str) -> int:
    return int(reading.probabilities[task][1] >= 0.5)


def _probabilities(reading: Reading, prefix: str) -> Row:
    """Columns of a reading: p of the positive class of each task, p of each grade."""
    row: Row = {}
    for name, p in reading.probabilities.items():
        if name in TASKS:
            row[f"{prefix}_{name}"] = round(float(p[1]), 6)
        else:
            row |= {f"{prefix}_{name}_{g}": round(float(v), 6) for g, v in enumerate(p)}
    return row
