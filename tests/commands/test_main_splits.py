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
FEW |= {f"stages__{stage}__train__warmup_steps": 1 for stage in ("regions", "grades")}


@pytest.mark.long
def test_a_supplied_file_is_followed(finished, main_here, tmp_path, capsys):
    own = {"train": ["phantom0002", "phantom0003"], "test": ["phantom0005"]}
    (tmp_path / "mine.json").write_text(json.dumps({"folds": [own]}))
    workdir = tmp_path / "run"
    changes = FEW | {"data__splits": tmp_path / "mine.json"}
    assert main_here(*study(workdir, finished.data_dir, **changes)) == 0
    (fold,) = divided(workdir)["folds"]
    assert fold["train"] == own["train"]
    assert fold["test"] == own["test"]
    left_out = "Left out of every fold: patients phantom0000, phantom0001 and phantom0004."
    assert f"note: {left_out}" in capsys.readouterr().out.splitlines()
    report = report_of(workdir)
    assert left_out in report["limits"]
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
    assert "1 patients are on both sides (train and test: phantom0002)" in said
    assert not workdir.exists()


def test_a_patient_tested_by_two_supplied_folds_is_refused(finished, main_here, tmp_path, capsys):
    patients = [f"phantom000{i}" for i in range(6)]
    made = [{"train": patients[2:], "test": patients[:2]}]
    made += [{"train": patients[3:] + patients[:1], "test": patients[1:3]}]
    (tmp_path / "mine.json").write_text(json.dumps({"folds": made}))
    arguments = study(tmp_path / "run", finished.data_dir, data__splits=tmp_path / "mine.json")
    assert main_here(*arguments) == 2
    said = complaint(capsys.readouterr().err)
    assert "1 patients are tested by more than one fold (folds 0 and 1: phantom0001)" in said
    assert '"repetition": 0, 1, ...' in said
    assert not (tmp_path / "run").exists()


def test_patients_left_out_are_said_and_saved(finished, main_here, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("mskjax.study._run_folds", lambda *_: [])  # the division alone
    made = [{"train": ["phantom0000", "phantom0001"], "test": ["phantom0002"]}]
    made += [{"train": ["phantom0002", "phantom0003", "phantom0004"], "test": ["phantom0001"]}]
    (tmp_path / "mine.json").write_text(json.dumps({"folds": made}))
    workdir = tmp_path / "run"
    arguments = study(workdir, finished.data_dir, data__splits=tmp_path / "mine.json")
    assert main_here(*arguments, "--mode=train") == 0
    said = capsys.readouterr().out
    assert "2 fold(s), patients on both sides: 0\n" in said
    assert "note: Left out of every fold: patient phantom0005.\n" in said
    assert "note: Left out of fold 0: patients phantom0003 and phantom0004.\n" in said
    assert "note: Left out of fold 1: patient phantom0000.\n" in said
    assert divided(workdir)["left_out"] == {
        "phantom0000": [1],
        "phantom0003": [0],
        "phantom0004": [0],
        "phantom0005": [0, 1],
    }


@pytest.mark.long
def test_repeated_cross_validation_is_scored_by_repetition(finished, main_here, tmp_path):
    patients = [f"phantom000{i}" for i in range(6)]
    made = []
    for repetition, step in enumerate((1, 2)):
        halves = (patients[::2], patients[1::2]) if step == 2 else (patients[:3], patients[3:])
        for test, train in (halves, halves[::-1]):
            made.append({"train": train, "test": test, "repetition": repetition})
    (tmp_path / "mine.json").write_text(json.dumps({"folds": made}))
    workdir = tmp_path / "run"
    changes = FEW | {"data__splits": tmp_path / "mine.json"}
    assert main_here(*study(workdir, finished.data_dir, **changes)) == 0
    report = report_of(workdir)
    assert report["protocol"]["repetitions"] == 2
    assert report["protocol"]["folds"] == 2
    with (workdir / "cases.csv").open(newline="") as file:
        graded = [r for r in csv.DictReader(file) if r["kind"] == "grade"]
    assert {r["fold"] for r in graded} == {"0", "1", "2", "3"}
    assert report["end_to_end"]["accuracy_pfirrmann"]["n"] == len({r["case"] for r in graded})
    assert [r["end_to_end"]["accuracy_pfirrmann"]["n"] for r in report["repetitions"]] == [
        len(graded) / 2
    ] * 2
    assert "Repetitions" in (workdir / "report" / "report.html").read_text()


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
    assert report["end_to_end"]["accuracy_pfirrmann"]["n"] == 8
    assert report["held_out"]["end_to_end"]["accuracy_pfirrmann"]["n"] == 8
    rows = list(csv.DictReader((workdir / "cases.csv").read_text().splitlines()))
    assert {r["fold"] for r in rows if r["patient"] in ("pb", "pd")} == {"2"}
    page = (workdir / "report" / "report.html").read_text()
    assert "Patients whom no fold above has seen" in page
    assert "PHANTOM" not in page
    # The official division alone is the last of these folds.
    alone = [a.replace("folds_and_official", "official") for a in arguments]
    alone = [a.replace(str(workdir), str(tmp_path / "alone")) for a in alone]
    assert main_here(*alone, "--mode=train") == 0
    assert divided(tmp_path / "alone")["folds"] == [fold | {"held_out": False}]


@pytest.mark.long
def test_division_by_case_is_labelled_as_leaking(finished, main_here, tmp_path, capsys):
    arguments = study(tmp_path, finished.data_dir, data__split="by_case", **FEW)
    assert main_here(*arguments) == 0
    assert capsys.readouterr().out.count("examples, cut before, ") == 2  # by the other run
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
    assert report["end_to_end"]["accuracy_pfirrmann"]["n"] == len(tested)
