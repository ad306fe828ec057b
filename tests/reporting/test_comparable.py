"""What may not be compared, each with the sentence that says so, and what is left out."""

import dataclasses
import json

import pytest
from reporting import compared_runs as made
from reporting.compared_runs import PATIENTS

from mskjax.config import DataConfig, to_json
from mskjax.data.splits import Fold, Splits
from mskjax.errors import UserError
from mskjax.reporting import comparable
from mskjax.reporting.comparable import CROSSED, check, remarks, shared

ROWS = made.rows(1, 0)


def with_data(run, **changes):
    data = dataclasses.replace(DataConfig("disc_degeneration", "phantom"), **changes)
    return dataclasses.replace(run, config=dataclasses.replace(run.config, data=data))


def one():
    return made.run("one", ROWS)


def other(**changes):
    return made.run("other", ROWS, **changes)


def of_another_system():
    run = other()
    config = dataclasses.replace(run.config, system="modic_changes")
    return dataclasses.replace(run, config=config)


def divided_by_case():
    fold = Fold(PATIENTS, (), PATIENTS, cases={"p0-a/1": "train", "p0-a/2": "test"})
    return other(divided=Splits((fold,), "by_case", "f", PATIENTS))


def with_a_single_test_set():
    fold = Fold(PATIENTS[:4], (), PATIENTS[4:])
    return other(divided=Splits((fold,), "official", "f", PATIENTS))


def with_masks_of_another_cohort():
    run = other(fingerprint="g")
    run.system.gradings = ()
    return run


def without_the_leading_figure():
    run = other()
    return dataclasses.replace(run, report=run.report | {"end_to_end": {}})


REFUSED = {
    "control": (lambda: with_data(other(), shuffle_labels=True), "other is a control run"),
    "system": (of_another_system, "one is a run of disc_degeneration, other one of modic_changes"),
    "by case": (divided_by_case, "other was divided by case, so its networks have seen"),
    "kind": (lambda: other(kind="real"), "patients of one are generated, those of other are real"),
    "test set": (with_a_single_test_set, "one cross-validates its patients, other has a single"),
    "masks": (with_masks_of_another_cohort, "nothing shows that their reference masks are the"),
    "figure": (without_the_leading_figure, f"other has no figure {made.KAPPA}, which leads one"),
    "twice": (lambda: other(folder=one().folder), "is given twice"),
    "part": (lambda: other(folder=one().folder / "seed_0"), "is a part of /runs/one"),
}


@pytest.mark.parametrize(("make", "words"), REFUSED.values(), ids=REFUSED)
def test_what_would_be_dishonest_is_refused_in_one_sentence(make, words):
    with pytest.raises(UserError) as refused:
        check(make(), one())
    said = str(refused.value)
    assert words in said
    assert said.endswith(".")
    assert "\n" not in said


@pytest.mark.parametrize("make", [lambda: with_data(other(), shuffle_labels=True), divided_by_case])
def test_the_reference_must_be_honest_too(make):
    with pytest.raises(UserError, match="other"):
        check(one(), make())


def test_seeds_of_one_study_may_be_compared():
    check(other(folder=one().folder / "seed_1"), other(folder=one().folder / "seed_0"))


def test_another_reference_label_of_the_same_case_is_refused():
    changed = made.run("changed", made.rows(1, 0, shift=1), fingerprint="g")
    said = "^24 cases of one and changed have one id and another reference label"
    with pytest.raises(UserError, match=said + r" \(reference_grade of p0-a/1, .* and 21 more\)"):
        shared(one(), changed)


def test_a_label_that_one_run_lacks_is_another_label():
    rows = [r | {"reference_grade": "" if r["case"] == "p3-a/2" else r["reference_grade"]}
            for r in ROWS]  # fmt: skip
    with pytest.raises(UserError, match=r"1 cases .*\(reference_grade of p3-a/2\)"):
        shared(one(), dataclasses.replace(other(), parts={CROSSED: (rows,)}))


def test_a_task_that_one_run_does_not_grade_is_no_other_label():
    rows = [{k: v for k, v in r.items() if k != "reference_grade"} for r in ROWS]
    found = shared(one(), dataclasses.replace(other(), parts={CROSSED: (rows,)}))
    assert found[CROSSED].cases == 24


def test_a_study_of_another_patient_is_refused():
    rows = [r | {"patient": "q"} if r["patient"] == "p3" else r for r in ROWS]
    with pytest.raises(UserError, match="another patient"):
        shared(one(), dataclasses.replace(other(), parts={CROSSED: (rows,)}))


def test_runs_without_a_common_case_are_refused():
    with pytest.raises(UserError, match="one and far share no case that both test; compare"):
        shared(one(), made.run("far", made.rows(1, 0, ["q1", "q2"])))


def test_held_out_patients_are_not_compared_with_cross_validated_ones():
    crossed, apart = made.rows(1, 0, PATIENTS[:4]), made.rows(1, 0, PATIENTS[4:])
    runs = [made.with_held_out(made.run("a", crossed), apart),
            made.with_held_out(made.run("b", apart), crossed)]  # fmt: skip
    with pytest.raises(UserError, match="share no case"):
        shared(*runs)


def test_persons_on_both_sides_of_a_fold_are_left_out():
    images = {p: {p} for p in PATIENTS} | {"p0": {"same"}, "p1": {"same"}}
    divided = Splits(made.folds(PATIENTS), "folds", "f", PATIENTS, images)
    run = other(divided=divided)
    found = shared(one(), run)[CROSSED]
    assert found.patients == PATIENTS[2:]
    assert found.cases == 18
    (said,) = remarks(one(), run, {CROSSED: found})
    assert said == (
        "2 patients (p0, p1): left out, other has their images on both sides of a fold."
    )


def of_a_sweep(folder, numbers):
    """A run in the folder of a sweep over these folds."""
    (folder / "sweep.json").write_text(json.dumps({"cohort": {"folds": numbers}}))
    return other(folder=folder / "best")


def test_patients_by_whom_a_sweep_chose_are_left_out(tmp_path):
    run = of_a_sweep(tmp_path, [0])
    found = shared(one(), run)[CROSSED]
    assert found.patients == PATIENTS[::2]  # those of fold 0, which the sweep never opened
    assert "the sweep that chose the recipe of other trained" in found.left_out[0]


def test_a_sweep_that_saw_all_patients_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"and that may be compared \(8 patients .* the sweep"):
        shared(one(), of_a_sweep(tmp_path, [0, 1]))


def test_other_folds_of_the_same_patients_are_compared_with_a_remark():
    run = other(divided=Splits(made.folds(PATIENTS, 4), "folds", "f", PATIENTS))
    check(run, one())
    (said,) = remarks(one(), run, shared(one(), run))
    assert said == (
        "8 of 8 shared patients were read by networks that were trained on other patients (4 to 4"
        " in one and 6 to 6 in other): the difference holds the division too."
    )
    assert [*remarks(one(), other(), shared(one(), other()))] == []


def test_other_packages_of_the_same_cases_are_compared_with_a_remark():
    run, first = other(fingerprint="g"), one()
    images = {f"{p}-a": [p] for p in PATIENTS}
    first.audit["images"], run.audit["images"] = images, images | {"p0-a": ["new"]}
    check(run, first)
    (said,) = remarks(first, run, shared(first, run))
    assert "the images of 7 of 8 shared studies are" in said


@pytest.mark.parametrize("missing", ["cases.csv", "report/report.json", "splits.json"])
def test_an_unfinished_run_is_named(tmp_path, missing):
    (tmp_path / "report").mkdir()
    for name in ("cases.csv", "cohort.json", "splits.json", "report/report.json",
                 "report/report.html"):  # fmt: skip
        (tmp_path / name).write_text("{}")
    (tmp_path / "config.json").write_text(to_json(made.config()))
    (tmp_path / missing).unlink()
    with pytest.raises(UserError, match=f"{missing} is missing; finish the run first"):
        comparable.read("run", tmp_path, made.System())
