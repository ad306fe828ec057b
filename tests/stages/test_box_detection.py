"""Examples and decoding of the detector, without its network."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mskjax.config import TrainConfig
from mskjax.errors import UserError
from mskjax.imaging import augment
from mskjax.imaging.geometry import resample
from mskjax.imaging.volume import Volume
from mskjax.stages import box_detection as bd

# Sagittal, 4 mm apart; pixels of 0.9 mm by 1.7 mm.
OBLONG = np.array([[-4.0, 0, 0, 7], [0, 0, -1.7, 50], [0, -0.9, 0, 20], [0, 0, 0, 1]])
BOXES = np.array([[10, 6, 20, 22], [30, 8, 41, 23], [50, 5, 58, 20], [12, 7, 21, 21]], np.float32)


def stage(most_boxes=4, canvas=(48, 40), **changes):
    options = bd.BoxDetectionOptions(
        spacing_mm=1.5,
        channels=("t2",),
        train=TrainConfig(steps=1, batch_size=1, warmup_steps=0),
        most_boxes=most_boxes,
        **changes,
    )
    return bd.BoxDetection("boxes", options, canvas)


def study(slices=(1, 1, 1, 2), boxed=(1, 1, 1, 1), levels=(3, 2, 1, 0)):
    image = np.random.default_rng(0).normal(50, 3, (4, 70, 30)).astype(np.float32)
    for number, (row0, col0, row1, col1) in zip(slices, BOXES.astype(int), strict=True):
        image[number, row0:row1, col0:col1] = 150
    return {
        "study_id": "s",
        "t2": image,
        "affine": OBLONG,
        "boxes": {
            "boxed": np.array(boxed),
            "slice": np.array(slices),
            "box": BOXES,
            "level": np.array(levels),
        },
    }


def perfect(examples, slices):
    """What a detector would say that finds the boxes of the examples, surest first."""
    boxes = np.zeros((4, 4, 4), np.float32)
    valid = np.zeros((4, 4), bool)
    for row, number in enumerate(slices):
        boxes[number], valid[number] = examples["boxes"][row], examples["labels"][row] > 0
    scores = np.where(valid, [0.9, 0.8, 0.7, 0.6], 0.99).astype(np.float32)
    p = np.zeros((4, 4, 2), np.float32)
    p[:, 0, bd.LOWEST - 1], p[:, 1:, bd.OTHER - 1] = scores[:, 0], scores[:, 1:]
    return {"boxes": boxes, "valid": valid, "scores": scores, "probabilities": p}


def test_examples_are_the_boxed_slices_and_boxes_lie_round_what_is_bright():
    examples = stage().training_examples(study(boxed=(1, 1, 0, 1)))
    assert examples["image"].shape == (2, 48, 40, 1)
    np.testing.assert_array_equal(examples["labels"], [[1, 1, 0, 0], [2, 0, 0, 0]])
    assert not examples["boxes"][examples["labels"] == 0].any()
    for number, row in ((0, 0), (0, 1), (1, 0)):
        row0, col0, row1, col1 = np.rint(examples["boxes"][number, row]).astype(int)
        image = examples["image"][number, ..., 0]
        # Both in millimetres: rows of .9 and columns of 1.7 become 1.5.
        assert (row1 - row0) * 1.5 == pytest.approx(0.9 * 10, abs=1.6)
        inner = image[row0 + 1 : row1 - 1, col0 + 1 : col1 - 1]
        around = image[row0 - 2 : row1 + 2, col0 - 2 : col1 + 2].copy()
        around[1:-1, 1:-1] = -9
        assert inner.min() > 1 > around.max()


def test_decoding_undoes_what_training_examples_did_to_boxes():
    made, own = stage(), study()
    found = made.decode(own, perfect(made.training_examples(own), (1, 2)))
    assert found.slice == 1
    np.testing.assert_allclose(found.boxes, BOXES[2::-1], atol=1e-3)  # the lowest first
    np.testing.assert_allclose(found.scores, [0.9, 0.8, 0.7])
    np.testing.assert_allclose(found.lowest, [1, 0, 0])


def test_a_row_that_begins_higher_up_has_no_lowest_disc():
    examples = stage().training_examples(study(levels=(5, 4, 3, 2)))
    np.testing.assert_array_equal(examples["labels"], [[1, 1, 1, 0], [1, 0, 0, 0]])


def test_the_slice_with_the_largest_sum_of_valid_scores_is_handed_on():
    made, own = stage(), study()
    outputs = perfect(made.training_examples(own), (1, 2))
    outputs["valid"][1] = [True, False, False, False]
    outputs["scores"][2, 0] = 0.95
    found = made.decode(own, outputs)
    assert found.slice == 2
    np.testing.assert_allclose(found.boxes, BOXES[3:], atol=1e-3)
    outputs["valid"][:] = False
    assert made.decode(own, outputs).boxes.shape == (0, 4)


def test_detections_are_cut_at_the_border_of_the_native_image():
    made, own = stage(), study()
    outputs = perfect(made.training_examples(own), (1, 2))
    outputs["boxes"][1, 0] = (-9, -9, 90, 90)
    np.testing.assert_allclose(made.decode(own, outputs).boxes[0], (0, 0, 70, 30))


@given(
    st.lists(st.floats(-50, 300), min_size=4, max_size=4),
    st.floats(0.3, 3),
    st.floats(0.3, 3),
    st.floats(0.4, 4),
)
@settings(max_examples=50)
def test_boxes_come_back_from_another_grid(box, rows_mm, cols_mm, spacing):
    affine = OBLONG @ np.diag([1, rows_mm / 0.9, cols_mm / 1.7, 1])
    volume = resample(Volume(np.zeros((2, 9, 7), np.float32), affine), (None, spacing, spacing))
    there = bd.on_grid(np.array([box]), affine, volume.affine)
    np.testing.assert_allclose(bd.on_grid(there, volume.affine, affine), [box], atol=2e-3)
    # Edges of a pixel are half a pixel beside its centre, in millimetres of either grid.
    pixel = bd.on_grid(np.array([[3, 4, 4, 5]]), affine, volume.affine)[0]
    size = np.array([rows_mm, cols_mm]) / spacing
    np.testing.assert_allclose(pixel[2:] - pixel[:2], size, rtol=1e-3)
    centre = np.linalg.inv(volume.affine) @ affine @ [0, 3, 4, 1]
    np.testing.assert_allclose((pixel[:2] + pixel[2:] - 1) / 2, centre[1:3], atol=1e-4)


def test_a_study_without_boxes_trains_nothing_and_is_still_read():
    made, own = stage(), study(boxed=(0, 0, 0, 0))
    assert made.training_examples(own) is None
    examples = made.inference_examples(own)
    assert examples["image"].shape == (4, 48, 40, 1)
    assert not examples["labels"].any()


def test_too_many_boxes_are_refused_by_name():
    with pytest.raises(UserError, match=r"s: slice 1 has 3 boxes; raise most_boxes \(2\)"):
        stage(most_boxes=2).training_examples(study())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"augmentation": augment.SliceAugmentation(flip=0.5)}, "flip must be 0"),
        ({"confidence": 1.0}, r"confidence is 1.0; it must be in \[0, 1\)"),
    ],
)
def test_bad_options_are_refused(changes, message):
    with pytest.raises(UserError, match=message):
        stage(**changes)


def test_augmentation_moves_each_box_with_its_own_image():
    still = dict.fromkeys(augment.SliceAugmentation.__dataclass_fields__, 0.0)
    made = stage(augmentation=augment.SliceAugmentation(**still | {"translation": 0.2}))
    image = np.zeros((2, 40, 40, 1), np.float32)
    image[:, 15:25, 12:28] = 1
    boxes = np.tile(np.array([[15, 12, 25, 28], [0, 0, 0, 0]], np.float32), (2, 1, 1))
    batch = {"image": jnp.asarray(image), "boxes": jnp.asarray(boxes), "labels": jnp.ones((2, 2))}
    batch["tilts"] = jnp.zeros((2, 2), jnp.float32)
    moved = jax.jit(made.augment)(jax.random.split(jax.random.key(0), 2), batch, made.hyper())
    own = np.asarray(moved["boxes"])
    assert np.abs(own[0, 0] - own[1, 0]).max() > 1
    assert not own[:, 1].any()
    for picture, box in zip(np.asarray(moved["image"])[..., 0], own[:, 0], strict=True):
        rows, cols = np.nonzero(picture > 0.5)
        edges = (rows.min(), cols.min(), rows.max() + 1, cols.max() + 1)
        np.testing.assert_allclose(box, edges, atol=0.51)


def test_detectors_that_differ_in_recipe_or_strengths_are_traced_alike():
    other = stage(augmentation=augment.SliceAugmentation(gain=0.5, flip=0.0))
    assert other != stage()
    assert other.traced() == stage().traced()
    assert other.hyper() == {"augmentation": augment.SliceAugmentation(gain=0.5, flip=0.0)}
    assert stage(most_boxes=5).traced() != stage().traced()


def detections(*boxes, scores, classes=2):
    boxes = np.array(boxes, np.float32).reshape(-1, 4)
    scores = np.array(scores, np.float32)
    p = np.zeros((len(boxes), classes), np.float32)
    p[:, 0] = scores
    return {
        "boxes": boxes, "scores": scores, "probabilities": p, "valid": np.ones(len(boxes), bool),
    }  # fmt: skip


def test_boxes_of_two_detectors_become_one():
    one = detections((0, 0, 10, 10), (30, 0, 40, 10), scores=(0.9, 0.4))
    two = detections((1, 1, 11, 11), (60, 0, 70, 10), scores=(0.6, 0.5))
    found = bd.fused([one, two])
    # By hand: the first of each overlap by .68 (weights .9 and .6), the others stand alone.
    np.testing.assert_allclose(found["boxes"][0], np.array([0.4, 0.4, 10.4, 10.4]), atol=1e-5)
    np.testing.assert_allclose(found["scores"], [0.75, 0.25, 0.2], atol=1e-6)
    np.testing.assert_allclose(found["boxes"][1], (60, 0, 70, 10))
    np.testing.assert_allclose(found["probabilities"][:, 0], found["scores"], atol=1e-6)


def test_two_boxes_of_one_detector_never_become_one():
    one = detections((0, 0, 10, 10), (0, 1, 10, 11), scores=(0.9, 0.8))
    assert len(bd.fused([one, detections(scores=())])["scores"]) == 2


@settings(max_examples=20)
@given(st.integers(0, 2**32 - 1), st.integers(1, 4))
def test_detectors_that_agree_change_nothing(seed, count):
    made, own = stage(), study()
    outputs = perfect(made.training_examples(own), (1, 2))
    rng = np.random.default_rng(seed)
    kept = rng.random(outputs["valid"].shape) < 0.8
    outputs["valid"] = outputs["valid"] & kept
    alone, together = made.decode(own, outputs), made.decode(own, made.combine([outputs] * count))
    assert alone.slice == together.slice
    np.testing.assert_allclose(alone.boxes, together.boxes, rtol=1e-5)
    np.testing.assert_allclose(alone.scores, together.scores, rtol=1e-5)
    np.testing.assert_allclose(alone.lowest, together.lowest, rtol=1e-5)
