"""``mskjax.status``: of finished, running, killed, damaged and old runs, without touching them."""

import json
import os
import shutil
import socket
import subprocess
import sys
import time

import pytest
from commands.command_line import ROOT, complaint, contents, run

from mskjax import locks, watch
from mskjax.status import BLOCKS, PLAIN, can_print, lines, main, sparkline

pytestmark = pytest.mark.slow


@pytest.fixture
def half(finished, tmp_path):
    """A run whose first fold is evaluated to a part and whose second is at its tenth step."""
    workdir = shutil.copytree(finished.workdir, tmp_path / "run")
    for name in ("cases.csv", "report", "fold_0/cases.csv", "fold_1/grades", "fold_1/cases.csv"):
        path = workdir / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    first = (workdir / "splits.json").read_text()
    first = json.loads(first)["folds"][0]["test"][0]
    index = json.loads((workdir / "cohort.json").read_text())["index"]
    study = next(s for patient, s in index if patient == first)
    (workdir / "fold_0" / "cases.part.jsonl").write_text(json.dumps([{"study": study}]) + '\n[{"st')
    regions = workdir / "fold_1" / "regions"
    for name in ("architecture.json", "cost.json"):
        (regions / name).unlink()
    os.rename(regions / "checkpoints" / "latest" / "60", regions / "checkpoints" / "latest" / "10")
    record = regions / "checkpoints" / "latest" / "10" / "record" / "metadata"
    record.write_text(json.dumps({"wall_s": 20.0}))
    rows = (regions / "metrics.jsonl").read_text().splitlines()
    rows = [row for row in rows if json.loads(row)["step"] <= 15]
    (regions / "metrics.jsonl").write_text("\n".join(rows) + '\n{"step": 20, "train_l')
    return workdir


def said(capsys, folder, *flags):
    assert main([str(folder), *flags]) == 0
    return capsys.readouterr().out


def hold(folder, name="", **changes):
    holder = {"host": socket.gethostname(), "pid": os.getpid(), "started": time.time()}
    locks.file_of(folder, name).write_text(json.dumps(holder | changes))


def test_a_finished_run(finished, capsys):
    before = contents(finished.workdir)
    text = said(capsys, finished.workdir)
    assert text.startswith(f"{finished.workdir}: disc_degeneration (phantom), finished\n")
    assert text.count("trained, step 60 of 60") == text.count("trained, step 6 of 6") == 2
    assert text.count("all read of 3 studies") == 2
    assert text.index("regions") < text.index("grades"), "not in the order of training"
    assert contents(finished.workdir) == before
    found = json.loads(said(capsys, finished.workdir, "--json"))
    cost = json.loads((finished.workdir / "fold_0" / "regions" / "cost.json").read_text())
    stage = found["folds"][0]["stages"][0]
    assert (stage["stage"], stage["state"]) == ("regions", "trained")
    assert stage["steps_per_s"] == cost["steps_per_s"]
    assert found["left_s"] == 0.0
    assert found["processes"] == []


def test_a_run_on_its_way(half, capsys):
    before = contents(half)
    found = json.loads(said(capsys, half, "--json"))
    first, second = found["folds"]
    assert first["evaluation"] == {"state": "begun", "read": 1, "of": 3}
    regions, grades = second["stages"]
    assert (regions["state"], regions["step"], regions["steps"]) == ("begun", 15, 60)
    assert regions["steps_per_s"] == 0.5  # ten steps in the 20 s of the record
    assert regions["left_s"] == pytest.approx(45 / 0.5)
    # The other stage has no rate yet: it takes that of the fold which has been through it.
    other = first["stages"][1]["steps_per_s"]
    assert grades["state"] == "waiting"
    assert grades["left_s"] == pytest.approx(6 / other)
    assert found["left_s"] == pytest.approx(90 + 6 / other)
    text = said(capsys, half)
    assert "nothing is at work here" in text
    assert "1 read of 3 studies" in text
    assert "begun, step 15 of 60" in text
    assert "about 1 min 30 s left" in text
    assert "time left: about 1 min" in text
    assert contents(half) == before


def test_who_is_at_work(half, capsys):
    hold(half, "fold_0")
    hold(half, "fold_1", host="node17", pid=4711)
    text = said(capsys, half)
    assert f"fold_0 at work: process {os.getpid()} on {socket.gethostname()}" in text
    assert "fold_1 taken by process 4711 on node17" in text
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    hold(half, pid=ended.pid)
    assert f"not at work: process {ended.pid}" in said(capsys, half)
    assert [p["state"] for p in watch.of(half)["processes"]] == ["ended", "running", "unknown"]
    assert sorted(p.name for p in half.glob(".lock*")) == [".lock", ".lock-fold_0", ".lock-fold_1"]


def test_a_training_that_failed(half, capsys):
    why = "fold_1 regions: loss or gradient was not finite at step 15"
    (half / "fold_1" / "regions" / "failed.json").write_text(json.dumps({"step": 15, "why": why}))
    text = said(capsys, half)
    assert f"failed, step 15 of 60, {why}" in text


def test_seeds_are_runs_of_their_own(half, tmp_path, capsys):
    whole = tmp_path / "whole"
    for seed in (0, 1):
        shutil.copytree(half, whole / f"seed_{seed}")
    for name in ("config.json", "splits.json"):
        shutil.copy(half / name, whole / name)
    found = watch.of(whole)
    assert found["folds"] == []
    assert [r["run"] for r in found["runs"]] == [str(whole / f"seed_{s}") for s in (0, 1)]
    assert found["left_s"] == pytest.approx(2 * watch.of(half)["left_s"])
    assert said(capsys, whole).count("begun, step 15 of 60") == 2


def test_trials_of_a_sweep(half, tmp_path, capsys):
    for number in ("0000", "0001"):
        shutil.copytree(half, tmp_path / "sweep" / "trials" / number)
    hold(tmp_path / "sweep" / "trials" / "0001")
    text = said(capsys, tmp_path / "sweep")
    assert "2 trials begun, 1 at work here" in text
    assert "trial 0001  2 of 4 stages trained, 0 folds validated, at work" in text


@pytest.mark.parametrize("name", ["config.json", "splits.json", "cohort.json", "history.json"])
@pytest.mark.parametrize("damage", ["", "{", "[1]", "null", '{"stages": 3}'])
def test_files_that_are_being_written_do_no_harm(half, capsys, name, damage):
    (half / name).write_text(damage)
    (half / "fold_0" / "system.json").write_text(damage)
    (half / "fold_1" / "regions" / "metrics.jsonl").write_text(
        '{"step": 3, "train_loss": NaN}\n[]\n'
    )
    if name == "config.json":
        hold(half)  # who writes it owns the folder
    text = said(capsys, half)
    assert "Traceback" not in text


def test_a_run_of_an_older_version(half, capsys):
    config = json.loads((half / "config.json").read_text())
    for name in ("population", "train_seed", "variant"):
        del config[name]
    for stage in config["stages"].values():
        del stage["train"]["select"]
    (half / "config.json").write_text(json.dumps(config))
    assert "begun, step 15 of 60" in said(capsys, half)


def test_a_folder_that_is_no_run(tmp_path, capsys):
    for folder, message in (
        (tmp_path / "none", "is not a folder; give the --workdir of a run"),
        (tmp_path, "holds no run: it has no config.json"),
    ):
        assert main([str(folder)]) == 2
        assert message in complaint(capsys.readouterr().err)
    hold(tmp_path)
    assert "not begun" in said(capsys, tmp_path)


def test_watching_ends_with_the_run_and_repeats_nothing(half, finished, capsys, monkeypatch):
    looks = []

    def sleep(seconds):
        looks.append(seconds)
        if len(looks) == 3:  # meanwhile the run has come to its end
            shutil.rmtree(half)
            shutil.copytree(finished.workdir, half)

    monkeypatch.setattr(time, "sleep", sleep)
    assert main([str(half), "--watch=0.5"]) == 0
    text = capsys.readouterr().out
    assert looks == [0.5] * 3
    assert text.count("step 15 of 60") == 1
    assert text.rstrip().endswith("nothing is left")
    assert "\x1b" not in text  # no terminal


def test_watching_ends_at_an_interrupt(half, capsys, monkeypatch):
    def interrupted(seconds):
        raise KeyboardInterrupt

    monkeypatch.setattr(time, "sleep", interrupted)
    assert main([str(half), "--watch"]) == 0
    assert "step 15 of 60" in capsys.readouterr().out


@pytest.mark.parametrize("flags", [["--watch=0"], ["--watch=-1"], ["--watch", "--json"]])
def test_what_cannot_be_watched(half, capsys, flags):
    assert main([str(half), *flags]) == 2
    assert "--watch takes a number of seconds above 0" in complaint(capsys.readouterr().err)


def test_it_starts_without_jax(finished):
    program = (
        "import sys; from mskjax import status; code = status.main(sys.argv[1:]);"
        " assert not {'jax', 'tensorboardX', 'orbax', 'torch'} & set(sys.modules); sys.exit(code)"
    )
    command = [sys.executable, "-c", program, str(finished.workdir)]
    ascii_only = {**os.environ, "PYTHONIOENCODING": "ascii"}
    process = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, check=False, env=ascii_only
    )
    assert process.returncode == 0, process.stderr
    assert "finished" in process.stdout.splitlines()[0]
    assert process.stdout.isascii()


def test_exit_codes_in_a_process_of_its_own(tmp_path):
    process = run("mskjax.status", str(tmp_path))
    assert process.returncode == 2
    assert f"{tmp_path} holds no run" in complaint(process.stderr)
    assert not list(tmp_path.iterdir())


def test_curves_as_text():
    falling = [(step, 8.0 - step) for step in range(8)]
    assert sparkline(falling) == "".join(reversed(BLOCKS))
    assert sparkline(falling, blocks=False) == "".join(reversed(PLAIN))
    assert sparkline([(0, 1.0), (1, 1.0)]) == BLOCKS[0] * 2
    assert sparkline([(0, 0.0), (1, 1.0), (100, 2.0)]) == f"{BLOCKS[0]} {BLOCKS[7]}"
    many = sparkline([(step, float(step)) for step in range(1000)])
    assert (len(many), many[0], many[-1]) == (32, BLOCKS[0], BLOCKS[7])
    assert can_print(BLOCKS, "utf-8")
    assert not can_print(BLOCKS, "latin-1")
    assert not can_print(BLOCKS, None)


def test_lines_have_no_block_where_they_cannot_be_printed(finished):
    assert all(line.isascii() for line in lines(watch.of(finished.workdir), blocks=False))
