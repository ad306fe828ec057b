import itertools

import numpy as np
import pytest

from mskjax.data import pipeline


def examples(n=10):
    return {"image": np.arange(n * 2, dtype=np.float32).reshape(n, 2), "label": np.arange(n)}


def drawn(iterator, batches):
    return [b["index"].tolist() for b in itertools.islice(iterator, batches)]


def test_every_epoch_shows_every_example_once_in_another_order():
    order = np.concatenate(drawn(pipeline.training_batches(examples(), 5, 1, np.arange(10)), 6))
    epochs = order.reshape(3, 10)
    for epoch in epochs:
        assert sorted(epoch) == list(range(10))
    assert not np.array_equal(epochs[0], epochs[1])


def test_only_the_chosen_examples_are_drawn():
    chosen = np.array([1, 4, 8])
    seen = np.concatenate(drawn(pipeline.training_batches(examples(), 3, 1, chosen), 4))
    assert sorted(seen) == sorted([1, 4, 8] * 4)


def test_rows_belong_to_their_index():
    batch = next(pipeline.training_batches(examples(), 4, 0, np.arange(10)))
    np.testing.assert_array_equal(batch["label"], batch["index"])
    np.testing.assert_array_equal(batch["image"][:, 0], 2 * batch["index"])


def test_state_restores_the_order():
    first = pipeline.training_batches(examples(), 3, 2, np.arange(10))
    drawn(first, 5)
    state = first.get_state()
    second = pipeline.training_batches(examples(), 3, 2, np.arange(10))
    second.set_state(state)
    assert drawn(first, 6) == drawn(second, 6)


@pytest.mark.parametrize("processes", [2, 4])
def test_processes_share_one_global_order(processes):
    whole = drawn(pipeline.training_batches(examples(), 4, 3, np.arange(10)), 8)
    parts = [
        drawn(pipeline.training_batches(examples(), 4, 3, np.arange(10), p, processes), 8)
        for p in range(processes)
    ]
    for step in range(8):
        together = sorted(i for part in parts for i in part[step])
        assert together == sorted(whole[step])


def test_batch_must_divide_over_processes():
    with pytest.raises(ValueError, match="batch size 3 over 2 processes"):
        pipeline.training_batches(examples(), 3, 0, np.arange(10), 0, 2)


@pytest.mark.parametrize("n", [1, 4, 5, 9])
def test_evaluation_pads_and_drops_nothing(n):
    batches = list(pipeline.evaluation_batches(examples(n), 4))
    assert all(len(b["weight"]) == 4 for b in batches)
    weight = np.concatenate([b["weight"] for b in batches])
    index = np.concatenate([b["index"] for b in batches])
    np.testing.assert_array_equal(index[weight > 0], np.arange(n))
    assert weight.sum() == n


def test_balanced_order_draws_classes_equally_and_leaves_no_example_out():
    classes = np.array([0] * 9 + [1] * 2 + [2] * 4)
    order = pipeline.balanced_order(classes)
    np.testing.assert_array_equal(np.bincount(classes[order]), [9, 9, 9])
    assert set(order) == set(range(15))


def test_balanced_order_takes_examples_without_a_class_once():
    order = pipeline.balanced_order(np.array([0, -1, 0, 0, 1, -1]))
    assert order.tolist() == [0, 1, 2, 3, 4, 4, 4, 5]
    assert pipeline.balanced_order(np.array([-1, -1])).tolist() == [0, 1]
