"""A user's own series: the documented layout, oblique geometry, and each kind of bad input."""

import csv
import itertools
import shutil

import nibabel as nib
import numpy as np
import pytest
from builders import mini_spine as mini
from PIL import Image

from mskjax.data.cohorts import prepare_cohort
from mskjax.errors import BadCases, UserError
from mskjax.imaging.planes import display_axes
from mskjax.imaging.volume import Volume

COLUMNS = [
    "patient_id", "study_id", "image", "mask", "humerus", "scapula", "side", "sex", "age",
    "manufacturer", "field_strength_t", "sequence", "subset",
]  # fmt: skip
SHAPE = (6, 14, 11)
# Directions of axes 0, 1 and 2 in RAS, and the pitch.
PLANES = {
    "axial": ([(0, 0, -1), (0, -1, 0), (-1, 0, 0)], "IPL"),
    "coronal": ([(0, -1, 0), (0, 0, -1), (-1, 0, 0)], "PIL"),
    "sagittal": ([(-1, 0, 0), (0, 0, -1), (0, -1, 0)], "LIP"),
}


def turned(degrees):
    """(3, 3) rotation about x, then y, then z."""
    matrix = np.eye(3)
    for axis, angle in enumerate(np.deg2rad(degrees)):
        i, j = (axis + 1) % 3, (axis + 2) % 3
        step = np.eye(3)
        step[i, i] = step[j, j] = np.cos(angle)
        step[j, i] = np.sin(angle)
        step[i, j] = -step[j, i]
        matrix = step @ matrix
    return matrix


def series(plane="axial", degrees=(0, 0, 0), seed=0, shape=SHAPE, spacing=(3.5, 0.6, 0.5)):
    affine = np.eye(4)
    affine[:3, :3] = turned(degrees) @ np.array(PLANES[plane][0], float).T * spacing
    affine[:3, 3] = (150, -20, 45)
    data = np.random.default_rng(seed).integers(1, 900, shape).astype(np.int16)
    return Volume(data, affine)


def bones(shape=SHAPE):
    mask = np.zeros(shape, np.uint8)
    mask[1:5, 3:9, 1:5] = 1
    mask[2:5, 4:12, 6:10] = 2
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


def row(study, image, **values):
    given = {"patient_id": f"p_{study}", "study_id": study, "image": image, **values}
    return [given.get(name, "") for name in COLUMNS]


A = series("axial", (6, -4, 3))
B = series("coronal", (5, 0, -38), seed=1)
C = series("sagittal", (0, 8, 12), seed=2)


@pytest.fixture
def raw(tmp_path):
    """a: labels, stored as a scanner does; b: two masks; c: humerus only; d: nothing outlined."""
    root = tmp_path / "raw"
    scanner = (2, 1, 0), (False, True, True)
    save(root / "a.nii.gz", stored(A, *scanner))
    save(root / "a_bones.nii.gz", stored(A.with_data(bones()), *scanner))
    mini.write_mha(root / "b.mha", B.data, B.affine)
    mini.write_mha(root / "b_humerus.mha", (bones() == 1).astype(np.uint8), B.affine)
    save(root / "b_scapula.nii.gz", stored(B.with_data((bones() == 2).astype(np.uint8)), *scanner))
    save(root / "c.nii.gz", C)
    save(root / "c_humerus.nii.gz", C.with_data((bones() == 1).astype(np.uint8)))
    mini.write_csv(root / "studies.csv", COLUMNS, [
        row("a", "a.nii.gz", mask="a_bones.nii.gz", side="left", sex="F", age="41",
            sequence="pd", subset="training"),
        row("b", "b.mha", humerus="b_humerus.mha", scapula="b_scapula.nii.gz", side="right",
            sex="M", manufacturer="Acme", field_strength_t="1.5", subset="validation"),
        row("c", "c.nii.gz", humerus="c_humerus.nii.gz", subset="training"),
        row("d", "c.nii.gz"),
    ])  # fmt: skip
    return root


def package(raw, tmp_path):
    return prepare_cohort("shoulder_bones", "cohort", tmp_path / "data", raw)


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


def test_both_styles_of_masks_come_back_on_the_display_axes(raw, tmp_path):
    cohort = package(raw, tmp_path)
    assert cohort.index == (("p_a", "a"), ("p_b", "b"), ("p_c", "c"))
    humerus = np.where(bones() == 1, 1, 0)
    for study, image, mask in zip(
        cohort.studies, (A, B, C), (bones(), bones(), humerus), strict=True
    ):
        np.testing.assert_array_equal(study["image"], image.data)
        np.testing.assert_array_equal(study["mask"], mask)
        np.testing.assert_allclose(study["affine"], image.affine, atol=1e-4)
        assert study["has_mask"]


def test_metadata_and_what_is_left_out(raw, tmp_path):
    cohort = package(raw, tmp_path)
    a, b, c = cohort.studies
    assert (a["side"], a["sex"], a["age"], a["sequence"]) == ("left", "F", 41.0, "pd")
    assert (b["manufacturer"], b["field_strength_t"], b["subset"]) == ("Acme", 1.5, "validation")
    assert (c["side"], c["sex"], c["sequence"], c["subset"]) == ("", "", "", "training")
    assert np.isnan([b["age"], a["field_strength_t"]]).all()
    assert cohort.audit["cases"] == 5
    assert cohort.audit["counts"] == {"structure": {"1": 3, "2": 2}}
    assert list(cohort.audit["excluded"]) == [{"id": "d", "why": "it has no mask"}]
    assert list(cohort.audit["restricted"]) == [
        {"id": "c/scapula", "why": "the series counts as without: it has no mask of it"}
    ]


def test_labels_without_a_scapula_are_kept_and_listed(raw, tmp_path):
    save(raw / "a_bones.nii.gz", A.with_data(np.where(bones() == 1, 1, 0).astype(np.uint8)))
    save(raw / "a.nii.gz", A)
    cohort = package(raw, tmp_path)
    assert set(np.unique(cohort.studies[0]["mask"])) == {0, 1}
    why = {e["id"]: e["why"] for e in cohort.audit["restricted"]}["a/scapula"]
    assert why == "the series counts as without: its mask has no label 2"


def test_optional_columns_may_be_absent_and_others_are_noted(raw, tmp_path):
    header = ["patient_id", "study_id", "image", "humerus", "scapula", "weight"]
    rows = [["p", "b", "b.mha", "b_humerus.mha", "b_scapula.nii.gz", "70"]]
    mini.write_csv(raw / "studies.csv", header, rows)
    cohort = package(raw, tmp_path)
    np.testing.assert_array_equal(cohort.studies[0]["mask"], bones())
    assert "studies.csv: columns not used: weight" in cohort.audit["notes"]


@pytest.mark.parametrize(
    ("number", "changes", "where", "message"),
    [
        (0, {"patient_id": " "}, "studies.csv, line 2", "study 'a' has no patient_id; fill it in"),
        (1, {"study_id": "a"}, "studies.csv, line 3", "study_id 'a' occurs twice"),
        (1, {"study_id": "a/b"}, "studies.csv, line 3", "study_id is 'a/b'; it names files"),
        (0, {"image": ""}, "studies.csv, line 2", "study 'a' has no image; fill in its path"),
        (0, {"image": "gone.nii"}, "studies.csv, line 2", "gone.nii, does not exist; check"),
        (0, {"mask": "gone.nii"}, "studies.csv, line 2", "the mask of study 'a'"),
        (1, {"scapula": "gone.mha"}, "studies.csv, line 3", "the scapula of study 'b'"),
        (0, {"image": "a.png"}, "studies.csv, line 2", "a PNG is one slice without a place"),
        (0, {"side": "L"}, "studies.csv, line 2", "side is 'L'; it must be left, right or empty"),
        (0, {"subset": "test"}, "studies.csv, line 2", "subset is 'test'; it must be training"),
        (1, {"patient_id": "p_a", "subset": "training"}, "studies.csv, line 3",
         "patient 'p_a' has sex 'F' and 'M'"),
        (1, {"patient_id": "p_a", "sex": ""}, "studies.csv, line 3",
         "patient 'p_a' has subset 'training' and 'validation'; a patient has one"),
        (0, {"humerus": "b_humerus.mha"}, "studies.csv, line 2",
         "study 'a' has a mask and also humerus; give the mask of labels, or a mask for each bone"),
        (1, {"mask": "a_bones.nii.gz"}, "studies.csv, line 3", "and also humerus and scapula"),
        (1, {"humerus": ""}, "studies.csv, line 3", "study 'b' has a scapula but no humerus"),
        (0, {"mask": "c_humerus.nii.gz"}, "a", "the mask is not on the grid of its image"),
        (1, {"humerus": "a_bones.nii.gz"}, "b", "the mask is not on the grid of its image"),
        (0, {"mask": "a.nii.gz"}, "a", "a.nii.gz: image and mask are the same; name two"),
        (1, {"scapula": "b.mha"}, "b", "b.mha: image and mask are the same; name two files"),
        (1, {"scapula": "b_humerus.mha"}, "b",
         "96 voxels of the scapula are humerus too; a voxel belongs to one bone"),
    ],
)  # fmt: skip
def test_each_fault_is_one_clear_sentence(raw, tmp_path, number, changes, where, message):
    Image.fromarray(np.zeros((4, 4), np.uint8)).save(raw / "a.png")
    edit(raw, number, **changes)
    ((found, why),) = faults(raw, tmp_path)
    assert found == where
    assert message in why


@pytest.mark.parametrize(
    ("name", "volume", "kept", "study", "message"),
    [
        ("a_bones.nii.gz", A, 0, "a", "the mask shows no humerus (label 1)"),
        ("a_bones.nii.gz", A, 2, "a", "the mask shows no humerus (label 1)"),
        ("c_humerus.nii.gz", C, 0, "c", "the mask shows no humerus; check"),
        ("b_scapula.nii.gz", B, 0, "b", "the mask shows no scapula; check"),
    ],
)
def test_empty_structures_are_named(raw, tmp_path, name, volume, kept, study, message):
    save(raw / name, volume.with_data(np.where(bones() == kept, kept, 0).astype(np.uint8)))
    ((found, why),) = faults(raw, tmp_path)
    assert found == study
    assert name in why
    assert message in why


def test_faults_of_tables_are_listed_together_and_so_are_those_of_files(raw, tmp_path):
    edit(raw, 0, side="both", mask="gone.nii", subset="test")
    edit(raw, 2, study_id="b")
    found = faults(raw, tmp_path)
    assert [where for where, _ in found] == [*["studies.csv, line 2"] * 3, "studies.csv, line 4"]
    text = " ".join(why for _, why in found)
    for part in ("gone.nii", "'both'", "'test'", "study_id 'b' occurs twice"):
        assert part in text
    edit(raw, 0, side="", mask="c_humerus.nii.gz", subset="training")
    edit(raw, 1, humerus="a_bones.nii.gz", scapula="b.mha")
    edit(raw, 2, study_id="c")
    # Both masks of b are wrong: both are named.
    assert [where for where, _ in faults(raw, tmp_path)] == ["a", "b", "b"]


def test_missing_columns_or_table(raw, tmp_path):
    header = ["patient_id", "study_id", "image", "humerus"]
    mini.write_csv(raw / "studies.csv", header, [["p", "a", "a.nii.gz", ""]])
    ((where, why),) = faults(raw, tmp_path)
    assert where == "studies.csv"
    assert "lacks the masks; it needs the column mask, or the columns humerus and scapula" in why
    mini.write_csv(raw / "studies.csv", ["patient_id", "study_id"], [["p", "a"]])
    assert "lacks the column image" in faults(raw, tmp_path)[0][1]
    (raw / "studies.csv").unlink()
    assert "is missing; it needs the columns" in faults(raw, tmp_path)[0][1]


def test_a_cohort_without_any_mask_is_refused(raw, tmp_path):
    mini.write_csv(raw / "studies.csv", COLUMNS, [row("d", "c.nii.gz")])
    with pytest.raises(UserError, match="holds no study that can be packaged .d: it has no mask"):
        package(raw, tmp_path)


def test_a_moved_folder_is_the_same_cohort(raw, tmp_path):
    first = package(raw, tmp_path).audit
    moved = shutil.move(raw, tmp_path / "elsewhere")
    second = prepare_cohort("shoulder_bones", "cohort", tmp_path / "again", moved).audit
    assert first == second


@pytest.mark.parametrize("plane", PLANES)
@pytest.mark.parametrize("turn", [(0, 0, 0), (10, -8, 20), (-12, 6, -40), (20, 25, -15)])
def test_every_storage_order_of_an_oblique_series_is_turned(plane, turn):
    expected = series(plane, turn)
    for order in itertools.permutations(range(3)):
        for flips in itertools.product([False, True], repeat=3):
            found = display_axes(stored(expected, order, flips))
            np.testing.assert_array_equal(found.data, expected.data)
            np.testing.assert_allclose(found.affine, expected.affine, atol=1e-9)


@pytest.mark.parametrize("plane", PLANES)
def test_axes_point_where_they_should_and_meta_follows(plane):
    volume = stored(series(plane), (1, 2, 0), (True, False, True))
    found = display_axes(Volume(volume.data, volume.affine, {"manufacturer": "Acme"}))
    assert "".join(nib.aff2axcodes(found.affine)) == PLANES[plane][1]
    assert found.meta == {"manufacturer": "Acme", "slice_axis": 0}


@pytest.mark.parametrize("axis", range(3))
def test_without_a_coarse_axis_the_header_names_the_slices(axis):
    data = np.zeros((8, 9, 10))
    volume = Volume(data, np.eye(4), {"slice_axis": axis})
    found = display_axes(volume)
    assert "".join(nib.aff2axcodes(found.affine)) == ("LIP", "PIL", "IPL")[axis]
    assert len(found.data) == data.shape[axis]


def test_one_slice_is_its_own_axis_even_where_it_is_thin():
    single = series("coronal", (0, 5, 30), shape=(1, 12, 10), spacing=(0.2, 0.6, 0.5))
    for order in itertools.permutations(range(3)):
        np.testing.assert_array_equal(display_axes(stored(single, order)).data, single.data)


def test_masks_of_0_and_255_are_read_where_they_can_mean_one_bone_only(raw, tmp_path):
    mini.write_mha(raw / "b_humerus.mha", np.where(bones() == 1, 255, 0).astype(np.uint8), B.affine)
    cohort = package(raw, tmp_path)
    b = cohort.studies[1]
    np.testing.assert_array_equal(b["mask"], display_axes(B.with_data(bones())).data)
    (what,) = cohort.audit["file_notes"]
    assert what == "is a mask of 0 and 255; 255 is taken as label 1"
    assert list(cohort.audit["file_notes"][what]) == ["b_humerus.mha"]
    painted = A.with_data(np.where(bones() > 0, 255, 0).astype(np.uint8))
    save(raw / "a_bones.nii.gz", stored(painted, (2, 1, 0), (False, True, True)))
    ((where, why),) = faults(raw, tmp_path / "other")
    assert where == "a"
    assert "holds 0 and 255 only" in why
    assert "write the numbers of the labels, 1, 2" in why
