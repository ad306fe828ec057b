"""Folders of DICOM files: every file is read, refused by name, or noted as no image."""

import io
import shutil
import warnings

import numpy as np
import pydicom
import pytest
from imaging.dicom_writer import header, write_series
from PIL import Image
from pydicom.dataset import Dataset

from mskjax.errors import FileNote, UserError
from mskjax.imaging.dicom import read_dicom

BASIC_TEXT_SR = "1.2.840.10008.5.1.4.1.1.88.11"
SIEMENS_NON_IMAGE = "1.3.12.2.1107.5.9.1"


def notes_of(path):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        volume = read_dicom(path)
    return volume, [w.message for w in caught if isinstance(w.message, FileNote)]


@pytest.fixture
def whole(tmp_path):
    write_series(tmp_path)
    volume, notes = notes_of(tmp_path)
    assert not notes
    return volume


def cut(path, keep):
    path.write_bytes(path.read_bytes()[:keep])


@pytest.mark.parametrize(
    ("damage", "why"),
    [
        (lambda p: p.write_bytes(b""), "it is empty, 0 bytes"),
        (lambda p: cut(p, 100), "neither DICOM nor of another known kind"),
        (lambda p: cut(p, 140), "cut short|cannot be read"),
        (lambda p: cut(p, 300), "cut short: it does not say how large its image is"),
        (lambda p: cut(p, p.stat().st_size - 60), "no complete pixel data|10 vs 70 bytes"),
        (lambda p: cut(p, p.stat().st_size - 75), "no complete pixel data"),
        (lambda p: p.write_bytes(bytes(5000)), "neither DICOM nor of another known kind"),
        (lambda p: p.write_bytes(b"\xff" * 5000), "neither DICOM nor of another known kind"),
        (lambda p: (p.unlink(), p.symlink_to("gone")), "a link to a file that is missing"),
    ],
)
@pytest.mark.parametrize("name", ["03.dcm", "10.dcm"])  # the end of the series, and within it
def test_a_file_that_may_be_a_slice_is_refused_by_name(tmp_path, whole, damage, why, name):
    damage(tmp_path / name)
    with pytest.raises(UserError, match=rf"{name}: .*({why})"):
        read_dicom(tmp_path)


def test_all_faulty_files_are_named_at_once(tmp_path, whole):
    (tmp_path / "03.dcm").write_bytes(b"")
    (tmp_path / "10.dcm").write_bytes(b"")
    cut(tmp_path / "06.dcm", 300)
    with pytest.raises(UserError, match="3 of 4 files cannot be read: 03.dcm, 10.dcm: .*06.dcm: "):
        read_dicom(tmp_path)


def write_sr(path, sop_class):
    report = header(1, 1, sop_class)
    for keyword in ("Rows", "Columns", "BitsAllocated", "BitsStored", "HighBit"):
        delattr(report, keyword)
    report.Modality = "SR"
    report.save_as(path, enforce_file_format=True)


def test_what_is_no_image_is_noted_with_its_kind(tmp_path, whole):
    folder = tmp_path / "more"
    folder.mkdir()
    picture = io.BytesIO()
    Image.new("L", (3, 3)).save(picture, "PNG")
    contents = {
        "notes.txt": ("hallo, größer".encode("latin-1"), "text"),
        "liesmich": ("ä ö ü".encode(), "text"),
        "report.xml": (b"\xff\xfe<\0x\0>\0", "text"),
        "key.png": (picture.getvalue(), "a PNG picture"),
        "film.jpg": (b"\xff\xd8\xff\xe0 and so on \0\0", "a JPEG picture"),
        "letter.pdf": (b"%PDF-1.4\n\0\0", "a PDF"),
        "Thumbs.db": (b"\xd0\xcf\x11\xe0" + bytes(600), "a Windows system or Office file"),
        ".DS_Store": (b"\0\0\0\1Bud1" + bytes(600), "a macOS system file"),
        ".nomedia": (b"", "a hidden file"),
        "mask.nii": (bytes([0x5C, 1, 0, 0]) + bytes(400), "NIfTI or Analyze"),
        "mask.nii.gz": (b"\x1f\x8b\x08" + bytes(400), "a gzip-compressed file"),
    }
    for name, (content, _) in contents.items():
        (folder / name).write_bytes(content)
    write_sr(folder / "sr", BASIC_TEXT_SR)
    write_sr(folder / "csa", SIEMENS_NON_IMAGE)
    kinds = {name: kind for name, (_, kind) in contents.items()} | {
        "sr": "DICOM, Basic Text SR Storage",
        "csa": f"DICOM of a private kind without image, {SIEMENS_NON_IMAGE}",
    }
    volume, notes = notes_of(tmp_path)
    np.testing.assert_array_equal(volume.data, whole.data)
    assert {note.file: note.detail for note in notes} == {
        str(folder / name): kind for name, kind in kinds.items()
    }
    assert {note.what for note in notes} == {"lies among DICOM images, is none and is not read"}


def test_a_dicomdir_is_no_image(tmp_path, whole):
    directory = header(1, 1, "1.2.840.10008.1.3.10")
    del directory.SOPClassUID
    for keyword in ("Rows", "Columns"):
        delattr(directory, keyword)
    directory.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.1.3.10"
    directory.file_meta.MediaStorageSOPInstanceUID = "1.2.3"
    directory.save_as(tmp_path / "DICOMDIR")
    _, notes = notes_of(tmp_path)
    assert [n.detail for n in notes] == ["DICOM, Media Storage Directory Storage"]


def test_an_image_object_without_image_is_no_report(tmp_path, whole):
    write_sr(tmp_path / "mr", "1.2.840.10008.5.1.4.1.1.4")
    with pytest.raises(UserError, match="mr: cannot be read .it is cut short"):
        read_dicom(tmp_path)


def test_a_folder_without_images_says_what_it_holds(tmp_path):
    (tmp_path / "notes.txt").write_text("no image")
    with pytest.raises(UserError, match=r"no DICOM image in this folder; it holds 1 other .*text"):
        read_dicom(tmp_path)
    (tmp_path / "notes.txt").unlink()
    with pytest.raises(UserError, match="no DICOM image in this folder; check the path"):
        read_dicom(tmp_path)


@pytest.mark.parametrize("meta", [False, True])
@pytest.mark.parametrize("some", [False, True])
def test_files_without_preamble_are_read(tmp_path, whole, meta, some):
    files = sorted(tmp_path.iterdir())
    for file in files[: 2 if some else None]:
        if meta:
            file.write_bytes(file.read_bytes()[132:])
            continue
        dataset = pydicom.dcmread(file)
        plain = Dataset()
        plain.update(dataset)
        plain.save_as(file, implicit_vr=True, little_endian=True)
    volume, (note,) = notes_of(tmp_path)
    np.testing.assert_array_equal(volume.data, whole.data)
    np.testing.assert_array_equal(volume.affine, whole.affine)
    assert note.file == str(tmp_path)
    assert note.what == "is DICOM without preamble"
    assert note.detail == f"{2 if some else 4} of 4 files, e.g. {files[0].name}"
    single, _ = notes_of(files[0])
    assert single.data.shape == (7, 5, 1)


@pytest.mark.parametrize("big", [False, True])
def test_a_missing_transfer_syntax_is_found_in_the_data(tmp_path, whole, big):
    for file in tmp_path.iterdir():
        raw = file.read_bytes()
        if big:
            dataset = pydicom.dcmread(file)
            pixels = np.frombuffer(dataset.PixelData, "<u2").astype(">u2").tobytes()
            swapped = Dataset()
            swapped.update({element.tag: element for element in dataset})
            swapped.PixelData, swapped.file_meta = pixels, dataset.file_meta
            swapped.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRBigEndian
            swapped.save_as(file, enforce_file_format=True)
            raw = file.read_bytes()
        at = raw.index(b"\x02\0\x10\0UI")
        length = int.from_bytes(raw[at + 6 : at + 8], "little") + 8
        group = raw.index(b"\x02\0\0\0UL") + 8
        size = int.from_bytes(raw[group : group + 4], "little") - length
        file.write_bytes(
            raw[:group] + size.to_bytes(4, "little") + raw[group + 4 : at] + raw[at + length :]
        )
    volume, (note,) = notes_of(tmp_path)
    np.testing.assert_array_equal(volume.data, whole.data)
    assert note.what == "has no TransferSyntaxUID; the one that its data show is used"


def test_links_to_folders_are_followed_once(tmp_path):
    (tmp_path / "real").mkdir()
    write_series(tmp_path / "real")
    (tmp_path / "series").mkdir()
    (tmp_path / "series" / "link").symlink_to(tmp_path / "real")
    (tmp_path / "real" / "up").symlink_to(tmp_path / "real")
    assert read_dicom(tmp_path / "series").data.shape == (7, 5, 4)


def test_several_series_are_named(tmp_path):
    write_series(
        tmp_path, SeriesInstanceUID=["1.2", "1.2", "1.3", "1.3"], SeriesDescription=list("aabb")
    )
    with pytest.raises(UserError, match=r"holds 2 series \('MR b', 2 images, 02.dcm ...; 'MR a'"):
        read_dicom(tmp_path)


def test_copies_are_told_by_their_instance_or_their_pixels(tmp_path, whole):
    shutil.copy(tmp_path / "03.dcm", tmp_path / "03 (1).dcm")
    why = r"5 images lie at 4 positions, as copies do \(e.g. 03 \(1\).dcm and 03.dcm are one SOPI"
    with pytest.raises(UserError, match=why):
        read_dicom(tmp_path)
    dataset = pydicom.dcmread(tmp_path / "03 (1).dcm")
    dataset.SOPInstanceUID = "1.2.3.4.5"
    dataset.save_as(tmp_path / "03 (1).dcm")
    with pytest.raises(UserError, match=r"03 \(1\).dcm and 03.dcm hold the same pixels"):
        read_dicom(tmp_path)


def test_kinds_of_image_are_told_by_what_differs(tmp_path):
    kinds = [["DERIVED", "PRIMARY", "DIXON", kind] for kind in ("WATER", "FAT")]
    write_series(tmp_path, (0, 0, 3, 3), ImageType=kinds * 2, EchoTime=[80] * 4)
    with pytest.raises(UserError, match="4 images lie at 2 positions") as caught:
        read_dicom(tmp_path)
    assert r"DIXON\WATER in 03.dcm and ImageType DERIVED\PRIMARY\DIXON\FAT in 10.dcm" in str(
        caught.value
    )
    assert "EchoTime" not in str(caught.value)


def test_voxels_of_a_series_are_counted_before_any_is_read(tmp_path, monkeypatch):
    write_series(tmp_path)
    monkeypatch.setattr("mskjax.imaging.dicom_folder.MOST_VOXELS", 4 * 35 - 1)
    with pytest.raises(UserError, match="its 4 files declare 140 voxels, more than the 139"):
        read_dicom(tmp_path)
