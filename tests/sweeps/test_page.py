"""The page of a sweep says what was found, how sure it is, and what was never looked at."""

import re

import pytest
from sweeps.test_results import RATE, done

from mskjax.sweeps import page, results

COHORT = {
    "name": "discs", "kind": "phantom", "patients": 36, "folds": [0],
    "validation_patients": 10, "sealed_patients": 12,
}  # fmt: skip
TEST = {
    "run": "best", "patients": "sealed", "optimism": 0.0512,
    "estimate": {"value": 0.2222, "ci95": [0.11, 0.33], "n": 60, "patients": 12},
}  # fmt: skip


@pytest.fixture(scope="module")
def sweep(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sweep")
    trials = done(folder)
    return trials.sweep, results.write(trials, folder)


def written(sweep, folder, **changes):
    resolved, content = sweep
    text = page.write_page(resolved, {**content, **changes}, folder).read_text()
    seen = re.sub(r"(?s)<style>.*?</style>|<wbr>", "", text)
    said = re.sub(r"<[^>]+>", " ", seen)
    return text, " ".join(said.split())


def test_it_loads_nothing_and_holds_every_trial(sweep, tmp_path):
    text, said = written(sweep, tmp_path, cohort=COHORT)
    assert not re.search(r"(src|href)=\"(?!data:|#)", text)
    assert "<script" not in text
    assert text.count("data:image/svg+xml") == 3
    for trial in sweep[1]["trials"]:
        assert f"> {trial['number']} <".replace(" ", "") in text
    assert "not finite at step 3" in said
    assert "PHANTOM : generated images" in said
    assert "study&#39;s own" in text or "study's own" in said


def test_the_best_trial_is_not_taken_for_more_than_it_is(sweep, tmp_path):
    _, said = written(sweep, tmp_path, cohort=COHORT)
    best = max(t["estimate"]["value"] for t in sweep[1]["trials"] if t["estimate"])
    assert f"end to end: {best:.3f} in trial {sweep[1]['best']}, the best of 12" in said
    assert "0.200 with the study's own values (trial 0)" in said.replace("&#39;", "'")
    near = sum(
        1 for t in sweep[1]["trials"] if t["estimate"] and 0 < best - t["estimate"]["value"] <= 0.05
    )
    assert f"{near} other trial(s) lie inside of its 95 % interval" in said
    assert "Not yet tested on test patients" in said
    assert "12 patients are sealed" in said
    assert "grades.train.learning_rate lies at an end of what was searched" in said
    assert "no patient is sealed" not in said.lower()


def test_once_tested_the_optimism_stands_beside_it(sweep, tmp_path):
    _, said = written(sweep, tmp_path, cohort=COHORT, test=TEST)
    assert "Tested once: 0.222" in said
    assert "0.222 (0.110 to 0.330)" in said
    assert "Optimism 0.051" in said
    assert "no trial trained, validated or tested on any of them" in said


def test_a_cross_validation_is_not_said_to_be_independent(sweep, tmp_path):
    cohort, test = COHORT | {"sealed_patients": 0}, TEST | {"patients": "cross-validated"}
    assert "No patient is sealed" in written(sweep, tmp_path, cohort=cohort)[1]
    _, said = written(sweep, tmp_path, cohort=cohort, test=test)
    assert "The test patients are not independent of the choice" in said
    assert "Their figure is the one to report" not in said


def test_real_patients_bear_no_mark_and_few_trials_no_importance(sweep, tmp_path):
    text, said = written(sweep, tmp_path, cohort=COHORT | {"kind": "real"}, importance={})
    assert "PHANTOM" not in said
    assert text.count("data:image/svg+xml") == 2
    assert "say nothing of importance; 10 are the least" in said


def test_what_a_file_says_is_escaped(sweep, tmp_path):
    text, _ = written(sweep, tmp_path, command="<b>--workdir=x</b>")
    assert "<b>--workdir" not in text
    assert RATE.removeprefix("stages.") in text.replace("<wbr>", "")
