"""Figures of a sweep: drawn for every mixture of states, the same bytes each time."""

import pytest

from mskjax.sweeps import figures, space
from mskjax.sweeps.results import Trial

KNOWN = {
    "stages.a.rate": space.Range(1e-4, 1e-1, log=True),
    "stages.a.steps": space.Range(10, 50, step=20),
    "stages.a.widths": space.Choice(((8, 16), (16, 32))),
}


def trial(number, state, value, is_declared=False):
    values = {"stages.a.rate": 1e-3 * (number + 1), "stages.a.steps": 30}
    values["stages.a.widths"] = (8, 16)
    ci = None if value is None else [value - 0.1, value + 0.1]
    estimate = {} if value is None else {"value": value, "ci95": ci}
    return Trial(number, state, values, estimate, {}, 1.0, "", is_declared)


TRIALS = [
    trial(0, "complete", 0.5, True),
    trial(1, "failed", None),
    trial(2, "pruned", 0.3),
    trial(3, "complete", 0.8),
]


def drawings(trials, phantom):
    kept = [t for t in trials if t.state != "failed"]
    return [
        figures.history(trials, "Kappa", True, phantom=phantom),
        figures.history(trials, "Error", False, phantom=phantom),
        figures.slices(kept, KNOWN, "Kappa", phantom=phantom),
        figures.importances({"stages.a.rate": 0.9, "stages.a.steps": 0.1}, phantom=phantom),
    ]


@pytest.mark.parametrize("trials", [TRIALS, TRIALS[3:], TRIALS[:1]])
def test_every_mixture_of_states_is_drawn_and_the_same_each_time(trials):
    first = drawings(trials, phantom=False)
    assert all(svg.startswith(b"<?xml") and b"</svg>" in svg for svg in first)
    assert drawings(trials, phantom=False) == first
    assert all(len(b) > len(a) for a, b in zip(first, drawings(trials, True), strict=True))
