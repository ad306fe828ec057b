"""Header fields and table cells that pixels do not need: the value, or none with the reason.

Such a field never stops a study: what cannot be understood is missing, and the reason is a note.
"""

import math
import re

MOST_FIELD_STRENGTH_T = 30.0
MOST_YEARS = 130.0

_GAUSS_PER_TESLA = 10_000.0
# Below this, gauss and millitesla cannot be told apart (1500 is .15 T or 1.5 T).
_LEAST_GAUSS, _MOST_GAUSS = 5_000.0, 120_000.0
_YEARS = {"Y": 1.0, "M": 1 / 12, "W": 7 / 365.25, "D": 1 / 365.25}


def age_years(text: object) -> tuple[float, str]:
    """Age in years.

    Args:
      text: a DICOM age string (PS3.5 6.2: ``061Y``, ``018M``, ``010W``, ``100D``), or a number of
        years, with decimal point or comma.

    Returns:
      The age, 0 to 130, or NaN; and why it is NaN or how it was understood, "" where plain.
    """
    written = _written(text)
    if not written:
        return math.nan, ""
    match = re.fullmatch(r"(\d{1,4})\s*([YMWDymwd])", written)
    years = int(match[1]) * _YEARS[match[2].upper()] if match else number(written)
    if not 0 <= years <= MOST_YEARS:  # NaN is not either
        return math.nan, f"age is not a number of years from 0 to {MOST_YEARS:g} and left out"
    return years, ""


def field_strength_t(text: object) -> tuple[float, str]:
    """Field strength in tesla.

    Args:
      text: a number, with decimal point or comma, of tesla; 5000 to 120000 is taken as gauss.

    Returns:
      The strength, above 0 and up to 30 T, or NaN; and why it is NaN or how it was understood, ""
      where plain.
    """
    written = _written(text)
    if not written:
        return math.nan, ""
    value = number(written)
    if 0 < value <= MOST_FIELD_STRENGTH_T:
        return value, ""
    if _LEAST_GAUSS <= value <= _MOST_GAUSS:
        return value / _GAUSS_PER_TESLA, "field strength is taken as gauss"
    return math.nan, "field strength is not one in tesla and left out"


def sex(text: object) -> tuple[str, str]:
    """``M`` or ``F``.

    Args:
      text: ``M``, ``F``, ``male`` or ``female`` in any case.

    Returns:
      The sex, or ""; and why it is "", "" where plain or where nothing is written.
    """
    written = _written(text).upper()
    if written in ("M", "MALE"):
        return "M", ""
    if written in ("F", "FEMALE"):
        return "F", ""
    return "", "sex is neither M nor F and left out" if written else ""


def number(written: str) -> float:
    """The number that a text is, with decimal point or comma; NaN where it is none."""
    if not re.fullmatch(r"[+-]?(\d+([.,]\d*)?|[.,]\d+)([eE][+-]?\d+)?", written):
        return math.nan
    return float(written.replace(",", "."))


def _written(text: object) -> str:
    return "" if text is None else str(text).strip().strip("\0").strip()
