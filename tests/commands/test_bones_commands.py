"""Bones of the shoulder as a user types it: folds of five patients, three held out, ablation."""

import json

import pytest
from commands.command_line import complaint, phantom_study

pytestmark = pytest.mark.long

SYSTEM = "shoulder_bones"


@pytest.fixture(scope="module")
def workdir(tiny_run):
    return tiny_run(SYSTEM).workdir


@pytest.fixture(scope="module")
def report(workdir):
    return json.loads((workdir / "report" / "report.json").read_text())


def test_every_shoulder_has_its_picture(workdir):
    assert (workdir / "report" / "report.html").read_text().count("data:image/png") >= 8


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
    methods = {"vote", "unet_humerus", "unet_scapula", "unet_both", "alexnet"}
    assert set(report["baselines"]) == methods | {f"model_minus_{name}" for name in methods}


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
    assert main_here(*phantom_study(SYSTEM, tmp_path / "run", data, **changes)) == 2
    assert message in complaint(capsys.readouterr().err)
    assert not data.exists()
