"""A run that is stopped at any moment and started again ends with the same bits."""

import random
import signal
import time

import pytest
from commands.command_line import start, study

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


@pytest.mark.parametrize("stage", ["regions", pytest.param("grades", marks=pytest.mark.long)])
def test_sigterm_saves_and_exits_75_and_the_same_command_goes_on(
    finished, main_here, tmp_path, stage
):
    arguments = study(tmp_path, finished.data_dir)
    process = start("mskjax.main", *arguments)
    # Steps of the second stage are few: it is stopped while it compiles, before its first.
    begun = {"regions": "regions/checkpoints/latest/10", "grades": "grades/checkpoints"}[stage]
    wait_for(process, f"fold_0/{begun}", tmp_path)
    process.send_signal(signal.SIGTERM)
    _, said = process.communicate(timeout=120)
    assert process.returncode == 75, said
    assert f"fold_0 {stage}: saved at step" in said
    assert "run the same command to go on" in said
    assert "Traceback" not in said
    assert not (tmp_path / "cases.csv").exists()
    assert main_here(*arguments) == 0
    assert_same_results(tmp_path, finished)


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


def test_a_kill_between_the_last_save_and_the_record_of_costs(finished, main_here, tmp_path):
    arguments = study(tmp_path, finished.data_dir)
    assert main_here(*arguments, "--mode=train") == 0
    (tmp_path / "fold_1" / "grades" / "cost.json").unlink()
    assert main_here(*arguments) == 0
    assert_same_results(tmp_path, finished)
    assert (tmp_path / "fold_1" / "grades" / "cost.json").exists()
