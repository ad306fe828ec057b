"""A user's own Y-views: the documented layout, oblique series, and each kind of bad input."""

import csv
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from builders import mini_spine as mini
from PIL import Image

from mskjax.data.cohorts import prepare_cohort
from mskjax.errors import BadCases
from mskjax.imaging.files import read_volume
from mskjax.imaging.volume import Volume

COLUMNS = [
    "patient_id", "study_id", "image", "mask", "grade", "side", "slice", "pixel_mm", "sex", "age",
    "subset", "sequence", "manufacturer", "field_strength_t",
]  # fmt: skip
SHAPE = (5, 12, 10)
SHARED = Path(os.environ.get("MSKJAX_SHARED", Path(__file__).resolve().parents[2] / "../shared"))
HITACHI = SHARED / "data" / "scanner_files" / "shoulder_series_hitachi"


def plane(side, degrees, tilt=0.0, roll=0.0):
    """(3, 3) directions left, down and back of a Y-view turned by `degrees` from sagittal."""
    outwards = -1 if side == "left" else 1
    a, t, r = np.deg2rad([degrees, tilt, roll])
    lateral = np.array([outwards * np.cos(a), np.sin(a), 0])
    back = np.array([outwards * np.sin(a), -np.cos(a), 0])
    down = np.array([0.0, 0, -1])
    lateral, down = np.cos(t) * lateral + np.sin(t) * down, np.cos(t) * down - np.sin(t) * lateral
    down, back = np.cos(r) * down + np.sin(r) * back, np.cos(r) * back - np.sin(r) * down
    return np.column_stack([lateral * (1 if side == "left" else -1), down, back])


def canonical(side="left", degrees=38.0, shape=SHAPE, seed=0, spacing=(4.0, 0.6, 0.5), **turn):
    affine = np.eye(4)
    affine[:3, :3] = plane(side, degrees, **turn) * spacing
    affine[:3, 3] = (20, -7, 45)
    data = np.random.default_rng(seed).integers(1, 900, shape).astype(np.int16)
    return Volume(data, affine)


def fossa(shape=SHAPE, number=2):
    mask = np.zeros(shape, np.uint8)
    mask[number, 3:7, 2:8] = 1
    return mask


def stored(volume, order=(0, 1, 2), flips=(False, False, False)):
    """The volume with its axes permuted, then some reversed."""
    step = np.eye(4)[:, [*order, 3]]
    data = volume.data.transpose(order)
    for axis, flip in enumerate(flips):
        if flip:
            reverse = np.eye(4)
            reverse[axis, axis], reverse[axis, 3] = -1, data.shape[axis] - 1
            data, step = np.flip(data, axis), step @ reverse
    return Volume(data, volume.affine @ step)


def save(path, volume):
    mini.write_nifti(path, np.ascontiguousarray(volume.data), volume.affine)


def row(study, image, mask="", grade="", **values):
    given = {"patient_id": f"p_{study}", "study_id": study, "image": image, "mask": mask}
    given |= {"grade": grade, "sex": "F"} | values
    return [given.get(name, "") for name in COLUMNS]


@pytest.fixture
def raw(tmp_path):
    """a: series in a scanner's order; b: PNG; c: one image, no mask; d: MetaImage, no grade."""
    root = tmp_path / "raw"
    dicom_like = (2, 1, 0), (False, False, True)
    save(root / "a.nii.gz", stored(canonical(), *dicom_like))
    save(root / "a_seg.nii.gz", stored(Volume(fossa(), canonical().affine), *dicom_like))
    Image.fromarray(canonical(seed=1).data[0].astype(np.uint8)).save(root / "b.png")
    Image.fromarray(fossa()[2]).save(root / "b_seg.png")
    single = canonical("right", shape=(1, 12, 10), seed=2)
    save(root / "c.nii.gz", single)
    mini.write_mha(root / "d.mha", single.data[:, ::-1], single.affine)
    mini.write_mha(root / "d_seg.mha", fossa()[2:3], single.affine)
    mini.write_csv(root / "studies.csv", COLUMNS, [
        row("a", "a.nii.gz", "a_seg.nii.gz", "3", side="left", slice="2", age="61", sequence="t2"),
        row("b", "b.png", "b_seg.png", "0", pixel_mm="0.4", manufacturer="Acme", sex="M"),
        row("c", "c.nii.gz", "", "4.0", side="right", field_strength_t="1.5", subset="training"),
        row("d", "d.mha", "d_seg.mha", "", sex="", slice="0"),
        row("e", "c.nii.gz"),
    ])  # fmt: skip
    return root


def package(raw, tmp_path):
    return prepare_cohort("fatty_infiltration", "cohort", tmp_path / "data", raw)


def faults(raw, tmp_path):
    with pytest.raises(BadCases) as caught:
        package(raw, tmp_path)
    assert not (tmp_path / "data").exists()
    return list(caught.value.cases)


def edit(raw, number, **values):
    path = raw / "studies.csv"
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    rows[number] |= values
    mini.write_csv(path, list(rows[0]), [list(r.values()) for r in rows])


def test_images_and_masks_come_back_upright_on_their_own_grid(raw, tmp_path):
    cohort = package(raw, tmp_path)
    assert [study for _, study in cohort.index] == ["a", "b", "c", "d"]
    a, b, c, d = cohort.studies
    # Slice 2 as stored is the third from the other end, for the file's slices run to the right.
    number = SHAPE[0] - 1 - 2
    np.testing.assert_array_equal(a["image"], canonical().data[number : number + 1])
    np.testing.assert_array_equal(a["mask"], fossa()[number : number + 1])
    expected = canonical().affine.copy()
    expected[:3, 3] += number * expected[:3, 0]
    np.testing.assert_allclose(a["affine"], expected, atol=1e-4)
    np.testing.assert_array_equal(b["image"][0], canonical(seed=1).data[0].astype(np.uint8))
    np.testing.assert_array_equal(b["mask"][0], fossa()[2])
    np.testing.assert_allclose(np.linalg.norm(b["affine"][:3, 1:3], axis=0), 0.4)
    single = canonical("right", shape=(1, 12, 10), seed=2)
    for study, data in ((c, single.data), (d, single.data[:, ::-1])):
        np.testing.assert_array_equal(study["image"], data)
        np.testing.assert_allclose(study["affine"], single.affine, atol=1e-4)
    np.testing.assert_array_equal(d["mask"], fossa()[2:3])


def test_grades_metadata_and_what_is_kept_for_one_stage_only(raw, tmp_path):
    cohort = package(raw, tmp_path)
    a, b, c, d = cohort.studies
    assert [int(s["grade"]) for s in cohort.studies] == [3, 0, 4, -1]
    assert [bool(s["has_mask"]) for s in cohort.studies] == [True, True, False, True]
    assert not c["mask"].any()
    assert (a["side"], c["side"], b["side"]) == ("left", "right", "")
    assert (a["sex"], a["age"], a["sequence"]) == ("F", 61.0, "t2")
    assert (b["sex"], b["manufacturer"], c["subset"]) == ("M", "Acme", "training")
    assert c["field_strength_t"] == 1.5
    assert np.isnan([b["age"], a["field_strength_t"]]).all()
    assert (d["sex"], d["subset"]) == ("", "")
    audit = cohort.audit
    assert list(audit["excluded"]) == [{"id": "e", "why": "it has neither mask nor grade"}]
    assert {(e["id"], e["why"]) for e in audit["restricted"]} == {
        ("c", "kept for grading only: it has no mask"),
        ("d", "kept for segmentation only: it is not graded"),
    }
    assert audit["parts"] == {
        "image": {"patients": 4, "studies": 4},
        "mask": {"patients": 3, "studies": 3},
        "grade": {"patients": 3, "studies": 3},
    }
    assert cohort.audit["counts"] == {"goutallier": {"0": 1, "3": 1, "4": 1}}


def test_optional_columns_may_be_absent_and_others_are_noted(raw, tmp_path):
    rows = [["p", "b", "b.png", "b_seg.png", "2", "x"]]
    header = ["patient_id", "study_id", "image", "mask", "grade", "pixel_size"]
    mini.write_csv(raw / "studies.csv", header, rows)
    cohort = package(raw, tmp_path)
    (b,) = cohort.studies
    np.testing.assert_allclose(np.linalg.norm(b["affine"][:3, 1:3], axis=0), 1.0)
    assert "studies.csv: columns not used: pixel_size" in cohort.audit["notes"]


@pytest.mark.parametrize(
    ("changes", "where", "message"),
    [
        (
            (0, {"grade": "5"}),
            "studies.csv, line 2",
            "grade is '5'; it must be a whole number, 0 to 4",
        ),
        ((1, {"grade": "2b"}), "studies.csv, line 3", "grade is '2b'; it must be a whole number"),
        ((1, {"grade": "2.5"}), "studies.csv, line 3", "grade is '2.5'; it must be a whole number"),
        ((0, {"grade": "-1"}), "studies.csv, line 2", "grade is '-1'; it must be a whole number"),
        ((0, {"patient_id": " "}), "studies.csv, line 2", "study 'a' has no patient_id"),
        ((1, {"study_id": "a"}), "studies.csv, line 3", "study_id 'a' occurs twice"),
        ((1, {"study_id": "a/b"}), "studies.csv, line 3", "study_id is 'a/b'; it names files"),
        ((0, {"side": "L"}), "studies.csv, line 2", "side is 'L'; it must be left, right or empty"),
        ((1, {"patient_id": "p_a"}), "studies.csv, line 3", "patient 'p_a' has sex 'F' and 'M'"),
        (
            (3, {"patient_id": "p_c"}),
            "studies.csv, line 5",
            "patient 'p_c' has subset 'training' and ''; a patient has one",
        ),
        ((0, {"subset": "test"}), "studies.csv, line 2", "subset is 'test'; it must be training"),
        ((1, {"pixel_mm": "0"}), "studies.csv, line 3", "must be a number, 0.05 to 20"),
        ((0, {"image": ""}), "studies.csv, line 2", "study 'a' has no image; fill in its path"),
        ((0, {"image": "gone.nii"}), "studies.csv, line 2", "gone.nii, does not exist; check"),
        ((0, {"mask": "gone.nii"}), "studies.csv, line 2", "the mask of study 'a'"),
        ((0, {"mask": "m" * 300}), "studies.csv, line 2", "does not exist; check the path"),
        ((0, {"slice": "first"}), "studies.csv, line 2", "slice is 'first'; it must be a whole"),
        ((0, {"slice": ""}), "a", "has 5 slices and it is not said which is the Y-view; give"),
        ((0, {"slice": "5"}), "a", "slice is 5, but the file has 5; it must be 0 to 4"),
        ((3, {"slice": "1"}), "d", "slice is 1, but the file has 1"),
        ((0, {"slice": "1"}), "a", "the mask shows no fossa in slice 1"),
        ((0, {"mask": "d_seg.mha"}), "a", "the mask is not on the grid of its image"),
        ((0, {"mask": "c.nii.gz"}), "a", "the mask is not on the grid of its image"),
        ((3, {"mask": "d.mha"}), "d", "d.mha: image and mask are the same; name two files"),
    ],
)  # fmt: skip
def test_each_fault_is_one_clear_sentence(raw, tmp_path, changes, where, message):
    edit(raw, changes[0], **changes[1])
    ((found, why),) = faults(raw, tmp_path)
    assert found == where
    assert message in why


def test_faults_of_tables_and_files_are_listed_together(raw, tmp_path):
    edit(raw, 0, grade="7", side="both", mask="gone.nii")
    edit(raw, 2, study_id="d")
    mini.write_mha(raw / "d_seg.mha", 2 * fossa()[2:3], canonical("right").affine)
    Image.fromarray(np.zeros(SHAPE[1:], np.uint8)).save(raw / "b_seg.png")
    found = faults(raw, tmp_path)
    assert [where for where, _ in found] == [
        *["studies.csv, line 2"] * 3, "studies.csv, line 5", "b",
    ]  # fmt: skip
    text = " ".join(why for _, why in found)
    for part in ("gone.nii", "'7'", "'both'", "study_id 'd' occurs twice", "shows no fossa"):
        assert part in text
    edit(raw, 2, study_id="c")
    edit(raw, 0, grade="3", side="", mask="a_seg.nii.gz")
    found = dict(faults(raw, tmp_path))
    assert found.keys() == {"b", "d"}
    assert "unknown label 2; this mask may hold 0, 1" in found["d"]


def test_a_cohort_without_any_mask_is_refused(raw, tmp_path):
    for number in range(5):
        edit(raw, number, mask="", grade="" if number else "9")
    found = dict(faults(raw, tmp_path))
    assert "no study has a mask" in found["studies.csv"]
    assert "grade is '9'" in found["studies.csv, line 2"]


def test_missing_columns_or_table(raw, tmp_path):
    mini.write_csv(raw / "studies.csv", ["patient_id", "study_id", "image"], [["p", "a", "b.png"]])
    ((where, why),) = faults(raw, tmp_path)
    assert (where, "lacks the column mask, grade" in why) == ("studies.csv", True)
    (raw / "studies.csv").unlink()
    assert "is missing; it needs the columns" in faults(raw, tmp_path)[0][1]


@pytest.mark.skipif(not HITACHI.is_dir(), reason=f"no scanner files at {HITACHI}")
def test_an_oblique_dicom_series_of_a_scanner(raw, tmp_path):
    shutil.copytree(HITACHI, raw / "series")
    series = read_volume(raw / "series")
    labels = np.zeros(series.data.shape, np.uint8)
    labels[20:30, 10:16, 3] = 1
    save(raw / "seg.nii.gz", Volume(labels, series.affine))
    rows = [row("h", "series", "seg.nii.gz", "1", slice="3")]
    mini.write_csv(raw / "studies.csv", COLUMNS, rows)
    (h,) = package(raw, tmp_path).studies
    # The scanner's columns run backwards to the left, so transposing suffices.
    np.testing.assert_array_equal(h["image"][0], series.data[:, :, 3].T)
    np.testing.assert_array_equal(h["mask"][0], labels[:, :, 3].T)
    np.testing.assert_allclose(h["affine"][:3, 1:3], series.affine[:3, [1, 0]], atol=1e-4)
    assert h["manufacturer"] == "Hitachi Medical Corporation"
