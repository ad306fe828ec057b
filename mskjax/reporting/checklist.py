"""Reporting checklists answered from a report: CLAIM 2024 and TRIPOD+AI.

CLAIM: Tejani et al., Checklist for Artificial Intelligence in Medical Imaging (CLAIM): 2024
Update, Radiology: Artificial Intelligence 6(4):e240300.  TRIPOD+AI: Collins et al., BMJ
385:e078378 (2024).  The topics are paraphrased; the standards' own text is what counts.

What a run cannot know (who annotated, ethics, funding) is left to the authors in so many words,
so that an empty answer is never read as a yes.
"""

from collections.abc import Iterable, Mapping
from typing import Any

from mskjax.reporting import wording

AUTHORS = "to be answered by the authors"

# (item, topic, name of the answer in `_answers`)
_CLAIM = (
    ("1", "Named as a study of AI methodology, and which", "technology"),
    ("2", "Summary of design, methods, results, conclusions", "abstract"),
    ("3", "Background; intended use and role of the AI", "intended_use"),
    ("4", "Aims, objectives, hypotheses", "authors"),
    ("5", "Prospective or retrospective", "timing"),
    ("6", "Study goal", "goal"),
    ("7", "Data sources", "sources"),
    ("8", "Inclusion and exclusion criteria", "eligibility"),
    ("9", "Data pre-processing", "recipe"),
    ("10", "Selection of data subsets", "subsets"),
    ("11", "De-identification", "people"),
    ("12", "Handling of missing data", "missing"),
    ("13", "Image acquisition protocol", "people"),
    ("14", "Reference standard: how it was obtained", "reference"),
    ("15", "Reference standard: why this one", "reference"),
    ("16", "Reference standard: source of annotations", "reference"),
    ("17", "Annotation of the test set", "reference"),
    ("18", "Inter- and intra-rater variability", "reference"),
    ("19", "Assignment of data to partitions", "partitions"),
    ("20", "Level at which partitions are disjoint", "disjoint"),
    ("21", "Intended sample size", "sample_size"),
    ("22", "Description of the model", "architecture"),
    ("23", "Software libraries and frameworks", "software"),
    ("24", "Initialisation of parameters", "recipe"),
    ("25", "Training approach", "recipe"),
    ("26", "Selection of the final model", "recipe"),
    ("27", "Ensembling", "ensembling"),
    ("28", "Metrics of performance", "metrics"),
    ("29", "Measures of significance and uncertainty", "uncertainty"),
    ("30", "Robustness or sensitivity analysis", "robustness"),
    ("31", "Explainability or interpretability", "explainability"),
    ("32", "Evaluation on internal data", "internal"),
    ("33", "Testing on external data", "external"),
    ("34", "Clinical trial registration", "people"),
    ("35", "Patients or examinations included and excluded", "flow"),
    ("36", "Characteristics of the cases in each partition", "characteristics"),
    ("37", "Performance with statistical uncertainty", "internal"),
    ("38", "Diagnostic performance and its precision", "diagnostic"),
    ("39", "Analysis of failures", "failures"),
    ("40", "Limitations", "limits"),
    ("41", "Implications for practice", "intended_use"),
    ("42", "Full protocol or further technical details", "command"),
    ("43", "Availability of software, model and data", "availability"),
    ("44", "Funding and role of funders", "authors"),
)
_TRIPOD = (
    ("1", "Title: model, population, outcome", "technology"),
    ("2", "Abstract", "abstract"),
    ("3a", "Healthcare context and existing models", "authors"),
    ("3b", "Target population, purpose, intended users", "intended_use"),
    ("3c", "Known health inequalities", "people"),
    ("4", "Objectives: development, evaluation or both", "goal"),
    ("5a", "Sources of data and how representative", "sources"),
    ("5b", "Dates of the data", "people"),
    ("6a", "Setting, number and place of centres", "people"),
    ("6b", "Eligibility", "eligibility"),
    ("6c", "Treatments received", "people"),
    ("7", "Data preparation", "recipe"),
    ("8a", "Outcome: definition and assessment", "reference"),
    ("8b", "Outcome: assessors", "reference"),
    ("8c", "Outcome: blinding", "reference"),
    ("9a", "Predictors: initial choice", "images"),
    ("9b", "Predictors: definition", "images"),
    ("9c", "Predictors: assessors", "images_read"),
    ("10", "Sample size", "sample_size"),
    ("11", "Missing data", "missing"),
    ("12a", "Use and partition of the data", "partitions"),
    ("12b", "Handling of predictors", "recipe"),
    ("12c", "Model type, building steps, tuning, internal validation", "building"),
    ("12d", "Heterogeneity between clusters: method", "robustness"),
    ("12e", "Measures and plots of performance", "metrics"),
    ("12f", "Model updating: method", "updating"),
    ("12g", "How predictions were calculated", "prediction"),
    ("13", "Class imbalance", "recipe"),
    ("14", "Fairness: approach", "fairness"),
    ("15", "Output of the model and thresholds", "recipe"),
    ("16", "Differences between development and evaluation data", "differences"),
    ("17", "Ethical approval", "people"),
    ("18a", "Funding", "authors"),
    ("18b", "Conflicts of interest", "authors"),
    ("18c", "Protocol", "command"),
    ("18d", "Registration", "people"),
    ("18e", "Data sharing", "data_sharing"),
    ("18f", "Code sharing", "software"),
    ("19", "Patient and public involvement", "people"),
    ("20a", "Flow of participants", "flow"),
    ("20b", "Characteristics of participants", "characteristics"),
    ("20c", "Comparison of evaluation with development data", "differences"),
    ("21", "Participants and events in each analysis", "events"),
    ("22", "Specification of the full model", "architecture"),
    ("23a", "Performance with intervals, subgroups included", "internal"),
    ("23b", "Heterogeneity between clusters: results", "robustness"),
    ("24", "Model updating: results", "updating"),
    ("25", "Interpretation, fairness, other studies", "interpretation"),
    ("26", "Limitations", "limits"),
    ("27a", "Use: input of poor quality or missing", "authors"),
    ("27b", "Use: interaction and expertise needed", "intended_use"),
    ("27c", "Next steps", "authors"),
)


def checklist(report: Mapping[str, Any]) -> list[dict[str, str]]:
    """Answers every item of CLAIM 2024 (44) and TRIPOD+AI (52 with sub-items) from a report.

    Args:
      report: as written to report.json, with or without the optional fields.

    Returns:
      Rows ``{"standard", "item", "topic", "answer"}``.  An answer names a section of the page or
      gives values; otherwise it says "to be answered by the authors" or "not applicable: why".
    """
    answers = _answers(report)
    return [
        {"standard": standard, "item": item, "topic": topic, "answer": answers[name]}
        for standard, items in (("CLAIM 2024", _CLAIM), ("TRIPOD+AI", _TRIPOD))
        for item, topic, name in items
    ]


def _answers(report: Mapping[str, Any]) -> dict[str, str]:
    phantom = report["cohort"]["kind"] != "real"
    recipe = _see(report, "recipe", "Training recipe")
    internal = f"{_section('Key results')}, {_section('Results of each stage')}"
    return {
        "authors": AUTHORS,
        "people": "not applicable: generated phantoms, no patients" if phantom else AUTHORS,
        "reference": (
            "not applicable: a phantom's reference is known by construction" if phantom else AUTHORS
        ),
        "timing": ("not applicable: generated phantoms" if phantom else AUTHORS),
        "images": "Pixels of the images alone; no clinical predictor is used",
        "images_read": "not applicable: no predictor is read by a person",
        "updating": "not applicable: no existing model was updated",
        "intended_use": _see(report, "model_card", "Model card"),
        "recipe": recipe,
        "ensembling": (
            f"The networks of {report['ensemble']['seeds']} seeds of each fold together: "
            + _section("Seeds and their ensemble")
            if report.get("ensemble")
            else recipe
        ),
        "architecture": _see(report, "architecture", "Architecture"),
        "building": "; ".join(
            dict.fromkeys([_see(report, "architecture", "Architecture"), recipe])
        ),
        "limits": _see(report, "limits", "Limits"),
        "command": _see(report, "command", "Make it again"),
        "internal": internal,
        "differences": (
            _section("External test")
            if report.get("external")
            else "not applicable: no external data; test folds come from the same cohort"
        ),
        "fairness": _see(report, "subgroups", "Subgroups"),
        "prediction": "By the networks of the fold that held the patient out; "
        + _section("Scoring rules"),
        **_data_answers(report, phantom),
        **_evaluation_answers(report),
    }


def _data_answers(report: Mapping[str, Any], phantom: bool) -> dict[str, str]:
    cohort, protocol = report["cohort"], report["protocol"]
    stages = " then ".join(wording.label(name).lower() for name in report["stages"])
    counts = f"{cohort['patients']} patients and {cohort['cases']} cases"
    excluded = len(cohort["excluded"])
    restricted = len(cohort.get("restricted", []))
    unit, overlap = protocol["unit"], protocol["patient_overlap"]
    events = _see(report, "class_counts", "Splits and class counts")
    return {
        "technology": f"Deep learning in stages ({stages}), {wording.label(report['system'])}; "
        f"the title is {AUTHORS}",
        "goal": "Development of a model with internal testing"
        + (" and external testing" if report.get("external") else ", without external testing"),
        "sources": f"{cohort['name']} {cohort['version']}, licence {cohort['licence']}; "
        + _section("Cohort"),
        "eligibility": f"{excluded} excluded, each with its reason: {_section('Cohort')}; criteria "
        f"of the source: {'not applicable: generated' if phantom else AUTHORS}",
        "subsets": f"Each stage hands its region to the next ({stages})",
        "missing": "n beside each value counts the cases that could be scored; exclusions with "
        f"reasons: {_section('Cohort')}",
        "partitions": f"{wording.setting(protocol['folds'])} folds, seeds "
        f"{wording.setting(protocol['seeds'])}: {_section('Splits and class counts')}",
        "disjoint": f"{wording.label(unit)}; patients found in more than one partition: {overlap}",
        "sample_size": f"{counts} were available; a calculation is {AUTHORS}",
        "flow": f"{counts} included, {excluded} excluded"
        + (f", {restricted} kept for a part of the study" if restricted else "")
        + f": {_section('Cohort')}",
        "events": events if events != AUTHORS else f"n and patients beside each value; {counts}",
        "characteristics": (
            "not applicable: generated phantoms, no patients"
            if phantom
            else f"Classes: {events}; demographic characteristics: {AUTHORS}"
        ),
        "data_sharing": f"{cohort['name']}: licence {cohort['licence']}",
        "availability": f"Data: licence {cohort['licence']}; software: {_section('Environment')}; "
        f"trained weights: {AUTHORS}",
    }


def _evaluation_answers(report: Mapping[str, Any]) -> dict[str, str]:
    metrics = ", ".join(wording.metric(name) for name in report["end_to_end"])
    methods = sorted({e["method"] for e in _estimates(report) if e.get("method") and e["ci95"]})
    external = report.get("external")
    robustness = [
        _section(title)
        for key, title in (
            ("folds", "Values of each fold"),
            ("subgroups", "Subgroups"),
            ("doubts", "Doubtful reference grades"),
        )
        if report.get(key)
    ]
    plots = [
        _section(title)
        for key, title in (
            ("confusion", "Confusion matrices"),
            ("roc", "Receiver operating characteristic"),
            ("operating", "Operating point"),
            ("calibration", "Calibration"),
        )
        if report.get(key)
    ]
    pictures = report.get("pictures") or []
    failures = sum(bool(picture.get("failure")) for picture in pictures)
    return {
        "abstract": f"Results: {_section('Key results')}; the abstract is {AUTHORS}",
        "metrics": "; ".join([metrics, *plots]),
        "uncertainty": f"95 % intervals beside the values: "
        f"{', '.join(methods) or 'bootstrap over patients'}",
        "robustness": ", ".join(robustness) or AUTHORS,
        "explainability": (
            "Regions that were graded, and attention maps where the system draws them: "
            + _section("Pictures")
            if pictures
            else "none: no method of explanation is part of the system"
        ),
        "external": _section("External test") if external else "none: no external data were tested",
        "diagnostic": ", ".join([_section("Key results"), *plots]),
        "failures": (
            f"{failures} of {len(pictures)} pictures show failures: {_section('Pictures')}"
            if pictures
            else AUTHORS
        ),
        "software": ", ".join(
            f"{name} {wording.setting(value)}" for name, value in _versions(report)
        )
        + f"; {_section('Environment')}",
        "interpretation": f"Other studies: {_section('Published values')}; "
        f"interpretation is {AUTHORS}",
    }


def _versions(report: Mapping[str, Any]) -> Iterable[tuple[str, Any]]:
    environment = report["environment"]
    nested = environment.get("versions") or environment.get("packages") or {}
    known = {**environment, **(nested if isinstance(nested, dict) else {})}
    named = ("mskjax", "jax", "flax", "optax", "python", "git_commit")
    return [(name, known[name]) for name in named if name in known] or [("versions", "recorded")]


def _estimates(report: Mapping[str, Any]) -> Iterable[Mapping[str, Any]]:
    for estimates in (report["end_to_end"], report["oracle_region"], *report["stages"].values()):
        yield from estimates.values()


def _section(title: str) -> str:
    return f"section “{title}”"


def _see(report: Mapping[str, Any], key: str, title: str) -> str:
    return _section(title) if report.get(key) else AUTHORS
