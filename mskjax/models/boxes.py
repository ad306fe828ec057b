"""Boxes of a detector: regression targets, anchors, matching, sampling, non-maximum suppression.

Boxes are those of `imaging.boxes`.  All functions are for one image and have static
shapes: they run under ``jit`` and ``vmap``.  What is not there is padding that a mask or a score
of -inf hides.
"""

import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from mskjax.imaging.boxes import iou_matrix

# A predicted box is at most 1000 / 16 times as large as its anchor: exp never overflows.
LOG_SIZE_LIMIT = math.log(1000 / 16)
_SMALLEST = 1e-3  # pixels; the logarithm of a side of zero does not exist
_SAME_OVERLAP = 1e-6  # two overlaps that differ by rounding are one


def clip(boxes: jax.Array, height: int, width: int) -> jax.Array:
    """(..., 4) boxes cut to an image of `height` x `width` pixels; one outside becomes empty."""
    ends = jnp.array([height, width, height, width], boxes.dtype)
    return jnp.clip(boxes, 0.0, jnp.broadcast_to(ends, boxes.shape))


def encode(
    anchors: jax.Array, boxes: jax.Array, weights: Sequence[float] = (1.0, 1.0, 1.0, 1.0)
) -> jax.Array:
    """Regression targets that turn `anchors` into `boxes` (Ren et al. 2015, equation 2).

    (t_row, t_column, t_height, t_width) = weights * ((r - r_a) / h_a, (c - c_a) / w_a,
    log(h / h_a), log(w / w_a)) with centres (r, c), height h and width w, subscript a: anchor.

    Args:
      anchors: (..., 4).
      boxes: (..., 4); sides below .001 pixel count as that, so padding stays finite.
      weights: factors that bring the four to like variance; Fast R-CNN's (10, 10, 5, 5) are those
        of boxes near their proposals.

    Returns:
      (..., 4), finite.
    """
    centre_a, size_a = _centre_and_size(anchors)
    centre, size = _centre_and_size(boxes)
    deltas = jnp.concatenate([(centre - centre_a) / size_a, jnp.log(size / size_a)], -1)
    return deltas * jnp.broadcast_to(jnp.array(weights, deltas.dtype), deltas.shape)


def decode(
    anchors: jax.Array, deltas: jax.Array, weights: Sequence[float] = (1.0, 1.0, 1.0, 1.0)
) -> jax.Array:
    """Boxes from regression outputs, the inverse of `encode`.

    Args:
      anchors: (..., 4).
      deltas: (..., 4); the logarithms of the sides are cut at log(1000 / 16).
      weights: as given to `encode`.

    Returns:
      (..., 4), not clipped to the image.
    """
    centre_a, size_a = _centre_and_size(anchors)
    deltas = deltas / jnp.broadcast_to(jnp.array(weights, deltas.dtype), deltas.shape)
    centre = centre_a + deltas[..., :2] * size_a
    half = 0.5 * size_a * jnp.exp(jnp.minimum(deltas[..., 2:], LOG_SIZE_LIMIT))
    return jnp.concatenate([centre - half, centre + half], -1)


def _centre_and_size(boxes: jax.Array) -> tuple[jax.Array, jax.Array]:
    """(..., 2) centres and (..., 2) sides in pixels, at least `_SMALLEST`."""
    size = jnp.maximum(boxes[..., 2:] - boxes[..., :2], _SMALLEST)
    return boxes[..., :2] + 0.5 * size, size


def grid_anchors(
    rows: int, columns: int, stride: int, sizes: Sequence[float], ratios: Sequence[float]
) -> np.ndarray:
    """Anchors around the centre of each cell of a feature map.

    Args:
      rows: of the feature map.
      columns: of the feature map.
      stride: pixels from one cell to the next.
      sizes: square roots of the areas, in pixels.
      ratios: height / width.

    Returns:
      (rows * columns * len(sizes) * len(ratios), 4) float32, ratios fastest, then sizes, columns,
      rows.
    """
    shapes = [(size * math.sqrt(r), size / math.sqrt(r)) for size in sizes for r in ratios]
    half = np.array(shapes) / 2
    row, column = np.meshgrid(
        (np.arange(rows) + 0.5) * stride, (np.arange(columns) + 0.5) * stride, indexing="ij"
    )
    centre = np.stack([row, column], -1).reshape(-1, 1, 2)
    return np.concatenate([centre - half, centre + half], -1).reshape(-1, 4).astype(np.float32)


def match(
    anchors: jax.Array,
    boxes: jax.Array,
    valid: jax.Array,
    high: float,
    low: float,
    low_quality: bool = True,
) -> tuple[jax.Array, jax.Array]:
    """Assigns to each anchor the reference box that it overlaps most (Ren et al. 2015, 3.1.2).

    Args:
      anchors: (N, 4).
      boxes: (G, 4) reference boxes, G >= 1.
      valid: (G,) bool, False for padding.
      high: anchors whose overlap (IoU) reaches this are positive.
      low: anchors whose overlap is below this are negative; between the two they are ignored.
      low_quality: the anchors that overlap a reference box most are positive whatever their
        overlap, so no box goes without an anchor.  Equals share; a box that no anchor touches
        has none.  As in the published code such an anchor still belongs to the box that *it*
        overlaps most.

    Returns:
      (N,) int32 number of the box and (N,) int32 label: 1 positive, 0 negative, -1 ignored.
    """
    overlap = jnp.where(valid, iou_matrix(anchors, boxes), -1.0)
    index = jnp.argmax(overlap, 1).astype(jnp.int32)
    best = jnp.max(overlap, 1)
    positive = best >= high
    if low_quality:
        best_of_box = jnp.max(overlap, 0, keepdims=True)
        # A difference of rounding must not decide, or the label would depend on the compiler.
        equal = (overlap >= best_of_box - _SAME_OVERLAP) & (overlap > 0)
        positive = positive | jnp.any(equal, 1)
    label = jnp.where(positive, 1, jnp.where(best < low, 0, -1))
    return index, label.astype(jnp.int32)


def sample(key: jax.Array, labels: jax.Array, count: int, positive_share: float) -> jax.Array:
    """Draws a balanced mini-batch of anchors or regions (Ren et al. 2015, section 3.1.3).

    At most ``round(count * positive_share)`` positives are drawn at random, then negatives until
    there are `count` or none are left.

    Args:
      key: typed key.
      labels: (N,) int: positive where > 0, negative where 0, never drawn where negative.
      count: 1 or more.
      positive_share: in [0, 1].

    Returns:
      (N,) float32, 1 where drawn, else 0.
    """
    # One draw for both: the two sets are disjoint.
    priority = jax.random.uniform(key, labels.shape)
    most = jnp.int32(round(count * positive_share))
    positive = _highest(priority, labels > 0, most, count)
    left = count - jnp.sum(positive).astype(jnp.int32)
    return positive + _highest(priority, labels == 0, left, count)


def _highest(
    priority: jax.Array, eligible: jax.Array, number: jax.Array, at_most: int
) -> jax.Array:
    """(N,) float32 mask of the `number` (traced, <= at_most) eligible entries that come first."""
    size = min(at_most, len(priority))
    values, index = lax.top_k(jnp.where(eligible, priority, -1.0), size)
    chosen = (values >= 0) & (jnp.arange(size) < number)
    return jnp.zeros(priority.shape, jnp.float32).at[index].set(chosen.astype(jnp.float32))


def nms(
    boxes: jax.Array,
    scores: jax.Array,
    iou_threshold: float,
    keep: int,
    groups: jax.Array | None = None,
) -> tuple[jax.Array, jax.Array]:
    """Greedy non-maximum suppression, exact.

    By descending score, of equal scores the lower index first: a box is kept unless its IoU with
    a box kept before is greater than the threshold.

    Greedy selection is the one solution of ``kept[j] = not any(kept[i] & suppresses[i, j])`` over
    i before j.  It is found by iterating from "all kept": after t rounds all boxes are settled
    whose longest chain of suppressors has t links, so a few matrix operations replace a loop over
    boxes (and N rounds are enough for any input).

    Args:
      boxes: (N, 4).
      scores: (N,); -inf or NaN marks padding, which is never kept.
      iou_threshold: in [0, 1].
      keep: number of results; any beyond N are not valid.
      groups: (N,) int; boxes of different groups do not suppress each other.  None: one group.

    Returns:
      (keep,) int32 indices by descending score and (keep,) bool whether there is such a box; the
      index is 0 where not.
    """
    scores = jnp.where(scores > -jnp.inf, scores, -jnp.inf)
    order = jnp.argsort(scores, descending=True, stable=True)
    ranked = boxes[order]
    suppresses = iou_matrix(ranked, ranked) > iou_threshold
    suppresses = jnp.triu(suppresses, 1)
    if groups is not None:
        suppresses = suppresses & (groups[order][:, None] == groups[order][None, :])
    present = scores[order] > -jnp.inf

    def settle(state: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        kept, _ = state
        new = present & ~jnp.any(suppresses & kept[:, None], 0)
        return new, jnp.any(new != kept)

    kept, _ = lax.while_loop(lambda state: state[1], settle, (present, jnp.any(present)))
    size = min(keep, len(scores))
    # Kept boxes first, each part in its order.
    valid, first = lax.top_k(kept.astype(jnp.float32), size)
    indices = jnp.where(valid > 0, order[first], 0).astype(jnp.int32)
    padding = (0, keep - size)
    return jnp.pad(indices, padding), jnp.pad(valid > 0, padding)
