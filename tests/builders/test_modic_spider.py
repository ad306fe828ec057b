"""T1 and T2 of SPIDER's archive layout, written here in miniature to the letter."""

import numpy as np
import pytest
from builders import mini_spine as mini

from mskjax.data.cohorts import prepare_cohort
from mskjax.errors import BadCases

OVERVIEW = [
    "new_file_name", "sex", "birth_date", "subset", "MagneticFieldStrength", "Manufacturer",
    "ScanningSequence", "SequenceName", "SeriesDescription",
]  # fmt: skip
PERMUTED = {"order": (2, 1, 0), "flips": (True, False, True)}
BOXES = [(43, 4, 46, 16), (33, 4, 36, 16), (23, 4, 26, 16), (13, 4, 16, 16)]


def overview_row(name, sex="F ", subset="training", sequence="SE", code=""):
    return [name, sex, "49.0", subset, "1.5", "SIEMENS", sequence, code, ""]


def rows_of(patient, modic):
    """Rows of SPIDER's table: level 1 upwards, Pfirrmann 3, everything else 0."""
    return [[patient, k, m, 0, 0, 0, 0, 0, 0, 3] for k, m in enumerate(modic, start=1)]


@pytest.fixture
def spider(tmp_path):
    """Patients 1 (t1, t2, SPACE), 2 (axes stored otherwise), 3 (t2 alone), 4 (t1 alone), 5 (a t2
    that is STIR), 6 (t1 and t2 lie apart); 9 is graded but has no image.
    """
    root = tmp_path / "raw"
    series = {"1_t1": {}, "1_t2": {}, "1_t2_SPACE": {}, "2_t1": {}, "2_t2": PERMUTED, "3_t2": {},
              "4_t1": {}, "5_t1": {}, "5_t2": {}, "6_t1": {}, "6_t2": {}}  # fmt: skip
    for seed, (name, axes) in enumerate(series.items()):
        data, affine = mini.stored(mini.image(seed), **axes)
        if name == "6_t1":
            affine = affine.copy()
            affine[2, 3] += 500
        mini.write_mha(root / f"images/{name}.mha", data, affine)
        mini.write_mha(root / f"masks/{name}.mha", *mini.stored(mini.instances(), **axes))
    rows = [overview_row(name) for name in series if name not in ("2_t2", "5_t2")]
    rows.append(overview_row("2_t2", sex="M", subset="validation"))
    rows.append(overview_row("5_t2", sequence="['SE', 'IR']", code="*tir2d1_18"))
    mini.write_csv(root / "overview.csv", OVERVIEW, rows)
    gradings = [
        *rows_of(1, [2, 0, 1, 0]), *rows_of(2, [0, 2]), *rows_of(3, [3, 0, 0, 0, 2]),
        *rows_of(5, [0] * 4), *rows_of(9, [1]), [1, 0, 2, 1, 1, 0, 0, 0, 0, 3],
    ]  # fmt: skip
    mini.write_csv(root / "radiological_gradings.csv", mini.GRADINGS_HEADER, gradings)
    return root


def package(raw, tmp_path):
    return prepare_cohort("modic_changes", "spider", tmp_path / "data", raw)


def faults(raw, tmp_path):
    with pytest.raises(BadCases) as caught:
        package(raw, tmp_path)
    assert not (tmp_path / "data").exists()
    return dict(caught.value.cases)


def test_pairs_come_together_on_the_grid_of_t2(spider, tmp_path):
    cohort = package(spider, tmp_path)
    assert cohort.index == tuple((p, f"{p}_t1t2") for p in "1236")
    first, second, third, sixth = cohort.studies
    for study, t1, t2 in ((first, 0, 1), (second, 3, 4)):
        np.testing.assert_array_equal(study["t1"], mini.image(t1).astype(np.float32))
        np.testing.assert_array_equal(study["t2"], mini.image(t2).astype(np.float32))
        np.testing.assert_allclose(study["affine"], mini.AFFINE, atol=1e-9)
        assert study["has_t1"]
    for study in (third, sixth):
        assert not study["has_t1"]
        assert not study["t1"].any()
        assert study["t2"].any()
    assert (first["sex"], first["age"], first["subset"]) == ("F", 49.0, "training")
    assert (second["sex"], second["subset"]) == ("M", "validation")
    assert (first["manufacturer"], first["field_strength_t"]) == ("SIEMENS", 1.5)


def test_boxes_of_the_mask_are_joined_with_gradings(spider, tmp_path):
    first, second, third, _ = (study["boxes"] for study in package(spider, tmp_path).studies)
    for boxes in (first, second, third):
        np.testing.assert_array_equal(boxes["box"], BOXES)
        assert boxes["level"].tolist() == [1, 2, 3, 4]
        assert boxes["boxed"].tolist() == [1] * 4
    assert first["modic"].tolist() == [2, 0, 1, 0]
    assert first["pfirrmann"].tolist() == [3] * 4
    assert second["modic"].tolist() == [0, 2, -1, -1]
    assert third["modic"].tolist() == [3, 0, 0, 0]


def test_audit_lists_what_is_left_out(spider, tmp_path):
    audit = package(spider, tmp_path).audit
    why = {row["id"]: row["why"] for row in audit["excluded"]}
    assert set(why) == {"1/L0", "4", "5", "5_t2"}
    assert why["4"] == "it has no T2, only t1"
    assert "header says STIR" in why["5_t2"]
    why = {row["id"]: row["why"] for row in audit["restricted"]}
    assert set(why) == {"3_t1", "3_t1t2/L5", "6_t1", "6_t1t2"}
    assert why["3_t1"] == "kept with T2 alone: it has no T1"
    assert why["6_t1"].startswith("kept with T2 alone: ")
    assert "do not overlap" in why["6_t1"]
    assert "kept for detection only" in why["6_t1t2"]
    assert audit["cases"] == 4 + 2 + 4
    assert audit["counts"]["modic"] == {"0": 6, "1": 1, "2": 2, "3": 1}
    notes = audit["notes"]
    assert "1 T2-SPACE series are not used" in notes
    assert "2 graded patients have no T2 here" in notes  # 5 and 9
    assert "patients by the archive's own subset: 3 training, 1 validation" in notes


def test_all_faults_are_listed_together(spider, tmp_path):
    labels = mini.instances()
    labels[0, 0, 0] = 77
    mini.write_mha(spider / "masks/1_t2.mha", *mini.stored(labels))
    (spider / "masks/2_t2.mha").unlink()
    empty = np.where(mini.instances() > 200, 0, mini.instances())
    mini.write_mha(spider / "masks/3_t2.mha", *mini.stored(empty))
    (spider / "images/6_t1.mha").write_bytes(b"not an image")
    mini.write_mha(spider / "images/scout.mha", *mini.stored(mini.image()))
    mini.write_csv(spider / "radiological_gradings.csv", mini.GRADINGS_HEADER, [
        *rows_of(1, [0, 4]), *rows_of(2, [0]), *rows_of(2, [1]), ["", 1, 0, 0, 0, 0, 0, 0, 0, 1],
    ])  # fmt: skip
    why = faults(spider, tmp_path)
    table = "radiological_gradings.csv"
    assert set(why) == {
        "1_t1t2", "2_t2", "3_t1t2", "6_t1t2", "scout.mha",
        f"{table}, line 3", f"{table}, line 6", f"{table}, patient 2",
    }  # fmt: skip
    assert "unknown label 77" in why["1_t1t2"]
    assert "2_t2.mha is missing" in why["2_t2"]
    assert "the mask shows no disc" in why["3_t1t2"]
    assert "cannot be read" in why["6_t1t2"]
    assert "is not named <patient>_<t1|t2|t2_SPACE>.mha" in why["scout.mha"]
    assert "Modic is '4'" in why[f"{table}, line 3"]
    assert "Patient is empty" in why[f"{table}, line 6"]
    assert "level 1 is graded twice" in why[f"{table}, patient 2"]


@pytest.mark.parametrize("table", ["overview.csv", "radiological_gradings.csv"])
def test_missing_table(spider, tmp_path, table):
    (spider / table).unlink()
    assert "is missing; it needs the columns" in faults(spider, tmp_path)[table]


def test_missing_images_folder(spider, tmp_path):
    (spider / "images").rename(spider / "pictures")
    assert "images is not a folder" in faults(spider, tmp_path)["images"]
