"""Rows of the tables of report.html, from the fields of report.json."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from mskjax.reporting import doubts, operating, wording
from mskjax.reporting.key import MINUS

Json = dict[str, Any]


def by_grading(
    rows: Sequence[Mapping[str, Any]], report: Mapping[str, Any]
) -> dict[str, dict[str, list[dict[str, Any]]]]:
    """Rows under the title of their grading: those that lead a section, and the further ones.

    Args:
      rows: each with the name of its ``metric``.
      report: whose ``gradings`` say which figures belong together; without these all rows lead,
        under no title.

    Returns:
      ``leading`` and ``further``: title -> rows, each with a ``name`` that leaves out the task.
    """
    gradings = report.get("gradings") or {}
    tasks = {name: task for task, own in gradings.items() for name in own["figures"]}
    apart = {name for own in gradings.values() for name in own["further"]}
    found: dict[str, dict[str, list[dict[str, Any]]]] = {"leading": {}, "further": {}}
    for row in rows:
        task = tasks.get(row["metric"], "")
        name = row["metric"].removesuffix(f"_{task}") if task else row["metric"]
        place = found["further" if row["metric"] in apart else "leading"]
        place.setdefault(wording.label(task) if task else "", []).append({**row, "name": name})
    return found


def of_strata(strata: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Each metric with its estimate in each stratum."""
    names = dict.fromkeys(name for estimates in strata.values() for name in estimates)
    return [
        {"metric": name, "others": [estimates.get(name) for estimates in strata.values()]}
        for name in names
    ]


def side_by_side(report: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Each metric end-to-end and with the reference region handed to the grader."""
    own, oracle = report["end_to_end"], report["oracle_region"]
    return [
        {"metric": name, "end_to_end": own.get(name), "oracle": oracle.get(name)}
        for name in dict.fromkeys([*own, *oracle])
    ]


def over_repetitions(runs: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Each metric over repetitions: all its values, and what they span."""
    rows = []
    places = ("end_to_end", "oracle_region") if runs else ()
    for place in places:
        for name in dict.fromkeys(name for own in runs for name in own[place]):
            estimates = [own[place].get(name) for own in runs]
            values = [e["value"] if e else None for e in estimates]
            known = [v for v in values if v is not None]
            spread = [min(known), max(known)] if known else None
            rows.append({"place": place, "metric": name, "values": values, "spread": spread})
    return rows


def baselines(report: Mapping[str, Any]) -> tuple[Json, Json]:
    """Figures of the baselines, and what the model has more than each of them, by name."""
    own = report["baselines"]
    rivals = {k: v for k, v in own.items() if not k.startswith(MINUS)}
    return rivals, {k.removeprefix(MINUS): v for k, v in own.items() if k.startswith(MINUS)}


def beside_baselines(report: Mapping[str, Any], rivals: Json) -> list[dict[str, Any]]:
    """Each metric that a baseline has, of the model and of every one of them."""
    names = dict.fromkeys(name for estimates in rivals.values() for name in estimates)
    return [
        {
            "metric": name,
            "model": ours(report, name),
            "others": [estimates.get(name) for estimates in rivals.values()],
        }
        for name in names
    ]


def table(table: Mapping[str, Any]) -> dict[str, Any]:
    """A table with what each of its columns holds: ``p``, ``number`` or ``text``."""
    columns, rows = table["columns"], table["rows"]
    for number, row in enumerate(rows):
        if len(row) != len(columns):
            raise ValueError(
                f"table {table['title']!r}: row {number} has {len(row)} cells for {len(columns)}"
                " columns"
            )
    return {**table, "kinds": [_kind(*column) for column in zip(columns, *rows, strict=True)]}


def _kind(name: str, *cells: Any) -> str:
    if name == "p" or name.startswith(("p ", "p,")):
        return "p"
    # A column of which nothing is known yet is one of numbers: dashes stand where they would.
    linked = any(isinstance(cell, Mapping) and "links" in cell for cell in cells)
    return "text" if linked or any(isinstance(c, str | bool) for c in cells) else "number"


def doubtful(report: Mapping[str, Any]) -> dict[str, list[dict[str, Any]]]:
    """Tables of doubtful references, with links to the pictures of these studies."""
    places = {
        Path(entry["path"]).stem: f"#picture-{number}"
        for number, entry in enumerate(report.get("pictures") or [])
    }
    found = doubts.tables(report.get("doubts") or {}, places)
    return {name: [table(t) for t in own] for name, own in found._asdict().items()}


def beside_published(report: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The published values with ours of the same name."""
    return [{**entry, "ours": ours(report, entry["metric"])} for entry in report["published"]]


def ours(report: Mapping[str, Any], metric: str) -> dict[str, Any] | None:
    """Our estimate of a metric and where it stands: end-to-end before a stage's own figure."""
    places = {"end-to-end": report["end_to_end"]}
    places |= {f"stage {wording.label(k).lower()}": v for k, v in report["stages"].items()}
    for place, estimates in places.items():
        if metric in estimates:
            return {**estimates[metric], "place": place}
    return None


def external_test(test: Mapping[str, Any], report: Mapping[str, Any]) -> dict[str, Any]:
    """An external test: its figures beside those of cross-validation, and each training alone."""
    figures = test["figures"]
    inside = {**report["stages"][next(iter(report["stages"]))], **report["end_to_end"]}
    rows = [
        {"metric": name, "others": [own, test["oracle_region"].get(name), inside.get(name)]}
        for name, own in figures.items()
    ]
    each = [
        {"metric": name, "others": [own["figures"].get(name) for own in test["each"]]}
        for name in figures
    ]
    return {
        **test,
        "rows": by_grading(rows, report),
        "alone": by_grading(each, report) if test["each"] else None,
        "tables": [
            *(table(own) for own in test.get("tables") or []),
            *operating_of(test, report),
        ],
    }


def tables_of(ensemble: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Tables of the ensemble of seeds, its operating points among them."""
    points = operating.tables(ensemble.get("operating") or {})
    return [table(own) for own in [*ensemble.get("tables", ()), *points]]


def operating_of(part: Mapping[str, Any], report: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Operating points of other patients, at the thresholds of the run."""
    inside = report.get("operating") or {}
    return [table(own) for own in operating.tables(part.get("operating") or {}, inside)]


def count_table(table: Mapping[str, Any]) -> dict[str, Any]:
    """Classes in columns, folds (or fold and part) in rows, however deep the counts are nested."""
    rows: dict[str, dict[str, int]] = {}
    for path, value in _leaves(table):
        rows.setdefault(" · ".join(path[:-1]) or "all", {})[path[-1]] = value
    classes = list(dict.fromkeys(name for row in rows.values() for name in row))
    return {
        "classes": classes,
        "rows": {name: [row.get(c, 0) for c in classes] for name, row in rows.items()},
    }


def groups(recipe: Mapping[str, Any]) -> dict[str, list[tuple[str, str]]]:
    """The config by its first level; settings that stand alone come first, as ``general``."""
    alone = {k: v for k, v in recipe.items() if not isinstance(v, Mapping)}
    nested = {k: v for k, v in recipe.items() if isinstance(v, Mapping)}
    groups = {"general": alone, **nested} if alone else nested
    return {name: list(flatten(content)) for name, content in groups.items() if content}


def flatten(content: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """(dotted name, text) of every setting, however deep it lies."""
    for path, value in _leaves(content):
        yield ".".join(path), wording.setting(value)


def _leaves(content: Mapping[str, Any]) -> Iterator[tuple[tuple[str, ...], Any]]:
    for key, value in content.items():
        if isinstance(value, Mapping) and value:
            for path, leaf in _leaves(value):
                yield (str(key), *path), leaf
        else:
            yield (str(key),), value


def checklists(answers: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """Standard -> its rows and how many of them have each status."""
    standards: dict[str, list[Mapping[str, Any]]] = {}
    for row in answers:
        standards.setdefault(row["standard"], []).append(row)
    return {
        name: {"rows": own, "counts": Counter(row["status"] for row in own)}
        for name, own in standards.items()
    }
