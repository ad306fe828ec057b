"""Which files of a folder are the one series that it holds; every file is accounted for.

A file that cannot be read may be a slice.  Without it the series would look whole though its end
is missing, and a slice named by number would be its neighbour; so it is refused by name.
"""

import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import NamedTuple, TypeVar

from pydicom.dataset import Dataset

from mskjax.errors import UserError, note
from mskjax.imaging.dicom_fields import whole, written
from mskjax.imaging.dicom_file import is_dicom, no_image, open_dicom, other_kind
from mskjax.imaging.limits import MOST_VOXELS, check_voxels, damaged, reading

T = TypeVar("T")

_TAGS = (
    "SOPClassUID", "Modality", "SeriesDescription", "SeriesInstanceUID", "Rows", "Columns",
    "NumberOfFrames",
)  # fmt: skip
_MOST_LISTED = 20


class Found(NamedTuple):
    """A file that was looked at.

    Attributes:
      file: its path.
      kind: what it is; empty for images.
      header: of an image: the attributes that were asked for.
      voxels: that an image declares.
    """

    file: Path
    kind: str = ""
    header: Dataset = Dataset()
    voxels: int = 0


def series_files(folder: Path, files: Sequence[Path] | None = None) -> list[Path]:
    """The image files of one series, by name.

    What is evidently no image is a note on that file, with its kind.

    Args:
      folder: that is searched, with its subfolders.
      files: the files of the series, in the folder, where they are known.

    Raises:
      UserError: a file can neither be read nor told to be no image; there is no image, or images of
        several series, or more than `MOST_VOXELS` in all.
    """
    try:
        found = every(folder, _files_below(folder) if files is None else files, look)
    except UserError as error:
        raise UserError(
            f"{str(error).rstrip('.')}; what cannot be read may be a slice of the series, so take"
            " it out of the folder only if it is none."
        ) from error
    images = [f for f in found if not f.kind]
    others = [f for f in found if f.kind]
    if not images:
        kinds = sorted({f.kind for f in others})
        held = f"; it holds {len(others)} other files ({', '.join(kinds)})" if others else ""
        raise UserError(f"{folder}: no DICOM image in this folder{held}; check the path.")
    for other in others:
        note(other.file, "lies among DICOM images, is none and is not read", other.kind)
    _refuse_several(folder, images)
    voxels = sum(f.voxels for f in images)
    if voxels > MOST_VOXELS:
        raise UserError(
            f"{folder}: its {len(images)} files declare {voxels} voxels, more than the"
            f" {MOST_VOXELS} that are read of one volume; give the series you mean."
        )
    return [f.file for f in images]


def every(where: Path, files: Iterable[Path], read: Callable[[Path], T]) -> list[T]:
    """Reads all files before their faults are raised, so that they are mended at once.

    Raises:
      UserError: with the faults of all files.
    """
    results: list[T] = []
    faults: dict[str, list[str]] = {}  # what files have in common, to their names
    for file in files:
        try:
            with reading(file):
                results.append(read(file))
        except UserError as error:
            why = str(error).removeprefix(f"{file}: ")
            faults.setdefault(why, []).append(shown_below(where, file))
    count = sum(map(len, faults.values()))
    if count == 1:
        why, (name,) = faults.popitem()
        raise UserError(f"{where if name == where.name else where / name}: {why}")
    if faults:
        first = list(faults.items())[:_MOST_LISTED]
        listed = "; ".join(f"{_names(found)}: {why.rstrip('.')}" for why, found in first)
        total = count + len(results)
        raise UserError(f"{where}: {count} of {total} files cannot be read: {listed}.")
    return results


def shown_below(where: Path, file: Path) -> str:
    """The name of a file in what is said of a folder, or of the file itself."""
    if file == where:
        return file.name
    return str(file.relative_to(where)) if file.is_relative_to(where) else str(file)


def _names(files: list[str]) -> str:
    more = len(files) - _MOST_LISTED
    return ", ".join(files[:_MOST_LISTED]) + (f" and {more} more" if more > 0 else "")


def _files_below(folder: Path) -> list[Path]:
    """All files, links to folders followed."""
    files: list[Path] = []
    seen: set[str] = set()

    def fail(error: OSError) -> None:
        raise damaged(error.filename, error) from error

    for root, folders, names in os.walk(folder, onerror=fail, followlinks=True):
        if (real := os.path.realpath(root)) in seen:
            folders.clear()  # a link to a folder above
            continue
        seen.add(real)
        files += [Path(root, name) for name in names]
    return sorted(files)


def look(file: Path, tags: tuple[str, ...] = ()) -> Found:
    """What a file is.

    Args:
      file: a path, which may lead nowhere.
      tags: keywords to read of an image's header, beside those that are read anyhow.

    Raises:
      UserError: it can neither be read nor told to be no image.
      Exception: of any kind, where it is damaged.
    """
    if not file.exists():
        raise damaged(file, "it is a link to a file that is missing")
    if not file.is_file():
        return Found(file, "no regular file")
    if not is_dicom(file):
        empty = not file.stat().st_size
        kind = other_kind(file)
        if not kind:
            raise damaged(
                file,
                "it is empty, 0 bytes"
                if empty
                else "it is neither DICOM nor of another known kind",
            )
        return Found(file, kind)
    header = open_dicom(file, (*_TAGS, *tags))
    if "Rows" not in header:
        kind = no_image(header)
        if not kind:
            raise damaged(file, "it is cut short: it does not say how large its image is")
        return Found(file, kind)
    size = [whole(file, header, keyword) for keyword in ("Rows", "Columns")]
    voxels = check_voxels(file, (*size, whole(file, header, "NumberOfFrames", 1) or 1))
    return Found(file, "", header, voxels)


def _refuse_several(folder: Path, images: list[Found]) -> None:
    series: dict[str, list[Found]] = {}
    for image in images:
        series.setdefault(written(image.header, "SeriesInstanceUID"), []).append(image)
    if len(series) > 1:
        lines = "; ".join(
            f"{_name(found[-1].header)!r}, {len(found)} images,"
            f" {shown_below(folder, found[0].file)}" + (" ..." if len(found) > 1 else "")
            for found in list(series.values())[:_MOST_LISTED]
        )
        raise UserError(
            f"{folder}: holds {len(series)} series ({lines}); put the one you mean into a folder "
            "of its own and give that."
        )


def _name(header: Dataset) -> str:
    return f"{written(header, 'Modality') or '?'} {written(header, 'SeriesDescription')}".strip()
