"""Benign or malignant vertebral fracture on paired T1 and T2: ResNet-50 on the abnormal segment.

After Yeh, Zhang, Chen, ... Su, PMC9764339, and the same group's ISMRM 2021 #4049.  Theirs: the
square box around the segment, the slice and its two neighbours of both sequences as six channels,
one 1x1 convolution to three, ResNet-50, ten folds, the comparison with three readers and fifteen
imaging features.  From their CT paper and therefore an inference: the patient's score is the
largest over slices, threshold .5.  Open and therefore ours (fields of the config): crop size,
margin, augmentation, the recipe.  Ours, beyond the paper: a first stage that finds the segment,
which was done by hand there; both are reported.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from mskjax import subgroups
from mskjax.baselines import Ridge
from mskjax.config import StudyConfig, parse
from mskjax.errors import UserError
from mskjax.metrics import binary, binary_task, estimates, findings, readers
from mskjax.metrics.binary_task import Task
from mskjax.reporting import pictures
from mskjax.stages.grading import Head
from mskjax.stages.segment_grading import (
    CHANNELS,
    LABEL,
    Place,
    SegmentDetection,
    SegmentGrading,
    SegmentGradingOptions,
    box_iou,
    hand_features,
    hit,
    propose,
    reference_place,
)
from mskjax.stages.slice_segmentation import SliceSegmentationOptions, canvas
from mskjax.systems.base import Predict, Published, System, predict_parts
from mskjax.tables import Row, floats
from mskjax.training.stage import Study

HEAD = Head("malignant", 2, column=LABEL)
CLASSES = ("benign", "malignant")
BY_HAND, DETECTED = "Model, segment by hand", "Model, segment found"
READER = ("reader", "call", "aided_call")  # fields of the study's tables
FINDING = ("name", "present")
REFERENCE_COLOUR, FOUND_COLOUR = (0, 158, 115), (230, 159, 0)

YEH = "Yeh et al., PMC9764339"
THEIRS = "190 patients of one centre, segment given by hand; network and recipe partly unpublished"


@dataclasses.dataclass(frozen=True)
class Reading:
    """What the system says of one patient.

    Attributes:
      place: slice and box of the segment; None if none was found.
      probabilities: (slices,) of malignancy, one per scored slice; empty without a place.
      crop: (rows, cols, 6) float32, what the grader saw of the slice that decided.
      attention: (h, w) in [0, 1], Grad-CAM on that slice.
    """

    place: Place | None
    probabilities: np.ndarray
    crop: np.ndarray | None = None
    attention: np.ndarray | None = None

    @property
    def probability(self) -> float:
        """The patient's: the largest over slices; NaN without a place."""
        return float(self.probabilities.max()) if len(self.probabilities) else float("nan")


class VertebralFracture(System):
    """See the module."""

    name = "vertebral_fracture"
    title = "Vertebral fracture, benign or malignant: ResNet-50 on paired T1 and T2"
    labels = (LABEL,)
    rules = (
        "As published (reference region): the segment's box and slice are given by hand.  End to"
        " end: the same fold's first stage proposes the segment.",
        "A proposal whose middle lies outside the reference box is a miss: the patient is wrong,"
        " and the probability is 0 for the patient's own class.",
        "The patient's probability of malignancy is the largest over the scored slices; the call"
        " is malignant from .5 on.  Malignant is the positive class.",
        "The first stage is trained on the annotated slice and its two neighbours; on the others"
        " the segment is not annotated.",
        "Intervals are 95 % patient-bootstrap percentile intervals over all folds pooled, unless a"
        " table names another method.",
    )
    limits = (
        "One run with one seed; the spread over seeds is not in the intervals.",
        "External performance in the field drops to about .75 to .85.",
    )
    published = (
        Published("accuracy", 0.92, "190 patients", YEH, THEIRS),
        Published("sensitivity", 0.94, "50 malignant", YEH, THEIRS, (0.84, 0.98)),
        Published("specificity", 0.91, "140 benign", YEH, THEIRS, (0.85, 0.95)),
        *(
            Published("accuracy", value, "190 patients", f"{YEH}: {who}", "readers, not a model")
            for who, value in (
                ("senior radiologist", 0.98),
                ("fourth-year resident", 0.96),
                ("first-year resident", 0.66),
            )
        ),
    )

    def __init__(self, find: SegmentDetection, grade: SegmentGrading):
        self.find, self.grade = find, grade
        self.stages = (find, grade)

    def stratum(self, study: Study) -> int | None:
        """Benign or malignant."""
        return int(study[LABEL]) if study[LABEL] >= 0 else None

    def cases(self, study: Study) -> list[str]:
        """One case, the patient's segment, where it has a label."""
        return [study["study_id"]] if study[LABEL] >= 0 else []

    def read(self, studies: Sequence[Study], predict: Predict, regions: str) -> list[Reading]:
        """See `System.read`."""
        if regions == "reference":
            places: list[Place | None] = [reference_place(s) for s in studies]
        else:
            inputs = [self.find.inference_examples(s) for s in studies]
            outputs = predict_parts(predict, self.find.name, inputs)
            places = [
                propose(self.find.decode(s, o)) for s, o in zip(studies, outputs, strict=True)
            ]
        crops = [self.grade.cut(s, p) for s, p in zip(studies, places, strict=True)]
        graded = predict_parts(predict, self.grade.name, crops)
        readings = []
        for place, crop, found in zip(places, crops, graded, strict=True):
            if place is None:
                readings.append(Reading(None, np.zeros(0)))
                continue
            p = found[HEAD.name][:, 1]
            decisive = int(p.argmax())
            readings.append(
                Reading(place, p, crop["image"][decisive], found["attention"][decisive])
            )
        return readings

    def fit_baselines(self, studies: Sequence[Study]) -> dict[str, Any]:
        """Commonest label, and ridge regression on intensities and height of the segment."""
        known = [s for s in studies if s[LABEL] >= 0]
        labels = np.array([int(s[LABEL]) for s in known])
        features = np.array([hand_features(s, reference_place(s)) for s in known])
        return {
            "majority": int(np.bincount(labels).argmax()),
            "ridge": Ridge.fit(features, labels),
        }

    def score(self, study: Study, predicted: Reading, oracle: Reading, baselines: Any) -> list[Row]:
        """A row of the segment and a row of the label, with what readers said."""
        who = {"patient": study["patient_id"], "study": study["study_id"]}
        number, box = reference = reference_place(study)
        place = predicted.place
        found = place is not None and hit(place, reference)
        pitch = float(np.linalg.norm(study["affine"][:3, 0]))
        region: Row = {
            **who,
            "kind": "segment",
            "segment_found": int(found),
            "box_iou": round(box_iou(place[1], box), 6) if place is not None else 0.0,
            "slice_error_mm": round(abs(place[0] - number) * pitch, 3) if place is not None else "",
        }
        if study[LABEL] < 0:
            return [region]
        label = int(study[LABEL])
        row: Row = {
            **who,
            "kind": "case",
            "case": study["study_id"],
            "level": study["level"],
            "reference": label,
            "found": int(found),
            "p": round(predicted.probability, 6) if found else "",
            "oracle_p": round(oracle.probability, 6),
            "wrong": int(not found or (predicted.probability >= 0.5) != label),
            "majority": baselines["majority"],
        }
        if place is not None and found:
            ridge = baselines["ridge"].predict(hand_features(study, place))
            row["ridge"] = round(ridge, 6)
        for name, call, aided in zip(*(study["readers"][k] for k in READER), strict=True):
            row |= {f"reader_{name}": _text(call), f"aided_{name}": _text(aided)}
        for name, present in zip(*(study["findings"][k] for k in FINDING), strict=True):
            row[f"finding_{name}"] = _text(present)
        return [region, row | subgroups.columns(study)]

    def picture(self, study: Study, predicted: Reading, phantom: bool) -> bytes:
        """T1 and T2 with the given and the found box, and the crops with Grad-CAM."""
        number, box = reference_place(study)
        shown = predicted.place[0] if predicted.place is not None else number
        boxes = [(*box, REFERENCE_COLOUR, "by hand")]
        if predicted.place is not None:
            boxes.append((*predicted.place[1], FOUND_COLOUR, "found"))
        spacing = np.linalg.norm(study["affine"][:3, :3], axis=0)
        pixel = (float(spacing[1]), float(spacing[2]))
        panels = [
            pictures.Panel(name.upper(), study[name][shown], pixel, boxes=tuple(boxes))
            for name in ("t1", "t2")
        ]
        if predicted.crop is not None:
            middle = {"T1": 1, "T2": 4}  # the slice itself, between its neighbours
            panels += [
                pictures.Panel(
                    f"{name}, Grad-CAM",
                    predicted.crop[..., channel],
                    (1.0, 1.0),
                    heat=predicted.attention,
                )
                for name, channel in middle.items()
            ]
        return pictures.sheet(panels, [study["study_id"]], phantom=phantom)

    def facts(self, rows: Sequence[Row]) -> list[tuple[str, str]]:
        """Reference, the model's probabilities and the readers' calls."""
        facts = []
        for row in (r for r in rows if r["kind"] == "case"):
            facts.append(("Reference", CLASSES[int(row["reference"])]))
            p = f"{float(row['p']):.2f}" if row["p"] else "segment not found"
            facts.append(("Probability of malignancy", p))
            facts.append(("Segment given by hand", f"{float(row['oracle_p']):.2f}"))
            facts += [
                (name.removeprefix("reader_").replace("_", " "), CLASSES[int(call)])
                for name, call in row.items()
                if name.startswith("reader_") and call
            ]
        return facts

    def summarise(self, rows: Sequence[Row], resamples: int, seed: int) -> dict[str, Any]:
        """See `System.summarise`."""
        settings = {"resamples": resamples, "seed": seed}
        segments = [r for r in rows if r["kind"] == "segment"]
        cases = [r for r in rows if r["kind"] == "case"]
        measured = ("segment_found", "box_iou", "slice_error_mm")
        report: dict[str, Any] = {
            "stages": {self.find.name: estimates.means(segments, measured, **settings)},
            "end_to_end": {},
            "oracle_region": {},
            "baselines": {},
        }
        if not cases:
            return report
        reference = np.array([int(r["reference"]) for r in cases])
        task = Task("fracture", "", CLASSES, "p", "oracle_p", "ridge", "majority")
        report |= binary_task.summarise(cases, reference, task, subgroups.strata(cases), **settings)
        report["stages"][self.grade.name] = report["oracle_region"]
        return report | self._comparisons(cases, reference, settings)

    def _comparisons(
        self, rows: Sequence[Row], reference: np.ndarray, settings: Any
    ) -> dict[str, Any]:
        """Tables of readers and findings, where the cohort has them."""
        tables = []
        by_hand, p = binary.calls(reference, floats(rows, "oracle_p"))
        detected, _ = binary.calls(reference, floats(rows, "p"))
        calls = _columns(rows, "reader_")
        if calls:
            study = readers.ReaderStudy(
                reference=reference,
                patients=[r["patient"] for r in rows],
                models={BY_HAND: by_hand, DETECTED: detected},
                probability=p,
                readers=calls,
                aided=_columns(rows, "aided_"),
            )
            tables += readers.compare(study, **settings)
        present = _columns(rows, "finding_")
        if present:
            table = findings.findings_table(present, reference, CLASSES)
            tables.append(findings.findings_rows(table, CLASSES))
        return {"tables": tables, "tables_title": "Readers and imaging findings"}


def check(config: StudyConfig) -> None:
    """Checks all options and files; raises UserError before any work is done."""
    build(config, ()).grade.check_weights(CHANNELS)


def build(config: StudyConfig, studies: Sequence[Study]) -> VertebralFracture:
    """The system for a cohort; `studies` (may be empty) set the canvas of the U-Net."""
    find, grade = _parse(config)
    multiple = 2 ** (len(find.model.widths) - 1)
    size = canvas(studies, find.spacing_mm, multiple, "t1") if len(studies) else find.patch
    return VertebralFracture(
        SegmentDetection("segments", find, ("segment",), size),
        SegmentGrading("grades", grade, (HEAD,)),
    )


def _parse(config: StudyConfig) -> tuple[SliceSegmentationOptions, SegmentGradingOptions]:
    if config.options:
        raise UserError(f"config.options has {', '.join(config.options)}; this system has none.")
    if set(config.stages) != {"segments", "grades"}:
        raise UserError(f"config.stages has {', '.join(config.stages)}; it needs segments, grades.")
    find = parse(SliceSegmentationOptions, config.stages["segments"], "config.stages.segments")
    grade = parse(SegmentGradingOptions, config.stages["grades"], "config.stages.grades")
    if grade.heads != (HEAD.name,):
        raise UserError(f"config.stages.grades.heads is {grade.heads}; it must be ('malignant',).")
    return find, grade


def _text(call: Any) -> str:
    """A 0/1 column; empty where it is missing (-1)."""
    return "" if int(call) < 0 else str(int(call))


def _columns(rows: Sequence[Row], prefix: str) -> dict[str, np.ndarray]:
    """Name -> (N,) 0, 1 or -1 of the columns with a prefix; those that are empty are left out."""
    names = dict.fromkeys(k for row in rows for k in row if k.startswith(prefix))
    found = {
        name.removeprefix(prefix).replace("_", " "): np.array(
            [int(r.get(name) or -1) for r in rows]
        )
        for name in names
    }
    return {name: values for name, values in found.items() if (values >= 0).any()}
