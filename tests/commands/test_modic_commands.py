"""Modic changes as a user types it: boxes, levels, and normalisations side by side."""

import csv
import json

import pytest
from commands.command_line import complaint, phantom_study

pytestmark = pytest.mark.long

SYSTEM = "modic_changes"


@pytest.fixture(scope="module")
def workdir(tiny_run):
    return tiny_run(SYSTEM).workdir


@pytest.fixture(scope="module")
def report(workdir):
    return json.loads((workdir / "report" / "report.json").read_text())


def test_every_normalisation_has_its_grader(workdir, report):
    assert set(report["stages"]) == {
        "boxes",
        "grades_z_score_volume",
        "grades_landmarks",
        "grades_none",
    }
    assert (workdir / "report" / "report.html").read_text().count("data:image/png") >= 2


def test_every_disc_is_scored_once_whether_found_or_not(workdir, report):
    with (workdir / "cases.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    cases = [r["case"] for r in rows if r["kind"] == "grade"]
    assert len(set(cases)) == len(cases)
    assert {r["patient"] for r in rows} == {"phantom0004", "phantom0005"}
    assert report["end_to_end"]["accuracy_presence"]["n"] == len(cases)
    boxes = [r for r in rows if r["kind"] == "box"]
    assert len(boxes) == len(cases)


def test_normalisations_stand_in_one_table_with_paired_differences(report):
    tables = {t["title"]: t for t in report["tables"]}
    for head in ("presence", "pfirrmann"):
        table = tables[f"Normalisations: {head}"]
        methods = ["z-score volume", "landmarks", "none", "mean of all 3"]
        assert [row[0] for row in table["rows"]] == methods
        assert table["columns"][-1].endswith("minus z-score volume")
        assert table["rows"][0][-1] == "–"
        assert set(table["rows"][1][-1]) >= {"value", "ci95", "n"}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"stages__grades__heads": "('modic','pfirrmann')"}, "a class needs 20"),
        ({"stages__grades__heads": "('pfirrmann',)"}, "the first must be modic or presence"),
        ({"options__normalisations": "('white_stripe',)"}, "white_stripe"),
        ({"stages__boxes__augmentation__flip": 0.5}, "flip must be 0"),
        ({"stages__boxes__confidence": 1.0}, "confidence is 1.0"),
        ({"data__split": "official"}, "own division needs every patient marked"),
    ],
)
def test_wrong_options_are_refused(workdir, main_here, tmp_path, capsys, changes, message):
    data = workdir.parent / "data"
    assert main_here(*phantom_study(SYSTEM, tmp_path / "run", data, **changes)) == 2
    assert message in complaint(capsys.readouterr().err)
    assert not (tmp_path / "run" / "fold_0").exists()
