"""What a trial does: it trains folds and is worth what it reads of their validation patients."""

import difflib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from mskjax import systems, validation
from mskjax.config import StudyConfig
from mskjax.errors import UserError
from mskjax.metrics.intervals import keeping_draws
from mskjax.reporting import pooled
from mskjax.sweeps.declared import Sweep
from mskjax.sweeps.worker import Rung
from mskjax.tables import Row

# The interval of a trial is looked at beside those of others; the last digit may be rough.
RESAMPLES = 200


class Objective:
    """Trials of a sweep.

    Args:
      sweep: resolved.
    """

    def __init__(self, sweep: Sweep):
        self._sweep = sweep

    def __call__(self, values: Mapping[str, Any], folder: Path) -> Iterator[Rung]:
        """See `worker.Run`."""
        config, name = self._sweep.config_of(values), self._sweep.config.objective
        rows: list[Row] = []
        for fold, own, left in validation.validated(config, folder, self._sweep.config.folds):
            rows += own
            alone = estimate(config, own, name, 1)["value"]
            yield Rung(fold, estimate(config, rows, name, RESAMPLES), left, alone)


def estimate(
    config: StudyConfig, rows: Sequence[Row], name: str, resamples: int
) -> Mapping[str, Any]:
    """An end-to-end figure of rows of cases.csv, as it stands in report.json.

    Of rows of several seeds it is pooled (`reporting.pooled`).

    Raises:
      UserError: the system has no such figure.
    """
    seeds = sorted({row["seed"] for row in rows})
    if len(seeds) > 1:
        with keeping_draws():
            each = [
                estimate(config, [r for r in rows if r["seed"] == seed], name, resamples)
                for seed in seeds
            ]
        return pooled.without_draws(pooled.pooled(each, config.seed))
    system = systems.load(config.system).build(config)
    figures = system.summarise(rows, resamples, config.seed)["end_to_end"]
    if name not in figures:
        near = difflib.get_close_matches(name, figures, 1)
        hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(figures)}."
        raise UserError(f"sweep.objective: there is no end-to-end figure {name!r}; {hint}")
    return figures[name]
