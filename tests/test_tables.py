"""Rows that are kept while a table grows: a kill costs the last line, and text is as in the CSV."""

import csv

import numpy as np
import pytest

from mskjax import tables

ROWS = [
    {"study": "s1", "value": np.float64(1 / 3), "count": 3, "text": 'a, b\n"c" é', "none": None},
    {"study": "s2", "value": float("nan"), "more": np.float32(0.1), "flag": True},
    {"study": "s3", "value": np.int64(7)},
]


def test_what_was_appended_makes_the_same_table(tmp_path):
    part = tmp_path / "part.jsonl"
    assert tables.appended(part) == []
    tables.append(part, ROWS[:2])
    tables.append(part, [])
    tables.append(part, ROWS[2:])
    tables.write_rows(tmp_path / "ours.csv", tables.appended(part))
    tables.write_rows(tmp_path / "direct.csv", ROWS)
    assert (tmp_path / "ours.csv").read_bytes() == (tmp_path / "direct.csv").read_bytes()
    with (tmp_path / "ours.csv").open(newline="") as file:
        assert next(csv.DictReader(file))["text"] == ROWS[0]["text"]


@pytest.mark.parametrize("kept", [0, 1, 20])
def test_a_line_that_a_kill_cut_off_is_written_again(tmp_path, kept):
    part = tmp_path / "part.jsonl"
    for row in ROWS:
        tables.append(part, [row])
    whole = part.read_bytes()
    lines = whole.splitlines(keepends=True)
    part.write_bytes(b"".join(lines[:2]) + lines[2][:kept])
    assert [row["study"] for row in tables.appended(part)] == ["s1", "s2"]
    tables.append(part, ROWS[2:])
    assert part.read_bytes() == whole
