"""``mskjax.report``: a run's report again, from what the run left."""

import shutil

import pytest
from commands.command_line import complaint, contents, run

from mskjax.report import main

pytestmark = pytest.mark.slow


def test_writes_the_same_report_again(finished, tmp_path):
    before = contents(finished.workdir)
    process = run("mskjax.report", f"--runs={finished.workdir}", f"--output={tmp_path}")
    assert process.returncode == 0, process.stderr
    assert str(tmp_path / "report.html") in process.stdout
    assert contents(finished.workdir) == before
    for name in ("report.json", "report.html"):
        again = (tmp_path / name).read_bytes()
        assert again == (finished.workdir / "report" / name).read_bytes()


def test_needs_no_checkpoint_and_follows_the_table(finished, tmp_path):
    workdir = tmp_path / "run"
    shutil.copytree(finished.workdir, workdir, ignore=shutil.ignore_patterns("checkpoints"))
    lines = (workdir / "cases.csv").read_text().splitlines()
    kept = [lines[0], *(line for line in lines[1:] if not line.startswith("1,"))]
    (workdir / "cases.csv").write_text("\n".join(kept) + "\n")
    shutil.rmtree(workdir / "report")
    assert main([f"--runs={workdir}"]) == 0
    report = (workdir / "report" / "report.json").read_text()
    assert report != (finished.workdir / "report" / "report.json").read_text()


def test_several_runs_in_one_folder(finished, tmp_path):
    runs = [str(tmp_path / name) for name in ("one", "other")]
    for folder in runs:
        shutil.copytree(finished.workdir, folder, ignore=shutil.ignore_patterns("checkpoints"))
    assert main(["--runs", *runs, f"--output={tmp_path / 'both'}"]) == 0
    assert (tmp_path / "both" / "one" / "report.html").exists()
    assert (tmp_path / "both" / "other" / "report.html").exists()


@pytest.mark.parametrize("missing", ["cases.csv", "config.json", "fold_1/grades/cost.json"])
def test_an_unfinished_run_is_named(finished, tmp_path, capsys, missing):
    workdir = tmp_path / "run"
    shutil.copytree(finished.workdir, workdir, ignore=shutil.ignore_patterns("checkpoints"))
    shutil.rmtree(workdir / "report")
    (workdir / missing).unlink()
    assert main([f"--runs={workdir}"]) == 2
    said = complaint(capsys.readouterr().err)
    assert f"{workdir / missing} is missing" in said
    assert not (workdir / "report" / "report.json").exists()


def test_a_folder_that_is_not_there(tmp_path, capsys):
    assert main([f"--runs={tmp_path / 'none'}"]) == 2
    assert f"{tmp_path / 'none'} is not a folder" in complaint(capsys.readouterr().err)
