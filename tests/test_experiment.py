"""Experiments are found by name, path or run, and every variant is a study that can be built."""

import dataclasses
import json
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from ml_collections import ConfigDict

from mskjax import experiment, systems
from mskjax.config import StudyConfig, parse, to_json
from mskjax.errors import UserError
from mskjax.fields import completed
from mskjax.two_stage.options import stage_options

ROOT = Path(__file__).resolve().parents[1]
EVERY = [
    (name, variant) for name, (_, variants) in experiment.listing().items() for variant in variants
]


def resolved(spec):
    return parse(StudyConfig, completed(experiment.load(spec)).to_dict())


def test_each_system_has_an_experiment_with_the_three_variants_that_every_user_needs():
    assert sorted(experiment.names()) == systems.names()
    for _, (line, variants) in experiment.listing().items():
        assert line.endswith(".")
        assert next(iter(variants)) == "phantom"
        assert {"cohort_small", "cohort"} <= set(variants)
        assert all(variants.values())
        assert "two CPU cores" in variants["cohort_small"]


@pytest.mark.parametrize(("name", "variant"), EVERY)
def test_every_variant_parses_builds_and_comes_back_from_its_json(name, variant, tmp_path):
    config = resolved(f"{name}:{variant}")
    assert (config.system, config.data.cohort, config.variant) == (name, name, variant)
    systems.load(name).check(config)
    (tmp_path / "config.json").write_text(to_json(config))
    again = resolved(str(tmp_path / "config.json"))
    assert to_json(again) == to_json(config)
    stages, options = systems.declared(name)
    assert stage_options(again, stages, options) == stage_options(config, stages, options)


@pytest.mark.parametrize(("name", "variant"), EVERY)
def test_what_is_written_to_config_json_is_complete(name, variant):
    config = resolved(f"{name}:{variant}")
    written = json.loads(to_json(config))["stages"]
    stages, options = systems.declared(name)
    for stage, parsed in zip(stages, stage_options(config, stages, options), strict=False):
        assert written[stage] == json.loads(json.dumps(dataclasses.asdict(parsed)))


@pytest.mark.parametrize("name", experiment.names())
def test_real_data_is_never_asked_for_a_phantom(name):
    for variant in experiment.listing()[name][1]:
        data = resolved(f"{name}:{variant}").data
        own = data.config == "cohort"  # only its user can say what the images are of
        assert (
            data.options == {"kind": "real"}
            if own
            else bool(data.options) == (variant == "phantom")
        )
        # A variant of another recipe is named after the data that it shares.
        assert data.config == variant.removesuffix("_small").removesuffix("_volumes")
        assert data.folds == 2 if variant == "phantom" else data.folds >= 5


@pytest.mark.parametrize("name", ["disc_degeneration", "modic_changes"])
def test_small_and_full_variants_grade_by_one_recipe(name):
    """They differ in sizes, steps and rates alone, however often one of them is tuned."""
    recipes, heads = {}, {}
    for variant in experiment.listing()[name][1]:
        if variant == "phantom":
            continue
        grades = completed(experiment.load(f"{name}:{variant}")).to_dict()["stages"]["grades"]
        train, model, heads[variant] = grades.pop("train"), grades.pop("model"), grades.pop("heads")
        for size in ("crop", "extent"):
            del grades[size]
        recipes[variant] = {
            **grades,
            **{k: model[k] for k in ("norm", "dropout")},
            **{k: train[k] for k in ("weight_decay", "clip_norm", "balance")},
        }
    assert len(recipes) >= 4
    small = recipes.pop("cohort_small")
    assert (small["norm"], small["balance"], small["emd_weight"]) == ("batch", "none", 1.0)
    assert small["dropout"] > 0
    for variant, recipe in recipes.items():
        assert recipe == small, variant
    for variant, own in heads.items():
        assert {"pfirrmann", "narrowing", "bulging"} <= set(own), variant


def rows_of_cohort_small():
    """Of the table in docs/scaling.md: (system, stage) -> its other cells."""
    text = (ROOT / "docs/scaling.md").read_text()
    _, _, section = text.partition("## What `cohort_small` costs")
    lines = section.partition("\n## ")[0].splitlines()
    cells = [[c.strip() for c in line.strip("|").split("|")] for line in lines if line[:1] == "|"]
    return {(system, stage): rest for system, stage, *rest in cells[2:]}


@pytest.mark.parametrize("name", experiment.names())
def test_cohort_small_builds_and_trains_what_the_docs_say(name):
    config = resolved(f"{name}:cohort_small")
    assert (config.data.split, config.data.folds) == ("folds", 5)
    module = systems.load(name)
    # As the data set is not there, stages are of the least canvas and nothing is fitted.
    assert {s.name.split("_")[0] for s in module.build(config).stages} == set(config.stages)
    stages, options = systems.declared(name)
    parsed = dict(zip(stages, stage_options(config, stages, options), strict=False))
    documented = {stage: rest for (system, stage), rest in rows_of_cohort_small().items()
                  if system == name}  # fmt: skip
    assert documented.keys() == parsed.keys()
    for stage, (sees, steps, *_) in documented.items():
        o = parsed[stage]
        shape = getattr(o, "patch", getattr(o, "crop", None))
        pixel = f"{o.spacing_mm:g} mm" if hasattr(o, "spacing_mm") else ""
        size = " x ".join(map(str, shape)) if shape else "whole slices"
        assert sees == ", ".join(filter(None, [pixel, size]))
        assert steps == f"{o.train.steps:,} of {o.train.batch_size}"
        # Nothing that two cores cannot do, and no patient is spent on the choice of a checkpoint.
        assert not hasattr(o, "model") or o.model.dtype == "float32"
        assert o.train.select == "latest"
        assert max(getattr(getattr(o, "model", None), "widths", (0,))) <= 128
    assert "hours on two CPU cores" in experiment.listing()[name][1]["cohort_small"]


def test_names_are_found_from_any_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert experiment.find("disc_degeneration") == experiment.SHIPPED / "disc_degeneration.py"
    assert experiment.load("disc_degeneration").variant == "phantom"
    assert experiment.load("disc_degeneration:spider").variant == "spider"


def test_folders_of_the_users_own_are_looked_through_too(tmp_path, monkeypatch):
    own = tmp_path / "experiments"
    own.mkdir()
    for name in ("knee", "_helper"):
        (own / f"{name}.py").write_text("'''Mine.'''\n")
    monkeypatch.setenv("MSKJAX_PATH", str(tmp_path))
    assert experiment.find("knee") == own / "knee.py"
    assert experiment.find("disc_degeneration").parent == experiment.SHIPPED
    assert experiment.listing()["knee"] == ("Mine.", {})
    with pytest.raises(UserError, match="did you mean 'knee', of disc_degeneration, .*knee"):
        experiment.find("kne")
    (own / "shoulder_bones.py").touch()
    with pytest.raises(UserError, match=r"has the name of .*shoulder_bones\.py; rename yours"):
        experiment.names()


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (
            "fatty",
            "neither an experiment's name nor a .*; did you mean 'fatty_infiltration', of",
        ),
        ("xyz", "; known: disc_degeneration, fatty_infiltration, modic_changes, shoulder_bones"),
        ("experiments/modic_change.py", "no such file; did you mean 'modic_changes', of"),
        ("modic_changes:spidr", "no variant 'spidr'; did you mean 'spider', of phantom, cohort_s"),
        ("modic_changes:knee", "no variant 'knee'; known: phantom, cohort_small"),
    ],
)
def test_a_wrong_name_gets_the_nearest_and_all(spec, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=message):
        experiment.load(spec)


def test_a_runs_folder_is_told_from_its_config(tmp_path):
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(UserError, match=r"is a folder; write --config=.*config\.json"):
        experiment.load(str(tmp_path))
    with pytest.raises(UserError, match=r"config\.json is no JSON"):
        experiment.load(str(tmp_path / "config.json"))
    (tmp_path / "config.json").write_text("[]")
    with pytest.raises(UserError, match="holds no config"):
        experiment.load(str(tmp_path / "config.json"))


def test_a_file_of_ones_own_needs_nothing_but_get_config(tmp_path):
    file = tmp_path / "mine.py"
    file.write_text(
        "from ml_collections import ConfigDict\n"
        "def get_config(variant='plain'):\n"
        "  return ConfigDict({'system': 'shoulder_bones', 'variant': variant})\n"
    )
    assert experiment.load(f"{file}:other").to_dict()["variant"] == "other"
    config = completed(experiment.load(str(file)))
    assert config.stages.edges.band_mm == 3.0
    with pytest.raises(UserError, match=r"config\.data lacks cohort, config"):
        parse(StudyConfig, config.to_dict())


def test_variants_start_from_a_fresh_default_each_time():
    def small():
        """One."""
        return ConfigDict({"width": 1})

    def large(config):
        """Two.

        More.
        """
        config.width = 2

    variants = experiment.Variants(small, large)
    assert variants.described() == {"small": "One", "large": "Two"}
    assert variants("large").to_dict() == {"width": 2, "variant": "large"}
    assert variants().to_dict() == {"width": 1, "variant": "small"}


@pytest.mark.long
def test_a_wheel_brings_the_experiments_inside_the_package(tmp_path):
    """Needs what builds a wheel: setuptools, here or where pip gets its packages."""
    source, wheels, site = tmp_path / "source", tmp_path / "wheels", tmp_path / "site"
    for name in ("mskjax", "tfds_builders", "experiments"):  # a build leaves folders behind
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "setup.py", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    done = subprocess.run(
        [sys.executable, "-m", "pip", "wheel", "--no-deps", "-q", "-w", wheels, source],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    with zipfile.ZipFile(next(wheels.glob("*.whl"))) as wheel:
        top = {name.partition("/")[0] for name in wheel.namelist()}
        wheel.extractall(site)
    assert {t for t in top if not t.endswith("info")} == {"mskjax", "tfds_builders"}
    said = subprocess.run(
        [sys.executable, "-m", "mskjax.main", "--help"],
        cwd=tmp_path, env={"PYTHONPATH": str(site)}, capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    assert all(name in said for name in systems.names())
