"""report.html: one file that shows everything in report.json to a reader and a printer.

Nothing is loaded from outside, nothing needs JavaScript, and every string of the report is escaped.
Fields that a report lacks leave out their section; the external test and the checklists are always
answered, because silence would be read as a yes.
"""

import base64
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2

from mskjax.reporting import doubts, figures, joint, operating, wording
from mskjax.reporting.checklist import checklist
from mskjax.writers import write_text

# Base64 adds a third: with 5 MB of pictures the page stays below about 8 MB.
_PICTURE_BYTES = 5_000_000
_MEDIA = {".png": "image/png", ".jpg": "image/jpeg", ".jpeg": "image/jpeg", ".svg": "image/svg+xml"}
_NOTHING: Mapping[str, Any] = {"end_to_end": {}, "oracle_region": {}}
_FORESTS = 4  # comparisons drawn; all of them are in the tables

# Anchor -> title, in reading order.  `checklist` refers to sections by these titles.
SECTIONS = {
    "results": "Key results",
    "seeds": "Seeds and their ensemble",
    "stages": "Results of each stage",
    "baselines": "Baselines beside the model",
    "tables": "Further comparisons",
    "published": "Published values",
    "confusion": "Confusion matrices",
    "roc": "Receiver operating characteristic",
    "operating": "Operating point",
    "calibration": "Calibration",
    "folds": "Values of each fold",
    "repetitions": "Repetitions",
    "subgroups": "Subgroups",
    "doubts": "Doubtful reference grades",
    "held_out": "Held-out patients",
    "external": "External test",
    "pictures": "Pictures",
    "curves": "Learning curves",
    "cohort": "Cohort",
    "splits": "Splits and class counts",
    "recipe": "Training recipe",
    "architecture": "Architecture",
    "cost": "Cost",
    "environment": "Environment",
    "rules": "Scoring rules",
    "limits": "Limits",
    "model_card": "Model card",
    "command": "Make it again",
    "checklist": "Checklists",
}
_ALWAYS = {
    "results",
    "stages",
    "published",
    "external",
    "cohort",
    "splits",
    "cost",
    "environment",
    "checklist",
}


def write_page(report: Mapping[str, Any], run_dir: Path, output: Path) -> Path:
    """Writes the page of one run.

    Args:
      report: the contents of report.json: the fields of its contract, and optionally title,
        headline, command, created, flow, class_counts, splits, confusion, calibration, calibrated
        (as tables), operating, doubts, folds, subgroups, architecture, recipe, curves, checklist,
        rules, limits, repetitions, held_out, seeds, ensemble, external, model_card, and those that
        systems add:

        - gradings, ``{task: {"figures": [name], "further": [name]}}``: tables have the figures of
          a task under its title, and those that are further ones folded away below.
        - tables, ``[{"id": str, "title": str, "note": str, "columns": [str], "rows": [[cell]]}]``
          with cell = text, number, None or estimate, under the heading tables_title; a column
          called ``p``, ``p ...`` or ``p, ...`` holds p-values.
        - roc, ``{name: entries of figures.roc}``; points under the name ``operating`` are drawn in
          every figure.
        - pictures, ``[{"path": str, "caption": str, "failure": bool, "facts": [[name, text]]}]``.
      run_dir: folder that the paths of ``pictures`` are relative to.
      output: folder that gets ``report.html``; the file appears complete or not at all.

    Returns:
      The HTML file.

    Raises:
      ValueError: a table or the data of a figure have the wrong shape.
    """
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("mskjax.reporting"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    filters = ("metric", "label", "number", "number_or_dash", "signed", "p_value", "interval")
    for name in (*filters, "setting", "cost"):
        environment.filters[name] = getattr(wording, name)
    html = environment.get_template("report.html").render(_view(report, run_dir))
    write_text(output / "report.html", html)
    return output / "report.html"


def _view(report: Mapping[str, Any], run_dir: Path) -> dict[str, Any]:
    """Everything the template prints."""
    phantom = report["cohort"]["kind"] != "real"
    cohort = report["cohort"]
    default_title = f"{wording.label(report['system'])} ({report['variant']}) on {cohort['name']}"
    rows: list[Mapping[str, Any]] = report.get("checklist") or [*checklist(report)]
    return {
        "report": {**dict.fromkeys(SECTIONS), **report},
        "phantom": phantom,
        "control": report["protocol"].get("control"),
        "kind": "PHANTOM" if phantom else "REAL",
        "title": report.get("title") or default_title,
        "headline": report.get("headline"),
        "created": report.get("created"),
        "contents": _contents(report),
        "results": _by_grading(_side_by_side(report), report),
        "stages": {
            name: _by_grading([{"metric": k, "estimate": e} for k, e in own.items()], report)
            for name, own in report["stages"].items()
        },
        "external": [_external_test(test, report) for test in report.get("external_tests") or []],
        "held_out": _by_grading(_side_by_side(report.get("held_out") or _NOTHING), report),
        "held_out_tables": _operating_of(report.get("held_out") or _NOTHING, report),
        "repetitions": _over(report.get("repetitions") or []),
        "seeds": {t: _by_grading(rows, report) for t, rows in joint.beside(report).items()},
        "ensemble_tables": [
            _table(table) for table in (report.get("ensemble") or {}).get("tables", [])
        ],
        "baselines": _by_grading(_beside_baselines(report), report),
        "subgroups": {
            group: _by_grading(_of_strata(strata), report)
            for group, strata in (report.get("subgroups") or {}).items()
        },
        "tables": [_table(table) for table in report.get("tables") or []],
        "published": _beside_published(report),
        "forests": list(_forests(report, phantom)),
        "confusions": [
            _svg(
                f"Confusion matrix, {name}",
                figures.confusion_matrix(
                    entry["labels"], entry["matrix"], wording.label(name), phantom=phantom
                ),
            )
            for name, entry in (report.get("confusion") or {}).items()
        ],
        "rocs": list(_rocs(report, phantom)),
        "calibrations": list(_calibrations(report, phantom)),
        "operating": [_table(t) for t in operating.tables(report.get("operating") or {})],
        "doubts": _doubts(report),
        "calibrated": [_table(table) for table in report.get("calibrated") or []],
        "curves": [
            _svg(
                f"Learning curves, {stage}",
                figures.learning_curves(folds, wording.label(stage), phantom=phantom),
            )
            for stage, folds in (report.get("curves") or {}).items()
            if any(folds.values())
        ],
        "pictures": _pictures(report.get("pictures") or [], run_dir),
        "counts": {
            name: _count_table(table) for name, table in (report.get("class_counts") or {}).items()
        },
        "overlap": report["protocol"]["patient_overlap"],
        "recipe": _groups(report.get("recipe") or {}),
        "environment": list(_flatten(report["environment"])),
        "model_card": report.get("model_card") or {},
        "checklists": _checklists(rows),
    }


def _external_test(test: Mapping[str, Any], report: Mapping[str, Any]) -> dict[str, Any]:
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
        "rows": _by_grading(rows, report),
        "alone": _by_grading(each, report) if test["each"] else None,
        "tables": [
            *(_table(table) for table in test.get("tables") or []),
            *_operating_of(test, report),
        ],
    }


def _operating_of(part: Mapping[str, Any], report: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Operating points of other patients, at the thresholds of the run."""
    inside = report.get("operating") or {}
    return [_table(table) for table in operating.tables(part.get("operating") or {}, inside)]


def _contents(report: Mapping[str, Any]) -> dict[str, str]:
    """Titles of the sections that this report has."""
    named = SECTIONS | {"tables": report.get("tables_title") or SECTIONS["tables"]}
    return {key: title for key, title in named.items() if key in _ALWAYS or report.get(key)}


def _by_grading(
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


def _of_strata(strata: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Each metric with its estimate in each stratum."""
    names = dict.fromkeys(name for estimates in strata.values() for name in estimates)
    return [
        {"metric": name, "others": [estimates.get(name) for estimates in strata.values()]}
        for name in names
    ]


def _side_by_side(report: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Each metric end-to-end and with the reference region handed to the grader."""
    ours, oracle = report["end_to_end"], report["oracle_region"]
    return [
        {"metric": name, "end_to_end": ours.get(name), "oracle": oracle.get(name)}
        for name in dict.fromkeys([*ours, *oracle])
    ]


def _over(runs: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
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


def _beside_baselines(report: Mapping[str, Any]) -> list[dict[str, Any]]:
    baselines = report["baselines"]
    names = dict.fromkeys(name for estimates in baselines.values() for name in estimates)
    return [
        {
            "metric": name,
            "model": _ours(report, name),
            "others": [estimates.get(name) for estimates in baselines.values()],
        }
        for name in names
    ]


def _table(table: Mapping[str, Any]) -> dict[str, Any]:
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


def _doubts(report: Mapping[str, Any]) -> dict[str, list[dict[str, Any]]]:
    """Tables of doubtful references, with links to the pictures of these studies."""
    places = {
        Path(entry["path"]).stem: f"#picture-{number}"
        for number, entry in enumerate(report.get("pictures") or [])
    }
    found = doubts.tables(report.get("doubts") or {}, places)
    return {name: [_table(t) for t in own] for name, own in found._asdict().items()}


def _beside_published(report: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [{**entry, "ours": _ours(report, entry["metric"])} for entry in report["published"]]


def _ours(report: Mapping[str, Any], metric: str) -> dict[str, Any] | None:
    """Our estimate of a metric and where it stands: end-to-end before a stage's own figure."""
    places = {"end-to-end": report["end_to_end"]}
    places |= {f"stage {wording.label(k).lower()}": v for k, v in report["stages"].items()}
    for place, estimates in places.items():
        if metric in estimates:
            return {**estimates[metric], "place": place}
    return None


def _forests(report: Mapping[str, Any], phantom: bool) -> Iterator[dict[str, str]]:
    """Comparisons with at least one baseline or published value, the first few metrics."""
    names = dict.fromkeys(
        [e["metric"] for e in report["published"]]
        + [name for estimates in report["baselines"].values() for name in estimates]
    )
    compared = [name for name in names if _ours(report, name)]
    for name in compared[:_FORESTS]:
        ours = _ours(report, name) or {}
        rows = [_forest_row(f"Model, {ours['place']}", ours, "model")]
        if ours["place"] == "end-to-end" and name in report["oracle_region"]:
            oracle = report["oracle_region"][name]
            rows.append(_forest_row("Model, reference region", oracle, "model"))
        rows += [
            _forest_row(f"Baseline: {wording.label(other).lower()}", estimates[name], "baseline")
            for other, estimates in report["baselines"].items()
            if not other.startswith("model_minus_")  # a difference has another scale
            and name in estimates
        ]
        rows += [
            _forest_row(entry["source"], {**entry, "ci95": entry.get("ci")}, "published")
            for entry in report["published"]
            if entry["metric"] == name
        ]
        title = wording.metric(name)
        drawn = figures.forest(rows, title, phantom=phantom)
        yield _svg(f"{title}: model, baselines and published values", drawn)


def _forest_row(name: str, estimate: Mapping[str, Any], source: str) -> dict[str, Any]:
    bounds = estimate.get("ci95")
    # A published interval may be written in words; it stands in the table then.
    pair = bounds if isinstance(bounds, (list, tuple)) and len(bounds) == 2 else (None, None)
    return {
        "name": name,
        "value": estimate.get("value"),
        "lo": pair[0],
        "hi": pair[1],
        "n": estimate.get("n"),
        "source": source,
    }


def _rocs(report: Mapping[str, Any], phantom: bool) -> Iterator[dict[str, str]]:
    drawings = dict(report.get("roc") or {})
    everywhere = {"operating": drawings.pop("operating", [])}
    for name, entries in drawings.items():
        if any(entry.get("points") or entry.get("operating") for entry in [*entries, everywhere]):
            drawn = figures.roc([*entries, everywhere], wording.label(name), phantom=phantom)
            yield _svg(f"Receiver operating characteristic, {name}", drawn)


def _calibrations(report: Mapping[str, Any], phantom: bool) -> Iterator[dict[str, str]]:
    for name, bins in (report.get("calibration") or {}).items():
        if any(b["n"] for b in bins):
            drawn = figures.reliability(bins, wording.label(name), phantom=phantom)
            yield _svg(f"Calibration, {name}", drawn)


def _svg(alt: str, content: bytes) -> dict[str, str]:
    return {"alt": alt, "uri": _data_uri("image/svg+xml", content)}


def _data_uri(media: str, content: bytes) -> str:
    return f"data:{media};base64,{base64.b64encode(content).decode('ascii')}"


def _pictures(entries: list[Mapping[str, Any]], run_dir: Path) -> list[dict[str, Any]]:
    """Failures first; a picture that cannot be shown keeps its place and says why."""
    shown, room = [], _PICTURE_BYTES
    numbered = [{**entry, "id": f"picture-{i}"} for i, entry in enumerate(entries)]
    for entry in sorted(numbered, key=lambda e: not e.get("failure")):
        path = (run_dir / entry["path"]).resolve()
        uri, problem = None, None
        if not path.is_relative_to(run_dir.resolve()) or path.suffix.lower() not in _MEDIA:
            problem = "not a picture of this run"
        elif not path.is_file():
            problem = "file not found"
        elif path.stat().st_size > room:
            problem = "left out to keep this page small"
        else:
            room -= path.stat().st_size
            uri = _data_uri(_MEDIA[path.suffix.lower()], path.read_bytes())
        shown.append({**entry, "uri": uri, "problem": problem})
    return shown


def _count_table(table: Mapping[str, Any]) -> dict[str, Any]:
    """Classes in columns, folds (or fold and part) in rows, however deep the counts are nested."""
    rows: dict[str, dict[str, int]] = {}
    for path, value in _leaves(table):
        rows.setdefault(" · ".join(path[:-1]) or "all", {})[path[-1]] = value
    classes = list(dict.fromkeys(name for row in rows.values() for name in row))
    return {
        "classes": classes,
        "rows": {name: [row.get(c, 0) for c in classes] for name, row in rows.items()},
    }


def _groups(recipe: Mapping[str, Any]) -> dict[str, list[tuple[str, str]]]:
    """The config by its first level; settings that stand alone come first, as ``general``."""
    alone = {k: v for k, v in recipe.items() if not isinstance(v, Mapping)}
    nested = {k: v for k, v in recipe.items() if isinstance(v, Mapping)}
    groups = {"general": alone, **nested} if alone else nested
    return {name: list(_flatten(content)) for name, content in groups.items() if content}


def _flatten(content: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for path, value in _leaves(content):
        yield ".".join(path), wording.setting(value)


def _leaves(content: Mapping[str, Any]) -> Iterator[tuple[tuple[str, ...], Any]]:
    for key, value in content.items():
        if isinstance(value, Mapping) and value:
            for path, leaf in _leaves(value):
                yield (str(key), *path), leaf
        else:
            yield (str(key),), value


def _checklists(rows: list[Mapping[str, Any]]) -> dict[str, list[dict[str, str]]]:
    """Rows by standard; ``where`` is accepted for ``answer``."""
    standards: dict[str, list[dict[str, str]]] = {}
    for row in rows:
        answer = row.get("answer") or row.get("where") or "to be answered by the authors"
        standards.setdefault(row.get("standard", "Checklist"), []).append(
            {"item": row["item"], "topic": row.get("topic", ""), "answer": answer}
        )
    return standards
