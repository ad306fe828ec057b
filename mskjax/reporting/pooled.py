"""One report of a study that was trained from several seeds.

Each seed's figures are computed as those of a study of its own, from the same resamples of
patients.  A figure is then the mean over seeds, so a case counts once.  Its interval is that of a
training from any seed on any patients: each resample of patients is combined with one of the seeds.
With few seeds their spread is itself known badly: all values are printed, and a report says that
drawing one of N counts (N - 1) / N of the variance that the seeds show.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mskjax.metrics.intervals import DRAWS, percentile_interval

Json = dict[str, Any]


def pooled(reports: Sequence[Mapping[str, Any]], seed: int) -> Json:
    """The figures of several seeds as one.

    Args:
      reports: of report.json, or parts of it, of each of two or more seeds, whose estimates hold
        their resamples (`intervals.weighting`).
      seed: of the choice of a seed for each resample.

    Returns:
      Of the first seed, but for every estimate that all seeds have: ``value`` is the mean over
      seeds, ``ci95`` holds patients and seeds, ``seeds`` has the value of each, ``sd`` their
      sample standard deviation.
    """
    rng = np.random.default_rng((seed, len(reports)))
    return _pooled(reports, rng.integers(0, len(reports), 2**16))


def without_draws(tree: Any) -> Any:
    """The same without the resamples, which a report does not hold."""
    if isinstance(tree, Mapping):
        return {k: without_draws(v) for k, v in tree.items() if k != DRAWS}
    if isinstance(tree, list):
        return [without_draws(v) for v in tree]
    return tree


def _pooled(parts: Sequence[Any], which: np.ndarray) -> Any:
    first = parts[0]
    if all(isinstance(part, Mapping) for part in parts):
        if all("value" in part and "ci95" in part for part in parts):
            return _estimate(parts, which)
        return {
            k: _pooled([p[k] for p in parts], which) if all(k in p for p in parts) else v
            for k, v in first.items()
        }
    if all(isinstance(p, list) and len(p) == len(first) for p in parts):
        return [_pooled(own, which) for own in zip(*parts, strict=True)]
    return first


def _estimate(parts: Sequence[Mapping[str, Any]], which: np.ndarray) -> Json:
    """The estimate of all seeds, of those of each."""
    values = [part["value"] for part in parts]
    found = {k: v for k, v in parts[0].items() if k != DRAWS}
    found["seeds"] = values
    if any(v is None for v in values):
        nothing = {"value": None, "sd": None, "ci95": None}
        return found | nothing | {"why": "undefined for some seeds"}
    found |= {"value": float(np.mean(values)), "sd": float(np.std(values, ddof=1))}
    draws = [np.asarray(part[DRAWS]) for part in parts if part.get(DRAWS) is not None]
    if len(draws) < len(parts) or any(part["ci95"] is None for part in parts):
        return found | {"ci95": None}
    mixed = np.stack(draws)[which[: len(draws[0])], np.arange(len(draws[0]))]
    low, high, why = percentile_interval(mixed, 0.95, found["patients"])
    if not (math.isfinite(low) and math.isfinite(high)):
        return found | {"ci95": None, "why": why or "infinite"}
    method = f"{found['method']}, each with one of {len(parts)} seeds"
    return found | {"ci95": [low, high], "method": method}
