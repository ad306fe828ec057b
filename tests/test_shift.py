"""Two cohorts side by side."""

import json

import numpy as np
import pytest

from mskjax.metrics.grading import Grading
from mskjax.shift import Side, shift_table

GRADE = Grading("grade", ("none", "mild", "severe"), ordinal=True)


def studies(prefix, spacing, vendors, sexes, ages=None, twice=False):
    rows = []
    for n, (s, v, x) in enumerate(zip(spacing, vendors, sexes, strict=True)):
        row = {"patient": f"{prefix}{n}", "study": f"{prefix}{n}", "spacing_row_mm": s, "slices": 9}
        row |= {"manufacturer": v, "field_strength_t": 1.5, "sex": x}
        row["age"] = ages[n] if ages else ""
        rows += [row, {**row, "study": f"{prefix}{n}b"}] if twice else [row]
    return [{k: str(v) for k, v in row.items()} for row in rows]


def graded(grades):
    return [
        {"kind": "grade", "case": str(n // 2), "reference_grade": g} for n, g in enumerate(grades)
    ]


@pytest.fixture(scope="module")
def table():
    a = studies(
        "a", [0.5, 0.6, 0.7, ""], ["SIEMENS", "Siemens", "GE", ""], "FFMM", [40, 50, 60, 70]
    )
    b = studies("b", [0.9, 1.1], ["GE", "GE"], "FM", twice=True)
    cases = graded(["none", "none", "mild", "mild", "severe", "severe", "none", "none"])
    ours, theirs = Side("training", a, cases), Side("external", b, graded(["mild"] * 8))
    return shift_table(ours, theirs, [GRADE])


def row_of(table, name):
    (found,) = [row[1:] for row in table["rows"] if row[0] == name]
    return found


def test_numbers_have_mean_spread_and_a_difference_without_a_unit(table):
    found = row_of(table, "Distance of rows, mm")
    assert found[:4] == ["0.6 (0.1; 0.5 to 0.7)", "25 %", "1 (0.12; 0.9 to 1.1)", "0 %"]
    a, b = [0.5, 0.6, 0.7], [0.9, 0.9, 1.1, 1.1]
    scale = np.sqrt((np.var(a, ddof=1) + np.var(b, ddof=1)) / 2)
    assert found[4] == pytest.approx((np.mean(b) - np.mean(a)) / scale)
    assert row_of(table, "Slices")[4] == 0.0  # nothing varies and nothing differs


def test_categories_are_counted_over_those_who_say(table):
    found = row_of(table, "Manufacturer: Siemens")
    assert found[:4] == ["2 of 3 (67 %)", "25 %", "0 of 4 (0 %)", "0 %"]
    assert found[4] == pytest.approx(-2 / 3 / np.sqrt(2 / 9 / 2))
    assert row_of(table, "Field strength: 1.5 T")[0] == "4 of 4 (100 %)"


def test_sex_and_age_are_of_patients_and_grades_of_cases(table):
    assert row_of(table, "Patients")[:3] == ["4", "", "2"]
    assert row_of(table, "Studies")[:3] == ["4", "", "4"]
    assert row_of(table, "Sex: F")[:4] == ["2 of 4 (50 %)", "0 %", "1 of 2 (50 %)", "0 %"]
    found = row_of(table, "Age, years")
    assert found == ["55 (13; 40 to 70)", "0 %", "not known", "100 %", None]
    assert row_of(table, "Reference, grade: none")[0] == "2 of 4 (50 %)"  # two readings a case
    assert [r[0] for r in table["rows"]][-3:] == [f"Reference, grade: {g}" for g in GRADE.classes]


def test_what_neither_says_is_left_out(table):
    assert not [r for r in table["rows"] if r[0].startswith("Height")]


def test_cohorts_that_share_nothing_have_no_difference():
    ours = Side("a", studies("a", [1, 1], ["GE", "GE"], "FF"))
    theirs = Side("b", studies("b", [2, 2], ["Philips", "Philips"], "MM"))
    found = shift_table(ours, theirs)
    assert row_of(found, "Distance of rows, mm")[4] is None
    assert row_of(found, "Sex: F")[4] is None


def test_it_is_a_table_of_a_report(table):
    assert all(len(row) == len(table["columns"]) for row in table["rows"])
    json.dumps(table, allow_nan=False)
