"""Generated shoulders in Y-view with the exact supraspinatus fossa and Goutallier's grade.

The grade causes the image.  Goutallier et al. (Clin Orthop 1994;304:78-83) grade the muscle by eye:
0 no fat, 1 some fatty streaks, 2 less fat than muscle, 3 as much fat as muscle, 4 more fat than
muscle.  Each grade has its range of fat shares here, with a gap to the next one, so that a grade is
never in doubt (readers do doubt: their kappa is about .5).  The muscle also shrinks with the grade,
loosely, and fat takes its place in the fossa; its occupation ratio (Thomazeau et al., Acta Orthop
Scand 1996;67:264-8) falls from about .9 to about .5.

Everything else is independent of the grade: who the patient is, the fat within each other muscle
and under the skin, and the scanner.  A network that finds the grade has looked into the fossa.

A patient is drawn in streams of one seed: who they are, what each slice shows, and how it was seen.
Other images of the same patient cross the fossa a few millimetres apart, with the same grade.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from scipy import ndimage

from tfds_builders.phantoms.acquisition import (
    Protocol,
    bias_field,
    render,
    rician_noise,
    smooth_noise,
    surface_coil,
    tissue_signal,
)
from tfds_builders.phantoms.shoulder_anatomy import MUSCLES, SUPRASPINATUS, build_anatomy
from tfds_builders.phantoms.shoulder_drawing import Drawing, Grid, M, draw
from tfds_builders.phantoms.tissues import TISSUES

GRADES = 5
# Share of fat in the supraspinatus, lowest and highest, of Goutallier 0 to 4.
FAT_SHARE = ((0.0, 0.02), (0.05, 0.12), (0.17, 0.38), (0.44, 0.56), (0.62, 0.85))
OCCUPANCY = (0.90, 0.85, 0.77, 0.66, 0.53)  # mean; it varies by OCCUPANCY_SD
OCCUPANCY_SD = 0.05

_PATIENT, _IMAGE, _SCANNER, _SCAN = range(40, 44)

# Sagittal oblique turbo spin echo; muscle is the reference tissue of the noise.
Y_VIEW_T2 = Protocol("T2", 3800.0, 68.0, 0.8, 3.5, 4.0, snr=12.0)


@dataclass(frozen=True)
class ShoulderPhantomConfig:
    """What the scanner is like.

    Attributes:
      protocol: contrast and voxel size; TR, TE, field strength, noise and gain vary about it.
      rows, cols: matrix.
      supersample: fine samples per pixel along rows and columns.
      bias: standard deviation of the logarithm of the receive shading.
    """

    protocol: Protocol = Y_VIEW_T2
    rows: int = 192
    cols: int = 192
    supersample: int = 2
    bias: float = 0.10

    def __post_init__(self) -> None:
        if min(self.rows, self.cols, self.supersample) < 1:
            raise ValueError("rows, cols and supersample must be at least 1")
        if min(self.rows, self.cols) * self.protocol.pixel_mm < 110:
            raise ValueError("rows and cols times pixel_mm must reach 110 mm to hold a shoulder")


@dataclass(frozen=True, eq=False)
class ShoulderPhantom:
    """One image of one generated patient, axes slice (towards the left), head-feet, front-back.

    Attributes:
      image: (1, H, W) int16, scanner units (arbitrary, not negative).
      mask: (1, H, W) uint8; 1 in the supraspinatus fossa: the muscle and what replaced it.
      affine: (4, 4) float64, voxel index to RAS+ mm, oblique.
      grade: Goutallier 0 to 4.
      side: "left" or "right".
      sex: "F" or "M".
      age: years.
      field_strength_t: 1.5 or 3.
      fat_share: share of fat in each muscle in view.
      occupancy: area of the supraspinatus over that of the fossa.
    """

    image: np.ndarray
    mask: np.ndarray
    affine: np.ndarray
    grade: int
    side: str
    sex: str
    age: int
    field_strength_t: float
    fat_share: Mapping[str, float]
    occupancy: float


def shoulder_phantom(
    seed: int, grade: int, number: int = 0, config: ShoulderPhantomConfig | None = None
) -> ShoulderPhantom:
    """Generates one image of patient `seed`; equal arguments give equal bytes.

    Args:
      seed: patient, not negative.
      grade: Goutallier 0 to 4.
      number: of the image of this patient, not negative.
      config: see `ShoulderPhantomConfig`; its defaults if None.

    Raises:
      ValueError: no such grade.
    """
    if not 0 <= grade < GRADES:
        raise ValueError(f"grade is {grade}; Goutallier's run from 0 to {GRADES - 1}")
    config = config or ShoulderPhantomConfig()
    patient = np.random.default_rng((seed, _PATIENT))
    image = np.random.default_rng((seed, _IMAGE, number))
    male, left = (bool(v) for v in patient.random(2) < 0.5)
    age = int(np.clip(round(patient.normal(57, 12)), 20, 88))
    skin_fat_mm = float(np.clip(patient.lognormal(np.log(8), 0.4), 3, 22))
    shares = _fat_shares(patient, image, grade)
    occupancy = float(np.clip(patient.normal(OCCUPANCY[grade], OCCUPANCY_SD), 0.3, 0.95))
    occupancy = float(np.clip(occupancy + image.normal(0, 0.015), 0.3, 0.95))
    medial_mm = float(3.5 * number + image.uniform(-1.5, 1.5))
    anatomy = build_anatomy(patient, image, male, occupancy, medial_mm)
    grid = _grid(patient, config)
    drawing = draw(anatomy, grid, shares, skin_fat_mm, _streaks(image, grid))

    scanner = np.random.default_rng((seed, _SCANNER))
    protocol = _protocol(scanner, config.protocol)
    pixels = _scan(np.random.default_rng((seed, _SCAN, number)), drawing, protocol, config)
    factors = (1, config.supersample, config.supersample)
    mask = render(drawing.fossa[None].astype(np.uint8), np.array([0, 1]), factors) >= 0.5
    return ShoulderPhantom(
        image=pixels,
        mask=mask.astype(np.uint8),
        affine=_affine(scanner, config, left, medial_mm),
        grade=grade,
        side="left" if left else "right",
        sex="M" if male else "F",
        age=age,
        field_strength_t=protocol.field_strength_t,
        fat_share={k: v for k, v in drawing.fat.items() if not np.isnan(v)},
        occupancy=drawing.occupancy,
    )


def material_signals(protocol: Protocol) -> np.ndarray:
    """(materials,) noise-free signal of each material of the fine map."""

    def of(name: str) -> float:
        return tissue_signal(TISSUES[name], protocol)

    values = np.zeros(len(M))
    values[M.FAT] = of("fat")
    values[M.SKIN] = 0.75 * of("ligament") + 0.25 * of("fat")
    values[M.SEPTUM] = 0.5 * of("fat") + 0.5 * of("ligament")
    values[M.MUSCLE] = 0.98 * of("muscle") + 0.02 * of("fat")
    values[M.PERIMYSIUM] = 0.9 * of("muscle") + 0.1 * of("fat")
    values[M.STREAK] = 0.9 * of("fat") + 0.1 * of("muscle")  # fibres are left between the fat
    values[M.FASCIA] = 0.6 * of("ligament") + 0.4 * of("fat")  # thinner than a sample
    values[M.TENDON] = of("ligament")
    values[M.CORTEX] = of("cortical_bone")
    values[M.MARROW] = 0.7 * of("fatty_marrow") + 0.3 * of("vertebral_marrow")
    values[M.ARTERY] = of("flow_void")
    values[M.VEIN] = 0.5 * of("liver") + 0.4 * of("synovial_fluid")  # slow blood
    return values


def _fat_shares(
    patient: np.random.Generator, image: np.random.Generator, grade: int
) -> dict[str, float]:
    """The supraspinatus by its grade, every other muscle by chance, mostly little."""
    chances = patient.random(len(MUSCLES))
    shares = {name: 0.4 * float(u) ** 3 for name, u in zip(MUSCLES, chances, strict=True)}
    low, high = FAT_SHARE[grade]
    share = patient.uniform(low, high) + image.normal(0, 0.1 * (high - low))
    shares[SUPRASPINATUS] = float(np.clip(share, low, high))
    return shares


def _grid(rng: np.random.Generator, config: ShoulderPhantomConfig) -> Grid:
    """The fine grid; the Y lies a little above the middle of the image, as it is positioned."""
    pitch = config.protocol.pixel_mm / config.supersample
    middle = np.array([-2.0, 12.0]) + rng.normal(0, 4, 2)
    nx, ny = config.cols * config.supersample, config.rows * config.supersample
    x = middle[0] + (np.arange(nx) - (nx - 1) / 2) * pitch
    y = middle[1] + (np.arange(ny) - (ny - 1) / 2) * pitch
    return Grid(x, y)


def _streaks(rng: np.random.Generator, grid: Grid) -> np.ndarray:
    """Network of thin lines, lowest on the lines, some parts of a muscle before others."""
    shape = (grid.y.size, grid.x.size)
    height, width = shape[0] * grid.pitch, shape[1] * grid.pitch

    def noise(mm: float) -> np.ndarray:
        knots = [max(2, round(height / mm)), max(2, round(width / mm))]
        return smooth_noise(rng, shape, knots)

    return np.minimum(np.abs(noise(3.6)), 0.8 * np.abs(noise(2.4))) + 0.15 * noise(12.0)


def _protocol(rng: np.random.Generator, protocol: Protocol) -> Protocol:
    return replace(
        protocol,
        tr_ms=protocol.tr_ms * rng.uniform(0.75, 1.35),
        te_ms=protocol.te_ms * rng.uniform(0.75, 1.25),
        field_strength_t=float(rng.choice([1.5, 3.0])),
        snr=protocol.snr * rng.uniform(0.7, 1.5),
    )


def _scan(
    rng: np.random.Generator, drawing: Drawing, protocol: Protocol, config: ShoulderPhantomConfig
) -> np.ndarray:
    """Signal, texture, coil, shading, noise and gain: (1, H, W) int16."""
    values = material_signals(protocol)
    factors = (1, config.supersample, config.supersample)
    signal = render(drawing.labels[None], values, factors)
    shape = signal.shape
    # Fascicles and lobules: tissue is not uniform.
    texture = rng.standard_normal(shape, dtype=np.float32)
    texture = ndimage.gaussian_filter1d(ndimage.gaussian_filter1d(texture, 0.7, 1), 0.7, 2)
    # The point spread of the scanner, and streaks that do not run straight through the slice.
    signal = ndimage.gaussian_filter(signal, (0, 0.45, 0.45))
    signal *= np.clip(1 + 0.10 * texture, 0, None)
    body = render((drawing.labels != M.AIR)[None].astype(np.uint8), np.array([0, 1]), factors)
    depth = ndimage.distance_transform_edt(body[0] > 0.5) * protocol.pixel_mm
    coil = surface_coil(depth, rng.uniform(45, 130)).astype(np.float32)
    signal *= ndimage.gaussian_filter(coil, 4.0)
    signal *= bias_field(rng, shape, config.bias)
    image = rician_noise(rng, signal, float(values[M.MUSCLE] / protocol.snr))
    gain = 10 ** rng.uniform(2.4, 3.4) / values[M.FAT]
    return np.clip(np.rint(image * gain), 0, 32767).astype(np.int16)


def _affine(
    rng: np.random.Generator, config: ShoulderPhantomConfig, left: bool, medial_mm: float
) -> np.ndarray:
    """The plane across the scapula, whose normal points outwards and to the front."""
    protocol = config.protocol
    outwards = -1.0 if left else 1.0  # RAS: x grows to the right
    oblique, tilt = np.deg2rad([np.clip(rng.normal(32, 6), 15, 44), rng.normal(0, 3)])
    lateral = np.array([outwards * np.cos(oblique), np.sin(oblique), 0.0])
    back = np.array([outwards * np.sin(oblique), -np.cos(oblique), 0.0])
    down = np.array([0.0, 0.0, -1.0])
    down, back = (
        np.cos(tilt) * down + np.sin(tilt) * back,
        np.cos(tilt) * back - np.sin(tilt) * down,
    )
    steps = np.array([protocol.slice_pitch_mm, protocol.pixel_mm, protocol.pixel_mm])
    affine = np.eye(4)
    affine[:3, :3] = np.column_stack([lateral if left else -lateral, down, back]) * steps
    centre = np.array([outwards * 150, -20, 0]) + rng.normal(0, 15, 3) - medial_mm * lateral
    affine[:3, 3] = centre - affine[:3, :3] @ [0, (config.rows - 1) / 2, (config.cols - 1) / 2]
    return affine
