"""The crop of the largest region of a mask, on the slice that shows most of it."""

import numpy as np
import pytest

from mskjax.config import TrainConfig
from mskjax.imaging.intensity import standardised
from mskjax.stages.grading import Head
from mskjax.stages.image_grading import ImageGradingOptions, NetworkOptions
from mskjax.stages.region_grading import RegionGrading, largest_region

AFFINE = np.array([[-5.0, 0, 0, 7], [0, 0, -1.0, 50], [0, -1.0, 0, 20], [0, 0, 0, 1]])
HEADS = (
    Head("goutallier", 5),
    Head("task_a", 2, column="goutallier", grouped=(0, 0, -1, 1, 1)),
)


def stage(heads=HEADS, margin=0.0):
    options = ImageGradingOptions(
        crop=(32, 32),
        model=NetworkOptions("vgg19", width=2),
        heads=tuple(h.name for h in heads),
        train=TrainConfig(1, batch_size=1, warmup_steps=0),
        margin=margin,
    )
    return RegionGrading("grades", options, heads)


def study(**fields):
    mask = np.zeros((4, 70, 60), np.uint8)
    mask[1:3, 20:52, 14:46] = 1
    mask[2, 18:20, 14:46] = 1
    mask[0, :8, :8] = 1  # another, smaller region
    image = np.random.default_rng(0).normal(50, 5, mask.shape).astype(np.float32)
    own = {"image": image, "mask": mask, "has_mask": True, "affine": AFFINE}
    return own | {"study_id": "s", "goutallier": 3} | fields


def test_the_largest_region_on_the_slice_that_shows_most_of_it():
    assert largest_region(study()["mask"]) == (2, (18.0, 14.0, 52.0, 46.0))
    assert largest_region(np.zeros((2, 9, 9), np.uint8)) is None
    speck = np.zeros((2, 9, 9), np.uint8)
    speck[0, :3, :3] = 1
    assert largest_region(speck) is None  # 9 pixels are noise
    speck[1, 0, 0] = 1
    assert largest_region(speck) == (0, (0.0, 0.0, 3.0, 3.0))


def test_the_crop_is_the_square_of_the_whole_image_standardised():
    own = study()
    crop = stage().cut(own, (1, (20.0, 14.0, 52.0, 46.0)))["image"]
    assert crop.shape == (1, 32, 32, 1)
    assert crop.dtype == np.float32
    expected = standardised(own["image"])[1, 20:52, 14:46]
    np.testing.assert_allclose(crop[0, ..., 0], expected, atol=1e-4)
    assert stage().cut(own, None)["image"].shape == (0, 32, 32, 1)


def test_an_example_has_the_classes_of_its_grade_in_every_head():
    examples = stage().training_examples(study())
    assert examples["case"].tolist() == ["s"]
    assert examples["target_goutallier"].tolist() == [3]
    assert examples["target_task_a"].tolist() == [1]
    # A grade that one head leaves out is still a label of the other.
    assert stage().training_examples(study(goutallier=2))["target_task_a"].tolist() == [-1]


@pytest.mark.parametrize(
    "missing",
    [{"has_mask": False}, {"goutallier": -1}, {"mask": np.zeros((4, 70, 60), np.uint8)}],
)
def test_without_region_or_label_there_is_no_example(missing):
    assert stage().training_examples(study(**missing)) is None


def test_a_study_whose_only_label_is_left_out_is_no_example():
    assert stage(HEADS[1:]).training_examples(study(goutallier=2)) is None
