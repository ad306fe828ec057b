import json

import numpy as np
import pytest

from mskjax.metrics.intervals import keeping_draws, patient_bootstrap, weighting
from mskjax.metrics.paired import multiplicities
from mskjax.metrics.segmentation import mean_over_cases
from mskjax.reporting.pooled import pooled, without_draws

RESAMPLES = 4000


def cohort(shift=0.0, patients=30, seed=0):
    rng = np.random.default_rng(seed)
    ids = [f"p{i}" for i in range(patients) for _ in range(3)]
    values = np.repeat(rng.normal(0.8, 0.05, patients), 3) + rng.normal(0, 0.01, 3 * patients)
    return (values + shift).astype(np.float32), ids


def report(shift):
    values, ids = cohort(shift)
    with keeping_draws():
        estimate = patient_bootstrap(mean_over_cases, values, ids, RESAMPLES).as_json()
    return {"stages": {"regions": {"dice": estimate}}, "curves": [shift], "tables": [{"x": 1}]}


def test_a_figure_is_the_mean_over_seeds_and_a_case_counts_once():
    parts = [report(s) for s in (0.0, 0.03, 0.06)]
    dice = pooled(parts, 0)["stages"]["regions"]["dice"]
    each = [p["stages"]["regions"]["dice"] for p in parts]
    assert dice["value"] == pytest.approx(np.mean([e["value"] for e in each]))
    assert dice["seeds"] == [e["value"] for e in each]
    assert dice["sd"] == pytest.approx(0.03, abs=1e-5)
    assert (dice["n"], dice["patients"]) == (90, 30)
    assert dice["method"].endswith("each with one of 3 seeds")


def test_the_interval_holds_patients_and_seeds():
    """Against a bootstrap of patients and seeds in plain NumPy."""
    shifts = (0.0, 0.03, 0.06)
    low, high = pooled([report(s) for s in shifts], 0)["stages"]["regions"]["dice"]["ci95"]
    values, _ = cohort()
    means = values.reshape(30, 3).mean(1)
    rng = np.random.default_rng(1)
    drawn = means[rng.integers(0, 30, (20_000, 30))].mean(1) + rng.choice(shifts, 20_000)
    np.testing.assert_allclose([low, high], np.quantile(drawn, [0.025, 0.975]), atol=0.003)
    alone = report(0.03)["stages"]["regions"]["dice"]["ci95"]
    assert low < alone[0]
    assert high > alone[1]


def test_the_interval_holds_what_seeds_do_to_single_patients():
    """Seeds that differ in every patient, on the same resamples, against plain NumPy."""
    rng = np.random.default_rng(5)
    values = rng.normal(0.8, 0.05, (1, 30)) + rng.normal(0, 0.03, (4, 30))
    values += np.array([-0.03, 0.0, 0.01, 0.04])[:, None]
    ids = [f"p{i}" for i in range(30)]
    weights = multiplicities(30, RESAMPLES, 0)
    parts = []
    with weighting(dict(zip(ids, weights.T, strict=True))):
        for own in values.astype(np.float32):
            parts.append({"dice": patient_bootstrap(mean_over_cases, own, ids).as_json()})
    found = pooled(parts, 0)["dice"]
    rng = np.random.default_rng(1)
    patients, seeds = rng.integers(0, 30, (20_000, 30)), rng.integers(0, 4, 20_000)
    drawn = values[seeds[:, None], patients].mean(1)
    np.testing.assert_allclose(found["ci95"], np.quantile(drawn, [0.025, 0.975]), atol=0.003)
    assert found["sd"] == pytest.approx(np.std(values.mean(1), ddof=1), abs=1e-6)


def test_seeds_that_agree_leave_the_interval_of_one():
    parts = [report(0.0), report(0.0)]
    assert pooled(parts, 0)["stages"]["regions"]["dice"]["ci95"] == pytest.approx(
        parts[0]["stages"]["regions"]["dice"]["ci95"]
    )


def test_what_is_no_figure_is_that_of_the_first_seed():
    found = pooled([report(0.0), report(0.5)], 0)
    assert found["curves"] == [0.0]
    assert found["tables"] == [{"x": 1}]


def test_a_figure_that_one_seed_lacks_is_not_defined():
    first, second = report(0.0), report(0.0)
    second["stages"]["regions"]["dice"] |= {"value": None, "ci95": None}
    dice = pooled([first, second], 0)["stages"]["regions"]["dice"]
    assert dice["value"] is None
    assert dice["ci95"] is None
    assert dice["sd"] is None
    assert dice["why"] == "undefined for some seeds"


def test_a_report_holds_no_resamples():
    json.dumps(without_draws([report(0.0), {"a": {"draws": np.zeros(3)}}]))
    values, ids = cohort()
    assert "draws" not in patient_bootstrap(mean_over_cases, values, ids, 50).as_json()
