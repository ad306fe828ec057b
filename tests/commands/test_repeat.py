"""A run is repeated from its config.json, with or without changes (test_folds.py trains one)."""

import dataclasses
import json
import shlex

import pytest

from mskjax import commands
from mskjax.config import PopulationConfig, to_json
from mskjax.workdir import config_of


def flags(path, *changes):
    return commands.study_flags([f"--config={path}", "--workdir=runs/again", *changes]).config


def test_a_finished_run_says_all_of_itself(finished):
    path = finished.workdir / "config.json"
    assert to_json(flags(path)) == path.read_text()


def test_any_field_may_be_changed_optional_ones_too(finished):
    path = finished.workdir / "config.json"
    changed = flags(
        path,
        "--config.train_seed=3",
        "--config.data.splits=mine.json",
        "--config.data.options.patients=7",
        "--config.population.seeds=2",
        "--config.stages.regions.patch=(32,48)",
        "--config.stages.regions.train.learning_rate=1",
    )
    expected = json.loads(path.read_text())
    expected["train_seed"] = 3
    expected["data"] |= {"splits": "mine.json", "options": expected["data"]["options"]}
    expected["data"]["options"]["patients"] = 7
    expected["population"]["seeds"] = 2
    expected["stages"]["regions"]["patch"] = [32, 48]
    expected["stages"]["regions"]["train"]["learning_rate"] = 1.0
    assert json.loads(to_json(changed)) == expected


def test_a_population_says_all_of_itself_too(finished, tmp_path):
    config = config_of(finished.workdir)
    members = {"fast": {"stages": {"regions": {"train": {"learning_rate": 0.05}}}}, "plain": {}}
    config = dataclasses.replace(config, population=PopulationConfig(seeds=2, members=members))
    path = tmp_path / "config.json"
    path.write_text(to_json(config))
    again = flags(path)
    assert json.loads(to_json(again)) == json.loads(path.read_text())
    assert again.population.members == members


@pytest.mark.slow
@pytest.mark.long
def test_the_command_in_the_report_makes_the_same_report(finished, tmp_path, main_here):
    def without_times(workdir):
        report = json.loads((workdir / "report" / "report.json").read_text())
        return {k: v for k, v in report.items() if k not in ("cost", "environment")}

    expected = without_times(finished.workdir)
    program, *arguments = shlex.split(expected["command"])
    assert [program, *arguments[:2]] == ["python", "-m", "mskjax.main"]
    assert str(finished.data_dir) not in json.dumps(expected)  # may be published
    places = [a.replace("WORKDIR", str(tmp_path / "again")) for a in arguments[2:]]
    assert main_here(*places, f"--config.data.data_dir={tmp_path / 'data'}") == 0
    assert without_times(tmp_path / "again") == expected
