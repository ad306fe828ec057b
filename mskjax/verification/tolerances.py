"""How far a number may be from the same number computed elsewhere: all tolerances, with reasons.

On the same kind of device and processor, with the same versions and flags, a run is computed to the
same bits, and nothing may differ.  Elsewhere sums run in another order and functions are
approximated otherwise; docs/reproducibility.md has what was measured.
"""

import dataclasses
import re
from collections.abc import Mapping, Sequence
from typing import Any

Json = Mapping[str, Any]

# A network's probabilities.  In float32 another instruction set moves them by some 1e-6; a deep
# network, and products that an accelerator rounds to ten bits, by more.
FLOAT32 = 2e-3
# A number of bfloat16 has eight bits, so each layer rounds by up to .004.
BFLOAT16 = 3e-2
# Fractions of voxels (Dice and the like): voxels whose classes are as good as equal change sides.
OVERLAP = 1e-2
# Millimetres: the distance of a surface follows single voxels of its edge.
LENGTH_MM = 0.5
# What is a function of the table alone: sums over resamples in float32, in any order.
FIGURE = 1e-5

_OVERLAPS = {
    "dice", "dice_ceiling", "iou", "ppv", "sensitivity", "pixel_accuracy", "nsd", "box_iou", "loss",
}  # fmt: skip
_LENGTHS = {"hd95", "assd", "slice_error_mm", "row0", "col0", "row1", "col1"}
_PROBABILITIES = re.compile(r"(oracle_)?p_\w+|score")
# Of environment.json, what decides on bits; not, e.g., which Python called the library.
_COMPARED = ("platform", "cpu", "packages", "devices", "xla_flags", "variables", "git_commit")


@dataclasses.dataclass(frozen=True)
class Tolerance:
    """How far a cell of cases.csv may be from the same cell computed again.

    Attributes:
      probability: of a probability or a score of a detection.
      overlap: of a fraction of voxels, or a loss.
      length: of a distance or a coordinate, in mm or pixels.
    """

    probability: float = 0.0
    overlap: float = 0.0
    length: float = 0.0

    @property
    def is_exact(self) -> bool:
        """Whether nothing may differ."""
        return self == EXACT

    def of(self, column: str) -> float:
        """Of a column of numbers; 0 of counts and of all others."""
        if column in _OVERLAPS:
            return self.overlap
        if column in _LENGTHS:
            return self.length
        return self.probability if _PROBABILITIES.fullmatch(column) else 0.0

    def __str__(self) -> str:
        if self.is_exact:
            return "to the last digit"
        return (
            f"probabilities to {self.probability:g}, fractions of voxels to {self.overlap:g},"
            f" distances to {self.length:g}, all else equal"
        )


EXACT = Tolerance()


def changes(then: Json, now: Json) -> list[str]:
    """What of two environments differs that decides on bits, in words; empty where nothing does.

    Args:
      then: environment.json of the run.
      now: of this process.
    """
    found = []
    for name in _COMPARED:
        old, new = then.get(name), now.get(name)
        if isinstance(old, Mapping) and isinstance(new, Mapping):
            inner = [k for k in sorted({*old, *new}) if old.get(k) != new.get(k)]
            found += [f"{k}: {_short(old.get(k))}, now {_short(new.get(k))}" for k in inner]
        elif old != new:
            found.append(f"{name}: {_short(old)}, now {_short(new)}")
    return found


def of(differing: Sequence[str], recipe: Json) -> Tolerance:
    """The tolerance of a fold.

    Args:
      differing: see `changes`.
      recipe: config.json, whose stages say what they compute in.
    """
    if not differing:
        return EXACT
    return Tolerance(
        BFLOAT16 if "bfloat16" in str(recipe["stages"]) else FLOAT32, OVERLAP, LENGTH_MM
    )


def _short(value: Any) -> str:
    text = "not known" if value is None else str(value)
    return text if len(text) <= 40 else f"{text[:37]}..."
