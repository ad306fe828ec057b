"""Modic changes as a user types it: boxes, levels, and normalisations side by side."""

import csv
import json

import jsonschema
import pytest
from commands.command_line import ROOT, complaint, unfinished

pytestmark = pytest.mark.long

FIELDS = {
    "resamples": 50,
    "devices": 1,
    "data.options.patients": 6,
    "options.normalisations": "('z_score_volume','landmarks','none')",
    "stages.boxes.spacing_mm": 3.0,
    "stages.boxes.confidence": 0.0,  # the detector hardly learns: whatever it finds is taken
    "stages.boxes.model.norm": "batch",
    "stages.boxes.model.widths": "(4,8,8)",
    "stages.boxes.model.channels": 8,
    "stages.boxes.model.hidden": 8,
    "stages.boxes.model.anchor_sizes": "((7.,),(11.,))",
    "stages.boxes.train.steps": 6,
    "stages.boxes.train.warmup_steps": 3,
    "stages.grades.crop": "(1,12,16)",
    "stages.grades.model.width": 4,
    "stages.grades.model.norm": "batch",
    "stages.grades.heads": "('presence','pfirrmann')",
    "stages.grades.train.steps": 4,
    "stages.grades.train.warmup_steps": 2,
    "stages.grades.train.batch_size": 8,
}


def arguments(workdir, data_dir, **changes):
    fields = FIELDS | {k.replace("__", "."): v for k, v in changes.items()}
    return [
        "--config=experiments/modic_changes.py",
        f"--workdir={workdir}",
        f"--config.data.data_dir={data_dir}",
        *(f"--config.{name}={value}" for name, value in fields.items()),
    ]


@pytest.fixture(scope="module")
def workdir(tmp_path_factory, finish):
    root = tmp_path_factory.mktemp("modic")
    ids = [f"phantom{n:04d}" for n in range(6)]
    division = root / "division.json"
    division.write_text(json.dumps({"folds": [{"train": ids[:4], "test": ids[4:]}]}))
    finish(arguments(root / "run", root / "data", data__splits=division))
    return root / "run"


@pytest.fixture(scope="module")
def report(workdir):
    return json.loads((workdir / "report" / "report.json").read_text())


def test_report_holds_to_the_contract_and_says_phantom(workdir, report):
    schema = json.loads((ROOT / "tests/commands/report.schema.json").read_text())
    jsonschema.validate(report, schema)
    assert set(report["stages"]) == {
        "boxes",
        "grades_z_score_volume",
        "grades_landmarks",
        "grades_none",
    }
    page = (workdir / "report" / "report.html").read_text()
    assert "PHANTOM" in page
    assert page.count("data:image/png") >= 2
    assert not unfinished(workdir)


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
        assert [row[0] for row in table["rows"]] == ["z-score volume", "landmarks", "none"]
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
    assert main_here(*arguments(tmp_path / "run", data, **changes)) == 2
    assert message in complaint(capsys.readouterr().err)
    assert not (tmp_path / "run" / "fold_0").exists()
