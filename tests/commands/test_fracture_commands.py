"""A user's own fractures, from two series on two grids to the readers' tables of the report."""

import csv
import json
from types import SimpleNamespace

import numpy as np
import pytest
from builders import mini_spine
from commands.command_line import cohort_study, complaint
from commands.fracture_cohort import (
    AIDED,
    LABELS,
    RESIDENT,
    SENIOR,
    T2_AFFINE,
    T2_SHAPE,
    own_cohort,
)
from PIL import Image
from sklearn.metrics import roc_auc_score

from mskjax import prepare

pytestmark = pytest.mark.long

SYSTEM = "vertebral_fracture"


def edit(path, name, **cells):
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    next(r for r in rows if r["study_id"] == name).update(cells)
    mini_spine.write_csv(path, list(rows[0]), [list(r.values()) for r in rows])


def rows_of(workdir, kind):
    with (workdir / "cases.csv").open(newline="") as file:
        return [r for r in csv.DictReader(file) if r["kind"] == kind]


def report_of(workdir):
    return json.loads((workdir / "report" / "report.json").read_text())


@pytest.fixture(scope="module")
def cohort(tmp_path_factory, finish):
    """Raw files, packaged by ``mskjax.prepare``, and what it said."""
    root = tmp_path_factory.mktemp("fracture")
    raw, data_dir = own_cohort(root / "raw"), root / "data"
    flags = [f"--cohort={SYSTEM}/cohort", f"--manual_dir={raw}", f"--data_dir={data_dir}"]
    said = finish(flags, prepare.main)
    return SimpleNamespace(raw=raw, data_dir=data_dir, said=said)


@pytest.fixture(scope="module")
def workdir(tiny_run):
    """A finished run of two folds on the user's files."""
    return tiny_run(SYSTEM).workdir


def test_prepare_prints_what_it_packaged_and_what_is_missing(cohort):
    assert "vertebral_fracture/cohort 1.3.0\n" in cohort.said
    assert "patients     9" in cohort.said
    assert "fracture  0: 4  1: 4" in cohort.said
    assert "note: label: 1 of 9 studies have none" in cohort.said
    assert "note: reader senior: 9 read of 9" in cohort.said
    assert "note: reader resident: 7 read of 9, 5 with aid" in cohort.said
    assert "note: finding fracture_line: recorded in 4 of 9" in cohort.said


def test_the_page_names_readers_and_findings(workdir):
    page = (workdir / "report" / "report.html").read_text()
    assert "Readers and imaging findings" in page
    assert all(name in page for name in ("senior", "resident", "epidural mass", "fracture line"))


def test_every_patient_is_scored_and_the_unlabelled_one_for_the_segment_only(workdir):
    segments, cases = rows_of(workdir, "regions"), rows_of(workdir, "grade")
    assert sorted(r["study"] for r in segments) == sorted(LABELS)
    expected = {k: v for k, v in LABELS.items() if v}
    assert {r["case"]: r["reference_malignant"] for r in cases} == expected
    assert sum(r["found"] == "1" for r in cases) >= 6  # or little is shown here
    for row in cases:
        assert bool(row["p_model_malignant_malignant"]) == (row["found"] == "1")
    report = report_of(workdir)
    p = [float(r["oracle_p_model_malignant_malignant"]) for r in cases]
    auroc = roc_auc_score([r["reference_malignant"] == "malignant" for r in cases], p)
    assert report["oracle_region"]["auroc_malignant"]["value"] == pytest.approx(auroc, abs=1e-5)
    assert report["oracle_region"]["auroc_malignant"]["n"] == 8
    found = np.mean([r["regions_found"] == "1" for r in segments])
    assert report["stages"]["segments"]["regions_found"]["value"] == pytest.approx(found)


def test_holes_of_readers_stay_holes_and_their_figures_count_what_they_read(workdir):
    cases = {r["case"]: r for r in rows_of(workdir, "grade")}
    digit = {"m": "malignant", "b": "benign", " ": ""}
    for column, said in {
        "reader_senior": SENIOR,
        "reader_resident": RESIDENT,
        "aided_resident": AIDED,
    }.items():
        expected = {k: digit[c] for k, c in zip(LABELS, said, strict=True) if k != "u"}
        assert {k: r[column] for k, r in cases.items()} == expected, column
    assert {k for k, r in cases.items() if r["finding_fracture_line"]} == set("bdfh")
    tables = {t["title"]: t["rows"] for t in report_of(workdir)["tables"]}
    figures = {row[0]: row[1:] for row in tables["Readers and model"]}
    reference = [digit[LABELS[k][0]] for k in "abcdefgh"]
    for name, said in (("senior", SENIOR), ("resident", RESIDENT)):
        read = [(digit[c], r) for c, r in zip(said, reference, strict=False) if c != " "]
        assert figures[name][0] == len(read)
        share = np.mean([c == r for c, r in read])
        assert figures[name][1]["value"] == pytest.approx(share), name
    assert figures["Model, segment by hand"][0] == 8
    assert {row[0]: row[2] for row in tables["McNemar"]} == {"senior": 8, "resident": 6}
    assert "Agreement" in tables
    assert "Readers aided by the model's call" in tables
    (mass, line) = tables["Imaging findings: benign and malignant"]
    assert mass[:3] == ["epidural mass", "0 of 4 (0 %)", "3 of 4 (75 %)"]
    assert line[:2] == ["fracture line", None]  # recorded of no benign fracture


def test_pictures_show_both_sequences_and_what_the_grader_saw(workdir):
    page = (workdir / "report" / "report.html").read_text()
    assert page.count("data:image/png") >= len(LABELS)
    found = [r for r in rows_of(workdir, "grade") if r["found"] == "1"]
    for row in found:
        path = workdir / f"fold_{row['fold']}" / "pictures" / f"{row['study']}.png"
        with Image.open(path) as picture:
            shown = np.asarray(picture.convert("L")).astype(int)
        last = shown[shown.shape[0] // 3 :, -shown.shape[1] // 2 :]  # T1 and T2 of the crop
        assert last.std() > 20
    # A map of this tiny network has one place: none is shown (`reporting.explained`).
    assert {r["map_correlation"] for r in found} == {""}


@pytest.mark.parametrize(
    ("table", "name", "cells", "line"),
    [
        ("studies", "a", {"t2": ""}, "studies.csv, line 2: study 'a' has no t2; fill in"),
        ("studies", "b", {"t2": "gone.mha"}, "studies.csv, line 3: the t2 of study 'b'"),
        ("studies", "c", {"row1": "25"}, "c: the box (rows"),
        ("readers", "d", {"call": "unsure"}, "readers.csv, line 5: call is 'unsure'; it must be"),
        ("studies", "e", {"t2": "far.mha"}, "e: "),
    ],
)
@pytest.mark.parametrize("command", ["prepare", "main"])
def test_wrong_files_are_listed_and_nothing_is_packaged(
    main_here, tmp_path, capsys, command, table, name, cells, line
):
    raw, data, workdir = own_cohort(tmp_path / "raw"), tmp_path / "data", tmp_path / "run"
    far = T2_AFFINE.copy()
    far[1, 3] += 300
    mini_spine.write_mha(raw / "far.mha", np.ones(T2_SHAPE, np.int16), far)
    edit(raw / f"{table}.csv", name, **cells)
    if command == "prepare":
        flags = [f"--cohort={SYSTEM}/cohort", f"--manual_dir={raw}", f"--data_dir={data}"]
        assert prepare.main(flags) == 2
    else:
        assert main_here(*cohort_study(SYSTEM, workdir, data, raw)) == 2
    first, *faults = complaint(capsys.readouterr().err).splitlines()
    assert "cannot be packaged" in first
    assert len(faults) == 1
    assert faults[0].strip().startswith(line)
    assert "far" not in str(cells) or "do not overlap" in faults[0]
    assert not [p for p in data.rglob("*") if p.is_file()]
    assert not (workdir / "splits.json").exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"heads": "('A',)"}, "heads is ('A',); it must be ('malignant',)"),
        ({"scored_slices": 2}, "scored_slices is 2; it must be odd"),
        ({"model__norm": "none"}, "resnet50 needs 'batch' or 'group'"),
        ({"model__pretrained": "none.pth"}, "none.pth: cannot be opened"),
    ],
)
def test_wrong_graders_are_refused_before_any_work(
    cohort, main_here, tmp_path, capsys, changes, message
):
    fields = {f"stages__grades__{k}": v for k, v in changes.items()}
    workdir, data = tmp_path / "run", tmp_path / "data"
    assert main_here(*cohort_study(SYSTEM, workdir, data, cohort.raw, **fields)) == 2
    said = complaint(capsys.readouterr().err)
    assert message in said
    assert "\n" not in said
    assert not data.exists()
    assert not workdir.exists()
