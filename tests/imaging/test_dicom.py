"""DICOM: files as scanners write them, and small series whose geometry is known by construction."""

import os
from pathlib import Path

import nibabel as nib
import numpy as np
import pydicom
import pytest
import SimpleITK as sitk  # noqa: N813
from imaging.dicom_writer import ENHANCED_MR, header, numbers, oblique, write_series
from pydicom.dataset import Dataset

from mskjax.errors import UserError
from mskjax.imaging.dicom import read_dicom
from mskjax.imaging.files import read_volume
from mskjax.imaging.geometry import reorient
from mskjax.imaging.series import Series

SHARED = Path(os.environ.get("MSKJAX_SHARED", Path(__file__).resolve().parents[2] / "../shared"))
SCANNER = SHARED / "data" / "scanner_files"
real = pytest.mark.skipif(not SCANNER.is_dir(), reason=f"no scanner files at {SCANNER}")


@real
@pytest.mark.parametrize(
    "folder",
    [
        "series_generic/generic/anatomical/001",
        "series_generic/generic/anatomical/002_non_isotropic",
        "series_generic/generic/compressed_j2k/001",
        "series_generic/generic/compressed_rle/001",
        "series_bad/slicecount/001",
        "philips_enhanced/001",
    ],
)
def test_series_matches_its_nifti_ground_truth(folder):
    expected = read_volume(SCANNER / f"{folder}_ground_truth.nii.gz")
    volume = read_volume(SCANNER / folder)
    assert volume.meta["modality"] == "MR"
    turned = reorient(volume, nib.aff2axcodes(expected.affine))
    np.testing.assert_allclose(turned.affine, expected.affine, atol=2e-5)
    np.testing.assert_allclose(turned.data, expected.data, rtol=1e-6)


@real
def test_oblique_shoulder_series_agrees_with_simpleitk():
    folder = SCANNER / "shoulder_series_hitachi"
    names = sitk.ImageSeriesReader.GetGDCMSeriesFileNames(str(folder))
    image = sitk.ReadImage(names)
    volume = read_volume(folder)
    np.testing.assert_array_equal(volume.data, sitk.GetArrayFromImage(image).T)
    for index in [(0, 0, 0), (63, 0, 3), (10, 50, 2)]:
        lps = np.array(image.TransformIndexToPhysicalPoint(index))
        ras = (volume.affine @ [*index, 1])[:3]
        np.testing.assert_allclose(ras, lps * [-1, -1, 1], atol=2e-3)
    assert volume.meta["manufacturer"] == "Hitachi Medical Corporation"
    assert volume.meta["slice_axis"] == 2
    assert [Path(f).name for f in volume.meta["files"]] == [Path(f).name for f in names]


@real
def test_transfer_syntaxes_give_the_same_volume():
    for stem, others in (
        ("dicom_small/MR_small", ["RLE", "bigendian", "expb", "implicit", "padded"]),
        ("dicom_small/MR_small", ["jp2klossless", "jpeg_ls_lossless"]),
        ("shoulder_t1_philips/MR2", ["J2KR", "JLSL", "RLE"]),
    ):
        plain = SCANNER / (f"{stem}_UNCR.dcm" if "MR2" in stem else f"{stem}.dcm")
        expected = read_volume(plain)
        stored = pydicom.dcmread(plain)
        slope, shift = stored.get("RescaleSlope", 1), stored.get("RescaleIntercept", 0)
        values = stored.pixel_array * float(slope) + float(shift)
        np.testing.assert_allclose(expected.data[..., 0].T, values, rtol=1e-6)
        for other in others:
            volume = read_volume(SCANNER / f"{stem}_{other}.dcm")
            np.testing.assert_array_equal(volume.data, expected.data)
            np.testing.assert_array_equal(volume.affine, expected.affine)
            assert volume.data.dtype == expected.data.dtype


@real
@pytest.mark.parametrize(
    ("path", "why"),
    [
        ("series_bad/gantrytilting/001", r"gantry tilt, 14\.0 degrees"),
        ("series_bad/notavolume/001", "not one volume: 4 images lie at 1 position"),
        ("series_bad/sliceincrement/002", r"1 slice is missing, the first after slice 3 of 4"),
        ("series_bad/sliceorientation/001", "2 different orientations"),
        ("series_generic/generic/anatomical", "holds 2 series"),
        ("knee_enhanced/MOVEKNEE.dcm", "19 images lie at 1 position"),
        ("dicom_small/MR_truncated.dcm", r"MR_truncated\.dcm: .*8130 vs 8192 bytes"),
        ("dicom_small/emri_small_jpeg_2k_lossless_too_short.dcm", "cut short"),
        ("dicom_small/emri_small.dcm", "does not say where they lie"),
        ("dicom_small/emri_small_jpeg_ls_lossless.dcm", "does not say where they lie"),
    ],
)
def test_refused_with_the_reason(path, why):
    with pytest.raises(UserError, match=why) as caught:
        read_volume(SCANNER / path)
    assert str(SCANNER / path) in str(caught.value)


def test_every_voxel_lies_where_the_standard_says(tmp_path):
    """PS3.3 equation C.7.6.2.1-1, with files in an order that is not that of the slices."""
    voxels, frame, origin = write_series(tmp_path)
    volume = read_dicom(tmp_path)
    assert volume.data.shape == (7, 5, 4)
    assert volume.data.dtype == np.uint16
    for s, r, c in np.ndindex(voxels.shape):
        lps = origin + frame @ [0.8 * c, 0.5 * r, 3.0 * s]
        index = np.linalg.inv(volume.affine) @ [*(lps * [-1, -1, 1]), 1]
        i, j, k = np.round(index[:3]).astype(int)
        np.testing.assert_allclose(index[:3], [i, j, k], atol=1e-6)
        assert volume.data[i, j, k] == voxels[s, r, c]


def test_rescale_is_applied_slice_by_slice(tmp_path):
    voxels, *_ = write_series(
        tmp_path, RescaleSlope=[1, 2, 3, 0.5], RescaleIntercept=[0, -5, 10, 1]
    )
    volume = read_dicom(tmp_path)
    expected = voxels * np.reshape([1, 2, 3, 0.5], (4, 1, 1)) + np.reshape(
        [0, -5, 10, 1], (4, 1, 1)
    )
    np.testing.assert_allclose(volume.data.transpose(2, 1, 0), expected, rtol=1e-6)


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"depths": (0, 3, 9, 12)}, r"1 slice is missing, the first after slice 2 of 4"),
        ({"depths": (0, 3, 7.2, 12)}, "uneven slice spacing, 3.00 to 4.80 mm"),
        ({"depths": (0, 3, 3, 6), "EchoTime": [8, 8, 90, 8]}, "EchoTime 90.* and EchoTime 8"),
        ({"PixelSpacing": [["1", "1"]] * 3 + [["2", "2"]]}, "differ in matrix"),
        ({"SeriesInstanceUID": ["1.2", "1.2", "1.3", "1.3"]}, "holds 2 series"),
        ({"ImagePositionPatient": [None] * 4}, "ImagePositionPatient missing"),
        ({"ImageOrientationPatient": [["1", "0", "0", "1", "0", "0"]] * 4}, "orthogonal"),
    ],
)
def test_small_series_refused(tmp_path, changes, why):
    write_series(tmp_path, **changes)
    with pytest.raises(UserError, match=why):
        read_dicom(tmp_path)


def test_rounded_positions_are_not_uneven(tmp_path):
    write_series(tmp_path, depths=(0.0, 3.004, 5.997, 9.001))
    np.testing.assert_allclose(read_dicom(tmp_path).spacing, [0.8, 0.5, 9.001 / 3], rtol=1e-6)


def test_single_image_takes_its_thickness(tmp_path):
    write_series(tmp_path, depths=(0.0,))
    np.testing.assert_allclose(read_dicom(tmp_path).spacing, [0.8, 0.5, 2.0], rtol=1e-6)


@pytest.mark.parametrize("repeats", [1, 2])
def test_enhanced_frames_are_sorted_by_position_or_refused(tmp_path, repeats):
    frame = oblique()
    depths = np.repeat([6.0, 0.0, 3.0], repeats)
    voxels = np.arange(len(depths) * 20, dtype=np.uint16).reshape(-1, 4, 5)
    dataset = header(4, 5, ENHANCED_MR)
    dataset.NumberOfFrames = len(depths)
    dataset.PixelData = voxels.tobytes()
    shared, plane, measures = Dataset(), Dataset(), Dataset()
    plane.ImageOrientationPatient = numbers(frame[:, :2].T.ravel())
    measures.PixelSpacing, measures.SliceThickness = ["1", "1"], "3"
    shared.PlaneOrientationSequence, shared.PixelMeasuresSequence = [plane], [measures]
    dataset.SharedFunctionalGroupsSequence = [shared]
    groups = []
    for index, depth in enumerate(depths):
        group, place, echo = Dataset(), Dataset(), Dataset()
        place.ImagePositionPatient = numbers(frame[:, 2] * depth)
        echo.EffectiveEchoTime = float(10 + index % repeats * 70)
        group.PlanePositionSequence, group.MREchoSequence = [place], [echo]
        groups.append(group)
    dataset.PerFrameFunctionalGroupsSequence = groups
    path = tmp_path / "enhanced.dcm"
    dataset.save_as(path, enforce_file_format=True)
    if repeats > 1:
        with pytest.raises(
            UserError, match=r"6 images lie at 3 positions.*EchoTime 10.*EchoTime 80"
        ):
            read_dicom(path)
    else:
        volume = read_dicom(path)
        np.testing.assert_array_equal(volume.data.transpose(2, 1, 0), voxels[[1, 2, 0]])
        np.testing.assert_allclose(volume.spacing, [1, 1, 3])
    echo = {path: tuple(range(0, len(depths), repeats))}  # the first one of each position
    first = read_dicom(Series((path,), echo))
    np.testing.assert_array_equal(first.data.transpose(2, 1, 0), voxels[::repeats][[1, 2, 0]])


def test_folder_without_images(tmp_path):
    (tmp_path / "notes.txt").write_text("no image")
    with pytest.raises(UserError, match="no DICOM image"):
        read_dicom(tmp_path)


def test_the_files_of_a_series_are_read_wherever_they_lie(tmp_path):
    (tmp_path / "all").mkdir()
    write_series(tmp_path / "all")
    expected = read_dicom(tmp_path / "all")
    files = []
    for index, file in enumerate(sorted((tmp_path / "all").iterdir())):
        folder = tmp_path / f"disk {index}"
        folder.mkdir()
        files.append(file.rename(folder / "IM0001"))
        (folder / "IM0002").write_bytes(b"")  # not among the files that are given
    volume = read_volume(Series(tuple(files)))
    np.testing.assert_array_equal(volume.data, expected.data)
    np.testing.assert_array_equal(volume.affine, expected.affine)
    assert set(volume.meta["files"]) == set(map(str, files))
    files[2].write_bytes(b"")
    with pytest.raises(UserError, match=r"/disk 2/IM0001: cannot be read \(it is empty, 0 bytes"):
        read_volume(Series(tuple(files)))
    with pytest.raises(UserError, match=r"1 slice is missing") as caught:
        read_volume(Series(tuple(files[:2] + files[3:])))
    assert str(caught.value).startswith(f"{tmp_path}: ")


def test_an_explicit_list_is_held_to_what_a_folder_is(tmp_path, monkeypatch):
    write_series(tmp_path, SeriesInstanceUID=["1.2", "1.2", "1.3", "1.3"])
    files = tuple(sorted(tmp_path.iterdir()))
    with pytest.raises(UserError, match="holds 2 series"):
        read_volume(Series(files))
    write_series(tmp_path)
    monkeypatch.setattr("mskjax.imaging.dicom_folder.MOST_VOXELS", 4 * 35 - 1)
    with pytest.raises(UserError, match="its 4 files declare 140 voxels, more than the 139"):
        read_volume(Series(files))
