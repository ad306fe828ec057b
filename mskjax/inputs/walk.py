"""Every file below the paths that a user gave: listed once, told by kind, nothing followed blindly.

A link is never followed: what it leads to is read where it lies, if that is below a given path too.
Only the given paths themselves may be links.
"""

import os
import stat
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from mskjax.errors import UserError
from mskjax.imaging.dicom_file import is_dicom, other_kind
from mskjax.progress import Progress

MOST_FILES = 500_000  # a thousand studies; their headers take 0.5 GB
MOST_DEEP = 40  # folders within folders
_NAMED = 3
_SPEAK_FROM = 5000  # files; fewer take seconds
VOLUMES = (".nii", ".nii.gz", ".mha", ".mhd", ".png")
_ARCHIVES = (
    ".zip", ".tar", ".tgz", ".tar.gz", ".tbz2", ".tar.bz2", ".txz", ".tar.xz", ".7z", ".rar", ".gz",
    ".bz2", ".xz", ".zst", ".iso",
)  # fmt: skip
_ARCHIVE_KINDS = ("a ZIP archive", "an archive", "a gzip-compressed file")
ARCHIVE = "archives are not opened; unpack it and give the folder"


@dataclass
class Skipped:
    """What was not read, by reason.

    Attributes:
      found: reason to how many files and folders it is true of, and the first few.
    """

    found: dict[str, tuple[int, list[Path]]] = field(default_factory=dict)

    def add(self, why: str, path: Path, count: int = 1) -> None:
        """Counts a path, or `count` of which this is one."""
        before, named = self.found.get(why, (0, []))
        self.found[why] = before + count, named + [path][: _NAMED - len(named)]

    def sentences(self, named: bool = False) -> list[str]:
        """One sentence a reason.

        Args:
          named: whether files may be named.
        """
        lines = []
        for why, (count, paths) in self.found.items():
            shown = ", ".join(printable(path) for path in paths)
            of = f": {shown}{', ...' if count > len(paths) else ''}" if named else ""
            what = "file or folder is" if count == 1 else "files or folders are"
            lines.append(f"{count} {what} not read ({why}){of}.")
        return lines


def files_below(roots: Mapping[Path, str], skipped: Skipped) -> list[Path]:
    """All regular files below the given paths, each once, sorted.

    Args:
      roots: files and folders, and what they are called where their names are not to be printed.
      skipped: takes links, devices, and folders that cannot be opened or are too deep.

    Raises:
      UserError: a path is missing or neither file nor folder, or there are more than `MOST_FILES`.
    """
    found: dict[str, Path] = {}
    for root, label in roots.items():
        try:
            about = os.stat(root)
        except (OSError, ValueError) as error:  # ValueError: a NUL in the name
            reason = getattr(error, "strerror", None) or error
            raise UserError(f"{label} cannot be opened ({reason}); check the path.") from error
        if stat.S_ISDIR(about.st_mode):
            some = _walk(root, skipped)
        elif stat.S_ISREG(about.st_mode):
            some = iter([root])
        else:
            raise UserError(f"{label} is neither a file nor a folder; check the path.")
        real = root.resolve()  # a folder that is given twice is read once
        for path in some:
            found.setdefault(os.path.normpath(real / path.relative_to(root)), path)
            if len(found) > MOST_FILES:
                raise UserError(
                    f"{label} and those before it hold more than {MOST_FILES} files; give fewer"
                    " studies at a time."
                )
    return sorted(found.values())


def input_label(number: int, count: int) -> str:
    """What a given path is called where its name is not to be printed."""
    return f"--input {number} of {count}" if count > 1 else "--input"


def _walk(root: Path, skipped: Skipped) -> Iterator[Path]:
    folders = [(root, 0)]
    while folders:
        folder, depth = folders.pop()
        try:
            with os.scandir(folder) as entries:
                for entry in entries:
                    yield from _entry(entry, depth, folders, skipped)
        except OSError as error:
            skipped.add(f"a folder that cannot be opened: {error.strerror}", folder)


def _entry(
    entry: os.DirEntry, depth: int, folders: list[tuple[Path, int]], skipped: Skipped
) -> Iterator[Path]:
    path = Path(entry.path)
    try:
        about = entry.stat(follow_symlinks=False)
    except OSError as error:
        skipped.add(f"cannot be opened: {error.strerror}", path)
        return
    if stat.S_ISLNK(about.st_mode):
        skipped.add("a link, which is not followed; give what it leads to", path)
    elif stat.S_ISDIR(about.st_mode):
        if depth >= MOST_DEEP:
            skipped.add(f"a folder more than {MOST_DEEP} folders deep", path)
        else:
            folders.append((path, depth + 1))
    elif stat.S_ISREG(about.st_mode):
        yield path
    else:
        skipped.add("no regular file, but a pipe, socket or device", path)


def counted(files: Sequence[Path], title: str) -> Iterator[Path]:
    """The files, with progress where they are many."""
    bar = Progress(title, len(files)) if len(files) >= _SPEAK_FROM else None
    for path in files:
        yield path
        if bar:
            bar.advance()
    if bar:
        bar.close()


def sort_kinds(files: Iterable[Path], skipped: Skipped) -> Iterator[tuple[str, Path]]:
    """Each file that may hold an image, as ``dicom``, ``volume`` or ``doubtful``.

    Args:
      files: regular files.
      skipped: takes the others, with what they are.
    """
    for path in files:
        try:
            kind = _kind(path)
        except OSError:  # said when its header is read
            kind = "doubtful"
        if kind in ("dicom", "volume", "doubtful"):
            yield kind, path
        else:
            skipped.add(kind, path)


def _kind(path: Path) -> str:
    name = path.name.lower()
    if name.endswith(VOLUMES):
        return "volume"
    if name.endswith((".raw", ".zraw")):
        return "the data of a MetaImage, which its .mhd names, or no image"
    if is_dicom(path):
        return "dicom"
    kind = other_kind(path)
    if kind in _ARCHIVE_KINDS or name.endswith(_ARCHIVES) or _is_tar(path):
        return ARCHIVE
    return kind or "doubtful"


def _is_tar(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(262)[257:] == b"ustar"


def printable(text: object) -> str:
    """Text without what moves the cursor or hides other text: those characters are escaped."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in str(text))
