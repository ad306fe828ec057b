"""Lumbar disc degeneration on sagittal T2: a U-Net finds the discs, SpineNet's grader grades them.

After Ding et al., Chin J Clin Res 2024;37(5):709-713: U-Net, then SpineNet, mild / moderate /
severe.  Theirs: the two networks, the three classes, the outlined structures.  Open and therefore
ours (fields of the config): which Pfirrmann grades make a class, network sizes, the recipe, and
the division, which is by patient here and was by disc there.  The grader follows Jamaludin et al.,
Med Image Anal 2017;41:63-73.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mskjax import cases
from mskjax.config import StudyConfig
from mskjax.data.pipeline import Examples
from mskjax.errors import UserError
from mskjax.imaging import regions
from mskjax.imaging.levels import level_name
from mskjax.imaging.regions import Region
from mskjax.metrics import estimates
from mskjax.metrics.grading import Grading
from mskjax.metrics.structures import NSD_TOLERANCE_MM
from mskjax.reporting import pictures
from mskjax.stages.crop_grading import CropGradingOptions
from mskjax.stages.slice_segmentation import SliceSegmentation
from mskjax.stages.volume_segmentation import (
    SegmentationOptions,
    VolumeSegmentation,
    segmentation,
)
from mskjax.systems.disc_degeneration.discs import (
    DISC,
    HEADS,
    VERTEBRA,
    DiscGrading,
    grade_columns,
    graded_discs,
    hand_features,
    reference_discs,
)
from mskjax.tables import Row
from mskjax.training.stage import Study
from mskjax.two_stage.discs import LEVELS, GradedDiscs, case_id
from mskjax.two_stage.grading_task import GradingTask
from mskjax.two_stage.options import NOTHING, canvas_in, stage_options
from mskjax.two_stage.regions_then_grades import Located, Reading
from mskjax.two_stage.structures import structure_rows
from mskjax.two_stage.system import (
    Predict,
    Published,
    Spot,
    letters_of,
    pixel_of,
    predict_parts,
    sized,
    titled,
)

STRUCTURES = ("vertebra", "disc", "canal")  # labels 1, 2, 3
COLOURS = {1: ("vertebra", (86, 180, 233)), 2: ("disc", (230, 159, 0)), 3: ("canal", (0, 158, 115))}
SEVERITY = ("mild", "moderate", "severe")
PFIRRMANN = Grading("pfirrmann", ("i", "ii", "iii", "iv", "v"), ordinal=True)
# Figure -> (numerator, denominator), columns of the rows of regions.
SHARES = {
    "disc_detection_sensitivity": ("regions_found", "regions_reference"),
    "extra_discs_per_study": ("regions_extra", "studies"),
    "level_accuracy": ("levels_right", "regions_found"),
    "graded_without_region": ("graded_without_region", "graded"),
}

DING = "Ding et al., Chin J Clin Res 2024;37(5):709-713"
THEIRS = (
    "94 patients of one centre, 2-D T2; discs, not patients, were divided, so discs of one patient"
    " lie on both sides; interval not given"
)
# Of vertebrae and discs one by one, where ours are of all of a structure as one.
BASELINE = "SPIDER's own baseline (van der Graaf et al. 2024)"
HIDDEN = (
    "hidden test patients of the cohort that the variants spider and spider_t2space are from; Dice"
    " of each vertebra and disc, over T1, T2 and T2-SPACE"
)
SPINENET = "SpineNet, external (NFBC1966)"
NIEMEYER = "Niemeyer et al. 2021"

STAGES = {"regions": SegmentationOptions, "grades": CropGradingOptions}


@dataclasses.dataclass(frozen=True)
class Options:
    """Options of the system.

    Attributes:
      severity: Pfirrmann grades that are mild, moderate and severe (open in the paper).
    """

    severity: tuple[tuple[int, ...], ...] = ((1, 2), (3,), (4, 5))

    def __post_init__(self) -> None:
        grades = sorted(g for part in self.severity for g in part)
        if grades != [1, 2, 3, 4, 5] or len(self.severity) != len(SEVERITY):
            raise UserError(
                f"config.options.severity is {self.severity}; it must divide the grades 1 to 5 into"
                " mild, moderate and severe."
            )

    def of_grade(self) -> tuple[int, ...]:
        """Class of each Pfirrmann grade."""
        return tuple(
            next(k for k, part in enumerate(self.severity) if grade in part)
            for grade in range(1, 6)
        )


class DiscDegeneration(GradedDiscs):
    """See the module."""

    name = "disc_degeneration"
    structures = STRUCTURES
    labels = ("levels",)
    strata = SEVERITY
    title = "Lumbar disc degeneration: U-Net and SpineNet's grader on sagittal T2"
    lead = "quadratic_weighted_kappa"
    rules = (
        "A held-out patient's discs are graded on the regions that the same fold's own U-Net"
        " predicted; oracle_region repeats the figures on the reference regions.",
        "Predicted discs are matched to reference discs one to one by largest IoU (above .1)."
        " A missed disc is an error: it is right in no class, disagrees as much as two grades can"
        " in kappa, and has probability 0 for its own class.",
        "The predicted Pfirrmann grade is the expectation of the predicted distribution, rounded,"
        " which minimises the expected squared error that quadratic kappa counts; the severity is"
        " its class of largest probability.",
        "Dice, IoU, PPV, sensitivity and surface metrics are computed per study in 3-D on the"
        " native grid and averaged over patients. A structure that is absent from reference and"
        " prediction is left out; absent from the reference alone it scores 0 overlap.",
        "A graded level without a disc in the reference mask is no case: nobody knows where it is,"
        " or the images do not show it. graded_without_region is their share of the graded levels.",
        f"NSD uses a tolerance of {NSD_TOLERANCE_MM:g} mm.",
        "Intervals are 95 % patient-bootstrap percentile intervals.",
    )
    limits = (
        "Which Pfirrmann grades are mild, moderate and severe is open in the paper; ours are in"
        " the recipe.",
    )
    published = (
        Published("dice_disc", 0.920, 94, "patients", DING, THEIRS),
        Published("iou_disc", 0.853, 94, "patients", DING, THEIRS),
        Published(
            "accuracy_severity",
            0.913,
            94,
            "discs",
            DING,
            THEIRS + "; the interval is our Wilson interval of 86 / 94",
            (0.84, 0.96),
        ),
        Published(
            "balanced_accuracy_severity", 0.916, 94, "discs", DING, THEIRS + "; their sensitivity"
        ),
        Published("specificity_macro_severity", 0.912, 94, "discs", DING, THEIRS),
        Published("auroc_mild_vs_moderate_severity", 0.89, 94, "discs", DING, THEIRS),
        Published("auroc_mild_vs_severe_severity", 0.95, 94, "discs", DING, THEIRS),
        Published("auroc_moderate_vs_severe_severity", 0.90, 94, "discs", DING, THEIRS),
        Published("dice_vertebra", 0.93, 39, "patients, 87 series", BASELINE, HIDDEN),
        Published("dice_disc", 0.84, 39, "patients, 87 series", BASELINE, HIDDEN),
        Published("dice_canal", 0.92, 39, "patients, 87 series", BASELINE, HIDDEN),
        Published(
            "dice_vertebra",
            0.929,
            39,
            "patients of SPIDER",
            "SPINEPS, arXiv 2402.16368",
            "of each vertebra; their own division of SPIDER, on which nnU-Net has .907; their disc"
            " Dice of .967 is of another cohort",
        ),
        Published(
            "quadratic_weighted_kappa_pfirrmann",
            0.86,
            1_331,
            "people",
            SPINENET,
            "Lin's concordance, which the quadratic kappa approaches; other cohort, trained on"
            " thousands",
        ),
        Published(
            "cohen_kappa_pfirrmann",
            0.68,
            1_331,
            "people",
            SPINENET,
            "other cohort, trained on thousands",
        ),
        Published(
            "balanced_accuracy_pfirrmann",
            0.78,
            1_331,
            "people",
            SPINENET,
            "other cohort, trained on thousands",
        ),
        Published(
            "cohen_kappa_pfirrmann",
            0.92,
            1_599,
            "patients",
            NIEMEYER,
            "unweighted; other cohort, other network, 50 times the patients",
        ),
        Published(
            "within_one_grade_pfirrmann",
            0.992,
            1_599,
            "patients",
            NIEMEYER,
            "other cohort, other network, 50 times the patients",
        ),
        Published(
            "cohen_kappa_pfirrmann",
            0.6,
            None,
            "readers",
            f"agreement between readers, as {NIEMEYER} sum it up",
            "between readers, .8 within a reader; no model is meant",
        ),
    )

    def __init__(
        self,
        options: Options,
        find: SliceSegmentation | VolumeSegmentation,
        grade: DiscGrading,
    ):
        self.options, self.find, self.grade = options, find, grade
        self.stages = (find, grade)
        self.graders = {cases.MODEL: grade}
        head = HEADS["pfirrmann"]
        severity = Grading("severity", SEVERITY)
        self.tasks = (
            GradingTask(PFIRRMANN, head),
            GradingTask(severity, head, groups=options.of_grade()),
        )

    def stratum(self, study: Study) -> int | None:
        """Severity of the study's median grade; None where nothing is graded."""
        grades = grade_columns(study)["pfirrmann"]
        grades = np.sort(grades[grades > 0])
        return self.options.of_grade()[grades[len(grades) // 2] - 1] if len(grades) else None

    def locate(self, studies: Sequence[Study], predict: Predict) -> list[Located]:
        """The row of discs in the U-Net's mask; ``found`` has their level map and what is amiss."""
        inputs = [self.find.inference_examples(s) for s in studies]
        outputs = predict_parts(predict, self.find.name, inputs)
        located = []
        for study, output in zip(studies, outputs, strict=True):
            mask = self.find.decode(study, output)
            pieces, _ = regions.disc_regions(mask == DISC, study["affine"])
            discs, row = regions.spine_row(pieces, study["affine"])
            levels = np.zeros(mask.shape, np.uint8)
            for disc in discs:
                levels[disc.slices][disc.mask] = disc.level
            amiss = {"gaps": row.gaps, "left_out": row.left_out}
            located.append(Located(discs, mask, {"levels": levels, **amiss}))
        return located

    def reference(self, study: Study) -> Located:
        """The discs of the reference mask with the cohort's level numbers."""
        discs, levels = reference_discs(study)
        return Located(discs, study["mask"], {"levels": levels})

    def cut(self, grader: Any, study: Study, located: Located) -> Examples:
        """A crop per disc; intensities relative to the vertebrae of the same mask."""
        return grader.cut(study, located.regions, located.mask == VERTEBRA)

    @property
    def label_names(self) -> dict[str, dict[int, str]]:
        """The structures; and in a map of their own the levels of the discs."""
        return {**super().label_names, "levels": LEVELS}

    def masks(self, study: Study, reading: Reading) -> dict[str, np.ndarray]:
        """The structures, and the discs by level."""
        return {**super().masks(study, reading), "levels": reading.located.found["levels"]}

    def spot(self, region: Region) -> Spot:
        """The disc's bounding box."""
        bounds = np.array([(s.start, s.stop) for s in region.slices], np.float64)
        return Spot(bounds, DISC, region.level)

    def grades(self, study: Study) -> Mapping[str, Mapping[str, int]]:
        """The discs that have a Pfirrmann grade and a reference region."""
        columns = graded_discs(study)[1]
        return {
            case_id(study, level): {name: int(values[i]) for name, values in columns.items()}
            for i, level in enumerate(columns["level"].tolist())
        }

    def pairs(self, study: Study, located: Located) -> Mapping[str, int | None]:
        """Found discs matched to reference discs one to one by largest IoU."""
        matched, _ = regions.match_regions(located.found["levels"], study["disc_levels"])
        numbers = {disc.level: number for number, disc in enumerate(located.regions)}
        return {case_id(study, k): numbers.get(v) for k, v in matched.items()}

    def features(self, study: Study, located: Located) -> np.ndarray:
        """See `discs.hand_features`."""
        vertebra = located.mask == VERTEBRA
        return np.array([hand_features(study, disc, vertebra) for disc in located.regions])

    def region_rows(self, study: Study, reading: Reading) -> list[Row]:
        """A row per structure, and one for the detection of discs."""
        located = reading.located
        rows, step = [], self.find.options.spacing_mm
        if study["has_mask"]:
            rows = structure_rows(study, located.mask, STRUCTURES, (None, step, step))
        if not study["disc_levels"].any():
            return rows
        matched, extra = regions.match_regions(located.found["levels"], study["disc_levels"])
        found = {level: own for level, own in matched.items() if own is not None}
        graded = int((grade_columns(study)["pfirrmann"] > 0).sum())
        counts: Row = {
            "kind": "regions",
            "regions_reference": len(matched),
            "regions_found": len(found),
            "regions_extra": len(extra),
            "levels_right": sum(a == b for a, b in found.items()),
            "gaps": located.found["gaps"],
            "left_out": located.found["left_out"],
            "graded": graded,
            "graded_without_region": graded - len(self.grades(study)),
        }
        return [*rows, counts]

    def region_figures(self, rows: Sequence[Row], settings: Mapping[str, int]) -> dict[str, Any]:
        """Overlap and surfaces of the structures; discs found, extra ones, and levels."""
        structures = [r for r in rows if r["kind"] == "structure"]
        counts = [{**r, "studies": 1} for r in rows if r["kind"] == "regions"]
        return (
            estimates.structures(structures, STRUCTURES, **settings)
            | estimates.ratios(counts, SHARES, **settings)
            | estimates.means(counts, ("gaps", "left_out"), **settings)
        )

    def picture(
        self, study: Study, reading: Reading, reference: Study | None, phantom: bool
    ) -> bytes:
        """The slice that shows most disc, with reference and called grades beside the discs."""
        located = reading.located
        given = reference["mask"] if reference and reference["has_mask"] else None
        s = int(np.argmax(((located.mask if given is None else given) == DISC).sum((1, 2))))
        notes = []
        for level, number, known, where in self._places(reading, reference, s):
            ours = "not found"
            if number is not None:
                ours = PFIRRMANN.classes[self.call(reading, number)].upper()
            text = ours if known is None else f"{PFIRRMANN.classes[known].upper()}/{ours}"
            text = f"{level_name(level)} {text}"
            # Behind the disc, over the canal: the disc itself stays visible.
            row, column = where[:, 0].mean(), where[:, 1].max() + np.ptp(where[:, 1]) / 2
            notes.append((float(row), float(column), text))
        return pictures.overlay(
            study["image"][s],
            None if given is None else given[s],
            located.mask[s],
            spacing=pixel_of(study),
            labels=COLOURS,
            title=[
                titled(study, s, len(study["image"])),
                "Pfirrmann: predicted" if given is None else "Pfirrmann: reference/predicted",
            ],
            annotations=notes,
            further=self.grad_cams(reading, reference),
            letters=letters_of(study),
            phantom=phantom,
            scale_bar=sized(study),
        )

    def _places(self, reading: Reading, reference: Study | None, s: int) -> list[Any]:
        """(level, number of the found disc, reference class, pixels) of discs in a slice.

        Of a study without reference, the found discs.
        """
        located = reading.located
        if reference is None:
            discs: list[Any] = [
                (d.level, i, None, located.found["levels"][s] == d.level)
                for i, d in enumerate(located.regions)
            ]
        else:
            pairs = self.pairs(reference, located)
            discs = [
                (
                    grades["level"],
                    pairs.get(case),
                    self.tasks[0].class_of(grades),
                    reference["disc_levels"][s] == grades["level"],
                )
                for case, grades in self.grades(reference).items()
            ]
        return [(k, n, known, np.argwhere(at)) for k, n, known, at in discs if at.any()]


def check(config: StudyConfig) -> None:
    """Parses all options of the system; raises UserError before any work is done."""
    build(config)


def build(config: StudyConfig, fitted: Mapping[str, Any] = NOTHING) -> DiscDegeneration:
    """The system, with what was measured and fitted, see `System.measure` and `System.fit`."""
    find, grade, options = stage_options(config, STAGES, Options)
    unknown = set(grade.heads) - set(HEADS)
    if unknown or grade.heads[:1] != ("pfirrmann",):
        raise UserError(
            f"config.stages.grades.heads is {grade.heads}; the first must be pfirrmann, the others"
            f" any of {', '.join(HEADS)}."
        )
    return DiscDegeneration(
        options,
        segmentation("regions", find, STRUCTURES, canvas_in(fitted, "regions", find.smallest)),
        DiscGrading("grades", grade, tuple(HEADS[name] for name in grade.heads)),
    )
