"""Draws a spine and what surrounds it as a fine map of materials.

Frames and units are those of `spine_anatomy`.  Later layers overwrite earlier ones: surroundings,
posterior elements, discs, then bodies, whose endplates give the discs their lens shape.
"""

from dataclasses import dataclass
from enum import IntEnum

import numpy as np

from tfds_builders.phantoms.spine_anatomy import (
    Body,
    Column,
    DiscSpace,
    back_axis,
    back_wall,
    up_axis,
)
from tfds_builders.phantoms.spine_grades import MAX_LEVELS


class M(IntEnum):
    """Materials of the fine map; a disc's are `DISC0` plus `DISC_STEPS` a level."""

    AIR = 0
    FAT = 1
    MUSCLE = 2
    LIGAMENT = 3
    BOWEL = 4
    VESSEL = 5
    SKIN_FAT = 6
    SACRAL_MARROW = 7
    SACRAL_CORTEX = 8
    SACRAL_DISC = 9
    MARROW = 10
    CORTEX = 11
    MODIC1 = 12
    MODIC2 = 13
    MODIC3 = 14
    CSF = 15
    ROOTS = 16
    CORD = 17
    DISC0 = 20


# Steps from pure annulus (0) to pure nucleus: the boundary of a degenerated nucleus is a gradient.
DISC_STEPS = 10
N_MATERIALS = M.DISC0 + DISC_STEPS * MAX_LEVELS


@dataclass(frozen=True)
class Grid:
    """Fine sample positions, mm: x (X,), y (Y,), z (Z,)."""

    x: np.ndarray
    y: np.ndarray
    z: np.ndarray


def fill(labels: np.ndarray, where: np.ndarray, material: int) -> None:
    """Writes one material, in place."""
    np.copyto(labels, np.uint8(material), where=where)


class Window:
    """The part of the fine grid about a frame: `a` and `b` (mm) of its samples, and `of` arrays."""

    def __init__(self, grid: Grid, y: float, z: float, angle: float, reach: float):
        self.rows = slice(*np.searchsorted(grid.y, [y - reach, y + reach]))
        self.cols = slice(*np.searchsorted(grid.z, [z - reach, z + reach]))
        dy = (grid.y[self.rows] - y)[:, None]
        dz = (grid.z[self.cols] - z)[None, :]
        up, back = up_axis(angle), back_axis(angle)
        self.a = dy * up[0] + dz * up[1]
        self.b = dy * back[0] + dz * back[1]
        self.empty = self.a.size == 0

    def of(self, labels: np.ndarray) -> np.ndarray:
        """The window's view of an (X, Y, Z) array."""
        return labels[:, self.rows, self.cols]


def lateral(x: np.ndarray, half_width: float) -> np.ndarray:
    """(X, 1, 1) share of the mid-sagittal depth left at x; 0 beside the structure."""
    return np.clip(1 - (x / half_width) ** 4, 0, 1)[:, None, None] ** 0.5


def _notch(b: np.ndarray, half_depth: float, depth: float) -> np.ndarray | float:
    return depth * np.exp(-(((b - 0.3 * half_depth) / (0.26 * half_depth)) ** 2)) if depth else 0.0


def draw_body(labels: np.ndarray, grid: Grid, body: Body, scoliosis: float) -> None:
    """Marrow within a cortical shell, with the endplate defects and Modic zones of its discs."""
    win = Window(grid, body.y, body.z, body.angle, body.half_depth + body.half_height)
    if win.empty:
        return
    a, b = win.a, win.b
    share = lateral(grid.x + scoliosis * body.y, body.half_width)
    rel = np.clip(a / body.half_height, -1, 1)
    spur = [1.6 * max(d.degeneration - 3.3, 0) if d else 0.0 for d in (body.below, body.above)]
    front = np.where(a > 0, spur[1], spur[0]) * rel**6
    wall = body.half_depth * (0.94 + 0.06 * rel**2) + np.where(b < 0, front, 0.3 * front)
    bowl = body.concavity * (1 - np.clip(b / body.half_depth, -1, 1) ** 2)
    # Endplates flatten as their disc collapses.
    kept = [min(d.height_factor, 1.0) ** 2 if d else 1.0 for d in (body.below, body.above)]
    flat = body.half_height - np.tan(body.wedge / 2) * b
    upper, lower = flat - kept[1] * bowl, flat - kept[0] * bowl
    top = upper - _notch(b, body.half_depth, body.above.lower_notch_mm if body.above else 0)
    bottom = lower - _notch(b, body.half_depth, body.below.upper_notch_mm if body.below else 0)
    plate = np.where(a > 0, top - a, bottom + a)  # depth beneath the nearer endplate
    side = wall * share - np.abs(b)
    # Rounded corners: within 2.5 mm of two faces the distance to the corner's circle counts.
    r = 2.5
    inner = np.minimum(plate, side)
    corner = (plate < r) & (side < r)
    edge = r - np.hypot(r - plate, r - side)
    inner = np.where(corner, edge, inner)
    view = win.of(labels)
    cortex, marrow = (M.SACRAL_CORTEX, M.SACRAL_MARROW) if body.sacral else (M.CORTEX, M.MARROW)
    view[inner > 0] = cortex
    core = inner > 0.9
    view[core] = marrow
    if body.sacral:
        return
    # Basivertebral vein: a bright cleft at the middle of the back wall, near the midline.
    vein = core & (np.abs(a) < 1.1) & (b > 0.5 * body.half_depth)
    view[vein & (np.abs(grid.x) < 5)[:, None, None]] = M.MODIC1
    for disc, depth in ((body.above, upper - a), (body.below, lower + a)):
        if disc is not None and disc.modic:
            reach = 5.5 + 1.5 * np.cos(3 * b / body.half_depth + body.y)
            view[core & (depth < reach)] = M.MODIC1 + disc.modic - 1


def draw_disc(labels: np.ndarray, grid: Grid, space: DiscSpace, column: Column) -> None:
    """Annulus and nucleus; drawn before the bodies, whose endplates then give it its lens shape."""
    disc = space.disc
    win = Window(grid, space.y, space.z, space.angle, space.half_depth + 10.0)
    if win.empty:
        return
    a, b = win.a, win.b
    x = grid.x + column.scoliosis * space.y
    share = lateral(x, space.half_width)
    rel_b = np.clip(b / space.half_depth, -1, 1)
    # At least .6 mm between the endplates; what bulges past the rim spreads along their backs.
    least = np.where(b > space.half_depth - 1, 1.8, 0.6)
    half = np.maximum(space.half_height - np.tan(space.wedge / 2) * b, least)
    lens = 2.6 * (1 - rel_b**2)
    top = half + lens + _notch(b, space.half_depth, disc.upper_notch_mm)
    bottom = half + lens + _notch(b, space.half_depth, disc.lower_notch_mm)
    taper = 1 - 0.7 * np.clip(a / (half + 1), -1, 1) ** 2
    back = (space.half_depth + 0.3) * share + disc.bulge_mm * taper * (share > 0)
    front = (space.half_depth + 0.8 + 0.5 * disc.bulge_mm * taper) * share
    inside = (a < top) & (-a < bottom) & (b < back) & (-b < front)
    if disc.herniation_mm:
        focal = disc.herniation_mm * np.exp(-(((x - disc.herniation_x_mm) / 5.0) ** 2))
        tip = np.clip((b - space.half_depth) / np.maximum(focal, 0.1)[:, None, None], 0, 1)
        tall = (np.maximum(half, 2.2) * np.sqrt(1 - tip**2)) > np.abs(a)
        inside |= tall & (tip < 1) & (tip > 0) & (share > 0)

    # Nucleus: an ellipse a little behind the middle, its border softer with degeneration.
    soft = np.interp(disc.degeneration, [1, 2, 3, 4, 5], [0.05, 0.08, 0.22, 0.35, 0.4])
    rel_a = a / (half + 0.5 * lens + 0.3)
    r2 = ((rel_b - 0.06) / np.maximum(0.76 * share, 0.05)) ** 2 + rel_a**6
    mix = 1 / (1 + np.exp(np.clip((r2 - 0.9) / soft, -30, 30)))
    # Grade II: the horizontal dark band of the ageing nucleus (intranuclear cleft).
    cleft = np.interp(disc.degeneration, [1.35, 1.6, 2.4, 2.8], [0.0, 0.8, 0.8, 0.0])
    mix = mix * (1 - cleft * np.exp(-((a / 0.8) ** 2)) * (np.abs(rel_b) < 0.6))
    step = (mix * (DISC_STEPS - 1) + 0.5).astype(np.uint8)
    codes = M.DISC0 + DISC_STEPS * (disc.level - 1) + step
    np.copyto(win.of(labels), codes.astype(np.uint8), where=inside)


def draw_posterior(labels: np.ndarray, grid: Grid, column: Column, body: Body) -> None:
    """Spinous process, laminae, pedicles and articular processes as rounded blocks."""
    s, sac = column.process_scale, column.sac_mm
    canal = body.half_depth + 2 + sac
    short = 0.65 if body.below is not None and body.below.level == 1 else 1.0
    # Centre (a, b) and half sizes in the body's frame, downward tilt, and lateral extent, mm.
    blocks = (
        (-12 * s, canal + 5 + 13 * s * short, 8 * s * short, 14 * s * short, 0.28, 0, 4),
        (-7 * s, canal + 4, 9.5 * s, 4.2 * s, 0.25, 0, 13),  # lamina
        (5 * s, canal - sac / 2, 6 * s, sac / 2 + 6, 0.0, 11, 19),  # pedicle
        (-5 * s, canal + 1, 17 * s, 5.5 * s, 0.1, 12, 22),  # articular processes
    )
    x = np.abs(grid.x + column.scoliosis * body.y)
    drawn = []
    for a, b, half_a, half_b, tilt, near, far in blocks:
        lateral = (x >= near) & (x < far)
        if lateral.any():
            y, z = (body.y, body.z) + a * up_axis(body.angle) + b * back_axis(body.angle)
            win = Window(grid, y, z, body.angle - tilt, 1.2 * max(half_a, half_b))
            shape = ((win.a / half_a) ** 2) ** 2 + ((win.b / half_b) ** 2) ** 2
            drawn.append((win.of(labels), lateral[:, None, None], shape))
    for limit, material in ((1.0, M.CORTEX), (0.6, M.MARROW)):  # marrow joins the blocks
        for view, lateral, shape in drawn:
            fill(view, lateral & (shape < limit), material)


def draw_surroundings(
    labels: np.ndarray, grid: Grid, column: Column, blobs: np.ndarray, strands: np.ndarray
) -> None:
    """Everything that is no disc and no bone: skin, fat, muscle, abdomen, thecal sac.

    Args:
      labels: (X, Y, Z) uint8, written in place.
      grid: sample positions.
      column: the spine.
      blobs: (X, Y, Z) smooth noise that decides between fat, bowel and muscle.
      strands: (X, Z) smooth noise that places the roots of the cauda equina.
    """
    wall, cosine = back_wall(column, grid.y)
    x = (grid.x[:, None] + column.scoliosis * grid.y)[:, :, None]  # (X, Y, 1)
    behind = ((grid.z - wall[:, None]) * cosine[:, None]).astype(np.float32)  # (Y, Z)
    lumbar = 1 / (1 + np.exp((grid.y + 5) / 8))[:, None]  # (Y, 1): 0 over the sacrum, 1 above

    # The abdomen: fat with bowel and, before the spine, the great vessels' flow voids.
    labels[:] = np.where(blobs > 0.55, M.BOWEL, M.FAT)
    fill(labels, blobs > 1.5, M.LIGAMENT)  # gas and wall
    depth = 33.0 * column.process_scale
    course = grid.y[:, None]
    aside = 7 + np.clip(course + 60, 0, None) * 0.5  # the aorta divides before L4
    ahead = (-behind - depth - 9 - 2 * np.sin(course / 35)) / 6.5
    fill(labels, ahead**2 + ((x - aside) / 8.5) ** 2 < 1, M.VESSEL)
    psoas = (np.abs(x) > 24) & (behind > -36) & (behind < 6)
    fill(labels, psoas, M.MUSCLE)

    # Behind the canal: muscle streaked with fat off the midline, ligament and fat between spines.
    back = (behind > 0) & (lumbar > 0.02)
    midline = np.abs(x) < 4
    streaks = np.where(blobs > 0.9, M.FAT, M.MUSCLE).astype(np.uint8)
    between = np.where(blobs > -0.3, M.MUSCLE, M.FAT).astype(np.uint8)
    np.copyto(labels, np.where(midline, between, streaks), where=back)
    tips = column.sac_mm + 8 + 28 * column.process_scale * (0.25 + 0.75 * lumbar)
    skin = tips + column.skin_fat_mm
    fill(labels, behind > tips, M.LIGAMENT)  # thoracolumbar fascia
    fill(labels, behind > tips + 1.2, M.SKIN_FAT)
    fill(labels, behind > skin, M.AIR)

    _draw_canal(labels, grid, column, behind, x, lumbar, strands)


def _draw_canal(
    labels: np.ndarray,
    grid: Grid,
    column: Column,
    behind: np.ndarray,
    x: np.ndarray,
    lumbar: np.ndarray,
    strands: np.ndarray,
) -> None:
    # Down the sacrum the sac narrows and ends near S2; epidural fat takes its place.
    size = column.sac_mm * np.clip(1 - (grid.y + 5) / 75, 0, 1)[:, None]
    width = np.sqrt(np.clip(1 - (x / 11.5) ** 2, 0, 1))
    middle = 2 + column.sac_mm / 2 - 0.25 * (column.sac_mm - size)
    offset = (behind - middle) / np.maximum(size / 2 * width, 0.3)
    fat = (np.abs(x) < 12) & (behind > 0.8) & (behind < column.sac_mm + 6)
    fill(labels, fat, M.FAT)
    fill(labels, fat & (behind < 1.8) & (lumbar > 0.5), M.LIGAMENT)
    sac = (np.abs(offset) < 1) & (size > 4) & (width > 0.05)
    fill(labels, sac, M.CSF)
    # Roots lie at the back of the sac when the patient lies on it.
    roots = sac & (offset > -0.15 + 0.5 * strands[:, None, :]) & (offset < 0.85)
    roots &= strands[:, None, :] > -0.6
    fill(labels, roots, M.ROOTS)
    conus = column.bodies[4].y  # L1, fifth from below
    cord = (np.abs(offset) < 0.42) & (np.abs(x) < 5) & (grid.y[:, None] < conus)
    fill(labels, cord, M.CORD)


def draw_column(labels: np.ndarray, grid: Grid, column: Column) -> None:
    """Bones and discs over the surroundings, in place."""
    for body in column.bodies:
        draw_posterior(labels, grid, column, body)
    gap = column.sacrum[0]
    y, z = (gap.y, gap.z) - (gap.half_height + 0.65) * up_axis(gap.angle)
    rest = Window(grid, y, z, gap.angle, gap.half_depth)
    if not rest.empty:  # the rudimentary S1/S2 disc
        inside = (np.abs(rest.a) < 1.6) & (np.abs(rest.b) < 0.6 * gap.half_depth)
        rest.of(labels)[:, inside] = M.SACRAL_DISC
    for space in column.discs:
        draw_disc(labels, grid, space, column)
    for body in (*column.sacrum, *column.bodies):
        draw_body(labels, grid, body, column.scoliosis)
