"""A small spine of four discs and writers that do not go through the code under test."""

import csv

import nibabel as nib
import numpy as np
import SimpleITK as sitk  # noqa: N813

SHAPE = (3, 48, 24)
AFFINE = np.array(  # axes L, I, P; 4 x 2 x 1.5 mm
    [[-4.0, 0, 0, 10], [0, 0, -1.5, 20], [0, -2.0, 0, 30], [0, 0, 0, 1]]
)
DISCS = 4
GRADINGS_HEADER = [
    "Patient", "IVD label", "Modic", "UP endplate", "LOW endplate", "Spondylolisthesis",
    "Disc herniation", "Disc narrowing", "Disc bulging", "Pfirrman grade",
]  # fmt: skip


def instances():
    """SPIDER labels on the canonical grid: vertebrae 1-4, 105 partly visible, discs 201-204."""
    labels = np.zeros(SHAPE, np.int16)
    bottom = 46
    for k in range(1, DISCS + 1):
        labels[:, bottom - 3 : bottom, 4:16] = 200 + k
        labels[:, bottom - 10 : bottom - 3, 4:16] = k
        bottom -= 10
    labels[:, :bottom, 4:16] = 105
    labels[:, :, 18:21] = 100
    return labels


def semantic():
    """The same spine as 0 background, 1 vertebra, 2 disc, 3 canal."""
    labels = instances()
    mask = np.where((labels > 0) & (labels < 100) | (labels == 105), 1, 0)
    return np.where(labels > 200, 2, np.where(labels == 100, 3, mask)).astype(np.uint8)


def image(seed=0):
    return np.random.default_rng(seed).integers(0, 900, SHAPE).astype(np.int16)


def stored(data, order=(0, 1, 2), flips=(False, False, False)):
    """The canonical array as a scanner may store it: axes permuted, then some reversed."""
    step = np.eye(4)[:, [*order, 3]]
    out = data.transpose(order)
    for axis, flip in enumerate(flips):
        if flip:
            reverse = np.eye(4)
            reverse[axis, axis], reverse[axis, 3] = -1, out.shape[axis] - 1
            out, step = np.flip(out, axis), step @ reverse
    return out, AFFINE @ step


def write_mha(path, data, affine):
    path.parent.mkdir(parents=True, exist_ok=True)
    lps = np.diag([-1.0, -1, 1, 1]) @ affine
    spacing = np.linalg.norm(lps[:3, :3], axis=0)
    written = sitk.GetImageFromArray(np.ascontiguousarray(data.transpose(2, 1, 0)))
    written.SetSpacing(spacing.tolist())
    written.SetDirection((lps[:3, :3] / spacing).ravel().tolist())
    written.SetOrigin(lps[:3, 3].tolist())
    sitk.WriteImage(written, str(path))


def write_nifti(path, data, affine=AFFINE):
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(data, affine), path)


def write_csv(path, header, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(header)
        writer.writerows(rows)


def pfirrmann_rows(patient, grades):
    """Rows of SPIDER's table: level 1 upwards, everything else 0."""
    return [[patient, k, 0, 0, 0, 0, 0, 0, 0, g] for k, g in enumerate(grades, start=1)]
