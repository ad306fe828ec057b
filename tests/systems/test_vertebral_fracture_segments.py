"""One abnormal segment: what is annotated, what is proposed, and the six channels of its crop."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mskjax.config import TrainConfig
from mskjax.errors import UserError
from mskjax.imaging.intensity import standardised
from mskjax.stages.grading import Head
from mskjax.stages.image_grading import NetworkOptions
from mskjax.stages.slice_segmentation import SliceSegmentationOptions, UNetOptions
from mskjax.systems.vertebral_fracture import segments as sg

AFFINE = np.array([[-4.0, 0, 0, 7], [0, 0, -1.0, 50], [0, -1.0, 0, 20], [0, 0, 0, 1]])
BOX = (20.0, 10.0, 52.0, 42.0)
RECIPE = TrainConfig(1, batch_size=1, warmup_steps=0)


def detection(spacing=1.0):
    options = SliceSegmentationOptions(
        spacing_mm=spacing, patch=(16, 16), model=UNetOptions((4, 8)), train=RECIPE
    )
    return sg.SegmentDetection("segments", options, ("segment",), (72, 56))


def grading(scored_slices=3):
    options = sg.SegmentGradingOptions(
        crop=(32, 32),
        model=NetworkOptions("resnet50", width=8),
        heads=("label",),
        train=RECIPE,
        margin=0.0,
        scored_slices=scored_slices,
    )
    return sg.SegmentGrading("grades", options, (Head("label", 2),))


def study(number=3, label=1, slices=7):
    rng = np.random.default_rng(0)
    t1, t2 = (rng.normal(m, 5, (slices, 70, 56)).astype(np.float32) for m in (50, 90))
    own = {"t1": t1, "t2": t2, "affine": AFFINE, "study_id": "s"}
    return own | {"slice": number, "box": np.array(BOX), "label": label}


def test_only_the_annotated_slice_and_its_neighbours_teach_the_detector():
    examples = detection().training_examples(study())
    assert examples["image"].shape == (3, 72, 56, 2)
    expected = np.zeros((72, 56), np.uint8)
    expected[20:52, 10:42] = 255
    for label in examples["label"]:
        np.testing.assert_array_equal(label[..., 0], expected)
    own = detection().inference_examples(study())["image"]
    np.testing.assert_array_equal(examples["image"], own[2:5])


@pytest.mark.parametrize(("number", "known"), [(0, [0, 1]), (6, [5, 6]), (3, [2, 3, 4])])
def test_there_are_no_neighbours_beyond_the_stack(number, known):
    mask, found = detection().reference(study(number))
    assert found.tolist() == known
    assert np.flatnonzero(mask.any((1, 2))).tolist() == known


def test_channels_are_three_slices_of_t1_then_of_t2_around_each_scored_slice():
    own = study()
    crops = grading().cut(own, (3, BOX))["image"]
    assert crops.shape == (3, 32, 32, 6)
    assert crops.dtype == np.float32
    for scored, middle in enumerate((2, 3, 4)):
        for channel in range(6):
            name, number = sg.SEQUENCES[channel // 3], middle - 1 + channel % 3
            expected = standardised(own[name])[number, 20:52, 10:42]
            np.testing.assert_allclose(crops[scored, ..., channel], expected, atol=1e-4)
    assert grading(1).cut(own, (3, BOX))["image"].shape == (1, 32, 32, 6)
    assert grading().cut(own, None)["image"].shape == (0, 32, 32, 6)


def test_at_the_end_of_the_stack_the_outermost_slice_is_repeated():
    crops = grading(1).cut(study(), (0, BOX))["image"]
    np.testing.assert_array_equal(crops[..., 0], crops[..., 1])
    assert not np.array_equal(crops[..., 1], crops[..., 2])


def test_every_scored_slice_has_the_label_and_the_id_of_its_patient():
    examples = grading().training_examples(study())
    assert examples["target_label"].tolist() == [1, 1, 1]
    assert examples["case"].tolist() == ["s"] * 3
    assert grading().training_examples(study(label=-1)) is None


@pytest.mark.parametrize("number", [0, 2, -1])
def test_an_even_number_of_slices_has_no_middle(number):
    with pytest.raises(UserError, match=f"scored_slices is {number}; it must be odd"):
        grading(number)


def test_the_largest_region_is_proposed_on_its_middle_slice():
    mask = np.zeros((7, 70, 56), np.uint8)
    mask[2:5, 20:40, 10:30] = 1
    mask[5, 22:40, 12:30] = 1
    mask[0, 60:65, 40:45] = 1
    assert sg.propose(mask) == (3, (20.0, 10.0, 40.0, 30.0))
    mask[:] = 0
    assert sg.propose(mask) is None
    mask[1, 0, :9] = 1
    assert sg.propose(mask) is None  # 9 pixels are noise


@given(st.integers(0, 12), st.integers(0, 12))
def test_overlap_of_boxes_is_counted_in_pixels(down, right):
    a, b = (0.0, 0.0, 8.0, 10.0), (down, right, down + 8.0, right + 10.0)
    grids = [np.zeros((24, 24), bool) for _ in range(2)]
    grids[0][:8, :10] = grids[1][down : down + 8, right : right + 10] = True
    expected = (grids[0] & grids[1]).sum() / (grids[0] | grids[1]).sum()
    assert sg.box_iou(a, b) == pytest.approx(expected)
    assert sg.box_iou(b, a) == sg.box_iou(a, b)
    # Found is what has its middle in the reference, on whatever slice.
    assert sg.hit((1, b), (5, a)) == (down + 4 < 8 and right + 5 < 10)


def test_boxes_without_area_do_not_overlap():
    assert sg.box_iou((1, 1, 1, 1), (1, 1, 1, 1)) == 0


def test_hand_features_are_signals_inside_the_box_and_its_shape():
    own = study()
    own["t1"][3, 20:36, 10:42] += 100
    features = sg.hand_features(own, (3, (20.0, 10.0, 36.0, 42.0)))
    assert features.shape == (7,)
    inside = standardised(own["t1"])[3, 20:36, 10:42]
    np.testing.assert_allclose(
        features[:3], [inside.mean(), inside.std(), np.percentile(inside, 90)], rtol=1e-5
    )
    assert features[0] > features[3] + 1
    assert features[6] == 0.5
