"""DICOM SEG read back: the same labels at the same places, beside the same images."""

import os
from pathlib import Path

import nibabel as nib
import numpy as np
import pydicom
import pytest
from results.made import ROWS, classic, enhanced, result_of

from mskjax.imaging.dicom_file import open_dicom
from mskjax.imaging.files import read_volume
from mskjax.results.result import Mask, Result
from mskjax.results.study import write_study

highdicom = pytest.importorskip("highdicom")
SHARED = Path(os.environ.get("MSKJAX_SHARED", Path(__file__).resolve().parents[2] / "../shared"))
SCANNER = SHARED / "data" / "scanner_files"
KINDS = {
    "classic MR": lambda folder: classic(folder / "s"),
    "Enhanced MR": lambda folder: enhanced(folder / "e.dcm"),
    "CT": lambda folder: classic(folder / "ct", "1.2.840.10008.5.1.4.1.1.2"),
}


@pytest.fixture(params=KINDS)
def files(request, tmp_path):
    return KINDS[request.param](tmp_path)


def voxels_at(places: np.ndarray, affine: np.ndarray) -> set[tuple[int, ...]]:
    """The voxels of a NIfTI at (N, 3) places in LPS mm; none lies between voxels."""
    indices = nib.affines.apply_affine(np.linalg.inv(affine), places * [-1, -1, 1])
    np.testing.assert_allclose(indices, np.rint(indices), atol=5e-3)
    return set(map(tuple, np.rint(indices).astype(int).tolist()))


def voxels_of(image: nib.Nifti1Image, value: int) -> set[tuple[int, ...]]:
    return set(map(tuple, np.argwhere(np.asanyarray(image.dataobj) == value).tolist()))


def places_in(seg: pydicom.Dataset, number: int) -> np.ndarray:
    """By the standard's own formula (PS3.3 C.7.6.2.1.1), from the attributes of each frame."""
    shared = seg.SharedFunctionalGroupsSequence[0]
    cosines = np.array(shared.PlaneOrientationSequence[0].ImageOrientationPatient, float)
    across, down = cosines.reshape(2, 3)
    between_rows, between_columns = map(float, shared.PixelMeasuresSequence[0].PixelSpacing)
    found = []
    pixels = seg.pixel_array.reshape(-1, seg.Rows, seg.Columns)
    for frame, group in zip(pixels, seg.PerFrameFunctionalGroupsSequence, strict=True):
        if group.SegmentIdentificationSequence[0].ReferencedSegmentNumber == number:
            origin = np.array(group.PlanePositionSequence[0].ImagePositionPatient, float)
            rows, columns = np.nonzero(frame)
            found.append(
                origin
                + across * (columns * between_columns)[:, None]
                + down * (rows * between_rows)[:, None]
            )
    return np.concatenate(found)


def test_each_segment_comes_back_to_the_places_of_the_label_in_the_nifti(files, tmp_path):
    write_study(tmp_path / "out", result_of(files))
    seg = pydicom.dcmread(tmp_path / "out" / "segmentation.dcm")
    labels = [item.SegmentLabel for item in seg.SegmentSequence]
    assert labels == ["vertebra", "disc", "L5/S1", "L4/L5"]  # the canal has no voxel
    for number, (name, value) in enumerate((("", 1), ("", 2), ("_levels", 1), ("_levels", 2)), 1):
        image = nib.load(tmp_path / "out" / f"a1b2c3d4{name}.nii.gz")
        expected = voxels_of(image, value)
        assert len(expected) > 20
        assert voxels_at(places_in(seg, number), image.affine) == expected
    assert seg.SegmentationType == "BINARY"
    assert all(frame.any() for frame in seg.pixel_array)


@pytest.mark.skipif(not SCANNER.is_dir(), reason=f"no scanner files at {SCANNER}")
@pytest.mark.parametrize(
    "path",
    [
        "philips_enhanced/001",
        "series_generic/generic/anatomical/002_non_isotropic",
        "shoulder_series_hitachi",
        "shoulder_t1_philips/MR2_J2KR.dcm",
    ],
)
def test_masks_of_scanners_files_come_back_to_their_places(path, tmp_path):
    grid = read_volume(SCANNER / path)
    data = (np.random.default_rng(2).random(grid.data.shape) < 1e-3).astype(np.uint8)
    data[1, 2, 0] = 2
    mask = Mask("", grid.with_data(data), {1: "humerus", 2: "scapula"})
    files = [Path(file) for file in grid.meta["files"]]
    result = Result("ab", "shoulder_bones", "t", masks=(mask,), sources={"image": files})
    write_study(tmp_path, result, keep_ids=True)
    seg = pydicom.dcmread(tmp_path / "segmentation.dcm")
    image = nib.load(tmp_path / "ab.nii.gz")
    for number in (1, 2):
        found = voxels_at(places_in(seg, number), image.affine)
        assert found == voxels_of(image, number)
    sources = {open_dicom(file).SOPInstanceUID for file in files}
    referred = seg.ReferencedSeriesSequence[0].ReferencedInstanceSequence
    assert {item.ReferencedSOPInstanceUID for item in referred} == sources


def test_highdicom_reads_it_as_a_volume_on_the_source_grid(files, tmp_path):
    write_study(tmp_path / "out", result_of(files))
    seg = highdicom.seg.segread(tmp_path / "out" / "segmentation.dcm")
    volume = seg.get_volume(segment_numbers=[2], combine_segments=True)
    image = nib.load(tmp_path / "out" / "a1b2c3d4.nii.gz")
    places = nib.affines.apply_affine(volume.affine, np.argwhere(volume.array > 0))
    assert voxels_at(places, image.affine) == voxels_of(image, 2)


def test_each_frame_refers_to_the_image_that_it_lies_on(files, tmp_path):
    write_study(tmp_path / "out", result_of(files), keep_ids=True)
    seg = pydicom.dcmread(tmp_path / "out" / "segmentation.dcm")
    sources = [open_dicom(file) for file in files]
    places = {}
    for source in sources:
        if "PerFrameFunctionalGroupsSequence" in source:
            for number, group in enumerate(source.PerFrameFunctionalGroupsSequence, 1):
                places[source.SOPInstanceUID, number] = group.PlanePositionSequence[0]
        else:
            places[source.SOPInstanceUID, 1] = source
    for group in seg.PerFrameFunctionalGroupsSequence:
        reference = group.DerivationImageSequence[0].SourceImageSequence[0]
        number = int(reference.get("ReferencedFrameNumber", 1))
        theirs = places[reference.ReferencedSOPInstanceUID, number].ImagePositionPatient
        own = group.PlanePositionSequence[0].ImagePositionPatient
        np.testing.assert_allclose(np.array(own, float), np.array(theirs, float), atol=1e-6)
    assert seg.StudyInstanceUID == sources[0].StudyInstanceUID
    assert seg.FrameOfReferenceUID == sources[0].FrameOfReferenceUID
    (series,) = seg.ReferencedSeriesSequence
    assert series.SeriesInstanceUID == sources[0].SeriesInstanceUID
    assert seg.SeriesInstanceUID != sources[0].SeriesInstanceUID


def test_structures_bear_the_codes_of_the_standard(files, tmp_path):
    write_study(tmp_path / "out", result_of(files))
    seg = pydicom.dcmread(tmp_path / "out" / "segmentation.dcm")
    types = [item.SegmentedPropertyTypeCodeSequence[0] for item in seg.SegmentSequence]
    assert [(t.CodingSchemeDesignator, t.CodeValue) for t in types] == [
        ("SCT", "51282000"),
        ("SCT", "360499006"),
        ("SCT", "715056000"),
        ("SCT", "84020006"),
    ]
    assert all(item.SegmentAlgorithmType == "AUTOMATIC" for item in seg.SegmentSequence)


def test_it_says_that_it_is_for_research(files, tmp_path):
    write_study(tmp_path / "out", result_of(files))
    seg = pydicom.dcmread(tmp_path / "out" / "segmentation.dcm")
    assert seg.ContentQualification == "RESEARCH"
    assert seg.ContentDescription == "Research use only, not a medical device"
    assert seg.SeriesDescription.startswith("RESEARCH USE ONLY")
    assert seg.Rows == ROWS
