"""Reading the tables that come with a cohort: every fault names file, line and column."""

import csv
import difflib
import io
import re
import textwrap
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from mskjax.errors import UserError, note
from tfds_builders.raw import Ledger

Row = Mapping[str, str]

# A table of a hundred thousand studies has a tenth of these.
MOST_BYTES, MOST_LINES = 200_000_000, 1_000_000
SEPARATORS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "bars"}
# How spreadsheets tell one another; where it was saved as a cell, separators follow.
_SEP_LINE = re.compile(r'"?sep=(.)"?[\s,;|]*', re.IGNORECASE)
_AS_TEXT = re.compile(r'="(.*)"', re.DOTALL)  # a formula that keeps 007 from becoming 7
_NAMED, _MOST_COLUMNS = 5, 50  # places and columns in a note
_WORKBOOKS = (b"PK\x03\x04", b"\xd0\xcf\x11\xe0")  # .xlsx and .ods, .xls
_UTF16 = (b"\xff\xfe", b"\xfe\xff")


class TableRow(dict[str, str]):
    """One row of a table: column to text.

    Args:
      values: of the row.
      table: name of the file.
      line: in which the row begins, counted from 1 as an editor does.
      decimal_comma: whether numbers may be written 0,5: commas do not separate columns.
    """

    def __init__(
        self, values: Mapping[str, str], table: str = "", line: int = 0, decimal_comma: bool = False
    ):
        super().__init__(values)
        self.table, self.line, self.decimal_comma = table, line, decimal_comma

    @property
    def where(self) -> str:
        """The place, for messages."""
        return f"{self.table}, line {self.line}"


def read_table(path: Path, required: Sequence[str]) -> list[TableRow]:
    """Rows of a table with a header.

    Args:
      path: text in UTF-8, with or without a byte order mark, or in UTF-16 with one.  Columns are
        separated by commas, semicolons, tabs or bars: by what gives the required columns, else by
        what a first line ``sep=;`` says.
      required: columns that must be there.

    Returns:
      The rows; names and values are stripped of outer blanks, and of ``="..."``.  Lines without any
      value, and columns without name and values, are skipped.

    Raises:
      UserError: the file is missing, no such table, lacks a column, or has no row.
    """
    if not path.is_file():
        raise UserError(f"{path} is missing; it needs the columns {', '.join(required)}.")
    text = _text(path)
    first, _, rest = text.partition("\n")
    declared = _SEP_LINE.fullmatch(first)
    skipped = 1 if declared else 0
    body = rest if declared else text
    separator = _separator(body, required, declared[1] if declared else ",")
    lines = _lines(path, body, separator, skipped)
    if not declared and separator != ",":
        note(path, f"columns are separated by {SEPARATORS[separator]}")
    header = [" ".join(name.split()) for name in lines[0][1]] if lines else []
    _check_header(path, header, required)
    # Separators behind the last column are a spreadsheet's; a row may lack them.
    least = max(k for k, name in enumerate(header, start=1) if name)
    rows = []
    for number, values in lines[1:]:
        if any(values[len(header) :]) or len(values) < least:
            raise _uneven(path, number, len(values), len(header), separator)
        for position, (name, value) in enumerate(zip(header, values, strict=False), start=1):
            if value and not name:
                raise UserError(
                    f"{path}, line {number}: column {position} has the value {value!r} but no name"
                    " in the header; name the column or empty it."
                )
        named = {n: v for n, v in zip(header, values, strict=False) if n}
        rows.append(TableRow(named, path.name, number, separator != ","))
    if not rows:
        raise UserError(f"{path} has a header but no rows; fill it in.")
    return rows


def _uneven(path: Path, line: int, values: int, columns: int, separator: str) -> UserError:
    if values < columns:
        advice = f"separate its columns by {SEPARATORS.get(separator, repr(separator))} as above"
    elif separator == ",":
        advice = "put a text that holds a comma in quotes, and write 0.5 for 0,5"
    else:
        advice = f"put a value that holds {separator!r} in quotes"
    return UserError(
        f"{path}, line {line}, has {values} values for {columns} columns; mend the line ({advice})."
    )


def read_known(
    path: Path, required: Sequence[str], optional: Sequence[str], ledger: Ledger
) -> list[TableRow]:
    """Rows of a table of which every column is known; none where it is faulty.

    Args:
      path: as in `read_table`.
      required: columns that must be there.
      optional: columns that may be there.
      ledger: takes the fault, and a note on columns that are not read, so that a misspelt name is
        seen.
    """
    with ledger.collecting(path.name):
        rows = read_table(path, required)
        known = (*required, *optional)
        unread = [name for name in rows[0] if name not in known]
        if unread:
            absent = [name for name in known if name not in rows[0]]
            meant = [f"{n}{_did_you_mean(n, absent)}" for n in unread[:_MOST_COLUMNS]]
            more = len(unread) - len(meant)
            ledger.notes.append(
                f"{path.name}: columns not used: {', '.join(meant)}"
                + (f" and {more} more" if more else "")
            )
        return rows
    return []


def nearest(name: str, known: Sequence[str]) -> str | None:
    """The known name that is meant, as far as case, blanks, underscores and a slip can tell."""
    same = [k for k in known if _letters(k) == _letters(name)]
    near = same or difflib.get_close_matches(name.casefold(), known, 1, cutoff=0.8)
    return near[0] if near else None


def _letters(name: str) -> str:
    return re.sub(r"[\s_-]+", "", name).casefold()


def _did_you_mean(name: str, known: Sequence[str]) -> str:
    near = nearest(name, known)
    return f" (did you mean {near!r}?)" if near else ""


def _text(path: Path) -> str:
    """The whole table.

    Raises:
      UserError: it is too large, a spreadsheet's workbook, or not text.
    """
    try:
        size = path.stat().st_size
        if size > MOST_BYTES:
            raise UserError(
                f"{path} has {size} bytes, more than the {MOST_BYTES} that a table may have; is it"
                " an image?"
            )
        content = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}); check the file.") from None
    if content.startswith(_WORKBOOKS):
        raise UserError(f"{path} is a spreadsheet's workbook; save it as CSV (UTF-8).")
    encoding = "utf-16" if content.startswith(_UTF16) else "utf-8-sig"
    try:
        text = content.decode(encoding)
    except UnicodeError as error:
        line = content[: getattr(error, "start", 0)].count(b"\n") + 1
        raise UserError(
            f"{path}, line {line}: is not text ({error}); save it as CSV (UTF-8)."
        ) from None
    if text.count("\n") > MOST_LINES:
        raise UserError(f"{path} has more than the {MOST_LINES} lines that a table may have.")
    if "\0" in text:
        line = text[: text.index("\0")].count("\n") + 1
        raise UserError(
            f"{path}, line {line}: holds a NUL byte, so it is not text in UTF-8; save it as CSV"
            " (UTF-8)."
        )
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _separator(text: str, required: Sequence[str], default: str) -> str:
    """The separator with which most of the required columns are found, as they or as meant."""
    header = re.search(r"^.*\w.*$", text, re.MULTILINE)
    start = header[0] if header else ""
    wanted = {_letters(name) for name in required}

    def found(separator: str) -> int:
        return len(wanted & {_letters(name.strip(' "\t')) for name in start.split(separator)})

    return max((default, *SEPARATORS), key=found)


def _lines(path: Path, text: str, separator: str, skipped: int) -> list[tuple[int, list[str]]]:
    """Lines that hold a value, with the number of the line in which they begin.

    Raises:
      UserError: quotes are not closed, a separator is none, or a field is too large.
    """
    try:
        reader = csv.reader(
            io.StringIO(text, newline=""), delimiter=separator, skipinitialspace=True, strict=True
        )
    except (TypeError, ValueError) as error:
        raise UserError(
            f"{path}, line 1: {separator!r} cannot separate columns ({error}); use a comma."
        ) from None
    found, end, long = [], skipped, []
    try:
        for values in reader:
            cells = [_cell(value) for value in values]
            if any(cells):
                found.append((end + 1, cells))
            if reader.line_num + skipped > end + 1:
                long.append(f"line {end + 1} to {reader.line_num + skipped}")
            end = reader.line_num + skipped
    except csv.Error as error:
        raise UserError(
            f"{path}, line {reader.line_num + skipped}: cannot be read as a table ({error}); export"
            " it again."
        ) from None
    if long:
        note(path, "a row runs over several lines, as its quotes say", ", ".join(long[:_NAMED]))
    return found


def _cell(text: str) -> str:
    text = text.strip()
    kept = _AS_TEXT.fullmatch(text)
    return kept[1].strip() if kept else text


def _check_header(path: Path, header: Sequence[str], required: Sequence[str]) -> None:
    missing = [name for name in required if name not in header]
    if missing:
        other = [name for name in header if name not in required]
        meant = [
            f"{name} (is it {near!r}?)" if (near := nearest(name, other)) else name
            for name in missing
        ]
        is_one_cell = len(header) == 1 and any(name in header[0] for name in missing)
        raise UserError(
            f"{path} lacks the column {', '.join(meant)}; it has"
            f" {textwrap.shorten(', '.join(filter(None, header)), 300) or 'none'}"
            + (
                "; separate columns by commas, and put no quotes about lines."
                if is_one_cell
                else "."
            )
        )
    repeated = sorted(name for name, n in Counter(header).items() if name and n > 1)
    if repeated:
        raise UserError(f"{path} has the column {', '.join(repeated)} twice; remove one.")
