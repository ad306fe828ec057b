"""Figures and pictures of report.html as data URIs."""

import base64
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from mskjax.reporting import figures, wording
from mskjax.reporting.key import MINUS
from mskjax.reporting.page_rows import ours

# Base64 adds a third: with 5 MB of pictures the page stays below about 8 MB.
_PICTURE_BYTES = 5_000_000
_MEDIA = {".png": "image/png", ".jpg": "image/jpeg", ".jpeg": "image/jpeg", ".svg": "image/svg+xml"}
_FORESTS = 4  # comparisons drawn; all of them are in the tables


def forests(report: Mapping[str, Any], phantom: bool) -> Iterator[dict[str, str]]:
    """Comparisons with at least one baseline or published value, the first few metrics."""
    names = dict.fromkeys(
        [e["metric"] for e in report["published"]]
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
        title = wording.metric(name)
        drawn = figures.forest(rows, title, phantom=phantom)
        yield svg(f"{title}: model, baselines and published values", drawn)


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


def rocs(report: Mapping[str, Any], phantom: bool) -> Iterator[dict[str, str]]:
    """The receiver operating characteristic of each grading that has one."""
    drawings = dict(report.get("roc") or {})
    everywhere = {"operating": drawings.pop("operating", [])}
    for name, entries in drawings.items():
        if any(entry.get("points") or entry.get("operating") for entry in [*entries, everywhere]):
            drawn = figures.roc([*entries, everywhere], wording.label(name), phantom=phantom)
            yield svg(f"Receiver operating characteristic, {name}", drawn)


def calibrations(report: Mapping[str, Any], phantom: bool) -> Iterator[dict[str, str]]:
    """The reliability diagram of each grading that has cases."""
    for name, bins in (report.get("calibration") or {}).items():
        if any(b["n"] for b in bins):
            drawn = figures.reliability(bins, wording.label(name), phantom=phantom)
            yield svg(f"Calibration, {name}", drawn)


def svg(alt: str, content: bytes) -> dict[str, str]:
    """A drawing with the text that stands for it."""
    return {"alt": alt, "uri": _data_uri("image/svg+xml", content)}


def _data_uri(media: str, content: bytes) -> str:
    return f"data:{media};base64,{base64.b64encode(content).decode('ascii')}"


def pictures(entries: list[Mapping[str, Any]], run_dir: Path) -> list[dict[str, Any]]:
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
