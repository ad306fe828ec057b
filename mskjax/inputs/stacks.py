"""One series, several stacks: planes of a localiser, images of Dixon, echoes, time points."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mskjax.imaging.dicom_frames import TRAITS
from mskjax.imaging.dicom_grid import DIRECTION_TOLERANCE, SAME_POSITION_MM
from mskjax.imaging.series import Series
from mskjax.inputs.headers import Header, Plane

# Traits that say when an image was taken, not what it shows.
_TIMES = (
    "TriggerTime", "TemporalPositionIdentifier", "TemporalPositionIndex", "AcquisitionNumber",
    "AcquisitionTime",
)  # fmt: skip


@dataclass(frozen=True)
class Stack:
    """Images of a series that may be one volume.

    Attributes:
      uid: SeriesInstanceUID.
      order: SeriesNumber.
      shape: rows, columns.
      planes: its images, sorted along their normal; by file where they have no place.
      facts: of its first image, see `headers.FACTS`.
      is_of_time: whether it is one of several that show the same at other times.
    """

    uid: str
    order: int
    shape: tuple[int, int]
    planes: tuple[Plane, ...]
    facts: Mapping[str, str]
    is_of_time: bool = False

    @property
    def files(self) -> tuple[Path, ...]:
        """Its files, sorted."""
        return tuple(sorted({plane.file for plane in self.planes}))

    @property
    def normal(self) -> np.ndarray | None:
        """(3,) unit vector across the slices in LPS; None where they have no place."""
        return _normal(self.planes[0])

    @property
    def step(self) -> float:
        """Distance of slices, mm; of a single one its thickness, 0 where that is not said."""
        depths = _depths(self.planes)
        if depths is not None and len(depths) > 1:
            return float(np.median(np.diff(np.sort(depths))))
        texts = (self.facts.get(k, "") for k in ("SpacingBetweenSlices", "SliceThickness"))
        return next((abs(v) for text in texts if (v := _number(text))), 0.0)

    def box(self) -> tuple[np.ndarray, np.ndarray] | None:
        """Lowest and highest coordinate, (3,) mm each in LPS, of the centres of its pixels."""
        corners = []
        for plane in (self.planes[0], self.planes[-1]):
            if plane.where is None:
                return None
            position, orientation, (between_rows, between_columns) = map(np.array, plane.where)
            along = orientation[:3] * between_columns * (self.shape[1] - 1)
            down = orientation[3:] * between_rows * (self.shape[0] - 1)
            corners += [position, position + along, position + down, position + along + down]
        return np.min(corners, axis=0), np.max(corners, axis=0)

    def series(self) -> Series:
        """What a reader takes."""
        frames: dict[Path, tuple[int, ...]] = {}
        for plane in sorted(self.planes, key=lambda p: (p.file, p.frame or 0)):
            if plane.frame is not None:
                frames[plane.file] = (*frames.get(plane.file, ()), plane.frame)
        return Series(self.files, frames)


def stacks(headers: Iterable[Header]) -> list[Stack]:
    """The stacks of one series, in an order that does not depend on how files are named.

    Images are parted by matrix, pixel size and orientation and, where several still lie at one
    position, by the first of `TRAITS` that leaves none of them so, or by all that differ there.
    What cannot be parted stays together, and the reader will refuse it with its reason.
    """
    kinds: list[tuple[Header, list[Plane]]] = []
    for header in sorted(headers, key=lambda h: h.file):
        for plane in header.planes:
            for first, planes in kinds:
                if first.shape == header.shape and _alike(planes[0], plane):
                    planes.append(plane)
                    break
            else:
                kinds.append((header, [plane]))
    found = []
    for header, planes in kinds:
        parts, trait = _parted(planes)
        for part in parts:
            found.append(
                Stack(
                    header.series,
                    header.order,
                    header.shape,
                    _sorted(part),
                    _facts(header, part[0]),
                    trait in _TIMES,
                )
            )
    return sorted(found, key=_rank)


def _facts(header: Header, plane: Plane) -> Mapping[str, str]:
    """Facts of the header as they are of this frame: a trait of the frame goes first."""
    own = {k: text for k, text in zip(TRAITS, plane.traits, strict=True) if text}
    return {**header.facts, **{k: own[k] for k in own if k in header.facts}}


def _rank(stack: Stack) -> tuple:
    first = stack.planes[0]
    return first.where is None, first.where or (), first.traits, str(first.file)


def _alike(a: Plane, b: Plane) -> bool:
    if a.where is None or b.where is None:
        return a.where is b.where
    if a.where[1:] == b.where[1:]:
        return True  # as a rule; the rest is rounding
    return bool(
        np.allclose(a.where[1], b.where[1], atol=DIRECTION_TOLERANCE)
        and np.allclose(a.where[2], b.where[2], atol=1e-4)
    )


def _normal(plane: Plane) -> np.ndarray | None:
    if plane.where is None:
        return None
    row, column = np.array(plane.where[1][:3]), np.array(plane.where[1][3:])
    normal = np.cross(row, column)
    return normal / np.linalg.norm(normal)


def _depths(planes: Sequence[Plane]) -> np.ndarray | None:
    normal = _normal(planes[0])
    if normal is None:
        return None
    return np.array([p.where[0] for p in planes if p.where is not None]) @ normal


def _sorted(planes: Sequence[Plane]) -> tuple[Plane, ...]:
    depths = _depths(planes)
    if depths is None:
        return tuple(planes)
    return tuple(planes[i] for i in np.argsort(depths, kind="stable"))


def _is_single(planes: Sequence[Plane]) -> bool:
    """Whether no two images lie at one position."""
    depths = _depths(planes)
    return depths is None or bool(np.all(np.diff(np.sort(depths)) >= SAME_POSITION_MM))


def _parted(planes: list[Plane]) -> tuple[list[list[Plane]], str]:
    """Parts of which each has one image at a position, and the trait that tells them apart."""
    if _is_single(planes):
        return [planes], ""
    varying = [i for i in range(len(TRAITS)) if len({p.traits[i] for p in planes}) > 1]
    for some in [(i,) for i in varying] + [tuple(varying)] * (len(varying) > 1):
        parts: dict[tuple[str, ...], list[Plane]] = {}
        for plane in planes:
            parts.setdefault(tuple(plane.traits[i] for i in some), []).append(plane)
        if all(map(_is_single, parts.values())):
            return list(parts.values()), TRAITS[some[0]]
    return [planes], ""


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return 0.0
