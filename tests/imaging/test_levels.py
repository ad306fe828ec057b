import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mskjax.imaging.levels import assign_levels, is_shown, level_name, tilts


def assigned(centres, scores, lowest=None):
    lowest = np.zeros(len(scores)) if lowest is None else np.array(lowest)
    return assign_levels(centres, scores, lowest, 0.3)


def spine(count, tilt=0.0, step=30.0):
    """Centres of a straight spine from the lowest disc upwards; its discs' backs lie lower."""
    down = np.array([np.cos(tilt), -np.sin(tilt)])
    return np.array([300.0, 80.0]) - step * np.arange(count)[:, None] * down


def test_discs_are_counted_from_the_lowest_upwards_in_whatever_order_they_come():
    centres = spine(5)
    order = np.array([3, 0, 4, 1, 2])
    found = assigned(centres[order], np.ones(5))
    np.testing.assert_array_equal(order[found.kept], [0, 1, 2, 3, 4])
    np.testing.assert_array_equal(found.levels, [1, 2, 3, 4, 5])
    assert (found.gaps, found.left_out, found.levels.dtype) == (0, 0, np.int32)


@given(
    steps=st.lists(st.floats(27.5, 32.5), min_size=5, max_size=8),
    left_out=st.integers(1, 4),
    tilt=st.floats(-0.5, 0.5),
    seed=st.integers(0, 99),
)
@settings(max_examples=40)
def test_a_gap_skips_a_number_and_a_twin_takes_none(steps, left_out, tilt, seed):
    down = np.array([np.cos(tilt), -np.sin(tilt)])
    centres = 400 - np.concatenate([[0], np.cumsum(steps)])[:, None] * down
    rng = np.random.default_rng(seed)
    kept = np.delete(np.arange(len(centres)), left_out)
    scores = np.full(len(kept), 0.9)
    twin = centres[kept[1]] + rng.uniform(-3, 3, 2)
    shown = np.concatenate([centres[kept], [twin]])
    order = rng.permutation(len(shown))
    found = assigned(shown[order], np.append(scores, 0.6)[order])
    np.testing.assert_array_equal(order[found.kept], np.arange(len(kept)))
    np.testing.assert_array_equal(found.levels, kept + 1)
    assert (found.gaps, found.left_out) == (1, 1)


def test_of_twins_the_surer_one_stays():
    centres = np.concatenate([spine(4), spine(4)[2:3] + 1])
    for scores, chosen in (((0.5, 0.5, 0.5, 0.5, 0.8), 4), ((0.5, 0.5, 0.9, 0.5, 0.8), 2)):
        found = assigned(centres, np.array(scores))
        np.testing.assert_array_equal(found.kept, [0, 1, chosen, 3])
        np.testing.assert_array_equal(found.levels, [1, 2, 3, 4])
        assert found.left_out == 1


def test_two_missing_discs_skip_two_numbers():
    found = assigned(spine(8)[[0, 1, 2, 5, 6, 7]], np.ones(6))
    np.testing.assert_array_equal(found.levels, [1, 2, 3, 6, 7, 8])
    assert found.gaps == 2


def test_what_lies_behind_the_spine_is_left_out():
    # Spinous processes: half a level lower than the discs, a disc's width behind them.
    centres, scores = spine(8, 0.2), np.full(8, 0.7)
    behind = centres[3:6] + np.array([12, 45])
    shown, order = np.concatenate([behind, centres]), np.argsort(np.arange(11) % 3, kind="stable")
    sure = np.concatenate([np.full(3, 0.8), scores])
    found = assigned(shown[order], sure[order])
    np.testing.assert_array_equal(order[found.kept], 3 + np.arange(8))
    assert (found.levels.tolist(), found.left_out) == (list(range(1, 9)), 3)


def test_an_unsure_disc_counts_where_it_fills_a_gap_and_nowhere_else():
    sure = np.array([0.1, 0.9, 0.9, 0.06, 0.9, 0.9, 0.2])
    found = assigned(spine(7), sure)
    assert found.kept.tolist() == [1, 2, 3, 4, 5]
    assert (found.levels.tolist(), found.gaps, found.left_out) == ([1, 2, 3, 4, 5], 0, 0)
    assert assigned(spine(7), np.full(7, 0.2)).kept.tolist() == []


def test_a_row_begins_with_the_disc_that_looks_like_the_lowest():
    looks = [0.0, 1, 0, 0, 0, 0]
    found = assigned(spine(6), np.full(6, 1.0), looks)  # the sacrum has discs, too
    assert found.kept.tolist() == [1, 2, 3, 4, 5]
    assert (found.levels.tolist(), found.left_out) == ([1, 2, 3, 4, 5], 1)
    found = assigned(spine(5), np.array([0.06, 1, 1, 1, 1]), [1.0, 0, 0, 0, 0])
    assert found.kept.tolist() == [0, 1, 2, 3, 4]
    # One that looks so high up is a mistake.
    found = assigned(spine(6), np.full(6, 1.0), [0.9, 0, 0, 0, 0.6, 0])
    assert found.kept[:4].tolist() == [0, 1, 2, 3]


def test_of_two_that_look_like_the_lowest_the_lower_one_is_if_it_is_a_disc():
    looks = [1.0, 0.98, 0, 0, 0, 0]
    found = assigned(spine(6), np.array([0.98, 1, 1, 1, 1, 1]), looks)
    assert found.kept.tolist() == [0, 1, 2, 3, 4, 5]
    found = assigned(spine(6), np.array([0.6, 1, 1, 1, 1, 1]), looks)
    assert (found.kept.tolist(), found.left_out) == ([1, 2, 3, 4, 5], 1)


def test_a_lordosis_is_one_row():
    angles = np.deg2rad([50, 30, 12, 0, -8, -12, -15])
    steps = 32 * np.stack([-np.cos(angles), np.sin(angles)], 1)
    centres = np.array([260.0, 60.0]) + np.concatenate([np.zeros((1, 2)), np.cumsum(steps, 0)])
    found = assigned(centres, np.linspace(0.4, 1, 8))
    assert (found.levels.tolist(), found.left_out) == (list(range(1, 9)), 0)


def test_one_disc_is_the_lowest_and_none_has_no_level():
    found = assigned(spine(1), np.ones(1))
    assert (found.kept.tolist(), found.levels.tolist(), found.gaps, found.left_out) == (
        [0],
        [1],
        0,
        0,
    )
    found = assigned(np.zeros((0, 2)), np.zeros(0))
    assert (found.kept.tolist(), found.levels.tolist(), found.gaps, found.left_out) == (
        [],
        [],
        0,
        0,
    )


@pytest.mark.parametrize("angle", [-0.6, -0.1, 0.0, 0.3, 1.0])
def test_discs_of_a_straight_spine_lie_across_it(angle):
    np.testing.assert_allclose(tilts(spine(4, angle)), np.full(4, angle), atol=1e-9)
    # By hand: an upper disc in front of the lower one tips its neighbour's back downwards.
    below, above = (130.0, 50.0), (100.0, 50.0 + 30 * np.tan(angle))
    np.testing.assert_allclose(tilts(np.array([below, above])), angle, atol=1e-9)


def test_an_inner_disc_takes_the_direction_of_its_neighbours_and_the_ends_their_own():
    centres = np.array([[90.0, 0.0], [60.0, 10.0], [30.0, 0.0]])
    end = np.arctan2(10, 30)
    np.testing.assert_allclose(tilts(centres), [end, 0, -end])


def test_a_disc_without_neighbours_is_level():
    assert tilts(spine(1)).tolist() == [0]
    assert tilts(np.zeros((0, 2))).tolist() == []


def test_discs_have_the_names_that_radiologists_use():
    names = [level_name(level) for level in range(1, 24)]
    assert names[:8] == [
        "L5/S1", "L4/L5", "L3/L4", "L2/L3", "L1/L2", "T12/L1", "T11/T12", "T10/T11",
    ]  # fmt: skip
    assert names[15:] == [
        "T2/T3", "T1/T2", "C7/T1", "C6/C7", "C5/C6", "C4/C5", "C3/C4", "C2/C3",
    ]  # fmt: skip
    for lower, upper in itertools.pairwise(names):
        assert upper.split("/")[1] == lower.split("/")[0]
    assert level_name(24) == "level 24"
    with pytest.raises(ValueError, match="begin with 1"):
        level_name(0)


def test_a_disc_beyond_the_row_is_shown_where_its_continuation_is_in_the_image():
    centres = spine(4)  # rows 300, 270, 240, 210
    known = np.array([1, 2, 3, 4])
    shown = [is_shown(level, known, centres, (310, 100)) for level in range(1, 14)]
    assert shown == [True] * 11 + [False] * 2  # level 11 lies in row 0, level 12 in row -30
    assert is_shown(3, np.array([1, 2, 4]), centres[[0, 1, 3]], (310, 100))  # in between
    # A gap counts as many levels as it skips, and a row may begin above the lowest disc.
    assert [is_shown(k, np.array([2, 5]), centres[[0, 3]], (310, 100)) for k in (1, 12, 13)] == [
        False,
        True,
        False,
    ]


def test_a_row_is_continued_as_it_ends():
    straight = spine(4, step=40.0)
    bent = np.concatenate([straight, straight[-1] + [[-20.0, 30.0], [-40.0, 60.0], [-60.0, 90.0]]])
    known = np.arange(1, 8)
    assert is_shown(9, known, bent, (310, 240))
    assert not is_shown(9, known, bent, (310, 220))  # it has left by the side
    assert is_shown(9, known[:4], straight[:4], (310, 81)) is False


@pytest.mark.parametrize("count", [0, 1])
def test_one_disc_has_no_row(count):
    assert is_shown(2, np.arange(1, 1 + count), spine(count), (310, 100)) is None
    assert is_shown(1, np.array([1]), spine(1), (310, 100)) is True
