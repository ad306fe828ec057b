"""A study in several processes: what a user starts, reads and finds in the workdir."""

import re
import signal

import pytest
from commands.command_line import command, complaint, study
from training.cluster import Processes

from mskjax.writers import read_rows

pytestmark = [pytest.mark.slow]


def in_processes(count, devices, arguments, own=()):
    """`count` processes of a study; `own` has more arguments of the last one."""
    each = [command("mskjax.main", *arguments) for _ in range(count)]
    each[-1] += own
    return Processes(each, devices)


def spoken(text):
    """What a process said, but for what a library prints of its connections."""
    # Two processes write at once, and the library its lines piece by piece: a line may be
    # torn between any two pieces, before its number or its end too.
    pieces = ("[Gloo]", " is connected to ", " peer ranks. Expected number of connected peer ranks")
    return [
        line
        for line in text.splitlines()
        if re.search("[^0-9 ]", line) and not any(piece in line for piece in pieces)
    ]


def test_processes_of_different_configs_are_refused_and_leave_no_trace(tmp_path, data_dir):
    arguments = study(tmp_path / "run", data_dir, devices=2)
    own = ["--config.stages.regions.train.steps=61"]
    with in_processes(2, 1, arguments, own) as started:
        codes, said = started.ended()
    assert codes == [2, 2], said
    for text in said:
        assert "config.stages.regions.train.steps is 61 there and 60 here" in complaint(text)
    assert not list(tmp_path.iterdir())


def test_devices_must_be_all_that_the_processes_have(tmp_path, data_dir):
    arguments = study(tmp_path / "run", data_dir, devices=1)
    with in_processes(2, 1, arguments) as started:
        codes, said = started.ended()
    assert codes == [2, 2], said
    assert all("config.devices is 1 and 2 processes have 1, 1 devices" in t for t in said), said
    assert not list(tmp_path.iterdir())


@pytest.mark.long
def test_a_workdir_that_not_all_see_is_refused(tmp_path, data_dir):
    arguments = study(tmp_path / "run", data_dir, devices=2)
    with in_processes(2, 1, arguments, [f"--workdir={tmp_path / 'other'}"]) as started:
        codes, said = started.ended()
    assert codes == [2, 2], said
    assert all("is not the folder that process 0 works in" in text for text in said), said
    assert not list(tmp_path.iterdir())


@pytest.mark.long
def test_a_study_in_two_processes_of_two_devices_has_the_bits_of_one_of_four(tmp_path):
    arguments = {n: study(tmp_path / f"run{n}", tmp_path / "data", devices=4) for n in (1, 2)}
    with in_processes(2, 2, arguments[2]) as started:
        # It is stopped on its way, by a signal to the second one alone.
        begun = tmp_path / "run2" / "fold_0" / "regions" / "checkpoints" / "latest" / "10"
        started.wait_for(begun.exists, 600)
        started.signal(1, signal.SIGTERM)
        codes, said = started.ended(30)
    assert codes == [75, 75], said
    with in_processes(2, 2, arguments[2]) as started:
        last = tmp_path / "run2" / "report" / "report.html"
        started.wait_for(last.exists, 1200)
        codes, said = started.ended()
        assert codes == [0, 0], said
        assert f"report: {last}" in spoken(started.out[0])
        assert spoken(started.out[0])[-1].startswith("next: python -m mskjax.report --runs")
        assert not spoken(started.out[1])
    with in_processes(1, 4, arguments[1]) as started:
        assert started.ended(1200)[0] == [0]
    ours, theirs = tmp_path / "run2", tmp_path / "run1"
    assert (ours / "cases.csv").read_bytes() == (theirs / "cases.csv").read_bytes()
    curves = list(theirs.glob("fold_*/*/metrics.jsonl"))
    assert len(curves) == 4
    for curve in curves:
        assert read_rows(ours / curve.relative_to(theirs)) == read_rows(curve)
    assert len(list(ours.glob("fold_0/regions/events*"))) == 2  # of the first process's two lives
