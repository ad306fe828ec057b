"""Where training patches are cut."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mskjax.imaging.patch_sampling import ON_A_STRUCTURE, patch_start, voxel

SHAPE = (6, 60, 40)


NOWHERE = (slice(0, 0),) * 3


def labelled(first=NOWHERE, second=NOWHERE):
    """(..., 2) bool, a box of voxels for each structure."""
    marked = np.zeros((*SHAPE, 2), bool)
    marked[(*first, 0)] = marked[(*second, 1)] = True
    return marked


@functools.partial(jax.jit, static_argnums=3)
def _starts(keys, marked, known, size):
    return jax.vmap(lambda key: patch_start(key, marked, known, size))(keys)


def drawn(marked, size, known=None):
    """(4000, 3) corners."""
    known = np.ones(SHAPE, bool) if known is None else known
    return np.asarray(_starts(jax.random.split(jax.random.key(0), 4000), marked, known, size))


SPINE = (slice(1, 5), slice(8, 52), slice(10, 20))
LOWEST = (slice(2, 4), slice(46, 50), slice(12, 18))


def test_no_labelled_row_is_seen_in_fewer_than_a_third_of_the_average():
    starts = drawn(labelled(SPINE, LOWEST), (6, 20, 16))
    rows = np.arange(8, 52)
    seen = ((starts[:, 1, None] <= rows) & (rows < starts[:, 1, None] + 20)).mean(0)
    assert seen.min() > seen.mean() / 3
    # Corners drawn uniformly over the canvas would do worse on a canvas as long as the longest.
    assert seen[0] > 0.1


def test_a_patch_lies_inside_and_two_of_three_hold_something_labelled():
    marked = labelled((slice(4, 5), slice(50, 52), slice(38, 39)))
    starts = drawn(marked, (1, 9, 7))
    assert starts.min() >= 0
    assert (starts + np.array((1, 9, 7)) <= SHAPE).all()
    held = [marked[d : d + 1, r : r + 9, c : c + 7].any() for d, r, c in starts]
    assert np.mean(held) == pytest.approx(ON_A_STRUCTURE, abs=0.05)
    # The others show what lies far from all structures, up to the other end.
    assert starts.min(0).tolist() == [0, 0, 0]


def test_two_of_three_centres_are_on_a_structure_each_as_often():
    # Two voxels in opposite corners: what is drawn anywhere lies on neither as a rule.
    first, last = ((slice(n, n + 1),) * 3 for n in (0, 5))
    starts = drawn(labelled(first, last), (1, 1, 1))
    share = [(starts == n).all(1).mean() for n in (0, 5)]
    assert share == pytest.approx([ON_A_STRUCTURE / 2] * 2, abs=0.03)


def test_slices_without_labels_are_left_out_as_far_as_the_patch_allows():
    known = np.zeros(SHAPE, bool)
    known[1:4] = True
    everywhere = (slice(None),) * 3
    assert set(drawn(labelled(everywhere), (3, 20, 16), known)[:, 0]) == {1}
    assert set(drawn(labelled(everywhere), (1, 1, 1), known)[:, 0]) == {1, 2, 3}
    # A patch of more slices than are known holds all of them, at any place.
    assert set(drawn(labelled(everywhere), (5, 20, 16), known)[:, 0]) == {0, 1}


def test_without_any_label_patches_come_from_all_over_what_is_known():
    starts = drawn(labelled(), (6, 20, 16))
    assert set(starts[:, 0]) == {0}
    assert set(starts[:, 1]) == set(range(41))


def test_every_voxel_of_a_mask_is_as_likely():
    mask = np.random.default_rng(0).uniform(size=(3, 4, 5)) < 0.3
    keys = jax.random.split(jax.random.key(1), 6000)
    found = np.asarray(jax.jit(jax.vmap(lambda k: voxel(k, jnp.asarray(mask))))(keys))
    counts = np.zeros(mask.shape)
    np.add.at(counts, tuple(found.T), 1)
    assert not counts[~mask].any()
    expected = len(keys) / mask.sum()
    assert abs(counts[mask] - expected).max() < 5 * np.sqrt(expected)
