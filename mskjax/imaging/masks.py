"""Label masks: whether one lies on the grid of its image, and what its values mean."""

import filecmp
import os
from collections.abc import Collection
from pathlib import Path

import nibabel as nib
import numpy as np

from mskjax.errors import UserError, note
from mskjax.imaging.grids import aligned, corner_gap
from mskjax.imaging.volume import Volume

# Headers that differ by less say the same, and silently below the second: a shift is larger.
_TOLERANCE_VOXELS = 0.1
_SILENT_MM = 1e-2
_WHOLE = 1e-3  # interpolation to the same grid moves labels by less
_PAINTED = 255  # what programs for pictures write where a mask is drawn
_LARGEST_LABEL = 2**31 - 1


def check_differs(path: Path, mask: Volume, image: Volume) -> None:
    """Whether a mask is another one than its image.

    Raises:
      UserError: they are one file, two equal ones, or hold the same voxels.
    """
    files = image.meta.get("files", ())
    if _same_files(mask.meta.get("files", ()), files) or np.array_equal(mask.data, image.data):
        other = f" ({files[0]})" if len(files) == 1 and files[0] != str(path) else ""
        raise UserError(f"{path}: image and mask are the same{other}; name two files.")


def fitted(path: Path, mask: Volume, image: Volume) -> Volume:
    """The mask in the storage order of its image, checked to lie on its grid.

    Headers may place the corners of the grid up to a tenth of a voxel apart; above a hundredth of
    a millimetre that is a note.

    Raises:
      UserError: the grids differ.
    """
    turned = aligned(mask, image.affine)
    mm, voxels = _gap(turned, image)
    if voxels > _TOLERANCE_VOXELS:
        raise _refused(path, mask, image)
    if mm >= _SILENT_MM:
        ours, theirs = _descriptions(turned, image)
        note(
            path,
            "its header and that of its image differ by less than a tenth of a voxel; the image's"
            " is used",
            f"corners up to {mm:.2g} mm apart: mask {ours}; image {theirs}",
        )
    return turned


def label_values(path: Path, data: np.ndarray, labels: Collection[int] | None) -> np.ndarray:
    """The labels that a mask holds.

    Args:
      path: of the mask, for messages.
      data: as read; what lies within 1e-3 of a whole number is that number.
      labels: allowed ones besides 0; any by default.  Where there is just one, 255 in a mask of
        0 and 255 is taken as that.

    Returns:
      uint8, or the smallest integer that fits.

    Raises:
      UserError: a value is not a whole number or not in `labels`.
    """
    values = np.unique(data)
    whole = np.round(values)
    odd = values[np.abs(values - whole) > _WHOLE]
    if odd.size:
        raise UserError(
            f"{path}: a mask holds whole numbers, but this has {odd[0]!s}; is it an image, or a"
            " mask that was interpolated?"
        )
    if max(abs(float(whole[0])), abs(float(whole[-1]))) > _LARGEST_LABEL:
        raise UserError(f"{path}: holds {values[-1]!s}, which is no label; is it an image?")
    found = sorted({int(v) for v in whole})
    if np.issubdtype(data.dtype, np.floating):
        data = np.round(data)
    if labels is not None and found in ([0, _PAINTED], [_PAINTED]) and _PAINTED not in labels:
        data, found = _painted(path, data, labels)
    unknown = [] if labels is None else [v for v in found if v and v not in labels]
    if labels is not None and unknown:
        raise UserError(
            f"{path}: unknown label {', '.join(map(str, unknown[:10]))}"
            f"{' and more' if len(unknown) > 10 else ''}; this mask may hold 0, {_listed(labels)}."
        )
    dtype = np.result_type(np.uint8, np.min_scalar_type(found[0]), np.min_scalar_type(found[-1]))
    return data.astype(dtype)


def _painted(path: Path, data: np.ndarray, labels: Collection[int]) -> tuple[np.ndarray, list[int]]:
    """A mask of 0 and 255 with the one label that it can mean."""
    if len(labels) > 1:
        raise UserError(
            f"{path}: holds 0 and {_PAINTED} only, as programs for pictures save a mask; write the"
            f" numbers of the labels, {_listed(labels)}."
        )
    label = next(iter(labels))
    note(path, f"is a mask of 0 and {_PAINTED}; {_PAINTED} is taken as label {label}")
    return np.where(data == _PAINTED, np.int32(label), np.int32(0)), [0, label]


def _listed(labels: Collection[int]) -> str:
    return ", ".join(str(v) for v in sorted(labels))


def _same_files(ours: tuple[str, ...], theirs: tuple[str, ...]) -> bool:
    """Whether the files are the same, or copies, which may have been read in different ways."""
    return (
        len(ours) == len(theirs) > 0
        and all(os.path.getsize(a) == os.path.getsize(b) for a, b in zip(ours, theirs, strict=True))
        and all(filecmp.cmp(a, b, shallow=False) for a, b in zip(ours, theirs, strict=True))
    )


def _gap(mask: Volume, image: Volume) -> tuple[float, float]:
    if mask.data.shape != image.data.shape:
        return np.inf, np.inf
    return corner_gap(mask.affine, image.affine, image.data.shape)


def _refused(path: Path, mask: Volume, image: Volume) -> UserError:
    """Why a mask does not fit.

    Where a header has two forms that disagree, which of them fits; resampling would then move the
    mask by what they differ, so it is not advised.
    """
    for volume, file in ((image, image.meta.get("files", ("its image",))[0]), (mask, path)):
        move = volume.meta.get("sform_to_qform")
        if move is not None:
            mm, _ = corner_gap(move @ volume.affine, volume.affine, volume.data.shape)
            return UserError(
                f"{path}: the mask is not where its image is: the sform and qform of {file}"
                f" disagree by {mm:.3g} mm; {_fitting_form(mask, image)}; decide which is right"
                " and write both the same."
            )
    turned = aligned(mask, image.affine)
    ours, theirs = _descriptions(turned, image)
    doubts = [f"; {v.meta['orientation_doubt']}" for v in (mask, image) if _is_doubtful(v)]
    sentence = f"{path}: the mask is not on the grid of its image: mask {ours}; image {theirs}"
    mm, _ = _gap(turned, image)
    if not np.isfinite(mm):
        return UserError(f"{sentence}{''.join(doubts[:1])}.  Resample the mask onto the image.")
    return UserError(
        f"{sentence}; corners up to {mm:.3g} mm apart{''.join(doubts[:1])}.  If it was drawn on"
        " this image, give it the image's header; else resample the mask onto the image."
    )


def _is_doubtful(volume: Volume) -> bool:
    return "orientation_doubt" in volume.meta


def _fitting_form(mask: Volume, image: Volume) -> str:
    """Which form of which header would make the two fit."""
    for mine, m in _forms(mask):
        for theirs, i in _forms(image):
            if _gap(aligned(m, i.affine), i)[1] <= _TOLERANCE_VOXELS:
                who = f"the {mine} of the mask" if mine else "the mask"
                return f"{who} fits the {f'{theirs} of the image' if theirs else 'image'}"
    return "the mask fits neither"


def _forms(volume: Volume) -> list[tuple[str, Volume]]:
    """The volume as each form places it; without a name where there is no choice."""
    move = volume.meta.get("sform_to_qform")
    if move is None:
        return [("", volume)]
    return [("sform", volume), ("qform", Volume(volume.data, move @ volume.affine))]


def _descriptions(a: Volume, b: Volume) -> tuple[str, str]:
    """Both grids, with as many digits as it takes to see where they differ."""
    texts = _describe(a, 3), _describe(b, 3)
    for digits in range(4, 10):
        if texts[0] != texts[1]:
            break
        texts = _describe(a, digits), _describe(b, digits)
    return texts


def _describe(volume: Volume, digits: int) -> str:
    spacing = " x ".join(f"{s:.{digits}g}" for s in volume.spacing)
    origin = ", ".join(f"{x:.{digits - 2}f}" for x in volume.affine[:3, 3])
    axes = "".join(nib.aff2axcodes(volume.affine))
    return f"{volume.data.shape}, {spacing} mm, axes {axes}, origin ({origin})"
