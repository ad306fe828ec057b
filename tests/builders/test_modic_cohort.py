"""A user's own paired T1 and T2: the documented layout, and each way of getting it wrong."""

import csv

import numpy as np
import pytest
from builders import mini_spine as mini
from PIL import Image

from mskjax.data.cohorts import prepare_cohort
from mskjax.errors import BadCases

STUDIES = ["patient_id", "study_id", "t1", "t2", "disc_mask", "sex", "age", "subset",
           "pixel_spacing_mm"]  # fmt: skip
DISCS = ["study_id", "level", "slice", "row0", "col0", "row1", "col1", "modic", "pfirrmann"]
# The discs of the miniature spine, from the lowest up.
BOXES = [(43, 4, 46, 16), (33, 4, 36, 16), (23, 4, 26, 16), (13, 4, 16, 16)]
T1_SHAPE = (5, 40, 36)
T1_AFFINE = np.array(  # finer columns, other rows, its own field of view
    [[-3.0, 0, 0, 13], [0, 0, -1.0, 21], [0, -2.5, 0, 31], [0, 0, 0, 1]]
)


def ramp(affine, shape=T1_SHAPE):
    """An image that says where it lies: linear in the millimetres of the scanner's space."""
    index = np.stack([*np.indices(shape), np.ones(shape)])
    x, y, z, _ = np.tensordot(affine, index, axes=1)
    return (500 + 3 * x - 2 * y + 4 * z).astype(np.float32)


def study_row(study, t1, t2, mask="", patient="p1", sex="F", age="61", subset="", spacing=""):
    return [patient, study, t1, t2, mask, sex, age, subset, spacing]


@pytest.fixture
def raw(tmp_path):
    """Studies a (NIfTI, boxes in numbers), b (MetaImage, instance labels), c (PNG pair)."""
    root = tmp_path / "raw"
    mini.write_nifti(root / "a_t1.nii.gz", ramp(T1_AFFINE), T1_AFFINE)
    mini.write_nifti(root / "a_t2.nii.gz", mini.image(1))
    turned = {"order": (1, 2, 0), "flips": (True, False, True)}
    mini.write_mha(root / "b_t2.mha", *mini.stored(mini.image(2), **turned))
    mini.write_mha(
        root / "b_t1.mha", ramp(T1_AFFINE).transpose(2, 0, 1) + 7, T1_AFFINE[:, [2, 0, 1, 3]]
    )
    labels = mini.instances()
    labels[labels == 203] = 0
    mini.write_mha(root / "b_discs.mha", *mini.stored(labels, **turned))
    Image.fromarray(mini.image(3)[1].astype(np.uint8)).save(root / "c_t1.png")
    Image.fromarray(mini.image(4)[1].astype(np.uint8)).save(root / "c_t2.png")
    mini.write_csv(root / "studies.csv", STUDIES, [
        study_row("a", "a_t1.nii.gz", "a_t2.nii.gz"),
        study_row("b", "b_t1.mha", "b_t2.mha", "b_discs.mha", patient="p2", sex="", age=""),
        study_row("c", "c_t1.png", "c_t2.png", spacing="0.8"),
    ])  # fmt: skip
    mini.write_csv(root / "discs.csv", DISCS, [
        *[["a", k, 1, *box, k - 1, 6 - k] for k, box in enumerate(BOXES, start=1)],
        ["b", 1, *[""] * 5, 2, 5], ["b", 3, *[""] * 5, 1, 2], ["b", 4, *[""] * 5, "", ""],
        ["c", 1, 0, *BOXES[0], 3, ""], ["c", 2, *[""] * 5, 0, "1"],
    ])  # fmt: skip
    return root


def package(raw, tmp_path):
    return prepare_cohort("modic_changes", "cohort", tmp_path / "data", raw)


def faults(raw, tmp_path):
    with pytest.raises(BadCases) as caught:
        package(raw, tmp_path)
    assert not (tmp_path / "data").exists()
    return dict(caught.value.cases)


def edit(path, row, **values):
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    rows[row] |= values
    mini.write_csv(path, list(rows[0]), [list(r.values()) for r in rows])


def test_every_format_lands_on_the_grid_of_t2(raw, tmp_path):
    cohort = package(raw, tmp_path)
    assert cohort.index == (("p1", "a"), ("p2", "b"), ("p1", "c"))
    a, b, c = cohort.studies
    expected = ramp(mini.AFFINE, mini.SHAPE)
    # T1 ends before T2 does, and is constant or empty beyond its outermost voxel centres.
    row, col = np.ogrid[: mini.SHAPE[1], : mini.SHAPE[2]]
    place = np.linalg.inv(T1_AFFINE) @ mini.AFFINE
    inside = [place[n, n] * i + place[n, 3] for n, i in ((1, row), (2, col))]
    inner = np.all(
        np.broadcast_arrays(
            *[(p >= 0) & (p <= n - 1) for p, n in zip(inside, T1_SHAPE[1:], strict=True)]
        ),
        axis=0,
    )
    assert 0.5 < inner.mean() < 1
    for study, seed, more in ((a, 1, 0), (b, 2, 7)):
        np.testing.assert_array_equal(study["t2"], mini.image(seed).astype(np.float32))
        np.testing.assert_allclose(study["affine"], mini.AFFINE, atol=1e-5)
        np.testing.assert_allclose(study["t1"][:, inner] - more, expected[:, inner], rtol=1e-4)
        assert study["has_t1"]
        assert study["has_boxes"]
    np.testing.assert_array_equal(c["t1"], mini.image(3)[1:2].astype(np.uint8))
    np.testing.assert_allclose(np.linalg.norm(c["affine"][:3, 1:3], axis=0), 0.8)


def test_boxes_and_grades_round_trip(raw, tmp_path):
    cohort = package(raw, tmp_path)
    a, b, c = (study["boxes"] for study in cohort.studies)
    assert a["level"].tolist() == [1, 2, 3, 4]
    np.testing.assert_array_equal(a["box"], BOXES)
    assert a["slice"].tolist() == [1] * 4
    assert a["boxed"].tolist() == [1] * 4
    assert a["modic"].tolist() == [0, 1, 2, 3]
    assert a["pfirrmann"].tolist() == [5, 4, 3, 2]
    assert a["narrowing"].tolist() == [-1] * 4
    assert b["level"].tolist() == [1, 2, 4]  # level 3 is graded, but not in the mask
    np.testing.assert_array_equal(b["box"], [BOXES[0], BOXES[1], BOXES[3]])
    assert b["modic"].tolist() == [2, -1, -1]
    assert c["boxed"].tolist() == [1, 0]
    np.testing.assert_array_equal(c["box"], [BOXES[0], (0, 0, 0, 0)])
    assert c["pfirrmann"].tolist() == [-1, 1]
    audit = cohort.audit
    assert audit["cases"] == 4 + 1 + 2
    assert audit["counts"]["modic"] == {"0": 2, "1": 1, "2": 2, "3": 2}
    assert not audit["excluded"]
    assert list(audit["restricted"]) == [
        {"id": "b/L3", "why": "level 3 is graded, but the mask does not show it"}
    ]


def test_metadata(raw, tmp_path):
    a, b, _ = package(raw, tmp_path).studies
    assert (a["sex"], a["age"], a["subset"], a["manufacturer"]) == ("F", 61.0, "", "")
    assert b["sex"] == ""
    assert np.isnan(b["age"])
    assert np.isnan(b["field_strength_t"])


def test_a_mask_of_plain_levels(raw, tmp_path):
    labels = mini.instances()
    plain = np.where(labels > 200, labels - 200, 0).astype(np.uint8)
    mini.write_nifti(raw / "discs.nii.gz", plain)
    edit(raw / "studies.csv", 1, disc_mask="discs.nii.gz")
    boxes = package(raw, tmp_path).studies[1]["boxes"]
    np.testing.assert_array_equal(boxes["box"], BOXES)
    assert boxes["modic"].tolist() == [2, -1, 1, -1]


def test_a_study_that_is_boxed_but_not_graded_is_kept_and_listed(raw, tmp_path):
    with (raw / "discs.csv").open(newline="") as file:
        rows = [r for r in csv.reader(file) if r[0] != "b"]
    mini.write_csv(raw / "discs.csv", rows[0], rows[1:])
    cohort = package(raw, tmp_path)
    assert {"id": "b", "why": "kept for detection only: it is not graded"} in list(
        cohort.audit["restricted"]
    )
    assert cohort.studies[1]["boxes"]["level"].tolist() == [1, 2, 4]


def test_columns_that_are_not_read_are_noted(raw, tmp_path):
    text = (raw / "discs.csv").read_text()
    (raw / "discs.csv").write_text(text.replace("pfirrmann", "pfirrman"))
    notes = package(raw, tmp_path).audit["notes"]
    assert "discs.csv: columns not used: pfirrman (did you mean 'pfirrmann'?)" in notes


@pytest.mark.parametrize(
    ("table", "row", "values", "where", "message"),
    [
        ("studies", 0, {"patient_id": " "}, "studies.csv, line 2", "study 'a' has no patient_id"),
        ("studies", 1, {"study_id": "a"}, "studies.csv, line 3", "study_id 'a' occurs twice"),
        ("studies", 0, {"study_id": "a/b"}, "studies.csv, line 2", "study_id is 'a/b'"),
        ("studies", 0, {"t2": ""}, "studies.csv, line 2", "study 'a' has no t2; fill in its path"),
        ("studies", 0, {"t1": ""}, "studies.csv, line 2", "study 'a' has no t1; fill in its path"),
        ("studies", 0, {"t1": "gone.mha"}, "studies.csv, line 2", "does not exist"),
        ("studies", 1, {"disc_mask": "gone.mha"}, "studies.csv, line 3", "does not exist"),
        ("studies", 0, {"t1": "a_t2.nii.gz"}, "studies.csv, line 2", "as its t1 and its t2"),
        ("studies", 0, {"disc_mask": "b_discs.mha"}, "studies.csv, line 2", "keep one way"),
        ("studies", 2, {"subset": "training"}, "studies.csv, line 4", "must be on one side"),
        ("studies", 2, {"subset": "test"}, "studies.csv, line 4", "subset is 'test'"),
        ("studies", 2, {"t1": "a_t1.nii.gz"}, "c", "a PNG does not say where it lies"),
        ("discs", 0, {"modic": "4"}, "discs.csv, line 2", "modic is '4'; it must be a whole"),
        ("discs", 0, {"modic": "II"}, "discs.csv, line 2", "modic is 'II'"),
        ("discs", 0, {"pfirrmann": "6"}, "discs.csv, line 2", "a whole number, 1 to 5"),
        ("discs", 0, {"level": "0"}, "discs.csv, line 2", "level is '0'"),
        ("discs", 1, {"level": "1"}, "discs.csv, line 3", "study 'a', level 1 occurs twice"),
        ("discs", 0, {"study_id": "z"}, "discs.csv, line 2", "study_id 'z' is not in studies.csv"),
        ("discs", 0, {"row1": ""}, "discs.csv, line 2", "the box lacks row1"),
        ("discs", 0, {"row1": "43"}, "a", "the box is empty: rows 43 to 43, columns 4 to 16"),
        ("discs", 0, {"col0": "16"}, "a", "the box is empty: rows 43 to 46, columns 16 to 16"),
        ("discs", 0, {"col1": "25"}, "a", "leaves the T2 slice of 48 rows and 24 columns"),
        ("discs", 0, {"row0": "-1"}, "a", "leaves the T2 slice"),
        ("discs", 0, {"slice": "3"}, "a", "slice is 3; T2 has the slices 0 to 2"),
        ("discs", 0, {"row0": "30", "row1": "33"}, "a", "does not lie above level 1"),
    ],
)  # fmt: skip
def test_each_fault_is_one_clear_sentence(raw, tmp_path, table, row, values, where, message):
    edit(raw / f"{table}.csv", row, **values)
    assert message in faults(raw, tmp_path)[where]


def test_a_patient_without_a_disc(raw, tmp_path):
    with (raw / "discs.csv").open(newline="") as file:
        rows = [r for r in csv.reader(file) if r[0] != "c"]
    mini.write_csv(raw / "discs.csv", rows[0], rows[1:])
    mini.write_mha(
        raw / "b_discs.mha", *mini.stored(np.zeros(mini.SHAPE, np.uint8), order=(1, 2, 0),
                                          flips=(True, False, True))
    )  # fmt: skip
    found = faults(raw, tmp_path)
    assert "study 'c' has no disc: discs.csv has no row of it" in found["studies.csv, line 4"]
    assert "the mask shows no disc" in found["b"]


def test_t1_and_t2_that_do_not_match(raw, tmp_path):
    far = T1_AFFINE.copy()
    far[0, 3] += 300
    mini.write_nifti(raw / "a_t1.nii.gz", ramp(T1_AFFINE), far)
    below = T1_AFFINE.copy()
    below[2, 3] -= 70  # shows the lowest disc alone
    mini.write_mha(raw / "b_t1.mha", ramp(T1_AFFINE), below)
    (raw / "c_t1.png").write_bytes((raw / "c_t2.png").read_bytes())
    found = faults(raw, tmp_path)
    assert "do not overlap; check that they are of one study" in found["a"]
    assert "of the region of the discs" in found["b"]
    assert "50% are needed" in found["b"]
    assert "holds the same image as" in found["c"]


def test_faulty_masks(raw, tmp_path):
    labels = mini.instances()
    labels[0, 0, 0] = 60
    mini.write_nifti(raw / "discs.nii.gz", labels.astype(np.int16))
    edit(raw / "studies.csv", 1, disc_mask="discs.nii.gz")
    assert "unknown label 60; an instance mask" in faults(raw, tmp_path)["b"]
    mini.write_nifti(raw / "discs.nii.gz", np.full(mini.SHAPE, 26, np.uint8))
    assert "a mask of disc levels holds 0 to 25 (1 the lowest disc)" in faults(raw, tmp_path)["b"]
    mini.write_nifti(raw / "discs.nii.gz", np.where(mini.semantic() == 2, 255, 0).astype(np.uint8))
    assert "save a mask as 255): write the level of each disc" in faults(raw, tmp_path)["b"]
    mini.write_nifti(raw / "discs.nii.gz", np.ones((3, 48, 23), np.uint8))
    assert "not on the grid of its image" in faults(raw, tmp_path)["b"]


def test_axial_series_is_refused(raw, tmp_path):
    axial = np.diag([-1.5, -1.5, 4.0, 1])
    mini.write_nifti(raw / "a_t1.nii.gz", mini.image(1).transpose(1, 2, 0), axial)
    assert "the slices of this t1 are not sagittal" in faults(raw, tmp_path)["a"]


@pytest.mark.parametrize("table", ["studies.csv", "discs.csv"])
def test_missing_empty_or_broken_table(raw, tmp_path, table):
    text = (raw / table).read_text()
    (raw / table).write_text(text.splitlines()[0] + "\n")
    assert "has a header but no rows" in faults(raw, tmp_path)[table]
    (raw / table).write_text("study_id\na\n")
    assert "lacks the column" in faults(raw, tmp_path)[table]
    (raw / table).unlink()
    assert "is missing; it needs the columns" in faults(raw, tmp_path)[table]


def test_all_faults_are_listed_together(raw, tmp_path):
    edit(raw / "studies.csv", 0, t1="gone.nii.gz", t2="gone too.nii.gz")
    edit(raw / "discs.csv", 4, modic="9")
    edit(raw / "discs.csv", 7, row1="43")
    with pytest.raises(BadCases) as caught:
        package(raw, tmp_path)
    assert sorted(where for where, _ in caught.value.cases) == [
        "c", "discs.csv, line 6", "studies.csv, line 2", "studies.csv, line 2",
    ]  # fmt: skip
