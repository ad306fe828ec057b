"""A report as a disc-degeneration run leaves it, with every optional field."""

import copy
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mskjax.reporting.page import write_page
from mskjax.reporting.pictures import overlay


def estimate(value: float | None, lo: float = 0.0, hi: float = 1.0, **more: Any) -> dict[str, Any]:
    ci95 = None if value is None else [lo, hi]
    return {"value": value, "ci95": ci95, "n": 146, "patients": 30, **more}


_GRADING = {
    "quadratic_weighted_kappa_pfirrmann": estimate(0.7123, 0.6412, 0.7789),
    "balanced_accuracy_pfirrmann": estimate(0.6541, 0.5902, 0.7205),
    "accuracy_severity": estimate(0.7055, 0.6301, 0.7742),
    "auroc_mild_vs_moderate_severity": estimate(0.8437, 0.7716, 0.9021, n=101),
    "sensitivity_severe_severity": estimate(None, n=0, why="no severe disc in the cohort"),
    "ece_severity": estimate(0.0912, 0.0611, 0.1388),
}
_GRADINGS = {
    task: {
        "figures": [name for name in _GRADING if name.endswith(f"_{task}")],
        "further": [f"auroc_mild_vs_moderate_{task}", f"sensitivity_severe_{task}"],
    }
    for task in ("pfirrmann", "severity")
}
_AT_A_THRESHOLD = {
    name: estimate(0.7, 0.6, 0.8)
    for name in ("balanced_accuracy", "sensitivity", "specificity", "cohen_kappa")
}
_FITTED = {"cases": 120, "patients": 24}
_OPERATING = {
    "herniation": {
        "prevalence": estimate(0.41, 0.33, 0.5),
        "auroc": estimate(0.8, 0.7, 0.9),
        "fitted_on": "held-out cases of the other folds",
        "rules": [
            {"rule": "half", "thresholds": [], "figures": _AT_A_THRESHOLD},
            {
                "rule": "balanced_accuracy",
                "thresholds": [
                    {"fold": 0, "threshold": 0.31, "why": "", **_FITTED},
                    {"fold": 1, "threshold": 0.5, "why": "not fitted: one class", **_FITTED},
                ],
                "figures": _AT_A_THRESHOLD,
            },
        ],
    }
}
_DOUBTS = {
    "pfirrmann": {
        "left_out": 1,
        "of": 30,
        "figures": {
            "all": {"quadratic_weighted_kappa": estimate(0.7123, 0.6412, 0.7789)},
            "without": {"quadratic_weighted_kappa": estimate(0.7333, 0.6612, 0.7989)},
        },
        "patients": [
            {
                "patient": "12",
                "studies": ["12_t2"],
                "cases": 5,
                "score": -2.1,
                "likelihood": 0.07,
                "offset": 1.3,
                "least": {"level": "level 3", "reference": "i", "call": "iii", "p": 0.002},
            }
        ],
    }
}
_REPORT: dict[str, Any] = {
    "system": "disc_degeneration",
    "variant": "spider_t2space",
    "title": "Lumbar disc degeneration on SPIDER T2-SPACE: two-stage grading",
    "headline": "End-to-end quadratic weighted kappa 0.712 (95 % interval 0.641 to 0.779) in 146 "
    "discs of 30 patients, five-fold cross-validation by patient.",
    "created": "2026-11-20",
    "command": "python -m mskjax.main --config=experiments/disc_degeneration.py:spider_t2space "
    "--workdir=runs/discs",
    "cohort": {
        "name": "spider_t2space",
        "version": "1.0.0",
        "kind": "real",
        "licence": "CC BY 4.0",
        "fingerprint": "9f2c1e0d5b7a4c3398d1",
        "patients": 30,
        "cases": 146,
        "excluded": [
            {"id": "107", "why": "grading row with IVD label 0"},
            {"id": "152", "why": "7 discs seen, 6 graded"},
        ],
    },
    "protocol": {"folds": 5, "unit": "patient", "seeds": [0, 1, 2], "patient_overlap": 0},
    "stages": {
        "segment": {
            "dice_disc": estimate(0.8712, 0.8533, 0.8871),
            "iou_disc": estimate(0.7741, 0.7480, 0.7981),
            "nsd_disc": estimate(0.9312, 0.9105, 0.9488),
            "hd95_disc": estimate(1.8731, 1.5142, 2.4416),
        },
        "grade": {"accuracy_severity": estimate(0.7192, 0.6460, 0.7853, method="Wilson")},
        "grade_without_figures": {},
    },
    "end_to_end": _GRADING,
    "gradings": _GRADINGS,
    "operating": _OPERATING,
    "doubts": _DOUBTS,
    "oracle_region": {
        name: entry if entry["value"] is None else {**entry, "value": entry["value"] + 0.0111}
        for name, entry in _GRADING.items()
    },
    "baselines": {
        "majority_class": {
            "accuracy_severity": estimate(0.3973, 0.3311, 0.4671),
            "balanced_accuracy_pfirrmann": estimate(0.3333, 0.3333, 0.3333),
        },
        "ridge_4_features": {
            "quadratic_weighted_kappa_pfirrmann": estimate(0.5310, 0.4402, 0.6101),
            "accuracy_severity": estimate(0.5051, 0.4420, 0.5699),
            "balanced_accuracy_pfirrmann": estimate(0.4290, 0.3705, 0.4902),
        },
    },
    "tables_title": "Readers and further comparisons",
    "tables": [
        {
            "id": "readers",
            "title": "Readers on the same cases",
            "note": "p of McNemar's exact test, model against reader.",
            "columns": ["Reader", "Sensitivity", "Right", "p", "p, corrected"],
            "rows": [
                ["First-year resident", estimate(0.78, 0.6512, 0.8711, n=50), 125, 0.00004, 0.0004],
                ["Senior radiologist", estimate(0.9811, 0.91, 0.9988), 186, 0.0312, 1.0],
                ["Fourth reader", estimate(None, n=0, why="read no case"), 0, None, None],
            ],
        },
        {
            "title": "Imaging features",
            "note": "",
            "columns": ["Feature", "Share", "Comment"],
            "rows": [["convex border", 0.25, "n < 5 & rare"], ["pedicle", None, None]],
        },
    ],
    "published": [
        {
            "metric": "dice_disc",
            "value": 0.920,
            "ci": None,
            "n": 94,
            "of": "patients",
            "source": "Ding et al. 2024",
            "comparable": False,
            "why": "other cohort; discs of one patient lie on both sides of the split",
        },
        {
            "metric": "accuracy_severity",
            "value": 0.913,
            "ci": [0.84, 0.96],
            "n": 94,
            "of": "discs",
            "source": "Ding et al. 2024",
            "comparable": False,
            "why": "reference regions; the map from Pfirrmann grades is not published",
        },
    ],
    "cost": {
        "wall_s": 4361.0,
        "steps_per_s": {"segment": 3.21, "grade": 5.5},
        "device": "2 x CPU",
        "compile_s": 41.5,
        "peak_memory_bytes": 3_221_225_472,
    },
    "environment": {
        "python": "3.11.9",
        "packages": {"mskjax": "0.1.0", "jax": "0.10.2", "flax": "0.12.8"},
        "devices": ["cpu"],
        "git_commit": "3d86ae4c0ffee",
        "xla_flags": "",
    },
    "flow": [
        {"step": "Found in the raw folder", "patients": 32, "cases": 157},
        {"step": "Packaged", "patients": 30, "cases": 150},
        {"step": "Scored", "patients": 30, "cases": 146},
    ],
    "class_counts": {
        "grade": {f"fold {k}": {"mild": 12 + k, "moderate": 9, "severe": 6 - k} for k in range(5)}
    },
    "splits": {"folds": [{"train": 20, "validation": 4, "test": 6}] * 5, "patient_overlap": 0},
    "confusion": {
        "end_to_end": {
            "labels": ["mild", "moderate", "severe"],
            "matrix": [[52, 8, 1], [11, 30, 8], [2, 13, 21]],
        },
        "oracle_region": {
            "labels": ["mild", "moderate", "severe"],
            "matrix": [[54, 6, 1], [10, 32, 7], [2, 12, 22]],
        },
    },
    "roc": {
        "severe": [
            {
                "label": "End to end",
                "points": [[0.0, 0.0], [0.0, 0.5], [0.1, 0.8], [0.4, 0.95], [1.0, 1.0]],
                "auroc": estimate(0.9123, 0.8601, 0.9511),
            },
            {
                "label": "Reference region",
                "points": [[0.0, 0.0], [0.0, 0.6], [0.2, 0.9], [1.0, 1.0]],
                "auroc": None,
                "operating": [{"label": "Threshold 0.5", "fpr": 0.1, "tpr": 0.75}],
            },
        ],
        "operating": [
            {"label": "First-year resident", "fpr": 0.39, "tpr": 0.78},
            {"label": "Senior radiologist", "fpr": 0.0, "tpr": 0.98},
        ],
    },
    "calibration": {
        "severe": [
            {"confidence": 0.1 * i + 0.05, "accuracy": min(1.0, 0.08 * i + 0.1), "n": 30 - 2 * i}
            for i in range(10)
        ]
    },
    "folds": {
        "quadratic_weighted_kappa_pfirrmann": {
            "mean": 0.709,
            "sd": 0.051,
            "values": [0.66, 0.71, 0.78, 0.69, 0.705],
        },
        "dice_disc": {"mean": 0.871, "sd": 0.012, "values": [0.86, 0.87, 0.88, None, 0.885]},
        "auroc_task_d": {"mean": None, "sd": None, "values": [None] * 5},
    },
    "subgroups": {
        "level": {
            str(level): {
                "accuracy_severity": estimate(0.65 + 0.03 * level, 0.55, 0.9, n=29),
                "quadratic_weighted_kappa_pfirrmann": estimate(
                    0.6 + 0.02 * level, 0.45, 0.82, n=29
                ),
            }
            for level in range(1, 6)
        },
        "sex": {"F": {"accuracy_severity": estimate(0.71, 0.61, 0.79, n=80)}, "M": {}},
    },
    "architecture": [
        {"stage": "segment", "parameters": 1_946_881, "table": "conv1/kernel  (3, 3, 1, 32)  288"},
        {"stage": "grade", "parameters": 63_500_000, "table": ""},
    ],
    "recipe": {
        "seed": 0,
        "data": {"cohort": "spider_t2space", "folds": 5, "options": {"every": 2}},
        "segment": {"learning_rate": 3e-4, "steps": 2000, "augment": {"rotate_deg": 15.0}},
        "grade": {"learning_rate": 1e-5, "initialisation": None, "balanced": True},
    },
    "curves": {
        stage: {
            str(fold): [
                {
                    "step": step,
                    "train_loss": math.exp(-step / 400) + 0.02 * fold,
                    "validation_loss": math.exp(-step / 500) + 0.1 + 0.02 * fold,
                }
                for step in range(0, 2001, 200)
            ]
            for fold in range(5)
        }
        for stage in ("segment", "grade")
    },
    "pictures": [
        {"path": "fold_0/pictures/110.png", "caption": "Patient 110", "failure": False},
        {
            "path": "fold_1/pictures/127.png",
            "caption": "Patient 127: L5/S1 missed",
            "failure": True,
            "facts": [["Reference", "IV"], ["Probability", "0.31"], ["Readers < 2 years", "III"]],
        },
    ],
    "precision_recall": {
        "severity": [
            {
                "label": "severe v rest",
                "points": [[0.0, 1.0], [1.0, 0.4]],
                "band": [],
                "average_precision": {"value": 0.71, "ci95": None},
                "prevalence": 0.4,
            }
        ]
    },
    "agreement": {
        "pfirrmann": {
            "points": [[1.0, 0.5], [2.5, -0.5]],
            "bias": {"value": 0.0, "ci95": None},
            "limits": [-1.386, 1.386],
            "classes": ["i", "ii", "iii", "iv", "v"],
        }
    },
    "studies": {"disc": [0.8, 0.9], "canal": [0.95, 0.9]},
    "participants": [
        {
            "id": "participants",
            "title": "All, and the test patients of each partition",
            "note": "Age and sex are of patients.",
            "columns": ["", "All", "Fold 0", "Missing"],
            "rows": [["Patients", "30", "6", "–"], ["Sex: F", "16 of 30 (53 %)", "3 of 6", "0 %"]],
        }
    ],
    "preprocessing": {
        "segment": {"spacing_mm": [None, 0.7, 0.7], "normalisation": "z_score_volume"}
    },
    "rules": ["A missed disc is scored as wrong.", "Dice of an empty reference is not defined."],
    "limits": ["One public cohort; absolute intensity was lost.", "No external test."],
    "model_card": {
        "intended_use": "Research on grading of lumbar discs; not for diagnosis.",
        "out_of_scope": ["post-operative spines", "field strengths below 1 T"],
        "inputs": {"sequence": "sagittal T2", "format": "DICOM, NIfTI, MetaImage"},
    },
}

_REPORT["held_out"] = {place: _REPORT[place] for place in ("end_to_end", "oracle_region")}
_REPORT["seeds"] = [
    {
        "seed": seed,
        "end_to_end": {
            "accuracy_severity": estimate(value),
            "auroc_task_d": estimate(None, why=""),
        },
        "oracle_region": {"accuracy_severity": estimate(value + 0.1)},
    }
    for seed, value in enumerate((0.71, 0.69, 0.73))
]
_REPORT["end_to_end"]["accuracy_severity"] |= {"seeds": [0.71, 0.69, 0.73], "sd": 0.02}
_REPORT["ensemble"] = {
    "seeds": 3,
    "stages": {"segment": {"dice_disc": estimate(0.8765)}},
    "end_to_end": {"accuracy_severity": estimate(0.7654)},
    "oracle_region": {},
    "minus_single": {
        "stages": {"segment": {"dice_disc": {**estimate(0.0053), "ci95": [0.0012, 0.0098]}}},
        "end_to_end": {
            "accuracy_severity": {**estimate(0.0554), "ci95": [-0.0104, 0.1001]},
        },
        "oracle_region": {},
    },
    "tables": [{"title": "Of the ensemble", "columns": ["a", "b"], "rows": [["x", 0.4321]]}],
    "held_out": {},
}
_REPORT["repetitions"] = [
    {
        "repetition": number,
        "end_to_end": {
            "accuracy_severity": estimate(value),
            "auroc_task_d": estimate(None, why="one class"),
        },
        "oracle_region": {"accuracy_severity": estimate(value + 0.1)},
    }
    for number, value in enumerate((0.7056, 0.6612, 0.7391))
]


@pytest.fixture
def report() -> dict[str, Any]:
    return copy.deepcopy(_REPORT)


@pytest.fixture
def required(report: dict[str, Any]) -> dict[str, Any]:
    """The fields of the contract alone."""
    fields = ["system", "variant", "cohort", "protocol", "stages", "end_to_end", "oracle_region"]
    fields += ["baselines", "published", "cost", "environment"]
    return {name: report[name] for name in fields}


def as_phantom(report: dict[str, Any]) -> dict[str, Any]:
    cohort = {**report["cohort"], "kind": "phantom", "name": "phantoms", "licence": "Apache-2.0"}
    return {**report, "cohort": cohort}


@pytest.fixture
def phantom_report(report: dict[str, Any]) -> dict[str, Any]:
    return as_phantom(report)


@pytest.fixture(scope="session")
def run_dir(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    rows, columns = np.mgrid[:96, :64]
    disc = ((rows - 48) ** 2 / 60 + (columns - 30) ** 2 / 300 < 1).astype(np.uint8) * 2
    labels = {2: ("disc", (230, 159, 0))}
    for number, entry in enumerate(_REPORT["pictures"]):
        path = folder / entry["path"]
        path.parent.mkdir(parents=True)
        shifted = np.roll(disc, 4 + number, axis=0)
        path.write_bytes(overlay(40.0 * disc + rows, disc, shifted, (0.8, 0.8), labels))
    return folder


@pytest.fixture(scope="session")
def pages(run_dir) -> dict[str, Path]:
    """The full page of real data and of phantoms; drawn once, for it takes a second."""
    full = {"real": _REPORT, "phantom": as_phantom(_REPORT)}
    return {kind: write_page(content, run_dir, run_dir / kind) for kind, content in full.items()}
