"""report.html of a sweep: one file, nothing loaded from outside, no JavaScript, like a run's."""

import base64
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2

from mskjax.progress import duration
from mskjax.reporting import wording
from mskjax.sweeps import figures, results, space
from mskjax.sweeps.declared import Sweep
from mskjax.sweeps.results import Trial


def write_page(sweep: Sweep, content: Mapping[str, Any], folder: Path) -> Path:
    """Writes ``report.html``.

    Args:
      sweep: resolved.
      content: of sweep.json.
      folder: that gets the page.

    Returns:
      The page.
    """
    own = jinja2.PackageLoader("mskjax.sweeps")
    environment = jinja2.Environment(
        loader=jinja2.ChoiceLoader([own, jinja2.PackageLoader("mskjax.reporting")]),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    for name in ("number", "number_or_dash", "interval"):
        environment.filters[name] = getattr(wording, name)
    environment.filters["title"] = space.title
    environment.filters["text"] = space.text
    environment.filters["duration"] = lambda s: "–" if s is None else duration(s)
    path = folder / "report.html"
    results.replace(path, environment.get_template("sweep.html").render(_view(sweep, content)))
    return path


def _view(sweep: Sweep, content: Mapping[str, Any]) -> dict[str, Any]:
    trials = [Trial(**t) for t in content["trials"]]
    order = results.ranked(sweep, trials)
    best, declared = order[0], next((t for t in order if t.is_declared), None)
    phantom = content["cohort"].get("kind", "real") != "real"
    figure = wording.metric(sweep.config.objective)
    rank = {t.number: place for place, t in enumerate(order, 1)}
    drawn = {
        "history": figures.history(
            trials, figure, sweep.config.direction == "maximize", phantom=phantom
        ),
        "slices": figures.slices(
            [t for t in trials if t.state != "failed"], sweep.parameters, figure, phantom=phantom
        ),
    }
    if content["importance"]:
        drawn["importance"] = figures.importances(content["importance"], phantom=phantom)
    return {
        "sweep": sweep,
        "content": content,
        "phantom": phantom,
        "figure": figure,
        "best": best,
        "declared": declared,
        "level": _level(best, order),
        "shown": sorted(trials, key=lambda t: (rank.get(t.number, len(trials) + 1), t.number)),
        "rank": rank,
        "fewest": results.FEWEST,
        "spent": sum(t.spent_s or 0.0 for t in trials),
        "own": {k: space.value_at(sweep.base, k) for k in sweep.parameters},
        "ends": [k for k, p in sweep.parameters.items() if p.is_near_end(best.values[k])],
        "space": {k: _said(p) for k, p in sweep.parameters.items()},
        "drawn": {k: base64.b64encode(v).decode() for k, v in drawn.items()},
    }


def _level(best: Trial, order: Sequence[Trial]) -> int:
    """How many other trials have a value inside of the best one's interval."""
    bounds = best.estimate.get("ci95")
    if not bounds:
        return 0
    return sum(bounds[0] <= t.value <= bounds[1] for t in order[1:] if t.value is not None)


def _said(known: space.Parameter) -> str:
    """What a field may be, in words."""
    if isinstance(known, space.Choice):
        return "one of " + "; ".join(space.text(c) for c in known.choices)
    scale = ", logarithmic" if known.log else ""
    step = "" if known.step is None else f", in steps of {space.text(known.step)}"
    return f"{space.text(known.low)} to {space.text(known.high)}{scale}{step}"
