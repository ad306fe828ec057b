import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mskjax.models.losses import masked_heads_loss, segmentation_loss, squared_emd


@pytest.fixture(autouse=True)
def strict_promotion():
    with jax.numpy_dtype_promotion("strict"):
        yield


def normal(seed, *shape):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


def labels_of(seed, *shape, classes=4):
    return jnp.asarray(np.random.default_rng(seed).integers(classes, size=shape), jnp.int32)


def numpy_segmentation_loss(logits, labels, weights):
    """One example by the formula of the docstring, over a flat list of pixels."""
    logits = np.asarray(logits, np.float64)
    p = np.exp(logits - logits.max(-1, keepdims=True))
    p /= p.sum(-1, keepdims=True)
    w = np.asarray(weights)[labels]
    entropy = -np.log(p[np.arange(len(labels)), labels])
    dice = []
    for c in range(1, logits.shape[-1]):
        inside = p[labels == c, c].sum()
        dice.append(1 - (2 * inside + 2) / (p[:, c].sum() + (labels == c).sum() + 2))
    return (w * entropy).sum() / w.sum() + np.mean(dice)


def test_segmentation_loss_is_the_formula():
    logits, labels = normal(0, 3, 5, 6, 4), labels_of(1, 3, 5, 6)
    weights = jnp.asarray([0.5, 1.0, 2.0, 4.0])
    for given_weights in (weights, None):
        loss = segmentation_loss(logits, labels, given_weights)
        expected = [
            numpy_segmentation_loss(
                np.asarray(logits[i]).reshape(-1, 4),
                np.asarray(labels[i]).ravel(),
                weights if given_weights is not None else np.ones(4),
            )
            for i in range(3)
        ]
        np.testing.assert_allclose(loss, expected, rtol=1e-5)
        assert loss.dtype == jnp.float32


def test_segmentation_dice_is_monai_dice():
    torch = pytest.importorskip("torch")
    monai = pytest.importorskip("monai.losses")
    logits, labels = normal(0, 2, 6, 5, 3), labels_of(1, 2, 6, 5, classes=3)
    flipped = torch.from_numpy(np.moveaxis(np.asarray(logits), -1, 1).copy())
    target = torch.from_numpy(np.array(labels)).long()
    # MONAI adds its constant to 2 I and to P + T, we add 1 to I and to their mean.
    dice = monai.DiceLoss(
        softmax=True,
        to_onehot_y=True,
        include_background=False,
        smooth_nr=2.0,
        smooth_dr=2.0,
        reduction="none",
    )(flipped, target[:, None])
    entropy = torch.nn.functional.cross_entropy(flipped, target, reduction="none").mean((1, 2))
    expected = entropy + dice.reshape(2, -1).mean(-1)
    np.testing.assert_allclose(segmentation_loss(logits, labels), expected, rtol=1e-5)


def test_ignored_pixels_are_as_if_absent():
    logits, labels = normal(0, 2, 6, 8, 3), labels_of(1, 2, 6, 8, classes=3)
    valid = jnp.zeros((2, 6, 8), bool).at[:, :4, 2:].set(True)
    spoiled = jnp.where(valid, labels, 255)
    loss = segmentation_loss(logits.at[:, 5].set(jnp.nan), spoiled, valid=valid)
    alone = segmentation_loss(logits[:, :4, 2:], labels[:, :4, 2:])
    np.testing.assert_allclose(loss, alone, rtol=1e-6)
    gradient = jax.grad(lambda x: segmentation_loss(x, spoiled, valid=valid).sum())(logits)
    assert float(jnp.abs(gradient[~valid]).max()) == 0.0
    assert float(jnp.abs(gradient[valid]).min()) > 0.0


def test_no_valid_pixel_costs_nothing():
    logits, labels = normal(0, 1, 4, 4, 2), labels_of(1, 1, 4, 4, classes=2)
    valid = jnp.zeros((1, 4, 4), bool)
    value, gradient = jax.value_and_grad(lambda x: segmentation_loss(x, labels, valid=valid).sum())(
        logits
    )
    assert float(value) == 0.0
    np.testing.assert_array_equal(gradient, 0.0)


def test_perfect_segmentation_costs_nothing_and_examples_are_independent():
    labels = labels_of(1, 2, 8, 8)
    perfect = 40 * jax.nn.one_hot(labels, 4)
    np.testing.assert_allclose(segmentation_loss(perfect, labels), 0.0, atol=1e-6)
    logits = normal(0, 2, 8, 8, 4)
    np.testing.assert_allclose(
        segmentation_loss(logits, labels)[:1], segmentation_loss(logits[:1], labels[:1]), rtol=1e-6
    )


def test_bfloat16_logits_and_uint8_labels_are_taken():
    logits, labels = normal(0, 2, 4, 4, 3).astype(jnp.bfloat16), labels_of(1, 2, 4, 4, classes=3)
    loss = segmentation_loss(logits, labels.astype(jnp.uint8))
    assert loss.dtype == jnp.float32
    np.testing.assert_allclose(loss, segmentation_loss(logits.astype(jnp.float32), labels))


def test_one_channel_is_refused():
    with pytest.raises(ValueError, match="background and foreground"):
        segmentation_loss(jnp.zeros((1, 2, 2, 1)), jnp.zeros((1, 2, 2), jnp.int32))


@settings(max_examples=10)
@given(st.integers(0, 4), st.integers(0, 4))
def test_squared_emd_of_certain_grades_is_their_distance(predicted, reference):
    with jax.numpy_dtype_promotion("strict"):
        loss = squared_emd(100.0 * jax.nn.one_hot(predicted, 5), jnp.int32(reference))
    assert float(loss) == pytest.approx(abs(predicted - reference), abs=1e-5)


def test_squared_emd_of_a_uniform_guess():
    """Cumulative 1/4, 2/4, 3/4, 1 against the second of four grades: 1/16 + 1/4 + 1/16."""
    assert float(squared_emd(jnp.zeros(4), jnp.int32(1))) == pytest.approx(0.375)


LOGITS = {"grade": normal(0, 3, 5), "presence": normal(1, 3, 2)}
TARGETS = {"grade": jnp.asarray([4, -1, -1]), "presence": jnp.asarray([1, 0, -1])}
WEIGHTS = {"grade": jnp.asarray([1.0, 1.0, 1.0, 1.0, 3.0])}


def test_masked_heads_loss_by_hand():
    loss = masked_heads_loss(LOGITS, TARGETS, WEIGHTS, 0.5)
    grade = -jax.nn.log_softmax(LOGITS["grade"][0])[4]
    emd = squared_emd(LOGITS["grade"][0], jnp.int32(4))
    presence = [
        -jax.nn.log_softmax(LOGITS["presence"][i])[k]
        + 0.5 * squared_emd(LOGITS["presence"][i], jnp.int32(k))
        for i, k in ((0, 1), (1, 0))
    ]
    expected = [(3 * grade + 0.5 * emd + presence[0]) / 2, presence[1], 0.0]
    np.testing.assert_allclose(loss, jnp.stack([jnp.float32(e) for e in expected]), rtol=1e-6)


def test_the_earth_movers_distance_is_weighted_and_enters_every_head():
    extra = masked_heads_loss(LOGITS, TARGETS, {}, 1.0) - masked_heads_loss(
        LOGITS, TARGETS, {}, 0.0
    )
    expected = squared_emd(LOGITS["presence"][1], jnp.int32(0))
    assert float(extra[1]) == pytest.approx(float(expected), rel=1e-5)


def test_missing_labels_pass_exactly_no_gradient():
    spoiled = {**LOGITS, "grade": LOGITS["grade"].at[1:].set(jnp.nan)}
    loss, gradient = jax.value_and_grad(
        lambda logits: masked_heads_loss(logits, TARGETS, WEIGHTS, 1.0).sum()
    )(spoiled)
    assert np.isfinite(loss)
    np.testing.assert_array_equal(gradient["grade"][1:], 0.0)
    np.testing.assert_array_equal(gradient["presence"][2], 0.0)
    assert float(jnp.abs(gradient["grade"][0]).min()) > 0
    assert float(jnp.abs(gradient["presence"][:2]).min()) > 0


def test_heads_must_match_targets():
    with pytest.raises(ValueError, match=r"\['grade', 'presence'\].*\['grade'\]"):
        masked_heads_loss(LOGITS, {"grade": TARGETS["grade"]}, {}, 0.0)
