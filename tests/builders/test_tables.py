import math

import pytest

from mskjax.errors import UserError
from tfds_builders.tables import choice, number, read_table, whole


def test_byte_order_mark_blanks_and_blank_lines(tmp_path):
    path = tmp_path / "t.csv"
    path.write_bytes("\ufeffid , sex\n\n 1 ,F \n,\n".encode())
    assert read_table(path, ["id", "sex"]) == [{"id": "1", "sex": "F"}]


def test_repeated_column(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text("id,id\n1,2\n")
    with pytest.raises(UserError, match="has the column id twice"):
        read_table(path, ["id"])


def test_empty_file_names_the_columns(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text("")
    with pytest.raises(UserError, match="lacks the column id; it has none"):
        read_table(path, ["id"])


def test_values():
    row = {"n": "3.0", "x": "1.5", "empty": "", "inf": "inf", "half": "2.5"}
    assert whole(row, "n", 1, 5) == 3
    assert number(row, "x") == 1.5
    assert math.isnan(number(row, "empty"))
    assert math.isnan(number(row, "absent"))
    assert choice(row, "absent", ("a",)) == ""
    for column in ("half", "inf", "empty"):
        with pytest.raises(UserError, match=f"{column} is"):
            whole(row, column, 1, 5)
    with pytest.raises(UserError, match="inf is 'inf'"):
        number(row, "inf")
