"""What a scanner makes of a piece of anatomy: contrast, partial volume, shading and noise.

Knows nothing of any organ.  A phantom draws a fine map of labels, gives each label a signal with
`tissue_signal`, and passes the map through `render`, a shading and `rician_noise`.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.interpolate import make_interp_spline

from tfds_builders.phantoms.tissues import Tissue


@dataclass(frozen=True)
class Protocol:
    """A 2-D multi-slice spin echo series.

    Attributes:
      weighting: "T1" or "T2", for the reader; contrast follows from `tr_ms` and `te_ms`.
      tr_ms, te_ms: repetition and (effective) echo time, ms.
      pixel_mm: in-plane voxel size, mm (square).
      slice_thickness_mm: excited thickness, mm.
      slice_pitch_mm: distance between slice centres, mm; not below the thickness.
      field_strength_t: 1.5 or 3.0.
      snr: mean signal of the reference tissue over the noise's standard deviation per channel.
    """

    weighting: str
    tr_ms: float
    te_ms: float
    pixel_mm: float
    slice_thickness_mm: float
    slice_pitch_mm: float
    field_strength_t: float = 1.5
    snr: float = 25.0

    def __post_init__(self) -> None:
        for name in ("tr_ms", "te_ms", "pixel_mm", "slice_thickness_mm", "snr"):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name} must be positive, got {getattr(self, name)}")
        if self.slice_pitch_mm < self.slice_thickness_mm:
            raise ValueError(
                f"slices overlap: pitch {self.slice_pitch_mm} mm is below their thickness "
                f"{self.slice_thickness_mm} mm"
            )


# Echo and repetition times within the range of the lumbar series of SPIDER (Sci Data 11:264); the
# coarse 2 mm pixels are ours, for phantoms that train in minutes on a CPU.
SAGITTAL_T2 = Protocol("T2", 3500.0, 100.0, 2.0, 3.5, 4.0)
SAGITTAL_T1 = Protocol("T1", 550.0, 11.0, 2.0, 3.5, 4.0)


def spin_echo_signal(
    pd: np.ndarray | float,
    t1: np.ndarray | float,
    t2: np.ndarray | float,
    tr_ms: float,
    te_ms: float,
) -> np.ndarray:
    """Steady-state spin echo signal, ``PD (1 - exp(-TR/T1)) exp(-TE/T2)`` (TE << TR).

    Args:
      pd: relative proton density.
      t1: longitudinal relaxation time, ms, broadcast against `pd`.
      t2: transverse relaxation time, ms, broadcast against `pd`.
      tr_ms: repetition time, ms.
      te_ms: echo time, ms.

    Returns:
      Float array of the broadcast shape, in units of `pd`.
    """
    return np.asarray(pd) * -np.expm1(-tr_ms / np.asarray(t1)) * np.exp(-te_ms / np.asarray(t2))


def tissue_signal(tissue: Tissue, protocol: Protocol) -> float:
    """Noise-free signal of a voxel filled with `tissue`."""
    t1, t2 = tissue.relaxation(protocol.field_strength_t)
    return float(spin_echo_signal(tissue.pd, t1, t2, protocol.tr_ms, protocol.te_ms))


def render(labels: np.ndarray, values: np.ndarray, factors: Sequence[int]) -> np.ndarray:
    """Mean over each voxel of the value its fine labels stand for: partial volume.

    Args:
      labels: (S*fs, H*fh, W*fw) unsigned integer, the anatomy on a fine grid.
      values: (n,) value of each label, e.g. its signal, or 1 and 0 for the fraction of one tissue.
      factors: (fs, fh, fw) fine samples per voxel along each axis.

    Returns:
      (S, H, W) float32.

    Raises:
      ValueError: a factor does not divide its axis.
    """
    fs, fh, fw = factors
    if any(n % f for n, f in zip(labels.shape, (fs, fh, fw), strict=True)):
        raise ValueError(f"factors {tuple(factors)} do not divide the label map {labels.shape}")
    S, H, W = (n // f for n, f in zip(labels.shape, (fs, fh, fw), strict=True))
    table = np.asarray(values, np.float32)
    out = np.empty((S, H, W), np.float32)
    for s in range(S):  # slice by slice: at native size the fine map of floats would fill memory
        fine = table[labels[s * fs : (s + 1) * fs]]
        rows = fine.sum(axis=0).reshape(H, fh, W * fw).sum(axis=1)
        out[s] = rows.reshape(H, W, fw).sum(axis=2)
    out /= fs * fh * fw
    return out


def smooth_noise(
    rng: np.random.Generator, shape: Sequence[int], knots: Sequence[int]
) -> np.ndarray:
    """Random field that varies on the scale of ``shape / knots``.

    Args:
      rng: source of randomness.
      shape: output shape.
      knots: number of independent standard normal values along each axis; cubic splines run between
        them (lower order where fewer than four).

    Returns:
      float32 array of `shape`, mean about 0 and standard deviation below about 1.
    """
    field = rng.standard_normal(tuple(knots))
    for axis, (n, k) in enumerate(zip(shape, knots, strict=True)):
        spline = make_interp_spline(np.arange(k), np.eye(k), k=min(3, k - 1))
        weights = spline(np.linspace(0, k - 1, n)).astype(np.float32)  # (n, k)
        field = np.moveaxis(np.tensordot(weights, field, axes=(1, axis)), 0, axis)
    return np.ascontiguousarray(field, np.float32)


def bias_field(rng: np.random.Generator, shape: Sequence[int], strength: float) -> np.ndarray:
    """Smooth multiplicative receive shading.

    The logarithm is a random polynomial of degree 2 in normalised coordinates, scaled to the
    standard deviation `strength` over the volume.

    Args:
      rng: source of randomness.
      shape: (S, H, W).
      strength: standard deviation of the log; 0 gives ones, .2 is a visible shading.

    Returns:
      float32 array of `shape`, positive, geometric mean 1.
    """
    s, h, w = np.meshgrid(
        *(np.linspace(-1, 1, n, dtype=np.float32) if n > 1 else np.zeros(1, np.float32)
          for n in shape),
        indexing="ij",
        sparse=True,
    )  # fmt: skip
    c = rng.standard_normal(9).astype(np.float32)
    log = c[0] * s + c[1] * h + c[2] * w + c[3] * s * h + c[4] * s * w + c[5] * h * w
    log = log + c[6] * s**2 + c[7] * h**2 + c[8] * w**2
    log -= log.mean()
    return np.exp(strength * log / max(float(log.std()), 1e-6)).astype(np.float32)


def surface_coil(distance_mm: np.ndarray, radius_mm: float) -> np.ndarray:
    """Sensitivity on the axis of a loop coil, ``(1 + (d/R)^2)^(-3/2)`` (Biot-Savart).

    Args:
      distance_mm: distance from the loop's plane, mm.
      radius_mm: the loop's radius, mm; large radii shade less.
    """
    return (1 + (np.asarray(distance_mm) / radius_mm) ** 2) ** -1.5


def rician_noise(rng: np.random.Generator, signal: np.ndarray, sigma: float) -> np.ndarray:
    """Magnitude of a complex signal with Gaussian noise in each channel (Rice distribution).

    In air the mean is ``sigma sqrt(pi/2)`` (Gudbjartsson and Patz, Magn Reson Med 1995;34:910).

    Args:
      rng: source of randomness.
      signal: noise-free magnitude, not negative.
      sigma: standard deviation of the real and of the imaginary channel, in units of `signal`.

    Returns:
      float32 array of the signal's shape.
    """
    noise = rng.standard_normal((2, *signal.shape), dtype=np.float32) * np.float32(sigma)
    return np.hypot(signal.astype(np.float32) + noise[0], noise[1])
