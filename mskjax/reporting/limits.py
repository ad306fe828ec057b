"""What keeps the figures of a run from saying more than they do, from the run itself."""

from collections.abc import Mapping, Sequence
from typing import Any

from mskjax.data.splits import Splits

NO_EXTERNAL = "No external test."
SHUFFLED = "labels were shuffled between patients"  # what makes a run a control
ONE_SEED = "One run with one seed; the spread over seeds is not in the intervals."


def of(
    own: Sequence[str], audit: Mapping[str, Any], divided: Splits, shuffled: bool, seeds: int = 1
) -> list[str]:
    """The limits of a run, what weighs most first.

    Args:
      own: those of the system.
      audit: of the cohort.
      divided: its patients.
      shuffled: whether it is a control run.
      seeds: from how many it was trained.
    """
    limits = [*of_seeds(seeds), *own]
    if audit["kind"] == "phantom":
        limits.insert(
            0,
            "PHANTOM: generated images; the figures say that the pipeline learns, and"
            " nothing about patients.",
        )
    for remark in reversed(divided.remarks()):
        limits.insert(0, remark)
    if divided.unit == "case":
        limits.insert(
            0,
            "LEAKING SPLIT: cases were divided, not patients; cases of one patient lie on both"
            " sides and the figures are optimistic.",
        )
    if shuffled:
        limits.insert(0, f"CONTROL RUN: {SHUFFLED}; figures should lie at chance.")
    if unsized := audit.get("studies_without_pixel_size", 0):
        limits.append(
            f"{unsized} of {audit['studies']} studies do not say how large their pixels are:"
            " lengths in them are pixels, their pictures have no scale bar, and figures in mm leave"
            " them out."
        )
    if "official" not in divided.kind:
        limits.append(NO_EXTERNAL)
    return limits


def of_seeds(seeds: int) -> list[str]:
    """What so many seeds leave open.

    Resampling N values takes their variance for (N - 1) / N of what they estimate it at.
    """
    if seeds == 1:
        return [ONE_SEED]
    return [
        f"{seeds} seeds: intervals hold their spread beside that of patients, but {seeds} trainings"
        " say little of how trainings vary, and drawing among them counts"
        f" {(seeds - 1) / seeds:.0%} of the variance that they show.",
        "Curves, pictures, confusion, ROC, calibration, thresholds, lists of doubtful references,"
        " values of folds and p-values are those of the first seed; figures with an interval are"
        " means over seeds, those of the ensemble stand beside them.",
    ]


def of_extension(extended: str) -> str:
    """What more steps than a stage was begun with leave open, from a sentence on them."""
    return (
        f"{extended}.  Its learning rate rose again there: this is not the training of so many"
        " steps from the start."
    )
