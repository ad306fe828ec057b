"""Scoring, hand-over and figures of the system, on studies and readings made by hand."""

import runpy
from pathlib import Path

import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import accuracy_score, roc_auc_score

from mskjax import cases
from mskjax.config import StudyConfig, parse
from mskjax.errors import UserError
from mskjax.systems import vertebral_fracture as vf
from mskjax.systems.vertebral_fracture import segments as sg
from mskjax.two_stage.regions_then_grades import Located, Reading

EXPERIMENT = Path(__file__).resolve().parents[2] / "experiments" / "vertebral_fracture.py"
AFFINE = np.array([[-4.0, 0, 0, 0], [0, 0, -1, 0], [0, -1, 0, 0], [0, 0, 0, 1]])
BOX = (20.0, 12.0, 32.0, 30.0)
NAMES = ("senior", "junior")


def system(variant="phantom", **grades):
    values = runpy.run_path(str(EXPERIMENT))["get_config"](variant).to_dict()
    values["stages"]["grades"] |= grades
    config = parse(StudyConfig, values)
    vf.check(config)
    return vf.build(config)


def study(label, number=0, calls=(0, 1), present=(1, -1)):
    shape = (7, 64, 48)
    noise = np.random.default_rng(number).normal(0, 5, (2, *shape))
    dark = np.zeros(shape)
    dark[2:5, 20:32, 12:30] = label
    return {
        "patient_id": f"p{number}",
        "study_id": f"s{number}",
        "t1": (100 - 40 * dark + noise[0]).astype(np.float32),
        "t2": (100 + 40 * dark + noise[1]).astype(np.float32),
        "affine": AFFINE,
        "label": np.int32(label),
        "slice": np.int32(3),
        "box": np.array(BOX, np.float32),
        "level": "L1",
        "readers": {
            "reader": list(NAMES),
            "call": np.array(calls),
            "aided_call": np.array([-1, -1]),
        },
        "findings": {"name": ["fracture_line", "fluid_sign"], "present": np.array(present)},
    }


def reading(p, box=BOX, number=3):
    """A reading whose first stage proposes a box, and the grader the probability."""
    heads = {vf.HEAD.name: np.array([[1 - p, p]])}
    shown, attention = np.zeros((1, 48, 48, 6), np.float32), np.ones((1, 3, 3))
    return Reading(Located([(number, box)]), {cases.MODEL: heads}, shown, attention)


NOTHING = Reading(Located([]), {cases.MODEL: {}})


LABELS = (0, 0, 0, 0, 1, 1, 1, 1, 0, 1)
P = (0.1, 0.2, 0.7, 0.3, 0.9, 0.8, 0.4, 0.6, 0.05, 0.95)
READERS = {
    "senior": (0, 0, 0, 0, 1, 1, 1, 0, 0, 1),
    "junior": (1, 0, 1, -1, 1, 0, -1, 1, 1, 1),
}


def scored(missed=()):
    declared = system()
    calls = zip(*READERS.values(), strict=True)
    studies = [
        study(label, i, own, (int(label == 0), -1 if i == 9 else i % 2))
        for i, (label, own) in enumerate(zip(LABELS, calls, strict=True))
    ]
    baselines = declared.fit_baselines(studies)
    rows = []
    for i, (graded, p) in enumerate(zip(studies, P, strict=True)):
        predicted = NOTHING if i in missed else reading(p)
        found = declared.score(graded, predicted, reading(p), baselines)
        rows += [{"fold": i % 2, **row} for row in found]
    return [{k: str(v) for k, v in row.items()} for row in rows]


def table(report, start):
    (found,) = (t for t in report["tables"] if t["title"].startswith(start))
    return found


def test_figures_agree_with_scikit_learn():
    report = system().summarise(scored(), 20, 0)
    reference, p = np.array(LABELS), np.array(P)
    for place in ("end_to_end", "oracle_region"):
        figures = report[place]
        assert figures["auroc_malignant"]["value"] == pytest.approx(
            roc_auc_score(reference, p), abs=1e-5
        )
        assert figures["accuracy_malignant"]["value"] == pytest.approx(
            accuracy_score(reference, p >= 0.5)
        )
        assert figures["sensitivity_malignant"]["value"] == pytest.approx(0.8)
        assert figures["specificity_malignant"]["value"] == pytest.approx(0.8)
    assert report["stages"]["segments"]["regions_found"]["value"] == 1
    assert report["stages"]["segments"]["box_iou"]["value"] == 1
    assert report["stages"]["segments"]["slice_error_mm"]["value"] == 0
    assert report["stages"]["grades"] == report["oracle_region"]
    assert system().primary == "auroc_malignant"
    assert {p.metric for p in vf.VertebralFracture.published} <= set(report["end_to_end"])


def test_rows_are_of_the_schema(tmp_path):
    cases.write(tmp_path / "cases.csv", scored(missed=(0,)))
    rows = cases.read(tmp_path / "cases.csv")
    assert {r["kind"] for r in rows} == {"regions", "grade"}
    graded = [r for r in rows if r["kind"] == "grade"]
    assert {r["reader_junior"] for r in graded} == {"benign", "malignant", ""}
    assert {r["finding_fracture_line"] for r in graded} == {"0", "1"}


def test_a_segment_that_is_missed_costs_its_patient_end_to_end_and_not_as_published():
    rows = scored(missed=(0, 4))
    graded = [r for r in rows if r["kind"] == "grade"]
    assert [r["wrong"] for r in graded] == ["1", "0", "1", "0", "1", "0", "1", "0", "0", "0"]
    report = system().summarise(rows, 20, 0)
    p = np.array(P)
    p[0], p[4] = 1, 0
    ours = report["end_to_end"]["auroc_malignant"]["value"]
    assert ours == pytest.approx(roc_auc_score(LABELS, p), abs=1e-5)
    assert report["oracle_region"]["auroc_malignant"]["value"] == pytest.approx(
        roc_auc_score(LABELS, P), abs=1e-5
    )
    assert report["stages"]["segments"]["regions_found"]["value"] == pytest.approx(0.8)
    assert report["stages"]["segments"]["slice_error_mm"]["n"] == 8


def test_a_proposal_beside_the_segment_is_a_miss_however_right_the_call():
    graded = study(1)
    baselines = system().fit_baselines([study(0, 1), graded])
    beside = (40.0, 12.0, 52.0, 30.0)
    region, case = system().score(graded, reading(0.9, beside), reading(0.9), baselines)
    assert (region["kind"], region["regions_found"], region["box_iou"]) == ("regions", 0, 0)
    assert (case["found"], case["wrong"]) == (0, 1)
    assert not any(k.startswith(("p_", "call_", "baseline_ridge_")) for k in case)
    near = (22.0, 14.0, 34.0, 32.0)
    region, case = system().score(graded, reading(0.9, near, 4), reading(0.9), baselines)
    assert (region["regions_found"], region["slice_error_mm"]) == (1, 4.0)
    overlap = 10 * 16
    assert region["box_iou"] == pytest.approx(overlap / (2 * 12 * 18 - overlap), abs=1e-6)
    assert (case["found"], case["wrong"]) == (1, 0)
    assert case["p_model_malignant_malignant"] == 0.9
    assert case["call_malignant"] == case["reference_malignant"] == "malignant"
    assert "baseline_ridge_malignant" in case


def test_lengths_without_a_pixel_size_are_left_empty():
    unsized = study(1) | {"pixel_size_known": False}
    baselines = system().fit_baselines([study(0, 1), study(1)])
    region, _ = system().score(unsized, reading(0.9, number=4), reading(0.9), baselines)
    assert region["slice_error_mm"] == ""


def test_the_score_of_a_patient_is_the_largest_over_slices():
    declared = system()

    def predict(stage, examples, untrained=False):
        if stage == "segments":
            nothing = np.array([1, 0], np.float32)
            return {"probabilities": np.broadcast_to(nothing, (*examples["image"].shape[:-1], 2))}
        # With random weights another slice would be the decisive one.
        malignant = [0.9, 0.1, 0.7] if untrained else [0.2, 0.1, 0.7]
        malignant = np.tile(malignant, len(examples["image"]) // 3)
        attention = np.arange(float(len(malignant)))[:, None, None] * np.ones((1, 2, 2))
        return {
            vf.HEAD.name: np.stack([1 - malignant, malignant], 1),
            "attention": attention + (10 if untrained else 0),
        }

    (ideal,) = declared.read([study(1)], predict, "reference")
    assert ideal.untrained is None  # of reference regions nobody looks at it
    (ours,) = declared.graded([study(1)], [declared.reference(study(1))], predict)
    assert ours.probabilities[cases.MODEL][vf.HEAD.name].tolist() == [[1 - 0.7, 0.7]]
    # That slice is the one that is shown and explained.
    crops = declared.grade.cut(study(1), sg.reference_place(study(1)))["image"]
    np.testing.assert_array_equal(ours.shown, crops[2:])
    assert ours.attention.tolist() == [[[2, 2], [2, 2]]]
    assert ours.untrained.tolist() == [[[12, 12], [12, 12]]]
    p = ours.of(cases.MODEL, declared.tasks[0], 0)
    assert p == pytest.approx([0.3, 0.7])
    # Where nothing was proposed there is no probability.
    (nothing,) = declared.read([study(1)], predict, "predicted")
    assert (list(nothing.located.regions), nothing.probabilities[cases.MODEL]) == ([], {})
    assert nothing.of(cases.MODEL, declared.tasks[0], None) is None


def test_a_study_without_labels_is_read_and_drawn():
    declared, full = system(), study(1)
    bare = {k: full[k] for k in ("patient_id", "study_id", "t1", "t2", "affine")}

    def predict(stage, examples):
        count, rows, cols, _ = examples["image"].shape
        if stage == "segments":
            yes = np.zeros((count, rows, cols), np.float32)
            yes[2:5, 10:18, 6:15] = 1  # at 2 mm
            return {"probabilities": np.stack([1 - yes, yes], -1)}
        malignant = examples["image"].mean((1, 2, 3)) > 0
        return {vf.HEAD.name: np.stack([~malignant, malignant], 1).astype(np.float32)}

    (ours,) = declared.read([bare], predict, "predicted")
    (same,) = declared.read([full], predict, "predicted")
    assert len(ours.located.regions) == 1
    assert ours.located.regions == same.located.regions
    np.testing.assert_array_equal(ours.shown, same.shown)
    np.testing.assert_array_equal(
        ours.probabilities[cases.MODEL][vf.HEAD.name], same.probabilities[cases.MODEL][vf.HEAD.name]
    )
    assert declared.picture(bare, ours, None, False).startswith(b"\x89PNG")


def test_the_network_sees_a_slice_and_its_neighbours_of_both_sequences():
    declared = system()
    graded = study(0)
    for name, start in (("t1", 10), ("t2", 20)):
        # Each slice has a brightness of its own, so that slices can be told apart.
        graded[name] = (np.arange(7.0)[:, None, None] + start + np.zeros((7, 64, 48))).astype("f4")
    image = declared.grade.cut(graded, (3, BOX))["image"]
    assert image.shape == (3, 48, 48, 6)
    middle = image[:, 24, 24]
    order = np.argsort(np.unique(middle[:, :3].round(4)))
    assert len(order) == 5  # slices 1 to 5
    steps = np.diff(middle[:, :3], axis=1)
    np.testing.assert_allclose(steps, steps[0, 0], rtol=1e-3)
    assert (steps > 0).all()
    np.testing.assert_allclose(middle[1, 0], middle[0, 1], rtol=1e-5)
    # At the end of the stack the outermost slice stands in for what is missing.
    edge = declared.grade.cut(graded, (0, BOX))["image"][:, 24, 24]
    np.testing.assert_allclose(edge[0, :3], edge[0, 0])


def test_reference_readers_and_findings_come_back_in_tables():
    report = system().summarise(scored(), 20, 0)
    alone = table(report, "Readers and model")
    assert [r[0] for r in alone["rows"]][:2] == [vf.BY_HAND, vf.DETECTED]
    by_name = {r[0]: r for r in alone["rows"]}
    senior = dict(zip(alone["columns"], by_name["senior"], strict=True))
    assert senior["Accuracy"]["value"] == pytest.approx(0.9)
    assert (by_name["senior"][1], by_name["junior"][1]) == (10, 8)
    tests = table(report, "McNemar")
    row = next(r for r in tests["rows"] if "junior" in r and vf.BY_HAND in r)
    model = (np.array(P) >= 0.5) == LABELS
    junior = np.array(READERS["junior"])
    read = junior >= 0
    right = junior == LABELS
    only_model = int((model & ~right & read).sum())
    only_reader = int((~model & right & read).sum())
    expected = stats.binomtest(only_model, only_model + only_reader).pvalue
    cells = dict(zip(tests["columns"], row, strict=True))
    assert cells["p"] == pytest.approx(expected)
    features = report["tables"][-1]
    assert "fracture line" in str(features["rows"]).replace("_", " ")


def test_proposals_come_from_the_largest_region():
    mask = np.zeros((7, 64, 48), np.uint8)
    assert sg.propose(mask) is None
    mask[2:5, 20:32, 12:30] = 1
    mask[5, 20:26, 12:30] = 1
    mask[0, 0:4, 0:4] = 1
    assert sg.propose(mask) == (3, BOX)


def test_training_sees_the_annotated_slices_alone():
    declared = system()
    mask, known = declared.find.reference(study(1))
    assert known.tolist() == [2, 3, 4]
    assert mask[3].sum() == 12 * 18
    assert not mask[0].any()
    edge = study(1) | {"slice": np.int32(0)}
    assert declared.find.reference(edge)[1].tolist() == [0, 1]
    examples = declared.find.training_examples(study(1))
    assert examples["image"].shape[0] == 3
    assert examples["image"].shape[-1] == 2


def test_a_patient_without_a_label_trains_and_scores_the_first_stage_alone():
    declared = system()
    unknown = study(1) | {"label": np.int32(-1)}
    assert declared.grade.training_examples(unknown) is None
    assert declared.stratum(unknown) is None
    assert declared.cases(unknown) == []
    baselines = declared.fit_baselines([study(0, 1), study(1, 2)])
    (region,) = declared.score(unknown, reading(0.5), reading(0.5), baselines)
    assert region["kind"] == "regions"


def test_pictures_and_facts_say_what_happened():
    declared, graded = system(), study(1)
    bare = {k: graded[k] for k in ("study_id", "t1", "t2", "affine")}
    drawn = [
        declared.picture(graded, reading(0.7), graded, True),
        declared.picture(graded, NOTHING, graded, True),
        declared.picture(bare, reading(0.7), None, True),
        declared.picture(bare, NOTHING, None, True),
    ]
    assert all(p.startswith(b"\x89PNG") for p in drawn)
    assert len({len(p) for p in drawn}) == 4
    rows = scored(missed=(0,))
    assert declared.facts([r for r in rows if r["study"] == "s0"]) == [
        ("L1, malignant", "benign, region not found"),
        ("senior", "benign"),
        ("junior", "malignant"),
    ]
    # A call that a reader has not made is not told.
    assert declared.facts([r for r in rows if r["study"] == "s3"]) == [
        ("L1, malignant", "benign, called benign (0.70)"),
        ("senior", "benign"),
    ]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"scored_slices": 2}, "must be odd"),
        ({"heads": ("benign",)}, "must be"),
        ({"model": {"name": "resnet50", "norm": "none"}}, "needs 'batch' or 'group'"),
        ({"model": {"name": "resnet18"}}, "must be one of vgg19, resnet50"),
        ({"model": {"name": "resnet50", "pretrained": "absent.pth"}}, "absent.pth"),
    ],
)
def test_bad_options_are_refused(changes, message):
    with pytest.raises(UserError, match=message):
        system(**changes)


def test_the_cohort_variant_has_the_published_size():
    grade = system("cohort").grade
    model = grade.model()
    assert (model.width, model.blocks, model.mix) == (64, (3, 4, 6, 3), True)
    assert grade.options.crop == (224, 224)
