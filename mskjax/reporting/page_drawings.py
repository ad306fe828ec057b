"""Figures and pictures of report.html as data URIs."""

import base64
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from mskjax.reporting import curves, figures, spreads, wording
from mskjax.reporting.key import MINUS
from mskjax.reporting.page_rows import ours

Drawing = dict[str, str]  # ``alt`` and ``uri``

PAGE_BYTES = 2_700_000  # of drawings and pictures: a page stays below 3 MB, and can be mailed
_MEDIA = {".png": "image/png", ".jpg": "image/jpeg", ".jpeg": "image/jpeg", ".svg": "image/svg+xml"}
_FORESTS = 4  # comparisons drawn; all of them are in the tables


def forests(report: Mapping[str, Any], phantom: bool) -> Iterator[Drawing]:
    """Comparisons with at least one baseline or published value, the first few metrics."""
    names = dict.fromkeys(
        [report.get("primary", ""), *(e["metric"] for e in report["published"])]
        + [name for estimates in report["baselines"].values() for name in estimates]
    )
    compared = [name for name in names if ours(report, name)]
    for name in compared[:_FORESTS]:
        own = ours(report, name) or {}
        rows = [_forest_row(f"Model, {own['place']}", own, "model")]
        if own["place"] == "end-to-end" and name in report["oracle_region"]:
            oracle = report["oracle_region"][name]
            rows.append(_forest_row("Model, reference region", oracle, "model"))
        rows += [
            _forest_row(f"Baseline: {wording.label(other).lower()}", estimates[name], "baseline")
            for other, estimates in report["baselines"].items()
            if not other.startswith(MINUS)  # a difference has another scale
            and name in estimates
        ]
        rows += [
            _forest_row(entry["source"], {**entry, "ci95": entry.get("ci")}, "published")
            for entry in report["published"]
            if entry["metric"] == name
        ]
        if len(rows) > 1:
            title = wording.metric(name)
            yield svg(_values(title, rows), figures.forest(rows, title, phantom=phantom))


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


def confusions(report: Mapping[str, Any], phantom: bool) -> Iterator[Drawing]:
    """A confusion matrix of each grading."""
    for name, own in (report.get("confusion") or {}).items():
        labels = [wording.label(label) for label in own["labels"]]
        drawn = figures.confusion_matrix(
            labels, own["matrix"], wording.label(name), phantom=phantom
        )
        rows = [
            f"of {sum(row)} {label}, "
            + ", ".join(f"{n} called {to}" for n, to in zip(row, labels, strict=True) if n)
            for label, row in zip(labels, own["matrix"], strict=False)
            if sum(row)
        ]
        yield svg(f"Confusion matrix, {wording.label(name)}: {'; '.join(rows)}", drawn)


def rocs(report: Mapping[str, Any], phantom: bool) -> Iterator[Drawing]:
    """The receiver operating characteristic of each grading that has one."""
    drawings = dict(report.get("roc") or {})
    everywhere = {"operating": drawings.pop("operating", [])}
    for name, own in drawings.items():
        if any(entry.get("points") or entry.get("operating") for entry in [*own, everywhere]):
            drawn = curves.roc([*own, everywhere], wording.label(name), phantom=phantom)
            title = f"Receiver operating characteristic, {wording.label(name)}"
            yield svg(f"{title}: {_areas(own, 'AUROC', 'auroc')}", drawn)


def precision_recalls(report: Mapping[str, Any], phantom: bool) -> Iterator[Drawing]:
    """Precision against recall of each grading that has a positive case."""
    for name, own in (report.get("precision_recall") or {}).items():
        if any(entry["points"] for entry in own):
            drawn = curves.precision_recall(own, wording.label(name), phantom=phantom)
            said = _areas(own, "average precision", "average_precision")
            yield svg(f"Precision and recall, {wording.label(name)}: {said}", drawn)


def calibrations(report: Mapping[str, Any], phantom: bool) -> Iterator[Drawing]:
    """The reliability diagram of each grading that has cases."""
    for name, bins in (report.get("calibration") or {}).items():
        if any(b["n"] for b in bins):
            drawn = curves.reliability(bins, wording.label(name), phantom=phantom)
            error, n = curves.calibration_error(bins), sum(b["n"] for b in bins)
            said = f"expected calibration error {error:.3f}, n = {n}"
            yield svg(f"Calibration, {wording.label(name)}: {said}", drawn)


def agreements(report: Mapping[str, Any], phantom: bool) -> Iterator[Drawing]:
    """Expected against reference grade, of ordinal gradings."""
    for name, own in (report.get("agreement") or {}).items():
        if own:
            drawn = spreads.agreement(own, wording.label(name), phantom=phantom)
            low, high = map(wording.signed, own["limits"])
            said = f"mean difference {wording.signed(own['bias']['value'])}, limits {low} to {high}"
            yield svg(f"Agreement, {wording.label(name)}: {said}", drawn)


def studies(report: Mapping[str, Any], phantom: bool) -> Iterator[Drawing]:
    """Dice of every study, by structure."""
    values = {name: own for name, own in (report.get("studies") or {}).items() if own}
    if values:
        drawn = spreads.studies(values, "Dice of each study", "Dice", phantom=phantom)
        said = "; ".join(
            f"{wording.label(name)} from {min(own):.3f} to {max(own):.3f}"
            for name, own in values.items()
        )
        yield svg(f"Dice of each study: {said}", drawn)


def strata(report: Mapping[str, Any], phantom: bool) -> Iterator[Drawing]:
    """The leading figure in each stratum of each group."""
    name = report.get("primary")
    for group, own in (report.get("subgroups") or {}).items():
        rows = [
            _forest_row(stratum, figures_of[name], "model")
            for stratum, figures_of in own.items()
            if name in figures_of
        ]
        if rows:
            title = f"{wording.metric(str(name))}, by {wording.label(group).lower()}"
            yield svg(_values(title, rows), figures.forest(rows, title, phantom=phantom))


def learning(report: Mapping[str, Any], phantom: bool) -> Iterator[Drawing]:
    """Learning curves of each stage, all folds."""
    for stage, folds in (report.get("curves") or {}).items():
        if any(folds.values()):
            drawn = curves.learning_curves(folds, wording.label(stage), phantom=phantom)
            last = [
                f"{figures.fold_name(fold)} {rows[-1]['train_loss']:.3f}"
                for fold, rows in folds.items()
                if rows and rows[-1].get("train_loss") is not None
            ]
            said = f": last training loss {', '.join(last)}" if last else ""
            yield svg(f"Learning curves, {wording.label(stage)}{said}", drawn)


def _areas(entries: Sequence[Mapping[str, Any]], area: str, key: str) -> str:
    known = [
        f"{entry['label']} {entry[key]['value']:.3f}"
        for entry in entries
        if (entry.get(key) or {}).get("value") is not None
    ]
    return f"{area} {', '.join(known)}" if known else "no area"


def _values(title: str, rows: Sequence[Mapping[str, Any]]) -> str:
    said = [f"{row['name']} {wording.number(row['value'])}" for row in rows]
    return f"{title}: {'; '.join(said)}"


def svg(alt: str, content: bytes) -> Drawing:
    """A drawing with the text that stands for it, which says its values."""
    return {"alt": alt, "uri": _data_uri("image/svg+xml", content)}


def _data_uri(media: str, content: bytes) -> str:
    return f"data:{media};base64,{base64.b64encode(content).decode('ascii')}"


def pictures(entries: list[Mapping[str, Any]], run_dir: Path, taken: int) -> list[dict[str, Any]]:
    """Failures first; a picture that cannot be shown keeps its place and says why.

    Args:
      entries: of the report.
      run_dir: that their paths are relative to.
      taken: bytes of `PAGE_BYTES` that drawings have.
    """
    shown, room = [], 0.75 * (PAGE_BYTES - taken)  # base64 adds a third
    numbered = [{**entry, "id": f"picture-{i}"} for i, entry in enumerate(entries)]
    for entry in sorted(numbered, key=lambda e: not e.get("failure")):
        path = (run_dir / entry["path"]).resolve()
        uri, problem = None, None
        if not path.is_relative_to(run_dir.resolve()) or path.suffix.lower() not in _MEDIA:
            problem = "not a picture of this run"
        elif not path.is_file():
            problem = "file not found"
        elif path.stat().st_size > room:
            problem = "left out to keep this page below 3 MB"
        else:
            room -= path.stat().st_size
            uri = _data_uri(_MEDIA[path.suffix.lower()], path.read_bytes())
        shown.append({**entry, "uri": uri, "problem": problem})
    return shown


# What templates call them -> what draws them.
DRAWINGS: Mapping[str, Callable[[Mapping[str, Any], bool], Iterator[Drawing]]] = {
    "forests": forests,
    "confusions": confusions,
    "rocs": rocs,
    "precision_recalls": precision_recalls,
    "calibrations": calibrations,
    "agreements": agreements,
    "studies": studies,
    "strata": strata,
    "curves": learning,
}
