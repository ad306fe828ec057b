"""The band around an edge: what is trained on, what is classified and what is left alone."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from systems.test_shoulder_bones_proposals import STILL, study

from mskjax.config import TrainConfig
from mskjax.errors import UserError
from mskjax.imaging import augment, patches
from mskjax.stages.slice_segmentation import classes_of
from mskjax.systems.shoulder_bones import edges
from mskjax.systems.shoulder_bones.pixels import BlockOptions
from mskjax.systems.shoulder_bones.proposals import STRUCTURES


def stage(
    canvas=(32, 36), patch=(32, 36), spacing=1.5, band_mm=3.0, augmentation=STILL, judge="alexnet"
):
    made = edges.BoneEdgesOptions(
        spacing_mm=spacing,
        patch=patch,
        blocks=BlockOptions(size=17, points=12, width=2, hidden=8),
        train=TrainConfig(steps=2, batch_size=2, warmup_steps=0),
        augmentation=augmentation,
        band_mm=band_mm,
        judge=judge,
    )
    return edges.BoneEdges("edges", made, STRUCTURES, canvas)


def band_of(mask, width=3.0):
    return patches.band(mask, (1.5, 1.5), width)


def at(values, centres):
    where = np.asarray(centres, int)
    return np.stack([v[c[:, 0], c[:, 1]] for v, c in zip(values, where, strict=True)])


def test_training_draws_from_the_band_around_the_reference_edge():
    one = study()
    one["mask"][2] = 0
    examples = stage().training_examples(one)
    assert examples["image"].shape == (2, 32, 36, 1)  # the third slice has no edge
    assert at(band_of(one["mask"])[:2], examples["centres"]).all()
    assert stage().training_examples(one | {"mask": np.zeros_like(one["mask"])}) is None
    assert stage().training_examples(one | {"has_mask": False}) is None


def test_the_band_moves_with_the_slice():
    made = stage(augmentation=augment.SliceAugmentation())
    examples = made.training_examples(study())
    batch = {k: jnp.asarray(v) for k, v in examples.items()}
    view = jax.jit(made.augment)(jax.random.split(jax.random.key(0), 3), batch, made.hyper())
    marked = np.asarray(view["label"])[..., -1] > 127
    assert not np.array_equal(marked, examples["label"][..., -1] > 127)
    assert at(marked, view["centres"]).all()
    # Nearly the band of the moved structures: zoom changes its width a little.
    again = band_of(classes_of(np.asarray(view["label"])[..., :-1]))
    assert (marked & again).sum() > 0.8 * (marked | again).sum()


def test_loss_reads_the_classes_below_the_mark():
    examples = stage().training_examples(study())
    batch = {k: jnp.asarray(v) for k, v in examples.items()}
    target = at(study()["mask"], examples["centres"])
    sure = 30 * jax.nn.one_hot(target, 3)
    np.testing.assert_allclose(stage().loss(sure, batch, (), {}), 0, atol=1e-5)
    np.testing.assert_allclose(stage().monitor(sure, batch)["accuracy"], 1)
    assert (np.asarray(stage().loss(-sure, batch, (), {})) > 10).all()


def test_a_view_without_a_band_costs_nothing():
    batch = {
        "label": jnp.zeros((1, 32, 36, 3), jnp.uint8),
        "centres": jnp.full((1, 12, 2), 5.0),
    }
    assert stage().loss(jnp.ones((1, 12, 3)), batch, (), {}).tolist() == [0]


@pytest.mark.parametrize("at_once", [20, 2**16])
def test_only_the_band_is_classified_and_each_pixel_gets_its_own_class(monkeypatch, at_once):
    monkeypatch.setattr(edges, "PIXELS_AT_ONCE", at_once)
    one = study()
    truth = np.random.default_rng(0).integers(0, 3, one["mask"].shape).astype(np.uint8)
    calls = []

    def classify(examples):
        calls.append(len(examples["image"]))
        assert examples["centres"].shape == (calls[-1], 12, 2)
        # The slice that an example shows is known by its image.
        shown = [
            next(s for s in range(3) if np.array_equal(image, images[s]))
            for image in examples["image"]
        ]
        return {"p": np.eye(3)[at(truth[shown], np.round(examples["centres"]))]}

    images = stage().inference_examples(one)["image"]
    refined = stage().refine(one, one["mask"], classify)
    band = band_of(one["mask"])
    np.testing.assert_array_equal(refined[band], truth[band])
    np.testing.assert_array_equal(refined[~band], one["mask"][~band])
    assert (len(calls) > 1) == (at_once == 20)


def nothing(examples):
    """Background, for sure."""
    return {"p": np.tile([1.0, 0.0, 0.0], (*examples["centres"].shape[:2], 1))}


@pytest.mark.parametrize(("judge", "expected"), [("alexnet", 0), ("mean", 2)])
def test_an_unsure_alexnet_leaves_the_vote_if_its_voters_are_asked(judge, expected):
    one = study()
    voters = np.zeros((2, *one["mask"].shape), np.float32)
    voters[1] = 0.9

    def unsure(examples):
        return {"p": np.tile([0.55, 0.2, 0.25], (*examples["centres"].shape[:2], 1))}

    refined = stage(judge=judge).refine(one, one["mask"], unsure, voters)
    assert set(np.unique(refined[band_of(one["mask"])])) == {expected}
    sure = stage(judge=judge).refine(one, one["mask"], nothing, voters)
    assert not sure[band_of(one["mask"])].any()
    alone = stage(judge=judge).refine(one, one["mask"], unsure)  # as around the reference edge
    assert not alone[band_of(one["mask"])].any()


def test_centres_lie_on_the_network_grid():
    one = study()
    seen = []

    def classify(examples):
        seen.append(examples["centres"])
        return nothing(examples)

    stage(canvas=(16, 18), spacing=3.0).refine(one, one["mask"], classify)
    pixels = np.argwhere(band_of(one["mask"])[0])
    found = np.concatenate(seen).reshape(-1, 2)[: len(pixels)]
    np.testing.assert_allclose(found, (pixels - 0.5) / 2, atol=1e-5)


def test_without_an_edge_nothing_is_classified():
    one = study()
    empty = np.zeros_like(one["mask"])

    def never(examples):
        raise AssertionError

    np.testing.assert_array_equal(stage().refine(one, empty, never), empty)


def test_the_pixels_beside_an_edge_belong_to_a_band_of_any_width():
    narrow = stage(band_mm=0.1)
    one = study()
    refined = narrow.refine(one, one["mask"], nothing)
    gone = (one["mask"] > 0) & (refined == 0)
    np.testing.assert_array_equal(gone, (one["mask"] > 0) & band_of(one["mask"], 1.5))
    assert narrow.training_examples(one) is not None


def test_a_band_without_width_is_refused():
    with pytest.raises(UserError, match="band_mm"):
        stage(band_mm=0.0)


def test_strengths_of_the_augmentation_are_no_part_of_what_is_compiled():
    moving = stage(augmentation=augment.SliceAugmentation())
    assert moving.traced() == stage().traced()
    assert moving.hyper() == {"augmentation": augment.SliceAugmentation()}
    assert stage(patch=(24, 36)).traced() != stage().traced()
