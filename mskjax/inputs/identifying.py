"""The attributes of a DICOM header that may identify a patient, and their values in a file.

Source: PS3.15 2024e, table E.1-1 (Basic Application Level Confidentiality Profile); its attributes
are data, ``identifying.json``.
"""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path

from pydicom.dataset import Dataset

from mskjax.imaging.dicom_fields import written
from mskjax.imaging.dicom_file import open_dicom

_CONTENT = json.loads(Path(__file__).with_name("identifying.json").read_text())
# Keyword to what the profile does with it: D a dummy value, Z empty, X removed, U another UID.
IDENTIFYING: Mapping[str, str] = _CONTENT["attributes"]

_DEEPEST = 8  # sequences within sequences; files of scanners have three


def identifying_values(dataset: Dataset, depth: int = 0) -> Iterator[tuple[str, str]]:
    """Keyword and text of each identifying attribute of a header, those within sequences too.

    Values of numbers and bytes are left out: nothing quotes them.
    """
    for tag in list(dataset.keys()):
        try:
            element = dataset[tag]
        except Exception:  # whatever a library makes of damaged bytes
            continue
        if element.VR == "SQ":
            if depth < _DEEPEST:
                for item in element.value or ():
                    yield from identifying_values(item, depth + 1)
        elif (
            element.keyword in IDENTIFYING
            and not isinstance(element.value, bytes)
            and (text := written(dataset, element.keyword))
        ):
            yield element.keyword, text


def values_of_file(path: Path) -> list[tuple[str, str]]:
    """As `identifying_values`, of a file; none where it is no DICOM or cannot be read."""
    try:
        dataset = open_dicom(path, pixels=False)
        return [*identifying_values(dataset.file_meta), *identifying_values(dataset)]
    except Exception:  # the message about such a file quotes no header
        return []
