"""Generated 3-D shoulder series with the exact humerus and scapula.

Bones cannot be told by their intensity: marrow has the signal of the fat around it, and the dark
cortex meets tendon, labrum, fascia and air of the same darkness.  Clavicle and ribs are bones that
belong to neither structure.  Contrast follows from the spin echo equation, with published
relaxation times, thick slices, coil shading and Rician noise.

A patient is drawn in streams of one seed: who they are, how they lie in the scanner, and the noise.
The anatomy does not depend on the grid, so every config shows the same patient.
"""

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from scipy import ndimage

from tfds_builders.phantoms.acquisition import (
    Protocol,
    bias_field,
    render,
    rician_noise,
    surface_coil,
    tissue_signal,
)
from tfds_builders.phantoms.shoulder_bones_anatomy import Shoulder, body_surface, build_shoulder
from tfds_builders.phantoms.shoulder_bones_drawing import (
    MARROW_STEPS,
    N_MATERIALS,
    M,
    draw,
    fine,
    slabs,
    structure_of,
)
from tfds_builders.phantoms.shoulder_bones_shapes import Grid, rotation
from tfds_builders.phantoms.tissues import TISSUES

HUMERUS, SCAPULA = 1, 2
Plane = Literal["axial", "coronal"]

_PATIENT, _POSITION, _SCANNER, _SCAN = range(60, 64)
_SOLID = np.ones((3, 3, 3), bool)

# Turbo spin echo without fat suppression; echo times as in clinical shoulder protocols.
SHOULDER_PD = Protocol("PD", 2600.0, 30.0, 1.6, 3.5, 3.5, snr=14.0)
SHOULDER_T1 = Protocol("T1", 600.0, 12.0, 1.6, 3.5, 3.5, snr=14.0)


@dataclass(frozen=True)
class BonesPhantomConfig:
    """What the scanner is like.

    Attributes:
      plane: of the slices; "coronal" is oblique, along the scapula.
      protocol: contrast and voxel size; TR, TE, field strength, noise and gain vary about it.
      n_slices, rows, cols: matrix.
      supersample: fine samples per voxel, (slices, rows, columns).
      bias: standard deviation of the logarithm of the receive shading.
    """

    plane: Plane = "axial"
    protocol: Protocol = SHOULDER_PD
    n_slices: int = 24
    rows: int = 96
    cols: int = 96
    supersample: tuple[int, int, int] = (2, 2, 2)
    bias: float = 0.15

    def __post_init__(self) -> None:
        if self.plane not in ("axial", "coronal"):
            raise ValueError(f"plane is {self.plane!r}; it must be axial or coronal")
        if min(self.n_slices, self.rows, self.cols, *self.supersample) < 1:
            raise ValueError("n_slices, rows, cols and supersample must be at least 1")
        if self.protocol.slice_thickness_mm != self.protocol.slice_pitch_mm:
            raise ValueError("slices must touch: their pitch must be their thickness")
        depth = self.n_slices * self.protocol.slice_pitch_mm
        if min(self.rows, self.cols) * self.protocol.pixel_mm < 110 or depth < 60:
            raise ValueError(
                "a shoulder needs 110 mm in plane and 60 mm across: raise rows, cols or n_slices"
            )


SMALL = BonesPhantomConfig()
# As many images a patient as in the paper, at the resolution of a 3-D sequence.  Slices are coarser
# than pixels, so fine samples are spent on them.
PAPER = BonesPhantomConfig(
    protocol=replace(
        SHOULDER_PD, pixel_mm=0.6, slice_thickness_mm=1.2, slice_pitch_mm=1.2, snr=11.0
    ),
    n_slices=100,
    rows=256,
    cols=256,
    supersample=(2, 1, 1),
)


@dataclass(frozen=True, eq=False)
class BonesPhantom:
    """The series of one generated patient, on the display axes of its plane.

    Axial: axis 0 from head to feet, axis 1 from front to back, axis 2 from right to left.
    Coronal: axis 0 from front to back, axis 1 from head to feet, axis 2 from right to left.

    Attributes:
      image: (S, H, W) int16, scanner units (arbitrary, not negative).
      mask: (S, H, W) uint8; 0 background, 1 humerus, 2 scapula, each one piece.
      affine: (4, 4) float64, voxel index to RAS+ mm, oblique.
      side: "left" or "right".
      sex: "F" or "M".
      age: years.
      field_strength_t: 1.5 or 3.
      head_radius_mm: of the humeral head, without cartilage.
    """

    image: np.ndarray
    mask: np.ndarray
    affine: np.ndarray
    side: str
    sex: str
    age: int
    field_strength_t: float
    head_radius_mm: float


def bones_phantom(seed: int, config: BonesPhantomConfig = SMALL) -> BonesPhantom:
    """Generates the series of patient `seed`; equal arguments give equal bytes.

    Args:
      seed: patient, not negative.
      config: see `BonesPhantomConfig`; `SMALL` takes about half a second, `PAPER` some seconds.
    """
    who = build_shoulder(np.random.default_rng((seed, _PATIENT)))
    position = np.random.default_rng((seed, _POSITION))
    left = bool(position.random() < 0.5)
    steps, centre = _place(position, config, who, left)
    scanner = np.random.default_rng((seed, _SCANNER))
    protocol = replace(
        config.protocol,
        tr_ms=config.protocol.tr_ms * scanner.uniform(0.8, 1.3),
        te_ms=config.protocol.te_ms * scanner.uniform(0.8, 1.2),
        field_strength_t=float(scanner.choice([1.5, 3.0])),
        snr=config.protocol.snr * scanner.uniform(0.75, 1.4),
    )
    values = material_signals(protocol, who.age)
    # The anatomy is that of a right shoulder: a left one is seen through a mirror.
    mirror = np.array([-1.0 if left else 1.0, 1, 1])
    matrix = config.n_slices, config.rows, config.cols
    corner = centre - steps @ ((np.array(matrix) - 1) / 2)
    grid = Grid(mirror * corner, mirror[:, None] * steps, matrix)
    signal, mask = _sample(who, grid, config, values)
    rng = np.random.default_rng((seed, _SCAN))
    affine = np.eye(4)
    affine[:3, :3] = steps
    # Where the shoulder lies in the magnet.
    affine[:3, 3] = corner + mirror * [155, -20, 0] + position.normal(0, 15, 3)
    return BonesPhantom(
        image=_expose(rng, signal, who, grid, config, values, protocol.snr),
        mask=mask,
        affine=affine,
        side="left" if left else "right",
        sex="M" if who.male else "F",
        age=who.age,
        field_strength_t=protocol.field_strength_t,
        head_radius_mm=who.radius,
    )


def material_signals(protocol: Protocol, age: float) -> np.ndarray:
    """(N_MATERIALS,) noise-free signal of each material in a patient of `age` years."""

    def of(name: str) -> float:
        return tissue_signal(TISSUES[name], protocol)

    values = np.zeros(N_MATERIALS)
    values[M.LUNG] = 0.06 * of("muscle")
    values[M.SKIN] = 0.75 * of("ligament") + 0.25 * of("fat")
    values[M.FAT] = of("fat")
    values[M.FASCIA] = 0.5 * of("ligament") + 0.5 * of("fat")  # thinner than a sample
    values[M.MUSCLE] = 0.96 * of("muscle") + 0.04 * of("fat")
    values[M.PERIMYSIUM] = 0.72 * of("muscle") + 0.28 * of("fat")
    values[M.TENDON] = of("ligament")
    values[M.CARTILAGE] = of("cartilage")
    values[M.FLUID] = of("synovial_fluid")
    values[M.ARTERY] = of("flow_void")
    values[M.VEIN] = 0.5 * of("liver") + 0.4 * of("synovial_fluid")  # slow blood
    values[M.NERVE] = 0.5 * of("spinal_cord") + 0.5 * of("fat")  # fascicles in fat
    values[[M.OTHER_CORTEX, M.HUMERUS_CORTEX, M.SCAPULA_CORTEX]] = of("cortical_bone")
    # Red marrow gives way to fat with age; trabeculae take their share of all of it.
    red = np.linspace(0, 1, MARROW_STEPS) * np.clip(1.3 - age / 120, 0.5, 1.1)
    red = np.clip(red, 0, 1)
    marrow = 0.93 * ((1 - red) * of("fatty_marrow") + red * of("vertebral_marrow"))
    values[M.OTHER_MARROW] = marrow[MARROW_STEPS // 2]
    for first in (M.HUMERUS_MARROW, M.SCAPULA_MARROW):
        values[first : first + MARROW_STEPS] = marrow
    return values


def _place(
    rng: np.random.Generator, config: BonesPhantomConfig, who: Shoulder, left: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Steps of the voxel axes (3, 3) and the centre of the picture, RAS mm from the humeral head.

    Axial slices hang from above the acromion.
    """
    protocol, s = config.protocol, who.scale
    height = config.n_slices * protocol.slice_pitch_mm
    lateral = -1.0 if left else 1.0
    if config.plane == "axial":
        axes = np.array([[0, 0, -1.0], [0, -1.0, 0], [-1.0, 0, 0]])  # columns I, P, L in RAS
        centre = np.array([-10 * s, -4 * s, who.radius + 22 * s - height / 2])
        turn = rotation(0, rng.normal(0, 3)) @ rotation(1, rng.normal(0, 3))
    else:
        axes = np.array([[0, 0, -1.0], [-1.0, 0, 0], [0, -1.0, 0]])  # columns P, I, L
        centre = np.array([-14 * s, -8 * s, who.radius + 38 - config.rows * protocol.pixel_mm / 2])
        plane = np.rad2deg(np.arctan2(who.scapula.axes[1, 0], who.scapula.axes[0, 0]))
        angle = np.clip(plane + rng.normal(0, 3), 10, 42)  # below 45: it stays coronal
        turn = rotation(2, lateral * angle) @ rotation(0, rng.normal(0, 2))
    centre = (centre + rng.normal(0, 2.5, 3)) * [lateral, 1, 1]
    steps = np.array([protocol.slice_pitch_mm, protocol.pixel_mm, protocol.pixel_mm])
    return turn @ axes * steps, centre


def _sample(
    who: Shoulder, grid: Grid, config: BonesPhantomConfig, values: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Signal with partial volume, float32, and mask of the voxels of `grid`."""
    structures = structure_of()
    signal = np.empty(grid.shape, np.float32)
    mask = np.empty(grid.shape, np.uint8)
    for slab in slabs(grid, config.supersample):
        part = grid.part((slab, slice(0, grid.shape[1]), slice(0, grid.shape[2])))
        labels = draw(who, fine(part, config.supersample))
        signal[slab] = render(labels, values, config.supersample)
        bones = [render(labels, structures == k, config.supersample) for k in (HUMERUS, SCAPULA)]
        mask[slab] = np.argmax([1 - bones[0] - bones[1], *bones], axis=0)
    for bone in (HUMERUS, SCAPULA):  # partial volume may cut a crumb off a thin plate
        pieces, n = ndimage.label(mask == bone, _SOLID)
        if n > 1:
            largest = 1 + int(np.bincount(pieces.ravel())[1:].argmax())
            mask[(pieces > 0) & (pieces != largest)] = 0
    return signal, mask


def _expose(
    rng: np.random.Generator,
    signal: np.ndarray,
    who: Shoulder,
    grid: Grid,
    config: BonesPhantomConfig,
    values: np.ndarray,
    snr: float,
) -> np.ndarray:
    """Point spread, texture, coil, shading, noise and gain: (S, H, W) int16."""
    signal = ndimage.gaussian_filter(signal, (0, 0.4, 0.4))
    # Trabeculae, fascicles and lobules: tissue is not uniform.
    texture = rng.standard_normal(signal.shape, dtype=np.float32)
    texture = ndimage.gaussian_filter1d(ndimage.gaussian_filter1d(texture, 0.6, 1), 0.6, 2)
    signal *= np.clip(1 + 0.10 * texture, 0, None)
    radius = rng.uniform(60, 140)
    for index in range(len(signal)):
        rows, cols = slice(0, grid.shape[1]), slice(0, grid.shape[2])
        part = grid.part((slice(index, index + 1), rows, cols))
        fascia, _ = body_surface(who, part.points())
        depth = np.clip(who.skin_fat_mm - fascia, 0, None)
        signal[index] *= surface_coil(depth[0], radius)
    signal *= bias_field(rng, signal.shape, config.bias)
    image = rician_noise(rng, signal, float(values[M.MUSCLE] / snr))
    gain = 10 ** rng.uniform(2.4, 3.4) / values[M.FAT]
    return np.clip(np.rint(image * gain), 0, 32767).astype(np.int16)
