import json
import threading

import jax
import numpy as np
import pytest
from training.toy import stored_state, toy, toy_examples, train

from mskjax.training.feed import Feed, gathered, one_ahead
from mskjax.training.mesh import data_mesh
from mskjax.training.program import Program
from mskjax.training.trainer import Trainer

STREAMED, RESIDENT = {"limit_mb": 0}, {"limit_mb": 1e6}


def assert_same_bits(a, b):
    jax.tree.map(np.testing.assert_array_equal, a, b)


@pytest.fixture
def on_disk(tmp_path):
    """The examples of the toy, memory-mapped."""
    for name, values in toy_examples().items():
        np.save(tmp_path / f"{name}.npy", values)
    return {p.stem: np.load(p, mmap_mode="r") for p in tmp_path.glob("*.npy")}


@pytest.mark.parametrize("devices", [1, 4])
def test_resident_and_streamed_examples_train_to_the_same_bits(tmp_path, devices, on_disk):
    program = Program(toy(), data_mesh(devices))
    train(program, tmp_path / "resident", settings=RESIDENT)
    train(program, tmp_path / "streamed", settings=STREAMED)
    train(program, tmp_path / "disk", settings=STREAMED, examples=on_disk)
    for other in ("streamed", "disk"):
        assert_same_bits(stored_state(tmp_path / "resident"), stored_state(tmp_path / other))
        curves = [(tmp_path / k / "metrics.jsonl").read_text() for k in ("resident", other)]
        assert curves[0] == curves[1]


def test_several_steps_of_one_dispatch_are_those_steps(tmp_path, monkeypatch):
    program = Program(toy(log_every=4, checkpoint_every=4), data_mesh(1))
    train(program, tmp_path / "one", settings=RESIDENT)
    sizes = []
    before = Trainer.batches

    def batches(self, numbers):
        sizes.append(len(numbers))
        return before(self, numbers)

    init = Trainer.__init__

    def faster(self, *arguments):
        init(self, *arguments)
        self.most_steps = 10

    monkeypatch.setattr(Trainer, "__init__", faster)
    monkeypatch.setattr(Trainer, "batches", batches)
    train(program, tmp_path / "four", settings=RESIDENT)
    assert sizes == [4, 4, 4]
    one, four = stored_state(tmp_path / "one"), stored_state(tmp_path / "four")
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), one, four)


@pytest.mark.parametrize("limit_mb", [0, 1e6])
@pytest.mark.parametrize("shape", [(1, 8), (3, 8)])
def test_a_batch_holds_the_rows_of_its_numbers(limit_mb, shape):
    program = Program(toy(), data_mesh(4))
    feed = Feed([toy_examples()], program.mesh, limit_mb)
    numbers = np.random.default_rng(0).integers(0, 40, shape)
    batch = feed.batch(numbers, program.sharding_of_batches(together=False))
    for i, row in enumerate(numbers):
        found = jax.jit(gathered)(feed.data, {k: v[i] for k, v in batch.items()})
        np.testing.assert_array_equal(found["index"], row)
        np.testing.assert_array_equal(found["image"], toy_examples()["image"][row])
        np.testing.assert_array_equal(found["label"], toy_examples()["label"][row])


@pytest.mark.parametrize("limit_mb", [0, 1e6])
def test_trainings_with_examples_of_their_own_get_their_own_rows(limit_mb):
    mesh = data_mesh(4, members=2)
    own = [toy_examples(40, 0), toy_examples(25, 1)]
    feed = Feed(own, mesh, limit_mb)
    numbers = np.random.default_rng(0).integers(0, 25, (3, 2, 8))
    sharding = Program(toy(), mesh).sharding_of_batches(together=True)
    batch = feed.batch(numbers, sharding)
    for i, k in np.ndindex(3, 2):
        found = jax.jit(gathered)(feed.data, {name: v[i, k] for name, v in batch.items()})
        assert set(found) == {"index", "image", "label"}
        # What augmentation is keyed to is the number among its own, as in a training alone.
        np.testing.assert_array_equal(found["index"], numbers[i, k])
        for name in ("image", "label"):
            np.testing.assert_array_equal(found[name], own[k][name][numbers[i, k]])


def test_examples_larger_than_the_limit_are_not_put_on_the_device(capsys):
    mesh = data_mesh(1)
    size = sum(v.nbytes for v in toy_examples().values()) / 1e6
    assert Feed([toy_examples()], mesh, size).data
    streamed = Feed([toy_examples()], mesh, size * 0.99)
    assert not streamed.data
    streamed.announce("toy")
    assert "streamed from the host" in capsys.readouterr().out


def test_the_next_item_is_made_while_one_is_in_use():
    made = threading.Event()

    def items():
        yield 1
        made.set()
        yield 2

    found = one_ahead(items())
    assert next(found) == 1
    assert made.wait(10)
    assert list(found) == [2]


def test_an_error_in_the_thread_reaches_the_loop():
    def items():
        yield 1
        raise OSError("disk")

    found = one_ahead(items())
    assert next(found) == 1
    with pytest.raises(OSError, match="disk"):
        next(found)


def test_a_finished_training_says_how_many_trained_together(tmp_path):
    train(Program(toy(), data_mesh(1)), tmp_path)
    assert json.loads((tmp_path / "cost.json").read_text())["trained_together"] == 1
