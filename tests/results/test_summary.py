"""summary.csv: the columns that spreadsheets rely on."""

import csv
import dataclasses

from results.made import classic, result_of

from mskjax.results.result import Grade, Region, Result
from mskjax.results.summary import COLUMNS, write_summary


def rows_in(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_a_row_per_study_and_region_and_one_for_each_study_without(tmp_path):
    found = result_of(classic(tmp_path / "in"))
    bones = Result("b", "shoulder_bones", "t", volumes_ml={"humerus": 40.5})
    write_summary(
        tmp_path / "summary.csv",
        iter([found.without_images(), bones]),
        {"c": "c: no T2 series, 3 others"},
    )
    rows = rows_in(tmp_path / "summary.csv")
    assert [(r["study"], r["status"], r["region"]) for r in rows] == [
        ("a1b2c3d4", "done", "L5/S1"),
        ("a1b2c3d4", "done", "L4/L5"),
        ("a1b2c3d4", "done", "L3/L4"),
        ("a1b2c3d4", "done", "L2/L3"),
        ("b", "done", ""),
        ("c", "refused", ""),
    ]
    first, second, _, missed, whole, refused = rows
    assert (first["call_pfirrmann"], first["p_pfirrmann_iii"]) == ("iii", "0.6")
    assert (first["set_pfirrmann"], second["set_pfirrmann"]) == ("iii iv", "empty")
    assert (first["level"], second["score"], first["agreement_pfirrmann"]) == ("1", "0.75", "0.8")
    assert [first[c] for c in ("i0", "j0", "k0", "i1", "j1", "k1")] == list("231763")
    assert (missed["note"], missed["call_pfirrmann"], missed["i0"]) == ("not found", "", "")
    assert first["flags"] == "region_missed"
    assert {row["disclaimer"] for row in rows} == {"Research use only, not a medical device"}
    assert whole["volume_ml_humerus"] == "40.5"
    assert refused["reason"] == "c: no T2 series, 3 others"


def test_columns_come_in_one_order_whatever_came_first(tmp_path):
    write_summary(tmp_path / "none.csv", [], {"c": "why"})
    with (tmp_path / "none.csv").open() as file:
        assert file.readline().strip().split(",") == list(COLUMNS)
    grade = Grade("malignant", "benign", {"benign": 0.75, "malignant": 0.25})
    bare = Result("a", "s", "t", regions=(Region("segment"),))
    graded = dataclasses.replace(bare, regions=(Region("segment", grades=(grade,)),))
    write_summary(tmp_path / "some.csv", [bare, graded], {})
    with (tmp_path / "some.csv").open() as file:
        assert file.readline().strip().split(",") == [
            *COLUMNS,
            "call_malignant",
            "p_malignant_benign",
            "p_malignant_malignant",
        ]
    assert [r["p_malignant_benign"] for r in rows_in(tmp_path / "some.csv")] == ["", "0.75"]
