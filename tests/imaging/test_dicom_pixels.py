"""DICOM pixels as a viewer shows them, fields that they need, and fields that they do not."""

import io
import zlib

import numpy as np
import pydicom
import pytest
from imaging.dicom_writer import DELETED, write_series
from PIL import Image
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from pydicom.uid import DeflatedExplicitVRLittleEndian, JPEG2000Lossless, RLELossless

from mskjax.errors import FileNote, UserError
from mskjax.imaging import dicom_decode
from mskjax.imaging.dicom import read_dicom


def edit(folder, change):
    """Changes every file of a series."""
    for file in sorted(folder.iterdir()):
        dataset = pydicom.dcmread(file)
        change(dataset)
        dataset.save_as(file)


@pytest.mark.parametrize("value", [None, ""])
def test_an_empty_rescale_changes_nothing(tmp_path, value):
    voxels, *_ = write_series(tmp_path, RescaleSlope=[value] * 4, RescaleIntercept=[value] * 4)
    volume = read_dicom(tmp_path)
    np.testing.assert_array_equal(volume.data, voxels.T)
    assert volume.data.dtype == np.uint16


@pytest.mark.parametrize("signed", [0, 1])
@pytest.mark.parametrize("field", ["PhotometricInterpretation", "PresentationLUTShape"])
@pytest.mark.parametrize("slope", [None, "2"])
def test_low_values_that_are_shown_white_are_inverted(tmp_path, signed, field, slope):
    value = "MONOCHROME1" if field.startswith("Ph") else "INVERSE"
    changes = {field: [value] * 4, "PixelRepresentation": [signed] * 4}
    voxels, *_ = write_series(tmp_path, RescaleSlope=[slope] * 4, **changes)
    if signed:
        voxels = (voxels.astype(np.int16) - 2048).clip(-2048, 2047)
        for file, i in zip(sorted(tmp_path.iterdir()), (3, 0, 2, 1), strict=True):
            dataset = pydicom.dcmread(file)
            dataset.PixelData = voxels[i].tobytes()
            dataset.save_as(file)
    with pytest.warns(FileNote, match="MONOCHROME1.; inverted, as a viewer shows it"):
        volume = read_dicom(tmp_path)
    top = -1 if signed else 4095
    np.testing.assert_array_equal(volume.data, (top - voxels.T.astype(int)) * (2 if slope else 1))
    # Black and white change places: what was the highest value is the lowest.
    assert volume.data.argmin() == voxels.T.argmax()
    np.testing.assert_array_equal(read_dicom(tmp_path, stored=True).data, voxels.T)


def palette(dataset, greys, coloured=False):
    dataset.PhotometricInterpretation = "PALETTE COLOR"
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 8, 8, 7
    indices = np.frombuffer(dataset.PixelData, np.uint16) % len(greys)
    dataset.PixelData = indices.astype(np.uint8).tobytes() + b"\0"
    for colour in ("Red", "Green", "Blue"):
        values = greys * (0 if coloured and colour == "Red" else 1)
        descriptor = f"{colour}PaletteColorLookupTableDescriptor"
        setattr(dataset, descriptor, [len(greys), 0, 16])
        dataset[descriptor].VR = "US"
        setattr(dataset, f"{colour}PaletteColorLookupTableData", values.astype("<u2").tobytes())


def test_a_palette_of_greys_is_looked_up_but_not_for_a_mask(tmp_path):
    voxels, *_ = write_series(tmp_path)
    greys = np.random.default_rng(0).permutation(np.arange(0, 65536, 2048)).astype(np.uint16)
    edit(tmp_path, lambda d: palette(d, greys))
    np.testing.assert_array_equal(read_dicom(tmp_path).data, greys[voxels.T % 32])
    np.testing.assert_array_equal(read_dicom(tmp_path, stored=True).data, voxels.T % 32)
    edit(tmp_path, lambda d: setattr(d, "RedPaletteColorLookupTableData", bytes(64)))
    with pytest.raises(UserError, match=r"is a colour image \(PALETTE COLOR\)"):
        read_dicom(tmp_path)


@pytest.mark.parametrize("inverted", [False, True])
def test_a_modality_lut_is_looked_up(tmp_path, inverted):
    voxels, *_ = write_series(tmp_path)
    table = np.random.default_rng(0).integers(0, 65536, 4096).astype("<u2")

    def change(dataset):
        lut = Dataset()
        lut.LUTDescriptor, lut.ModalityLUTType = [4096, 0, 16], "US"
        lut.LUTData = table.tobytes()
        lut["LUTDescriptor"].VR, lut["LUTData"].VR = "US", "OW"
        dataset.ModalityLUTSequence = [lut]
        if inverted:
            dataset.PhotometricInterpretation = "MONOCHROME1"

    edit(tmp_path, change)
    expected = table[voxels.T]
    with pytest.warns(FileNote) if inverted else pytest.MonkeyPatch.context():
        volume = read_dicom(tmp_path)
    np.testing.assert_array_equal(volume.data, 65535 - expected if inverted else expected)
    np.testing.assert_array_equal(read_dicom(tmp_path, stored=True).data, voxels.T)


def test_a_mask_is_not_rescaled(tmp_path):
    voxels, *_ = write_series(tmp_path, RescaleSlope=["2"] * 4, RescaleIntercept=["-7"] * 4)
    np.testing.assert_array_equal(read_dicom(tmp_path, stored=True).data, voxels.T)
    np.testing.assert_array_equal(read_dicom(tmp_path).data, voxels.T * 2.0 - 7)


def write_text(folder, keyword, text):
    """Writes text that is no number where one belongs; pydicom itself would refuse to."""
    for file in folder.iterdir():
        dataset = pydicom.dcmread(file)
        element = dataset[keyword]
        dataset[keyword] = pydicom.dataelem.RawDataElement(
            element.tag, element.VR, len(text), text.encode(), 0, False, True
        )
        dataset.save_as(file)


@pytest.mark.parametrize(
    ("keyword", "text", "why"),
    [
        ("PixelSpacing", r"0,8\0,8 ", r"PixelSpacing is 0,8\\0,8; it must be 2 numbers with a dec"),
        ("PixelSpacing", "0.8 ", "PixelSpacing is 0.8; it must be 2 numbers"),
        ("PixelSpacing", r"0\0 ", "PixelSpacing is .*; it must be above 0, in mm"),
        ("PixelSpacing", r"80\80 ", "PixelSpacing gives 80 mm per pixel, but scanners make 0.05"),
        ("PixelSpacing", r"nan\1 ", r"PixelSpacing is nan\\1"),
        ("ImagePositionPatient", r"1\2\x ", r"ImagePositionPatient is 1\\2\\x; it must be 3"),
        ("RescaleSlope", "abcd", "RescaleSlope is abcd; it must be a number"),
        ("RescaleSlope", "0 ", "RescaleSlope is 0, so all pixels would be equal"),
        ("RescaleSlope", "inf ", "RescaleSlope is inf"),
        ("RescaleIntercept", "1,5 ", "RescaleIntercept is 1,5"),
        ("NumberOfFrames", "-3", "NumberOfFrames is -3; it must be a whole number"),
        ("NumberOfFrames", "x ", "NumberOfFrames is x; it must be a number"),
    ],
)
def test_a_number_that_pixels_need_is_refused_as_it_is_written(tmp_path, keyword, text, why):
    write_series(
        tmp_path,
        RescaleSlope=["1"] * 4,
        RescaleIntercept=["0"] * 4,
        NumberOfFrames=["1"] * 4,
    )
    write_text(tmp_path, keyword, text)
    with pytest.raises(UserError, match=why):
        read_dicom(tmp_path)


@pytest.mark.parametrize("keyword", ["Rows", "Columns", "PixelData"])
def test_what_pixels_need_and_is_missing_is_named(tmp_path, keyword):
    write_series(tmp_path, **{keyword: [DELETED] * 4})
    file = tmp_path / "03.dcm"
    with pytest.raises(UserError, match=f"03.dcm: .*({keyword}|pixel data)"):
        read_dicom(file)


@pytest.mark.parametrize(
    ("keyword", "text", "name", "value", "note"),
    [
        ("MagneticFieldStrength", "15000 ", "field_strength_t", 1.5, "taken as gauss"),
        ("MagneticFieldStrength", "1,5 ", "field_strength_t", 1.5, None),
        ("MagneticFieldStrength", "1500", "field_strength_t", None, "not one in tesla"),
        ("EchoTime", "80,5", "echo_time_ms", 80.5, None),
        ("EchoTime", "n/a ", "echo_time_ms", None, "EchoTime: a time in ms is no number"),
        ("RepetitionTime", "  ", "repetition_time_ms", None, None),
        ("PatientAge", "061Y", "age", 61, None),
        ("PatientAge", "old ", "age", None, "PatientAge: age is not a number"),
        ("PatientSex", "F ", "sex", "F", None),
        ("PatientSex", "X ", "sex", None, "PatientSex: sex is neither M nor F"),
    ],
)
def test_what_pixels_do_not_need_never_stops_a_study(
    tmp_path, keyword, text, name, value, note, recwarn
):
    voxels, *_ = write_series(
        tmp_path, MagneticFieldStrength=["1"] * 4, EchoTime=["1"] * 4, RepetitionTime=["1"] * 4,
        PatientAge=["001Y"] * 4, PatientSex=["M"] * 4,
    )  # fmt: skip
    write_text(tmp_path, keyword, text)
    volume = read_dicom(tmp_path)
    np.testing.assert_array_equal(volume.data, voxels.T)
    assert volume.meta.get(name) == value
    notes = [str(w.message) for w in recwarn if isinstance(w.message, FileNote)]
    assert len(notes) == (note is not None)
    assert all(note in said and text.strip() in said for said in notes)


def test_the_frame_of_reference_is_kept(tmp_path):
    write_series(tmp_path, FrameOfReferenceUID=["1.2.3.9"] * 4)
    assert read_dicom(tmp_path).meta["frame_of_reference_uid"] == "1.2.3.9"


def test_a_slice_of_unknown_thickness_is_noted(tmp_path):
    write_series(tmp_path, (0.0,), SliceThickness=[DELETED])
    with pytest.warns(FileNote, match="does not say how thick its slice is; 1 mm is taken"):
        assert read_dicom(tmp_path).spacing[2] == pytest.approx(1)


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"Rows": [60000] * 4, "Columns": [60000] * 4}, "60000 x 60000.* voxels, more than the"),
        ({"Rows": [9000] * 4, "Columns": [9000] * 4}, "cannot be read"),
        ({"Rows": [0] * 4}, "holds no voxels"),
        ({"NumberOfFrames": [10**8] * 4}, "more than the"),
        ({"BitsStored": [17] * 4}, "BitsStored is 17 and BitsAllocated 16"),
        ({"SamplesPerPixel": [3] * 4}, "is a colour image"),
    ],
)
@pytest.mark.parametrize("syntax", [None, RLELossless])
def test_what_a_header_declares_is_checked_before_pixels_are_read(tmp_path, changes, why, syntax):
    write_series(tmp_path)
    if syntax:
        edit(tmp_path, lambda d: d.compress(syntax, generate_instance_uid=False))
    edit(tmp_path, lambda d: [setattr(d, k, v[0]) for k, v in changes.items()])
    for path in (tmp_path, tmp_path / "03.dcm"):
        with pytest.raises(UserError, match=why):
            read_dicom(path)


def compress_j2k(dataset):
    pixels = np.frombuffer(dataset.PixelData, np.uint16).reshape(dataset.Rows, dataset.Columns)
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "JPEG2000", irreversible=False, no_jp2=True)
    dataset.PixelData = encapsulate([stream.getvalue()])
    dataset["PixelData"].is_undefined_length = True
    dataset.file_meta.TransferSyntaxUID = JPEG2000Lossless


@pytest.mark.parametrize("inverted", [False, True])
def test_compressed_pixels_are_those_that_were_stored(tmp_path, inverted):
    photometric = "MONOCHROME1" if inverted else "MONOCHROME2"
    voxels, *_ = write_series(
        tmp_path, PhotometricInterpretation=[photometric] * 4, RescaleSlope=["3"] * 4
    )
    edit(tmp_path, compress_j2k)
    np.testing.assert_array_equal(read_dicom(tmp_path, stored=True).data, voxels.T)
    with pytest.warns(FileNote) if inverted else pytest.MonkeyPatch.context():
        volume = read_dicom(tmp_path)
    expected = 4095 - voxels.T if inverted else voxels.T
    np.testing.assert_array_equal(volume.data, expected * 3.0)


def test_compressed_pixels_need_their_transfer_syntax(tmp_path):
    write_series(tmp_path, (0.0,))
    edit(tmp_path, compress_j2k)
    edit(tmp_path, lambda d: None)
    file = tmp_path / "03.dcm"
    raw = file.read_bytes().replace(b"\x02\0\x10\0UI", b"\x02\0\x12\0UI")  # another element
    file.write_bytes(raw)
    with pytest.raises(UserError, match="03.dcm: has no TransferSyntaxUID though its pixels are"):
        read_dicom(file)


@pytest.mark.parametrize(
    ("how", "why"),
    [
        ("os.abort()", "its compressed pixels stop the decoder"),
        ("[None for _ in iter(int, 1)]", "its compressed pixels stop the decoder"),
        ("bytearray(1 << 36)", "MemoryError"),
        ("1 / 0", "division by zero"),
    ],
)
def test_a_decoder_that_crashes_or_never_ends_is_said_of_its_file(tmp_path, monkeypatch, how, why):
    """GDCM is replaced by what it may do; the process and its limits are the real ones."""
    (tmp_path / "SimpleITK.py").write_text(
        "import os, numpy\n"
        "def ReadImage(file, imageIO):\n"
        f"    return 5 if file.endswith('good.dcm') else {how}\n"
        "def GetArrayViewFromImage(image):\n"
        "    return numpy.full((2, 2), image)\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setattr(dicom_decode, "_SECONDS", 0.1)
    files = [tmp_path / name for name in ("good.dcm", "bad.dcm")]
    decoded, reason = dicom_decode.decode_files(files, 4)
    np.testing.assert_array_equal(decoded, np.full((2, 2), 5))
    assert reason == why


def test_a_deflated_file_is_read_unless_it_is_a_bomb(tmp_path, monkeypatch):
    voxels, *_ = write_series(tmp_path)
    edit(
        tmp_path,
        lambda d: setattr(d.file_meta, "TransferSyntaxUID", DeflatedExplicitVRLittleEndian),
    )
    raw = (tmp_path / "03.dcm").read_bytes()
    assert zlib.decompress(raw[144 + int.from_bytes(raw[140:144], "little") :], -15)
    np.testing.assert_array_equal(read_dicom(tmp_path).data, voxels.T)
    monkeypatch.setattr("mskjax.imaging.dicom_file._MOST_INFLATED", 200)
    with pytest.raises(UserError, match="it unpacks to more than 200 bytes"):
        read_dicom(tmp_path)
