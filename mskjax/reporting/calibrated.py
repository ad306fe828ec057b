"""Tables of a report on what probabilities are worth, from the content of calibration.json."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from mskjax.reporting import wording

Json = dict[str, Any]

_TEMPERATURE = (
    "One temperature a grading, fitted on all held-out cases and used by predict. The figures are"
    " honest: for each fold the temperature was fitted on the patients of the others. Regions that"
    " were found; each patient weighs alike. Calibration error: expected, of the likeliest class,"
    " in 10 bins."
)
_SETS = (
    "Share of cases whose set of classes holds the reference, the sets being fitted on the patients"
    " of other folds. Promised is a random case of a new patient, so the first share lets each"
    " patient weigh alike; the next lets each case; the last counts a missed region, which gets no"
    " set, as not held. A set always holds the call: where the call alone is right more often than"
    " promised, sets of one class cover more."
)


def tables(content: Mapping[str, Any]) -> list[Json]:
    """The tables, in the form of ``report["tables"]``; none where nothing was fitted.

    Args:
      content: of calibration.json.
    """
    entries = [
        (wording.label(task), next(iter(methods.values())))  # the method that is reported
        for task, methods in content["tasks"].items()
    ]
    checked = [(task, entry) for task, entry in entries if entry["check"]]
    if not checked:
        return []
    notes = " ".join(content["caveats"])
    held_out = [(f"{task}, held-out patients", e) for task, e in checked if e.get("held_out")]
    sets = [row for task, entry in checked for row in _sets(task, entry["check"])]
    sets += [row for task, entry in held_out for row in _sets(task, entry["held_out"])]
    return [
        {
            "id": "temperature",
            "title": "Temperatures",
            "note": f"{_TEMPERATURE} {notes}".strip(),
            "columns": ["Grading", "Temperature", "Log loss", "at the temperature", "Change",
                        "Calibration error", "at the temperature"],
            "rows": [_temperature(task, entry) for task, entry in checked],
        },
        {
            "id": "sets",
            "title": "Sets of classes",
            "note": f"{_SETS} {notes}".strip(),
            "columns": ["Grading", "Promised", "Held", "by case", "missed regions too",
                        "Mean size", "Empty", "All classes"],
            "rows": sets,
        },
    ]  # fmt: skip


def _temperature(task: str, entry: Mapping[str, Any]) -> list[Any]:
    check = entry["check"]
    return [
        f"{task} ({entry['why']})" if entry["why"] else task,
        float(entry["temperature"]),
        check["log_loss"]["before"],
        check["log_loss"]["after"],
        check["change"],
        check["ece"]["before"],
        check["ece"]["after"],
    ]


def _sets(task: str, check: Mapping[str, Any]) -> Iterator[Sequence[Any]]:
    for own in check["sets"]:
        yield [
            task,
            f"{100 * own['coverage']:g} %",
            own["held"],
            own["held_by_case"],
            own["held_or_missed"],
            own["size"],
            own["empty"],
            own["full"],
        ]
