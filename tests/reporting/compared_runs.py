"""Runs to compare: eight patients, three cases each, graded by noise around the reference."""

import dataclasses
from pathlib import Path

import numpy as np

from mskjax.cases import called, cells, graded
from mskjax.config import DataConfig, StudyConfig
from mskjax.data.splits import Fold, Splits
from mskjax.metrics import grading_figures as g
from mskjax.metrics.grading import Grading
from mskjax.reporting.comparable import CROSSED, HELD_OUT, Run

GRADING = Grading("grade", ("i", "ii", "iii"), ordinal=True)
KAPPA = "quadratic_weighted_kappa_grade"
PATIENTS = tuple(f"p{n}" for n in range(8))
RESAMPLES = 400


class System:
    """Labels' figures of one grading; nothing else of a report."""

    name = "disc_degeneration"
    title = "Discs"
    primary = KAPPA
    gradings = (GRADING,)

    def summarise(self, rows, resamples, seed):
        cases = graded(rows, GRADING)
        settings = {"resamples": resamples, "seed": seed}
        found = {}
        for place, oracle in (("end_to_end", False), ("oracle_region", True)):
            calls = GRADING.calls(cases.probabilities(GRADING, self.method, oracle))
            figures = g.label_figures(GRADING, cases.reference, calls, cases.patients, **settings)
            found[place] = g.named(figures, GRADING.task)
        further = list(g.named(dict.fromkeys(g.further(GRADING)), GRADING.task))
        names = [*found["end_to_end"]]
        return {**found, "gradings": {"grade": {"figures": names, "further": further}}}

    method = "model"


def config(**changes):
    data = DataConfig("disc_degeneration", "phantom")
    return StudyConfig("disc_degeneration", "phantom", data, resamples=RESAMPLES, **changes)


def folds(patients, count=2, held_out=()):
    """The n-th patient is tested by fold n modulo `count`."""
    made = [
        Fold(tuple(p for i, p in enumerate(patients) if i % count != k), (), patients[k::count])
        for k in range(count)
    ]
    apart = [Fold(tuple(patients), (), tuple(held_out), held_out=True)] if held_out else []
    return (*made, *apart)


def rows(noise, seed, patients=PATIENTS, missed=(), method="model", shift=0):
    """Three graded cases of each patient; `shift` moves the reference of all."""
    rng, found = np.random.default_rng(seed), []
    for number, patient in enumerate(patients):
        for level in (1, 2, 3):
            reference = (number + level + shift) % 3
            scores = -np.abs(np.arange(3) - reference) + rng.normal(0, noise, 3)
            p = np.exp(scores) / np.exp(scores).sum()
            case = f"{patient}-a/{level}"
            own = {method: None if case in missed else p}
            who = {"fold": str(number % 2), "seed": "0", "patient": patient, "kind": "grade"}
            who |= {"study": f"{patient}-a", "case": case}
            text = cells(GRADING, reference, own, {method: p}, {}) | called(GRADING, own)
            found.append(who | {k: str(v) for k, v in text.items()})
    return found


def run(name, *tables, kind="phantom", fingerprint="f", divided=None, system=None, **changes):
    """A run whose seeds have these rows.

    Keywords beyond the named ones are fields of `Run`.
    """
    system = system or System()
    patients = tuple(dict.fromkeys(r["patient"] for r in tables[0]))
    divided = divided or Splits(folds(patients), "folds", fingerprint, patients)
    figures = system.summarise(tables[0], RESAMPLES, 0)
    cohort = {"name": "discs", "version": "1", "config": "phantom", "kind": kind}
    cohort |= {"fingerprint": fingerprint, "patients": len(patients), "cases": len(tables[0])}
    report = figures | {
        "variant": "phantom",
        "cohort": cohort,
        "protocol": {"folds": 2, "seeds": [*range(len(tables))]},
        "cost": {"wall_s": 3.0, "device": "cpu"},
        "environment": {"python": "3", "packages": {"jax": "1"}},
    }
    fields = {
        "folder": Path("/runs") / name,
        "system": system,
        "config": config(),
        "report": report,
        "audit": {"kind": kind, "fingerprint": fingerprint, "images": {}},
        "divided": divided,
        "parts": {CROSSED: tables},
    }
    return Run(name, **(fields | changes))


def with_held_out(made, *tables):
    """The run with a held-out part of these rows."""
    figures = made.system.summarise(tables[0], RESAMPLES, 0)
    places = {k: figures[k] for k in ("end_to_end", "oracle_region")}
    report = made.report | {"held_out": places}
    return dataclasses.replace(made, report=report, parts=made.parts | {HELD_OUT: tables})
