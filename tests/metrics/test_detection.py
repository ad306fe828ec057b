import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mskjax.errors import UserError
from mskjax.metrics.detection import (
    ImageBoxes,
    average_precision,
    detection_estimates,
    match_detections,
)

NONE = np.zeros((0, 4))


def box(*starts, side=10):
    """Squares in one row, from their start columns."""
    return np.array([[0, s, side, s + side] for s in starts], float).reshape(-1, 4)


def image(found, scores, reference):
    return ImageBoxes(found, np.asarray(scores, float), reference)


# ------------------------------------------------------------------------------------ matching


def test_the_best_score_takes_the_object_and_a_duplicate_is_false():
    # The second detection fits better but comes later.
    found = match_detections(box(2, 0), np.array([0.9, 0.8]), box(0), 0.5)
    assert found.reference.tolist() == [0, -1]
    assert found.iou.tolist() == pytest.approx([8 / 12, 0])
    found = match_detections(box(2, 0), np.array([0.8, 0.9]), box(0), 0.5)
    assert found.reference.tolist() == [-1, 0]


def test_a_detection_falls_back_on_a_free_reference_box():
    reference = box(0, 3)
    found = match_detections(box(1, 1), np.array([0.9, 0.8]), reference, 0.5)
    assert found.reference.tolist() == [0, 1]


def test_the_threshold_itself_matches_and_equal_scores_go_by_order():
    half = np.array([[0.0, 0, 10, 5]])
    assert match_detections(half, np.ones(1), box(0), 0.5).reference.tolist() == [0]
    assert match_detections(half, np.ones(1), box(0), 0.51).reference.tolist() == [-1]
    assert match_detections(box(1, 0), np.ones(2), box(0), 0.5).reference.tolist() == [0, -1]


def test_nothing_to_match():
    assert match_detections(NONE, np.zeros(0), box(0), 0.5).reference.tolist() == []
    assert match_detections(box(0), np.ones(1), NONE, 0.5).reference.tolist() == [-1]
    assert match_detections(np.zeros((1, 4)), np.ones(1), np.zeros((1, 4)), 0.5).reference == [-1]


def test_bad_arguments_are_refused():
    with pytest.raises(ValueError, match=r"\(2, 4\) boxes with \(1,\) scores"):
        match_detections(box(0, 1), np.ones(1), box(0), 0.5)
    with pytest.raises(ValueError, match="not finite"):
        match_detections(box(0), np.array([-np.inf]), box(0), 0.5)
    with pytest.raises(ValueError, match="threshold 0"):
        match_detections(box(0), np.ones(1), box(0), 0)


# --------------------------------------------------------------------------- average precision


def numpy_ap(scores, tp, references, points=None):
    """By thresholds: the precision at every score, then its upper envelope over recall."""
    recalls, precisions = [0.0], [0.0]
    for threshold in np.unique(scores)[::-1]:
        above = scores >= threshold
        recalls.append(tp[above].sum() / references)
        precisions.append(tp[above].mean())
    recalls, precisions = np.array(recalls), np.array(precisions)
    if points:
        levels = np.linspace(0, 1, points)
        return np.mean([max(precisions[recalls >= r - 1e-9], default=0) for r in levels])
    return sum((recalls[i] - recalls[i - 1]) * precisions[i:].max() for i in range(1, len(recalls)))


def test_average_precision_by_hand():
    # True, false, true of four objects: 1/4 at precision 1 and 1/4 at 2/3.
    found = average_precision([0.9, 0.8, 0.7], [1, 0, 1], [0, 0, 1], [1, 3])
    assert float(found) == pytest.approx(1 / 4 + 1 / 4 * 2 / 3)
    # COCO: recalls 0 to .25 are 26 points, .26 to .50 are 25.
    found = average_precision([0.9, 0.8, 0.7], [1, 0, 1], [0, 0, 1], [1, 3], points=101)
    assert float(found) == pytest.approx((26 + 25 * 2 / 3) / 101)


def test_average_precision_without_detections_or_objects():
    assert float(average_precision([], [], [], [2, 0])) == 0
    assert np.isnan(average_precision([0.5], [0], [0], [0]))
    assert np.isnan(average_precision([], [], [], [0]))
    assert float(average_precision([0.5, 0.4], [1, 1], [0, 0], [2])) == 1


SCORES = st.sampled_from([0.1, 0.2, 0.3, 0.5, 0.7, 0.9])
DETECTION = st.tuples(SCORES, st.integers(0, 1), st.integers(0, 2))


@settings(max_examples=60)
@given(
    st.lists(DETECTION, min_size=8, max_size=8),
    st.tuples(*[st.integers(0, 3)] * 3),
    st.sampled_from([None, 101]),
)
def test_average_precision_is_the_loop_and_weights_repeat_images(rows, weights, points):
    scores, tp, index = (np.array(column) for column in zip(*rows, strict=True))
    # One missed object in the first image, none in the others.
    references = np.array([tp[index == i].sum() + (i == 0) for i in range(3)])
    weights = np.array(weights)
    found = average_precision(scores, tp, index, references, weights, points)
    repeated = np.concatenate(
        [np.tile(np.flatnonzero(index == i), w) for i, w in enumerate(weights)]
    )
    repeated = repeated.astype(int)
    total = (references * weights).sum()
    if not total:
        assert np.isnan(found)
        return
    expected = numpy_ap(scores[repeated], tp[repeated], total, points)
    assert float(found) == pytest.approx(expected, abs=1e-5)


def test_padding_and_order_change_nothing_and_columns_of_weights_are_one_at_a_time():
    rng = np.random.default_rng(0)
    scores, tp = rng.integers(0, 9, 8) / 10, rng.integers(0, 2, 8)
    index, references = rng.integers(0, 3, 8), np.full(3, 6)
    plain = average_precision(scores, tp, index, references)
    order = rng.permutation(8)
    mixed = average_precision(scores[order], tp[order], index[order], references, np.ones(3))
    assert mixed == pytest.approx(plain, abs=1e-9)
    longer = [np.append(x, [y] * 3) for x, y in ((scores, -np.inf), (tp, 0), (index, 0))]
    padded = average_precision(*longer, references, np.ones(3))
    assert padded == pytest.approx(plain, abs=1e-9)
    weights = rng.integers(0, 3, (3, 4))
    for points in (None, 101):
        many = average_precision(scores, tp, index, references, weights, points)
        one_by_one = [
            average_precision(scores, tp, index, references, w, points) for w in weights.T
        ]
        np.testing.assert_allclose(many, one_by_one, atol=1e-9)


def test_recall_levels_are_reached_exactly():
    # k of 100 objects found and nothing else: k + 1 of the 101 levels, for k = 29 as for any.
    found = [
        average_precision(np.full(k, 0.5), np.ones(k), np.zeros(k, int), [100], points=101)
        for k in range(1, 101)
    ]
    np.testing.assert_allclose(found, np.arange(2, 102) / 101, rtol=1e-12)


def test_average_precision_of_distinct_scores_bounds_that_of_scikit_learn():
    """Scikit-learn does not interpolate; where precision only falls, nothing is to interpolate."""
    metrics = pytest.importorskip("sklearn.metrics", reason="scikit-learn is the reference")
    tp = np.array([1, 1, 1, 0, 1, 0, 0, 1])
    scores = np.linspace(1, 0, len(tp))
    ours = float(average_precision(scores, tp, np.zeros(8, int), [tp.sum()]))
    theirs = metrics.average_precision_score(tp, scores)
    assert ours == pytest.approx(theirs, abs=1e-6)
    tp = tp[::-1]
    ours = float(average_precision(scores, tp, np.zeros(8, int), [tp.sum()]))
    assert ours > metrics.average_precision_score(tp, scores)


# ----------------------------------------------------------------------------------- estimates


def value(figures, name):
    return figures[name]["value"]


def test_figures_by_hand():
    images = [
        image(box(0, 31, 60), [0.9, 0.8, 0.2], box(0, 30)),  # two pairs, one extra of low score
        image(NONE, [], box(0)),  # missed
        image(box(0), [0.7], NONE),  # invented
        image(box(2, 0), [0.95, 0.6], box(0)),  # a duplicate that fits better
    ]
    found = detection_estimates(images, list("abcd"), resamples=50, seed=0, confidence=0.5)
    assert list(found)[:3] == ["ap50", "ap75", "map"]
    json.dumps(found, allow_nan=False)
    # By score: pair .95 (IoU 8/12), pair .9 (1), pair .8 (9/11), then false ones; 4 objects.
    ap = {t / 100: 0.75 for t in range(50, 100, 5)}
    for t in ap:
        tp = [t <= 8 / 12, t <= 1, t <= 9 / 11, 0, t > 8 / 12, 0]
        ap[t] = numpy_ap(np.array([0.95, 0.9, 0.8, 0.7, 0.6, 0.2]), np.array(tp, float), 4)
    assert value(found, "ap50") == pytest.approx(0.75)
    assert value(found, "ap75") == pytest.approx(ap[0.75])
    assert value(found, "map") == pytest.approx(np.mean(list(ap.values())))
    assert value(found, "mean_iou") == pytest.approx((8 / 12 + 1 + 9 / 11) / 3)
    assert value(found, "share_iou_over_70") == pytest.approx(2 / 4)
    assert value(found, "mean_confidence") == pytest.approx((0.95 + 0.9 + 0.8) / 3)
    assert value(found, "share_confidence_over_90") == pytest.approx(1 / 4)  # .9 is not above
    assert value(found, "recall") == pytest.approx(3 / 4)
    assert value(found, "ppv") == pytest.approx(3 / 5)
    assert value(found, "f1") == pytest.approx(6 / 9)
    assert value(found, "extra_per_image") == pytest.approx(2 / 4)
    shares = (
        "ap50",
        "ap75",
        "map",
        "share_iou_over_70",
        "share_confidence_over_90",
        "recall",
        "f1",
    )
    assert {k: v["n"] for k, v in found.items()} == {
        **dict.fromkeys(shares, 4),
        "mean_iou": 3,
        "mean_confidence": 3,
        "ppv": 5,
        "extra_per_image": 4,
    }
    assert all(v["patients"] == 4 for v in found.values())


def test_a_perfect_detector_is_certain():
    images = [image(box(0, 20), [0.9, 0.8], box(0, 20)) for _ in range(6)]
    found = detection_estimates(images, [0, 0, 1, 1, 2, 2], resamples=50, seed=0, confidence=0.5)
    for name in ("ap50", "ap75", "map", "mean_iou", "share_iou_over_70", "recall", "ppv", "f1"):
        assert value(found, name) == 1
        assert found[name]["ci95"] == [1, 1]
    assert value(found, "extra_per_image") == 0
    assert found["ap50"]["patients"] == 3


def test_images_of_a_patient_come_and_go_together():
    # Patient a is found, b is not: a resample holds all, half or nothing of it.
    images = [image(box(0), [0.9], box(0))] * 3 + [image(NONE, [], box(0))] * 3
    found = detection_estimates(images, list("aaabbb"), resamples=200, seed=0, confidence=0.5)
    assert value(found, "recall") == pytest.approx(0.5)
    assert found["recall"]["ci95"] == [0, 1]
    assert found["ap50"]["ci95"] == [0, 1]


def test_undefined_figures_say_so():
    found = detection_estimates(
        [image(NONE, [], box(0)), image(NONE, [], NONE)], "ab", resamples=20, seed=0, confidence=0.5
    )
    assert value(found, "ap50") == 0
    assert value(found, "recall") == 0
    assert value(found, "mean_iou") is None
    assert found["ppv"]["why"] == "undefined on these cases"
    found = detection_estimates(
        [image(box(0), [0.9], NONE)] * 2, "ab", resamples=20, seed=0, confidence=0.5
    )
    assert value(found, "ap50") is None
    assert value(found, "ppv") == 0
    assert value(found, "extra_per_image") == 1


def test_bad_input_of_estimates():
    with pytest.raises(UserError, match="no cases"):
        detection_estimates([], [], resamples=5, seed=0, confidence=0.5)
    with pytest.raises(ValueError, match="1 images, but 2 patients"):
        detection_estimates([image(box(0), [0.9], box(0))], "ab", 5, 0, 0.5)
