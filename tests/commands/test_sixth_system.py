"""A sixth system is three files in a folder of the user's own, from raw files to the report."""

import json
import os
import subprocess
import sys
from collections import Counter
from types import SimpleNamespace

import jsonschema
import numpy as np
import pytest
from builders import mini_spine
from commands.command_line import ROOT, complaint, run, unfinished

from mskjax import cases
from mskjax.reporting.summary import schema

pytestmark = pytest.mark.long

SIXTH = ROOT / "tests" / "sixth"
NAME = "knee_effusion"
CLASSES = ("absent", "small", "large")
SHAPE = (3, 24, 24)


def knee(number, grade):
    """Noise with a recess of 8 x 10 pixels in the middle slice, the brighter the more fluid."""
    rng = np.random.default_rng(number)
    mask = np.zeros(SHAPE, np.uint8)
    top, left = rng.integers(4, 10, 2)
    mask[1, top : top + 8, left : left + 10] = 1
    return (rng.normal(100, 8, SHAPE) + mask * np.float64(150 + 60 * grade)).astype(np.int16), mask


@pytest.fixture(scope="module")
def raw(tmp_path_factory):
    """Raw files of twelve knees, four of each grade."""
    root = tmp_path_factory.mktemp("knees")
    rows = []
    for number in range(12):
        name, grade = f"k{number:02d}", number % 3
        for end, data in zip(("", "_recess"), knee(number, grade), strict=True):
            mini_spine.write_nifti(root / f"{name}{end}.nii.gz", data)
        rows.append(
            [f"p{name}", name, f"{name}.nii.gz", f"{name}_recess.nii.gz", grade, "FM"[number % 2]]
        )
    header = ["patient_id", "study_id", "image", "mask", "effusion", "sex"]
    mini_spine.write_csv(root / "studies.csv", header, rows)
    return root


def typed(*arguments, path=SIXTH):
    """Runs a command in a process of its own that knows the folder of the sixth system."""
    return run(*arguments, env=os.environ | {"MSKJAX_PATH": str(path)})


@pytest.fixture(scope="module")
def finished(raw, tmp_path_factory):
    """What ``prepare`` and ``main`` said, and the finished run."""
    root = tmp_path_factory.mktemp("run")
    cohort = f"--cohort={NAME}/cohort", f"--manual_dir={raw}", f"--data_dir={root / 'data'}"
    prepared = typed("mskjax.prepare", *cohort)
    assert prepared.returncode == 0, prepared.stderr
    trained = typed(
        "mskjax.main",
        f"--config={NAME}",
        f"--workdir={root / 'knee'}",
        f"--config.data.data_dir={root / 'data'}",
        f"--config.data.manual_dir={raw}",
    )
    assert trained.returncode == 0, trained.stderr
    return SimpleNamespace(workdir=root / "knee", audit=prepared.stdout, said=trained.stdout)


def report_of(folder):
    return json.loads((folder / "report.json").read_text())


def test_prepare_packages_its_raw_files(finished):
    assert f"{NAME}/cohort 1.3.0\n" in finished.audit
    assert "patients     12" in finished.audit
    assert "effusion  0: 4  1: 4  2: 4" in finished.audit
    assert "left out: nothing" in finished.audit


def test_the_report_keeps_to_the_contract(finished):
    report = report_of(finished.workdir / "report")
    jsonschema.validate(report, schema())
    assert report["primary"] == "quadratic_weighted_kappa_effusion"
    for place in ("end_to_end", "oracle_region"):
        assert report[place][report["primary"]]["n"] == 12
    assert report["stages"]["regions"]["dice_recess"]["value"] > 0.5
    page = (finished.workdir / "report" / "report.html").read_text()
    assert "Knee effusion on sagittal T2 (a toy)" in page
    assert not unfinished(finished.workdir)


def test_every_knee_is_a_row_with_its_grade(finished):
    rows = cases.read(finished.workdir / "cases.csv")
    assert Counter(r["kind"] for r in rows) == {"structure": 12, "grade": 12}
    graded = {r["case"]: r for r in rows if r["kind"] == "grade"}
    known = {f"k{n:02d}": CLASSES[n % 3] for n in range(12)}
    assert {case: r["reference_effusion"] for case, r in graded.items()} == known
    found = [r for r in graded.values() if r["found"] == "1"]
    assert len(found) > 6
    for method in ("p_model", "oracle_p_model"):
        for row in found:
            p = np.array([float(row[f"{method}_effusion_{c}"]) for c in CLASSES])
            assert sum(p) == pytest.approx(1, abs=1e-5)
            rounded = CLASSES[int(np.floor(p @ np.arange(3) + 0.5))]  # of an ordinal grading
            assert method != "p_model" or row["call_effusion"] == rounded
    for column in ("baseline_majority_effusion", "baseline_ridge_effusion", "wrong", "sex"):
        assert all(row[column] for row in found), column


def test_the_report_is_made_again_from_the_run_folder(finished, tmp_path):
    process = typed("mskjax.report", f"--runs={finished.workdir}", f"--output={tmp_path / 'again'}")
    assert process.returncode == 0, process.stderr
    again = report_of(tmp_path / "again")
    assert again["end_to_end"] == report_of(finished.workdir / "report")["end_to_end"]


def test_it_is_exported_and_its_programs_run_without_its_folder(finished, tmp_path):
    process = typed("mskjax.export", f"--run={finished.workdir}", f"--output={tmp_path / 'model'}")
    assert process.returncode == 0, process.stderr
    code = f"import runpy; runpy.run_path({str(tmp_path / 'model/example.py')!r}, None, '__main__')"
    alone = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False
    )
    assert alone.returncode == 0, alone.stderr
    assert "grades: effusion float32[4, 3]" in alone.stdout


def test_without_its_folder_the_system_is_unknown(finished):
    process = run("mskjax.report", f"--runs={finished.workdir}")
    assert process.returncode == 2
    assert f"config.system is '{NAME}'; known systems" in complaint(process.stderr)


def test_a_folder_that_is_not_there_is_refused(tmp_path):
    nowhere = tmp_path / "nowhere"
    cohort = f"--cohort={NAME}", f"--data_dir={tmp_path / 'data'}"
    process = typed("mskjax.prepare", *cohort, path=nowhere)
    assert process.returncode == 2
    assert f"MSKJAX_PATH names {nowhere}, which is not a folder" in complaint(process.stderr)
    assert not list(tmp_path.iterdir())


def test_no_shipped_file_knows_of_it():
    shipped = ["mskjax", "tfds_builders", "experiments", "pyproject.toml"]
    assert not [
        path
        for name in shipped
        for path in [ROOT / name, *(ROOT / name).rglob("*.*")]
        if path.is_file() and path.suffix != ".pyc" and NAME.encode() in path.read_bytes()
    ]
