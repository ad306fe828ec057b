import numpy as np

from mskjax import subgroups


def test_columns_are_empty_where_the_cohort_does_not_say():
    study = {
        "sex": "F",
        "age": np.float32(54),
        "manufacturer": "SIEMENS ",
        "field_strength_t": np.float32(np.nan),
    }
    assert subgroups.columns(study) == {
        "sex": "F",
        "manufacturer": "SIEMENS",
        "age": 54.0,
        "field_strength_t": "",
    }
    assert set(subgroups.columns({}).values()) == {""}


def test_strata_leave_out_the_small_and_the_single():
    def cases(count, patients, sex, age, manufacturer, field):
        row = {"sex": sex, "age": age, "manufacturer": manufacturer, "field_strength_t": field}
        return [{**row, "patient": f"{sex}{age}{i % patients}"} for i in range(count)]

    rows = cases(6, 3, "F", "39.9", "SIEMENS", "1.5")
    rows += cases(5, 5, "M", "40", "Siemens", "3.0")
    rows += cases(9, 9, "", "", "", "")
    rows += cases(4, 4, "M", "81", "GE", "")  # too few of that age and that maker
    rows += cases(7, 2, "M", "", "", "7")  # enough cases, but of two patients
    found = subgroups.strata(rows)
    assert {g: {s: int(m.sum()) for s, m in d.items()} for g, d in found.items()} == {
        "sex": {"F": 6, "M": 16},
        "age": {"under 40": 6, "40 to 59": 5},
        "field strength": {"1.5 T": 6, "3 T": 5},
    }
    np.testing.assert_array_equal(np.flatnonzero(found["sex"]["F"]), range(6))
