"""Finished runs of one system compared: comparison.json (docs/compare.md) and its page.

The figures of each run are those of its report.  Differences are taken anew, on the cases that a
run shares with the reference, by the system's own `summarise`, so that a missed region costs what
it costs everywhere; both runs on the same resamples of patients (`metrics.paired`).
"""

import itertools
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mskjax.cases import MODEL
from mskjax.config import differences, to_json
from mskjax.metrics import paired
from mskjax.metrics.intervals import DRAWS, Estimate, holm, percentile_interval, weighting
from mskjax.progress import say
from mskjax.reporting import comparable, comparison_page
from mskjax.reporting.comparable import CROSSED, HELD_OUT, Run, Shared
from mskjax.tables import Row
from mskjax.workdir import without_movable
from mskjax.writers import write_text

Json = dict[str, Any]
_PLACES = ("end_to_end", "oracle_region")
_WHOSE = ("patient", "study", "case")  # columns with ids
PRIMARY, SECONDARY = "primary", "secondary"  # families of tests
# Random exchanges, where there are more: a p-value of .05 is then known to about .006.
EXCHANGES = 5000


def write(content: Json, output: Path) -> Path:
    """Writes ``comparison.json`` and ``comparison.html``.

    Args:
      content: of `compare`.
      output: folder that gets the files.

    Returns:
      The page.
    """
    text = json.dumps(content, indent=1, allow_nan=False) + "\n"
    write_text(output / "comparison.json", text)
    return comparison_page.write_page(content, output)


def compare(runs: Sequence[Run]) -> Json:
    """The content of comparison.json.

    Args:
      runs: two or more; the others are compared with the first.

    Raises:
      UserError: they may not be compared (`comparable`).
    """
    standard, *others = runs
    for run in others:
        comparable.check(run, standard)
    both = [comparable.shared(standard, run) for run in others]
    figures = _figures(runs)
    known: dict[Any, list[Json]] = {}
    pairs = [
        {
            "run": run.name,
            "reference": standard.name,
            "shared": {
                part: own.as_json() | {"exact": _is_exact(standard, own)}
                for part, own in shared.items()
            },
            "remarks": [*comparable.remarks(standard, run, shared)],
            "differences": _differences(standard, run, shared, figures, known),
        }
        for run, shared in zip(others, both, strict=True)
    ]
    return {
        "system": standard.system.name,
        "title": standard.system.title,
        "primary": standard.system.primary,
        "reference": standard.name,
        "phantom": standard.audit["kind"] == "phantom",
        "resamples": standard.config.resamples,
        "seed": standard.config.seed,
        "runs": [_run(run) for run in runs],
        "figures": figures,
        "pairs": pairs,
        "families": _corrected(pairs),
        "config": _config(runs),
        "environment": _environment(runs),
    }


def _is_exact(standard: Run, shared: Shared) -> bool:
    """Whether the p-values are of all exchanges there are."""
    most = min(EXCHANGES, standard.config.resamples)
    return paired.is_complete(len(shared.patients), most)


def _run(run: Run) -> Json:
    """What a run says of itself."""
    report = run.report
    return {
        "name": run.name,
        "variant": report["variant"],
        "cohort": {
            name: report["cohort"][name]
            for name in ("name", "version", "config", "kind", "fingerprint", "patients", "cases")
        },
        "protocol": report["protocol"],
        "cost": report["cost"],
    }


def _figures(runs: Sequence[Run]) -> list[Json]:
    """The rows of the table: every figure of any run, with the estimate of each; the primary first.

    Each has ``metric``, ``part``, ``place``, its ``task`` and whether it is a ``further`` one.
    """
    found: dict[tuple[str, str, str], Json] = {}
    for run in runs:
        gradings = run.report.get("gradings") or {}
        tasks = {name: task for task, own in gradings.items() for name in own["figures"]}
        apart = {name for own in gradings.values() for name in own["further"]}
        for part, place in itertools.product((CROSSED, HELD_OUT), _PLACES):
            for name, estimate in _reported(run, part)[place].items():
                row = found.setdefault(
                    (part, place, name),
                    {
                        "metric": name,
                        "part": part,
                        "place": place,
                        "task": tasks.get(name, ""),
                        "further": name in apart,
                        "values": {r.name: None for r in runs},
                    },
                )
                row["values"][run.name] = estimate
    order = [*itertools.product((CROSSED, HELD_OUT), _PLACES)]
    primary = runs[0].system.primary
    return sorted(
        found.values(),
        key=lambda row: (order.index((row["part"], row["place"])), row["metric"] != primary),
    )


def _reported(run: Run, part: str) -> Mapping[str, Any]:
    report = run.report if part == CROSSED else run.report.get("held_out")
    return report or {place: {} for place in _PLACES}


# --------------------------------------------------------------------------------------------
# Differences


def _differences(
    standard: Run,
    run: Run,
    both: Mapping[str, Shared],
    figures: Sequence[Json],
    known: dict[Any, list[Json]],
) -> list[Json]:
    """The difference of each figure that both runs have, on the cases that they share.

    Args:
      standard: the run that the other is held against.
      run: the other.
      both: part -> what they share.
      figures: rows of the table.
      known: cases -> figures of the standard on these, kept from one run to the next.
    """
    found: list[Json] = []
    for part, shared in both.items():
        say(
            f"{run.name} and {standard.name}: {len(shared.patients)} patients,"
            f" {shared.cases or shared.studies} {'cases' if shared.cases else 'studies'} in both"
        )
        compared = _Compared(standard, run, shared, known)
        for row in (f for f in figures if f["part"] == part):
            if row["place"] == "oracle_region" and run.fingerprint != standard.fingerprint:
                continue
            entry = compared.difference(row["place"], row["metric"])
            if entry is None:
                continue
            family = None if row["further"] else SECONDARY
            if row["metric"] == standard.system.primary and row["place"] == "end_to_end":
                family = PRIMARY
            p = None if family is None else compared.p_value(row["place"], row["metric"])
            whose = {k: row[k] for k in ("metric", "part", "place", "task", "further")}
            found.append({**whose, **entry, "family": family, "p": p})
    return found


class _Compared:
    """Two runs on the cases of one part that they share."""

    def __init__(self, standard: Run, run: Run, shared: Shared, known: dict[Any, list[Json]]):
        self.shared = shared
        self.resamples, self.seed = standard.config.resamples, standard.config.seed
        count = len(shared.patients)
        weights = paired.multiplicities(count, self.resamples, self.seed)
        drawn = dict(zip(shared.patients, weights.T, strict=True))
        ours, theirs = shared.rows
        if shared.keys not in known:
            known[shared.keys] = [_taken(standard, rows, drawn) for rows in ours]
        self.standard = known[shared.keys]
        self.run = [_taken(run, rows, drawn) for rows in theirs]
        self.exchanged = self._exchanged(standard, run)

    def difference(self, place: str, name: str) -> Json | None:
        """A figure of both and its difference with interval; None where one run has none."""
        ours, theirs = ([own[place].get(name) for own in s] for s in (self.standard, self.run))
        if not all((*ours, *theirs)):
            return None
        first, second = (_mean([e["value"] for e in own]) for own in (ours, theirs))
        n = ours[0]["n"] if ours[0]["n"] == theirs[0]["n"] else self._all_cases()
        patients = len(self.shared.patients)
        method = f"paired patient bootstrap, percentile, {self.resamples} resamples"
        if len(ours) > 1 or len(theirs) > 1:
            method += f", each with one of {len(ours)} and one of {len(theirs)} seeds"
        low, high, why = float("nan"), float("nan"), ""
        if first is None or second is None:
            value, why = float("nan"), "undefined for one of the two"
        else:
            value = second - first
            draws = self._draws(theirs, 1) - self._draws(ours, 0)
            low, high, why = percentile_interval(draws, 0.95, patients)
        estimate = Estimate(value, low, high, n, patients, method, why)
        return {"reference": first, "run": second, "difference": estimate.as_json()}

    def p_value(self, place: str, name: str) -> float | None:
        """By exchanging the runs' readings of patients; None where the figure is undefined."""
        ours, theirs = (
            _mean([own[place][name]["value"] for own in s]) for s in (self.standard, self.run)
        )
        if ours is None or theirs is None:
            return None
        exchanged = np.full(sum(len(kept) for kept, _ in self.exchanged), np.nan)
        for kept, figures in self.exchanged:
            draws = np.asarray(figures[place][name][DRAWS], np.float64)
            first, second = np.split(draws, 2)
            exchanged[kept] = (second - first)[: len(kept)]
        return paired.p_value(theirs - ours, exchanged)

    def _draws(self, estimates: Sequence[Json], side: int) -> np.ndarray:
        """(resamples,) float64, each of one of the seeds."""
        draws = np.stack([np.asarray(e[DRAWS], np.float64) for e in estimates])
        rng = np.random.default_rng((self.seed, len(draws), side))
        which = rng.integers(0, len(draws), draws.shape[1])
        return draws[which, np.arange(draws.shape[1])]

    def _all_cases(self) -> int:
        return self.shared.cases or self.shared.studies

    def _exchanged(self, standard: Run, run: Run) -> list[tuple[np.ndarray, Json]]:
        """Numbers of exchanges -> figures of both sides after these, one behind the other.

        With several seeds each exchange is one of a seed of the one run and a seed of the other.
        """
        patients = self.shared.patients
        most = min(EXCHANGES, self.resamples)
        swapped = paired.exchanges(len(patients), most, self.seed)
        ours, theirs = self.shared.rows
        pairs = [*itertools.product(ours, theirs)]
        length = -(-len(swapped) // len(pairs))
        found = []
        for number, (one, other) in enumerate(pairs):
            places = number + len(pairs) * np.arange(length)
            some = swapped[np.minimum(places, len(swapped) - 1)]
            weights = {}
            for patient, s in zip(patients, some.T, strict=True):
                weights[f"0:{patient}"] = np.concatenate([1 - s, s])
                weights[f"1:{patient}"] = np.concatenate([s, 1 - s])
            rows = [*_named(one, "0"), *_named(_as_methods_of(standard, run, other), "1")]
            found.append((places[places < len(swapped)], _taken(standard, rows, weights)))
        return found


def _taken(run: Run, rows: Sequence[Row], weights: Mapping[str, np.ndarray]) -> Json:
    """The figures of a run's system under weights of patients, with their draws."""
    with weighting(weights):
        figures = run.system.summarise(rows, run.config.resamples, run.config.seed)
    return {place: figures[place] for place in _PLACES}


def _named(rows: Sequence[Row], prefix: str) -> Iterator[Row]:
    """Rows whose ids say of which run they are."""
    for row in rows:
        yield {k: f"{prefix}:{v}" if k in _WHOSE and v else v for k, v in row.items()}


def _as_methods_of(standard: Run, run: Run, rows: Sequence[Row]) -> list[Row]:
    """Rows with the probabilities of the run's leading method in the columns of the standard's."""
    ours, theirs = _leading_method(standard), _leading_method(run)
    columns = {
        f"{prefix}_{theirs}_{g.task}_{name}": f"{prefix}_{ours}_{g.task}_{name}"
        for g in standard.system.gradings
        for name in g.classes
        for prefix in ("p", "oracle_p")
    }
    named = {*columns.values()}
    return [
        {columns.get(k, k): v for k, v in row.items() if k in columns or k not in named}
        for row in rows
    ]


def _leading_method(run: Run) -> str:
    """The method whose figures a run reports."""
    compared = getattr(run.system, "comparison", None)
    return next(iter(compared.methods)) if compared else MODEL


def _mean(values: Sequence[float | None]) -> float | None:
    known = [v for v in values if v is not None]
    return float(np.mean(known)) if len(known) == len(values) else None


def _corrected(pairs: Sequence[Json]) -> Json:
    """Adds ``p_holm`` to all differences; says what each family is."""
    entries = [entry for pair in pairs for entry in pair["differences"]]
    families: Json = {}
    for name in (PRIMARY, SECONDARY):
        own = [e for e in entries if e["family"] == name]
        for entry, p in zip(own, holm([e["p"] for e in own]), strict=True):
            entry["p_holm"] = p
        families[name] = {"tests": sum(e["p"] is not None for e in own)}
    for entry in entries:
        entry.setdefault("p_holm", None)
    return families


# --------------------------------------------------------------------------------------------
# What else differs


def _config(runs: Sequence[Run]) -> list[Json]:
    """The fields that are not the same in all runs, with the value of each."""
    configs = [without_movable(json.loads(to_json(run.config))) for run in runs]
    names = {
        name for own in configs[1:] for name in differences(configs[0], own, where="", words="{}")
    }
    return [
        {
            "field": (path := name.removeprefix(".")),
            "values": {run.name: _value(own, path) for run, own in zip(runs, configs, strict=True)},
        }
        for name in sorted(names)
    ]


def _value(config: Any, path: str) -> Any:
    for name in path.split("."):
        config = config.get(name) if isinstance(config, Mapping) else None
    return config


def _environment(runs: Sequence[Run]) -> list[Json]:
    """What the runs ran on, where that is not the same."""
    found = [dict(_flat(run.report["environment"])) for run in runs]
    names = dict.fromkeys(name for own in found for name in own)
    return [
        {
            "field": name,
            "values": {r.name: own.get(name) for r, own in zip(runs, found, strict=True)},
        }
        for name in names
        if any(own.get(name) != found[0].get(name) for own in found)
    ]


def _flat(values: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{before}{name}.")
        else:
            yield f"{before}{name}", value
