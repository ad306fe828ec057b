"""DICOM output as a checker, an archive and a privacy officer see it."""

import dataclasses
import datetime
import gzip
import re
import shutil
import subprocess
import warnings
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.datadict import DicomDictionary
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.uid import UID
from results.made import SLICES, classic, enhanced, label_maps, result_of

from mskjax.imaging.dicom_file import open_dicom
from mskjax.imaging.files import read_volume
from mskjax.results.study import write_study

highdicom = pytest.importorskip("highdicom")
DCIODVFY = shutil.which("dciodvfy")
KINDS = {
    "classic MR": lambda folder: classic(folder / "s"),
    "Enhanced MR": lambda folder: enhanced(folder / "e.dcm"),
    "CT": lambda folder: classic(folder / "ct", "1.2.840.10008.5.1.4.1.1.2"),
}


@pytest.fixture(params=KINDS)
def files(request, tmp_path):
    return KINDS[request.param](tmp_path)


def errors_in(file: Path) -> list[str]:
    """What dciodvfy calls an error; empty texts would mean that it did not run."""
    done = subprocess.run([str(DCIODVFY), "-new", str(file)], capture_output=True, text=True)
    said = (done.stdout + done.stderr).splitlines()
    assert said
    return [line for line in said if re.match(r"\s*(Error|\*)", line)]


@pytest.mark.skipif(DCIODVFY is None, reason="dciodvfy (Debian's dicom3tools) is not installed")
@pytest.mark.parametrize("keep_ids", [False, True])
@pytest.mark.parametrize("masks", [False, True])
def test_dciodvfy_finds_no_error(files, tmp_path, keep_ids, masks):
    write_study(tmp_path / "out", result_of(files, masks=masks), keep_ids=keep_ids)
    written = sorted((tmp_path / "out").glob("*.dcm"))
    assert len(written) == 1 + masks
    assert not [line for file in written for line in errors_in(file)]


@pytest.mark.skipif(DCIODVFY is None, reason="dciodvfy (Debian's dicom3tools) is not installed")
def test_dciodvfy_would_find_an_error(files, tmp_path):
    write_study(tmp_path / "out", result_of(files), salt=b"s")
    broken = pydicom.dcmread(tmp_path / "out" / "segmentation.dcm")
    del broken.SegmentSequence
    broken.save_as(tmp_path / "broken.dcm")
    assert errors_in(tmp_path / "broken.dcm")


def both(folder: Path) -> list[pydicom.Dataset]:
    return [pydicom.dcmread(folder / name) for name in ("segmentation.dcm", "report.dcm")]


def test_by_default_patient_dates_and_uids_are_replaced(files, tmp_path):
    write_study(tmp_path / "out", result_of(files), salt=b"s")
    source = open_dicom(files[0])
    for dataset in both(tmp_path / "out"):
        assert (str(dataset.PatientName), dataset.PatientID) == ("a1b2c3d4^", "a1b2c3d4")
        for keyword in ("PatientBirthDate", "PatientSex", "StudyDate", "StudyTime", "StudyID"):
            assert not dataset[keyword].value
        assert not dataset.AccessionNumber
        assert not dataset.ReferringPhysicianName
        assert dataset.StudyInstanceUID.startswith("2.25.")
        assert UID(dataset.StudyInstanceUID).is_valid
        assert dataset.StudyInstanceUID != source.StudyInstanceUID
    seg, report = both(tmp_path / "out")
    assert seg.StudyInstanceUID == report.StudyInstanceUID


def test_one_salt_keeps_studies_of_one_frame_of_reference_together(files, tmp_path):
    result = result_of(files)
    for name, salt in (("a", b"one"), ("b", b"one"), ("c", b"two"), ("d", None)):
        write_study(tmp_path / name, result, salt=salt)
    uids = {name: both(tmp_path / name)[0].FrameOfReferenceUID for name in "abcd"}
    assert uids["a"] == uids["b"]
    assert len(set(uids.values())) == 3
    assert uids["d"] == open_dicom(files[0]).FrameOfReferenceUID


def test_the_segmentation_refers_to_the_images_that_were_read(files, tmp_path):
    (note,) = write_study(tmp_path / "out", result_of(files))
    assert "whoever has the archive" in note
    seg, report = both(tmp_path / "out")
    (series,) = seg.ReferencedSeriesSequence
    (study,) = report.CurrentRequestedProcedureEvidenceSequence
    known = {open_dicom(file).SOPInstanceUID for file in files}
    assert {i.ReferencedSOPInstanceUID for i in series.ReferencedInstanceSequence} <= known
    assert series.SeriesInstanceUID == open_dicom(files[0]).SeriesInstanceUID
    assert study.StudyInstanceUID == seg.StudyInstanceUID == open_dicom(files[0]).StudyInstanceUID


def test_kept_ids_are_those_of_the_source(files, tmp_path):
    notes = write_study(tmp_path / "out", result_of(files), keep_ids=True)
    assert notes == ()
    source = open_dicom(files[0])
    for dataset in both(tmp_path / "out"):
        for keyword in (
            "PatientName", "PatientID", "PatientBirthDate", "PatientSex", "StudyInstanceUID",
            "StudyDate", "StudyTime", "StudyID", "AccessionNumber", "ReferringPhysicianName",
        ):  # fmt: skip
            assert dataset[keyword].value == source[keyword].value, keyword


def test_kept_ids_that_make_no_sense_are_left_empty(tmp_path):
    (file,) = enhanced(tmp_path / "e.dcm")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        dataset = pydicom.dcmread(file)
        dataset.PatientBirthDate, dataset.StudyTime = "the third", "noon"
        dataset.PatientName = "Müller^Jürgen"
        dataset.SpecificCharacterSet = "ISO_IR 100"
        dataset.save_as(file)
    write_study(tmp_path / "out", result_of([file]), keep_ids=True)
    for dataset in both(tmp_path / "out"):
        assert not dataset.PatientBirthDate
        assert not dataset.StudyTime
        assert str(dataset.PatientName) == "Müller^Jürgen"


def test_a_long_name_of_a_study_with_odd_letters_stands_for_the_patient(tmp_path):
    result = result_of(classic(tmp_path / "in"), study="Ürban\\a^b=" + 80 * "x", masks=False)
    write_study(tmp_path / "out", result)
    report = pydicom.dcmread(tmp_path / "out" / "report.dcm")
    assert report.PatientID == "Ürban_a_b_" + 53 * "x"
    assert str(report.PatientName) == f"{report.PatientID}^"


def test_hashed_references_are_said_to_fit_no_viewer(files, tmp_path):
    (note,) = write_study(tmp_path / "out", result_of(files), salt=b"s")
    assert "hashes of their UIDs" in note


# A value for each kind of text, so different that it is found; n is unique to the attribute.
PLANTED = {
    "AE": "PLANT{n}", "AS": "057Y", "CS": "PLANT{n}", "DS": "7{n:04d}.25", "IS": "77{n:05d}",
    "LO": "planted LO {n}", "LT": "planted LT {n}", "PN": "Planted{n}^Person", "SH": "plantSH{n}",
    "ST": "planted ST {n}", "UC": "planted UC {n}", "UI": "1.2.777.{n}.778",
    "UR": "http://planted/{n}", "UT": "planted UT {n}",
}  # fmt: skip
# What the pixels need; and "O" for the sex would be found anywhere.
LEFT = {
    "SOPClassUID", "Modality", "SpecificCharacterSet", "PhotometricInterpretation", "PatientSex",
    "ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "SliceThickness",
    "SpacingBetweenSlices", "NumberOfFrames", "RescaleSlope", "RescaleIntercept",
    "PresentationLUTShape", "ModalityLUTSequence", "SharedFunctionalGroupsSequence",
    "PerFrameFunctionalGroupsSequence",
}  # fmt: skip


def value_for(vr: str, number: int) -> str:
    day = datetime.date(1800, 1, 1) + datetime.timedelta(number)
    dates = {"DA": f"{day:%Y%m%d}", "DT": f"{day:%Y%m%d}0102", "TM": f"010203.{number:05d}"}
    return dates[vr] if vr in dates else PLANTED[vr].format(n=number)


def plant(dataset: Dataset) -> set[str]:
    """Puts a value of its own into every attribute of DICOM's dictionary that takes text.

    So those of PS3.15 table E.1-1 are among them, and any that a later edition adds.
    """
    values = set()
    entries = sorted(DicomDictionary.items())
    for number, (tag, (vr, _, _, _, keyword)) in enumerate(entries):
        if not 0x0008 <= tag >> 16 < 0x5000 or keyword in LEFT or not keyword:
            continue
        if vr == "SQ" and keyword not in dataset:
            item = Dataset()
            item.PatientName = f"Nested{number}^Person"
            dataset.add_new(tag, vr, [item])
            values.add(item.PatientName.family_name)
        elif vr in {*PLANTED, "DA", "DT", "TM"}:
            dataset.add_new(tag, vr, value_for(vr, number))
            values.add(value_for(vr, number))
    private = dataset.private_block(0x0019, "PLANTED PRIVATE", create=True)
    private.add_new(0x01, "LO", "planted in private")
    return values | {"PLANTED PRIVATE", "planted in private"}


def is_in(value: str, content: bytes) -> bool:
    """Whether a value stands in a file, numbers not as a part of longer ones."""
    text = value.encode()
    if text not in content:
        return False
    return bool(re.search(rb"(?<![0-9])" + re.escape(text) + rb"(?![0-9])", content))


@pytest.fixture
def planted(files, tmp_path):
    """What was found in files of a patient, whose values stand in headers and names."""
    folder = tmp_path / "Rossi_Maria_19610203"
    folder.mkdir()
    values = {"Rossi", "19610203"}
    moved = []
    for number, file in enumerate(files):
        dataset = pydicom.dcmread(file)
        values |= plant(dataset)
        dataset.SOPInstanceUID = f"1.2.777.9.{number}"
        values.add(dataset.SOPInstanceUID)
        moved.append(folder / f"Rossi_{number}.dcm")
        dataset.save_as(moved[-1], enforce_file_format=True)
    return dataclasses.replace(result_of(files), sources={"image": moved}), values


def test_nothing_that_identifies_the_patient_is_in_any_byte(planted, tmp_path):
    result, values = planted
    assert len(values) > 2000
    notes = write_study(tmp_path / "out", result, salt=b"s")
    written = {p.name: p.read_bytes() for p in (tmp_path / "out").iterdir()}
    assert {"segmentation.dcm", "report.dcm", "result.json"} <= set(written)
    packed = {name: gzip.decompress(c) for name, c in written.items() if name.endswith(".gz")}
    contents = [*written.items(), *packed.items(), ("notes", "\n".join(notes).encode())]
    assert not [(name, v) for name, content in contents for v in values if is_in(v, content)]
    assert not [(name, v) for name in written for v in values if v in name]


def test_the_search_would_find_what_is_kept(planted, tmp_path):
    result, values = planted
    write_study(tmp_path / "out", result, keep_ids=True)
    content = (tmp_path / "out" / "report.dcm").read_bytes()
    header = pydicom.dcmread(result.sources["image"][0])
    for keyword in ("PatientID", "StudyDate", "AccessionNumber", "StudyInstanceUID"):
        assert str(header[keyword].value) in values
        assert is_in(str(header[keyword].value), content)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.7"}, "not MR or CT images but Secondary Capture"),
        ({"SOPClassUID": "1.3.46.670589.11.0.0.12.1"}, "not MR or CT images"),
        ({"StudyInstanceUID": None}, "they have no StudyInstanceUID"),
        ({"SOPInstanceUID": None}, "they have no SOPInstanceUID"),
        ({"SeriesInstanceUID": "{number}"}, "they are of several series"),
        ({"Rows": None}, "they are no images"),
    ],
)
def test_images_that_nothing_can_refer_to_are_a_note(tmp_path, change, why):
    files = classic(tmp_path / "in")
    result = result_of(files)
    for number, file in enumerate(files):
        dataset = pydicom.dcmread(file)
        for keyword, value in change.items():
            setattr(dataset, keyword, value and value.format(number=f"1.2.3.{number}"))
        dataset.save_as(file)
    (note,) = write_study(tmp_path / "out", result)
    assert note.startswith("no DICOM file refers to the images of image: ")
    assert why in note
    assert not list((tmp_path / "out").glob("*.dcm"))
    assert (tmp_path / "out" / "result.json").exists()


def test_of_several_echoes_the_one_that_was_read_is_referred_to(tmp_path):
    result = result_of(enhanced(tmp_path / "one.dcm"))
    (file,) = enhanced(tmp_path / "two.dcm", echoes=2)
    read = tuple(range(SLICES, 2 * SLICES))
    write_study(tmp_path / "a", result, salt=b"s")
    both_echoes = dataclasses.replace(
        result, sources={"image": [file]}, frames={"image": {file: read}}
    )
    write_study(tmp_path / "b", both_echoes, salt=b"s")
    (first, _), (second, _) = both(tmp_path / "a"), both(tmp_path / "b")
    np.testing.assert_array_equal(first.pixel_array, second.pixel_array)

    def frames_of(seg):
        groups = seg.PerFrameFunctionalGroupsSequence
        images = [g.DerivationImageSequence[0].SourceImageSequence[0] for g in groups]
        return np.array([image.ReferencedFrameNumber for image in images])

    np.testing.assert_array_equal(frames_of(second), frames_of(first) + SLICES)
    assert not DCIODVFY or not errors_in(tmp_path / "b" / "segmentation.dcm")


def test_what_is_no_image_among_the_files_is_not_referred_to(tmp_path):
    files = classic(tmp_path / "in")
    write_study(tmp_path / "first", result_of(files), keep_ids=True)
    mixed = dataclasses.replace(
        result_of(files), sources={"image": [tmp_path / "first" / "report.dcm", *files]}
    )
    write_study(tmp_path / "second", mixed, keep_ids=True)
    (first, _), (second, _) = both(tmp_path / "first"), both(tmp_path / "second")
    assert first.ReferencedSeriesSequence == second.ReferencedSeriesSequence


@pytest.mark.parametrize(
    ("ratio", "mark"), [(["4.5"], "01"), (["4.5", "2"], "00"), (["Rossi"], "00")]
)
def test_loss_in_the_source_is_marked_where_it_makes_sense(tmp_path, ratio, mark):
    (file,) = enhanced(tmp_path / "e.dcm")
    result = result_of([file])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        dataset = pydicom.dcmread(file)
        dataset.LossyImageCompression = "01"
        dataset.LossyImageCompressionMethod = "ISO_10918_1"
        dataset["LossyImageCompressionRatio"] = DataElement(0x00282112, "LO", ratio)
        dataset.save_as(file)
    write_study(tmp_path / "out", result)
    seg, _ = both(tmp_path / "out")
    assert seg.LossyImageCompression == mark
    assert ("LossyImageCompressionRatio" in seg) == (mark == "01")
    assert not DCIODVFY or not errors_in(tmp_path / "out" / "segmentation.dcm")


def test_a_source_without_frame_of_reference_is_referred_to_all_the_same(tmp_path):
    files = classic(tmp_path / "in")
    for file in files:
        dataset = pydicom.dcmread(file)
        del dataset.FrameOfReferenceUID
        dataset.save_as(file)
    write_study(tmp_path / "out", result_of(files))
    seg, report = both(tmp_path / "out")
    assert UID(seg.FrameOfReferenceUID).is_valid
    assert report.StudyInstanceUID == seg.StudyInstanceUID


def test_masks_of_another_grid_are_left_out_with_a_note(tmp_path):
    files = classic(tmp_path / "in")
    result = result_of(files)
    grid = read_volume(files[0].parent)
    moved = grid.affine.copy()
    moved[:3, 3] += 2
    elsewhere = dataclasses.replace(grid, affine=moved)
    result = dataclasses.replace(result, masks=label_maps(elsewhere))
    notes = write_study(tmp_path / "out", result)
    assert "no segmentation.dcm: the masks are not on the grid of the DICOM images." in notes
    assert not (tmp_path / "out" / "segmentation.dcm").exists()
    assert (tmp_path / "out" / "report.dcm").exists()


def test_a_mask_turned_to_other_axes_lands_on_the_same_places(tmp_path):
    files = classic(tmp_path / "in")
    result = result_of(files)
    turned = []
    for mask in result.masks:
        flip = np.diag([1.0, 1, -1, 1])
        flip[2, 3] = mask.volume.data.shape[2] - 1
        permute = np.eye(4)[:, [2, 0, 1, 3]]
        data = mask.volume.data[:, :, ::-1].transpose(2, 0, 1).copy()
        volume = dataclasses.replace(
            mask.volume, data=data, affine=mask.volume.affine @ flip @ permute
        )
        turned.append(dataclasses.replace(mask, volume=volume))
    write_study(tmp_path / "a", result, salt=b"s")
    write_study(tmp_path / "b", dataclasses.replace(result, masks=tuple(turned)), salt=b"s")
    first, second = (both(tmp_path / name)[0] for name in "ab")
    np.testing.assert_array_equal(first.pixel_array, second.pixel_array)
