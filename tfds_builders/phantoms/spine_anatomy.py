"""Geometry of a lumbar spine: where its bodies and discs lie.

Coordinates are millimetres: x to the patient's left, y from head to feet, z from front to back.  A
body or disc has a frame in the sagittal plane: a along the spine (upwards), b backwards.  Sizes are
rounded from the range of adult anatomy (bodies about 27 mm high and 33 mm deep, lumbar discs 9 to
11 mm high, thecal sac 13 to 17 mm deep); a phantom, not an atlas.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.ndimage import gaussian_filter1d

from tfds_builders.phantoms.spine_grades import MAX_LEVELS, Disc


@dataclass(frozen=True)
class Body:
    """A vertebral or sacral body; lengths in mm, angles in radians."""

    y: float
    z: float
    angle: float  # of the a axis against the vertical, positive leaning forwards
    wedge: float  # angle between the endplates, positive when taller in front
    half_height: float
    half_depth: float
    half_width: float
    concavity: float
    sacral: bool = False
    below: Disc | None = None
    above: Disc | None = None


@dataclass(frozen=True)
class DiscSpace:
    """A disc between two bodies; lengths in mm, angles in radians."""

    disc: Disc
    y: float
    z: float
    angle: float
    wedge: float
    half_height: float
    half_depth: float
    half_width: float


@dataclass(frozen=True)
class Column:
    """A spine: bodies and discs from below upwards, and what surrounds them."""

    sacrum: tuple[Body, ...]
    bodies: tuple[Body, ...]
    discs: tuple[DiscSpace, ...]
    sac_mm: float
    skin_fat_mm: float
    scoliosis: float  # lateral offset in mm per mm of height
    process_scale: float


def up_axis(angle: float) -> np.ndarray:
    """Unit (y, z) of the a axis, along the spine towards the head."""
    return np.array([-np.cos(angle), -np.sin(angle)])


def back_axis(angle: float) -> np.ndarray:
    """Unit (y, z) of the b axis, across the spine and backwards."""
    return np.array([-np.sin(angle), np.cos(angle)])


def build_column(
    rng: np.random.Generator, discs: list[Disc], male: bool, transitional: bool
) -> Column:
    """Stacks bodies and discs upwards from the centre of the S1 endplate at (y, z) = (0, 0).

    A collapsed disc cannot hold its lordotic wedge, so degeneration flattens the spine.

    Args:
      rng: source of randomness.
      discs: the lowest first.
      male: men's vertebrae are larger.
      transitional: the lowest disc is rudimentary (partly sacralised L5).
    """
    size = (1.0 if male else 0.93) * rng.normal(1.0, 0.035)
    depth = 16.5 * size * rng.normal(1.0, 0.03)
    height = 13.4 * size * rng.normal(1.0, 0.025)
    disc_height = 5.0 * size * rng.normal(1.0, 0.07)
    lordosis = np.clip(rng.normal(0.95, 0.15), 0.55, 1.3)
    lean = np.deg2rad(rng.normal(11, 5))  # of L1 backwards
    concavity = rng.uniform(0.7, 1.8)

    # L5/S1 or L5 first; the last value holds for all levels above.
    body_wedge = _per_level(np.deg2rad([7, 3, 1, 0, -1, -4]) * lordosis)
    body_scale = _per_level([1.0, 1.0, 1.0, 0.98, 0.96, 0.93, 0.90, 0.88, 0.86])
    half_depth = depth * body_scale
    space_depth = half_depth.copy()
    space_height = disc_height * _per_level([0.95, 1.05, 1.0, 0.95, 0.88, 0.78, 0.68, 0.62, 0.58])
    space_height *= [d.height_factor for d in discs]
    if transitional:
        space_height[0] *= 0.55
        space_depth[0] *= 0.80
    disc_wedge = _per_level(np.deg2rad([13, 11, 8, 6, 4, 2, 1, 0]) * lordosis)
    # At least 1.2 mm of disc at the rim.
    limit = 2 * np.arctan(np.maximum(space_height - 0.6, 0) / space_depth)
    disc_wedge = np.minimum(disc_wedge, limit)
    slope = np.clip(disc_wedge[:5].sum() + body_wedge[:5].sum() - lean, 0.30, 0.90)

    at, angle = np.zeros(2), float(slope)
    spaces: list[DiscSpace] = []
    bodies: list[Body] = []
    for k, disc in enumerate(discs):
        h, wedge = float(space_height[k]), float(disc_wedge[k])
        mid = angle - wedge / 2
        y, z = centre = at + h * up_axis(mid)
        spaces.append(
            DiscSpace(disc, y, z, mid, wedge, h, float(space_depth[k]), half_width=24.0 * size)
        )
        angle -= wedge
        at = centre + h * up_axis(mid) - disc.slip_mm * back_axis(mid)
        tall, wedge = float(height * body_scale[k]), float(body_wedge[k])
        mid = angle - wedge / 2
        y, z = centre = at + tall * up_axis(mid)
        bodies.append(
            Body(
                y,
                z,
                angle=mid,
                wedge=wedge,
                half_height=tall,
                half_depth=float(half_depth[k]),
                half_width=24.0 * size,
                concavity=concavity,
                below=disc,
                above=discs[k + 1] if k + 1 < len(discs) else None,
            )
        )
        at, angle = centre + tall * up_axis(mid), angle - wedge

    return Column(
        sacrum=_sacrum(float(slope), height, depth, size, discs[0]),
        bodies=tuple(bodies),
        discs=tuple(spaces),
        sac_mm=float(rng.uniform(13, 16.5)),
        skin_fat_mm=float(rng.uniform(7, 26)),
        scoliosis=float(rng.normal(0, 0.012)),
        process_scale=float(size * rng.normal(1, 0.06)),
    )


def _per_level(values: Sequence[float] | np.ndarray) -> np.ndarray:
    return np.pad(np.asarray(values, float), (0, MAX_LEVELS - len(values)), mode="edge")


def _sacrum(slope: float, height: float, depth: float, size: float, lowest: Disc) -> tuple:
    segments = []
    at, angle = np.zeros(2), slope
    for k, (h, d) in enumerate([(0.98, 0.84), (0.80, 0.60), (0.66, 0.46), (0.55, 0.38)]):
        wedge = np.deg2rad(-6 if k else 4)
        tilt = angle + wedge / 2
        # The front of the sacrum tapers: its back wall stays in line with the canal.
        y, z = centre = at - h * height * up_axis(tilt)
        segments.append(
            Body(
                y,
                z,
                angle=tilt,
                wedge=wedge,
                half_height=h * height,
                half_depth=d * depth,
                half_width=24.0 * size * (1 - 0.1 * k),
                concavity=0.4,
                sacral=True,
                above=lowest if k == 0 else None,
            )
        )
        at = centre - (h * height + (1.3 if k == 0 else 0.6)) * up_axis(tilt)
        angle = angle + wedge
    return tuple(segments)


def back_wall(column: Column, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The line behind the bodies that the canal follows.

    Args:
      column: the spine.
      y: (Y,) heights, mm.

    Returns:
      (Y,) z of the line, mm, and (Y,) the cosine of its tilt against the vertical.
    """
    points = [
        (body.y, body.z)
        + along * body.half_height * up_axis(body.angle)
        + body.half_depth * back_axis(body.angle)
        for body in (*column.sacrum, *column.bodies)
        for along in (-0.8, 0.0, 0.8)
    ]
    ys, zs = np.array(sorted(points, key=lambda p: p[0])).T
    even = np.arange(ys[0] - 40, ys[-1] + 40, 1.0)
    smooth = gaussian_filter1d(np.interp(even, ys, zs), 9.0)  # the sac does not kink
    cosine = 1 / np.hypot(1, np.gradient(smooth))
    return np.interp(y, even, smooth), np.interp(y, even, cosine)
