"""The anatomy of a shoulder in Y-view: outlines in millimetres, varied from patient to patient.

The plane crosses the scapula where its spine leaves the body, so that bone makes a Y: coracoid to
the front, spine of the scapula to the back, body down.  Coordinates are (x, y): x from front to
back, y from head to feet, origin where the arms of the Y meet; the front of the patient is to the
left of the image whichever shoulder it is.

The template is schematic, drawn from anatomy and adult sizes: a fossa about 45 mm long and 25 mm
high between the arms of the Y, the supraspinatus in it, its roof the fascia under the trapezius.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

Points = Sequence[tuple[float, float]]
Ellipse = tuple[float, float, float, float]  # centre and half axes
SUPRASPINATUS = "supraspinatus"
CORTEX_MM = 1.3
_SAMPLES = 10  # of the curve between two control points

# What encloses the muscles; subcutaneous fat, skin and air lie outside.
_SHEATH: Points = (
    (-72, 130), (-70, 50), (-64, 14), (-56, -12), (-45, -31), (-28, -45), (-6, -48), (15, -45),
    (33, -34), (45, -15), (51, 14), (54, 50), (50, 130),
)  # fmt: skip

# Contents of the fossa: floor along coracoid and spine, roof under trapezius and clavicle.
_FOSSA: Points = (
    (-1, -6.8), (-8, -9.8), (-17, -16), (-21, -21), (-18.5, -28), (-9, -33), (3, -35),
    (14, -32.5), (22.5, -28.5), (25.5, -25.5), (20.5, -18.8), (12, -10.8), (5, -7),
)  # fmt: skip
_ROOF: Points = ((-22, -22), (-19.5, -28.5), (-9, -33.8), (3, -35.8), (14, -33.3), (25, -28))
_ANCHOR = np.array([2.0, -15.0])  # towards this point, near the floor, an atrophied muscle shrinks

_MUSCLES: Mapping[str, Points] = {
    "infraspinatus": (
        (5, -1), (14, -5), (24, -13), (31, -16), (36, -5), (38.5, 14), (37, 33), (30, 45),
        (20, 45.5), (11, 39), (6, 20),
    ),
    "subscapularis": (
        (-4, 0), (1, 8), (6, 24), (8, 44), (6, 61), (-2, 66), (-13, 61), (-25, 49), (-32, 31),
        (-31, 14), (-22, 3), (-12, -1),
    ),
    "teres_minor": ((15, 49), (21, 47.5), (30, 47.5), (36, 44), (37, 54), (30, 63), (19, 62)),
    "teres_major": ((0, 72), (13, 65), (27, 67), (34, 77), (27, 88), (8, 90), (-4, 84)),
    "latissimus": (
        (-12, 96), (6, 93), (26, 91), (38, 79), (46, 68), (49, 90), (45, 125), (-10, 125),
    ),
    "deltoid_posterior": (
        (36, -27), (43, -13), (49, 12), (51.5, 42), (48, 66), (42, 60), (40, 34), (39.5, 8),
        (36, -10), (33.5, -19),
    ),
    "deltoid_anterior": (
        (-32, -41), (-46, -28), (-55.5, -8), (-62, 16), (-55, 20), (-47, 6), (-42, -12),
        (-36, -24), (-30, -31),
    ),
    "trapezius": (
        (-17, -43.5), (-4, -46), (13, -43), (27, -35.5), (34, -29), (31, -28), (18, -35),
        (4, -38.5), (-8, -38.5), (-16, -37),
    ),
    "pectoralis_major": ((-63, 21), (-54, 24), (-52, 50), (-55, 90), (-66, 110), (-69, 60)),
    "pectoralis_minor": (
        (-37, -5), (-30, -3), (-34, 16), (-39, 34), (-47, 46), (-48, 26), (-43, 4),
    ),
    "serratus": (
        (-48, 58), (-40, 62), (-28, 78), (-20, 98), (-22, 125), (-31, 120), (-34, 96), (-47, 74),
    ),
}  # fmt: skip
MUSCLES = (SUPRASPINATUS, *_MUSCLES)

# Centre lines of bones with half widths, mm.
_CORACOID = (((1, 1), (-9, -4), (-18, -10.5), (-27, -14.5), (-33, -11)), (4.2, 4.3, 4.6, 5.2, 3.4))
_SPINE = (((-1, 1), (11, -6.5), (21, -15), (29, -22.5), (33, -26)), (4.2, 2.4, 2.8, 4.4, 3.6))
_BODY = (((0, -2), (4.5, 12), (8.5, 32), (9, 52), (7, 63)), (4.4, 2.2, 1.8, 2.6, 3.4))
_RIBS: Sequence[Ellipse] = ((-46, 88, 8.5, 5.5), (-36, 116, 9.0, 5.5))
_CLAVICLE: Ellipse = (-24.5, -36.0, 8.5, 6.3)
_TENDONS = (  # inside muscles: centre line and half width
    (((4, 15), (-8, 12), (-20, 14)), 0.55),
    (((7, 31), (-6, 30), (-21, 33)), 0.55),
    (((7, 47), (-4, 45), (-13, 49)), 0.55),
    (((12, 17), (20, 13), (29, 15)), 0.6),
)
_SUPRASPINATUS_TENDON = (((-11, -19), (-5, -21), (2, -21.5)), 0.8)
# Axillary vessels, the suprascapular pedicle on the floor of the fossa's front, others in fat.
_ARTERIES: Sequence[Ellipse] = ((-38, 50, 3.0, 2.8), (5, 79, 1.0, 1.0), (39, 50, 1.2, 1.0))
_VEINS: Sequence[Ellipse] = ((-43, 53, 4.0, 3.0), (-33, 57, 1.6, 1.4), (-38, -2, 1.6, 1.3))


@dataclass(frozen=True)
class Anatomy:
    """Closed outlines, each (N, 2) of (x, y) in mm.

    Attributes:
      sheath: encloses the muscles.
      fossa: contents of the supraspinatus fossa.
      muscles: by name, the supraspinatus among them.
      bones: outer and inner face of the cortex of each bone, to be drawn as a union.
      tendons: thin, inside muscles.
      fasciae: the roof of the fossa.
      arteries, veins: in fat.
      lung: behind the ribs.
    """

    sheath: np.ndarray
    fossa: np.ndarray
    muscles: Mapping[str, np.ndarray]
    bones: Sequence[tuple[np.ndarray, np.ndarray]]
    tendons: Sequence[np.ndarray]
    fasciae: Sequence[np.ndarray]
    arteries: Sequence[np.ndarray]
    veins: Sequence[np.ndarray]
    lung: np.ndarray


def build_anatomy(
    patient: np.random.Generator,
    image: np.random.Generator,
    male: bool,
    occupancy: float,
    medial_mm: float,
) -> Anatomy:
    """One slice of one patient.

    Args:
      patient: randomness that all images of a patient share.
      image: randomness of this image.
      male: men are larger.
      occupancy: area of the muscle over the area of the fossa, 0 to 1.
      medial_mm: distance of the plane from the standard one, towards the spine; the coracoid
        shortens and the fossa grows that way.
    """
    warp = _warp(patient, image, male, medial_mm)
    muscle = _shrunken(smooth(_FOSSA), occupancy, image)
    shorter = 1 - 0.03 * medial_mm
    coracoid = [(x * shorter, y * shorter) for x, y in _CORACOID[0]]
    rods = ((coracoid, _CORACOID[1]), _SPINE, _BODY)
    k = np.sqrt(occupancy)
    inner = _ANCHOR + k * (np.array(_SUPRASPINATUS_TENDON[0]) - _ANCHOR)
    tendons = [ribbon(line, width) for line, width in _TENDONS]
    rounds = (_CLAVICLE, *_RIBS)
    return Anatomy(
        sheath=warp(smooth(_SHEATH)),
        fossa=warp(smooth(_FOSSA)),
        muscles={
            SUPRASPINATUS: warp(muscle),
            **{name: warp(smooth(points)) for name, points in _MUSCLES.items()},
        },
        bones=[
            *((warp(ribbon(p, w)), warp(ribbon(p, np.array(w) - CORTEX_MM))) for p, w in rods),
            *((warp(ellipse(*e)), warp(ellipse(*e, shrink=CORTEX_MM))) for e in rounds),
        ],
        tendons=[warp(t) for t in (*tendons, ribbon(inner, _SUPRASPINATUS_TENDON[1] * k))],
        fasciae=[warp(ribbon(_ROOF, 0.4))],
        arteries=[warp(ellipse(*e)) for e in _ARTERIES],
        veins=[warp(ellipse(*e)) for e in _VEINS],
        lung=warp(smooth(((-53, 82), (-43, 98), (-39, 125), (-56, 130), (-58, 96)))),
    )


def smooth(points: Points | np.ndarray) -> np.ndarray:
    """Closed Catmull-Rom curve through control points.

    Args:
      points: (N, 2) control points in order.

    Returns:
      (10 N, 2) points of the curve, which passes through the control points.
    """
    p = np.asarray(points, float)
    return _catmull_rom(np.roll(p, 1, 0), p, np.roll(p, -1, 0), np.roll(p, -2, 0))


def ribbon(
    points: Points | np.ndarray, half_widths: Sequence[float] | np.ndarray | float
) -> np.ndarray:
    """Outline of a curved rod with round ends.

    Args:
      points: (N, 2) control points of the centre line.
      half_widths: at the control points, mm; at least .3 mm is drawn.
    """
    p = np.asarray(points, float)
    w = np.maximum(np.broadcast_to(np.asarray(half_widths, float), (len(p),)), 0.3)
    knots = np.column_stack([p, w])
    padded = np.vstack([2 * knots[0] - knots[1], knots, 2 * knots[-1] - knots[-2]])
    curve = _catmull_rom(padded[:-3], padded[1:-2], padded[2:-1], padded[3:])
    curve = np.vstack([curve, knots[-1]])
    line, width = curve[:, :2], curve[:, 2:]
    along = np.gradient(line, axis=0)
    along /= np.linalg.norm(along, axis=1, keepdims=True)
    aside = along @ np.array([[0.0, 1.0], [-1.0, 0.0]]) * width
    turn = np.linspace(0, np.pi, 9)[1:-1, None]
    tip = line[-1] + np.cos(turn) * aside[-1] + np.sin(turn) * along[-1] * width[-1]
    tail = line[0] - np.cos(turn) * aside[0] - np.sin(turn) * along[0] * width[0]
    return np.vstack([line + aside, tip, (line - aside)[::-1], tail])


def ellipse(x: float, y: float, half_x: float, half_y: float, shrink: float = 0.0) -> np.ndarray:
    """(40, 2) outline of an ellipse about (x, y), its half axes shortened by `shrink`."""
    t = np.linspace(0, 2 * np.pi, 40, endpoint=False)
    return np.column_stack([x + (half_x - shrink) * np.cos(t), y + (half_y - shrink) * np.sin(t)])


def area(outline: np.ndarray) -> float:
    """Area within a closed outline (N, 2), mm2."""
    x, y = outline.T
    return 0.5 * abs(float(np.dot(x, np.roll(y, -1)) - np.dot(y, np.roll(x, -1))))


def _catmull_rom(a: np.ndarray, b: np.ndarray, c: np.ndarray, d: np.ndarray) -> np.ndarray:
    """Curve from each b to its c, b included, c not."""
    t = np.linspace(0, 1, _SAMPLES, endpoint=False)[:, None]
    a, b, c, d = (v[:, None] for v in (a, b, c, d))
    curve = 2 * b + (c - a) * t + (2 * a - 5 * b + 4 * c - d) * t**2
    curve = 0.5 * (curve + (3 * b - 3 * c + d - a) * t**3)
    return curve.reshape(-1, curve.shape[-1])


def _shrunken(fossa: np.ndarray, occupancy: float, rng: np.random.Generator) -> np.ndarray:
    """The muscle that fills a share of the fossa; the less, the more irregular its outline."""
    away = fossa - _ANCHOR
    angle = np.arctan2(away[:, 1], away[:, 0])
    waves = sum(
        rng.normal() / m * np.cos(m * angle + rng.uniform(0, 2 * np.pi)) for m in range(2, 7)
    )
    away = away * np.minimum(1 + 0.3 * (1 - occupancy) * waves, 1.15)[:, None]
    # The waves must not leave the fossa nor change the area.
    k = np.sqrt(occupancy * area(fossa) / area(away))
    return _ANCHOR + k * away


def _warp(
    patient: np.random.Generator, image: np.random.Generator, male: bool, medial_mm: float
) -> Callable[[np.ndarray], np.ndarray]:
    """Size, proportions, rotation and smooth deformation, from the template to this slice."""
    size = (1.05 if male else 0.95) * np.exp(patient.normal(0, 0.035))
    stretch = np.exp(patient.normal(0, 0.03)) * (1 + 0.008 * medial_mm)
    angle = np.deg2rad(patient.normal(0, 6) + image.normal(0, 1.5))
    turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    matrix = size * np.diag([stretch, 1 / stretch]) @ turn
    modes = [(patient, 1.3)] * 5 + [(image, 0.5)] * 3
    waves = [_wave(rng, amplitude) for rng, amplitude in modes]

    def warp(points: np.ndarray) -> np.ndarray:
        moved = points @ matrix
        return moved + sum(np.sin(points @ k + phase)[:, None] * shift for k, phase, shift in waves)

    return warp


def _wave(rng: np.random.Generator, amplitude: float) -> tuple[np.ndarray, float, np.ndarray]:
    """Wave vector (rad/mm), phase and displacement (mm) of one mode."""
    heading, phase = rng.uniform(0, 2 * np.pi, 2)
    k = 2 * np.pi / rng.uniform(60, 140)
    return k * np.array([np.cos(heading), np.sin(heading)]), phase, rng.normal(0, amplitude, 2)
