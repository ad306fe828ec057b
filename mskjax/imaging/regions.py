"""From a disc mask to ordered disc regions, and from a region to the crop a network grades.

Arrays here are sagittal canonical: axis 0 slices, axis 1 rows (head to feet), axis 2 columns
(front to back).  A region's angle is that of its disc in the sagittal plane, radians; positive
where the posterior end lies lower.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np
from scipy import ndimage, optimize

from mskjax.imaging import geometry
from mskjax.imaging.levels import Levels, assign_levels

_FRAGMENT_FRACTION = 0.1
# Antero-posterior diameters of adult lumbar discs stay below this: pieces farther apart are not
# parts of one disc.
_MAX_PIECE_DISTANCE_MM = 40.0
# No lumbar disc is steeper; a principal axis that is belongs to a mask with no flat shape.
_MAX_ANGLE = np.deg2rad(60)
_MIN_IOU = 0.1


@dataclasses.dataclass(frozen=True, eq=False)
class Region:
    """One disc of a mask.

    Attributes:
      level: 1 for the lowest disc, counting upwards.
      voxels: size.
      centre: (3,) RAS mm, centroid of the part in the disc's middle slice.
      angle: radians in the sagittal plane; ``rotated_crop`` at this angle shows the disc level.
      width_mm: extent along the disc's long (antero-posterior) axis in the middle slice.
      height_mm: mean height, area of the middle slice divided by the width.
      slices: the disc's bounding box in the array it was measured in.
      mask: bool, the disc within ``slices``.
    """

    level: int
    voxels: int
    centre: np.ndarray
    angle: float
    width_mm: float
    height_mm: float
    slices: tuple[slice, ...]
    mask: np.ndarray


def components(mask: np.ndarray, min_voxels: int = 0) -> list[np.ndarray]:
    """Connected components, the largest first.

    Args:
      mask: bool or 0/1, any number of axes; neighbours share a corner (26-connectivity in 3-D).
      min_voxels: smaller components are left out.

    Returns:
      Bool masks of the shape of ``mask``.
    """
    labels, count = _connected(mask)
    sizes = np.bincount(labels.ravel(), minlength=count + 1)[1:]
    order = np.argsort(-sizes, kind="stable")
    return [labels == index + 1 for index in order if sizes[index] >= min_voxels]


def large_components(mask: np.ndarray, share: float) -> list[np.ndarray]:
    """Connected components of at least a share of the largest one's voxels, the largest first.

    Args:
      mask: as in `components`; may be empty.
      share: in [0, 1]; at 1 the largest alone is left, one of them where several are as large.
    """
    found = components(mask)
    if not found:
        return []
    least = share * found[0].sum()
    return [c for i, c in enumerate(found) if i == 0 or (share < 1 and c.sum() >= least)]


def disc_regions(disc_mask: np.ndarray, affine: np.ndarray) -> tuple[list[Region], int]:
    """Finds and measures the discs of a mask, from the lowest upwards.

    Components smaller than 10 % of the median component are dropped; the median is taken over
    voxels (half of all disc voxels lie in components at least as large), so that any number of
    specks leaves it where it is.  Pieces of a disc that is split from front to back are joined:
    their centres lie within half a disc height of one another along the disc's normal.

    Args:
      disc_mask: (I, J, K) bool or 0/1, axes L, I, P.
      affine: (4, 4).

    Returns:
      One region per disc, level 1 first, and how many components were dropped.
    """
    labels, count = _connected(disc_mask)
    sizes = np.bincount(labels.ravel(), minlength=count + 1)[1:]
    if not count:
        return [], 0
    threshold = _FRAGMENT_FRACTION * _voxelwise_median(sizes)
    pieces = [r for r in labelled_regions(labels, affine) if r.voxels >= threshold]
    group = _join_pieces(pieces, affine)
    weighted: dict[int, list[float]] = {}
    for piece in pieces:
        total = weighted.setdefault(group[piece.level], [0.0, 0.0])
        total[0] += piece.voxels * piece.centre[2]
        total[1] += piece.voxels
    lowest_first = sorted(weighted, key=lambda head: weighted[head][0] / weighted[head][1])
    level = np.zeros(count + 1, np.int16)
    for label, head in group.items():
        level[label] = lowest_first.index(head) + 1
    return labelled_regions(level[labels], affine), count - len(pieces)


def spine_row(discs: Sequence[Region], affine: np.ndarray) -> tuple[list[Region], Levels]:
    """Numbers those regions of a predicted mask that make a spine; see `levels.assign_levels`.

    A patch of bowel that a network takes for a disc would shift the levels of all discs above it,
    and so would a disc that it misses between two others.  All regions are as sure as one another,
    since little of a lowest disc may be seen and still be that disc: only their places tell.

    Args:
      discs: N regions of `disc_regions`.
      affine: (4, 4).

    Returns:
      The regions that are kept, from the lowest upwards, with their levels; and what was skipped
      and left out.
    """
    axes = _in_plane(affine)
    centres = np.array([disc.centre @ axes for disc in discs]).reshape(-1, 2)
    alike = np.ones(len(discs))
    row = assign_levels(centres, alike, alike / 2, 0.5)
    places = zip(row.kept.tolist(), row.levels.tolist(), strict=True)
    return [dataclasses.replace(discs[i], level=level) for i, level in places], row


def labelled_regions(levels: np.ndarray, affine: np.ndarray) -> list[Region]:
    """Measures each level of a labelled mask, e.g. of a reference with its own numbering.

    Args:
      levels: (I, J, K) integers, axes L, I, P; 0 is background.
      affine: (4, 4).

    Returns:
      Regions in ascending order of level; levels that do not occur are left out.
    """
    boxes = ndimage.find_objects(levels)
    return [
        _measure(index + 1, box, levels[box] == index + 1, affine)
        for index, box in enumerate(boxes)
        if box is not None
    ]


def rotated_crop(
    data: np.ndarray,
    affine: np.ndarray,
    centre_mm: np.ndarray,
    angle: float,
    extent_mm: tuple[float, float],
    shape: tuple[int, int, int],
) -> np.ndarray:
    """Cuts native sagittal slices, turned in their plane; what lies outside the image is 0.

    The slice nearest to the centre is at index ``slices // 2``.  The image is low-passed where the
    crop is coarser.

    Args:
      data: (I, J, K), axes L, I, P.
      affine: (4, 4).
      centre_mm: (3,) RAS mm, middle of the crop.
      angle: radians; the crop's columns run along this direction (``Region.angle``).
      extent_mm: (rows, columns) length of the crop in the plane.
      shape: (slices, rows, columns) of the crop.

    Returns:
      Float32 of ``shape``.
    """
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    middle = (np.linalg.inv(affine) @ [*centre_mm, 1.0])[:3]
    slices, rows, columns = shape
    pitch = np.array([extent_mm[0] / rows, extent_mm[1] / columns])
    cos, sin = np.cos(angle), np.sin(angle)
    step = np.zeros((3, 3))
    step[0, 0] = 1
    # Millimetres along (rows, columns) of the crop to native (row, column) indices.
    step[1:, 1:] = np.array([[cos, sin], [-sin, cos]]) * pitch / spacing[1:, None]
    half = (np.array(shape) - 1) / 2
    middle[0] = np.floor(middle[0] + 0.5)
    half[0] = slices // 2
    offset = middle - step @ half
    # Only the box that the crop touches is read; it is padded, so that the border fades into 0.
    corners = np.indices((2, 2, 2)).reshape(3, 8) * (np.array(shape) - 1)[:, None]
    touched = step @ corners + offset[:, None]
    factor = [1.0, *(pitch.min() / spacing[1:])]
    margin = 2 + np.ceil(np.maximum(factor, 1)).astype(int)
    start = np.floor(touched.min(axis=1)).astype(int) - margin
    stop = np.ceil(touched.max(axis=1)).astype(int) + margin + 1
    box = geometry.crop_or_pad(data, start.tolist(), (stop - start).tolist())
    box = geometry.lowpass(box.astype(np.float32), factor)
    return ndimage.affine_transform(box, step, offset - start, shape, order=1)


def match_regions(
    predicted: np.ndarray, reference: np.ndarray
) -> tuple[dict[int, int | None], list[int]]:
    """Pairs predicted with reference regions one to one, at maximum total IoU.

    Args:
      predicted: integer labels, 0 background.
      reference: integer labels of the same shape.

    Returns:
      Reference label to predicted label, None where no prediction overlaps it with an IoU above
      0.1; and the predicted labels left over.
    """
    if predicted.shape != reference.shape:
        raise ValueError(f"shapes {predicted.shape} and {reference.shape} differ")
    wanted, wanted_sizes = _labels(reference)
    found, found_sizes = _labels(predicted)
    both = (predicted > 0) & (reference > 0)
    overlap = np.zeros((len(wanted), len(found)))
    np.add.at(
        overlap,
        (np.searchsorted(wanted, reference[both]), np.searchsorted(found, predicted[both])),
        1,
    )
    iou = overlap / np.maximum(wanted_sizes[:, None] + found_sizes - overlap, 1)
    iou[iou <= _MIN_IOU] = 0  # a hopeless pair must not displace a real one
    pairs: dict[int, int | None] = dict.fromkeys(map(int, wanted))
    for row, column in zip(*optimize.linear_sum_assignment(iou, maximize=True), strict=True):
        if iou[row, column] > 0:
            pairs[int(wanted[row])] = int(found[column])
    taken = set(pairs.values())
    return pairs, [int(label) for label in found if int(label) not in taken]


def neighbour_vertebra_median(
    image: np.ndarray, vertebra_mask: np.ndarray, region: Region, affine: np.ndarray
) -> float:
    """Median signal of the two vertebral bodies beside a disc (SpineNet's reference tissue).

    Vertebral voxels count where they lie, in the disc's frame, within .45 disc widths in front of
    or behind the centre (bodies, not posterior elements) and between .6 disc heights and 25 mm
    above or below it.

    Args:
      image: (I, J, K) signal, axes L, I, P.
      vertebra_mask: bool of the same shape.
      region: the disc.
      affine: (4, 4).

    Returns:
      The median; of the whole vertebra mask where no voxel qualifies; the 75th percentile of the
      image where the mask is empty.
    """
    box = (region.slices[0], slice(None), slice(None))
    i, j, k = np.nonzero(vertebra_mask[box])
    if i.size:
        middle = (np.linalg.inv(affine) @ [*region.centre, 1.0])[:3]
        spacing = np.linalg.norm(affine[:3, :3], axis=0)
        down, back = (j - middle[1]) * spacing[1], (k - middle[2]) * spacing[2]
        along = np.cos(region.angle) * back + np.sin(region.angle) * down
        across = np.abs(np.cos(region.angle) * down - np.sin(region.angle) * back)
        body = (np.abs(along) <= 0.45 * region.width_mm) & (across <= 25)
        body &= across >= 0.6 * region.height_mm
        if body.any():
            return float(np.median(image[box][i[body], j[body], k[body]]))
    if np.any(vertebra_mask):
        return float(np.median(image[np.asarray(vertebra_mask, bool)]))
    return float(np.percentile(image, 75))


def _measure(level: int, box: tuple[slice, ...], mask: np.ndarray, affine: np.ndarray) -> Region:
    per_slice = mask.sum(axis=(1, 2))
    voxels = int(per_slice.sum())
    middle = int(np.searchsorted(np.cumsum(per_slice), voxels / 2))
    row, column = np.nonzero(mask[middle])
    indices = np.stack([np.full(row.size, middle), row, column]) + [[s.start] for s in box]
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    points = indices[1:] * spacing[1:, None]  # mm towards the feet, mm towards the back
    points = points - points.mean(axis=1, keepdims=True)
    # Each pixel is a square with a moment of its own, so that even one pixel has a long axis.
    moments = points @ points.T / row.size + np.diag(spacing[1:] ** 2 / 12)
    down, back = np.linalg.eigh(moments)[1][:, -1]
    angle = float(np.arctan2(down, back) if back > 0 else np.arctan2(-down, -back))
    if abs(angle) > _MAX_ANGLE:
        angle = 0.0
    cos, sin = np.cos(angle), np.sin(angle)
    pixel = abs(sin) * spacing[1] + abs(cos) * spacing[2]
    width = float(np.ptp(sin * points[0] + cos * points[1]) + pixel)
    return Region(
        level=level,
        voxels=voxels,
        centre=affine[:3, :3] @ indices.mean(axis=1) + affine[:3, 3],
        angle=angle,
        width_mm=width,
        height_mm=float(row.size * spacing[1] * spacing[2] / width),
        slices=box,
        mask=mask,
    )


def _join_pieces(pieces: list[Region], affine: np.ndarray) -> dict[int, int]:
    """Maps each piece's label to the label of the widest piece of the same disc."""
    down, back = _in_plane(affine).T
    group: dict[int, int] = {}
    widest_first = sorted(pieces, key=lambda piece: -piece.width_mm)
    for position, piece in enumerate(widest_first):
        group[piece.level] = piece.level
        for disc in widest_first[:position]:
            gap = piece.centre - disc.centre
            cos, sin = np.cos(disc.angle), np.sin(disc.angle)
            across = abs(gap @ (cos * down - sin * back))
            along = abs(gap @ (sin * down + cos * back))
            if across < disc.height_mm / 2 and along < _MAX_PIECE_DISTANCE_MM:
                group[piece.level] = group[disc.level]
                break
    return group


def _in_plane(affine: np.ndarray) -> np.ndarray:
    """(3, 2) unit vectors in the patient: to the feet and to the back."""
    return affine[:3, 1:3] / np.linalg.norm(affine[:3, 1:3], axis=0)


def _connected(mask: np.ndarray) -> tuple[np.ndarray, int]:
    return ndimage.label(mask, structure=np.ones((3,) * mask.ndim))


def _voxelwise_median(sizes: np.ndarray) -> float:
    ordered = np.sort(sizes)
    return float(ordered[np.searchsorted(np.cumsum(ordered), ordered.sum() / 2)])


def _labels(array: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    values, counts = np.unique(array, return_counts=True)
    return values[values > 0], counts[values > 0]
