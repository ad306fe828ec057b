"""What readers called and what findings they saw: columns of cases.csv, tables beside a model.

A study that readers have seen has two tables: ``readers`` (``reader``, ``call``, ``aided_call``)
and ``findings`` (``name``, ``present``); -1 is missing.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mskjax import cases
from mskjax.metrics import findings, readers
from mskjax.metrics.grading import Grading
from mskjax.tables import Row
from mskjax.training.stage import Study

TITLE = "Readers and imaging findings"


def reader_columns(study: Study, grading: Grading) -> Row:
    """``reader_<name>``, ``aided_<name>`` (a class) and ``finding_<name>`` (0, 1) of a case."""

    def called(call: Any) -> str:
        return "" if int(call) < 0 else grading.classes[int(call)]

    row: Row = {}
    table = study["readers"]
    for name, call, aided in zip(
        *(table[k] for k in ("reader", "call", "aided_call")), strict=True
    ):
        row |= {f"reader_{name}": called(call), f"aided_{name}": called(aided)}
    for name, present in zip(*(study["findings"][k] for k in ("name", "present")), strict=True):
        row[f"finding_{name}"] = "" if int(present) < 0 else str(int(present))
    return row


def reader_facts(rows: Sequence[Row]) -> list[tuple[str, str]]:
    """(reader, call) of a study's rows."""
    return [
        (name.removeprefix("reader_").replace("_", " "), call)
        for row in rows
        for name, call in row.items()
        if name.startswith("reader_") and call
    ]


def reader_tables(
    rows: Sequence[Row], grading: Grading, titles: tuple[str, str], resamples: int, seed: int
) -> list[dict[str, Any]]:
    """Tables of a report; none where the cohort has neither readers nor findings.

    Args:
      rows: of cases.csv.
      grading: of two classes.
      titles: of the model on reference and on predicted regions.
      resamples: of the bootstrap.
      seed: of the bootstrap.
    """
    own = cases.graded(rows, grading)
    tables = []
    if calls := _columns(own.rows, "reader_", grading):
        by_hand = own.probabilities(grading, cases.MODEL, oracle=True)
        found = own.probabilities(grading, cases.MODEL)
        models = (grading.calls(by_hand), grading.calls(found))
        study = readers.ReaderStudy(
            reference=own.reference,
            patients=own.patients,
            models=dict(zip(titles, models, strict=True)),
            probability=grading.priced(own.reference, by_hand)[:, 1],
            readers=calls,
            aided=_columns(own.rows, "aided_", grading),
        )
        tables += readers.compare(study, resamples=resamples, seed=seed)
    if present := _columns(own.rows, "finding_", grading):
        table = findings.findings_table(present, own.reference, grading.classes)
        tables.append(findings.findings_rows(table, grading.classes))
    return tables


def _columns(rows: Sequence[Row], prefix: str, grading: Grading) -> Mapping[str, np.ndarray]:
    """Name -> (N,) 0, 1 or -1 of the columns with a prefix; those that are empty are left out."""
    numbers = {"": -1, "0": 0, "1": 1, **{name: k for k, name in enumerate(grading.classes)}}
    names = dict.fromkeys(k for row in rows for k in row if k.startswith(prefix))
    found = {
        name.removeprefix(prefix).replace("_", " "): np.array(
            [numbers[r.get(name) or ""] for r in rows]
        )
        for name in names
    }
    return {name: values for name, values in found.items() if (values >= 0).any()}
