import numpy as np
import pytest
from sklearn import metrics as sk

from mskjax.metrics import segmentation as s

RNG = np.random.default_rng(3)
REFERENCE = RNG.integers(0, 4, (5, 12, 9)).astype(np.uint8)
PREDICTED = np.where(RNG.random(REFERENCE.shape) < 0.6, REFERENCE, 2).astype(np.uint8)
EMPTY, SOME = np.zeros((4, 4), np.uint8), np.eye(4, dtype=np.uint8)


def test_confusion_counts_agree_with_scikit_learn():
    ours = s.confusion_counts(REFERENCE, PREDICTED, 4)
    np.testing.assert_array_equal(ours, sk.confusion_matrix(REFERENCE.ravel(), PREDICTED.ravel()))


def test_confusion_counts_do_not_overflow_small_label_types():
    reference = np.full((3, 3), 29, np.uint8)  # pair code 29 * 30 + 28 does not fit uint8
    counts = s.confusion_counts(reference, reference - np.uint8(1), 30)
    assert counts[29, 28] == 9
    assert counts.sum() == 9


@pytest.mark.parametrize("label", range(4))
def test_ratios_agree_with_scikit_learn(label):
    expected, found = REFERENCE.ravel() == label, PREDICTED.ravel() == label
    counts = s.counts_of(s.confusion_counts(REFERENCE, PREDICTED, 4), label)
    assert s.dice(counts) == pytest.approx(sk.f1_score(expected, found))
    assert s.iou(counts) == pytest.approx(sk.jaccard_score(expected, found))
    assert s.ppv(counts) == pytest.approx(sk.precision_score(expected, found))
    assert s.sensitivity(counts) == pytest.approx(sk.recall_score(expected, found))
    assert s.pixel_accuracy(counts) == pytest.approx(sk.accuracy_score(expected, found))


@pytest.mark.parametrize(
    ("reference", "predicted", "dice", "ppv", "sensitivity"),
    [
        (EMPTY, EMPTY, np.nan, np.nan, np.nan),
        (EMPTY, SOME, 0, 0, np.nan),
        (SOME, EMPTY, 0, np.nan, 0),
    ],
)
def test_empty_masks_follow_the_stated_rule(reference, predicted, dice, ppv, sensitivity):
    counts = s.counts_of(s.confusion_counts(reference, predicted, 2), 1)
    np.testing.assert_equal(float(s.dice(counts)), dice)
    np.testing.assert_equal(float(s.iou(counts)), dice)
    np.testing.assert_equal(float(s.ppv(counts)), ppv)
    np.testing.assert_equal(float(s.sensitivity(counts)), sensitivity)
    assert s.pixel_accuracy(counts) == (1 if np.isnan(dice) else 0.75)


def test_ratios_work_on_arrays_of_counts():
    counts = s.Counts(*(np.array(x) for x in ([1, 0], [1, 0], [0, 0], [2, 4])))
    np.testing.assert_allclose(s.dice(counts), [2 / 3, np.nan])
    np.testing.assert_allclose(s.pixel_accuracy(counts), [0.75, 1.0])


def test_mean_leaves_absent_structures_out_and_says_how_many_remain():
    values, weights = [0.5, np.nan, 1.0, 0.0], [1.0, 2.0, 3.0, 0.0]
    assert s.mean_over_cases(values) == 0.5
    assert s.cases_defined(values) == 3
    assert s.mean_over_cases(values, weights) == (0.5 + 3.0) / 4
    assert s.cases_defined(values, weights) == 4
    assert np.isnan(s.mean_over_cases([np.nan]))
    assert s.mean_over_cases([1.0, np.inf], [1.0, 0.0]) == 1.0
    assert s.mean_over_cases([1.0, np.inf]) == np.inf


def test_labels_outside_the_classes_are_named():
    with pytest.raises(ValueError, match="predicted mask holds labels 0 to 7, outside 0 to 3"):
        s.confusion_counts(EMPTY, EMPTY + np.diag([0, 0, 0, 7]), 4)
    with pytest.raises(ValueError, match="reference mask holds labels -1"):
        s.confusion_counts(EMPTY.astype(int) - 1, EMPTY, 4)


def test_masks_of_different_shape_are_refused():
    with pytest.raises(ValueError, match=r"\(4, 4\) but prediction \(4, 3\)"):
        s.confusion_counts(EMPTY, EMPTY[:, :3], 1)
