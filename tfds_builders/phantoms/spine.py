"""Generated sagittal lumbar spines with exact masks and grades.

A patient is drawn in three independent streams of one seed: who they are and how their spine is
built, how their discs have degenerated, and how the scanner saw them.  The grades cause the image:
a disc's degeneration sets its T2, hydration, homogeneity and height as Pfirrmann's radiologists
read them (Spine 2001;26:1873).  The same seed with another `Protocol` is another series of the same
patient, voxel for voxel.

The default is a study that trains in minutes on a CPU: 5 slices of 96 x 64 voxels of 2 mm (192 x
128 mm, 4 mm apart), which hold 5 or 6 discs, rarely 4 or 7; a healthy disc is 5 or 6 pixels high, a
collapsed one 2 to 4.  Rows can be added for more levels (30 to 37 mm each); `NATIVE_T2` has a
scanner's resolution.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy import ndimage

from tfds_builders.phantoms.acquisition import (
    SAGITTAL_T2,
    Protocol,
    bias_field,
    render,
    rician_noise,
    smooth_noise,
    surface_coil,
    tissue_signal,
)
from tfds_builders.phantoms.spine_anatomy import Column, back_wall, build_column
from tfds_builders.phantoms.spine_drawing import (
    DISC_STEPS,
    N_MATERIALS,
    Grid,
    M,
    draw_column,
    draw_surroundings,
)
from tfds_builders.phantoms.spine_grades import AGE_MEAN, AGE_SD, Disc, draw_discs
from tfds_builders.phantoms.tissues import TISSUES, nucleus

_PATIENT, _GRADES, _SCAN = range(3)


@dataclass(frozen=True)
class SpinePhantomConfig:
    """What the patients and the scanner are like.

    Attributes:
      protocol: contrast and voxel size; the scanner's TR, TE and receive gain vary about it.
      n_slices, rows, cols: matrix in canonical (L, I, P) order.
      supersample: fine samples per voxel, (slices, rows, columns).
      grade_counts: relative frequency of Pfirrmann I to V over levels 1 to 5; SPIDER's by default.
      modic_type_shares: relative frequency of Modic 1, 2 and 3 among discs with changes; SPIDER's.
      overlap: standard deviation of the image's degeneration about the reader's grade, in grades.
      transitional: probability of a partly sacralised L5: the lowest disc is rudimentary.
      bias: standard deviation of the logarithm of the receive shading.
      tilt_deg: standard deviation of the angles between the slices and the patient, which appear in
        the affine only.
      any_orientation: store the voxel axes in a random order and direction, as archives do, instead
        of (L, I, P).
    """

    protocol: Protocol = SAGITTAL_T2
    n_slices: int = 5
    rows: int = 96
    cols: int = 64
    supersample: tuple[int, int, int] = (2, 3, 3)
    grade_counts: tuple[float, ...] = (286, 341, 418, 291, 184)
    modic_type_shares: tuple[float, ...] = (4, 503, 7)
    overlap: float = 0.4
    transitional: float = 0.08
    bias: float = 0.15
    tilt_deg: float = 0.0
    any_orientation: bool = False

    def __post_init__(self) -> None:
        if min(self.n_slices, self.rows, self.cols, *self.supersample) < 1:
            raise ValueError("n_slices, rows, cols and supersample must be at least 1")
        height, width = self.rows * self.protocol.pixel_mm, self.cols * self.protocol.pixel_mm
        if height < 120 or width < 100:
            raise ValueError(
                f"a field of view of {height:g} x {width:g} mm does not hold a lumbar spine: "
                "rows and cols times pixel_mm must reach 120 and 100 mm"
            )
        if height > 340:
            raise ValueError(
                f"a field of view {height:g} mm high shows more than the levels drawn: 340 at most"
            )
        for name, n in (("grade_counts", 5), ("modic_type_shares", 3)):
            value = getattr(self, name)
            if len(value) != n or min(value) < 0 or sum(value) <= 0:
                raise ValueError(f"{name} needs {n} counts of which one is positive, got {value}")


# A clinical series.  The fine map is coarser per voxel: .55 mm voxels leave little to average.
NATIVE_T2 = SpinePhantomConfig(
    protocol=replace(SAGITTAL_T2, pixel_mm=0.55, snr=18.0),
    n_slices=15,
    rows=512,
    cols=512,
    supersample=(2, 1, 1),
)


@dataclass(frozen=True, eq=False)
class SpinePhantom:
    """One study of one generated patient.

    Attributes:
      image: int16, scanner units (arbitrary, not negative); (S, H, W) in (L, I, P) order unless
        the config asks for another.
      mask: uint8 of the image's shape; 0 background, 1 vertebra, 2 disc, 3 spinal canal.
      disc_levels: uint8 of the image's shape; 0 none, 1 the lowest disc, counting upwards.
      affine: (4, 4) float64, voxel index to RAS+ mm.
      gradings: one dict per disc in view, the lowest first: `level`, `pfirrmann` 1 to 5, `modic`
        0 to 3, and 0 or 1 for `narrowing`, `bulging`, `herniation`, `spondylolisthesis` (of the
        vertebra above), `upper_endplate` and `lower_endplate` (changes above and below the disc).
      sex: "F" or "M".
      age: years.
      transitional: whether the lowest disc is rudimentary.
    """

    image: np.ndarray
    mask: np.ndarray
    disc_levels: np.ndarray
    affine: np.ndarray
    gradings: list[dict[str, int]]
    sex: str
    age: int
    transitional: bool


def spine_phantom(seed: int, config: SpinePhantomConfig | None = None) -> SpinePhantom:
    """Generates patient `seed`; equal arguments give equal bytes.

    Args:
      seed: patient number, not negative.
      config: see `SpinePhantomConfig`; the fast default if None.
    """
    config = config or SpinePhantomConfig()
    rng = np.random.default_rng((seed, _PATIENT))
    male = bool(rng.random() < 0.45)
    age = int(np.clip(round(rng.normal(AGE_MEAN, AGE_SD)), 18, 88))
    transitional = bool(rng.random() < config.transitional)
    discs = draw_discs(
        np.random.default_rng((seed, _GRADES)),
        age,
        config.grade_counts,
        config.modic_type_shares,
        config.overlap,
    )
    column = build_column(rng, discs, male, transitional)
    grid = _place(rng, config, column)
    labels = _draw(rng, grid, column)
    mask, disc_levels = _masks(labels, config.supersample)

    scan = np.random.default_rng((seed, _SCAN))
    image = _scan(scan, labels, discs, age, grid, column, config)
    affine = _affine(scan, config)
    if config.any_orientation:
        (image, mask, disc_levels), affine = _reorient(scan, (image, mask, disc_levels), affine)
    seen = set(np.unique(disc_levels).tolist())
    gradings = [d.grading() for d in discs if d.level in seen]
    return SpinePhantom(
        image, mask, disc_levels, affine, gradings, "M" if male else "F", age, transitional
    )


def _place(rng: np.random.Generator, config: SpinePhantomConfig, column: Column) -> Grid:
    """The fine grid, placed so that the upper edge crosses a vertebra and cuts no disc in two."""
    protocol = config.protocol
    height, width = config.rows * protocol.pixel_mm, config.cols * protocol.pixel_mm
    bottom = rng.uniform(26, 36)  # of S1's endplate above the lower edge
    top = bottom - height
    # The body whose centre is nearest to the edge, and the edge brought to its middle.
    centres = np.array([b.y for b in column.bodies])
    body = column.bodies[int(np.argmin(np.abs(centres - top)))]
    top = float(np.clip(top, body.y - 2.5, body.y + 2.5))
    fs, fh, fw = config.supersample
    y = top + (np.arange(config.rows * fh) + 0.5) * protocol.pixel_mm / fh
    wall, _ = back_wall(column, y)
    # The back of the bodies lies behind the middle: the spine is what is looked at.
    centre = float(np.mean(wall[y < 0])) + rng.normal(-2, 2)
    front = centre - 0.50 * width
    z = front + (np.arange(config.cols * fw) + 0.5) * protocol.pixel_mm / fw
    within = ((np.arange(fs) + 0.5) / fs - 0.5) * protocol.slice_thickness_mm
    slices = (np.arange(config.n_slices) - (config.n_slices - 1) / 2) * protocol.slice_pitch_mm
    x = (slices[:, None] + within).ravel() + rng.normal(0, 1.0)  # not quite the midline
    return Grid(x.astype(np.float32), y.astype(np.float32), z.astype(np.float32))


def _draw(rng: np.random.Generator, grid: Grid, column: Column) -> np.ndarray:
    shape = (grid.x.size, grid.y.size, grid.z.size)
    extent = [np.ptp(v) for v in (grid.x, grid.y, grid.z)]
    knots = [max(2, round(float(e) / mm)) for e, mm in zip(extent, (9, 9, 7), strict=True)]
    blobs = smooth_noise(rng, shape, knots)
    strands = smooth_noise(rng, (shape[0], shape[2]), (knots[0] + 2, max(4, round(extent[2] / 3))))
    labels = np.empty(shape, np.uint8)
    draw_surroundings(labels, grid, column, blobs, strands)
    draw_column(labels, grid, column)
    return labels


def _masks(labels: np.ndarray, factors: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
    """Semantic mask and levels: the class that fills most of a voxel; one piece per disc.

    A disc that the upper edge cuts is left out: no reader would grade it.
    """
    semantic = np.zeros(N_MATERIALS, np.uint8)
    semantic[[M.MARROW, M.CORTEX, M.MODIC1, M.MODIC2, M.MODIC3]] = 1
    semantic[M.DISC0 :] = 2
    semantic[[M.CSF, M.ROOTS, M.CORD]] = 3
    shares = np.stack([render(labels, semantic == c, factors) for c in range(4)])
    mask = shares.argmax(axis=0).astype(np.uint8)

    level = np.zeros(N_MATERIALS, np.float32)
    level[M.DISC0 :] = 1 + np.arange(N_MATERIALS - M.DISC0) // DISC_STEPS
    # No voxel holds two discs, so the mean level over its disc part is that disc's.
    mean = render(labels, level, factors) / np.maximum(shares[2], 1e-6)
    levels = np.where(mask == 2, np.rint(mean), 0).astype(np.uint8)
    cut = levels[:, 0].max()
    for k in np.unique(levels[levels > 0]):
        pieces, n = ndimage.label(levels == k)
        # Only the largest piece: a thin rim may lose a crumb of a few fine samples.
        sizes = np.bincount(pieces.ravel(), minlength=n + 1)[1:]
        keep = -1 if k == cut else 1 + int(sizes.argmax())
        drop = (pieces > 0) & (pieces != keep)
        levels[drop] = 0
        mask[drop] = 0
    return mask, levels


def material_signals(protocol: Protocol, discs: Sequence[Disc], age: float) -> np.ndarray:
    """(N_MATERIALS,) signal of each material of the fine map in a patient of `age` years."""

    def of(name: str) -> float:
        return tissue_signal(TISSUES[name], protocol)

    # Red marrow gives way to fat with age; the table's marrow is that of middle age.
    fatty = np.clip((age - AGE_MEAN) / 100, -0.2, 0.35)
    marrow = (1 - fatty) * of("vertebral_marrow") + fatty * of("fatty_marrow")
    values = np.zeros(N_MATERIALS)
    values[[M.FAT, M.SKIN_FAT]] = of("fat")
    values[M.MUSCLE] = 0.88 * of("muscle") + 0.12 * of("fat")  # fat between the fascicles
    values[M.LIGAMENT] = of("ligament")
    values[M.BOWEL] = of("bowel")
    values[M.VESSEL] = of("flow_void")
    values[[M.MARROW, M.SACRAL_MARROW]] = marrow
    values[[M.CORTEX, M.SACRAL_CORTEX]] = of("cortical_bone")
    values[M.SACRAL_DISC] = of("annulus")
    values[M.MODIC1] = of("oedematous_marrow")
    values[M.MODIC2] = 0.4 * marrow + 0.6 * of("fatty_marrow")
    values[M.MODIC3] = of("sclerotic_bone")
    values[M.CSF] = of("csf")
    values[M.ROOTS] = 0.6 * of("spinal_cord") + 0.4 * of("csf")  # thin roots bathed in CSF
    values[M.CORD] = of("spinal_cord")
    mix = np.linspace(0, 1, DISC_STEPS)
    for disc in discs:
        core = tissue_signal(nucleus(disc.degeneration), protocol)
        first = M.DISC0 + DISC_STEPS * (disc.level - 1)
        values[first : first + DISC_STEPS] = (1 - mix) * of("annulus") + mix * core
    return values


def _scan(
    rng: np.random.Generator,
    labels: np.ndarray,
    discs: Sequence[Disc],
    age: float,
    grid: Grid,
    column: Column,
    config: SpinePhantomConfig,
) -> np.ndarray:
    base = config.protocol
    protocol = replace(
        base, tr_ms=base.tr_ms * rng.uniform(0.85, 1.2), te_ms=base.te_ms * rng.uniform(0.88, 1.15)
    )
    values = material_signals(protocol, discs, age)
    # The spine coil lies under the back; what the scanner's normalisation leaves of its falloff.
    back = float(back_wall(column, grid.y)[0].mean()) + 65  # mm, about the skin
    depth = back - grid.z.reshape(-1, config.supersample[2]).mean(axis=1)
    return expose(rng, labels, values, config.supersample, depth, config.bias, base.snr)


def expose(
    rng: np.random.Generator,
    labels: np.ndarray,
    values: np.ndarray,
    factors: Sequence[int],
    depth_mm: np.ndarray,
    bias: float,
    snr: float,
) -> np.ndarray:
    """What the scanner stores of a fine map: partial volume, texture, shading, noise and gain.

    Args:
      rng: source of randomness.
      labels: (S*fs, H*fh, W*fw) uint8 materials.
      values: (n,) signal of each material.
      factors: (fs, fh, fw) fine samples per voxel.
      depth_mm: (W,) distance of the columns from the spine coil.
      bias: standard deviation of the logarithm of the receive shading.
      snr: signal of marrow over the noise of one channel.

    Returns:
      (S, H, W) int16, scanner units (arbitrary, not negative).
    """
    signal = render(labels, values, factors)
    shape = signal.shape
    # Trabeculae, fascicles and lobules: tissue is not uniform.
    texture = rng.standard_normal(shape, dtype=np.float32)
    texture = ndimage.gaussian_filter1d(ndimage.gaussian_filter1d(texture, 0.6, 1), 0.6, 2)
    signal *= np.clip(1 + 0.10 * texture, 0, None)
    signal *= surface_coil(depth_mm, rng.uniform(110, 260)).astype(np.float32)
    signal *= bias_field(rng, shape, bias)
    image = rician_noise(rng, signal, float(values[M.MARROW] / snr))
    gain = 10 ** rng.uniform(2.4, 3.4) / values[M.MARROW]
    return np.clip(np.rint(image * gain), 0, 32767).astype(np.int16)


def _affine(rng: np.random.Generator, config: SpinePhantomConfig) -> np.ndarray:
    protocol = config.protocol
    axes = np.array([[-1.0, 0, 0], [0, 0, -1.0], [0, -1.0, 0]])  # columns L, I, P in RAS
    steps = np.array([protocol.slice_pitch_mm, protocol.pixel_mm, protocol.pixel_mm])
    angles = np.deg2rad(config.tilt_deg) * rng.standard_normal(3)
    cx, cy, cz = np.cos(angles)
    sx, sy, sz = np.sin(angles)
    tilt = (
        np.array([[1, 0, 0], [0, cx, -sx], [0, sx, cx]])
        @ np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
        @ np.array([[cz, -sz, 0], [sz, cz, 0], [0, 0, 1]])
    )
    affine = np.eye(4)
    affine[:3, :3] = tilt @ axes * steps
    centre = (np.array([config.n_slices, config.rows, config.cols]) - 1) / 2
    affine[:3, 3] = rng.normal(0, 20, 3) - affine[:3, :3] @ centre
    return affine


def _reorient(
    rng: np.random.Generator, arrays: Sequence[np.ndarray], affine: np.ndarray
) -> tuple[list[np.ndarray], np.ndarray]:
    """Stores the axes in a random order and direction; every voxel keeps its place in space."""
    order = rng.permutation(3)
    flips = [int(axis) for axis in range(3) if rng.random() < 0.5]
    moved = [np.ascontiguousarray(np.flip(a.transpose(order), tuple(flips))) for a in arrays]
    index = np.zeros((4, 4))  # stored index -> canonical index
    index[3, 3] = 1
    for new, old in enumerate(order):
        index[old, new] = -1 if new in flips else 1
        index[old, 3] = moved[0].shape[new] - 1 if new in flips else 0
    return moved, affine @ index
