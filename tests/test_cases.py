"""cases.csv: its columns, what is refused, and that gradings survive the way through it."""

import csv

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mskjax import cases
from mskjax.errors import UserError
from mskjax.metrics.grading import Grading
from mskjax.tables import write_rows

TWO = Grading("task_a", ("low_grade", "high_grade"))
FIVE = Grading("pfirrmann", ("i", "ii", "iii", "iv", "v"), ordinal=True)
WHO = {"fold": 0, "seed": 7, "patient": "p1", "study": "s1", "kind": "grade", "case": "s1/1"}
P = np.array([0.25, 0.75])


def row(grading=TWO, reference=1, p=P, oracle=P, majority=0, ridge=0.4, **more):
    methods = {"model": p}, {"model": oracle}, {"majority": majority, "ridge": ridge}
    return {**WHO, **cases.cells(grading, reference, *methods), **more}


def written(tmp_path, rows):
    """Rows after a way through a file."""
    path = tmp_path / "cases.csv"
    cases.write(path, rows)
    return cases.read(path)


def refusal(rows):
    with pytest.raises(UserError) as caught:
        cases.check(rows, "cases.csv")
    return str(caught.value)


def test_the_columns_of_a_graded_case():
    assert row() == {
        **WHO,
        "reference_task_a": "high_grade",
        "call_task_a": "high_grade",
        "p_model_task_a_low_grade": 0.25,
        "p_model_task_a_high_grade": 0.75,
        "oracle_p_model_task_a_low_grade": 0.25,
        "oracle_p_model_task_a_high_grade": 0.75,
        "baseline_majority_task_a": "low_grade",
        "baseline_ridge_task_a": 0.4,
    }
    cases.check([row()], "cases.csv")


def test_the_call_is_that_of_the_first_method():
    found = {"z_score_volume": np.array([0.1, 0.9]), "none": np.array([0.9, 0.1])}
    columns = cases.cells(TWO, 0, found, {}, {})
    assert columns["call_task_a"] == "high_grade"
    assert columns["p_none_task_a_low_grade"] == 0.9
    found["z_score_volume"] = None
    assert "call_task_a" not in cases.cells(TWO, 0, found, {}, {})


def test_what_is_not_known_leaves_its_cells_empty(tmp_path):
    """A missed region, a case without label, one without reference region, no baseline."""
    missed = row(p=None, ridge=None)
    assert not any(k.startswith(("call", "p_", "baseline_ridge")) for k in missed)
    rows = written(tmp_path, [row(), missed, row(reference=-1), row(oracle=None, majority=None)])
    first, missed, unlabelled, bare = rows
    empty = ("call_task_a", "p_model_task_a_high_grade", "baseline_ridge_task_a")
    assert [missed[name] for name in empty] == [""] * 3
    assert missed["oracle_p_model_task_a_high_grade"] == "0.75"
    assert unlabelled["reference_task_a"] == ""
    assert unlabelled["call_task_a"] == first["call_task_a"]
    assert bare["oracle_p_model_task_a_high_grade"] == bare["baseline_majority_task_a"] == ""


def test_missed_cells_are_read_as_missed_and_cost_nothing_yet(tmp_path):
    found = cases.graded(written(tmp_path, [row(), row(p=None, ridge=None)]), TWO)
    p = found.probabilities(TWO, "model")
    np.testing.assert_array_equal(p, [P, [np.nan, np.nan]])
    assert TWO.calls(p).tolist() == [1, TWO.missed]
    np.testing.assert_array_equal(found.probabilities(TWO, "model", oracle=True), [P, P])
    np.testing.assert_array_equal(found.baseline(TWO, "ridge"), [0.4, np.nan])
    np.testing.assert_array_equal(found.baseline(TWO, "majority"), [0, 0])


def test_graded_are_the_rows_with_a_label_of_the_task(tmp_path):
    rows = [
        {**WHO, "kind": "structure", "name": "disc", "dice": 0.9},
        row(FIVE, 4, np.full(5, 0.2), None, patient="p3"),
        row(reference=-1),
        row(reference=0, patient="p2"),
    ]
    found = cases.graded(written(tmp_path, rows), TWO)
    assert (found.patients, found.reference.tolist()) == (["p2"], [0])
    assert found.reference.dtype == np.int32
    ordered = cases.graded(written(tmp_path, rows), FIVE)
    assert (ordered.patients, ordered.reference.tolist()) == (["p3"], [4])
    assert np.isnan(ordered.probabilities(FIVE, "model", oracle=True)).all()
    nothing = cases.graded(rows[:1], TWO)
    assert (nothing.patients, len(nothing.reference)) == ([], 0)


@st.composite
def graded_cases(draw):
    grading = draw(st.sampled_from([TWO, FIVE]))
    count = len(grading.classes)
    shares = st.lists(st.integers(0, 10**6), min_size=count, max_size=count).filter(any)
    probabilities = st.none() | shares.map(lambda v: np.array(v) / np.sum(v))
    one = st.tuples(st.integers(-1, count - 1), probabilities, probabilities)
    return grading, draw(st.lists(one, min_size=1, max_size=6))


@given(graded_cases())
def test_gradings_survive_the_way_through_the_file(tmp_path_factory, drawn):
    """Labels, probabilities to six decimals, gaps, and the call that the probabilities give."""
    grading, members = drawn
    rows = [row(grading, k, p, q, study=f"s{i}") for i, (k, p, q) in enumerate(members)]
    text = written(tmp_path_factory.mktemp("cases"), rows)
    found = cases.graded(text, grading)
    kept = [m for m in members if m[0] >= 0]
    assert found.reference.tolist() == [k for k, *_ in kept]
    nothing = np.full(len(grading.classes), np.nan)
    for number, oracle in ((1, False), (2, True)):
        expected = [nothing if m[number] is None else m[number] for m in kept]
        p = found.probabilities(grading, "model", oracle)
        np.testing.assert_allclose(p, np.reshape(expected, (-1, len(grading.classes))), atol=5.1e-7)
    # What the table says was called is what whoever computes it from the table gets.
    calls = [
        (*grading.classes, "")[k] for k in grading.calls(found.probabilities(grading, "model"))
    ]
    assert [r.get("call_" + grading.task, "") for r in found.rows] == calls


def test_a_probability_that_rounds_to_a_half_is_called_as_it_is_written(tmp_path):
    close = np.array([0.5000002, 0.4999998])
    (text,) = written(tmp_path, [row(p=close)])
    assert (text["p_model_task_a_high_grade"], text["call_task_a"]) == ("0.5", "high_grade")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("reference_task_a", "high grade"),
        ("call_task_a", "1"),
        ("baseline_majority_task_a", "2"),
    ],
)
def test_a_class_that_is_none_is_refused(name, value):
    rows = [row(), row(**{name: value})]
    with pytest.raises(UserError, match=f"{name} is '{value}'; it must be one of low_grade, high"):
        cases.graded(rows, TWO)


@pytest.mark.parametrize(
    "name",
    ["reference", "p", "predicted", "oracle", "ridge_A", "baseline_mean_task_a", "dice_disc", ""],
)
def test_unknown_columns_are_refused(name, tmp_path):
    rows = [WHO, {**WHO, name: "1"}]
    assert f"unknown column {name}; docs/cases.md lists" in refusal(rows)
    # To write such a row is an error of the program, to read it one of the file.
    with pytest.raises(ValueError, match="unknown column"):
        cases.write(tmp_path / "cases.csv", rows)
    assert not list(tmp_path.iterdir())
    write_rows(tmp_path / "cases.csv", rows)
    with pytest.raises(UserError, match=r"cases\.csv: unknown column"):
        cases.read(tmp_path / "cases.csv")


def test_all_unknown_columns_are_named_together():
    assert "unknown column p, q;" in refusal([{**WHO, "q": 1}, {**WHO, "p": 1}])


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"kind": "disc"}, "kind is 'disc', not one of structure, regions, detection, box, grade"),
        ({"kind": ""}, "kind is ''"),
        ({"patient": ""}, "patient is empty"),
        ({"study": None}, "study is empty"),
        ({"fold": ""}, "fold is '', not the number of a fold"),
        ({"fold": "one"}, "fold is 'one'"),
        ({"dice": "high"}, "dice is 'high', not a number"),
        ({"found": "yes"}, "found is 'yes', not a number"),
        ({"p_model_task_a_low_grade": "0,5"}, "p_model_task_a_low_grade is '0,5', not a number"),
        ({"oracle_p_none_modic_mc0": "-"}, "oracle_p_none_modic_mc0 is '-'"),
        ({"baseline_ridge_task_a": "low_grade"}, "baseline_ridge_task_a is 'low_grade'"),
    ],
)
def test_rows_that_are_not_of_the_schema_are_refused_with_their_line(change, problem):
    message = refusal([WHO, {**WHO, **change}])
    assert message.startswith("cases.csv, line 3: ")
    assert problem in message


def test_bad_rows_are_listed_together_and_the_list_ends():
    bad = {**WHO, "patient": "", "kind": "disc"}
    message = refusal([bad, WHO, bad])
    assert message.count("line 2: ") == message.count("line 4: ") == 2
    assert refusal([bad] * 10).endswith("; and 15 more.")


@pytest.mark.parametrize("kind", cases.KINDS)
def test_every_kind_and_every_column_of_the_schema_is_taken(kind, tmp_path):
    columns = {**dict.fromkeys(cases.FIXED, ""), **WHO, "kind": kind, "dice": np.float32(0.5)}
    columns |= {"hd95": np.inf, "age": 54.0, "loss": np.nan, "finding_fluid sign": "1"}
    columns |= {"reader_first-year": "benign", "aided_first-year": ""}
    (text,) = written(tmp_path, [columns])
    assert (text["dice"], text["hd95"], text["age"]) == ("0.5", "inf", "54.0")


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("0,p1,s1,grade,extra", "line 2: more cells than the table has columns"),
        ("0,p1", "line 2: study is empty"),
    ],
)
def test_a_line_of_another_length_is_refused(line, problem, tmp_path):
    path = tmp_path / "cases.csv"
    path.write_text(f"fold,patient,study,kind\n{line}\n")
    with pytest.raises(UserError, match=problem):
        cases.read(path)


def test_a_row_may_hold_fewer_columns_than_the_table(tmp_path):
    rows = written(tmp_path, [{**WHO, "dice": 0.5}, {**WHO, "level": "level 1"}])
    assert rows[0]["level"] == rows[1]["dice"] == ""
    with (tmp_path / "cases.csv").open(newline="") as file:
        assert next(csv.reader(file)) == [*WHO, "dice", "level"]
