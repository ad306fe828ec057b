import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mskjax.models import losses

# As the training step calls them; operation by operation most of the time would be compilation.
masked_heads_loss, segmentation_loss, squared_emd = map(
    jax.jit, (losses.masked_heads_loss, losses.segmentation_loss, losses.squared_emd)
)


@pytest.fixture(autouse=True)
def strict_promotion():
    with jax.numpy_dtype_promotion("strict"):
        yield


def normal(seed, *shape):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


def labels_of(seed, *shape, classes=4):
    return jnp.asarray(np.random.default_rng(seed).integers(classes, size=shape), jnp.int32)


def shares(seed, *shape):
    """Random shares of each class, which sum to 1."""
    drawn = np.random.default_rng(seed).dirichlet(np.full(shape[-1], 0.3), shape[:-1])
    return jnp.asarray(drawn, jnp.float32)


def numpy_segmentation_loss(logits, targets):
    """One example by the formula of the docstring, over a flat list of pixels."""
    logits, targets = np.asarray(logits, np.float64), np.asarray(targets, np.float64)
    p = np.exp(logits - logits.max(-1, keepdims=True))
    p /= p.sum(-1, keepdims=True)
    entropy = -(targets * np.log(p)).sum(-1).mean()
    dice = []
    for c in range(1, logits.shape[-1]):
        both, apart = p[:, c].sum() + targets[:, c].sum(), np.abs(p[:, c] - targets[:, c]).sum()
        dice.append(1 - (both - apart + 2) / (both + 2))
    return entropy + np.mean(dice)


def test_segmentation_loss_is_the_formula():
    logits = normal(0, 3, 5, 6, 4)
    for targets in (shares(1, 3, 5, 6, 4), jax.nn.one_hot(labels_of(1, 3, 5, 6), 4)):
        loss = segmentation_loss(logits, targets)
        pairs = zip(np.asarray(logits), np.asarray(targets), strict=True)
        expected = [numpy_segmentation_loss(*(v.reshape(-1, 4) for v in p)) for p in pairs]
        np.testing.assert_allclose(loss, expected, rtol=1e-5)
        assert loss.dtype == jnp.float32


def test_pixels_count_by_their_weight_and_unknown_ones_not_at_all():
    logits, targets = normal(0, 2, 6, 8, 3), shares(1, 2, 6, 8, 3)
    known = jnp.zeros((2, 6, 8)).at[:, :4, 2:].set(1.0)
    alone = segmentation_loss(logits[:, :4, 2:], targets[:, :4, 2:])
    np.testing.assert_allclose(segmentation_loss(logits, targets, known), alone, rtol=1e-6)
    gradient = jax.grad(lambda x: segmentation_loss(x, targets, known).sum())(logits)
    assert float(jnp.abs(gradient[known == 0]).max()) == 0.0
    # A pixel of weight 2 is two pixels.
    twice = jnp.asarray(np.random.default_rng(3).integers(1, 3, (1, 30)), jnp.float32)
    many = np.repeat(np.arange(30), np.asarray(twice[0], int))
    flat, own = logits[:1].reshape(1, -1, 3)[:, :30], targets[:1].reshape(1, -1, 3)[:, :30]
    np.testing.assert_allclose(
        segmentation_loss(flat, own, twice),
        segmentation_loss(flat[:, many], own[:, many]),
        rtol=1e-5,
    )
    nothing = segmentation_loss(logits, targets, 0 * known)
    np.testing.assert_array_equal(nothing, 0)


def test_segmentation_loss_of_whole_pixels_is_that_of_monai():
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
    ours = segmentation_loss(logits, jax.nn.one_hot(labels, 3))
    np.testing.assert_allclose(ours, expected, rtol=1e-5)


def test_the_loss_is_least_where_probabilities_are_the_shares():
    targets = 0.02 + 0.92 * shares(1, 1, 6, 6, 4)
    best = jnp.log(targets)
    gradient = jax.grad(lambda x: segmentation_loss(x, targets).sum())(best + 1e-4)
    assert float(jnp.abs(gradient).max()) < 0.02
    least = float(segmentation_loss(best, targets)[0])
    for seed in range(5):
        moved = best + 0.3 * normal(seed, 1, 6, 6, 4)
        assert float(segmentation_loss(moved, targets)[0]) > least
    harder = 3 * best  # what the Dice loss of products would ask for
    assert float(segmentation_loss(harder, targets)[0]) > least + 0.1


def test_perfect_segmentation_costs_nothing_and_examples_are_independent():
    targets = jax.nn.one_hot(labels_of(1, 2, 8, 8), 4)
    np.testing.assert_allclose(segmentation_loss(40 * targets, targets), 0.0, atol=1e-6)
    logits = normal(0, 2, 8, 8, 4)
    np.testing.assert_allclose(
        segmentation_loss(logits, targets)[:1],
        segmentation_loss(logits[:1], targets[:1]),
        rtol=1e-6,
    )


def test_a_class_that_is_in_neither_costs_nothing():
    targets = jnp.zeros((1, 4, 4, 3)).at[..., 0].set(1.0)
    np.testing.assert_allclose(segmentation_loss(40 * targets, targets), 0.0, atol=1e-6)


def test_bfloat16_logits_are_taken():
    logits, targets = normal(0, 2, 4, 4, 3).astype(jnp.bfloat16), shares(1, 2, 4, 4, 3)
    loss = segmentation_loss(logits, targets)
    assert loss.dtype == jnp.float32
    np.testing.assert_allclose(loss, segmentation_loss(logits.astype(jnp.float32), targets))


def test_one_channel_is_refused():
    with pytest.raises(ValueError, match="background and foreground"):
        segmentation_loss(jnp.zeros((1, 2, 2, 1)), jnp.ones((1, 2, 2, 1)))


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
