"""Modic changes of the lumbar spine on paired T1 and T2: Faster R-CNN, then a 3-D CNN.

After Cina et al., Brain & Spine 2024;4:102738.  Theirs: Faster R-CNN for the discs and their
levels, a 3-D CNN on the paired volume, types 0, 1 and 2, and the question which intensity
normalisation is best (standardisation, they find).  Open and therefore ours (fields of the config):
the other candidates, both networks' sizes, the crop, the recipe.  Ours as well: the Pfirrmann grade
as a second task, and the tilt of a crop, which follows from the neighbouring discs.
"""

import dataclasses
import zlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from mskjax import subgroups
from mskjax.baselines import Ridge
from mskjax.config import StudyConfig, parse
from mskjax.errors import UserError
from mskjax.imaging.levels import assign_levels
from mskjax.metrics import comparison, estimates
from mskjax.metrics.detection import ImageBoxes, detection_estimates, match_detections
from mskjax.reporting import pictures
from mskjax.stages.box_detection import BoxDetection, BoxDetectionOptions, Found
from mskjax.stages.crop_grading import CropGradingOptions
from mskjax.stages.paired_disc_grading import (
    HEADS,
    NORMALISATIONS,
    REPORTED,
    SEQUENCES,
    Disc,
    Normalisation,
    PairedDiscGrading,
    boxed_discs,
    case_id,
    hand_features,
)
from mskjax.stages.slice_segmentation import canvas
from mskjax.systems.base import Predict, Published, System, predict_parts
from mskjax.tables import Row, floats
from mskjax.training.stage import Study

CLASSES = {
    "modic": ("mc0", "mc1", "mc2"),
    "presence": ("absent", "present"),
    "pfirrmann": ("i", "ii", "iii", "iv", "v"),
}
LEAST_CASES = 20  # discs of a type, in the whole cohort, below which it is no class
MATCH_IOU = 0.5
REFERENCE_COLOUR, FOUND_COLOUR = (0, 158, 115), (230, 159, 0)

CINA = "Cina et al., Brain & Spine 2024;4:102738"
THEIRS = "other cohorts of paired T1 and T2, types 0 to 2; mean over types"


@dataclasses.dataclass(frozen=True)
class Options:
    """Options of the system.

    Attributes:
      normalisations: those that are compared, each with a grader of its own on the same folds and
        seeds; the first is the one that end-to-end figures are of.
    """

    normalisations: tuple[Normalisation, ...] = ("z_score_volume",)

    def __post_init__(self) -> None:
        if not self.normalisations or len(set(self.normalisations)) < len(self.normalisations):
            raise UserError(
                f"config.options.normalisations is {self.normalisations}; name each of"
                f" {', '.join(NORMALISATIONS)} at most once and at least one."
            )


@dataclasses.dataclass(frozen=True)
class Reading:
    """What the system says of one study.

    Attributes:
      discs: from the lowest upwards, with levels.
      found: all detections, unsure ones too; None on reference boxes.
      gaps: levels that are skipped.
      left_out: detections that are not in the row of discs.
      probabilities: normalisation -> head -> (discs, classes) float32.
      crops: (discs, h, w) middle slice of the crops of T2 that the first grader saw.
      attention: (discs, h, w) in [0, 1], Grad-CAM of the first head's call in that slice.
    """

    discs: Sequence[Disc]
    found: Found | None
    gaps: int
    left_out: int
    probabilities: dict[str, dict[str, np.ndarray]]
    crops: np.ndarray | None = None
    attention: np.ndarray | None = None


@dataclasses.dataclass(frozen=True)
class _Boxed(Sequence[Study]):
    """Studies with other tables of boxes; images are read when they are asked for."""

    studies: Sequence[Study]
    tables: Sequence[dict[str, np.ndarray]]

    def __len__(self) -> int:
        return len(self.studies)

    def __getitem__(self, number: Any) -> Any:
        return {**self.studies[number], "boxes": self.tables[number]}


class ModicChanges(System):
    """See the module."""

    name = "modic_changes"
    title = "Modic changes: Faster R-CNN and a 3-D CNN on paired T1 and T2"
    labels = tuple(h.name for h in HEADS.values() if not h.column)  # columns of boxes
    recuts = True
    rules = (
        "Discs of held-out patients are graded on the boxes that the same fold's own detector"
        " found; oracle_region repeats the figures on the reference boxes, where there are any.",
        "Of the detections the likeliest row is kept that goes upwards as a spine does from the one"
        " that looks like the lowest disc, with unsure ones where they fill a gap; levels are"
        " counted from its lowest, and a step of more than 1.6 median steps skips numbers.",
        f"A detection belongs to a boxed reference disc at IoU {MATCH_IOU:g} or more, to a graded"
        " disc without a reference box by its level.  A disc without one is an error: it is right"
        " in no class and disagrees as much as two grades can.",
        "Training patients without reference boxes are graded on boxes that the fold's detector,"
        " which has not seen them, finds; they are used where every graded level is found.",
        "Overlap and confidence are of pairs at IoU .5 and the configured confidence; AP counts all"
        " detections above the detector's floor.",
        "The predicted Pfirrmann grade is the median of the predicted distribution, the Modic type"
        " the likeliest.",
        "All normalisations share folds, seeds, boxes and recipe; differences are paired over"
        " patients.",
        "Intervals are 95 % patient-bootstrap percentile intervals.",
    )
    limits = (
        "One run with one seed; the spread over seeds is not in the intervals.",
        "Type 3 is no class of the Modic task; in the presence task it counts as present.",
    )
    published = (
        Published("balanced_accuracy", 0.80, "two data sets", CINA, THEIRS),
        Published("sensitivity_mc0", 0.83, "two data sets", CINA, THEIRS),
        Published("sensitivity_mc1", 0.85, "two data sets", CINA, THEIRS),
        Published("sensitivity_mc2", 0.78, "two data sets", CINA, THEIRS),
        Published("f1_weighted", 0.88, "two data sets", CINA, THEIRS + "; weights are inferred"),
        Published(
            "cohen_kappa",
            0.74,
            "external",
            "SpineNet, presence of Modic changes",
            "presence, other cohort, trained on thousands",
        ),
        Published(
            "cohen_kappa", 0.63, "external", "Gao et al. 2022", "presence, other cohort and network"
        ),
    )

    def __init__(self, options: Options, find: BoxDetection, graders: Sequence[PairedDiscGrading]):
        self.options, self.find, self.graders = options, find, tuple(graders)
        self.stages = (find, *self.graders)
        self.heads = tuple(h.name for h in self.graders[0].heads if h.name in REPORTED)

    def stratum(self, study: Study) -> int | None:
        """Boxed or not, and whether any disc has a Modic change."""
        modic = np.asarray(study["boxes"]["modic"])
        return 2 * int(bool(study["has_boxes"])) + int((modic > 0).any()) if len(modic) else None

    def cases(self, study: Study) -> list[str]:
        """One case per graded disc."""
        return [case_id(study, level) for level in _graded(study)]

    def relabelled(self, study: Study, donor: Study) -> Study:
        """The boxes stay; each graded disc gets the grades of one of the donor's, at any level."""
        table, other = study["boxes"], donor["boxes"]
        columns = [name for name in self.labels if name in table]
        rng = np.random.default_rng(zlib.crc32(study["study_id"].encode()))
        own, theirs = (
            np.flatnonzero(np.any([np.asarray(t[c]) >= 0 for c in columns], 0))
            for t in (table, other)
        )
        drawn = np.resize(rng.permutation(theirs), len(own)) if len(theirs) else None
        new = {name: np.array(values) for name, values in table.items()}
        for name in columns:
            new[name][own] = -1 if drawn is None else np.asarray(other[name])[drawn]
        return {**study, "boxes": new}

    def adapted(
        self, studies: Sequence[Study], train: Sequence[int], predict: Predict
    ) -> tuple[System, Sequence[Study]]:
        """Normalisations fitted on training patients; boxes for discs that have none."""
        fitted = [g.fitted(studies, train) for g in self.graders]
        tables = [self._filled(studies[i], predict) for i in range(len(studies))]
        return ModicChanges(self.options, self.find, fitted), _Boxed(studies, tables)

    def _filled(self, study: Study, predict: Predict) -> dict[str, np.ndarray]:
        """The table of boxes; unboxed discs get what the detector found, if it found all."""
        table: dict[str, np.ndarray] = study["boxes"]
        levels = np.asarray(table["level"])
        missing = np.flatnonzero(np.asarray(table["boxed"]) == 0)
        if not len(missing):
            return table
        reading = self._find([study], predict)[0]
        by_level = {d.level: d for d in reading.discs}
        # More discs than were graded are common at the upper end of the image and do no harm.
        if reading.gaps or not set(levels.tolist()) <= set(by_level):
            return table
        new = {k: np.array(v) for k, v in table.items()}
        for row in missing:
            disc = by_level[int(levels[row])]
            new["boxed"][row], new["slice"][row], new["box"][row] = 1, disc.slice, disc.box
        return new

    def _find(self, studies: Sequence[Study], predict: Predict) -> list[Reading]:
        inputs = [self.find.inference_examples(s) for s in studies]
        outputs = predict_parts(predict, self.find.name, inputs)
        readings = []
        for study, output in zip(studies, outputs, strict=True):
            found = self.find.decode(study, output)
            spacing = np.linalg.norm(study["affine"][:3, :3], axis=0)
            discs = [
                Disc(0, found.slice, _box(box), float(score))
                for box, score in zip(found.boxes, found.scores, strict=True)
            ]
            centres = np.array([d.centre(spacing) for d in discs]).reshape(-1, 2)
            confidence = self.find.options.confidence
            order = assign_levels(centres, found.scores, found.lowest, confidence)
            numbered = [
                dataclasses.replace(discs[i], level=int(level))
                for i, level in zip(order.kept, order.levels, strict=True)
            ]
            readings.append(Reading(numbered, found, order.gaps, order.left_out, {}))
        return readings

    def read(self, studies: Sequence[Study], predict: Predict, regions: str) -> list[Reading]:
        """See `System.read`."""
        if regions == "reference":
            readings = [Reading(boxed_discs(s)[0], None, 0, 0, {}) for s in studies]
        else:
            readings = self._find(studies, predict)
        for grader in self.graders:
            crops = [grader.cut(s, r.discs) for s, r in zip(studies, readings, strict=True)]
            graded = predict_parts(predict, grader.name, crops)
            for i, (crop, outputs) in enumerate(zip(crops, graded, strict=True)):
                shown = {name: outputs[name] for name in self.heads if name in outputs}
                readings[i].probabilities[grader.normalisation] = shown
                if grader is self.graders[0] and "attention" in outputs:
                    image, heat = crop["image"], outputs["attention"]
                    readings[i] = dataclasses.replace(
                        readings[i],
                        crops=image[:, image.shape[1] // 2, ..., SEQUENCES.index("t2")],
                        attention=heat[:, heat.shape[1] // 2],
                    )
        return readings

    def fit_baselines(self, studies: Sequence[Study]) -> dict[str, Any]:
        """Commonest class of each head, and ridge regression on signals and height of the box."""
        features: list[np.ndarray] = []
        targets: dict[str, list[int]] = {name: [] for name in self.heads}
        for study in studies:
            discs, grades = boxed_discs(study)
            if not discs:
                continue
            features += list(hand_features(study, discs))
            for name in self.heads:
                head = HEADS[name]
                targets[name] += head.target(grades[head.column or name]).tolist()
        baselines: dict[str, Any] = {}
        for name, values in targets.items():
            classes = np.array(values, int)
            known = classes >= 0
            baselines[name] = {
                "majority": int(np.bincount(classes[known], minlength=1).argmax()),
                "ridge": Ridge.fit(np.array(features)[known], classes[known])
                if known.any()
                else None,
            }
        return baselines

    def score(self, study: Study, predicted: Reading, oracle: Reading, baselines: Any) -> list[Row]:
        """A row per detection and reference box, one on levels, and one per graded disc."""
        who = {"patient": study["patient_id"], "study": study["study_id"]}
        reference = boxed_discs(study)[0]
        partners = _partners(predicted.discs, reference)
        rows: list[Row] = []
        if reference and predicted.found is not None:
            rows += _detection_rows(who, predicted, reference)
            matched = {level: i for level, i in partners.items() if i is not None}
            rows.append(
                {
                    **who,
                    "kind": "levels",
                    "levels_reference": len(partners),
                    "levels_found": len(matched),
                    "levels_right": sum(
                        predicted.discs[i].level == level for level, i in matched.items()
                    ),
                    "gaps": predicted.gaps,
                    "left_out": predicted.left_out,
                }
            )
        graded = _graded(study)
        numbers = _numbers(graded, predicted.discs, partners)
        features = hand_features(study, predicted.discs)
        for level, grades in graded.items():
            number = numbers[level]
            row: Row = {
                **who,
                "kind": "disc",
                "name": level,
                "case": case_id(study, level),
                "boxed": int(level in partners),
                "found": int(number is not None),
                "level_found": predicted.discs[number].level if number is not None else "",
            }
            for name in self.heads:
                target = int(HEADS[name].target([grades[HEADS[name].column or name]])[0])
                row[f"reference_{name}"] = target if target >= 0 else ""
                row[f"majority_{name}"] = baselines[name]["majority"]
                if number is not None and baselines[name]["ridge"] is not None:
                    value = baselines[name]["ridge"].predict(features[number])
                    top = len(CLASSES[name]) - 1
                    row[f"ridge_{name}"] = int(np.clip(round(value), 0, top))
            row |= _probability_columns(predicted, number, "p")
            ideal = next((i for i, d in enumerate(oracle.discs) if d.level == level), None)
            row |= _probability_columns(oracle, ideal, "oracle_p")
            first = self.heads[0]
            if row[f"reference_{first}"] != "":
                p = row.get(f"p_{self.options.normalisations[0]}_{first}_0")
                call = -1 if p is None else self._call(predicted, number, first)
                row["wrong"] = int(call != row[f"reference_{first}"])
            rows.append(row | subgroups.columns(study))
        return rows

    def _call(self, reading: Reading, number: int | None, head: str) -> int:
        p = reading.probabilities[self.options.normalisations[0]][head][number]
        return int(_calls(p[None], head)[0])

    def picture(self, study: Study, predicted: Reading, phantom: bool) -> bytes:
        """T1 and T2 with reference boxes and the boxes found, each with level and call."""
        reference = boxed_discs(study)[0]
        shown = (list(predicted.discs) or reference or [Disc(0, 0, (0, 0, 0, 0))])[0].slice
        boxes = [(*d.box, REFERENCE_COLOUR, "") for d in reference]
        for i, disc in enumerate(predicted.discs):
            call = self._call(predicted, i, self.heads[0])
            text = f"L{disc.level}: {CLASSES[self.heads[0]][call]}"
            boxes.append((*disc.box, FOUND_COLOUR, text))
        spacing = np.linalg.norm(study["affine"][:3, :3], axis=0)
        pixel = (float(spacing[1]), float(spacing[2]))
        panels = [
            pictures.Panel(name.upper(), study[name][shown], pixel, boxes=tuple(boxes))
            for name in (("t1", "t2") if study["has_t1"] else ("t2",))
        ]
        panels += self._attention(study, predicted, reference)
        return pictures.sheet(panels, [study["study_id"]], phantom=phantom)

    def _attention(
        self, study: Study, reading: Reading, reference: Sequence[Disc]
    ) -> list[pictures.Panel]:
        """Grad-CAM of two discs: those that were called wrong first, then those with a change."""
        if reading.crops is None or reading.attention is None:
            return []
        head, urgency = self.heads[0], {}
        graded = _graded(study)
        partners = _partners(reading.discs, reference)
        for level, number in _numbers(graded, reading.discs, partners).items():
            target = int(HEADS[head].target([graded[level][HEADS[head].column or head]])[0])
            if number is not None:
                wrong = target >= 0 and self._call(reading, number, head) != target
                urgency[number] = (2 * wrong + (target > 0), -number)
        first = sorted(urgency, key=lambda i: urgency[i], reverse=True)[:2]
        names = {i: f"disc {reading.discs[i].level}" for i in first}
        return pictures.grad_cams(reading.crops, reading.attention, names)

    def facts(self, rows: Sequence[Row]) -> list[tuple[str, str]]:
        """Reference class of the first head at each level."""
        head = self.heads[0]
        return [
            (f"Level {r['name']}, {head}", CLASSES[head][int(r[f"reference_{head}"])])
            for r in rows
            if r["kind"] == "disc" and r.get(f"reference_{head}")
        ]

    def summarise(self, rows: Sequence[Row], resamples: int, seed: int) -> dict[str, Any]:
        """See `System.summarise`."""
        settings = {"resamples": resamples, "seed": seed}
        stages: dict[str, Any] = {self.find.name: self._detection(rows, settings)}
        report: dict[str, Any] = {
            "stages": stages,
            "end_to_end": {},
            "oracle_region": {},
            "baselines": {},
            "confusion": {},
            "tables": [],
            "tables_title": "Intensity normalisations",
        }
        discs = [r for r in rows if r["kind"] == "disc"]
        for number, head in enumerate(self.heads):
            known = [r for r in discs if r.get(f"reference_{head}")]
            if known:
                suffix = f"_{head}" if number else ""
                comparison.summarise(
                    report,
                    known,
                    self._grading(head, suffix),
                    self.options.normalisations,
                    **settings,
                )
        if discs and len(self.heads):
            head = self.heads[0]
            known = [r for r in discs if r.get(f"reference_{head}")]
            report["subgroups"] = comparison.subgroup_figures(
                known,
                self._grading(head, ""),
                self.options.normalisations[0],
                {
                    "level": subgroups.divide(
                        [f"level {r['name']}" for r in known], [r["patient"] for r in known]
                    ),
                    **subgroups.strata(known),
                },
                **settings,
            )
        for grader in self.graders:
            stages[grader.name] = report["oracle_region"] if grader is self.graders[0] else {}
        return report

    def _grading(self, head: str, suffix: str) -> comparison.Grading:
        return comparison.Grading(head, suffix, CLASSES[head], ordinal=head == "pfirrmann")

    def _detection(self, rows: Sequence[Row], settings: Any) -> dict[str, Any]:
        """AP, overlap and levels, over the studies with reference boxes."""
        images: dict[str, list[Row]] = {}
        for row in (r for r in rows if r["kind"] in ("detection", "box")):
            images.setdefault(row["study"], []).append(row)
        if not images:
            return {}
        gathered, patients = [], []
        for own in images.values():
            found = [r for r in own if r["kind"] == "detection"]
            boxes = [r for r in own if r["kind"] == "box"]
            gathered.append(ImageBoxes(_boxes(found), floats(found, "score"), _boxes(boxes)))
            patients.append(own[0]["patient"])
        figures = detection_estimates(
            gathered, patients, confidence=self.find.options.confidence, **settings
        )
        levels = [r for r in rows if r["kind"] == "levels"]
        shares = estimates.ratios(
            levels, {"level_accuracy": ("levels_right", "levels_found")}, **settings
        )
        return figures | shares | estimates.means(levels, ("gaps", "left_out"), **settings)


def check(config: StudyConfig) -> None:
    """Parses all options of the system; raises UserError before any work is done."""
    _parse(config)


def build(config: StudyConfig, studies: Sequence[Study]) -> ModicChanges:
    """The system for a cohort; `studies` (may be empty) set the canvas of the detector.

    Raises:
      UserError: a Modic type has too few discs to be a class.
    """
    options, find, grade = _parse(config)
    multiple = 2 ** len(find.model.widths)
    size = (
        canvas(studies, find.spacing_mm, multiple, "t2") if len(studies) else (multiple, multiple)
    )
    if "modic" in grade.heads and len(studies):
        check_counts(studies)
    heads = tuple(HEADS[name] for name in grade.heads)
    graders = [
        PairedDiscGrading(f"grades_{name}", grade, heads, normalisation=name)
        for name in options.normalisations
    ]
    return ModicChanges(options, BoxDetection("boxes", find, size), graders)


def check_counts(studies: Sequence[Study]) -> None:
    """Refuses to make a class of a Modic type that hardly occurs.

    Raises:
      UserError: with the counts.
    """
    counts = Counter(
        int(m) for i in range(len(studies)) for m in studies[i]["boxes"]["modic"] if m >= 0
    )
    if any(counts[kind] < LEAST_CASES for kind in (0, 1, 2)):
        listing = ", ".join(f"type {kind}: {counts[kind]}" for kind in range(4))
        raise UserError(
            f"the cohort has too few discs of a Modic type ({listing}); a class needs"
            f" {LEAST_CASES}.  Grade presence instead:"
            " --config.stages.grades.heads=\"('presence','pfirrmann')\"."
        )


def _parse(config: StudyConfig) -> tuple[Options, BoxDetectionOptions, CropGradingOptions]:
    options = parse(Options, config.options, "config.options")
    if set(config.stages) != {"boxes", "grades"}:
        raise UserError(f"config.stages has {', '.join(config.stages)}; it needs boxes, grades.")
    find = parse(BoxDetectionOptions, config.stages["boxes"], "config.stages.boxes")
    grade = parse(CropGradingOptions, config.stages["grades"], "config.stages.grades")
    unknown = set(grade.heads) - set(HEADS)
    if unknown or not grade.heads or grade.heads[0] not in ("modic", "presence"):
        raise UserError(
            f"config.stages.grades.heads is {grade.heads}; the first must be modic or presence, the"
            f" others any of {', '.join(HEADS)}."
        )
    return options, find, grade


def _graded(study: Study) -> dict[int, dict[str, int]]:
    """Level -> grades of the discs that have a level and any grade."""
    table = study["boxes"]
    columns = sorted({HEADS[name].column or name for name in REPORTED})
    rows = {
        int(level): {c: int(table[c][i]) for c in columns}
        for i, level in enumerate(table["level"])
        if int(level) > 0
    }
    graded = {level: g for level, g in rows.items() if any(v >= 0 for v in g.values())}
    return dict(sorted(graded.items()))


def _partners(found: Sequence[Disc], reference: Sequence[Disc]) -> dict[int, int | None]:
    """Number of the found disc that overlaps the reference box of each level; None: missed."""
    partners: dict[int, int | None] = {r.level: None for r in reference if r.level}
    if found and reference:
        boxes, scores = np.array([d.box for d in found]), np.array([d.score for d in found])
        matches = match_detections(boxes, scores, np.array([r.box for r in reference]), MATCH_IOU)
        for i, number in enumerate(matches.reference.tolist()):
            if number >= 0 and reference[number].level:
                partners[reference[number].level] = i
    return partners


def _numbers(
    levels: Iterable[int], found: Sequence[Disc], partners: Mapping[int, int | None]
) -> dict[int, int | None]:
    """Number of the found disc that belongs to each level; None where there is none.

    By overlap where the level has a reference box, else by the level that it was given.
    """
    by_level = {d.level: i for i, d in enumerate(found)}
    return {level: partners.get(level, by_level.get(level)) for level in levels}


def _detection_rows(who: Row, predicted: Reading, reference: Sequence[Disc]) -> list[Row]:
    assert predicted.found is not None
    corners = ("row0", "col0", "row1", "col1")

    def place(box: Any) -> Row:
        return {name: round(float(v), 3) for name, v in zip(corners, box, strict=True)}

    found = predicted.found
    return [
        *(
            {**who, "kind": "detection", "score": round(float(score), 6), **place(box)}
            for box, score in zip(found.boxes, found.scores, strict=True)
        ),
        *({**who, "kind": "box", "name": r.level, **place(r.box)} for r in reference),
    ]


def _probability_columns(reading: Reading, number: int | None, prefix: str) -> Row:
    if number is None:
        return {}
    return {
        f"{prefix}_{normalisation}_{head}_{k}": round(float(v), 6)
        for normalisation, heads in reading.probabilities.items()
        for head, values in heads.items()
        for k, v in enumerate(values[number])
    }


def _calls(p: np.ndarray, head: str) -> np.ndarray:
    """(N,) class of (N, K) probabilities: the median of ordered classes, else the likeliest."""
    return comparison.calls(p, ordinal=head == "pfirrmann")


def _boxes(rows: Sequence[Row]) -> np.ndarray:
    return np.stack([floats(rows, c) for c in ("row0", "col0", "row1", "col1")], 1).reshape(-1, 4)


def _box(values: Any) -> tuple[float, float, float, float]:
    row0, col0, row1, col1 = (float(v) for v in values)
    return row0, col0, row1, col1
