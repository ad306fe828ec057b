"""Planes: which axis the slices are, Y-views turned upright, and volumes without a plane."""

import itertools
import warnings

import nibabel as nib
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from mskjax.errors import UserError
from mskjax.imaging import geometry, planes
from mskjax.imaging.files import write_volume
from mskjax.imaging.volume import Volume
from tfds_builders.paired import read_series


def test_slice_axis():
    assert planes.slice_axis(Volume(np.zeros((9, 9, 9)), np.diag([0.5, 3, 0.6, 1]))) == 1
    isotropic = Volume(np.zeros((9, 12, 7)), np.eye(4))
    assert planes.slice_axis(isotropic) == 2
    isotropic.meta["slice_axis"] = 0
    assert planes.slice_axis(isotropic) == 0
    assert planes.slice_axis(Volume(np.zeros((1, 8, 8)), np.eye(4))) == 0


def y_view_volume(side="left", degrees=38.0, tilt=0.0, roll=0.0, shape=(5, 12, 10), slice_mm=4.0):
    """Axes left, down and back of a sagittal stack, turned towards the front of that shoulder."""
    towards = -1 if side == "left" else 1
    turn = Rotation.from_euler("ZYX", [towards * degrees, tilt, roll], degrees=True)
    affine = np.eye(4)
    sagittal = np.array([[-1.0, 0, 0], [0, 0, -1], [0, -1, 0]])
    affine[:3, :3] = turn.as_matrix() @ sagittal * (slice_mm, 0.6, 0.5)
    affine[:3, 3] = (20, -7, 45)
    data = np.random.default_rng(0).integers(1, 900, shape).astype(np.int16)
    return Volume(data, affine)


def stored(volume, order, flips=(False, False, False)):
    """The volume with its axes permuted, then some reversed."""
    data, step = volume.data.transpose(order), np.eye(4)[:, [*order, 3]]
    for axis in np.flatnonzero(flips):
        reverse = np.eye(4)
        reverse[axis, axis], reverse[axis, 3] = -1, data.shape[axis] - 1
        data, step = np.flip(data, axis), step @ reverse
    return Volume(data, volume.affine @ step, {"kept": 1})


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("turn", [(0, 0, 0), (30, 5, -8), (44, -12, 20), (50, 0, 0), (65, 10, -15)])
def test_every_storage_order_of_an_oblique_y_view_is_turned_upright(side, turn):
    expected = y_view_volume(side, *turn)
    for order in itertools.permutations(range(3)):
        for flips in itertools.product([False, True], repeat=3):
            turned = planes.y_view(stored(expected, order, flips), "file")
            np.testing.assert_array_equal(turned.data, expected.data)
            np.testing.assert_allclose(turned.affine, expected.affine, atol=1e-9)
            assert turned.meta == {"kept": 1}


def test_the_patient_axis_closest_to_a_y_view_would_be_the_wrong_one():
    view = y_view_volume(degrees=50)
    assert nib.aff2axcodes(view.affine) != geometry.SAGITTAL
    np.testing.assert_array_equal(planes.y_view(view, "file").data, view.data)


@pytest.mark.parametrize("order", [(0, 1, 2), (1, 2, 0), (2, 0, 1)])
def test_the_slice_of_a_single_y_view_is_its_own_axis_even_where_it_is_thin(order):
    single = y_view_volume("right", shape=(1, 12, 10), slice_mm=0.2)
    turned = planes.y_view(stored(single, order), "file")
    np.testing.assert_array_equal(turned.data, single.data)


@pytest.mark.parametrize("order", [(0, 1, 2), (1, 2, 0), (2, 0, 1)])
def test_one_slice_stays_where_it_lies(order):
    view = y_view_volume()
    alone = planes.y_view(planes.one_slice(stored(view, order), order.index(0), 3), "file")
    np.testing.assert_array_equal(alone.data, view.data[3:4])
    np.testing.assert_allclose(alone.affine @ [0, 2, 1, 1], view.affine @ [3, 2, 1, 1], atol=1e-9)


@pytest.mark.parametrize(
    ("view", "kind"),
    [
        (y_view_volume(degrees=80), "coronal"),
        (y_view_volume("right", degrees=90), "coronal"),
        (y_view_volume(degrees=20, tilt=60), "axial"),
        (Volume(np.ones((12, 10, 5)), np.diag([0.5, 0.6, 4.0, 1])), "axial"),
    ],
)
def test_other_planes_are_no_y_view(view, kind):
    with pytest.raises(UserError, match=f"file: the slices are {kind}, not a Y-view"):
        planes.y_view(view, "file")


AXIAL = np.diag([-0.8, -0.8, 0.8, 1.0])  # stored as an axial stack of cubes


@pytest.mark.parametrize("meta", [{}, {"slice_axis": 0}, {"slice_axis": 2}])
def test_cubes_are_cut_as_y_view_whatever_the_scanner_called_its_slices(meta):
    data = np.arange(7 * 6 * 5, dtype=np.int16).reshape(7, 6, 5)
    volume = Volume(data, AXIAL, meta)
    assert planes.y_view_axis(volume) == 0
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        turned = planes.y_view(volume, "file")
    assert nib.aff2axcodes(turned.affine) == ("L", "I", "P")
    np.testing.assert_array_equal(turned.data, data.transpose(0, 2, 1)[:, ::-1])
    assert [str(w.message) for w in caught] == [
        "file: is isotropic; its sagittal planes are used, not the slices it was stored in"
    ] * (meta == {"slice_axis": 2})
    # Slice 3 of the axis that y_view takes is slice 3 of what it returns.
    alone = planes.y_view(planes.one_slice(volume, 0, 3), "file")
    np.testing.assert_array_equal(alone.data[0], turned.data[3])


def test_one_slice_of_cubes_has_a_plane():
    with pytest.raises(UserError, match="the slices are axial"):
        planes.y_view(Volume(np.ones((6, 5, 1)), AXIAL), "file")


def test_a_sagittal_series_may_be_cubes_but_not_an_axial_stack(tmp_path):
    data = np.random.default_rng(0).integers(0, 99, (6, 8, 7)).astype(np.int16)
    write_volume(tmp_path / "cubes.nii.gz", Volume(data, AXIAL))
    cubes = read_series(tmp_path / "cubes.nii.gz", "T2")
    assert cubes.data.shape == (6, 7, 8)
    write_volume(tmp_path / "axial.nii.gz", Volume(data, np.diag([-0.8, -0.8, 3.0, 1])))
    with pytest.raises(UserError, match="slices of this T2 are not sagittal"):
        read_series(tmp_path / "axial.nii.gz", "T2")


@pytest.mark.filterwarnings("ignore::mskjax.errors.FileNote")
def test_what_makes_the_direction_doubtful_is_said_where_a_plane_is_refused(tmp_path):
    data = np.ones((6, 8, 7), np.int16)
    path = tmp_path / "i.mha"
    write_volume(path, Volume(data, np.diag([-0.8, -0.8, 3.0, 1])))  # identity in LPS
    with pytest.raises(UserError, match="series .its direction is the identity, as of arrays"):
        read_series(path)
    volume = geometry.reorient(Volume(data, np.diag([1, 1, 4.0, 1]), {"orientation_doubt": "why"}))
    with pytest.raises(UserError, match=r"series \(why, so check that first\)\."):
        planes.y_view(volume, "file")


def test_letters_say_where_the_patient_is():
    sagittal = np.array([[-4.0, 0, 0, 0], [0, 0, -1, 0], [0, -1, 0, 0], [0, 0, 0, 1]])
    assert planes.edge_letters(sagittal) == ("H", "F", "A", "P")
    axial = np.array([[0, 0, -1.0, 0], [0, -1, 0, 0], [-1, 0, 0, 0], [0, 0, 0, 1]])
    assert planes.edge_letters(axial) == ("A", "P", "R", "L")
    turn = np.deg2rad(40)
    oblique = sagittal.copy()
    oblique[:3, 2] = [-np.sin(turn), -np.cos(turn), 0]  # columns to the back and the left
    assert planes.edge_letters(oblique) == ("H", "F", "AR", "PL")
