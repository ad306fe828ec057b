"""The U-Net's examples, its decoding, and that what it trains on stays together."""

import dataclasses

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from stages.fitting import fitted, view_of

from mskjax.config import TrainConfig
from mskjax.evaluation import predict
from mskjax.imaging.augment import SliceAugmentation
from mskjax.stages.slice_segmentation import (
    SliceSegmentation,
    SliceSegmentationOptions,
    UNetOptions,
    canvas,
)

# Sagittal, 4 mm apart; pixels of 1 mm by 2 mm.
AFFINE = np.array([[-4.0, 0, 0, 7], [0, 0, -2.0, 50], [0, -1.0, 0, 20], [0, 0, 0, 1]])
STILL = SliceAugmentation(*[0.0] * 10)
STRUCTURES = ("upper", "lower")


def stage(spacing=2.0, patch=(16, 16), size=(24, 24), augmentation=STILL, steps=40, **fields):
    options = SliceSegmentationOptions(
        spacing_mm=spacing,
        patch=patch,
        model=UNetOptions((4, 8)),
        train=TrainConfig(steps, batch_size=8, learning_rate=0.05, warmup_steps=2),
        augmentation=augmentation,
    )
    return SliceSegmentation("regions", options, STRUCTURES, size, **fields)


def study(slices=4, **fields):
    mask = np.zeros((slices, 40, 18), np.uint8)
    mask[:3, 6:16, 4:13], mask[:, 24:36, 5:11] = 1, 2
    noise = np.random.default_rng(0).normal(0, 4, mask.shape)
    image = (40 + 100 * (mask == 1) + 60 * (mask == 2) + noise).astype(np.float32)
    return {"image": image, "mask": mask, "has_mask": True, "affine": AFFINE, **fields}


def certain(label):
    return {"probabilities": np.asarray(jax.nn.one_hot(label, 3), np.float16)}


def dice(a, b):
    return 2 * (a & b).sum() / (a.sum() + b.sum())


def test_examples_are_the_slices_at_network_spacing_with_the_label_on_its_image():
    examples = stage().training_examples(study())
    assert examples["image"].shape == (4, 24, 24, 1)
    assert examples["image"].dtype == np.float32
    assert examples["label"].shape == (4, 24, 24)
    assert examples["label"].dtype == np.uint8
    # Rows of 1 mm become 2 mm: 40 rows are 20, the rest of the canvas is padding.
    np.testing.assert_array_equal(np.unique(np.nonzero(examples["label"][0] == 1)[0]), range(3, 8))
    np.testing.assert_array_equal(np.unique(np.nonzero(examples["label"][3])[0]), range(12, 18))
    bright = [examples["image"][..., 0][examples["label"] == c].mean() for c in range(3)]
    assert bright[0] < bright[2] - 0.5 < bright[1] - 1
    assert not examples["label"][:, 20:].any()
    assert (examples["image"][:, 20:] == examples["image"].min()).all()


def test_intensities_are_normalised_over_the_volume_not_the_slice():
    own = study()
    image = stage(size=(20, 18)).inference_examples(own)["image"]
    assert abs(image.mean()) < 1e-5
    assert image.std() == pytest.approx(1, abs=1e-4)
    assert abs(image[3].mean()) > 0.05
    brighter = stage(size=(20, 18)).inference_examples(own | {"image": 3 * own["image"] + 5})
    np.testing.assert_allclose(brighter["image"], image, atol=1e-4)


def test_channels_are_the_named_volumes_in_their_order():
    t1, t2 = study()["image"], 200 - study()["image"]
    examples = stage(channels=("t2", "t1")).inference_examples(study(t1=t1, t2=t2))
    assert examples["image"].shape == (4, 24, 24, 2)
    alone = stage(channels=("t1",)).inference_examples(study(t1=t1))["image"][..., 0]
    np.testing.assert_array_equal(examples["image"][..., 1], alone)
    assert np.corrcoef(examples["image"][:, :20, :18, 0].ravel(), alone[:, :20, :18].ravel())[
        0, 1
    ] == pytest.approx(-1, abs=1e-3)


def test_a_study_without_a_mask_is_read_but_not_trained_on():
    own = study(has_mask=False)
    assert stage().training_examples(own) is None
    assert stage().inference_examples(own)["image"].shape == (4, 24, 24, 1)


@pytest.mark.parametrize(("spacing", "least"), [(1.0, 0.95), (2.0, 0.97), (3.0, 0.8)])
def test_decoding_puts_the_label_back_on_the_native_grid(spacing, least):
    own, made = study(), stage(spacing, size=(48, 48))
    outputs = certain(made.training_examples(own)["label"])
    found = made.decode(own, outputs)
    assert found.shape == own["mask"].shape
    assert found.dtype == np.uint8
    for label in (1, 2):
        assert dice(found == label, own["mask"] == label) > least
    # What the network says of the padding is outside the study.
    outputs["probabilities"][:, -(-40 // int(spacing)) + 1 :] = (0, 1, 0)
    np.testing.assert_array_equal(made.decode(own, outputs), found)


def test_the_loss_of_a_study_is_small_where_the_network_is_right():
    own, made = study(), stage()
    label = made.training_examples(own)["label"]
    right, wrong = (made.mean_loss(own, certain(v)) for v in (label, (label + 1) % 3))
    assert right < 0.01 < 5 < wrong
    assert np.isnan(made.mean_loss(study(has_mask=False), certain(label)))


@settings(max_examples=20)
@given(
    shapes=st.lists(st.tuples(st.integers(1, 60), st.integers(1, 60)), min_size=1, max_size=3),
    spacing=st.floats(0.5, 4.0),
    multiple=st.sampled_from([1, 4, 16]),
)
def test_every_slice_fits_on_the_canvas(shapes, spacing, multiple):
    studies = [study(image=np.zeros((1, *shape), np.float32)) for shape in shapes]
    size = canvas(studies, spacing, multiple)
    assert not np.any(np.array(size) % multiple)
    for own in studies:
        images = stage(spacing, size=size).inference_examples(own)["image"]
        assert images.shape == (1, *size, 1)


def test_a_training_view_is_a_patch_of_image_and_label_together():
    label = stage().training_examples(study())["label"]
    shown = {"image": label[..., None].astype(np.float32), "label": label}
    moving = stage(augmentation=SliceAugmentation(30.0, 0.2, 0.1, *[0.0] * 7))
    view = view_of(moving, shown)
    assert view["image"].shape == (4, 16, 16, 1)
    assert view["label"].dtype == np.uint8
    # Where an image of its own label is certain of its value the label says the same.
    image = view["image"][..., 0]
    agree = np.round(image) == view["label"]
    assert agree.mean() > 0.9
    assert agree[np.abs(image - np.round(image)) < 1e-3].mean() > 0.99
    assert not np.array_equal(view["label"], view_of(moving, shown, 1)["label"])


def test_patches_come_from_all_over_the_slice_and_still_ones_are_exact():
    label = np.arange(4 * 24 * 24).reshape(4, 24, 24) % 251
    shown = {"image": label[..., None].astype(np.float32), "label": label.astype(np.uint8)}
    starts = set()
    for seed in range(20):
        view = view_of(stage(), shown, seed)
        np.testing.assert_array_equal(view["image"][..., 0], view["label"])
        windows = np.lib.stride_tricks.sliding_window_view(shown["label"], (16, 16), (1, 2))
        for own, patch in zip(windows, view["label"], strict=True):
            (place,) = np.argwhere((own == patch).all((2, 3)))
            starts.add(tuple(place))
    assert {row for row, _ in starts} == {col for _, col in starts} == set(range(9))


def test_a_patch_larger_than_the_slice_is_the_slice():
    made, batch = stage(patch=(99, 16)), stage().training_examples(study())
    shape = jax.eval_shape(
        made.augment, jax.random.split(jax.random.key(0), 4), batch, made.hyper()
    )
    assert shape["label"].shape == (4, 24, 16)


def test_it_learns_the_structures_and_finds_them_on_the_native_grid():
    own = study()
    made = stage(augmentation=SliceAugmentation())
    program, variables, losses = fitted(made, made.training_examples(own))
    assert losses[-5:].mean() < 0.4 * losses[:5].mean()
    outputs = predict(program, variables, made.inference_examples(own))
    assert outputs["probabilities"].shape == (4, 24, 24, 3)
    np.testing.assert_allclose(outputs["probabilities"].sum(-1), 1, atol=5e-3)
    found = made.decode(own, outputs)
    for label in (1, 2):
        assert dice(found == label, own["mask"] == label) > 0.7


def test_stages_that_differ_in_recipe_name_or_strengths_are_traced_alike():
    one, other = stage(), stage(steps=9, augmentation=SliceAugmentation())
    assert one != other
    assert one.traced() == dataclasses.replace(other, name="other").traced()
    assert hash(one.traced()) == hash(other.traced())
    assert one.traced() != stage(patch=(8, 16)).traced()
