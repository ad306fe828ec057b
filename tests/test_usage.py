"""`main --help`: experiments, variants and every field."""

import os
import subprocess
import sys

import pytest

from mskjax import commands, experiment, fields, usage
from mskjax.config import DataConfig, TrainConfig
from mskjax.main import main


@pytest.fixture(autouse=True)
def _wide(monkeypatch):
    monkeypatch.setenv("COLUMNS", "110")


def test_help_lists_experiments_variants_and_the_fields_of_all():
    said = usage.study(None)
    for name, (line, variants) in experiment.listing().items():
        assert f"\n  {name}\n" in said
        assert line in said
        assert all(f"      {variant} " in said for variant in variants)
    for cls in (DataConfig, TrainConfig):
        assert all(f"\n  {name} " in said for name in fields.meanings(cls))
    assert "folds                5 " in said
    assert "cohort               required " in said
    assert "--config.stages.STAGE.train." in said
    assert max(map(len, said.splitlines())) <= 110


def test_help_of_an_experiment_shows_the_values_of_its_variant():
    said = usage.study("modic_changes:spider_midsagittal")
    section = said[said.index("--config.stages.boxes.model.") :]
    assert "anchor_ratios        (0.3,0.55,1.0)      height / width of anchors." in section
    assert "--config.stages.grades.augmentation." in section
    assert "required" not in said


@pytest.mark.parametrize("name", experiment.names())
def test_help_has_every_field_in_one_column(name):
    said = usage.study(name)
    found = fields.groups(fields.completed(experiment.load(name)))
    assert len(found) > 6
    for group in found:
        if group.fields:
            begin = said.index(f"--config.{group.path}{'.' if group.path else ''}\n")
            lines = said[begin:].partition("\n\n")[0].splitlines()[1:]
            names = [line.split()[0] for line in lines if line[2] != " "]
            assert names == list(group.fields)
            places = {len(line) - len(line.lstrip()) for line in lines if line[2] == " "}
            assert len(places) <= 1


def test_help_of_a_wrong_name(capsys, monkeypatch):
    monkeypatch.setattr(commands, "configure_runtime", lambda: None)
    assert main(["--help", "--config=modic"]) == 2
    assert "did you mean 'modic_changes'" in capsys.readouterr().err


def test_help_and_wrong_flags_need_no_jax(tmp_path):
    """What is imported, not seconds: those depend on the machine."""
    code = (
        "import sys; from mskjax.main import main; code = main(sys.argv[1:]);"
        "assert 'jax' not in sys.modules, 'slow'; sys.exit(code)"
    )
    for arguments, expected in (
        (["--wrkdir=x"], 2),
        (["--config=knee", "--workdir=x"], 2),
        (["--config=modic_changes:knee", "--workdir=x"], 2),
        (["--config=modic_changes", "--workdir=x", "--mode=trane"], 2),
        (["--config=modic_changes"], 2),
    ):
        process = subprocess.run(
            [sys.executable, "-c", code, *arguments],
            cwd=tmp_path, env=os.environ, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert process.returncode == expected, process.stderr
    help_code = (
        "import sys; from mskjax import usage; usage.study(None); assert 'jax' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", help_code], check=True)
