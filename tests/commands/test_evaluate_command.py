"""External test of a finished run: other patients, all trainings as one and each alone."""

import json
import re
import shutil

import jsonschema
import numpy as np
import pytest

from mskjax import cases, ensemble
from mskjax.data.cohorts import prepare_cohort
from mskjax.evaluate import main
from mskjax.reading import rows_of_fold
from mskjax.reporting.summary import schema

pytestmark = pytest.mark.slow

NEW = ("phantom0006", "phantom0007", "phantom0008")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Nine generated patients, of whom the run knows the first six."""
    folder = tmp_path_factory.mktemp("external")
    prepare_cohort("disc_degeneration", "phantom", str(folder), None, patients=9, seed=0)
    return folder


@pytest.fixture(scope="module")
def run(finished, tmp_path_factory):
    return shutil.copytree(finished.workdir, tmp_path_factory.mktemp("run") / "run")


def flags(run, data, *more):
    where = f"--data_dir={data}", "--option", "patients=9"
    return [f"--run={run}", "--cohort=disc_degeneration/phantom", *where, *more]


@pytest.fixture(scope="module")
def tested(run, data):
    assert main(flags(run, data, f"--patients={','.join(NEW)}")) == 0
    return run / "external" / "phantom"


def test_figures_are_of_all_trainings_together_on_the_new_patients(run, data, tested):
    cohort = prepare_cohort("disc_degeneration", "phantom", str(data), None, patients=9, seed=0)
    studies = [cohort.studies[i] for i, (p, _) in enumerate(cohort.index) if p in NEW]
    together = ensemble.load(run, devices=1)
    ours = [{k: str(v) for k, v in row.items()} for row in rows_of_fold(together, studies)]
    rows = cases.read(tested / "cases.csv")
    assert {row["patient"] for row in rows} == set(NEW)
    assert [r["case"] for r in rows if r["kind"] == "grade"] == [
        r["case"] for r in ours if r["kind"] == "grade"
    ]
    report = json.loads((run / "report/report.json").read_text())
    jsonschema.validate(report, schema())
    dice = [float(r["dice"]) for r in ours if r["kind"] == "structure" and r["name"] == "disc"]
    figure = report["external"]["dice_disc"]
    assert figure["value"] == pytest.approx(np.mean(dice), abs=1e-5)
    assert figure["n"] == 3
    assert figure["ci95"][0] <= figure["value"] <= figure["ci95"][1]
    graded = [r for r in ours if r["kind"] == "grade"]
    assert report["external"][report["primary"]]["n"] == len(graded)
    assert "No external test." not in report["limits"]


def test_each_training_is_scored_alone_beside_them(run, tested):
    (test,) = json.loads((run / "report/report.json").read_text())["external_tests"]
    assert [own["member"] for own in test["each"]] == test["members"] == ["fold_0", "fold_1"]
    for number in (0, 1):
        rows = cases.read(tested / f"fold_{number}" / "cases.csv")
        assert {row["fold"] for row in rows} == {str(number)}
        assert {row["patient"] for row in rows} == set(NEW)
    (shift,) = test["tables"]
    rows = {row[0]: row[1:] for row in shift["rows"]}
    assert (rows["Patients"][0], rows["Patients"][2]) == ("4", "3")  # trained on
    page = (run / "report/report.html").read_text()
    assert "What differs between the two cohorts" in page
    assert "whom no training of this run has seen" in page
    assert "disc_degeneration/phantom (PHANTOM)" in page


def test_masks_and_pictures_of_the_new_patients_are_left(tested):
    names = {p.name for p in (tested / "predictions").iterdir()}
    assert {f"{p}_t2.nii.gz" for p in NEW} < names
    assert {p.name for p in (tested / "pictures").iterdir()} == {f"{p}_t2.png" for p in NEW}


@pytest.mark.long
def test_a_test_that_was_stopped_goes_on_and_a_report_can_be_elsewhere(run, data, tmp_path):
    output = tmp_path / "out"
    own = flags(run, data, f"--patients={NEW[0]}", f"--output={output}", "--folds=1")
    before = (run / "report/report.json").read_bytes()
    assert main(own) == 0
    made = (output / "cases.csv").stat().st_mtime_ns
    (output / "report/report.json").unlink()
    assert main(own) == 0
    assert (output / "cases.csv").stat().st_mtime_ns == made
    (test,) = [
        t
        for t in json.loads((output / "report/report.json").read_text())["external_tests"]
        if t["patients"] == 1
    ]
    assert test["members"] == ["fold_1"]
    assert (run / "report/report.json").read_bytes() == before


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ((), "phantom0000, .* in the run too"),
        (("--patients=phantom0006,nobody",), "nobody is not in the cohort"),
        (("--patients=phantom0006", "--folds=7"), "has folds 0, 1, not 7"),
        (("--patients=phantom0006", "--folds=x"), "--folds is 'x'; give whole numbers"),
        (("--patients=phantom0006", "--output={full}"), "is not empty"),
    ],
)
def test_what_is_refused_leaves_no_trace(run, data, tmp_path, capsys, more, message):
    full = tmp_path / "full"
    full.mkdir()
    (full / "thesis.txt").write_text("mine")
    here = sorted(run.rglob("*"))
    assert main(flags(run, data, *(m.format(full=full) for m in more))) == 2
    assert re.search(message, capsys.readouterr().err)
    assert sorted(run.rglob("*")) == here
    assert [p.name for p in full.iterdir()] == ["thesis.txt"]


def test_an_image_under_another_name_is_known(run, data, tmp_path, capsys):
    import dataclasses

    from mskjax import external
    from mskjax.errors import UserError

    cohort = prepare_cohort("disc_degeneration", "phantom", str(data), None, patients=9, seed=0)
    renamed = cohort.part([0])
    audit = {**cohort.audit, "index": [["somebody", renamed.index[0][1]]]}
    twin = dataclasses.replace(renamed, audit=audit, index=(("somebody", "s"),))
    with pytest.raises(UserError, match="somebody: in the run under another id, by their images"):
        external.check_unseen(run, twin)


def test_another_kind_of_cohort_is_refused(run, tmp_path, capsys):
    assert main([f"--run={run}", "--cohort=shoulder_bones/phantom"]) == 2
    assert "give --cohort=disc_degeneration/CONFIG" in capsys.readouterr().err
