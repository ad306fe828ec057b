"""Whether image planes form one regular grid, and which affine it has.

A series is accepted only if its images lie on one regular grid; everything else is refused with
the reason, because a wrong affine is worse than none.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mskjax.errors import UserError, note

# Headers round positions to about 1e-3 mm and directions to about 1e-6; scanners place slices
# within a hundredth of their distance.  What exceeds these is another geometry, not rounding.
DIRECTION_TOLERANCE = 1e-3
SAME_POSITION_MM = 1e-3
_STEP_TOLERANCE = 0.02
_STEP_TOLERANCE_MM = 0.02


@dataclass(frozen=True)
class Frame:
    """One image plane in DICOM's patient coordinates (LPS, mm).

    Attributes:
      source: its file.
      label: what it is called in messages.
      pixels: (rows, columns).
      position: (3,) of the first pixel.
      orientation: (6,) direction cosines of a row (column index grows), of a column.
      pixel_spacing: (2,) between rows, between columns.
      slice_pitch: what the header says, for a single slice; None if nothing.
      instance: SOPInstanceUID; empty where it is not known.
      traits: what may tell frames at one position apart, by attribute.
    """

    source: Path
    label: str
    pixels: np.ndarray
    position: np.ndarray
    orientation: np.ndarray
    pixel_spacing: np.ndarray
    slice_pitch: float | None
    instance: str
    traits: Mapping[str, str]


def grid(path: Path, frames: Sequence[Frame]) -> tuple[np.ndarray, np.ndarray]:
    """The order of the frames along the normal and the (4, 4) affine to LPS mm.

    Raises:
      UserError: the frames are not one volume.
    """
    first = frames[0]
    _refuse_mixed(path, frames)
    row, column = first.orientation[:3], first.orientation[3:]
    normal = np.cross(row, column)
    positions = np.array([frame.position for frame in frames])
    depth = positions @ normal
    order = np.argsort(depth, kind="stable")
    affine = np.eye(4)
    affine[:3, 0] = row * first.pixel_spacing[1]
    affine[:3, 1] = column * first.pixel_spacing[0]
    affine[:3, 3] = positions[order[0]]
    if len(frames) == 1:
        if not first.slice_pitch:
            note(path, "does not say how thick its slice is; 1 mm is taken")
        affine[:3, 2] = normal * (first.slice_pitch or 1.0)
        return order, affine
    steps = np.diff(depth[order])
    _refuse_repeated(path, [frames[i] for i in order], steps)
    step = float(np.median(steps))
    tolerance = max(_STEP_TOLERANCE_MM, _STEP_TOLERANCE * step)
    # A tilted gantry moves each image within its own plane.
    moves = np.diff(positions[order], axis=0)
    shear = np.linalg.norm(moves - steps[:, None] * normal, axis=1)
    tilted = bool(np.any(shear > np.maximum(tolerance, _STEP_TOLERANCE * steps)))
    _refuse_uneven(path, steps, step, tolerance, tilted)
    if tilted:
        angle = np.degrees(np.arctan2(shear.max(), step))
        raise UserError(
            f"{path}: the slices are sheared against each other (gantry tilt, {angle:.1f} degrees),"
            " which no affine of a rectangular grid describes; resample the series first."
        )
    affine[:3, 2] = normal * steps.mean()
    return order, affine


def _refuse_mixed(path: Path, frames: Sequence[Frame]) -> None:
    kinds: list[Frame] = []
    for frame in frames:
        if not any(
            np.allclose(frame.orientation, kind.orientation, atol=DIRECTION_TOLERANCE)
            for kind in kinds
        ):
            kinds.append(frame)
    if len(kinds) > 1:
        raise UserError(
            f"{path}: the images have {len(kinds)} different orientations (a localizer, or several "
            f"stacks in one series: {kinds[0].label} and {kinds[1].label}); separate them and give"
            " one."
        )
    shapes = {frame.pixels.shape: frame.label for frame in frames}
    spacings = {tuple(np.round(frame.pixel_spacing, 4)): frame.label for frame in frames}
    if len(shapes) > 1 or len(spacings) > 1:
        kinds_of = shapes if len(shapes) > 1 else spacings
        raise UserError(
            f"{path}: the images differ in matrix {sorted(shapes)} or pixel spacing "
            f"{sorted(tuple(map(float, s)) for s in spacings)}"
            f" ({' and '.join(list(kinds_of.values())[:2])}); separate them and give one kind."
        )


def _refuse_repeated(path: Path, ordered: Sequence[Frame], steps: np.ndarray) -> None:
    repeated = np.flatnonzero(steps < SAME_POSITION_MM)
    if not repeated.size:
        return
    places = len(ordered) - repeated.size
    pairs = [(ordered[i], ordered[i + 1]) for i in repeated.tolist()]
    kind, example, fix = _why_repeated(pairs)
    raise UserError(
        f"{path}: is not one volume: {len(ordered)} images lie at {places} "
        f"position{'s' if places > 1 else ''}, as {kind} do ({example}); {fix}."
    )


def _why_repeated(pairs: Sequence[tuple[Frame, Frame]]) -> tuple[str, str, str]:
    """What frames at one position are to each other, an example, and what to do."""
    for a, b in pairs:
        differ = [k for k in a.traits if k in b.traits and a.traits[k] != b.traits[k]]
        if differ:
            first, second = (
                f"{', '.join(f'{k} {frame.traits[k]}' for k in differ)} in {frame.label}"
                for frame in (a, b)
            )
            kind = "echoes, time points or kinds of image"
            return kind, f"e.g. {first} and {second}", "give the images of one of them"
    a, b = pairs[0]
    names = f"{a.label} and {b.label}"
    if a.instance and a.instance == b.instance:
        return "copies", f"e.g. {names} are one SOPInstanceUID", "remove the copies"
    if np.array_equal(a.pixels, b.pixels):
        return "copies", f"e.g. {names} hold the same pixels", "remove the copies"
    return (
        "echoes, time points or kinds of image",
        f"e.g. {names}, whose headers do not say what tells them apart",
        "give the images of one of them",
    )


def _refuse_uneven(
    path: Path, steps: np.ndarray, step: float, tolerance: float, tilted: bool
) -> None:
    uneven = np.flatnonzero(np.abs(steps - step) > tolerance)
    if not uneven.size:
        return
    also = "; the slices are sheared (gantry tilt) as well" if tilted else ""
    smallest = steps.min()
    multiples = steps / smallest
    gaps = np.round(multiples).astype(int) - 1
    if np.all(np.abs(multiples - gaps - 1) < 2 * _STEP_TOLERANCE):
        after = int(np.flatnonzero(gaps)[0]) + 1
        raise UserError(
            f"{path}: {gaps.sum()} slice{'s are' if gaps.sum() > 1 else ' is'} missing, the first "
            f"after slice {after} of {len(steps) + 1} (a step of {steps[after - 1]:.2f} mm where "
            f"{smallest:.2f} mm is usual){also}; export the whole series."
        )
    raise UserError(
        f"{path}: uneven slice spacing, {smallest:.2f} to {steps.max():.2f} mm{also}; resample the "
        "series to even spacing first."
    )
