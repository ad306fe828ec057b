"""Humerus and scapula on shoulder MRI: U-Nets and a block-wise AlexNet vote, AlexNet refines edges.

After Comput Methods Programs Biomed 2021;211:106325 and its near-identical sister 2021;200:105862.
Theirs: three U-Nets (humerus; articular bone, here the scapula; both as one) and an AlexNet that
classifies blocks propose bone, a vote fixes the location, AlexNet refines the edge pixel by pixel;
8 patients of about 100 images, five of them in five-fold cross-validation and three for test.
Open and therefore ours (fields of the config): the rule of the vote, block size and stride, width
of the band, losses, recipe, sequence.
"""

import dataclasses
import types
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from mskjax import subgroups
from mskjax.config import StudyConfig
from mskjax.errors import UserError
from mskjax.metrics import estimates
from mskjax.metrics.intervals import paired_patient_bootstrap
from mskjax.metrics.segmentation import mean_over_cases
from mskjax.metrics.structures import NSD_TOLERANCE_MM, score_structures
from mskjax.reporting import pictures
from mskjax.reporting.key import MINUS
from mskjax.systems.shoulder_bones.edges import BoneEdges, BoneEdgesOptions
from mskjax.systems.shoulder_bones.proposals import (
    ALEXNET,
    STRUCTURES,
    UNETS,
    BoneProposals,
    BoneProposalsOptions,
    member_masks,
    voters,
    without_crumbs,
)
from mskjax.tables import Row, floats
from mskjax.training.stage import Study
from mskjax.two_stage.options import NOTHING, canvas_in, stage_options
from mskjax.two_stage.structures import dice_ceilings
from mskjax.two_stage.system import (
    Predict,
    Published,
    System,
    letters_of,
    pixel_of,
    predict_parts,
    sized,
    spacing_of,
    titled,
)

BONE = "bone"  # both structures as one
COLOURS = {1: ("humerus", (86, 180, 233)), 2: ("scapula", (230, 159, 0))}
VOTE, FINAL, BAND = "vote", "vote_and_edge", "reference_band"
# What each method segments; a U-Net knows its own structure only.
SCORED: Mapping[str, tuple[str, ...]] = {
    **{name: (name.removeprefix("unet_"),) for name in UNETS[:2]},
    "unet_both": (BONE,),
    **dict.fromkeys((ALEXNET, VOTE, FINAL, BAND), (*STRUCTURES, BONE)),
}
TITLES = {
    "unet_humerus": "U-Net, humerus",
    "unet_scapula": "U-Net, scapula",
    "unet_both": "U-Net, both as one",
    ALEXNET: "AlexNet, blocks",
    VOTE: "Vote",
    FINAL: "Vote and edge",
    BAND: "Edge, reference band",
}
NETWORKS = (*UNETS, ALEXNET)
TABLE = {"dice": "Dice", "ppv": "PPV", "sensitivity": "Sensitivity", "nsd": "NSD", "hd95": "HD95"}
LEAST_DICE = 0.8  # of a structure that is not marked as a failure among the pictures

FIRST = "Comput Methods Programs Biomed 2021;211:106325"
SISTER = "Comput Methods Programs Biomed 2021;200:105862"
THEIRS = (
    "8 patients of one centre, five in five-fold cross-validation and three for test; sequence,"
    " vote, band and recipe are not published, nor which bones a figure is of"
)
RODRIGUES = "Rodrigues 2020"
OTHER = "another method, sequence and cohort"

STAGES = {"proposals": BoneProposalsOptions, "edges": BoneEdgesOptions}


@dataclasses.dataclass(frozen=True)
class Reading:
    """What the system says of one study.

    Attributes:
      masks: method -> (S, H, W) uint8 on the native grid: 0 background, 1 humerus, 2 scapula; of
        the U-Net for both as one, 1 is bone.
    """

    masks: Mapping[str, np.ndarray]


class ShoulderBones(System):
    """See the module.

    No feature of a study is a label that a control run could exchange: the reference is a mask on
    the grid of its own image, and another patient's does not fit there.
    """

    name = "shoulder_bones"
    title = "Humerus and scapula: three U-Nets and a block-wise AlexNet vote, AlexNet refines edges"
    labels = ()
    structures = STRUCTURES
    primary = "dice_humerus"
    segmenter = FINAL
    rules = (
        "All figures are three-dimensional, of one study on its native grid, and averaged over"
        f" patients' studies.  NSD uses a tolerance of {NSD_TOLERANCE_MM:g} mm.",
        "Bone is humerus and scapula as one, which is all that the third U-Net knows.",
        "A structure is elected by its own U-Net, the U-Net of both as one and AlexNet, by the rule"
        " in the recipe; a pixel that both structures win goes to the one whose voters have the"
        " higher mean probability.",
        "The networks alone are scored as they are; vote and refined edge lose the parts of a"
        " structure that are small beside its largest one, by the rule in the recipe.",
        "AlexNet classifies every pixel of a band around the elected edge, alone or together with"
        " the voters, by the rule in the recipe, and pixels outside it keep the vote.  It was"
        " trained on the band around the reference edge.",
        "oracle_region gives AlexNet, alone, the band around the reference edge, and the reference"
        " outside it: what the second stage could reach after a perfect vote.",
        "A structure that is missed has Dice, NSD and sensitivity 0 and an infinite distance; a"
        " mean distance is then not defined.",
        f"A picture is marked as a failure where a structure's Dice is below {LEAST_DICE:g}.",
        "Intervals are 95 % patient-bootstrap percentile intervals over all folds pooled; with as"
        " few patients as here they are too narrow rather than too wide.",
    )
    limits = (
        "Vote, blocks, stride, band and recipe of the papers are open; ours are in the recipe.",
        "There is no control with shuffled labels: a mask fits no other patient's image.",
    )
    answers: Mapping[str, str] = types.MappingProxyType(
        {
            "ensembling": "Three U-Nets and a block-wise AlexNet elect each structure by the vote"
            " in the recipe; the ablation has each of them alone."
        }
    )
    published = (
        Published("dice_bone", 0.91, 8, "patients", FIRST, THEIRS, spread="SD .02"),
        Published(
            "ppv_bone",
            0.95,
            8,
            "patients",
            FIRST,
            f"{THEIRS}; with PPV and sensitivity of .95 a Dice near .95 is expected, not .91",
            spread="SD .03",
        ),
        Published("sensitivity_bone", 0.95, 8, "patients", FIRST, THEIRS, spread="SD .02"),
        Published("dice_bone", 0.96, 8, "patients", SISTER, THEIRS),
        Published("ppv_bone", 0.97, 8, "patients", SISTER, THEIRS),
        Published("sensitivity_bone", 0.94, 8, "patients", SISTER, THEIRS),
        Published("dice_humerus", 0.95, 100, "patients", RODRIGUES, OTHER),
        Published("dice_scapula", 0.86, 100, "patients", RODRIGUES, f"{OTHER}; of the glenoid"),
    )

    def __init__(self, propose: BoneProposals, refine: BoneEdges):
        self.propose, self.refine = propose, refine
        self.stages = (propose, refine)

    def stratum(self, study: Study) -> int | None:
        """Studies have no class."""
        return None

    def cases(self, study: Study) -> list[str]:
        """Each structure of the reference mask."""
        return [
            f"{study['study_id']}/{name}"
            for label, name in enumerate(STRUCTURES, 1)
            if study["has_mask"] and (study["mask"] == label).any()
        ]

    def read(self, studies: Sequence[Study], predict: Predict, regions: str) -> list[Reading]:
        """See `System.read`; the region is the mask whose edge is refined."""
        if regions == "reference":
            return [Reading({BAND: self._refined(s, s["mask"], predict)}) for s in studies]
        inputs = [self.propose.inference_examples(s) for s in studies]
        outputs = predict_parts(predict, self.propose.name, inputs)
        readings = []
        for study, found in zip(studies, outputs, strict=True):
            probabilities = self.propose.members(study, found)
            elected = self.propose.elect(probabilities)
            final = self._refined(study, elected, predict, voters(probabilities))
            readings.append(Reading({**member_masks(probabilities), VOTE: elected, FINAL: final}))
        return readings

    def masks(self, study: Study, reading: Reading) -> dict[str, np.ndarray]:
        """The refined structures."""
        return {"": reading.masks[FINAL if FINAL in reading.masks else BAND]}

    def fit_baselines(self, studies: Iterable[Study]) -> dict[str, Any]:
        """Nothing is fitted: the baselines are the vote and each network alone."""
        return {}

    def score(
        self, study: Study, predicted: Reading, oracle: Reading, baselines: Mapping[str, Any]
    ) -> list[Row]:
        """A row of each structure by each method."""
        if not study["has_mask"]:
            return []
        who = {"patient": study["patient_id"], "study": study["study_id"], "kind": "structure"}
        cases = self.cases(study)
        rows: list[Row] = []
        for method, mask in {**predicted.masks, **oracle.masks}.items():
            for name in SCORED[method]:
                values = score_one(study, mask, name)
                if method in UNETS:
                    values["dice_ceiling"] = self._ceiling(study, name)
                row: Row = {**who, "method": method, "name": name, **values}
                if method == FINAL and (case := f"{study['study_id']}/{name}") in cases:
                    row |= {"case": case, "wrong": int(values["dice"] < LEAST_DICE)}
                    row |= {"side": study.get("side", "")} | subgroups.columns(study)
                rows.append(row)
        return rows

    def picture(
        self, study: Study, reading: Reading, reference: Study | None, phantom: bool
    ) -> bytes:
        """The slice with most bone: reference, vote, refined edge."""
        outlined = reference["mask"] if reference and reference["has_mask"] else None
        shown = reading.masks[FINAL] if outlined is None else outlined
        s = int(np.argmax((shown > 0).sum((1, 2))))
        pixel = pixel_of(study)
        masks = {} if outlined is None else {"Reference": outlined}
        masks |= {TITLES[name]: reading.masks[name] for name in (VOTE, FINAL)}
        letters = letters_of(study)
        panels = [pictures.Panel("Image", study["image"][s], pixel, letters=letters)]
        panels += [
            pictures.Panel(name, study["image"][s], pixel, mask[s], letters=letters)
            for name, mask in masks.items()
        ]
        title = [titled(study, s, len(shown))]
        return pictures.sheet(
            panels, title, labels=COLOURS, phantom=phantom, scale_bar=sized(study)
        )

    def facts(self, rows: Sequence[Row]) -> list[tuple[str, str]]:
        """Dice of each structure by vote, and by vote and edge."""
        dice = {(r["method"], r["name"]): r["dice"] for r in rows}
        return [
            (f"Dice, {name}, {TITLES[method].lower()}", f"{float(dice[method, name]):.3f}")
            for name in STRUCTURES
            for method in (VOTE, FINAL)
            if dice.get((method, name))
        ]

    def summarise(self, rows: Sequence[Row], resamples: int, seed: int) -> dict[str, Any]:
        """See `System.summarise`."""
        settings = {"resamples": resamples, "seed": seed}
        own = {name: [r for r in rows if r["method"] == name] for name in SCORED}
        figures = {
            name: estimates.structures(own[name], SCORED[name], **settings) for name in SCORED
        }
        proposals = {
            f"{metric}_{name}": figure
            for name in NETWORKS
            for metric, figure in figures[name].items()
        }
        return {
            "stages": {self.propose.name: proposals, self.refine.name: figures[BAND]},
            "end_to_end": figures[FINAL],
            "oracle_region": figures[BAND],
            "baselines": {name: figures[name] for name in (VOTE, *NETWORKS)}
            | {
                f"{MINUS}{name}": _minus(own[FINAL], own[name], SCORED[name], **settings)
                for name in (VOTE, *NETWORKS)
            },
            "folds": estimates.structures_over_folds(own[FINAL], SCORED[FINAL], tuple(TABLE)),
            "tables": [*ablation(figures), differences(own, **settings)],
            "tables_title": "Ablation",
        }

    def _ceiling(self, study: Study, name: str) -> float:
        """Dice of a structure that the grid of the U-Nets leaves, see `dice_ceilings`."""
        step = self.propose.options.spacing_mm
        own = _binary(study["mask"], name)
        return dice_ceilings(own, study["affine"], (name,), (None, step, step))[name]

    def _refined(
        self, study: Study, mask: np.ndarray, predict: Predict, believed: np.ndarray | None = None
    ) -> np.ndarray:
        refined = self.refine.refine(study, mask, lambda e: predict(self.refine.name, e), believed)
        return without_crumbs(refined, self.propose.options.smallest_part)


def check(config: StudyConfig) -> None:
    """Checks all options; raises UserError before any work is done."""
    system = build(config)
    if config.data.shuffle_labels:
        raise UserError(
            "config.data.shuffle_labels is True, but the label of shoulder_bones is a mask, which"
            " fits no other patient's image; leave it False."
        )
    if config.data.split == "by_case":
        raise UserError(
            "config.data.split is by_case, but the two structures of one image cannot be on both"
            " sides; use folds or official."
        )
    for stage in (system.propose, system.refine):
        stage.check_size()


def build(config: StudyConfig, fitted: Mapping[str, Any] = NOTHING) -> ShoulderBones:
    """The system, with what was measured and fitted, see `System.measure` and `System.fit`."""
    propose, refine = stage_options(config, STAGES)
    return ShoulderBones(
        BoneProposals(
            "proposals", propose, STRUCTURES, canvas_in(fitted, "proposals", propose.patch)
        ),
        BoneEdges("edges", refine, STRUCTURES, canvas_in(fitted, "edges", refine.patch)),
    )


def score_one(study: Study, mask: np.ndarray, name: str) -> dict[str, float]:
    """Figures of one structure, or of bone, in 3-D: see `metrics.structures`."""
    spacing = spacing_of(study) if sized(study) else None
    reference, found = _binary(study["mask"], name), _binary(mask, name)
    return score_structures(reference, found, (name,), spacing, NSD_TOLERANCE_MM)[name]


def _binary(mask: np.ndarray, name: str) -> np.ndarray:
    """(S, H, W) uint8: 1 where the structure, or bone, is."""
    return (mask > 0 if name == BONE else mask == STRUCTURES.index(name) + 1).astype(np.uint8)


def ablation(figures: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
    """A table for each structure: what each network, the vote and the refined edge reach."""
    note = (
        "Mean over patients' studies with the 95 % patient-bootstrap interval; NSD at"
        f" {NSD_TOLERANCE_MM:g} mm, HD95 in mm."
    )
    return [
        {
            "title": name.capitalize(),
            "note": note,
            "columns": ["", *TABLE.values()],
            "rows": [
                [TITLES[method], *(figures[method].get(f"{metric}_{name}") for metric in TABLE)]
                for method in SCORED
                if name in SCORED[method]
            ],
        }
        for name in (*STRUCTURES, BONE)
    ]


def differences(rows: Mapping[str, Sequence[Row]], resamples: int, seed: int) -> dict[str, Any]:
    """Table of paired differences: what the edge adds to the vote, the vote to each network."""
    pairs = [(FINAL, VOTE), *((VOTE, network) for network in NETWORKS)]
    cells = [
        [
            name.capitalize(),
            f"{TITLES[a]} minus {TITLES[b]}",
            *_difference(rows[a], rows[b], name, resamples, seed),
        ]
        for name in (*STRUCTURES, BONE)
        for a, b in pairs
        if name in SCORED[a] and name in SCORED[b]
    ]
    return {
        "title": "Differences on the same studies",
        "note": "Both methods on the same resamples of patients; studies in which a figure is"
        " undefined for either are left out.  A lower HD95 is better.",
        "columns": ["Structure", "", *TABLE.values()],
        "rows": [row for row in cells if any(cell is not None for cell in row[2:])],
    }


def _minus(
    ours: Sequence[Row],
    theirs: Sequence[Row],
    structures: Sequence[str],
    resamples: int,
    seed: int,
) -> dict[str, Any]:
    """``<metric>_<structure>`` -> paired difference of the figures of `TABLE`."""
    found = {
        f"{metric}_{name}": estimate
        for name in structures
        for metric, estimate in zip(
            TABLE, _difference(ours, theirs, name, resamples, seed), strict=True
        )
    }
    return {name: estimate for name, estimate in found.items() if estimate is not None}


def _difference(
    ours: Sequence[Row], theirs: Sequence[Row], name: str, resamples: int, seed: int
) -> list[Any]:
    """Estimate of each column of `TABLE`; None without a study."""
    by_study = [{r["study"]: r for r in rows if r["name"] == name} for rows in (ours, theirs)]
    both = [study for study in by_study[0] if study in by_study[1]]
    if not both:
        return [None] * len(TABLE)
    a, b = (
        np.stack([floats([own[study] for study in both], metric) for metric in TABLE], 1)
        for own in by_study
    )
    undefined = np.isnan(a) | np.isnan(b)
    a, b = (np.where(undefined, np.nan, v).astype(np.float32) for v in (a, b))
    patients = [by_study[0][study]["patient"] for study in both]
    found = paired_patient_bootstrap(mean_over_cases, a, b, patients, resamples, seed)
    counts = (~undefined).sum(0)
    return [dataclasses.replace(e, n=int(n)).as_json() for e, n in zip(found, counts, strict=True)]
