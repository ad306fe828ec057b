"""Paths to studies: what is found, chosen, refused and skipped, and in which words."""

import csv
import json
import math
import os
import shutil
import socket
import tarfile
from pathlib import Path

import nibabel as nib
import numpy as np
import pydicom
import pytest
from imaging.dicom_writer import header
from inputs.dicom_tree import LOCALISER, STIR, T1, T2, uid, write_enhanced, write_images
from PIL import Image

from mskjax.data.cohorts import builder_class
from mskjax.errors import UserError
from mskjax.imaging.files import read_volume
from mskjax.imaging.series import Series
from mskjax.inputs import walk
from mskjax.inputs.pseudonyms import Pseudonyms
from mskjax.inputs.studies import find_studies, write_names
from mskjax.inputs.study import scrub

SHARED = Path(os.environ.get("MSKJAX_SHARED", Path(__file__).resolve().parents[2] / "../shared"))
SCANNER = SHARED / "data" / "scanner_files"
SPIDER = SHARED / "data" / "spider_t2space"
real = pytest.mark.skipif(not SCANNER.is_dir(), reason=f"no scanner files at {SCANNER}")

DISCS = builder_class("disc_degeneration")
FRACTURE = builder_class("vertebral_fracture")
MODIC = builder_class("modic_changes")
FATTY = builder_class("fatty_infiltration")
BONES = builder_class("shoulder_bones")
NAMES = Pseudonyms(b"k" * 32)


def found(path, builder, **how):
    return find_studies([path], builder.wanted, names=NAMES, **how)


def the_study(path, builder, **how):
    result = found(path, builder, **how)
    assert not result.refused, result.refused[0].why
    (study,) = result.studies
    return study


def the_refusal(path, builder, **how):
    result = found(path, builder, **how)
    assert not result.studies
    (refused,) = result.refused
    return refused.why


def files_of(study, channel):
    series = study.files[channel]
    assert isinstance(series, Series)
    return set(series.files)


@pytest.fixture
def spine(tmp_path):
    """A lumbar examination as it is exported: all files in one folder, without extension."""
    folder = tmp_path / "MUELLER_HANS" / "DICOM"
    made = {
        "localiser": [
            *write_images(folder, "loc", plane="sagittal", slices=3, number=1, **LOCALISER),
            *write_images(folder, "loc", plane="coronal", slices=3, number=1, **LOCALISER),
            *write_images(folder, "loc", plane="axial", slices=3, number=1, **LOCALISER),
        ],
        "t2": write_images(folder, "t2", number=2, **T2),
        "t1": write_images(folder, "t1", number=3, **T1),
        "stir": write_images(folder, "stir", number=4, **STIR),
        "axial": write_images(folder, "ax", number=5, plane="axial", **T2),
        "subtraction": write_images(
            folder, "sub", number=6, ImageType=["DERIVED", "PRIMARY", "M", "SUB"], **T1
        ),
    }
    return folder.parent, made


def test_the_sequence_is_found_among_those_of_an_examination(spine):
    folder, made = spine
    study = the_study(folder, DISCS)
    assert files_of(study, "image") == set(made["t2"])
    said = study.chosen["image"]
    # The localiser's three planes are three of eight.
    assert said == "series 4 of 8: sagittal T2, TE 101 ms, TR 3600 ms, 5 slices"
    assert study.remarks == ()
    (kept,) = find_studies([folder], DISCS.wanted).studies
    assert kept.chosen["image"] == f'{said}, "t2_tse_sag"'
    images = study.read(DISCS.read_images)
    expected = read_volume(Series(tuple(made["t2"])))
    assert images.part["image"].shape == (5, 24, 20)
    np.testing.assert_array_equal(images.stored.data, expected.data)


@pytest.mark.parametrize("builder", [FRACTURE, MODIC])
def test_t1_and_t2_of_one_study_are_a_pair(spine, builder):
    folder, made = spine
    study = the_study(folder, builder)
    assert list(study.files) == list(builder.channels)
    assert {c: files_of(study, c) for c in study.files} == {
        "t1": set(made["t1"]), "t2": set(made["t2"]),
    }  # fmt: skip
    part = study.read(builder.read_images).part
    assert part["t1"].shape == part["t2"].shape == (5, 24, 20)


def test_what_may_be_left_out_is_left_out_with_a_word(spine):
    folder, made = spine
    for file in made["t1"]:
        file.unlink()
    study = the_study(folder, MODIC)
    assert set(study.files) == {"t2"}
    assert study.remarks == ("has no t1, which may be left out",)
    assert "no series shows what t1 must (sagittal T1)" in the_refusal(folder, FRACTURE)


def test_the_second_best_is_taken_with_a_word_and_a_localiser_never(spine):
    folder, made = spine
    for file in made["t2"]:
        file.unlink()
    study = the_study(folder, DISCS)
    assert files_of(study, "image") == set(made["stir"])
    assert study.remarks == ("image is STIR; it is taken because the study has nothing better",)
    for file in made["stir"]:
        file.unlink()
    why = the_refusal(folder, DISCS)
    assert why.startswith("no series shows what image must (sagittal T2); choose one with --series")
    assert "1 sagittal, localiser, TE 5 ms, TR 20 ms, 3 slices; 2 " in why
    assert "axial T2, TE 101 ms, TR 3600 ms, 5 slices" in why


def test_two_that_are_equally_good_are_asked_about(spine):
    folder, made = spine
    again = write_images(folder / "x", "t2 again", number=7, **T2 | {"EchoTime": 99})
    assert the_refusal(folder, DISCS) == (
        "several series serve equally well as image; say which with --series=NUMBER: 4 sagittal T2,"
        " TE 101 ms, TR 3600 ms, 5 slices; 9 sagittal T2, TE 99 ms, TR 3600 ms, 5 slices."
    )
    assert files_of(the_study(folder, DISCS, series="9"), "image") == set(again)
    by_uid = the_study(folder, DISCS, series=uid("studyt2 again"))
    assert files_of(by_uid, "image") == set(again)
    assert by_uid.remarks == ("image was chosen by hand",)
    assert "say which with --series=t1=NUMBER,t2=NUMBER: 4 " in the_refusal(folder, FRACTURE)
    pair = the_study(folder, FRACTURE, series="t2=4")
    assert files_of(pair, "t2") == set(made["t2"])
    assert files_of(pair, "t1") == set(made["t1"])
    assert "the number 12, but there are 9" in the_refusal(folder, DISCS, series="12")


@pytest.mark.parametrize("text", ["0", "t3=1", "t2", "t1=2,t1=3", "t1=", "1.x", "t1=2;t2=3", "-1"])
def test_a_series_that_makes_no_sense_is_refused_at_once(spine, text):
    with pytest.raises(UserError, match=r"--series is .*; write t1=NUMBER,t2=NUMBER, with the"):
        found(spine[0], FRACTURE, series=text)


def test_a_uid_is_of_its_study_alone(spine, tmp_path):
    folder, _ = spine
    write_images(folder, "t2 again", number=7, **T2)
    write_images(folder, "t2", study="other", patient="B", **T2)
    result = found(folder, DISCS, series=uid("studyt2"))
    assert [s.chosen["image"][:8] for s in result.studies] == ["series 4", "series 1"][
        :: 1 if result.studies[0].identity.patient_id == "PAT-4711" else -1
    ]
    by_hand = {s.identity.patient_id: s.remarks for s in result.studies}
    assert by_hand == {"PAT-4711": ("image was chosen by hand",), "B": ()}
    with pytest.raises(UserError, match="--series gives a UID that no series has"):
        found(folder, DISCS, series="1.2.3.4")


def test_several_patients_of_one_folder_are_several_studies(tmp_path):
    for patient in "abc":
        for number, (name, kind) in enumerate({"t1": T1, "t2": T2}.items()):
            write_images(
                tmp_path / "CD1", name, study=f"s{patient}", patient=patient, number=number, **kind
            )
    # One UID under two patients, as careless exports have it, is two studies all the same.
    write_images(tmp_path / "CD1", "t2", study="sa", patient="z", number=1, **T2)
    write_images(tmp_path / "CD1", "t1", study="sa", patient="z", number=2, **T1)
    result = found(tmp_path, FRACTURE)
    assert sorted(s.identity.patient_id for s in result.studies) == list("abcz")
    assert len({s.name for s in result.studies}) == 4
    assert [s.name for s in result.studies] == sorted(s.name for s in result.studies)
    assert all(name.startswith("study-") for name in (s.name for s in result.studies))
    kept = find_studies([tmp_path], FRACTURE.wanted)
    assert [s.name for s in kept.studies] == list("abcz")


def test_names_do_not_depend_on_where_files_lie(spine, tmp_path):
    folder, _ = spine
    name = the_study(folder, DISCS).name
    shutil.move(folder, tmp_path / "elsewhere")
    assert the_study(tmp_path / "elsewhere", DISCS).name == name
    other = find_studies([tmp_path / "elsewhere"], DISCS.wanted, names=Pseudonyms(b"l" * 32))
    assert other.studies[0].name != name


def test_copies_are_read_once(spine):
    folder, _ = spine
    shutil.copytree(folder / "DICOM", folder / "DICOM copy")
    result = found(folder, DISCS)
    assert len(result.studies) == 1
    assert len(result.studies[0].files["image"].files) == 5
    assert "34 files or folders are not read (a copy of another file)." in result.notes
    result.studies[0].read(DISCS.read_images)


def test_a_missing_slice_is_a_matter_of_reading(spine):
    folder, made = spine
    made["t2"][2].unlink()
    study = the_study(folder, DISCS)
    with pytest.raises(UserError, match="1 slice is missing, the first after slice 2") as caught:
        study.read(DISCS.read_images)
    assert scrub(str(caught.value), study).startswith("its folder: 1 slice is missing")


@pytest.mark.parametrize("content", [b"", b"\xff" * 900, None])
def test_a_file_that_may_be_a_slice_stops_the_study_that_it_lies_with(spine, content):
    folder, made = spine
    bad = made["t2"][0]
    bad.write_bytes(bad.read_bytes()[:300] if content is None else content)
    why = the_refusal(folder, DISCS)
    assert why.startswith("1 file beside its images cannot be read and may be slices (file ")
    assert "it is empty, 0 bytes" in why or "known kind" in why or "cut short" in why
    assert bad.name not in why
    kept = find_studies([folder], DISCS.wanted).refused[0].why
    assert bad.name in kept
    # Where another study lies in the folder too, nobody knows whose it is: said, not refused.
    write_images(bad.parent, "t2", study="other", patient="B", **T2)
    result = found(folder, DISCS)
    assert len(result.studies) == 2
    for study in result.studies:
        assert study.remarks[-1].startswith("beside the images of image 1 that cannot be read may")
    assert any("it cannot be read, and may be an image" in line for line in result.notes)


def test_what_has_no_place_stops_nothing(spine):
    """Several frames that nothing places, as pictures have them, are a series that is not taken."""
    folder, made = spine
    dataset = pydicom.dcmread(made["t2"][0])
    dataset.NumberOfFrames, dataset.PixelData = 3, dataset.PixelData * 3
    dataset.SeriesInstanceUID, dataset.SOPInstanceUID = uid("cine"), uid("cine 1")
    with pytest.warns(UserWarning, match="exceeds the maximum length"):
        dataset.SeriesDescription = "t2 dixon " * 3000
    dataset.save_as(folder / "DICOM" / "cine")
    study = the_study(folder, DISCS)
    assert files_of(study, "image") == set(made["t2"])
    assert " of 9: sagittal T2" in study.chosen["image"]
    why = the_refusal(folder, DISCS, series="40")
    assert "T2, without a place, TE 101 ms, TR 3600 ms, 1 slice" in why


def test_what_lies_about_in_an_export_is_counted_with_its_kind(spine):
    folder, _ = spine
    directory = header(1, 1, "1.2.840.10008.1.3.10")
    report = header(1, 1, "1.2.840.10008.5.1.4.1.1.88.11")
    for dataset, name in ((directory, "DICOMDIR"), (report, "SR0001")):
        for keyword in ("Rows", "Columns", "BitsAllocated", "BitsStored", "HighBit"):
            delattr(dataset, keyword)
        dataset.PatientName = "Mueller^Hans"
        dataset.save_as(folder / "DICOM" / name, enforce_file_format=True)
    (folder / "autorun.inf").write_text("[autorun]")
    result = found(folder, DISCS)
    assert len(result.studies) == 1
    assert result.notes == (
        "1 file or folder is not read (text).",
        "1 file or folder is not read (DICOM, Media Storage Directory Storage).",
        "1 file or folder is not read (DICOM, Basic Text SR Storage).",
    )


def test_dixon_images_of_one_series_are_told_apart(tmp_path):
    kinds = {"W": "WATER", "F": "FAT", "IN_PHASE": "IN", "OPP_PHASE": "OPP"}
    made = {
        kind: write_images(tmp_path, "dixon", ImageType=["DERIVED", "PRIMARY", "DIXON", kind], **T2)
        for kind in kinds
    }
    study = the_study(tmp_path, DISCS)
    assert files_of(study, "image") == set(made["IN_PHASE"])
    assert " of 4: sagittal T2, TE" in study.chosen["image"]
    study.read(DISCS.read_images)
    for file in (*made["IN_PHASE"], *made["OPP_PHASE"]):
        file.unlink()
    study = the_study(tmp_path, DISCS)
    assert files_of(study, "image") == set(made["W"])
    assert study.remarks[0].startswith("image is water image; it is taken because")


def test_stacks_of_an_enhanced_file_are_told_apart(tmp_path):
    kinds = [["DERIVED", "PRIMARY", "DIXON", kind] for kind in ("WATER", "IN_PHASE")]
    _, _, inphase = write_enhanced(
        tmp_path / "scan",
        "e",
        [("axial", 3, {}), *(("sagittal", 4, {"FrameType": kind}) for kind in kinds)],
    )
    study = the_study(tmp_path, DISCS)
    series = study.files["image"]
    assert series.frames == {tmp_path / "scan": inphase}
    assert study.chosen["image"] == "series 1 of 3: sagittal T2, TE 100 ms, TR 3000 ms, 4 slices"
    stored = study.read(DISCS.read_images).stored
    pixels = pydicom.dcmread(tmp_path / "scan").pixel_array
    np.testing.assert_array_equal(stored.data.transpose(2, 1, 0), pixels[list(inphase)])


def test_a_y_view_is_told_from_a_coronal_oblique(tmp_path):
    t1 = {**T1, "SeriesDescription": "T1 TSE"}
    y_view = write_images(tmp_path, "a", plane="y-view", slices=1, number=1, **t1)
    write_images(tmp_path, "b", plane="coronal oblique", slices=1, number=2, **t1)
    write_images(tmp_path, "c", plane="axial", slices=1, number=3, **t1)
    why = the_refusal(tmp_path, FATTY)
    assert "1 coronal oblique" not in why
    assert "several series serve equally well as image" in why  # 40 and 50 degrees: nobody knows
    shutil.rmtree(tmp_path)
    sag = {**T1, "SeriesDescription": "t1_tse_sag obl"}
    cor = {**T1, "SeriesDescription": "t1_tse_cor obl"}
    y_view = write_images(tmp_path, "a", plane="y-view", slices=1, number=1, **sag)
    write_images(tmp_path, "b", plane="coronal oblique", slices=1, number=2, **cor)
    study = the_study(tmp_path, FATTY)
    assert files_of(study, "image") == set(y_view)
    assert study.chosen["image"].startswith("series 1 of 2: sagittal oblique T1, TE 11 ms")
    study.read(FATTY.read_images)


def test_lumbar_and_cervical_pairs_are_not_mixed(tmp_path):
    low, high = (0, 0, 0), (0, 0, 300)
    for number, (name, origin) in enumerate({"lumbar": low, "cervical": high}.items()):
        write_images(tmp_path, f"{name} t2", origin=origin, number=2 * number, **T2)
        if name == "lumbar":
            write_images(tmp_path, f"{name} t1", origin=origin, number=2 * number + 1, **T1)
    pair = the_study(tmp_path, FRACTURE)
    assert pair.chosen["t2"].startswith("series 1 of 3")
    assert "several series" in the_refusal(tmp_path, DISCS)


def write_nifti(path, seed=0, shape=(5, 24, 20)):
    path.parent.mkdir(parents=True, exist_ok=True)
    data = np.random.default_rng(seed).integers(0, 900, shape).astype(np.int16)
    image = nib.Nifti1Image(data, np.diag([-4.0, -0.7, -0.7, 1]))
    image.header.set_xyzt_units("mm")
    nib.save(image, path)
    return path


def test_files_of_a_folder_are_studies_by_name(tmp_path):
    for seed, name in enumerate(("a_t1", "a_t2", "b_t2", "b_t1", "c_T2w", "c_T1w")):
        write_nifti(tmp_path / f"{name}.nii.gz", seed)
    write_nifti(tmp_path / "a_seg.nii.gz")
    (tmp_path / "a_t1.json").write_text(json.dumps({"EchoTime": 0.01}))
    result = found(tmp_path, FRACTURE)
    assert len(result.studies) == 3
    for study in result.studies:
        assert study.files["t1"].name[0] == study.files["t2"].name[0]
        assert study.read(FRACTURE.read_images).part["t1"].shape == (5, 20, 24)
    assert result.notes == (
        "1 file or folder is not read (text).",
        "1 file or folder is not read (a mask, by its name).",
    )
    alone = found(tmp_path, DISCS)
    assert len(alone.studies) == 3
    assert {s.files["image"].name[2:4].lower() for s in alone.studies} == {"t2"}
    assert any("another sequence than is needed, by its name" in line for line in alone.notes)
    write_nifti(tmp_path / "d_t1.nii.gz", 7)
    write_nifti(tmp_path / "e.nii.gz", 8)
    why = sorted(refused.why for refused in found(tmp_path, FRACTURE).refused)
    assert why[0].startswith("has no t2, only t1; end names in _t1 and _t2 with the same beginning")
    assert why[1].startswith("no name says which channel a file is; end names in _t1 and _t2")


def test_a_name_of_a_file_is_not_its_study(tmp_path):
    first = write_nifti(tmp_path / "MUELLER.nii.gz", 1)
    name = the_study(first, DISCS).name
    first.rename(tmp_path / "X.nii.gz")
    assert the_study(tmp_path / "X.nii.gz", DISCS).name == name
    write_nifti(tmp_path / "other.nii.gz", 2)
    shutil.copy(tmp_path / "X.nii.gz", tmp_path / "Y.nii.gz")
    names = [s.name for s in found(tmp_path, DISCS).studies]
    assert len(set(names)) == 3
    assert {name, f"{name}-2"} < set(names)
    assert [s.name for s in find_studies([tmp_path], DISCS.wanted).studies] == ["X", "Y", "other"]


def test_pngs_take_their_pixel_size(tmp_path):
    for name in ("a", "b"):
        image = Image.fromarray(np.arange(480, dtype=np.uint8).reshape(24, 20))
        image.save(tmp_path / f"{name}.png")
    result = found(tmp_path, DISCS, pixel_mm=0.5)
    assert len(result.studies) == 2
    images = result.studies[0].read(DISCS.read_images)
    np.testing.assert_allclose(images.volume.spacing[1:], 0.5)
    assert math.isnan(found(tmp_path, DISCS).studies[0].pixel_mm)
    with pytest.raises(UserError, match="a PNG, which says no place in the patient"):
        found(tmp_path, BONES)


def test_pictures_among_dicom_images_are_no_studies(spine):
    folder, _ = spine
    Image.fromarray(np.zeros((4, 4), np.uint8)).save(folder / "DICOM" / "key.png")
    (folder / "DICOM" / "report.pdf").write_bytes(b"%PDF-1.4 MUELLER")
    result = found(folder, DISCS)
    assert len(result.studies) == 1
    assert result.notes == (
        "1 file or folder is not read (a PDF).",
        "1 file or folder is not read (an image of another format among DICOM images).",
    )
    kept = find_studies([folder], DISCS.wanted).notes
    assert "report.pdf" in kept[0]


def test_a_table_says_everything(spine, tmp_path):
    _, made = spine
    write_nifti(tmp_path / "b.nii.gz")
    t2 = tmp_path / "t2 of a"
    t2.mkdir()
    for file in made["t2"]:
        file.rename(t2 / file.name)
    Image.fromarray(np.zeros((24, 20), np.uint8)).save(tmp_path / "c.png")
    table = tmp_path / "list.csv"
    table.write_text(
        "study,image,pixel_mm\nMUELLER,t2 of a,\nb,b.nii.gz,\nc,c.png,0.4\nd,d.nii.gz,\ne,,\n"
        "b,b.nii.gz,\nf,c.png,x\n"
    )
    result = found(table, DISCS)
    assert len(result.studies) == 3
    assert {s.identity.own_name for s in result.studies} == {"MUELLER", "b", "c"}
    assert sorted(refused.why for refused in result.refused) == [
        "row 4 has a image that does not exist; check the path.",
        "row 5 has no image; fill in its path.",
        "row 6 is the study of row 2; give every study its own name.",
        "row 7 has a pixel_mm that is no number from 0.05 to 20.",
    ]
    assert len({study.name for study in (*result.studies, *result.refused)}) == 7
    assert not any("-" in study.name[6:] for study in result.refused)
    by_name = {s.identity.own_name: s for s in result.studies}
    assert by_name["MUELLER"].read(DISCS.read_images).part["image"].shape == (5, 24, 20)
    assert by_name["c"].pixel_mm == 0.4
    # A study has its name however it is given.
    assert by_name["MUELLER"].name == the_study(t2, DISCS).name
    table.write_text("study;image\na;b.nii.gz\n")
    assert found(table, DISCS).notes == (
        "--input, the table, columns are separated by semicolons.",
    )
    table.write_text("study,picture\na,b.nii.gz\n")
    with pytest.raises(UserError, match=r"--input, the table, lacks the column image") as caught:
        found(table, DISCS)
    assert str(tmp_path) not in str(caught.value)
    with pytest.raises(UserError, match="list.csv lacks the column"):
        find_studies([table], DISCS.wanted)


def test_the_slice_of_a_table_is_that_of_its_row(tmp_path):
    write_images(tmp_path / "s", "a", plane="y-view", **T1)
    (tmp_path / "list.csv").write_text("study,image,slice\na,s,2\nb,s,\n")
    result = found(tmp_path / "list.csv", FATTY, slice_index=1)
    assert {s.identity.own_name: s.slice_index for s in result.studies} == {"a": 2, "b": 1}
    for study in result.studies:
        assert study.read(FATTY.read_images).part["image"].shape[0] == 1


def test_nothing_to_read_is_an_error_that_names_nothing(tmp_path):
    folder = tmp_path / "MUELLER"
    folder.mkdir()
    with pytest.raises(UserError, match="--input holds no image .* It holds no file"):
        found(folder, DISCS)
    (folder / "MUELLER.txt").write_text("x")
    with pytest.raises(UserError, match=r"1 file or folder is not read \(text\)") as caught:
        found(folder, DISCS)
    assert "MUELLER" not in str(caught.value)
    with pytest.raises(UserError, match="--input 2 of 2 cannot be opened") as caught:
        find_studies([folder, folder / "HANS"], DISCS.wanted, names=NAMES)
    assert "MUELLER" not in str(caught.value)


def test_archives_are_refused_in_a_sentence(tmp_path, spine):
    folder, _ = spine
    with tarfile.open(tmp_path / "all.tar", "w") as archive:
        archive.add(folder, "x")
    shutil.make_archive(str(tmp_path / "all"), "zip", folder)
    shutil.make_archive(str(tmp_path / "other"), "gztar", folder)
    (tmp_path / "noname").write_bytes((tmp_path / "all.tar").read_bytes())
    for name in ("all.tar", "all.zip", "other.tar.gz", "noname"):
        with pytest.raises(UserError, match="archives are not opened; unpack it and give the fold"):
            found(tmp_path / name, DISCS)
    result = found(tmp_path, DISCS)
    assert len(result.studies) == 1
    assert f"4 files or folders are not read ({walk.ARCHIVE})." in result.notes


def test_links_pipes_and_sockets_are_neither_followed_nor_opened(spine, tmp_path):
    folder, made = spine
    inside = folder / "DICOM"
    secret = write_images(tmp_path / "secret", "t2", study="secret", **T2)
    (inside / "up").symlink_to(folder)
    (inside / "out").symlink_to(tmp_path / "secret")
    (inside / "file").symlink_to(secret[0])
    (inside / "gone").symlink_to(tmp_path / "nothing")
    (inside / "tty").symlink_to("/dev/zero")
    os.mkfifo(inside / "pipe")
    server = socket.socket(socket.AF_UNIX)
    here = os.open(inside, os.O_RDONLY)
    server.bind(f"/proc/self/fd/{here}/s")
    os.close(here)
    result = found(folder, DISCS)
    server.close()
    assert len(result.studies) == 1
    assert files_of(result.studies[0], "image") == set(made["t2"])
    assert sorted(result.notes) == [
        "2 files or folders are not read (no regular file, but a pipe, socket or device).",
        "5 files or folders are not read (a link, which is not followed; give what it leads to).",
    ]
    # What the user names may be a link.
    (tmp_path / "link").symlink_to(folder)
    assert the_study(tmp_path / "link", DISCS).name == result.studies[0].name
    with pytest.raises(UserError, match="--input is neither a file nor a folder"):
        found(inside / "pipe", DISCS)


def test_odd_names_are_read_and_shown_without_their_controls(tmp_path):
    folder = tmp_path / "a\nb\x1b[31m"
    write_nifti(folder / "x\r\ny.nii.gz")
    (folder / "k\x07.txt").write_text("x")
    result = find_studies([tmp_path], DISCS.wanted)
    assert result.studies[0].name == "x_y"
    assert "a\\nb\\x1b[31m/k\\x07.txt" in result.notes[0]
    said = scrub(f"{folder}: bad", result.studies[0], keep_ids=True)
    assert said == f"{tmp_path}/a\\nb\\x1b[31m: bad"
    assert scrub(f"{folder}: bad", result.studies[0]) == "its folder: bad"


@pytest.mark.skipif(os.geteuid() == 0, reason="the superuser may open everything")
def test_a_folder_that_may_not_be_opened_is_said(spine):
    folder, _ = spine
    (folder / "closed").mkdir(mode=0)
    result = found(folder, DISCS)
    assert any("a folder that cannot be opened" in line for line in result.notes)


def test_there_is_an_end_to_files_and_folders(spine, tmp_path, monkeypatch):
    folder, _ = spine
    deep = folder
    for _ in range(walk.MOST_DEEP + 2):
        deep /= "d"
    write_images(deep, "t2", study="deep", **T2)
    result = found(folder, DISCS)
    assert len(result.studies) == 1
    assert "1 file or folder is not read (a folder more than 40 folders deep)." in result.notes
    monkeypatch.setattr(walk, "MOST_FILES", 20)
    with pytest.raises(UserError, match="hold more than 20 files; give fewer studies at a time"):
        found(folder, DISCS)


def test_a_header_that_declares_too_much_is_a_fault_of_its_study(spine, tmp_path):
    folder, made = spine
    dataset = pydicom.dcmread(made["t2"][1])
    dataset.Rows = dataset.Columns = 65535
    dataset.NumberOfFrames = 2**31 - 1
    dataset.save_as(made["t2"][1])
    other = write_nifti(tmp_path / "ok" / "a.nii.gz")
    result = find_studies([folder, other], DISCS.wanted, names=NAMES)
    assert len(result.studies) == 1
    assert "may be slices (file " in result.refused[0].why
    assert "more than the 536870912" in result.refused[0].why


def test_the_table_that_maps_back_is_written_on_request(spine, tmp_path):
    study = the_study(spine[0], DISCS)
    refused = found(spine[0], DISCS, series="40").refused[0]
    write_names(tmp_path / "names.csv", [study])
    write_names(tmp_path / "other.csv", [refused])
    with (tmp_path / "names.csv").open(newline="") as file:
        (row,) = csv.DictReader(file)
    assert row["study"] == study.name
    assert (row["study_uid"], row["patient_id"]) == (uid("study"), "PAT-4711")
    assert set(row["files"].split(" | ")) == set(map(str, (spine[0] / "DICOM").iterdir()))
    assert (tmp_path / "names.csv").stat().st_mode & 0o777 == 0o600
    assert (tmp_path / "other.csv").read_bytes() == (tmp_path / "names.csv").read_bytes()
    with pytest.raises(UserError, match="exists and is not overwritten"):
        write_names(tmp_path / "names.csv", [study])


@real
def test_scanner_files_are_sorted_into_their_studies():
    result = found(SCANNER / "series_generic", DISCS)
    # Phantoms of a FLAIR: none of them is taken for a T2, and nothing is lost.
    assert any("sagittal FLAIR, TE 394 ms, TR 6000 ms" in refused.why for refused in result.refused)
    study = the_study(SCANNER / "shoulder_series_hitachi", FATTY, slice_index=1)
    assert study.chosen["image"] == (
        "series 1 of 1: sagittal oblique PD, TE 12 ms, TR 4000 ms, 4 slices"
    )
    assert study.read(FATTY.read_images).part["image"].shape == (1, 64, 64)
    (stack,) = found(SCANNER / "series_bad" / "sliceorientation", DISCS).studies
    assert stack.chosen["image"] == ("series 1 of 2: sagittal T2, TE 90 ms, TR 3000 ms, 2 slices")
    assert len(stack.read(DISCS.read_images).part["image"]) == 2
    times = the_refusal(SCANNER / "knee_enhanced", DISCS)
    assert "1 to 19 sagittal T1, one of several time points" in times


@pytest.mark.skipif(not SPIDER.is_dir(), reason=f"no {SPIDER}")
def test_a_published_cohort_is_read_by_its_names():
    result = found(SPIDER, DISCS)
    assert len(result.studies) == 30
    assert not result.refused
    assert "30 files or folders are not read (a mask, by its name)." in result.notes
