"""The U-Net's examples, its decoding, and that what it trains on stays together."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from stages.fitting import fitted, view_of

from mskjax.config import TrainConfig
from mskjax.errors import UserError
from mskjax.evaluation import predict
from mskjax.imaging import geometry
from mskjax.imaging.augment import SliceAugmentation
from mskjax.imaging.volume import Volume
from mskjax.stages.slice_segmentation import (
    SliceSegmentation,
    SliceSegmentationOptions,
    UNetOptions,
    canvas,
    classes_of,
    shares_of,
    with_background,
    with_neighbours,
)
from mskjax.training.mesh import data_mesh
from mskjax.training.program import Program

# Sagittal, 4 mm apart; pixels of 1 mm by 2 mm.
AFFINE = np.array([[-4.0, 0, 0, 7], [0, 0, -2.0, 50], [0, -1.0, 0, 20], [0, 0, 0, 1]])
STILL = SliceAugmentation(*[0.0] * 10)
STRUCTURES = ("upper", "lower")


def stage(
    spacing=2.0,
    patch=(16, 16),
    size=(24, 24),
    augmentation=STILL,
    steps=40,
    neighbours=0,
    views=1,
    **fields,
):
    options = SliceSegmentationOptions(
        spacing_mm=spacing,
        patch=patch,
        neighbours=neighbours,
        views=views,
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
    return {"probabilities": np.asarray(with_background(jnp.asarray(label)), np.float16)}


def dice(a, b):
    return 2 * (a & b).sum() / (a.sum() + b.sum())


def test_examples_are_the_slices_at_network_spacing_with_the_label_on_its_image():
    examples = stage().training_examples(study())
    assert examples["image"].shape == (4, 24, 24, 1)
    assert examples["image"].dtype == np.float32
    assert examples["label"].shape == (4, 24, 24, 2)
    assert examples["label"].dtype == np.uint8
    label = classes_of(examples["label"])
    # Rows of 1 mm become 2 mm: 40 rows are 20, the rest of the canvas is padding.
    np.testing.assert_array_equal(np.unique(np.nonzero(label[0] == 1)[0]), range(3, 8))
    np.testing.assert_array_equal(np.unique(np.nonzero(label[3])[0]), range(12, 18))
    bright = [examples["image"][..., 0][label == c].mean() for c in range(3)]
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
    right, wrong = (made.mean_loss(own, certain(v)) for v in (label, label[..., ::-1]))
    # What is left at a right border is the entropy of the pixels that it divides.
    assert right < 0.1 < 2 < wrong
    assert np.isnan(made.mean_loss(study(has_mask=False), certain(label)))


def test_shares_keep_what_the_likeliest_class_loses():
    """A disc of an odd number of pixels at three times their size, against its low-pass."""
    mask = np.zeros((2, 60, 60), np.uint8)
    mask[:, 20:31, 7:50], mask[:, 31:40, 7:50] = 1, 2
    affine = np.diag([4.0, 1.0, 1.0, 1.0])
    label = shares_of(mask, affine, 3.0, 2)
    assert label.shape == (2, 20, 20, 2)
    whole = np.asarray(with_background(jnp.asarray(label)))
    np.testing.assert_allclose(whole.sum(-1), 1, atol=1e-6)
    assert (whole >= 0).all()
    assert label.sum() / 255 * 9 == pytest.approx((mask > 0).sum(), rel=0.02)
    grid, to = (None, 3.0, 3.0), (mask.shape, affine)
    made = geometry.resample(Volume(np.zeros(mask.shape, np.float32), affine), grid).affine

    def back(probabilities):
        return geometry.labels_to_native(np.moveaxis(probabilities, -1, 0), made, *to)

    hard = np.asarray(jax.nn.one_hot(classes_of(label), 3))
    ours, theirs = (dice(back(p) == 1, mask == 1) for p in (whole, hard))
    assert ours > 0.98
    assert theirs < 0.95
    np.testing.assert_array_equal(classes_of(jnp.asarray(label)), whole.argmax(-1))
    fine = shares_of(mask, affine, 1.0, 2)
    np.testing.assert_array_equal(classes_of(fine), mask)
    assert set(np.unique(fine)) == {0, 255}


def test_neighbours_are_channels_and_the_outermost_slice_is_its_own():
    images = np.arange(3 * 2 * 2 * 2, dtype=np.float32).reshape(3, 2, 2, 2)
    found = with_neighbours(images, 1)
    assert found.shape == (3, 2, 2, 6)
    for number, seen in enumerate([(0, 0, 1), (0, 1, 2), (1, 2, 2)]):
        np.testing.assert_array_equal(found[number], np.concatenate(images[list(seen)], -1))
    np.testing.assert_array_equal(with_neighbours(images, 0), images)
    own, made = study(), stage(neighbours=1)
    examples = made.training_examples(own)
    assert examples["image"].shape == (4, 24, 24, 3)
    alone = stage().training_examples(own)
    np.testing.assert_array_equal(examples["image"][..., 1], alone["image"][..., 0])
    np.testing.assert_array_equal(examples["image"][1:, ..., 0], alone["image"][:-1, ..., 0])
    np.testing.assert_array_equal(examples["label"], alone["label"])
    assert made.signature()["image"].shape == "b, 2*h, 2*w, 3"
    assert made.preprocessing()["neighbours"] == 1
    with pytest.raises(UserError, match="neighbours is -1"):
        stage(neighbours=-1)


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
    shown = {"image": label[..., 1:].astype(np.float32), "label": label}
    moving = stage(augmentation=SliceAugmentation(30.0, 0.2, 0.1, *[0.0] * 7))
    view = view_of(moving, shown)
    assert view["image"].shape == (4, 16, 16, 1)
    assert view["label"].shape == (4, 16, 16, 2)
    assert view["label"].dtype == np.uint8
    # An image of the shares of a structure is moved as these are, to the rounding.
    np.testing.assert_allclose(view["image"][..., 0], view["label"][..., 1], atol=0.51)
    assert not np.array_equal(view["label"], view_of(moving, shown, 1)["label"])


def test_a_patch_larger_than_the_slice_is_the_slice():
    made, batch = stage(patch=(99, 16)), stage().training_examples(study())
    shape = jax.eval_shape(
        made.augment, jax.random.split(jax.random.key(0), 4), batch, made.hyper()
    )
    assert shape["label"].shape == (4, 24, 16, 2)


def test_a_patch_is_whole_multiples_of_what_the_network_halves():
    """Else it pads each of them, and never a canvas: predictions of such a network were nothing."""
    made, batch = stage(patch=(13, 9)), stage().training_examples(study())
    assert made.multiple == 2
    assert view_of(made, batch)["label"].shape == (4, 14, 10, 2)


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


def test_views_are_averaged_where_the_slice_has_them():
    """Of an untrained network: the mean over shifts by hand is what prediction gives."""
    alone, many = stage(size=(32, 32)), stage(size=(32, 32), views=5)
    examples = alone.inference_examples(study())
    _, variables, _ = fitted(stage(size=(32, 32), steps=3), alone.training_examples(study()))
    one = Program(alone, data_mesh(1))
    by_hand = [
        np.roll(
            predict(one, variables, {"image": np.roll(examples["image"], by, (1, 2))})[
                "probabilities"
            ].astype(np.float32),
            (-by[0], -by[1]),
            (1, 2),
        )
        for by in ((0, 0), (3, 0), (-3, 0), (0, 3), (0, -3))
    ]
    found = predict(Program(many, data_mesh(1)), variables, examples)["probabilities"]
    np.testing.assert_allclose(found.astype(np.float32), np.mean(by_hand, 0), atol=2e-3)
    assert np.abs(found.astype(np.float32) - by_hand[0]).max() > 0.02
    for wrong in (0, 10):
        with pytest.raises(UserError, match=f"views is {wrong}"):
            stage(views=wrong)
