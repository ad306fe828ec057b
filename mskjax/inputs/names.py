"""Studies of NIfTI, MetaImage and PNG files, whose headers do not say: told and paired by name."""

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from mskjax.inputs.walk import VOLUMES, Skipped
from tfds_builders.images import Wanted, is_png

_MASKS = re.compile(r"(seg|mask|label|labels|roi|segmentation|masks|gt|dseg)", re.IGNORECASE)
_SEQUENCES = re.compile(
    r"(t1|t2|pd|stir|tirm|flair|dwi|adc|localizer|scout)(w|fs|wi)?", re.IGNORECASE
)
_NUMBER = re.compile(r"0\d{3}")  # nnU-Net: CASE_0000.nii.gz, CASE_0001.nii.gz
_MOST_CHANNELS = 8  # of nnU-Net; more numbers count studies
_PARTS = re.compile(r"^(.*?)[\s_.-]*([^\s_.-]+)$")


@dataclass(frozen=True)
class NamedStudy:
    """A study as files are named.

    Attributes:
      name: what the files have in common.
      files: channel to its file, as far as names tell; several where they tell the same.
      unclear: files of which no name tells the channel.
    """

    name: str
    files: Mapping[str, tuple[Path, ...]]
    unclear: tuple[Path, ...] = ()


def stem(path: Path) -> str:
    """The name of a file without what says its format."""
    name = path.name
    suffix = next(s for s in sorted(VOLUMES, key=len, reverse=True) if name.lower().endswith(s))
    return name[: -len(suffix)]


def named_studies(
    files: Sequence[Path], needs: Mapping[str, Wanted], skipped: Skipped
) -> list[NamedStudy]:
    """Files of one folder after another as studies.

    ``STUDY_t1.nii.gz`` and ``STUDY_t2.nii.gz`` are one study, and so are ``STUDY_0000.nii.gz`` and
    ``STUDY_0001.nii.gz``, in the order of the channels, and ``STUDY/t1.nii.gz`` and
    ``STUDY/t2.nii.gz``.  Where there is one channel, a file without such an ending is a study.

    Args:
      files: whose names end in one of `walk.VOLUMES`.
      needs: the channels.
      skipped: takes masks, and sequences that no channel needs.
    """
    found: dict[tuple[Path, str], dict[str, list[Path]]] = {}
    numbered = _numbered_channels(files, len(needs))
    for path in sorted(files):
        if is_png(path) and all(wanted.has_place for wanted in needs.values()):
            skipped.add("a PNG, which says no place in the patient", path)
            continue
        name, channel = _told(stem(path), needs, path.parent in numbered)
        if channel == "mask":
            skipped.add("a mask, by its name", path)
        elif channel == "other":
            skipped.add("another sequence than is needed, by its name", path)
        else:
            folder = Path(os.path.abspath(path.parent))
            study = (folder, name) if name else (folder.parent, folder.name)
            found.setdefault(study, {}).setdefault(channel, []).append(path)
    return [
        NamedStudy(
            name,
            {channel: tuple(paths) for channel, paths in told.items() if channel},
            tuple(told.get("", ())),
        )
        for (_, name), told in sorted(found.items())
    ]


def _numbered_channels(files: Sequence[Path], channels: int) -> set[Path]:
    """Folders in which four digits at the end of a name number channels, not studies.

    There every study has the same numbers from 0 on, and there are several studies or as many
    numbers as channels.
    """
    numbers: dict[Path, dict[str, set[int]]] = {}
    for path in files:
        rest, last = _parts(stem(path))
        if rest and _NUMBER.fullmatch(last):
            numbers.setdefault(path.parent, {}).setdefault(rest, set()).add(int(last))
    found = set()
    for folder, studies in numbers.items():
        most = max(map(max, studies.values())) + 1
        alike = all(own == set(range(most)) for own in studies.values())
        if alike and (most == channels or (len(studies) > 1 and most <= _MOST_CHANNELS)):
            found.add(folder)
    return found


def _parts(name: str) -> tuple[str, str]:
    match = _PARTS.match(name)
    return (match[1], match[2]) if match else ("", name)


def _told(name: str, needs: Mapping[str, Wanted], is_numbered: bool) -> tuple[str, str]:
    """What a name says: of the study, and the channel, ``mask``, ``other``, or "" if nothing."""
    rest, last = _parts(name)
    if _MASKS.fullmatch(last) and rest:
        return rest, "mask"
    if is_numbered and rest and _NUMBER.fullmatch(last):
        channels = list(needs)
        return rest, channels[int(last)] if int(last) < len(channels) else "other"
    for channel, wanted in needs.items():
        words = {channel, *wanted.weightings}
        if re.fullmatch(f"({'|'.join(map(re.escape, words))})w?", last, re.IGNORECASE):
            return rest, channel
    if _SEQUENCES.fullmatch(last) and any(wanted.weightings for wanted in needs.values()):
        return rest, "other"
    return name, next(iter(needs)) if len(needs) == 1 else ""
