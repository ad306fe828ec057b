"""Ids of patients and studies: one person is one id, however a spreadsheet wrote it."""

import functools
import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence

from mskjax.errors import UserError
from tfds_builders.raw import Ledger
from tfds_builders.tables import Row, TableRow

_MINUS = "\N{MINUS SIGN}"
CHECKED = "id_checked"  # a column of studies.csv: yes where two ids that look alike are two people
_FILE_NAME = re.compile(r"[\w.+-]+")
# What spreadsheets and pandas make of a long number, and what programs write where there is none.
_ROUNDED = re.compile(r"\d([.,]\d+)?E\+\d+", re.IGNORECASE)
_NONE = re.compile(r"nan|na|nat|none|null|<na>|#?n/a|#[a-z/0]+[!?]", re.IGNORECASE)


@functools.lru_cache(maxsize=1 << 17)
def plain(text: str) -> str:
    """What is left of an id without what spreadsheets, exports and typists change in it.

    Unicode form and case, blanks and characters that are not seen, kinds of dashes, ``.0`` behind
    a whole number, zeros before a number, and the apostrophe that makes a number text: ``007``,
    ``7``, ``7.0``, ``'7`` and `` 7`` are one.

    >>> plain("P-007") == plain("p‑7 "), plain("7.00"), plain("1.05"), plain("0")
    (True, '7', '1.05', '0')
    """
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())
    kept = "".join(
        "-" if unicodedata.category(c) == "Pd" or c == _MINUS else c
        for c in folded
        if not c.isspace() and not unicodedata.category(c).startswith("C")
    )
    kept = unicodedata.normalize("NFKC", kept).lstrip("'")
    if whole := re.fullmatch(r"(\d+)[.,]0*", kept):
        kept = whole[1]
    return re.sub(r"(?<!\d)(?<!\d\.)0+(?=\d)", "", kept)


def check_spellings(rows: Sequence[TableRow], column: str, ledger: Ledger) -> None:
    """Refuses ids that are one but for how they are written.

    Args:
      rows: of studies.csv.
      column: ``patient_id`` or ``study_id``.
      ledger: takes a bad case for each second spelling, unless all rows of both say ``yes`` in the
        column `CHECKED`.
    """
    spellings: dict[str, dict[str, list[TableRow]]] = {}
    for row in rows:
        if row[column]:
            spellings.setdefault(plain(row[column]), {}).setdefault(row[column], []).append(row)
    kind = "people" if column == "patient_id" else "studies"
    for group in spellings.values():
        if all(row.get(CHECKED) == "yes" for own in group.values() for row in own):
            continue
        first, *others = group
        for other in others:
            ledger.bad.append(
                (
                    group[other][0].where,
                    f"{column} {_shown(other)} and {_shown(first)} (line"
                    f" {group[first][0].line}) differ only in how they are written; write one in"
                    f" one way or, if they are two {kind}, write yes in the column {CHECKED} of all"
                    " their rows.",
                )
            )


def _shown(name: str) -> str:
    """The id as it is read, and as it is stored where the eye may not see a difference."""
    return repr(name) if name.isascii() else f"{name!r} ({name!a})"


def check_names(names: Iterable[str], what: str, ledger: Ledger, where: str = "") -> None:
    """As `check_spellings`, for ids that file names or another table give.

    Args:
      names: ids; equal ones count once.
      what: they name, for the message.
      ledger: takes a bad case for each second spelling.
      where: they stand, for the ledger; the name itself where it is that of a file.
    """
    seen: dict[str, str] = {}
    for name in dict.fromkeys(names):
        first = seen.setdefault(plain(name), name)
        if first != name:
            ledger.bad.append(
                (
                    where or name,
                    f"{what} {_shown(name)} and {_shown(first)} differ only in how they are"
                    f" written; write each {what} in one way.",
                )
            )


def check_table(table: str, written: Iterable[str], known: frozenset[str], ledger: Ledger) -> None:
    """Refuses patients of a table that the names of the files write in another way.

    Args:
      table: its name.
      written: patients as the table has them; others than those of the files are left alone.
      known: patients as the files are named.
      ledger: takes a bad case for each.
    """
    ours = {plain(name) for name in known}
    for name in dict.fromkeys(written):
        if name not in known and plain(name) in ours:
            ledger.bad.append(
                (table, f"patient {name!r} is not among the files; {advice(name, known)}")
            )


def check_ids(row: Row, seen: set[str]) -> None:
    """Whether a row of studies.csv names patient and study; `seen` takes the study's id.

    Raises:
      UserError: an id is empty or stands for none, a rounded number, no file name, or occurs twice,
        or `CHECKED` holds another word.
    """
    patient, study = row["patient_id"], row["study_id"]
    if not patient:
        raise UserError(f"study {study!r} has no patient_id; fill it in.")
    for column in ("patient_id", "study_id"):
        if _NONE.fullmatch(row[column]):
            raise UserError(
                f"{column} is {row[column]!r}, which programs write for a missing value; fill it"
                " in."
            )
        if _ROUNDED.fullmatch(row[column]):
            raise UserError(
                f"{column} is {row[column]!r}, a number that a spreadsheet has rounded, so that"
                " several ids may have become one; write the whole id."
            )
    if not _FILE_NAME.fullmatch(study):
        raise UserError(
            f"study_id is {study!r}; it names files, so use letters, digits, '.', '_', '+', '-'."
        )
    if study in seen:
        raise UserError(f"study_id {study!r} occurs twice; give every study its own.")
    seen.add(study)
    if row.get(CHECKED, "") not in ("", "yes"):
        raise UserError(f"{CHECKED} is {row[CHECKED]!r}; it must be yes or empty.")


def known_study(row: Row, studies: frozenset[str]) -> str:
    """The study that a row of another table is about.

    Args:
      row: with the column study_id.
      studies: ids of studies.csv; none are known where that table itself is faulty.

    Raises:
      UserError: the study is not among them.
    """
    study = row["study_id"]
    if studies and study not in studies:
        raise UserError(f"study_id {study!r} is not in studies.csv; {advice(study, studies)}")
    return study


def advice(name: str, known: frozenset[str]) -> str:
    """What to do about an id that is not among the known ones."""
    same = _spellings(known).get(plain(name))
    if same and plain(name).isdigit():
        return (
            f"{same!r} is, and {name!r} looks like it: the ids were read as numbers.  Write them as"
            " there."
        )
    if same:
        return f"{same!r} is, and differs only in how it is written.  Write it as there."
    slips = _slips(known)
    near = next((slips[text] for text in _without_one(name) if text in slips), None)
    meant = f"did you mean {near!r}?  Else " if near else ""
    return f"{meant}add the study or remove this."


# A table of which every row names no known study must not take long: the known ones are prepared
# once, and not compared one by one.
@functools.lru_cache(maxsize=2)
def _spellings(known: frozenset[str]) -> Mapping[str, str]:
    return {plain(name): name for name in sorted(known, reverse=True)}


@functools.lru_cache(maxsize=2)
def _slips(known: frozenset[str]) -> Mapping[str, str]:
    """Names, whole and without one of their characters, to the known one; a slip shares a text."""
    return {text: name for name in sorted(known, reverse=True) for text in _without_one(name)}


def _without_one(name: str) -> list[str]:
    return [name, *(name[:k] + name[k + 1 :] for k in range(len(name)) if len(name) > 1)]
