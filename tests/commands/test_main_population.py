"""Seeds and recipes that train as one program, as a user types them."""

import json
import shutil

import jax
import jsonschema
import numpy as np
import pytest
from commands.command_line import phantom_study, run, study

from mskjax import applied, status
from mskjax.report import main as report
from mskjax.reporting import calibrated
from mskjax.reporting.summary import schema
from mskjax.training.checkpoints import restore_variables

pytestmark = pytest.mark.long

# Few steps: rounding has no time to grow.
FEW = {f"stages__{s}__train__{k}": v for s in ("regions", "grades")
       for k, v in {"steps": 6, "warmup_steps": 1, "learning_rate": 1e-3}.items()}  # fmt: skip

SEEDS = ("--config.population.seeds=2",)


@pytest.fixture(scope="module")
def seeds(data_dir, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("population") / "run"
    process = run("mskjax.main", *study(workdir, data_dir, *SEEDS, **FEW))
    assert process.returncode == 0, process.stderr
    return workdir


def weights(folder):
    return jax.tree.leaves(restore_variables(folder))


def assert_close(ours, theirs):
    for part in ("fold_0/regions", "fold_1/regions", "fold_0/grades", "fold_1/grades"):
        for a, b in zip(weights(ours / part), weights(theirs / part), strict=True):
            np.testing.assert_allclose(a, b, atol=1e-4)


def test_each_seed_is_a_run_of_its_own(seeds, data_dir, main_here, tmp_path, capsys):
    alone = tmp_path / "alone"
    again = [f"--config={seeds}/seed_1/config.json", f"--workdir={alone}"]
    assert main_here(*again) == 0
    assert_close(seeds / "seed_1", alone)
    capsys.readouterr()
    together = [f"--config={seeds}/seed_1/config.json", f"--workdir={seeds}/seed_1"]
    assert main_here(*together) == 0
    assert "finished" in capsys.readouterr().out


def test_seeds_differ_in_training_and_share_the_division(seeds):
    first, second = (seeds / name for name in ("seed_0", "seed_1"))
    assert (first / "splits.json").read_text() == (second / "splits.json").read_text()
    pairs = zip(weights(first / "fold_0/regions"), weights(second / "fold_0/regions"), strict=True)
    assert any(not np.allclose(a, b) for a, b in pairs)


def test_the_report_pools_seeds_within_patients(seeds):
    whole = json.loads((seeds / "report/report.json").read_text())
    jsonschema.validate(whole, schema())
    each = [json.loads((seeds / f"seed_{s}/report/report.json").read_text()) for s in (0, 1)]
    assert whole["protocol"]["seeds"] == [0, 1]
    name = whole["primary"]
    values = [r["end_to_end"][name]["value"] for r in each]
    figure = whole["end_to_end"][name]
    assert figure["seeds"] == values
    assert figure["value"] == pytest.approx(np.mean(values))
    assert figure["n"] == each[0]["end_to_end"][name]["n"]
    page = (seeds / "report/report.html").read_text()
    assert "generated phantoms; mean over 2 seeds)." in whole["headline"]
    assert "Values are means over 2 seeds" in page
    assert "its interval is that of a training from any of them on any patients" in page
    rows = (seeds / "cases.csv").read_text().splitlines()
    assert len(rows) - 1 == 2 * (len((seeds / "seed_0/cases.csv").read_text().splitlines()) - 1)


def test_the_ensemble_of_seeds_stands_beside_their_mean(seeds):
    whole = json.loads((seeds / "report/report.json").read_text())
    together, single = whole["ensemble"], whole["end_to_end"]
    assert together["seeds"] == 2
    for name, own in together["end_to_end"].items():
        difference = together["minus_single"]["end_to_end"][name]
        if own["value"] is not None and single[name]["value"] is not None:
            expected = own["value"] - single[name]["value"]
            assert difference["value"] == pytest.approx(expected, abs=1e-6)
    ours, one = (
        sorted(line.split(",")[2:5] for line in (d / "cases.csv").read_text().splitlines())
        for d in (seeds / "ensemble", seeds / "seed_0")
    )
    assert [row for row in ours if "grade" in row] == [row for row in one if "grade" in row]


def test_the_calibration_of_seeds_has_each_patient_once(seeds):
    whole, one = (
        json.loads((d / "calibration.json").read_text()) for d in (seeds, seeds / "seed_0")
    )
    for task in ("pfirrmann", "severity"):
        ours, first = (content["tasks"][task]["model"] for content in (whole, one))
        assert ours["readings"] + ours["missed"] == 2 * (first["readings"] + first["missed"])
        assert first["readings"] == first["cases"]
        assert ours["cases"] >= first["cases"]
        assert len(ours["scores"]) == ours["patients"] <= 6
    report = json.loads((seeds / "report/report.json").read_text())
    assert report["calibrated"] == json.loads(json.dumps(calibrated.tables(whole)))


def test_a_run_of_several_seeds_is_applied_with_all_of_them(seeds):
    assert len(applied.load(seeds)) == 4
    assert len(applied.load(seeds, folds=[0])) == 2


def test_a_run_of_several_seeds_is_verified_with_all_of_them(seeds, tmp_path, capsys):
    assert report([f"--runs={seeds}", "--verify"]) == 0
    said = capsys.readouterr().out
    assert said.splitlines()[-1] == "PASS"
    # Two folds of each seed, and of all seeds together.
    count = len(list(seeds.glob("seed_*"))) + 1
    assert said.count("rows read again, to the last digit") == 2 * count
    copy = shutil.copytree(seeds, tmp_path / "run")
    last = sorted(copy.glob("seed_*"))[-1]
    with (last / "fold_1" / "cases.csv").open("a") as file:
        file.write("\n")
    assert report([f"--runs={copy}", "--verify", "--data_dir=/nowhere"]) == 2
    said = capsys.readouterr().out
    assert f"{last.name}/fold_1/cases.csv: then " in said
    shutil.rmtree(last)
    assert report([f"--runs={copy}", "--verify", "--data_dir=/nowhere"]) == 2
    said = capsys.readouterr().out
    assert f"{last.name}/manifest.json: then " in said


def test_a_finished_population_says_so(seeds, data_dir, main_here, capsys):
    assert main_here(*study(seeds, data_dir, *SEEDS, **FEW)) == 0
    assert str(seeds / "report" / "report.html") in capsys.readouterr().out


def test_a_seed_that_was_lost_is_trained_again_alone(seeds, data_dir, main_here, tmp_path):
    workdir = tmp_path / "run"
    shutil.copytree(seeds, workdir)
    shutil.rmtree(workdir / "seed_1")
    untouched = (workdir / "seed_0/fold_0/regions/architecture.json").stat().st_mtime_ns
    together = (workdir / "ensemble/fold_0/cases.csv").stat().st_mtime_ns
    assert main_here(*study(workdir, data_dir, *SEEDS, **FEW)) == 0
    assert_close(workdir / "seed_1", seeds / "seed_1")
    assert (workdir / "seed_0/fold_0/regions/architecture.json").stat().st_mtime_ns == untouched
    # What the lost networks had a part in was read anew.
    assert (workdir / "ensemble/fold_0/cases.csv").stat().st_mtime_ns > together


def test_seeds_are_given_more_steps_together(seeds, data_dir, main_here, tmp_path, capsys):
    workdir = tmp_path / "run"
    shutil.copytree(seeds, workdir)
    more = FEW | {f"stages__{stage}__train__steps": 8 for stage in ("regions", "grades")}
    assert main_here(*study(workdir, data_dir, *SEEDS, **more)) == 0
    assert "regions: extended from 6 to 8 steps at step 6" in capsys.readouterr().out
    costs = [json.loads(p.read_text()) for p in workdir.glob("seed_*/fold_*/*/cost.json")]
    assert [cost["steps"] for cost in costs] == [8] * 8
    report = json.loads((workdir / "report/report.json").read_text())
    assert report["recipe"]["extended"][0].startswith("regions: extended from 6 to 8")
    # A seed that goes on alone comes to the same weights.
    alone = tmp_path / "alone"
    shutil.copytree(seeds / "seed_1", alone)
    fields = [f"--config.stages.{stage}.train.steps=8" for stage in ("regions", "grades")]
    fields.append(f"--config.data.data_dir={data_dir}")
    assert main_here(f"--config={alone}/config.json", f"--workdir={alone}", *fields) == 0
    assert_close(workdir / "seed_1", alone)


def test_folds_that_train_together_are_those_of_one_after_another(
    seeds, data_dir, main_here, tmp_path, capsys
):
    workdir = tmp_path / "run"
    flags = ["--config.population.folds=all", "--mode=train"]
    assert main_here(*study(workdir, data_dir, *flags, **FEW)) == 0
    assert "2 trainings as one program" in capsys.readouterr().out
    assert_close(workdir, seeds / "seed_0")


def test_members_train_together_and_one_that_fails_spoils_no_other(
    data_dir, main_here, tmp_path, capsys
):
    experiment = tmp_path / "recipes.py"
    experiment.write_text(
        "from experiments import disc_degeneration\n"
        "def get_config(variant='phantom'):\n"
        "    config = disc_degeneration.get_config(variant)\n"
        "    rate = lambda r: {'stages': {'regions': {'train': {'learning_rate': r}}}}\n"
        "    rates = {'quick': rate(1e-3), 'slow': rate(1e-4), 'mad': rate(1e30)}\n"
        "    config.population = {'members': rates}\n"
        "    return config\n"
    )
    workdir = tmp_path / "run"
    _, *flags = study(workdir, data_dir, **FEW)
    assert main_here(f"--config={experiment}", *flags) == 2
    said = capsys.readouterr()
    assert "member_mad fold_0 regions: loss or gradient was not finite at step" in said.err
    assert (workdir / "member_slow/report/report.html").exists()
    assert not (workdir / "member_mad/cases.csv").exists()
    assert "member_slow minus member_quick, end to end: " in said.out
    compared = json.loads((workdir / "comparison/comparison.json").read_text())
    assert [run["name"] for run in compared["runs"]] == ["member_quick", "member_slow"]
    assert [d["field"] for d in compared["config"]] == ["stages.regions.train.learning_rate"]
    assert status.main([str(workdir)]) == 0
    assert "regions      failed" in capsys.readouterr().out


def test_graders_of_regions_that_each_seed_found_itself_train_together(data_dir, tmp_path):
    few = {f"stages__grades__train__{k}": v for k, v in {"steps": 2, "warmup_steps": 1}.items()}
    one = {
        "data__options__patients": 12,
        "options__normalisations": "('z_score_volume',)",
        **few,
    }
    # One more axis of every array is quicker to compile than side by side.
    flags = (*SEEDS, "--config.population.share=vmapped", "--mode=train", "--folds=0")
    arguments = phantom_study("modic_changes", tmp_path / "run", data_dir, *flags, **one)
    process = run("mskjax.main", *arguments)
    assert process.returncode == 0, process.stderr
    folders = [tmp_path / "run" / f"seed_{s}" / "fold_0" for s in (0, 1)]
    for stage in ("boxes", "grades_z_score_volume"):
        costs = [json.loads((folder / stage / "cost.json").read_text()) for folder in folders]
        assert [cost["trained_together"] for cost in costs] == [2, 2]
    # Their detectors differ, and so do the crops: each is its own folder's examples.
    said = [line for line in process.stdout.splitlines() if "examples, " in line]
    assert sum(f"seed_{s}/fold_0/prepared/grades_" in line for line in said for s in (0, 1)) == 2
    assert not any((folder / "prepared").exists() for folder in folders)
