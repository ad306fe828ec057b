"""Volumes to files and back, and what is said of files that are not what they should be."""

import os
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from mskjax.errors import FileNote, UserError
from mskjax.imaging.files import read_mask, read_volume, write_volume
from mskjax.imaging.geometry import reorient
from mskjax.imaging.volume import Volume

SHARED = Path(os.environ.get("MSKJAX_SHARED", Path(__file__).resolve().parents[2] / "../shared"))
SCANNER = SHARED / "data" / "scanner_files"
real = pytest.mark.skipif(not SCANNER.is_dir(), reason=f"no scanner files at {SCANNER}")


def oblique_volume(dtype="int16", shape=(4, 6, 5)) -> Volume:
    rng = np.random.default_rng(1)
    rotation, _ = np.linalg.qr(rng.normal(size=(3, 3)))
    affine = np.eye(4)
    affine[:3, :3] = rotation * [3.3, 0.5, 0.7]
    affine[:3, 3] = [-31.2, 50.5, 7.25]
    return Volume(rng.integers(0, 200, shape).astype(dtype), affine)


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz", ".mha"])
@pytest.mark.parametrize("dtype", ["uint8", "int16", "uint16", "float32", "bool", "int64"])
def test_round_trip(tmp_path, suffix, dtype):
    volume = oblique_volume(dtype)
    path = tmp_path / "new" / f"v{suffix}"
    write_volume(path, volume)
    again = read_volume(path)
    np.testing.assert_array_equal(again.data, volume.data)
    np.testing.assert_allclose(again.affine, volume.affine, atol=1e-5)
    assert again.data.dtype == {"bool": "uint8", "int64": "int32"}.get(dtype, dtype)
    assert [p.name for p in path.parent.iterdir()] == [path.name]


@pytest.mark.parametrize("suffix", [".nii.gz", ".mha"])
def test_simpleitk_finds_our_voxels_at_the_same_points(tmp_path, suffix):
    volume = oblique_volume()
    write_volume(tmp_path / f"v{suffix}", volume)
    image = sitk.ReadImage(str(tmp_path / f"v{suffix}"))
    for index in [(0, 0, 0), (3, 5, 4), (1, 2, 3)]:
        assert image[index] == volume.data[index]
        lps = np.array(image.TransformIndexToPhysicalPoint(index))
        np.testing.assert_allclose((volume.affine @ [*index, 1])[:3], lps * [-1, -1, 1], atol=1e-4)


@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
def test_png_round_trip(tmp_path, dtype):
    pixels = np.random.default_rng(0).integers(0, np.iinfo(dtype).max, (5, 7)).astype(dtype)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    volume = read_volume(tmp_path / "a.png", spacing=(0.4, 0.6))
    np.testing.assert_array_equal(volume.data, pixels[None])
    assert volume.data.dtype == dtype
    assert nib.aff2axcodes(volume.affine) == ("L", "I", "P")
    np.testing.assert_allclose(volume.spacing, [1, 0.4, 0.6])
    write_volume(tmp_path / "b.png", reorient(volume, "RAS"))
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "b.png")), pixels)


def test_failed_write_leaves_the_old_file(tmp_path):
    path = tmp_path / "v.png"
    write_volume(path, Volume(np.zeros((1, 2, 2), np.uint8), np.diag([-1, -1, -1, 1])))
    before = path.read_bytes()
    with pytest.raises(UserError, match="one sagittal slice"):
        write_volume(path, oblique_volume("float32"))
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["v.png"]


def test_scale_factors_are_applied(tmp_path):
    image = nib.Nifti1Image(np.arange(8, dtype=np.int16).reshape(2, 2, 2), np.eye(4))
    image.header.set_slope_inter(0.5, 10)
    image.to_filename(tmp_path / "s.nii")
    raw = bytearray((tmp_path / "s.nii").read_bytes())
    stored = np.frombuffer(raw, "<i2", 8, 352)
    slope, inter = np.frombuffer(raw, "<f4", 2, 112)
    np.testing.assert_allclose(
        read_volume(tmp_path / "s.nii").data.ravel(order="F"), stored * slope + inter
    )


@real
def test_real_nifti_files():
    volume = read_volume(SCANNER / "nifti" / "anatomical.nii")
    stored = nib.Nifti1Image.from_filename(SCANNER / "nifti" / "anatomical.nii")
    np.testing.assert_array_equal(volume.data, stored.get_fdata())
    np.testing.assert_array_equal(volume.affine, stored.affine)
    assert volume.data.dtype == np.dtype("=i2")  # stored big-endian
    turned = read_volume(SCANNER / "nifti" / "reoriented_anat_moved.nii")
    assert nib.aff2axcodes(turned.affine) == ("R", "A", "S")
    sample = SCANNER / "totalseg_mr"
    image = read_volume(sample / "example_mr_sm.nii.gz")
    mask = read_mask(sample / "example_seg_mr.nii.gz", image)
    assert mask.data.dtype == np.uint8
    assert mask.data.any()


@real
@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("example4d.nii.gz", r"has 4 dimensions \(128, 96, 24, 2\)"),
        ("example_nifti2.nii.gz", r"has 4 dimensions \(32, 20, 12, 2\)"),
        ("functional.nii", "has 4 dimensions"),
        ("resampled_anat_moved.nii", "153 of 1071 voxels are NaN or infinite"),
        ("COPYING", "not a format this program reads"),
        ("absent.nii", "no such file"),
    ],
)
def test_real_nifti_files_refused(name, why):
    with pytest.raises(UserError, match=why) as caught:
        read_volume(SCANNER / "nifti" / name)
    assert name in str(caught.value)


def test_nifti2_and_a_last_axis_of_one(tmp_path):
    data = np.arange(24, dtype=np.int16).reshape(2, 3, 4, 1)
    nib.Nifti2Image(data, np.diag([2.0, 1, 1, 1])).to_filename(tmp_path / "two.nii.gz")
    volume = read_volume(tmp_path / "two.nii.gz")
    np.testing.assert_array_equal(volume.data, data[..., 0])


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz", ".mha", ".png"])
def test_truncated_files(tmp_path, suffix):
    path = tmp_path / f"v{suffix}"
    rng = np.random.default_rng(0)
    shape = (1, 40, 50) if suffix == ".png" else (9, 40, 50)
    data = rng.integers(0, 255, shape).astype(np.uint8)
    write_volume(path, Volume(data, np.diag([-1, 1, 1, 1])[[0, 2, 1, 3]] * [[1], [-1], [-1], [1]]))
    whole = path.read_bytes()
    for keep in (0, 10, len(whole) // 2, len(whole) - 200):
        path.write_bytes(whole[:keep])
        with pytest.raises(UserError, match=f"v{suffix}: cannot be read"):
            read_volume(path)


@settings(max_examples=30)
@given(st.binary(max_size=600), st.sampled_from([".nii", ".nii.gz", ".mha", ".png", ".dcm"]))
def test_noise_is_refused_in_a_sentence(tmp_path_factory, noise, suffix):
    path = tmp_path_factory.mktemp("noise") / f"v{suffix}"
    path.write_bytes(noise)
    with pytest.raises(UserError, match="v" + suffix):
        read_volume(path)


def test_infinite_voxels_and_formats_that_are_not_written(tmp_path):
    data = np.zeros((2, 3, 4), np.float32)
    data[0, 0, :3] = np.nan, np.inf, -np.inf
    nib.Nifti1Image(data, np.eye(4)).to_filename(tmp_path / "nan.nii")
    with pytest.raises(UserError, match=r"nan\.nii: 3 of 24 voxels"):
        read_volume(tmp_path / "nan.nii")
    with pytest.raises(UserError, match="cannot write this format"):
        write_volume(tmp_path / "v.jpg", oblique_volume())


@pytest.mark.parametrize("suffix", [".nii", ".mha", ".png", ".dcm", ""])
def test_files_that_hold_nothing_or_are_none(tmp_path, suffix):
    path = tmp_path / f"v{suffix}"
    path.touch()
    with pytest.raises(UserError, match=f"v{suffix}: cannot be read .it is empty, 0 bytes"):
        read_volume(path)
    path.unlink()
    os.mkfifo(path)  # reading it would wait for ever
    with pytest.raises(UserError, match="neither a file nor a folder"):
        read_volume(path)


def test_whatever_a_library_raises_is_a_sentence_of_the_file(tmp_path, monkeypatch):
    write_volume(tmp_path / "v.nii", oblique_volume())
    path = tmp_path / "v.nii"

    def fail(*_):
        raise KeyError("surprise")

    monkeypatch.setattr("mskjax.imaging.files.read_nifti", fail)
    with pytest.raises(UserError, match=r"v\.nii: cannot be read .'surprise'.; copy") as caught:
        read_volume(path)
    assert isinstance(caught.value.__cause__, KeyError)


def test_libraries_say_nothing_but_notes_pass(tmp_path, capfd):
    """A .mha of a missing direction, and a NIfTI whose header nibabel mends on reading."""
    image = nib.Nifti1Image(np.ones((3, 4, 5), np.uint8), np.diag([1.0, 2, 3, 1]))
    image.header["bitpix"] = 99
    raw = bytearray(image.to_bytes())
    raw[72:74] = (99).to_bytes(2, "little")
    (tmp_path / "v.nii").write_bytes(raw)
    with pytest.warns(FileNote, match="has invalid header fields.*bitpix") as caught:
        read_volume(tmp_path / "v.nii")
    assert len(caught) == 1
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("suffix", [".nii", ".mha"])
@pytest.mark.parametrize(
    ("pitch", "why"),
    [
        ((4000, 800, 800), "gives 4000 mm between slices, but scanners make 0.1 to 50 mm"),
        ((3, 0.04, 0.04), "gives 0.04 mm per pixel, but scanners make 0.05 to 20 mm"),
        ((3, 25, 3), "gives 25 mm between slices|gives 25 mm per pixel"),
        ((0.08, 0.08, 0.08), "gives 0.08 mm between slices"),
    ],
)
def test_voxels_of_a_size_that_no_scanner_makes(tmp_path, suffix, pitch, why):
    path = tmp_path / f"v{suffix}"
    affine = np.diag([*pitch, 1.0])[[1, 2, 0, 3]]
    field = "ElementSpacing" if suffix == ".mha" else "sform with xyzt_units mm"
    if pitch == (3, 25, 3):
        affine = np.diag([3.0, 25, 30, 1])  # the thickest of them is the slice
    write_volume(path, Volume(np.ones((3, 4, 5), np.uint8), affine))
    with pytest.raises(UserError, match=f"v{suffix}: {field} (?:{why})"):
        read_volume(path)


@pytest.mark.parametrize("suffix", [".nii", ".mha"])
def test_a_slice_alone_may_be_of_any_thickness(tmp_path, suffix):
    path = tmp_path / f"v{suffix}"
    write_volume(path, Volume(np.ones((1, 4, 5), np.uint8), np.diag([99.0, 0.5, 0.5, 1])))
    np.testing.assert_allclose(read_volume(path).spacing, [99, 0.5, 0.5])
