"""Generated lumbar spines with Modic changes: paired T1 and T2, each on its own grid.

Type 1 (oedema) is dark on T1 and bright on T2, type 2 (fat) bright on both, type 3 (sclerosis) dark
on both (Modic et al., Radiology 1988;166:193 and 168:177).  The signals follow from the tissues'
relaxation times.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from mskjax.imaging.geometry import shift_affine
from tfds_builders.phantoms.acquisition import SAGITTAL_T1
from tfds_builders.phantoms.spine import SpinePhantomConfig, spine_phantom

# The same field of view of 192 x 128 mm as the default T2, in finer pixels: equal bounds keep the
# anatomy of both series one and the same.
_T1 = SpinePhantomConfig(protocol=replace(SAGITTAL_T1, pixel_mm=1.6), rows=120, cols=80)


@dataclass(frozen=True, eq=False)
class ModicPhantom:
    """T1 and T2 of one generated patient.

    Attributes:
      t1, t2: int16, scanner units; (S, H, W) in (L, I, P) order, of different size.
      t1_affine, t2_affine: (4, 4) float64, voxel index to RAS+ mm; one space.
      mask: uint8 on T2's grid; 0 background, 1 vertebra, 2 disc, 3 spinal canal.
      disc_levels: uint8 on T2's grid; 0 none, 1 the lowest disc, counting upwards.
      gradings: as in `SpinePhantom`.
      sex: "F" or "M".
      age: years.
    """

    t1: np.ndarray
    t2: np.ndarray
    t1_affine: np.ndarray
    t2_affine: np.ndarray
    mask: np.ndarray
    disc_levels: np.ndarray
    gradings: list[dict[str, int]]
    sex: str
    age: int


def modic_phantom(seed: int, modic_type_shares: Sequence[float] = (1.0, 1.0, 1.0)) -> ModicPhantom:
    """Generates patient `seed`; equal arguments give equal bytes.

    Args:
      seed: patient number, not negative.
      modic_type_shares: (3,) relative frequency of types 1, 2 and 3 among discs with changes.
        About a third of the discs have changes, the more the more they have degenerated.
    """
    shares = tuple(modic_type_shares)
    t2 = spine_phantom(seed, SpinePhantomConfig(modic_type_shares=shares))
    t1 = spine_phantom(seed, replace(_T1, modic_type_shares=shares))
    # The phantom's origin is drawn for each series; the two fields of view are one by design.
    scale = np.array(t2.image.shape) / t1.image.shape
    affine = shift_affine(t2.affine, ((scale - 1) / 2).tolist())
    affine[:3, :3] *= scale
    return ModicPhantom(
        t1.image, t2.image, affine, t2.affine, t2.mask, t2.disc_levels, t2.gradings, t2.sex, t2.age
    )
