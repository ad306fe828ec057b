"""A run's temperature and sets applied to what is read next, and what is said of them."""

import json

import numpy as np
import pytest
from held_out_runs import GRADE, KIND, folds_of, names, rows_of, write_run

from mskjax import calibration, cases
from mskjax.errors import UserError
from mskjax.metrics.grading import Grading
from mskjax.metrics.temperature import apply_temperature

GRADINGS = (GRADE, KIND)
P = np.array([[0.7, 0.2, 0.1], [0.05, 0.48, 0.47], [np.nan] * 3])


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folds = folds_of(names(40), 4)
    folder = write_run(tmp_path_factory.mktemp("run") / "run", folds, rows_of(folds))
    calibration.write(folder, GRADINGS)
    return folder


@pytest.fixture(scope="module")
def loaded(run):
    return calibration.load(run, GRADINGS)


def test_what_was_kept_is_loaded_and_nothing_is_fitted(run, monkeypatch):
    monkeypatch.setattr("mskjax.calibration.fit", None)
    assert calibration.load(run, GRADINGS).content == json.loads(
        (run / "calibration.json").read_text()
    )


@pytest.mark.parametrize("change", ["no file", "another table", "another grading"])
def test_what_is_missing_or_of_another_table_is_fitted_anew(run, loaded, tmp_path, change):
    folds, gradings = folds_of(names(40), 4), GRADINGS
    folder = write_run(tmp_path / "run", folds, rows_of(folds))
    if change == "another table":
        (folder / calibration.CALIBRATION).write_bytes((run / calibration.CALIBRATION).read_bytes())
        cases.write(folder / "cases.csv", rows_of(folds, sure=4.0))
    elif change == "another grading":
        calibration.write(folder, GRADINGS)
        gradings = (Grading("grade", GRADE.classes),)  # without an order
    before = sorted(folder.iterdir())
    content = calibration.load(folder, gradings).content
    assert content != json.loads((run / calibration.CALIBRATION).read_text()) or change == "no file"
    assert len(content["gradings"]) == len(gradings)
    found, kept = (c["tasks"]["grade"]["model"] for c in (content, loaded.content))
    twice = 2 if change == "another table" else 1  # as sure as the networks of the other
    assert found["temperature"] == pytest.approx(twice * kept["temperature"], rel=0.1)
    assert sorted(folder.iterdir()) == before  # loading writes nothing


def test_probabilities_are_at_the_temperature_of_their_task(loaded):
    t = loaded.content["tasks"]["grade"]["model"]["temperature"]
    assert t > 1.5
    found = loaded.calibrated("grade", "model", P)
    np.testing.assert_array_equal(found, apply_temperature(P, t))
    np.testing.assert_array_equal(loaded.calibrated("grade", "model", P[0]), found[0])
    assert found[0, 0] < P[0, 0]
    assert np.isnan(found[2]).all()


def test_sets_hold_the_call_and_grow_with_the_coverage(loaded):
    sizes = []
    for coverage in (0.3, 0.9, 0.97):
        found = loaded.set_of("grade", "model", P, coverage)
        assert found.dtype == bool
        np.testing.assert_array_equal(loaded.set_of("grade", "model", P[1], coverage), found[1])
        assert found[0, 0]
        assert found[1, 1]
        assert not found[2].any()
        sizes.append(found.sum())
    assert sizes == sorted(sizes)
    assert sizes[0] < sizes[-1]
    assert loaded.set_of("grade", "model", P, 0.99)[:2].all()  # 40 patients are too few


def test_the_call_is_that_of_the_probabilities_as_they_were_read(loaded):
    """A temperature may move the expectation of an ordinal grade, which no figure is of."""
    p = np.array([0.7, 0.11, 0.19])  # .49, and more when it is less sure
    after = loaded.calibrated("grade", "model", p)
    assert GRADE.calls(p[None]) == [0]
    assert loaded.set_of("grade", "model", p, 0.05).tolist() == [True, False, False]
    assert after.sum() == pytest.approx(1)


def test_says_what_it_rests_on(loaded):
    own = loaded.content["tasks"]["grade"]["model"]
    held = own["check"]["sets"][1]["held"]
    said = loaded.statement("grade", "model")
    low, high = held["ci95"]
    assert said == (
        f"Probabilities of grade: temperature {own['temperature']:.3g} fitted on 160 held-out cases"
        f" of 40 patients; 90 % sets held the reference in {100 * held['value']:.0f} %"
        f" ({100 * low:.0f} to {100 * high:.0f}) of 160 cases of 40 patients left out of the fit."
    )
    assert "85 % sets were not checked, only those of 80 %, 90 %, 95 %" in loaded.statement(
        "grade", "model", 0.85
    )
    assert "99 % sets hold all classes: they take 99 patients, not 40" in loaded.statement(
        "grade", "model", 0.99
    )


def test_a_run_of_few_patients_says_so(tmp_path):
    folds = folds_of(names(6), 2)
    folder = write_run(tmp_path / "run", folds, rows_of(folds), "phantom")
    found = calibration.load(folder, GRADINGS)
    assert found.set_of("kind", "model", np.array([0.99, 0.01])).all()
    said = found.statement("kind", "model")
    assert "temperature 1 (not fitted: 6 patients, fewer than 10)" in said
    assert "90 % sets hold all classes: they take 9 patients, not 6." in said
    assert said.endswith("PHANTOM: fitted on generated images, which says nothing about patients.")


def test_a_grading_without_a_case_leaves_probabilities_as_they_are(run):
    absent = Grading("absent", ("a", "b", "c"))
    found = calibration.load(run, (*GRADINGS, absent))
    np.testing.assert_allclose(found.calibrated("absent", "model", P), P, atol=1e-5)
    assert found.set_of("absent", "model", P[:2]).all()
    assert "no held-out case with a probability" in found.statement("absent", "model")


def test_what_is_no_evaluated_run_or_no_task_is_named(run, loaded, tmp_path):
    with pytest.raises(UserError, match=r"cases.csv is missing; run with --mode=evaluate"):
        calibration.load(tmp_path, GRADINGS)
    with pytest.raises(UserError, match="grades grade, kind, not modic"):
        loaded.calibrated("modic", "model", P)


def test_a_run_that_grades_nothing_keeps_nothing(run, tmp_path):
    calibration.write(tmp_path, ())
    assert not list(tmp_path.iterdir())


def test_the_operating_point_is_that_of_the_file_and_calls_stay(loaded):
    kept = loaded.content["tasks"]["kind"]["model"]["thresholds"]
    for criterion, own in kept.items():
        assert loaded.threshold("kind", "model", criterion) == own["value"]
    assert loaded.threshold("kind", "model") == kept["balanced_accuracy"]["value"]
    assert loaded.threshold("kind", "another grader") == 0.5
    with pytest.raises(UserError, match="more than two classes"):
        loaded.threshold("grade", "model")


def test_rescaled_calls_are_those_of_the_scale_of_the_file(loaded):
    kept = loaded.content["tasks"]["grade"]["model"]["scale"]
    p = np.array([[0.6, 0.3, 0.1], [0.1, 0.3, 0.6], [np.nan] * 3])
    scaled = kept["slope"] * (p[:2] @ np.arange(3)) + kept["offset"]
    expected = [*np.clip(np.floor(scaled + 0.5), 0, 2).astype(int), 3]
    assert loaded.rescaled("grade", "model", p).tolist() == expected
    assert loaded.rescaled("grade", "model", p[None]).shape == (1, 3)
    assert loaded.rescaled("grade", "another grader", p).tolist() == [1, 2, 3]  # as rounded
    with pytest.raises(UserError, match="no more than two ordered classes"):
        loaded.rescaled("kind", "model", p[:, :2])
