"""Planes of series: which axis the slices are, and turning a plane upright."""

import itertools
import math
from collections.abc import Mapping
from typing import Any

import nibabel as nib
import numpy as np

from mskjax.errors import UserError, note
from mskjax.imaging.geometry import shift_affine
from mskjax.imaging.volume import Volume

# Display axes by the patient axis that the slices are closest to.
_DISPLAY_AXES: Mapping[str, str] = {"S": "IPL", "A": "PIL", "R": "LIP"}
# Slices of a Y-view may be this far, in degrees, from the left-right axis towards the front, and up
# or down.
MOST_OBLIQUE, MOST_TILTED = 70, 45

# Voxel pitches within this factor are alike.
ISOTROPIC = 1.1


def slice_axis(volume: Volume) -> int:
    """The through-plane axis: 0, 1 or 2.

    It is the axis with clearly (10 %) the largest voxel pitch; of an isotropic volume the axis
    DICOM called the slice axis, and without DICOM the axis with the fewest voxels.
    """
    spacing = volume.spacing
    order = np.argsort(spacing)
    if spacing[order[2]] > ISOTROPIC * spacing[order[1]]:
        return int(order[2])
    if "slice_axis" in volume.meta:
        return int(volume.meta["slice_axis"])
    return int(np.argmin(volume.data.shape))


def y_view(volume: Volume, where: Any) -> Volume:
    """Turns a Y-view upright, front to the left; no voxel value is changed.

    A Y-view lies across the scapula, so its normal is between the left-right and the front-back
    axis, often nearer to neither.  The axes are therefore told by what they are, not by the patient
    axis they are closest to: slices are the one axis that is no image axis, rows the image axis
    that runs most nearly up or down.

    Args:
      volume: one image or a stack, stored in any order.
      where: the file, for the message.

    Returns:
      The same voxels at the same places.  Axis 0 is the slices, growing towards the left; axis 1
      the rows, growing towards the feet; axis 2 the columns, growing towards the back.

    Raises:
      UserError: the slices are axial or coronal.
    """
    along = volume.affine[:3, :3] / volume.spacing
    slices = y_view_axis(volume)
    rows, columns = sorted((a for a in range(3) if a != slices), key=lambda a: -abs(along[2, a]))
    normal = np.cross(along[:, rows], along[:, columns])
    sideways, _, upwards = np.abs(normal) / np.linalg.norm(normal)
    tilted = upwards > math.sin(math.radians(MOST_TILTED))
    if tilted or sideways < math.cos(math.radians(MOST_OBLIQUE)):
        raise UserError(
            f"{where}: the slices are {'axial' if tilted else 'coronal'}, not a Y-view; give the"
            f" sagittal oblique series{doubt_of(volume)}."
        )
    note_other_slices(volume, slices, where)
    left = 1 if along[0, slices] < 0 else -1  # RAS: x grows to the right,
    down = 1 if along[2, rows] < 0 else -1  # z towards the head.
    # Left, down and back make a right-handed frame, however oblique the slices are.
    order = [slices, rows, columns]
    back = left * down * (1 if np.linalg.det(along[:, order]) > 0 else -1)
    orientation = np.empty((3, 2))
    orientation[order] = [(0, left), (1, down), (2, back)]
    data = nib.orientations.apply_orientation(volume.data, orientation)
    turned = volume.affine @ nib.orientations.inv_ornt_aff(orientation, volume.data.shape)
    return Volume(np.ascontiguousarray(data), turned, dict(volume.meta))


def y_view_axis(volume: Volume) -> int:
    """The axis that `y_view` takes as its slices.

    It is that of `through_plane`; but an isotropic volume can be cut in any plane, so there it is
    the axis nearest to left-right.
    """
    if is_isotropic(volume):
        return int(np.argmax(np.abs(volume.affine[0, :3]) / volume.spacing))
    return through_plane(volume)


def is_isotropic(volume: Volume) -> bool:
    """Whether voxels are cubes, within 10 %, and not of one slice alone: then no plane is wrong."""
    cubes = volume.spacing.max() <= ISOTROPIC * volume.spacing.min()
    return bool(cubes) and 1 not in volume.data.shape


def note_other_slices(volume: Volume, axis: int, where: Any) -> None:
    """Notes that an isotropic series is cut across the slices in which it was stored."""
    if is_isotropic(volume) and volume.meta.get("slice_axis", axis) != axis:
        note(where, "is isotropic; its sagittal planes are used, not the slices it was stored in")


def doubt_of(volume: Volume) -> str:
    """What to add to a sentence that refuses a plane: a clause, or nothing."""
    doubt = volume.meta.get("orientation_doubt")
    return f" ({doubt}, so check that first)" if doubt else ""


def through_plane(volume: Volume) -> int:
    """The axis of the slices: the one of length 1 if there is just one, else `slice_axis`."""
    single = [axis for axis, size in enumerate(volume.data.shape) if size == 1]
    return single[0] if len(single) == 1 else slice_axis(volume)


def display_axes(volume: Volume) -> Volume:
    """Turns a series to the display axes of its plane; no voxel value is changed.

    Each array axis is given one patient axis, such that the cosines are the largest in sum.  The
    one given to the slices names the plane, so an oblique coronal series is coronal as long as it
    is turned by less than 45 degrees.

    Args:
      volume: a series, stored in any order.

    Returns:
      The same voxels at the same places.  Axis 0 is the slices, axes 1 and 2 are rows and columns
      as a viewer shows them.  Axial: head to feet, front to back, right to left.  Coronal: front
      to back, head to feet, right to left.  Sagittal: right to left, head to feet, front to back.
    """
    cosines = volume.affine[:3, :3] / volume.spacing
    world = max(
        itertools.permutations(range(3)),
        key=lambda order: sum(abs(cosines[w, axis]) for axis, w in enumerate(order)),
    )
    codes = _DISPLAY_AXES["RAS"[world[through_plane(volume)]]]
    orientation = np.empty((3, 2))
    for axis, w in enumerate(world):
        target = next(k for k, code in enumerate(codes) if code in ("LR", "PA", "IS")[w])
        # L, P and I are where R, A and S, the axes of the affine, decrease.
        orientation[axis] = target, 1 if cosines[w, axis] < 0 else -1
    data = nib.orientations.apply_orientation(volume.data, orientation)
    affine = volume.affine @ nib.orientations.inv_ornt_aff(orientation, volume.data.shape)
    meta = {**volume.meta, "slice_axis": 0}
    return Volume(np.ascontiguousarray(data), affine, meta)


def one_slice(volume: Volume, axis: int, index: int) -> Volume:
    """Slice `index` along an axis, where it lies; the axis stays, of length 1."""
    start = [index if a == axis else 0 for a in range(3)]
    data = np.take(volume.data, [index], axis)
    return Volume(data, shift_affine(volume.affine, start), dict(volume.meta))


def edge_letters(affine: np.ndarray) -> tuple[str, str, str, str]:
    """Where the patient's head (H), feet (F), left, right, front (A) and back (P) are in a slice.

    Args:
      affine: (4, 4) index (slice, row, column) to RAS mm.

    Returns:
      At the top, the bottom, the left and the right edge; an oblique slice has two letters, the
      nearer direction first, where the second is more than 30 degrees off its plane.
    """
    along = affine[:3, 1:3] / np.linalg.norm(affine[:3, 1:3], axis=0)
    edges = (-along[:, 0], along[:, 0], -along[:, 1], along[:, 1])
    top, bottom, left, right = ("".join(_letters(edge)) for edge in edges)
    return top, bottom, left, right


def _letters(direction: np.ndarray) -> list[str]:
    """Letters of a unit vector in RAS."""
    order = np.argsort(-np.abs(direction), kind="stable")
    named = [i for i in order if abs(direction[i]) >= np.sin(np.deg2rad(30))]
    return [("RL", "AP", "HF")[i][int(direction[i] < 0)] for i in named]
