import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from imaging.box_loop import numpy_iou, random_boxes

from mskjax.models import boxes as b


@pytest.fixture(autouse=True)
def strict_promotion():
    with jax.numpy_dtype_promotion("strict"):
        yield


# Op by op, each of a dozen small operations would be compiled by itself.
ENCODE, DECODE = jax.jit(b.encode, static_argnums=2), jax.jit(b.decode, static_argnums=2)
MATCH = jax.jit(b.match, static_argnums=(3, 4, 5))
SAMPLE = jax.jit(b.sample, static_argnums=(2, 3))
NMS = jax.jit(b.nms, static_argnums=3)


def numpy_nms(boxes, scores, threshold, groups=None):
    """The published loop: take the best, drop what overlaps it by more than the threshold."""
    overlap = numpy_iou(boxes, boxes)
    groups = np.zeros(len(boxes)) if groups is None else groups
    left = [i for i in np.argsort(-scores, kind="stable") if scores[i] > -np.inf]
    kept = []
    while left:
        best, *rest = left
        kept.append(best)
        left = [i for i in rest if overlap[best, i] <= threshold or groups[best] != groups[i]]
    return kept


def kept_of(result):
    index, valid = map(np.asarray, result)
    assert not valid[np.argmin(valid) :].any() or valid.all()  # valid ones come first
    assert (index[~valid] == 0).all()
    return index[valid].tolist()


# ----------------------------------------------------------------------------------- geometry


def test_clip_cuts_to_the_image_and_empties_boxes_outside():
    boxes = jnp.array([[-5.0, 2, 8, 40], [30, 30, 40, 40], [1, 2, 3, 4]])
    expected = [[0, 2, 8, 20], [10, 20, 10, 20], [1, 2, 3, 4]]
    np.testing.assert_array_equal(b.clip(boxes, 10, 20), expected)


@pytest.mark.parametrize("weights", [(1.0, 1.0, 1.0, 1.0), (10.0, 10.0, 5.0, 5.0)])
def test_decode_undoes_encode(weights):
    rng = np.random.default_rng(1)
    anchors, boxes = (jnp.asarray(random_boxes(rng, 50)) for _ in range(2))
    deltas = ENCODE(anchors, boxes, weights)
    np.testing.assert_allclose(DECODE(anchors, deltas, weights), boxes, atol=1e-4)


def test_encode_is_equation_2():
    deltas = ENCODE(jnp.array([[0.0, 0, 10, 20]]), jnp.array([[5.0, 0, 25, 10]]), (1, 2, 3, 4))
    expected = [[1.0, 2 * -0.25, 3 * np.log(2), 4 * np.log(0.5)]]
    np.testing.assert_allclose(deltas, expected, rtol=1e-6)


def test_decode_limits_growth_and_encode_of_padding_is_finite():
    anchor = jnp.array([[0.0, 0, 16, 16]])
    huge = DECODE(anchor, jnp.array([[0.0, 0, 1e4, 0]]))[0]
    assert float(huge[2] - huge[0]) == pytest.approx(1000, rel=1e-5)
    assert float(huge[3] - huge[1]) == pytest.approx(16)
    assert np.isfinite(ENCODE(anchor, jnp.zeros((1, 4)))).all()
    assert np.isfinite(ENCODE(jnp.zeros((1, 4)), anchor)).all()


def test_anchors_lie_around_cell_centres():
    anchors = b.grid_anchors(2, 3, 4, (8.0, 16.0), (0.25, 1.0))
    assert anchors.shape == (2 * 3 * 4, 4)
    assert anchors.dtype == np.float32
    np.testing.assert_allclose(anchors[0], [0, -6, 4, 10])  # 4 x 16 around (2, 2)
    np.testing.assert_allclose(anchors[1], [-2, -2, 6, 6])
    np.testing.assert_allclose(anchors[3], [-6, -6, 10, 10])
    np.testing.assert_allclose(anchors[4] - anchors[0], [0, 4, 0, 4])  # next column
    np.testing.assert_allclose(anchors[12] - anchors[0], [4, 0, 4, 0])  # next row


# ----------------------------------------------------------------------- matching and sampling


def numpy_match(anchors, boxes, valid, high, low, low_quality):
    overlap = numpy_iou(anchors, boxes)
    overlap[:, ~valid] = -1
    label = np.where(overlap.max(1) >= high, 1, np.where(overlap.max(1) < low, 0, -1))
    if low_quality:
        for g in np.flatnonzero(valid):
            best = overlap[:, g].max()
            if best > 0:
                label[np.abs(overlap[:, g] - best) <= 1e-6] = 1
    return overlap.argmax(1), label


@pytest.mark.parametrize("low_quality", [True, False])
def test_match_is_the_loop(low_quality):
    rng = np.random.default_rng(2)
    for _ in range(5):
        anchors, boxes = random_boxes(rng, 200), random_boxes(rng, 6)
        valid = rng.random(6) < 0.7
        index, label = MATCH(*map(jnp.asarray, (anchors, boxes, valid)), 0.6, 0.3, low_quality)
        expected, labels = numpy_match(anchors, boxes, valid, 0.6, 0.3, low_quality)
        np.testing.assert_array_equal(label, labels)
        positive = labels > 0
        np.testing.assert_array_equal(np.asarray(index)[positive], expected[positive])


def test_each_reference_box_gets_its_best_anchors_equals_included():
    anchors = jnp.array([[0.0, 0, 4, 4], [0, 4, 4, 8], [20, 20, 24, 24]])
    box = jnp.array([[0.0, 2, 4, 6]])  # IoU 1/3 with each of the first two
    _, label = MATCH(anchors, box, jnp.array([True]), 0.7, 0.3, True)
    assert label.tolist() == [1, 1, 0]
    _, label = MATCH(anchors, box, jnp.array([True]), 0.7, 0.3, False)
    assert label.tolist() == [-1, -1, 0]


def test_padding_empty_and_far_boxes_match_nothing():
    anchors = jnp.array([[0.0, 0, 4, 4], [0, 4, 4, 8]])
    boxes = jnp.array([[0.0, 0, 4, 4], [1, 1, 1, 1], [90, 90, 99, 99]])
    _, label = MATCH(anchors, boxes, jnp.array([False, True, True]), 0.7, 0.3, True)
    assert label.tolist() == [0, 0]


@settings(max_examples=40)
@given(
    st.lists(st.integers(-1, 1), min_size=12, max_size=12),
    st.integers(0, 2**31 - 1),
    st.sampled_from([(4, 0.5), (4, 0.25), (12, 0.5), (20, 0.5), (3, 1.0), (1, 0.0)]),
)
def test_sample_draws_as_many_as_the_rule_allows(labels, seed, rule):
    count, share = rule
    labels = np.array(labels, np.int32)
    drawn = np.asarray(SAMPLE(jax.random.key(seed), jnp.asarray(labels), count, share))
    positives = min((labels > 0).sum(), round(count * share))
    negatives = min((labels == 0).sum(), count - positives)
    assert set(drawn) <= {0.0, 1.0}
    assert drawn[labels > 0].sum() == positives
    assert drawn[labels == 0].sum() == negatives
    assert drawn[labels < 0].sum() == 0


def test_sample_is_uniform():
    labels = jnp.array([1] * 6 + [0] * 10 + [-1] * 2)
    keys = jax.random.split(jax.random.key(0), 4000)
    share = np.asarray(jax.vmap(lambda k: b.sample(k, labels, 8, 0.25))(keys).mean(0))
    np.testing.assert_allclose(share[:6], 2 / 6, atol=0.04)  # 5 standard errors
    np.testing.assert_allclose(share[6:16], 6 / 10, atol=0.04)
    assert share[16:].max() == 0


# --------------------------------------------------------------------------------- suppression


@settings(max_examples=60)
@given(
    st.lists(
        st.tuples(*[st.integers(0, 12)] * 4, st.sampled_from([-np.inf, -1.0, 0.0, 0.25, 0.5, 2.0])),
        min_size=16,
        max_size=16,
    ),
    st.sampled_from([0.0, 1 / 3, 0.5, 1.0]),
)
def test_nms_is_the_loop_with_ties_padding_and_empty_boxes(rows, threshold):
    values = np.array(rows, np.float32)
    boxes, scores = values[:, :4], values[:, 4]
    boxes[:, 2:] += boxes[:, :2] * (values[:, 2:4] % 2)  # some end before they start
    # The threshold as the program sees it: 1/3 in float32 is what IoU 1/3 is compared with.
    expected = numpy_nms(boxes, scores, float(np.float32(threshold)) + 1e-7)
    found = kept_of(NMS(jnp.asarray(boxes), jnp.asarray(scores), threshold, 16))
    assert found == expected


def test_nms_of_many_boxes_groups_and_vmap():
    rng = np.random.default_rng(3)
    boxes = np.stack([random_boxes(rng, 300) for _ in range(3)])
    scores = rng.random((3, 300)).astype(np.float32)
    groups = rng.integers(0, 3, (3, 300)).astype(np.int32)
    run = jax.jit(jax.vmap(lambda x, s, g: b.nms(x, s, 0.4, 300, g)))
    index, valid = run(*map(jnp.asarray, (boxes, scores, groups)))
    for i in range(3):
        expected = numpy_nms(boxes[i], scores[i], 0.4, groups[i])
        assert 20 < len(expected) < 290
        assert kept_of((index[i], valid[i])) == expected


def test_nms_resolves_a_chain():
    # Each box suppresses the next alone, so every second one stays: N / 2 dependent decisions.
    n = 64
    start = np.arange(n)[:, None] * [0.0, 4.0]
    boxes = np.concatenate([start, start + 10], 1).astype(np.float32)
    scores = np.linspace(1, 0.5, n).astype(np.float32)
    found = kept_of(NMS(jnp.asarray(boxes), jnp.asarray(scores), 0.4, n))
    assert found == list(range(0, n, 2))


def test_nms_suppresses_only_above_the_threshold():
    boxes = jnp.array([[0.0, 0, 4, 4], [0, 0, 4, 2]])  # IoU exactly one half
    scores = jnp.array([0.5, 0.9])
    assert kept_of(NMS(boxes, scores, 0.5, 2)) == [1, 0]
    assert kept_of(NMS(boxes, scores, 0.49, 2)) == [1]


def test_nms_keeps_the_best_or_pads():
    boxes = jnp.array([[0.0, 0, 4, 4], [10, 0, 14, 4], [20, 0, 24, 4]])
    scores = jnp.array([0.1, 0.3, 0.2])
    assert kept_of(NMS(boxes, scores, 0.5, 2)) == [1, 2]
    index, valid = NMS(boxes, scores, 0.5, 5)
    assert index.tolist() == [1, 2, 0, 0, 0]
    assert valid.tolist() == [True, True, True, False, False]
    assert kept_of(NMS(boxes, jnp.full(3, jnp.nan), 0.5, 3)) == []
