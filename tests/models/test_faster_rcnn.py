import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from mskjax.imaging.boxes import iou_matrix
from mskjax.metrics.detection import average_precision, match_detections
from mskjax.models import boxes as b
from mskjax.models.faster_rcnn import FasterRCNN, Outputs, Scored, detection_loss
from mskjax.training.mesh import data_mesh, replicated, sharded

TINY = FasterRCNN(
    1,
    widths=(8, 16, 16),
    channels=16,
    strides=(4, 8),
    anchor_sizes=((12.0,), (20.0,)),
    anchor_ratios=(0.5, 1.5),
    hidden=32,
    before_nms=32,
    proposals=24,
    rpn_samples=32,
    roi_samples=16,
    detections=4,
)


def rectangles(seed, count, side=64, classes=1, padding=1):
    """Noise images with two bright rectangles apart from each other; class k is k bright."""
    rng = np.random.default_rng(seed)
    images = rng.normal(0, 0.3, (count, side, side, 1))
    boxes = np.zeros((count, 2 + padding, 4))
    labels = np.zeros((count, 2 + padding), int)
    for i in range(count):
        for j in range(2):  # one in the upper, one in the lower half
            size = rng.integers(9, 22, 2)
            start = rng.integers([j * side // 2, 0], [(j + 1) * side // 2, side] - size)
            labels[i, j] = rng.integers(1, classes + 1)
            boxes[i, j] = [*start, *(start + size)]
            images[i, start[0] : start[0] + size[0], start[1] : start[1] + size[1]] += labels[i, j]
    return (
        jnp.asarray(images, jnp.float32),
        jnp.asarray(boxes, jnp.float32),
        jnp.asarray(labels, jnp.int32),
    )


@functools.cache
def initial(model, side=64):
    inputs = rectangles(0, 1, side)
    return jax.jit(lambda: model.init(jax.random.key(0), *inputs, train=False))()


@functools.partial(jax.jit, static_argnums=0)
def training_outputs(model, variables, inputs, key):
    return model.apply(
        variables, *inputs, train=True, mutable=["batch_stats"], rngs={"dropout": key}
    )[0]


@functools.partial(jax.jit, static_argnums=0)
def predict(model, variables, inputs):
    return model.apply(variables, *inputs, train=False)


@functools.partial(jax.jit, static_argnums=0)
def loss_and_gradient(model, variables, inputs, key):
    def mean_loss(params):
        outputs = training_outputs(model, {**variables, "params": params}, inputs, key)
        return detection_loss(outputs).mean()

    return jax.value_and_grad(mean_loss)(variables["params"])


def assert_close(a, c, **tolerance):
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, **tolerance), a, c)


# -------------------------------------------------------------------------------------- outputs


TWO_CLASSES = TINY.clone(classes=2, norm="batch", score_floor=0.3, detection_iou=0.2)


def test_shapes_and_types():
    inputs = rectangles(1, 3, classes=2)
    with jax.numpy_dtype_promotion("strict"):
        outputs = jax.eval_shape(
            lambda: TWO_CLASSES.init_with_output(jax.random.key(0), *inputs, train=False)[0]
        )
        in_training = jax.eval_shape(
            lambda: TWO_CLASSES.init_with_output(jax.random.key(0), *inputs, train=True)[0]
        )
    anchors = 2 * (16 * 16 + 8 * 8)
    assert outputs.rpn.logits.shape == outputs.rpn.weights.shape == (3, anchors)
    assert outputs.rpn.deltas.shape == outputs.rpn.targets.shape == (3, anchors, 4)
    assert outputs.roi.logits.shape == (3, 24, 3)
    assert in_training.roi.logits.shape == (3, 16, 3)
    assert in_training.detections is None
    assert outputs.detections.boxes.shape == (3, 4, 4)
    assert {x.dtype.name for x in outputs.detections} == {"float32", "int32", "bool"}
    for stage in (*outputs[:2], *in_training[:2]):
        assert [x.dtype for x in stage] == ["float32", "float32", "int32", "float32", "float32"]


def test_bfloat16_computes_low_and_keeps_float32():
    inputs, low = rectangles(1, 8), TINY.clone(dtype="bfloat16")
    variables = initial(TINY)
    created = jax.eval_shape(lambda: low.init(jax.random.key(0), *inputs, train=False))
    assert jax.tree.map(jnp.shape, created) == jax.tree.map(jnp.shape, variables)
    assert all(v.dtype == jnp.float32 for v in jax.tree.leaves(created))
    exact, found = predict(TINY, variables, inputs), predict(low, variables, inputs)
    assert all(x.dtype != jnp.bfloat16 for x in jax.tree.leaves(found))
    error = float(jnp.abs(found.rpn.logits - exact.rpn.logits).max())
    assert 0 < error < 0.1 * float(jnp.abs(exact.rpn.logits).max())
    # Targets know nothing of the compute type.
    np.testing.assert_allclose(found.rpn.targets, exact.rpn.targets, atol=1e-6)


def test_detections_are_in_order_in_the_image_and_apart_within_a_class():
    model = TWO_CLASSES.clone(detections=24)
    found = jax.tree.map(
        np.asarray, predict(model, initial(model), rectangles(1, 8, classes=2)).detections
    )
    valid = found.valid
    assert valid.any()
    assert not valid.all()
    assert (np.diff(found.scores) <= 0).all()
    assert (found.scores[valid] >= 0.3).all()
    assert set(found.labels[valid]) == {1, 2}
    for unused in (found.boxes, found.scores, found.labels):
        assert (unused[~valid] == 0).all()
    boxes = found.boxes[valid]
    assert boxes.min() >= 0
    assert boxes.max() <= 64
    assert (boxes[:, 2:] > boxes[:, :2]).all()
    between_classes = 0.0
    for i in range(8):
        own, labels = found.boxes[i][valid[i]], found.labels[i][valid[i]]
        overlap = np.triu(iou_matrix(own, own), 1)
        same = labels[:, None] == labels[None, :]
        assert overlap[same].max() <= 0.2 + 1e-6
        between_classes = max(between_classes, overlap[~same].max(initial=0))
    assert between_classes > 0.9  # one region as either class


def test_images_of_any_size_keep_their_coordinates():
    """Zeros added by hand where the network adds them change neither boxes nor scores."""
    image, boxes, labels = rectangles(2, 8)
    image, variables = image[:, :50, :45], initial(TINY)
    found = predict(TINY, variables, (image, boxes, labels)).detections
    padded = jnp.pad(image, ((0, 0), (0, 6), (0, 3), (0, 0)))
    levels = [predict(TINY, variables, (x, boxes, labels)).rpn.logits for x in (image, padded)]
    np.testing.assert_allclose(*levels, atol=1e-6)
    assert float(found.boxes[..., 2].max()) <= 50
    assert float(found.boxes[..., 3].max()) <= 45


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"strides": (4, 16)}, "strides"),
        ({"strides": (8, 4)}, "strides"),
        ({"anchor_sizes": ((8.0,),)}, "for strides"),
        ({"anchor_sizes": ((8.0,), (8.0, 16.0))}, "differ in number"),
    ],
)
def test_impossible_settings_are_refused(change, message):
    model = TINY.clone(**change)
    with pytest.raises(ValueError, match=message):
        jax.eval_shape(lambda: model.init(jax.random.key(0), *rectangles(0, 1), train=False))


def test_is_hashable_and_equal_by_value():
    assert hash(FasterRCNN(2)) == hash(FasterRCNN(2))
    assert FasterRCNN(2) == FasterRCNN(2) != FasterRCNN(2, norm="batch")


# -------------------------------------------------------------------------- targets and the loss


def test_kinds_of_one_thing_are_detected_once():
    model = TWO_CLASSES.clone(detections=24)
    images = rectangles(1, 8, classes=2)
    variables = initial(model)
    apart = jax.tree.map(np.asarray, predict(model, variables, images).detections)
    once = predict(model.clone(exclusive=True), variables, images).detections
    once = jax.tree.map(np.asarray, once)
    np.testing.assert_allclose(
        once.scores, np.where(once.valid, once.probabilities.sum(-1), 0), atol=1e-6
    )
    chosen = np.argmax(once.probabilities, -1) + 1
    np.testing.assert_array_equal(once.labels, np.where(once.valid, chosen, 0))
    for image in range(len(once.boxes)):
        kept = once.boxes[image][once.valid[image]]
        overlaps = np.triu(iou_matrix(kept, kept), 1)
        assert overlaps.max(initial=0) <= model.detection_iou + 1e-6
    # Each region may otherwise be of either class, so more of them are valid.
    assert apart.valid.sum() > once.valid.sum()
    at = np.argmax(apart.valid, 1)
    own = apart.probabilities[np.arange(len(at)), at, apart.labels[np.arange(len(at)), at] - 1]
    np.testing.assert_allclose(own, apart.scores[np.arange(len(at)), at], atol=1e-6)


def test_detections_do_not_see_the_reference():
    image, boxes, labels = rectangles(3, 8)
    variables = initial(TINY)
    known = predict(TINY, variables, (image, boxes, labels))
    unknown = predict(TINY, variables, (image, boxes * 0, labels * 0))
    assert_close(known.detections, unknown.detections, rtol=0)
    assert float(jnp.abs(known.rpn.labels - unknown.rpn.labels).sum()) > 0


def test_targets_decode_to_the_reference_boxes():
    inputs = rectangles(3, 8)
    outputs = training_outputs(TINY, initial(TINY), inputs, jax.random.key(5))
    anchors = np.concatenate(
        [
            b.grid_anchors(16, 16, 4, (12.0,), (0.5, 1.5)),
            b.grid_anchors(8, 8, 8, (20.0,), (0.5, 1.5)),
        ]
    )
    for i in range(8):
        positive = np.asarray(outputs.rpn.labels[i]) > 0
        boxes = b.decode(anchors[positive], outputs.rpn.targets[i][positive])
        distance = np.abs(np.asarray(boxes)[:, None] - np.asarray(inputs[1][i, :2])[None]).max(-1)
        assert distance.min(1).max() < 1e-3  # each anchor has one of the boxes
        assert distance.min(0).max() < 1e-3  # each box has an anchor


def test_reference_boxes_join_the_regions_and_draws_are_bounded():
    inputs = rectangles(4, 8)
    outputs = training_outputs(TINY, initial(TINY), inputs, jax.random.key(0))
    for stage, count in ((outputs.rpn, 32), (outputs.roi, 16)):
        drawn, positive = np.asarray(stage.weights), np.asarray(stage.labels) > 0
        assert (drawn.sum(1) == count).all()
        assert ((drawn * positive).sum(1) <= count / 2).all()
        assert (drawn[np.asarray(stage.labels) < 0] == 0).all()
    # Whatever a random network proposes, both objects are there, as themselves.
    exact = (jnp.abs(outputs.roi.targets).max(-1) < 1e-3) & (outputs.roi.labels > 0)
    assert (np.asarray(exact.sum(1)) >= 2).all()


def test_draws_are_keyed_in_training_and_fixed_otherwise():
    inputs, variables = rectangles(4, 8), initial(TINY)
    first, again, other = (
        training_outputs(TINY, variables, inputs, jax.random.key(k)).rpn.weights for k in (1, 1, 2)
    )
    np.testing.assert_array_equal(first, again)
    assert float(jnp.abs(first - other).sum()) > 0
    one, two = (predict(TINY, variables, inputs).rpn.weights for _ in range(2))
    np.testing.assert_array_equal(one, two)


@pytest.mark.parametrize("fill", [0, -1])
def test_padding_of_any_kind_costs_nothing(fill):
    image, boxes, labels = rectangles(5, 8, padding=3)
    # Boxes with label 0 or -1, and one of class 1 without area.
    odd_boxes = boxes.at[:, 2].set(jnp.array([3.0, 3, 40, 40])).at[:, 4].set(7.0)
    odd_labels = labels.at[:, 2:].set(fill).at[:, 4].set(1)
    key, variables = jax.random.key(0), initial(TINY)
    plain = loss_and_gradient(TINY, variables, (image, boxes, labels), key)
    odd = loss_and_gradient(TINY, variables, (image, odd_boxes, odd_labels), key)
    assert_close(plain, odd, atol=1e-6)


def test_an_image_without_boxes_has_a_finite_loss_and_only_background():
    image, boxes, labels = rectangles(6, 8)
    inputs = (image, boxes * 0, labels * 0)
    outputs = training_outputs(TINY, initial(TINY), inputs, jax.random.key(0))
    assert int(outputs.rpn.labels.max()) == int(outputs.roi.labels.max()) == 0
    assert float(outputs.rpn.weights.sum()) == 8 * 32
    loss, gradient = loss_and_gradient(TINY, initial(TINY), inputs, jax.random.key(0))
    # Cross-entropies of an undecided network, no regression.
    assert float(loss) == pytest.approx(2 * np.log(2), rel=0.05)
    assert all(np.isfinite(g).all() for g in jax.tree.leaves(gradient))
    assert float(jnp.abs(gradient["RegionHead_0"]["deltas"]["kernel"]).max()) == 0


def numpy_stage_loss(entropy, deltas, labels, targets, weights):
    total = 0.0
    for n in np.flatnonzero(weights):
        total += entropy(n)
        if labels[n] > 0:
            x = np.abs(deltas[n] - targets[n])
            total += np.where(x < 1 / 9, 4.5 * x**2, x - 1 / 18).sum()
    return total / max(weights.sum(), 1)


def test_loss_is_the_formula():
    rng = np.random.default_rng(7)

    def scored(classes, n=12):
        shape = (n, classes) if classes else (n,)
        deltas = rng.normal(size=(n, 4))
        return Scored(
            rng.normal(size=shape),
            deltas,
            rng.integers(-1, max(classes, 2), n),
            deltas + rng.choice([0.05, 0.5, -0.3], (n, 4)),
            (rng.random(n) < 0.6).astype(float),
        )

    rpn, roi = scored(0), scored(3)
    p = np.exp(roi.logits) / np.exp(roi.logits).sum(1, keepdims=True)
    sign = np.where(rpn.labels > 0, 1, -1)
    expected = numpy_stage_loss(lambda n: np.log1p(np.exp(-sign[n] * rpn.logits[n])), *rpn[1:])
    expected += numpy_stage_loss(lambda n: -np.log(p[n, max(roi.labels[n], 0)]), *roi[1:])
    batched = jax.tree.map(
        lambda x: jnp.asarray(x[None], "int32" if x.dtype.kind == "i" else "float32"), (rpn, roi)
    )
    found = detection_loss(Outputs(*batched, None))
    assert found.shape == (1,)
    assert float(found[0]) == pytest.approx(expected, rel=1e-5)
    nothing = [s._replace(weights=s.weights * 0) for s in batched]
    assert float(detection_loss(Outputs(*nothing, None))[0]) == 0


def test_the_second_stage_does_not_move_the_first_by_its_boxes():
    inputs, variables = rectangles(8, 8), initial(TINY)

    @jax.jit
    @jax.grad
    def gradient(params):
        outputs = training_outputs(TINY, {"params": params}, inputs, jax.random.key(0))
        silent = outputs.rpn._replace(weights=outputs.rpn.weights * 0)
        return detection_loss(outputs._replace(rpn=silent)).sum()

    found = gradient(variables["params"])
    assert all(float(jnp.abs(g).max()) == 0 for g in jax.tree.leaves(found["RegionHead_0"]))
    assert float(jnp.abs(found["Pyramid_0"]["lateral_8"]["kernel"]).max()) > 0


# --------------------------------------------------------------- independence, devices, learning


def test_an_example_does_not_depend_on_its_batch():
    inputs, variables, key = rectangles(9, 8), initial(TINY), jax.random.key(0)
    others = [
        jnp.concatenate([x[:1], y[1:]]) for x, y in zip(inputs, rectangles(10, 8), strict=True)
    ]
    for run in (
        lambda x: predict(TINY, variables, x),
        lambda x: training_outputs(TINY, variables, x, key),
    ):
        one, two = (jax.tree.map(lambda v: v[0], run(tuple(x))) for x in (inputs, others))
        assert_close(one, two, atol=1e-6)


@pytest.mark.long
def test_eight_devices_agree_with_one():
    inputs, variables = rectangles(11, 8), initial(TINY)
    results = []
    for devices in (1, 8):
        mesh = data_mesh(devices)
        whole, parts = replicated(mesh), sharded(mesh)
        run = jax.jit(
            lambda v, x, k: (
                loss_and_gradient(TINY, v, x, k),
                predict(TINY, v, x).detections,
            ),
            in_shardings=(whole, parts, whole),
            out_shardings=(whole, parts),
        )
        results.append(
            run(
                jax.device_put(variables, whole),
                jax.device_put(inputs, parts),
                jax.device_put(jax.random.key(3), whole),
            )
        )
    assert results[1][1].boxes.sharding.spec == sharded(mesh).spec
    one, eight = jax.tree.map(np.asarray, results)
    assert_close(one, eight, atol=2e-5)


def test_learns_to_find_rectangles():
    inputs, unseen = rectangles(12, 64), rectangles(13, 32)
    decay = optax.cosine_decay_schedule(4e-3, 120)
    optimiser = optax.chain(
        optax.clip_by_global_norm(1.0), optax.adam(lambda i: decay(i.astype(jnp.float32)))
    )
    variables = initial(TINY)

    @functools.partial(jax.jit, donate_argnums=0)
    def step(state, i):
        variables, moments = state
        batch = tuple(jax.lax.dynamic_slice_in_dim(x, i % 8 * 8, 8) for x in inputs)
        key = jax.random.fold_in(jax.random.key(1), i)
        loss, gradient = loss_and_gradient(TINY, variables, batch, key)
        change, moments = optimiser.update(gradient, moments, variables["params"])
        return ({"params": optax.apply_updates(variables["params"], change)}, moments), loss

    state = jax.tree.map(jnp.copy, (variables, optimiser.init(variables["params"])))
    for i in range(120):
        state, _ = step(state, i)
    parts = [predict(TINY, state[0], tuple(x[i : i + 8] for x in unseen)) for i in range(0, 32, 8)]
    found = jax.tree.map(lambda *x: np.concatenate(x), *[p.detections for p in parts])
    scores, tp, index = [], [], []
    for i in range(32):
        valid = found.valid[i]
        pairs = match_detections(
            found.boxes[i][valid], found.scores[i][valid], unseen[1][i, :2], 0.5
        )
        scores += found.scores[i][valid].tolist()
        tp += (pairs.reference >= 0).tolist()
        index += [i] * int(valid.sum())
    assert float(average_precision(scores, tp, index, np.full(32, 2))) > 0.9
