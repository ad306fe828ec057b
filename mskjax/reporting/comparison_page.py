"""comparison.html: one file, nothing loaded from outside, no JavaScript, like a run's report."""

import base64
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2

from mskjax.reporting import figures, wording
from mskjax.writers import write_text

Json = dict[str, Any]

_PARTS = {"cross_validation": "test patients", "held_out": "held-out patients"}
_PLACES = {
    ("cross_validation", "end_to_end"): "end to end",
    ("cross_validation", "oracle_region"): "on reference regions",
    ("held_out", "end_to_end"): "held-out patients, end to end",
    ("held_out", "oracle_region"): "held-out patients, on reference regions",
}


def write_page(content: Mapping[str, Any], output: Path) -> Path:
    """Writes the page of a comparison.

    Args:
      content: of comparison.json.
      output: folder that gets ``comparison.html``.

    Returns:
      The page.
    """
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("mskjax.reporting"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    for name in ("metric", "label", "number", "interval", "setting", "signed", "p_value"):
        environment.filters[name] = getattr(wording, name)
    environment.filters["cost"] = wording.cost
    html = environment.get_template("comparison.html").render(_view(content))
    write_text(output / "comparison.html", html)
    return output / "comparison.html"


def leading(content: Mapping[str, Any]) -> list[str]:
    """The primary figure of each run in a sentence, with its difference to the reference."""
    first = content["figures"][0]
    said = []
    for name, estimate in first["values"].items():
        what = f"{name}: {wording.metric(first['metric'])}, {place(first)}, {_shown(estimate)}"
        said.append(f"{what}{'; the reference' if name == content['reference'] else ''}")
    for pair in content["pairs"]:
        for entry in (e for e in pair["differences"] if e["family"] == "primary"):
            counts = pair["shared"][entry["part"]]
            said.append(
                f"{pair['run']} minus {pair['reference']}, {place(entry)}:"
                f" {_difference(entry['difference'])}, p = {wording.p_value(entry['p'])},"
                f" corrected {wording.p_value(entry['p_holm'])} ({_counted(counts)} in both)"
            )
    return said


def place(row: Mapping[str, Any]) -> str:
    """Where a figure is taken, in words."""
    return _PLACES[row["part"], row["place"]]


def _shown(estimate: Mapping[str, Any] | None) -> str:
    if estimate is None or estimate.get("value") is None:
        return "not defined"
    interval = estimate.get("ci95")
    return f"{estimate['value']:.3f}" + (f" ({wording.interval(interval)})" if interval else "")


def _difference(estimate: Mapping[str, Any]) -> str:
    if estimate["value"] is None:
        return "not defined"
    ends = estimate["ci95"]
    interval = f" ({wording.signed(ends[0])} to {wording.signed(ends[1])})" if ends else ""
    return f"{wording.signed(estimate['value'])}{interval}"


def _counted(counts: Mapping[str, Any]) -> str:
    what = f"{counts['cases']} cases" if counts["cases"] else f"{counts['studies']} studies"
    return f"{what} of {counts['patients']} patients"


def _view(content: Mapping[str, Any]) -> Json:
    """Everything the template prints."""
    return {
        "content": content,
        "phantom": content["phantom"],
        "names": [run["name"] for run in content["runs"]],
        "lead": leading(content),
        "primary": content["figures"][0],
        "pairs": [
            pair
            | {
                "counted": {_PARTS[part]: own for part, own in pair["shared"].items()},
                "tables": _by_place(pair["differences"]),
            }
            for pair in content["pairs"]
        ],
        "tests": [
            {**entry, "run": pair["run"], "value": entry["run"], "where": place(entry)}
            for pair in content["pairs"]
            for entry in pair["differences"]
            if entry["family"] == "primary"
        ],
        "figures": _by_place(content["figures"]),
        "forest": _forest(content),
    }


def _by_place(rows: Iterable[Mapping[str, Any]]) -> Json:
    """Rows by place and grading, those of single classes and pairs apart.

    Returns:
      Place -> ``leading``, ``further`` -> title of the grading -> rows.
    """
    found: Json = {}
    for row in rows:
        own = found.setdefault(place(row), {"leading": {}, "further": {}})
        task = row["task"]
        name = row["metric"].removesuffix(f"_{task}") if task else row["metric"]
        part = own["further" if row["further"] else "leading"]
        part.setdefault(wording.label(task) if task else "", []).append({**row, "name": name})
    return found


def _forest(content: Mapping[str, Any]) -> Json:
    """The difference of the primary figure of each run, in every place, as a drawing."""
    drawn = [
        (f"{pair['run']}, {place(entry)}", entry["difference"])
        for pair in content["pairs"]
        for entry in pair["differences"]
        if entry["metric"] == content["primary"]
    ]
    title = f"{wording.metric(content['primary'])}: difference to {content['reference']}"
    svg = figures.forest(
        [_row(name, own) for name, own in drawn], title, line=0.0, phantom=content["phantom"]
    )
    alt = "; ".join(f"{name} {_difference(own)}" for name, own in drawn)
    return {"uri": base64.b64encode(svg).decode(), "alt": f"{title}. {alt}"}


def _row(name: str, estimate: Mapping[str, Any]) -> Json:
    ends: Sequence[float | None] = estimate["ci95"] or (None, None)
    value = {"value": estimate["value"], "lo": ends[0], "hi": ends[1]}
    return {"name": name, **value, "n": estimate["n"]}
