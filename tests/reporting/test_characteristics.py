"""The table of who was studied, against counts by hand."""

import pytest

from mskjax.metrics.grading import Grading
from mskjax.reporting import characteristics
from mskjax.tables import write_rows

GRADING = Grading("g", ("low", "high"))


def row(study, patient, reference, **more):
    return {"kind": "grade", "study": study, "patient": patient, "case": f"{study}/1",
            "reference_g": reference} | more  # fmt: skip


ROWS = [
    row("a1", "a", "low", sex="f", age="40.0"),
    row("a2", "a", "high", sex="f", age="40.0"),
    row("b1", "b", "high", sex="", age=""),
    row("c1", "c", "low", sex="m", age="60.0", manufacturer="SIEMENS"),
    {"kind": "structure", "study": "d1", "patient": "d"},
]
TESTED = {"Fold 0": ["a", "b"], "Fold 1": ["c", "d"]}


@pytest.fixture
def table(tmp_path):
    def of(profiles=()):
        for fold, rows in enumerate(profiles):
            (tmp_path / f"fold_{fold}").mkdir()
            write_rows(tmp_path / f"fold_{fold}" / "profile.csv", rows)
        found = characteristics.table(tmp_path, ROWS, TESTED, [GRADING])
        assert found["columns"] == ["", "All", "Fold 0", "Fold 1", "Missing"]
        assert all(len(own) == 5 for own in found["rows"])
        return {own[0]: own[1:] for own in found["rows"]}

    return of


def test_patients_studies_and_cases_are_counted_each_by_themselves(table):
    found = table()
    assert found["Patients"] == ["4", "2", "2", "–"]
    assert found["Studies"] == ["5", "3", "2", "–"]
    # Of patients: one of two is known in each fold; b and d say nothing.
    assert found["Sex: F"] == ["1 of 2 (50 %)", "1 of 1 (100 %)", "0 of 1 (0 %)", "50 %"]
    assert found["Age, years"] == ["50 (14; 40 to 60)", "40 (40 to 40)", "60 (60 to 60)", "50 %"]
    # Of studies.
    assert found["Manufacturer: Siemens"][0] == "1 of 1 (100 %)"
    assert found["Manufacturer: Siemens"][-1] == "80 %"
    # Of cases, in the order of the classes.
    assert found["Class, g: low"] == ["2 of 4 (50 %)", "1 of 3 (33 %)", "1 of 1 (100 %)", "0 %"]
    assert list(found)[-2:] == ["Class, g: low", "Class, g: high"]


def test_what_nobody_says_is_said_to_be_missing(table):
    assert table()["Field strength"] == ["not known", "not known", "not known", "100 %"]


def test_geometry_comes_from_what_folds_were_trained_on(table):
    def profile(study, patient, spacing):
        return {"patient": patient, "study": study, "slices": 9, "spacing_slice_mm": spacing}

    found = table([[profile("c1", "c", 4.0)], [profile("a1", "a", 3.0), profile("b1", "b", "")]])
    assert found["Distance of slices, mm"][:3] == ["3.5 (0.71; 3 to 4)", "3 (3 to 3)", "4 (4 to 4)"]
    assert found["Distance of slices, mm"][3] == "60 %"
