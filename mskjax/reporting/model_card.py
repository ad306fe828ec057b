"""The card of a model, after Mitchell et al. 2019, from the run's own record.

What a run cannot know is said to be unknown, so that a gap is never read as a yes.
"""

from collections.abc import Mapping
from typing import Any

from mskjax.reporting import wording

Report = Mapping[str, Any]

RESEARCH = "Research use only. Not a medical device: no regulator has cleared or approved it."
UNKNOWN = "Not known to the run; to be answered by who trained it"
WEIGHTS = "they derive from the data, whose licence holds for them"


def content(report: Report) -> dict[str, Any]:
    """Heading -> mapping, list or text, as the page prints it."""
    return {
        "Model details": {
            "System": f"{report['system']}, variant {report['variant']}",
            "Stages": [
                f"{wording.label(own['stage'])}: {own['parameters']:,} parameters"
                for own in report.get("architecture") or []
            ],
            "Licence of the code": "Apache-2.0",
            "Licence of the weights": WEIGHTS,
            "Contact and date of training": UNKNOWN,
        },
        "Intended use": [RESEARCH, *intended_use(report)],
        "Factors": factors(report),
        "Metrics": "As in the section of scoring rules; each figure is defined under its table.",
        "Training and evaluation data": {
            "Cohort": f"{report['cohort']['name']} {report['cohort']['version']}, "
            + wording.kind(report["cohort"]["kind"]),
            "Licence": report["cohort"]["licence"],
            "External test": "see its section" if report.get("external") else "none",
        },
        "Quantitative analyses": [m["text"] for m in report.get("key") or []]
        or (report.get("headline") or "none"),
        "Ethical considerations": ethics(report["cohort"]["kind"]),
        "Caveats and recommendations": [*(report.get("limits") or []), NOT_KNOWN],
    }


NOT_KNOWN = (
    "Not known: how it does on other scanners, centres and protocols; what it says of a disease"
    " that the cohort does not have; how its errors are spread over people of different age, sex"
    " and origin."
)


def intended_use(report: Report) -> list[str]:
    """Purpose, output, users, and what it is not for."""
    tasks = ", ".join(wording.label(task) for task in report.get("gradings") or []) or "label masks"
    return [
        "Purpose: research on how well such a system works, and comparison with others.",
        f"What it says: {tasks}.",
        "Users: researchers who can judge its output against a reader's.",
        "Out of scope: decisions about a person's care; other sequences, body regions, ages and"
        " diseases than those of the cohort.",
    ]


def factors(report: Report) -> list[str]:
    """Which groups have figures of their own, and which nobody looked at."""
    groups = report.get("subgroups") or {}
    named = ", ".join(wording.label(name).lower() for name in groups)
    return [
        f"Subgroups with figures of their own in the run's report: {named or 'none'}.",
        "What is not among them (scanner, field strength, age, sex, where the cohort has no such"
        " column) was not looked at: nothing is known of it.",
    ]


def ethics(kind: str) -> list[str]:
    """What is known of persons whose data are in the weights."""
    if kind == "phantom":
        return ["The images are generated; no person's data were used."]
    return [
        "The weights were fitted to patients' images. The folder holds no image and no identifier;"
        " whether a patient's image can be told from the weights was not tested.",
        f"Consent, ethical approval and who may have the weights: {UNKNOWN.lower()}.",
    ]
