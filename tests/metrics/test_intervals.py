import itertools
import json
import math
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from mskjax.errors import UserError
from mskjax.metrics import classification, intervals
from mskjax.metrics import weights as weights_of
from mskjax.metrics.intervals import Estimate, holm, patient_bootstrap


def dense(weights):
    """(N, R), to write statistics out."""
    return weights.of_units[weights.unit]


def mean(data, weights):
    return data["x"] @ dense(weights) / dense(weights).sum(0)


def summary(data, weights):
    total = data["x"] @ dense(weights)
    return {"mean": mean(data, weights), "pair": np.stack([total, dense(weights).sum(0)])}


def share_of_rare(data, weights):
    rare = data["rare"][:, None] * dense(weights)
    with np.errstate(invalid="ignore"):
        return data["x"] @ rare / rare.sum(0)


def auroc(data, weights):
    return classification.auroc(data["scores"], data["positive"], weights)


def test_agrees_with_scipy_bootstrap_when_every_patient_has_one_case():
    x = np.random.default_rng(0).normal(5, 2, 40)
    ours = patient_bootstrap(mean, {"x": x}, np.arange(40))
    theirs = stats.bootstrap(
        (x,), np.mean, n_resamples=10_000, method="percentile", rng=1
    ).confidence_interval
    assert ours.value == pytest.approx(x.mean(), rel=1e-5)
    assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high), abs=0.06)
    assert (ours.n, ours.patients) == (40, 40)


def test_the_seed_decides_the_interval():
    x = {"x": np.random.default_rng(0).normal(size=20)}
    first, again, other = (
        patient_bootstrap(mean, x, np.arange(20), resamples=200, seed=seed) for seed in (1, 1, 2)
    )
    assert first == again
    assert first != other


def test_figures_do_not_depend_on_how_many_resamples_are_looked_at_together(monkeypatch):
    data = {"x": np.random.default_rng(0).normal(size=70)}
    patients = np.repeat(np.arange(7), 10)
    with intervals.keeping_draws():
        whole = patient_bootstrap(mean, data, patients, resamples=200)
        monkeypatch.setattr(intervals, "CHUNK_ELEMENTS", 1)  # and so 64 at once, the last 9
        parts = patient_bootstrap(mean, data, patients, resamples=200)
    assert len(np.unique(whole.draws)) > 100
    np.testing.assert_array_equal(whole.draws, parts.draws)
    assert whole == parts


def test_vectors_and_dicts_come_back_as_estimates_of_the_same_resamples():
    data = {"x": np.arange(10.0)}
    found = patient_bootstrap(summary, data, np.arange(10), resamples=300)
    assert found["mean"].value == 4.5
    total, weight = found["pair"]
    assert total.low / 10 == pytest.approx(found["mean"].low)
    # Ten patients of one case each: every resample has weight 10.
    assert (weight.value, weight.low, weight.high) == (10, 10, 10)
    alone = patient_bootstrap(mean, data, np.arange(10), resamples=300)
    assert found["mean"] == alone


def test_cases_of_a_patient_come_and_go_together():
    # Patient a has one case, b has five; each resample draws two patients.
    def how_drawn(data, weights):
        own = dense(weights)
        return np.stack([np.abs(own[1:] - own[1]).sum(0), own[0] + own[1], own[0]])

    # At this level the bounds are the least and the greatest of the 50 resamples.
    unlike, patients_drawn, a_drawn = patient_bootstrap(
        how_drawn, {"x": np.zeros(6)}, ["a", *"bbbbb"], resamples=50, level=0.999
    )
    assert (unlike.low, unlike.high) == (0, 0)
    assert (patients_drawn.low, patients_drawn.high) == (2, 2)
    assert (a_drawn.low, a_drawn.high) == (0, 2)
    assert (a_drawn.n, a_drawn.patients) == (6, 2)


def test_clustered_cases_widen_the_interval():
    # Ten patients with ten identical cases each hold ten independent values, not a hundred.
    values = np.random.default_rng(2).normal(size=10)
    data = {"x": np.repeat(values, 10)}
    clustered = patient_bootstrap(mean, data, np.repeat(np.arange(10), 10), resamples=2000)
    independent = patient_bootstrap(mean, data, np.arange(100), resamples=2000)
    ratio = (clustered.high - clustered.low) / (independent.high - independent.low)
    assert ratio == pytest.approx(math.sqrt(10), rel=0.2)


def test_the_interval_covers_the_truth_about_as_often_as_it_says():
    rng = np.random.default_rng(5)
    patients = np.repeat(np.arange(40), 3)
    covered = 0
    for _ in range(100):
        x = np.repeat(rng.normal(size=40), 3) + 0.3 * rng.normal(size=120)
        found = patient_bootstrap(mean, {"x": x}, patients, resamples=500)
        covered += found.low <= 0 <= found.high
    # 100 draws at .95 lie in 87..100 with probability .999.
    assert 87 <= covered <= 100


def test_undefined_resamples_are_left_out_and_reported():
    # One rare case among 20 patients is missing from (19/20)^20 = 36 % of the resamples.
    data = {"x": np.ones(20), "rare": np.eye(20)[0]}
    found = patient_bootstrap(share_of_rare, data, np.arange(20), resamples=1000)
    assert (found.value, found.low, found.high) == (1, 1, 1)
    left_out = int(found.why.split()[0])
    assert left_out / 1000 == pytest.approx(0.358, abs=0.06)
    common = {"x": np.ones(20), "rare": np.ones(20)}
    assert patient_bootstrap(share_of_rare, common, np.arange(20), resamples=100).why == ""


def test_an_undefined_value_is_null_with_a_reason():
    data = {"x": np.ones(5), "rare": np.zeros(5)}
    entry = patient_bootstrap(share_of_rare, data, np.arange(5), resamples=50).as_json()
    assert entry["value"] is None
    assert entry["ci95"] is None
    assert entry["why"] == "undefined on these cases"
    assert entry["n"] == 5


def test_one_patient_has_a_value_but_no_interval():
    entry = patient_bootstrap(mean, {"x": np.arange(4.0)}, ["p"] * 4, resamples=50).as_json()
    assert entry["value"] == 1.5
    assert entry["ci95"] is None
    assert "fewer than two patients" in entry["why"]


def test_infinite_distances_leave_a_valid_report_entry():
    data = {"x": np.array([1.0, 2.0, np.inf])}
    entry = patient_bootstrap(mean_of_drawn, data, np.arange(3), resamples=100).as_json()
    assert (entry["value"], entry["ci95"], entry["why"]) == (None, None, "infinite")
    json.dumps(entry, allow_nan=False)


def mean_of_drawn(data, weights):
    return weights_of.mean(data["x"], weights)


def test_json_of_an_ordinary_estimate():
    entry = Estimate(0.5, 0.4, 0.6, 10, 5, "m").as_json()
    assert entry == {"value": 0.5, "ci95": [0.4, 0.6], "n": 10, "patients": 5, "method": "m"}
    with pytest.raises(ValueError, match="95 %"):
        Estimate(0.5, 0.4, 0.6, 10, 5, "m", level=0.9).as_json()


def test_a_lower_level_is_narrower():
    data = {"x": np.random.default_rng(0).normal(size=30)}
    wide = patient_bootstrap(mean, data, np.arange(30), resamples=500)
    narrow = patient_bootstrap(mean, data, np.arange(30), resamples=500, level=0.5)
    assert wide.low < narrow.low < narrow.high < wide.high


def test_paired_difference_cancels_what_both_share():
    rng = np.random.default_rng(4)
    difficulty = rng.normal(0, 10, 50)
    a = {"x": difficulty + 1 + 0.1 * rng.normal(size=50)}
    b = {"x": difficulty}
    found = intervals.paired_patient_bootstrap(mean, a, b, np.arange(50), resamples=1000)
    assert found.value == pytest.approx(1, abs=0.1)
    assert found.high - found.low < 0.2  # unpaired it would be about 8
    reverse = intervals.paired_patient_bootstrap(mean, b, a, np.arange(50), resamples=1000)
    assert reverse.value == pytest.approx(-found.value, abs=1e-5)


def test_auroc_of_1500_cases_takes_seconds_at_most():
    rng = np.random.default_rng(0)
    positive = rng.random(1500) < 0.3
    data = {"scores": rng.normal(size=1500) + positive, "positive": positive}
    start = time.perf_counter()
    found = patient_bootstrap(auroc, data, rng.integers(0, 218, 1500))
    assert time.perf_counter() - start < 15  # .4 s on two idle cores
    # Hanley & McNeil: standard error about .013, so a width of about .05.
    assert 0.03 < found.high - found.low < 0.08


def test_bad_input_is_refused():
    with pytest.raises(UserError, match="no cases"):
        patient_bootstrap(mean, {"x": np.zeros(0)}, [])
    with pytest.raises(ValueError, match="3 patient ids, but the arrays have shapes"):
        patient_bootstrap(mean, {"x": np.zeros(4)}, ["a", "b", "c"])
    for shape in ((2, 2, 11), (10,), ()):
        with pytest.raises(ValueError, match=r"\(R,\) or \(M, R\)"):
            patient_bootstrap(lambda d, w, s=shape: np.zeros(s), {"x": np.zeros(3)}, range(3), 10)


# ------------------------------------------------------------------- without resampling


@pytest.mark.parametrize(
    ("successes", "n", "low", "high"),
    [
        (86, 94, 0.84, 0.96),  # accuracy of the disc paper
        (47, 50, 0.84, 0.98),  # sensitivity of the fracture paper, .94 of 50
        (127, 140, 0.85, 0.95),  # its specificity, .91 of 140
    ],
)
def test_wilson_intervals_of_published_figures(successes, n, low, high):
    assert intervals.wilson(successes, n) == pytest.approx((low, high), abs=0.0051)


@pytest.mark.parametrize(("successes", "n"), [(0, 7), (7, 7), (1, 1), (3, 10)])
def test_wilson_agrees_with_scipy(successes, n):
    for level in (0.95, 0.8):
        theirs = stats.binomtest(successes, n).proportion_ci(level, method="wilson")
        assert intervals.wilson(successes, n, level) == pytest.approx(tuple(theirs), abs=1e-9)


def test_wilson_edges():
    assert all(map(math.isnan, intervals.wilson(0, 0)))
    with pytest.raises(ValueError, match="8 successes of 7"):
        intervals.wilson(8, 7)


def test_fold_spread_is_the_sample_deviation_of_the_defined_folds():
    assert intervals.mean_sd_over_folds([1.0, 2.0, np.nan, 3.0]) == (2.0, 1.0, 3)
    mean_, sd, folds = intervals.mean_sd_over_folds([0.5])
    assert (mean_, folds) == (0.5, 1)
    assert math.isnan(sd)
    assert math.isnan(intervals.mean_sd_over_folds([]).mean)


def test_mcnemar_of_one_against_seven_discordant_cases():
    # Fagerland et al. 2013, bronchial hyper-responsiveness: exact .0703.
    a = np.array([True] * 1 + [False] * 7 + [True] * 5)
    b = np.array([False] * 1 + [True] * 7 + [True] * 5)
    exact = intervals.mcnemar(a, b)
    assert exact[:2] == (1, 7)
    assert exact.p == pytest.approx(0.0703, abs=5e-5)
    assert exact.p == pytest.approx(stats.binomtest(1, 8).pvalue)
    assert intervals.mcnemar(b, a).p == exact.p


def test_mcnemar_without_or_with_balanced_disagreement_is_one():
    same = np.array([True, False])
    assert intervals.mcnemar(same, same).p == 1
    assert intervals.mcnemar(same, ~same).p == 1
    with pytest.raises(ValueError, match="not the same cases"):
        intervals.mcnemar([True], [True, False])


def closed_testing(p_values):
    # Holm is the closure of Bonferroni: a hypothesis falls with every intersection that holds it.
    everyone = range(len(p_values))
    groups = [g for k in everyone for g in itertools.combinations(everyone, k + 1)]
    return [
        max(min(1, len(g) * min(p_values[i] for i in g)) for g in groups if member in g)
        for member in everyone
    ]


@settings(max_examples=60)
@given(st.lists(st.floats(0, 1), max_size=5))
def test_holm_is_the_closure_of_bonferroni(p_values):
    assert holm(p_values) == pytest.approx(closed_testing(p_values))


def test_holm_does_not_count_tests_that_were_not_made():
    assert holm([0.03, None, 0.01]) == [0.03, None, 0.02]
