"""Paths that a user gives to studies that a system reads: found, chosen, named; nothing is guessed.

What cannot be used is told beside what can.  Nothing that is said names a file, a folder or a value
of a header unless ids are kept (``names=None``).
"""

import dataclasses
import math
import re
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path

from mskjax.errors import FileNote, UserError
from mskjax.inputs import choice
from mskjax.inputs.dicom_studies import DicomStudy, dicom_studies
from mskjax.inputs.drafts import of_dicom, of_names, of_table
from mskjax.inputs.names import NamedStudy, named_studies
from mskjax.inputs.pseudonyms import Pseudonyms, table, write_private
from mskjax.inputs.study import NewStudy, Refused
from mskjax.inputs.table import Listed, read_listed
from mskjax.inputs.walk import Skipped, counted, files_below, input_label, printable, sort_kinds
from tfds_builders.images import Wanted

_LONGEST_NAME = 80


@dataclasses.dataclass(frozen=True)
class Found:
    """What the given paths hold.

    Attributes:
      studies: that can be read, by name.
      refused: that cannot, by name.
      notes: a sentence for each kind of file that is not read, and for what is odd of a table.
    """

    studies: tuple[NewStudy, ...]
    refused: tuple[Refused, ...]
    notes: tuple[str, ...]


def find_studies(
    paths: Sequence[str | Path],
    needs: Mapping[str, Wanted],
    *,
    series: str | None = None,
    pixel_mm: float | None = None,
    slice_index: int | None = None,
    names: Pseudonyms | None = None,
) -> Found:
    """The studies that given paths hold.

    Args:
      paths: folders and files of any kind that `files.read_volume` reads, and tables (``.csv``)
        with the columns ``study``, one a channel, and optionally ``pixel_mm`` and ``slice``.
      needs: what each channel must show, `CohortBuilder.wanted`.
      series: ``--series``: a number or UID, or ``t1=3,t2=5``; see `choice.parse_series`.
      pixel_mm: of PNGs, where the table does not say it.
      slice_index: of the slice that is meant, likewise.
      names: names the studies; None keeps ids: studies are called as the user calls them.

    Raises:
      UserError: `series` is wrong, a path is missing, a table is wrong, or there is no study.
    """
    picks = choice.parse_series(series, needs)
    roots = tuple(dict.fromkeys(Path(path) for path in paths))
    labels = {root: input_label(i, len(roots)) for i, root in enumerate(roots, start=1)}
    keep_ids = names is None
    tables = [root for root in roots if root.suffix.lower() == ".csv" and root.is_file()]
    folders = {root: label for root, label in labels.items() if root not in tables}
    notes: list[str] = []
    listed = [row for root in tables for row in _table(root, labels[root], needs, keep_ids, notes)]
    skipped = Skipped()
    dicom, named = _searched(folders, needs, skipped)
    _check_picks(picks, dicom)
    drafts = [of_dicom(study, needs, picks, roots, keep_ids) for study in dicom]
    drafts += [of_names(study, needs, roots) for study in named]
    drafts += [of_table(row, roots) for row in listed]
    if not drafts:
        what = " ".join(skipped.sentences(keep_ids)) or "It holds no file."
        raise UserError(f"--input holds no image that is read; check the path. {what}")
    found = _named(drafts, names)
    size = math.nan if pixel_mm is None else pixel_mm
    return Found(
        tuple(_filled(study, size, slice_index) for study in found if isinstance(study, NewStudy)),
        tuple(study for study in found if isinstance(study, Refused)),
        (*notes, *skipped.sentences(keep_ids)),
    )


def write_names(path: Path, studies: Sequence[NewStudy | Refused]) -> None:
    """Writes the table that maps names back: name, StudyInstanceUID, PatientID, files.

    Args:
      path: of a new file, which nobody else may read from its first byte on.
      studies: named.

    Raises:
      UserError: it exists, or cannot be written.
    """
    identities = [(study.name, study.identity) for study in studies]
    rows = [(name, i.study_uid, i.patient_id, i.sources) for name, i in identities]
    write_private(path, table(rows))


def _check_picks(picks: Mapping[str, choice.Pick], studies: Sequence[DicomStudy]) -> None:
    if picks and not studies:
        raise UserError("--series chooses among DICOM series, and there are none; leave it out.")
    uids = {shown.stack.uid for study in studies for shown in study.series}
    if any(pick.uid and pick.uid not in uids for pick in picks.values()):
        raise UserError("--series gives a UID that no series has; check it.")


def _searched(
    roots: Mapping[Path, str], needs: Mapping[str, Wanted], skipped: Skipped
) -> tuple[list[DicomStudy], list[NamedStudy]]:
    kinds: dict[str, list[Path]] = {"dicom": [], "volume": [], "doubtful": []}
    files = files_below(roots, skipped)
    for kind, path in sort_kinds(counted(files, "files"), skipped):
        kinds[kind].append(path)
    dicom = dicom_studies(kinds["dicom"], kinds["doubtful"], skipped)
    taken = {file.parent for study in dicom for file in study.files}
    volumes = []
    for path in kinds["volume"]:
        if path.parent in taken:
            skipped.add("an image of another format among DICOM images", path)
        else:
            volumes.append(path)
    return dicom, named_studies(volumes, needs, skipped)


def _table(
    path: Path, label: str, needs: Mapping[str, Wanted], keep_ids: bool, notes: list[str]
) -> list[Listed]:
    name = printable(path) if keep_ids else f"{label}, the table,"
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            rows = read_listed(path, needs)
        except UserError as error:
            raise UserError(str(error).replace(str(path), name)) from error
    told = [w.message for w in caught if isinstance(w.message, FileNote)]
    notes += [f"{name} {message.what}." for message in told]
    return rows


def _named(
    drafts: Sequence[NewStudy | Refused], names: Pseudonyms | None
) -> list[NewStudy | Refused]:
    """Named and sorted by name, so that their order says nothing either."""
    drafts = sorted(drafts, key=lambda d: (d.identity.sources[:1], d.identity.key))
    if names is None:
        called = _own_names([draft.identity.own_name for draft in drafts])
    else:
        called = names.names([draft.identity.key for draft in drafts])
    found = [dataclasses.replace(d, name=name) for d, name in zip(drafts, called, strict=True)]
    return sorted(found, key=lambda study: study.name)


def _own_names(wanted: Sequence[str]) -> list[str]:
    """Names of the user's own as file names; where two are one, numbers tell them apart."""
    seen: set[str] = set()
    names = []
    for text in wanted:
        plain = re.sub(r"[^\w+-]+", "_", text).strip("_")[:_LONGEST_NAME] or "study"
        name, count = plain, 1
        while name.casefold() in seen:
            count += 1
            name = f"{plain}-{count}"
        seen.add(name.casefold())
        names.append(name)
    return names


def _filled(study: NewStudy, pixel_mm: float, slice_index: int | None) -> NewStudy:
    """What the table leaves open, as it is given for all."""
    own = study.slice_index
    return dataclasses.replace(
        study,
        pixel_mm=pixel_mm if math.isnan(study.pixel_mm) else study.pixel_mm,
        slice_index=slice_index if own is None else own,
    )
