"""Hand-over, scoring and figures of the system, by hand and from phantom to report."""

import json
import runpy
from pathlib import Path

import numpy as np
import pytest
from systems.test_shoulder_bones_proposals import study

from mskjax import cases
from mskjax.config import StudyConfig, parse
from mskjax.errors import UserError
from mskjax.systems import shoulder_bones as sb

EXPERIMENT = Path(__file__).resolve().parents[2] / "experiments" / "shoulder_bones.py"
METHODS = (*sb.NETWORKS, sb.VOTE, sb.FINAL)


def config(variant="phantom", **changes):
    values = runpy.run_path(str(EXPERIMENT))["get_config"](variant).to_dict()
    for path, value in changes.items():
        *groups, last = path.split("__")
        node = values
        for group in groups:
            node = node[group]
        node[last] = value
    return parse(StudyConfig, values)


@pytest.fixture(scope="module")
def system():
    return sb.build(config())


def counted(reference, found):
    """Dice, PPV and sensitivity of two bool masks."""
    tp = (reference & found).sum()
    return {
        "dice": 2 * tp / (reference.sum() + found.sum()),
        "ppv": tp / found.sum() if found.any() else np.nan,
        "sensitivity": tp / reference.sum(),
    }


def found_by(number):
    """Masks of every method for one study, each wrong in its own way."""
    truth = study(seed=number)["mask"]
    masks = {}
    for shift, method in enumerate(METHODS):
        mask = np.roll(truth, (shift + number) % 4, axis=2)
        if method == "unet_both":
            mask = (mask > 0).astype(np.uint8)
        elif method in sb.UNETS:
            mask = mask * (mask == sb.UNETS.index(method) + 1)
        masks[method] = mask
    return masks


@pytest.fixture(scope="module")
def rows(system):
    """Rows of cases.csv of four studies, as text."""
    made = []
    for number in range(4):
        one = study(seed=number)
        reference = sb.Reading({sb.BAND: one["mask"]})
        scored = system.score(one, sb.Reading(found_by(number)), reference, None)
        made += [{"fold": number % 2, **row} for row in scored]
    return [{k: str(v) for k, v in row.items()} for row in made]


@pytest.fixture(scope="module")
def report(system, rows):
    return system.summarise(rows, 50, 0)


def expected(method, name, metric):
    """(4,) figures of the studies, from the masks alone."""
    values = []
    for number in range(4):
        truth, mask = study(seed=number)["mask"], found_by(number)[method]
        if name == "bone":
            pair = truth > 0, mask > 0
        else:
            label = sb.STRUCTURES.index(name) + 1
            pair = truth == label, mask == label
        values.append(counted(*pair)[metric])
    return np.array(values)


@pytest.mark.parametrize("name", ["humerus", "scapula", "bone"])
@pytest.mark.parametrize("metric", ["dice", "ppv", "sensitivity"])
def test_figures_agree_with_counts_by_hand(report, name, metric):
    figure = f"{metric}_{name}"
    final = report["end_to_end"][figure]
    assert final["value"] == pytest.approx(expected(sb.FINAL, name, metric).mean(), abs=1e-5)
    assert final["n"] == 4
    vote = report["baselines"]["vote"][figure]
    assert vote["value"] == pytest.approx(expected(sb.VOTE, name, metric).mean(), abs=1e-5)
    own = "unet_both" if name == "bone" else f"unet_{name}"
    for network in (own, "alexnet"):
        alone = report["stages"]["proposals"][f"{figure}_{network}"]
        assert alone["value"] == pytest.approx(expected(network, name, metric).mean(), abs=1e-5)
        assert report["baselines"][network][figure] == alone
    assert report["oracle_region"][figure]["value"] == pytest.approx(1)
    assert report["stages"]["edges"] == report["oracle_region"]


def test_a_network_is_scored_on_what_it_segments(rows):
    pairs = {(r["method"], r["name"]) for r in rows}
    assert {n for m, n in pairs if m == "unet_humerus"} == {"humerus"}
    assert {n for m, n in pairs if m == "unet_scapula"} == {"scapula"}
    assert {n for m, n in pairs if m == "unet_both"} == {"bone"}
    assert {n for m, n in pairs if m == "vote_and_edge"} == {"humerus", "scapula", "bone"}


def test_folds_are_the_mean_and_sd_of_each_folds_mean(report):
    values = expected(sb.FINAL, "scapula", "dice")
    means = [values[[0, 2]].mean(), values[[1, 3]].mean()]
    spread = report["folds"]["dice_scapula"]
    assert spread["values"] == pytest.approx(means, abs=1e-5)
    assert spread["mean"] == pytest.approx(np.mean(means), abs=1e-5)
    assert spread["sd"] == pytest.approx(np.std(means, ddof=1), abs=1e-5)


def test_differences_are_paired(report):
    table = report["tables"][-1]
    cells = {(row[0], row[1]): row[2:] for row in table["rows"]}
    found = cells["Humerus", "Vote and edge minus Vote"][0]
    by_hand = expected(sb.FINAL, "humerus", "dice") - expected(sb.VOTE, "humerus", "dice")
    assert found["value"] == pytest.approx(by_hand.mean(), abs=1e-5)
    assert by_hand.min() - 1e-5 <= found["ci95"][0] <= found["ci95"][1] <= by_hand.max() + 1e-5
    assert ("Bone", "Vote minus U-Net, both as one") in cells
    assert ("Humerus", "Vote minus U-Net, scapula") not in cells


def test_the_ablation_has_a_row_a_method(report):
    tables = {t["title"]: t for t in report["tables"]}
    assert [row[0] for row in tables["Humerus"]["rows"]] == [
        "U-Net, humerus",
        "AlexNet, blocks",
        "Vote",
        "Vote and edge",
        "Edge, reference band",
    ]
    assert tables["Bone"]["rows"][0][1] == report["baselines"]["unet_both"]["dice_bone"]


def test_a_missed_structure_costs_its_dice_and_leaves_no_number_that_json_lacks(system):
    one = study()
    nothing = {m: np.zeros_like(one["mask"]) for m in METHODS}
    scored = system.score(one, sb.Reading(nothing), sb.Reading({}), {})
    (humerus,) = [r for r in scored if (r["method"], r["name"]) == (sb.FINAL, "humerus")]
    assert (humerus["dice"], humerus["nsd"], humerus["wrong"]) == (0, 0, 1)
    assert humerus["hd95"] == np.inf
    text = [{"fold": 0, **{k: str(v) for k, v in r.items()}} for r in scored]
    made = system.summarise(text, 20, 0)
    json.dumps(made, allow_nan=False)
    assert made["end_to_end"]["dice_humerus"]["value"] == 0
    assert made["end_to_end"]["hd95_humerus"]["value"] is None
    assert made["folds"]["hd95_humerus"]["values"] == [None]


def test_a_structure_that_is_not_there_is_left_out(system):
    one = study()
    one["mask"][one["mask"] == 2] = 0
    assert system.cases(one) == ["s0/humerus"]
    masks = dict.fromkeys(METHODS, one["mask"])
    scored = system.score(one, sb.Reading(masks), sb.Reading({}), {})
    (scapula,) = [r for r in scored if (r["method"], r["name"]) == (sb.FINAL, "scapula")]
    assert np.isnan(scapula["dice"])
    assert "wrong" not in scapula


def test_rows_are_of_the_schema(rows, tmp_path):
    cases.write(tmp_path / "cases.csv", rows)
    assert {r["kind"] for r in cases.read(tmp_path / "cases.csv")} == {"structure"}


def test_lengths_without_a_pixel_size_are_not_defined():
    one = study()
    figures = sb.score_one(one | {"pixel_size_known": False}, found_by(1)[sb.FINAL], "humerus")
    sized = sb.score_one(one, found_by(1)[sb.FINAL], "humerus")
    assert figures["dice"] == sized["dice"]
    assert all(np.isnan(figures[name]) for name in ("nsd", "hd95", "assd"))
    assert all(np.isfinite(sized[name]) for name in ("nsd", "hd95", "assd"))


def test_a_study_without_a_mask_is_read_but_not_scored(system):
    one = study() | {"has_mask": False}
    assert system.cases(one) == []
    assert system.score(one, sb.Reading(found_by(0)), sb.Reading({}), {}) == []
    assert system.picture(one, sb.Reading(found_by(0)), one, False).startswith(b"\x89PNG")


def test_reading_hands_the_vote_on_and_keeps_it_outside_the_band():
    small = sb.build(config(), sb.build(config()).measure([study()]))
    asked = []

    def predict(stage, examples):
        asked.append(stage)
        count, rows, cols, _ = examples["image"].shape
        points = examples["centres"].shape[1]
        if stage == "edges":
            return {"p": np.eye(3)[np.zeros((count, points), int)]}
        yes = np.zeros((count, rows, cols), np.float16)
        yes[:, 4:14, 4:14] = 1
        return {
            **dict.fromkeys(sb.UNETS, yes),
            "alexnet": np.zeros((count, points, 2), np.float16),
        }

    (predicted,) = small.read([study()], predict, "predicted")
    assert asked[0] == "proposals"
    assert set(asked[1:]) == {"edges"}
    vote, final = predicted.masks[sb.VOTE], predicted.masks[sb.FINAL]
    # Both structures win with equal certainty, which is the humerus; the band is taken away.
    assert set(np.unique(vote)) == {0, 1}
    assert 0 < (final == 1).sum() < (vote == 1).sum()
    assert not ((final == 1) & (vote != 1)).any()
    # It needs no label.
    bare = {k: study()[k] for k in ("patient_id", "study_id", "image", "affine")}
    (unlabelled,) = small.read([bare], predict, "predicted")
    np.testing.assert_array_equal(unlabelled.masks[sb.FINAL], final)
    assert small.picture(bare, unlabelled, None, False).startswith(b"\x89PNG")
    (oracle,) = small.read([study()], predict, "reference")
    assert set(oracle.masks) == {sb.BAND}
    assert 0 < (oracle.masks[sb.BAND] > 0).sum() < (study()["mask"] > 0).sum()


def test_pictures_and_facts(system, rows, monkeypatch):
    one = study()
    bare = {k: one[k] for k in ("study_id", "image", "affine")}
    assert system.picture(one, sb.Reading(found_by(1)), one, True).startswith(b"\x89PNG")
    drawn = []
    monkeypatch.setattr(sb.pictures, "sheet", lambda panels, *_, **__: drawn.append(panels) or b"")
    system.picture(one, sb.Reading(found_by(1)), one, True)
    system.picture(bare, sb.Reading(found_by(1)), None, True)
    named = [[panel.name for panel in panels] for panels in drawn]
    assert named == [
        ["Image", "Reference", "Vote", "Vote and edge"],
        ["Image", "Vote", "Vote and edge"],
    ]
    facts = dict(system.facts([r for r in rows if r["study"] == "s1"]))
    value = expected(sb.VOTE, "humerus", "dice")[1]
    assert facts["Dice, humerus, vote"] == f"{value:.3f}"
    assert len(facts) == 4


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"data__shuffle_labels": True}, "fits no other patient"),
        ({"data__split": "by_case"}, "use folds or official"),
        ({"stages__proposals__vote": "most"}, "any, majority, all"),
        ({"stages__proposals__stride": 0}, "stride"),
        ({"stages__edges__band_mm": -1.0}, "band_mm"),
        ({"stages__edges__blocks__size": 24}, "must be odd"),
        ({"stages__edges__blocks__size": 9}, r"edges\.blocks\.size: .* too small"),
        ({"options": {"vote": "any"}}, "this system has none"),
        ({"stages": {}}, "it needs proposals, edges"),
    ],
)
def test_bad_options_are_refused(changes, message):
    with pytest.raises(UserError, match=message):
        sb.check(config(**changes))


def test_the_cohort_variant_has_the_published_size():
    made = sb.build(config("cohort"))
    assert made.propose.options.model.widths == (64, 128, 256, 512, 1024)
    for stage in (made.propose, made.refine):
        assert (stage.options.blocks.width, stage.options.blocks.hidden) == (64, 4096)
        assert stage.options.blocks.stem == (3, 1, 1)
    assert config("cohort").data.folds == 5
