"""report.json from what a run left in its folder; no checkpoint, no device needed for the images.

The figures come from the system's `summarise(rows of cases.csv)`; everything else (cohort,
protocol, recipe, curves, cost) is gathered here, for every system in the same way.
"""

import importlib.resources
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from mskjax import calibration, cases
from mskjax.config import StudyConfig
from mskjax.data.splits import Splits, images_of, load
from mskjax.errors import UserError
from mskjax.metrics.grading import Grading
from mskjax.metrics.intervals import weighting
from mskjax.reporting import (
    artefacts,
    calibrated,
    characteristics,
    doubts,
    explained,
    gallery,
    grading_drawings,
    joint,
    key,
    model_card,
    operating,
    pooled,
    reader_study,
    wording,
)
from mskjax.reporting import limits as limits_of_run
from mskjax.reporting.checklist import checklist
from mskjax.reporting.external import summarised, tests_of
from mskjax.reporting.page import write_page
from mskjax.tables import Row
from mskjax.workdir import ENSEMBLE, REPORT, config_of
from mskjax.writers import write_text

VERSION = 2  # of report.json; report.schema.json beside this file describes it


class System(Protocol):
    """What a report asks of a system; the attributes are those of `two_stage.system.System`."""

    name: str
    title: str
    primary: str
    method: str
    stages: tuple[Any, ...]
    gradings: tuple[Grading, ...]
    published: tuple[Any, ...]
    rules: tuple[str, ...]
    limits: tuple[str, ...]
    sets: Mapping[str, Mapping[str, Sequence[int]]]
    answers: Mapping[str, str]
    segmenter: str

    def meaning(self) -> dict[str, Any]:
        """What images go through, under ``preprocessing``."""

    def facts(self, rows: Sequence[Row]) -> list[tuple[str, str]]:
        """(name, text) beside the picture of a study, from its rows of cases.csv."""

    def summarise(self, rows: Sequence[Row], resamples: int, seed: int) -> dict[str, Any]:
        """The figures of report.json, from the rows of cases.csv."""


def schema() -> dict[str, Any]:
    """The JSON schema (draft 2020-12) of report.json."""
    return json.loads((importlib.resources.files(__package__) / "report.schema.json").read_text())


def write_report(
    workdir: Path, system: System, output: Path | None = None, external: Sequence[Path] = ()
) -> Path:
    """Writes ``report.json`` and ``report.html``.

    Args:
      workdir: folder of a finished evaluation.
      system: of the run.
      output: folder of the report; None = ``workdir/report``.
      external: folders of external tests, beside those that lie in the run.

    Returns:
      The page.

    Raises:
      UserError: a part of the run is missing.
    """
    output = output or workdir / REPORT
    report = content(workdir, system, external, reader_study.kept(output))
    write_text(output / "report.json", json.dumps(report, indent=1, allow_nan=False) + "\n")
    return write_page(report, workdir, output)


def content(
    workdir: Path,
    system: System,
    external: Sequence[Path] = (),
    readers: Sequence[Row] | None = None,
) -> dict[str, Any]:
    """As `summarise`, of all seeds where there are several, with external tests and readers.

    Args:
      workdir: folder of a finished evaluation.
      system: of the run.
      external: folders of external tests, beside those that lie in the run.
      readers: of `reader_study.load`; None takes those that the run's report has.
    """
    seeds = sorted(workdir.glob("seed_*"), key=lambda p: int(p.name.removeprefix("seed_")))
    report = _of_seeds(workdir, seeds, system) if seeds else summarise(workdir, system)
    calls = reader_study.kept(workdir / REPORT) if readers is None else readers
    if calls and system.gradings:
        report |= _with_readers(report, seeds[0] if seeds else workdir, system, calls)
        report |= _told(report)
    if tests := [*tests_of(workdir), *external]:
        report |= _external(workdir, system, tests, report["limits"])
        report |= _told(report)
    return report


def _with_readers(
    report: Mapping[str, Any], workdir: Path, system: System, calls: Sequence[Row]
) -> dict[str, Any]:
    """The fields of a report that readers change; of several seeds, beside the first."""
    config, grading = config_of(workdir), system.gradings[0]
    _, divided = _division(workdir, config)
    rows = _of_folds(_rows(workdir / "cases.csv"), divided.crossed(0))
    tables = reader_study.tables(calls, rows, grading, system.method, config.resamples, config.seed)
    points = reader_study.operating(calls, rows, grading)
    return {
        "tables": [*tables, *report["tables"]],
        "tables_title": report.get("tables_title") or reader_study.TITLE,
        **({"roc": {**report["roc"], "operating": points}} if points else {}),
    }


def _external(
    workdir: Path, system: System, tests: Sequence[Path], limits: Sequence[str]
) -> dict[str, Any]:
    """The fields of a report that external tests change; the figures are those of the first."""
    config, fitted = config_of(workdir), _calibration(workdir, system)
    found = [summarised(test, system, fitted, config.resamples, config.seed) for test in tests]
    return {
        "external": found[0]["figures"],
        "external_tests": found,
        "limits": [limit for limit in limits if limit != limits_of_run.NO_EXTERNAL],
    }


def summarise(workdir: Path, system: System) -> dict[str, Any]:
    """The content of report.json.

    Args:
      workdir: folder of a finished evaluation.
      system: of the run.

    Raises:
      UserError: a part of the run is missing.
    """
    config = config_of(workdir)
    audit, divided = _division(workdir, config)
    stages = [stage.name for stage in system.stages]
    every_row = _rows(workdir / "cases.csv")
    folds = sorted({int(r["fold"]) for r in every_row})
    crossed = _of_folds(every_row, divided.crossed(0))
    apart = _of_folds(every_row, [k for k, fold in enumerate(divided.folds) if fold.held_out])
    rows = crossed + apart  # of several repetitions, the first: no case counts twice
    figures = system.summarise(crossed, config.resamples, config.seed)
    fitted = _calibration(workdir, system)
    doubted = doubts.doubtful(
        crossed, system.gradings, system.method, config.resamples, config.seed
    )
    report = {
        "version": VERSION,
        "system": system.name,
        "variant": config.variant,
        "title": system.title,
        "primary": system.primary,
        "headline": _headline(
            system.primary, figures, audit, config.data.shuffle_labels, divided.repetitions
        ),
        "cohort": {
            **{
                k: audit[k]
                for k in (
                    "name",
                    "version",
                    "kind",
                    "licence",
                    "fingerprint",
                    "patients",
                    "cases",
                    "excluded",
                )
            },
            "restricted": audit.get("restricted", []),
            "parts": audit.get("parts", {}),
            "config": config.data.config,
            "citation": audit.get("citation", ""),
            "notes": audit.get("notes", []),
        },
        "protocol": {
            "folds": len(divided.crossed(0)),
            "repetitions": divided.repetitions,
            "unit": divided.unit,
            "split": divided.kind,
            "seeds": [config.seed if config.train_seed is None else config.train_seed],
            "patient_overlap": divided.patient_overlap,
            "resamples": config.resamples,
            **({"control": limits_of_run.SHUFFLED} if config.data.shuffle_labels else {}),
        },
        **figures,
        "gradings": _gradings(system, figures),
        "studies": _studies(crossed, system),
        "operating": operating.crossed(
            crossed, system.gradings, system.method, config.resamples, config.seed
        ),
        "doubts": doubted,
        "calibrated": calibrated.tables(fitted),
        "seeds": [],
        "ensemble": {},
        "repetitions": _repetitions(every_row, figures, divided, system, config),
        "held_out": _held_out(apart, system, fitted, config),
        "published": [p.as_json() for p in system.published],
        "external": {},
        "cost": artefacts.cost(workdir, stages, folds),
        "environment": artefacts.content(workdir / "environment.json"),
        "command": artefacts.command(workdir),
        "splits": {
            "folds": [
                {
                    "train": len(f.train),
                    "validation": len(f.validation),
                    "test": len(f.test),
                    "held_out": f.held_out,
                    "repetition": f.repetition,
                }
                for f in divided.folds
            ],
            "patient_overlap": divided.patient_overlap,
            "overlapping": divided.overlapping,
            "compared": "identifiers and images" if divided.has_images else "identifiers",
            "left_out": divided.left_out,
        },
        "class_counts": _class_counts(audit, rows),
        "flow": _flow(audit, rows),
        "participants": [characteristics.table(workdir, rows, _tested(divided), system.gradings)],
        "preprocessing": system.meaning()["preprocessing"],
        "answers": dict(system.answers),
        "architecture": artefacts.architecture(workdir, stages),
        "recipe": artefacts.recipe(workdir, system.stages),
        "curves": artefacts.curves(workdir, stages, folds),
        "pictures": gallery.gallery(workdir, system, rows, doubts.studies_of(doubted)),
        "attention": explained.summary(crossed),
        "rules": list(system.rules),
        "limits": _limits(workdir, system, audit, divided, config),
    }
    return report | _told(report)


def _told(report: Mapping[str, Any]) -> dict[str, Any]:
    """What is said of a report as a whole: key message, model card, checklists."""
    told: dict[str, Any] = {"key": key.messages(report)}
    told["model_card"] = model_card.content({**report, **told})
    return told | {"checklist": checklist({**report, **told})}


def _of_seeds(workdir: Path, seeds: Sequence[Path], system: System) -> dict[str, Any]:
    """The content of report.json of a study that was trained from several seeds."""
    config = config_of(workdir)
    audit, divided = _division(workdir, config)
    rows = _rows(workdir / ENSEMBLE / "cases.csv")
    draws = joint.resamples(joint.tested(divided), config.resamples, config.seed)
    with weighting(draws):
        reports = [summarise(folder, system) for folder in seeds]
    report = pooled.pooled(reports, config.seed)
    report |= {name: reports[0][name] for name in grading_drawings.FIELDS if name in report}
    each = [
        {"seed": own["protocol"]["seeds"][0], **{place: own[place] for place in joint.PLACES}}
        for own in reports
    ]
    shuffled, repetitions = config.data.shuffle_labels, report["protocol"]["repetitions"]
    report |= {
        "headline": _headline(system.primary, report, audit, shuffled, repetitions, len(each)),
        "protocol": {**report["protocol"], "seeds": [own["seed"] for own in each]},
        "seeds": each,
        "ensemble": joint.ensemble(rows, reports, divided, system, config, draws),
        "calibrated": calibrated.tables(_calibration(workdir, system)),
        "cost": artefacts.cost_of_seeds(reports),
        "command": artefacts.command(workdir),
        "recipe": artefacts.recipe(workdir, system.stages),
        "limits": _limits(workdir, system, audit, divided, config, len(each)),
        "pictures": [
            {**entry, "path": f"{seeds[0].name}/{entry['path']}"} for entry in report["pictures"]
        ],
    }
    report = pooled.without_draws(report)
    if report["headline"]:
        report["headline"] += joint.sentence(report)
    return report | _told(report)


def _gradings(system: System, figures: Mapping[str, Any]) -> dict[str, Any]:
    """The figures of each grading, with its classes, how a class is chosen and what it holds."""
    return {
        g.task: {
            **figures["gradings"][g.task],
            "classes": list(g.classes),
            "ordinal": g.ordinal,
            "call": g.rule,
            "sets": system.sets.get(g.task, {}),
        }
        for g in system.gradings
        if g.task in figures.get("gradings", {})
    }


def _tested(divided: Splits) -> dict[str, Sequence[str]]:
    """Heading -> the patients whom a fold tests; of repetitions, those of the first."""
    crossed = divided.crossed(0)
    return {
        "Held out" if fold.held_out else f"Fold {number}": fold.test
        for number, fold in enumerate(divided.folds)
        if fold.held_out or number in crossed
    }


def _studies(rows: Sequence[Row], system: System) -> dict[str, list[float]]:
    """Structure -> Dice of each study, in the order of their names."""
    found: dict[str, list[float]] = {}
    for row in sorted(rows, key=lambda r: r["study"]):
        own = row["kind"] == "structure" and row.get("method", "") == system.segmenter
        if own and row.get("dice"):
            found.setdefault(row["name"], []).append(float(row["dice"]))
    return found


def _division(workdir: Path, config: StudyConfig) -> tuple[dict[str, Any], Splits]:
    """The audit of a run's cohort, and its patients' division.

    Raises:
      UserError: one is missing.
    """
    audit = artefacts.content(workdir / "cohort.json")
    _there(workdir / "splits.json")
    kept = sorted({patient for patient, _ in audit["index"]})
    images = images_of(audit)
    divided = load(workdir / "splits.json", kept, audit["fingerprint"], config.data.split, images)
    return audit, divided


def _rows(path: Path) -> list[Row]:
    """Rows of a table of cases; raises UserError where it is missing."""
    return cases.read(_there(path))


def _there(path: Path) -> Path:
    if not path.exists():
        raise UserError(f"{path} is missing; finish the run first.")
    return path


def _limits(
    workdir: Path,
    system: System,
    audit: dict[str, Any],
    divided: Splits,
    config: StudyConfig,
    seeds: int = 1,
) -> list[str]:
    extended = artefacts.extended(workdir, system.stages)
    return [
        *limits_of_run.of(system.limits, audit, divided, config.data.shuffle_labels, seeds),
        *map(limits_of_run.of_extension, extended),
    ]


def _calibration(workdir: Path, system: System) -> Mapping[str, Any]:
    """The content of calibration.json; of a system that grades nothing, nothing is fitted."""
    if not system.gradings:
        return {"tasks": {}, "caveats": []}
    return calibration.load(workdir, system.gradings).content


def _of_folds(rows: Sequence[Row], folds: Sequence[int]) -> list[Row]:
    return [r for r in rows if int(r["fold"]) in folds]


def _repetitions(
    rows: Sequence[Row],
    first: dict[str, Any],
    divided: Splits,
    system: System,
    config: StudyConfig,
) -> list[dict[str, Any]]:
    """End-to-end and oracle figures of each cross-validation, where it was repeated."""
    if divided.repetitions == 1:
        return []
    found = []
    for number in range(divided.repetitions):
        own = _of_folds(rows, divided.crossed(number))
        figures = system.summarise(own, config.resamples, config.seed) if number else first
        places = {place: figures[place] for place in joint.PLACES}
        found.append({"repetition": number, **places})
    return found


def _held_out(
    rows: Sequence[Row], system: System, fitted: Mapping[str, Any], config: StudyConfig
) -> dict[str, Any]:
    """Figures of patients whom no cross-validated fold has seen; operating points of the run."""
    if not rows:
        return {}
    settings = {"resamples": config.resamples, "seed": config.seed}
    figures = system.summarise(rows, **settings)
    points = operating.given(rows, system.gradings, system.method, fitted, **settings)
    return {**{place: figures[place] for place in joint.PLACES}, "operating": points}


def _headline(
    name: str,
    figures: dict[str, Any],
    audit: dict[str, Any],
    shuffled: bool,
    repetitions: int,
    seeds: int = 1,
) -> str:
    """The leading end-to-end figure in a sentence, with interval, n and what it is measured on."""
    mark = "CONTROL RUN (shuffled labels): " if shuffled else ""
    first = figures["end_to_end"].get(name)
    if not first or first["value"] is None or first["ci95"] is None:
        return f"{mark}no end-to-end figure is defined." if mark else ""
    what = {"phantom": "generated phantoms", "derived": "derived data sets"}.get(
        audit["kind"], "patients"
    )
    which = f"; repetition 0, the first of {repetitions}" if repetitions > 1 else ""
    which += f"; mean over {seeds} seeds" if seeds > 1 else ""
    return (
        f"{mark}{wording.metric(name)}, end to end: {wording.number(first['value'])} (95 % interval"
        f" {wording.interval(first['ci95'])}; {first['n']} cases of {first['patients']}"
        f" {what}{which})."
    )


def _class_counts(audit: dict[str, Any], rows: Sequence[Row]) -> dict[str, dict[str, Any]]:
    """Graded structures of the cohort by grade, and scored cases of each fold by reference."""
    counts: dict[str, dict[str, Any]] = {}
    for grade, found in audit["counts"].items():
        known = {value: n for value, n in found.items() if value != "-1"}
        missing = {"not graded": found["-1"]} if "-1" in found else {}
        counts[grade] = {"cohort": known | missing}
    graded = sorted(_cases(rows), key=lambda r: int(r["fold"]))
    tasks = [name for name in (graded[0] if graded else ()) if name.startswith("reference_")]
    for task in tasks:
        held_out: dict[str, Counter[str]] = {}
        for row in (r for r in graded if r[task]):
            held_out.setdefault(f"fold {row['fold']}", Counter())[row[task]] += 1
        # All classes in every fold: columns stand in order, and a class that is missing shows.
        classes = sorted(set().union(*held_out.values()))
        counts[f"held_out_{task.removeprefix('reference_')}"] = {
            fold: {value: found[value] for value in classes} for fold, found in held_out.items()
        }
    return counts


def _cases(rows: Sequence[Row]) -> list[Row]:
    """The rows of graded cases, each case once."""
    return list({r["case"]: r for r in rows if r.get("case")}.values())


def _flow(audit: dict[str, Any], rows: Sequence[Row]) -> list[dict[str, Any]]:
    """How many patients, studies and cases have what it takes, and are scored."""
    steps: list[dict[str, Any]] = [
        {"step": f"packaged, with {part}", **having}
        for part, having in audit.get("parts", {}).items()
    ]
    graded = _cases(rows)
    for name, scored in (
        ("regions", [r for r in rows if not r.get("case")]),
        ("grades", graded),
    ):
        if scored:
            steps.append(
                {
                    "step": f"scored on held-out folds, {name}",
                    "patients": len({r["patient"] for r in scored}),
                    "studies": len({r["study"] for r in scored}),
                }
            )
    if graded:
        steps[-1]["cases"] = len(graded)
        for step in steps:
            if step["step"] == "packaged, with grade":
                step["cases"] = audit["cases"]
    return steps
