"""Cells, rows and figures that differ are named; calls may change where classes tie."""

import pytest

from mskjax.metrics.grading import Grading
from mskjax.verification.differences import Difference, numbers, of_figures, of_json, of_rows
from mskjax.verification.tolerances import EXACT, Tolerance

LOOSE = Tolerance(probability=0.01, overlap=0.1, length=0.5)
ORDINAL = Grading("grade", ("a", "b", "c"), ordinal=True)
NOMINAL = Grading("grade", ("a", "b", "c"))
BINARY = Grading("grade", ("no", "yes"))


def row(p=(0.2, 0.3, 0.5), call="b", grading=ORDINAL, **more):
    cells = {f"p_model_grade_{name}": str(v) for name, v in zip(grading.classes, p, strict=True)}
    who = {"study": "s", "kind": "grade", "name": "", "case": "s/1", "wrong": "0"}
    return {**who, "call_grade": call, **cells, **more}


def columns(then, now, tolerance=LOOSE, gradings=()):
    found = of_rows("cases.csv", [then], [now], tolerance, gradings)
    return [difference.where.rpartition(" ")[2] for difference in found]


def test_a_cell_is_named_with_its_row_and_both_values():
    (found,) = of_rows("fold_0/cases.csv", [row(dice="")], [row(dice="0.5")], EXACT)
    assert str(found) == ("fold_0/cases.csv, row [s, grade, s/1], column dice: then empty, now 0.5")
    assert of_rows("cases.csv", [row(dice="")], [row()], EXACT) == []


def test_numbers_differ_by_the_last_digit_or_by_the_tolerance():
    then = row(p_model_grade_a="0.200001", dice="0.5", hd95="3.0", regions_found="2")
    now = row(p_model_grade_a="0.200002", dice="0.58", hd95="3.5", regions_found="2")
    assert columns(then, now, EXACT) == ["p_model_grade_a", "dice", "hd95"]
    assert columns(then, now) == []
    assert columns(then, {**now, "regions_found": "3", "dice": "0.61"}) == ["dice", "regions_found"]
    assert columns(then, {**now, "dice": ""}) == ["dice"]
    assert columns(then, {**now, "dice": "nan"}) == ["dice"]


def test_rows_that_are_missing_or_new_are_named():
    one, two = row(), row(case="s/2")
    found = of_rows("cases.csv", [one, two, two], [one, two, row(case="s/3")], LOOSE)
    assert [(d.where, d.then, d.now) for d in found] == [
        ("row [s, grade, s/2, number 2]", "row", "missing"),
        ("row [s, grade, s/3]", "missing", "row"),
    ]


@pytest.mark.parametrize(
    ("grading", "p", "then", "now", "may"),
    [
        (ORDINAL, (0.1, 0.31, 0.59), "b", "c", True),  # expected is 1.49
        (ORDINAL, (0.1, 0.33, 0.57), "b", "c", False),  # 1.47: moves by .02 at most
        (ORDINAL, (0.2, 0.25, 0.55), "c", "b", False),
        (ORDINAL, (0.505, 0.49, 0.005), "b", "a", True),
        (ORDINAL, (0.3, 0.19, 0.51), "c", "a", False),  # over two borders
        (NOMINAL, (0.4, 0.405, 0.195), "b", "a", True),
        (NOMINAL, (0.3, 0.5, 0.2), "b", "a", False),
        (BINARY, (0.495, 0.505), "yes", "no", True),
        (BINARY, (0.4, 0.6), "yes", "no", False),
    ],
)
def test_a_call_may_change_where_classes_tie(grading, p, then, now, may):
    old, new = row(p, then, grading), row(p, now, grading, wrong="1")
    changed = ["wrong", "call_grade"]
    assert columns(old, new, LOOSE, [grading]) == ([] if may else changed)
    assert columns(old, new, EXACT, [grading]) == changed
    assert columns(old, {**new, "call_grade": ""}, LOOSE, [grading]) == changed  # a lost region


def test_figures_are_named_by_their_path():
    then = {"a": {"b": [1, {"value": 0.5, "ci95": [0.1, 0.9]}]}, "text": "x", "gone": 1}
    now = {"a": {"b": [1, {"value": 0.501, "ci95": [0.1, 0.9]}]}, "text": "y", "new": None}
    assert of_figures("report.json", then, now) == [
        Difference("report.json", "a.b[1].value", "0.5", "0.501"),
        Difference("report.json", "text", "'x'", "'y'"),
        Difference("report.json", "gone", "1", "missing"),
        Difference("report.json", "new", "missing", "None"),
    ]
    assert numbers(then) == 5


def test_figures_differ_by_more_than_the_order_of_a_sum():
    assert of_figures("f", {"v": 0.5}, {"v": 0.5 + 1e-7}) == []
    assert of_json("f", {"v": 0.5}, {"v": 0.5 + 1e-7}) != []
    assert of_figures("f", {"n": 5}, {"n": 5.0}) != []
    assert of_figures("f", {"n": 1}, {"n": True}) != []
    assert of_figures("f", [1, 2], [1, 2, 3]) != []
