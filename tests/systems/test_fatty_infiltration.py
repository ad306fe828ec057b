"""Scoring, hand-over and figures of the system, on studies and readings made by hand."""

import dataclasses
import runpy
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, log_loss, recall_score, roc_auc_score

from mskjax import cases
from mskjax.config import StudyConfig, parse
from mskjax.errors import UserError
from mskjax.stages.region_grading import largest_region
from mskjax.systems import fatty_infiltration as fi
from mskjax.two_stage.regions_then_grades import Located, Reading

EXPERIMENT = Path(__file__).resolve().parents[2] / "experiments" / "fatty_infiltration.py"
AFFINE = np.array([[-4.0, 0, 0, 0], [0, 0, -1, 0], [0, -1, 0, 0], [0, 0, 0, 1]])
FOSSA = (slice(10, 22), slice(14, 34))


def system(variant="phantom", **grades):
    values = runpy.run_path(str(EXPERIMENT))["get_config"](variant).to_dict()
    values["stages"]["grades"] |= grades
    config = parse(StudyConfig, values)
    fi.check(config)
    return fi.build(config)


def study(grade, number=0, side="left"):
    mask = np.zeros((1, 48, 48), np.uint8)
    mask[0][FOSSA] = 1
    noise = np.random.default_rng(number).normal(0, 5, mask.shape)
    return {
        "patient_id": f"p{number}",
        "study_id": f"s{number}",
        "image": (100 + 40 * mask * grade + noise).astype(np.float32),
        "mask": mask,
        "has_mask": True,
        "affine": AFFINE,
        "grade": np.int32(grade),
        "side": side,
    }


def reading(declared, graded, p_a, p_d=None, found=True):
    """What the networks said, their first stage having found the reference region or nothing."""
    mask = graded["mask"] if found else np.zeros_like(graded["mask"])
    place = largest_region(mask)
    even = np.broadcast_to(np.float32(0.5), (len(mask), *declared.find.canvas, 2))
    located = Located([] if place is None else [place], mask, {"probabilities": even})
    p_d = p_a if p_d is None else p_d
    heads = {"A": np.array([[1 - p_a, p_a]]), "D": np.array([[1 - p_d, p_d]])}
    trained = {h.name for h in declared.grade.heads}
    heads = {k: v for k, v in heads.items() if k in trained}
    shown = np.zeros((len(located.regions), 48, 48, 1), np.float32)
    attention = np.zeros((len(located.regions), 3, 3))
    return Reading(located, {cases.MODEL: heads if found else {}}, shown, attention)


def scored(grades, probabilities, missed=(), declared=None):
    """Rows of cases.csv, all values as text, of one study a grade."""
    declared = declared or system()
    studies = [study(g, i, "left" if i % 2 else "right") for i, g in enumerate(grades)]
    baselines = declared.fit_baselines(studies)
    rows = []
    for i, (graded, p) in enumerate(zip(studies, probabilities, strict=True)):
        predicted = reading(declared, graded, p, found=i not in missed)
        found = declared.score(graded, predicted, reading(declared, graded, 1 - p), baselines)
        rows += [{"fold": i % 2, **row} for row in found]
    return [{k: str(v) for k, v in row.items()} for row in rows]


GRADES = (0, 1, 2, 3, 4, 0, 1, 2, 3, 4, 0, 4)
P = (0.1, 0.4, 0.8, 0.7, 0.9, 0.2, 0.6, 0.3, 0.4, 0.95, 0.05, 0.8)


def test_tasks_divide_the_grades_as_the_paper_does():
    grades = np.arange(5)
    targets = {name: fi.HEADS[name].target(grades).tolist() for name in "ABCDE"}
    assert targets == {
        "A": [0, 0, -1, 1, 1],
        "B": [0, 0, 1, 1, 1],
        "C": [0, 0, 1, -1, -1],
        "D": [0, 0, 0, 1, 1],
        "E": [-1, -1, 0, 1, 1],
    }
    assert fi.HEADS["goutallier"].target([-1, 0, 4]).tolist() == [-1, 0, 4]
    assert fi.HEADS["E"].target([-1]).tolist() == [-1]


def test_figures_agree_with_scikit_learn():
    report = system().summarise(scored(GRADES, P), 20, 0)
    grades, p = np.array(GRADES), np.array(P)
    for task, inside in (("task_a", grades != 2), ("task_d", grades >= 0)):
        reference, own = grades[inside] > 2.5, p[inside]
        ours = report["end_to_end"]
        for name, expected in {
            "auroc": roc_auc_score(reference, own),
            "accuracy": accuracy_score(reference, own >= 0.5),
            "sensitivity": recall_score(reference, own >= 0.5),
            "specificity": recall_score(~reference, own < 0.5),
            "log_loss": log_loss(reference, own),
        }.items():
            assert ours[f"{name}_{task}"]["value"] == pytest.approx(expected, abs=1e-5), name
        assert ours[f"auroc_{task}"]["n"] == inside.sum()
        mirrored = report["oracle_region"][f"auroc_{task}"]["value"]
        assert mirrored == pytest.approx(1 - ours[f"auroc_{task}"]["value"], abs=1e-5)
    assert report["stages"]["grades"] == report["oracle_region"]
    assert report["stages"]["regions"]["dice_fossa"]["value"] == 1
    assert report["stages"]["regions"]["loss"]["n"] == len(GRADES)
    assert set(report["confusion"]) == {"task_a", "task_d"}
    assert system().primary == "auroc_task_a"


def test_rows_are_of_the_schema(tmp_path):
    cases.write(tmp_path / "cases.csv", scored(GRADES, P, missed=(4,)))
    kinds = [r["kind"] for r in cases.read(tmp_path / "cases.csv")]
    assert kinds == ["structure", "grade"] * len(GRADES)


def test_the_published_figures_bear_the_names_of_ours():
    declared = system(heads=("A", "D", "goutallier"))
    assert [t.grading.task for t in declared.tasks] == ["task_a", "task_d", "goutallier"]
    rows = scored(GRADES, P)
    for row in (r for r in rows if r["kind"] == "grade"):
        grade = GRADES[int(row["study"][1:])]
        row |= cases.cells(
            declared.tasks[2].grading, grade, {cases.MODEL: np.eye(5)[grade]}, {}, {}
        )
    report = declared.summarise([{k: str(v) for k, v in r.items()} for r in rows], 20, 0)
    figures = {**report["end_to_end"], **report["stages"]["regions"]}
    assert {p.metric for p in declared.published} <= set(figures)
    assert figures["cohen_kappa_goutallier"]["value"] == 1


def test_folds_are_reported_as_mean_and_sd():
    report = system().summarise(scored(GRADES, P), 20, 0)
    grades, p, folds = np.array(GRADES), np.array(P), np.arange(len(P)) % 2
    values = [
        roc_auc_score(grades[inside] > 2, p[inside])
        for inside in ((folds == k) & (grades != 2) for k in (0, 1))
    ]
    spread = report["folds"]["auroc_task_a"]
    assert spread["values"] == pytest.approx(values, abs=1e-5)
    assert spread["mean"] == pytest.approx(np.mean(values), abs=1e-5)
    assert spread["sd"] == pytest.approx(np.std(values, ddof=1), abs=1e-5)
    assert {"dice_fossa", "pixel_accuracy_fossa", "auroc_task_d"} <= set(report["folds"])


def test_an_image_without_a_found_region_is_wrong_with_the_worst_probability():
    rows = scored(GRADES, P, missed=(4, 5))
    missed = [r for r in rows if r["kind"] == "grade" and r["found"] == "0"]
    assert [(r["study"], r["wrong"]) for r in missed] == [("s4", "1"), ("s5", "1")]
    said = ("p_", "call_", "baseline_ridge_")
    assert not any(name.startswith(said) for r in missed for name in r)
    assert all("oracle_p_model_task_a_high_grade" in r for r in missed)
    p = np.array(P)
    p[4], p[5] = 0, 1
    inside = np.array(GRADES) != 2
    report = system().summarise(rows, 20, 0)
    expected = roc_auc_score(np.array(GRADES)[inside] > 2, p[inside])
    assert report["end_to_end"]["auroc_task_a"]["value"] == pytest.approx(expected, abs=1e-5)
    assert report["confusion"]["task_a"]["labels"][-1] == "missed"
    assert [t["title"] for t in report["tables"]] == [
        "What missed regions cost: task_a",
        "What missed regions cost: task_d",
    ]


def test_task_d_without_a_head_is_read_from_the_first_task():
    alone = system(heads=("A",))
    assert [t.grading.task for t in alone.tasks] == ["task_a", "task_d"]
    rows = scored(GRADES, P, declared=alone)
    graded = [r for r in rows if r["kind"] == "grade"]
    assert [float(r["p_model_task_d_high_grade"]) for r in graded] == list(P)
    # Grade 2 is none of task A's, but task D's: the low one.
    assert [r["reference_task_a"] for r in graded][:3] == ["low_grade", "low_grade", ""]
    assert graded[2]["reference_task_d"] == "low_grade"
    report = alone.summarise(rows, 20, 0)
    expected = roc_auc_score(np.array(GRADES) > 2, P)
    assert report["end_to_end"]["auroc_task_d"]["value"] == pytest.approx(expected, abs=1e-5)


def test_one_task_alone_is_named_as_well():
    alone = system(heads=("D",))
    assert alone.primary == "auroc_task_d"
    report = alone.summarise(scored(GRADES, P, declared=alone), 20, 0)
    expected = roc_auc_score(np.array(GRADES) > 2, P)
    assert report["end_to_end"]["auroc_task_d"]["value"] == pytest.approx(expected, abs=1e-5)


def test_grade_two_trains_no_network_of_task_a_alone():
    assert system(heads=("A",)).grade.training_examples(study(2)) is None
    both = system().grade.training_examples(study(2))
    assert (both["target_A"][0], both["target_D"][0]) == (-1, 0)
    assert both["image"].shape == (1, 48, 48, 1)


def test_strata_are_the_classes_of_the_first_task_and_what_it_leaves_out():
    declared = system()
    assert declared.strata == ("low_grade", "high_grade", "left out of task_a")
    found = [declared.stratum(study(g)) for g in range(5)]
    assert found == [0, 0, 2, 1, 1]
    assert declared.stratum(study(0) | {"grade": np.int32(-1)}) is None
    # A task that leaves nothing out has its two classes alone.
    assert [system(heads=("D",)).stratum(study(g)) for g in range(5)] == [0, 0, 0, 1, 1]


def test_reading_hands_the_found_region_on():
    declared = system()
    graded = study(4)
    shifted = np.roll(graded["mask"], 3, axis=2)
    seen = []

    def predict(stage, examples, untrained=False):
        seen.append(f"{stage}, untrained" if untrained else stage)
        if stage == "regions":
            return {"probabilities": np.zeros((1, 1, 1, 2))}
        count = len(examples["image"])
        p = np.tile([[0.2, 0.8]], (count, 1))
        return {"A": p, "D": p, "attention": np.zeros((count, 2, 2))}

    find = dataclasses.replace(declared.find)
    object.__setattr__(find, "decode", lambda study, outputs: shifted)
    declared.find = find
    (predicted,) = declared.read([graded], predict, "predicted")
    assert predicted.located.regions == [(0, (10.0, 17.0, 22.0, 37.0))]
    assert predicted.probabilities[cases.MODEL]["A"][0, 1] == 0.8
    assert seen == ["regions", "grades", "grades, untrained"]
    (oracle,) = declared.read([graded], predict, "reference")
    assert oracle.located.regions == [(0, (10.0, 14.0, 22.0, 34.0))]
    # Nobody looks at maps of the reference region.
    assert seen == ["regions", "grades", "grades, untrained", "grades"]
    # Three pixels to the side is another crop of the same size.
    assert predicted.shown.shape == oracle.shown.shape == (1, 48, 48, 1)
    assert not np.allclose(predicted.shown, oracle.shown)
    # Neither needs a label: of a study without any the found region is the same.
    bare = {k: graded[k] for k in ("patient_id", "study_id", "image", "affine")}
    (unlabelled,) = declared.read([bare], predict, "predicted")
    assert unlabelled.located.regions == predicted.located.regions
    np.testing.assert_array_equal(unlabelled.shown, predicted.shown)


def test_the_loss_is_that_of_what_the_first_stage_said():
    """Even odds everywhere: log 2 of cross-entropy, and a soft Dice that is neither 0 nor 1."""
    declared, graded = system(), study(4)
    unfitted = {task: {"majority": None, "ridge": None} for task in ("task_a", "task_d")}
    one = reading(declared, graded, 0.9)
    structure, case = declared.score(graded, one, one, unfitted)
    assert np.log(2) < structure["loss"] < np.log(2) + 1
    assert "loss" not in case
    assert not any(name.startswith("baseline") for name in case)


def test_a_study_without_a_mask_is_graded_on_the_found_region_alone():
    declared = system()
    full = study(4)
    graded = full | {"has_mask": False, "mask": np.zeros_like(full["mask"])}
    assert declared.grade.training_examples(graded) is None
    baselines = declared.fit_baselines([study(g, g) for g in range(5)])
    (row,) = declared.score(
        graded,
        reading(declared, full, 0.9),
        reading(declared, graded, 0.9, found=False),
        baselines,
    )
    assert row["p_model_task_a_high_grade"] == 0.9
    assert row["call_task_a"] == row["reference_task_a"] == "high_grade"
    assert not any(name.startswith("oracle") for name in row)


def test_pictures_and_facts_say_what_happened():
    declared = system()
    graded = study(3)
    bare = {k: graded[k] for k in ("study_id", "image", "affine")}
    found, nothing = reading(declared, graded, 0.7), reading(declared, graded, 0.7, found=False)
    pictures = [
        declared.picture(graded, found, graded, True),
        declared.picture(graded, nothing, graded, True),
        declared.picture(bare, found, None, True),
        declared.picture(bare, nothing, None, True),
    ]
    assert all(p.startswith(b"\x89PNG") for p in pictures)
    assert len({len(p) for p in pictures}) == 4
    rows = scored((3, 0, 1, 4), (0.7, 0.1, 0.1, 0.9), missed=(0,))
    assert declared.facts([r for r in rows if r["study"] == "s0"]) == [
        ("task_a", "high_grade, region not found"),
        ("task_d", "high_grade, region not found"),
    ]
    assert declared.facts([r for r in rows if r["study"] == "s1"]) == [
        ("task_a", "low_grade, called low_grade (0.90)"),
        ("task_d", "low_grade, called low_grade (0.90)"),
    ]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"heads": ()}, "the first must be a task"),
        ({"heads": ("goutallier", "A")}, "the first must be a task"),
        ({"heads": ("A", "F")}, "any of A, B"),
        ({"margin": -0.1}, "must not be negative"),
        ({"crop": (48,)}, "must have 2 values"),
    ],
)
def test_bad_options_are_refused(changes, message):
    with pytest.raises(UserError, match=message):
        system(**changes)


def test_the_cohort_variant_has_the_published_size():
    grade = system("cohort").grade
    model = grade.model()
    assert model.widths == (64, 128, 256, 512, 512)
    assert model.convolutions == (2, 2, 4, 4, 4)
    assert (grade.options.crop, model.pool, model.hidden) == ((224, 224), (7, 7), 4096)
