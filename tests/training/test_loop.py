import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest
from training.toy import StopAt, stored_state, toy, toy_examples, train

from mskjax.errors import Preempted, UserError
from mskjax.evaluation import predict, validate
from mskjax.training.mesh import data_mesh
from mskjax.training.program import Program
from mskjax.writers import read_rows


def run(folder, devices=1, stop=None, **changes):
    program = Program(toy(**changes), data_mesh(devices))
    return program, train(program, folder, stop)


def leaves(tree):
    return [np.asarray(x) for x in jax.tree.leaves(tree)]


def assert_same_bits(a, b):
    for x, y in zip(leaves(a), leaves(b), strict=True):
        np.testing.assert_array_equal(x, y)


def test_learns_and_writes_what_it_promises(tmp_path):
    program, result = run(tmp_path, steps=60)
    scores = validate(program, result.variables, toy_examples(50, 2), ())
    assert scores["accuracy"] > 0.9
    rows = read_rows(tmp_path / "metrics.jsonl")
    assert rows[-1]["step"] == 60
    assert {"train_loss", "learning_rate"} <= set().union(*rows)
    assert "validation_loss" in set().union(*rows)
    assert json.loads((tmp_path / "cost.json").read_text())["steps"] == 60
    assert list(tmp_path.glob("events*"))


@pytest.mark.parametrize("at", [1, 4, 7, 11])
def test_resumes_to_the_same_bits_after_preemption(tmp_path, at):
    whole = run(tmp_path / "whole")[1]
    with pytest.raises(Preempted, match=f"step {at} of 12"):
        run(tmp_path / "parts", stop=StopAt(at))
    parts = run(tmp_path / "parts")[1]
    assert_same_bits(stored_state(tmp_path / "whole"), stored_state(tmp_path / "parts"))
    assert_same_bits(whole.variables, parts.variables)
    assert read_rows(tmp_path / "whole/metrics.jsonl") == read_rows(
        tmp_path / "parts/metrics.jsonl"
    )


KILLED = """
import os, sys
sys.path.insert(0, {tests!r})
import conftest
from pathlib import Path
from mskjax.training import loop
from training.test_loop import run
class Slow(loop.Progress):
    def advance(self, note=""):
        super().advance(note)
        print("step", flush=True)
loop.Progress = Slow
run(Path(sys.argv[1]), steps=40)
"""


@pytest.mark.slow
def test_resumes_to_the_same_bits_after_sigkill_at_a_random_step(tmp_path):
    script = KILLED.format(tests=str(Path(__file__).parents[1]))
    steps = int(np.random.default_rng(os.getpid()).integers(3, 30))
    command = [sys.executable, "-c", script, str(tmp_path / "killed")]
    seen = 0
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        for line in process.stdout:
            seen += line.startswith("step")
            if seen >= steps:
                process.send_signal(signal.SIGKILL)
                break
    assert process.returncode == -signal.SIGKILL
    killed = run(tmp_path / "killed", steps=40)[1]
    whole = run(tmp_path / "whole", steps=40)[1]
    assert_same_bits(stored_state(tmp_path / "whole"), stored_state(tmp_path / "killed"))
    assert_same_bits(whole.variables, killed.variables)


def test_finished_training_is_not_trained_again(tmp_path):
    first = run(tmp_path)[1]
    before = (tmp_path / "metrics.jsonl").stat().st_mtime_ns
    time.sleep(0.01)
    again = run(tmp_path)[1]
    assert_same_bits(first.variables, again.variables)
    assert (tmp_path / "metrics.jsonl").stat().st_mtime_ns == before


@pytest.mark.parametrize("devices", [2, 8])
def test_devices_agree(tmp_path, devices):
    program, one = run(tmp_path / "one")
    other_program, other = run(tmp_path / "other", devices=devices)
    for x, y in zip(leaves(one.variables), leaves(other.variables), strict=True):
        np.testing.assert_allclose(x, y, atol=1e-5)
    held_out = toy_examples(13, 3)
    np.testing.assert_allclose(
        predict(program, one.variables, held_out)["probabilities"],
        predict(other_program, one.variables, held_out)["probabilities"],
        atol=1e-6,
    )


def test_a_checkpoint_of_eight_devices_goes_on_with_two(tmp_path):
    whole = run(tmp_path / "whole")[1]
    with pytest.raises(Preempted):
        run(tmp_path / "parts", devices=8, stop=StopAt(5))
    parts = run(tmp_path / "parts", devices=2)[1]
    for x, y in zip(leaves(whole.variables), leaves(parts.variables), strict=True):
        np.testing.assert_allclose(x, y, atol=1e-5)


@pytest.mark.parametrize("n", [1, 7, 8, 9, 40])
def test_every_example_counts_once(tmp_path, n):
    program, result = run(tmp_path)
    examples = toy_examples(n, 5)
    out = predict(program, result.variables, examples)["probabilities"]
    assert out.shape == (n, 2)
    expected = np.mean(out.argmax(1) == examples["label"])
    found = validate(program, result.variables, examples, ())
    np.testing.assert_allclose(found["accuracy"], expected, rtol=1e-6)
    nll = -np.log(out[np.arange(n), examples["label"]])
    np.testing.assert_allclose(found["loss"], nll.mean(), rtol=1e-5)


def test_a_step_that_is_not_finite_is_named_and_not_saved(tmp_path):
    program = Program(toy(break_at=1), data_mesh(1))
    with pytest.raises(UserError, match="not finite at step 0"):
        train(program, tmp_path, validation=None)
    assert not list((tmp_path / "checkpoints" / "latest").glob("[0-9]*"))


def test_batch_that_devices_do_not_divide(tmp_path):
    with pytest.raises(UserError, match="train.batch_size is 9, which 8 devices do not divide"):
        run(tmp_path, devices=8, batch_size=9)


def test_best_weights_are_those_of_the_lowest_validation_loss(tmp_path):
    _, result = run(tmp_path, steps=40, learning_rate=3.0)
    rows = [r for r in read_rows(tmp_path / "metrics.jsonl") if "validation_loss" in r]
    best = min(rows, key=lambda r: r["validation_loss"])
    assert result.step == best["step"]
