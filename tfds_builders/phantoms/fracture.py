"""Generated sagittal T1 and T2 of a spine with one collapsed vertebra, benign or malignant.

The spine is that of `spine`; one of its vertebrae has lost height, and its marrow, back wall, arch
and surroundings are what osteoporosis or a metastasis makes of them (`fracture_traits`).  Contrast
follows from the spin echo equation, so tumour and oedema are dark on T1 for the same reason.  T2
has its own grid, as in a clinic: other pixels, and a field of view that is moved a little.

The default is small: 9 slices of 124 x 96 voxels of 1.4 mm on T1 (174 x 134 mm, 4.4 mm apart).
"""

from dataclasses import dataclass, replace

import numpy as np

from tfds_builders.phantoms.acquisition import Protocol, render, tissue_signal
from tfds_builders.phantoms.fracture_drawing import (
    N_FRACTURE_MATERIALS,
    STEPS,
    F,
    collapse,
    draw_fractured_spine,
    position_noise,
)
from tfds_builders.phantoms.fracture_traits import Fracture, draw_fracture
from tfds_builders.phantoms.spine import expose, material_signals
from tfds_builders.phantoms.spine_anatomy import Column, back_wall, build_column
from tfds_builders.phantoms.spine_drawing import N_MATERIALS, Grid, M
from tfds_builders.phantoms.spine_grades import Disc, draw_discs
from tfds_builders.phantoms.tissues import TISSUES

_PATIENT, _FRACTURE, _PLACE, _NOISE, _T1, _T2 = range(6)

# SPIDER's counts of Pfirrmann grades and Modic types, as in `SpinePhantomConfig`; age raises them.
_GRADE_COUNTS = (286, 341, 418, 291, 184)
_MODIC_SHARES = (4, 503, 7)
# Fragility fractures are of old women; metastases come earlier and to both sexes (assumed).
_AGE = {False: (73.0, 9.0), True: (63.0, 11.0)}
_FEMALE = {False: 0.72, True: 0.50}


@dataclass(frozen=True)
class Series:
    """One of the two series.

    Attributes:
      protocol: contrast and voxel size; the scanner's TR, TE and receive gain vary about it.
      rows, cols: matrix of a slice.
      factors: fine samples per voxel, (slices, rows, columns).
    """

    protocol: Protocol
    rows: int
    cols: int
    factors: tuple[int, int, int] = (2, 2, 2)


@dataclass(frozen=True)
class FracturePhantomConfig:
    """What the scanner is like.

    Attributes:
      t1, t2: the two series; their slices have one pitch.
      n_slices: of both.
      shift_mm: largest offset of T2's field of view, (slices, rows, columns).
      bias: standard deviation of the logarithm of the receive shading.
    """

    t1: Series = Series(Protocol("T1", 550.0, 11.0, 1.4, 4.0, 4.4), 124, 96)
    t2: Series = Series(Protocol("T2", 3500.0, 100.0, 1.25, 4.0, 4.4), 148, 114)
    n_slices: int = 9
    shift_mm: tuple[float, float, float] = (0.8, 4.0, 3.0)
    bias: float = 0.15


@dataclass(frozen=True, eq=False)
class FracturePhantom:
    """The study of one generated patient; arrays in (L, I, P) order.

    Attributes:
      t1, t2: int16 (S, H, W), each on its own grid; scanner units (arbitrary, not negative).
      t1_affine, t2_affine: (4, 4) float64, voxel index to RAS+ mm; one patient, one space.
      mask: uint8 on T1's grid; 0 background, 1 other vertebrae, 2 the fractured body, 3 canal.
      slice: of T1, through the middle of the lesion.
      box: row0, col0, row1, col1 of the fractured body in that slice, half-open.
      fracture: what was drawn.
      sex: "F" or "M".
      age: years.
      field_strength_t: of the scanner.
    """

    t1: np.ndarray
    t2: np.ndarray
    t1_affine: np.ndarray
    t2_affine: np.ndarray
    mask: np.ndarray
    slice: int
    box: tuple[int, int, int, int]
    fracture: Fracture
    sex: str
    age: int
    field_strength_t: float


def fracture_phantom(
    seed: int, malignant: bool, config: FracturePhantomConfig | None = None
) -> FracturePhantom:
    """Generates patient `seed` with a fracture of one class; equal arguments give equal bytes.

    Args:
      seed: patient number, not negative.
      malignant: the class.
      config: see `FracturePhantomConfig`; the fast default if None.
    """
    config = config or FracturePhantomConfig()
    rng = np.random.default_rng((seed, _PATIENT))
    male = bool(rng.random() >= _FEMALE[malignant])
    mean, sd = _AGE[malignant]
    age = int(np.clip(round(mean + sd * rng.standard_normal()), 35, 95))
    discs = draw_discs(rng, age, _GRADE_COUNTS, _MODIC_SHARES, overlap=0.4)
    column = build_column(rng, discs, male, transitional=False)
    fracture = draw_fracture(np.random.default_rng((seed, _FRACTURE)), malignant)
    for lost in (fracture.collapse, *fracture.others):
        column = collapse(column, lost)

    t1_grid, t2_grid = _place(np.random.default_rng((seed, _PLACE)), config, column, fracture)
    noise = np.random.default_rng((seed, _NOISE))
    low, high = _extent(t1_grid, t2_grid)
    fields = [
        position_noise(noise, low, high, scale)
        for scale in ((9.0, 9.0, 7.0), (5.0, 1e3, 3.0), (6.0, 4.5, 4.5))
    ]
    labels, body = draw_fractured_spine(t1_grid, column, fracture, *fields)
    mask = _mask(labels, body, config.t1)
    centre = t1_grid.x.reshape(config.n_slices, -1).mean(axis=1)
    middle = int(np.abs(centre[1:-1] - fracture.x_mm).argmin()) + 1  # it has two neighbours
    origin = np.random.default_rng((seed, _PLACE, 1)).normal(0, 20, 3)  # of the patient, RAS mm
    t1 = _scan(seed, _T1, labels, discs, age, t1_grid, column, fracture, config)
    labels, _ = draw_fractured_spine(t2_grid, column, fracture, *fields)
    t2 = _scan(seed, _T2, labels, discs, age, t2_grid, column, fracture, config)
    return FracturePhantom(
        t1=t1,
        t2=t2,
        t1_affine=_affine(t1_grid, config.t1, origin),
        t2_affine=_affine(t2_grid, config.t2, origin),
        mask=mask,
        slice=middle,
        box=_box(mask[middle] == 2),
        fracture=fracture,
        sex="M" if male else "F",
        age=age,
        field_strength_t=config.t1.protocol.field_strength_t,
    )


def _place(
    rng: np.random.Generator, config: FracturePhantomConfig, column: Column, fracture: Fracture
) -> tuple[Grid, Grid]:
    """The fine grids of T1 and T2: the fracture somewhere about the middle of the picture."""
    body = column.bodies[fracture.collapse.body]
    height = config.t1.rows * config.t1.protocol.pixel_mm
    y = body.y + rng.uniform(-0.08, 0.08) * height
    wall, _ = back_wall(column, np.linspace(y - height / 2, y + height / 2, 64))
    centre = np.array([rng.normal(0, 1.0), y, float(wall.mean()) + rng.normal(-2, 2)])
    shift = rng.uniform(-1, 1, 3) * config.shift_mm
    return _grid(config, config.t1, centre), _grid(config, config.t2, centre + shift)


def _grid(config: FracturePhantomConfig, series: Series, centre: np.ndarray) -> Grid:
    protocol = series.protocol
    fs, fh, fw = series.factors

    def pixels(n: int, fine: int) -> np.ndarray:
        return ((np.arange(n * fine) + 0.5) / fine - n / 2) * protocol.pixel_mm

    within = ((np.arange(fs) + 0.5) / fs - 0.5) * protocol.slice_thickness_mm
    slices = (np.arange(config.n_slices) - (config.n_slices - 1) / 2) * protocol.slice_pitch_mm
    x = (slices[:, None] + within).ravel()
    axes = (x, pixels(series.rows, fh), pixels(series.cols, fw))
    moved = [(axis + at).astype(np.float32) for axis, at in zip(axes, centre, strict=True)]
    return Grid(*moved)


def _extent(*grids: Grid) -> tuple[list[float], list[float]]:
    axes = [[getattr(g, axis) for g in grids] for axis in "xyz"]
    low = [float(min(v[0] for v in values)) for values in axes]
    return low, [float(max(v[-1] for v in values)) for values in axes]


def _mask(labels: np.ndarray, body: np.ndarray, series: Series) -> np.ndarray:
    """The class that fills most of a voxel of T1."""
    kinds = np.zeros(N_FRACTURE_MATERIALS, np.uint8)
    kinds[[M.MARROW, M.CORTEX, M.MODIC1, M.MODIC2, M.MODIC3]] = 1
    kinds[F.LESION : F.LINE] = 1  # outside the fractured body: its arch, and other vertebrae
    kinds[[M.CSF, M.ROOTS, M.CORD]] = 3
    semantic = np.where(body, np.uint8(2), kinds[labels])
    one_hot = np.eye(4)
    shares = np.stack([render(semantic, one_hot[k], series.factors) for k in range(4)])
    return shares.argmax(axis=0).astype(np.uint8)


def _box(inside: np.ndarray) -> tuple[int, int, int, int]:
    rows, cols = np.flatnonzero(inside.any(axis=1)), np.flatnonzero(inside.any(axis=0))
    return int(rows[0]), int(cols[0]), int(rows[-1]) + 1, int(cols[-1]) + 1


def _scan(
    seed: int,
    stream: int,
    labels: np.ndarray,
    discs: list[Disc],
    age: float,
    grid: Grid,
    column: Column,
    fracture: Fracture,
    config: FracturePhantomConfig,
) -> np.ndarray:
    rng = np.random.default_rng((seed, stream))
    series = config.t1 if stream == _T1 else config.t2
    base = series.protocol
    protocol = replace(
        base, tr_ms=base.tr_ms * rng.uniform(0.85, 1.2), te_ms=base.te_ms * rng.uniform(0.88, 1.15)
    )
    values = _signals(protocol, discs, age, fracture)
    back = float(back_wall(column, grid.y)[0].mean()) + 65  # mm, about the skin
    depth = back - grid.z.reshape(-1, series.factors[2]).mean(axis=1)
    return expose(rng, labels, values, series.factors, depth, config.bias, base.snr)


def _signals(protocol: Protocol, discs: list[Disc], age: float, fracture: Fracture) -> np.ndarray:
    """(N_FRACTURE_MATERIALS,) signal of each material of the fine map."""
    values = np.zeros(N_FRACTURE_MATERIALS)
    values[:N_MATERIALS] = material_signals(protocol, discs, age)
    kind = "tumour" if fracture.malignant else "oedematous_marrow"
    tissue = replace(TISSUES[kind], t1_ms=fracture.lesion_t1_ms, t2_ms=fracture.lesion_t2_ms)
    lesion, mix = tissue_signal(tissue, protocol), np.linspace(0, 1, STEPS)
    marrow, fat = values[M.MARROW], tissue_signal(TISSUES["fatty_marrow"], protocol)
    values[F.LESION : F.LESION + STEPS] = (1 - mix) * marrow + mix * lesion
    values[F.FATTY : F.FATTY + STEPS] = (1 - mix) * marrow + mix * fat
    values[F.LINE] = tissue_signal(TISSUES["sclerotic_bone"], protocol)
    values[F.FLUID] = tissue_signal(TISSUES["csf"], protocol)
    values[F.MASS] = lesion
    return values


def _affine(grid: Grid, series: Series, origin: np.ndarray) -> np.ndarray:
    """Voxel index to RAS+ mm; (x, y, z) of the anatomy point to the left, the feet and the back."""
    fs, fh, fw = series.factors
    first = np.array([grid.x[:fs].mean(), grid.y[:fh].mean(), grid.z[:fw].mean()], np.float64)
    protocol = series.protocol
    axes = np.array([[-1.0, 0, 0], [0, 0, -1.0], [0, -1.0, 0]])
    affine = np.eye(4)
    affine[:3, :3] = axes * (protocol.slice_pitch_mm, protocol.pixel_mm, protocol.pixel_mm)
    affine[:3, 3] = origin + axes @ first
    return affine
