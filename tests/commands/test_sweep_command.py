"""`sweep` as a user types it: trials, page, best config, its test, and the optimism."""

import ast
import json

import pytest
from commands.command_line import SMALL, complaint, run

from mskjax import cli

FAST = SMALL | {
    "data.validation_fraction": 0.4,
    "stages.grades.train.validate_every": 100,
}


def sweep_file(folder, data_dir, **changes):
    """A sweep of seconds: two trials of one fold of six generated patients."""
    overrides = {k: ast.literal_eval(v) if str(v)[0] == "(" else v for k, v in FAST.items()}
    overrides["data.data_dir"] = str(data_dir)
    values = {
        "study": "disc_degeneration",
        "overrides": overrides,
        "space": {"stages.grades.train.learning_rate": {"low": 1e-3, "high": 1e-2, "log": True}},
        "trials": 2,
        "folds": (0,),
    } | changes
    path = folder / "tiny.py"
    path.write_text(f"def get_config():\n    return {values!r}\n")
    return path


def typed(*arguments):
    return run("mskjax.sweep", *arguments)


@pytest.mark.long
def test_a_sweep_its_best_config_and_the_optimism(tmp_path, data_dir):
    workdir = tmp_path / "sweep"
    arguments = (f"--config={sweep_file(tmp_path, data_dir)}", f"--workdir={workdir}")
    process = typed(*arguments)
    assert process.returncode == 0, process.stderr
    said = process.stdout.strip().splitlines()
    assert said[-2].startswith("train and test the best config (trial ")
    content = json.loads((workdir / "sweep.json").read_text())
    assert content["counts"] == {"complete": 2, "pruned": 0, "failed": 0}
    assert content["cohort"]["sealed_patients"] == 3
    assert content["test"] is None
    for trial in content["trials"]:
        folder = workdir / "trials" / f"{trial['number']:04d}" / "fold_0"
        assert (folder / "validation_cases.csv").exists()
        assert not (folder / "cases.csv").exists()
        assert trial["estimate"]["n"] > 0
    assert "Not yet tested" in (workdir / "report.html").read_text()

    module, *flags = said[-1].split()[2:]
    process = run(module, *flags)
    assert process.returncode == 0, process.stderr
    process = typed(*arguments)
    assert process.returncode == 0, process.stderr
    assert "trial 0:" not in process.stdout, "trained again"
    assert "optimism of validation " in process.stdout.splitlines()[-1]
    test = json.loads((workdir / "sweep.json").read_text())["test"]
    report = json.loads((workdir / "best" / "report" / "report.json").read_text())
    assert test["patients"] == "sealed"
    assert test["estimate"]["patients"] == 3
    assert report["end_to_end"][content["objective"]]["patients"] == 6
    best = content["trials"][content["best"]]["estimate"]["value"]
    assert test["optimism"] == pytest.approx(best - test["estimate"]["value"])
    assert "Tested once" in (workdir / "report.html").read_text()


@pytest.fixture
def typed_here(capsys):
    """``mskjax sweep`` in this process: exit code and what stands on stderr."""

    def call(*arguments):
        code = cli.main(["sweep", *arguments])
        return code, capsys.readouterr().err

    return call


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"folds": (0,), "pruner": "median"}, "there is one; name more folds"),
        ({"trials": 0}, "sweep.trials is 0"),
        ({"space": {"stages.grades.train.rate": {"choices": (1,)}}}, "there is no field 'rate'"),
        ({"overrides": {"data.validation_fraction": 0.0}}, "a sweep chooses by validation pati"),
    ],
)
def test_a_wrong_file_is_a_sentence_and_leaves_no_trace(
    tmp_path, data_dir, typed_here, changes, message
):
    file = sweep_file(tmp_path, data_dir, **changes)
    code, err = typed_here(f"--config={file}", f"--workdir={tmp_path / 'sweep'}")
    assert code == 2
    assert message in complaint(err)
    assert [p.name for p in tmp_path.iterdir()] == ["tiny.py"]


def test_a_cohort_that_cannot_be_had_leaves_no_trace_either(tmp_path, data_dir, typed_here):
    file = sweep_file(
        tmp_path,
        data_dir,
        study="disc_degeneration:cohort",
        overrides={"data.manual_dir": str(tmp_path / "raw"), "data.data_dir": str(data_dir)},
    )
    code, err = typed_here(f"--config={file}", f"--workdir={tmp_path / 'sweep'}")
    assert code == 2
    assert "raw" in complaint(err)
    assert [p.name for p in tmp_path.iterdir()] == ["tiny.py"]
    (tmp_path / "file").touch()
    code, err = typed_here(f"--config={file}", f"--workdir={tmp_path / 'file'}")
    assert code == 2
    assert "file is a file; give a folder" in complaint(err)


def test_a_wrong_storage_is_a_sentence_without_the_password(tmp_path, data_dir, typed_here):
    file = sweep_file(tmp_path, data_dir)
    url = "postgresq://sweeper:S3cret-word@127.0.0.1/x"
    code, err = typed_here(
        f"--config={file}", f"--workdir={tmp_path / 'sweep'}", f"--storage={url}"
    )
    assert code == 2
    assert "--storage is no URL" in complaint(err)
    assert "S3cret" not in err
    assert [p.name for p in tmp_path.iterdir()] == ["tiny.py"]


def test_without_optuna_the_extra_is_named(tmp_path, typed_here, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    code, err = typed_here("--config=disc_degeneration_rates", f"--workdir={tmp_path / 'sweep'}")
    assert code == 2
    assert complaint(err) == "error: optuna is not installed; run pip install 'mskjax[sweep]'."
    assert not list(tmp_path.iterdir())
