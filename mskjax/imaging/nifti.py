"""NIfTI-1 and -2, one file, plain or gzip-compressed: told by content, not by name.

Source: NIfTI-1.1 header (nifti1.h); NIfTI-2 differs in the width of its fields only.
"""

import contextlib
import gzip
import logging
from pathlib import Path
from typing import Any, BinaryIO, cast

import nibabel as nib
import numpy as np

from mskjax.errors import UserError, note
from mskjax.imaging.grids import corner_gap, is_usable
from mskjax.imaging.limits import (
    DEFLATE_RATIO,
    check_bytes,
    check_spacing,
    check_voxels,
    damaged,
)
from mskjax.imaging.volume import Volume

_GZIP = b"\x1f\x8b"
_KINDS = {348: nib.Nifti1Header, 540: nib.Nifti2Header}  # by sizeof_hdr
_MAGIC = {348: (344, b"n+1\0", b"ni1\0"), 540: (4, b"n+2\0", b"ni2\0")}
_UNITS_MM = {0: ("unknown", 1.0), 1: ("metre", 1e3), 2: ("mm", 1.0), 3: ("micron", 1e-3)}
_LENGTH_BITS = 7  # of xyzt_units; the rest is the unit of time
_DISAGREE_VOXELS = 0.1

# Takes what nibabel says of the fields that it mends, which is a note here.
_silent = logging.Logger("silent")
_silent.addHandler(logging.NullHandler())


def read_nifti(path: Path) -> Volume:
    """Reads one volume.

    Args:
      path: one file of NIfTI-1 or NIfTI-2.

    Returns:
      The volume as stored, scale factors applied (float32 then; float64 if stored so).  The affine
      is the sform where it is given and usable, else the qform; lengths are brought to mm by
      ``xyzt_units``, where "unknown" is mm.  ``meta["sform_to_qform"]``, (4, 4) mm to mm, is there
      if both are given and differ by more than a tenth of a voxel.

    Raises:
      UserError: damaged, too large, not scalar, not three-dimensional, or nowhere in space.
    """
    packed = _is_gzip(path)
    if packed != path.name.lower().endswith(".gz"):
        what = "is gzip-compressed" if packed else "is not compressed"
        note(path, f"{what}, whatever its name says")
    with gzip.open(path) if packed else path.open("rb") as file:
        header = _header(cast(BinaryIO, file), path)
        unit, scale = _unit(header, path)
        forms = _forms(header, scale)
        affine, form, meta = _place(path, header, forms, scale)
        data = _voxels(cast(BinaryIO, file), header, path, packed)
    volume = Volume(data, affine, meta)
    field = f"{form} with xyzt_units {unit}"
    check_spacing(path, volume, field, field)
    _note_disagreement(path, volume)
    return volume


def write_nifti(path: Path, volume: Volume) -> None:
    """Writes sform and qform alike, in mm; ``.gz`` is compressed."""
    image = nib.Nifti1Image(volume.data, volume.affine)
    image.set_sform(volume.affine, code="scanner")
    image.set_qform(volume.affine, code="scanner")
    image.header.set_xyzt_units("mm")
    nib.save(image, path)


def _is_gzip(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(2) == _GZIP


def _header(file: BinaryIO, path: Path) -> Any:
    block = file.read(max(_KINDS))
    order, size = "<", int.from_bytes(block[:4], "little")
    if size not in _KINDS:
        order, size = ">", int.from_bytes(block[:4], "big")
    if size not in _KINDS or len(block) < size:
        raise damaged(path, "it does not begin with a NIfTI header")
    start, single, pair = _MAGIC[size]
    magic = block[start : start + 4]
    if magic == pair:
        raise UserError(
            f"{path}: is the header of a NIfTI pair (.hdr and .img); convert the pair to one .nii."
        )
    if magic != single:
        raise UserError(
            f"{path}: is an Analyze header or damaged (no NIfTI mark), so left and right are"
            " unknown; convert it again from the original."
        )
    kind = _KINDS[size]
    faults = kind.diagnose_binaryblock(block[:size], order)
    header = kind(block[:size], order, check=False)
    header.check_fix(logger=_silent)
    if faults:
        detail = "; ".join(faults.splitlines())
        note(path, "has invalid header fields; the usual values are taken", detail)
    return header


def _unit(header: Any, path: Path) -> tuple[str, float]:
    """Name of the unit of length, and how many mm it has."""
    code = int(header["xyzt_units"]) & _LENGTH_BITS
    if code not in _UNITS_MM:
        note(path, "has no valid unit of length; mm is taken", f"xyzt_units {code}")
        return f"{code}", 1.0
    unit, scale = _UNITS_MM[code]
    if scale != 1:
        note(path, f"gives lengths in {unit}; they are brought to mm")
    return unit, scale


def _forms(header: Any, scale: float) -> dict[str, np.ndarray]:
    """The affines that are given and usable, sform first, in mm."""
    found = {}
    if header["sform_code"]:
        found["sform"] = header.get_sform()
    if header["qform_code"]:
        # What is no rotation is as unusable as a singular matrix.
        with contextlib.suppress(nib.spatialimages.HeaderDataError, ValueError):
            found["qform"] = header.get_qform()
    to_mm = np.diag([scale, scale, scale, 1.0])
    return {name: to_mm @ affine for name, affine in found.items() if is_usable(affine)}


def _place(
    path: Path, header: Any, forms: dict[str, np.ndarray], scale: float
) -> tuple[np.ndarray, str, dict[str, Any]]:
    """The affine, the name of the form it is of, and what is worth keeping of the other."""
    given = [name for name in ("sform", "qform") if header[f"{name}_code"]]
    if not given:
        raise UserError(
            f"{path}: says nothing of its orientation (sform_code and qform_code are 0), so left "
            "and right are unknown; convert it again from the original."
        )
    if not forms:
        raise UserError(
            f"{path}: its {' and its '.join(given)} {'do' if len(given) > 1 else 'does'} not place"
            " the voxels in space (singular or not finite); write the file again with a valid"
            " orientation."
        )
    form, affine = next(iter(forms.items()))
    if form != given[0]:
        note(path, f"its {given[0]} is singular or not finite; the {form} is used")
    _note_voxel_size(path, header, affine, form, scale)
    meta = {}
    if len(forms) > 1:
        meta["sform_to_qform"] = forms["qform"] @ np.linalg.inv(forms["sform"])
    return affine, form, meta


def _note_voxel_size(path: Path, header: Any, affine: np.ndarray, form: str, scale: float) -> None:
    declared = np.asarray(header["pixdim"][1:4], float) * scale
    used = np.linalg.norm(affine[:3, :3], axis=0)
    if np.any(np.abs(declared - used) > 0.01 * used):
        shown = (" x ".join(f"{x:.4g}" for x in sizes) for sizes in (declared, used))
        detail = "{} and {} mm".format(*shown)
        note(path, f"its pixdim and {form} give other voxel sizes; the {form} is used", detail)


def _note_disagreement(path: Path, volume: Volume) -> None:
    """Keeps ``sform_to_qform`` only where it moves voxels, and says so."""
    move = volume.meta.get("sform_to_qform")
    if move is None:
        return
    mm, voxels = corner_gap(move @ volume.affine, volume.affine, volume.data.shape)
    if voxels <= _DISAGREE_VOXELS:
        del volume.meta["sform_to_qform"]
    else:
        note(path, "its sform and qform disagree; the sform is used", f"by up to {mm:.3g} mm")


def _voxels(file: BinaryIO, header: Any, path: Path, packed: bool) -> np.ndarray:
    shape = tuple(int(n) for n in header.get_data_shape())
    if any(n != 1 for n in shape[3:]) or len(shape) < 2:
        raise UserError(
            f"{path}: has {len(shape)} dimensions {shape}, but one 3-D volume is needed; extract"
            " the volume you mean."
        )
    shape = (*shape, 1)[:3]
    dtype = header.get_data_dtype()
    if dtype.kind not in "iuf" or dtype.itemsize > 8:
        raise UserError(f"{path}: holds {dtype} voxels; a scalar image is needed.")
    size = check_voxels(path, shape) * dtype.itemsize
    offset = int(header.get_data_offset())
    stored = path.stat().st_size
    check_bytes(path, offset + size, stored, DEFLATE_RATIO if packed else 1)
    file.seek(offset)
    block = file.read(size)
    if len(block) < size:
        raise damaged(path, f"it holds {len(block)} bytes of voxels where {size} are declared")
    file.read(1)  # lets gzip reach the checksum
    data = np.frombuffer(block, dtype).reshape(shape, order="F")
    slope, inter = header.get_slope_inter()
    if slope is None or (slope == 1 and inter == 0):
        return data.astype(dtype.newbyteorder("="))
    out = np.empty(shape, np.float64 if dtype.itemsize == 8 and dtype.kind == "f" else np.float32)
    for k in range(shape[2]):  # plane by plane, since this is done in double precision
        out[..., k] = data[..., k] * slope + inter
    return out
