"""The seeds of a study as one reader: what it leaves, a stop in its middle, a forged row.

The seeds are copies of one finished run, so what all say together is what one says: whatever
differs would come from the networks of another fold, or of nobody.
"""

import csv
import dataclasses
import json
import shutil
from types import SimpleNamespace

import jsonschema
import pytest
from commands.command_line import ROOT, complaint

from mskjax import cases, fold_ensemble, manifest, reading, replicas, watch
from mskjax.config import to_json
from mskjax.errors import Preempted
from mskjax.main import main
from mskjax.report import main as report
from mskjax.reporting import limits
from mskjax.reporting.summary import schema
from mskjax.workdir import ENSEMBLE, config_of

pytestmark = [pytest.mark.slow, pytest.mark.long]


@pytest.fixture(scope="module")
def trained(finished, tmp_path_factory):
    """A study of two seeds whose patients are not read together yet, and its arguments."""
    workdir = tmp_path_factory.mktemp("seeds") / "run"
    config = config_of(finished.workdir)
    population = dataclasses.replace(config.population, seeds=2)
    whole = replicas.of(dataclasses.replace(config, population=population), workdir)
    for part in whole.single():
        shutil.copytree(finished.workdir, part.workdir)
        manifest.discard(part.workdir)
        for path in part.workdir.glob("fold_*/cases.csv"):
            seed = part.config.train_seed
            cases.write(path, [{**row, "seed": seed} for row in cases.read(path)])
    for part in whole.every():
        (part.workdir / "config.json").write_text(to_json(part.config))
    flags = [f for f in finished.arguments if not f.startswith("--workdir=")]
    return SimpleNamespace(workdir=workdir, flags=[*flags, "--config.population.seeds=2"])


@pytest.fixture(scope="module")
def seeds(trained, finish):
    """The same, finished: it was stopped once while it read the second fold together."""
    read, calls = reading.rows_of_fold, []

    def stopped(fold, studies, seen):
        calls.append(len(studies))
        if len(calls) == 5:
            raise Preempted("stopped here")
        return read(fold, studies, seen)

    arguments = [*trained.flags, f"--workdir={trained.workdir}"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reading, "STUDIES_AT_ONCE", 1)
        patch.setattr(reading, "rows_of_fold", stopped)
        patch.chdir(ROOT)
        assert main(arguments) == 75
        folds = [fold["evaluation"] for fold in watch.of(trained.workdir)["ensemble"]]
        assert [(fold["state"], fold["read"]) for fold in folds] == [("done", 3), ("begun", 1)]
        assert not (trained.workdir / ENSEMBLE / "cases.csv").exists()
    finish(arguments)
    assert calls == [1] * 5
    return trained.workdir


def table(path):
    with path.open(newline="") as file:
        return [{k: v for k, v in row.items() if k != "seed"} for row in csv.DictReader(file)]


def test_a_fold_is_read_by_its_own_trainings_alone_and_every_study_once(seeds, finished):
    for fold in ("fold_0", "fold_1"):
        ours, theirs = (table(d / fold / "cases.csv") for d in (seeds / ENSEMBLE, finished.workdir))
        assert ours == theirs
    rows = (seeds / ENSEMBLE / "cases.csv").read_text().splitlines()
    single = (finished.workdir / "cases.csv").read_text().splitlines()
    assert len(rows) == len(single)
    names = sorted(p.name for p in (seeds / ENSEMBLE).glob("fold_*/predictions/*.nii.gz"))
    assert names == sorted(p.name for p in finished.workdir.glob("fold_*/predictions/*.nii.gz"))


def test_the_report_has_it_beside_one_network(seeds):
    found = json.loads((seeds / "report/report.json").read_text())
    jsonschema.validate(found, schema())
    together = found["ensemble"]
    assert together["seeds"] == 2
    for place in ("end_to_end", "oracle_region"):
        assert together[place].keys() == found[place].keys()
        for name, own in together[place].items():
            assert own["value"] == found[place][name]["value"]
            difference = together["minus_single"][place][name]
            if own["ci95"] and own["patients"] > 1:
                assert (difference["value"], difference["ci95"]) == (0, [0, 0])
    for name, own in together["stages"]["regions"].items():
        assert own["value"] == found["stages"]["regions"][name]["value"]
    figure = found["end_to_end"][found["primary"]]
    assert (len(figure["seeds"]), figure["sd"]) == (2, 0)
    assert f"All 2 as an ensemble: {figure['value']:.3f} (" in found["headline"]
    assert limits.ONE_SEED not in found["limits"]
    assert any(limit.startswith("2 seeds: ") for limit in found["limits"])
    one = json.loads((seeds / "seed_0/report/report.json").read_text())
    assert limits.ONE_SEED in one["limits"]
    assert one["ensemble"] == {}
    assert "Seeds and their ensemble" in (seeds / "report/report.html").read_text()


def test_it_is_verified_with_the_run(seeds, tmp_path, capsys):
    assert report([f"--runs={seeds}", "--verify"]) == 0
    said = capsys.readouterr().out
    assert said.splitlines()[-1] == "PASS"
    for name in ("ensemble fold_0", "ensemble fold_1", "ensemble cases.csv"):
        assert f"  {name:20} PASS" in said
    copy = shutil.copytree(seeds, tmp_path / "run")
    for path in (copy / ENSEMBLE / "fold_1/cases.csv", copy / ENSEMBLE / "cases.csv"):
        text = path.read_text()
        before = next(r for r in table(path) if r["fold"] == "1" and r["dice"])["dice"]
        path.write_text(text.replace(before, "0.5"))
    assert report([f"--runs={copy}", "--verify"]) == 2
    said = capsys.readouterr().out
    for name in ("files", "ensemble fold_1", "report.json"):
        assert f"  {name:20} FAIL" in said
    assert "ensemble/fold_1/cases.csv: then " in said
    assert "column dice: then 0.5, now" in said
    assert f"  {'ensemble fold_0':20} PASS" in said


def test_it_is_no_run_to_compare_or_to_report(seeds, tmp_path, capsys):
    assert report([f"--runs={seeds / ENSEMBLE}"]) == 2
    assert "config.json is missing; give the --workdir of a run" in complaint(
        capsys.readouterr().err
    )


def test_folds_that_are_evaluated_apart_make_it_as_together(seeds, trained, tmp_path, main_here):
    workdir = shutil.copytree(seeds, tmp_path / "run")
    shutil.rmtree(workdir / ENSEMBLE)
    flags = [*trained.flags, f"--workdir={workdir}", "--mode=evaluate"]
    assert main_here(*flags, "--folds=1") == 0
    assert not (workdir / ENSEMBLE / "fold_0").exists()
    assert not manifest.exists(workdir)
    assert manifest.exists(workdir / "seed_0")
    assert main_here(*flags) == 0
    for file in ("fold_0/cases.csv", "fold_1/cases.csv", "cases.csv"):
        ours, theirs = (d / ENSEMBLE / file for d in (workdir, seeds))
        assert ours.read_bytes() == theirs.read_bytes()


def test_what_a_training_had_a_part_in_is_discarded_before_it_is_trained_anew(seeds, tmp_path):
    workdir = shutil.copytree(seeds, tmp_path / "run")
    whole = replicas.of(config_of(workdir), workdir)
    fold = SimpleNamespace(number=1, setting=SimpleNamespace(workdir=workdir / "seed_0"))
    setting = SimpleNamespace(
        replica=lambda config, folder, name: SimpleNamespace(
            workdir=folder, folder=lambda number: folder / f"fold_{number}"
        )
    )
    (together,) = fold_ensemble.of(whole, setting, [[fold]])
    assert together.is_read
    together.discard()
    assert not together.is_read
    left = {p.name for p in (workdir / ENSEMBLE).iterdir()}
    assert left == {"fold_0"}
