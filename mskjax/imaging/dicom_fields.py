"""Attributes of DICOM data sets: those that pixels need are right or refused, the rest is optional.

Numbers are parsed from the text as it is written, so that what is refused can be shown.
"""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from pydicom.datadict import dictionary_VR
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset

from mskjax.errors import UserError, note
from mskjax.imaging import headers

_TEXT_VRS = ("DS", "IS", "AS", "CS", "UI")  # PS3.5 6.2: plain ASCII, values parted by a backslash
_LONGEST_SHOWN = 80

_TEXTS = {
    "modality": "Modality",
    "manufacturer": "Manufacturer",
    "model": "ManufacturerModelName",
    "patient_id": "PatientID",
    "study_uid": "StudyInstanceUID",
    "series_uid": "SeriesInstanceUID",
    "series_description": "SeriesDescription",
    "frame_of_reference_uid": "FrameOfReferenceUID",
}


def _milliseconds(text: str) -> tuple[float, str]:
    value = headers.number(text)
    is_odd = bool(text) and not math.isfinite(value)
    return value, "a time in ms is no number and left out" if is_odd else ""


_VALUES: dict[str, tuple[str, Callable[[str], tuple[Any, str]]]] = {
    "field_strength_t": ("MagneticFieldStrength", headers.field_strength_t),
    "repetition_time_ms": ("RepetitionTime", _milliseconds),
    "echo_time_ms": ("EchoTime", _milliseconds),
    "age": ("PatientAge", headers.age_years),
    "sex": ("PatientSex", headers.sex),
}


def texts(dataset: Dataset, keyword: str) -> list[str]:
    """The values of an attribute as written; none where it is absent or empty.

    Raises:
      Exception: of any kind, where pydicom cannot make sense of the bytes.
    """
    element = dataset.get_item(keyword)
    if element is None:
        return []
    if isinstance(element, RawDataElement):
        vr = dictionary_VR(element.tag) if element.VR in (None, "UN") else element.VR
        if vr in _TEXT_VRS and isinstance(element.value, bytes):
            return _present(element.value.decode("latin-1").split("\\"))
        element = dataset[keyword]
    value = element.value
    if value is None:
        return []
    if isinstance(value, str | bytes | int | float):
        return _present([str(value)])
    return _present([str(part) for part in value])


def written(dataset: Dataset, keyword: str) -> str:
    """An attribute as text, for what is optional: empty where it is absent or makes no sense."""
    try:
        return "\\".join(texts(dataset, keyword))
    except Exception:  # whatever a library makes of damaged bytes, nothing depends on them
        return ""


def numbers(file: Path, dataset: Dataset, keyword: str, count: int) -> np.ndarray | None:
    """Numbers that the pixels need, (count,) float64; None where the attribute has no value.

    Raises:
      UserError: it has a value, but not `count` finite numbers.
    """
    try:
        parts = texts(dataset, keyword)
    except Exception as error:
        raise UserError(
            f"{file}: {keyword} cannot be read ({error}); export the original series again."
        ) from error
    if not parts:
        return None
    # A decimal comma is no DICOM, and could be two values as well as one.
    values = [math.nan if "," in part else headers.number(part) for part in parts]
    if len(values) != count or not all(map(math.isfinite, values)):
        shown = "\\".join(parts)[:_LONGEST_SHOWN]
        what = "a number" if count == 1 else f"{count} numbers"
        raise UserError(
            f"{file}: {keyword} is {shown}; it must be {what} with a decimal point; mend the"
            " header or export the original series again."
        )
    return np.array(values)


def whole(file: Path, dataset: Dataset, keyword: str, default: int | None = None) -> int:
    """A whole number, 0 or more, that the pixels need.

    Raises:
      UserError: it is another one, or missing and without default.
    """
    values = numbers(file, dataset, keyword, 1)
    if values is None:
        if default is None:
            raise UserError(
                f"{file}: has no {keyword}, so its pixels cannot be read; export it again."
            )
        return default
    if not (values[0].is_integer() and 0 <= values[0] < 2**31):
        raise UserError(
            f"{file}: {keyword} is {values[0]:g}; it must be a whole number, 0 or more; export it"
            " again."
        )
    return int(values[0])


def metadata(path: Path, dataset: Dataset) -> dict[str, Any]:
    """What a header says of patient and acquisition, as in `dicom.read_dicom`.

    What makes no sense is missing, with a note on `path`.
    """
    meta: dict[str, Any] = {}
    for name, keyword in _TEXTS.items():
        if text := _decoded(dataset, keyword):
            meta[name] = text
    for name, (keyword, parse) in _VALUES.items():
        text = written(dataset, keyword)
        value, remark = parse(text)
        if remark:
            note(path, f"{keyword}: {remark}", text[:_LONGEST_SHOWN])
        if value and value == value:  # neither empty nor NaN
            meta[name] = value
    return meta


def _decoded(dataset: Dataset, keyword: str) -> str:
    """Text in the character set of the data set."""
    try:
        return str(dataset.get(keyword) or "")
    except Exception:  # as in `written`
        return ""


def _present(parts: list[str]) -> list[str]:
    stripped = [part.strip(" \0\t\r\n") for part in parts]
    return stripped if any(stripped) else []
