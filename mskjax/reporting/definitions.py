"""What each figure is: scale, averaging, denominator and source, in a sentence for a reader.

The definitions themselves are those of `mskjax.metrics`; a name that a report prints and that has
no sentence here fails a test.
"""

from collections.abc import Iterable, Mapping
from typing import Any

from mskjax.metrics.structures import NSD_TOLERANCE_MM
from mskjax.reporting import wording

# Beginning of a metric's name -> what it is.  What follows the beginning names structure, class or
# task.
_DEFINITIONS = {
    "accuracy": "share of cases with the right class; a missed region is wrong",
    "ap": "area under the precision-recall curve of the boxes, at all scores, with all-point"
    " interpolation (Everingham 2015); a box is right where its IoU with a reference box reaches"
    " the number",
    "assd": "mean distance between the two surfaces, in mm, both ways; 0 is best, and it is not"
    " defined where a structure is missed",
    "auroc": "probability that a positive case has a higher score than a negative one, ties half;"
    " chance is 0.5; a missed region has the worst score of its class",
    "auroc_ovo_macro": "mean over all pairs of classes of the AUROC within the pair (Hand & Till"
    " 2001); each pair weighs alike, whatever its number of cases",
    "auroc_ovr_macro": "mean over classes of the AUROC of the class against all others; each class"
    " weighs alike",
    "average_precision": "mean of precision over recall, in steps (no interpolation); its chance"
    " level is the share of positive cases",
    "balanced_accuracy": "mean of the sensitivities of the classes that occur; chance is one over"
    " their number, however rare a class is",
    "box_iou": "IoU of the box that was found with the box given by hand, on its slice",
    "brier": "half the sum over classes of the squared difference between probability and 0 or 1,"
    " mean over cases; 0 is best, 1 worst, for any number of classes (Brier 1950 has no half)",
    "cohen_kappa": "agreement beyond chance, unweighted (Cohen 1960); 0 is chance, 1 is best",
    "dice": "twice the overlap over the sum of both sizes, in 3-D on the native grid, mean over"
    " studies",
    "dice_ceiling": "Dice of a network without any error of its own, on its grid: the reference,"
    " brought there and back",
    "dice_ceiling_least": "the same of the study where it is least",
    "disc_detection_sensitivity": "share of reference discs that were found (IoU above 0.1)",
    "ece": "expected calibration error: mean distance between confidence and accuracy of the"
    " likeliest class in 10 bins of equal width, weighted by cases (Guo 2017); 0 is best",
    "extra_per_image": "boxes at the operating confidence that match no reference box",
    "extra_discs_per_study": "found discs that overlap no reference disc",
    "f1": "harmonic mean of sensitivity and predictive value of the positive class",
    "f1_macro": "mean of the F1 of the classes; each class weighs alike",
    "f1_weighted": "mean of the F1 of the classes, weighted by their cases",
    "gaps": "levels without a disc between two discs that were found, per study",
    "graded_without_region": "share of graded levels that no reference region shows; they are no"
    " cases",
    "hd95": "95th percentile of the distances between the two surfaces, in mm, the larger of both"
    " ways; 0 is best",
    "iou": "overlap over union, in 3-D on the native grid, mean over studies",
    "left_out": "detections that fit no row of levels, per study",
    "level_accuracy": "share of the found discs that were given the right level",
    "log_loss": "negative logarithm of the probability of the right class, in nats, mean over"
    " cases; probabilities from 1e-6",
    "loss": "of the network in training: cross-entropy plus soft Dice",
    "map": "mean of the average precision at the IoU 0.50, 0.55, ... 0.95",
    "mean_confidence": "mean score of the boxes that are matched (IoU of at least 0.50)",
    "mean_iou": "mean IoU of the boxes that are matched (IoU of at least 0.50)",
    "npv": "share of the cases called negative that are negative; it depends on the prevalence",
    "nsd": f"share of the two surfaces that lie within {NSD_TOLERANCE_MM:g} mm of one another"
    " (normalised surface Dice, Nikolov 2021); the tolerance is about two native pixels, by which"
    " readers differ too",
    "pixel_accuracy": "share of voxels on the right side of the structure's outline; background"
    " counts, so it is close to 1 for small structures",
    "ppv": "share of the cases, voxels or boxes called so that are so; it depends on the"
    " prevalence",
    "precision": "share of the boxes at the operating confidence that are right",
    "quadratic_weighted_kappa": "agreement beyond chance in which a disagreement counts with the"
    " square of its distance in grades (Cohen 1968); 0 is chance, 1 is best; a missed region"
    " disagrees as much as two grades can",
    "recall": "share of the reference boxes that are found at the operating confidence",
    "regions_found": "share of the cases whose region was found",
    "sensitivity": "share of the cases, or voxels, of the class that are called so",
    "sensitivity_at_specificity_90": "sensitivity at the threshold where 0.90 of the negative cases"
    " are called so",
    "share_confidence_over_90": "share of reference boxes that are matched with a score above 0.90",
    "share_iou_over_70": "share of reference boxes that are matched with an IoU above 0.70",
    "slice_error_mm": "distance between the slice that was chosen and the annotated one",
    "specificity": "share of the cases of other classes that are called one of these; a missed"
    " region is called none",
    "specificity_macro": "mean of the specificities of the classes",
    "within_one_grade": "share of cases called the right grade or a neighbour of it",
}
_LONGEST_FIRST = sorted(_DEFINITIONS, key=len, reverse=True)
_PAIR = "auroc_vs"
_OF_A_PAIR = (
    "AUROC among the cases of two classes, mean of that by the probability of the one and by that"
    " of the other (Hand & Till 2001)"
)


def of(name: str) -> str | None:
    """What a figure is; None where nothing is known.

    >>> of("dice_ceiling_least_disc")
    'the same of the study where it is least'
    >>> of("ap75") == of("ap50")
    True
    """
    key = _key(name)
    return _OF_A_PAIR if key == _PAIR else _DEFINITIONS.get(key or "")


def used(names: Iterable[str]) -> Mapping[str, str]:
    """Term -> definition of the figures of a table, each once, in the order of the table."""
    found: dict[str, str] = {}
    for name in names:
        if (meaning := of(name)) is not None:
            found.setdefault(_term(name), meaning)
    return found


def choices(report: Mapping[str, Any]) -> list[str]:
    """Which figures lead for each task, and why, after Metrics Reloaded.

    Maier-Hein, Reinke et al., Nature Methods 21:195-212 (2024).
    """
    found = []
    for task, own in (report.get("gradings") or {}).items():
        if "classes" in own:
            kind = "two" if len(own["classes"]) == 2 else "ordinal" if own["ordinal"] else "nominal"
            found.append(f"{wording.label(task)}, {_CHOICES[kind]}")
    names = {name for figures in report["stages"].values() for name in figures}
    if any(name.startswith("dice_") for name in names):
        found.append(_CHOICES["masks"])
    if "ap50" in names:
        found.append(_CHOICES["boxes"])
    return found


_CHOICES = {
    "ordinal": "classification into ordered classes: quadratic weighted kappa, which counts how far"
    " off a call is, with balanced accuracy and figures of each class, since classes are unequally"
    " common; never accuracy alone.",
    "nominal": "classification into classes without order: balanced accuracy and figures of each"
    " class, with kappa; never accuracy alone.",
    "two": "classification into two classes: AUROC and average precision, which no threshold"
    " touches, with sensitivity at a fixed specificity, and sensitivity and specificity at the"
    " threshold that is said.",
    "masks": "Semantic segmentation: Dice with normalised surface Dice for each structure by"
    " itself, never pooled over structures; what happens where a structure is absent from the"
    " reference is said in the rules.",
    "boxes": "Object detection: average precision at stated IoU, with F1 and recall at the"
    " operating confidence.",
}


def _key(name: str) -> str | None:
    if name.startswith("auroc_") and "_vs_" in name:
        return _PAIR
    if name.startswith("ap") and name[2:4].isdigit():
        return "ap"
    return next((k for k in _LONGEST_FIRST if name == k or name.startswith(f"{k}_")), None)


def _term(name: str) -> str:
    key = _key(name)
    if key == _PAIR:
        return "AUROC, class vs class"
    if key == "ap":
        return "Average precision at an IoU"
    return wording.metric(str(key))
