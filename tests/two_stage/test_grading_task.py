"""What a task makes of a study's grades and of a network's probabilities."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mskjax.metrics.grading import Grading
from mskjax.stages.grading import Head
from mskjax.two_stage.grading_task import GradingTask

FIVE = Head("pfirrmann", 5, lowest=1)
SEVERITY = Grading("severity", ("mild", "moderate", "severe"))
GROUPS = (0, 0, 1, 2, 2)
GROUPED = GradingTask(SEVERITY, FIVE, groups=GROUPS)
TWO = Grading("task_d", ("low_grade", "high_grade"))
OTHER = Head("A", 2, column="grade", grouped=(0, 0, -1, 1, 1))
BORROWED = GradingTask(TWO, OTHER, target=Head("D", 2, column="grade", grouped=(0, 0, 0, 1, 1)))


def test_each_class_of_the_head_is_one_unless_they_are_grouped():
    plain = GradingTask(Grading("pfirrmann", tuple("abcde")), FIVE)
    grades = [{"pfirrmann": g} for g in (-1, 1, 2, 3, 4, 5)]
    assert [plain.class_of(g) for g in grades] == [-1, 0, 1, 2, 3, 4]
    assert [GROUPED.class_of(g) for g in grades] == [-1, 0, 0, 1, 2, 2]


def test_a_case_without_the_column_has_no_class():
    assert GROUPED.class_of({}) == BORROWED.class_of({"pfirrmann": 3}) == -1


def test_a_task_may_be_read_from_the_head_of_another():
    """Its classes come from its own target, its probability from the head that there is."""
    assert [BORROWED.class_of({"grade": g}) for g in range(5)] == [0, 0, 0, 1, 1]
    assert BORROWED.probabilities(np.array([0.25, 0.75])).tolist() == [0.25, 0.75]


@given(st.lists(st.integers(1, 10**6), min_size=5, max_size=5))
def test_probabilities_of_groups_are_sums(counts):
    p = (np.array(counts) / np.sum(counts)).astype(np.float32)
    found = GROUPED.probabilities(p)
    assert found.dtype == np.float64
    assert found == pytest.approx([p[:2].sum(), p[2], p[3:].sum()], abs=1e-6)
    assert found.sum() == pytest.approx(1, abs=1e-6)
    # A class of its own is what the head said, to the last digit.
    assert found[1] == p[2]
