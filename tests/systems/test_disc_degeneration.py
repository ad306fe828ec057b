"""Scoring, hand-over and figures of the system, on studies and readings made by hand."""

import dataclasses
import runpy
from pathlib import Path

import numpy as np
import pytest
from builders import mini_spine
from sklearn.metrics import (
    accuracy_score,
    balanced_accuracy_score,
    cohen_kappa_score,
    f1_score,
    recall_score,
    roc_auc_score,
)

from mskjax import cases
from mskjax.config import StudyConfig, parse
from mskjax.errors import UserError
from mskjax.imaging.regions import labelled_regions
from mskjax.systems import disc_degeneration as dd
from mskjax.two_stage.regions_then_grades import Located, Reading

EXPERIMENT = Path(__file__).resolve().parents[2] / "experiments" / "disc_degeneration.py"
AFFINE = np.array([[-3.0, 0, 0, 10], [0, 0, -1, 20], [0, -1, 0, 30], [0, 0, 0, 1]])
LEVELS = (1, 2, 3, 4)
GRADES = dd.PFIRRMANN.classes
SEVERITY = np.array([0, 0, 1, 2, 2])


def system(**options):
    values = runpy.run_path(str(EXPERIMENT))["get_config"]().to_dict()
    values["stages"]["regions"]["spacing_mm"] = 1.0  # the studies' own: nothing is interpolated
    values["options"] |= options
    config = parse(StudyConfig, values)
    dd.check(config)
    return dd.build(config, dd.build(config).measure([study()]))


def disc_levels():
    labels = mini_spine.instances()
    return np.where(labels > 200, labels - 200, 0).astype(np.uint8)


def study(grades=(5, 4, 3, 2), image=None):
    mask = mini_spine.semantic()
    columns = dict.fromkeys(
        ("modic", "narrowing", "bulging", "herniation", "spondylolisthesis"), [-1] * 4
    )
    return {
        "patient_id": "p1",
        "study_id": "s1",
        "image": (mask * 100.0 if image is None else image).astype(np.float32),
        "affine": AFFINE,
        "mask": mask,
        "has_mask": True,
        "disc_levels": disc_levels(),
        "levels": {"level": list(LEVELS), "pfirrmann": list(grades), **columns},
    }


def certain(grade):
    return np.eye(5)[grade - 1] * 0.9 + 0.02


def reading(labels, grades):
    """A reading that finds the labelled regions and is certain of a grade for each label."""
    discs = labelled_regions(labels, AFFINE)
    mask = np.where(labels > 0, 2, np.where(mini_spine.semantic() == 2, 0, mini_spine.semantic()))
    p = np.array([certain(grades[d.level]) for d in discs])
    heads = {cases.MODEL: {"pfirrmann": p}} if discs else {cases.MODEL: {}}
    found = {"levels": labels, "gaps": 0, "left_out": 0}
    return Reading(Located(discs, mask.astype(np.uint8), found), heads)


TRUTH = dict(zip(LEVELS, (5, 4, 3, 2), strict=True))


def score(predicted, oracle=None):
    graded = study()
    baselines = system().fit_baselines([graded])
    ideal = oracle or reading(disc_levels(), TRUTH)
    rows = system().score(graded, predicted, ideal, baselines)
    by_kind = {kind: [r for r in rows if r["kind"] == kind] for kind in ("structure", "grade")}
    (detection,) = (r for r in rows if r["kind"] == "regions")
    return {r["name"]: r for r in by_kind["structure"]}, detection, by_kind["grade"]


def as_text(rows):
    """Rows as they are read from cases.csv."""
    columns = dict.fromkeys(k for row in rows for k in row)
    return [{**dict.fromkeys(columns, ""), **{k: str(v) for k, v in r.items()}} for r in rows]


def counts(detection):
    names = ("regions_reference", "regions_found", "regions_extra", "levels_right")
    return [detection[k] for k in names]


def probabilities(row, prefix="p", task="pfirrmann", classes=GRADES):
    return [row[f"{prefix}_model_{task}_{name}"] for name in classes]


def test_a_perfect_reading():
    structures, detection, discs = score(reading(disc_levels(), TRUTH))
    assert {name: row["dice"] for name, row in structures.items()} == {
        "vertebra": 1, "disc": 1, "canal": 1,
    }  # fmt: skip
    assert counts(detection) == [4, 4, 0, 4]
    assert [r["case"] for r in discs] == ["s1/1", "s1/2", "s1/3", "s1/4"]
    for row in discs:
        grade = TRUTH[row["name"]]
        assert row["call_pfirrmann"] == row["reference_pfirrmann"] == GRADES[grade - 1]
        severity = dd.SEVERITY[SEVERITY[grade - 1]]
        assert row["call_severity"] == row["reference_severity"] == severity
        assert (row["found"], row["wrong"]) == (1, 0)
        assert probabilities(row) == probabilities(row, "oracle_p") == certain(grade).tolist()
        of_severity = np.bincount(SEVERITY, certain(grade))
        own = probabilities(row, "p", "severity", dd.SEVERITY)
        assert own == pytest.approx(of_severity.tolist(), abs=1e-6)


def test_graded_levels_without_a_region_are_counted_and_are_no_case():
    own = study()
    own["levels"] = {k: [*v, v[0]] for k, v in own["levels"].items()}
    own["levels"]["level"][-1] = 5  # which the mask does not have
    own["levels"]["pfirrmann"][1] = -1  # and one that is not graded
    declared = system()
    baselines = declared.fit_baselines([own])
    found = reading(disc_levels(), TRUTH)
    rows = declared.score(own, found, found, baselines)
    (detection,) = (r for r in rows if r["kind"] == "regions")
    assert (detection["graded"], detection["graded_without_region"]) == (4, 1)
    assert [r["name"] for r in rows if r["kind"] == "grade"] == [1, 3, 4]
    figures = declared.region_figures(as_text(rows), {"resamples": 20, "seed": 0})
    assert figures["graded_without_region"]["value"] == 0.25


def test_rows_are_of_the_schema(tmp_path):
    structures, detection, discs = score(reading(disc_levels(), TRUTH))
    who = {"fold": 0, "seed": 0}
    rows = [{**who, **r} for r in (*structures.values(), detection, *discs)]
    cases.write(tmp_path / "cases.csv", rows)
    kinds = [r["kind"] for r in cases.read(tmp_path / "cases.csv")]
    assert kinds == ["structure"] * 3 + ["regions"] + ["grade"] * 4


def test_a_missed_disc_is_an_error_and_costs_no_other():
    labels = np.where(disc_levels() == 2, 0, disc_levels())
    structures, detection, discs = score(reading(labels, TRUTH))
    assert structures["disc"]["dice"] == pytest.approx(2 * 3 / 7)  # 3 of 4 equal discs
    assert counts(detection) == [4, 3, 0, 3]
    missed = discs[1]
    assert (missed["found"], missed["wrong"], missed["level_found"]) == (0, 1, "")
    said = ("call_", "p_", "baseline_ridge_")
    assert not any(name.startswith(said) for name in missed)
    assert all(any(name.startswith(start) for name in discs[0]) for start in said)
    assert probabilities(missed, "oracle_p") == certain(TRUTH[2]).tolist()
    assert [r["wrong"] for r in discs] == [0, 1, 0, 0]
    # Its price is set where figures are computed: nothing for the own class, whatever the task.
    rows = as_text(discs)
    for task in (t.grading for t in system().tasks):
        own = cases.graded(rows, task)
        p = task.priced(own.reference, own.probabilities(task, cases.MODEL))[1]
        assert p[own.reference[1]] == 0
        assert p.sum() == pytest.approx(1)


def test_an_extra_disc_is_counted_and_graded_nowhere():
    labels = disc_levels()
    labels[:, 0:3, 0:3] = 5
    structures, detection, discs = score(reading(labels, TRUTH | {5: 1}))
    assert counts(detection) == [4, 4, 1, 4]
    assert structures["disc"]["ppv"] < 1
    assert structures["disc"]["sensitivity"] == 1
    assert len(discs) == 4
    assert not any(r["wrong"] for r in discs)


def test_levels_counted_from_one_too_low_are_a_level_error_and_no_grade_error():
    shifted = np.where(disc_levels() > 0, disc_levels() + 1, 0).astype(np.uint8)
    _, detection, discs = score(reading(shifted, {k + 1: g for k, g in TRUTH.items()}))
    assert counts(detection) == [4, 4, 0, 0]
    assert [r["level_found"] for r in discs] == [2, 3, 4, 5]
    assert not any(r["wrong"] for r in discs)


def test_a_disc_found_elsewhere_is_missed():
    moved = np.roll(disc_levels(), 5, axis=1)
    _, detection, discs = score(reading(moved, TRUTH))
    assert counts(detection) == [4, 0, 4, 0]
    assert all(r["wrong"] for r in discs)


def test_a_study_without_mask_or_grades_is_not_scored_on_them():
    bare = study(grades=(-1, 3, -1, -1)) | {"has_mask": False}
    ours = reading(disc_levels(), TRUTH)
    rows = system().score(bare, ours, ours, system().fit_baselines([study()]))
    assert [r["kind"] for r in rows] == ["regions", "grade"]
    assert rows[1]["case"] == "s1/2"
    assert system().cases(bare) == ["s1/2"]


class Networks:
    """Stands for both networks: the first reads labels off the image, the second its brightness."""

    def __init__(self):
        self.seen = []

    def __call__(self, stage, examples):
        self.seen.append((stage, len(examples["image"])))
        if stage == "regions":
            image = examples["image"][..., 0]
            _, labels = np.unique(np.round(image, 3), return_inverse=True)
            return {"probabilities": np.eye(4, dtype=np.float32)[labels.reshape(image.shape)]}
        bright = examples["image"].mean((1, 2, 3, 4))
        return {"pfirrmann": np.array([certain(1 + int(97 * b) % 5) for b in bright])}


def test_the_grader_sees_the_regions_that_the_first_stage_found():
    networks = Networks()
    graded = study()
    (ours,) = system().read([graded], networks, "predicted")
    (ideal,) = system().read([graded], networks, "reference")
    np.testing.assert_array_equal(ours.located.mask, graded["mask"])
    np.testing.assert_array_equal(ours.located.found["levels"], graded["disc_levels"])
    # Same regions, same crops, same grades: the oracle can differ only through the regions.
    of_found, of_reference = (r.probabilities[cases.MODEL]["pfirrmann"] for r in (ours, ideal))
    assert of_found.shape == (4, 5)
    np.testing.assert_array_equal(of_found, of_reference)
    assert networks.seen == [("regions", 3), ("grades", 4), ("grades", 4)]


def test_what_the_first_stage_misses_the_grader_never_sees():
    networks = Networks()
    image = mini_spine.semantic() * 100.0
    image[disc_levels() == 3] = 100.0  # looks like vertebra
    graded = study(image=image)
    (ours,) = system().read([graded], networks, "predicted")
    (ideal,) = system().read([graded], networks, "reference")
    assert len(ours.located.regions) == len(ours.probabilities[cases.MODEL]["pfirrmann"]) == 3
    assert [d.level for d in ideal.located.regions] == list(LEVELS)
    rows = system().score(graded, ours, ideal, system().fit_baselines([graded]))
    discs = [r for r in rows if r["kind"] == "grade"]
    assert [r["found"] for r in discs] == [1, 1, 0, 1]
    assert all(len(probabilities(r, "oracle_p")) == 5 for r in discs)


def test_a_study_in_which_nothing_is_found_is_still_scored():
    def blind(stage, examples):
        assert stage == "regions"  # there is nothing to grade
        shape = (*examples["image"].shape[:-1], 4)
        return {"probabilities": np.broadcast_to(np.eye(4, dtype=np.float32)[0], shape)}

    (ours,) = system().read([study()], blind, "predicted")
    structures, detection, discs = score(ours)
    assert structures["disc"]["dice"] == 0
    assert counts(detection) == [4, 0, 0, 0]
    rows = as_text([{"fold": 0, **r} for r in discs])
    figures = system().summarise(rows, resamples=20, seed=0)
    for task in ("severity", "pfirrmann"):
        assert figures["end_to_end"][f"accuracy_{task}"]["value"] == 0
        assert figures["oracle_region"][f"accuracy_{task}"]["value"] == 1


@pytest.mark.parametrize(
    ("probabilities", "grade"),
    [
        ([1, 0, 0, 0, 0], 1),
        ([0, 0, 0, 0, 1], 5),
        ([0.4, 0, 0.2, 0, 0.4], 3),  # the mode would be 1
        ([0.51, 0, 0, 0, 0.49], 3),  # the median 1
        ([0.1, 0.5, 0.2, 0.1, 0.1], 3),
    ],
)
def test_the_rounded_expectation_has_the_least_squared_error(probabilities, grade):
    (chosen,) = dd.PFIRRMANN.calls(np.array([probabilities]))
    assert chosen == grade - 1
    errors = [np.dot(probabilities, (np.arange(1, 6) - g) ** 2) for g in range(1, 6)]
    assert errors[grade - 1] == min(errors)


def test_severity_groups_the_grades():
    assert dd.Options().of_grade() == (0, 0, 1, 2, 2)
    assert dd.Options(((1, 2), (3, 4), (5,))).of_grade() == (0, 0, 1, 1, 2)
    assert system().stratum(study((1, 1, 5, 5))) == 2  # the upper of the two middle grades
    assert system().stratum(study((1, 1, 1, 5))) == 0
    assert system().stratum(study((-1, -1, 3, -1))) == 1
    assert system().stratum(study((-1, -1, -1, -1))) is None
    assert system(severity=((1, 2), (3, 4), (5,))).stratum(study((4, 4, 4, 4))) == 1


@pytest.mark.parametrize(
    "severity", [((1, 2), (3,), (4,)), ((1, 2, 3), (4, 5)), ((1,), (1,), (2,))]
)
def test_a_severity_that_does_not_divide_the_grades_is_refused(severity):
    with pytest.raises(UserError, match="must divide the grades 1 to 5"):
        system(severity=severity)


def hand_made_rows(missed, seed=0, count=60):
    """Rows as read from cases.csv, with a known share of missed discs."""
    rng = np.random.default_rng(seed)
    rows, truth, given = [], [], []
    for i in range(count):
        grade = int(rng.integers(1, 6))
        p, ideal = rng.dirichlet(np.ones(5) * 0.7, 2)
        found = rng.random() >= missed
        row = {"kind": "grade", "fold": i % 3, "patient": f"p{i % 15}", "study": f"s{i}"}
        row |= {"case": f"s{i}/1", "level": f"level {1 + i % 5}", "found": int(found)}
        for task in system().tasks:
            row |= cases.cells(
                task.grading,
                task.class_of({"pfirrmann": grade}),
                {cases.MODEL: task.probabilities(p) if found else None},
                {cases.MODEL: task.probabilities(ideal)},
                {"majority": 2, "ridge": rng.uniform(-0.5, 4.5) if found else None},
            )
        rows.append(row)
        truth.append(grade)
        given.append((p, ideal, found))
    p, ideal, found = (np.array(v) for v in zip(*given, strict=True))
    return as_text(rows), np.array(truth), p, ideal, found


def values(figures):
    return {name: entry["value"] for name, entry in figures.items()}


@pytest.mark.parametrize("missed", [0.0, 0.2])
def test_figures_agree_with_scikit_learn(missed):
    rows, reference, p, ideal, found = hand_made_rows(missed)
    figures = system().summarise(rows, resamples=20, seed=0)
    groups = np.stack([p[:, [0, 1]].sum(1), p[:, 2], p[:, [3, 4]].sum(1)], 1)
    severity = np.where(found, groups.argmax(1), 3)  # 3 is a class that no reference has
    truth = SEVERITY[reference - 1]
    grade = np.where(found, np.floor(p @ np.arange(5) + 0.5) + 1, 6)
    ours = values(figures["end_to_end"])
    expected = {
        "accuracy_severity": accuracy_score(truth, severity),
        "balanced_accuracy_severity": recall_score(
            truth, severity, average="macro", labels=[0, 1, 2]
        ),
        "f1_macro_severity": f1_score(truth, severity, average="macro", labels=[0, 1, 2]),
        "accuracy_pfirrmann": accuracy_score(reference, grade),
        "balanced_accuracy_pfirrmann": recall_score(
            reference, grade, average="macro", labels=range(1, 6)
        ),
        "within_one_grade_pfirrmann": np.mean(found & (abs(reference - grade) <= 1)),
    }
    if missed:
        distance = np.where(found[None], (reference[:, None] - grade[None]) ** 2, 16)
        expected["quadratic_weighted_kappa_pfirrmann"] = (
            1 - np.diagonal(distance).mean() / distance.mean()
        )
    else:
        expected["balanced_accuracy_severity"] = balanced_accuracy_score(truth, severity)
        expected["cohen_kappa_severity"] = cohen_kappa_score(truth, severity)
        expected["auroc_ovo_macro_severity"] = roc_auc_score(truth, groups, multi_class="ovo")
        expected["quadratic_weighted_kappa_pfirrmann"] = cohen_kappa_score(
            reference, grade, weights="quadratic"
        )
    for name, value in expected.items():
        assert ours[name] == pytest.approx(value, abs=1e-5), name
    assert all(name.endswith(("_pfirrmann", "_severity")) for name in ours)
    ridge = [float(r["baseline_ridge_pfirrmann"] or "nan") for r in rows]
    right = np.floor(np.array(ridge) + 0.5).clip(0, 4) == reference - 1
    assert values(figures["baselines"]["ridge"])["accuracy_pfirrmann"] == pytest.approx(
        right.mean()
    )
    oracle = np.floor(ideal @ np.arange(5) + 0.5) + 1
    kappa = cohen_kappa_score(reference, oracle, weights="quadratic")
    assert values(figures["oracle_region"])[system().primary] == pytest.approx(kappa, abs=1e-5)
    shown = figures["confusion"]["pfirrmann"]
    assert np.sum(shown["matrix"]) == len(rows)
    assert ("missed" in shown["labels"]) == bool(missed)
    if missed:
        assert np.array(shown["matrix"])[:, 5].sum() == (~found).sum()
    assert set(figures["subgroups"]["level"]) == {"L5/S1", "L4/L5", "L3/L4", "L2/L3", "L1/L2"}
    assert figures["stages"]["grades"] == figures["oracle_region"]


def test_missed_discs_cost_end_to_end_and_not_with_reference_regions():
    whole = system().summarise(hand_made_rows(0.0)[0], resamples=20, seed=0)
    fewer = system().summarise(hand_made_rows(0.5)[0], resamples=20, seed=0)
    for name in ("accuracy_pfirrmann", "accuracy_severity"):
        assert values(fewer["end_to_end"])[name] < values(whole["end_to_end"])[name]
        ideal = [figures["oracle_region"][name]["n"] for figures in (fewer, whole)]
        assert ideal == [60, 60]


def test_published_figures_are_references_with_reasons_under_the_names_of_ours():
    rows = [{**row, "dice": "1", "iou": "1"} for row in hand_made_rows(0.0)[0][:1]]
    structures = [{**rows[0], "kind": "structure", "name": name} for name in dd.STRUCTURES]
    rows = [*structures, *hand_made_rows(0.0)[0]]
    report = system().summarise(rows, resamples=20, seed=0)
    figures = {**report["end_to_end"], **report["stages"]["regions"]}
    for entry in dd.DiscDegeneration.published:
        assert entry.as_json()["comparable"] is False
        assert entry.source
        assert entry.why
        assert entry.metric in figures


def test_a_cohort_without_grades_still_reports_its_regions():
    structures, detection, _ = score(reading(disc_levels(), TRUTH))
    rows = as_text([*structures.values(), detection])
    figures = system().summarise(rows, resamples=20, seed=0)
    assert figures["end_to_end"] == {}
    assert values(figures["stages"]["regions"])["dice_disc"] == 1
    assert values(figures["stages"]["regions"])["disc_detection_sensitivity"] == 1


def test_ridge_learns_the_grade_from_brightness_and_height():
    rng = np.random.default_rng(3)
    training = []
    for _ in range(6):
        grades = rng.integers(1, 6, 4)
        image = mini_spine.semantic() * 100.0
        for level, grade in zip(LEVELS, grades, strict=True):
            image[disc_levels() == level] = 500.0 - 80.0 * grade
        training.append(study(grades, image))
    fitted = system().fit_baselines(training[:-1])
    ours = reading(disc_levels(), TRUTH)
    located = dataclasses.replace(ours.located, mask=mini_spine.semantic())
    ours = dataclasses.replace(ours, located=located)
    rows = system().score(training[-1], ours, ours, fitted)
    discs = [r for r in rows if r["kind"] == "grade"]
    for task in (t.grading for t in system().tasks):
        references = [task.classes.index(r[f"reference_{task.task}"]) for r in discs]
        ridge = task.rounded(np.array([r[f"baseline_ridge_{task.task}"] for r in discs]))
        assert all(abs(ridge - references) <= 1)
        assert len({r[f"baseline_majority_{task.task}"] for r in discs}) == 1


def test_pictures_and_facts_say_what_happened():
    declared = system()
    graded, ours = study(), reading(np.where(disc_levels() == 2, 0, disc_levels()), TRUTH)
    ours = dataclasses.replace(
        ours, shown=np.zeros((3, 8, 12), np.float32), attention=np.ones((3, 2, 3))
    )
    drawn = [
        declared.picture(graded, ours, graded, True),
        declared.picture(graded, ours, None, True),
        declared.picture(graded, reading(np.zeros_like(disc_levels()), TRUTH), graded, True),
    ]
    assert all(p.startswith(b"\x89PNG") for p in drawn)
    assert len({len(p) for p in drawn}) == 3
    facts = declared.facts(as_text(score(ours)[2]))
    assert facts[:4] == [
        ("L5/S1, pfirrmann", "v, called v (0.92)"),
        ("L5/S1, severity", "severe, called severe (0.94)"),
        ("L4/L5, pfirrmann", "iv, region not found"),
        ("L4/L5, severity", "severe, region not found"),
    ]
    assert len(facts) == 8


def test_a_study_without_labels_is_read_and_drawn():
    full = study()
    bare = {k: full[k] for k in ("patient_id", "study_id", "image", "affine")}
    (ours,) = system().read([bare], Networks(), "predicted")
    (same,) = system().read([full], Networks(), "predicted")
    np.testing.assert_array_equal(ours.located.mask, same.located.mask)
    np.testing.assert_array_equal(
        ours.probabilities[cases.MODEL]["pfirrmann"], same.probabilities[cases.MODEL]["pfirrmann"]
    )
    assert system().picture(bare, ours, None, False).startswith(b"\x89PNG")
