"""RoIAlign: features of a box on a small grid, by bilinear interpolation."""

import jax
import jax.numpy as jnp


def roi_align(
    features: jax.Array,
    boxes: jax.Array,
    output: tuple[int, int],
    spatial_scale: float,
    sampling_ratio: int = 2,
    aligned: bool = True,
) -> jax.Array:
    """Mean of bilinear samples in each cell of a grid laid over each box (He et al. 2017).

    The box is scaled to the feature map and, where `aligned`, shifted by half a pixel, as pixel
    centres lie at integer indices there.  Each cell holds `sampling_ratio` ** 2 evenly spaced
    samples.  A sample at y outside [-1, H] is 0; others are clamped to [0, H - 1] (likewise in x).

    The grid is separable and so is bilinear interpolation: with weights R (h, H) of rows and
    C (w, W) of columns per box, ``out = R F C^T``.  Two dense products per box, their gradients
    dense products too, replace gathers and, backwards, scatters, which are slow on CPU and TPU.

    Args:
      features: (H, W, C).
      boxes: (R, 4) in image pixels, see `boxes`.
      output: rows and columns (h, w) of the grid.
      spatial_scale: feature pixels per image pixel, 1 / stride.
      sampling_ratio: samples per cell along each axis, 1 or more (not adaptive to the box, which
        would make shapes dynamic).
      aligned: False is the older convention: no shift, and boxes of at least one feature pixel.

    Returns:
      (R, h, w, C) of the dtype of `features`; the weights are computed in the dtype of `boxes`.
      Differentiable in features and, almost everywhere, in boxes.

    Raises:
      ValueError: a sampling ratio below 1.
    """
    if sampling_ratio < 1:
        raise ValueError(f"sampling_ratio is {sampling_ratio}; it must be 1 or more")
    height, width, channels = features.shape
    scaled = boxes * spatial_scale - (0.5 if aligned else 0.0)
    start, size = scaled[:, :2], scaled[:, 2:] - scaled[:, :2]
    if not aligned:
        size = jnp.maximum(size, 1.0)
    rows = _axis_weights(start[:, 0], size[:, 0], output[0], height, sampling_ratio)
    columns = _axis_weights(start[:, 1], size[:, 1], output[1], width, sampling_ratio)
    # The rows of all boxes in one matrix product, which leaves little to the products per box.
    flat = rows.astype(features.dtype).reshape(-1, height) @ features.reshape(height, -1)
    bands = flat.reshape(len(boxes), output[0], width, channels)
    return jnp.einsum("rwx,rhxc->rhwc", columns.astype(features.dtype), bands)


def _axis_weights(
    start: jax.Array, size: jax.Array, cells: int, length: int, samples: int
) -> jax.Array:
    """Weights (R, cells, length) that a line of `length` pixels is multiplied with.

    Args:
      start: (R,) of each box on the line, in feature pixels.
      size: (R,) of each box.
      cells: to divide the box into.
      length: of the line.
      samples: per cell, which are averaged.
    """
    fraction = (jnp.arange(cells * samples, dtype=start.dtype) + 0.5) / (cells * samples)
    position = start[:, None] + size[:, None] * fraction[None]
    inside = (position >= -1.0) & (position <= length)
    position = jnp.clip(position, 0.0, length - 1.0)
    # Bilinear interpolation is a hat of half-width 1 around the sample.
    pixels = jnp.arange(length, dtype=start.dtype)
    distance = jnp.abs(position[..., None] - pixels[None, None])
    weights = jnp.where(inside[..., None], jnp.maximum(1.0 - distance, 0.0), 0.0)
    return weights.reshape(len(start), cells, samples, length).mean(2)
