"""What is on disk: the selected weights, and no state of it from which a run goes wrong."""

import contextlib
import dataclasses
import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import flax.linen as nn
import jax
import numpy as np
import pytest
from training.toy import StopAt, Toy, one_step, stored_state, toy, toy_examples, train

from mskjax.errors import Preempted, UserError
from mskjax.training.checkpoints import Checkpoints, is_trained, restore_variables
from mskjax.training.mesh import data_mesh, put_batch, replicated
from mskjax.training.program import Program

# Validation loss is lowest at step 8 of 16, where both checkpoints are saved.
BEST_IN_THE_MIDDLE = {
    "steps": 16,
    "learning_rate": 4.0,
    "warmup_steps": 0,
    "ema_decay": 0.0,
    "validate_every": 8,
    "checkpoint_every": 4,
}


def run(folder, stop=None, **changes):
    program = Program(toy(**(BEST_IN_THE_MIDDLE | changes)), data_mesh(1))
    return train(program, folder, stop)


def leaves(tree):
    return [np.asarray(x) for x in jax.tree.leaves(tree)]


def assert_same_bits(a, b):
    for x, y in zip(leaves(a), leaves(b), strict=True):
        np.testing.assert_array_equal(x, y)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A training that nothing disturbs."""
    folder = tmp_path_factory.mktemp("whole")
    return folder, run(folder)


def test_weights_come_back_without_network_or_batch(whole, monkeypatch):
    folder, result = whole
    assert result.step == 8
    monkeypatch.setattr(Program, "init", None)  # nothing may need it
    variables = restore_variables(folder)
    assert all(type(x) is np.ndarray for x in jax.tree.leaves(variables))
    assert jax.tree.structure(variables) == jax.tree.structure(result.variables)
    assert_same_bits(variables, result.variables)
    assert_same_bits(variables, stored_state(folder, "best")["average"])
    everywhere = replicated(data_mesh(8))
    placed = restore_variables(folder, everywhere)
    assert {x.sharding for x in jax.tree.leaves(placed)} == {everywhere}
    assert_same_bits(placed, variables)


def test_the_latest_weights_come_back_where_the_recipe_selects_them(tmp_path):
    result = run(tmp_path, select="latest")
    assert result.step == 16
    assert_same_bits(restore_variables(tmp_path), stored_state(tmp_path)["average"])
    assert not list((tmp_path / "checkpoints" / "best").iterdir())  # nobody would read it


def test_what_is_not_finished_has_no_weights(tmp_path):
    with pytest.raises(Preempted):
        run(tmp_path, StopAt(9))
    assert not is_trained(tmp_path)
    with pytest.raises(UserError, match="architecture.json is missing: the stage is not trained"):
        restore_variables(tmp_path)


def test_a_finished_stage_whose_checkpoints_are_gone_is_not_trained_again_unasked(whole, tmp_path):
    folder = shutil.copytree(whole[0], tmp_path / "copy")
    shutil.rmtree(folder / "checkpoints")
    with pytest.raises(UserError, match=f"no checkpoint of step 8; remove {folder} to train"):
        run(folder)
    assert not (folder / "checkpoints").exists()


def test_the_record_says_what_the_recipe_came_to(whole):
    found = json.loads((whole[0] / "architecture.json").read_text())
    assert found["selected_step"] == 8
    assert found["parameters"] == 6 * 2 + 2 + 2 * 6
    assert found["initialisation"] == ["random"]
    assert found["effective"] == {
        "peak_learning_rate": 4.0,
        "peak_step": 0,
        "last_ema_decay": 0.0,
    }


@pytest.mark.parametrize("devices", [1, 2])
def test_what_is_saved_is_the_state_of_that_step_though_steps_go_on(tmp_path, devices):
    """The steps after a save write into the memory of the state that is being saved."""
    program = Program(toy(steps=1000), data_mesh(devices))
    batch = put_batch({**toy_examples(8), "index": np.arange(8, dtype=np.int32)}, program.mesh)
    key = jax.random.key(0)
    state = program.init(batch, key)
    checkpoints = Checkpoints(tmp_path / "checkpoints")
    for number in range(3):
        state, _ = one_step(program, state, batch, (), key)
        expected = jax.tree.map(np.array, state)
        checkpoints.save("latest", state, {"number": number})
        for _ in range(50):
            state, _ = one_step(program, state, batch, (), key)
        checkpoints.wait()
        restored, record = checkpoints.restore("latest", state)
        assert record == {"number": number}
        assert_same_bits(restored, expected)
        assert int(state.step) == int(expected.step) + 50
    checkpoints.close()


def test_a_run_whose_best_step_was_lost_in_a_kill_selects_the_same_weights(whole, tmp_path):
    with pytest.raises(Preempted, match="step 8"):
        run(tmp_path, StopAt(8))
    best = tmp_path / "checkpoints" / "best"
    (best / "8").rename(best / "8.orbax-checkpoint-tmp")
    result = run(tmp_path)
    assert result.step == 8
    assert_same_bits(result.variables, whole[1].variables)
    assert_same_bits(stored_state(tmp_path), stored_state(whole[0]))
    assert [p.name for p in best.iterdir()] == ["8"]  # what the kill left is gone


def test_a_run_whose_best_step_is_gone_for_good_is_refused(tmp_path):
    with pytest.raises(Preempted, match="step 10"):
        run(tmp_path, StopAt(10))
    shutil.rmtree(tmp_path / "checkpoints" / "best" / "8")
    with pytest.raises(
        UserError, match="best does not hold the weights of the lowest validation loss"
    ):
        run(tmp_path)


KILLED = """
import sys, time
sys.path.insert(0, {tests!r})
import conftest
from pathlib import Path
import orbax.checkpoint._src.path.atomicity as atomicity
from training.test_checkpoints import run
rename = atomicity.AtomicRenameTemporaryPath.finalize
async def never(self, *args, **kwargs):
    if "/best/8" in str(self.get_final()):
        print("weak", flush=True)
        time.sleep(60)
    return await rename(self, *args, **kwargs)
atomicity.AtomicRenameTemporaryPath.finalize = never
run(Path(sys.argv[1]))
"""


@pytest.mark.slow
def test_a_kill_before_the_best_step_is_on_disk_selects_the_same_weights(whole, tmp_path):
    script = KILLED.format(tests=str(Path(__file__).parents[1]))
    command = [sys.executable, "-c", script, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert any(line.startswith("weak") for line in process.stdout)
        time.sleep(1.5)  # the latest state of that step would be on disk by now
        process.send_signal(signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL
    kinds = {k: tmp_path / "checkpoints" / k for k in ("best", "latest")}
    assert not (kinds["best"] / "8").exists()
    assert [p.name for p in kinds["latest"].iterdir()] == ["4"]
    result = run(tmp_path)
    assert result.step == 8
    assert_same_bits(result.variables, whole[1].variables)


class Wider(nn.Module):
    @nn.compact
    def __call__(self, image, train):
        x = nn.BatchNorm(use_running_average=not train, momentum=0.9)(image)
        return nn.Dense(3)(x)


class Unnormed(nn.Module):
    @nn.compact
    def __call__(self, image, train):
        return nn.Dense(2, name="Dense_0")(image)


@pytest.mark.parametrize(
    ("network", "message"),
    [
        (Wider, r"Dense_0.bias is \(2,\) there and \(3,\) here; remove"),
        (Unnormed, r"BatchNorm_0.mean is \(6,\) there and missing here; remove"),
    ],
)
def test_a_checkpoint_of_another_network_is_refused_in_a_sentence(tmp_path, network, message):
    @dataclasses.dataclass(frozen=True)
    class Other(Toy):
        def model(self):
            return network()

    with pytest.raises(Preempted):
        train(Program(toy(), data_mesh(1)), tmp_path, StopAt(5))
    other = Other("toy", toy().options)
    with pytest.raises(UserError, match=message):
        train(Program(other, data_mesh(1)), tmp_path)


def test_a_save_that_fails_in_the_background_is_told_by_what_waits_alone(tmp_path, capfd, caplog):
    """Orbax prints a traceback as well, over the sentence that the command ends with."""
    program = Program(toy(), data_mesh(1))
    batch = put_batch({**toy_examples(8), "index": np.arange(8, dtype=np.int32)}, program.mesh)
    state = program.init(batch, jax.random.key(0))
    with (
        contextlib.closing(Checkpoints(tmp_path)) as checkpoints,
        pytest.MonkeyPatch.context() as patch,
    ):
        patch.setattr(os, "rename", no_rename)
        checkpoints.save("latest", state, {})
        with pytest.raises(OSError, match="injected"):
            checkpoints.wait()
    assert "Traceback" not in "".join(capfd.readouterr()) + caplog.text


def no_rename(*names, **options):
    raise OSError(errno.EIO, "injected")
