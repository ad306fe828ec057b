"""Differences of runs against NumPy and scikit-learn; what is compared and what is tested."""

import dataclasses
import itertools
import json

import numpy as np
import pytest
from reporting import compared_runs as made
from reporting.compared_runs import GRADING, KAPPA, RESAMPLES
from sklearn.metrics import cohen_kappa_score

from mskjax.metrics.intervals import holm
from mskjax.reporting.comparable import CROSSED, HELD_OUT
from mskjax.reporting.comparison import compare, write


def primary(content, number=0, **where):
    where = {"metric": KAPPA, "part": CROSSED, "place": "end_to_end"} | where
    entries = content["pairs"][number]["differences"]
    (found,) = (e for e in entries if all(e[k] == v for k, v in where.items()))
    return found


def labels(rows):
    """(N,) reference and calls, by class number."""
    names = GRADING.classes
    return tuple(
        np.array([names.index(r[f"{column}_grade"]) for r in rows])
        for column in ("reference", "call")
    )


def kappa(reference, calls):
    return cohen_kappa_score(reference, calls, weights="quadratic", labels=[0, 1, 2])


def by_moments(a, b):
    """(R,) quadratic weighted kappa of (R, N) classes, which is 1 - E(a - b)^2 / its chance value.

    Chance: the squared difference of independent draws from both marginals.
    """
    chance = a.var(1) + b.var(1) + (a.mean(1) - b.mean(1)) ** 2
    return 1 - ((a - b) ** 2).mean(1) / chance


NOISY, CLEAR = made.rows(2.0, 1), made.rows(0.7, 2)


@pytest.fixture(scope="module")
def content():
    return compare([made.run("noisy", NOISY), made.run("clear", CLEAR)])


def test_the_difference_and_its_interval_are_those_of_a_paired_bootstrap_in_numpy(content):
    reference, ours = labels(NOISY)
    _, theirs = labels(CLEAR)
    found = primary(content)
    assert found["reference"] == pytest.approx(kappa(reference, ours), abs=1e-5)
    assert found["run"] == pytest.approx(kappa(reference, theirs), abs=1e-5)
    gap = found["difference"]
    assert gap["value"] == pytest.approx(found["run"] - found["reference"])
    drawn = np.random.default_rng(5).integers(0, 8, (10_000, 8, 1))
    cases = (3 * drawn + np.arange(3)).reshape(-1, 24)
    before, after = (by_moments(reference[cases], calls[cases]) for calls in (ours, theirs))
    draws = after - before
    np.testing.assert_allclose(gap["ci95"], np.quantile(draws, [0.025, 0.975]), atol=0.07)
    assert (gap["n"], gap["patients"]) == (24, 8)


def test_p_is_that_of_all_exchanges_of_patients(content):
    reference, ours = labels(NOISY)
    _, theirs = labels(CLEAR)
    observed = kappa(reference, theirs) - kappa(reference, ours)
    as_great = 0
    for swapped in itertools.product((False, True), repeat=8):
        s = np.repeat(swapped, 3)
        one, other = np.where(s, theirs, ours), np.where(s, ours, theirs)
        as_great += abs(kappa(reference, other) - kappa(reference, one)) > abs(observed) - 1e-9
    assert content["pairs"][0]["shared"][CROSSED]["exact"]
    assert primary(content)["p"] == pytest.approx(as_great / 256)
    assert 0 < as_great < 256


def test_a_run_and_its_copy_do_not_differ():
    content = compare([made.run("one", NOISY), made.run("copy", NOISY)])
    for entry in content["pairs"][0]["differences"]:
        assert entry["difference"]["value"] in (0, None)
        assert entry["difference"]["ci95"] in ([0, 0], None)
        assert entry["p"] in (1, None)
    assert primary(content)["p"] == 1


def test_the_other_way_round_signs_flip(content):
    other = primary(compare([made.run("clear", CLEAR), made.run("noisy", NOISY)]))
    found = primary(content)
    low, high = found["difference"]["ci95"]
    assert other["difference"]["value"] == pytest.approx(-found["difference"]["value"])
    assert other["p"] == found["p"]
    # An order statistic from one end is its neighbour from the other.
    np.testing.assert_allclose(other["difference"]["ci95"], [-high, -low], atol=0.03)


def test_only_shared_cases_are_compared_and_what_each_has_alone_is_counted():
    fewer = [r for r in CLEAR if r["case"] != "p0-a/1" and r["patient"] != "p7"]
    more = [*NOISY, *made.rows(1, 3, ["p8"])]
    content = compare([made.run("more", more), made.run("fewer", fewer)])
    counts = content["pairs"][0]["shared"][CROSSED]
    assert (counts["patients"], counts["studies"], counts["cases"]) == (7, 7, 20)
    assert counts["alone"] == {"reference": 7, "run": 0}
    kept = {r["case"] for r in fewer}
    reference, ours = labels([r for r in NOISY if r["case"] in kept])
    assert primary(content)["reference"] == pytest.approx(kappa(reference, ours), abs=1e-5)
    assert primary(content)["difference"]["n"] == 20


def test_a_missed_case_costs_what_it_costs_everywhere():
    missed = made.rows(0.7, 2, missed=["p1-a/2", "p2-a/1"])
    content = compare([made.run("clear", CLEAR), made.run("misses", missed)])
    reference, calls = labels(CLEAR)
    right = sum(a == b and r["case"] not in ("p1-a/2", "p2-a/1")
                for a, b, r in zip(reference, calls, CLEAR, strict=True))  # fmt: skip
    found = primary(content, metric="accuracy_grade")
    assert found["run"] == pytest.approx(right / 24)
    assert found["difference"]["n"] == 24
    assert primary(content, place="oracle_region")["difference"]["value"] == 0


def test_p_values_are_corrected_within_families_over_all_runs():
    others = [made.run(f"run{s}", made.rows(0.9, s)) for s in (3, 4)]
    content = compare([made.run("noisy", NOISY), *others])
    assert content["families"]["primary"]["tests"] == 2
    for family in ("primary", "secondary"):
        entries = [e for p in content["pairs"] for e in p["differences"] if e["family"] == family]
        # By hand: the i-th smallest times what is left, never below the one before.
        raw = [e["p"] for e in entries if e["p"] is not None]
        steps = np.sort(raw) * np.arange(len(raw), 0, -1)
        by_hand = np.minimum(1, np.maximum.accumulate(steps))
        assert sorted(e["p_holm"] for e in entries if e["p"] is not None) == pytest.approx(by_hand)
        assert [e["p_holm"] for e in entries] == holm([e["p"] for e in entries])
    first = sorted(primary(content, n)["p"] for n in (0, 1))
    assert min(primary(content, n)["p_holm"] for n in (0, 1)) == pytest.approx(min(1, 2 * first[0]))


def test_figures_of_single_classes_are_not_tested(content):
    apart = [e for e in content["pairs"][0]["differences"] if e["further"]]
    assert any(e["metric"] == "sensitivity_ii_grade" for e in apart)
    assert all(e["p"] is e["family"] is e["p_holm"] is None for e in apart)
    assert all(e["difference"]["ci95"] for e in apart if e["difference"]["value"] is not None)


def test_seeds_are_pooled_and_their_spread_widens_the_interval():
    wild = made.rows(6.0, 9)
    alone = compare([made.run("noisy", NOISY), made.run("seeds", CLEAR)])
    seeds = compare([made.run("noisy", NOISY), made.run("seeds", CLEAR, wild)])
    reference, clear = labels(CLEAR)
    mean = np.mean([kappa(reference, clear), kappa(reference, labels(wild)[1])])
    found = primary(seeds)
    assert found["run"] == pytest.approx(mean, abs=1e-5)
    assert found["difference"]["method"].endswith("each with one of 1 and one of 2 seeds")
    assert np.ptp(found["difference"]["ci95"]) > 1.3 * np.ptp(primary(alone)["difference"]["ci95"])
    assert "trained from one seed" in " ".join(seeds["pairs"][0]["remarks"])
    same = compare([made.run("a", NOISY, CLEAR), made.run("b", NOISY, CLEAR)])
    assert primary(same)["difference"]["value"] == 0
    assert primary(same)["p"] == 1


def test_what_leads_is_compared_whatever_each_run_calls_it():
    system = made.System()
    system.comparison = type("Comparison", (), {"methods": {"landmarks": "landmarks"}})
    system.method = "landmarks"
    other = made.run("landmarks", made.rows(0.7, 2, method="landmarks"), system=system)
    found = primary(compare([made.run("noisy", NOISY), other]))
    assert found == primary(compare([made.run("noisy", NOISY), made.run("clear", CLEAR)]))


def test_held_out_patients_are_compared_apart():
    runs = [
        made.with_held_out(made.run(name, made.rows(n, s)), made.rows(n, s + 10, ["h0", "h1"]))
        for name, n, s in (("noisy", 2.0, 1), ("clear", 0.7, 2))
    ]
    content = compare(runs)
    assert content["families"]["primary"]["tests"] == 2
    assert primary(content)["difference"]["n"] == 24
    assert primary(content, part=HELD_OUT)["difference"]["n"] == 6
    # Two patients have four exchanges, of which one and its opposite are as great at least.
    assert primary(content, part=HELD_OUT)["p"] >= 0.5


def test_other_cohorts_are_not_compared_on_reference_regions():
    content = compare([made.run("old", NOISY), made.run("new", CLEAR, fingerprint="g")])
    assert {e["place"] for e in content["pairs"][0]["differences"]} == {"end_to_end"}
    assert "images of 0 of 8 shared studies" in " ".join(content["pairs"][0]["remarks"])


def test_the_table_has_what_the_reports_have_the_primary_first(content):
    first = content["figures"][0]
    assert (first["metric"], first["place"]) == (KAPPA, "end_to_end")
    noisy = made.run("noisy", NOISY)
    for row in content["figures"]:
        assert row["values"]["noisy"] == noisy.report[row["place"]][row["metric"]]


def test_what_differs_in_configs_and_machines_is_named():
    other = made.run("other", CLEAR, config=made.config(seed=3, devices=2, options={"a": 1}))
    other.report["environment"]["packages"] = {"jax": "2"}
    content = compare([made.run("noisy", NOISY), other])
    # Where a run computes is no field of its study.
    assert content["config"] == [
        {"field": "options.a", "values": {"noisy": None, "other": 1}},
        {"field": "seed", "values": {"noisy": 0, "other": 3}},
    ]
    jax = {"field": "packages.jax", "values": {"noisy": "1", "other": "2"}}
    assert content["environment"] == [jax]


def test_both_files_are_written_and_the_numbers_are_json(content, tmp_path):
    page = write(content, tmp_path / "out")
    assert page == tmp_path / "out" / "comparison.html"
    assert json.loads((tmp_path / "out" / "comparison.json").read_text()) == content


def test_more_patients_than_have_all_exchanges_take_random_ones():
    ids = [f"p{n}" for n in range(10)]
    runs = [made.run(n, made.rows(s, k, ids)) for n, s, k in (("a", 2.0, 1), ("b", 0.7, 2))]
    content = compare(runs)
    assert not content["pairs"][0]["shared"][CROSSED]["exact"]
    p = primary(content)["p"]
    assert p * (RESAMPLES + 1) == pytest.approx(round(p * (RESAMPLES + 1)))


def test_a_figure_that_one_run_lacks_has_no_difference():
    clear = made.run("clear", CLEAR)
    figures = clear.system.summarise
    clear.system.summarise = lambda *given: figures(*given) | {"oracle_region": {}}
    clear = dataclasses.replace(clear, report=clear.report | {"oracle_region": {}})
    content = compare([made.run("noisy", NOISY), clear])
    rows = [r for r in content["figures"] if r["place"] == "oracle_region"]
    assert rows
    assert all(r["values"]["clear"] is None and r["values"]["noisy"] for r in rows)
    assert {e["place"] for e in content["pairs"][0]["differences"]} == {"end_to_end"}
