"""What the seeds of a study say together, beside what each of them says alone.

All figures are taken on the same resamples of patients, so that what makes a patient hard for both
cancels in their difference.  The difference is that to the mean over seeds: what an ensemble of
these trainings brings over one of them.  Its interval holds patients; another set of seeds would
give another ensemble, and of that one study says nothing.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from mskjax.config import StudyConfig
from mskjax.data.splits import Splits
from mskjax.metrics import paired
from mskjax.metrics.grading import Grading
from mskjax.metrics.intervals import DRAWS, Estimate, percentile_interval, weighting
from mskjax.reporting import operating, wording
from mskjax.tables import Row

Json = dict[str, Any]

PLACES = ("end_to_end", "oracle_region")
MINUS = "minus_single"


class System(Protocol):
    """What is asked of a system, see `reporting.summary.System`."""

    method: str
    gradings: tuple[Grading, ...]

    def summarise(self, rows: Sequence[Row], resamples: int, seed: int) -> dict[str, Any]:
        """The figures, from rows of cases.csv."""


def resamples(groups: Iterable[Sequence[str]], count: int, seed: int) -> dict[str, np.ndarray]:
    """Patient -> (count,) uint8: how often a patient is drawn, for `intervals.weighting`.

    Args:
      groups: of patients, of which each is resampled by itself, such as cross-validated and
        held-out ones.
      count: of resamples.
      seed: of the draws.
    """
    found: dict[str, np.ndarray] = {}
    for group in groups:
        if not (names := sorted({*group} - {*found})):
            continue
        found |= zip(names, paired.multiplicities(len(names), count, seed).T, strict=True)
    return found


def tested(divided: Splits) -> list[list[str]]:
    """Patients whom folds test: the cross-validated, and the held-out ones."""
    return [
        [p for fold in divided.folds if fold.held_out is apart for p in fold.test]
        for apart in (False, True)
    ]


def ensemble(
    rows: Sequence[Row],
    singles: Sequence[Mapping[str, Any]],
    divided: Splits,
    system: System,
    config: StudyConfig,
    draws: Mapping[str, np.ndarray],
) -> Json:
    """What a report says of the ensemble of its seeds.

    Args:
      rows: of its cases.csv.
      singles: reports of each seed, made while `intervals.weighting` had `draws`.
      divided: the folds.
      system: of the run.
      config: of the run.
      draws: of `resamples`.

    Returns:
      ``seeds``, how many; ``stages``, ``end_to_end`` and ``oracle_region`` as in the report;
      ``tables``; ``held_out`` of the patients of held-out folds, empty where there are none; each
      with ``minus_single``: of the same figures, what the ensemble has more than the mean of seeds;
      and ``operating``, see `operating.crossed`.
    """
    apart = {k for k, fold in enumerate(divided.folds) if fold.held_out}
    crossed = [r for r in rows if int(r["fold"]) in {*divided.crossed(0)}]
    held_out = [r for r in rows if int(r["fold"]) in apart]
    with weighting(draws):
        found = system.summarise(crossed, config.resamples, config.seed)
        last = system.summarise(held_out, config.resamples, config.seed) if held_out else {}
        points = operating.crossed(
            crossed, system.gradings, system.method, config.resamples, config.seed
        )
    figures = {place: found[place] for place in ("stages", *PLACES)}
    return {
        "seeds": len(singles),
        **figures,
        MINUS: _minus(figures, singles),
        "tables": found.get("tables", []),
        "operating": points,
        "held_out": _held_out(last, [own["held_out"] for own in singles]),
    }


def _held_out(found: Mapping[str, Any], singles: Sequence[Mapping[str, Any]]) -> Json:
    if not found:
        return {}
    figures = {place: found[place] for place in PLACES}
    return {**figures, MINUS: _minus(figures, singles)}


def _minus(figures: Mapping[str, Any], singles: Sequence[Mapping[str, Any]]) -> Json:
    """The differences of all figures that every single one has, in the same tree.

    A figure without resamples, which is none of the networks, has no difference.
    """
    found: Json = {}
    for name, own in figures.items():
        theirs = [single[name] for single in singles if name in single]
        if len(theirs) < len(singles):
            continue
        if not ("value" in own and "ci95" in own):
            found[name] = _minus(own, theirs)
        elif DRAWS in own:
            found[name] = difference(own, theirs)
    return found


def difference(own: Mapping[str, Any], singles: Sequence[Mapping[str, Any]]) -> Json:
    """An estimate of the ensemble minus the mean of those of the seeds.

    Args:
      own: with its draws, as they are in reports under `intervals.weighting`.
      singles: of each seed, on the same draws.

    Returns:
      An estimate; ``n`` is that of the ensemble.
    """
    values = [single["value"] for single in singles]
    patients, draws = own["patients"], np.asarray(own[DRAWS], np.float64)
    method = f"paired patient bootstrap, percentile, {len(draws)} resamples"
    if own["value"] is None or any(value is None for value in values):
        why = "undefined for the ensemble or a seed"
        nothing = Estimate(np.nan, np.nan, np.nan, own["n"], patients, method, why)
        return nothing.as_json()
    theirs = np.stack([np.asarray(single[DRAWS], np.float64) for single in singles])
    with np.errstate(invalid="ignore"):  # of infinite distances there is no difference
        low, high, why = percentile_interval(draws - theirs.mean(0), 0.95, patients)
    value = float(own["value"] - np.mean(values))
    return Estimate(value, low, high, own["n"], patients, method, why).as_json()


def sentence(report: Mapping[str, Any]) -> str:
    """The leading figure of the ensemble, and its difference, behind the headline; or nothing."""
    together = report["ensemble"]
    own = together["end_to_end"].get(report["primary"])
    if not own or not own["ci95"]:
        return ""
    said = f"{own['value']:.3f} ({wording.interval(own['ci95'])})"
    gain = together[MINUS]["end_to_end"].get(report["primary"])
    if gain and gain["ci95"]:
        said += f", difference to one network {_signed(gain)}"
    return f" All {together['seeds']} as an ensemble: {said}."


def _signed(estimate: Mapping[str, Any]) -> str:
    low, high = map(wording.signed, estimate["ci95"])
    return f"{wording.signed(estimate['value'])} ({low} to {high})"


def beside(report: Mapping[str, Any]) -> dict[str, list[Json]]:
    """Rows of the page: one network, the ensemble, and the difference.

    Returns:
      Title of a table -> rows with the ``metric`` and the estimates ``single`` (mean over seeds,
      with the value of each), ``ensemble`` and ``difference``; nothing of a run of one seed.
    """
    together = report.get("ensemble")
    if not together:
        return {}
    trees = {
        "End to end": (report["end_to_end"], together, "end_to_end"),
        "On reference regions": (report["oracle_region"], together, "oracle_region"),
    }
    found = {
        title: _rows(singles, own[place], own[MINUS].get(place, {}))
        for title, (singles, own, place) in trees.items()
    }
    for stage, figures in together["stages"].items():
        if figures != together["oracle_region"]:  # of the last stage, which has been shown
            minus = together[MINUS]["stages"].get(stage, {})
            rows = _rows(report["stages"].get(stage, {}), figures, minus)
            found[f"Stage {wording.label(stage).lower()}"] = rows
    if apart := together["held_out"]:
        for place, where in zip(PLACES, ("end to end", "on reference regions"), strict=True):
            rows = _rows(report["held_out"][place], apart[place], apart[MINUS].get(place, {}))
            found[f"Held-out patients, {where}"] = rows
    return {title: rows for title, rows in found.items() if rows}


def _rows(
    singles: Mapping[str, Any], together: Mapping[str, Any], minus: Mapping[str, Any]
) -> list[Json]:
    return [
        {
            "metric": name,
            "single": singles.get(name),
            "ensemble": own,
            "difference": minus.get(name),
        }
        for name, own in together.items()
    ]
