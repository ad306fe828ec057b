"""Tables as people have them: separators, encodings, lines, and what is refused in one sentence."""

import codecs
import csv
import io
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mskjax.errors import UserError
from tfds_builders import tables
from tfds_builders.raw import Ledger
from tfds_builders.tables import read_known, read_table

SEEN = st.characters(codec="utf-8", exclude_categories=["C", "Z"], exclude_characters="=")
CELL = st.text(SEEN)
ROWS = [{"id": "a", "x": "1"}, {"id": "b", "x": "2"}]


def written(tmp_path, content, name="t.csv"):
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def refused(path, required=("id",)):
    with pytest.raises(UserError) as caught:
        read_table(path, required)
    return str(caught.value)


@pytest.mark.filterwarnings("ignore::mskjax.errors.FileNote")
@pytest.mark.parametrize(
    "content",
    [
        "id,x\na,1\nb,2\n",
        "id;x\na;1\nb;2\n",
        "id\tx\na\t1\nb\t2\n",
        "id|x\na|1\nb|2\n",
        "sep=,\nid,x\na,1\nb,2\n",
        "sep=;\r\nid;x\r\na;1\r\nb;2\r\n",
        "sep=\t\nid\tx\na\t1\nb\t2\n",
        '"sep=;";\nid;x\na;1\nb;2\n',
        "SEP=~\nid~x\na~1\nb~2\n",
        "sep=;\nid,x\na,1\nb,2\n",  # saved again with commas
        "\n;;\nid;x\na;1\nb;2\n",
        '"id";"x"\n"a";"1"\n"b";"2"\n',
        "id,x\ra,1\rb,2\r",
        "\ufeffid , x\n\n a ,1\n,\nb,2",
        "id,,x,,\na,,1,,\nb,,2\n",
        '="id",="x"\n="a",="1"\n="b",="2"\n',
        'id, "x"\na, "1"\nb, "2"\n',
        codecs.BOM_UTF16_LE + "id\tx\r\na\t1\r\nb\t2\r\n".encode("utf-16-le"),
        codecs.BOM_UTF16_BE + "id;x\na;1\nb;2\n".encode("utf-16-be"),
    ],
)  # fmt: skip
def test_what_spreadsheets_write_is_read(tmp_path, content):
    assert read_table(written(tmp_path, content), ("id",)) == ROWS


@pytest.mark.filterwarnings("ignore::mskjax.errors.FileNote")
@given(
    cells=st.lists(st.tuples(CELL, CELL), min_size=1),
    separator=st.sampled_from(sorted(tables.SEPARATORS)),
    quoting=st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL]),
    end=st.sampled_from(["\n", "\r\n", "\r"]),
    encoding=st.sampled_from(["utf-8", "utf-8-sig", "utf-16"]),
)
def test_cells_come_back_however_they_are_written(
    tmp_path_factory, cells, separator, quoting, end, encoding
):
    """Cells may hold separators, quotes and numbers in any form."""
    text = io.StringIO(newline="")
    writer = csv.writer(text, delimiter=separator, quoting=quoting, lineterminator=end)
    writer.writerows([("id", "x"), *cells, ("end", "end")])
    path = written(tmp_path_factory.mktemp("t"), text.getvalue().encode(encoding))
    rows = [tuple(row.values()) for row in read_table(path, ("id", "x"))]
    assert rows == [*(row for row in cells if any(row)), ("end", "end")]


def test_another_separator_than_the_comma_is_noted(tmp_path):
    with pytest.warns(match="columns are separated by semicolons"):
        read_table(written(tmp_path, "id;x\na;1\n"), ("id",))


def test_lines_that_quotes_swallow_are_noted(tmp_path):
    text = 'id,remark\na,"see\nb,x\nc,y"\nd,\ne,"1\n2"\n'
    with pytest.warns(match=r"over several lines.* \(line 2 to 4, line 6 to 7\)"):
        rows = read_table(written(tmp_path, text), ("id",))
    assert [row["id"] for row in rows] == ["a", "d", "e"]


@pytest.mark.filterwarnings("ignore::mskjax.errors.FileNote")
@pytest.mark.parametrize(
    ("content", "lines"),
    [
        ("id,x\na,1\n\n,\nb,2\n", [2, 5]),
        ('id,x\n"a\nb",1\nc,2\n', [2, 4]),
        ("sep=,\r\n\r\nid,x\r\na,1\r\nb,2\r\n", [4, 5]),
        ("id,x\ra,1\rb,2\r", [2, 3]),
    ],
)
def test_a_row_knows_its_line_as_an_editor_counts(tmp_path, content, lines):
    rows = read_table(written(tmp_path, content), ("id",))
    assert [row.where for row in rows] == [f"t.csv, line {n}" for n in lines]


@pytest.mark.filterwarnings("ignore::mskjax.errors.FileNote")
@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "lacks the column id; it has none"),
        ("sep=;\n", "lacks the column id; it has none"),
        ("id,x\n", "has a header but no rows"),
        ("id,id\n1,2\n", "has the column id twice"),
        ("ID ,x\n1,2\n", "lacks the column id (is it 'ID'?); it has ID, x"),
        ("i_d;x\n1;2\n", "lacks the column id (is it 'i_d'?); it has i_d, x"),
        ("id,x\n1,61,5\n", "line 2, has 3 values for 2 columns; mend the line (put a text"),
        ("id,x\n\n1\n", "line 3, has 1 values for 2 columns"),
        ("id,x\na;1\n", "mend the line (separate its columns by commas as above)"),
        ('"i\nd",x\n1,2\n', "lacks the column id (is it 'i d'?); it has i d, x"),
        ('"id,x"\n"1,2"\n', "separate columns by commas, and put no quotes about lines"),
        (",".join("abc") + "," + ",".join(map(str, range(9999))) + "\n1\n", "[...]"),
        ("id,x,\n1,7,2\n", "line 2: column 3 has the value '2' but no name in the header"),
        ("id;x\n1;2;3\n", "put a value that holds ';' in quotes"),
        ("id,,x\n1,7,2\n", "line 2: column 2 has the value '7' but no name in the header"),
        ('id,x\n"1,2\n', "line 2: cannot be read as a table"),
        ('id,x\n1,"2"3\n', "line 2: cannot be read as a table"),
        ("id,x\n1,2\0\n", "line 2: holds a NUL byte"),
        ("id,x\n1,ä\n".encode("latin-1"), "line 2: is not text ("),
        ("id,x\n1,2\n".encode("utf-16-le"), "line 1: holds a NUL byte"),
        (b"\xff\xfe\x00", "is not text ("),
        (b"PK\x03\x04 and so on", "is a spreadsheet's workbook; save it as CSV"),
        (b"\xd0\xcf\x11\xe0 and so on", "is a spreadsheet's workbook; save it as CSV"),
        ("id,x\n1," + "2" * 200_000, "cannot be read as a table (field larger than"),
    ],
)  # fmt: skip
def test_what_is_no_table_is_one_sentence(tmp_path, content, message):
    path = written(tmp_path, content)
    found = refused(path)
    assert found.startswith(str(path))
    assert message in found
    assert "\n" not in found


def test_an_absurd_size_is_refused_before_the_table_is_read(tmp_path, monkeypatch):
    path = written(tmp_path, "id,x\n")
    with path.open("r+b") as file:
        file.truncate(tables.MOST_BYTES + 1)  # a hole: no disk is used
    monkeypatch.setattr(type(path), "read_bytes", lambda _: pytest.fail("it was read"))
    assert f"has {tables.MOST_BYTES + 1} bytes, more than the" in refused(path)


def test_a_folder_or_nothing_is_no_table(tmp_path):
    assert "is missing; it needs the columns id, x" in refused(tmp_path, ("id", "x"))
    assert "is missing; it needs the columns id" in refused(tmp_path / "t.csv")


def test_a_table_of_very_many_columns_or_lines_takes_no_time(tmp_path):
    ledger, start = Ledger(), time.perf_counter()
    wide = ",".join(f"value_{k}" for k in range(16_000))
    read_known(written(tmp_path, f"id,{wide}\n1{',' * 16_000}\n"), ("id",), ("age", "sex"), ledger)
    long = "id\n" + "\n" * 900_000 + "1\n"
    assert read_table(written(tmp_path, long), ("id",))[0].line == 900_002
    assert time.perf_counter() - start < 30  # what grows with the square takes minutes
    assert ledger.notes[0].endswith("value_49 and 15950 more")


def test_a_slip_in_an_optional_column_is_told_from_another_column(tmp_path):
    ledger = Ledger()
    path = written(tmp_path, "id,Field Strength_T,sexx,sex,remarks\na,1,F,F,\n")
    assert read_known(path, ("id",), ("field_strength_t", "sex"), ledger)
    assert ledger.notes == [
        "t.csv: columns not used: Field Strength_T (did you mean 'field_strength_t'?), sexx,"
        " remarks"
    ]


def test_a_table_of_a_million_empty_lines_is_refused_at_once(tmp_path):
    path = written(tmp_path, "id\n" + "\n" * (tables.MOST_LINES + 1))
    with pytest.raises(UserError, match="more than the 1000000 lines"):
        read_table(path, ["id"])
