"""DICOM files as studies: their headers read, copies dropped, series parted into stacks."""

import filecmp
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from mskjax.errors import UserError
from mskjax.inputs.headers import Header, Headers
from mskjax.inputs.sequence import Shown, shown
from mskjax.inputs.stacks import Stack, stacks
from mskjax.inputs.walk import Skipped, counted


@dataclass(frozen=True)
class DicomStudy:
    """One study of one patient.

    Attributes:
      uid: StudyInstanceUID; empty where the header does not say.
      patient: PatientID, likewise.
      series: what can be chosen from, in the order of their numbers.
      files: of its images.
      doubtful: (file, why) beside its images that cannot be read.
      is_alone: whether nothing but this study has images in the folders of `doubtful`.
    """

    uid: str
    patient: str
    series: tuple[Shown, ...]
    files: tuple[Path, ...]
    doubtful: tuple[tuple[Path, str], ...] = ()
    is_alone: bool = True

    def may_lack(self, stack: Stack) -> tuple[tuple[Path, str], ...]:
        """Files that cannot be read and lie beside the images of a stack."""
        folders = {file.parent for file in stack.files}
        return tuple((path, why) for path, why in self.doubtful if path.parent in folders)


def dicom_studies(
    files: Sequence[Path], doubtful: Sequence[Path], skipped: Skipped
) -> list[DicomStudy]:
    """The studies of DICOM files.

    Args:
      files: that begin as DICOM does.
      doubtful: files that may be damaged images.
      skipped: takes what is no image, copies, and what cannot be read and lies beside no image.
    """
    faults: dict[Path, str] = {}
    headers = _distinct(_read(files, faults, skipped), skipped)
    for path in doubtful:
        try:
            empty = not path.stat().st_size
            faults[path] = "it is empty, 0 bytes" if empty else "it is of no known kind"
        except OSError as error:
            faults[path] = f"it cannot be opened: {error.strerror}"
    owners: dict[Path, set[tuple[str, ...]]] = {}
    studies: dict[tuple[str, ...], list[Header]] = {}
    for header in headers:
        key = _study_key(header)
        studies.setdefault(key, []).append(header)
        owners.setdefault(header.file.parent, set()).add(key)
    beside: dict[Path, list[tuple[Path, str]]] = {}
    for path, why in sorted(faults.items()):
        beside.setdefault(path.parent, []).append((path, why))
        skipped.add("it cannot be read, and may be an image", path)
    found = []
    for key, own in studies.items():
        folders = sorted({header.file.parent for header in own})
        near = [fault for folder in folders for fault in beside.get(folder, [])]
        found.append(
            DicomStudy(
                own[0].study[0],
                own[0].study[1],
                _series(own),
                tuple(sorted(header.file for header in own)),
                tuple(near),
                all(owners[path.parent] == {key} for path, _ in near),
            )
        )
    return found


def _read(files: Sequence[Path], faults: dict[Path, str], skipped: Skipped) -> Iterator[Header]:
    headers = Headers()
    for path in counted(files, "headers"):
        try:
            header = headers.read(path)
        except UserError as error:
            faults[path] = str(error).removeprefix(f"{path}: ").rstrip(".")
        else:
            if isinstance(header, str):
                skipped.add(header, path)
            else:
                yield header


def _distinct(headers: Iterator[Header], skipped: Skipped) -> list[Header]:
    """Headers without second copies of a file; other files of one SOPInstanceUID stay."""
    first: dict[str, Header] = {}
    kept = []
    for header in headers:
        twin = first.setdefault(header.instance, header) if header.instance else header
        if twin is not header and _is_copy(twin.file, header.file):
            skipped.add("a copy of another file", header.file)
        else:
            kept.append(header)
    return kept


def _is_copy(a: Path, b: Path) -> bool:
    try:
        return filecmp.cmp(a, b, shallow=False)
    except OSError:  # said when it is read
        return False


def _study_key(header: Header) -> tuple[str, ...]:
    """What one study of one patient has in common; without a UID its folder."""
    uid, patient = header.study
    return (uid, patient) if uid else ("", patient, str(header.file.parent))


def _series(headers: Sequence[Header]) -> tuple[Shown, ...]:
    series: dict[str, list[Header]] = {}
    for header in headers:
        series.setdefault(header.series or str(header.file.parent), []).append(header)
    parts = [stack for own in series.values() for stack in stacks(own)]
    parts.sort(key=lambda stack: (stack.order, stack.uid))  # stable: as `stacks` has them
    return tuple(map(shown, parts))
