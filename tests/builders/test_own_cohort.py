"""A user's own studies: the documented layout, and each way of getting it wrong."""

import csv

import numpy as np
import pytest
from builders import mini_spine as mini
from PIL import Image

from mskjax.data.cohorts import prepare_cohort
from mskjax.errors import BadCases, UserError

STUDIES = ["patient_id", "study_id", "image", "mask", "sex", "age", "subset", "pixel_spacing_mm"]
DISCS = ["study_id", "level", "pfirrmann", "modic"]


def study_row(study, image, mask, patient="p1", sex="F", age="61", subset="", spacing=""):
    return [patient, study, image, mask, sex, age, subset, spacing]


@pytest.fixture
def raw(tmp_path):
    """Studies a (NIfTI, semantic), b (MetaImage, instance labels), c (PNG); d has no mask."""
    root = tmp_path / "raw"
    mini.write_nifti(root / "a.nii.gz", mini.image(1))
    mini.write_nifti(root / "a_seg.nii.gz", mini.semantic())
    mini.write_mha(root / "b.mha", *mini.stored(mini.image(2), order=(1, 2, 0)))
    mini.write_mha(root / "b_seg.mha", *mini.stored(mini.instances(), order=(1, 2, 0)))
    Image.fromarray(mini.image(3)[1].astype(np.uint8)).save(root / "c.png")
    Image.fromarray(mini.semantic()[1]).save(root / "c_seg.png")
    mini.write_csv(root / "studies.csv", STUDIES, [
        study_row("a", "a.nii.gz", "a_seg.nii.gz"),
        study_row("b", "b.mha", "b_seg.mha", patient="p2", sex="", age=""),
        study_row("c", "c.png", "c_seg.png", patient="p1", spacing="0.8"),
        study_row("d", "a.nii.gz", "", patient="p3"),
    ])  # fmt: skip
    rows = [[s, k, g, ""] for s in "ac" for k, g in enumerate([5, 4, 3, 2], start=1)]
    mini.write_csv(root / "discs.csv", DISCS, [*rows, ["b", 2, "3.0", 2], ["b", 4, "", 0]])
    return root


def package(raw, tmp_path):
    return prepare_cohort("disc_degeneration", "cohort", tmp_path / "data", raw)


def faults(raw, tmp_path):
    with pytest.raises(BadCases) as caught:
        package(raw, tmp_path)
    assert not (tmp_path / "data").exists()
    return dict(caught.value.cases)


def edit(path, row, column, value):
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    rows[row][column] = value
    mini.write_csv(path, list(rows[0]), [list(r.values()) for r in rows])


def test_every_format_lands_on_the_canonical_grid(raw, tmp_path):
    cohort = package(raw, tmp_path)
    assert cohort.index == (("p1", "a"), ("p2", "b"), ("p1", "c"))
    a, b, c = cohort.studies
    levels = np.where(mini.instances() > 200, mini.instances() - 200, 0)
    for study, seed in ((a, 1), (b, 2)):
        np.testing.assert_array_equal(study["image"], mini.image(seed).astype(np.float32))
        np.testing.assert_allclose(study["affine"], mini.AFFINE, atol=1e-5)
        np.testing.assert_array_equal(study["mask"], mini.semantic())
        np.testing.assert_array_equal(study["disc_levels"], levels)
    np.testing.assert_array_equal(c["disc_levels"], levels[1:2])
    np.testing.assert_allclose(np.linalg.norm(c["affine"][:3, 1:3], axis=0), 0.8)


def test_what_the_images_are_of_is_the_users_to_say(raw, tmp_path):
    assert package(raw, tmp_path).audit["kind"] == "real"
    options = {"kind": "derived"}
    other = prepare_cohort("disc_degeneration", "cohort", tmp_path / "data", raw, **options)
    assert other.audit["kind"] == "derived"
    assert other.folder != package(raw, tmp_path).folder
    with pytest.raises(UserError, match="kind is 'fake'; it must be one of real, derived, phantom"):
        prepare_cohort("disc_degeneration", "cohort", tmp_path / "data", raw, kind="fake")


def test_grades_missing_values_and_metadata(raw, tmp_path):
    cohort = package(raw, tmp_path)
    a, b, _ = cohort.studies
    assert a["levels"]["pfirrmann"].tolist() == [5, 4, 3, 2]
    assert a["levels"]["modic"].tolist() == [-1] * 4
    assert a["levels"]["narrowing"].tolist() == [-1] * 4
    assert b["levels"]["level"].tolist() == [2, 4]
    assert b["levels"]["pfirrmann"].tolist() == [3, -1]
    assert (a["sex"], a["age"], b["sex"]) == ("F", 61.0, "")
    assert np.isnan(b["age"])
    assert np.isnan(b["field_strength_t"])
    assert list(cohort.audit["excluded"]) == [{"id": "d", "why": "it has no mask"}]
    assert cohort.audit["counts"]["pfirrmann"] == {"-1": 1, "2": 2, "3": 3, "4": 2, "5": 2}


def test_counts_that_do_not_match_exclude_from_grading_only(raw, tmp_path):
    mask = mini.semantic()
    mask[mini.instances() == 204] = 0
    mini.write_nifti(raw / "a_seg.nii.gz", mask)
    cohort = package(raw, tmp_path)
    assert not cohort.studies[0]["disc_levels"].any()
    assert cohort.studies[0]["levels"]["level"].size == 0
    assert (cohort.studies[0]["mask"] == 2).any()
    why = {row["id"]: row["why"] for row in cohort.audit["restricted"]}["a"]
    assert "the mask shows 3 discs, but 4 were graded" in why


def test_columns_that_are_not_read_are_noted(raw, tmp_path):
    text = (raw / "discs.csv").read_text()
    (raw / "discs.csv").write_text(text.replace("modic", "modik"))
    notes = package(raw, tmp_path).audit["notes"]
    assert "discs.csv: columns not used: modik (did you mean 'modic'?)" in notes


@pytest.mark.parametrize(
    ("table", "row", "column", "value", "where", "message"),
    [
        ("studies", 0, "patient_id", " ", "studies.csv, line 2", "study 'a' has no patient_id"),
        ("studies", 1, "study_id", "a", "studies.csv, line 3", "study_id 'a' occurs twice"),
        ("studies", 0, "study_id", "a/b", "studies.csv, line 2", "study_id is 'a/b'"),
        ("studies", 0, "image", "", "studies.csv, line 2", "study 'a' has no image"),
        ("studies", 0, "image", "gone.nii.gz", "studies.csv, line 2", "does not exist; check"),
        ("studies", 0, "mask", "m" * 300, "studies.csv, line 2", "does not exist; check"),
        ("studies", 0, "mask", "b_seg.mha", "a", "unknown"),
        ("studies", 2, "pixel_spacing_mm", "0.04", "c", "must be a number, 0.05 to 20"),
        ("studies", 2, "pixel_spacing_mm", "0,8", "c", "must be a number with a decimal point"),
        ("studies", 2, "subset", "training", "studies.csv, line 4", "must be on one side"),
        ("studies", 0, "subset", "test", "studies.csv, line 2", "subset is 'test'; it must be"),
        ("studies", 3, "study_id", "a", "studies.csv, line 5", "study_id 'a' occurs twice"),
        ("discs", 0, "pfirrmann", "6", "discs.csv, line 2", "a whole number, 1 to 5"),
        ("discs", 0, "pfirrmann", "II", "discs.csv, line 2", "pfirrmann is 'II'"),
        ("discs", 8, "modic", "4", "discs.csv, line 10", "a whole number, 0 to 3"),
        ("discs", 0, "level", "0", "discs.csv, line 2", "level is '0'"),
        ("discs", 1, "level", "1", "discs.csv, line 3", "study 'a', level 1 is graded twice"),
        ("discs", 0, "study_id", "zz", "discs.csv, line 2", "study_id 'zz' is not in studies.csv"),
    ],
)  # fmt: skip
def test_each_fault_is_one_clear_sentence(raw, tmp_path, table, row, column, value, where, message):
    edit(raw / f"{table}.csv", row, column, value)
    if value == "b_seg.mha":  # an image and a mask on different grids
        message = "not on the grid of its image"
        mini.write_mha(raw / "b_seg.mha", *mini.stored(mini.instances()[:, 1:]))
    found = faults(raw, tmp_path)
    assert message in found[where]


def test_faulty_voxels(raw, tmp_path):
    nan = mini.image(1).astype(np.float32)
    nan[0, 0, 0] = np.nan
    mini.write_nifti(raw / "a.nii.gz", nan)
    labels = mini.instances()
    labels[0, 0, 0] = 60
    mini.write_mha(raw / "b_seg.mha", *mini.stored(labels, order=(1, 2, 0)))
    Image.fromarray(np.zeros(mini.SHAPE[1:], np.uint8)).save(raw / "c_seg.png")
    found = faults(raw, tmp_path)
    assert "NaN" in found["a"]
    assert "unknown label 60; an instance mask" in found["b"]
    assert "the mask shows no disc" in found["c"]
    mask = mini.semantic()
    mask[0, 0, 0] = 9
    mini.write_nifti(raw / "a_seg.nii.gz", mask)
    mini.write_nifti(raw / "a.nii.gz", mini.image(1))
    assert "unknown label 9; a semantic mask" in faults(raw, tmp_path)["a"]


def test_a_pixel_size_that_the_file_knows_otherwise_is_noted(raw, tmp_path):
    edit(raw / "studies.csv", 0, "pixel_spacing_mm", "0.5")
    cohort = package(raw, tmp_path)
    np.testing.assert_allclose(cohort.studies[0]["affine"], mini.AFFINE, atol=1e-5)
    (files,) = (v for k, v in cohort.audit["file_notes"].items() if "pixel size of the table" in k)
    assert list(files) == ["a.nii.gz"]


def test_axial_series_is_refused(raw, tmp_path):
    axial = np.diag([-1.5, -1.5, 4.0, 1])
    mini.write_nifti(raw / "a.nii.gz", mini.image(1).transpose(1, 2, 0), axial)
    mini.write_nifti(raw / "a_seg.nii.gz", mini.semantic().transpose(1, 2, 0), axial)
    assert "the slices are not sagittal" in faults(raw, tmp_path)["a"]


@pytest.mark.parametrize("table", ["studies.csv", "discs.csv"])
def test_missing_empty_or_broken_table(raw, tmp_path, table):
    text = (raw / table).read_text()
    (raw / table).write_text(text.splitlines()[0] + "\n")
    assert "has a header but no rows" in faults(raw, tmp_path)[table]
    (raw / table).write_text(text + "x,y\n")
    assert "has 2 values for" in faults(raw, tmp_path)[table]
    (raw / table).write_bytes(b"\xff\xfe\x00")
    assert "is not text" in faults(raw, tmp_path)[table]
    (raw / table).unlink()
    assert "is missing; it needs the columns" in faults(raw, tmp_path)[table]


def test_a_mask_of_0_and_255_is_neither_labels_nor_instances(raw, tmp_path):
    painted = np.where(mini.semantic() == 2, 255, 0).astype(np.uint8)
    mini.write_nifti(raw / "a_seg.nii.gz", painted)
    why = faults(raw, tmp_path)["a"]
    assert "unknown label 255 (programs for pictures save a mask as 255); a semantic mask" in why
    assert "instance" not in why


def test_pixels_without_a_size_are_packaged_and_said(raw, tmp_path):
    assert [s["pixel_size_known"] for s in package(raw, tmp_path).studies] == [True] * 3
    edit(raw / "studies.csv", 2, "pixel_spacing_mm", "")
    cohort = package(raw, tmp_path / "other")
    assert [s["pixel_size_known"] for s in cohort.studies] == [True, True, False]
    assert cohort.audit["studies_without_pixel_size"] == 1
    assert any(
        "1 of 3 studies do not say how large their pixels" in n for n in cohort.audit["notes"]
    )


def test_ids_that_a_program_has_read_as_numbers(raw, tmp_path):
    for table, ids in (("studies.csv", "12 13 14 15"), ("discs.csv", "12.0 13.0 14.0 15.0")):
        with (raw / table).open(newline="") as file:
            rows = list(csv.DictReader(file))
        for row in rows:
            row["study_id"] = ids.split()["abcd".index(row["study_id"])]
        mini.write_csv(raw / table, list(rows[0]), [list(row.values()) for row in rows])
    found = faults(raw, tmp_path)
    assert set(found) == {f"discs.csv, line {n}" for n in range(2, 12)}
    why = found["discs.csv, line 2"]
    assert "study_id '12.0' is not in studies.csv; '12' is, and '12.0' looks like it" in why
    assert "the ids were read as numbers" in why
