"""What was found, as studies without a name yet: what serves each channel, or why nothing does."""

import dataclasses
import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path

from mskjax.errors import UserError
from mskjax.inputs import choice
from mskjax.inputs.dicom_studies import DicomStudy
from mskjax.inputs.headers import Headers
from mskjax.inputs.names import NamedStudy
from mskjax.inputs.sequence import Shown
from mskjax.inputs.study import Identity, NewStudy, Refused, scrub
from mskjax.inputs.table import Listed
from tfds_builders.images import Wanted
from tfds_builders.raw_files import parts

_MOST_FAULTS = 5


def of_dicom(
    study: DicomStudy,
    needs: Mapping[str, Wanted],
    picks: Mapping[str, choice.Pick],
    roots: tuple[Path, ...],
    keep_ids: bool,
) -> NewStudy | Refused:
    """The study of DICOM images, its series chosen; where it is refused, no file is named."""
    files = (*study.files, *(path for path, _ in study.doubtful))
    identity = Identity(
        key="\0".join((study.uid, study.patient)) if study.uid else _content(study.files[:1]),
        own_name=study.patient or study.files[0].parent.name,
        study_uid=study.uid,
        patient_id=study.patient,
        sources=files,
        roots=roots,
    )
    series = [dataclasses.replace(shown, is_named=keep_ids) for shown in study.series]
    try:
        chosen = choice.choose(series, needs, picks)
    except choice.Unclear as error:
        return Refused("", str(error), identity)
    remarks = []
    for channel, index in chosen.items():
        taken = series[index]
        by_hand = choice.applies(series, picks.get(channel))
        remarks += _remarks(channel, taken, needs[channel], by_hand)
        lacking = study.may_lack(taken.stack)
        if lacking and study.is_alone:
            refused = Refused("", _about_lacking(lacking), identity)
            return dataclasses.replace(refused, why=scrub(refused.why, refused, keep_ids))
        if lacking:
            remarks.append(
                f"beside the images of {channel} {len(lacking)} that cannot be read may be slices"
                " of it, or of another study"
            )
    remarks += [f"has no {c}, which may be left out" for c in needs if c not in chosen]
    return NewStudy(
        name="",
        files={channel: series[i].stack.series() for channel, i in chosen.items()},
        chosen={channel: choice.label(series, i) for channel, i in chosen.items()},
        remarks=tuple(remarks),
        identity=identity,
    )


def _remarks(channel: str, taken: Shown, wanted: Wanted, by_hand: bool) -> list[str]:
    if by_hand:
        return [f"{channel} was chosen by hand"]
    found = []
    if taken.badness:
        flags = ", ".join(taken.flags)
        found.append(f"{channel} is {flags}; it is taken because the study has nothing better")
    if wanted.weightings and not taken.weighting:
        found.append(f"the header does not say the weighting of {channel}; it was not checked")
    return found


def _about_lacking(lacking: Sequence[tuple[Path, str]]) -> str:
    named = "; ".join(f"{path.name}: {why}" for path, why in lacking[:_MOST_FAULTS])
    more = f"; and {len(lacking) - _MOST_FAULTS} more" if len(lacking) > _MOST_FAULTS else ""
    return (
        f"{len(lacking)} file{'s' * (len(lacking) > 1)} beside its images cannot be read and may be"
        f" slices ({named}{more}); copy or export the study again, or take out what is none."
    )


def of_names(
    study: NamedStudy, needs: Mapping[str, Wanted], roots: tuple[Path, ...]
) -> NewStudy | Refused:
    """The study of files that their names tell."""
    own = (path for paths in (*study.files.values(), study.unclear) for path in paths)
    sources = tuple(part for path in own for part in _parts(path))
    first = next((study.files[c] for c in needs if c in study.files), study.unclear)
    identity = Identity(_content(first[:1]), study.name, sources=sources, roots=roots)
    missing = [c for c, wanted in needs.items() if c not in study.files and not wanted.optional]
    several = [c for c, paths in study.files.items() if len(paths) > 1]
    ends = " and ".join(f"_{channel}" for channel in needs)
    if study.unclear:
        why = f"no name says which channel a file is; end names in {ends}, or give a table."
    elif missing:
        why = (
            f"has no {' and '.join(missing)}, only {' and '.join(study.files)}; end names in {ends}"
            " with the same beginning, or give a table."
        )
    elif any(map(_leads_out, sources)):
        why = "its MetaImage names a data file outside of its folder; put that beside the header."
    elif several:
        why = f"several files are its {' and '.join(several)} by their names; give a table."
    else:
        absent = [f"has no {c}, which may be left out" for c in needs if c not in study.files]
        return NewStudy(
            name="",
            files={c: study.files[c][0] for c in needs if c in study.files},
            chosen={c: "the file of that name" for c in needs if c in study.files},
            remarks=tuple(absent),
            identity=identity,
        )
    return Refused("", why, identity)


def of_table(row: Listed, roots: tuple[Path, ...]) -> NewStudy | Refused:
    """The study of a row of a table."""
    files = tuple(file for path in row.files.values() for file in _parts(path))
    uid, patient = _dicom_ids(files)
    key = "\0".join((uid, patient)) if uid else _content(files[:1])
    if not files:
        key = f"{row.name}\0{row.why}"
    given = (*roots, *row.files.values())
    identity = Identity(key, row.name, uid, patient, files, given)
    if row.why:
        return Refused("", row.why, identity)
    return NewStudy(
        name="",
        files=row.files,
        chosen=dict.fromkeys(row.files, "as the table says"),
        remarks=(),
        identity=identity,
        pixel_mm=row.pixel_mm,
        slice_index=row.slice_index,
    )


def _parts(path: Path) -> list[Path]:
    try:
        return parts(path)
    except OSError:  # said when it is read
        return [path]


def _leads_out(path: Path) -> bool:
    """Whether a MetaImage header names a data file that lies, or leads, out of its folder."""
    folder = path.resolve().parent
    return any(not part.resolve().is_relative_to(folder) for part in _parts(path))


def _dicom_ids(files: Sequence[Path]) -> tuple[str, str]:
    """StudyInstanceUID and PatientID of the first file that has them."""
    for file in files:
        try:
            header = Headers().read(file)
        except (UserError, OSError):
            continue
        if not isinstance(header, str):
            return header.study
    return "", ""


def _content(files: Sequence[Path]) -> str:
    """What tells a study by its first file: content, not name."""
    state = hashlib.sha256()
    for path in (part for file in files for part in _parts(file)):
        try:
            with path.open("rb") as file:
                state.update(hashlib.file_digest(file, "sha256").digest())
        except OSError:
            state.update(str(path).encode(errors="replace"))
    return state.hexdigest()
