"""Volumes as a whole: examples, patches, decoding, and that a stage learns and is exported."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from stages.fitting import fitted, view_of
from stages.test_slice_segmentation import STILL, STRUCTURES, certain, dice, study

from mskjax.config import TrainConfig, parse
from mskjax.errors import UserError
from mskjax.evaluation import predict
from mskjax.imaging.augment import SliceAugmentation
from mskjax.portable import programs
from mskjax.stages.slice_segmentation import SliceSegmentation, UNetOptions
from mskjax.stages.volume_segmentation import (
    SegmentationOptions,
    VolumeOptions,
    VolumeSegmentation,
    rounded_slices,
    segmentation,
)
from mskjax.training.program import prediction


def stage(spacing=2.0, patch=(16, 16), size=(6, 24, 24), augmentation=STILL, steps=40, **own):
    flip = own.pop("flip_slices", 0.0)
    options = SegmentationOptions(
        spacing_mm=spacing,
        patch=patch,
        model=UNetOptions((4, 8)),
        train=TrainConfig(steps, batch_size=2, learning_rate=0.05, warmup_steps=2),
        augmentation=augmentation,
        dimensions=3,
        flip_slices=flip,
        volume=VolumeOptions(**{"slices": 4, **own}),
    )
    return VolumeSegmentation("regions", options, STRUCTURES, size)


def shares(label, structures=2):
    return (255 * np.eye(structures + 1)[label][..., 1:]).astype(np.uint8)


def test_an_example_is_the_volume_on_the_canvas_with_shares_of_each_voxel():
    (image, label, known) = stage().training_examples(study()).values()
    assert image.shape == (1, 6, 24, 24, 1)
    assert image.dtype == np.float32
    assert label.shape == (1, 6, 24, 24, 2)
    assert label.dtype == np.uint8
    np.testing.assert_array_equal(known, [[True] * 4 + [False] * 2])
    # The image is what slices see of the volume; slices that are not there continue as air.
    two = SliceSegmentation("regions", stage().options, STRUCTURES, (24, 24))
    np.testing.assert_array_equal(image[0, :4], two.inference_examples(study())["image"])
    assert (image[0, 4:] == image.min()).all()
    assert not label[0, 4:].any()
    assert not label[0, :, 20:].any()
    # Rows of 1 mm become 2 mm: inside the structure a voxel is whole, at its border it is shared.
    assert (label[0, :3, 4:7, 5:12, 0] >= 254).all()
    border = label[0, 0, :, 8, 0]
    assert set(np.flatnonzero((border > 0) & (border < 254))) <= {2, 3, 7, 8}
    assert label.astype(int).sum(-1).max() <= 255


def test_shares_keep_the_volume_of_a_structure():
    own = study()
    label = stage(spacing=3.0).training_examples(own)["label"][0, :4].astype(np.float64) / 255
    for k in (1, 2):
        # A pixel of 1 x 2 mm becomes one of 3 x 3.
        volume = label[..., k - 1].sum() * 9
        assert volume == pytest.approx((own["mask"] == k).sum() * 2, rel=0.03)


def test_a_study_without_a_mask_is_read_but_not_trained_on():
    own = study(has_mask=False)
    assert stage().training_examples(own) is None
    assert stage().inference_examples(own)["image"].shape == (1, 4, 24, 24, 1)


@pytest.mark.parametrize(("slices", "padded"), [(1, 1), (7, 7), (9, 10), (17, 20), (60, 64)])
def test_any_number_of_slices_is_padded_to_one_of_few(slices, padded):
    assert rounded_slices(slices) == padded
    own = study(slices)
    image = stage().inference_examples(own)["image"]
    assert image.shape == (1, padded, 24, 24, 1)
    outputs = certain(np.full((1, padded, 24, 24, 2), 80, np.uint8))
    assert stage().decode(own, outputs).shape == own["mask"].shape


def test_the_canvas_holds_the_most_slices_and_the_largest_of_them():
    studies = [study(3), study(9), study(2, image=np.zeros((2, 70, 18), np.float32))]
    assert stage().canvas_for(studies) == (9, 36, 20)


def test_a_pitch_for_which_the_network_is_not_made_is_said(capsys):
    stage(spacing=2.0, pitch_mm=3.0).canvas_for([study()])  # 4 mm are a factor of 2
    said = capsys.readouterr().out
    assert "slices lie 4 mm apart, median of 1 studies, and" in said
    assert "config.stages.regions.volume.pitch_mm" in said
    stage(spacing=2.0, pitch_mm=4.4).canvas_for([study()])
    assert not capsys.readouterr().out


@pytest.mark.parametrize(("spacing", "least"), [(1.0, 0.97), (2.0, 0.97), (3.0, 0.93)])
def test_a_network_that_says_the_shares_gives_the_mask_back(spacing, least):
    own, made = study(), stage(spacing, size=(4, 48, 48))
    found = made.decode(own, certain(made.training_examples(own)["label"]))
    assert found.shape == own["mask"].shape
    assert found.dtype == np.uint8
    for k in (1, 2):
        assert dice(found == k, own["mask"] == k) > least


def test_a_patch_is_whole_multiples_of_what_the_network_halves():
    made, batch = stage(patch=(13, 9)), stage().training_examples(study())
    assert made.multiple == 2
    assert view_of(made, batch)["label"].shape[2:4] == (14, 10)


def test_a_view_is_a_patch_of_image_and_shares_together():
    numbers = np.random.default_rng(0).integers(0, 256, (2, 6, 24, 24))
    shown = {
        "image": numbers[..., None].astype(np.float32) / 255,
        "label": np.stack([numbers, 0 * numbers], -1).astype(np.uint8),
        "known": np.ones((2, 6), bool),
    }
    starts = set()
    for seed in range(12):
        view = view_of(stage(), shown, seed)
        assert view["label"].shape == (2, 4, 16, 16, 2)
        np.testing.assert_allclose(255 * view["image"][..., 0], view["label"][..., 0], atol=1e-3)
        windows = np.lib.stride_tricks.sliding_window_view(numbers, (4, 16, 16), (1, 2, 3))
        for own, patch in zip(windows, view["label"], strict=True):
            (place,) = np.argwhere((own == patch[..., 0]).all((3, 4, 5)))
            starts.add(tuple(place))
    assert len(starts) > 5


def test_slices_move_together():
    label = np.zeros((1, 4, 24, 24), int)
    label[:, :, 8:16, 8:16] = 1
    shown = {"image": label[..., None].astype(np.float32), "label": shares(label)}
    shown["known"] = np.ones((1, 4), bool)
    moving = stage(patch=(24, 24), augmentation=SliceAugmentation(30.0, 0.2, 0.1, *[0.0] * 7))
    view = view_of(moving, shown)
    assert not np.allclose(view["label"][0, 0, ..., 0], 255 * label[0, 0])
    np.testing.assert_array_equal(view["label"], np.repeat(view["label"][:, :1], 4, 1))
    np.testing.assert_allclose(255 * view["image"][..., 0], view["label"][..., 0], atol=0.51)


def test_slices_are_reversed_with_their_labels_and_with_what_is_known():
    label = np.zeros((1, 4, 24, 24), int)
    label[:, 0, 4:20, 4:20] = 1
    known = np.array([[True, True, True, False]])
    shown = {"image": label[..., None].astype(np.float32), "label": shares(label), "known": known}
    view = view_of(stage(flip_slices=1.0, patch=(24, 24)), shown)
    np.testing.assert_array_equal(view["label"][0, ::-1, ..., 0], 255 * label[0])
    np.testing.assert_array_equal(255 * view["image"][..., 0], view["label"][..., 0])
    np.testing.assert_array_equal(view["known"], known[:, ::-1])


def test_slices_without_labels_cost_nothing():
    made, own = stage(), stage().training_examples(study())
    batch = {k: jnp.asarray(v) for k, v in own.items()}
    logits = jax.random.normal(jax.random.key(0), (1, 6, 24, 24, 3))
    loss = made.loss(logits, batch, (), None)
    np.testing.assert_allclose(made.loss(logits.at[:, 4:].multiply(9.0), batch, (), None), loss)
    assert float(made.loss(logits.at[:, 3].multiply(9.0), batch, (), None)[0]) > float(loss[0])
    accuracy = made.monitor(jax.nn.one_hot(jnp.zeros((1, 6, 24, 24), int), 3), batch)
    background = 1 - (own["label"][0, :4].max(-1) > 127).mean()
    assert float(accuracy["voxel_accuracy"][0]) == pytest.approx(background, abs=0.02)


@pytest.mark.long
@pytest.mark.parametrize("deep", [True, False])
def test_it_learns_the_structures_and_finds_them_on_the_native_grid(deep):
    own = study()
    made = stage(augmentation=SliceAugmentation(), deep_supervision=deep)
    made = dataclasses.replace(
        made, options=dataclasses.replace(made.options, model=UNetOptions((4, 8, 8)))
    )
    examples = {k: np.repeat(v, 2, 0) for k, v in made.training_examples(own).items()}
    program, variables, losses = fitted(made, examples)
    assert losses[-5:].mean() < 0.5 * losses[:5].mean()
    outputs = predict(program, variables, made.inference_examples(own))
    assert outputs["probabilities"].shape == (1, 4, 24, 24, 3)
    np.testing.assert_allclose(outputs["probabilities"].sum(-1), 1, atol=5e-3)
    found = made.decode(own, outputs)
    for label in (1, 2):
        assert dice(found == label, own["mask"] == label) > 0.7


def test_an_exported_program_takes_any_number_of_slices():
    made = stage(pitch_mm=4.0, slices=8)
    options = dataclasses.replace(made.options, model=UNetOptions((4, 8), stem=2))
    made = dataclasses.replace(made, options=options)  # places of 4 mm: slices are pooled
    assert made.model().through.pools == (2,)
    assert made.signature()["image"].shape == "b, s, 4*h, 4*w, 1"
    variables = jax.jit(lambda x: made.model().init(jax.random.key(0), x, train=False))(
        jnp.zeros((1, 2, 4, 4, 1))
    )
    weights = {k: np.asarray(v) for k, v in programs.flat(variables).items()}
    exported = programs.make(made, weights)
    program = jax.export.deserialize(bytearray(exported.content))
    for shape in [(2, 5, 8, 4, 1), (1, 1, 4, 8, 1)]:
        image = np.random.default_rng(1).normal(size=shape).astype(np.float32)
        theirs = jax.jit(program.call)(weights, {"image": image})
        ours = jax.jit(lambda v, x: prediction(made, v, {"image": x}))(variables, image)
        np.testing.assert_allclose(theirs["probabilities"], ours["probabilities"], atol=1e-3)
        assert theirs["probabilities"].shape == (*shape[:4], 3)
    assert exported.facts["inputs"]["image"]["layout"] == "batch, slices, rows, columns, channels"


def test_stages_that_differ_in_recipe_name_or_strengths_are_traced_alike():
    one, other = stage(), stage(steps=9, augmentation=SliceAugmentation(), flip_slices=0.5)
    assert one != other
    assert one.traced() == dataclasses.replace(other, name="other").traced()
    assert hash(one.traced()) == hash(other.traced())
    assert one.traced() != stage(patch=(8, 16)).traced()
    # What cutting does not read is no part of what is cut.
    assert one.cutting() == stage(patch=(8, 16), slices=2, flip_slices=0.5).cutting()
    one.cutting().training_examples(study())


def test_dimensions_choose_the_stage_and_slices_are_the_stage_they_were():
    three = segmentation("regions", stage().options, STRUCTURES, (6, 24, 24))
    assert three == stage()
    options = dataclasses.replace(stage().options, dimensions=2)
    two = segmentation("regions", options, STRUCTURES, (24, 24))
    assert isinstance(two, SliceSegmentation)
    assert not hasattr(two.options, "volume")
    assert two.options.patch == options.patch
    assert (stage().options.smallest, options.smallest) == ((4, 16, 16), (16, 16))


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"dimensions": 4}, r"regions.dimensions is 4; it must be one of 2, 3"),
        ({"volume": {"slices": 0}}, r"volume.slices is 0; it must be above 0"),
        (
            {"volume": {"residual_blocks": (1, 2)}, "model": {"widths": (8, 8, 8)}},
            r"residual_blocks is \(1, 2\) and model.widths \(8, 8, 8\); give each level one",
        ),
    ],
)
def test_wrong_options_are_a_sentence(fields, sentence):
    with pytest.raises(UserError, match=sentence):
        parse(SegmentationOptions, fields, "config.stages.regions")
