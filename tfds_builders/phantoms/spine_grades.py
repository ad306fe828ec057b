"""Draws the discs of one patient: grades, and the continuous state that shows in the image.

Rates of the findings given the Pfirrmann grade are counts over the T2 discs of SPIDER's public
mid-sagittal patients (van der Graaf et al., Sci Data 2024;11:264), rounded.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import ndtr, ndtri

MAX_LEVELS = 14

# Shares of the latent degeneration's unit variance: patient (60 % of its deviation due to age),
# level, and the disc itself.  SPIDER: half the variance of grades lies between patients, and the
# mean grade falls from 3.35 at L5/S1 to 2.25 at level 6.
_PATIENT_SD, _DISC_SD, _LEVEL_STEP = 0.72, 0.55, 0.30
_AGE_SHARE = 0.6
AGE_MEAN, AGE_SD = 52.0, 15.0

_P_BULGING = (0.13, 0.21, 0.60, 0.79, 0.87)
_P_HERNIATION = (0.01, 0.01, 0.05, 0.08, 0.18)
_P_SLIP = (0.005, 0.005, 0.015, 0.05, 0.10)
_P_ENDPLATE = (0.15, 0.19, 0.40, 0.56, 0.84)
_P_MODIC = (0.03, 0.12, 0.34, 0.47, 0.88)

# Disc height against degeneration (Pfirrmann: normal to slightly decreased in III, normal to
# moderately decreased in IV, collapsed in V); assumed values, and the height called narrowed.
_HEIGHT = (1.0, 1.0, 0.90, 0.74, 0.48)
NARROWED_BELOW = 0.80


@dataclass(frozen=True)
class Disc:
    """One intervertebral disc.

    Attributes:
      level: 1 for the lowest, counting upwards.
      pfirrmann: 1 to 5, the reference grade.
      degeneration: what shows in the image, on Pfirrmann's scale; near, not equal to, the grade.
      height_factor: height relative to a healthy disc of this patient and level.
      bulge_mm, herniation_mm: posterior extent beyond the vertebral margin, mm; 0 if absent.
      herniation_x_mm: lateral position of the herniation, mm to the left.
      slip_mm: anterior displacement of the vertebra above, mm; 0 if none.
      modic: 0 to 3, of the marrow at both endplates.
      upper_notch_mm, lower_notch_mm: depth of the defect in the endplate above and below, mm.
    """

    level: int
    pfirrmann: int
    degeneration: float
    height_factor: float
    bulge_mm: float
    herniation_mm: float
    herniation_x_mm: float
    slip_mm: float
    modic: int
    upper_notch_mm: float
    lower_notch_mm: float

    def grading(self) -> dict[str, int]:
        """The grades as a radiologist's table holds them."""
        return {
            "level": self.level,
            "pfirrmann": self.pfirrmann,
            "modic": self.modic,
            "narrowing": int(self.height_factor < NARROWED_BELOW),
            "bulging": int(self.bulge_mm > 0),
            "herniation": int(self.herniation_mm > 0),
            "spondylolisthesis": int(self.slip_mm > 0),
            "upper_endplate": int(self.upper_notch_mm > 0),
            "lower_endplate": int(self.lower_notch_mm > 0),
        }


def draw_discs(
    rng: np.random.Generator,
    age: float,
    grade_counts: Sequence[float],
    modic_type_shares: Sequence[float],
    overlap: float,
) -> list[Disc]:
    """All `MAX_LEVELS` discs of a patient, the lowest first.

    A standard normal latent degeneration is the sum of the patient, the level and the disc.  Cut at
    the quantiles of `grade_counts` it is the grade; its place between the cuts is the continuous
    degeneration, so that neighbouring grades meet in the image as they do in a clinic.

    Args:
      rng: source of randomness.
      age: years.
      grade_counts: (5,) relative frequency of the Pfirrmann grades.
      modic_type_shares: (3,) relative frequency of the types among discs with Modic changes.
      overlap: standard deviation of the image's degeneration about the reader's, in grades.
    """
    upper = np.cumsum(np.asarray(grade_counts, float)) / np.sum(grade_counts)
    cuts = np.concatenate([[0.0], upper])
    shares = np.asarray(modic_type_shares, float) / np.sum(modic_type_shares)
    age_z = (age - AGE_MEAN) / AGE_SD
    own = rng.standard_normal()
    patient = _PATIENT_SD * (_AGE_SHARE * age_z + np.sqrt(1 - _AGE_SHARE**2) * own)
    discs = []
    for level in range(1, MAX_LEVELS + 1):
        latent = patient + _LEVEL_STEP * (3 - min(level, 6)) + _DISC_SD * rng.standard_normal()
        # Finite, and so inside a bin, however extreme the patient.
        latent = float(np.clip(latent, ndtri(1e-6), -ndtri(1e-6)))
        p = float(ndtr(latent))
        grade = 1 + int(np.searchsorted(upper[:4], p, side="right"))
        place = (p - cuts[grade - 1]) / (cuts[grade] - cuts[grade - 1])
        shown = float(np.clip(grade - 0.5 + place + overlap * rng.standard_normal(), 0.6, 5.4))
        discs.append(_draw_disc(rng, level, grade, shown, shares, overlap))
    return discs


def _draw_disc(
    rng: np.random.Generator,
    level: int,
    grade: int,
    shown: float,
    modic_shares: np.ndarray,
    overlap: float,
) -> Disc:
    # One draw of each kind whatever the outcome, so that discs stay comparable between configs.
    p = rng.random(7)
    size = rng.random(6)
    height = float(np.interp(shown, range(1, 6), _HEIGHT)) + 0.2 * overlap * rng.standard_normal()
    g = grade - 1
    modic = 1 + int(rng.choice(3, p=modic_shares))
    # A degenerative slip needs a mobile segment: in practice the lowest three.
    slips = p[2] < _P_SLIP[g] * 5 / 3 and level <= 3
    return Disc(
        level=level,
        pfirrmann=grade,
        degeneration=shown,
        height_factor=float(np.clip(height, 0.40, 1.15)),
        bulge_mm=(1.8 + 1.4 * size[0]) * (p[0] < _P_BULGING[g]),
        herniation_mm=(4.5 + 3.0 * size[1]) * (p[1] < _P_HERNIATION[g]),
        herniation_x_mm=-4.0 + 8.0 * size[2],
        slip_mm=(4.0 + 4.0 * size[3]) * slips,
        modic=modic * int(p[3] < _P_MODIC[g]),
        upper_notch_mm=(1.4 + 1.2 * size[4]) * (p[4] < _P_ENDPLATE[g]),
        lower_notch_mm=(1.4 + 1.2 * size[5]) * (p[5] < _P_ENDPLATE[g]),
    )
