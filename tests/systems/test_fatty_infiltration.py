"""Scoring, hand-over and figures of the system, on studies and readings made by hand."""

import dataclasses
import runpy
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, log_loss, recall_score, roc_auc_score

from mskjax.config import StudyConfig, parse
from mskjax.errors import UserError
from mskjax.systems import fatty_infiltration as fi

EXPERIMENT = Path(__file__).resolve().parents[2] / "experiments" / "fatty_infiltration.py"
AFFINE = np.array([[-4.0, 0, 0, 0], [0, 0, -1, 0], [0, -1, 0, 0], [0, 0, 0, 1]])
FOSSA = (slice(10, 22), slice(14, 34))


def system(variant="phantom", **grades):
    values = runpy.run_path(str(EXPERIMENT))["get_config"](variant).to_dict()
    values["stages"]["grades"] |= grades
    config = parse(StudyConfig, values)
    fi.check(config)
    return fi.build(config, [])


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


def reading(graded, p_a, p_d=None, found=True):
    if not found:
        return fi.Reading(np.zeros_like(graded["mask"]), None)
    p_d = p_a if p_d is None else p_d
    probabilities = {"A": np.array([1 - p_a, p_a]), "D": np.array([1 - p_d, p_d])}
    return fi.Reading(graded["mask"], fi.find_region(graded["mask"]), None, probabilities)


def scored(grades, probabilities, missed=()):
    """Rows of cases.csv, all values as text, of one study a grade."""
    declared = system()
    studies = [study(g, i, "left" if i % 2 else "right") for i, g in enumerate(grades)]
    baselines = declared.fit_baselines(studies)
    rows = []
    for i, (graded, p) in enumerate(zip(studies, probabilities, strict=True)):
        predicted = reading(graded, p, found=i not in missed)
        found = declared.score(graded, predicted, reading(graded, 1 - p), baselines)
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
    for suffix, inside, cut in (("", grades != 2, 2.5), ("_task_d", grades >= 0, 2.5)):
        reference, own = grades[inside] > cut, p[inside]
        ours = report["end_to_end"]
        for name, expected in {
            "auroc": roc_auc_score(reference, own),
            "accuracy": accuracy_score(reference, own >= 0.5),
            "sensitivity": recall_score(reference, own >= 0.5),
            "specificity": recall_score(~reference, own < 0.5),
            "log_loss": log_loss(reference, own),
        }.items():
            assert ours[name + suffix]["value"] == pytest.approx(expected, abs=1e-5), name
        assert ours["auroc" + suffix]["n"] == inside.sum()
        mirrored = report["oracle_region"]["auroc" + suffix]["value"]
        assert mirrored == pytest.approx(1 - ours["auroc" + suffix]["value"], abs=1e-5)
    assert report["stages"]["grades"] == report["oracle_region"]
    assert report["stages"]["regions"]["dice_fossa"]["value"] == 1
    assert set(report["confusion"]) == {"task A", "task D"}


def test_folds_are_reported_as_mean_and_sd():
    report = system().summarise(scored(GRADES, P), 20, 0)
    grades, p, folds = np.array(GRADES), np.array(P), np.arange(len(P)) % 2
    values = [
        roc_auc_score(grades[inside] > 2, p[inside])
        for inside in ((folds == k) & (grades != 2) for k in (0, 1))
    ]
    spread = report["folds"]["auroc"]
    assert spread["values"] == pytest.approx(values, abs=1e-5)
    assert spread["mean"] == pytest.approx(np.mean(values), abs=1e-5)
    assert spread["sd"] == pytest.approx(np.std(values, ddof=1), abs=1e-5)
    assert {"dice_fossa", "pixel_accuracy_fossa", "auroc_task_d"} <= set(report["folds"])


def test_an_image_without_a_found_region_is_wrong_with_the_worst_probability():
    rows = scored(GRADES, P, missed=(4, 5))
    missed = [r for r in rows if r["kind"] == "case" and r["found"] == "0"]
    assert [(r["study"], r["wrong"]) for r in missed] == [("s4", "1"), ("s5", "1")]
    assert not any("p_A" in r or "ridge_A" in r for r in missed)
    p = np.array(P)
    p[4], p[5] = 0, 1
    inside = np.array(GRADES) != 2
    report = system().summarise(rows, 20, 0)
    expected = roc_auc_score(np.array(GRADES)[inside] > 2, p[inside])
    assert report["end_to_end"]["auroc"]["value"] == pytest.approx(expected, abs=1e-5)
    assert report["confusion"]["task A"]["labels"][-1] == "missed"


def test_task_d_without_a_head_is_read_from_the_first_task():
    alone = system(heads=("A",))
    assert alone.tasks == ("A", "D")
    rows = [
        {k: v for k, v in r.items() if k not in ("p_D", "oracle_p_D")} for r in scored(GRADES, P)
    ]
    report = alone.summarise(rows, 20, 0)
    expected = roc_auc_score(np.array(GRADES) > 2, P)
    assert report["end_to_end"]["auroc_task_d"]["value"] == pytest.approx(expected, abs=1e-5)


def test_grade_two_trains_no_network_of_task_a_alone():
    assert system(heads=("A",)).grade.training_examples(study(2)) is None
    both = system().grade.training_examples(study(2))
    assert (both["target_A"][0], both["target_D"][0]) == (-1, 0)
    assert both["image"].shape == (1, 48, 48, 1)


def test_reading_hands_the_found_region_on():
    declared = system()
    graded = study(4)
    shifted = np.roll(graded["mask"], 3, axis=2)
    seen = []

    def predict(stage, examples):
        seen.append((stage, examples["image"].shape))
        if stage == "regions":
            return {"probabilities": np.zeros((1, 1, 1, 2))}
        count = len(examples["image"])
        p = np.tile([[0.2, 0.8]], (count, 1))
        return {"A": p, "D": p, "attention": np.zeros((count, 2, 2))}

    find = dataclasses.replace(declared.find)
    object.__setattr__(find, "decode", lambda study, outputs: shifted)
    object.__setattr__(find, "mean_loss", lambda study, outputs: 0.5)
    declared.find = find
    (predicted,) = declared.read([graded], predict, "predicted")
    assert predicted.place == (0, (10.0, 17.0, 22.0, 37.0))
    assert predicted.probabilities["A"][1] == 0.8
    assert [name for name, _ in seen] == ["regions", "grades"]
    (oracle,) = declared.read([graded], predict, "reference")
    assert oracle.place == (0, (10.0, 14.0, 22.0, 34.0))
    # Three pixels to the side is another crop of the same size.
    assert predicted.crop.shape == oracle.crop.shape
    assert not np.allclose(predicted.crop, oracle.crop)


def test_a_study_without_a_mask_is_graded_on_the_found_region_alone():
    declared = system()
    graded = study(4) | {"has_mask": False}
    assert declared.grade.training_examples(graded) is None
    baselines = declared.fit_baselines([study(g, g) for g in range(5)])
    (row,) = declared.score(
        graded, reading(study(4), 0.9), fi.Reading(graded["mask"], None), baselines
    )
    assert row["p_A"] == 0.9
    assert not any(name.startswith("oracle") for name in row)


def test_pictures_and_facts_say_what_happened():
    declared = system()
    graded = study(3)
    picture = declared.picture(graded, reading(graded, 0.7), phantom=True)
    assert picture.startswith(b"\x89PNG")
    assert declared.picture(graded, reading(graded, 0.7, found=False), True).startswith(b"\x89PNG")
    rows = [
        r for r in scored((3, 0, 1, 4), (0.7, 0.1, 0.1, 0.9), missed=(0,)) if r["study"] == "s0"
    ]
    assert ("Region", "not found") in declared.facts(rows)


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
