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
)

from mskjax.config import StudyConfig, parse
from mskjax.errors import UserError
from mskjax.imaging.regions import labelled_regions
from mskjax.systems import disc_degeneration as dd

EXPERIMENT = Path(__file__).resolve().parents[2] / "experiments" / "disc_degeneration.py"
AFFINE = np.array([[-3.0, 0, 0, 10], [0, 0, -1, 20], [0, -1, 0, 30], [0, 0, 0, 1]])
LEVELS = (1, 2, 3, 4)
SEVERITY = np.array([0, 0, 1, 2, 2])


def system(**options):
    values = runpy.run_path(str(EXPERIMENT))["get_config"]().to_dict()
    values["stages"]["regions"]["spacing_mm"] = 1.0  # the studies' own: nothing is interpolated
    values["options"] |= options
    config = parse(StudyConfig, values)
    dd.check(config)
    return dd.build(config, [study()])


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
    return dd.Reading(mask.astype(np.uint8), discs, labels, {"pfirrmann": p})


TRUTH = dict(zip(LEVELS, (5, 4, 3, 2), strict=True))


def score(predicted, oracle=None):
    graded = study()
    baselines = system().fit_baselines([graded])
    ideal = oracle or reading(disc_levels(), TRUTH)
    rows = system().score(graded, predicted, ideal, baselines)
    by_kind = {kind: [r for r in rows if r["kind"] == kind] for kind in ("structure", "disc")}
    (detection,) = (r for r in rows if r["kind"] == "detection")
    return {r["name"]: r for r in by_kind["structure"]}, detection, by_kind["disc"]


def counts(detection):
    return [detection[k] for k in ("reference_discs", "found_discs", "extra_discs", "right_level")]


def test_a_perfect_reading():
    structures, detection, discs = score(reading(disc_levels(), TRUTH))
    assert {name: row["dice"] for name, row in structures.items()} == {
        "vertebra": 1, "disc": 1, "canal": 1,
    }  # fmt: skip
    assert counts(detection) == [4, 4, 0, 4]
    assert [r["case"] for r in discs] == ["s1/1", "s1/2", "s1/3", "s1/4"]
    for row in discs:
        assert row["predicted"] == row["oracle"] == row["reference"] == TRUTH[row["name"]]
        assert (row["found"], row["wrong"]) == (1, 0)
        assert [row[f"p_{g}"] for g in range(1, 6)] == [row[f"oracle_p_{g}"] for g in range(1, 6)]


def test_a_missed_disc_is_an_error_and_costs_no_other():
    labels = np.where(disc_levels() == 2, 0, disc_levels())
    structures, detection, discs = score(reading(labels, TRUTH))
    assert structures["disc"]["dice"] == pytest.approx(2 * 3 / 7)  # 3 of 4 equal discs
    assert counts(detection) == [4, 3, 0, 3]
    missed = discs[1]
    assert (missed["found"], missed["wrong"]) == (0, 1)
    assert not {"predicted", "ridge", "level_found"} & missed.keys()
    p = np.array([missed[f"p_{g}"] for g in range(1, 6)])
    own = SEVERITY[TRUTH[2] - 1] == SEVERITY
    assert p[own].sum() == 0
    assert p.sum() == pytest.approx(1, abs=1e-5)
    assert missed["oracle"] == TRUTH[2]
    assert [r["wrong"] for r in discs] == [0, 1, 0, 0]


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
    assert [r["kind"] for r in rows] == ["detection", "disc"]
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
    np.testing.assert_array_equal(ours.mask, graded["mask"])
    np.testing.assert_array_equal(ours.labels, graded["disc_levels"])
    # Same regions, same crops, same grades: the oracle can differ only through the regions.
    np.testing.assert_array_equal(ours.probabilities["pfirrmann"], ideal.probabilities["pfirrmann"])
    assert networks.seen == [("regions", 3), ("grades", 4), ("grades", 4)]


def test_what_the_first_stage_misses_the_grader_never_sees():
    networks = Networks()
    image = mini_spine.semantic() * 100.0
    image[disc_levels() == 3] = 100.0  # looks like vertebra
    graded = study(image=image)
    (ours,) = system().read([graded], networks, "predicted")
    (ideal,) = system().read([graded], networks, "reference")
    assert len(ours.discs) == 3
    assert [d.level for d in ideal.discs] == list(LEVELS)
    rows = system().score(graded, ours, ideal, system().fit_baselines([graded]))
    discs = [r for r in rows if r["kind"] == "disc"]
    assert [r["found"] for r in discs] == [1, 1, 0, 1]
    assert all("oracle" in r for r in discs)


def test_a_study_in_which_nothing_is_found_is_still_scored():
    def blind(stage, examples):
        assert stage == "regions"  # there is nothing to grade
        shape = (*examples["image"].shape[:-1], 4)
        return {"probabilities": np.broadcast_to(np.eye(4, dtype=np.float32)[0], shape)}

    (ours,) = system().read([study()], blind, "predicted")
    structures, detection, discs = score(ours)
    assert structures["disc"]["dice"] == 0
    assert counts(detection) == [4, 0, 0, 0]
    rows = [dict.fromkeys(r, "") | {k: str(v) for k, v in r.items()} for r in discs]
    figures = system().summarise(rows, resamples=20, seed=0)
    assert figures["end_to_end"]["accuracy"]["value"] == 0
    assert figures["oracle_region"]["accuracy"]["value"] == 1


@pytest.mark.parametrize(
    ("probabilities", "grade"),
    [
        ([1, 0, 0, 0, 0], 1),
        ([0, 0, 0, 0, 1], 5),
        ([0.4, 0, 0.2, 0, 0.4], 3),  # the mode would be 1, the mean 3
        ([0.45, 0, 0, 0.1, 0.45], 4),
        ([0.1, 0.5, 0.2, 0.1, 0.1], 2),
    ],
)
def test_the_median_grade_has_the_least_expected_error(probabilities, grade):
    assert dd.median_grade(np.array(probabilities)) == grade
    errors = [np.dot(probabilities, abs(np.arange(1, 6) - g)) for g in range(1, 6)]
    assert errors[grade - 1] == min(errors)


def test_severity_groups_the_grades():
    assert dd.Options().of_grade().tolist() == [0, 0, 1, 2, 2]
    assert dd.Options(((1, 2), (3, 4), (5,))).of_grade().tolist() == [0, 0, 1, 1, 2]
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


def hand_made_rows(missed, seed=0, count=90):
    """Rows as read from cases.csv, with a known share of missed discs."""
    rng = np.random.default_rng(seed)
    rows = []
    for i in range(count):
        reference = int(rng.integers(1, 6))
        p, ideal = rng.dirichlet(np.ones(5) * 0.7, 2)
        row = {"kind": "disc", "patient": f"p{i % 15}", "name": str(1 + i % 5)}
        row |= {"reference": str(reference), "oracle": str(dd.median_grade(ideal))}
        row |= {f"oracle_p_{g}": str(v) for g, v in enumerate(ideal, 1)}
        row |= {"majority": "3", "ridge": str(rng.integers(1, 6)), "found": "1"}
        row["predicted"] = str(dd.median_grade(p))
        if rng.random() < missed:
            other = (SEVERITY[reference - 1] != SEVERITY).astype(float)
            p = other / other.sum()
            row |= {"found": "0", "predicted": "", "ridge": ""}
        rows.append(row | {f"p_{g}": str(v) for g, v in enumerate(p, 1)})
    return rows


def values(figures):
    return {name: entry["value"] for name, entry in figures.items()}


@pytest.mark.parametrize("missed", [0.0, 0.2])
def test_figures_agree_with_scikit_learn(missed):
    rows = hand_made_rows(missed)
    figures = system().summarise(rows, resamples=20, seed=0)
    reference = np.array([int(r["reference"]) for r in rows])
    found = np.array([r["found"] == "1" for r in rows])
    p = np.array([[float(r[f"p_{g}"]) for g in range(1, 6)] for r in rows])
    groups = np.stack([p[:, [0, 1]].sum(1), p[:, 2], p[:, [3, 4]].sum(1)], 1)
    severity = np.where(found, groups.argmax(1), 3)  # 3 is a class that no reference has
    truth = SEVERITY[reference - 1]
    grade = np.where(found, [int(r["predicted"] or 0) for r in rows], 6)
    ours = values(figures["end_to_end"])
    expected = {
        "accuracy": accuracy_score(truth, severity),
        "sensitivity": recall_score(truth, severity, average="macro", labels=[0, 1, 2]),
        "f1": f1_score(truth, severity, average="macro", labels=[0, 1, 2]),
        "accuracy_pfirrmann": accuracy_score(reference, grade),
        "balanced_accuracy_pfirrmann": recall_score(
            reference, grade, average="macro", labels=range(1, 6)
        ),
        "within_one_grade_pfirrmann": np.mean(found & (abs(reference - grade) <= 1)),
    }
    if missed:
        distance = np.where(found[None], (reference[:, None] - grade[None]) ** 2, 16)
        expected["quadratic_weighted_kappa"] = 1 - np.diagonal(distance).mean() / distance.mean()
    else:
        expected["balanced_accuracy"] = balanced_accuracy_score(truth, severity)
        expected["cohen_kappa"] = cohen_kappa_score(truth, severity)
        expected["quadratic_weighted_kappa"] = cohen_kappa_score(
            reference, grade, weights="quadratic"
        )
    for name, value in expected.items():
        assert ours[name] == pytest.approx(value, abs=1e-5), name
    ridge = [int(r["ridge"] or 6) for r in rows]
    assert values(figures["baselines"]["ridge"])["accuracy_pfirrmann"] == pytest.approx(
        accuracy_score(reference, ridge)
    )
    oracle = [int(r["oracle"]) for r in rows]
    kappa = cohen_kappa_score(reference, oracle, weights="quadratic")
    assert values(figures["oracle_region"])["quadratic_weighted_kappa"] == pytest.approx(
        kappa, abs=1e-5
    )
    shown = figures["confusion"]["pfirrmann"]
    assert np.sum(shown["matrix"]) == len(rows)
    assert ("missed" in shown["labels"]) == bool(missed)
    if missed:
        assert np.array(shown["matrix"])[:, 5].sum() == (~found).sum()


def test_missed_discs_cost_end_to_end_and_not_with_reference_regions():
    whole = system().summarise(hand_made_rows(0.0), resamples=20, seed=0)
    fewer = system().summarise(hand_made_rows(0.5), resamples=20, seed=0)
    assert (
        values(fewer["end_to_end"])["accuracy_pfirrmann"]
        < values(whole["end_to_end"])["accuracy_pfirrmann"]
    )
    assert fewer["oracle_region"]["accuracy"]["n"] == whole["oracle_region"]["accuracy"]["n"] == 90


def test_published_figures_are_references_with_reasons():
    for entry in dd.DiscDegeneration.published:
        assert entry.as_json()["comparable"] is False
        assert entry.source
        assert entry.why


def test_a_cohort_without_grades_still_reports_its_regions():
    structures, detection, _ = score(reading(disc_levels(), TRUTH))
    rows = [{k: str(v) for k, v in r.items()} for r in (*structures.values(), detection)]
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
    ours = dataclasses.replace(ours, mask=mini_spine.semantic())
    rows = system().score(training[-1], ours, ours, fitted)
    discs = [r for r in rows if r["kind"] == "disc"]
    assert all(abs(r["ridge"] - r["reference"]) <= 1 for r in discs)
    assert len({r["majority"] for r in discs}) == 1
