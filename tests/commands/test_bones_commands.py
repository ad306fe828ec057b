"""Bones of the shoulder as a user types it: folds of five patients, three held out, ablation."""

import json

import jsonschema
import pytest
from commands.command_line import ROOT, complaint, unfinished

pytestmark = pytest.mark.long

FIELDS = {
    "resamples": 50,
    "devices": 1,
    "data.options.patients": 8,
    "data.split": "folds_and_official",
    "data.folds": 2,
    "stages.proposals.spacing_mm": 5.0,
    "stages.proposals.patch": "(32,32)",
    "stages.proposals.model.widths": "(4,8)",
    "stages.proposals.blocks.size": 15,
    "stages.proposals.blocks.points": 8,
    "stages.proposals.blocks.width": 4,
    "stages.proposals.blocks.hidden": 8,
    "stages.proposals.train.steps": 20,
    "stages.proposals.train.learning_rate": 2e-2,
    "stages.edges.spacing_mm": 2.4,
    "stages.edges.patch": "(64,64)",
    "stages.edges.blocks.size": 15,
    "stages.edges.blocks.points": 8,
    "stages.edges.blocks.width": 4,
    "stages.edges.blocks.hidden": 8,
    "stages.edges.train.steps": 10,
    "stages.edges.train.warmup_steps": 5,
}


def arguments(workdir, data_dir, **changes):
    fields = FIELDS | {k.replace("__", "."): v for k, v in changes.items()}
    return [
        "--config=experiments/shoulder_bones.py",
        f"--workdir={workdir}",
        f"--config.data.data_dir={data_dir}",
        *(f"--config.{name}={value}" for name, value in fields.items()),
    ]


@pytest.fixture(scope="module")
def workdir(tmp_path_factory, finish):
    root = tmp_path_factory.mktemp("bones")
    finish(arguments(root / "run", root / "data"))
    return root / "run"


@pytest.fixture(scope="module")
def report(workdir):
    return json.loads((workdir / "report" / "report.json").read_text())


def test_report_holds_to_the_contract_and_says_phantom(workdir, report):
    schema = json.loads((ROOT / "tests/commands/report.schema.json").read_text())
    jsonschema.validate(report, schema)
    page = (workdir / "report" / "report.html").read_text()
    assert "PHANTOM" in page
    assert "REAL DATA" not in page
    assert page.count("data:image/png") >= 8
    assert not unfinished(workdir)


def test_five_are_cross_validated_and_three_held_out(workdir, report):
    folds = json.loads((workdir / "splits.json").read_text())["folds"]
    assert [len(f["test"]) for f in folds] == [3, 2, 3]
    assert [f["held_out"] for f in folds] == [False, False, True]
    assert report["end_to_end"]["dice_humerus"]["n"] == 5
    assert report["held_out"]["end_to_end"]["dice_humerus"]["n"] == 3
    assert report["protocol"]["folds"] == 2
    assert "Held-out patients" in (workdir / "report" / "report.html").read_text()


def test_the_ablation_has_each_network_the_vote_and_the_edge(report):
    tables = {t["title"]: [row[0] for row in t["rows"]] for t in report["tables"]}
    assert tables["Humerus"] == [
        "U-Net, humerus",
        "AlexNet, blocks",
        "Vote",
        "Vote and edge",
        "Edge, reference band",
    ]
    assert tables["Bone"][0] == "U-Net, both as one"
    assert "Differences on the same studies" in tables
    assert {"vote", "unet_humerus", "unet_scapula", "unet_both", "alexnet"} == set(
        report["baselines"]
    )


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"data__shuffle_labels": True}, "shuffle_labels is True, but the label of shoulder_bones"),
        ({"data__split": "by_case"}, "config.data.split is by_case"),
        ({"stages__edges__blocks__size": 16}, "blocks.size is 16; it must be odd"),
        ({"stages__edges__blocks__size": 5}, "config.stages.edges.blocks.size"),
        ({"stages__proposals__vote": "most"}, "vote"),
        ({"data__split": "halves"}, "folds_and_official"),
    ],
)
def test_wrong_options_are_refused_before_any_work(main_here, tmp_path, capsys, changes, message):
    data = tmp_path / "data"
    assert main_here(*arguments(tmp_path / "run", data, **changes)) == 2
    assert message in complaint(capsys.readouterr().err)
    assert not data.exists()
