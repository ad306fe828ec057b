"""Random transforms of network inputs, run inside the jitted training step.

As in TorchIO (Perez-Garcia et al. 2021) a random transform is a sampler and a deterministic
transform: `sample_slice_transform` and `sample_crop_transform` draw one example's transform from a
key, and the ``apply_to_*`` functions apply it.  Keys are per example, so what an example becomes
depends neither on its place in the batch nor on its neighbours.  A strength of 0 changes nothing,
to the last bit.

Geometry is in pixels: pixels are taken to be square.  Outside the field of view an image continues
as its own minimum (air) and a structure as absent.
"""

import dataclasses

import jax
import jax.numpy as jnp

from mskjax.imaging import appearance
from mskjax.imaging.appearance import Appearance, factor, symmetric


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class SliceAugmentation:
    """Strengths for 2-D slices; every draw is uniform in +-strength unless said otherwise.

    A pytree: inside a jitted step the strengths are traced scalars, so others compile nothing.

    Attributes:
      rotation: degrees.
      scale: zoom; the factor lies between ``1 / (1 + scale)`` and ``1 + scale``.
      translation: fraction of the height and of the width.
      flip: probability of mirroring left to right; off by default, for left and right differ.
      gain: intensity factor, between ``1 / (1 + gain)`` and ``1 + gain``.
      gamma: exponent, between ``1 / (1 + gamma)`` and ``1 + gamma``.
      contrast: stretch about the mean, by ``1 +- contrast``.
      bias_field: logarithm of the receive field at its extremes, a polynomial of order 2.
      noise: largest standard deviation of Gaussian noise, as a fraction of the intensity range.
      blur: largest standard deviation of a Gaussian blur, pixels, at most 1.
    """

    rotation: float = 15.0
    scale: float = 0.15
    translation: float = 0.05
    flip: float = 0.0
    gain: float = 0.1
    gamma: float = 0.2
    contrast: float = 0.1
    bias_field: float = 0.2
    noise: float = 0.03
    blur: float = 0.5


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class CropAugmentation:
    """Strengths for 3-D crops; in plane all slices move together.  A pytree, as the other.

    Attributes:
      rotation: degrees, in plane.
      scale: zoom in plane; the factor lies between ``1 / (1 + scale)`` and ``1 + scale``.
      translation: fraction of the rows and of the columns.
      slice_shift: slices, a whole number is drawn; the outermost slice is repeated.
      flip_slices: probability of reversing the slices, left for right.
      gain: intensity factor, between ``1 / (1 + gain)`` and ``1 + gain``.
      gamma: exponent, between ``1 / (1 + gamma)`` and ``1 + gamma``.
      contrast: stretch about the crop's mean, by ``1 +- contrast``.
      bias_field: logarithm of the receive field at its extremes, a polynomial of order 2 in plane.
      noise: largest standard deviation of Gaussian noise, as a fraction of the intensity range.
      blur: largest standard deviation of a Gaussian blur in plane, pixels, at most 1.
    """

    rotation: float = 10.0
    scale: float = 0.1
    translation: float = 0.05
    slice_shift: int = 1
    flip_slices: float = 0.0
    gain: float = 0.1
    gamma: float = 0.2
    contrast: float = 0.1
    bias_field: float = 0.2
    noise: float = 0.03
    blur: float = 0.5


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class InPlane:
    """A similarity transform about the image centre: mirror, zoom and rotate, then translate.

    Attributes:
      rotation: radians, from the first axis (rows, down) towards the second (columns, right).
      scale: zoom factor, > 0.
      translation: (2,) rows and columns, as a fraction of their number.
      flip: bool, mirrors the columns.
    """

    rotation: jax.Array
    scale: jax.Array
    translation: jax.Array
    flip: jax.Array


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class SliceTransform(Appearance):
    """One draw of `SliceAugmentation`.

    Attributes:
      in_plane: the geometry.
    """

    in_plane: InPlane


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class CropTransform(Appearance):
    """One draw of `CropAugmentation`.

    Attributes:
      in_plane: the geometry shared by all slices.
      slice_shift: int32, slices towards higher indices.
      flip_slices: bool.
    """

    in_plane: InPlane
    slice_shift: jax.Array
    flip_slices: jax.Array


def sample_slice_transform(key: jax.Array, config: SliceAugmentation) -> SliceTransform:
    """Draws the transform of one slice from a typed key."""
    keys = jax.random.split(key, 8)
    return SliceTransform(
        in_plane=_sample_in_plane(
            keys[0], config.rotation, config.scale, config.translation, config.flip
        ),
        **appearance.sample(keys[1:], config),
    )


def sample_crop_transform(key: jax.Array, config: CropAugmentation) -> CropTransform:
    """Draws the transform of one crop from a typed key."""
    keys = jax.random.split(key, 10)
    reach = jnp.asarray(config.slice_shift).astype(jnp.int32)
    shift = jax.random.randint(keys[1], (), -reach, reach + 1)
    return CropTransform(
        in_plane=_sample_in_plane(keys[0], config.rotation, config.scale, config.translation, 0.0),
        slice_shift=shift,
        flip_slices=jax.random.uniform(keys[2]) < config.flip_slices,
        **appearance.sample(keys[3:], config),
    )


def apply_to_image(transform: SliceTransform, image: jax.Array) -> jax.Array:
    """Transforms a slice: linear interpolation, then its appearance (`appearance.vary`).

    Args:
      transform: of `sample_slice_transform`.
      image: (H, W, C) float32.

    Returns:
      (H, W, C) float32.
    """
    low, high = image.min((0, 1), keepdims=True), image.max((0, 1), keepdims=True)
    return appearance.vary(transform, _warp_linear(transform.in_plane, image, low), low, high)


def apply_to_shares(transform: SliceTransform, shares: jax.Array) -> jax.Array:
    """Moves the shares that structures have of each pixel with their image; linear interpolation.

    Args:
      transform: of `sample_slice_transform`.
      shares: (H, W, C) uint8, a whole pixel is 255.

    Returns:
      (H, W, C) uint8; 0 outside the field of view.
    """
    nothing = jnp.zeros((1, 1, shares.shape[-1]), jnp.float32)
    moved = _warp_linear(transform.in_plane, shares.astype(jnp.float32), nothing)
    return jnp.round(moved).astype(jnp.uint8)


def apply_to_boxes(
    transform: SliceTransform, boxes: jax.Array, tilts: jax.Array, shape: tuple[int, int]
) -> jax.Array:
    """Moves boxes with their image; a box stays upright and fits what it holds again.

    What turns inside a box is taken to be an ellipse whose long axis has the given tilt, so a flat
    structure that is turned upright gets a tall box.

    Args:
      transform: of `sample_slice_transform`, without a flip.
      boxes: (N, 4) row0, col0, row1, col1 in pixels, half-open; a box without area is padding.
      tilts: (N,) radians, positive where the right end of the long axis is the lower one.
      shape: rows, columns of the image.

    Returns:
      (N, 4) float32 cut at the border; a box of which less than half remains has no area.
    """
    size = jnp.array([shape], jnp.float32)
    t = transform.in_plane
    low, high = boxes[:, :2], boxes[:, 2:]
    down, right = jnp.moveaxis((low + high) / 2 - size / 2, 1, 0)
    cosine, sine = jnp.cos(t.rotation), jnp.sin(t.rotation)
    centre = jnp.stack([cosine * down - sine * right, cosine * right + sine * down], 1)
    centre = centre * t.scale + size / 2 + t.translation[None] * size
    # Squared sides of the box round an ellipse are a sum and a difference of its squared axes:
    # width^2 = S + D cos(2 tilt), height^2 = S - D cos(2 tilt).
    height, width = jnp.moveaxis(high - low, 1, 0)
    before, after = jnp.cos(2 * tilts), jnp.cos(2 * (tilts - t.rotation))
    # At a tilt of 45 degrees the sides say nothing about the axes.
    steep = jnp.where(before < 0, -1.0, 1.0) * jnp.maximum(jnp.abs(before), 0.25)
    most = 0.95 * (width**2 + height**2) / 2
    change = jnp.clip((width**2 - height**2) / 2 / steep, -most, most) * (after - before)
    sides = jnp.stack([height**2 - change, width**2 + change], 1)
    sides = jnp.sqrt(jnp.maximum(sides, 0.04 * jnp.minimum(height, width)[:, None] ** 2))
    sides = jnp.where(t.rotation == 0, high - low, sides) * t.scale
    moved = jnp.concatenate([centre - sides / 2, centre + sides / 2], 1)
    cut = jnp.clip(moved, 0, jnp.tile(size, 2))

    def area(box: jax.Array) -> jax.Array:
        return (box[:, 2] - box[:, 0]) * (box[:, 3] - box[:, 1])

    kept = (area(boxes) > 0) & (area(cut) >= 0.5 * area(moved))
    return jnp.where(kept[:, None], cut, 0.0)


def apply_to_crop(transform: CropTransform, crop: jax.Array) -> jax.Array:
    """Transforms a crop: slices are reordered, then moved in plane together, then varied.

    Args:
      transform: of `sample_crop_transform`.
      crop: (D, H, W, C) float32, slices first.

    Returns:
      (D, H, W, C) float32.
    """
    depth = crop.shape[0]
    source = jnp.clip(jnp.arange(depth) - transform.slice_shift, 0, depth - 1)
    source = jnp.where(transform.flip_slices, depth - 1 - source, source)
    low, high = crop.min((0, 1, 2), keepdims=True), crop.max((0, 1, 2), keepdims=True)
    moved = move_crop(transform.in_plane, crop[source], low)
    return appearance.vary(transform, moved, low, high)


def move_crop(in_plane: InPlane, crop: jax.Array, low: jax.Array) -> jax.Array:
    """Moves all slices of a (D, H, W, C) crop alike; ``low`` (1, 1, 1, C) comes from outside."""
    return jax.vmap(lambda image: _warp_linear(in_plane, image, low[0]))(crop)


def augment_crops(keys: jax.Array, crops: jax.Array, config: CropAugmentation) -> jax.Array:
    """Augments (B, D, H, W, C) float32 crops, each with a key of its own; ``keys`` is (B,)."""

    def one(key: jax.Array, crop: jax.Array) -> jax.Array:
        return apply_to_crop(sample_crop_transform(key, config), crop)

    return jax.vmap(one)(keys, crops)


def _sample_in_plane(
    key: jax.Array, rotation: float, scale: float, translation: float, flip: float
) -> InPlane:
    keys = jax.random.split(key, 4)
    return InPlane(
        rotation=jnp.deg2rad(symmetric(keys[0], rotation)),
        scale=factor(keys[1], scale),
        translation=symmetric(keys[2], translation, (2,)),
        flip=jax.random.uniform(keys[3]) < flip,
    )


def _source(transform: InPlane, height: int, width: int) -> tuple[jax.Array, jax.Array, jax.Array]:
    """(H, W) source row and column of each output pixel, and whether it lies in the image."""
    middle_row, middle_column = (height - 1) / 2, (width - 1) / 2
    down = jnp.arange(height, dtype=jnp.float32)[:, None] - middle_row
    right = jnp.arange(width, dtype=jnp.float32)[None, :] - middle_column
    down = down - transform.translation[0] * height
    right = right - transform.translation[1] * width
    cosine = jnp.cos(transform.rotation) / transform.scale
    sine = jnp.sin(transform.rotation) / transform.scale
    rows = cosine * down + sine * right
    columns = cosine * right - sine * down
    columns = jnp.where(transform.flip, -columns, columns)
    rows, columns = rows + middle_row, columns + middle_column
    inside = (jnp.abs(rows - middle_row) <= height / 2) & (
        jnp.abs(columns - middle_column) <= width / 2
    )
    return rows, columns, inside


def _warp_linear(transform: InPlane, image: jax.Array, fill: jax.Array) -> jax.Array:
    """(H, W, C) bilinear samples of the image; ``fill`` (1, 1, C) outside it."""
    height, width, _ = image.shape
    rows, columns, inside = _source(transform, height, width)
    rows, columns = jnp.clip(rows, 0, height - 1), jnp.clip(columns, 0, width - 1)
    row, column = jnp.floor(rows), jnp.floor(columns)
    down, right = (rows - row)[..., None], (columns - column)[..., None]
    row, column = row.astype(jnp.int32), column.astype(jnp.int32)
    row_below = jnp.minimum(row + 1, height - 1)
    column_right = jnp.minimum(column + 1, width - 1)
    above = (1.0 - right) * image[row, column] + right * image[row, column_right]
    below = (1.0 - right) * image[row_below, column] + right * image[row_below, column_right]
    return jnp.where(inside[..., None], (1.0 - down) * above + down * below, fill)
