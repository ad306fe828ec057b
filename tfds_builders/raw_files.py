"""Which raw files a package was made of, by content.

Every file is hashed once.  Size, time of change and inode are kept beside the hash, so that the
next command reads only the files whose entry in the file system changed.
"""

import hashlib
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from mskjax.imaging.dicom_file import is_dicom
from tfds_builders.raw import RawStudy, Source

_LONGEST_HEADER = 1 << 16  # bytes; MetaImage headers are text of a few hundred


class Stamp(NamedTuple):
    """A raw file: its content, and how the file system described it when that was read."""

    size: int
    mtime_ns: int
    inode: int
    sha256: str


class RawFiles(NamedTuple):
    """The raw files of a cohort.

    Attributes:
      folder: absolute path; empty where the cohort is generated.
      stamps: name, relative to the folder, to its stamp.
    """

    folder: str
    stamps: Mapping[str, Stamp]

    @property
    def digest(self) -> str:
        """sha256, hexadecimal, of names and contents; a moved folder has the same."""
        state = hashlib.sha256()
        for name, stamp in sorted(self.stamps.items()):
            state.update(f"{name}\0{stamp.sha256}\n".encode())
        return state.hexdigest()

    def to_json(self) -> str:
        """Text that `from_json` reads back."""
        return json.dumps({"folder": self.folder, "files": self.stamps}, indent=1) + "\n"

    @classmethod
    def from_json(cls, text: str) -> "RawFiles":
        """What `to_json` wrote.

        Raises:
          ValueError, KeyError, TypeError: it is something else.
        """
        content = json.loads(text)
        return cls(content["folder"], {k: Stamp(*v) for k, v in content["files"].items()})


def raw_files(
    source: Source, studies: Sequence[RawStudy], root: Path | None, known: Mapping[str, Stamp]
) -> RawFiles:
    """Hashes the tables and the files of all studies.

    Args:
      source: after `Source.studies`.
      studies: what that returned.
      root: names are relative to it; None for generated cohorts.
      known: stamps of an earlier call.

    Returns:
      The files that are there.  A file whose size, time of change and inode are known is not read.
    """
    if root is None:
        return RawFiles("", {})
    paths = {*source.tables, *(f for study in studies for p in study.files for f in parts(p))}
    files = sorted(p for p in paths if p.is_file())
    names = [Path(os.path.relpath(path, root)).as_posix() for path in files]
    with ThreadPoolExecutor(os.cpu_count()) as pool:  # hashing leaves the interpreter alone
        stamps = pool.map(_stamp, files, map(known.get, names))
        return RawFiles(str(root.resolve()), dict(zip(names, stamps, strict=True)))


def parts(path: Path) -> list[Path]:
    """The files that one image or mask consists of: of a folder all, of a .mhd its data too."""
    if path.is_dir():
        # As the reader does, links to folders are followed.
        walked = os.walk(path, followlinks=True)
        return [
            f for root, _, names in walked for name in names if (f := Path(root, name)).is_file()
        ]
    if path.suffix.lower() == ".mhd" and path.is_file():
        return [path, *_data_file(path)]
    return [path]


def image_files(study: RawStudy) -> list[Path]:
    """The files of a study's images, without what else lies in the folders of DICOM series."""
    found = []
    for path in study.files[: study.images]:
        if path.is_dir():
            found += [p for p in parts(path) if _is_dicom_image(p)]
        else:
            found.append(parts(path)[-1])  # of a .mhd the voxels: headers of a scanner are alike
    return found


def changes(old: RawFiles, new: RawFiles) -> list[str]:
    """What became of each file that is not what it was, e.g. ``"m.nii.gz changed"``."""
    found = []
    for name in sorted({*old.stamps, *new.stamps}):
        before, now = old.stamps.get(name), new.stamps.get(name)
        if before is None or now is None:
            found.append(f"{name} {'is new' if before is None else 'is gone'}")
        elif before.sha256 != now.sha256:
            found.append(f"{name} changed")
    return found


def shared_files(
    studies: Iterable[RawStudy], raw: RawFiles
) -> list[tuple[RawStudy, RawStudy, str, str]]:
    """Pairs of studies of different patients that have an image file in common, by content.

    Returns:
      (study, an earlier study, file of the first, file of the second), names as in `raw`.
    """
    owners: dict[str, tuple[RawStudy, str]] = {}
    found = []
    for study in studies:
        for path in image_files(study):
            name = Path(os.path.relpath(path, raw.folder)).as_posix()
            if name not in raw.stamps:
                continue
            owner, twin = owners.setdefault(raw.stamps[name].sha256, (study, name))
            if owner.patient_id != study.patient_id:
                found.append((study, owner, name, twin))
                break  # a series is said once, not slice by slice
    return found


def _stamp(path: Path, known: Stamp | None) -> Stamp:
    stat = path.stat()
    if known is not None and known[:3] == (stat.st_size, stat.st_mtime_ns, stat.st_ino):
        return known
    with path.open("rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    return Stamp(stat.st_size, stat.st_mtime_ns, stat.st_ino, sha256)


def _data_file(header: Path) -> list[Path]:
    """The file that a MetaImage header names for its voxels; none where they follow the header."""
    with header.open("rb") as file:
        text = file.read(_LONGEST_HEADER).decode("latin-1")
    names = [
        line.partition("=")[2].strip()
        for line in text.splitlines()
        if line.partition("=")[0].strip() == "ElementDataFile"
    ]
    return [p for name in names if name and (p := header.parent / name).is_file()]


def _is_dicom_image(path: Path) -> bool:
    return path.name.upper() != "DICOMDIR" and is_dicom(path)
