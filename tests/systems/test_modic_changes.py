"""Hand-over, levels, scoring and figures of the system, on studies and readings made by hand."""

import dataclasses
import json
import runpy
from pathlib import Path

import numpy as np
import pytest
from sklearn import metrics as sk

from mskjax import cases
from mskjax.config import StudyConfig, parse
from mskjax.errors import UserError
from mskjax.imaging.geometry import resample
from mskjax.imaging.intensity import Landmarks
from mskjax.imaging.volume import Volume
from mskjax.stages.box_detection import Found, on_grid
from mskjax.systems import modic_changes as mc
from mskjax.systems.modic_changes.grading import Disc, boxed_discs
from mskjax.two_stage.regions_then_grades import Located, Reading

EXPERIMENT = Path(__file__).resolve().parents[2] / "experiments" / "modic_changes.py"
AFFINE = np.array([[-4.0, 0, 0, 0], [0, 0, -1.0, 0], [0, -1.5, 0, 0], [0, 0, 0, 1]])
BOXES = ((50.0, 10.0, 58.0, 26.0), (30.0, 10.0, 38.0, 26.0), (10.0, 10.0, 18.0, 26.0))
NORMALISATIONS = ("z_score_volume", "none")
DETECTIONS = 16


def system(variant="phantom", normalisations=NORMALISATIONS, studies=(), fitted=None, **grades):
    values = runpy.run_path(str(EXPERIMENT))["get_config"](variant).to_dict()
    values["options"]["normalisations"] = normalisations
    values["stages"]["grades"] |= grades
    config = parse(StudyConfig, values)
    mc.check(config)
    declared = mc.build(config, fitted or {})
    return mc.build(config, declared.measure(studies)) if studies else declared


def study(number=0, modic=(0, 1, 2), pfirrmann=(1, 3, 5), boxed=(1, 1, 1), has_t1=True):
    rng = np.random.default_rng(number)
    t1, t2 = rng.normal(100, 3, (2, 3, 70, 40)).astype(np.float32)
    for (row0, col0, row1, col1), kind, grade in zip(BOXES, modic, pfirrmann, strict=True):
        disc = (slice(None), slice(int(row0), int(row1)), slice(int(col0), int(col1)))
        t1[disc], t2[disc] = 60 + 20 * kind, 40 + 25 * (5 - grade)
    return {
        "patient_id": f"p{number}",
        "study_id": f"s{number}",
        "t1": t1 * has_t1,
        "t2": t2,
        "has_t1": has_t1,
        "has_boxes": bool(any(boxed)),
        "affine": AFFINE,
        "sex": "f" if number % 2 else "m",
        "boxes": {
            "boxed": np.array(boxed),
            "slice": np.array(boxed),
            "box": np.array(BOXES, np.float32) * np.array(boxed)[:, None],
            "level": np.array([1, 2, 3]),
            "modic": np.array(modic),
            "pfirrmann": np.array(pfirrmann),
        },
    }


def shifted(box, rows):
    row0, col0, row1, col1 = box
    return (row0 + rows, col0, row1 + rows, col1)


def fake(found, calls=None):
    """A predict whose detector finds, study by study, what is given: (native boxes, scores)."""
    queue = list(found)
    grid = resample(Volume(study()["t2"], AFFINE), (None, 2.0, 2.0)).affine

    def predict(stage, examples, untrained=False):
        image = examples["image"]
        if calls is not None:
            calls.append((f"{stage}, untrained" if untrained else stage, len(image)))
        if stage != "boxes":
            # Outputs tell which crop they are of.
            mean = image.mean((1, 2, 3, 4))
            modic = np.stack([mean, 1 - mean, 0 * mean], 1)
            return {"modic": modic, "pfirrmann": modic, "attention": image[:, :, ::4, ::4, 0]}
        boxes = np.zeros((len(image), DETECTIONS, 4), np.float32)
        scores = np.zeros((len(image), DETECTIONS), np.float32)
        for middle in range(1, len(image), 3):
            own, own_scores = queue.pop(0)
            if len(own):
                boxes[middle, : len(own)] = on_grid(np.array(own), AFFINE, grid)
                scores[middle, : len(own)] = own_scores
        nothing = np.zeros((*scores.shape, 2), np.float32)
        return {"boxes": boxes, "scores": scores, "valid": scores > 0, "probabilities": nothing}

    return predict


def reading(discs, p=None, grades=None, found=True):
    """A reading whose networks gave discs the probabilities ``p`` (N, 3) and ``grades`` (N, 5)."""
    p = np.full((len(discs), 3), 1 / 3) if p is None else np.asarray(p)
    grades = np.full((len(discs), 5), 0.2) if grades is None else np.asarray(grades)
    boxes, scores = np.array([d.box for d in discs]).reshape(-1, 4), [d.score for d in discs]
    heads = {"modic": p, "pfirrmann": grades, "presence": np.stack([p[:, 0], 1 - p[:, 0]], 1)}
    detections = Found(1, boxes, np.array(scores), np.zeros(len(scores)))
    said = {"detections": detections, "gaps": 0, "left_out": 0} if found else None
    outputs = {n: dict(heads) if len(discs) else {} for n in NORMALISATIONS}
    return Reading(Located(discs, found=said), outputs)


def discs_at(*levels, score=0.9):
    return [Disc(k, 1, BOXES[k - 1], score) for k in levels]


def score(declared, own, predicted, oracle=None, kind="grade"):
    baselines = declared.fit_baselines([study(1), study(2)])
    rows = declared.score(own, predicted, oracle or reading([]), baselines)
    return [r for r in rows if r["kind"] == kind]


def as_text(rows):
    return [{k: str(v) for k, v in row.items()} for row in rows]


def test_discs_are_handed_on_with_levels_and_each_study_gets_its_own():
    declared, calls = system(), []
    order = [2, 0, 1]
    found = [
        ([*(BOXES[i] for i in order), (60, 30, 66, 38)], [0.9, 0.8, 0.7, 0.3]),
        ([], []),
        (BOXES[:1], [0.6]),
    ]
    studies = [study(0), study(1), study(2, has_t1=False)]
    first, none, last = declared.read(studies, fake(found, calls), "predicted")
    # Maps are shown of the first grader alone.
    graders = [f"grades_{n}" for n in NORMALISATIONS]
    graders.insert(1, f"{graders[0]}, untrained")
    assert calls == [("boxes", 9), *((name, 4) for name in graders)]
    discs = first.located.regions
    assert [d.level for d in discs] == [1, 2, 3]
    assert [d.slice for d in discs] == [1, 1, 1]
    np.testing.assert_allclose([d.box for d in discs], BOXES, atol=1e-3)
    # An unsure detection is no disc, but the detector is judged by it.
    assert len(first.located.found["detections"].scores) == 4
    assert list(none.located.regions) == []
    assert all(len(p) == 0 for heads in none.probabilities.values() for p in heads.values())
    for own, got in ((studies[0], first), (studies[2], last)):
        for name, grader in declared.graders.items():
            outputs = got.probabilities[name]
            assert set(outputs) == {"modic", "pfirrmann"}
            image = grader.cut(own, got.located.regions)["image"]
            expected = image.mean((1, 2, 3, 4))
            np.testing.assert_allclose(outputs["modic"][:, 0], expected, atol=1e-5)
            if name == NORMALISATIONS[0]:  # what is shown is T2 as the first grader saw it
                np.testing.assert_array_equal(got.shown, image[:, image.shape[1] // 2, ..., 1])
                assert got.attention.shape == (len(image), *image[0, 0, ::4, ::4, 0].shape)


def test_the_oracle_reads_reference_boxes_without_the_detector():
    calls = []
    unboxed = study(1, boxed=(0, 0, 0))
    ours, nothing = system().read([study(), unboxed], fake([], calls), "reference")
    assert [c[0] for c in calls] == [f"grades_{n}" for n in NORMALISATIONS]
    assert [d.level for d in ours.located.regions] == [1, 2, 3]
    assert ours.located.found is None
    assert list(nothing.located.regions) == []
    # None at all, in any study of the chunk.
    (alone,) = system().read([unboxed], fake([], calls := []), "reference")
    assert (list(alone.located.regions), calls) == ([], [])


def test_gaps_and_twins_are_counted():
    # Every ten rows a disc; the fourth is missing, the second is found twice.
    rows = (60, 50, 40, 20, 10, 51)
    boxes = [(row, 10, row + 4, 26) for row in rows]
    predict = fake([(boxes, [0.9, 0.8, 0.9, 0.9, 0.9, 0.7])])
    (got,) = system().read([study()], predict, "predicted")
    assert (got.located.found["left_out"], got.located.found["gaps"]) == (1, 1)
    assert [(d.level, round(d.box[0])) for d in got.located.regions] == [
        (1, 60),
        (2, 50),
        (3, 40),
        (5, 20),
        (6, 10),
    ]


def test_a_boxed_disc_is_matched_by_overlap_whatever_its_level():
    # The lowest disc was missed: those above are counted one too low, but they are where they are.
    p = [[0.1, 0.8, 0.1], [0.1, 0.1, 0.8]]
    found = [Disc(1, 1, BOXES[1], 0.9), Disc(2, 1, shifted(BOXES[2], 1), 0.8)]
    declared, predicted = system(), reading(found, p)
    rows = score(declared, study(), predicted)
    assert [r["case"] for r in rows] == ["s0/1", "s0/2", "s0/3"]
    assert [(r["found"], r["level_found"]) for r in rows] == [(0, ""), (1, 1), (1, 2)]
    assert [r["wrong"] for r in rows] == [1, 0, 0]
    assert "p_none_modic_mc0" not in rows[0]
    assert "call_modic" not in rows[0]
    assert [rows[1][f"p_none_modic_mc{k}"] for k in range(3)] == p[0]
    assert [r["call_modic"] for r in rows[1:]] == ["mc1", "mc2"]
    (levels,) = score(declared, study(), predicted, kind="regions")
    names = ("regions_reference", "regions_found", "levels_right")
    counts = [levels[name] for name in names]
    assert counts == [3, 2, 0]


def test_an_unboxed_disc_is_matched_by_its_level():
    own = study(boxed=(0, 0, 0))
    rows = score(system(), own, reading(discs_at(1, 3), [[0.9, 0.1, 0], [0.9, 0.1, 0]]))
    assert [(r["boxed"], r["found"]) for r in rows] == [(0, 1), (0, 0), (0, 1)]
    assert [r["wrong"] for r in rows] == [0, 1, 1]
    # Nothing is said of the detector where there is nothing to compare it with.
    assert score(system(), own, reading(discs_at(1)), kind="detection") == []
    assert score(system(), own, reading(discs_at(1)), kind="box") == []
    assert score(system(), own, reading(discs_at(1)), kind="regions") == []


def test_a_missed_disc_says_whether_the_image_can_show_it():
    def graded(own, found):
        """Levels 1 to 5, of which an image of 70 rows shows three: a disc every 20 rows."""
        table = {k: np.concatenate([v, v[:2]]) for k, v in own["boxes"].items()}
        table["level"], table["boxed"][3:] = np.arange(1, 6), 0
        rows = score(system(), {**own, "boxes": table}, reading(found, np.eye(3)[: len(found)]))
        return [r["in_image"] for r in rows]

    nothing = study(boxed=(0, 0, 0))
    assert graded(nothing, discs_at(1, 2)) == [1, 1, 1, 0, 0]
    assert graded(nothing, discs_at(1, 3)) == [1, 1, 1, 0, 0]
    assert graded(nothing, discs_at(1)) == [1, "", "", "", ""]  # no row to continue
    # Boxes say so whatever was found, also a box that was missed.
    assert graded(study(), []) == [1, 1, 1, 0, 0]
    # As many boxes as the image has discs, whichever levels these are.
    unnamed = study()
    unnamed["boxes"]["level"] = np.array([0, 0, 0])
    table = {k: np.concatenate([v, v, v[:1]]) for k, v in unnamed["boxes"].items()}
    table["boxed"][3:], table["level"][3:] = 0, [1, 2, 3, 4]
    rows = score(system(), {**unnamed, "boxes": table}, reading([]))
    assert [(r["name"], r["in_image"]) for r in rows] == [(1, 1), (2, 1), (3, 1), (4, 0)]


def test_a_box_beside_a_boxed_disc_is_a_miss_even_at_the_right_level():
    beside = [dataclasses.replace(d, box=shifted(d.box, 4)) for d in discs_at(1, 2, 3)]
    rows = score(system(), study(), reading(beside, np.eye(3)))
    assert [(r["found"], r["wrong"]) for r in rows] == [(0, 1)] * 3
    rows = score(system(), study(), reading(discs_at(1, 2, 3), np.eye(3)))
    assert [(r["found"], r["wrong"]) for r in rows] == [(1, 0)] * 3


def test_grades_that_are_missing_or_no_class_are_left_empty():
    own = study(modic=(3, -1, 0), pfirrmann=(2, -1, -1))
    rows = score(system(), own, reading(discs_at(1, 2, 3)), reading(discs_at(3)))
    assert [r["name"] for r in rows] == [1, 3]
    assert [r["reference_modic"] for r in rows] == ["", "mc0"]
    assert [r["reference_pfirrmann"] for r in rows] == ["ii", ""]
    assert ["wrong" in r for r in rows] == [False, True]
    assert ["oracle_p_none_modic_mc0" in r for r in rows] == [False, True]
    rows = score(system(heads=("presence",)), own, reading(discs_at()))
    assert [r["reference_presence"] for r in rows] == ["present", "absent"]


def test_boxes_of_a_fold_are_filled_only_where_all_discs_are_found():
    boxed, complete, short = study(0), study(1, boxed=(0, 0, 1)), study(2, boxed=(0, 0, 0))
    moved = [shifted(b, 1) for b in BOXES]
    predict = fake([(moved, [0.9] * 3), (moved[:2], [0.9] * 2)])
    declared = system()
    filled = declared.recut([boxed, complete, short], predict)
    assert filled[0]["boxes"] is boxed["boxes"]
    table = filled[1]["boxes"]
    assert table["boxed"].tolist() == [1, 1, 1]
    assert table["slice"].tolist() == [1, 1, 1]
    # A reference box stays what it was, and so does the study that was handed in.
    np.testing.assert_allclose(table["box"], [*moved[:2], BOXES[2]], atol=1e-3)
    assert complete["boxes"]["boxed"].tolist() == [0, 0, 1]
    assert filled[2]["boxes"] is short["boxes"]
    assert len(filled) == 3
    first = declared.graders[NORMALISATIONS[0]]
    assert first.training_examples(filled[1])["case"].tolist() == [
        "s1/1",
        "s1/2",
        "s1/3",
    ]


def test_a_control_run_exchanges_grades_and_leaves_boxes():
    own, donor = study(0, modic=(0, 0, -1), pfirrmann=(1, 1, -1)), study(1, pfirrmann=(5, 4, 3))
    table = system().relabelled(own, donor)["boxes"]
    for column in ("level", "boxed", "slice", "box"):
        np.testing.assert_array_equal(table[column], own["boxes"][column])
    assert (table["modic"][2], table["pfirrmann"][2]) == (-1, -1)  # not graded, so not exchanged
    theirs = set(zip(donor["boxes"]["modic"], donor["boxes"]["pfirrmann"], strict=True))
    drawn = set(zip(table["modic"][:2], table["pfirrmann"][:2], strict=True))
    assert drawn <= theirs
    assert len(drawn) == 2
    assert own["boxes"]["pfirrmann"].tolist() == [1, 1, -1]
    without = study(2, modic=(-1, -1, -1), pfirrmann=(-1, -1, -1))
    assert system().relabelled(own, without)["boxes"]["modic"].tolist() == [-1, -1, -1]


def test_signs_that_are_learnt_beside_are_not_reported():
    declared = system(heads=("presence", "pfirrmann", "narrowing", "upper_endplate"))
    grader = declared.graders[NORMALISATIONS[0]]
    assert [h.name for h in grader.heads][2:] == ["narrowing", "upper_endplate"]
    assert [t.grading.task for t in declared.tasks] == ["presence", "pfirrmann"]
    own = study()
    own["boxes"] |= {"narrowing": np.array([0, 1, -1]), "upper_endplate": np.array([1, 0, 1])}
    examples = grader.training_examples(own)
    assert examples["target_narrowing"].tolist() == [0, 1, -1]
    rows = score(declared, own, reading(discs_at(1, 2, 3)))
    assert not any("narrowing" in column for row in rows for column in row)


def test_landmarks_of_a_fold_are_those_of_its_training_patients():
    studies = [study(0), study(1), study(2)]
    declared = system(normalisations=("landmarks", "none"))
    stored = json.loads(json.dumps(declared.fit(studies, [0, 2])))
    fitted = system(normalisations=("landmarks", "none"), fitted=stored)
    expected = Landmarks.fit([studies[0]["t2"], studies[2]["t2"]])
    assert fitted.graders["landmarks"].landmarks[1] == expected
    assert declared.graders["landmarks"].landmarks is None
    assert [s.name for s in fitted.stages] == [s.name for s in declared.stages]
    assert system().fit(studies, [0, 2]) == {}


def test_strata_and_cases():
    declared = system()
    assert declared.stratum(study()) == 3
    assert declared.stratum(study(modic=(0, 0, -1))) == 2
    assert declared.stratum(study(boxed=(0, 0, 0))) == 1
    assert declared.stratum(study(modic=(0, -1, 0), boxed=(0, 0, 0))) == 0
    empty = study()
    empty["boxes"] = {k: v[:0] for k, v in empty["boxes"].items()}
    assert declared.stratum(empty) is None
    assert declared.cases(empty) == []
    assert declared.cases(study(modic=(1, -1, 1), pfirrmann=(-1, -1, 1))) == ["s0/1", "s0/3"]


def test_a_type_that_hardly_occurs_is_no_class():
    few = [study(i) for i in range(19)]
    with pytest.raises(UserError, match=r"type 1: 19, .*heads=\"\('presence','pfirrmann'\)\""):
        mc.check_counts(few)
    mc.check_counts([*few, study(19)])
    with pytest.raises(UserError, match="too few discs"):
        system(studies=few)
    declared = system(studies=few, heads=("presence",))
    # 105 mm by 40 mm and a pixel of 2 mm more, in multiples of eight.
    assert declared.find.canvas == (56, 24)


def test_ridge_and_majority_learn_from_the_boxes():
    declared = system()
    kinds = [(0, 1, 2), (0, 0, 1), (2, 0, 1), (0, 2, 0)]
    train = [study(i, modic=kind) for i, kind in enumerate(kinds)]
    baselines = declared.fit_baselines(train)
    assert baselines["modic"]["majority"] == 0
    held = study(9, modic=(2, 1, 0))
    features = mc.hand_features(held, boxed_discs(held)[0])
    assert features.shape == (3, 10)
    np.testing.assert_allclose(features[:, 8], 8.0 * 1.5)  # mm
    np.testing.assert_allclose(features[:, 0], [1.0, 0.8, 0.6], atol=0.03)
    rows = score_with(declared, held, baselines)
    ridge = mc.GRADINGS["modic"].rounded(np.array([r["baseline_ridge_modic"] for r in rows]))
    assert ridge.tolist() == [2, 1, 0]
    assert [r["baseline_majority_modic"] for r in rows] == ["mc0"] * 3
    # Without a boxed disc there is nothing to learn from, and so nothing to say.
    nothing = declared.fit_baselines([study(0, boxed=(0, 0, 0))])
    assert nothing["modic"] == {"majority": None, "ridge": None}
    assert not any(k.startswith("baseline") for r in score_with(declared, held, nothing) for k in r)


def score_with(declared, own, baselines):
    rows = declared.score(own, reading(discs_at(1, 2, 3)), reading([]), baselines)
    return [r for r in rows if r["kind"] == "grade"]


STUDIES = 12


@pytest.fixture(scope="module")
def scored():
    """Rows of cases.csv of all studies as text, with the probabilities they were made of."""
    declared, rng = system(), np.random.default_rng(0)
    kinds, grades = rng.integers(0, 3, (STUDIES, 3)), rng.integers(1, 6, (STUDIES, 3))
    studies = [study(i, tuple(kinds[i]), tuple(grades[i])) for i in range(STUDIES)]
    baselines = declared.fit_baselines(studies)
    p, q = rng.dirichlet(np.ones(3), (STUDIES, 3)), rng.dirichlet(np.ones(5), (STUDIES, 3))
    p = (p + 0.5 * np.eye(3)[kinds]) / 1.5
    rows = []
    for i, own in enumerate(studies):
        levels = (1, 2) if i == 4 else (1, 2, 3)  # one disc is missed
        kept = slice(0, len(levels))
        ours = reading(discs_at(*levels), p[i, kept], q[i, kept])
        ideal = reading(boxed_discs(own)[0], p[i], q[i], found=False)
        rows += [{"fold": i % 2, **r} for r in declared.score(own, ours, ideal, baselines)]
    return declared, as_text(rows), kinds, grades - 1, p, q


@pytest.fixture(scope="module")
def report(scored):
    return scored[0].summarise(scored[1], 20, 0)


def test_rows_are_of_the_schema(scored, tmp_path):
    cases.write(tmp_path / "cases.csv", scored[1])
    kinds = {r["kind"] for r in cases.read(tmp_path / "cases.csv")}
    assert kinds == {"detection", "box", "regions", "grade"}


def test_figures_agree_with_scikit_learn(scored, report):
    _, _, kinds, grades, p, q = scored
    reference, chosen = kinds.ravel(), p.argmax(-1).ravel()
    missed = 4 * 3 + 2
    for place, predicted in (
        ("oracle_region", chosen),
        ("end_to_end", np.where(np.arange(len(chosen)) == missed, 3, chosen)),
    ):
        figures = report[place]
        for name, expected in {
            "accuracy": sk.accuracy_score(reference, predicted),
            "cohen_kappa": sk.cohen_kappa_score(reference, predicted),
            "balanced_accuracy": sk.recall_score(
                reference, predicted, labels=[0, 1, 2], average="macro"
            ),
        }.items():
            value = figures[f"{name}_modic"]["value"]
            assert value == pytest.approx(expected, abs=1e-5), (place, name)
        assert figures["accuracy_modic"]["n"] == 3 * STUDIES
    rounded = np.rint(q @ np.arange(5)).ravel()
    expected = sk.cohen_kappa_score(grades.ravel(), rounded, weights="quadratic", labels=range(5))
    kappa = report["oracle_region"]["quadratic_weighted_kappa_pfirrmann"]["value"]
    assert kappa == pytest.approx(expected, abs=1e-5)


def test_the_detector_is_reported_by_overlap_and_by_level(report):
    figures = report["stages"]["boxes"]
    total = 3 * STUDIES
    assert figures["recall"]["value"] == pytest.approx((total - 1) / total)
    assert figures["ap50"]["value"] == pytest.approx((total - 1) / total, abs=1e-5)
    assert figures["mean_iou"]["value"] == pytest.approx(1)
    assert figures["level_accuracy"]["value"] == 1
    assert (figures["gaps"]["value"], figures["left_out"]["value"]) == (0, 0)
    assert report["stages"]["grades_z_score_volume"] is report["oracle_region"]
    assert report["stages"]["grades_none"] == {}
    assert set(report["stages"]) == {"boxes", *(f"grades_{n}" for n in NORMALISATIONS)}


def test_normalisations_stand_in_a_table_per_head(report):
    assert [t["title"] for t in report["tables"]] == [
        "Normalisations: modic",
        "Normalisations, on reference regions: modic",
        "What missed regions cost: modic",
        "Normalisations: pfirrmann",
        "Normalisations, on reference regions: pfirrmann",
        "What missed regions cost: pfirrmann",
    ]
    methods = ["z-score volume", "none", "mean of all 2"]
    assert [row[0] for row in report["tables"][0]["rows"]] == methods
    assert set(report["confusion"]) == {"modic", "pfirrmann"}
    minus = {"model_minus_majority", "model_minus_ridge"}
    assert set(report["baselines"]) == {"majority", "ridge", *minus}
    assert "quadratic_weighted_kappa_pfirrmann" in report["baselines"]["ridge"]


def test_subgroups_are_levels_and_who_was_imaged(scored, report):
    _, _, kinds, _, p, _ = scored
    assert set(report["subgroups"]["level"]) == {"L5/S1", "L4/L5", "L3/L4"}
    assert set(report["subgroups"]["sex"]) == {"f", "m"}
    lowest = report["subgroups"]["level"]["L5/S1"]["accuracy_modic"]
    assert lowest["value"] == pytest.approx((p[:, 0].argmax(-1) == kinds[:, 0]).mean())


def test_a_cohort_without_boxes_has_no_figures_of_the_detector():
    declared = system(normalisations=NORMALISATIONS[:1], heads=("modic",))
    rows = []
    baselines = declared.fit_baselines([study(1)])
    for number in range(4):
        own = study(number, boxed=(0, 0, 0))
        ours = reading(discs_at(1, 2, 3), np.eye(3))
        scored = declared.score(own, ours, reading([], found=False), baselines)
        rows += [{"fold": 0, **row} for row in scored]
    found = declared.summarise(as_text(rows), 20, 0)
    assert found["stages"]["boxes"] == {}
    assert found["oracle_region"] == {}
    assert found["end_to_end"]["accuracy_modic"]["value"] == 1


def test_the_published_figures_bear_the_names_of_ours(report):
    """Of the types here; the presence of any is another run's task."""
    published = {p.metric for p in mc.ModicChanges.published}
    of_types = {name for name in published if name.endswith("_modic")}
    assert of_types <= set(report["end_to_end"])
    assert published - of_types == {"cohen_kappa_presence", "balanced_accuracy_presence"}
    assert system().primary == "balanced_accuracy_modic"
    assert system(heads=("presence", "pfirrmann")).primary == "balanced_accuracy_presence"


def test_pictures_and_facts_say_what_happened(scored):
    declared, rows, kinds, _, p, _ = scored
    bare = {k: study()[k] for k in ("study_id", "t1", "t2", "has_t1", "affine")}
    without = study(has_t1=False)
    drawn = [
        declared.picture(study(), reading(discs_at(1, 2)), study(), True),
        declared.picture(without, reading([]), without, False),
        declared.picture(study(), reading([]), study(boxed=(0, 0, 0)), True),
        declared.picture(bare, reading(discs_at(1, 2)), None, True),
    ]
    assert all(p.startswith(b"\x89PNG") for p in drawn)
    assert len({len(p) for p in drawn}) == 4
    facts = declared.facts([r for r in rows if r["study"] == "s4"])
    names = mc.GRADINGS["modic"].classes
    calls = p[4].argmax(-1)
    expected = [
        f"{names[kinds[4, i]]}, called {names[calls[i]]} ({p[4, i, calls[i]]:.2f})" for i in (0, 1)
    ]
    of_modic = [fact for fact in facts if fact[0].endswith("modic")]
    assert of_modic == [
        ("L5/S1, modic", expected[0]),
        ("L4/L5, modic", expected[1]),
        ("L3/L4, modic", f"{names[kinds[4, 2]]}, region not found"),
    ]
    assert len(facts) == 6


def test_a_case_explains_the_wrong_call_then_the_change(monkeypatch):
    declared, drawn = system(), []
    monkeypatch.setattr(mc.pictures, "sheet", lambda panels, *_, **__: drawn.append(panels) or b"")
    right, wrong = (0.1, 0.2, 0.7), (0.1, 0.7, 0.2)
    own = study(modic=(0, 0, 2))  # the middle disc is called type 1, the upper one rightly type 2
    found = dataclasses.replace(
        reading(discs_at(1, 2, 3), [(0.9, 0.1, 0.0), wrong, right]),
        shown=np.stack([np.full((8, 12), k) for k in (1.0, 2.0, 3.0)]),
        attention=np.stack([k * np.arange(12.0).reshape(3, 4) for k in (1.0, 2.0, 3.0)]),
    )
    declared.picture(own, found, own, True)
    explained = [p for p in drawn[0] if p.heat is not None]
    assert [p.name for p in explained] == ["Grad-CAM, L4/L5", "Grad-CAM, L3/L4"]
    assert [p.image[0, 0] for p in explained] == [2.0, 3.0]
    assert [p.heat[-1, -1] for p in explained] == pytest.approx([2 / 3, 1])  # of one scale
    # Without a reference there is no wrong call: the lowest two that are called a change.
    changed = dataclasses.replace(
        found, probabilities=reading(discs_at(1, 2, 3), [right, (0.9, 0.1, 0), wrong]).probabilities
    )
    declared.picture(own, changed, None, True)
    explained = [p.name for p in drawn[1] if p.heat is not None]
    assert explained == ["Grad-CAM, L5/S1", "Grad-CAM, L3/L4"]


def test_a_study_without_labels_is_read():
    full = study()
    bare = {k: full[k] for k in ("patient_id", "study_id", "t1", "t2", "has_t1", "affine")}
    found = (BOXES, [0.9, 0.8, 0.7])
    (ours,) = system().read([bare], fake([found]), "predicted")
    (same,) = system().read([full], fake([found]), "predicted")
    assert ours.located.regions == same.located.regions
    for name in NORMALISATIONS:
        np.testing.assert_array_equal(
            ours.probabilities[name]["modic"], same.probabilities[name]["modic"]
        )


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"normalisations": ()}, "at least one"),
        ({"normalisations": ("none", "none")}, "at most once"),
        ({"normalisations": ("white_stripe",)}, "white_stripe"),
        ({"heads": ("pfirrmann", "modic")}, "the first must be modic or presence"),
        ({"heads": ("modic", "stenosis")}, "stenosis"),
        ({"heads": ()}, "the first must be"),
    ],
)
def test_bad_options_are_refused(changes, message):
    with pytest.raises(UserError, match=message):
        system(**changes)


@pytest.mark.parametrize(
    ("variant", "heads", "slices", "extent"),
    [
        ("spider_midsagittal", ("presence", "pfirrmann"), 1, 2.0),
        ("spider", ("presence", "pfirrmann"), 9, 2.2),
        ("cohort", ("modic", "pfirrmann"), 9, 2.2),
    ],
)
def test_every_variant_of_the_experiment_can_be_built(variant, heads, slices, extent):
    declared = system(variant)
    assert tuple(t.grading.task for t in declared.tasks) == heads
    graders = declared.graders.values()
    assert {g.options.crop[0] for g in graders} == {slices}
    assert {g.options.extent for g in graders} == {extent}
