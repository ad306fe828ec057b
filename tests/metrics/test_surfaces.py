import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mskjax.metrics import surfaces as s

SPACING = (4.0, 0.5, 0.75)


def blob(seed, shape=(5, 20, 18), density=0.55):
    """Ragged random mask with holes, partly touching the edge of the image."""
    rng = np.random.default_rng(seed)
    mask = np.zeros(shape, bool)
    low = rng.integers(0, np.array(shape) // 2)
    box = tuple(slice(a, a + n // 2) for a, n in zip(low, shape, strict=True))
    mask[box] = rng.random(mask[box].shape) < density
    return mask


def box(shape, *sides):
    mask = np.zeros(shape, bool)
    mask[tuple(slice(*side) for side in sides)] = True
    return mask


@pytest.mark.filterwarnings("ignore:monai:FutureWarning")  # of MONAI about MONAI
@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("spacing", [SPACING, (1.0, 1.0, 1.0)])
def test_agrees_with_monai_on_anisotropic_voxels(seed, spacing):
    torch = pytest.importorskip("torch", reason="MONAI, the oracle, needs PyTorch")
    monai = pytest.importorskip("monai.metrics", reason="MONAI is the oracle here")
    reference, predicted = blob(seed), blob(seed + 100, density=0.9)
    y, y_pred = (torch.as_tensor(m)[None, None] for m in (reference, predicted))
    kwargs = {"include_background": True, "spacing": spacing}
    hd = monai.compute_hausdorff_distance(y_pred, y, percentile=95, **kwargs)
    surface_dice = monai.compute_surface_dice(y_pred, y, [1.0], **kwargs)
    ours = s.surface_metrics(reference, predicted, spacing, tolerance_mm=1.0)
    assert ours["hd95"] == pytest.approx(float(hd), rel=1e-5)
    assert ours["nsd"] == pytest.approx(float(surface_dice), rel=1e-5)
    directed = [
        monai.compute_average_surface_distance(a, b, **kwargs)
        for a, b in ((y_pred, y), (y, y_pred))
    ]
    d = s.surface_distances(reference, predicted, spacing)
    assert d.from_predicted.mean() == pytest.approx(float(directed[0]), rel=1e-5)
    assert d.from_reference.mean() == pytest.approx(float(directed[1]), rel=1e-5)


def test_shifted_square_by_hand():
    reference = box((12, 12), (3, 7), (3, 7))
    predicted = box((12, 12), (3, 7), (5, 9))  # two columns further, 1.5 mm
    d = s.surface_distances(reference, predicted, (0.5, 0.75))
    assert len(d.from_reference) == 12  # a ring of 4 x 4
    # Columns 3 and 4 lie outside the prediction, 5 and 6 inside or on it.
    assert d.from_reference.max() == 1.5
    assert s.hd95(reference, predicted, (0.5, 0.75)) == 1.5
    assert s.nsd(reference, predicted, (0.5, 0.75), 1.5) == 1.0
    # 4 voxels of column 3 on either side are 1.5 mm off; the other 8 of 12 are nearer.
    assert s.nsd(reference, predicted, (0.5, 0.75), 1.4) == pytest.approx(8 / 12)


def test_spacing_is_taken_along_its_own_axis():
    reference, predicted = np.zeros((9, 9), bool), np.zeros((9, 9), bool)
    reference[4, 4] = predicted[7, 4] = True
    assert s.assd(reference, predicted, (2.0, 0.1)) == 6.0
    assert s.assd(reference.T, predicted.T, (0.1, 2.0)) == 6.0


def test_the_edge_of_the_image_is_a_border():
    full = np.ones((5, 5), bool)
    assert len(s.surface_distances(full, full, (1, 1)).from_reference) == 16


def test_identical_masks_are_perfect():
    mask = blob(1)
    assert s.surface_metrics(mask, mask, SPACING, 0.0) == {"nsd": 1.0, "hd95": 0.0, "assd": 0.0}


def test_empty_masks_follow_the_stated_rule():
    empty, some = np.zeros((4, 5), bool), np.eye(4, 5, dtype=bool)
    assert all(np.isnan(v) for v in s.surface_metrics(empty, empty, (1, 1), 1.0).values())
    for pair in ((empty, some), (some, empty)):
        assert s.surface_metrics(*pair, (1, 1), 1.0) == {
            "nsd": 0.0,
            "hd95": np.inf,
            "assd": np.inf,
        }


@settings(max_examples=15)
@given(st.integers(0, 10_000), st.floats(0.0, 5.0))
def test_symmetric_in_bounds_and_monotone_in_tolerance(seed, tolerance):
    a, b = blob(seed, (3, 8, 8)), blob(seed + 1, (3, 8, 8))
    if not (a.any() and b.any()):
        return
    ours, swapped = (
        s.surface_metrics(x, y, SPACING, tolerance_mm=tolerance) for x, y in ((a, b), (b, a))
    )
    assert ours == pytest.approx(swapped)
    assert ours["nsd"] <= s.nsd(a, b, SPACING, tolerance + 1) <= 1
    pooled = np.concatenate(s.surface_distances(a, b, SPACING))
    assert ours["assd"] <= pooled.max() + 1e-9
    assert ours["hd95"] <= pooled.max() + 1e-9


def test_place_in_the_volume_does_not_matter():
    small_a, small_b = blob(3, (4, 9, 9)), blob(4, (4, 9, 9))
    pad = ((2, 3), (5, 1), (4, 7))
    padded = s.surface_metrics(np.pad(small_a, pad), np.pad(small_b, pad), SPACING, 1.0)
    assert padded == pytest.approx(s.surface_metrics(small_a, small_b, SPACING, 1.0))


def test_a_spine_sized_volume_takes_a_fraction_of_a_second():
    shape = (9, 512, 640)
    reference = box(shape, (1, 8), (180, 280), (20, 600))
    predicted = box(shape, (1, 8), (183, 283), (25, 600))
    predicted[0, 3, 3] = True  # a stray voxel must not slow it down
    start = time.perf_counter()
    s.surface_metrics(reference, predicted, (4.0, 0.47, 0.47), 1.0)
    assert time.perf_counter() - start < 5  # 0.2 s on an idle core


def test_bad_input_is_refused():
    mask = np.ones((3, 3), bool)
    with pytest.raises(ValueError, match=r"\(3, 3\) but prediction \(3, 2\)"):
        s.hd95(mask, mask[:, :2], (1, 1))
    with pytest.raises(ValueError, match="2 positive spacings"):
        s.hd95(mask, mask, (1, 1, 1))
    with pytest.raises(ValueError, match="2 positive spacings"):
        s.hd95(mask, mask, (1, 0))
