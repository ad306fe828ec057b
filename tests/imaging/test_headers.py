"""Fields that pixels do not need: a right value, or none with the reason."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mskjax.imaging.headers import age_years, field_strength_t, sex


@pytest.mark.parametrize(
    ("text", "years"),
    [
        ("061Y", 61), ("61", 61), ("61,5", 61.5), ("61.5", 61.5), (61, 61), ("018M", 1.5),
        ("104W", 1.993), ("100D", 0.274), (" 007Y\0", 7), ("0", 0), ("130", 130),
    ],
)  # fmt: skip
def test_ages(text, years):
    value, note = age_years(text)
    assert value == pytest.approx(years, abs=1e-3)
    assert note == ""


@pytest.mark.parametrize("text", ["131", "-1", "sixty", "061X", "19610304", "nan", "inf", "6 1"])
def test_what_is_no_age_is_missing_with_a_note(text):
    value, note = age_years(text)
    assert math.isnan(value)
    assert note == "age is not a number of years from 0 to 130 and left out"


@pytest.mark.parametrize(
    ("text", "tesla", "note"),
    [
        ("1.5", 1.5, ""),
        ("1,5", 1.5, ""),
        (0.35, 0.35, ""),
        ("30", 30, ""),
        ("15000", 1.5, "taken as gauss"),
        ("15000,0", 1.5, "taken as gauss"),
        ("5000", 0.5, "taken as gauss"),
        ("120000", 12, "taken as gauss"),
    ],
)
def test_field_strengths(text, tesla, note):
    value, said = field_strength_t(text)
    assert value == pytest.approx(tesla)
    assert said.endswith(note)
    assert bool(said) == bool(note)


@pytest.mark.parametrize("text", ["1500", "3000", "0", "-1.5", "4999", "200000", "1.5T", "nan"])
def test_a_field_strength_of_unknown_unit_is_missing_with_a_note(text):
    """1500 may be millitesla or gauss."""
    value, note = field_strength_t(text)
    assert math.isnan(value)
    assert note == "field strength is not one in tesla and left out"


@pytest.mark.parametrize("text", [None, "", "  ", "\0"])
def test_nothing_is_missing_without_a_note(text):
    assert sex(text) == ("", "")
    for parse in (age_years, field_strength_t):
        value, note = parse(text)
        assert math.isnan(value)
        assert note == ""


@pytest.mark.parametrize(
    ("text", "expected"), [("M", "M"), ("f", "F"), ("Male", "M"), (" FEMALE ", "F")]
)
def test_sexes(text, expected):
    assert sex(text) == (expected, "")


@pytest.mark.parametrize("text", ["O", "x", "1", "MF"])
def test_another_sex_is_missing_with_a_note(text):
    assert sex(text) == ("", "sex is neither M nor F and left out")


@given(st.text(max_size=12))
def test_any_text_has_a_value_or_a_note(text):
    for parse, low, high in ((age_years, 0, 130), (field_strength_t, 0, 30)):
        value, note = parse(text)
        blank = not text.strip().strip("\0").strip()
        assert low <= value <= high or (math.isnan(value) and bool(note) != blank)
