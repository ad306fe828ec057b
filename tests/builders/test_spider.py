"""SPIDER's archive layout, written here in miniature to the letter."""

import numpy as np
import pytest
from builders import mini_spine as mini

from mskjax.data.cohorts import prepare_cohort
from mskjax.errors import BadCases, UserError

OVERVIEW = [
    "new_file_name", "num_vertebrae", "num_discs", "sex", "birth_date", "subset",
    "MagneticFieldStrength", "Manufacturer", "ScanningSequence", "SequenceName",
    "SeriesDescription",
]  # fmt: skip
PERMUTED = {"order": (2, 1, 0), "flips": (True, False, True)}


def overview_row(name, sex="F ", age="49.0", subset="training", sequence="SE", code="", text=""):
    return [name, "4", "4", sex, age, subset, "1.5", "SIEMENS", sequence, code, text]


@pytest.fixture
def spider(tmp_path):
    """Patients 1 (t1, t2), 2 (t2 stored with other axes), 3 (a t2 that is STIR), 4 (t2 with the
    header of a SPACE series, and t2_SPACE), 107 (one row of label 0); 9 is graded but has no image.
    """
    root = tmp_path / "raw"
    series = {"1_t1": {}, "1_t2": {}, "2_t2": PERMUTED, "3_t2": {}, "4_t2": {}, "4_t2_SPACE": {},
              "107_t2": {}}  # fmt: skip
    for seed, (name, axes) in enumerate(series.items()):
        mini.write_mha(root / f"images/{name}.mha", *mini.stored(mini.image(seed), **axes))
        mini.write_mha(root / f"masks/{name}.mha", *mini.stored(mini.instances(), **axes))
    mini.write_csv(root / "overview.csv", OVERVIEW, [
        overview_row("1_t1"), overview_row("1_t2"),
        overview_row("2_t2", sex="M ", age="", subset="validation"),
        overview_row("3_t2", sequence="['SE', 'IR']", code="*tir2d1_18", text="SAG T2 TSE STIR"),
        overview_row("4_t2", code="*spcR_60", text="T2_space_sag_c4"),
        overview_row("4_t2_SPACE", code="*spcR_60", text="T2_space_sag_c4"),
        overview_row("107_t2"),
    ])  # fmt: skip
    rows = [
        *mini.pfirrmann_rows(1, [5, 4, 3, 2]),
        *mini.pfirrmann_rows(2, [1, 2, 3]),
        *mini.pfirrmann_rows(3, [3, 3, 3, 3]),
        *mini.pfirrmann_rows(4, [2, 2, 2, 2, 4]),  # a fifth disc that the mask does not show
        *mini.pfirrmann_rows(107, [4, 4, 4, 4]),
        [107, 0, 2, 1, 1, 0, 0, 0, 0, 3],
        *mini.pfirrmann_rows(9, [1]),
    ]
    mini.write_csv(root / "radiological_gradings.csv", mini.GRADINGS_HEADER, rows)
    return root


def package(raw, tmp_path, **options):
    return prepare_cohort("disc_degeneration", "spider", tmp_path / "data", raw, **options)


def by_id(cohort):
    return {s["study_id"]: s for s in cohort.studies}


def test_default_takes_t2_series_on_canonical_axes(spider, tmp_path):
    cohort = package(spider, tmp_path)
    studies = by_id(cohort)
    assert list(studies) == ["107_t2", "1_t2", "2_t2", "4_t2"]
    assert cohort.patients == ("1", "107", "2", "4")
    for name, seed in {"1_t2": 1, "2_t2": 2}.items():
        study = studies[name]
        np.testing.assert_array_equal(study["image"], mini.image(seed).astype(np.float32))
        np.testing.assert_allclose(study["affine"], mini.AFFINE, atol=1e-9)
        np.testing.assert_array_equal(study["mask"], mini.semantic())
        expected = np.where(mini.instances() > 200, mini.instances() - 200, 0)
        np.testing.assert_array_equal(study["disc_levels"], expected)
    assert studies["1_t2"]["image"].dtype == np.float32
    assert studies["1_t2"]["mask"].dtype == studies["1_t2"]["disc_levels"].dtype == np.uint8


def test_grades_and_metadata_are_joined(spider, tmp_path):
    studies = by_id(package(spider, tmp_path))
    levels = studies["1_t2"]["levels"]
    assert levels["level"].tolist() == [1, 2, 3, 4]
    assert levels["pfirrmann"].tolist() == [5, 4, 3, 2]
    assert levels["upper_endplate"].tolist() == [0, 0, 0, 0]
    assert studies["2_t2"]["levels"]["level"].tolist() == [1, 2, 3]
    first, second = studies["1_t2"], studies["2_t2"]
    assert (first["sex"], first["age"], first["subset"]) == ("F", 49.0, "training")
    assert (second["sex"], second["subset"]) == ("M", "validation")
    assert np.isnan(second["age"])
    assert (first["manufacturer"], first["field_strength_t"]) == ("SIEMENS", 1.5)
    assert first["sequence"] == "t2"


def test_audit_lists_what_is_left_out_and_counts(spider, tmp_path):
    audit = package(spider, tmp_path).audit
    excluded = {row["id"]: row["why"] for row in audit["excluded"]}
    assert set(excluded) == {"3_t2", "107/L0"}
    assert "STIR" in excluded["3_t2"]
    assert "0 names no disc" in excluded["107/L0"]
    (restricted,) = audit["restricted"]
    assert restricted["id"] == "4_t2/L5"
    assert "mask does not show it" in restricted["why"]
    assert (audit["patients"], audit["studies"], audit["cases"]) == (4, 4, 15)
    assert audit["counts"]["pfirrmann"] == {"1": 1, "2": 6, "3": 2, "4": 5, "5": 1}
    notes = " ".join(audit["notes"])
    assert "4_t2: overview.csv has the header of a T2-SPACE series" in notes
    assert "1 t1 series are not chosen" in notes
    assert "1 t2_SPACE series are not chosen" in notes
    assert "2 graded patients have no series" in notes  # 9, and 3 whose only series is STIR


def test_other_series_are_an_option(spider, tmp_path):
    cohort = package(spider, tmp_path, series=("t2_SPACE", "STIR"))
    assert {s["study_id"]: s["sequence"] for s in cohort.studies} == {
        "3_t2": "STIR",
        "4_t2_SPACE": "t2_SPACE",
    }
    with pytest.raises(UserError, match="series has flair; choose from t1, t2, t2_SPACE, STIR"):
        package(spider, tmp_path / "other", series=("flair",))


def test_ungraded_patient_is_kept_for_segmentation(spider, tmp_path):
    mini.write_csv(
        spider / "radiological_gradings.csv", mini.GRADINGS_HEADER, mini.pfirrmann_rows(1, [1] * 4)
    )
    cohort = package(spider, tmp_path)
    study = by_id(cohort)["2_t2"]
    assert study["levels"]["level"].shape == (0,)
    assert study["disc_levels"].max() == 4  # known from the labels, graded or not
    assert {"id": "2_t2", "why": "kept for segmentation only: it is not graded"} in list(
        cohort.audit["restricted"]
    )


def test_all_faults_are_listed_together_and_nothing_is_left(spider, tmp_path):
    labels = mini.instances()
    labels[0, 0, 0] = 77
    mini.write_mha(spider / "masks/1_t2.mha", *mini.stored(labels))
    (spider / "masks/2_t2.mha").unlink()
    (spider / "images/4_t2.mha").write_bytes(b"not an image")
    mini.write_mha(spider / "images/scout.mha", *mini.stored(mini.image()))
    mini.write_csv(spider / "radiological_gradings.csv", mini.GRADINGS_HEADER, [
        *mini.pfirrmann_rows(1, [1, 6, 1, 1]), *mini.pfirrmann_rows(107, [1, 1]),
        *mini.pfirrmann_rows(107, [1]), ["", 1, 0, 0, 0, 0, 0, 0, 0, 1],
    ])  # fmt: skip
    with pytest.raises(BadCases) as caught:
        package(spider, tmp_path)
    why = dict(caught.value.cases)
    assert set(why) == {
        "1_t2", "2_t2", "4_t2", "scout.mha", "radiological_gradings.csv, line 3",
        "radiological_gradings.csv, line 9", "radiological_gradings.csv, patient 107",
    }  # fmt: skip
    assert "unknown label 77" in why["1_t2"]
    assert "2_t2.mha is missing" in why["2_t2"]
    assert "cannot be read" in why["4_t2"]
    assert "not named <patient>_<t1|t2|t2_SPACE>.mha" in why["scout.mha"]
    assert "Pfirrman grade is '6'" in why["radiological_gradings.csv, line 3"]
    assert "Patient is empty" in why["radiological_gradings.csv, line 9"]
    assert "level 1 is graded twice" in why["radiological_gradings.csv, patient 107"]
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize("table", ["overview.csv", "radiological_gradings.csv"])
def test_missing_table_and_column(spider, tmp_path, table):
    (spider / table).rename(spider / "kept.csv")
    with pytest.raises(BadCases, match=f"{table} is missing; it needs the columns"):
        package(spider, tmp_path)
    (spider / table).write_text("a,b\n1,2\n")
    with pytest.raises(BadCases, match=r"lacks the column .*; it has a, b"):
        package(spider, tmp_path)


def test_missing_images_folder(spider, tmp_path):
    (spider / "images").rename(spider / "pictures")
    with pytest.raises(BadCases, match=r"images is not a folder; unpack images\.zip"):
        package(spider, tmp_path)


def test_patients_that_a_table_writes_as_other_numbers_than_the_files(spider, tmp_path):
    mini.write_csv(
        spider / "radiological_gradings.csv",
        mini.GRADINGS_HEADER,
        [*mini.pfirrmann_rows("1.0", [5, 4, 3, 2]), *mini.pfirrmann_rows("2", [1, 2, 3])],
    )
    with pytest.raises(BadCases) as caught:
        package(spider, tmp_path)
    ((where, why),) = caught.value.cases
    assert where == "radiological_gradings.csv"
    assert "patient '1.0' is not among the files; '1' is" in why
    assert "the ids were read as numbers" in why


def test_files_of_one_patient_under_two_ids(spider, tmp_path):
    for folder in ("images", "masks"):
        (spider / folder / "2_t2.mha").rename(spider / folder / "01_t2.mha")
    with pytest.raises(BadCases, match="patient '1' and '01' differ only in how they are written"):
        package(spider, tmp_path)


def test_overview_may_be_wrong_where_pixels_do_not_need_it(spider, tmp_path):
    path = spider / "overview.csv"
    row = overview_row("1_t2", sex="X", age="061Y")
    row[6] = "15000"
    lines = path.read_text().splitlines()
    number = next(n for n, line in enumerate(lines, start=1) if line.startswith("1_t2,"))
    lines[number - 1] = ",".join(row)
    path.write_text("\n".join(lines))
    cohort = package(spider, tmp_path)
    study = by_id(cohort)["1_t2"]
    assert (study["sex"], study["age"], study["field_strength_t"]) == ("", 61.0, 1.5)
    places = [list(files) for files in cohort.audit["file_notes"].values()]
    assert places.count([f"overview.csv, line {number}"]) == 2  # sex, field strength


def test_two_rows_of_one_series_that_differ(spider, tmp_path):
    with (spider / "overview.csv").open("a") as file:
        file.write(",".join(overview_row("1_t2", sex="M")) + "\n")
        file.write(",".join(overview_row("107_t2")) + "\n")  # the same twice: no doubt
    with pytest.raises(BadCases) as caught:
        package(spider, tmp_path)
    ((where, why),) = caught.value.cases
    assert where == "overview.csv"
    assert "new_file_name '1_t2' has two rows that differ, in line 3 and 9" in why
