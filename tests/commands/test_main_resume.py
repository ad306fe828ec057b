"""A run that is stopped at any moment and started again ends with the same bits."""

import random
import shlex
import shutil
import signal
import time

import pytest
from commands.command_line import start, study

from mskjax import reading
from mskjax.writers import read_rows

pytestmark = pytest.mark.slow


def wait_for(process, pattern, folder, seconds=120):
    """Until a file that matches exists; the process must still live then."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if any(folder.glob(pattern)):
            assert process.poll() is None, "it ended before it could be stopped"
            return
        assert process.poll() is None, process.communicate()
        time.sleep(0.01)
    raise AssertionError(f"no {pattern} after {seconds} s")


def assert_same_results(workdir, finished):
    assert (workdir / "cases.csv").read_bytes() == (finished.workdir / "cases.csv").read_bytes()
    for curve in finished.workdir.glob("fold_*/*/metrics.jsonl"):
        assert read_rows(workdir / curve.relative_to(finished.workdir)) == read_rows(curve)


@pytest.mark.long
@pytest.mark.parametrize("stage", ["regions", "grades"])
def test_sigterm_saves_and_exits_75_and_the_same_command_goes_on(
    finished, main_here, tmp_path, stage
):
    arguments = study(tmp_path, finished.data_dir)
    process = start("mskjax.main", *arguments)
    # Steps of the second stage are few: it is stopped while it compiles, before its first.
    begun = {"regions": "regions/checkpoints/latest/10", "grades": "grades/checkpoints"}[stage]
    wait_for(process, f"fold_0/{begun}", tmp_path)
    process.send_signal(signal.SIGTERM)
    out, said = process.communicate(timeout=120)
    assert process.returncode == 75, said
    if "saved at step" in said:
        assert out.splitlines()[-1] == f"next: python -m mskjax.main {shlex.join(arguments)}"
    # A compilation may outlast its grace; what was saved before is there.
    assert f"fold_0 {stage}: saved at step" in said or (stage == "grades" and "at once" in said)
    assert "run the same command to go on" in said
    assert "Traceback" not in said
    assert not (tmp_path / "cases.csv").exists()
    assert main_here(*arguments) == 0
    assert_same_results(tmp_path, finished)


def test_a_stop_in_evaluation_keeps_the_studies_that_were_read(
    finished, main_here, tmp_path, monkeypatch
):
    workdir = shutil.copytree(finished.workdir, tmp_path / "run")
    for name in ("cases.csv", "fold_0/cases.csv", "report/report.html"):
        (workdir / name).unlink()
    monkeypatch.setattr(reading, "STUDIES_AT_ONCE", 1)
    read, rows_of_fold = [], reading.rows_of_fold

    def watched(fold, some, seen):
        read.extend(one["study_id"] for one in some)
        if len(read) == 2:
            signal.raise_signal(signal.SIGTERM)
        return rows_of_fold(fold, some, seen)

    monkeypatch.setattr(reading, "rows_of_fold", watched)
    arguments = study(workdir, finished.data_dir)
    assert main_here(*arguments) == 75
    assert (workdir / "fold_0" / "cases.part.jsonl").exists()
    assert main_here(*arguments) == 0
    assert read[1:] == [read[1], read[1], *read[3:]]  # the second again, the first not
    assert len(read) == 4
    assert not (workdir / "fold_0" / "cases.part.jsonl").exists()
    assert_same_results(workdir, finished)


@pytest.mark.long
def test_sigkill_at_a_random_moment(finished, main_here, tmp_path):
    arguments = study(tmp_path, finished.data_dir)
    process = start("mskjax.main", *arguments)
    wait_for(process, "fold_0/regions/checkpoints/latest", tmp_path)
    later = random.uniform(0, 6)
    time.sleep(later)
    process.kill()
    process.communicate()
    print(f"killed {later:.2f} s after training began, exit code {process.returncode}")
    assert main_here(*arguments) == 0
    assert_same_results(tmp_path, finished)


@pytest.mark.long
def test_a_kill_between_the_last_save_and_the_record_of_costs(finished, main_here, tmp_path):
    arguments = study(tmp_path, finished.data_dir)
    assert main_here(*arguments, "--mode=train") == 0
    (tmp_path / "fold_1" / "grades" / "cost.json").unlink()
    assert main_here(*arguments) == 0
    assert_same_results(tmp_path, finished)
    assert (tmp_path / "fold_1" / "grades" / "cost.json").exists()
