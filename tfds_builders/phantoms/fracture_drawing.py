"""Collapses vertebrae of a spine and draws them as a fine map of materials.

Frames and units are those of `spine_anatomy`; materials go on where those of `spine_drawing` end.
Whatever the map is drawn on, the anatomy is the same: noise is a function of position.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from enum import IntEnum

import numpy as np
from scipy.interpolate import make_interp_spline

from tfds_builders.phantoms.fracture_traits import Collapse, Focus, Fracture, Mass
from tfds_builders.phantoms.spine_anatomy import Body, Column, back_axis, up_axis
from tfds_builders.phantoms.spine_drawing import (
    DISC_STEPS,
    N_MATERIALS,
    Grid,
    M,
    Window,
    draw_column,
    draw_posterior,
    draw_surroundings,
    fill,
    lateral,
)

STEPS = 10  # from marrow (0) to what replaces it


class F(IntEnum):
    """Materials beside `M`; LESION and FATTY have `STEPS` mixtures each."""

    LESION = N_MATERIALS
    FATTY = N_MATERIALS + 10
    LINE = N_MATERIALS + 20
    FLUID = N_MATERIALS + 21
    MASS = N_MATERIALS + 22


N_FRACTURE_MATERIALS = N_MATERIALS + 23
_SOFT = (M.FAT, M.MUSCLE, M.LIGAMENT, M.BOWEL, M.CSF, M.ROOTS)  # what a mass displaces
_CORTEX_MM = 0.9

Noise = Callable[[Grid], np.ndarray]


def position_noise(
    rng: np.random.Generator, low: Sequence[float], high: Sequence[float], scale: Sequence[float]
) -> Noise:
    """Random field of positions: standard normal at knots, cubic splines between them.

    Args:
      rng: source of randomness.
      low: (x, y, z) lowest corner of the box it is drawn for, mm; constant beyond.
      high: the opposite corner.
      scale: (x, y, z) distance of the knots, mm.

    Returns:
      A function of a grid: float32 (X, Y, Z).
    """
    counts = [max(4, round((b - a) / mm) + 1) for a, b, mm in zip(low, high, scale, strict=True)]
    knots = rng.standard_normal(counts, dtype=np.float32)
    splines = [make_interp_spline(np.arange(n), np.eye(n), k=3) for n in counts]

    def field(grid: Grid) -> np.ndarray:
        out = knots
        for axis, at in enumerate((grid.x, grid.y, grid.z)):
            place = np.clip((at - low[axis]) / (high[axis] - low[axis]), 0, 1)
            weights = splines[axis](place * (counts[axis] - 1)).astype(np.float32)
            out = np.moveaxis(np.tensordot(weights, out, axes=(1, axis)), 0, axis)
        return np.ascontiguousarray(out, np.float32)

    return field


def collapse(column: Column, lost: Collapse) -> Column:
    """Lowers the upper endplate of one body; everything above comes down and leans forwards.

    What the middle loses beyond its rims is concavity, left to `draw_fractured`.
    """
    body = column.bodies[lost.body]
    wedge = np.tan(body.wedge / 2) * body.half_depth
    front = lost.front * 2 * (body.half_height + wedge)
    back = lost.back * 2 * (body.half_height - wedge)
    drop, turn = (front + back) / 2, float(np.arctan2(front - back, 2 * body.half_depth))
    hinge = (body.y, body.z) + body.half_height * up_axis(body.angle)
    half = body.half_height - drop / 2
    up = up_axis(body.angle + turn / 2)
    # The lower endplate stays as it is, whatever the frame does.
    y, z = centre = (body.y, body.z) - body.half_height * up_axis(body.angle) + half * up
    lowered = replace(
        body,
        y=float(y),
        z=float(z),
        angle=body.angle + turn / 2,
        wedge=body.wedge - turn,
        half_height=half,
    )
    column = _turn_above(column, lost.body, hinge, turn, centre + half * up - hinge)
    bodies = list(column.bodies)
    bodies[lost.body] = lowered
    column = replace(column, bodies=tuple(bodies))
    for k in range(lost.body + 1, min(lost.body + 4, len(column.bodies) - 1)):
        # The next discs extend: nobody walks with the face to the floor.
        pivot = np.array((column.discs[k + 1].y, column.discs[k + 1].z))
        column = _turn_above(column, k, pivot, -0.2 * turn, np.zeros(2))
    return column


def _turn_above(
    column: Column, body: int, hinge: np.ndarray, turn: float, shift: np.ndarray
) -> Column:
    """Turns all discs and bodies above `body` about a hinge (forwards if positive) and shifts."""
    c, s = np.cos(turn), np.sin(turn)

    def moved(part):
        dy, dz = part.y - hinge[0], part.z - hinge[1]
        y, z = hinge + np.array([c * dy - s * dz, s * dy + c * dz]) + shift
        return replace(part, y=float(y), z=float(z), angle=part.angle + turn)

    return replace(
        column,
        bodies=tuple(moved(p) if k > body else p for k, p in enumerate(column.bodies)),
        discs=tuple(moved(p) if k > body else p for k, p in enumerate(column.discs)),
    )


def draw_fractured_spine(
    grid: Grid, column: Column, fracture: Fracture, coarse: Noise, strands: Noise, fine: Noise
) -> tuple[np.ndarray, np.ndarray]:
    """The whole anatomy on one grid.

    Args:
      grid: sample positions.
      column: after every `collapse`.
      fracture: what is drawn into it.
      coarse: noise that places fat, bowel and muscle.
      strands: noise that places nerve roots.
      fine: noise of the marrow and its borders.

    Returns:
      (X, Y, Z) uint8 materials, and bool of the same shape: the fractured body.
    """
    labels = np.empty((grid.x.size, grid.y.size, grid.z.size), np.uint8)
    across = Grid(grid.x, np.zeros(1, np.float32), grid.z)
    draw_surroundings(labels, grid, column, coarse(grid), strands(across)[:, 0])
    collapsed = {c.body: c for c in (*fracture.others, fracture.collapse)}
    intact = tuple(b for k, b in enumerate(column.bodies) if k not in collapsed)
    draw_column(labels, grid, replace(column, bodies=intact))
    for focus in fracture.foci:
        _draw_focus(labels, grid, column, focus, F.LESION if fracture.malignant else F.FATTY)
    body = np.zeros(labels.shape, bool)
    for k, lost in collapsed.items():
        main = lost is fracture.collapse
        vertebra = column.bodies[k]
        if main:
            _draw_masses(labels, grid, column, vertebra, fracture)
        _draw_arch(labels, grid, column, vertebra, fracture if main else None)
        state = fracture if main else _bystander(fracture, lost)
        inside = _draw_fractured(labels, grid, column, vertebra, state, fine)
        if main and inside is not None:
            inside[0].of(body)[:] = inside[1]
    return labels, body


def _bystander(fracture: Fracture, lost: Collapse) -> Fracture:
    """Another collapsed vertebra: healed beside a benign fracture, replaced beside a malignant."""
    return replace(
        fracture,
        collapse=lost,
        healed=not fracture.malignant,
        replaced=float(fracture.malignant),
        line_depth=0.0,
        fluid_mm=0.0,
        bulge_mm=0.0,
        fragment_mm=0.0,
        notch_mm=0.0,
    )


def _draw_focus(
    labels: np.ndarray, grid: Grid, column: Column, focus: Focus, material: int
) -> None:
    body = column.bodies[focus.body]
    a, b = focus.a * body.half_height, focus.b * body.half_depth
    y, z = (body.y, body.z) + a * up_axis(body.angle) + b * back_axis(body.angle)
    win = Window(grid, y, z, body.angle, focus.radius_mm)
    x = (grid.x - focus.x_mm)[:, None, None]
    view = win.of(labels)
    ball = win.a**2 + win.b**2 + x**2 < focus.radius_mm**2
    marrow = (view == M.MARROW) | ((view >= M.MODIC1) & (view <= M.MODIC3))
    fill(view, ball & marrow, material + STEPS - 1)


def _draw_masses(
    labels: np.ndarray, grid: Grid, column: Column, body: Body, fracture: Fracture
) -> None:
    x = (grid.x + column.scoliosis * body.y - fracture.x_mm)[:, None, None]
    win = Window(grid, body.y, body.z, body.angle, body.half_depth + body.half_height + 15)
    view = win.of(labels)
    soft = np.isin(view, _SOFT)

    def ellipsoid(mass: Mass, b: float) -> np.ndarray:
        tall = body.half_height + mass.beyond_mm
        return (win.a / tall) ** 2 + ((win.b - b) / mass.depth_mm) ** 2 + (
            x / mass.width_mm
        ) ** 2 < 1

    if fracture.epidural:
        fill(view, soft & ellipsoid(fracture.epidural, body.half_depth + 1.5), F.MASS)
    if fracture.paraspinal:
        fill(view, soft & ellipsoid(fracture.paraspinal, -body.half_depth), F.MASS)


def _draw_arch(
    labels: np.ndarray, grid: Grid, column: Column, body: Body, fracture: Fracture | None
) -> None:
    """Posterior elements, their marrow replaced as `fracture` says."""
    if fracture is None or not (fracture.pedicle or fracture.posterior):
        draw_posterior(labels, grid, column, body)
        return
    before = labels.copy()
    draw_posterior(labels, grid, column, body)
    win = Window(grid, body.y, body.z, body.angle, body.half_depth + column.sac_mm + 60)
    view = win.of(labels)
    marrow = (view == M.MARROW) & (win.of(before) != M.MARROW)
    behind = win.b > body.half_depth + column.sac_mm
    # Tumour fills the pedicle to its edge; oedema leaves some fat in it.
    step = STEPS - 1 if fracture.malignant else STEPS - 4
    if fracture.pedicle:
        fill(view, marrow & ~behind, F.LESION + step)
    if fracture.posterior:
        fill(view, marrow & behind, F.LESION + step)


def _draw_fractured(
    labels: np.ndarray, grid: Grid, column: Column, body: Body, fracture: Fracture, fine: Noise
) -> tuple[Window, np.ndarray] | None:
    """The collapsed body; returns its window and where it lies there, None out of view."""
    reach = body.half_depth + body.half_height + 8
    win = Window(grid, body.y, body.z, body.angle, reach)
    if win.empty:
        return None
    a, b, view = win.a, win.b, win.of(labels)
    noise = fine(Grid(grid.x, grid.y[win.rows], grid.z[win.cols]))
    x = grid.x + column.scoliosis * body.y
    share = lateral(x, body.half_width)
    flat = body.half_height - np.tan(body.wedge / 2) * b
    top, bottom = _endplates(body, fracture, b, flat)
    # The sunken endplate makes room for the disc; the broken back wall stands out.
    for disc, sunk in ((body.above, (a > top) & (a < flat + 1.5)),
                       (body.below, (-a > bottom) & (-a < flat + 1.5))):  # fmt: skip
        if disc is not None:
            code = M.DISC0 + DISC_STEPS * (disc.level - 1) + DISC_STEPS // 2
            fill(view, sunk & (np.abs(b) < body.half_depth * share) & (view < M.DISC0), code)
    front, back = _walls(body, fracture, a)
    plate = np.minimum(top - a, bottom + a)
    side = np.where(b < 0, front * share + b, back * share - b)
    r = np.where((b > 0) & (a > 0) & (fracture.fragment_mm > 0), 0.5, 2.0)
    corner = (plate < r) & (side < r)
    inner = np.where(corner, r - np.hypot(r - plate, r - side), np.minimum(plate, side))
    inside = inner > 0
    view[inside] = M.CORTEX
    if fracture.malignant and fracture.bulge_mm:
        # Tumour has eaten the back wall.
        fill(view, inside & (b > 0.6 * body.half_depth), F.LESION + STEPS - 1)
    core = inner > _CORTEX_MM
    depth = (top - a)[None]
    height = np.maximum(top + bottom, 1.0)[None]
    np.copyto(view, _marrow(body, fracture, noise, a, b, grid.x, depth / height), where=core)
    if fracture.sclerosis:
        fill(view, core & (noise > 0.9) & (view > F.LESION + STEPS // 2), F.LINE)
    _draw_line_and_fluid(view, core, body, fracture, noise, b, depth, height)
    return win, inside


def _endplates(
    body: Body, fracture: Fracture, b: np.ndarray, flat: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Height of the upper endplate over the frame's middle and depth of the lower one, mm."""
    lost = fracture.collapse
    rel = np.clip(b / body.half_depth, -1, 1)
    rims = (lost.front + lost.back) / 2
    whole = 2 * body.half_height / (1 - rims)
    sunk = max(lost.middle - rims, 0) * whole
    bowl = 1 - rel**2
    top = flat - (body.concavity + 0.65 * sunk) * bowl
    bottom = flat - (body.concavity + 0.35 * sunk) * bowl
    if fracture.notch_mm:  # an angular step, unlike a Schmorl node
        away = np.abs(rel - fracture.notch_at) * body.half_depth
        top = top - fracture.notch_mm * np.clip(1 - away / 5.0, 0, 1)
    # Never thinner than a coin: 4 mm of compacted bone remain.
    lack = np.maximum(4.0 - (top + bottom), 0) / 2
    return top + lack, bottom + lack


def _walls(body: Body, fracture: Fracture, a: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Distance of the front and the back wall from the frame's middle, mm."""
    rel = np.clip(a / body.half_height, -1, 1)
    lost = max(fracture.collapse.front, fracture.collapse.middle)
    wall = body.half_depth * (0.94 + 0.06 * rel**2)
    front = wall + 3.0 * lost  # what is crushed gives way forwards
    back = wall
    if fracture.bulge_mm:
        back = body.half_depth * 0.96 + fracture.bulge_mm * np.sqrt(1 - 0.9 * rel**2)
    if fracture.fragment_mm:
        # Straight up to an angle, then a step: a corner of bone and not a bulge.
        back = wall + fracture.fragment_mm * np.clip((rel + 0.1) / 0.5, 0, 1)
    return front, back


def _marrow(
    body: Body,
    fracture: Fracture,
    noise: np.ndarray,
    a: np.ndarray,
    b: np.ndarray,
    x: np.ndarray,
    depth: np.ndarray,
) -> np.ndarray:
    """(X, Y, Z) uint8 marrow of the body; `depth` runs from 0 at the upper endplate to 1."""
    if fracture.healed:
        return _mixture(F.FATTY, 0.75 + 0.15 * noise)
    if fracture.malignant:
        # Metastases start behind, where the veins enter, and spread as a mass.
        x3 = (x - fracture.x_mm)[:, None, None] / body.half_width
        spread = (
            np.sqrt(
                ((b / body.half_depth - 0.5) / 1.5) ** 2
                + 0.15 * (a / body.half_height) ** 2
                + x3**2
            )
            + 0.03 * noise
        )
    else:
        spread = depth + 0.10 * noise  # oedema lies beneath the broken endplate
    soft = 0.02 if fracture.malignant else 0.05
    edge = np.clip((fracture.replaced - spread) / soft, -30, 30)
    there = 1 / (1 + np.exp(-edge)) if fracture.replaced < 1 else np.ones_like(spread)
    mix = there * (fracture.purity + fracture.patchiness * noise)
    return _mixture(F.LESION, np.broadcast_to(mix, noise.shape))


def _mixture(first: int, share: np.ndarray) -> np.ndarray:
    return (first + np.rint(np.clip(share, 0, 1) * (STEPS - 1))).astype(np.uint8)


def _draw_line_and_fluid(
    view: np.ndarray,
    core: np.ndarray,
    body: Body,
    fracture: Fracture,
    noise: np.ndarray,
    b: np.ndarray,
    depth: np.ndarray,
    height: np.ndarray,
) -> None:
    rel = b / body.half_depth
    below = 0.0
    if fracture.fluid_mm:
        # Fluid gathers beneath the endplate, widest in front.
        below = 1.0 + fracture.fluid_mm
        cleft = fracture.fluid_mm * np.clip(1 - ((rel + 0.25) / 0.6) ** 2, 0, 1)
        fill(view, core & (depth > 1.0) & (depth < 1.0 + cleft), F.FLUID)
    if fracture.line_depth:
        # Trabeculae driven into each other; the line wavers and does not reach the back wall.
        at = np.maximum(fracture.line_depth * height, below + 1.2) + 0.6 * noise
        near = (np.abs(depth - at) < 1.1) & (rel < 0.75)
        fill(view, core & near, F.LINE)
