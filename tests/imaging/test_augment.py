import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from mskjax.imaging import augment
from mskjax.imaging.augment import (
    CropAugmentation,
    SliceAugmentation,
    apply_to_boxes,
    apply_to_crop,
    apply_to_image,
    apply_to_shares,
    sample_crop_transform,
    sample_slice_transform,
)

NO_SLICE = SliceAugmentation(**dict.fromkeys(SliceAugmentation.__dataclass_fields__, 0.0))
NO_CROP = CropAugmentation(**dict.fromkeys(CropAugmentation.__dataclass_fields__, 0))
STILL = sample_slice_transform(jax.random.key(0), NO_SLICE)
STILL_CROP = sample_crop_transform(jax.random.key(0), NO_CROP)

image_of = jax.jit(apply_to_image)
shares_of = jax.jit(apply_to_shares)
crop_of = jax.jit(apply_to_crop)
boxes_of = jax.jit(apply_to_boxes, static_argnums=3)
augment_crops = jax.jit(augment.augment_crops)


@jax.jit
def augment_slices(keys, images, masks, config):
    def one(key, image, mask):
        transform = sample_slice_transform(key, config)
        return apply_to_image(transform, image), apply_to_shares(transform, mask)

    return jax.vmap(one)(keys, images, masks)


@pytest.fixture(autouse=True)
def strict_promotion():
    with jax.numpy_dtype_promotion("strict"):
        yield


def normal(*shape):
    return jnp.asarray(np.random.default_rng(0).normal(size=shape), jnp.float32)


def moved(**geometry):
    """The transform that changes nothing but the named geometry."""
    arrays = {k: jnp.asarray(v, bool if k == "flip" else jnp.float32) for k, v in geometry.items()}
    return dataclasses.replace(STILL, in_plane=dataclasses.replace(STILL.in_plane, **arrays))


def test_strength_zero_changes_no_bit():
    """Though the compiled function knows no strength: it is the one that also turns and blurs."""
    keys = jax.random.split(jax.random.key(3), 2)
    images, masks = normal(2, 12, 9, 2), jnp.arange(216).reshape(2, 12, 9, 1).astype(jnp.uint8)
    out, out_masks = augment_slices(keys, images, masks, NO_SLICE)
    np.testing.assert_array_equal(out, images)
    np.testing.assert_array_equal(out_masks, masks)
    assert out_masks.dtype == jnp.uint8
    crops = normal(2, 4, 6, 5, 2)
    out = augment_crops(keys, crops, NO_CROP)
    np.testing.assert_array_equal(out, crops)


def test_rotation_carries_a_point_from_down_to_right():
    """A quarter turn about the centre (4, 4): (6, 4), two below it, goes to two right of it."""
    delta = jnp.zeros((9, 9, 1)).at[6, 4, 0].set(1.0)
    turned = image_of(moved(rotation=np.pi / 2), delta)
    np.testing.assert_allclose(turned, jnp.zeros((9, 9, 1)).at[4, 6, 0].set(1.0), atol=1e-6)


def test_translation_is_a_fraction_of_the_size():
    delta = jnp.zeros((10, 20, 1)).at[4, 7, 0].set(1.0)
    there = image_of(moved(translation=(0.2, -0.1)), delta)
    np.testing.assert_allclose(there, jnp.zeros((10, 20, 1)).at[6, 5, 0].set(1.0), atol=1e-6)


def test_scale_enlarges_about_the_centre():
    """Of a pixel at three times its size the middle is whole and the rim is shared."""
    delta = jnp.zeros((9, 9, 1), jnp.uint8).at[5, 3].set(255)
    enlarged = shares_of(moved(scale=3.0), delta)[..., 0]
    rim = np.array([1, 2, 3, 2, 1]) / 3
    expected = np.zeros((9, 9))
    expected[5:, 0:4] = np.outer(rim[:4], rim[1:])
    np.testing.assert_allclose(enlarged / 255, expected, atol=0.5 / 255)


def test_flip_mirrors_columns():
    image = normal(4, 6, 1)
    np.testing.assert_allclose(image_of(moved(flip=True), image), image[:, ::-1], atol=1e-6)


@settings(max_examples=6)
@given(
    angle=st.floats(-1.0, 1.0),
    scale=st.floats(0.8, 1.25),
    shift=st.tuples(st.floats(-0.1, 0.1), st.floats(-0.1, 0.1)),
)
def test_interpolation_is_scipy_affine_transform(angle, scale, shift):
    height, width = 13, 10
    image = normal(height, width, 1)
    ours = image_of(moved(rotation=angle, scale=scale, translation=shift), image)[..., 0]
    matrix = np.asarray([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]]) / scale
    centre = np.asarray([(height - 1) / 2, (width - 1) / 2])
    offset = centre - matrix @ (centre + np.asarray(shift) * [height, width])
    inner = ndimage.affine_transform(
        np.asarray(image[..., 0]), matrix, offset, order=1, cval=np.nan
    )
    known = np.isfinite(inner)
    assert known.sum() > 20
    np.testing.assert_allclose(np.asarray(ours)[known], inner[known], atol=1e-3)


def test_outside_is_the_minimum_and_no_structure():
    image, mask = 5.0 + jnp.abs(normal(8, 8, 2)), jnp.full((8, 8, 1), 3, jnp.uint8)
    away = moved(translation=(0.5, 0.0))
    out = image_of(away, image)
    np.testing.assert_allclose(out[:4], jnp.broadcast_to(image.min((0, 1)), (4, 8, 2)), rtol=1e-6)
    np.testing.assert_allclose(out[4:], image[:4], rtol=1e-6)
    expected = np.repeat([0, 3], 4)[:, None, None] * np.ones((8, 1))
    np.testing.assert_array_equal(shares_of(away, mask), expected)


@pytest.mark.parametrize("seed", range(4))
def test_shares_stay_on_their_image(seed):
    """An image of the shares of a structure is moved as these are, to the rounding."""
    rows, columns = np.mgrid[:40, :32]
    disc = 255 * ((rows - 22.0) ** 2 + (columns - 13.0) ** 2 < 64).astype(np.uint8)[..., None]
    strengths = SliceAugmentation(
        rotation=30, scale=0.2, translation=0.1, flip=0.5, gain=0, gamma=0, contrast=0,
        bias_field=0, noise=0, blur=0,
    )  # fmt: skip
    transform = sample_slice_transform(jax.random.key(seed), strengths)
    image = image_of(transform, jnp.asarray(disc, jnp.float32))
    shares = shares_of(transform, jnp.asarray(disc))
    assert shares.dtype == jnp.uint8
    assert 100 < int((shares > 127).sum()) < 400
    np.testing.assert_allclose(shares, image, atol=0.51)


def test_draws_stay_within_their_strengths_and_fill_them():
    config = SliceAugmentation(flip=0.5)
    keys = jax.random.split(jax.random.key(0), 2000)
    drawn = jax.jit(jax.vmap(lambda key: sample_slice_transform(key, config)))(keys)
    limits = {
        "rotation": (drawn.in_plane.rotation, -np.deg2rad(15), np.deg2rad(15)),
        "scale": (drawn.in_plane.scale, 1 / 1.15, 1.15),
        "translation": (drawn.in_plane.translation, -0.05, 0.05),
        "gain": (drawn.gain, 1 / 1.1, 1.1),
        "gamma": (drawn.gamma, 1 / 1.2, 1.2),
        "contrast": (drawn.contrast, 0.9, 1.1),
        "noise": (drawn.noise, 0.0, 0.03),
        "blur": (drawn.blur, 0.0, 0.5),
    }
    for name, (values, low, high) in limits.items():
        slack = 0.02 * (high - low)
        assert low - 1e-5 <= float(values.min()) < low + slack, name
        assert high - slack < float(values.max()) <= high + 1e-5, name
    assert float(jnp.abs(drawn.bias_field).sum(-1).max()) <= 0.2 + 1e-6
    assert 0.45 < float(drawn.in_plane.flip.mean()) < 0.55
    assert SliceAugmentation().flip == 0.0


def test_intensities_follow_their_formulas():
    image = normal(6, 7, 1)
    low, span = image.min(), image.max() - image.min()
    unit = (image - low) / span
    for change, expected in (
        ({"gain": 1.2}, 1.2 * unit),
        ({"gamma": 1.5}, unit**1.5),
        ({"contrast": 0.7}, unit.mean() + 0.7 * (unit - unit.mean())),
    ):
        out = image_of(
            dataclasses.replace(STILL, **{k: jnp.float32(v) for k, v in change.items()}), image
        )
        np.testing.assert_allclose(out, low + span * expected, atol=1e-5)


def test_intensities_do_not_depend_on_the_normalisation():
    transform = sample_slice_transform(jax.random.key(1), SliceAugmentation())
    image = normal(10, 10, 1)
    np.testing.assert_allclose(
        image_of(transform, 300.0 * image - 40.0), 300.0 * image_of(transform, image) - 40.0,
        atol=0.05,
    )  # fmt: skip


@pytest.mark.parametrize("seed", range(6))
def test_boxes_move_with_what_they_surround(seed):
    strengths = dataclasses.replace(NO_SLICE, scale=0.3, translation=0.15)
    transform = sample_slice_transform(jax.random.key(seed), strengths)
    box = np.array([18.0, 25.0, 34.0, 51.0])
    image = np.zeros((60, 84, 1), np.float32)
    image[18:34, 25:51] = 1
    bright = np.asarray(image_of(transform, jnp.asarray(image)))[..., 0]
    boxes, level = jnp.asarray(box[None], jnp.float32), jnp.zeros(1, jnp.float32)
    (own,) = np.asarray(boxes_of(transform, boxes, level, (60, 84)))
    assert np.abs(own - box).max() > 0.5
    # Edges lie between pixels: bright pixels of each profile, partial ones in part.
    for axis, (low, high) in enumerate(own.reshape(2, 2).T):
        profile = bright.max(1 - axis)
        middle = (profile * (np.arange(len(profile)) + 0.5)).sum() / profile.sum()
        assert profile.sum() == pytest.approx(high - low, abs=0.35)
        assert middle == pytest.approx((low + high) / 2, abs=0.2)


def test_boxes_are_cut_at_the_border_and_lost_when_most_of_them_is_outside():
    boxes = jnp.asarray(
        [[2, 10, 12, 30], [0, 10, 8, 30], [14, 2, 18, 8], [0, 0, 0, 0]], jnp.float32
    )
    tilts = jnp.asarray([0.0, 0.3, 0.8, 0.0], jnp.float32)
    up = boxes_of(moved(translation=(-0.3, 0.0)), boxes, tilts, (20, 40))
    np.testing.assert_allclose(
        up, [[0, 10, 6, 30], [0, 0, 0, 0], [8, 2, 12, 8], [0, 0, 0, 0]], atol=1e-5
    )
    np.testing.assert_array_equal(boxes_of(STILL, boxes, tilts, (20, 40)), boxes)


def ellipse_box(tilt, centre, axes=(30.0, 9.0)):
    """The box round an ellipse with these half axes, from its outline."""
    round_it = np.linspace(0, 2 * np.pi, 5000)
    along, across = axes[0] * np.cos(round_it), axes[1] * np.sin(round_it)
    rows = centre[0] + along * np.sin(tilt) + across * np.cos(tilt)
    cols = centre[1] + along * np.cos(tilt) - across * np.sin(tilt)
    return np.array([rows.min(), cols.min(), rows.max(), cols.max()])


@pytest.mark.parametrize("tilt", [-60, -20, 0, 10, 35, 70])
@pytest.mark.parametrize("turn", [-25, 12])
def test_boxes_fit_ellipses_that_have_been_turned(tilt, turn):
    tilt, turn = np.deg2rad([tilt, turn])
    box = ellipse_box(tilt, (110, 90))
    transform = moved(rotation=turn, scale=1.2, translation=(0.05, -0.1))
    boxes, tilts = (jnp.asarray([v], jnp.float32) for v in (box, tilt))
    (own,) = np.asarray(boxes_of(transform, boxes, tilts, (200, 240)))
    down, right = 110 - 100, 90 - 120
    centre = (
        100 + 1.2 * (np.cos(turn) * down - np.sin(turn) * right) + 0.05 * 200,
        120 + 1.2 * (np.cos(turn) * right + np.sin(turn) * down) - 0.1 * 240,
    )
    expected = ellipse_box(tilt - turn, centre, axes=(36.0, 10.8))
    np.testing.assert_allclose(own, expected, atol=0.1)


def test_a_turned_box_follows_the_image():
    row, col = np.mgrid[:200, :240] - np.array([110, 90])[:, None, None]
    along, across = 0.6 * row + 0.8 * col, 0.8 * row - 0.6 * col
    image = ((along / 30) ** 2 + (across / 9) ** 2 <= 1).astype(np.float32)[..., None]
    tilt = np.arctan2(0.6, 0.8)
    boxes, tilts = (jnp.asarray([v], jnp.float32) for v in (ellipse_box(tilt, (110, 90)), tilt))
    transform = moved(rotation=-0.4)
    (own,) = np.asarray(boxes_of(transform, boxes, tilts, (200, 240)))
    bright = np.asarray(image_of(transform, jnp.asarray(image)))[..., 0] > 0.5
    rows, cols = np.nonzero(bright.any(1))[0], np.nonzero(bright.any(0))[0]
    seen = [rows[0], cols[0], rows[-1] + 1, cols[-1] + 1]
    np.testing.assert_allclose(own, seen, atol=1.5)


def test_bias_field_is_smooth_and_multiplies():
    image = jnp.ones((5, 5, 1)).at[0, 0, 0].set(0.0)
    field = image_of(
        dataclasses.replace(STILL, bias_field=jnp.asarray([0.3, 0.0, 0.0, 0.0, 0.0])), image
    )
    np.testing.assert_allclose(field[:, 2, 0], np.exp(0.3 * np.linspace(-1, 1, 5)), rtol=1e-5)
    np.testing.assert_allclose(field[0, 0, 0], 0.0, atol=1e-6)


def test_blur_is_scipy_gaussian():
    image = normal(12, 11, 2)
    out = image_of(dataclasses.replace(STILL, blur=jnp.float32(0.5)), image)
    expected = ndimage.gaussian_filter(np.asarray(image), (0.5, 0.5, 0), mode="nearest", radius=2)
    np.testing.assert_allclose(out, expected, atol=1e-4)


def test_noise_has_the_stated_deviation_and_differs_by_key():
    image = jnp.zeros((64, 64, 1)).at[0, 0, 0].set(10.0)

    def noise(seed):
        noisy = dataclasses.replace(STILL, noise=jnp.float32(0.05), noise_key=jax.random.key(seed))
        return image_of(noisy, image) - image

    assert float(noise(0).std()) == pytest.approx(0.5, rel=0.05)
    np.testing.assert_array_equal(noise(0), noise(0))
    assert float(jnp.abs(noise(0) - noise(1)).max()) > 0.1


def test_constant_image_stays_finite():
    transform = sample_slice_transform(jax.random.key(1), SliceAugmentation())
    assert bool(jnp.isfinite(image_of(transform, jnp.full((8, 8, 1), 7.0))).all())


def test_an_example_does_not_depend_on_its_batch():
    keys = jax.random.split(jax.random.key(5), 3)
    images, masks = normal(3, 16, 12, 1), jnp.ones((3, 16, 12, 1), jnp.uint8)
    together = augment_slices(keys, images, masks, SliceAugmentation())
    alone = augment_slices(keys[2:], images[2:], masks[2:], SliceAugmentation())
    np.testing.assert_allclose(together[0][2], alone[0][0], atol=1e-5)
    np.testing.assert_array_equal(together[1][2], alone[1][0])
    assert float(jnp.abs(together[0] - images).min((1, 2, 3)).max()) > 0
    crops = normal(3, 4, 8, 6, 1)
    together = augment_crops(keys, crops, CropAugmentation())
    alone = augment_crops(keys[2:], crops[2:], CropAugmentation())
    np.testing.assert_allclose(together[2], alone[0], atol=1e-5)


def test_equal_images_with_different_keys_differ():
    images = jnp.broadcast_to(normal(16, 12, 1), (3, 16, 12, 1))
    masks = jnp.ones((3, 16, 12, 1), jnp.uint8)
    keys = jax.random.split(jax.random.key(5), 3)
    out, _ = augment_slices(keys, images, masks, SliceAugmentation())
    assert float(jnp.abs(out[0] - out[1]).max()) > 0.1


def test_crop_slices_move_together():
    """Each slice of a moved crop is that slice moved alone by the same geometry."""
    crop = normal(3, 9, 8, 2).at[:, 0, 0].set(-9.0)  # one minimum for all slices
    geometry = moved(rotation=0.3, scale=1.1, translation=(0.1, 0.0)).in_plane
    out = crop_of(dataclasses.replace(STILL_CROP, in_plane=geometry), crop)
    for k in range(3):
        alone = image_of(dataclasses.replace(STILL, in_plane=geometry), crop[k])
        np.testing.assert_allclose(out[k], alone, atol=1e-5)


def test_crop_slice_shift_flip_and_gain():
    crop = jnp.broadcast_to(jnp.arange(5.0)[:, None, None, None], (5, 3, 4, 1))

    def levels(**change):
        return np.asarray(crop_of(dataclasses.replace(STILL_CROP, **change), crop)[:, 1, 1, 0])

    np.testing.assert_array_equal(levels(slice_shift=jnp.int32(2)), [0, 0, 0, 1, 2])
    np.testing.assert_array_equal(levels(slice_shift=jnp.int32(-1)), [1, 2, 3, 4, 4])
    np.testing.assert_array_equal(levels(flip_slices=jnp.asarray(True)), [4, 3, 2, 1, 0])
    np.testing.assert_allclose(levels(gain=jnp.float32(1.5)), [0, 1.5, 3, 4.5, 6])


def test_crop_draws():
    config = CropAugmentation(slice_shift=2, flip_slices=0.5)
    keys = jax.random.split(jax.random.key(0), 500)
    drawn = jax.jit(jax.vmap(lambda key: sample_crop_transform(key, config)))(keys)
    assert set(np.asarray(drawn.slice_shift)) == {-2, -1, 0, 1, 2}
    assert 0.4 < float(drawn.flip_slices.mean()) < 0.6
    assert not drawn.in_plane.flip.any()
    for name, low, high in (
        ("gain", 1 / 1.1, 1.1), ("gamma", 1 / 1.2, 1.2), ("contrast", 0.9, 1.1),
        ("noise", 0.0, 0.03), ("blur", 0.0, 0.5),
    ):  # fmt: skip
        values = getattr(drawn, name)
        slack = 0.03 * (high - low)
        assert low - 1e-5 <= float(values.min()) < low + slack, name
        assert high - slack < float(values.max()) <= high + 1e-5, name
    assert 0.1 < float(jnp.abs(drawn.bias_field).sum(-1).max()) <= 0.2 + 1e-6


def test_a_crop_of_two_sequences_is_varied_beyond_the_motion():
    crop = normal(3, 9, 8, 2).at[..., 0].set(0.0)  # no T1
    keys = jax.random.split(jax.random.key(2), 1)
    still = dataclasses.replace(CropAugmentation(), rotation=0.0, scale=0.0, translation=0.0)
    (out,) = augment_crops(keys, crop[None], dataclasses.replace(still, slice_shift=0))
    np.testing.assert_array_equal(out[..., 0], 0)
    assert float(jnp.abs(out - crop)[..., 1].max()) > 0.05


def test_other_strengths_run_on_the_same_program():
    keys, crops = jax.random.split(jax.random.key(5), 2), normal(2, 4, 6, 5, 2)
    images, masks = normal(2, 12, 9, 2), jnp.ones((2, 12, 9, 1), jnp.uint8)
    augment_crops(keys, crops, CropAugmentation())
    augment_slices(keys, images, masks, SliceAugmentation())
    before = augment_crops._cache_size(), augment_slices._cache_size()
    many = CropAugmentation(40.0, 0.5, 0.0, slice_shift=2, flip_slices=1.0, gain=0.0)
    assert float(jnp.abs(augment_crops(keys, crops, many) - crops).max()) > 0.1
    augment_slices(keys, images, masks, dataclasses.replace(SliceAugmentation(), blur=0.0))
    assert before == (augment_crops._cache_size(), augment_slices._cache_size())


def test_configurations_are_hashable_and_frozen():
    assert hash(SliceAugmentation()) == hash(SliceAugmentation())
    with pytest.raises(dataclasses.FrozenInstanceError):
        CropAugmentation().gain = 1.0  # type: ignore[misc]
