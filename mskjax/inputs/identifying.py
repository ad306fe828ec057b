"""The attributes of a DICOM header that may identify a patient, and their values in a file.

Source: PS3.15 2024e, table E.1-1 (Basic Application Level Confidentiality Profile); its attributes
are data, ``identifying.json``.
"""

import json
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
    """As `identifying_values`, of a file; none where it is no DICOM or cannot be read."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            dataset = open_dicom(path, lazy=True)
            return [*identifying_values(dataset.file_meta), *identifying_values(dataset)]
        except Exception:  # the message about such a file quotes no header
            return []


def _text(value: object) -> str:
    parts = value if isinstance(value, MultiValue) else [value]
    return "\\".join(str(part).strip(" \0") for part in parts if part not in (None, ""))
