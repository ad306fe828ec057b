"""Who a generated shoulder is: bones, muscles, vessels and the body's surface, in mm.

Everything is drawn as a right shoulder; a left one is its mirror image.  Coordinates are x lateral,
y anterior, z superior, from the centre of the humeral head.  The scapula has its own frame from the
centre of the glenoid: `a` lateral within the blade's plane, `b` anterior across it, `c` upwards.

Sizes are near those of cadaver studies (Iannotti et al., J Bone Joint Surg Am 1992;74:491-500;
Churchill et al., J Shoulder Elbow Surg 2001;10:327-332): a head radius of about 24 mm, larger in
men, a pear-shaped glenoid of about 37 x 27 mm, version and inclination of a few degrees.  Their
spread, and where everything else lies, is assumed.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tfds_builders.phantoms.shoulder_bones_shapes import (
    Frame,
    Grid,
    Points,
    Tube,
    Waves,
    ball,
    ellipsoid,
    join,
    rotation,
)

_MEAN_RADIUS = 24.0  # of the head; all other lengths are given for this one
_BODY = Frame(np.zeros(3), np.eye(3))


@dataclass(frozen=True, eq=False)
class Shoulder:
    """The anatomy of one patient.

    Attributes:
      male: sex.
      age: years.
      radius: of the humeral head, mm.
      humerus, scapula: frames of the bones.
      head_cartilage, glenoid_cartilage: thickness, mm.
      face: centre of the sphere of the bony glenoid, in the scapula's frame.
      face_radius: of that sphere, mm.
      glenoid: half width and half height, mm.
      plate_mm: half thickness of the blade and of the spine of the scapula.
      bow_mm: how far the blade is bent backwards.
      shaft_cortex_mm: thickness of the cortex of the shaft.
      skin_fat_mm: thickness of the subcutaneous fat.
      deltoid_mm: thickness of the deltoid.
      tubes: parts of bones, and what the skin is draped over, by name.
      muscles, arteries, veins, nerves: tubes.
      marrow, strands: random fields; of red and fatty marrow, and of fat between the fascicles.
    """

    male: bool
    age: int
    radius: float
    humerus: Frame
    scapula: Frame
    head_cartilage: float
    glenoid_cartilage: float
    face: np.ndarray
    face_radius: float
    glenoid: tuple[float, float]
    plate_mm: float
    bow_mm: float
    shaft_cortex_mm: float
    skin_fat_mm: float
    deltoid_mm: float
    tubes: dict[str, Tube]
    muscles: Sequence[Tube]
    arteries: Sequence[Tube]
    veins: Sequence[Tube]
    nerves: Sequence[Tube]
    marrow: Waves
    strands: Waves

    @property
    def scale(self) -> float:
        """Size relative to a head radius of 24 mm."""
        return self.radius / _MEAN_RADIUS

    @property
    def head_axis(self) -> np.ndarray:
        """(3,) direction of the articular surface in the humerus's frame."""
        return np.array([-0.66, -0.28, 0.70])


def build_shoulder(rng: np.random.Generator) -> Shoulder:
    """Draws a patient."""

    def about(mean: float, sd: float) -> float:
        return float(mean + sd * np.clip(rng.standard_normal(), -2, 2))

    male = bool(rng.random() < 0.5)
    age = round(about(50, 14))
    radius = about(24.5, 1.2) if male else about(21.8, 1.0)
    s = radius / _MEAN_RADIUS
    humerus = Frame(np.zeros(3), rotation(2, about(0, 10)) @ rotation(1, about(-5, 4)))
    head_cartilage, glenoid_cartilage = about(1.5, 0.15), about(1.7, 0.15)
    gap = head_cartilage + glenoid_cartilage + about(0.6, 0.1)
    version, inclination = np.deg2rad([about(4, 3.5), about(5, 3.5)])
    normal = np.array([np.cos(version), -np.sin(version), np.sin(inclination)])
    normal /= np.linalg.norm(normal)
    axes = rotation(2, about(35, 4.5)) @ rotation(0, about(-6, 3)) @ rotation(1, about(0, 5))
    scapula = Frame(-axes @ normal * (radius + gap), axes)
    face_radius = about(1.45, 0.08) * radius  # flatter than the head: the labrum makes up for it
    bones = _bones(s, radius, humerus, scapula)
    arteries, veins, nerves = _vessels(s)
    return Shoulder(
        male=male,
        age=age,
        radius=radius,
        humerus=humerus,
        scapula=scapula,
        head_cartilage=head_cartilage,
        glenoid_cartilage=glenoid_cartilage,
        face=normal * face_radius,
        face_radius=face_radius,
        glenoid=(about(13.6, 0.7) * s, about(18.4, 0.8) * s),
        plate_mm=about(2.3, 0.1),
        bow_mm=about(7, 1.5),
        shaft_cortex_mm=about(3.4 if male else 2.8, 0.3),
        skin_fat_mm=float(np.clip(rng.lognormal(np.log(7 if male else 9), 0.35), 3.5, 18)),
        deltoid_mm=about(20 if male else 18, 1.5),
        tubes=bones,
        muscles=_muscles(s, radius, scapula, bones["coracoid"], about(1.0, 0.06)),
        arteries=arteries,
        veins=veins,
        nerves=nerves,
        marrow=Waves.draw(rng, 14.0),
        strands=Waves.draw(rng, 7.0, count=32),
    )


def humerus_distance(who: Shoulder, points: Points) -> np.ndarray:
    """Signed distance to the humerus, without its cartilage."""
    s = who.scale
    local = who.humerus.local(points)
    bone = join(ball(local, (0, 0, 0), who.radius), who.tubes["shaft"].local_distance(local), 5 * s)
    for centre, radius in (((15.5, -3.0, 3.5), 12.5), ((7.0, 16.5, -3.0), 8.5)):  # tuberosities
        bone = join(bone, ball(local, np.array(centre) * s, radius * s), 4 * s)
    return np.maximum(bone, -who.tubes["groove"].local_distance(local))


def scapula_distance(who: Shoulder, grid: Grid) -> np.ndarray:
    """Signed distance to the scapula, without its cartilage, at all samples of a grid.

    Glenoid, crest and processes are evaluated where they can be; elsewhere it is the distance to
    the plates alone.
    """
    s = who.scale
    local = who.scapula.local(grid.points())
    bone = np.minimum(_blade(who, local), _spine(who, local))
    for name in ("glenoid", "crest", "acromion", "coracoid"):
        tube = who.tubes[name]
        block = grid.block(*tube.box(3 * s))
        if block is None:
            continue
        inside = (local[0][block], local[1][block], local[2][block])
        if name != "glenoid":
            bone[block] = join(bone[block], tube.local_distance(inside), 3 * s)
            continue
        face = -ball(inside, who.face, who.face_radius)
        # From the neck to the rim; beyond the sphere there is no second glenoid.
        ends = np.abs(inside[0] + 12 * s) - 26 * s
        neck = np.maximum.reduce([glenoid_side(who, inside), face, ends])
        # The smooth union bulges; the face stays what it is.
        bone[block] = np.maximum(join(bone[block], neck, 6 * s), face - 0.3)
    return bone


def glenoid_side(who: Shoulder, local: Points) -> np.ndarray:
    """Signed distance to the side of the glenoid and its neck: a pear that tapers to the blade."""
    a, b, c = local
    width, height = (np.float32(v) for v in who.glenoid)
    taper = np.exp(-np.clip(4 - a, 0, 60) / np.float32(11 * who.scale))
    upper = 1 - np.float32(0.28) / (1 + np.exp(np.float32(-0.35 / who.scale) * c))
    half_b = (np.float32(0.20) + np.float32(0.80) * taper) * width * upper * np.float32(1.12)
    half_c = (np.float32(0.55) + np.float32(0.45) * taper) * height
    b = b - blade_middle(who, a)
    f = np.sqrt((b / half_b) ** 2 + (c / half_c) ** 2)
    norm = np.sqrt((b / half_b**2) ** 2 + (c / half_c**2) ** 2)
    return f * (f - 1) / np.maximum(norm, 1e-3)


def blade_middle(who: Shoulder, a: np.ndarray) -> np.ndarray:
    """`b` of the blade's middle surface, which follows the chest."""
    s = np.float32(who.scale)
    return -np.float32(who.bow_mm) * np.sin(np.float32(np.pi) * np.clip(-a / (108 * s), 0, 1))


def body_surface(who: Shoulder, points: Points) -> tuple[np.ndarray, np.ndarray]:
    """Signed distances to the deep fascia of the body and to that of the shoulder's dome alone."""
    s = who.scale
    x, y, z = points
    # Arm and deltoid: a cylinder that narrows downwards, with an ellipsoidal top.
    narrow = 1 + np.float32(0.0016) * np.clip(z, -120, 0)
    flat = (x / narrow, y / narrow, np.maximum(z, 0))
    dome = ellipsoid(flat, (5 * s, -3 * s, 0), (42 * s, 46 * s, who.radius + 23 * s))
    trunk = ellipsoid(points, (-135 * s, -10 * s, -60 * s), (122 * s, 84 * s, 150 * s))
    ridge = who.tubes["ridge"].local_distance(points)
    back = who.tubes["back"].distance(points)
    return join(join(join(dome, trunk, 18), ridge, 18), back, 8), dome


def thorax(who: Shoulder, points: Points) -> np.ndarray:
    """Signed distance to the outside of the rib cage."""
    s = who.scale
    return ellipsoid(points, (-140 * s, 8 * s, -70 * s), (84 * s, 74 * s, 140 * s))


def _blade(who: Shoulder, local: Points) -> np.ndarray:
    a, b, c = local
    s = who.scale
    corners = np.array([(-6, 14), (-92, 42), (-108, 2), (-88, -118), (-6, -16)]) * s
    edges = []
    for (a0, c0), (a1, c1) in zip(corners, np.roll(corners, -1, axis=0), strict=True):
        out = np.array([c0 - c1, a1 - a0]) / np.hypot(a1 - a0, c1 - c0)  # counter-clockwise
        edges.append(-(np.float32(out[0]) * (a - a0) + np.float32(out[1]) * (c - c0)))
    outline = np.maximum.reduce(edges)
    lateral = np.exp(np.minimum(edges[3], 0) / np.float32(6 * s))  # the border is a thick rod
    half = np.float32(who.plate_mm) + np.float32(2.6 * s) * lateral
    return np.maximum(np.abs(b - blade_middle(who, a)) - half, outline)


def _spine(who: Shoulder, local: Points) -> np.ndarray:
    """The plate between blade and crest."""
    a, b, c = local
    crest = who.tubes["crest"].nodes
    along = np.clip((a - crest[0, 0]) / (crest[1, 0] - crest[0, 0]), 0, 1).astype(np.float32)
    back, up = (crest[0, k] + along * (crest[1, k] - crest[0, k]) for k in (1, 2))
    front = blade_middle(who, a)
    notch = crest[1, 0] - np.float32(4 * who.scale) + np.float32(0.5) * (back - b)
    reach = np.maximum.reduce([b - front, back - b, a - notch, crest[0, 0] - a])
    return np.maximum(np.abs(c - up) - np.float32(who.plate_mm + 0.3), reach)


def _bones(s: float, radius: float, humerus: Frame, scapula: Frame) -> dict[str, Tube]:
    def tube(frame: Frame, nodes: list, radii: list, stretch: float = 1.0) -> Tube:
        return Tube(frame, np.array(nodes) * s, np.array(radii) * s, stretch)

    top = radius / s  # of the head, before scaling
    return {
        "shaft": tube(
            humerus,
            [(7, 2, -5), (8, 2, -30), (9, 2, -60), (9, 2, -190)],
            [18.5, 15.0, 11.5, 10.5],
        ),
        "groove": tube(humerus, [(18.5, 14.5, 30), (18.0, 15.5, -10), (14, 16, -50)], [4, 4, 1.5]),
        "biceps": tube(humerus, [(17.5, 14.0, 18), (17.2, 15.0, -10), (14, 16, -90)], [2.4] * 3),
        # A rod that holds the glenoid and its neck; they are not drawn as a rod.
        "glenoid": tube(scapula, [(-26, -4, 0), (4, 0, 0)], [16, 16], 1.4),
        "crest": tube(scapula, [(-100, -13, 12), (-26, -31, 18)], [4.2, 6.0]),
        "acromion": tube(
            scapula,
            [(-26, -31, 18), (4, -34, top + 3), (30, -26, top + 10), (33, -4, top + 14),
             (29, 9, top + 14.5)],
            [8.0, 9.5, 11.5, 11.5, 8.5],
            stretch=0.4,
        ),
        "coracoid": tube(scapula, [(-14, 4, 14), (-12, 20, 31), (5, 37, 22)], [8.5, 6.8, 5.6]),
        "clavicle": tube(
            scapula,
            [(9, 12, top + 15), (-20, 24, top + 17), (-75, 62, top + 15), (-140, 100, top + 5)],
            [7.5, 6.5, 6.5, 7.5],
            stretch=0.8,
        ),
        # What the body's surface is draped over: the neck's root, and the crest under the skin.
        "ridge": tube(_BODY, [(-4, -22, top - 4), (-70, -28, 22), (-150, -30, 50)], [20, 32, 42]),
        "back": tube(scapula, [(-105, -8, 12), (-26, -24, 16), (20, -20, top + 4)], [12, 15, 12]),
    }  # fmt: skip


def _muscles(s: float, radius: float, scapula: Frame, coracoid: Tube, bulk: float) -> list[Tube]:
    """Later ones lie over earlier ones."""
    top = radius / s
    tip = _BODY.place(scapula.place(coracoid.nodes[-1])) / s
    under = scapula.place(np.array([-3, -2, -21]) * s) / s

    def tube(frame: Frame, nodes: list, radii: list, stretch: float = 1.0) -> Tube:
        return Tube(frame, np.array(nodes) * s, np.array(radii) * s * bulk, stretch)

    return [
        # Teres major and latissimus, triceps, coracobrachialis, pectoralis minor, serratus.
        tube(_BODY, [(-100, -50, -90), (-30, -25, -62), (2, 14, -60)], [15, 12, 5]),
        tube(_BODY, [under, (2, -22, -60), (6, -22, -150)], [5, 13, 18]),
        tube(_BODY, [(16, 12, -75), (12, 12, -150)], [9, 17]),
        tube(_BODY, [tip, (2, 22, -60), (2, 20, -130)], [4.5, 9, 13]),
        tube(_BODY, [tip, (-50, 42, -12), (-100, 50, -60)], [4, 9, 13], 1.3),
        tube(scapula, [(-112, 12, 20), (-75, 30, -5), (-50, 38, -50)], [8, 9, 9], 2.6),
        # The neck's root: levator and scalene muscles.
        tube(_BODY, [(-110, 12, 60), (-82, 14, 24), (-70, 18, 0)], [18, 12, 8]),
        # The cuff: teres minor, infraspinatus, subscapularis, supraspinatus.
        tube(scapula, [(-62, -16, -60), (-15, -20, -30), (19, -top - 1, -17)], [8, 8.5, 4], 1.2),
        tube(
            scapula,
            [(-90, -22, -22), (-45, -23, -13), (-6, -24, -4), (20, -top - 3, 4)],
            [10, 12, 11, 4.5],
            2.1,
        ),
        tube(
            scapula,
            [(-90, 10, -26), (-45, 9, -16), (-8, 17, -2), (18, top + 2, 0)],
            [11, 15, 11, 4.0],
            2.4,
        ),
        tube(
            scapula,
            [(-92, -20, 28), (-45, -17, 30), (0, -9, 30), (21, -3, top + 4.5)],
            [11, 14, 11, 4.5],
            1.1,
        ),
    ]


def _vessels(s: float) -> tuple[list[Tube], list[Tube], list[Tube]]:
    path = np.array([(-95, 30, 22), (-55, 33, -5), (-24, 22, -38), (-10, 8, -140)], float)

    def beside(shift: tuple[float, float, float], radius: float) -> Tube:
        return Tube(_BODY, (path + shift) * s, np.full(len(path), radius) * s)

    nerves = [beside(v, 1.9) for v in ((6, -3, 5), (1, -7, 2), (8, 4, -2))]
    return [beside((0, 0, 0), 3.3)], [beside((-6, 5, -5), 4.4)], nerves
