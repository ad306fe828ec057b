"""The attributes of a DICOM header that may identify a patient, and their values in a file.

Source: PS3.15 2024e, table E.1-1 (Basic Application Level Confidentiality Profile); its attributes
are data, ``identifying.json``.
"""

import json
import re
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path

from pydicom.dataset import Dataset
from pydicom.multival import MultiValue

from mskjax.imaging.dicom_file import open_dicom

_CONTENT = json.loads(Path(__file__).with_name("identifying.json").read_text())
# Keyword to what the profile does with it: D a dummy value, Z empty, X removed, U another UID.
IDENTIFYING: Mapping[str, str] = _CONTENT["attributes"]

_DEEPEST = 8  # sequences within sequences; files of scanners have three
_LONGEST_HEADER = 1 << 16  # bytes
_METAIMAGE_WORDS = re.compile(r"MET_\w+|True|False|Image|LOCAL|LIST|[RLAPIS]{3}", re.IGNORECASE)
_PIXELS = 0x7FE0
_STANDARD_UID = "1.2.840.10008."


def identifying_values(
    dataset: Dataset, within: str = "", depth: int = 0
) -> Iterator[tuple[str, str]]:
    """Keyword and text of each identifying attribute of a header, those within sequences too.

    Bytes are left out, since nothing quotes them, and so are UIDs that the standard gives.

    Args:
      dataset: the header, or an item of a sequence.
      within: keyword of an identifying sequence that the item is in: all of it is identifying.
      depth: of the item.
    """
    for tag in list(dataset.keys()):
        if tag.group == _PIXELS:
            continue
        try:
            element = dataset[tag]
        except Exception:  # whatever a library makes of damaged bytes
            continue
        keyword = within or (element.keyword if element.keyword in IDENTIFYING else "")
        if element.VR == "SQ":
            if depth < _DEEPEST:
                for item in element.value or ():
                    yield from identifying_values(item, keyword, depth + 1)
        elif keyword and not isinstance(element.value, bytes):
            text = _text(element.value)
            if text and not text.startswith(_STANDARD_UID):
                yield element.keyword or keyword, text


def values_of_file(path: Path) -> list[tuple[str, str]]:
    """As `identifying_values`, of a file; none where it has no such header or cannot be read.

    Of a MetaImage these are all fields with a text of its own, such as the name of its data file.
    """
    if path.name.lower().endswith((".mhd", ".mha")):
        return list(_metaimage_values(path))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            dataset = open_dicom(path, lazy=True)
            return [*identifying_values(dataset.file_meta), *identifying_values(dataset)]
        except Exception:  # the message about such a file quotes no header
            return []


def _metaimage_values(path: Path) -> Iterator[tuple[str, str]]:
    try:
        with path.open("rb") as file:
            lines = file.read(_LONGEST_HEADER).split(b"\n")
    except OSError:
        return
    for line in lines:
        name, _, value = (part.strip() for part in line.decode("latin-1").partition("="))
        if re.search("[A-Za-z]", value) and not _METAIMAGE_WORDS.fullmatch(value):
            yield name[:40], value
        if name == "ElementDataFile":
            return


def _text(value: object) -> str:
    parts = value if isinstance(value, MultiValue) else [value]
    return "\\".join(str(part).strip(" \0") for part in parts if part not in (None, ""))
