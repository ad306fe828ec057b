"""Random appearance of the same anatomy: gain, gamma, contrast, receive field, blur and noise.

What slices and crops share; `imaging.augment` adds the geometry.  Everything happens on the scale
on which a channel's minimum is 0 and its maximum 1, so the result does not depend on how an image
was normalised, and negative intensities (z-scores) need nothing of their own.  A channel without
any contrast, e.g. of a sequence that a patient lacks, stays as it is.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Appearance:
    """One draw; scalars unless said otherwise.

    Attributes:
      gain: factor.
      gamma: exponent.
      contrast: factor.
      bias_field: (5,) coefficients of r, c, r c, r^2, c^2 with r and c in -1..1.
      noise: standard deviation, fraction of the range.
      noise_key: typed key of the noise.
      blur: standard deviation, pixels.
    """

    gain: jax.Array
    gamma: jax.Array
    contrast: jax.Array
    bias_field: jax.Array
    noise: jax.Array
    noise_key: jax.Array
    blur: jax.Array


def sample(keys: jax.Array, strengths: Any) -> dict[str, jax.Array]:
    """Draws the fields of an `Appearance`.

    Args:
      keys: (7,) typed keys.
      strengths: has ``gain``, ``gamma``, ``contrast``, ``bias_field``, ``noise`` and ``blur``, as
        `imaging.augment.SliceAugmentation` describes them; they may be traced.
    """
    return {
        "gain": factor(keys[0], strengths.gain),
        "gamma": factor(keys[1], strengths.gamma),
        "contrast": 1.0 + symmetric(keys[2], strengths.contrast),
        # Five terms, each at most 1 in magnitude: their sum stays within the strength.
        "bias_field": symmetric(keys[3], strengths.bias_field, (5,)) / 5.0,
        "noise": strengths.noise * jax.random.uniform(keys[4]),
        "noise_key": keys[5],
        "blur": strengths.blur * jax.random.uniform(keys[6]),
    }


def vary(drawn: Appearance, image: jax.Array, low: jax.Array, high: jax.Array) -> jax.Array:
    """Gives an image another appearance.

    The receive field and the blur are those of the plane: all slices of a crop have the same.

    Args:
      drawn: the parameters.
      image: (H, W, C) or (D, H, W, C) float32.
      low: least intensity of each channel, of the rank of `image` and with its C.
      high: greatest intensity of each channel, likewise.

    Returns:
      Like `image`.
    """
    # In one row: loops over few channels are slow to draw.
    noise = jax.random.normal(drawn.noise_key, (image.size,)).reshape(image.shape)
    if image.shape[-1] == 1:
        return _varied(drawn, image, low, high, noise, image.ndim - 1)
    # Channel by channel, as loops over few channels are slow here too.
    image, low, high, noise = (jnp.moveaxis(x, -1, 0) for x in (image, low, high, noise))
    return jnp.moveaxis(_varied(drawn, image, low, high, noise, 0), 0, -1)


def _varied(
    drawn: Appearance,
    image: jax.Array,
    low: jax.Array,
    high: jax.Array,
    noise: jax.Array,
    channels: int,
) -> jax.Array:
    """As `vary`, with normal ``noise`` like `image` and ``channels`` their axis, first or last."""
    plane = (image.ndim - 2, image.ndim - 1) if channels == 0 else (channels - 2, channels - 1)
    rest = tuple(a for a in range(image.ndim) if a != channels)
    span = high - low
    unit = jnp.maximum((image - low) / jnp.where(span > 0, span, 1.0), 0.0)
    # Every operation is written so that the neutral parameter leaves each bit as it was.
    changed = unit * jnp.exp((drawn.gamma - 1.0) * jnp.log(jnp.maximum(unit, 1e-6)))
    changed = changed * drawn.gain
    field = jnp.exp(_bias_field(drawn.bias_field, *(image.shape[a] for a in plane)))
    changed = changed * jnp.expand_dims(field, [a for a in range(image.ndim) if a not in plane])
    mean = changed.mean(rest, keepdims=True)
    changed = changed + (drawn.contrast - 1.0) * (changed - mean)
    changed = _blur(changed, drawn.blur, plane)
    changed = changed + drawn.noise * noise
    return image + span * (changed - unit)


def symmetric(key: jax.Array, strength: Any, shape: tuple[int, ...] = ()) -> jax.Array:
    """Uniform in +-strength."""
    return strength * jax.random.uniform(key, shape, minval=-1.0, maxval=1.0)


def factor(key: jax.Array, strength: Any) -> jax.Array:
    """Log-uniform, so that enlarging and reducing are equally likely; exactly 1 at strength 0."""
    return jnp.exp(symmetric(key, jnp.log1p(strength)))


def _bias_field(coefficients: jax.Array, height: int, width: int) -> jax.Array:
    """(H, W) logarithm of a receive-field inhomogeneity, a polynomial of order 2."""
    r = jnp.linspace(-1.0, 1.0, height)[:, None]
    c = jnp.linspace(-1.0, 1.0, width)[None, :]
    a = coefficients
    return a[0] * r + a[1] * c + a[2] * r * c + a[3] * r * r + a[4] * c * c


def _blur(image: jax.Array, sigma: jax.Array, axes: tuple[int, int]) -> jax.Array:
    """The image convolved with a Gaussian of ``sigma`` pixels, cut off at two pixels."""
    offsets = jnp.arange(-2, 3).astype(jnp.float32)
    weights = jnp.exp(-0.5 * (offsets / jnp.maximum(sigma, 1e-3)) ** 2)
    weights = weights / weights.sum()
    for axis in axes:
        image = _along(image, weights, axis)
    return image


def _along(image: jax.Array, weights: jax.Array, axis: int) -> jax.Array:
    """The image convolved along one axis with (5,) weights; outside it continues as its border.

    The two lines at each border are computed apart: padding would be asked for in each of the five
    terms, for each pixel anew.
    """
    size = image.shape[axis]

    def padded(part: jax.Array, before: int, after: int) -> jax.Array:
        padding = [(before, after) if a == axis else (0, 0) for a in range(image.ndim)]
        return jnp.pad(part, padding, mode="edge")

    def lines(start: int, stop: int) -> jax.Array:
        return jax.lax.slice_in_dim(image, start, stop, axis=axis)

    def convolved(part: jax.Array) -> jax.Array:
        length = part.shape[axis] - 4
        terms = [
            weights[k] * jax.lax.slice_in_dim(part, k, k + length, axis=axis) for k in range(5)
        ]
        return sum(terms[1:], terms[0])

    if size < 5:
        return convolved(padded(image, 2, 2))
    ends = padded(lines(0, 4), 2, 0), padded(lines(size - 4, size), 0, 2)
    parts = convolved(ends[0]), convolved(image), convolved(ends[1])
    return jnp.concatenate(parts, axis)
