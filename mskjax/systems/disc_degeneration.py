"""Lumbar disc degeneration on sagittal T2: a U-Net finds the discs, SpineNet's grader grades them.

After Ding et al., Chin J Clin Res 2024;37(5):709-713: U-Net, then SpineNet, mild / moderate /
severe.  Theirs: the two networks, the three classes, the outlined structures.  Open and therefore
ours (fields of the config): which Pfirrmann grades make a class, network sizes, the recipe, and
the division, which is by patient here and was by disc there.  The grader follows Jamaludin et al.,
Med Image Anal 2017;41:63-73.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from mskjax import subgroups
from mskjax.baselines import Ridge
from mskjax.config import StudyConfig, parse
from mskjax.errors import UserError
from mskjax.imaging import regions
from mskjax.imaging.regions import Region
from mskjax.metrics import estimates
from mskjax.metrics.structures import score_structures
from mskjax.reporting import pictures
from mskjax.stages.crop_grading import CropGradingOptions
from mskjax.stages.disc_grading import (
    DISC,
    HEADS,
    VERTEBRA,
    DiscGrading,
    case_id,
    grade_columns,
    graded_discs,
    hand_features,
    reference_discs,
)
from mskjax.stages.slice_segmentation import (
    SliceSegmentation,
    SliceSegmentationOptions,
    canvas,
)
from mskjax.systems.base import Predict, Published, System, predict_parts
from mskjax.tables import Row
from mskjax.training.stage import Study

STRUCTURES = ("vertebra", "disc", "canal")  # labels 1, 2, 3
COLOURS = {1: ("vertebra", (86, 180, 233)), 2: ("disc", (230, 159, 0)), 3: ("canal", (0, 158, 115))}
PFIRRMANN = 5
ROMAN = ("I", "II", "III", "IV", "V")
SEVERITY = ("mild", "moderate", "severe")
NSD_TOLERANCE_MM = 1.0  # about two native pixels; readers differ by as much

DING = "Ding et al., Chin J Clin Res 2024;37(5):709-713"
THEIRS = (
    "94 patients of one centre, 2-D T2; discs, not patients, were divided, so discs of one patient"
    " lie on both sides; interval not given"
)


@dataclasses.dataclass(frozen=True)
class Options:
    """Options of the system.

    Attributes:
      severity: Pfirrmann grades that are mild, moderate and severe (open in the paper).
    """

    severity: tuple[tuple[int, ...], ...] = ((1, 2), (3,), (4, 5))

    def of_grade(self) -> np.ndarray:
        """(5,) class of each Pfirrmann grade."""
        return np.array(
            [
                next(c for c, g in enumerate(self.severity) if grade in g)
                for grade in range(1, PFIRRMANN + 1)
            ]
        )


@dataclasses.dataclass(frozen=True)
class Reading:
    """What the system says of one study.

    Attributes:
      mask: (S, H, W) uint8 semantic mask on the native grid.
      discs: the discs found, from the lowest upwards.
      labels: (S, H, W) int, level of each disc voxel.
      probabilities: head -> (discs, classes) float32.
      crops: (discs, rows, cols) float32, the middle slice of what the grader saw.
      attention: (discs, h, w) in [0, 1], Grad-CAM of the Pfirrmann grade in that slice.
    """

    mask: np.ndarray
    discs: Sequence[Region]
    labels: np.ndarray
    probabilities: dict[str, np.ndarray]
    crops: np.ndarray | None = None
    attention: np.ndarray | None = None


class DiscDegeneration(System):
    """See the module."""

    name = "disc_degeneration"
    labels = ("levels",)
    title = "Lumbar disc degeneration: U-Net and SpineNet's grader on sagittal T2"
    rules = (
        "A held-out patient's discs are graded on the regions that the same fold's own U-Net"
        " predicted; oracle_region repeats the figures on the reference regions.",
        "Predicted discs are matched to reference discs one to one by largest IoU (above .1)."
        " A missed disc is an error: it is right in no class, disagrees as much as two grades can"
        " in kappa, and has probability 0 for its own class.",
        "The predicted Pfirrmann grade is the median of the predicted distribution, which"
        " minimises the expected absolute error; the severity is its class of largest probability.",
        "Dice, IoU, PPV, sensitivity and surface metrics are computed per study in 3-D on the"
        " native grid and averaged over patients. A structure that is absent from reference and"
        " prediction is left out; absent from the reference alone it scores 0 overlap.",
        f"NSD uses a tolerance of {NSD_TOLERANCE_MM:g} mm.",
        "Intervals are 95 % patient-bootstrap percentile intervals.",
    )
    limits = (
        "One run with one seed; the spread over seeds is not in the intervals.",
        "Which Pfirrmann grades are mild, moderate and severe is open in the paper; ours are in"
        " the recipe.",
    )
    published = (
        Published("dice_disc", 0.920, "94 patients", DING, THEIRS),
        Published("iou_disc", 0.853, "94 patients", DING, THEIRS),
        Published(
            "accuracy",
            0.913,
            "94 discs",
            DING,
            THEIRS + "; the interval is our Wilson interval of 86 / 94",
            (0.84, 0.96),
        ),
        Published("sensitivity", 0.916, "94 discs", DING, THEIRS),
        Published("specificity", 0.912, "94 discs", DING, THEIRS),
        Published("auroc_mild_vs_moderate", 0.89, "94 discs", DING, THEIRS),
        Published("auroc_mild_vs_severe", 0.95, "94 discs", DING, THEIRS),
        Published("auroc_moderate_vs_severe", 0.90, "94 discs", DING, THEIRS),
        Published(
            "quadratic_weighted_kappa",
            0.92,
            "1,599 patients",
            "Niemeyer et al. 2021",
            "other cohort, other network, 50 times the patients",
        ),
        Published(
            "balanced_accuracy_pfirrmann",
            0.78,
            "1,331 people",
            "SpineNet, external",
            "other cohort, trained on thousands",
        ),
    )

    def __init__(self, options: Options, find: SliceSegmentation, grade: DiscGrading):
        self.options, self.find, self.grade = options, find, grade
        self.stages = (find, grade)

    def stratum(self, study: Study) -> int | None:
        """Severity of the study's median grade; None where nothing is graded."""
        grades = grade_columns(study)["pfirrmann"]
        grades = np.sort(grades[grades > 0])
        return int(self.options.of_grade()[grades[len(grades) // 2] - 1]) if len(grades) else None

    def cases(self, study: Study) -> list[str]:
        """One case per graded disc."""
        return [case_id(study, d.level) for d in graded_discs(study)[0]]

    def read(self, studies: Sequence[Study], predict: Predict, regions: str) -> list[Reading]:
        """See `System.read`."""
        if regions == "reference":
            masks = [study["mask"] for study in studies]
            found = [reference_discs(study) for study in studies]
        else:
            masks = self._find(studies, predict)
            found = [_predicted_discs(m, s) for m, s in zip(masks, studies, strict=True)]
        crops = [
            self.grade.cut(s, discs, m == VERTEBRA)
            for s, m, (discs, _) in zip(studies, masks, found, strict=True)
        ]
        graded = predict_parts(predict, self.grade.name, crops)
        readings = []
        for mask, (discs, labels), crop, outputs in zip(masks, found, crops, graded, strict=True):
            image, heat = crop["image"], outputs.get("attention")
            readings.append(
                Reading(
                    mask,
                    discs,
                    labels,
                    {name: p for name, p in outputs.items() if name != "attention"},
                    image[:, image.shape[1] // 2, ..., 0],
                    None if heat is None else heat[:, heat.shape[1] // 2],
                )
            )
        return readings

    def _find(self, studies: Sequence[Study], predict: Predict) -> list[np.ndarray]:
        inputs = [self.find.inference_examples(s) for s in studies]
        outputs = predict_parts(predict, self.find.name, inputs)
        return [self.find.decode(s, o) for s, o in zip(studies, outputs, strict=True)]

    def fit_baselines(self, studies: Sequence[Study]) -> dict[str, Any]:
        """Commonest grade, and ridge regression of the grade on brightness and height."""
        features, grades = [], []
        for study in studies:
            discs, columns = graded_discs(study)
            vertebra = study["mask"] == VERTEBRA
            features += [hand_features(study, d, vertebra) for d in discs]
            grades += list(columns["pfirrmann"]) if discs else []
        return {
            "majority": int(np.bincount(np.array(grades, int)).argmax()),
            "ridge": Ridge.fit(np.array(features), np.array(grades)),
        }

    def score(self, study: Study, predicted: Reading, oracle: Reading, baselines: Any) -> list[Row]:
        """A row per structure, per graded disc and one for the detection of discs."""
        who = {"patient": study["patient_id"], "study": study["study_id"]}
        rows: list[Row] = []
        if study["has_mask"]:
            spacing = np.linalg.norm(study["affine"][:3, :3], axis=0)
            rows += [
                {**who, "kind": "structure", "name": name, **values}
                for name, values in score_structures(
                    study["mask"], predicted.mask, STRUCTURES, spacing, NSD_TOLERANCE_MM
                ).items()
            ]
        if not study["disc_levels"].any():
            return rows
        pairs, extra = regions.match_regions(predicted.labels, study["disc_levels"])
        found = {level: number for level, number in pairs.items() if number is not None}
        rows.append(
            {
                **who,
                "kind": "detection",
                "reference_discs": len(pairs),
                "found_discs": len(found),
                "extra_discs": len(extra),
                "right_level": sum(a == b for a, b in found.items()),
            }
        )
        _, columns = graded_discs(study)
        grades = dict(zip(columns["level"], columns["pfirrmann"], strict=True))
        for level, grade in grades.items():
            rows.append(
                {
                    **who,
                    "kind": "disc",
                    "name": int(level),
                    "case": case_id(study, level),
                    **self._score_disc(study, int(grade), predicted, found.get(level), baselines),
                    **_oracle_columns(oracle, level),
                    **subgroups.columns(study),
                }
            )
        return rows

    def _score_disc(
        self, study: Study, grade: int, reading: Reading, number: int | None, baselines: Any
    ) -> Row:
        row: Row = {"reference": grade, "majority": baselines["majority"]}
        if number is None:
            # All probability on the other severity classes, none on the true one.
            severity = self.options.of_grade()
            p = (severity != severity[grade - 1]).astype(float)
            p /= max(p.sum(), 1.0)
            return row | {"found": 0, "wrong": 1} | _probability_columns(p)
        index = [d.level for d in reading.discs].index(number)
        p = reading.probabilities["pfirrmann"][index]
        features = hand_features(study, reading.discs[index], reading.mask == VERTEBRA)
        ridge = baselines["ridge"].predict(features)
        return (
            row
            | {
                "found": 1,
                "level_found": number,
                "predicted": median_grade(p),
                "wrong": int(median_grade(p) != grade),
                "ridge": int(np.clip(round(ridge), 1, PFIRRMANN)),
            }
            | _probability_columns(p)
        )

    def picture(self, study: Study, predicted: Reading, phantom: bool) -> bytes:
        """The slice that shows most disc, with reference and predicted grades beside the discs."""
        shown = study["mask"] if study["has_mask"] else predicted.mask
        s = int(np.argmax((shown == DISC).sum((1, 2))))
        _, columns = graded_discs(study)
        grades = dict(zip(columns["level"], columns["pfirrmann"], strict=True))
        pairs = regions.match_regions(predicted.labels, study["disc_levels"])[0]
        notes, errors = [], {}
        for level, grade in grades.items():
            where = np.argwhere(study["disc_levels"][s] == level)
            if not len(where):
                continue
            number = pairs.get(level)
            ours = "missed"
            if number is not None:
                index = [d.level for d in predicted.discs].index(number)
                call = median_grade(predicted.probabilities["pfirrmann"][index])
                ours, errors[index] = ROMAN[call - 1], abs(call - int(grade))
            # Behind the disc, over the canal: the disc itself stays visible.
            row, column = where[:, 0].mean(), where[:, 1].max() + np.ptp(where[:, 1]) / 2
            notes.append((float(row), float(column), f"{ROMAN[grade - 1]} / {ours}"))
        spacing = np.linalg.norm(study["affine"][:3, :3], axis=0)
        return pictures.overlay(
            study["image"][s],
            study["mask"][s] if study["has_mask"] else None,
            predicted.mask[s],
            spacing=(float(spacing[1]), float(spacing[2])),
            labels=COLOURS,
            title=[study["study_id"], "Pfirrmann: reference / predicted"],
            annotations=notes,
            further=_attention(predicted, errors),
            phantom=phantom,
        )

    def summarise(self, rows: Sequence[Row], resamples: int, seed: int) -> dict[str, Any]:
        """See `System.summarise`."""
        structures = [r for r in rows if r["kind"] == "structure"]
        discs = [r for r in rows if r["kind"] == "disc"]
        settings = {"resamples": resamples, "seed": seed}
        stages = {
            self.find.name: {
                **estimates.structures(structures, STRUCTURES, **settings),
                **estimates.detection([r for r in rows if r["kind"] == "detection"], **settings),
            }
        }
        if not discs:
            return {"stages": stages, "end_to_end": {}, "oracle_region": {}, "baselines": {}}
        severity = self.options.of_grade()
        reference = np.array([int(r["reference"]) for r in discs])
        patients = [r["patient"] for r in discs]
        ours = _columns(discs, "predicted", "p")
        ideal = _columns(discs, "oracle", "oracle_p")

        def figures(grade: np.ndarray, p: np.ndarray) -> dict[str, Any]:
            return estimates.ordinal(
                reference - 1,
                grade,
                p,
                severity,
                SEVERITY,
                patients,
                "pfirrmann",
                "severity",
                **settings,
            )

        stages[self.grade.name] = figures(*ideal)
        return {
            "stages": stages,
            "end_to_end": figures(*ours),
            "oracle_region": stages[self.grade.name],
            "baselines": {
                **{
                    name: estimates.labels_only(
                        reference - 1,
                        _numbers(discs, name),
                        severity,
                        patients,
                        "pfirrmann",
                        **settings,
                    )
                    for name in ("majority", "ridge")
                },
                "model_minus_ridge": estimates.difference(
                    reference - 1,
                    ours[0],
                    _numbers(discs, "ridge"),
                    severity,
                    patients,
                    "pfirrmann",
                    **settings,
                ),
            },
            **estimates.tables(
                reference - 1, *ours, severity, ROMAN, SEVERITY, "pfirrmann", "severity"
            ),
            "subgroups": {
                group: {
                    name: estimates.labels_only(
                        reference[chosen] - 1,
                        ours[0][chosen],
                        severity,
                        [p for p, c in zip(patients, chosen, strict=True) if c],
                        "pfirrmann",
                        **settings,
                    )
                    for name, chosen in parts.items()
                }
                for group, parts in {
                    "level": subgroups.divide([f"level {r['name']}" for r in discs], patients),
                    **subgroups.strata(discs),
                }.items()
            },
        }


def check(config: StudyConfig) -> None:
    """Parses all options of the system; raises UserError before any work is done."""
    _parse(config)


def build(config: StudyConfig, studies: Sequence[Study]) -> DiscDegeneration:
    """The system for a cohort; `studies` (may be empty) set the canvas of the U-Net."""
    options, find, grade = _parse(config)
    multiple = 2 ** (len(find.model.widths) - 1)
    size = canvas(studies, find.spacing_mm, multiple) if len(studies) else find.patch
    heads = tuple(HEADS[name] for name in grade.heads)
    return DiscDegeneration(
        options,
        SliceSegmentation("regions", find, STRUCTURES, size),
        DiscGrading("grades", grade, heads),
    )


def median_grade(probabilities: np.ndarray) -> int:
    """Median of a distribution over grades 1 to K: the grade of least expected absolute error."""
    return int(np.searchsorted(np.cumsum(probabilities), 0.5)) + 1


def _parse(config: StudyConfig) -> tuple[Options, SliceSegmentationOptions, CropGradingOptions]:
    options = parse(Options, config.options, "config.options")
    if sorted(g for c in options.severity for g in c) != [1, 2, 3, 4, 5] or len(
        options.severity
    ) != len(SEVERITY):
        raise UserError(
            f"config.options.severity is {options.severity}; it must divide the grades 1 to 5 into"
            " mild, moderate and severe."
        )
    if set(config.stages) != {"regions", "grades"}:
        raise UserError(f"config.stages has {', '.join(config.stages)}; it needs regions, grades.")
    find = parse(SliceSegmentationOptions, config.stages["regions"], "config.stages.regions")
    grade = parse(CropGradingOptions, config.stages["grades"], "config.stages.grades")
    unknown = set(grade.heads) - set(HEADS)
    if unknown or grade.heads[:1] != ("pfirrmann",):
        raise UserError(
            f"config.stages.grades.heads is {grade.heads}; the first must be pfirrmann, the others"
            f" any of {', '.join(HEADS)}."
        )
    return options, find, grade


def _predicted_discs(mask: np.ndarray, study: Study) -> tuple[list[Region], np.ndarray]:
    discs, _ = regions.disc_regions(mask == DISC, study["affine"])
    labels = np.zeros(mask.shape, np.uint8)
    for disc in discs:
        labels[disc.slices][disc.mask] = disc.level
    return discs, labels


def _attention(reading: Reading, errors: dict[int, int]) -> list[pictures.Panel]:
    """Grad-CAM of the two discs whose grades are farthest off."""
    if reading.crops is None or reading.attention is None:
        return []
    worst = sorted(errors, key=lambda index: -errors[index])[:2]
    names = {i: f"disc {reading.discs[i].level}" for i in worst}
    return pictures.grad_cams(reading.crops, reading.attention, names)


def _oracle_columns(oracle: Reading, level: int) -> Row:
    index = [d.level for d in oracle.discs].index(level)
    p = oracle.probabilities["pfirrmann"][index]
    return {"oracle": median_grade(p), **_probability_columns(p, "oracle_p")}


def _probability_columns(p: np.ndarray, prefix: str = "p") -> Row:
    return {f"{prefix}_{g + 1}": round(float(v), 6) for g, v in enumerate(p)}


def _numbers(rows: Sequence[Row], column: str) -> np.ndarray:
    """Class numbers of a grade column; a missed disc is class K."""
    return np.array([int(r[column]) - 1 if r.get(column) else PFIRRMANN for r in rows])


def _columns(rows: Sequence[Row], grade: str, prefix: str) -> tuple[np.ndarray, np.ndarray]:
    p = np.array([[float(r[f"{prefix}_{g}"]) for g in range(1, PFIRRMANN + 1)] for r in rows])
    return _numbers(rows, grade), p / p.sum(1, keepdims=True)
