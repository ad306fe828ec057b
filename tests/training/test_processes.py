"""Real processes on the loopback: the bits of one process, and all end as one of them ends."""

import contextlib
import shutil
import signal

import jax
import numpy as np
import pytest
from training.cluster import KILLED, LIMIT_S, Processes, meeting, workers
from training.toy import stored_state, toy, toy_examples, train

from mskjax.training import processes
from mskjax.training.checkpoints import Checkpoints
from mskjax.training.mesh import data_mesh, put_batch
from mskjax.training.program import Program
from mskjax.writers import read_rows

RECIPE = {"steps": 60, "validate_every": 20, "checkpoint_every": 10, "log_every": 5}
pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]


def assert_same_run(a, b):
    for kind in ("latest", "best"):
        ours, theirs = (jax.tree.leaves(stored_state(f, kind)) for f in (a, b))
        for x, y in zip(ours, theirs, strict=True):
            np.testing.assert_array_equal(x, y)
    assert read_rows(a / "metrics.jsonl") == read_rows(b / "metrics.jsonl")


def run(folder, count=2, devices=2, **what):
    with Processes(workers(folder, RECIPE, count, **what), devices) as started:
        codes, said = started.ended()
    assert codes == [0] * count, said
    return folder


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Two processes of two devices that nothing disturbs."""
    return run(tmp_path_factory.mktemp("whole"))


@pytest.mark.long
def test_two_processes_of_two_devices_train_to_the_bits_of_one_of_four(whole, tmp_path):
    assert_same_run(run(tmp_path, count=1, devices=4), whole)
    assert '"4 x cpu in 2 processes"' in (whole / "cost.json").read_text()


def test_their_checkpoint_is_restored_on_one_device_and_goes_on_there(whole, tmp_path):
    folder = shutil.copytree(whole, tmp_path / "copy")
    (folder / "cost.json").unlink()  # it is not trained to its end then
    program = Program(toy(**RECIPE | {"steps": 70}), data_mesh(1))
    batch = put_batch({**toy_examples(8), "index": np.arange(8, dtype=np.int32)}, program.mesh)
    with contextlib.closing(Checkpoints(folder / "checkpoints")) as checkpoints:
        state, _ = checkpoints.restore("latest", program.init(batch, jax.random.key(0)))
    assert {len(x.devices()) for x in jax.tree.leaves(state)} == {1}
    assert int(state.step) == 60
    stored = stored_state(whole)
    jax.tree.map(np.testing.assert_array_equal, state.variables, stored["variables"])
    jax.tree.map(np.testing.assert_array_equal, state.average, stored["average"])
    train(program, folder)
    rows = [r for r in read_rows(folder / "metrics.jsonl") if "train_loss" in r]
    assert [r["step"] for r in rows] == list(range(5, 71, 5))
    assert rows[:12] == [r for r in read_rows(whole / "metrics.jsonl") if "train_loss" in r]


@pytest.mark.long
@pytest.mark.parametrize("heard", [0, 1])
def test_a_signal_to_one_saves_all_at_one_step(whole, tmp_path, heard):
    with Processes(workers(tmp_path, RECIPE, pause=0.1), 2) as started:
        started.wait_for((tmp_path / "checkpoints" / "latest" / "10").exists)
        started.signal(heard, signal.SIGTERM)
        codes, said = started.ended(20)
    assert codes == [75, 75], said
    assert all("toy: saved at step" in text for text in said), said
    assert not any("Traceback" in text for text in said), said
    assert_same_run(run(tmp_path), whole)


@pytest.mark.long
@pytest.mark.parametrize("killed", [0, 1])
def test_a_kill_of_one_ends_the_other_and_all_go_on(whole, tmp_path, killed):
    with Processes(workers(tmp_path, RECIPE, pause=0.1), 2) as started:
        started.wait_for((tmp_path / "checkpoints" / "latest" / "10").exists)
        started.signal(killed, signal.SIGKILL)
        codes, said = started.ended()
    assert codes[killed] == KILLED
    assert codes[1 - killed] == 75, said
    assert f"process {killed} of 2 on" in said[1 - killed]
    assert "has vanished; run the same command" in said[1 - killed]
    assert "Traceback" not in said[1 - killed]
    assert_same_run(run(tmp_path), whole)


WAITS = "processes.sync('there')"
# A library that returns to the interpreter once it is done; much longer than any test.
COMPUTES = "hashlib.pbkdf2_hmac('sha256', b'', b'', 2**31 - 1)"


@pytest.mark.parametrize(("ours", "other"), [(WAITS, 1), (COMPUTES, 0)])
def test_an_exception_in_one_ends_all_with_its_sentence(ours, other):
    with Processes(meeting("raise ValueError('injected')", ours, other), 1) as started:
        codes, said = started.ended(LIMIT_S)
    assert codes == [1, 1], said
    assert said[1 - other].strip() == f"ValueError: injected (process {other} of 2)"
    assert "Traceback" in said[other]


def test_wrong_input_of_one_ends_all():
    with Processes(meeting("raise UserError('no such file.')", WAITS), 1) as started:
        codes, said = started.ended()
    assert codes == [2, 2], said
    assert said == ["error: no such file. (process 1 of 2)\n", "error: no such file.\n"]


def test_a_signal_to_one_that_does_not_train_ends_all():
    with Processes(meeting("time.sleep(60)", WAITS), 1) as started:
        started.wait_until_in()
        started.signal(1, signal.SIGTERM)
        codes, said = started.ended(20)
    assert codes == [75, 75], said
    assert all("pre-empted: stopped; run the same command" in text for text in said), said


@pytest.mark.long
@pytest.mark.parametrize("killed", [0, 1])
def test_who_vanishes_ends_the_other(killed):
    settings = "processes.LOST_S = 4.0"
    with Processes(meeting(WAITS, "time.sleep(60)", killed, settings), 1) as started:
        started.wait_until_in()
        started.signal(killed, signal.SIGKILL)
        codes, said = started.ended(30)
    assert codes[killed] == KILLED
    assert codes[1 - killed] == 75, said
    assert f"process {killed} of 2 on" in said[1 - killed]
    assert "has vanished; run the same command" in said[1 - killed]


def test_processes_at_different_places_are_a_defect():
    with Processes(meeting("processes.sync('here')", WAITS), 1) as started:
        codes, said = started.ended()
    assert codes == [1, 1], said
    assert all("processes are at different places" in text for text in said)


def test_what_is_said_is_heard_in_order_and_a_flag_of_one_is_true_for_all():
    asks = "print(processes.gather('number', roles.index()), processes.agree(roles.index() == 1))"
    with Processes(meeting(asks, asks), 1) as started:
        codes, said = started.ended()
    assert codes == [0, 0], said
    assert started.out == ["in\n[0, 1] True\n"] * 2


def test_processes_of_different_configs_are_refused_with_the_field():
    with Processes(meeting(resamples=(50, 20)), 1) as started:
        codes, said = started.ended()
    assert codes == [2, 2], said
    for text in said:
        assert "process 1 on" in text
        assert "resamples is 20 there and 50 here" in text
        assert "Traceback" not in text


def test_a_process_that_does_not_come_is_named():
    settings = "processes.start.__defaults__ = (2.0,)"
    with Processes(meeting(settings=settings), 1, MSKJAX_PROCESSES="3") as started:
        codes, said = started.ended()
    assert codes == [2, 2], said
    assert "1 of 3 processes did not come to 127.0.0.1" in said[0]
    assert "within 2.0 s: number 2" in said[0]


def test_alone_nothing_is_asked():
    assert processes.gather("place", 3) == [3]
    assert processes.agree(True)
    assert not processes.agree(False)

    class Heard:
        def is_set(self):
            return True

    assert processes.Together(Heard()).is_set()
    with pytest.raises(KeyError), processes.ending(lambda error: (1, "")):
        raise KeyError
