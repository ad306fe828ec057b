"""What a sweep leaves: counts, ranks, files, and the optimism of its best trial."""

import csv
import json

import pytest
from optuna.trial import TrialState
from sweeps import stub

from mskjax.errors import Diverged, UserError
from mskjax.sweeps import declared, results
from mskjax.sweeps.declared import SweepConfig
from mskjax.sweeps.storage import Storage
from mskjax.sweeps.trials import Trials
from mskjax.sweeps.worker import Rung, work

RATE, NORM = "stages.grades.train.learning_rate", "stages.grades.model.norm"
SPACE = {
    RATE: {"low": 1e-3, "high": 4e-3, "log": True},
    NORM: {"choices": ("group", "instance")},
}


def real(**changes):
    """A sweep of a system that exists."""
    settings = {"study": "disc_degeneration", "space": SPACE, "trials": 12, "startup": 4}
    return declared.resolved(SweepConfig(**(settings | changes)), "mine")


def done(folder, **changes):
    """A finished sweep whose trials are worth their learning rate; one has failed."""
    sweep = real(**changes)
    trials = Trials(sweep, Storage(str(folder / "journal.log"), 5), folder, stub.FAST)

    def run(values, where):
        if where.name == "0002":
            raise Diverged("not finite at step 3")
        worth = 100 * values[RATE]
        found = {"value": worth, "ci95": [worth - 0.05, worth + 0.05], "n": 50, "patients": 10}
        yield Rung(0, found, 0, worth)

    work(trials, run)
    return trials


def test_files_of_a_sweep(tmp_path):
    trials = done(tmp_path)
    content = results.write(trials, tmp_path)
    assert content == json.loads((tmp_path / "sweep.json").read_text())
    assert content["counts"] == {"complete": 11, "pruned": 0, "failed": 1}
    with (tmp_path / "trials.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [r["trial"] for r in rows] == [str(k) for k in range(12)]
    assert rows[2]["state"] == "failed"
    assert rows[2]["why"] == "not finite at step 3"
    best = max((t for t in trials.all() if t.state == TrialState.COMPLETE), key=lambda t: t.value)
    assert content["best"] == best.number
    again = declared.experiment.load(str(tmp_path / "best_config.json"))
    assert again.stages.grades.train.learning_rate == best.params[RATE]
    assert content["command"].endswith(
        f"--config={tmp_path}/best_config.json --workdir={tmp_path}/best"
    )
    assert content["test"] is None
    assert not [p for p in tmp_path.iterdir() if p.name.startswith(".")]


def test_ranks_follow_the_direction_and_equal_trials_their_number(tmp_path):
    sweep = real()
    some = [
        results.Trial(k, state, {}, {"value": v}, {}, 1.0, "", False)
        for k, (state, v) in enumerate(
            [("complete", 0.5), ("pruned", 0.9), ("complete", 0.7), ("complete", 0.7)]
        )
    ]
    assert [t.number for t in results.ranked(sweep, some)] == [2, 3, 0]
    lower = real(direction="minimize")
    assert [t.number for t in results.ranked(lower, some)] == [0, 2, 3]


def test_the_field_that_decides_is_the_important_one(tmp_path):
    shares = results.importance(done(tmp_path, trials=30))
    assert sum(shares.values()) == pytest.approx(1, abs=0.01)
    assert shares[RATE] > 0.8
    assert results.importance(done(tmp_path / "few", trials=6)) == {}


def test_a_sweep_without_a_complete_trial_says_why(tmp_path):
    trials = stub.trials(tmp_path, trials=2)

    def run(values, folder):
        raise Diverged("not finite at step 3")
        yield

    work(trials, run)
    with pytest.raises(UserError, match=r"none of 2 trials is complete \(trial 0: not finite at s"):
        results.write(trials, tmp_path)


def write_run(folder, best, folds):
    """A finished run of the best config, with graded cases of patients a to f."""
    folder.mkdir(parents=True)
    config = results.to_json(best)
    (folder / "config.json").write_text(config)
    index = [[p, f"study_{p}"] for p in "abcdef"]
    audit = {"index": index, "fingerprint": "f", "patients": 6, "images": {}}
    (folder / "cohort.json").write_text(json.dumps(audit))
    results.splits.save(
        folder / "splits.json",
        results.splits.Splits(tuple(folds), "folds", "f", tuple("abcdef"), {}),
    )
    (folder / "cases.csv").write_text("")


def test_optimism_is_validation_minus_test_on_sealed_patients_alone(tmp_path, monkeypatch):
    sweep = real(folds=(0,))
    best = sweep.config_of({})
    fold = results.splits.Fold
    folds = [fold(tuple("cd"), ("e", "f"), ("a", "b")), fold(tuple("ab"), ("c",), tuple("def"))]
    seen = []

    def estimate(config, rows, name, resamples):
        seen.append((sorted(r["patient"] for r in rows), name, resamples))
        return {"value": 0.7, "ci95": [0.5, 0.9], "n": len(rows), "patients": len(rows)}

    rows = [{"patient": p, "fold": "0" if p in "ab" else "1"} for p in "abcdef"]
    monkeypatch.setattr(results, "estimate", estimate)
    monkeypatch.setattr(results.cases, "read", lambda path: rows)
    monkeypatch.setattr(
        results,
        "_division",
        lambda run, audit: results.splits.Splits(tuple(folds), "folds", "f", tuple("abcdef"), {}),
    )
    run = tmp_path / "best"
    trial = results.Trial(3, "complete", {}, {"value": 0.8}, {}, 1.0, "", False)
    assert results.optimism(sweep, best, trial, run) is None
    write_run(run, best, folds)
    found = results.optimism(sweep, best, trial, run)
    assert found["optimism"] == pytest.approx(0.1)
    assert found["patients"] == "sealed"
    assert seen == [(["a", "b"], "quadratic_weighted_kappa_pfirrmann", best.resamples)]
    every = results.optimism(real(), best, trial, run)
    assert every["patients"] == "cross-validated"
    assert seen[-1][0] == list("abcdef")
    lower = real(folds=(0,), direction="minimize")
    assert results.optimism(lower, best, trial, run)["optimism"] == pytest.approx(-0.1)


def test_a_run_of_another_config_is_no_test(tmp_path):
    sweep = real()
    other = sweep.config_of({RATE: 3.3e-3})
    run = tmp_path / "best"
    write_run(run, other, [])
    trial = results.Trial(3, "complete", {}, {"value": 0.8}, {}, 1.0, "", False)
    with pytest.raises(UserError, match=r"study of another config \(.*learning_rate was .*move it"):
        results.optimism(sweep, sweep.config_of({}), trial, run)
