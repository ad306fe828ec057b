"""Vote, examples, loss and decoding of the four members."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from mskjax.config import TrainConfig
from mskjax.errors import UserError
from mskjax.imaging import augment, patches
from mskjax.models import losses
from mskjax.stages.slice_segmentation import UNetOptions, classes_of
from mskjax.systems.shoulder_bones import proposals as bp
from mskjax.systems.shoulder_bones.pixels import BlockOptions

AFFINE = np.array([[0, 0, -1.5, 40], [0, -1.5, 0, 40], [-4.0, 0, 0, 0], [0, 0, 0, 1]])
STILL = augment.SliceAugmentation(0, 0, 0, 0, 0, 0, 0, 0, 0, 0)


def stage(canvas=(32, 36), patch=(32, 36), spacing=1.5, **options):
    made = bp.BoneProposalsOptions(
        spacing_mm=spacing,
        patch=patch,
        model=UNetOptions((4, 4)),
        train=TrainConfig(steps=2, batch_size=2, warmup_steps=0),
        augmentation=options.pop("augmentation", STILL),
        blocks=BlockOptions(size=17, points=12, width=2, hidden=8),
        **options,
    )
    return bp.BoneProposals("proposals", made, bp.STRUCTURES, canvas)


def study(shape=(3, 32, 36), seed=0):
    mask = np.zeros(shape, np.uint8)
    mask[:2, 4:16, 20:32], mask[:, 18:28, 4:14] = 1, 2
    noise = np.random.default_rng(seed).normal(0, 5, shape)
    image = (50 + 60 * (mask == 1) + 30 * (mask == 2) + noise).astype(np.float32)
    return {
        "patient_id": f"p{seed}",
        "study_id": f"s{seed}",
        "image": image,
        "mask": mask,
        "has_mask": True,
        "affine": AFFINE,
    }


def said(own_humerus, own_scapula, both, alexnet):
    """Probabilities of one pixel: yes is .9, no is .1."""
    p = {True: np.array([0.9]), False: np.array([0.1])}
    return {
        "unet_humerus": p[own_humerus],
        "unet_scapula": p[own_scapula],
        "unet_both": p[both],
        "alexnet": np.array([[0.8 * (alexnet == 1)], [0.8 * (alexnet == 2)]]),
    }


@pytest.mark.parametrize(("rule", "needed"), [("any", 1), ("majority", 2), ("all", 3)])
def test_vote_follows_the_truth_table(rule, needed):
    for h, s, both, a in itertools.product((False, True), (False, True), (False, True), range(3)):
        for_humerus, for_scapula = h + both + (a == 1), s + both + (a == 2)
        wins = [for_humerus >= needed, for_scapula >= needed]
        # With these probabilities the higher mean is that of more voices, the humerus if equal.
        best = 1 if for_humerus >= for_scapula else 2
        expected = best if all(wins) else wins[0] + 2 * wins[1]
        assert bp.vote(said(h, s, both, a), rule)[0] == expected, (h, s, both, a)


def test_a_conflict_goes_to_the_higher_mean_probability_not_to_more_voices():
    conflict = {
        "unet_humerus": np.array([0.55]),
        "unet_scapula": np.array([0.99]),
        "unet_both": np.array([0.9]),
        "alexnet": np.array([[0.41], [0.40]]),  # humerus by a hair
    }
    assert bp.vote(conflict, "majority").tolist() == [2]
    assert bp.vote(conflict, "all").tolist() == [1]


def test_by_the_mean_a_voter_that_is_unsure_counts_for_little_either_way():
    # One pixel each: two sure voters against an unsure one, one against two, a tie, a conflict.
    voices = {
        "unet_humerus": np.array([0.0, 0.0, 0.5, 0.6]),
        "unet_scapula": np.array([0.9, 0.9, 0.0, 0.6]),
        "unet_both": np.array([0.45, 0.2, 0.5, 1.0]),
        "alexnet": np.array([[0.0, 0.0, 0.5, 0.4], [0.3, 0.3, 0.0, 0.5]]),
    }
    assert bp.vote(voices, "mean").tolist() == [2, 0, 0, 2]
    assert bp.vote(voices, "majority").tolist() == [0, 0, 0, 2]


def test_members_alone_say_yes_above_a_half_and_alexnet_takes_the_likeliest():
    masks = bp.member_masks(
        {
            "unet_humerus": np.array([0.5, 0.51, 0.0]),
            "unet_scapula": np.array([0.6, 0.2, 0.0]),
            "unet_both": np.array([0.9, 0.1, 0.0]),
            "alexnet": np.array([[0.4, 0.3, 0.5], [0.35, 0.45, 0.0]]),
        }
    )
    assert {k: v.tolist() for k, v in masks.items()} == {
        "unet_humerus": [0, 1, 0],
        "unet_scapula": [2, 0, 0],
        "unet_both": [1, 0, 0],
        "alexnet": [1, 2, 0],
    }


@pytest.mark.parametrize(
    ("share", "counts"), [(1.0, [54 - 13, 9, 4]), (0.5, [54 - 17, 9, 8]), (0.0, [54 - 18, 10, 8])]
)
def test_small_parts_of_each_structure_are_dropped(share, counts):
    mask = np.zeros((1, 6, 9), np.uint8)
    mask[0, 0:3, 0:3], mask[0, 5, 0] = 1, 1
    mask[0, 0:2, 7:9], mask[0, 4:6, 7:9] = 2, 2  # two parts of one size
    kept = bp.without_crumbs(mask, share)
    assert np.bincount(kept.ravel()).tolist() == counts
    assert not bp.without_crumbs(np.zeros((1, 3, 3), np.uint8), share).any()
    assert not (bp.without_crumbs(mask * (mask == 2), share) == 1).any()


def test_training_examples_are_whole_slices_with_pixels_of_every_class():
    examples = stage().training_examples(study())
    assert examples["image"].shape == (3, 32, 36, 1)
    np.testing.assert_array_equal(classes_of(examples["label"]), study()["mask"])
    at = examples["centres"].astype(int)
    drawn = [m[c[:, 0], c[:, 1]] for m, c in zip(study()["mask"], at, strict=True)]
    assert [np.bincount(d, minlength=3).tolist() for d in drawn] == [
        [4, 4, 4],
        [4, 4, 4],
        [6, 0, 6],
    ]
    again = stage().training_examples(study())
    np.testing.assert_array_equal(examples["centres"], again["centres"])
    assert stage().training_examples(study() | {"has_mask": False}) is None


def test_a_step_draws_pixels_of_the_view_it_trains_on():
    moved = stage(augmentation=augment.SliceAugmentation())
    examples = moved.training_examples(study())
    batch = {k: jnp.asarray(v) for k, v in examples.items()}
    keys = jax.random.split(jax.random.key(0), 3)
    view = jax.jit(moved.augment)(keys, batch, moved.hyper())
    assert not np.array_equal(view["label"], batch["label"])
    at = np.asarray(view["centres"], int)
    label = classes_of(np.asarray(view["label"]))
    for number, present in enumerate((3, 3, 2)):
        drawn = label[number][at[number][:, 0], at[number][:, 1]]
        assert sorted(np.bincount(drawn)[np.bincount(drawn) > 0]) == [12 // present] * present
    other = jax.jit(moved.augment)(jax.random.split(jax.random.key(1), 3), batch, moved.hyper())
    assert not np.array_equal(view["centres"], other["centres"])


def test_blocks_of_a_patch_of_the_slice_end_within_it():
    small = stage(patch=(24, 26))
    batch = {k: jnp.asarray(v) for k, v in small.training_examples(study()).items()}
    view = jax.jit(small.augment)(jax.random.split(jax.random.key(0), 3), batch, small.hyper())
    assert view["image"].shape == (3, 24, 26, 1)
    at = np.asarray(view["centres"])
    assert at.min() >= 8
    assert at[..., 0].max() < 24 - 8
    assert at[..., 1].max() < 26 - 8


def test_loss_is_the_sum_over_members():
    rng = np.random.default_rng(0)
    examples = stage().training_examples(study())
    batch = {k: jnp.asarray(v) for k, v in examples.items()}
    outputs = {n: jnp.asarray(rng.normal(size=(3, 32, 36, 2)), jnp.float32) for n in bp.UNETS}
    outputs["alexnet"] = jnp.asarray(rng.normal(size=(3, 12, 3)), jnp.float32)
    balance = stage().balance({"label": examples["label"]})
    at = examples["centres"].astype(int)
    label = classes_of(examples["label"])
    drawn = np.stack([m[c[:, 0], c[:, 1]] for m, c in zip(label, at, strict=True)])
    entropy = optax.losses.softmax_cross_entropy_with_integer_labels
    expected = np.asarray(
        entropy(outputs["alexnet"] + balance[None, None], jnp.asarray(drawn)).mean(1)
    )
    shares = np.float32(examples["label"]) / 255
    each = (shares[..., 0], shares[..., 1], shares.sum(-1))
    for name, bone in zip(bp.UNETS, each, strict=True):
        target = jnp.asarray(np.stack([1 - bone, bone], -1))
        expected = expected + losses.segmentation_loss(outputs[name], target)
    np.testing.assert_allclose(stage().loss(outputs, batch, balance, {}), expected, rtol=1e-5)
    monitors = stage().monitor(outputs, batch)
    right = (np.asarray(outputs["unet_scapula"]).argmax(-1) == (label == 2)).mean((1, 2))
    np.testing.assert_allclose(monitors["accuracy_unet_scapula"], right, rtol=1e-5)
    assert set(monitors) == {f"accuracy_{n}" for n in (*bp.UNETS, "alexnet")}


def test_members_share_no_weight_so_that_each_is_trained_as_it_would_be_alone():
    made = stage()
    assert made.apart
    examples = made.training_examples(study())
    shown = [jnp.asarray(examples[name][:1]) for name in made.inputs]
    model = made.model()
    variables = jax.jit(lambda key: model.init(key, *shown, train=False))(jax.random.key(0))

    @jax.jit
    def pulled(params):
        """Norm of each member's gradient, of what each member says."""

        def said_by(own):
            return model.apply({**variables, "params": own}, *shown, train=False)

        outputs, back = jax.vjp(said_by, params)
        alone = {name: {n: v * float(n == name) for n, v in outputs.items()} for name in outputs}
        return {
            name: {n: optax.tree.norm(g) for n, g in back(own)[0].items()}
            for name, own in alone.items()
        }

    found = pulled(variables["params"])
    assert set(found) == {*bp.UNETS, bp.ALEXNET}
    for name, norms in found.items():
        assert [n for n, norm in norms.items() if norm > 0] == [name]


def test_balance_turns_equal_shares_into_the_true_ones():
    label = np.zeros((4, 10, 10, 2), np.uint8)
    label[:2, :2, :5, 0] = 255  # a tenth of two slices
    shares = np.exp(stage().balance({"label": label}))
    assert shares[0] == pytest.approx(0.75 / 0.95, rel=1e-4)
    assert shares[1] == pytest.approx(0.25 / 0.05, rel=1e-4)
    assert shares[2] == pytest.approx(1)


@pytest.mark.parametrize("spacing", [1.5, 2.0])
def test_probabilities_come_back_to_the_native_grid(spacing):
    made = stage(canvas=(40, 40), spacing=spacing, stride=3)
    inputs = made.inference_examples(study())
    slices, rows, cols, _ = inputs["image"].shape
    assert (slices, rows, cols) == (3, 40, 40)
    assert inputs["centres"].shape == (3, 14 * 14, 2)
    # A plane through the scaled grid is a plane through the native one.
    native_rows = np.arange(32)
    scaled_rows = int(np.ceil(32 * 1.5 / spacing - 1e-3))
    position = (np.arange(40) - (scaled_rows - 1) / 2) * spacing / 1.5 + (32 - 1) / 2
    ramp = 0.1 + 0.02 * position
    plane = np.broadcast_to(ramp[None, :, None], (3, 40, 40)).astype(np.float32)
    centres = patches.lattice((40, 40), 3)[..., 0].reshape(-1)
    lattice = np.interp(centres, np.arange(40), ramp, right=ramp[-1] + 0.02 * spacing / 1.5 * 2)
    blocks = np.broadcast_to(np.stack([lattice, lattice / 2], -1), (3, 196, 2))
    outputs = {**dict.fromkeys(bp.UNETS, plane), "alexnet": blocks}
    found = made.members(study(), outputs)
    inner = slice(4, -4)
    for values, times in (
        (found["unet_both"], 1),
        (found["alexnet"][0], 1),
        (found["alexnet"][1], 0.5),
    ):
        assert values.shape == (3, 32, 36)
        expected = times * (0.1 + 0.02 * native_rows[inner])
        np.testing.assert_allclose(values[1, inner, 7], expected, atol=1e-3)


def test_activation_keeps_the_probability_of_bone():
    logits = {n: jnp.zeros((1, 2, 2, 2)).at[..., 1].set(np.log(3)) for n in bp.UNETS}
    p = stage().activate({**logits, "alexnet": jnp.zeros((1, 5, 3))})
    assert p["unet_both"].shape == (1, 2, 2)
    np.testing.assert_allclose(p["unet_both"], 0.75, atol=1e-3)
    assert p["alexnet"].shape == (1, 5, 2)
    np.testing.assert_allclose(p["alexnet"], 1 / 3, atol=1e-3)


def test_decoding_elects_and_cleans():
    made = stage(canvas=(32, 36), stride=4)
    yes = np.zeros((3, 32, 36), np.float16)
    yes[:, 4:16, 20:32] = 1
    speck = yes.copy()
    speck[:, 28:30, 2:4] = 1
    outputs = {
        "unet_humerus": speck,
        "unet_scapula": np.zeros_like(yes),
        "unet_both": speck,
        "alexnet": np.zeros((3, 72, 2), np.float16),
    }
    np.testing.assert_array_equal(made.decode(study(), outputs), yes)
    raw = stage(canvas=(32, 36), smallest_part=0.0).decode(study(), outputs)
    np.testing.assert_array_equal(raw, speck)


def test_a_stride_below_one_and_a_share_above_it_are_refused():
    with pytest.raises(UserError, match="stride"):
        stage(stride=0)
    with pytest.raises(UserError, match="smallest_part is 1.5"):
        stage(smallest_part=1.5)


def test_strengths_of_the_augmentation_are_no_part_of_what_is_compiled():
    moving = stage(augmentation=augment.SliceAugmentation())
    assert moving.traced() == stage().traced()
    assert moving.hyper() == {"augmentation": augment.SliceAugmentation()}
    assert stage(patch=(24, 36)).traced() != stage().traced()
