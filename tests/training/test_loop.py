import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import optax
import pytest
from training.toy import StopAt, one_step, stored_state, toy, toy_examples, train

from mskjax.data.pipeline import batch_numbers, evaluation_batches, take
from mskjax.errors import Diverged, Preempted, UserError
from mskjax.evaluation import predict, validate
from mskjax.training.checkpoints import Checkpoints
from mskjax.training.mesh import data_mesh, put_batch, put_replicated
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


@pytest.mark.long
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


def more(folder, steps, **changes):
    """The training of a folder with more steps, as `going_on` lets it go on."""
    for name in ("architecture.json", "cost.json"):
        (folder / name).unlink()
    return run(folder, steps=steps, **changes)


def test_more_steps_go_on_from_the_last_state_at_the_rate_of_the_new_total(tmp_path):
    program, _ = run(tmp_path)
    one = next(evaluation_batches(toy_examples(), 8))
    like = program.init(put_batch(one, program.mesh), jax.random.key(0))
    with contextlib.closing(Checkpoints(tmp_path / "checkpoints")) as checkpoints:
        state, _ = checkpoints.restore("latest", like)
    assert int(state.step) == 12
    program, _ = more(tmp_path, 20)
    # The same by hand: the steps from 12 on, each with what a run of 20 steps has there.
    key, numbers = jax.random.key(7), batch_numbers(np.arange(40), 8, 7)
    for step in range(12, 20):
        rows = {"index": numbers[step].astype(np.int32), **take(toy_examples(), numbers[step])}
        state, _ = one_step(program, state, rows, (), put_replicated(key, program.mesh))
    (ours,) = (tmp_path / "checkpoints" / "latest").glob("[0-9]*")
    assert ours.name == "20"
    with contextlib.closing(Checkpoints(tmp_path / "checkpoints")) as checkpoints:
        found, _ = checkpoints.restore("latest", state)
    for x, y in zip(leaves(found), leaves(state), strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-6)
    schedule = optax.warmup_cosine_decay_schedule(0.0, 0.05, 6, 20)
    rates = {r["step"]: r["learning_rate"] for r in read_rows(tmp_path / "metrics.jsonl")
             if "learning_rate" in r}  # fmt: skip
    assert list(rates) == [2, 4, 6, 8, 10, 12, 14, 16, 18, 20]
    for step in (14, 16, 18, 20):
        assert rates[step] == pytest.approx(float(schedule(step - 1)), rel=1e-5)
    assert rates[14] > rates[12], "it did not rise again"
    assert json.loads((tmp_path / "cost.json").read_text())["steps"] == 20


def test_more_steps_select_among_all_that_were_validated(tmp_path):
    # A rate at which the first steps are the best ones.
    run(tmp_path, steps=8, learning_rate=5.0)
    before = read_rows(tmp_path / "metrics.jsonl")
    _, result = more(tmp_path, 16, learning_rate=5.0)
    rows = read_rows(tmp_path / "metrics.jsonl")
    assert rows[: len(before)] == before
    losses = {r["step"]: r["validation_loss"] for r in rows if "validation_loss" in r}
    assert list(losses) == [4, 8, 12, 16]
    assert result.step == min(losses, key=losses.get)
    again = run(tmp_path, steps=16, learning_rate=5.0)[1]
    assert_same_bits(again.variables, result.variables)


def test_a_training_that_fails_says_so_in_its_folder_until_it_goes_on(tmp_path):
    with pytest.raises(Diverged):
        run(tmp_path, break_at=1)
    failed = json.loads((tmp_path / "failed.json").read_text())
    assert "was not finite at step" in failed["why"]
    run(tmp_path)
    assert not (tmp_path / "failed.json").exists()
