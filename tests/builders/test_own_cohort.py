"""A user's own studies: the documented layout, and each way of getting it wrong."""

import csv

import mini_spine as mini
import numpy as np
import pytest
from PIL import Image

from mskjax.data.cohorts import prepare_cohort
from mskjax.errors import BadCases

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
    assert not list((tmp_path / "data").iterdir())
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
    why = {row["id"]: row["why"] for row in cohort.audit["excluded"]}["a"]
    assert "the mask shows 3 discs, but 4 were graded" in why


def test_columns_that_are_not_read_are_noted(raw, tmp_path):
    text = (raw / "discs.csv").read_text()
    (raw / "discs.csv").write_text(text.replace("modic", "modik"))
    assert "discs.csv: columns not used: modik" in package(raw, tmp_path).audit["notes"]


@pytest.mark.parametrize(
    ("table", "row", "column", "value", "where", "message"),
    [
        ("studies", 0, "patient_id", " ", "studies.csv, row 1", "study 'a' has no patient_id"),
        ("studies", 1, "study_id", "a", "studies.csv, row 2", "study_id 'a' occurs twice"),
        ("studies", 0, "study_id", "a/b", "studies.csv, row 1", "study_id is 'a/b'"),
        ("studies", 0, "image", "", "studies.csv, row 1", "study 'a' has no image"),
        ("studies", 0, "image", "gone.nii.gz", "a", "no such file"),
        ("studies", 0, "mask", "b_seg.mha", "a", "unknown"),
        ("studies", 0, "sex", "woman", "a", "sex is 'woman'; it must be M, F or empty"),
        ("studies", 0, "age", "-4", "a", "age is '-4'; it must be a number, 0 to 130"),
        ("studies", 2, "subset", "training", "studies.csv, row 3", "must be on one side"),
        ("studies", 0, "subset", "test", "studies.csv, row 1", "subset is 'test'; it must be"),
        ("studies", 3, "study_id", "a", "studies.csv, row 4", "study_id 'a' occurs twice"),
        ("discs", 0, "pfirrmann", "6", "discs.csv, row 1", "a whole number, 1 to 5"),
        ("discs", 0, "pfirrmann", "II", "discs.csv, row 1", "pfirrmann is 'II'"),
        ("discs", 8, "modic", "4", "discs.csv, row 9", "a whole number, 0 to 3"),
        ("discs", 0, "level", "0", "discs.csv, row 1", "level is '0'"),
        ("discs", 1, "level", "1", "discs.csv, row 2", "study 'a', level 1 is graded twice"),
        ("discs", 0, "study_id", "zz", "discs.csv, row 1", "study_id 'zz' is not in studies.csv"),
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
    assert "cannot be read as a comma-separated UTF-8 table" in faults(raw, tmp_path)[table]
    (raw / table).unlink()
    assert "is missing; it needs the columns" in faults(raw, tmp_path)[table]
