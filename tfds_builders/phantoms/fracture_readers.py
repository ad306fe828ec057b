"""Simulated readings of fracture phantoms: calls and findings drawn from rates, nobody read them.

The rates of the calls are those of the three readers of Yeh et al. (PMC9764339), 190 patients; for
the senior reader and the fourth-year resident only the accuracy is published, and stands for both
sensitivity and specificity.  The error rate of the findings is assumed.
"""

from dataclasses import asdict, dataclass

import numpy as np

from tfds_builders.phantoms.fracture_traits import Findings

_CALLS, _FINDINGS = 100, 101  # streams beside those of the image
FINDING_ERROR = 0.03


@dataclass(frozen=True)
class Reader:
    """A reader of known rates; malignant is positive."""

    name: str
    sensitivity: float
    specificity: float


READERS = (
    Reader("senior", 0.98, 0.98),
    Reader("fourth_year_resident", 0.96, 0.96),
    Reader("first_year_resident", 0.78, 0.61),
)


def draw_calls(seed: int, malignant: bool) -> dict[str, int]:
    """Reader to call (1 malignant, 0 benign) on patient `seed`."""
    rng = np.random.default_rng((seed, _CALLS))
    right = {r.name: rng.random() < (r.sensitivity if malignant else r.specificity)
             for r in READERS}  # fmt: skip
    return {name: int(malignant if hit else not malignant) for name, hit in right.items()}


def draw_findings(seed: int, seen: Findings) -> dict[str, int]:
    """The findings as a reader notes them: each is wrong with probability `FINDING_ERROR`."""
    rng = np.random.default_rng((seed, _FINDINGS))
    return {
        name: int(present != (rng.random() < FINDING_ERROR))
        for name, present in asdict(seen).items()
    }
