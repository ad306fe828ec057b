"""What graders share: classes of grades, labels that are missing, balance, and the loss."""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.utils.class_weight import compute_class_weight

from mskjax.config import TrainConfig
from mskjax.imaging.augment import CropAugmentation
from mskjax.models.losses import squared_emd
from mskjax.stages.grading import Grader, Head

PFIRRMANN = Head("pfirrmann", 5, lowest=1)
TASK_A = Head("task_a", 2, column="goutallier", grouped=(0, 0, -1, 1, 1))
HEADS = (PFIRRMANN, TASK_A)
STRENGTHS = CropAugmentation()


@dataclasses.dataclass(frozen=True)
class Options:
    train: TrainConfig
    emd_weight: float = 0.0
    augmentation: CropAugmentation = STRENGTHS
    views: int = 1


class ToyGrader(Grader):
    def model(self):
        return nn.Dense(1)

    def training_examples(self, study):
        raise NotImplementedError

    def augment(self, keys, batch, hyper):
        raise NotImplementedError


def grader(balance="none", heads=HEADS, **options):
    train = TrainConfig(steps=9, batch_size=4, warmup_steps=0, balance=balance)
    return ToyGrader("grades", Options(train, **options), heads)


def test_grades_become_classes():
    assert PFIRRMANN.target([1, 5, 3, -1]).tolist() == [0, 4, 2, -1]
    assert TASK_A.target([0, 1, 2, 3, 4, -1]).tolist() == [0, 0, -1, 1, 1, -1]
    assert PFIRRMANN.target([1]).dtype == np.int32


@given(st.lists(st.integers(-1, 9), min_size=1, max_size=20))
def test_every_class_is_one_that_the_head_has(grades):
    for head in HEADS:
        classes = head.target(grades)
        assert ((classes >= -1) & (classes < head.classes)).all()
        assert (classes[np.array(grades) < 0] == -1).all()


def test_targets_are_read_from_the_columns_that_heads_name():
    targets = grader().targets({"goutallier": np.array([4, 2, 0]), "other": np.array([1, 1, 1])})
    assert targets["target_task_a"].tolist() == [1, -1, 0]
    assert targets["target_pfirrmann"].tolist() == [-1, -1, -1]  # the study has no such column


@given(st.lists(st.integers(-1, 4), min_size=1, max_size=40).filter(lambda v: max(v) >= 0))
def test_class_weights_are_those_of_scikit_learn(classes):
    target = np.array(classes, np.int32)
    examples = {"target_pfirrmann": target, "target_task_a": np.minimum(target, 1)}
    weights = grader("weights").balance(examples)
    for name, head in (("target_pfirrmann", PFIRRMANN), ("target_task_a", TASK_A)):
        known = examples[name][examples[name] >= 0]
        present = np.unique(known)
        expected = np.zeros(head.classes)
        expected[present] = compute_class_weight("balanced", classes=present, y=known)
        np.testing.assert_allclose(weights[head.name], expected, rtol=1e-6)
    for weight in grader().balance(examples).values():
        assert (weight == 1).all()


def test_a_head_without_labels_is_not_weighted():
    examples = {"target_pfirrmann": np.array([0, 1]), "target_task_a": np.array([-1, -1])}
    np.testing.assert_array_equal(grader("weights").balance(examples)["task_a"], [1, 1])


def test_sampling_is_balanced_by_the_first_head():
    examples = {"target_pfirrmann": np.array([3, -1]), "target_task_a": np.array([0, 1])}
    assert grader().classes(examples).tolist() == [3, -1]


LOGITS = {
    "pfirrmann": jnp.array([[2.0, 0, 0, 0, 0], [0, 0, 0, 0, 1], [0, 0, 3, 0, 0]]),
    "task_a": jnp.array([[0.0, 1], [2, 0], [0, 0]]),
}
BATCH = {"target_pfirrmann": jnp.array([0, 4, -1]), "target_task_a": jnp.array([1, -1, -1])}
EVEN = {"pfirrmann": jnp.ones(5), "task_a": jnp.ones(2)}


@jax.jit
def loss_of(outputs, weights, emd_weight):
    return grader().loss(outputs, BATCH, weights, {"emd_weight": emd_weight})


gradient_of = jax.jit(jax.grad(lambda outputs: loss_of(outputs, EVEN, 1.0).sum()))


def nll(logits, label):
    p = np.exp(logits) / np.exp(logits).sum()
    return -np.log(p[label])


def test_the_loss_is_the_mean_over_the_labels_that_an_example_has():
    loss = loss_of(LOGITS, EVEN, 0.0)
    first = (nll([2, 0, 0, 0, 0], 0) + nll([0, 1], 1)) / 2
    np.testing.assert_allclose(loss, [first, nll([0, 0, 0, 0, 1], 4), 0], rtol=1e-6)


def test_a_missing_label_passes_no_gradient_whatever_the_network_says():
    broken = {**LOGITS, "task_a": LOGITS["task_a"].at[1].set(jnp.nan)}
    gradient = gradient_of(broken)
    assert not gradient["task_a"][1:].any()
    assert not gradient["pfirrmann"][2].any()
    assert jnp.abs(gradient["pfirrmann"][:2]).min() > 0
    assert np.isfinite(loss_of(broken, EVEN, 1.0)).all()


def test_class_weights_and_earth_movers_distance_enter_the_loss():
    weights = {**EVEN, "pfirrmann": jnp.array([3.0, 1, 1, 1, 1])}
    heavy = loss_of(LOGITS, weights, 0.0)
    plain = loss_of(LOGITS, EVEN, 0.0)
    np.testing.assert_allclose(heavy - plain, [nll([2, 0, 0, 0, 0], 0), 0, 0], atol=1e-6)
    moved = loss_of(LOGITS, EVEN, grader(emd_weight=0.5).hyper()["emd_weight"])
    distance = squared_emd(LOGITS["pfirrmann"], jnp.array([0, 4, 0]))
    distance = distance.at[0].set(
        (distance[0] + squared_emd(LOGITS["task_a"][0], jnp.array(1))) / 2
    )
    np.testing.assert_allclose(moved - plain, 0.5 * distance.at[2].set(0), rtol=1e-5, atol=1e-6)


def test_probabilities_and_what_the_curves_show():
    found = grader().activate(LOGITS)
    assert {k: v.shape for k, v in found.items()} == {"pfirrmann": (3, 5), "task_a": (3, 2)}
    np.testing.assert_allclose(found["pfirrmann"].sum(-1), 1, rtol=1e-6)
    right = grader().monitor(LOGITS, BATCH)
    assert {k: v.tolist() for k, v in right.items()} == {"accuracy_pfirrmann": [1, 1, 0]}


def test_graders_that_differ_in_recipe_weights_or_strengths_are_traced_alike():
    other = dataclasses.replace(
        grader("weights", emd_weight=2.0, augmentation=CropAugmentation(gain=0.5)), name="other"
    )
    assert other.traced() == grader().traced()
    assert hash(other.traced()) == hash(grader().traced())
    assert grader(heads=HEADS[:1]).traced() != grader().traced()


def test_a_number_that_would_be_frozen_into_a_program_cannot_be_read_there():
    traced = grader(emd_weight=2.0).traced()
    assert traced.options.emd_weight is None
    with pytest.raises(AttributeError):
        _ = traced.train.learning_rate
    assert grader(emd_weight=2.0).hyper() == {
        "emd_weight": 2.0,
        "augmentation": STRENGTHS,
    }
