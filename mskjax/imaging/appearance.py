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
    plane = (image.ndim - 3, image.ndim - 2)
    span = high - low
    unit = jnp.maximum((image - low) / jnp.where(span > 0, span, 1.0), 0.0)
    # Every operation is written so that the neutral parameter leaves each bit as it was.
    changed = unit * jnp.exp((drawn.gamma - 1.0) * jnp.log(jnp.maximum(unit, 1e-6)))
    changed = changed * drawn.gain
    field = jnp.exp(_bias_field(drawn.bias_field, *(image.shape[a] for a in plane)))
    changed = changed * jnp.expand_dims(field, (*range(plane[0]), image.ndim - 1))
    mean = changed.mean(range(image.ndim - 1), keepdims=True)
    changed = changed + (drawn.contrast - 1.0) * (changed - mean)
    changed = _blur(changed, drawn.blur, plane)
    changed = changed + drawn.noise * jax.random.normal(drawn.noise_key, image.shape)
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
        padding = [(2, 2) if a == axis else (0, 0) for a in range(image.ndim)]
        padded = jnp.pad(image, padding, mode="edge")
        size = image.shape[axis]
        image = sum(
            (
                weights[k] * jax.lax.slice_in_dim(padded, k, k + size, axis=axis)
                for k in range(1, 5)
            ),
            weights[0] * jax.lax.slice_in_dim(padded, 0, size, axis=axis),
        )
    return image
