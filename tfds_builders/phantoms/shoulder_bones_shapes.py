"""Implicit shapes of a shoulder: signed distances in mm, frames, grids and random fields.

A distance is negative inside.  Distances are exact or right to first order at the surface, which is
all that a cortex or a layer of cartilage needs.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

Points = tuple[np.ndarray, np.ndarray, np.ndarray]  # coordinates, which broadcast to one shape
Block = tuple[slice, slice, slice]


@dataclass(frozen=True, eq=False)
class Frame:
    """A rotated and shifted coordinate system.

    Attributes:
      origin: (3,) of the local system, mm.
      axes: (3, 3); its columns are the local axes, orthonormal.
    """

    origin: np.ndarray
    axes: np.ndarray

    def local(self, points: Points) -> Points:
        """Coordinates in this frame."""
        x, y, z = (p - np.float32(o) for p, o in zip(points, self.origin, strict=True))
        a = self.axes.astype(np.float32)
        return tuple(a[0, k] * x + a[1, k] * y + a[2, k] * z for k in range(3))  # type: ignore

    def place(self, local: Sequence[float] | np.ndarray) -> np.ndarray:
        """(..., 3) local coordinates in the outer frame."""
        return self.origin + np.asarray(local, float) @ self.axes.T


def rotation(axis: int, degrees: float) -> np.ndarray:
    """(3, 3) rotation about one axis, counter-clockwise seen from its end."""
    c, s = np.cos(np.deg2rad(degrees)), np.sin(np.deg2rad(degrees))
    i, j = (axis + 1) % 3, (axis + 2) % 3
    matrix = np.eye(3)
    matrix[i, i] = matrix[j, j] = c
    matrix[i, j], matrix[j, i] = -s, s
    return matrix


@dataclass(frozen=True, eq=False)
class Grid:
    """Evenly spaced samples, in general oblique.

    Attributes:
      origin: (3,) of sample (0, 0, 0), mm.
      steps: (3, 3); column k leads from a sample to the next one along axis k.
      shape: number of samples along each axis.
    """

    origin: np.ndarray
    steps: np.ndarray
    shape: tuple[int, int, int]

    def part(self, block: Block) -> "Grid":
        """The samples of a block."""
        start = np.array([s.start for s in block], float)
        shape = tuple(s.stop - s.start for s in block)
        return Grid(self.origin + self.steps @ start, self.steps, shape)  # type: ignore[arg-type]

    def points(self) -> Points:
        """Coordinates of all samples, each of `shape`, float32."""
        lines = [
            [(self.steps[r, k] * np.arange(n)).astype(np.float32) for k, n in enumerate(self.shape)]
            for r in range(3)
        ]
        return tuple(  # type: ignore[return-value]
            (np.float32(o) + i)[:, None, None] + j[:, None] + k
            for o, (i, j, k) in zip(self.origin, lines, strict=True)
        )

    def block(self, low: np.ndarray, high: np.ndarray) -> Block | None:
        """Samples that may lie in the box from `low` to `high`, mm; None if there are none."""
        corners = np.array(np.meshgrid(*zip(low, high, strict=True))).reshape(3, 8)
        index = np.linalg.solve(self.steps, corners - self.origin[:, None])
        start = np.clip(np.floor(index.min(axis=1)), 0, None).astype(int)
        stop = np.clip(np.ceil(index.max(axis=1)) + 1, None, self.shape).astype(int)
        if np.any(start >= stop):
            return None
        return tuple(slice(a, b) for a, b in zip(start, stop, strict=True))  # type: ignore


@dataclass(frozen=True, eq=False)
class Tube:
    """A chain of tapered rods, flattened or heightened along the third axis of its frame.

    Attributes:
      frame: of the nodes.
      nodes: (n, 3), mm; at least 2.
      radii: (n,), mm, across the first two axes.
      stretch: radius along the third axis over that across.
    """

    frame: Frame
    nodes: np.ndarray
    radii: np.ndarray
    stretch: float = 1.0

    def box(self, margin: float) -> tuple[np.ndarray, np.ndarray]:
        """Lowest and highest corner of a box that holds the tube and `margin` mm about it."""
        reach = self.radii[:, None] * [1, 1, self.stretch] + margin
        corners = np.array(np.meshgrid(*[[-1, 1]] * 3)).reshape(3, 8).T
        placed = self.frame.place((self.nodes[:, None] + corners * reach[:, None]).reshape(-1, 3))
        return placed.min(axis=0), placed.max(axis=0)

    def distance(self, points: Points) -> np.ndarray:
        """Signed distance, mm."""
        return self.local_distance(self.frame.local(points))

    def local_distance(self, local: Points) -> np.ndarray:
        """Signed distance of points that are given in the tube's frame."""
        scale = np.array([1, 1, 1 / self.stretch], np.float32)
        p = [v if s == 1 else v * s for v, s in zip(local, scale, strict=True)]
        nodes, radii = (self.nodes * scale).astype(np.float32), self.radii.astype(np.float32)
        best = None
        for a, b, ra, rb in zip(nodes, nodes[1:], radii, radii[1:], strict=False):
            edge = b - a
            q = [v - c for v, c in zip(p, a, strict=True)]
            along = (q[0] * edge[0] + q[1] * edge[1] + q[2] * edge[2]) / (edge @ edge)
            along = np.clip(along, 0, 1)
            q = [v - along * e for v, e in zip(q, edge, strict=True)]
            flat = q[0] ** 2 + q[1] ** 2
            length = np.sqrt(flat + q[2] ** 2)
            distance = length - (ra + along * (rb - ra))
            if self.stretch != 1:  # by the gradient's norm: to first order in mm again
                norm = np.sqrt(flat + (q[2] * scale[2]) ** 2)
                distance *= length / np.maximum(norm, 1e-3)
            best = distance if best is None else np.minimum(best, distance)
        assert best is not None
        return best


def ball(points: Points, centre: Sequence[float] | np.ndarray, radius: float) -> np.ndarray:
    """Signed distance to a sphere."""
    x, y, z = (p - np.float32(c) for p, c in zip(points, centre, strict=True))
    return np.sqrt(x * x + y * y + z * z) - np.float32(radius)


def ellipsoid(
    points: Points, centre: Sequence[float] | np.ndarray, radii: Sequence[float] | np.ndarray
) -> np.ndarray:
    """Approximate signed distance to an ellipsoid along the axes, right at its surface."""
    q = [(p - np.float32(c)) / np.float32(r) for p, c, r in zip(points, centre, radii, strict=True)]
    f = np.sqrt(q[0] ** 2 + q[1] ** 2 + q[2] ** 2)
    norm = np.sqrt(sum((v / np.float32(r)) ** 2 for v, r in zip(q, radii, strict=True)))
    return f * (f - 1) / np.maximum(norm, 1e-4)


def join(a: np.ndarray, b: np.ndarray, width: float) -> np.ndarray:
    """Union whose edge is filled over `width` mm (polynomial smooth minimum)."""
    overlap = np.maximum(np.float32(width) - np.abs(a - b), 0)
    return np.minimum(a, b) - overlap * overlap / np.float32(4 * width)


@dataclass(frozen=True, eq=False)
class Waves:
    """A random field in space, mean 0 and variance 1, that does not depend on the grid.

    Attributes:
      vectors: (n, 3) wave vectors, radians per mm.
      phases: (n,) radians.
    """

    vectors: np.ndarray
    phases: np.ndarray

    @classmethod
    def draw(cls, rng: np.random.Generator, wavelength_mm: float, count: int = 24) -> "Waves":
        """Isotropic waves whose lengths spread about `wavelength_mm`."""
        directions = rng.standard_normal((count, 3))
        directions /= np.linalg.norm(directions, axis=1, keepdims=True)
        lengths = wavelength_mm * rng.uniform(0.7, 1.5, (count, 1))
        return cls(2 * np.pi / lengths * directions, rng.uniform(0, 2 * np.pi, count))

    def on(self, grid: Grid) -> np.ndarray:
        """The field at all samples, float32, of the grid's shape."""
        # A plane wave is the product of one factor per axis of the grid, so the sum is a matrix
        # product instead of a cosine per wave and sample.
        turns = self.vectors @ grid.steps  # (n, 3)
        first, second, third = (
            np.exp(1j * turns[:, k, None] * np.arange(n)) for k, n in enumerate(grid.shape)
        )
        first *= np.exp(1j * (self.vectors @ grid.origin + self.phases))[:, None]
        left = (first.T[:, None, :] * second.T[None]).reshape(-1, len(self.phases))
        left, right = left.astype(np.complex64), third.astype(np.complex64)
        out = left.real @ right.real - left.imag @ right.imag
        out *= np.float32(np.sqrt(2 / len(self.phases)))
        return out.reshape(grid.shape)
