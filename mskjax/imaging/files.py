"""Reading and writing volumes: the one door to NIfTI, MetaImage, PNG and DICOM."""

import os
import tempfile
from collections.abc import Callable, Collection
from pathlib import Path

import numpy as np

from mskjax.errors import UserError
from mskjax.imaging import masks
from mskjax.imaging.dicom import read_dicom
from mskjax.imaging.dicom_file import is_dicom
from mskjax.imaging.grids import is_usable
from mskjax.imaging.limits import damaged, reading
from mskjax.imaging.metaimage import read_metaimage, write_metaimage
from mskjax.imaging.nifti import read_nifti, write_nifti
from mskjax.imaging.png import read_png, write_png
from mskjax.imaging.series import Series
from mskjax.imaging.volume import Grid, Volume


def read_volume(
    path: str | Path | Series,
    *,
    spacing: tuple[float, float] | None = None,
    stored: bool = False,
) -> Volume:
    """Reads one scalar volume.

    Nothing is read of a file whose header declares more voxels than `limits.MOST_VOXELS`, or more
    than the file can hold.

    Args:
      path: ``.nii``, ``.nii.gz``, ``.mha``, ``.mhd``, ``.png``, a DICOM file or folder, or the
        list of a DICOM series' files.
      spacing: (row, column) pitch of a PNG, mm; 1 mm by default.  Other formats say it themselves.
      stored: the numbers that are stored, as a mask needs them, instead of the grey levels that a
        viewer shows: indices of a palette, 2- and 4-bit numbers, DICOM without inversion and
        rescaling.  Scale factors of NIfTI are applied all the same.

    Returns:
      The volume as stored: axes are not reordered.  Scale factors are applied; without any the
      stored integer dtype is kept.  A PNG is one sagittal slice, (1, H, W) with axes L, I, P.
      ``meta["files"]`` names the files that were read, ``meta["grid"]`` is the grid as stored; both
      stay with the volume however it is turned.

    Raises:
      UserError: the file is missing, damaged, of another kind, too large, not three-dimensional,
        of a voxel size that no scanner makes, or holds NaN or infinite voxels.
    """
    if isinstance(path, Series):
        volume = read_dicom(path, stored=stored)
        _check(volume, path.where)
        return volume
    path = Path(path)
    with reading(path):
        if not path.exists():
            raise UserError(f"{path}: no such file or folder; check the path.")
        volume = _read(path, spacing, stored)
        volume.meta.setdefault("files", (str(path),))
        _check(volume, path)
        return volume


def write_volume(path: str | Path, volume: Volume) -> None:
    """Writes one volume; the file appears under its name only once it is whole.

    Args:
      path: ``.nii``, ``.nii.gz``, ``.mha`` or ``.png``; the folder is made where missing.
      volume: bool is stored as uint8 and 64-bit integers as int32.  A PNG takes one sagittal
        slice of uint8 or uint16.
    """
    path = Path(path)
    suffix = next((s for s in _WRITERS if path.name.lower().endswith(s)), None)
    if suffix is None:
        raise UserError(f"{path}: cannot write this format; name it .nii.gz, .mha or .png.")
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, part = tempfile.mkstemp(suffix, f".{path.name}.", path.parent)
    os.close(handle)
    try:
        _WRITERS[suffix](Path(part), Volume(_storable(volume.data), volume.affine))
        umask = os.umask(0)
        os.umask(umask)
        os.chmod(part, 0o666 & ~umask)  # mkstemp made it private
        os.replace(part, path)
    except BaseException:
        Path(part).unlink(missing_ok=True)
        raise


def read_mask(path: str | Path, reference: Volume, labels: Collection[int] | None = None) -> Volume:
    """Reads the label mask of an image.

    Args:
      path: any format of ``read_volume``; the stored numbers count.
      reference: the image; a mask of the same grid stored with other axis order or direction is
        turned to match it.  Headers may differ by up to a tenth of a voxel.
      labels: allowed labels besides 0; any by default.  Where there is just one, a mask of 0 and
        255, as programs for pictures save it, is taken as that.

    Returns:
      The mask on exactly the grid of ``reference``; uint8, or the smallest integer that fits.

    Raises:
      UserError: as ``read_volume``; mask and image are the same; the grid is another one; a value
        is more than 1e-3 away from a whole number, or not in ``labels``.
    """
    path = Path(path)
    sagittal = reference.spacing[1:] if len(reference.data) == 1 else (1.0, 1.0)
    spacing = float(sagittal[0]), float(sagittal[1])
    mask = read_volume(path, spacing=spacing, stored=True)
    with reading(path):
        mask = masks.fitted(path, mask, reference)
        masks.check_differs(path, mask, reference)
        data = masks.label_values(path, mask.data, labels)
        return Volume(data, reference.affine, dict(reference.meta))


def _read(path: Path, spacing: tuple[float, float] | None, stored: bool) -> Volume:
    name = path.name.lower()
    if path.is_dir():
        return read_dicom(path, stored=stored)
    if not path.is_file():
        raise UserError(f"{path}: is neither a file nor a folder; check the path.")
    if not path.stat().st_size:
        raise damaged(path, "it is empty, 0 bytes")
    if name.endswith((".nii", ".nii.gz")):
        return read_nifti(path)
    if name.endswith((".mha", ".mhd")):
        return read_metaimage(path)
    if name.endswith(".png"):
        return read_png(path, spacing, stored)
    if name.endswith((".dcm", ".ima")) or is_dicom(path):
        return read_dicom(path, stored=stored)
    raise UserError(
        f"{path}: not a format this program reads; give .nii, .nii.gz, .mha, .mhd, .png, or a "
        "DICOM file or folder."
    )


def _check(volume: Volume, path: Path) -> None:
    volume.meta["grid"] = Grid(volume.data.shape, volume.affine)
    if 0 in volume.data.shape:
        raise UserError(f"{path}: holds no voxels (shape {volume.data.shape}).")
    if not is_usable(volume.affine):
        raise UserError(
            f"{path}: its affine does not place the voxels in space (it is singular or not "
            "finite); write the file again with a valid orientation."
        )
    if np.issubdtype(volume.data.dtype, np.floating):
        bad = int(volume.data.size - np.count_nonzero(np.isfinite(volume.data)))
        if bad:
            raise UserError(
                f"{path}: {bad} of {volume.data.size} voxels are NaN or infinite; replace them."
            )


def _storable(data: np.ndarray) -> np.ndarray:
    if data.dtype == bool:
        return data.astype(np.uint8)
    if data.dtype in (np.int64, np.uint64):
        limits = np.iinfo(np.int32)
        if data.size and (data.min() < limits.min or data.max() > limits.max):
            raise ValueError("64-bit values do not fit int32")
        return data.astype(np.int32)
    if data.dtype == np.float16:
        return data.astype(np.float32)
    return data


_WRITERS: dict[str, Callable[[Path, Volume], None]] = {
    ".nii.gz": write_nifti,
    ".nii": write_nifti,
    ".mha": write_metaimage,
    ".png": write_png,
}
