"""The sections of report.html, and which of them a report has."""

from collections.abc import Mapping
from typing import Any

# Anchor -> title, in reading order.
SECTIONS = {
    "results": "Key results",
    "seeds": "Seeds and their ensemble",
    "stages": "Results of each stage",
    "baselines": "Baselines beside the model",
    "tables": "Further comparisons",
    "published": "Published values",
    "confusion": "Confusion matrices",
    "roc": "Receiver operating characteristic",
    "precision_recall": "Precision and recall",
    "operating": "Operating point",
    "calibration": "Calibration",
    "agreement": "Agreement of grades",
    "studies": "Study by study",
    "folds": "Values of each fold",
    "repetitions": "Repetitions",
    "subgroups": "Subgroups",
    "doubts": "Doubtful reference grades",
    "held_out": "Held-out patients",
    "external": "External test",
    "pictures": "Pictures",
    "curves": "Learning curves",
    "cohort": "Cohort",
    "participants": "Who was studied",
    "splits": "Splits and class counts",
    "preprocessing": "Preprocessing",
    "recipe": "Training recipe",
    "architecture": "Architecture",
    "cost": "Cost",
    "environment": "Environment",
    "rules": "Scoring rules",
    "limits": "Limits",
    "model_card": "Model card",
    "command": "Make it again",
    "checklist": "Checklists",
}
_ALWAYS = {
    "results",
    "stages",
    "published",
    "external",
    "cohort",
    "splits",
    "cost",
    "environment",
    "checklist",
}


def contents(report: Mapping[str, Any]) -> dict[str, str]:
    """Anchor -> title of the sections that this report has."""
    named = SECTIONS | {"tables": report.get("tables_title") or SECTIONS["tables"]}
    return {key: title for key, title in named.items() if key in _ALWAYS or report.get(key)}
