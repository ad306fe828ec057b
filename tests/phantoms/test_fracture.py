import itertools
from dataclasses import asdict, replace

import numpy as np
import pytest
from scipy import ndimage
from sklearn.metrics import roc_auc_score

from mskjax.imaging.geometry import resample_to
from tfds_builders.phantoms.fracture import FracturePhantomConfig, fracture_phantom
from tfds_builders.phantoms.fracture_drawing import (
    F,
    collapse,
    draw_fractured_spine,
    position_noise,
)
from tfds_builders.phantoms.fracture_readers import (
    FINDING_ERROR,
    READERS,
    draw_calls,
    draw_findings,
)
from tfds_builders.phantoms.fracture_traits import (
    FINDINGS,
    LEVELS,
    Collapse,
    Focus,
    Mass,
    draw_fracture,
)
from tfds_builders.phantoms.spine_anatomy import back_axis, build_column, up_axis
from tfds_builders.phantoms.spine_drawing import Grid, M
from tfds_builders.phantoms.spine_grades import draw_discs

N = 12
BENIGN_SIGNS = {
    "fracture_line", "fluid_sign", "retained_fatty_marrow", "retropulsed_fragment",
    "endplate_fracture", "wedge_shape", "multiple_compression_fractures",
}  # fmt: skip
MALIGNANT_SIGNS = {
    "complete_marrow_replacement", "convex_posterior_border", "pedicle_involvement",
    "posterior_element_involvement", "paraspinal_mass", "epidural_mass", "other_marrow_lesions",
}  # fmt: skip


@pytest.fixture(scope="module")
def cohort():
    return [fracture_phantom(seed, malignant=bool(seed % 2)) for seed in range(N)]


@pytest.fixture(scope="module")
def traits():
    draws = [draw_fracture(np.random.default_rng(s), bool(s % 2)) for s in range(3000)]
    return {m: [d for d in draws if d.malignant is m] for m in (False, True)}


def matched_t2(phantom):
    return resample_to(phantom.t2, phantom.t2_affine, phantom.t1.shape, phantom.t1_affine)


def healthy_column(seed=0):
    rng = np.random.default_rng(seed)
    return build_column(rng, draw_discs(rng, 60, [1] * 5, [1] * 3, 0.0), False, False)


def plain(malignant, **changes):
    """A fracture of L1 without any sign, but for the changes."""
    base = draw_fracture(np.random.default_rng(0), malignant)
    bare = {
        "collapse": Collapse(4, 0.3, 0.3, 0.3), "others": (), "healed": False, "foci": (),
        "replaced": 1.0 if malignant else 0.4, "purity": 1.0, "patchiness": 0.0,
        "sclerosis": False, "line_depth": 0.0, "fluid_mm": 0.0, "bulge_mm": 0.0,
        "fragment_mm": 0.0, "notch_mm": 0.0, "pedicle": False, "posterior": False,
        "epidural": None, "paraspinal": None, "x_mm": 0.0,
    }  # fmt: skip
    return replace(base, **{**bare, **changes})


def drawn(fracture, thin=1):
    """Fine map about L1 of one patient, and where the body lies; every `thin`th row."""
    column = healthy_column()
    for lost in (fracture.collapse, *fracture.others):
        column = collapse(column, lost)
    centre = column.bodies[4]
    grid = Grid(
        np.arange(-21, 22, 3.0, dtype=np.float32),
        np.arange(centre.y - 65, centre.y + 65, 1.0, dtype=np.float32)[::thin],
        np.arange(centre.z - 50, centre.z + 70, 1.0, dtype=np.float32),
    )
    rng = np.random.default_rng(1)
    low, high = (-30, centre.y - 90, centre.z - 90), (30, centre.y + 90, centre.z + 90)
    fields = [position_noise(rng, low, high, (6.0, 6.0, 6.0)) for _ in range(3)]
    return draw_fractured_spine(grid, column, fracture, *fields)


def test_equal_arguments_give_equal_bytes_and_seeds_differ(cohort):
    again = fracture_phantom(3, malignant=True)
    for name in ("t1", "t2", "mask", "t1_affine", "t2_affine"):
        assert getattr(again, name).tobytes() == getattr(cohort[3], name).tobytes(), name
    assert again.fracture == cohort[3].fracture
    assert not np.array_equal(cohort[0].t1, cohort[2].t1)


def test_arrays_have_the_promised_form(cohort):
    for k, p in enumerate(cohort):
        assert p.t1.dtype == p.t2.dtype == np.int16
        assert p.t1.min() >= 0
        assert p.t2.min() >= 0
        assert p.t1.shape == p.mask.shape == (9, 124, 96)
        assert set(np.unique(p.mask)) == {0, 1, 2, 3}
        assert 1 <= p.slice <= len(p.t1) - 2  # the network sees both neighbours
        assert p.fracture.malignant == bool(k % 2)
        assert p.fracture.level in LEVELS
        assert p.sex in {"F", "M"}
        assert 35 <= p.age <= 95


def test_box_is_the_tightest_about_the_collapsed_body(cohort):
    for p in cohort:
        row0, col0, row1, col1 = p.box
        body = p.mask[p.slice] == 2
        assert body[row0:row1, col0:col1].sum() == body.sum() > 60
        for edge in (body[row0], body[row1 - 1], body[:, col0], body[:, col1 - 1]):
            assert edge.any()
        assert ndimage.label(p.mask == 2)[1] == 1
        pixel = np.linalg.norm(p.t1_affine[:3, 1])
        assert 25 < (col1 - col0) * pixel < 48  # a vertebra's depth, with what bulges
        assert 10 < (row1 - row0) * pixel < 38


def test_t2_has_its_own_grid_in_the_same_space(cohort):
    for p in cohort:
        step1, step2 = (np.linalg.norm(a[:3, :3], axis=0) for a in (p.t1_affine, p.t2_affine))
        assert step1[0] == pytest.approx(step2[0])
        assert step1[1] > step2[1] + 0.05
        centres = [
            (a @ [*((np.array(v.shape) - 1) / 2), 1])[:3]
            for a, v in ((p.t1_affine, p.t1), (p.t2_affine, p.t2))
        ]
        assert 0 < np.abs(centres[0] - centres[1]).max() < 5
        row0, col0, row1, col1 = p.box
        around = matched_t2(p)[p.slice - 1 : p.slice + 2, row0 - 5 : row1 + 5, col0 - 5 : col1 + 5]
        assert (around > 0).mean() > 0.98


def test_csf_is_dark_on_t1_and_bright_on_t2(cohort):
    for p in cohort:
        marrow, canal, t2 = p.mask == 1, p.mask == 3, matched_t2(p)
        assert np.median(p.t1[canal]) < 0.75 * np.median(p.t1[marrow])
        assert np.quantile(t2[canal], 0.75) > 1.1 * np.median(t2[marrow])


def mutual_information(a, b):
    joint = np.histogram2d(a.ravel(), b.ravel(), bins=24)[0] / a.size
    apart = joint.sum(axis=1, keepdims=True) * joint.sum(axis=0)
    return float((joint[joint > 0] * np.log(joint[joint > 0] / apart[joint > 0])).sum())


def test_t1_and_t2_match_by_their_headers(cohort):
    inner = (slice(1, -1), slice(12, -12), slice(12, -12))
    for p in cohort[:4]:
        t1, t2 = p.t1[inner], matched_t2(p)
        here = mutual_information(t1, t2[inner])
        for axis, shift in itertools.product((1, 2), (-1, 1)):
            assert mutual_information(t1, np.roll(t2, shift, axis=axis)[inner]) < here


def test_anatomy_does_not_depend_on_the_grid():
    fracture = plain(True, epidural=Mass(4, 5, 9), bulge_mm=4.0, line_depth=0.4)
    (every, body), (second, second_body) = drawn(fracture), drawn(fracture, thin=2)
    np.testing.assert_array_equal(every[:, ::2], second)
    np.testing.assert_array_equal(body[:, ::2], second_body)


def test_collapse_takes_the_height_it_says_and_leaves_the_rest_whole():
    column, lost = healthy_column(), Collapse(4, 0.5, 0.5, 0.2)
    after = collapse(column, lost)

    def rims(body, side):  # the ends of a wall, front -1 or back +1
        wedge = side * np.tan(body.wedge / 2) * body.half_depth
        across = (body.y, body.z) + side * body.half_depth * back_axis(body.angle)
        half = body.half_height - wedge
        return across + half * up_axis(body.angle), across - half * up_axis(body.angle)

    for side, share in ((-1, 0.5), (1, 0.2)):
        before_top, before_low = rims(column.bodies[4], side)
        top, low = rims(after.bodies[4], side)
        height = np.linalg.norm(before_top - before_low)
        assert np.linalg.norm(top - low) == pytest.approx((1 - share) * height, rel=0.02)
        np.testing.assert_allclose(low, before_low, atol=0.2)  # the lower endplate stays
    assert after.bodies[:4] == column.bodies[:4]
    assert after.discs[:5] == column.discs[:5]
    for below, above in itertools.pairwise(range(5, 9)):  # what lies above moves as it is
        gaps = [
            np.hypot(c.bodies[above].y - c.bodies[below].y, c.bodies[above].z - c.bodies[below].z)
            for c in (column, after)
        ]
        assert gaps[1] == pytest.approx(gaps[0], rel=0.05)
    assert after.bodies[5].angle > column.bodies[5].angle + 0.1  # leans forwards: kyphosis
    assert after.bodies[5].y > column.bodies[5].y + 5  # and comes down


@pytest.mark.parametrize(
    ("finding", "malignant", "change", "material"),
    [
        ("fracture_line", False, {"line_depth": 0.4}, F.LINE),
        ("fluid_sign", False, {"fluid_mm": 3.0}, F.FLUID),
        ("epidural_mass", True, {"epidural": Mass(4, 6, 9)}, F.MASS),
        ("paraspinal_mass", True, {"paraspinal": Mass(4, 8, 20)}, F.MASS),
    ],
)
def test_a_sign_with_a_material_of_its_own_is_drawn_when_present(
    finding, malignant, change, material
):
    without, with_it = plain(malignant), plain(malignant, **change)
    assert not getattr(without.findings(), finding)
    assert getattr(with_it.findings(), finding)
    assert not (drawn(without)[0] == material).any()
    labels, body = drawn(with_it)
    assert (labels == material).sum() > 40
    inside = body[labels == material]
    assert inside.all() if material in (F.LINE, F.FLUID) else not inside.any()


def test_masses_lie_behind_and_before_the_body():
    behind, body = drawn(plain(True, epidural=Mass(4, 6, 9)))
    before, _ = drawn(plain(True, paraspinal=Mass(4, 8, 20)))
    middle = np.nonzero(body)[2].mean()
    assert np.nonzero(behind == F.MASS)[2].mean() > middle + 12
    assert np.nonzero(before == F.MASS)[2].mean() < middle - 12


@pytest.mark.parametrize("change", [{"bulge_mm": 5.0}, {"fragment_mm": 5.0}])
def test_a_bulge_is_widest_in_the_middle_and_a_fragment_at_the_top(change):
    plain_body, body = drawn(plain(False))[1][7], drawn(plain(False, **change))[1][7]
    rows = np.flatnonzero(plain_body.any(axis=1))
    back = [np.array([np.flatnonzero(b[r])[-1] for r in rows[2:-2]]) for b in (plain_body, body)]
    gain = back[1] - back[0]
    top, middle, bottom = gain[:3].mean(), gain[len(gain) // 2 - 1 :][:3].mean(), gain[-3:].mean()
    if "bulge_mm" in change:
        assert middle > 3
        assert middle > max(top, bottom)
    else:
        assert top > 3 > bottom + 2
    assert top + middle + bottom > 4


def test_replacement_follows_the_share_and_the_class():
    def replaced(fracture):
        labels, body = drawn(fracture)
        marrow = body & (labels >= F.LESION) & (labels < F.LINE)
        gone = marrow & (labels > F.LESION + 4) & (labels < F.FATTY)
        return gone.sum() / marrow.sum(), gone, marrow

    share, gone, marrow = replaced(plain(False, replaced=0.4))
    assert share == pytest.approx(0.4, abs=0.12)
    assert np.nonzero(gone)[1].mean() < np.nonzero(marrow)[1].mean() - 2  # beneath the endplate
    share, gone, marrow = replaced(plain(True, replaced=0.6))
    assert 0.3 < share < 0.85
    assert np.nonzero(gone)[2].mean() > np.nonzero(marrow)[2].mean() + 2  # from behind
    assert replaced(plain(True))[0] == 1
    assert replaced(plain(False, healed=True))[0] == 0


def test_arch_and_foci_are_replaced_where_the_findings_say():
    nothing, _ = drawn(plain(True))
    for change in ({"pedicle": True}, {"posterior": True}):
        labels, body = drawn(plain(True, **change))
        new = (labels == F.LESION + 9) & (nothing == M.MARROW) & ~body
        assert new.sum() > 30
        assert np.nonzero(new)[2].min() > np.nonzero(body)[2].mean()
    labels, body = drawn(plain(True, foci=(Focus(3, 0.0, 0.0, 0.0, 7.0),)))
    new = (labels == F.LESION + 9) & ~body & (nothing != labels)
    assert new.sum() > 100
    assert np.nonzero(new)[1].min() > np.nonzero(body)[1].max()  # in the vertebra below


def test_signs_lean_to_their_class_and_occur_in_both(traits):
    rates = {
        m: {n: np.mean([getattr(t.findings(), n) for t in group]) for n in FINDINGS}
        for m, group in traits.items()
    }
    assert len(FINDINGS) == 15
    assert set(FINDINGS) - BENIGN_SIGNS - MALIGNANT_SIGNS == {"height_loss_over_40_percent"}
    for name in FINDINGS:
        assert all(0.015 < rates[m][name] < 0.95 for m in (False, True)), name
        if name in BENIGN_SIGNS:
            assert rates[False][name] > rates[True][name] + 0.1, name
        if name in MALIGNANT_SIGNS:
            assert rates[True][name] > rates[False][name] + 0.2, name


def test_findings_follow_from_the_geometry():
    tall = plain(True, collapse=Collapse(4, 0.39, 0.39, 0.3)).findings()
    low = plain(True, collapse=Collapse(4, 0.45, 0.39, 0.2)).findings()
    assert (tall.height_loss_over_40_percent, tall.wedge_shape) == (False, False)
    assert (low.height_loss_over_40_percent, low.wedge_shape) == (True, True)
    partly = plain(True, replaced=0.7).findings()
    assert (partly.retained_fatty_marrow, partly.complete_marrow_replacement) == (True, False)
    entirely = plain(True).findings()
    assert (entirely.retained_fatty_marrow, entirely.complete_marrow_replacement) == (False, True)


def test_malignant_marrow_is_darker_on_t1_but_no_brightness_decides():
    default = FracturePhantomConfig()
    coarse = FracturePhantomConfig(
        t1=replace(default.t1, factors=(1, 1, 1)),
        t2=replace(default.t2, factors=(1, 1, 1)),
        n_slices=3,
    )
    many = [fracture_phantom(seed, bool(seed % 2), coarse) for seed in range(80)]

    def ratio(image, p):
        return np.median(image[p.mask == 2]) / np.median(image[p.mask == 1])

    malignant = np.array([p.fracture.malignant for p in many])
    t1 = np.array([ratio(p.t1, p) for p in many])
    t2 = np.array([ratio(matched_t2(p), p) for p in many])
    assert t1[malignant].mean() < t1[~malignant].mean() - 0.08
    assert 0.58 < roc_auc_score(malignant, -t1) < 0.85
    assert 0.3 < roc_auc_score(malignant, t2) < 0.7


def test_readers_call_at_their_published_rates():
    n = 4000
    for malignant in (True, False):
        calls = [draw_calls(seed, malignant) for seed in range(n)]
        for reader in READERS:
            right = np.mean([c[reader.name] == malignant for c in calls])
            rate = reader.sensitivity if malignant else reader.specificity
            assert right == pytest.approx(rate, abs=4 * np.sqrt(rate * (1 - rate) / n))
    assert [r.name for r in READERS] == ["senior", "fourth_year_resident", "first_year_resident"]
    assert draw_calls(5, True) == draw_calls(5, True)


def test_findings_are_recorded_with_few_errors(traits):
    truth = [t.findings() for t in traits[True][:600]]
    noted = [draw_findings(seed, seen) for seed, seen in enumerate(truth)]
    assert list(noted[0]) == list(FINDINGS)
    errors = [asdict(t)[n] != row[n] for t, row in zip(truth, noted, strict=True) for n in FINDINGS]
    assert np.mean(errors) == pytest.approx(FINDING_ERROR, abs=0.008)
