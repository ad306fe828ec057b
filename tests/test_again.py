"""The printed command resolves to the config that it was made from."""

import dataclasses
import json
import shlex

import pytest

from mskjax import again, commands, experiment
from mskjax.config import PopulationConfig, to_json

VARIANTS = [
    (name, variant)
    for name, (_, variants) in experiment.listing().items()
    for variant in variants
    if not name.startswith("_")
]
MANY = {
    "seed": 3,
    "train_seed": 5,
    "resamples": 50,
    "devices": 1,
    "data.split": "folds_and_official",
    "data.folds": 3,
    "data.validation_fraction": 0.25,
    "data.shuffle_labels": True,
    "data.options.patients": 7,
    "population.seeds": 2,
    "population.folds": "all",
    "stages.regions.patch": (64, 48),
    "stages.regions.model.widths": (8, 16),
    "stages.regions.train.learning_rate": 1e-05,
    "stages.grades.model.blocks": (1,),
    "stages.grades.heads": ("pfirrmann", "severity"),
    "data.config": "it's odd, $HOME",
}


@pytest.fixture(autouse=True)
def _environment_stays(monkeypatch):
    monkeypatch.setattr(commands, "configure_runtime", lambda: None)


def flags(*arguments):
    return commands.study_flags([*arguments, "--workdir=runs/again"]).config


def typed(command, **places):
    """The config of a command as it is typed, with its places filled in."""
    program, *arguments = shlex.split(command.replace("RUN/", f"{places.get('run')}/"))
    assert [program, *arguments[:2]] == ["python", "-m", "mskjax.main"]
    assert arguments[-1] == "--workdir=WORKDIR"
    return flags(*arguments[2:-1])


@pytest.mark.parametrize(("name", "variant"), VARIANTS)
def test_a_variant_as_it_is_shipped_is_its_name(name, variant):
    default = experiment.load(name).variant
    spec = name if variant == default else f"{name}:{variant}"
    command = again.command(flags(f"--config={name}:{variant}"))
    assert command == f"python -m mskjax.main --config={spec} --workdir=WORKDIR"


def test_every_override_is_there_and_quoted():
    given = [f"--config.{name}={value}" for name, value in MANY.items()]
    config = flags("--config=disc_degeneration", *given)
    command = again.command(config)
    assert to_json(typed(command)) == to_json(config)
    assert len(shlex.split(command)) == 3 + 1 + len(MANY) + 1
    assert "--config.stages.regions.train.learning_rate=1e-05" in command


def test_places_are_left_to_whoever_runs_it(tmp_path):
    config = flags(
        "--config=disc_degeneration:cohort_small",
        "--config.data.manual_dir=/home/me/raw files",
        "--config.data.data_dir=/scratch/data",
        "--config.data.splits=/home/me/mine.json",
    )
    command = again.command(config)
    assert "/home" not in command
    assert "/scratch" not in command
    assert "--config.data.manual_dir=RAW --config.data.splits=RUN/splits.json" in command


@pytest.mark.parametrize("unsayable", ["members", "variant", "option"])
def test_what_flags_cannot_say_is_taken_from_the_run(tmp_path, unsayable):
    config = flags("--config=disc_degeneration", "--config.seed=1")
    if unsayable == "members":
        members = {"fast": {"stages": {"regions": {"train": {"learning_rate": 0.05}}}}}
        config = dataclasses.replace(config, population=PopulationConfig(members=members))
    elif unsayable == "variant":
        config = dataclasses.replace(config, variant="mine")
    else:
        options = {k: v for k, v in config.data.options.items() if k != "patients"}
        config = dataclasses.replace(config, data=dataclasses.replace(config.data, options=options))
    (tmp_path / "config.json").write_text(to_json(config))
    command = again.command(config)
    assert command == "python -m mskjax.main --config=RUN/config.json --workdir=WORKDIR"
    assert json.loads(to_json(typed(command, run=tmp_path))) == json.loads(to_json(config))
