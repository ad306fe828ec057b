"""Temperatures and sets of a run: from cases.csv alone, each patient once, measured honestly."""

import json

import numpy as np
import pytest
from held_out_runs import GRADE, KIND, folds_of, names, rows_of, write_run
from sklearn.metrics import brier_score_loss, log_loss, roc_curve

from mskjax import cases
from mskjax.calibration_fit import COVERAGES, fit
from mskjax.data.splits import Fold
from mskjax.metrics import conformal
from mskjax.metrics.grading import Grading
from mskjax.metrics.operating_point import CRITERIA
from mskjax.metrics.temperature import apply_temperature, fit_temperature, patient_weights

GRADINGS = (GRADE, KIND)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folds = folds_of(names(60), 5)
    return write_run(tmp_path_factory.mktemp("run") / "run", folds, rows_of(folds, missed=0.1))


@pytest.fixture(scope="module")
def content(run):
    return fit(run, GRADINGS)


def test_says_what_it_was_fitted_on(run, content):
    json.dumps(content, allow_nan=False)
    assert content["caveats"] == []
    for task in ("grade", "kind"):
        (method,) = content["tasks"][task]
        entry = content["tasks"][task][method]
        assert method == cases.MODEL
        assert entry["readings"] + entry["missed"] == 240
        assert entry["readings"] == entry["cases"] == sum(map(len, entry["scores"]))
        assert 5 < entry["missed"] < 60
        assert entry["patients"] == len(entry["scores"]) == 60
        # The networks are twice as sure as they should be.
        assert entry["temperature"] == pytest.approx(2.0, rel=0.25)
        assert len(entry["check"]["temperatures"]) == 5
        assert entry["why"] == ""


def test_no_id_of_a_patient_is_kept(content):
    assert not any(f'"{name}"' in json.dumps(content) for name in names(60))


def test_is_worth_more_on_patients_that_it_was_not_fitted_on(content):
    for task in ("grade", "kind"):
        check = content["tasks"][task]["model"]["check"]
        assert check["change"]["ci95"][1] < 0
        for figure in ("log_loss", "ece", "brier"):
            assert check[figure]["after"]["value"] < check[figure]["before"]["value"]


def test_the_check_is_that_of_each_fold_left_out(run, content):
    """Fitted and measured again, in plain NumPy and scikit-learn."""
    rows = cases.read(run / "cases.csv")
    graded = cases.graded(rows, GRADE)
    p = graded.probabilities(GRADE, "model")
    found = ~np.isnan(p).any(1)
    p, reference = p[found], graded.reference[found]
    patients = np.array(graded.patients)[found]
    fold = np.array([int(r["fold"]) for r in graded.rows])[found]
    after, held = np.zeros_like(p), np.zeros((len(p), 3), bool)
    for k in range(5):
        own, rest = fold == k, fold != k
        weights = patient_weights(patients[rest].tolist())
        t = fit_temperature(p[rest], reference[rest], weights, 48).value
        after[own] = apply_temperature(p[own], t)
        scores = conformal.scores(apply_temperature(p, t), GRADE.calls(p), True)
        mine = scores[np.arange(len(p)), reference]
        fitted = conformal.fit(mine[rest], patients[rest].tolist())
        for i, coverage in enumerate(COVERAGES):
            held[own, i] = mine[own] <= conformal.quantile(fitted, coverage)
    weights = patient_weights(patients.tolist())
    check = content["tasks"]["grade"]["model"]["check"]
    for when, values in (("before", p), ("after", after)):
        normal = values / values.sum(1, keepdims=True)
        expected = log_loss(reference, normal, sample_weight=weights)
        assert check["log_loss"][when]["value"] == pytest.approx(expected, abs=1e-5)
        expected = brier_score_loss(reference, normal, sample_weight=weights, scale_by_half=True)
        assert check["brier"][when]["value"] == pytest.approx(expected, abs=1e-5)
    every = patient_weights(graded.patients)
    for i, own in enumerate(check["sets"]):
        assert own["coverage"] == COVERAGES[i]
        share = np.average(held[:, i], weights=weights)
        assert own["held"]["value"] == pytest.approx(share, abs=1e-6)
        assert own["held_by_case"]["value"] == pytest.approx(held[:, i].mean(), abs=1e-6)
        both = (every[found] * held[:, i]).sum() / every.sum()
        assert own["held_or_missed"]["value"] == pytest.approx(both, abs=1e-6)
        assert own["held"]["n"] == own["held_by_case"]["n"] == found.sum()
        assert own["held_or_missed"]["n"] == 240
        assert own["held"]["patients"] == 60
        assert own["empty"] == 0
        assert 1 <= own["size"] <= 3


def test_sets_cover_what_they_promise(content):
    for own in content["tasks"]["grade"]["model"]["check"]["sets"]:
        low, high = own["held"]["ci95"]
        assert low <= own["coverage"] + 0.02
        assert high >= own["coverage"]


def test_seeds_are_readings_of_their_patient(tmp_path):
    folds = folds_of(names(30), 3)
    one = fit(write_run(tmp_path / "one", folds, rows_of(folds)), [GRADE])
    rows = rows_of(folds)
    twice = [*rows, *({**r, "seed": 1} for r in rows)]  # seeds that agree
    both = fit(write_run(tmp_path / "both", folds, twice), [GRADE])
    a, b = (c["tasks"]["grade"]["model"] for c in (one, both))
    assert (b["cases"], b["patients"], b["readings"]) == (120, 30, 240)
    assert b["temperature"] == pytest.approx(a["temperature"], rel=1e-5)
    assert b["check"]["sets"][1]["held"]["n"] == 120
    for coverage in (0.5, 0.8, 0.9):
        assert conformal.quantile(a, coverage) == pytest.approx(conformal.quantile(b, coverage))
    for name in ("value", "ci95"):  # no narrower for being read twice
        assert b["check"]["sets"][1]["held"][name] == pytest.approx(
            a["check"]["sets"][1]["held"][name]
        )


def test_a_patient_whom_a_repetition_tests_again_is_left_out_with_all_readings(tmp_path):
    patients = names(30)
    folds = folds_of(patients, 5)
    again = [Fold(f.train, (), f.test, repetition=1) for f in folds_of(patients[::-1], 2)]
    every = [*folds, *again]
    run = write_run(tmp_path / "run", every, rows_of(every))
    entry = fit(run, [GRADE])["tasks"]["grade"]["model"]
    assert (entry["patients"], entry["cases"], entry["readings"]) == (30, 120, 240)
    assert len(entry["check"]["temperatures"]) == 5
    rows = [r for r in cases.read(run / "cases.csv") if r["patient"] not in folds[0].test]
    own = cases.graded(rows, GRADE)
    p = own.probabilities(GRADE, "model")
    t = fit_temperature(p, own.reference, patient_weights(own.patients), 24).value
    assert entry["check"]["temperatures"][0] == t


def test_held_out_patients_are_measured_and_not_fitted_on(tmp_path):
    patients = names(36)
    folds = folds_of(patients[:24], 3)
    last = Fold(tuple(patients[:24]), (), tuple(patients[24:]), held_out=True)
    crossed = fit(write_run(tmp_path / "a", folds, rows_of(folds)), [GRADE])
    whole = fit(write_run(tmp_path / "b", [*folds, last], rows_of([*folds, last])), [GRADE])
    a, b = (c["tasks"]["grade"]["model"] for c in (crossed, whole))
    held_out = b.pop("held_out")
    assert a == b
    assert held_out["sets"][1]["held"]["patients"] == 12
    assert "held_out" not in a


@pytest.mark.parametrize("count", [1, 2])
def test_of_few_folds_patients_are_left_out_in_more_groups(tmp_path, count):
    patients = names(30)
    alone = Fold(tuple(names(60)[30:]), (), tuple(patients))
    folds = [alone] if count == 1 else folds_of(patients, count)
    entry = fit(write_run(tmp_path / "run", folds, rows_of(folds)), [GRADE])["tasks"]["grade"]
    check = entry["model"]["check"]
    assert len(check["temperatures"]) == 5
    assert check["sets"][1]["held"]["patients"] == 30
    # Nothing depends on one patient alone, and each temperature is of others.
    assert len(set(check["temperatures"])) == 5


def test_few_patients_have_no_temperature_and_full_sets(tmp_path):
    folds = folds_of(names(6), 2)
    entry = fit(write_run(tmp_path / "run", folds, rows_of(folds)), [GRADE])["tasks"]["grade"]
    assert entry["model"]["temperature"] == 1
    assert "6 patients, fewer than 10" in entry["model"]["why"]
    for own in entry["model"]["check"]["sets"][1:]:  # of 80 % take four patients only
        assert (own["full"], own["size"], own["held"]["value"]) == (1, 3, 1)


def test_what_was_never_found_has_no_temperature(tmp_path):
    folds = folds_of(names(20), 2)
    rows = rows_of(folds, missed=1.0)
    columns = {f"p_model_{g.task}_{name}": "" for g in GRADINGS for name in g.classes}
    content = fit(write_run(tmp_path / "run", folds, [r | columns for r in rows]), GRADINGS)
    for task in ("grade", "kind"):
        entry = content["tasks"][task]["model"]
        assert (entry["temperature"], entry["scores"], entry["check"]) == (1.0, [], None)
        assert (entry["cases"], entry["missed"]) == (80, 80)
        assert entry["why"] == "not fitted: no held-out case with a probability"


def test_each_method_has_its_own(tmp_path):
    folds = folds_of(names(20), 2)
    other = Grading("a_grade", GRADE.classes)  # its columns end like those of grade
    gradings = (GRADE, other)
    rows = rows_of(folds, gradings, methods=["none", "z_score_volume"])
    tasks = fit(write_run(tmp_path / "run", folds, rows), gradings)["tasks"]
    assert [*tasks["grade"]] == [*tasks["a_grade"]] == ["none", "z_score_volume"]


@pytest.mark.parametrize(
    ("kind", "data", "words"),
    [
        ("phantom", {}, "PHANTOM: fitted on generated images"),
        ("real", {"shuffle_labels": True}, "CONTROL RUN: labels were shuffled"),
        ("real", {"split": "by_case"}, "LEAKING SPLIT: networks had seen other cases"),
    ],
)
def test_what_keeps_the_promise_from_holding_is_said(tmp_path, kind, data, words):
    patients = tuple(names(12))
    parts = {f"{p}/{k}": "test" for p in patients for k in range(4)}
    leaking = Fold(patients, (), patients, parts)
    folds = [leaking] if data.get("split") else folds_of(patients, 2)
    run = write_run(tmp_path / "run", folds, rows_of(folds), kind, **data)
    (said,) = fit(run, [GRADE])["caveats"]
    assert said.startswith(words)


def test_order_of_rows_is_of_no_account(run, content, tmp_path):
    rows = cases.read(run / "cases.csv")
    order = np.random.default_rng(0).permutation(len(rows))
    folds = folds_of(names(60), 5)
    mixed = fit(write_run(tmp_path / "run", folds, [rows[i] for i in order]), GRADINGS)
    for task in ("grade", "kind"):
        a, b = (c["tasks"][task]["model"] for c in (content, mixed))
        assert a["temperature"] == pytest.approx(b["temperature"], rel=1e-4)
        assert conformal.quantile(a, 0.9) == pytest.approx(conformal.quantile(b, 0.9), abs=1e-3)


def test_thresholds_are_fitted_on_all_held_out_cases(run, content):
    rows = cases.graded(cases.read(run / "cases.csv"), KIND)
    p = rows.probabilities(KIND, "model")[:, 1]
    found = ~np.isnan(p)
    false, true, _ = roc_curve(rows.reference[found], p[found])
    kept = content["tasks"]["kind"]["model"]["thresholds"]
    assert list(kept) == list(CRITERIA)
    assert kept["balanced_accuracy"]["why"] == ""
    called = p[found] >= kept["balanced_accuracy"]["value"]
    best = called[rows.reference[found] == 1].mean() - called[rows.reference[found] == 0].mean()
    assert best == pytest.approx((true - false).max())
    assert content["tasks"]["kind"]["model"]["scale"] == {}
    assert content["tasks"]["grade"]["model"]["thresholds"] == {}  # it has three classes


def test_the_scale_of_ordered_classes_is_fitted_on_all_held_out_cases(run, content):
    rows = cases.graded(cases.read(run / "cases.csv"), GRADE)
    expected = rows.probabilities(GRADE, "model") @ np.arange(3)
    found = ~np.isnan(expected)
    e, reference = expected[found], rows.reference[found]
    kept = content["tasks"]["grade"]["model"]["scale"]
    assert kept["why"] == ""
    scaled = kept["slope"] * e + kept["offset"]
    np.testing.assert_allclose(scaled.mean(), reference.mean(), rtol=1e-4)
    np.testing.assert_allclose(scaled.std(), reference.std(), rtol=1e-4)
