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
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mskjax.config import StudyConfig
from mskjax.data.pipeline import Examples
from mskjax.errors import UserError
from mskjax.imaging.intensity import Landmarks
from mskjax.imaging.levels import assign_levels, level_name
from mskjax.metrics import estimates
from mskjax.metrics.detection import match_detections
from mskjax.metrics.grading import Grading
from mskjax.reporting import pictures
from mskjax.reporting.graded import Comparison
from mskjax.stages.box_detection import BoxDetection, BoxDetectionOptions
from mskjax.stages.crop_grading import CropGradingOptions
from mskjax.systems.modic_changes.grading import (
    HEADS,
    NORMALISATIONS,
    REPORTED,
    SEQUENCES,
    Disc,
    Normalisation,
    PairedDiscGrading,
    boxed_discs,
    fit_landmarks,
    hand_features,
    is_shown,
)
from mskjax.tables import Row
from mskjax.training.stage import Study
from mskjax.two_stage.boxes import as_box, box_figures, box_rows
from mskjax.two_stage.discs import LEVELS, GradedDiscs, case_id, level_of
from mskjax.two_stage.grading_task import GradingTask
from mskjax.two_stage.options import NOTHING, canvas_in, stage_options
from mskjax.two_stage.regions_then_grades import Located, Reading
from mskjax.two_stage.system import (
    Predict,
    Published,
    Spot,
    letters_of,
    pixel_of,
    predict_parts,
    sized,
    spacing_of,
    spot_of,
    titled,
)

GRADINGS = {
    "modic": Grading("modic", ("mc0", "mc1", "mc2")),
    "presence": Grading("presence", ("absent", "present")),
    "pfirrmann": Grading("pfirrmann", ("i", "ii", "iii", "iv", "v"), ordinal=True),
}
STANDARD = "z_score_volume"  # what the published comparison found best
LEAST_CASES = 20  # discs of a type, in the whole cohort, below which it is no class
MATCH_IOU = 0.5
REFERENCE_COLOUR, FOUND_COLOUR = (0, 158, 115), (230, 159, 0)

CINA = "Cina et al., Brain & Spine 2024;4:102738"
SPINENET = "SpineNet, external (NFBC1966)"
GAO = "Gao et al. 2022"
PRESENCE = "a head for presence in config.stages.grades.heads"
THEIRS = "other cohorts of paired T1 and T2, types 0 to 2; mean over types"

STAGES = {"boxes": BoxDetectionOptions, "grades": CropGradingOptions}


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
class _Boxed(Sequence[Study]):
    """Studies with other tables of boxes; images are read when they are asked for."""

    studies: Sequence[Study]
    tables: Sequence[dict[str, np.ndarray]]

    def __len__(self) -> int:
        return len(self.studies)

    def __getitem__(self, number: Any) -> Any:
        return {**self.studies[number], "boxes": self.tables[number]}


class ModicChanges(GradedDiscs):
    """See the module."""

    name = "modic_changes"
    title = "Modic changes: Faster R-CNN and a 3-D CNN on paired T1 and T2"
    labels = tuple(h.name for h in HEADS.values() if not h.column)  # columns of boxes
    recuts = True
    shown_channel = SEQUENCES.index("t2")
    strata = (
        "no boxes, no Modic change",
        "no boxes, Modic change",
        "boxes, no Modic change",
        "boxes, Modic change",
    )
    lead = "balanced_accuracy"
    grid = "t2"
    rules = (
        "Discs of held-out patients are graded on the boxes that the same fold's own detector"
        " found; oracle_region repeats the figures on the reference boxes, where there are any.",
        "Of the detections the likeliest row is kept that goes upwards as a spine does from the one"
        " that looks like the lowest disc, with unsure ones where they fill a gap; levels are"
        " counted from its lowest, and a step of more than 1.6 median steps skips numbers.",
        f"A detection belongs to a boxed reference disc at IoU {MATCH_IOU:g} or more, to a graded"
        " disc without a reference box by its level.  A disc without one is an error: it is right"
        " in no class and disagrees as much as two grades can.",
        "in_image says whether the image can show a missed disc that has no reference box: the row"
        " of boxes, else that of the discs found, is continued by its pitch.  Leading figures count"
        " all graded discs; those of the discs that the image can show stand beside.",
        "Training patients without reference boxes are graded on boxes that the fold's detector,"
        " which has not seen them, finds; they are used where every graded level is found.",
        "Overlap and confidence are of pairs at IoU .5 and the configured confidence; AP counts all"
        " detections above the detector's floor.",
        "The predicted Pfirrmann grade is the expectation of the predicted distribution, rounded;"
        " the Modic type is the likeliest.",
        "All normalisations share folds, seeds, boxes and recipe; differences are paired over"
        " patients.",
        "Intervals are 95 % patient-bootstrap percentile intervals.",
    )
    limits = ("Type 3 is no class of the Modic task; in the presence task it counts as present.",)
    published = (
        Published("balanced_accuracy_modic", 0.80, None, "two data sets", CINA, THEIRS),
        Published("sensitivity_mc0_modic", 0.83, None, "two data sets", CINA, THEIRS),
        Published("sensitivity_mc1_modic", 0.85, None, "two data sets", CINA, THEIRS),
        Published("sensitivity_mc2_modic", 0.78, None, "two data sets", CINA, THEIRS),
        Published(
            "f1_weighted_modic",
            0.88,
            None,
            "two data sets",
            CINA,
            f"{THEIRS}; weights are inferred",
        ),
        Published(
            "cohen_kappa_presence",
            0.74,
            1_331,
            "people",
            SPINENET,
            "other cohort, volumes, trained on thousands",
            needs=PRESENCE,
        ),
        Published(
            "balanced_accuracy_presence",
            0.86,
            1_331,
            "people",
            SPINENET,
            "other cohort, volumes, trained on thousands",
            needs=PRESENCE,
        ),
        Published(
            "cohen_kappa_presence",
            0.63,
            75,
            "examinations",
            GAO,
            "other cohort and network",
            needs=PRESENCE,
        ),
        Published(
            "cohen_kappa_presence",
            0.52,
            75,
            "examinations",
            f"{GAO}, readers",
            "a junior against a senior radiologist; no model is meant",
            needs=PRESENCE,
        ),
    )

    def __init__(self, options: Options, find: BoxDetection, graders: Sequence[PairedDiscGrading]):
        self.options, self.find = options, find
        self.graders = {g.normalisation: g for g in graders}
        self.stages = (find, *graders)
        reported = [h for h in graders[0].heads if h.name in REPORTED]
        self.tasks = tuple(GradingTask(GRADINGS[h.name], h) for h in reported)
        words = {
            name: name.replace("_", " ").replace("z score", "z-score") for name in self.graders
        }
        self.comparison = Comparison(
            words,
            STANDARD if STANDARD in self.graders else next(iter(self.graders)),
            "Normalisations",
            "Normalisation",
            "Same folds, seeds, boxes and recipe; differences are paired over patients, on the same"
            " resamples.  An interval that holds 0 does not tell the two apart.",
        )

    def stratum(self, study: Study) -> int | None:
        """Boxed or not, and whether any disc has a Modic change."""
        modic = np.asarray(study["boxes"]["modic"])
        return 2 * int(bool(study["has_boxes"])) + int((modic > 0).any()) if len(modic) else None

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

    def measure(self, studies: Sequence[Study]) -> dict[str, Any]:
        """The detector's canvas; raises UserError if a Modic type has too few discs for a class."""
        if any(t.grading.task == "modic" for t in self.tasks):
            check_counts(studies)
        return super().measure(studies)

    def fit(self, studies: Sequence[Study], train: Sequence[int]) -> dict[str, Any]:
        """Landmarks of the intensities, where that normalisation is compared."""
        if "landmarks" not in self.graders:
            return {}
        learnt = fit_landmarks(studies, train)
        return {"landmarks": {name: dataclasses.asdict(marks) for name, marks in learnt.items()}}

    def recut(self, studies: Sequence[Study], predict: Predict) -> Sequence[Study]:
        """Boxes that the detector found for discs that have none."""
        return _Boxed(studies, [self._filled(studies[i], predict) for i in range(len(studies))])

    def _filled(self, study: Study, predict: Predict) -> dict[str, np.ndarray]:
        """The table of boxes; unboxed discs get what the detector found, if it found all."""
        table: dict[str, np.ndarray] = study["boxes"]
        levels = np.asarray(table["level"])
        missing = np.flatnonzero(np.asarray(table["boxed"]) == 0)
        if not len(missing):
            return table
        located = self.locate([study], predict)[0]
        by_level = {d.level: d for d in located.regions}
        # More discs than were graded are common at the upper end of the image and do no harm.
        if located.found["gaps"] or not set(levels.tolist()) <= set(by_level):
            return table
        new = {k: np.array(v) for k, v in table.items()}
        for row in missing:
            disc = by_level[int(levels[row])]
            new["boxed"][row], new["slice"][row], new["box"][row] = 1, disc.slice, disc.box
        return new

    def locate(self, studies: Sequence[Study], predict: Predict) -> list[Located]:
        """The row of discs among the detections; ``found`` has all of these and what is amiss."""
        inputs = [self.find.inference_examples(s) for s in studies]
        outputs = predict_parts(predict, self.find.name, inputs)
        located = []
        for study, output in zip(studies, outputs, strict=True):
            found = self.find.decode(study, output)
            discs = [
                Disc(0, found.slice, as_box(box), float(score))
                for box, score in zip(found.boxes, found.scores, strict=True)
            ]
            spacing, confidence = spacing_of(study), self.find.options.confidence
            centres = np.array([d.centre(spacing) for d in discs]).reshape(-1, 2)
            order = assign_levels(centres, found.scores, found.lowest, confidence)
            numbered = [
                dataclasses.replace(discs[i], level=int(level))
                for i, level in zip(order.kept, order.levels, strict=True)
            ]
            amiss = {"gaps": order.gaps, "left_out": order.left_out}
            located.append(Located(numbered, found={"detections": found, **amiss}))
        return located

    def reference(self, study: Study) -> Located:
        """The boxed discs."""
        return Located(boxed_discs(study)[0])

    def cut(self, grader: Any, study: Study, located: Located) -> Examples:
        """A crop per disc."""
        return grader.cut(study, located.regions)

    @property
    def label_names(self) -> dict[str, dict[int, str]]:
        """The levels."""
        return {"": LEVELS}

    def spot(self, region: Disc) -> Spot:
        """The box on its slice."""
        return spot_of((region.slice, region.box), region.level, region.level, region.score)

    def grades(self, study: Study) -> Mapping[str, Mapping[str, int]]:
        """The discs that have a level and any grade."""
        table = study["boxes"]
        columns = sorted({HEADS[name].column or name for name in REPORTED})
        rows = {
            int(level): {c: int(table[c][i]) for c in columns}
            for i, level in enumerate(table["level"])
            if int(level) > 0
        }
        known = {level: g for level, g in sorted(rows.items()) if any(v >= 0 for v in g.values())}
        return {case_id(study, level): grades for level, grades in known.items()}

    def pairs(self, study: Study, located: Located) -> Mapping[str, int | None]:
        """By overlap where the level has a reference box, else by the level that was given."""
        partners = _partners(located.regions, boxed_discs(study)[0])
        by_level = {d.level: i for i, d in enumerate(located.regions)}
        return {
            case: partners.get(level, by_level.get(level))
            for case, level in ((c, level_of(c)) for c in self.grades(study))
        }

    def features(self, study: Study, located: Located) -> np.ndarray:
        """See `grading.hand_features`."""
        return hand_features(study, located.regions)

    def region_rows(self, study: Study, reading: Reading) -> list[Row]:
        """A row per detection and reference box, and one on levels."""
        reference, located = boxed_discs(study)[0], reading.located
        if not reference or located.found is None:
            return []
        found = located.found["detections"]
        partners = _partners(located.regions, reference)
        matched = {level: i for level, i in partners.items() if i is not None}
        return [
            *box_rows(
                zip(found.boxes, found.scores, strict=True), ((r.box, r.level) for r in reference)
            ),
            {
                "kind": "regions",
                "regions_reference": len(partners),
                "regions_found": len(matched),
                "levels_right": sum(
                    located.regions[i].level == level for level, i in matched.items()
                ),
                "gaps": located.found["gaps"],
                "left_out": located.found["left_out"],
            },
        ]

    def region_figures(self, rows: Sequence[Row], settings: Mapping[str, int]) -> dict[str, Any]:
        """AP, overlap and levels, over the studies with reference boxes."""
        figures = box_figures(rows, self.find.options.confidence, settings)
        if not figures:
            return {}
        levels = [r for r in rows if r["kind"] == "regions"]
        shares = {"level_accuracy": ("levels_right", "regions_found")}
        return (
            figures
            | estimates.ratios(levels, shares, **settings)
            | estimates.means(levels, ("gaps", "left_out"), **settings)
        )

    def case_columns(self, study: Study, case: str, located: Located, number: int | None) -> Row:
        """Level, whether the disc is boxed and in the image, and the level of the one found."""
        boxed = level_of(case) in _partners([], boxed_discs(study)[0])
        own = super().case_columns(study, case, located, number)
        shown: bool | None = boxed or number is not None
        if not shown:
            shown = is_shown(study, level_of(case), located.regions)
        reference = {"boxed": int(boxed), "in_image": "" if shown is None else int(shown)}
        return {"name": own["name"], "level": own["level"], **reference, **own}

    def picture(
        self, study: Study, reading: Reading, reference: Study | None, phantom: bool
    ) -> bytes:
        """T1 and T2 with reference boxes and the boxes found, each with level and call."""
        given = boxed_discs(reference)[0] if reference else []
        discs = list(reading.located.regions)
        shown = (discs or given or [Disc(0, 0, (0, 0, 0, 0))])[0].slice
        boxes = [(*d.box, REFERENCE_COLOUR, "") for d in given]
        names = self.tasks[0].grading.classes
        for i, disc in enumerate(discs):
            said = f"{level_name(disc.level)} {names[self.call(reading, i)]}"
            boxes.append((*disc.box, FOUND_COLOUR, said))
        panels = [
            pictures.Panel(
                name.upper(),
                study[name][shown],
                pixel_of(study),
                boxes=tuple(boxes),
                letters=letters_of(study),
            )
            for name in (("t1", "t2") if study["has_t1"] else ("t2",))
        ]
        panels += self.grad_cams(reading, reference)
        title = [titled(study, shown, len(study["t2"])), "Boxes: orange found, green reference"]
        return pictures.sheet(panels, title, phantom=phantom, scale_bar=sized(study))


def check(config: StudyConfig) -> None:
    """Parses all options of the system; raises UserError before any work is done."""
    build(config)


def build(config: StudyConfig, fitted: Mapping[str, Any] = NOTHING) -> ModicChanges:
    """The system, with what was measured and fitted, see `System.measure` and `System.fit`."""
    find, grade, options = stage_options(config, STAGES, Options)
    unknown = set(grade.heads) - set(HEADS)
    if unknown or not grade.heads or grade.heads[0] not in ("modic", "presence"):
        raise UserError(
            f"config.stages.grades.heads is {grade.heads}; the first must be modic or presence, the"
            f" others any of {', '.join(HEADS)}."
        )
    smallest = 2 ** len(find.model.widths)
    heads = tuple(HEADS[name] for name in grade.heads)
    graders = [
        PairedDiscGrading(
            f"grades_{name}",
            grade,
            heads,
            name,
            _landmarks(fitted) if name == "landmarks" else None,
        )
        for name in options.normalisations
    ]
    size = canvas_in(fitted, "boxes", (smallest, smallest))
    return ModicChanges(options, BoxDetection("boxes", find, size), graders)


def _landmarks(fitted: Mapping[str, Any]) -> tuple[Landmarks, Landmarks] | None:
    if "landmarks" not in fitted:
        return None
    t1, t2 = (
        Landmarks(**{field: tuple(values) for field, values in fitted["landmarks"][name].items()})
        for name in SEQUENCES
    )
    return t1, t2


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
