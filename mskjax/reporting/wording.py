"""How names and numbers of report.json are written for a reader."""

import math
import re
from typing import Any

from mskjax.progress import duration

# Beginning of a metric's name -> how it is printed; what follows names the structure or class.
_METRICS = {
    "accuracy": "Accuracy",
    "ap": "Average precision",
    "assd": "Average symmetric surface distance",
    "auroc": "AUROC",
    "auroc_ovo_macro": "AUROC, mean over pairs of classes",
    "auroc_ovr_macro": "AUROC, each class v rest, mean",
    "average_precision": "Average precision",
    "balanced_accuracy": "Balanced accuracy",
    "brier": "Brier score",
    "cohen_kappa": "Cohen's kappa",
    "dice": "Dice",
    "dice_ceiling": "Dice that the network's grid leaves",
    "dice_ceiling_least": "Dice that the network's grid leaves, worst study",
    "ece": "Expected calibration error",
    "f1": "F1",
    "graded_without_region": "Graded levels without a reference region, share",
    "f1_macro": "F1, mean over classes",
    "f1_weighted": "F1, weighted by cases",
    "hd95": "95th-percentile Hausdorff distance",
    "iou": "IoU",
    "log_loss": "Log loss",
    "map": "Mean average precision",
    "mean_absolute_error": "Mean absolute error",
    "mean_iou": "Mean IoU",
    "npv": "Negative predictive value",
    "nsd": "Normalised surface Dice",
    "pixel_accuracy": "Pixel accuracy",
    "ppv": "Positive predictive value",
    "precision": "Precision",
    "quadratic_weighted_kappa": "Quadratic weighted kappa",
    "recall": "Recall",
    "sensitivity": "Sensitivity",
    "share_confidence_over_90": "Share with confidence above 0.90",
    "share_iou_over_70": "Share with IoU above 0.70",
    "specificity": "Specificity",
    "specificity_macro": "Specificity, mean over classes",
    "within_one_grade": "Within one grade",
}
_UNITS = {"assd": " (mm)", "hd95": " (mm)", "log_loss": " (nats)"}
# Last part of a name that is a unit, unless it belongs to a number (within_5_mm).
_UNIT_ENDINGS = re.compile(r"(?<=[a-z])_(mm3|mm|deg|ml|nats)$")
_UNIT_SIGNS = {"mm3": "mm³", "deg": "°", "ml": "mL"}
_KINDS = {
    "real": "images of patients, as stated by who packaged the cohort",
    "derived": "images derived from others, as stated by who packaged the cohort",
    "phantom": "PHANTOM, generated images",
}
_NAMES = {"end_to_end": "End-to-end", "oracle_region": "Reference region"}
_LONGEST_FIRST = sorted(_METRICS, key=len, reverse=True)
_ABBREVIATIONS = re.compile(
    r"^(mc|t|l|s|h)?\d+w?$|^(auroc|roc|ppv|npv|ap|ece|roi|id|ci|mri|csf|gpu|cpu)$"
)
_SPELLINGS = {"iou": "IoU", "dice": "Dice", "unet": "U-Net", "alexnet": "AlexNet"} | {
    name: name.capitalize() for name in ("goutallier", "modic", "pfirrmann")
}
_SPELLINGS |= {numeral: numeral.upper() for numeral in ("i", "ii", "iii", "iv", "v")}  # grades
_TASK = re.compile(r"\btask ([a-z])\b")


def metric(name: str) -> str:
    """The readable form of a metric's name: what is measured, of what, and the unit.

    >>> metric("dice_disc"), metric("auroc_task_d"), metric("ap50")
    ('Dice, disc', 'AUROC, task D', 'Average precision at IoU 0.50')
    >>> metric("sensitivity_at_specificity_90"), metric("slice_error_mm")
    ('Sensitivity at specificity 0.90', 'Slice error (mm)')
    """
    if found := re.fullmatch(r"(.+)_at_(.+?)_(\d\d)(?:_(.+))?", name):
        # The value that one metric reaches where another is held at so many hundredths.
        measured, held, hundredths, rest = found.groups()
        of = f", {_words(rest)}" if rest else ""
        return f"{metric(measured)} at {_words(held)} 0.{hundredths}{of}"
    if re.fullmatch(r"ap\d\d(_.+)?", name):
        return metric(f"average_precision_at_iou_{name.removeprefix('ap')}")
    if found := _UNIT_ENDINGS.search(name):
        unit = _UNIT_SIGNS.get(found[1], found[1])
        return f"{metric(name[: found.start()])} ({unit})"
    for known in _LONGEST_FIRST:
        unit = _UNITS.get(known, "")
        if name == known:
            return _METRICS[known] + unit
        if name.startswith(known + "_"):
            return f"{_METRICS[known]}, {_words(name.removeprefix(known + '_'))}{unit}"
    return label(name)


def kind(name: str) -> str:
    """What images are of, as whoever packaged the cohort says; a report cannot see it."""
    return _KINDS[name]


def label(name: Any) -> str:
    """A field's or system's name as words: ``steps_per_s`` -> ``Steps per s``."""
    if name in _NAMES:
        return _NAMES[name]
    words = _words(str(name))
    return words[:1].upper() + words[1:]


def number(value: Any) -> str:
    """A value with 3 decimals; an integer as it is; None and NaN as ``not defined``."""
    if _unknown(value):
        return "not defined"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        text = f"{value:.3f}"
        return text if float(text) else "0.000"  # and not -0.000
    return str(value)


def number_or_dash(value: Any) -> str:
    """As `number`, with a dash for None and NaN: for tables where a dash is explained."""
    return "–" if _unknown(value) else number(value)


def signed(value: Any) -> str:
    """A difference with its sign and 3 decimals, a dash where there is none.

    >>> signed(0.0312), signed(-0.2), signed(0.0), signed(None)
    ('+0.031', '−0.200', '0.000', '–')
    """
    if _unknown(value):
        return "–"
    text = f"{abs(value):.3f}"
    return text if not float(text) else f"{'−' if value < 0 else '+'}{text}"


def p_value(value: Any) -> str:
    """A p-value with 3 decimals and no leading zero, ``< .001`` below that, a dash where none is.

    >>> p_value(0.0004), p_value(0.0312), p_value(1.0)
    ('< .001', '.031', '1.000')
    """
    if _unknown(value):
        return "–"
    return "< .001" if value < 0.001 else f"{value:.3f}".removeprefix("0")


def interval(bounds: Any) -> str:
    """``0.801 to 0.888``, or a dash where there is no interval."""
    if not isinstance(bounds, (list, tuple)) or len(bounds) != 2:
        return "–" if bounds is None else str(bounds)
    return f"{number(bounds[0])} to {number(bounds[1])}"


def setting(value: Any) -> str:
    """A value of a config or an environment, in full precision and on one line."""
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, (list, tuple)):
        return ", ".join(setting(item) for item in value) or "none"
    if isinstance(value, dict):
        return ", ".join(f"{key}: {setting(item)}" for key, item in value.items()) or "none"
    return str(value) or "none"


def memory(size: float) -> str:
    """Bytes in binary units: ``1.5 GiB``."""
    for unit in ("B", "KiB", "MiB"):
        if size < 1024:
            return f"{size:.0f} {unit}"
        size /= 1024
    return f"{size:.1f} GiB"


def cost(name: str, value: Any) -> str:
    """An entry of the report's cost, in the unit that its name ends with."""
    if isinstance(value, dict):
        # The unit is in the name of the inner entry or, where that is a stage, of the outer one.
        united = {key: key if key.endswith(("_s", "_bytes")) else name for key in value}
        return ", ".join(
            f"{label(key.removesuffix('_s'))} {cost(united[key], item)}"
            for key, item in value.items()
        )
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        if name.endswith("_bytes"):
            return memory(value)
        if name.endswith("per_s"):
            return f"{value:.2f} /s"
        if name.endswith("_s"):
            return duration(value)
    return "not measured" if value is None else setting(value)


def _unknown(value: Any) -> bool:
    return value is None or (isinstance(value, float) and math.isnan(value))


def _words(name: str) -> str:
    words = " ".join(
        _SPELLINGS.get(p) or (p.upper() if _ABBREVIATIONS.match(p) else p) for p in name.split("_")
    )
    return _TASK.sub(lambda found: f"task {found[1].upper()}", words)
