"""Squares around boxes, the choice of a 2-D network, and that it learns from its crops."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from stages.fitting import fitted, view_of

from mskjax.config import TrainConfig
from mskjax.errors import UserError
from mskjax.evaluation import predict
from mskjax.imaging.augment import SliceAugmentation
from mskjax.imaging.intensity import standardised
from mskjax.models.resnet import ResNet
from mskjax.models.vgg import VGG
from mskjax.stages.grading import Head
from mskjax.stages.image_grading import (
    ImageGrading,
    ImageGradingOptions,
    NetworkOptions,
    bounding_box,
    square_crops,
)

# Pixels of 1 mm by 2 mm, slices 5 mm apart.
AFFINE = np.array([[-5.0, 0, 0, 7], [0, 0, -2.0, 50], [0, -1.0, 0, 20], [0, 0, 0, 1]])
STILL = SliceAugmentation(*[0.0] * 10)
VGG_TINY = NetworkOptions(
    "vgg19", norm="batch", width=4, blocks=(1, 1, 1, 1, 1), hidden=8, pool=(1, 1), dropout=0.0
)


class Grader(ImageGrading):
    def training_examples(self, study):
        raise NotImplementedError


def grader(**changes):
    options = {
        "crop": (32, 32),
        "model": VGG_TINY,
        "heads": ("bright",),
        "train": TrainConfig(30, batch_size=8, learning_rate=0.01, warmup_steps=2),
        "augmentation": STILL,
    } | changes
    return Grader("grades", ImageGradingOptions(**options), (Head("bright", 2),))


def volume(seed=0):
    return np.random.default_rng(seed).normal(100, 10, (5, 60, 40)).astype(np.float32)


def test_a_box_that_is_square_in_millimetres_is_cut_pixel_by_pixel():
    image = volume()
    image[2, 20:40, 10:20] += 200  # 20 mm by 20 mm
    (crop,) = square_crops(image, AFFINE, np.array([2]), (20, 10, 40, 20), 0.0, (20, 10))
    np.testing.assert_allclose(crop, image[2, 20:40, 10:20], rtol=1e-5)


def test_the_longer_side_and_the_margin_set_the_size_and_the_region_is_in_the_middle():
    image = np.zeros((1, 60, 40), np.float32)
    image[0, 24:32, 14:20] = 1  # 8 mm by 12 mm
    (crop,) = square_crops(image, AFFINE, np.array([0]), (24, 14, 32, 20), 0.5, (48, 48))
    # 12 mm with half of it on each side is 24 mm: two pixels a millimetre.
    rows, cols = np.nonzero(crop > 0.5)
    assert (rows.min(), rows.max() + 1) == pytest.approx((16, 32), abs=1)
    assert (cols.min(), cols.max() + 1) == pytest.approx((12, 36), abs=2)


def test_slices_beyond_the_stack_give_the_outermost_and_outside_is_the_least_value():
    image = volume() - 300
    box = (0.0, 0.0, 20.0, 10.0)
    crops = square_crops(image, AFFINE, np.array([-1, 0, 4, 9]), box, 0.0, (20, 10))
    np.testing.assert_array_equal(crops[0], crops[1])
    np.testing.assert_array_equal(crops[2], crops[3])
    assert not np.array_equal(crops[1], crops[2])
    (wide,) = square_crops(image, AFFINE, np.array([2]), box, 0.5, (40, 20))
    np.testing.assert_allclose(wide[:9], image.min(), rtol=1e-5)
    np.testing.assert_allclose(wide[10:30, 5:15], image[2, :20, :10], rtol=1e-4)


@settings(max_examples=20)
@given(
    row=st.integers(0, 50), col=st.integers(0, 30), rows=st.integers(1, 9), cols=st.integers(1, 9)
)
def test_a_bounding_box_holds_the_mask_and_no_more(row, col, rows, cols):
    mask = np.zeros((60, 40), bool)
    mask[row : row + rows, col : col + cols] = True
    row0, col0, row1, col1 = (int(v) for v in bounding_box(mask))
    assert mask[row0:row1, col0:col1].all()
    assert mask[row0:row1, col0:col1].sum() == mask.sum()


def test_standardised_images_differ_in_neither_level_nor_outliers():
    image = volume()
    found = standardised(image)
    assert found.dtype == np.float32
    assert (found.mean(), found.std()) == pytest.approx((0, 1), abs=1e-4)
    np.testing.assert_allclose(standardised(7 * image - 3), found, atol=1e-4)
    image[0, 0, 0] = 1e6
    assert np.abs(standardised(image)[1:] - found[1:]).max() < 0.05


def test_the_named_network_is_built_at_its_size():
    heads = (("a", 2), ("b", 3))
    vgg = NetworkOptions("vgg19").build(heads)
    assert isinstance(vgg, VGG)
    assert (vgg.widths, vgg.convolutions) == ((64, 128, 256, 512, 512), (2, 2, 4, 4, 4))
    resnet = NetworkOptions("resnet50", width=8, norm="group").build(heads)
    assert isinstance(resnet, ResNet)
    assert (resnet.width, resnet.blocks, resnet.heads) == (8, (3, 4, 6, 3), heads)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"margin": -0.1}, "margin is -0.1; it must not be negative"),
        ({"crop": (31, 64)}, "vgg19 needs at least 32 rows and columns"),
        ({"heads": ("a", "a")}, "each may be named once"),
    ],
)
def test_bad_options_are_refused(change, message):
    with pytest.raises(UserError, match=message):
        grader(**change)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"name": "resnet50", "norm": "none"}, "resnet50 needs 'batch' or 'group'"),
        ({"name": "vgg19", "blocks": (1, 1)}, "vgg19 has 5 groups of at least one"),
        ({"name": "resnet50", "blocks": (1, 0, 1, 1)}, "resnet50 has 4 groups"),
    ],
)
def test_bad_networks_are_refused(options, message):
    with pytest.raises(UserError, match=message):
        NetworkOptions(**options)


def crops(n=8):
    image = np.random.default_rng(1).normal(0, 0.3, (n, 32, 32, 2)).astype(np.float32)
    label = np.arange(n, dtype=np.int32) % 2
    image[label == 1, 10:22, 10:22] += 2
    return {"image": image, "target_bright": label}


def test_a_view_changes_the_image_and_keeps_its_label():
    examples = crops()
    still = view_of(grader(), examples)
    np.testing.assert_array_equal(still["image"], examples["image"])  # to the last bit
    view = view_of(grader(augmentation=SliceAugmentation()), examples)
    assert (np.abs(view["image"] - examples["image"]).max((1, 2, 3)) > 0.05).all()
    np.testing.assert_array_equal(view["target_bright"], examples["target_bright"])
    middle = view["image"][:, 12:20, 12:20].mean((1, 2, 3))
    assert middle[1::2].min() > 1 > middle[::2].max()


def test_channels_move_together():
    examples = crops()
    examples["image"][..., 1] = examples["image"][..., 0]
    view = view_of(
        grader(augmentation=dataclasses.replace(SliceAugmentation(), noise=0.0)), examples
    )
    np.testing.assert_allclose(view["image"][..., 0], view["image"][..., 1], atol=1e-5)


def test_it_learns_what_its_crops_show_and_says_where_it_looked():
    examples, made = crops(), grader(augmentation=SliceAugmentation())
    program, variables, losses = fitted(made, examples)
    assert losses[-5:].mean() < 0.3 * losses[:3].mean()
    found = predict(program, variables, {"image": examples["image"]})
    assert found["bright"].shape == (8, 2)
    assert found["bright"].argmax(1).tolist() == examples["target_bright"].tolist()
    # The last map is coarse, and so is what it says.
    assert found["attention"].shape == (8, 2, 2)
    assert found["attention"].dtype == np.float32
    assert found["attention"].min() >= 0


def test_without_a_file_of_weights_it_starts_from_random_ones():
    made, variables = grader(), {"params": {"kernel": np.ones(3)}}
    made.check_weights(2)
    assert made.initial(variables) == (variables, [])
