"""What a run leaves, and what running it again does."""

import csv
import json
import shutil
from collections import Counter

import numpy as np
import pytest
from commands.command_line import contents, study
from sklearn.metrics import accuracy_score, balanced_accuracy_score, cohen_kappa_score

pytestmark = pytest.mark.slow

STAGES = ("regions", "grades")
ROMAN = ("i", "ii", "iii", "iv", "v")
NAMES = ("mild", "moderate", "severe")
SEVERITY = np.array([0, 0, 1, 2, 2])  # of Pfirrmann grades 1 to 5


def rows_of(workdir, kind):
    with (workdir / "cases.csv").open(newline="") as file:
        return [r for r in csv.DictReader(file) if r["kind"] == kind]


def report_of(workdir):
    return json.loads((workdir / "report" / "report.json").read_text())


def test_no_patient_is_on_both_sides(finished):
    folds = json.loads((finished.workdir / "splits.json").read_text())["folds"]
    tested = [p for fold in folds for p in fold["test"]]
    assert sorted(tested) == sorted({*tested})
    for fold in folds:
        parts = [*fold["train"], *fold["validation"], *fold["test"]]
        assert len(parts) == len({*parts}) == 6
        assert fold["validation"]


def test_every_case_is_scored_once_by_the_fold_that_held_its_patient_out(finished):
    folds = json.loads((finished.workdir / "splits.json").read_text())["folds"]
    home = {p: str(k) for k, fold in enumerate(folds) for p in fold["test"]}
    structures, discs = rows_of(finished.workdir, "structure"), rows_of(finished.workdir, "grade")
    per_structure = Counter((r["patient"], r["name"]) for r in structures)
    assert per_structure == {(p, s): 1 for p in home for s in ("vertebra", "disc", "canal")}
    assert len({r["case"] for r in discs}) == len(discs)
    assert report_of(finished.workdir)["cohort"]["cases"] == len(discs)
    assert all(r["fold"] == home[r["patient"]] for r in structures + discs)


def test_figures_can_be_recomputed_from_the_table(finished):
    discs = rows_of(finished.workdir, "grade")
    found = np.array([r["found"] == "1" for r in discs])
    assert found.sum() > 5  # or nothing is shown here
    figures = report_of(finished.workdir)["end_to_end"]
    reference = np.array([ROMAN.index(r["reference_pfirrmann"]) for r in discs])
    columns = [f"p_model_pfirrmann_{g}" for g in ROMAN]
    p = np.array([[float(r[c] or 0) for c in columns] for r in discs])
    p_severity = np.stack([p[:, np.flatnonzero(c == SEVERITY)].sum(1) for c in range(3)], 1)
    severity = np.where(found, p_severity.argmax(1), 3)  # 3: missed, wrong in every class
    expected = SEVERITY[reference]
    assert [r["reference_severity"] for r in discs] == [NAMES[k] for k in expected]
    labels = np.unique(expected)
    assert figures["accuracy_severity"]["n"] == len(discs)
    share = accuracy_score(expected, severity)
    assert figures["accuracy_severity"]["value"] == pytest.approx(share)
    right = [np.mean(severity[expected == c] == c) for c in labels]
    assert figures["balanced_accuracy_severity"]["value"] == pytest.approx(np.mean(right))
    calls = [r["call_pfirrmann"] for r in discs]
    grade = np.array([ROMAN.index(c) if c else -1 for c in calls])
    distance = np.where(found[None], (reference[:, None] - grade[None]) ** 2, 16)
    kappa = 1 - np.diagonal(distance).mean() / distance.mean()
    assert figures["quadratic_weighted_kappa_pfirrmann"]["value"] == pytest.approx(kappa, abs=1e-5)
    share = accuracy_score(reference, grade)
    assert figures["accuracy_pfirrmann"]["value"] == pytest.approx(share)
    columns = [f"oracle_p_model_pfirrmann_{g}" for g in ROMAN]
    ideal_p = np.array([[float(r[c]) for c in columns] for r in discs])
    oracle = np.floor(ideal_p @ np.arange(5) + 0.5).astype(int)  # the rounded expectation
    kappa = cohen_kappa_score(reference, oracle, labels=range(5), weights="quadratic")
    by_grade = balanced_accuracy_score(reference, oracle)
    ideal = report_of(finished.workdir)["oracle_region"]
    assert ideal["quadratic_weighted_kappa_pfirrmann"]["value"] == pytest.approx(kappa, abs=1e-5)
    assert ideal["balanced_accuracy_pfirrmann"]["value"] == pytest.approx(by_grade)


def test_dice_of_the_report_is_the_mean_of_the_table(finished):
    figures = report_of(finished.workdir)["stages"]["regions"]
    for name in ("vertebra", "disc", "canal"):
        dice = [
            float(r["dice"]) for r in rows_of(finished.workdir, "structure") if r["name"] == name
        ]
        assert figures[f"dice_{name}"]["value"] == pytest.approx(np.mean(dice), abs=1e-6)
        low, high = figures[f"dice_{name}"]["ci95"]
        assert min(dice) - 1e-6 <= low <= np.mean(dice) <= high <= max(dice) + 1e-6


def test_a_finished_run_says_so_and_changes_nothing(finished, main_here, capsys):
    before = contents(finished.workdir)
    assert main_here(*study(finished.workdir, finished.data_dir)) == 0
    assert capsys.readouterr().out.startswith("finished: ")
    assert contents(finished.workdir) == before


def test_another_config_is_refused_and_changes_nothing(finished, main_here, capsys):
    before = contents(finished.workdir)
    assert main_here(*study(finished.workdir, finished.data_dir, seed=7)) == 2
    said = capsys.readouterr().err
    assert "belongs to another config" in said
    assert "config.seed was 0, now 7" in said
    assert contents(finished.workdir) == before


@pytest.mark.long
def test_parts_one_after_the_other_make_the_same_run(finished, main_here, tmp_path, capsys):
    workdir = tmp_path / "parts"
    arguments = study(workdir, finished.data_dir)
    assert main_here(*arguments, "--mode=evaluate") == 2
    assert "is not trained; run with --mode=train first" in capsys.readouterr().err
    assert main_here(*arguments, "--mode=train") == 0
    assert not (workdir / "cases.csv").exists()
    assert main_here(*arguments, "--mode=report") == 2
    assert "cases.csv" in capsys.readouterr().err
    assert main_here(*arguments, "--mode=evaluate,report") == 0
    same = (workdir / "cases.csv").read_bytes() == (finished.workdir / "cases.csv").read_bytes()
    assert same
    assert (workdir / "report" / "report.html").exists()


def test_a_report_that_was_lost_is_written_again(finished, main_here, tmp_path):
    workdir = tmp_path / "copy"
    shutil.copytree(finished.workdir, workdir)
    shutil.rmtree(workdir / "report")
    assert main_here(*study(workdir, finished.data_dir)) == 0
    ours, theirs = report_of(workdir), report_of(finished.workdir)
    assert ours["end_to_end"] == theirs["end_to_end"]
    assert ours["stages"] == theirs["stages"]
