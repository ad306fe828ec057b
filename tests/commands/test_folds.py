"""Folds and stages of a study by themselves, on several machines as on one."""

import json
import shutil
import time

import pytest
from commands.command_line import complaint, contents, start, study

from mskjax import status
from mskjax.writers import read_rows

pytestmark = pytest.mark.slow


def wait_until(condition, processes, seconds=240):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"not after {seconds} s"
        assert all(p.poll() is None for p in processes), [p.communicate() for p in processes]
        time.sleep(0.01)


@pytest.mark.long
def test_two_processes_on_two_folds_at_once_make_the_run(finished, main_here, tmp_path, capsys):
    """They repeat a finished run from its config.json."""
    workdir = tmp_path / "run"
    arguments = [f"--config={finished.workdir / 'config.json'}", f"--workdir={workdir}"]
    both = [start("mskjax.main", *arguments, f"--folds={k}") for k in (0, 1)]
    try:
        locks = [workdir / f".lock-fold_{k}" for k in (0, 1)]
        wait_until(lambda: all(p.exists() and p.read_text() for p in locks), both)
        assert [json.loads(p.read_text())["pid"] for p in locks] == [p.pid for p in both]
        # Nobody else gets in: neither to all of it nor to a fold that is taken.
        for flags, fold in (([], 0), (["--mode=report"], 0), (["--folds=1"], 1)):
            assert main_here(*arguments, *flags) == 2
            said = complaint(capsys.readouterr().err)
            # The run itself is one's for the moment in which it writes what both share.
            taken = [(workdir / f"fold_{fold}", both[fold]), *((workdir, p) for p in both)]
            assert any(f"{p} is in use by process {who.pid} on" in said for p, who in taken)
        wait_until(lambda: (workdir / "splits.json").exists(), both)
        assert status.main([str(workdir)]) == 0
        assert f"fold_1 at work: process {both[1].pid}" in capsys.readouterr().out
        said = [p.communicate(timeout=300) for p in both]
    finally:
        for process in both:
            process.kill()
            process.communicate()
    assert [p.returncode for p in both] == [0, 0], said
    assert not list(workdir.glob(".lock*"))
    assert not (workdir / "cases.csv").exists()
    assert not (workdir / "report").exists()
    last = max(said, key=lambda out: "--mode=report" in out[0])[0]
    assert f"next: python -m mskjax.main {' '.join(arguments)} --mode=report" in last
    assert main_here(*arguments, "--mode=report") == 0
    assert (workdir / "cases.csv").read_bytes() == (finished.workdir / "cases.csv").read_bytes()
    for curve in finished.workdir.glob("fold_*/*/metrics.jsonl"):
        assert read_rows(workdir / curve.relative_to(finished.workdir)) == read_rows(curve)
    ours, theirs = (f / "splits.json" for f in (workdir, finished.workdir))
    assert ours.read_bytes() == theirs.read_bytes()
    assert main_here(*arguments) == 0
    assert "finished: " in capsys.readouterr().out


def part_of(finished, folder, *gone):
    """A copy of the finished run that lacks some of it."""
    workdir = shutil.copytree(finished.workdir, folder / "run")
    for pattern in ("cases.csv", "report", "manifest.json", *gone):
        for path in workdir.glob(pattern):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    return workdir


def test_a_report_names_the_folds_that_are_missing(finished, main_here, tmp_path, capsys):
    workdir = part_of(finished, tmp_path, "fold_1/cases.csv")
    before = contents(workdir)
    arguments = study(workdir, finished.data_dir)
    assert main_here(*arguments, "--mode=report") == 2
    assert "no cases.csv of fold_1; run --mode=train,evaluate" in complaint(capsys.readouterr().err)
    # A fold that is done says what the others lack.
    assert main_here(*arguments, "--folds=0") == 0
    said = capsys.readouterr().out
    assert "not evaluated: fold_1" in said
    assert said.splitlines()[-1].endswith("--mode=evaluate,report")
    assert {k: v for k, (v, _) in contents(workdir).items() if k != "environment.json"} == {
        k: v for k, (v, _) in before.items() if k != "environment.json"
    }


def test_one_stage_of_one_fold(finished, main_here, tmp_path, capsys):
    gone = [f"fold_*/{name}" for name in ("grades", "cases.csv", "pictures")]
    workdir = part_of(finished, tmp_path, *gone)
    arguments = [*study(workdir, finished.data_dir), "--mode=train"]
    assert main_here(*arguments, "--stages=regions") == 0
    assert "not trained: fold_0, fold_1" in capsys.readouterr().out
    assert not list(workdir.glob("fold_*/grades"))
    assert main_here(*arguments, "--stages=grades", "--folds=1") == 0
    said = capsys.readouterr().out
    assert "not trained: fold_0" in said
    assert "not evaluated: fold_1" in said
    assert not (workdir / "fold_0" / "grades").exists()
    curve = "fold_1/grades/metrics.jsonl"
    assert read_rows(workdir / curve) == read_rows(finished.workdir / curve)
    assert not (workdir / "fold_1" / "cases.csv").exists()


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--folds=2"], "--folds: there is no fold 2; the division has folds 0 to 1"),
        (["--folds=one"], "--folds has one; give numbers of folds"),
        (["--folds="], "--folds has nothing"),
        (["--folds=0", "--mode=report"], "leave --folds out, or report out"),
        (["--folds=0", "--mode=plan"], "of the whole study; leave --folds out"),
        (["--stages=grades"], "write --mode=train --stages=NAME"),
        (["--stages=", "--mode=train"], "write --mode=train --stages=NAME"),
        (["--stages=gradse", "--mode=train"], "no stage 'gradse'; did you mean 'grades'?"),
    ],
)
def test_parts_that_there_are_not(finished, main_here, tmp_path, capsys, flags, message):
    assert main_here(*study(tmp_path / "run", finished.data_dir), *flags) == 2
    assert message in complaint(capsys.readouterr().err)
    assert not list(tmp_path.iterdir())


def test_a_fold_that_is_refused_leaves_others_alone(finished, main_here, tmp_path, capsys):
    workdir = part_of(finished, tmp_path, "fold_1")
    before = {k: v for k, (v, _) in contents(workdir).items()}
    arguments = study(workdir, finished.data_dir, "--config.devices=3")
    assert main_here(*arguments, "--folds=1") == 2
    assert "which 3 devices do not divide" in complaint(capsys.readouterr().err)
    assert {k: v for k, (v, _) in contents(workdir).items()} == before
    assert not (workdir / "fold_1").exists()
