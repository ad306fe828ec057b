"""Divisions a user can choose instead of the study's own folds."""

import json

import pytest
from commands.command_line import complaint, own_cohort, real_study, study

pytestmark = pytest.mark.slow


def divided(workdir):
    return json.loads((workdir / "splits.json").read_text())


def report_of(workdir):
    return json.loads((workdir / "report" / "report.json").read_text())


FEW = {"stages__regions__train__steps": 3, "stages__grades__train__steps": 2}


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
    assert "config.data.split=official needs every patient marked" in complaint(
        capsys.readouterr().err
    )


def test_the_official_division_is_followed(main_here, tmp_path):
    subsets = {"a": "training", "b": "validation", "c": "training", "d": "validation"}
    own_cohort(tmp_path / "raw", "abcd", subsets)
    workdir = tmp_path / "run"
    arguments = real_study(
        "cohort", workdir, tmp_path / "data", tmp_path / "raw", data__split="official",
        data__validation_fraction=0.0,
    )  # fmt: skip
    assert main_here(*arguments) == 0
    (fold,) = divided(workdir)["folds"]
    assert (fold["train"], fold["validation"], fold["test"]) == (["pa", "pc"], [], ["pb", "pd"])
    report = report_of(workdir)
    assert report["protocol"]["split"] == "official"
    assert report["cohort"]["kind"] == "real"
    assert report["end_to_end"]["accuracy"]["n"] == 8
    assert "PHANTOM" not in (workdir / "report" / "report.html").read_text()


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
