"""A user's own fractures: the documented layout, and each way of getting it wrong."""

import csv

import numpy as np
import pytest
from builders import mini_spine as mini
from PIL import Image
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, generate_uid
from scipy import ndimage

from mskjax.data.cohorts import prepare_cohort
from mskjax.errors import BadCases, UserError

T1_SHAPE, T2_SHAPE = (5, 40, 30), (6, 50, 44)
BOX = {"slice": "2", "row0": "12", "col0": "8", "row1": "22", "col1": "20"}
STUDIES = [
    "patient_id", "study_id", "t1", "t2", "label", *BOX, "box_mask", "level", "sex", "age",
    "subset", "pixel_spacing_mm",
]  # fmt: skip


def canonical(steps, origin):
    """Affine of axes L, I, P with the given steps and first voxel, RAS mm."""
    affine = np.eye(4)
    affine[:3, :3] = np.array([[-1.0, 0, 0], [0, 0, -1], [0, -1, 0]]) * steps
    affine[:3, 3] = origin
    return affine


T1_AFFINE = canonical((4.0, 1.5, 1.5), (10.0, 20.0, 30.0))
T2_AFFINE = canonical((4.2, 1.1, 1.2), (11.3, 22.1, 31.4))


def smooth(shape, seed):
    noise = np.random.default_rng(seed).normal(size=shape)
    return np.rint(500 + 900 * ndimage.gaussian_filter(noise, (0.5, 2, 2))).astype(np.int16)


def turned(data, affine, order=(1, 2, 0), flips=(True, False, True)):
    """The same voxels at the same places, stored with other axes."""
    index = np.eye(4)[:, [*order, 3]]
    out = data.transpose(order)
    for axis, flip in enumerate(flips):
        if flip:
            reverse = np.eye(4)
            reverse[axis, axis], reverse[axis, 3] = -1, out.shape[axis] - 1
            out, index = np.flip(out, axis), index @ reverse
    return np.ascontiguousarray(out), affine @ index


def oracle(data, affine, shape, target):
    """Linear interpolation at the target's voxel centres, 0 over half a voxel outside."""
    voxels = np.indices(shape).reshape(3, -1)
    world = target[:3, :3] @ voxels + target[:3, 3:]
    at = np.linalg.solve(affine[:3, :3], world - affine[:3, 3:])
    size = np.array(data.shape)[:, None]
    values = ndimage.map_coordinates(data.astype(float), at, order=1, mode="nearest")
    values[((at < -0.5) | (at > size - 0.5)).any(axis=0)] = 0
    return values.reshape(shape)


def study_row(study, t1, t2, label, patient="p1", **cells):
    row = dict.fromkeys(STUDIES, "")
    row |= {"patient_id": patient, "study_id": study, "t1": t1, "t2": t2, "label": label}
    return list((row | cells).values())


@pytest.fixture
def raw(tmp_path):
    """Studies a (NIfTI and MetaImage, box), b (turned axes, mask, label unknown), c (PNG)."""
    root = tmp_path / "raw"
    mini.write_nifti(root / "a_t1.nii.gz", smooth(T1_SHAPE, 1), T1_AFFINE)
    mini.write_mha(root / "a_t2.mha", *turned(smooth(T2_SHAPE, 2), T2_AFFINE))
    mini.write_mha(root / "b_t1.mha", *turned(smooth(T1_SHAPE, 3), T1_AFFINE, (2, 0, 1)))
    mini.write_nifti(root / "b_t2.nii", smooth(T2_SHAPE, 4), T2_AFFINE)
    mask = np.zeros(T1_SHAPE, np.uint8)
    mask[3, 10:20, 5:17] = 1
    mask[1, 10:14, 5:9] = 1
    mini.write_mha(root / "b_box.mha", *turned(mask, T1_AFFINE, (2, 0, 1)))
    for name, seed in (("c_t1", 5), ("c_t2", 6)):
        grey = np.clip(smooth((1, 40, 30), seed)[0] // 6, 0, 255).astype(np.uint8)
        Image.fromarray(grey).save(root / f"{name}.png")
    mini.write_csv(root / "studies.csv", STUDIES, [
        study_row("a", "a_t1.nii.gz", "a_t2.mha", "malignant", level="L1", sex="F", age="71",
                  **BOX),
        study_row("b", "b_t1.mha", "b_t2.nii", "", patient="p2", box_mask="b_box.mha"),
        study_row("c", "c_t1.png", "c_t2.png", "benign", pixel_spacing_mm="0.8",
                  **(BOX | {"slice": "0"})),
    ])  # fmt: skip
    mini.write_csv(root / "readers.csv", ["study_id", "reader", "call", "aided_call"], [
        ["a", "senior", "malignant", "malignant"], ["b", "senior", "benign", ""],
        ["c", "senior", "", ""], ["c", "resident", "malignant", "benign"],
    ])  # fmt: skip
    mini.write_csv(root / "findings.csv", ["study_id", "fracture_line", "epidural mass"],
                   [["a", 0, "1.0"], ["c", 1, ""]])  # fmt: skip
    return root


def package(raw, tmp_path):
    return prepare_cohort("vertebral_fracture", "cohort", tmp_path / "data", raw)


def faults(raw, tmp_path):
    with pytest.raises(BadCases) as caught:
        package(raw, tmp_path)
    assert not (tmp_path / "data").exists()
    return caught.value.cases


def edit(path, row, **cells):
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    rows[row] |= cells
    mini.write_csv(path, list(rows[0]), [list(r.values()) for r in rows])


def test_t1_is_turned_and_t2_is_sampled_at_its_voxel_centres(raw, tmp_path):
    a, b, c = package(raw, tmp_path).studies
    for study, seed in ((a, 1), (b, 3)):
        np.testing.assert_array_equal(study["t1"], smooth(T1_SHAPE, seed))
        np.testing.assert_allclose(study["affine"], T1_AFFINE, atol=1e-5)
        expected = oracle(smooth(T2_SHAPE, seed + 1), T2_AFFINE, T1_SHAPE, T1_AFFINE)
        np.testing.assert_allclose(study["t2"], expected, rtol=1e-5, atol=0.02)
        assert (study["t2"] == 0).any()  # beyond T2's field of view
        assert (study["t2"][2, 12:22, 8:20] > 0).all()
    np.testing.assert_array_equal(c["t2"][0], np.asarray(Image.open(raw / "c_t2.png")))
    np.testing.assert_allclose(np.linalg.norm(c["affine"][:3, 1:3], axis=0), 0.8)


def test_labels_segments_and_metadata(raw, tmp_path):
    cohort = package(raw, tmp_path)
    assert cohort.index == (("p1", "a"), ("p2", "b"), ("p1", "c"))
    a, b, c = cohort.studies
    assert [s["label"] for s in (a, b, c)] == [1, -1, 0]
    assert (a["slice"], a["box"].tolist()) == (2, [12, 8, 22, 20])
    assert (b["slice"], b["box"].tolist()) == (3, [10, 5, 20, 17])  # where the mask is largest
    assert (a["level"], a["sex"], a["age"], b["level"]) == ("L1", "F", 71.0, "")
    assert np.isnan([b["age"], b["field_strength_t"]]).all()
    assert cohort.audit["counts"] == {"fracture": {"0": 1, "1": 1}}
    edit(raw / "studies.csv", 1, slice="1")
    other = package(raw, tmp_path / "again").studies[1]
    assert (other["slice"], other["box"].tolist()) == (1, [10, 5, 14, 9])


def test_readings_keep_their_holes_and_the_audit_counts_them(raw, tmp_path):
    cohort = package(raw, tmp_path)
    rows = [
        list(zip(*(s["readers"][k] for k in ("reader", "call", "aided_call")), strict=True))
        for s in cohort.studies
    ]
    assert rows == [
        [("senior", 1, 1), ("resident", -1, -1)],
        [("senior", 0, -1), ("resident", -1, -1)],
        [("senior", -1, -1), ("resident", 1, 0)],
    ]
    assert [s["findings"]["present"].tolist() for s in cohort.studies] == [
        [0, 1],
        [-1, -1],
        [1, -1],
    ]
    assert cohort.studies[1]["findings"]["name"] == ["fracture_line", "epidural mass"]
    assert set(cohort.audit["notes"]) == {
        "label: 1 of 3 studies have none",
        "reader senior: 2 read of 3, 1 with aid",
        "reader resident: 1 read of 3, 1 with aid",
        "finding fracture_line: recorded in 2 of 3",
        "finding epidural mass: recorded in 1 of 3",
    }


def test_readings_are_optional_and_unread_columns_are_noted(raw, tmp_path):
    (raw / "readers.csv").unlink()
    (raw / "findings.csv").unlink()
    text = (raw / "studies.csv").read_text()
    (raw / "studies.csv").write_text(text.replace("level", "levle"))
    cohort = package(raw, tmp_path)
    assert all(s["readers"]["reader"] == s["findings"]["name"] == [] for s in cohort.studies)
    notes = cohort.audit["notes"]
    assert "studies.csv: columns not used: levle (did you mean 'level'?)" in notes


@pytest.mark.parametrize(
    ("table", "row", "cells", "where", "message"),
    [
        ("studies", 0, {"patient_id": ""}, "studies.csv, line 2", "study 'a' has no patient_id"),
        ("studies", 1, {"study_id": "a"}, "studies.csv, line 3", "study_id 'a' occurs twice"),
        ("studies", 0, {"study_id": "a/b"}, "studies.csv, line 2", "study_id is 'a/b'"),
        ("studies", 0, {"t1": ""}, "studies.csv, line 2", "study 'a' has no t1; fill in"),
        ("studies", 0, {"t2": ""}, "studies.csv, line 2", "study 'a' has no t2; fill in"),
        ("studies", 0, {"t2": "x.nii"}, "studies.csv, line 2", "the t2 of study 'a'"),
        ("studies", 0, {"t2": "./a_t1.nii.gz"}, "studies.csv, line 2", "as its t1 and its t2"),
        ("studies", 0, {"label": "bening"}, "studies.csv, line 2", "label is 'bening'; it must be"),
        ("studies", 2, {"subset": "training"}, "studies.csv, line 4", "must be on one side"),
        ("studies", 0, {"subset": "test"}, "studies.csv, line 2", "subset is 'test'"),
        ("studies", 0, {"slice": "5"}, "a", "slice is '5'; it must be a whole number, 0 to 4"),
        ("studies", 0, {"slice": "-1"}, "a", "slice is '-1'"),
        ("studies", 0, {"row1": "41"}, "a", "leaves the T1 slice of 40 rows and 30 columns"),
        ("studies", 0, {"col0": "-1"}, "a", "columns -1 to 20) leaves"),
        ("studies", 0, {"row1": "12"}, "a", "the box is empty: rows 12 to 12"),
        ("studies", 0, {"col1": "7"}, "a", "the box is empty"),
        ("studies", 0, {"row0": "ten"}, "a", "row0 is 'ten'; it must be a number"),
        ("studies", 0, {"row0": "", "slice": ""}, "a", "the segment lacks slice, row0; fill in"),
        ("studies", 0, {"box_mask": "b_box.mha"}, "a", "are both given; keep one way"),
        ("studies", 1, {"box_mask": ""}, "b", "lacks slice, row0, col0, row1, col1"),
        ("studies", 1, {"box_mask": "no.mha"}, "studies.csv, line 3", "does not exist"),
        ("studies", 1, {"slice": "0"}, "b", "marks nothing in slice 0"),
        ("studies", 2, {"t2": "a_t2.mha"}, "c", "a PNG does not say where it lies"),
        ("readers", 0, {"call": "maybe"}, "readers.csv, line 2", "call is 'maybe'; it must be"),
        ("readers", 0, {"aided_call": "1"}, "readers.csv, line 2", "aided_call is '1'"),
        ("readers", 0, {"study_id": "z"}, "readers.csv, line 2", "'z' is not in studies.csv"),
        ("readers", 1, {"study_id": "a"}, "readers.csv, line 3", "'senior' calls study 'a' twice"),
        ("readers", 0, {"reader": ""}, "readers.csv, line 2", "has a call but no reader"),
        ("findings", 0, {"fracture_line": "2"}, "findings.csv, line 2", "a whole number, 0 to 1"),
        ("findings", 0, {"fracture_line": "yes"}, "findings.csv, line 2", "is 'yes'"),
        ("findings", 0, {"study_id": "z"}, "findings.csv, line 2", "'z' is not in studies.csv"),
        ("findings", 1, {"study_id": "a"}, "findings.csv, line 3", "'a' has two rows"),
    ],
)  # fmt: skip
def test_each_fault_is_one_clear_sentence(raw, tmp_path, table, row, cells, where, message):
    edit(raw / f"{table}.csv", row, **cells)
    found = dict(faults(raw, tmp_path))
    assert message in found[where]


def test_all_faults_are_listed_together(raw, tmp_path):
    edit(raw / "studies.csv", 0, t1="", t2="gone.nii")
    edit(raw / "studies.csv", 1, label="?")
    edit(raw / "studies.csv", 2, row1="99")
    edit(raw / "readers.csv", 0, call="?")
    edit(raw / "findings.csv", 0, fracture_line="3")
    found = faults(raw, tmp_path)
    assert [where for where, _ in found] == [
        "studies.csv, line 2", "studies.csv, line 2", "studies.csv, line 3", "readers.csv, line 2",
        "findings.csv, line 2", "c",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("shift", "message"),
    [
        ((0, 300.0, 0), "do not overlap"),
        ((60.0, 0, 0), "do not overlap"),
        ((0, 0, 35.0), "shows only"),  # towards the head
        ((-13.0, 0, 0), "shows only 33%"),  # one slice of three
    ],
)
def test_t2_that_lies_elsewhere_is_refused(raw, tmp_path, shift, message):
    moved = T2_AFFINE.copy()
    moved[:3, 3] += shift
    mini.write_mha(raw / "a_t2.mha", smooth(T2_SHAPE, 2), moved)
    assert message in dict(faults(raw, tmp_path))["a"]


def test_overlap_counts_where_the_segment_is(raw, tmp_path):
    moved = T2_AFFINE.copy()
    moved[2, 3] += 20.0  # T2 ends at row 30 of 40
    mini.write_mha(raw / "a_t2.mha", smooth(T2_SHAPE, 2), moved)
    assert package(raw, tmp_path).studies[0]["label"] == 1
    edit(raw / "studies.csv", 0, row0="30", row1="40")
    with pytest.raises(UserError, match="of the surroundings of the segment"):
        package(raw, tmp_path / "low")


@pytest.mark.parametrize("name", ["t1", "t2"])
def test_slices_that_are_not_sagittal_are_refused(raw, tmp_path, name):
    axial = np.diag([-1.5, -1.5, 4.0, 1])
    file = {"t1": "a_t1.nii.gz", "t2": "a_t2.nii.gz"}[name]
    mini.write_nifti(raw / file, smooth(T1_SHAPE, 1).transpose(1, 2, 0), axial)
    edit(raw / "studies.csv", 0, **{name: file})
    assert f"the slices of this {name} are not sagittal" in dict(faults(raw, tmp_path))["a"]


def test_one_image_under_two_names_is_refused(raw, tmp_path):
    mini.write_mha(raw / "a_t2.mha", *turned(smooth(T1_SHAPE, 1), T1_AFFINE))
    assert "holds the same image as" in dict(faults(raw, tmp_path))["a"]


def test_pngs_of_two_sizes_cannot_be_matched(raw, tmp_path):
    Image.fromarray(np.zeros((40, 31), np.uint8)).save(raw / "c_t2.png")
    assert "two PNGs of equal size" in dict(faults(raw, tmp_path))["c"]


def test_a_mask_on_another_grid_is_refused(raw, tmp_path):
    mini.write_mha(raw / "b_box.mha", np.ones(T2_SHAPE, np.uint8), T2_AFFINE)
    assert "not on the grid of its image" in dict(faults(raw, tmp_path))["b"]


def write_dicom(folder, data, frame):
    folder.mkdir()
    series = generate_uid()
    for k, pixels in enumerate(data):
        dataset = Dataset()
        dataset.file_meta = FileMetaDataset()
        dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        dataset.SOPClassUID, dataset.SOPInstanceUID = "1.2.840.10008.5.1.4.1.1.4", generate_uid()
        dataset.Modality, dataset.Manufacturer, dataset.MagneticFieldStrength = "MR", "Acme", "3"
        dataset.SeriesInstanceUID, dataset.FrameOfReferenceUID = series, frame
        dataset.Rows, dataset.Columns = pixels.shape
        dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
        dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 16, 16, 15
        dataset.PixelRepresentation = 0
        dataset.ImagePositionPatient = [-10.0 + 4 * k, -20.0, 30.0]  # L, P, S: T1_AFFINE
        dataset.ImageOrientationPatient = [0, 1, 0, 0, 0, -1]
        dataset.PixelSpacing, dataset.SliceThickness = [1.5, 1.5], "4"
        dataset.PixelData = pixels.astype(np.uint16).tobytes()
        dataset.save_as(folder / f"{k}.dcm", enforce_file_format=True)


@pytest.mark.parametrize("same", [True, False])
def test_dicom_series_must_share_their_frame_of_reference(raw, tmp_path, same):
    write_dicom(raw / "t1", smooth(T1_SHAPE, 1), "1.2.3")
    write_dicom(raw / "t2", smooth(T1_SHAPE, 2), "1.2.3" if same else "1.2.4")
    edit(raw / "studies.csv", 0, t1="t1", t2="t2")
    if not same:
        assert "different frames of reference" in dict(faults(raw, tmp_path))["a"]
        return
    study = package(raw, tmp_path).studies[0]
    np.testing.assert_array_equal(study["t1"], smooth(T1_SHAPE, 1))
    np.testing.assert_array_equal(study["t2"], smooth(T1_SHAPE, 2))
    np.testing.assert_allclose(study["affine"], T1_AFFINE)
    assert (study["manufacturer"], study["field_strength_t"]) == ("Acme", 3.0)


@pytest.mark.parametrize("table", ["studies.csv", "readers.csv", "findings.csv"])
def test_empty_or_broken_table(raw, tmp_path, table):
    text = (raw / table).read_text()
    (raw / table).write_text(text.splitlines()[0] + "\n")
    assert "has a header but no rows" in dict(faults(raw, tmp_path))[table]
    (raw / table).write_bytes(b"\xff\xfe\x00")
    assert "is not text" in dict(faults(raw, tmp_path))[table]


@pytest.mark.parametrize("value", [1, 7, 255])
def test_whatever_is_not_0_in_a_mask_is_the_segment(raw, tmp_path, value):
    mask = np.zeros(T1_SHAPE, np.uint8)
    mask[3, 11:21, 6:18] = value
    mini.write_mha(raw / "b_box.mha", *turned(mask, T1_AFFINE, (2, 0, 1)))
    b = package(raw, tmp_path).studies[1]
    assert (b["slice"], b["box"].tolist()) == (3, [11, 6, 21, 18])


def test_one_reader_under_two_names_is_refused(raw, tmp_path):
    edit(raw / "readers.csv", 1, reader="Senior")
    ((where, why),) = faults(raw, tmp_path)
    assert where == "readers.csv"
    assert "reader 'Senior' and 'senior' differ only in how they are written" in why


@pytest.mark.parametrize("table", ["readers.csv", "findings.csv"])
def test_ids_that_a_program_has_read_as_numbers(raw, tmp_path, table):
    for name in ("studies.csv", "readers.csv", "findings.csv"):
        with (raw / name).open(newline="") as file:
            rows = list(csv.DictReader(file))
        for row in rows:
            number = 12 + "abc".index(row["study_id"])
            row["study_id"] = f"{number}.0" if name == table else str(number)
        mini.write_csv(raw / name, list(rows[0]), [list(row.values()) for row in rows])
    found = faults(raw, tmp_path)
    assert {where for where, _ in found} == {f"{table}, line {n}" for n in range(2, 2 + len(found))}
    assert "study_id '12.0' is not in studies.csv; '12' is, and '12.0' looks like it" in found[0][1]
