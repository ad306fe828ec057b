import hashlib
import itertools
from dataclasses import replace

import numpy as np
import pytest
from scipy import ndimage

from tfds_builders.phantoms.acquisition import SAGITTAL_T1, SAGITTAL_T2
from tfds_builders.phantoms.spine import NATIVE_T2, SpinePhantomConfig, spine_phantom
from tfds_builders.phantoms.spine_grades import draw_discs

N = 40


@pytest.fixture(scope="module")
def cohort():
    return [spine_phantom(seed) for seed in range(N)]


def canonical(phantom):
    """Arrays in (L, I, P) order, found from the affine alone."""
    axes = np.argmax(np.abs(phantom.affine[:3, :3]), axis=0)  # world axis of each stored axis
    order = [int(np.flatnonzero(axes == world)[0]) for world in (0, 2, 1)]
    flips = [k for k, stored in enumerate(order) if phantom.affine[axes[stored], stored] > 0]
    return [
        np.flip(a.transpose(order), flips)
        for a in (phantom.image, phantom.mask, phantom.disc_levels)
    ]


def discs(cohort):
    """(grade, mean signal relative to the vertebrae, central height in mm) of every disc."""
    rows = []
    for p in cohort:
        marrow = np.median(p.image[p.mask == 1])
        middle = p.disc_levels[p.disc_levels.shape[0] // 2]
        for g in p.gradings:
            if p.transitional and g["level"] == 1:
                continue  # small by anatomy, not by degeneration
            inside = p.disc_levels == g["level"]
            columns = np.flatnonzero((middle == g["level"]).any(axis=0))
            height = (middle[:, columns] == g["level"]).sum(axis=0).mean() * 2.0
            rows.append((g["pfirrmann"], p.image[inside].mean() / marrow, height))
    return np.array(rows)


def test_arrays_and_grades_have_the_promised_form(cohort):
    ranges = {"level": (1, 7), "pfirrmann": (1, 5), "modic": (0, 3)}
    binary = {
        "narrowing",
        "bulging",
        "herniation",
        "spondylolisthesis",
        "upper_endplate",
        "lower_endplate",
    }
    for p in cohort:
        assert p.image.shape == p.mask.shape == p.disc_levels.shape == (5, 96, 64)
        assert (p.image.dtype, p.mask.dtype, p.disc_levels.dtype) == (np.int16, np.uint8, np.uint8)
        assert p.image.min() >= 0
        assert set(np.unique(p.mask)) == {0, 1, 2, 3}
        assert p.sex in {"F", "M"}
        assert 18 <= p.age <= 88
        for g in p.gradings:
            assert set(g) == set(ranges) | binary
            assert all(low <= g[k] <= high for k, (low, high) in ranges.items())
            assert all(g[k] in {0, 1} for k in binary)
    counts = [len(p.gradings) for p in cohort]
    assert min(counts) >= 4
    assert max(counts) <= 7
    assert len(set(counts)) > 1


def test_mask_levels_and_grades_tell_the_same_story(cohort):
    for p in cohort:
        np.testing.assert_array_equal(p.disc_levels > 0, p.mask == 2)
        present = np.unique(p.disc_levels[p.disc_levels > 0])
        np.testing.assert_array_equal(present, [g["level"] for g in p.gradings])
        np.testing.assert_array_equal(present, 1 + np.arange(len(present)))
        # Discs can be counted as the connected components of the semantic mask.
        assert ndimage.label(p.mask == 2)[1] == len(present)
        rows = [np.nonzero(p.disc_levels == k)[1].mean() for k in present]
        assert (np.diff(rows) < -8).all()  # from the lowest upwards, more than 16 mm apart
        assert (p.disc_levels[:, [0, -1]] == 0).all()  # none is cut by the image's edge


def test_discs_lie_between_vertebrae_and_before_the_canal(cohort):
    for p in cohort:
        middle = p.mask.shape[0] // 2
        for g in p.gradings:
            rows, cols = np.nonzero(p.disc_levels[middle] == g["level"])
            col = round(cols.mean())
            line = p.mask[middle, :, col]
            inside = np.flatnonzero(p.disc_levels[middle, :, col] == g["level"])
            assert line[inside[0] - 1] == 1
            if g["level"] > 1:  # below the lowest lies the sacrum, unlabelled as in SPIDER
                assert line[inside[-1] + 1] == 1
            canal = np.nonzero(p.mask[middle, rows.min() : rows.max() + 1] == 3)[1]
            assert canal.mean() > cols.mean() + 5


def test_signal_ranks_csf_marrow_annulus():
    config = SpinePhantomConfig(
        protocol=replace(SAGITTAL_T2, snr=200.0), bias=0.0, grade_counts=(0, 0, 0, 0, 1)
    )
    for seed in range(4):
        p = spine_phantom(seed, config)
        mid = p.image.shape[0] // 2
        canal, bone, disc = (
            np.median(p.image[mid][ndimage.binary_erosion(p.mask[mid] == k)]) for k in (3, 1, 2)
        )
        assert canal > 1.15 * bone
        assert bone > 2 * disc


def test_grades_cause_the_appearance_with_overlap(cohort):
    rows = discs(cohort)
    by_grade = [rows[rows[:, 0] == g] for g in range(1, 6)]
    assert min(map(len, by_grade)) >= 15
    signal = [r[:, 1].mean() for r in by_grade]
    assert (np.diff(signal) < -0.03).all()
    assert signal[0] > 4 * signal[4]
    height = [r[:, 2].mean() for r in by_grade]
    assert height[2] > height[3] > height[4]
    assert height[4] < 0.75 * height[0]
    # Neighbouring grades overlap: some grade III disc is brighter than some grade II disc.
    for mild, worse in itertools.pairwise(by_grade):
        assert worse[:, 1].max() > mild[:, 1].min()


def test_grade_two_has_a_dark_cleft_that_grade_one_lacks():
    """Profile through the nucleus: its middle against the brighter bands above and below."""

    def dip(grade):
        counts = tuple(float(g == grade) for g in range(1, 6))
        protocol = replace(SAGITTAL_T2, pixel_mm=0.5, snr=300.0)
        config = SpinePhantomConfig(
            protocol, 1, 384, 256, (1, 1, 1), counts, overlap=0.0, transitional=0.0, bias=0.0
        )
        p = spine_phantom(3, config)
        values = []
        for level in (2, 3):
            cols = np.nonzero(p.disc_levels[0] == level)[1]
            cols = cols[cols == round(cols.mean())]
            line = np.flatnonzero(p.disc_levels[0, :, cols[0]] == level)
            profile = p.image[0, line, cols[0] - 4 : cols[0] + 5].mean(axis=1)
            n = len(profile)
            middle = profile[2 * n // 5 : n - 2 * n // 5].min()
            values.append(middle / np.percentile(profile, 90))
        return np.mean(values)

    assert dip(1) > 0.9
    assert dip(2) < 0.75


def test_default_grades_follow_spider_and_cluster_in_patients():
    counts = (286, 341, 418, 291, 184)
    grades = np.array(
        [
            [d.pfirrmann for d in draw_discs(rng, age, counts, (1, 1, 1), 0.3)[:5]]
            for rng in [np.random.default_rng((7, k)) for k in range(1500)]
            for age in [rng.normal(52, 15)]
        ]
    )
    share = np.bincount(grades.ravel(), minlength=6)[1:] / grades.size
    np.testing.assert_allclose(share, np.array(counts) / sum(counts), atol=0.025)
    assert grades[:, 0].mean() > grades[:, 4].mean() + 0.8  # lower levels are worse
    between = grades.mean(axis=1).var() / grades.var()
    assert between > 0.4  # .2 would be independence
    # Asked for one grade only, every disc has it.
    only = draw_discs(np.random.default_rng(0), 95.0, (0, 0, 0, 1, 0), (0, 1, 0), 0.3)
    assert {d.pfirrmann for d in only} == {4}


def test_degeneration_rises_with_age():
    def mean(age):
        draws = [
            draw_discs(np.random.default_rng(k), age, (1,) * 5, (1, 1, 1), 0.3) for k in range(100)
        ]
        return np.mean([d.pfirrmann for patient in draws for d in patient[:5]])

    assert mean(75) > mean(52) + 0.3 > mean(30) + 0.6


def test_findings_follow_grade(cohort):
    gradings = [g for p in cohort for g in p.gradings]
    mild = [g for g in gradings if g["pfirrmann"] <= 2]
    severe = [g for g in gradings if g["pfirrmann"] >= 4]
    for name in ("narrowing", "bulging", "upper_endplate", "modic"):
        rate = [np.mean([g[name] > 0 for g in group]) for group in (mild, severe)]
        assert rate[1] > rate[0] + 0.25, name


def test_same_seed_same_bytes_and_other_seed_other_patient():
    def digest(p):
        parts = (p.image, p.mask, p.disc_levels, p.affine)
        return hashlib.sha256(b"".join(a.tobytes() for a in parts)).hexdigest()

    config = SpinePhantomConfig(any_orientation=True, tilt_deg=5.0)
    assert digest(spine_phantom(11, config)) == digest(spine_phantom(11, config))
    assert digest(spine_phantom(11)) != digest(spine_phantom(12))


def test_two_weightings_show_one_patient():
    t2 = spine_phantom(5)
    t1 = spine_phantom(5, SpinePhantomConfig(protocol=SAGITTAL_T1))
    np.testing.assert_array_equal(t1.mask, t2.mask)
    assert t1.gradings == t2.gradings
    np.testing.assert_array_equal(t1.affine, t2.affine)
    for p, canal_is_bright in ((t2, True), (t1, False)):
        canal = np.median(p.image[p.mask == 3])
        assert (canal > np.median(p.image[p.mask == 1])) == canal_is_bright


def test_orientation_is_in_the_affine():
    plain = spine_phantom(8)
    np.testing.assert_allclose(
        plain.affine[:3, :3], [[-4, 0, 0], [0, 0, -2], [0, -2, 0]], atol=1e-12
    )
    orders = set()
    for seed in range(6):
        plain = spine_phantom(seed)
        stored = spine_phantom(seed, SpinePhantomConfig(any_orientation=True))
        orders.add(tuple(np.argmax(np.abs(stored.affine[:3, :3]), axis=0)))
        for a, b in zip(
            canonical(stored), (plain.image, plain.mask, plain.disc_levels), strict=True
        ):
            np.testing.assert_array_equal(a, b)
        # The same voxel lies at the same place: compare the canal's centre in mm.
        centres = [
            p.affine @ [*np.mean(np.nonzero(p.mask == 3), axis=1), 1] for p in (plain, stored)
        ]
        np.testing.assert_allclose(centres[0], centres[1], atol=1e-9)
    assert len(orders) > 1


def test_tilt_is_a_rotation():
    affine = spine_phantom(2, SpinePhantomConfig(tilt_deg=8.0)).affine
    assert np.abs(affine[:3, :3] / [4, 2, 2]).max() < 1
    rotation = affine[:3, :3] / [4, 2, 2]
    np.testing.assert_allclose(rotation.T @ rotation, np.eye(3), atol=1e-12)


def test_air_behind_the_back_holds_rician_noise():
    config = SpinePhantomConfig(cols=136, bias=0.0)
    p = spine_phantom(4, config)
    air = p.image[:, 30:70, -4:].astype(float)
    # Rician background: mean over standard deviation is sqrt(pi/2) / sqrt(2 - pi/2) = 1.913.
    assert air.mean() / air.std() == pytest.approx(1.913, rel=0.06)


def test_absolute_intensity_says_nothing(cohort):
    medians = np.array([np.median(p.image[p.mask == 1]) for p in cohort])
    assert medians.max() > 4 * medians.min()
    worst = np.array([np.mean([g["pfirrmann"] for g in p.gradings]) for p in cohort])
    assert abs(np.corrcoef(np.log(medians), worst)[0, 1]) < 0.35


def test_larger_matrices_show_more_levels():
    tall = spine_phantom(1, SpinePhantomConfig(n_slices=3, rows=144, cols=80))
    assert tall.image.shape == (3, 144, 80)
    assert len(spine_phantom(1).gradings) < 7 <= len(tall.gradings) <= 10
    assert ndimage.label(tall.mask == 2)[1] == len(tall.gradings)


def test_native_resolution_shows_the_same_spine():
    native = spine_phantom(1, replace(NATIVE_T2, n_slices=1))
    assert native.image.shape == (1, 512, 512)
    coarse = spine_phantom(1).gradings
    assert native.gradings[: len(coarse)] == coarse
    assert ndimage.label(native.mask == 2)[1] == len(native.gradings)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rows": 40}, "field of view of 80 x 128 mm"),
        ({"rows": 200}, "340 at most"),
        ({"grade_counts": (1, 2, 3)}, "grade_counts needs 5"),
        ({"modic_type_shares": (0, 0, 0)}, "modic_type_shares needs 3"),
        ({"n_slices": 0}, "at least 1"),
    ],
)
def test_impossible_configs_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        SpinePhantomConfig(**change)
