import hashlib
import itertools
from dataclasses import replace

import nibabel as nib
import numpy as np
import pytest
from scipy import ndimage

from tfds_builders.phantoms.shoulder_bones import (
    HUMERUS,
    PAPER,
    SCAPULA,
    SHOULDER_PD,
    SHOULDER_T1,
    SMALL,
    BonesPhantomConfig,
    bones_phantom,
    material_signals,
)
from tfds_builders.phantoms.shoulder_bones_anatomy import (
    build_shoulder,
    humerus_distance,
    scapula_distance,
)
from tfds_builders.phantoms.shoulder_bones_drawing import M
from tfds_builders.phantoms.shoulder_bones_shapes import (
    Frame,
    Grid,
    Tube,
    Waves,
    ellipsoid,
    rotation,
)

CORONAL = replace(SMALL, plane="coronal")
SOLID = np.ones((3, 3, 3), bool)


@pytest.fixture(scope="module")
def made():
    """Five axial and three coronal series, and the sizes of the pieces of each bone as drawn."""
    pieces, label = [], ndimage.label

    def spy(*args):
        found = label(*args)
        pieces.append(np.sort(np.bincount(found[0].ravel())[1:]))
        return found

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ndimage, "label", spy)
        axial = [bones_phantom(seed) for seed in (1, 3, 8, 9, 0)]
        coronal = [bones_phantom(seed, CORONAL) for seed in (1, 3, 8)]
    return axial, coronal, pieces


@pytest.fixture(scope="module")
def axial(made):
    return made[0]


@pytest.fixture(scope="module")
def coronal(made):
    return made[1]


@pytest.fixture(scope="module")
def cohort(axial, coronal):
    return [*axial, *coronal]


def millilitres(phantom, bone):
    voxel = abs(np.linalg.det(phantom.affine[:3, :3]))
    return np.count_nonzero(phantom.mask == bone) * voxel / 1000


def centre(phantom, voxels):
    """RAS mm of the mean of some voxels."""
    return phantom.affine[:3] @ [*np.argwhere(voxels).mean(axis=0), 1]


def test_arrays_and_fields_have_the_promised_form(cohort):
    for p in cohort:
        assert p.image.shape == p.mask.shape == (24, 96, 96)
        assert (p.image.dtype, p.mask.dtype) == (np.int16, np.uint8)
        assert p.image.min() >= 0
        assert set(np.unique(p.mask)) == {0, HUMERUS, SCAPULA}
        assert p.side in {"left", "right"}
        assert p.sex in {"F", "M"}
        assert 18 <= p.age <= 90
        assert p.field_strength_t in {1.5, 3.0}
    assert {p.side for p in cohort} == {"left", "right"}
    assert {p.sex for p in cohort} == {"F", "M"}


def test_each_bone_is_one_piece_and_the_joint_lies_between_them(cohort):
    for p in cohort:
        for bone in (HUMERUS, SCAPULA):
            assert ndimage.label(p.mask == bone, SOLID)[1] == 1
        grown = ndimage.binary_dilation(p.mask == HUMERUS)  # by face neighbours
        assert not (grown & (p.mask == SCAPULA)).any()


def test_only_crumbs_of_thin_plates_are_dropped_from_a_mask(made):
    """The acromion hangs on the crest: the mask must hold all of the scapula that is drawn."""
    *_, pieces = made
    assert len(pieces) == 16
    assert all(sizes[:-1].sum() < 0.02 * sizes[-1] for sizes in pieces)


def test_bones_do_not_touch_before_they_are_sampled():
    """The true gap is the cartilage of both sides and some fluid, 3 mm or more."""
    for seed in range(3):
        who = build_shoulder(np.random.default_rng((seed, 60)))
        n = 70
        grid = Grid(np.full(3, -35.0), np.eye(3), (n, n, n))
        scapula, humerus = scapula_distance(who, grid), humerus_distance(who, grid.points())
        between = np.maximum(humerus, scapula).min()  # half the gap, at its middle
        gap = who.head_cartilage + who.glenoid_cartilage
        assert between > 0.45 * gap
        assert between < 3.5


def test_shown_bones_have_anatomical_volumes(axial, coronal):
    # The head alone is 40 to 88 ml; a whole scapula is about 100 ml, of which a part is shown.
    for group in (axial, coronal):
        assert all(45 < millilitres(p, HUMERUS) < 125 for p in group)
        assert all(25 < millilitres(p, SCAPULA) < 75 for p in group)
    by_sex = {s: np.mean([p.head_radius_mm for p in axial if p.sex == s]) for s in "FM"}
    assert by_sex["M"] > by_sex["F"] + 1
    assert all(19 < p.head_radius_mm < 28 for p in axial)


def test_size_of_the_bone_follows_the_head(axial):
    radius = np.array([p.head_radius_mm for p in axial])
    volume = np.array([millilitres(p, HUMERUS) for p in axial])
    assert np.corrcoef(radius**3, volume)[0, 1] > 0.9


def test_widest_slice_of_the_head_has_its_diameter(axial):
    for p in axial:
        middle = max(p.mask, key=lambda s: np.count_nonzero(s == HUMERUS)) == HUMERUS
        diameter = 2 * np.sqrt(np.count_nonzero(middle) * 1.6**2 / np.pi)
        # Tuberosities make the section a little wider than the sphere.
        assert 2 * p.head_radius_mm - 1 < diameter < 2.35 * p.head_radius_mm


def test_scapula_lies_medially_and_the_side_is_in_the_affine(cohort):
    for p in cohort:
        humerus, scapula = (centre(p, p.mask == bone) for bone in (HUMERUS, SCAPULA))
        lateral = 1 if p.side == "right" else -1  # RAS: x grows to the right
        assert (humerus - scapula)[0] * lateral > 25
        assert humerus[0] * lateral > 80  # a shoulder is far from the midline


def test_axes_are_those_of_the_display_and_oblique(axial, coronal):
    for group, axes, steps in ((axial, "IPL", (3.5, 1.6, 1.6)), (coronal, "PIL", (3.5, 1.6, 1.6))):
        for p in group:
            assert "".join(nib.aff2axcodes(p.affine)) == axes
            rotated = p.affine[:3, :3] / steps
            np.testing.assert_allclose(rotated.T @ rotated, np.eye(3), atol=1e-12)
    angles = [np.rad2deg(np.arccos(abs(p.affine[1, 0]) / 3.5)) for p in coronal]
    assert min(angles) > 15  # along the scapula


def test_bone_is_not_separable_by_intensity(axial):
    for p in axial:
        bone = p.mask > 0
        marrow = p.image[ndimage.binary_erosion(p.mask == HUMERUS, iterations=2)]
        rim = p.image[bone & ~ndimage.binary_erosion(bone)]
        for values, share in (
            (np.percentile(marrow, [5, 95]), 0.5),  # looks like fat,
            (np.percentile(rim, [5, 50]), 0.15),
        ):  # like tendon and air
            alike = (p.image >= values[0]) & (p.image <= values[1])
            assert np.count_nonzero(alike & bone) < share * np.count_nonzero(alike)
        # The best window finds far less than a network should.
        edges = np.percentile(p.image, range(2, 100, 6))
        windows = [(p.image >= a) & (p.image < b) for a, b in itertools.combinations(edges, 2)]
        scores = [
            2 * np.count_nonzero(w & bone) / (np.count_nonzero(w) + np.count_nonzero(bone))
            for w in windows
        ]
        assert max(scores) < 0.5


def test_cortex_is_as_dark_as_tendon_and_marrow_as_bright_as_fat():
    for protocol in (SHOULDER_PD, SHOULDER_T1):
        values = material_signals(protocol, age=50)
        dark = values[[M.HUMERUS_CORTEX, M.SCAPULA_CORTEX, M.OTHER_CORTEX, M.TENDON, M.AIR]]
        assert dark.max() < 0.5 * values[M.MUSCLE] < values[M.FAT]
        marrow = values[M.HUMERUS_MARROW :]
        assert (marrow > 1.3 * values[M.MUSCLE]).all()
        assert (marrow < values[M.FAT]).all()
        assert marrow.max() > 0.9 * values[M.FAT]
    # Fluid is dark on T1 and not on PD.
    bright, dark = (
        material_signals(p, 50)[M.FLUID] / material_signals(p, 50)[M.MUSCLE]
        for p in (SHOULDER_PD, SHOULDER_T1)
    )
    assert bright > 1.5
    assert dark < 1.0


def test_marrow_of_the_young_is_redder():
    young, old = (material_signals(SHOULDER_T1, age) for age in (20, 80))
    red = M.HUMERUS_MARROW + 5
    assert young[red] < old[red]
    assert young[M.HUMERUS_MARROW] == old[M.HUMERUS_MARROW]


def test_same_seed_same_bytes_and_other_seed_other_patient(axial):
    def digest(p):
        parts = (p.image, p.mask, p.affine)
        return hashlib.sha256(b"".join(a.tobytes() for a in parts)).hexdigest()

    assert digest(bones_phantom(3)) == digest(axial[1])
    assert len({digest(p) for p in axial}) == len(axial)


def test_both_planes_show_one_patient(axial, coronal):
    for a, c in zip(axial, coronal, strict=False):
        assert (a.side, a.sex, a.age, a.head_radius_mm) == (c.side, c.sex, c.age, c.head_radius_mm)


def test_weighting_changes_contrast_and_nothing_else(axial):
    t1 = bones_phantom(1, replace(SMALL, protocol=SHOULDER_T1))
    np.testing.assert_array_equal(t1.mask, axial[0].mask)
    np.testing.assert_array_equal(t1.affine, axial[0].affine)
    assert not np.array_equal(t1.image, axial[0].image)


def test_gain_of_the_scanner_says_nothing(axial):
    medians = np.array([np.median(p.image[p.mask == HUMERUS]) for p in axial])
    assert medians.max() > 2 * medians.min()


def test_air_holds_rician_noise():
    p = bones_phantom(4, replace(SMALL, bias=0.0))
    air = p.image[:, :8, :8].astype(float)
    # Rician background: mean over standard deviation is sqrt(pi/2) / sqrt(2 - pi/2) = 1.913.
    assert air.mean() / air.std() == pytest.approx(1.913, rel=0.06)


def test_paper_size_is_about_a_hundred_thin_slices_of_the_same_patient(axial):
    assert (PAPER.n_slices, PAPER.rows, PAPER.cols) == (100, 256, 256)
    assert PAPER.protocol.slice_pitch_mm > 1.1 * PAPER.protocol.pixel_mm
    p = bones_phantom(1, replace(PAPER, n_slices=50, rows=200, cols=184))  # a part is enough
    small = axial[0]
    assert (p.mask.shape, p.head_radius_mm) == ((50, 200, 184), small.head_radius_mm)
    assert all(ndimage.label(p.mask == bone, SOLID)[1] == 1 for bone in (HUMERUS, SCAPULA))
    assert np.allclose(np.linalg.norm(p.affine[:3, :3], axis=0), (1.2, 0.6, 0.6))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"plane": "sagittal"}, "plane is 'sagittal'; it must be axial or coronal"),
        ({"n_slices": 0}, "at least 1"),
        ({"rows": 40}, "110 mm in plane"),
        ({"n_slices": 10}, "60 mm across"),
        ({"protocol": replace(SHOULDER_PD, slice_pitch_mm=4.0)}, "slices must touch"),
    ],
)
def test_impossible_configs_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        BonesPhantomConfig(**change)


def test_a_tube_along_its_axis_is_a_capsule():
    frame = Frame(np.array([1.0, -2, 3]), rotation(2, 30) @ rotation(0, -20))
    tube = Tube(frame, np.array([(0.0, 0, 0), (10, 0, 0)]), np.array([2.0, 4.0]))
    local = np.array([(-5, 0, 0), (5, 0, 6), (5, 1, 0), (13, 4, 0)], float)
    placed = frame.place(local)
    points = tuple(placed[:, k].astype(np.float32) for k in range(3))
    np.testing.assert_allclose(tube.distance(points), [3, 3, -2, 1], atol=1e-5)
    low, high = tube.box(0.5)
    assert (placed[2] > low).all()
    assert (placed[2] < high).all()


@pytest.mark.parametrize("stretch", [0.4, 2.2])
def test_distances_of_flattened_shapes_are_right_near_their_surface(stretch):
    nodes = np.array([(0.0, 0, 0), (40, 0, 0)])
    tube = Tube(Frame(np.zeros(3), np.eye(3)), nodes, np.array([8.0, 8.0]), stretch)
    angle = np.linspace(0, 2 * np.pi, 60)
    radii = np.array([8.0, 8.0 * stretch])
    normal = np.stack([np.cos(angle) / radii[0], np.sin(angle) / radii[1]])
    normal /= np.linalg.norm(normal, axis=0)
    surface = np.stack([np.cos(angle) * radii[0], np.sin(angle) * radii[1]])
    for step in (-0.3, 0.0, 0.3):
        b, c = (surface + step * normal).astype(np.float32)
        points = (np.full_like(b, 20), b, c)
        np.testing.assert_allclose(tube.distance(points), step, atol=0.04)
        across = ellipsoid((np.zeros_like(b), b, c), (0, 0, 0), (30, *radii))
        np.testing.assert_allclose(across, step, atol=0.04)


def test_waves_are_the_sum_of_cosines_on_any_grid():
    waves = Waves.draw(np.random.default_rng(0), 9.0, count=7)
    steps = rotation(0, 20) @ np.diag([3.0, 1.5, 1.0])
    grid = Grid(np.array([5.0, -4, 2]), steps, (3, 4, 5))
    points = np.stack(grid.points(), axis=-1).astype(float)
    expected = np.sqrt(2 / 7) * np.cos(points @ waves.vectors.T + waves.phases).sum(axis=-1)
    np.testing.assert_allclose(waves.on(grid), expected, atol=2e-5)
    part = (slice(1, 3), slice(0, 2), slice(2, 5))
    np.testing.assert_allclose(waves.on(grid.part(part)), expected[part], atol=2e-5)


def test_blocks_hold_every_sample_of_their_box():
    steps = rotation(2, 35) @ np.diag([2.0, -1.0, 0.7])
    grid = Grid(np.array([-12.0, 9, -6]), steps, (12, 14, 16))
    low, high = np.array([-5.0, -4, -3]), np.array([6.0, 2, 1])
    points = np.stack(grid.points(), axis=-1)
    inside = ((points >= low) & (points <= high)).all(axis=-1)
    block = grid.block(low, high)
    held = np.zeros(grid.shape, bool)
    held[block] = True
    assert inside.any()
    assert not (inside & ~held).any()
    assert not held.all()
    assert grid.block(np.full(3, 500.0), np.full(3, 510.0)) is None
