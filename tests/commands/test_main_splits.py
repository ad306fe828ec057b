"""Divisions a user can choose instead of the study's own folds."""

import csv
import json

import pytest
from commands.command_line import complaint, own_cohort, real_study, study

pytestmark = pytest.mark.slow


def divided(workdir):
    return json.loads((workdir / "splits.json").read_text())


def report_of(workdir):
    return json.loads((workdir / "report" / "report.json").read_text())


FEW = {"stages__regions__train__steps": 3, "stages__grades__train__steps": 2}


@pytest.mark.long
def test_a_supplied_file_is_followed(finished, main_here, tmp_path):
    own = {"train": ["phantom0002", "phantom0003"], "test": ["phantom0005"]}
    (tmp_path / "mine.json").write_text(json.dumps({"folds": [own]}))
    workdir = tmp_path / "run"
    changes = FEW | {"data__splits": tmp_path / "mine.json"}
    assert main_here(*study(workdir, finished.data_dir, **changes)) == 0
    (fold,) = divided(workdir)["folds"]
    assert fold["train"] == own["train"]
    assert fold["test"] == own["test"]
    report = report_of(workdir)
    assert report["protocol"]["split"] == "supplied"
    assert report["protocol"]["patient_overlap"] == 0
    cases = (workdir / "cases.csv").read_text()
    assert "phantom0005" in cases
    assert "phantom0002" not in cases


def test_a_supplied_file_with_a_patient_on_both_sides_is_refused(
    finished, main_here, tmp_path, capsys
):
    both = {"train": ["phantom0001", "phantom0002"], "test": ["phantom0002"]}
    (tmp_path / "mine.json").write_text(json.dumps({"folds": [both]}))
    workdir = tmp_path / "run"
    arguments = study(workdir, finished.data_dir, data__splits=tmp_path / "mine.json")
    assert main_here(*arguments) == 2
    said = complaint(capsys.readouterr().err)
    assert "1 patients are on both sides (phantom0002)" in said
    assert not (workdir / "splits.json").exists()


def test_the_official_division_of_a_cohort_without_one_is_refused(
    finished, main_here, tmp_path, capsys
):
    assert main_here(*study(tmp_path, finished.data_dir, data__split="official")) == 2
    assert "the cohort's own division needs every patient marked" in complaint(
        capsys.readouterr().err
    )


@pytest.mark.long
def test_the_official_division_after_folds_of_its_training_part(main_here, tmp_path):
    subsets = {"a": "training", "b": "validation", "c": "training", "d": "validation"}
    own_cohort(tmp_path / "raw", "abcd", subsets)
    workdir = tmp_path / "run"
    arguments = real_study(
        "cohort", workdir, tmp_path / "data", tmp_path / "raw", data__split="folds_and_official",
        data__validation_fraction=0.0,
    )  # fmt: skip
    assert main_here(*arguments) == 0
    *crossed, fold = divided(workdir)["folds"]
    assert (fold["train"], fold["validation"], fold["test"]) == (["pa", "pc"], [], ["pb", "pd"])
    assert sorted(f["test"][0] for f in crossed) == ["pa", "pc"]
    report = report_of(workdir)
    assert report["protocol"]["split"] == "folds_and_official"
    assert report["protocol"]["folds"] == 2
    assert report["cohort"]["kind"] == "real"
    assert report["end_to_end"]["accuracy"]["n"] == 8
    assert report["held_out"]["end_to_end"]["accuracy"]["n"] == 8
    rows = list(csv.DictReader((workdir / "cases.csv").open()))
    assert {r["fold"] for r in rows if r["patient"] in ("pb", "pd")} == {"2"}
    page = (workdir / "report" / "report.html").read_text()
    assert "Patients whom no fold above has seen" in page
    assert "PHANTOM" not in page
    # The official division alone is the last of these folds.
    alone = [a.replace("folds_and_official", "official") for a in arguments]
    alone = [a.replace(str(workdir), str(tmp_path / "alone")) for a in alone]
    assert main_here(*alone, "--mode=train") == 0
    assert divided(tmp_path / "alone")["folds"] == [fold | {"held_out": False}]


def test_division_by_case_is_labelled_as_leaking(finished, main_here, tmp_path):
    arguments = study(tmp_path, finished.data_dir, data__split="by_case", **FEW)
    assert main_here(*arguments) == 0
    content = divided(tmp_path)
    assert content["unit"] == "case"
    assert content["patient_overlap"] > 0
    report = report_of(tmp_path)
    assert report["protocol"]["patient_overlap"] == content["patient_overlap"]
    assert report["protocol"]["unit"] == "case"
    assert any("LEAKING" in limit for limit in report["limits"])
    assert "LEAKING" in (tmp_path / "report" / "report.html").read_text()
    # Only the cases of the test part are scored.
    tested = [c for c, part in content["folds"][0]["cases"].items() if part == "test"]
    assert report["end_to_end"]["accuracy"]["n"] == len(tested)
