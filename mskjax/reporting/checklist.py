"""Reporting checklists answered from a report: CLAIM 2024 and TRIPOD+AI.

CLAIM: Tejani et al., Checklist for Artificial Intelligence in Medical Imaging (CLAIM): 2024
Update, Radiology: Artificial Intelligence 6(4):e240300.  TRIPOD+AI: Collins et al., BMJ
385:e078378 (2024).  The topics are paraphrased; the standards' own text is what counts.

An item is answered from the run's record, with the sections that hold more; or it is not
applicable, with the reason; or it is left to the authors, with what they must say.  What a run
cannot know is never made to look answered.
"""

from collections.abc import Mapping
from typing import Any

from mskjax.reporting.checklist_answers import answers
from mskjax.reporting.sections import contents

# (item, topic, name of the answer in `checklist_answers`)
_CLAIM = (
    ("1", "Named as a study of AI methodology, and which", "title"),
    ("2", "Summary of design, methods, results, conclusions", "abstract"),
    ("3", "Background; intended use and role of the AI", "background"),
    ("4", "Aims, objectives, hypotheses", "aims"),
    ("5", "Prospective or retrospective", "timing"),
    ("6", "Study goal", "goal"),
    ("7", "Data sources", "sources"),
    ("8", "Inclusion and exclusion criteria", "eligibility"),
    ("9", "Data pre-processing", "preprocessing"),
    ("10", "Selection of data subsets", "subsets"),
    ("11", "De-identification", "deidentification"),
    ("12", "Handling of missing data", "missing"),
    ("13", "Image acquisition protocol", "acquisition"),
    ("14", "Reference standard: how it was obtained", "reference"),
    ("15", "Reference standard: why this one", "reference_why"),
    ("16", "Reference standard: source of annotations", "annotators"),
    ("17", "Annotation of the test set", "annotation_of_test"),
    ("18", "Inter- and intra-rater variability", "raters"),
    ("19", "Assignment of data to partitions", "partitions"),
    ("20", "Level at which partitions are disjoint", "disjoint"),
    ("21", "Intended sample size", "sample_size"),
    ("22", "Description of the model", "architecture"),
    ("23", "Software libraries and frameworks", "software"),
    ("24", "Initialisation of parameters", "initialisation"),
    ("25", "Training approach", "recipe"),
    ("26", "Selection of the final model", "selection"),
    ("27", "Ensembling", "ensembling"),
    ("28", "Metrics of performance", "metrics"),
    ("29", "Measures of significance and uncertainty", "uncertainty"),
    ("30", "Robustness or sensitivity analysis", "robustness"),
    ("31", "Explainability or interpretability", "explainability"),
    ("32", "Evaluation on internal data", "internal"),
    ("33", "Testing on external data", "external"),
    ("34", "Clinical trial registration", "registration"),
    ("35", "Patients or examinations included and excluded", "flow"),
    ("36", "Characteristics of the cases in each partition", "characteristics"),
    ("37", "Performance with statistical uncertainty", "internal"),
    ("38", "Diagnostic performance and its precision", "diagnostic"),
    ("39", "Analysis of failures", "failures"),
    ("40", "Limitations", "limits"),
    ("41", "Implications for practice", "implications"),
    ("42", "Full protocol or further technical details", "details"),
    ("43", "Availability of software, model and data", "availability"),
    ("44", "Funding and role of funders", "funding"),
)
_TRIPOD = (
    ("1", "Title: model, population, outcome", "title"),
    ("2", "Abstract", "abstract"),
    ("3a", "Healthcare context and existing models", "background"),
    ("3b", "Target population, purpose, intended users", "intended_use"),
    ("3c", "Known health inequalities", "inequalities"),
    ("4", "Objectives: development, evaluation or both", "goal"),
    ("5a", "Sources of data and how representative", "sources"),
    ("5b", "Dates of the data", "dates"),
    ("6a", "Setting, number and place of centres", "centres"),
    ("6b", "Eligibility", "eligibility"),
    ("6c", "Treatments received", "treatments"),
    ("7", "Data preparation", "preprocessing"),
    ("8a", "Outcome: definition and assessment", "outcome"),
    ("8b", "Outcome: assessors", "annotators"),
    ("8c", "Outcome: blinding", "blinding"),
    ("9a", "Predictors: initial choice", "images"),
    ("9b", "Predictors: definition", "images"),
    ("9c", "Predictors: assessors", "images_read"),
    ("10", "Sample size", "sample_size"),
    ("11", "Missing data", "missing"),
    ("12a", "Use and partition of the data", "partitions"),
    ("12b", "Handling of predictors", "preprocessing"),
    ("12c", "Model type, building steps, tuning, internal validation", "building"),
    ("12d", "Heterogeneity between clusters: method", "clusters"),
    ("12e", "Measures and plots of performance", "metrics"),
    ("12f", "Model updating: method", "updating"),
    ("12g", "How predictions were calculated", "prediction"),
    ("13", "Class imbalance", "imbalance"),
    ("14", "Fairness: approach", "fairness"),
    ("15", "Output of the model and thresholds", "output"),
    ("16", "Differences between development and evaluation data", "differences"),
    ("17", "Ethical approval", "ethics"),
    ("18a", "Funding", "funding"),
    ("18b", "Conflicts of interest", "interests"),
    ("18c", "Protocol", "protocol"),
    ("18d", "Registration", "registration"),
    ("18e", "Data sharing", "data_sharing"),
    ("18f", "Code sharing", "code_sharing"),
    ("19", "Patient and public involvement", "involvement"),
    ("20a", "Flow of participants", "flow"),
    ("20b", "Characteristics of participants", "characteristics"),
    ("20c", "Comparison of evaluation with development data", "differences"),
    ("21", "Participants and events in each analysis", "events"),
    ("22", "Specification of the full model", "specification"),
    ("23a", "Performance with intervals, subgroups included", "internal"),
    ("23b", "Heterogeneity between clusters: results", "clusters"),
    ("24", "Model updating: results", "updating"),
    ("25", "Interpretation, fairness, other studies", "interpretation"),
    ("26", "Limitations", "limits"),
    ("27a", "Use: input of poor quality or missing", "poor_input"),
    ("27b", "Use: interaction and expertise needed", "expertise"),
    ("27c", "Next steps", "next_steps"),
)


def checklist(report: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Answers every item of CLAIM 2024 (44) and TRIPOD+AI (52 with sub-items) from a report.

    Args:
      report: as written to report.json, with or without the optional fields.

    Returns:
      Rows ``{"standard", "item", "topic", "status", "answer", "sections"}``: ``status`` is one of
      `checklist_answers.STATUSES`, ``sections`` anchors of the page that hold more; all of them
      are there.
    """
    found, there = answers(report), contents(report)
    return [
        {
            "standard": standard,
            "item": item,
            "topic": topic,
            "status": found[name].status,
            "answer": found[name].text,
            "sections": [key for key in found[name].sections if key in there],
        }
        for standard, items in (("CLAIM 2024", _CLAIM), ("TRIPOD+AI", _TRIPOD))
        for item, topic, name in items
    ]
