"""The workdir as users meet it: typed twice at once, killed, refused and corrected."""

import json
import signal
import socket
import time

import pytest
from commands.command_line import complaint, own_cohort, real_study, start, study

from mskjax import study as journey

pytestmark = pytest.mark.slow


BRIEF = {f"stages__{stage}__train__warmup_steps": 1 for stage in ("regions", "grades")}


def wait_until(condition, seconds=120):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"not after {seconds} s"
        time.sleep(0.01)


@pytest.mark.long
def test_the_same_command_typed_twice_at_once_on_a_new_workdir(finished, tmp_path):
    workdir = tmp_path / "runs" / "first"
    both = [start("mskjax.main", *study(workdir, finished.data_dir)) for _ in range(2)]
    try:
        wait_until(lambda: any(process.poll() is not None for process in both))
        (second,) = (process for process in both if process.poll() is not None)
        (first,) = (process for process in both if process is not second)
        said = complaint(second.communicate()[1])
        assert second.returncode == 2
        assert f"{workdir} is in use by process {first.pid} on {socket.gethostname()}" in said
        # The first goes on, undisturbed, until it is asked to stop.
        wait_until(lambda: any(workdir.glob("fold_0/regions/checkpoints/latest/10")))
        assert json.loads((workdir / ".lock").read_text())["pid"] == first.pid
        first.send_signal(signal.SIGTERM)
        _, said = first.communicate(timeout=120)
        assert first.returncode == 75, said
        assert "Traceback" not in said
        assert not (workdir / ".lock").exists()
    finally:
        for process in both:
            process.kill()
            process.communicate()


def test_a_killed_process_holds_nobody_up(finished, main_here, tmp_path, capsys):
    arguments = study(tmp_path, finished.data_dir)
    process = start("mskjax.main", *arguments)
    wait_until(lambda: (tmp_path / ".lock").exists() and (tmp_path / ".lock").read_text())
    process.kill()
    process.communicate()
    assert main_here(*arguments, "--mode=evaluate") == 2
    said = capsys.readouterr()
    assert f"taken over from process {process.pid} on {socket.gethostname()}" in said.out
    assert "is not trained; run with --mode=train first" in complaint(said.err)
    assert not (tmp_path / ".lock").exists()


def test_the_lock_of_another_machine_is_named_with_its_age(finished, main_here, tmp_path, capsys):
    held = {"host": "node17", "pid": 4711, "started": time.time() - 3 * 3600}
    (tmp_path / ".lock").write_text(json.dumps(held))
    assert main_here(*study(tmp_path, finished.data_dir)) == 2
    said = complaint(capsys.readouterr().err)
    assert "process 4711 on node17" in said
    assert "3 h 0 min ago" in said
    assert f"delete {tmp_path / '.lock'}" in said
    assert [p.name for p in tmp_path.iterdir()] == [".lock"]


def test_refused_commands_leave_no_trace_and_the_corrected_one_works(
    main_here, tmp_path, capsys, monkeypatch
):
    workdir, data, raw = tmp_path / "runs" / "mine", tmp_path / "data", tmp_path / "raw"
    own_cohort(raw, "abcdef")

    def attempt(folder, **changes):
        arguments = real_study("cohort", workdir, data, folder, **BRIEF, **changes)
        return main_here(*arguments, "--mode=train")

    # Before anything is packaged, ...
    assert attempt(tmp_path / "none") == 2
    assert "is not a folder" in complaint(capsys.readouterr().err)
    assert not (tmp_path / "runs").exists()
    # ... when the cohort does not allow what the config asks, ...
    assert attempt(raw, data__folds=7) == 2
    assert "7 folds need 7 patients" in complaint(capsys.readouterr().err)
    assert not (tmp_path / "runs").exists()
    # ... and where the folders are there and files are written.
    assert attempt(raw, devices=3) == 2
    assert "which 3 devices do not divide" in complaint(capsys.readouterr().err)
    assert not (tmp_path / "runs").exists()
    monkeypatch.setattr(journey, "_run_folds", lambda *_: [])  # they work: other tests train
    assert attempt(raw) == 0
    config = json.loads((workdir / "config.json").read_text())
    assert (config["data"]["folds"], config["devices"]) == (2, 1)
    # Nothing is trained there yet: another config takes its place, and so does its division.
    assert attempt(raw, data__folds=3) == 0
    assert json.loads((workdir / "config.json").read_text())["data"]["folds"] == 3
    assert len(json.loads((workdir / "splits.json").read_text())["folds"]) == 3


@pytest.mark.long
def test_training_that_diverges_before_it_was_saved_leaves_no_trace(
    finished, main_here, tmp_path, capsys
):
    rate = {
        "stages__regions__train__learning_rate": 1e30,
        "stages__regions__train__clip_norm": 1e30,
    }
    assert main_here(*study(tmp_path / "run", finished.data_dir, **rate)) == 2
    assert "was not finite at step" in complaint(capsys.readouterr().err)
    assert not list(tmp_path.iterdir())


def test_a_stage_without_training_examples_is_refused_before_anything_is_trained(
    main_here, tmp_path, capsys, monkeypatch
):
    raw = tmp_path / "raw"
    own_cohort(raw, "abcd")
    table = (raw / "discs.csv").read_text().splitlines()
    kept = [table[0], *(row for row in table if row.startswith(("a,", "b,")))]
    (raw / "discs.csv").write_text("\n".join(kept) + "\n")
    divided = {"folds": [{"train": ["pa", "pb"], "test": ["pc"]}]}
    divided["folds"].append({"train": ["pc", "pd"], "test": ["pa"]})  # none of them is graded
    splits = tmp_path / "mine.json"
    splits.write_text(json.dumps(divided))
    monkeypatch.setattr("mskjax.fold_training.fit", lambda *_: pytest.fail("training began"))
    changes = BRIEF | {"data__splits": splits}
    arguments = real_study("cohort", tmp_path / "run", tmp_path / "data", raw, **changes)
    assert main_here(*arguments) == 2
    said = complaint(capsys.readouterr().err)
    assert "fold_1 grades: no training example among 2 patients" in said
    assert not (tmp_path / "run").exists()


def test_a_refusal_keeps_the_files_of_the_user(finished, main_here, tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    assert main_here(*study(tmp_path, finished.data_dir, "--config.devices=3")) == 2
    assert [p.name for p in tmp_path.iterdir()] == ["notes.txt"]


def test_a_finished_run_needs_no_lock_to_say_so(finished, main_here, capsys, monkeypatch):
    # It may lie where nobody can write any more.
    monkeypatch.setattr(journey.workdirs, "owned", lambda *_: pytest.fail("the lock was taken"))
    assert main_here(*study(finished.workdir, finished.data_dir)) == 0
    assert capsys.readouterr().out.startswith("finished: ")
