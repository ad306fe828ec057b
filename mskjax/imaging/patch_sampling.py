"""Where training patches are cut: on a structure as a rule, and anywhere.

Corners drawn uniformly over a canvas that holds the largest study show the ends of what is
labelled, and small studies, hardly ever.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp

# Of the patches.  nnU-Net takes a third (Isensee et al. 2021); where images reach far beyond what
# is labelled, the ends of a long structure would then still be rare.
ON_A_STRUCTURE = 2 / 3


def patch_start(
    key: jax.Array, labelled: jax.Array, known: jax.Array, size: Sequence[int]
) -> jax.Array:
    """Draws the corner of a patch, two of three with a structure in its middle.

    Of these each structure that is there has equally many; the other centres are uniform over what
    is known, or nothing would be learnt of what lies far from all structures.  A patch that would
    leave the array is moved back into it, and as far as it goes onto what is known.

    Args:
      key: typed.
      labelled: (..., K) bool, voxels of each structure; N axes before the last.
      known: (...) bool, whether labels are known; the others count as unlabelled.
      size: of the patch, N numbers, none larger than the array.

    Returns:
      (N,) int32, the first voxel.
    """
    kind, place, which, where = jax.random.split(key, 4)
    marked = labelled & known[..., None]
    first, last = _box(known)
    room = (last - first + 1).astype(jnp.float32)
    spread = jnp.floor(jax.random.uniform(place, room.shape) * room).astype(jnp.int32)
    present = marked.any(tuple(range(known.ndim)))
    structure = jax.random.categorical(which, jnp.where(present, 0.0, -jnp.inf))
    on_it = voxel(where, jnp.take(marked, structure, axis=-1))
    chosen = present.any() & (jax.random.uniform(kind) < ON_A_STRUCTURE)
    centre = jnp.where(chosen, on_it, first + spread)
    span = jnp.asarray(size, jnp.int32)
    ends = first, last + 1 - span
    start = jnp.clip(centre - span // 2, jnp.minimum(*ends), jnp.maximum(*ends))
    return jnp.clip(start, 0, jnp.asarray(known.shape, jnp.int32) - span)


def voxel(key: jax.Array, mask: jax.Array) -> jax.Array:
    """(N,) int32: one of the true voxels of a mask with N axes, all equally likely.

    Axis by axis, each index as often as there are true voxels at it: nothing is drawn per voxel.
    The last voxel where none is true.
    """
    found = []
    for draw in jax.random.split(key, mask.ndim):
        counts = mask.sum(tuple(range(1, mask.ndim)), dtype=jnp.float32)
        below = jnp.cumsum(counts) <= jax.random.uniform(draw) * counts.sum()
        index = jnp.minimum(below.sum(dtype=jnp.int32), mask.shape[0] - 1)
        found.append(index)
        mask = jnp.take(mask, index, axis=0)
    return jnp.stack(found)


def _box(mask: jax.Array) -> tuple[jax.Array, jax.Array]:
    """First and last index along each axis where something is true; the ends where nothing is."""
    low, high = [], []
    for axis in range(mask.ndim):
        line = mask.any(tuple(a for a in range(mask.ndim) if a != axis))
        low.append(jnp.argmax(line))
        high.append(line.shape[0] - 1 - jnp.argmax(line[::-1]))
    return jnp.stack(low).astype(jnp.int32), jnp.stack(high).astype(jnp.int32)
