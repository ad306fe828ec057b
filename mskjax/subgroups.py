"""Subgroups in which a report repeats its figures: who was imaged, and on what."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mskjax.imaging.levels import level_name, spoken
from mskjax.tables import Row

# Fewer give no figure worth printing.
LEAST_CASES, LEAST_PATIENTS = 5, 3
AGES = ((0, 40), (40, 60), (60, 200))
_FROM_BELOW = {level_name(level): level for level in range(1, 24)}


def columns(study: Mapping[str, Any]) -> Row:
    """The columns of cases.csv that `strata` reads; empty where the cohort does not say.

    Args:
      study: a packaged study.
    """
    row = {"sex": study.get("sex", ""), "manufacturer": study.get("manufacturer", "").strip()}
    for name in ("age", "field_strength_t"):
        value = float(study.get(name, np.nan))
        row[name] = "" if np.isnan(value) else round(value, 2)
    return row


def strata(rows: Sequence[Row]) -> dict[str, dict[str, np.ndarray]]:
    """Divides cases by level (lowest first), side, sex, age, manufacturer and field strength.

    Args:
      rows: of cases.csv, all values as text.

    Returns:
      Group -> stratum -> (N,) bool.  Strata of fewer than `LEAST_CASES` cases or `LEAST_PATIENTS`
      patients, and groups with fewer than two strata, are left out.
    """
    named = {
        "level": [spoken(r.get("level", "")) for r in rows],
        "side": [r.get("side", "") for r in rows],
        "sex": [r.get("sex", "") for r in rows],
        "age": [_age(r.get("age", "")) for r in rows],
        "manufacturer": [r.get("manufacturer", "").title() for r in rows],
        "field strength": [
            f"{float(t):g} T" if (t := r.get("field_strength_t")) else "" for r in rows
        ],
    }
    return {
        group: found
        for group, values in named.items()
        if len(found := divide(values, [r["patient"] for r in rows])) > 1
    }


def divide(values: Sequence[str], patients: Sequence[str]) -> dict[str, np.ndarray]:
    """(N,) bool of each value that enough cases and patients have; the empty value is nobody's."""
    array, owners = np.array(values, object), np.array(patients, object)
    order = sorted(set(values), key=lambda v: (_FROM_BELOW.get(v, 0), v))
    masks = {str(v): array == v for v in order if v}
    return {
        value: mask
        for value, mask in masks.items()
        if mask.sum() >= LEAST_CASES and len(set(owners[mask])) >= LEAST_PATIENTS
    }


def _age(text: Any) -> str:
    if text in ("", None):
        return ""
    low, high = next((a, b) for a, b in AGES if a <= float(text) < b)
    return (
        f"under {high}"
        if not low
        else f"{low} and over"
        if high == AGES[-1][1]
        else (f"{low} to {high - 1}")
    )
