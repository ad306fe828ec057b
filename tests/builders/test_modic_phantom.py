import json

import nibabel as nib
import numpy as np
import pytest

from mskjax.data.cohorts import prepare_cohort
from mskjax.errors import UserError
from mskjax.imaging.geometry import resample_to
from tfds_builders.modic_changes.sources import (
    LEAST_CASES,
    Disc,
    check_order,
    places_of_levels,
)
from tfds_builders.paired import Place
from tfds_builders.phantoms import modic
from tfds_builders.phantoms.modic import modic_phantom
from tfds_builders.phantoms.spine import spine_phantom
from tfds_builders.spider import GRADES


@pytest.fixture(scope="module")
def cohort(tmp_path_factory):
    return prepare_cohort("modic_changes", "phantom", tmp_path_factory.mktemp("d"), patients=3)


@pytest.fixture(scope="module", params=[1, 23])
def variants(request):
    """One patient whose changes are all of type 1, 2 or 3: T1 on T2's grid, T2, and the mask."""
    found = {}
    for t in (1, 2, 3):
        phantom = modic_phantom(request.param, tuple(np.eye(3)[t - 1]))
        grid = phantom.t2.shape, phantom.t2_affine
        t1 = resample_to(phantom.t1, phantom.t1_affine, *grid)
        found[t] = {"t1": t1, "t2": phantom.t2.astype(float), "phantom": phantom}
    return found


def changed_and_plain(variants):
    """Marrow beside changed discs, and unchanged marrow of the same bodies away from all discs.

    The variants differ where there are changes and nowhere else, so no drawing code is asked.
    """
    phantom = variants[1]["phantom"]
    marrow = phantom.mask == 1
    changed = marrow & (variants[3]["t2"] < 0.3 * variants[1]["t2"])
    beside = np.any([np.roll(phantom.disc_levels > 0, s, axis=1) for s in range(-4, 5)], axis=0)
    around = np.any([np.roll(changed, s, axis=1) for s in range(-6, 7)], axis=0)
    return changed, marrow & around & ~beside & (variants[3]["t2"] == variants[1]["t2"])


def local_ratio(image, changed, plain):
    """Median over patches, which shading leaves alone, of changed over plain signal."""
    found = []
    for r in range(0, image.shape[1], 16):
        for c in range(0, image.shape[2], 16):
            patch = (slice(None), slice(r, r + 16), slice(c, c + 16))
            if min(changed[patch].sum(), plain[patch].sum()) > 20:
                found.append(np.median(image[patch][changed[patch]]))
                found[-1] /= np.median(image[patch][plain[patch]])
    assert len(found) >= 3
    return np.median(found)


def test_marrow_beside_the_endplates_has_the_signal_of_its_type(variants):
    changed, plain = changed_and_plain(variants)
    ratio = {
        (t, name): local_ratio(variants[t][name], changed, plain)
        for t in (1, 2, 3)
        for name in ("t1", "t2")
    }
    assert ratio[1, "t1"] < 0.75  # type 1: dark on T1, bright on T2
    assert ratio[1, "t2"] > 1.05
    assert ratio[2, "t1"] > 1.03  # type 2: bright on both
    assert ratio[2, "t2"] > 1.05
    assert ratio[3, "t1"] < 0.4  # type 3: dark on both
    assert ratio[3, "t2"] < 0.4


def test_changes_lie_beside_the_discs_that_are_graded_so(variants):
    changed, _ = changed_and_plain(variants)
    phantom = variants[1]["phantom"]
    for grading in phantom.gradings:
        disc = phantom.disc_levels == grading["level"]
        beside = np.any([np.roll(disc, s, axis=1) for s in (-3, 3)], axis=0) & (phantom.mask == 1)
        assert (changed[beside].mean() > 0.4) == (grading["modic"] > 0), grading


def test_both_series_show_one_anatomy_on_two_grids():
    phantom = modic_phantom(2)
    assert phantom.t1.shape == (5, 120, 80)
    assert phantom.t2.shape == (5, 96, 64)
    own = spine_phantom(2, modic._T1)  # the mask of the T1 series, as it is drawn
    matched = resample_to(own.mask, phantom.t1_affine, phantom.t2.shape, phantom.t2_affine, order=0)
    for structure in (1, 2, 3):
        a, b = matched == structure, phantom.mask == structure
        assert 2 * (a & b).sum() / (a.sum() + b.sum()) > 0.9, structure
    corners = np.array([[-0.5, -0.5, -0.5, 1], [4.5, 119.5, 79.5, 1]]).T
    other = np.array([[-0.5, -0.5, -0.5, 1], [4.5, 95.5, 63.5, 1]]).T
    np.testing.assert_allclose(phantom.t1_affine @ corners, phantom.t2_affine @ other, atol=1e-9)


def test_examples_hold_tight_boxes_of_every_disc(cohort):
    for i, study in enumerate(cohort.studies):
        assert "".join(nib.aff2axcodes(study["affine"])) == "LIP"
        assert study["t1"].shape == study["t2"].shape == (5, 96, 64)
        assert study["t1"].dtype == study["t2"].dtype == np.float32
        assert study["t1"].min() >= 0
        assert study["t1"].mean() > 0
        assert study["has_t1"]
        assert study["has_boxes"]
        phantom = modic_phantom(i)
        boxes = study["boxes"]
        assert boxes["box"].shape == (len(phantom.gradings), 4)
        assert boxes["box"].dtype == np.float32
        assert boxes["level"].tolist() == [g["level"] for g in phantom.gradings]
        for grade in GRADES:
            assert boxes[grade].tolist() == [g[grade] for g in phantom.gradings], grade
        assert set(boxes["boxed"].tolist()) == {1}
        for level, index, box in zip(boxes["level"], boxes["slice"], boxes["box"], strict=True):
            row0, col0, row1, col1 = box.astype(int)
            disc = phantom.disc_levels[index] == level
            assert disc[row0:row1, col0:col1].sum() == disc.sum() > 0
            for edge in (disc[row0], disc[row1 - 1], disc[:, col0], disc[:, col1 - 1]):
                assert edge.any()


def test_t1_of_the_example_is_t1_at_the_voxels_of_t2(cohort):
    phantom = modic_phantom(0)
    study = cohort.studies[0]
    inner = (slice(None), slice(2, -2), slice(2, -2))
    # A voxel of T2 by hand: where it lies in T1, and the four pixels about it.
    i, j, k = 2, 40, 30
    at = (np.linalg.inv(phantom.t1_affine) @ phantom.t2_affine @ [i, j, k, 1])[:3]
    r, c = np.floor(at[1:]).astype(int)
    fr, fc = at[1:] - (r, c)
    corner = phantom.t1[i, r : r + 2, c : c + 2].astype(float)
    by_hand = np.array([1 - fr, fr]) @ corner @ np.array([1 - fc, fc])
    np.testing.assert_allclose(study["t1"][i, j, k], by_hand, rtol=1e-4)
    assert (study["t1"][inner] > 0).mean() > 0.99


def test_audit_counts_types_by_level_and_says_which_are_too_few(cohort):
    notes = cohort.audit["notes"]
    (by_level,) = [n for n in notes if n.startswith("discs with Modic type")]
    counted = np.zeros(4, int)
    for level, counts in (part.split(": ") for part in by_level.split(", ", 1)[1].split("; ")):
        assert level.startswith("level ")
        counted += [int(n) for n in counts.split("/")]
    modic_counts = cohort.audit["counts"]["modic"]
    assert counted.tolist() == [modic_counts.get(str(t), 0) for t in range(4)]
    (rare,) = [n for n in notes if "fewer than" in n]
    for t, n in enumerate(counted):
        assert (f"type {t} has {n}" in rare) == (n < LEAST_CASES), t
    assert "only presence" in rare


def test_shares_of_types_are_an_option(tmp_path):
    cohort = prepare_cohort(
        "modic_changes", "phantom", tmp_path, patients=2, modic_type_shares=(0.0, 0.0, 2.0)
    )
    assert set(cohort.audit["counts"]["modic"]) == {"0", "3"}
    assert json.loads(json.dumps(cohort.audit)) == cohort.audit


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"patients": 0}, "patients is 0; it must be 1 to"),
        ({"seed": -1}, "seed is -1; it must not be negative"),
        ({"modic_type_shares": (1.0, 1.0)}, "it must have 3 values"),
        ({"modic_type_shares": (0.0, 0.0, 0.0)}, "none negative and one positive"),
        ({"modic_type_shares": (1.0, -1.0, 1.0)}, "none negative and one positive"),
        ({"modic_shares": (1, 1, 1)}, "modic_shares is not a field"),
    ],
)
def test_wrong_options(tmp_path, options, message):
    with pytest.raises(UserError, match=message):
        prepare_cohort("modic_changes", "phantom", tmp_path, **options)
    assert not list(tmp_path.iterdir())


def test_places_share_the_slice_that_shows_most_discs():
    levels = np.zeros((4, 10, 10), np.uint8)
    levels[1:3, 7:9, 2:6] = 1
    levels[2, 4:6, 2:5] = 2
    levels[0, 1:3, 3:9] = 3  # seen beside the others only
    levels[3, 7:9, 0:9] = 1  # larger, but alone in its slice
    assert places_of_levels(levels) == {
        1: Place(2, (7, 2, 9, 6)),
        2: Place(2, (4, 2, 6, 5)),
        3: Place(0, (1, 3, 3, 9)),
    }
    assert places_of_levels(np.zeros((2, 3, 3), np.uint8)) == {}


def test_levels_must_run_upwards():
    def disc(level, row):
        return Disc(level, Place(0, (row, 0, row + 2, 5)))

    check_order([disc(2, 10), disc(1, 20), disc(0, 30), Disc(3)])
    with pytest.raises(UserError, match="level 2 .row 21. does not lie above level 1 .row 11."):
        check_order([disc(1, 10), disc(2, 20)])
