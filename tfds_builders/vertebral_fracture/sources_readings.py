"""The tables of readings that may come with a user's studies: readers.csv and findings.csv.

Holes are allowed.  They become -1 and are counted in the notes of the audit, because a comparison
of readers stands on the studies that both have read.
"""

from collections.abc import Mapping, Sequence

from mskjax.errors import UserError
from tfds_builders.columns import whole
from tfds_builders.ids import check_names, known_study
from tfds_builders.raw import Ledger
from tfds_builders.tables import Row, TableRow
from tfds_builders.vertebral_fracture.sources import MISSING, Finding, Reading

READER_COLUMNS = ("study_id", "reader", "call")
FINDING_COLUMNS = ("study_id",)
_CLASSES = {"benign": 0, "malignant": 1, "": MISSING}


def parse_class(row: Row, column: str) -> int:
    """0 for benign, 1 for malignant, -1 where the column or its value is missing.

    Raises:
      UserError: another word.
    """
    text = row.get(column, "")
    if text not in _CLASSES:
        raise UserError(f"{column} is {text!r}; it must be benign, malignant or empty.")
    return _CLASSES[text]


def parse_readers(
    rows: Sequence[TableRow], studies: Sequence[str], ledger: Ledger
) -> Mapping[str, list[Reading]]:
    """The calls of readers.csv.

    Args:
      rows: of the table.
      studies: ids of studies.csv.
      ledger: takes faults, and how many studies each reader has read.

    Returns:
      Study to one reading of every reader, in the order in which the table first names them.
    """
    calls: dict[tuple[str, str], Reading] = {}
    known = frozenset(studies)
    if rows:
        check_names((row["reader"] for row in rows), "reader", ledger, rows[0].table)
    for row in rows:
        with ledger.collecting(row.where):
            study, reader = known_study(row, known), row["reader"]
            if not reader:
                raise UserError(f"study {study!r} has a call but no reader; fill in the reader.")
            if (study, reader) in calls:
                raise UserError(
                    f"reader {reader!r} calls study {study!r} twice; remove one of the rows."
                )
            calls[study, reader] = Reading(
                reader=reader,
                call=parse_class(row, "call"),
                aided_call=parse_class(row, "aided_call"),
            )
    aided = bool(rows) and "aided_call" in rows[0]
    readers = list(dict.fromkeys(reader for _, reader in calls))
    for reader in readers:
        own = [call for (_, name), call in calls.items() if name == reader]
        note = f"reader {reader}: {sum(c['call'] != MISSING for c in own)} read of {len(studies)}"
        if aided:
            note += f", {sum(c['aided_call'] != MISSING for c in own)} with aid"
        ledger.notes.append(note)
    return {
        study: [
            calls.get((study, r)) or Reading(reader=r, call=MISSING, aided_call=MISSING)
            for r in readers
        ]
        for study in studies
    }


def parse_findings(
    rows: Sequence[TableRow], studies: Sequence[str], ledger: Ledger
) -> Mapping[str, list[Finding]]:
    """The binary features of findings.csv; every column beside study_id is one.

    Args:
      rows: of the table.
      studies: ids of studies.csv.
      ledger: takes faults, and how often each feature with holes is recorded.

    Returns:
      Study to its findings, in the order of the columns; -1 where a value or the row is missing.
    """
    names = [name for name in rows[0] if name not in FINDING_COLUMNS] if rows else []
    found: dict[str, list[Finding]] = {}
    known = frozenset(studies)
    for row in rows:
        with ledger.collecting(row.where):
            study = known_study(row, known)
            if study in found:
                raise UserError(f"study {study!r} has two rows; remove one of them.")
            found[study] = [
                Finding(name=name, present=whole(row, name, 0, 1) if row[name] else MISSING)
                for name in names
            ]
    for k, name in enumerate(names):
        recorded = sum(study[k]["present"] != MISSING for study in found.values())
        if recorded < len(studies):
            ledger.notes.append(f"finding {name}: recorded in {recorded} of {len(studies)}")
    holes = [Finding(name=name, present=MISSING) for name in names]
    return {study: found.get(study, holes) for study in studies}
