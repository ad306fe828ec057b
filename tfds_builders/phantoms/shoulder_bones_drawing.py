"""Draws a generated shoulder as a fine map of materials, slab by slab.

Order is meaning: muscles lie in fat, tendons and joint over muscles, bones over everything.  Each
shape is evaluated only in the block of samples that it may reach.
"""

from collections.abc import Iterator, Sequence
from enum import IntEnum

import numpy as np

from tfds_builders.phantoms.shoulder_bones_anatomy import (
    Shoulder,
    body_surface,
    glenoid_side,
    humerus_distance,
    scapula_distance,
    thorax,
)
from tfds_builders.phantoms.shoulder_bones_shapes import Block, Grid, Points, Tube, ball

SKIN_MM = 1.8
MARROW_STEPS = 6  # from fatty to red
_SLAB = 800_000  # samples drawn at once; some twenty float arrays of them are alive
_FAT_PLANE_MM = 0.9  # between two muscles
_SCAPULA_CORTEX_MM = 1.2


class M(IntEnum):
    """Materials; each of the two marrows has `MARROW_STEPS` of them."""

    AIR = 0
    LUNG = 1
    SKIN = 2
    FAT = 3
    FASCIA = 4
    MUSCLE = 5
    PERIMYSIUM = 6
    TENDON = 7  # and labrum, capsule
    CARTILAGE = 8
    FLUID = 9
    ARTERY = 10
    VEIN = 11
    NERVE = 12
    OTHER_CORTEX = 13  # clavicle and ribs are bones that nobody asks for
    OTHER_MARROW = 14
    HUMERUS_CORTEX = 15
    SCAPULA_CORTEX = 16
    HUMERUS_MARROW = 17
    SCAPULA_MARROW = HUMERUS_MARROW + MARROW_STEPS


N_MATERIALS = M.SCAPULA_MARROW + MARROW_STEPS


def structure_of() -> np.ndarray:
    """(N_MATERIALS,) uint8: 0 background, 1 humerus, 2 scapula."""
    table = np.zeros(N_MATERIALS, np.uint8)
    table[[M.HUMERUS_CORTEX, *range(M.HUMERUS_MARROW, M.HUMERUS_MARROW + MARROW_STEPS)]] = 1
    table[[M.SCAPULA_CORTEX, *range(M.SCAPULA_MARROW, M.SCAPULA_MARROW + MARROW_STEPS)]] = 2
    return table


def slabs(grid: Grid, factors: Sequence[int]) -> Iterator[slice]:
    """Cuts the slices of a grid of voxels into slabs, by the fine samples that they hold."""
    area = grid.shape[1] * grid.shape[2] * int(np.prod(factors))
    step = max(1, _SLAB // area)
    for start in range(0, grid.shape[0], step):
        yield slice(start, min(start + step, grid.shape[0]))


def fine(grid: Grid, factors: Sequence[int]) -> Grid:
    """The samples within the voxels of a grid, `factors` along each axis."""
    f = np.asarray(factors)
    origin = grid.origin - grid.steps @ ((f - 1) / (2 * f))
    shape = tuple(int(n) for n in np.array(grid.shape) * f)
    return Grid(origin, grid.steps / f, shape)  # type: ignore[arg-type]


def draw(who: Shoulder, grid: Grid) -> np.ndarray:
    """Fills a fine map of `M`, uint8, of the grid's shape."""
    labels = np.full(grid.shape, M.FAT, np.uint8)
    thin = np.abs(who.strands.on(grid)) < 0.10
    _draw_body(labels, who, grid, thin)
    for muscle in who.muscles:
        _draw_muscle(labels, muscle, grid, thin)
    for tubes, material in (
        (who.nerves, M.NERVE), (who.veins, M.VEIN), (who.arteries, M.ARTERY)
    ):  # fmt: skip
        for tube in tubes:
            for block, points in _reach(tube, grid, 0.0):
                part = labels[block]
                part[(tube.distance(points) < 0) & (part > M.SKIN)] = material
    _draw_clavicle(labels, who, grid)
    red = who.marrow.on(grid)
    _draw_shell(labels, who, grid)
    _draw_joint(labels, who, grid)
    _draw_scapula(labels, who, grid, red)
    _draw_humerus(labels, who, grid, red)
    return labels


def _draw_body(labels: np.ndarray, who: Shoulder, grid: Grid, thin: np.ndarray) -> None:
    """Skin, the fat under it, the flat muscles of the surface, and the chest."""
    points = grid.points()
    x, y, z = points
    s = who.scale
    fascia, dome = body_surface(who, points)
    labels[np.abs(fascia) < 0.5] = M.FASCIA
    labels[(fascia > 2) & thin] = M.FASCIA  # septa of the subcutaneous fat
    thickness = np.float32(who.skin_fat_mm)
    labels[fascia > thickness] = M.SKIN
    labels[fascia > thickness + SKIN_MM] = M.AIR
    # The deltoid rises to the acromion's edge, not over it.
    top = who.radius + 3 * s + 0.8 * np.clip(np.hypot(x - 5 * s, y + 3 * s) - 24 * s, 0, None)
    thin_out = np.clip(0.45 * (-2 * s - x), 0, 11 * s)  # of the trapezius, at the acromion
    sheets = (
        # deltoid, pectoralis major, trapezius
        np.maximum.reduce([dome + 1, -who.deltoid_mm - dome, (-18 * s + 0.35 * y) - x, z - top]),
        np.maximum.reduce([-13 * s - fascia, x + (4 - 0.2 * z), 14 * s - y, z - 24 * s]),
        np.maximum.reduce([-thin_out - fascia, x + 2 * s, y - 16 * s, -20 * s - z]),
    )
    for sheet in sheets:
        inner = np.maximum(sheet, fascia + 1)
        labels[inner < _FAT_PLANE_MM] = M.FAT
        labels[(inner < _FAT_PLANE_MM) & (np.abs(fascia) < 0.5)] = M.FASCIA
        _flesh(labels, inner < 0, thin)
    chest = thorax(who, points)
    labels[chest < 4] = M.FAT
    _flesh(labels, chest < 3, thin)
    labels[chest < -9 * s] = M.LUNG
    # Ribs run downwards to the front, about 26 mm apart.
    phase = np.abs(((z + 0.45 * y) / np.float32(26 * s)) % 1 - np.float32(0.5)) * 26 * s
    rib = (np.hypot((chest + 4.5 * s) / (3.5 * s), phase / (7 * s)) - 1) * 3.5 * s
    labels[rib < 0] = M.OTHER_CORTEX
    labels[rib < -1.1] = M.OTHER_MARROW


def _flesh(labels: np.ndarray, inside: np.ndarray, thin: np.ndarray) -> None:
    labels[inside] = M.MUSCLE
    labels[inside & thin] = M.PERIMYSIUM


def _reach(tube: Tube, grid: Grid, margin: float) -> Iterator[tuple[Block, Points]]:
    """The block of samples within `margin` mm of a tube, if there is one, and its points."""
    block = grid.block(*tube.box(margin))
    if block is not None:
        yield block, grid.part(block).points()


def _draw_muscle(labels: np.ndarray, muscle: Tube, grid: Grid, thin: np.ndarray) -> None:
    for block, points in _reach(muscle, grid, _FAT_PLANE_MM):
        part = labels[block]
        deep = (part > M.FASCIA) | (part == M.FAT)  # the fascia stays
        distance = muscle.distance(points)
        part[(distance < _FAT_PLANE_MM) & deep] = M.FAT
        _flesh(part, (distance < 0) & deep, thin[block])


def _draw_clavicle(labels: np.ndarray, who: Shoulder, grid: Grid) -> None:
    clavicle = who.tubes["clavicle"]
    for block, points in _reach(clavicle, grid, 0.0):
        part = labels[block]
        distance = clavicle.distance(points)
        inside = (distance < 0) & (part > M.SKIN)
        part[inside] = M.OTHER_CORTEX
        part[inside & (distance < -1.8)] = M.OTHER_MARROW


def _draw_shell(labels: np.ndarray, who: Shoulder, grid: Grid) -> None:
    """What surrounds the humeral head: subacromial fat, tendons of the cuff, capsule, cartilage."""
    s, reach = who.scale, who.radius + 12
    block = grid.block(np.full(3, -reach), np.array([reach + 8, reach, reach]))
    if block is None:
        return
    points = grid.part(block).points()
    part = labels[block]
    x, y, z = who.humerus.local(points)
    bone = humerus_distance(who, points)
    medial = who.scapula.local(points)[0]
    r = np.sqrt(x * x + y * y + z * z)
    facing = (who.head_axis[0] * x + who.head_axis[1] * y + who.head_axis[2] * z) / (
        np.maximum(r, 1) * np.linalg.norm(who.head_axis)
    )
    # The cuff: over the top, in front and behind, from the joint to the tuberosities.
    inferior = (z < 0.2 * r) & (np.abs(y) < 0.62 * r)  # the axillary recess has none
    cuff = (medial > 9 * s) & ~(inferior & (x < 0))
    thickness = 4.6 * np.clip((25 * s - x) / (8 * s), 0, 1) * np.clip((z + 18 * s) / (8 * s), 0, 1)
    part[cuff & (thickness > 0) & (bone < thickness + 1) & (part > M.SKIN)] = M.FAT
    part[cuff & (bone < thickness) & (part > M.SKIN)] = M.TENDON
    part[cuff & (thickness > 0) & (bone < 1.2) & (facing > 0.1)] = M.FLUID
    recess = inferior & (x < 4 * s) & (z > -1.3 * who.radius) & (medial > 2 * s)
    part[(bone < 4.0) & recess] = M.TENDON  # the capsule
    part[(bone < 2.8) & recess] = M.FLUID
    part[(r < who.radius + who.head_cartilage) & (facing > 0.20)] = M.CARTILAGE
    sheath = who.tubes["biceps"].local_distance((x, y, z))
    part[(sheath < 1.2) & (bone < 5)] = M.FLUID
    part[sheath < 0] = M.TENDON


def _draw_scapula(labels: np.ndarray, who: Shoulder, grid: Grid, red: np.ndarray) -> None:
    s = who.scale
    corners = np.array([(a, b, c) for a in (-112, 48) for b in (-54, 46) for c in (-120, 52)])
    placed = who.scapula.place(corners * s)
    block = grid.block(placed.min(axis=0), placed.max(axis=0))
    if block is None:
        return
    part = labels[block]
    distance = scapula_distance(who, grid.part(block))
    inside = (distance < 0) & (part > M.SKIN)
    part[inside] = M.SCAPULA_CORTEX
    marrow = inside & (distance < -_SCAPULA_CORTEX_MM)
    part[marrow] = M.SCAPULA_MARROW + _step(0.45 + 0.25 * red[block][marrow])


def _draw_joint(labels: np.ndarray, who: Shoulder, grid: Grid) -> None:
    """Labrum, fluid and cartilage between the glenoid and the head's cartilage."""
    s = who.scale
    for block, points in _reach(who.tubes["glenoid"], grid, 0.0):
        part = labels[block]
        local = who.scapula.local(points)
        side = glenoid_side(who, local)
        depth = -ball(local, who.face, who.face_radius)  # negative on the head's side of the face
        outside = ball(points, (0, 0, 0), who.radius + who.head_cartilage) > 0
        free = outside & (side < 6) & (local[0] > -8 * s)
        part[free & (np.abs(side - 1.2) < 2.4) & (np.abs(depth + 1) < 4)] = M.TENDON  # labrum
        part[free & (side < 0) & (depth < 0)] = M.FLUID
        # Cartilage is thicker towards the rim.
        thickness = who.glenoid_cartilage + np.float32(0.10) * np.clip(side + 9 * s, 0, None)
        part[free & (side < 0) & (depth < 0) & (depth > -thickness)] = M.CARTILAGE


def _draw_humerus(labels: np.ndarray, who: Shoulder, grid: Grid, red: np.ndarray) -> None:
    s, reach = who.scale, who.radius + 9
    block = grid.block(np.array([-reach, -reach, -400]), np.array([reach + 40, reach + 12, reach]))
    if block is None:
        return
    points = grid.part(block).points()
    part = labels[block]
    z = who.humerus.local(points)[2]
    distance = humerus_distance(who, points)
    part[(distance < 1.8) & ((part == M.MUSCLE) | (part == M.PERIMYSIUM))] = M.FAT
    inside = (distance < 0) & (part > M.SKIN)
    part[inside] = M.HUMERUS_CORTEX
    # A thin plate under the cartilage, a thick wall in the shaft.
    down = np.clip((-12 * s - z) / np.float32(45 * s), 0, 1)
    cortex = np.float32(0.9) + np.float32(who.shaft_cortex_mm - 0.9) * down
    marrow = inside & (distance < -cortex)
    x, height = who.humerus.local(points)[0][marrow], z[marrow]
    # Where the growth plate was: a thin scar, red marrow below it, fatty marrow above.
    plate = height + 0.45 * x + 2.5 * red[block][marrow] + 4 * s
    share = 0.10 + 0.45 / (1 + np.exp(plate / np.float32(4))) * np.exp(height / np.float32(70 * s))
    kind = M.HUMERUS_MARROW + _step(share + 0.22 * red[block][marrow])
    kind[np.abs(plate) < 0.8] = M.HUMERUS_MARROW + MARROW_STEPS - 1
    part[marrow] = kind


def _step(share: np.ndarray) -> np.ndarray:
    """Share of red marrow to a marrow step."""
    return np.clip(np.rint(share * (MARROW_STEPS - 1)), 0, MARROW_STEPS - 1).astype(np.uint8)
