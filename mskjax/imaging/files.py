"""Reading and writing volumes: NIfTI, MetaImage, PNG, and DICOM by way of ``dicom.py``."""

import os
import tempfile
import zlib
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import SimpleITK as sitk  # noqa: N813
from PIL import Image

from mskjax.errors import UserError
from mskjax.imaging import geometry
from mskjax.imaging.dicom import read_dicom
from mskjax.imaging.volume import Volume

_LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])
# Corners of equal grids agree to this: rounded headers differ by less, real shifts by far more.
_GRID_TOLERANCE_MM = 1e-2
_GREY_MODES = ("1", "L", "I", "I;16", "I;16B", "I;16L", "P")


def read_volume(path: str | Path, *, spacing: tuple[float, float] | None = None) -> Volume:
    """Reads one scalar volume.

    Args:
      path: ``.nii``, ``.nii.gz``, ``.mha``, ``.mhd``, ``.png``, or a DICOM file or folder.
      spacing: (row, column) pitch of a PNG, mm; 1 mm by default.  Other formats say it themselves.

    Returns:
      The volume as stored: axes are not reordered.  Scale factors are applied; without any the
      stored integer dtype is kept.  A PNG is one sagittal slice, (1, H, W) with axes L, I, P.

    Raises:
      UserError: the file is missing, damaged, of another kind, not three-dimensional, or holds
        NaN or infinite voxels.
    """
    path = Path(path)
    if not path.exists():
        raise UserError(f"{path}: no such file or folder; check the path.")
    name = path.name.lower()
    if path.is_dir():
        volume = read_dicom(path)
    elif name.endswith((".nii", ".nii.gz")):
        volume = _read_nifti(path)
    elif name.endswith((".mha", ".mhd")):
        volume = _read_metaimage(path)
    elif name.endswith(".png"):
        volume = _read_png(path, spacing or (1.0, 1.0))
    elif _is_dicom(path):
        volume = read_dicom(path)
    else:
        raise UserError(
            f"{path}: not a format this program reads; give .nii, .nii.gz, .mha, .mhd, .png, or a "
            "DICOM file or folder."
        )
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
      path: any format of ``read_volume``.
      reference: the image; a mask of the same grid stored with other axis order or direction is
        turned to match it.
      labels: allowed labels besides 0; any by default.

    Returns:
      The mask on exactly the grid of ``reference``; uint8, or the smallest integer that fits.

    Raises:
      UserError: as ``read_volume``; the grid is another one; a value is not a whole number or not
        in ``labels``.
    """
    path = Path(path)
    sagittal = reference.spacing[1:] if len(reference.data) == 1 else (1.0, 1.0)
    mask = read_volume(path, spacing=(float(sagittal[0]), float(sagittal[1])))
    if not _same_grid(mask, reference):
        mask = geometry.reorient(mask, nib.aff2axcodes(reference.affine))
    if not _same_grid(mask, reference):
        raise UserError(
            f"{path}: the mask is not on the grid of its image: mask {_describe(mask)}; image "
            f"{_describe(reference)}.  Resample the mask onto the image."
        )
    data = mask.data
    values = np.unique(data)
    if not np.array_equal(values, np.round(values)):
        raise UserError(
            f"{path}: a mask holds whole numbers, but this has {values[values % 1 != 0][0]:g}; is "
            "it an image, or a mask that was interpolated?"
        )
    unknown = [] if labels is None else [int(v) for v in values if v and int(v) not in labels]
    if labels is not None and unknown:
        known = ", ".join(str(v) for v in sorted(labels))
        raise UserError(
            f"{path}: unknown label {', '.join(map(str, unknown[:10]))}"
            f"{' and more' if len(unknown) > 10 else ''}; this mask may hold 0, {known}."
        )
    low, high = int(values[0]), int(values[-1])
    dtype = np.result_type(np.uint8, np.min_scalar_type(low), np.min_scalar_type(high))
    return Volume(data.astype(dtype), reference.affine, dict(reference.meta))


def _damaged(path: Path, why: object) -> UserError:
    reason = " ".join(str(why).split()) or type(why).__name__
    return UserError(f"{path}: cannot be read ({reason[:300]}); copy or export the file again.")


def _read_nifti(path: Path) -> Volume:
    try:
        image: Any = nib.load(path)
        shape = image.shape
        if len(shape) == 4 and shape[3] == 1:
            shape = shape[:3]
        if len(shape) not in (2, 3):
            raise UserError(
                f"{path}: has {len(shape)} dimensions {tuple(image.shape)}, but one 3-D volume is "
                "needed; extract the volume you mean."
            )
        data = np.asanyarray(image.dataobj)
    except UserError:
        raise
    except (OSError, EOFError, ValueError, zlib.error, nib.filebasedimages.ImageFileError) as error:
        raise _damaged(path, error) from error
    header = image.header
    if not header["sform_code"] and not header["qform_code"]:
        raise UserError(
            f"{path}: says nothing of its orientation (sform_code and qform_code are 0), so left "
            "and right are unknown; convert it again from the original."
        )
    if data.dtype.names or np.iscomplexobj(data):
        raise UserError(f"{path}: holds {data.dtype} voxels; a scalar image is needed.")
    data = data.reshape((*shape, 1)[:3])
    if data.dtype == np.float64 and image.get_data_dtype() != np.float64:
        data = data.astype(np.float32)  # nibabel applies scale factors in double precision
    return Volume(data.astype(data.dtype.newbyteorder("="), copy=False), image.affine)


def _read_metaimage(path: Path) -> Volume:
    try:
        image = sitk.ReadImage(str(path))
    except RuntimeError as error:
        raise _damaged(path, str(error).rsplit("\n", 1)[-1]) from error
    if image.GetDimension() == 4 and image.GetSize()[3] == 1:
        image = image[:, :, :, 0]
    if image.GetDimension() != 3 or image.GetNumberOfComponentsPerPixel() != 1:
        raise UserError(
            f"{path}: has {image.GetDimension()} dimensions and "
            f"{image.GetNumberOfComponentsPerPixel()} values a voxel, but one 3-D scalar volume is "
            "needed; extract the volume you mean."
        )
    affine = np.eye(4)
    affine[:3, :3] = np.reshape(image.GetDirection(), (3, 3)) * image.GetSpacing()
    affine[:3, 3] = image.GetOrigin()
    data = sitk.GetArrayFromImage(image).transpose(2, 1, 0)
    return Volume(data, _LPS_TO_RAS @ affine)


def _read_png(path: Path, spacing: tuple[float, float]) -> Volume:
    try:
        with Image.open(path) as image:
            mode = image.mode
            data = np.asarray(image)
    except (OSError, SyntaxError, ValueError, zlib.error) as error:
        raise _damaged(path, error) from error
    if mode not in _GREY_MODES:
        raise UserError(f"{path}: is a colour image ({mode}); save it as 8- or 16-bit grey.")
    if mode.startswith("I"):
        data = data.astype(np.uint16)  # PNG has no more than 16 bits; Pillow widens to 32
    elif mode == "1":
        data = data.astype(np.uint8)
    return Volume(data[np.newaxis], _sagittal_affine(spacing))


def _sagittal_affine(spacing: Sequence[float]) -> np.ndarray:
    affine = np.zeros((4, 4))
    affine[0, 0] = -1.0  # slices towards the left
    affine[2, 1] = -spacing[0]  # rows towards the feet
    affine[1, 2] = -spacing[1]  # columns towards the back
    affine[3, 3] = 1.0
    return affine


def _is_dicom(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(132)[128:] == b"DICM" or path.suffix.lower() in (".dcm", ".ima")


def _check(volume: Volume, path: Path) -> None:
    if 0 in volume.data.shape:
        raise UserError(f"{path}: holds no voxels (shape {volume.data.shape}).")
    if not np.all(np.isfinite(volume.affine)) or abs(np.linalg.det(volume.affine[:3, :3])) < 1e-9:
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


def _same_grid(a: Volume, b: Volume) -> bool:
    if a.data.shape != b.data.shape:
        return False
    corners = np.indices((2, 2, 2)).reshape(3, 8) * (np.array(a.data.shape) - 1)[:, None]
    homogeneous = np.vstack([corners, np.ones(8)])
    gap = (a.affine - b.affine) @ homogeneous
    return bool(np.all(np.linalg.norm(gap[:3], axis=0) < _GRID_TOLERANCE_MM))


def _describe(volume: Volume) -> str:
    spacing = " x ".join(f"{s:.3g}" for s in volume.spacing)
    origin = ", ".join(f"{x:.1f}" for x in volume.affine[:3, 3])
    axes = "".join(nib.aff2axcodes(volume.affine))
    return f"{volume.data.shape}, {spacing} mm, axes {axes}, origin ({origin})"


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


def _write_nifti(path: Path, volume: Volume) -> None:
    image = nib.Nifti1Image(volume.data, volume.affine)
    image.set_sform(volume.affine, code="scanner")
    image.set_qform(volume.affine, code="scanner")
    image.header.set_xyzt_units("mm")
    nib.save(image, path)


def _write_metaimage(path: Path, volume: Volume) -> None:
    image = sitk.GetImageFromArray(np.ascontiguousarray(volume.data.transpose(2, 1, 0)))
    affine = _LPS_TO_RAS @ volume.affine
    image.SetSpacing(volume.spacing.tolist())
    image.SetDirection((affine[:3, :3] / volume.spacing).ravel().tolist())
    image.SetOrigin(affine[:3, 3].tolist())
    sitk.WriteImage(image, str(path), useCompression=True)


def _write_png(path: Path, volume: Volume) -> None:
    upright = geometry.reorient(volume)
    if len(upright.data) != 1 or upright.data.dtype not in (np.uint8, np.uint16):
        raise UserError(
            f"{path}: a PNG holds one sagittal slice of uint8 or uint16, not "
            f"{upright.data.shape} of {upright.data.dtype}."
        )
    Image.fromarray(upright.data[0]).save(path)


_WRITERS: dict[str, Callable[[Path, Volume], None]] = {
    ".nii.gz": _write_nifti,
    ".nii": _write_nifti,
    ".mha": _write_metaimage,
    ".png": _write_png,
}
