"""Nothing that identifies a study is left in a message about it."""

import os
import re
from pathlib import Path

import nibabel as nib
import numpy as np
import pydicom
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from inputs.dicom_tree import T2, write_images
from inputs.planting import plant
from pydicom.dataset import Dataset

from mskjax.data.cohorts import builder_class
from mskjax.errors import UserError
from mskjax.inputs import scrub as scrub_module
from mskjax.inputs.identifying import IDENTIFYING, identifying_values
from mskjax.inputs.pseudonyms import Pseudonyms
from mskjax.inputs.scrub import Scrubber
from mskjax.inputs.studies import find_studies, write_names
from mskjax.inputs.study import scrub

DISCS = builder_class("disc_degeneration")


@pytest.fixture(scope="module")
def planted(tmp_path_factory):
    """A series with a value of its own in each identifying attribute of each file."""
    root = tmp_path_factory.mktemp("x") / "archive"
    folder = root / "MUELLER_HANS_19531117" / "KNIE 4711"
    values = {}
    for number, file in enumerate(write_images(folder, "t2", prefix="Mueller", slices=2, **T2)):
        dataset = pydicom.dcmread(file)
        values[file] = plant(dataset, number)
        dataset.SeriesDescription, dataset.ProtocolName = T2["SeriesDescription"], "t2 spine"
        for keyword in ("SeriesDescription", "ProtocolName", "SeriesNumber"):
            values[file].pop(keyword, None)
        dataset.PatientID, dataset.PatientName = "PAT4711", "Mueller^Hans"
        values[file] |= {"PatientID": "PAT4711", "PatientName": "Mueller^Hans"}
        dataset.save_as(file)
    return root, values


def test_the_list_is_that_of_the_standard():
    """PS3.15 2024e, table E.1-1: some of its rows, and their number without the groups."""
    assert len(IDENTIFYING) == 617
    assert {"PatientName": "Z", "PatientBirthDate": "Z", "AccessionNumber": "Z"}.items() <= (
        IDENTIFYING.items()
    )
    assert IDENTIFYING["StudyInstanceUID"] == "U"
    assert IDENTIFYING["InstitutionName"] == "X/Z/D"
    assert IDENTIFYING["SeriesDescription"] == IDENTIFYING["PatientAddress"] == "X"
    assert "Rows" not in IDENTIFYING
    assert "EchoTime" not in IDENTIFYING


def test_every_planted_value_is_known_and_replaced(planted):
    root, values = planted
    (study,) = find_studies([root], DISCS.wanted, names=Pseudonyms(b"k" * 32)).studies
    assert len(values) == 2
    for file, own in values.items():
        assert len(own) > 500
        message = "\n".join(f"{file}: {k} is {text!r}; mend {text}." for k, text in own.items())
        said = scrub(message, study)
        lines = dict(zip(own, said.split("\n"), strict=True))
        assert not [k for k, text in own.items() if text in lines[k]]
        assert not re.search(
            "planted|plantname|mueller|hans|4711|1953|archive", said, re.IGNORECASE
        )
        assert all(re.match(r"file [12] of 2: \w+ is ", line) for line in lines.values())
        assert lines["PatientName"].endswith(
            ": PatientName is '[PatientName]'; mend [PatientName]."
        )
        assert scrub(message, study, keep_ids=True) == message


def test_values_in_sequences_are_found():
    inner, outer, dataset = Dataset(), Dataset(), Dataset()
    inner.PatientName = "Deep^Name"
    outer.RequestAttributesSequence = [inner]
    dataset.OriginalAttributesSequence = [outer]
    assert ("PatientName", "Deep^Name") in list(identifying_values(dataset))
    for _ in range(30):  # no end of sequences ends in a fault
        dataset.ContentSequence = [Dataset(dataset)]
    assert list(identifying_values(dataset))


def scrubber(tmp_path, **attributes):
    (file,) = write_images(tmp_path / "p1", "t2", slices=1, **attributes)
    return Scrubber((file,), (tmp_path,)), file


@pytest.mark.parametrize(
    ("value", "text", "expected"),
    [
        ("Meier^Anna", "it is ANNA MEIER's", "it is [PatientName] [PatientName]'s"),
        ("Meier^Anna", "(meier)", "([PatientName])"),
        ("Li^Bo", "li is Li^Bo, and lists", "li is [PatientName], and lists"),
        ("Li^Bo", "named 'Li' and 'bo'", "named '[PatientName]' and '[PatientName]'"),
        ("Ann^", "Ann's annals", "[PatientName]'s annals"),
        ("Yamada^Tarou=山田^太郎", "x山田^太郎x", "x[PatientName]x"),
        ("O'Brien^Pat", repr("O'Brien"), '"[PatientName]"'),
    ],
)
def test_values_are_replaced_in_whatever_form(tmp_path, value, text, expected):
    own, _ = scrubber(tmp_path, PatientName=value, SpecificCharacterSet="ISO_IR 192")
    assert own.scrub(text) == expected


def test_a_value_that_was_cut_short_is_replaced_too(tmp_path):
    story = "Fell from his horse on Tuesday and has been in pain since, says his sister Agathe."
    own, _ = scrubber(tmp_path, AdditionalPatientHistory=story)
    for end in (20, 40, 79):
        said = own.scrub(f"x: AdditionalPatientHistory: odd ({story[:end]})")
        assert said == "x: AdditionalPatientHistory: odd ([AdditionalPatientHistory])"


def test_values_that_begin_alike_are_each_replaced_whole(tmp_path):
    first, second = "Pain in the left knee since May", "Pain in the left hip since a fall in June"
    own, _ = scrubber(tmp_path, AdditionalPatientHistory=first, ReasonForStudy=second)
    assert own.scrub(f"({second[:30]})") == "([ReasonForStudy])"
    assert own.scrub(f"({first[:28]})") == "([AdditionalPatientHistory])"


def test_a_metaimage_names_its_data_file(tmp_path):
    path = tmp_path / "a.mhd"
    path.write_text(
        "ObjectType = Image\nNDims = 3\nDimSize = 2 2 2\nElementType = MET_SHORT\nOffset = 0 0 0\n"
        "TransformMatrix = -1 0 0 0 1 0 0 0 -1\nElementSpacing = 4 1 1\nComment = Hans from Ulm\n"
        "ElementDataFile = mueller_hans.raw\n"
    )
    (study,) = find_studies([tmp_path], DISCS.wanted, names=Pseudonyms(b"k" * 32)).studies
    with pytest.raises(UserError, match="mueller_hans.raw is missing") as caught:
        study.read(DISCS.read_images)
    said = scrub(str(caught.value), study)
    assert "is missing" in said
    assert "mueller" not in said
    assert scrub("by Hans from Ulm", study) == "by [Comment]"
    path.write_text(path.read_text().replace("mueller_hans.raw", "../secret.raw"))
    (tmp_path.parent / "secret.raw").write_bytes(bytes(16))
    (refused,) = find_studies([tmp_path], DISCS.wanted, names=Pseudonyms(b"k" * 32)).refused
    assert refused.why.startswith("its MetaImage names a data file outside of its folder")


def test_names_that_are_no_text_are_no_trouble(tmp_path):
    folder = tmp_path / "b"
    folder.mkdir()
    odd = os.fsdecode(os.fsencode(str(folder)) + b"/M\xfcller_\xff.nii.gz")
    Path(odd).write_bytes(b"")
    study = find_studies([tmp_path], DISCS.wanted).studies[0]
    with pytest.raises(UserError) as caught:
        study.read(DISCS.read_images)
    assert scrub(str(caught.value), study).startswith("file 1 of 1: cannot be read")
    scrub(str(caught.value), study, keep_ids=True).encode()  # can be printed
    assert study.name == "M_ller"
    write_names(tmp_path / "names.csv", [study])
    assert odd.encode(errors="surrogateescape") in (tmp_path / "names.csv").read_bytes()


def test_words_of_the_trade_stay(tmp_path):
    own, _ = scrubber(
        tmp_path, SeriesDescription="T2 sag", PatientSex="M", StudyDescription="MR spine"
    )
    said = "series 3 of 7: sagittal T2, TE 101 ms, 15 slices; MR images"
    assert own.scrub(said) == said


def test_paths_are_replaced_in_every_form(tmp_path, monkeypatch):
    own, file = scrubber(tmp_path / "MUELLER")
    monkeypatch.chdir(tmp_path)
    again = Scrubber((Path("MUELLER/p1") / file.name,), (Path("MUELLER"),))
    for text in (
        f"{file}",
        f"{file.parent}",
        f"{tmp_path / 'MUELLER'}/x",
        f"a {file.name}",
        "p1/x",
    ):
        for one in (own, again):
            assert "MUELLER" not in one.scrub(text)
            assert file.name not in one.scrub(text)
    assert again.scrub(f"{file}: bad") == "file 1 of 1: bad"
    assert own.scrub(f"{file.parent}: bad") == "its folder: bad"
    assert own.scrub(f"{tmp_path}/elsewhere") == f"{tmp_path}/elsewhere"
    assert own.scrub("a\x1b[31m\nb\x07") == "a\\x1b[31m\nb\\x07"


def test_a_message_of_a_reader_names_nothing(tmp_path):
    path = tmp_path / "Mueller Hans" / "hans_t2.nii.gz"
    path.parent.mkdir()
    data = np.full((3, 4, 5), np.nan, np.float32)
    nib.save(nib.Nifti1Image(data, np.diag([-4.0, -1, -1, 1])), path)
    (study,) = find_studies([tmp_path], DISCS.wanted, names=Pseudonyms(b"k" * 32)).studies
    with pytest.raises(UserError) as caught:
        study.read(DISCS.read_images)
    assert scrub(str(caught.value), study).startswith("file 1 of 1: ")
    assert "voxels are NaN" in scrub(str(caught.value), study)


_WORDS = st.text(st.characters(codec="utf-8", exclude_characters="\\^=\n\r"), min_size=5).filter(
    lambda text: len(text.strip(" \0")) >= 5 and re.search(r"[^\W_]{3}", text)
)


@settings(max_examples=60)
@given(name=_WORDS, before=st.text(max_size=10), after=st.text(max_size=10))
def test_no_name_of_a_file_survives(name, before, after):
    file = Path("/data") / (name.replace("/", "_").replace("\0", "_") + ".dcm")
    assume(scrub_module._is_telling(file.name))  # AXIAL.dcm tells nothing
    own = Scrubber((file,), (Path("/data"),))
    said = own.scrub(f"{before}{file}{after}: {file.name}")
    assert said.count("file 1 of 1") >= 2
    assert file.name not in said
