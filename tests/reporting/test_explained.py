import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from mskjax import cases
from mskjax.reporting import explained

LEARNT = np.arange(9.0).reshape(3, 3)


@dataclasses.dataclass
class Reading:
    shown: np.ndarray | None
    attention: np.ndarray | None
    untrained: np.ndarray | None = None


def reading(attention, untrained=None):
    return Reading(np.zeros((len(attention), 8, 12), np.float32), attention, untrained)


values = st.lists(st.integers(0, 4), min_size=9, max_size=9)


@given(values, values)
def test_rank_correlation_is_that_of_scipy_where_both_rank(a, b):
    heat, other = np.array(a, float).reshape(3, 3), np.array(b, float).reshape(3, 3)
    found = explained.rank_correlation(heat, other)
    if len(set(a)) == 1 or len(set(b)) == 1:
        assert found is None
    else:
        ranks = [stats.rankdata(v) for v in (a, b)]
        assert found == pytest.approx(np.corrcoef(*ranks)[0, 1])


def test_maps_of_a_study_have_one_scale():
    maps = np.stack([LEARNT, 2 * LEARNT])
    first, second = explained.panels(reading(maps), {1: "L4/L5", 0: "L5/S1"})
    assert (first.name, second.name) == ("Grad-CAM, L4/L5", "Grad-CAM, L5/S1")
    assert first.heat.max() == 1
    np.testing.assert_allclose(second.heat, LEARNT / 16)
    assert first.scale == second.scale == "Grad-CAM, 0 to 16 logits"


def test_random_weights_lie_below_with_a_scale_of_their_own():
    random = np.stack([LEARNT[::-1, ::-1] / 50])
    (panel,) = explained.panels(reading(LEARNT[None], random), {0: "crop"})
    assert panel.image.shape == (16, 12)
    np.testing.assert_allclose(panel.heat, np.concatenate([LEARNT / 8, LEARNT[::-1, ::-1] / 8]))
    assert "0 to 8 logits; below it that of random weights, 0 to 0.16" in panel.scale


@pytest.mark.parametrize(
    ("heat", "random", "why"),
    [
        (LEARNT, LEARNT / 7, "as of random weights"),
        (np.zeros((3, 3)), LEARNT, "nothing speaks for the call"),
        (np.ones((3, 3)), LEARNT, "the same everywhere"),
        (LEARNT[:2], LEARNT[:2][::-1], "6 places are too few"),
    ],
)
def test_a_map_that_says_nothing_is_left_out(heat, random, why):
    (panel,) = explained.panels(reading(heat[None], random[None]), {0: "L5/S1"})
    assert panel.heat is None
    assert panel.name == f"L5/S1, no Grad-CAM: {why}"


def test_a_map_is_shown_where_random_weights_rank_nothing():
    (panel,) = explained.panels(reading(LEARNT[None], np.zeros((1, 3, 3))), {0: "crop"})
    assert panel.heat is not None


def test_one_channel_of_a_crop_is_drawn_and_nothing_without_maps():
    one = Reading(np.arange(2 * 4 * 4 * 3.0).reshape(2, 4, 4, 3), np.arange(18.0).reshape(2, 3, 3))
    (panel,) = explained.panels(one, {1: "T2"}, 2)
    np.testing.assert_array_equal(panel.image, one.shown[1, ..., 2])
    assert explained.panels(Reading(None, None), {}) == []
    assert explained.panels(Reading(one.shown, None), {0: "T2"}, 0) == []


def test_column_and_what_the_report_says_of_all_cases(tmp_path):
    maps = np.stack([LEARNT, LEARNT, LEARNT, np.zeros((3, 3))])
    random = np.stack([LEARNT, LEARNT[::-1, ::-1], LEARNT[::-1], LEARNT])
    found = [explained.column(maps, random, n) for n in (0, 1, 2, 3, None)]
    told = [own.get(explained.COLUMN) for own in found]
    assert told[:2] + told[3:] == [1.0, -1.0, "", None]
    assert explained.column(None, None, 0) == explained.column(maps, None, 0) == {}
    rows = [
        {"fold": 0, "patient": "p", "study": "s", "kind": "grade", "found": int(n < 4), **own}
        for n, own in enumerate(found)
    ]
    cases.write(tmp_path / "cases.csv", rows)
    summary = explained.summary(cases.read(tmp_path / "cases.csv"))
    assert (summary["cases"], summary["compared"], summary["alike"]) == (4, 3, 1)
    assert summary["median"] == told[2]
    low, high = np.quantile([1, -1, told[2]], (0.25, 0.75))
    assert summary["lower_quartile"] == pytest.approx(low, abs=1e-3)
    assert summary["upper_quartile"] == pytest.approx(high, abs=1e-3)


def test_runs_without_maps_say_nothing():
    assert explained.summary([]) == {}
    assert explained.summary([{"kind": "grade", "found": "1"}]) == {}
    assert explained.summary([{"kind": "grade", "found": "1", explained.COLUMN: ""}]) == {}
