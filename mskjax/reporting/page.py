"""report.html: one file that shows everything in report.json to a reader and a printer.

Nothing is loaded from outside, nothing needs JavaScript, and every string of the report is escaped.
Fields that a report lacks leave out their section; the external test and the checklists are always
answered, because silence would be read as a yes.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jinja2

from mskjax.reporting import definitions, joint, key, operating, wording
from mskjax.reporting import page_drawings as drawings
from mskjax.reporting import page_rows as rows
from mskjax.reporting.checklist import checklist
from mskjax.reporting.sections import SECTIONS, contents
from mskjax.writers import write_text

_NOTHING: Mapping[str, Any] = {"end_to_end": {}, "oracle_region": {}}


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
    for name in (*filters, "setting", "cost", "kind"):
        environment.filters[name] = getattr(wording, name)
    environment.filters["sets"] = key.sets
    html = environment.get_template("report.html").render(_view(report, run_dir))
    write_text(output / "report.html", html)
    return output / "report.html"


def _view(report: Mapping[str, Any], run_dir: Path) -> dict[str, Any]:
    """Everything the template prints."""
    phantom = report["cohort"]["kind"] == "phantom"
    cohort = report["cohort"]
    default_title = f"{wording.label(report['system'])} ({report['variant']}) on {cohort['name']}"
    answers = report.get("checklist") or checklist(report)
    rivals, minus = rows.baselines(report)
    drawn = {name: list(draw(report, phantom)) for name, draw in drawings.DRAWINGS.items()}
    taken = sum(len(one["uri"]) for every in drawn.values() for one in every)
    return {
        "report": {**dict.fromkeys((*SECTIONS, "key", "gradings")), **report},
        "phantom": phantom,
        "control": report["protocol"].get("control"),
        "kind": report["cohort"]["kind"].upper(),
        "title": report.get("title") or default_title,
        "headline": report.get("headline"),
        "created": report.get("created"),
        "contents": contents(report),
        "results": rows.by_grading(rows.side_by_side(report), report),
        "choices": definitions.choices(report),
        "terms": {
            "results": definitions.used([*report["end_to_end"], *report["oracle_region"]]),
            "stages": {name: definitions.used(own) for name, own in report["stages"].items()},
        },
        "stages": {
            name: rows.by_grading([{"metric": k, "estimate": e} for k, e in own.items()], report)
            for name, own in report["stages"].items()
            if own != report["oracle_region"]
        },
        "as_oracle": [
            name for name, own in report["stages"].items() if own and own == report["oracle_region"]
        ],
        "external": [
            rows.external_test(test, report) for test in report.get("external_tests") or []
        ],
        "held_out": rows.by_grading(rows.side_by_side(report.get("held_out") or _NOTHING), report),
        "held_out_tables": rows.operating_of(report.get("held_out") or _NOTHING, report),
        "repetitions": rows.over_repetitions(report.get("repetitions") or []),
        "seeds": {t: rows.by_grading(r, report) for t, r in joint.beside(report).items()},
        "ensemble_tables": rows.tables_of(report.get("ensemble") or {}),
        "rivals": list(rivals),
        "baselines": rows.by_grading(rows.beside_baselines(report, rivals), report),
        "minus": list(minus),
        "differences": rows.by_grading(rows.of_strata(minus), report),
        "subgroups": {
            group: rows.by_grading(rows.of_strata(strata), report)
            for group, strata in (report.get("subgroups") or {}).items()
        },
        "tables": [rows.table(table) for table in report.get("tables") or []],
        "published": rows.beside_published(report),
        "operating": [rows.table(t) for t in operating.tables(report.get("operating") or {})],
        "doubts": rows.doubtful(report),
        "calibrated": [rows.table(table) for table in report.get("calibrated") or []],
        **drawn,
        "pictures": drawings.pictures(report.get("pictures") or [], run_dir, taken),
        "counts": {
            name: rows.count_table(table)
            for name, table in (report.get("class_counts") or {}).items()
        },
        "overlap": report["protocol"]["patient_overlap"],
        "recipe": rows.groups(report.get("recipe") or {}),
        "environment": list(rows.flatten(report["environment"])),
        "model_card": report.get("model_card") or {},
        "participants": [rows.table(t) for t in report.get("participants") or []],
        "preprocessing": {
            name: list(rows.flatten(own))
            for name, own in (report.get("preprocessing") or {}).items()
        },
        "checklists": rows.checklists(answers),
    }
