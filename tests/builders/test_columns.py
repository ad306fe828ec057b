"""Values of columns: what must be right, and what may be missing with a note."""

import math
import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from mskjax.data.cohorts import prepare_cohort
from mskjax.errors import BadCases, FileNote, UserError
from mskjax.imaging.volume import Volume
from tfds_builders.columns import (
    Metadata,
    absence,
    check_same,
    choice,
    metadata,
    note_pixel_size,
    number,
    pixel_size,
    shared_part,
    whole,
)
from tfds_builders.raw import RawStudy
from tfds_builders.tables import TableRow

CELL = (
    st.text(max_size=8)
    | st.from_regex(r"[+-]?[0-9]{0,4}[.,]?[0-9]{0,3}(e[+-]?[0-9]{1,3})?[YMWDT]?", fullmatch=True)
    | st.sampled_from(["m", "Female", "nan", "inf", "1_0", "٣", "15000", "061Y", "1e400"])
).map(str.strip)
HEADER = {"sex": "F", "age": 44.5, "manufacturer": "Acme", "field_strength_t": 3.0}


def scan(**meta):
    return Volume(np.zeros((1, 2, 2), np.float32), np.diag([4.0, 1, 1, 1]), meta)


def read(row, **meta):
    """Metadata of a row, and the notes as (file, what, detail)."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        found = metadata(TableRow(row, "studies.csv", 5), scan(**meta))
    notes = [w.message for w in caught if isinstance(w.message, FileNote)]
    return found, [(n.file, n.what, n.detail) for n in notes]


def outcome(function, *arguments):
    """What a function returns, or the sentence with which it refuses."""
    try:
        return function(*arguments)
    except UserError as error:
        return str(error)


def test_numbers_and_words():
    row = {"n": "3.0", "x": "1.5", "empty": "", "inf": "inf", "half": "2.5", "big": "1e400"}
    assert whole(row, "n", 1, 5) == 3
    assert number(row, "x") == 1.5
    assert math.isnan(number(row, "empty"))
    assert math.isnan(number(row, "absent"))
    assert choice(row, "absent", ("a",)) == ""
    for column in ("half", "inf", "empty", "big"):
        with pytest.raises(UserError, match=f"{column} is .*; it must be a whole number, 1 to 5"):
            whole(row, column, 1, 5)
    for column in ("inf", "big"):
        with pytest.raises(UserError, match=f"{column} is"):
            number(row, column)
    with pytest.raises(UserError, match="x is '1.5'; it must be a, b or empty"):
        choice(row, "x", ("a", "b"))


def test_a_decimal_comma_is_one_where_commas_do_not_separate():
    cells = {"x": "61,5", "n": "2,0", "many": "1,234,5"}
    row = TableRow(cells, "t.csv", 2, decimal_comma=True)
    assert number(row, "x") == 61.5
    assert whole(row, "n", 0, 5) == 2
    with pytest.raises(UserError, match="many is '1,234,5'; it must be a number"):
        number(row, "many")
    with pytest.raises(UserError, match="x is '61,5'; it must be a number with a decimal point"):
        number(TableRow(cells, "t.csv", 2), "x")


@pytest.mark.parametrize("text", ["0", "0.04", "21", "-1", "one", "0,8", "nan"])
def test_a_pixel_size_that_no_scanner_makes(text):
    with pytest.raises(UserError, match=r"mm is .*; it must be a number.*, 0\.05 to 20"):
        pixel_size({"mm": text}, "mm")
    assert pixel_size({"mm": "0.8"}, "mm") == 0.8
    assert math.isnan(pixel_size({"mm": ""}, "mm"))


@pytest.mark.parametrize(
    ("written", "message"),
    [
        ("P1\\T2.nii", "did you mean p1/t2.nii?"),
        ("p1/T2.NII", "did you mean p1/t2.nii?"),
        ("zo\u00eb/t2.nii", "did you mean zoe\u0308/t2.nii?"),
        ("P1/", "did you mean p1?"),
        (".\\p1\\t2.nii", "did you mean p1/t2.nii?"),
        ("p1/t1.nii", "check the path"),
        ("p1/t2.nii/x", "check the path"),
        ("/nowhere/t2.nii", "check the path"),
        ("../nowhere", "check the path"),
        ("x" * 300, "check the path"),
        ("", "study 's' has no image; fill in its path"),
    ],
)
def test_a_file_that_is_not_there(tmp_path, written, message):
    for folder in ("p1", "zoe\u0308"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "t2.nii").touch()
    row = {"study_id": "s", "image": written}
    assert message in absence(row, "image", tmp_path)
    assert absence({**row, "image": "p1/t2.nii"}, "image", tmp_path) == ""


def test_a_pixel_size_that_the_file_knows_otherwise_is_noted():
    image = scan(files=("i.nii",))
    with pytest.warns(
        FileNote, match=r"is not that of the file.* \(0\.5 mm; voxels of 4 x 1 x 1 mm"
    ):
        note_pixel_size(0.5, image)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for given in (1.0, 1.004, math.nan):
            note_pixel_size(given, image)


def test_the_table_comes_before_the_header_of_the_image():
    row = {"sex": "male", "age": "018M", "manufacturer": "Other", "field_strength_t": "1,5"}
    assert read(row, **HEADER) == (Metadata("M", 1.5, "Other", 1.5, ""), [])
    assert read({"age": "", "subset": "training"}, **HEADER) == (
        Metadata("F", 44.5, "Acme", 3.0, "training"),
        [],
    )
    found, notes = read({})
    assert (found.sex, found.manufacturer, found.subset, notes) == ("", "", "", [])
    assert math.isnan(found.age)
    assert math.isnan(found.field_strength_t)


@pytest.mark.parametrize(
    ("column", "text", "value", "what"),
    [
        ("sex", "woman", "", "sex is neither M nor F"),
        ("age", "-4", math.nan, "age is not a number of years"),
        ("age", "old", math.nan, "age is not a number of years"),
        ("age", "300", math.nan, "age is not a number of years"),
        ("field_strength_t", "64", math.nan, "field strength is not one in tesla"),
        ("field_strength_t", "15000", 1.5, "field strength is taken as gauss"),
    ],
)
def test_what_pixels_do_not_need_is_missing_with_a_note(column, text, value, what):
    found, ((file, said, detail),) = read({column: text})
    assert (file, detail) == ("studies.csv, line 5", text)
    assert said.startswith(what)
    np.testing.assert_equal(getattr(found, column), value)
    # The header of the image may know it.
    understood = text == "15000"
    assert getattr(read({column: text}, **HEADER)[0], column) == (
        value if understood else HEADER[column]
    )


@given(sex=CELL, age=CELL, field=CELL)
def test_whatever_is_written_there_is_a_value_that_can_be_or_none(sex, age, field):
    row = {"sex": sex, "age": age, "field_strength_t": field}
    found, notes = read(row)
    assert found.sex in ("", "M", "F")
    assert math.isnan(found.age) or 0 <= found.age <= 130
    assert math.isnan(found.field_strength_t) or 0 < found.field_strength_t <= 30
    missing = [not found.sex, math.isnan(found.age), math.isnan(found.field_strength_t)]
    said = {what.split()[0] for _, what, _ in notes}
    for is_missing, text, word in zip(missing, row.values(), ("sex", "age", "field"), strict=True):
        if is_missing and text.strip("\0 "):
            assert word in said, text


@given(text=CELL)
def test_whatever_stands_for_a_number_is_one_in_range_or_a_sentence(text):
    row = TableRow({"n": text}, "t.csv", 2, decimal_comma=True)
    for read_it, low, high in ((pixel_size, 0.05, 20), (number, 0, math.inf)):
        value = outcome(read_it, row, "n")
        if isinstance(value, str):
            assert f"n is {text!r}; it must be a number" in value
        else:
            assert low <= value <= high or (math.isnan(value) and not text)
    value = outcome(whole, row, "n", 0, 9)
    assert value in range(10) or "it must be a whole number, 0 to 9" in value


def test_a_wrong_subset_is_refused():
    with pytest.raises(UserError, match="subset is 'test'"):
        read({"subset": "test"})


def test_studies_of_a_patient_say_the_same():
    known = {}
    rows = [("p", "F"), ("p", "female"), ("p", ""), ("q", "M"), ("", "M")]
    for patient, sex in rows:
        check_same({"patient_id": patient, "sex": sex}, "sex", known)
    with pytest.raises(UserError, match="patient 'p' has sex 'F' and 'M'; a patient has one"):
        check_same({"patient_id": "p", "sex": "male"}, "sex", known)


def test_shared_part_names_the_study_and_describes_it():
    part = shared_part(RawStudy("p", "s"), Metadata(age=4.0))
    assert (part["patient_id"], part["study_id"], part["age"]) == ("p", "s", 4.0)
    assert part["sex"] == ""


@pytest.fixture
def raw(tmp_path):
    """Three Y-views as PNG, two of them without a pixel size; a semicolon table."""
    root = tmp_path / "raw"
    root.mkdir()
    fossa = np.zeros((12, 10), np.uint8)
    fossa[3:7, 2:8] = 255  # as painters save it
    for n in range(3):
        grey = np.random.default_rng(n).integers(0, 255, (12, 10)).astype(np.uint8)
        Image.fromarray(grey).save(root / f"{n}.png")
        Image.fromarray(fossa).save(root / f"{n}_seg.png")
    (root / "studies.csv").write_text(
        "sep=;\npatient_id;study_id;image;mask;grade;pixel_mm;age;sex;field_strength_t;\n"
        "p0;s0;0.png;0_seg.png;2;0,4;61,5;F;15000;\n"
        "p1;s1;1.png;1_seg.png;3;;061Y;female;;\n"
        "p2;s2;2.png;2_seg.png;3;;unknown;x;64;\n"
    )
    return root


def package(raw, tmp_path):
    return prepare_cohort("fatty_infiltration", "cohort", tmp_path / "data", raw)


def test_notes_of_all_rows_stand_in_the_audit(raw, tmp_path):
    cohort = package(raw, tmp_path)
    s0, s1, s2 = cohort.studies
    assert (s0["age"], s1["age"], s0["sex"], s1["sex"], s2["sex"]) == (61.5, 61.0, "F", "F", "")
    assert s0["field_strength_t"] == 1.5
    assert np.isnan([s2["age"], s1["field_strength_t"], s2["field_strength_t"]]).all()
    assert [bool(s["pixel_size_known"]) for s in cohort.studies] == [True, False, False]
    assert s0["mask"].max() == 1
    audit = cohort.audit
    assert audit["studies_without_pixel_size"] == 2
    lines = {
        what: dict(files)
        for what, files in audit["file_notes"].items()
        if not what.startswith("is a mask")
    }
    (age,), (sex,) = ([v for k, v in lines.items() if k.startswith(n)] for n in ("age", "sex"))
    assert age == {"studies.csv, line 5": "unknown"}
    assert sex == {"studies.csv, line 5": "x"}
    assert lines["field strength is taken as gauss"] == {"studies.csv, line 3": "15000"}


def test_one_person_under_two_ids_stops_the_packaging(raw, tmp_path):
    table = raw / "studies.csv"
    text = table.read_text().replace("p1;", "P0;")
    table.write_text(text)
    with pytest.raises(BadCases) as caught:
        package(raw, tmp_path)
    ((where, why),) = caught.value.cases
    assert where == "studies.csv, line 4"
    assert "patient_id 'P0' and 'p0' (line 3)" in why
    checked = [
        f"{line}{';id_checked' if n == 1 else ';yes' if n in (2, 3) else ';'}" if n else line
        for n, line in enumerate(text.splitlines())
    ]
    table.write_text("\n".join(checked))
    assert package(raw, tmp_path).patients == ("P0", "p0", "p2")
