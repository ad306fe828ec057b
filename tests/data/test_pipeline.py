import numpy as np
import pytest

from mskjax.data import pipeline


def examples(n=10):
    return {"image": np.arange(n * 2, dtype=np.float32).reshape(n, 2), "label": np.arange(n)}


def drawn(batches, steps):
    return [batches[step].tolist() for step in range(steps)]


def test_every_epoch_shows_every_example_once_in_another_order():
    order = np.concatenate(drawn(pipeline.batch_numbers(np.arange(10), 5, 1), 6))
    epochs = order.reshape(3, 10)
    for epoch in epochs:
        assert sorted(epoch) == list(range(10))
    assert not np.array_equal(epochs[0], epochs[1])


def test_only_the_chosen_examples_are_drawn():
    seen = np.concatenate(drawn(pipeline.batch_numbers(np.array([1, 4, 8]), 3, 1), 4))
    assert sorted(seen) == sorted([1, 4, 8] * 4)


def test_a_batch_may_hold_several_epochs():
    seen = pipeline.batch_numbers(np.array([1, 4, 8]), 8, 1)
    epochs = np.concatenate([seen[step] for step in range(3)]).reshape(8, 3)
    assert np.sort(epochs, 1).tolist() == [[1, 4, 8]] * 8
    assert len({*map(tuple, epochs.tolist())}) > 1


def test_the_order_is_that_of_every_version_of_numpy():
    numbers = pipeline.batch_numbers(np.arange(10), 5, 1)
    assert np.concatenate([numbers[0], numbers[3]]).tolist() == [2, 0, 1, 4, 5, 5, 0, 8, 2, 4]


def test_a_batch_depends_on_nothing_but_seed_and_step():
    there = drawn(pipeline.batch_numbers(np.arange(10), 3, 2), 11)
    assert pipeline.batch_numbers(np.arange(10), 3, 2)[10].tolist() == there[10]
    assert drawn(pipeline.batch_numbers(np.arange(10), 3, 3), 11) != there


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
