"""What a run of any system leaves: the contract of files, report and table (docs/cases.md)."""

import dataclasses
import html
import json
import os
import shutil
from pathlib import Path

import jsonschema
import numpy as np
import pytest
from commands import tiny
from commands.command_line import complaint, contents, unfinished

from mskjax import applied, calibration, cases, ensemble, predict, profile, quality, systems
from mskjax.config import StudyConfig, parse
from mskjax.data.cohorts import builder_class, prepare_cohort
from mskjax.imaging.files import read_volume, write_volume
from mskjax.imaging.volume import Volume
from mskjax.report import main as report_command
from mskjax.reporting import definitions
from mskjax.reporting.summary import schema
from mskjax.results.document import schema as schema_of_results
from mskjax.study import make_splits

# The run of one system is made anyway, for the other tests of the commands.
RUNS = [
    pytest.param(name, marks=[] if name == "disc_degeneration" else [pytest.mark.long])
    for name in systems.names()
]

pytestmark = pytest.mark.slow
CONTRACT = Path(os.environ.get("MSKJAX_SHARED", "../shared")) / "report.schema.json"


@pytest.fixture(scope="module", params=RUNS)
def run(request, tiny_run):
    """The finished run of a system, and its name."""
    made = tiny_run(request.param)
    made.name = request.param
    return made


def json_of(run, name):
    return json.loads((run.workdir / name).read_text())


def folds_of(run):
    return json_of(run, "splits.json")["folds"]


def test_leaves_every_file_of_the_contract(run):
    config = parse(StudyConfig, json_of(run, "config.json"))
    assert config.system == run.name
    names = ["config.json", "environment.json", "cohort.json", "splits.json", "cases.csv"]
    names += ["report/report.json", "report/report.html", "manifest.json"]
    for number, _ in enumerate(folds_of(run)):
        names += [f"fold_{number}/system.json", f"fold_{number}/profile.csv"]
        for stage in systems.load(run.name).build(config).stages:
            folder = run.workdir / f"fold_{number}" / stage.name
            names += [folder / "metrics.jsonl"]
            assert list((folder / "checkpoints" / "latest").glob("*/_CHECKPOINT_METADATA"))
            assert list(folder.glob("events.out.tfevents.*"))
    for name in names:
        assert (run.workdir / name).stat().st_size > 0, name
    assert f"report: {run.workdir / 'report' / 'report.html'}" in run.said.splitlines()
    assert not unfinished(run.workdir)


def test_the_report_keeps_to_the_contract(run):
    report = json_of(run, "report/report.json")
    jsonschema.validate(report, schema())
    if CONTRACT.exists():
        jsonschema.validate(report, json.loads(CONTRACT.read_text()))
    figures = [report["end_to_end"], report["oracle_region"], *report["stages"].values()]
    assert not [name for own in figures for name in own if definitions.of(name) is None]
    assert report["system"] == run.name
    assert report["key"]
    assert report["end_to_end"][report["primary"]]["n"] > 0
    page = (run.workdir / "report" / "report.html").read_text()
    assert report["title"] in html.unescape(page)
    assert report["cohort"]["fingerprint"] in page
    assert ("PHANTOM" in page) == (report["cohort"]["kind"] == "phantom")
    assert ("REAL DATA" in page) == (report["cohort"]["kind"] == "real")
    assert 'src="http' not in page


def test_reads_and_scores_to_the_same_digits_again(run, capsys):
    assert report_command([f"--runs={run.workdir}", "--verify"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1] == "PASS"
    assert sum("rows read again, to the last digit" in line for line in lines) == len(folds_of(run))


def test_no_patient_is_on_both_sides(run):
    report, folds = json_of(run, "report/report.json"), folds_of(run)
    assert report["protocol"]["patient_overlap"] == 0
    assert report["protocol"]["unit"] == "patient"
    tested = [p for fold in folds for p in fold["test"]]
    assert len(tested) == len({*tested})
    for fold in folds:
        parts = [*fold["train"], *fold["validation"], *fold["test"]]
        assert len(parts) == len({*parts}) > len(fold["test"]) > 0


def test_every_case_is_scored_once_by_the_fold_that_held_its_patient_out(run):
    rows = cases.read(run.workdir / "cases.csv")
    home = {p: str(number) for number, fold in enumerate(folds_of(run)) for p in fold["test"]}
    assert {row["patient"] for row in rows} == {*home}
    assert all(row["fold"] == home[row["patient"]] for row in rows)
    graded = [row["case"] for row in rows if row["kind"] == "grade"]
    assert len(graded) == len({*graded})
    assert all(row["study"] == row["case"].partition("/")[0] for row in rows if row.get("case"))


def test_nothing_is_decoded_to_measure_and_to_divide(run):
    config = parse(StudyConfig, json_of(run, "config.json"))
    data = config.data
    where = data.cohort, data.config, data.data_dir, data.manual_dir
    cohort = prepare_cohort(*where, **data.options)
    system = systems.load(run.name).build(config)
    assert system.measure(cohort.outlines) == system.measure(cohort.studies)
    strata = [system.stratum(cohort.studies[i]) for i in range(len(cohort.index))]
    undecoded = dataclasses.replace(cohort, studies=None)
    assert [system.stratum(study) for study in undecoded.outlines] == strata
    made = make_splits(config, undecoded, system, None)
    assert [json.loads(json.dumps(fold.test)) for fold in made.folds] == [
        fold["test"] for fold in folds_of(run)
    ]


def test_examples_of_a_fold_alone_are_gone_and_the_others_are_with_the_cohort(run):
    assert not list(run.workdir.rglob("prepared"))
    config = parse(StudyConfig, json_of(run, "config.json"))
    system = systems.load(run.name).build(config)
    kept = system.stages[:1] if system.recuts else system.stages
    found = [p.parent.name for p in run.data_dir.rglob("prepared/*/examples.json")]
    assert sorted(name.rpartition("-")[0] for name in found) == sorted(s.name for s in kept)


def test_the_folder_alone_reads_a_study_that_has_no_label(run, tmp_path):
    data = parse(StudyConfig, json_of(run, "config.json")).data
    where = data.cohort, data.config, data.data_dir, data.manual_dir
    cohort = prepare_cohort(*where, **data.options)
    held_out = folds_of(run)[0]["test"]
    number = next(i for i, (patient, _) in enumerate(cohort.index) if patient in held_out)
    images = {*builder_class(data.cohort).channels, "affine", "pixel_size_known", "has_t1"}
    images |= {"patient_id", "study_id"}
    bare = {name: value for name, value in cohort.studies[number].items() if name in images}
    alone = shutil.copytree(run.workdir, tmp_path / "run", ignore=shutil.ignore_patterns("report"))
    (fold,) = applied.load(alone, [0], devices=1)
    (reading,) = fold.read([bare])
    rows = [{"fold": 0, "seed": 0, **row} for row in fold.system.columns(bare, reading)]
    cases.check(rows, "what is predicted")
    assert all(row[f"call_{g.task}"] in g.classes for row in rows for g in fold.system.gradings)
    assert fold.system.picture(bare, reading, None, False).startswith(b"\x89PNG")


def test_keeps_what_its_folds_were_trained_on(run):
    config = parse(StudyConfig, json_of(run, "config.json"))
    data = config.data
    where = data.cohort, data.config, data.data_dir, data.manual_dir
    cohort = prepare_cohort(*where, **data.options)
    for number, fold in enumerate(folds_of(run)):
        rows = profile.read(run.workdir, [number])
        assert {row["patient"] for row in rows} == {*fold["train"]}
        assert len(rows) == sum(patient in fold["train"] for patient, _ in cohort.index)
    ranges = profile.ranges(profile.read(run.workdir))
    assert {*profile.images_of(ranges)} == {*builder_class(data.cohort).channels}
    trained = {row["study"] for row in profile.read(run.workdir)}
    number = next(i for i, (_, study) in enumerate(cohort.index) if study in trained)
    study = dict(cohort.studies[number])
    assert quality.flags(profile.measure(study), ranges) == []
    dark = {name: study[name].max() - study[name] for name in builder_class(data.cohort).channels}
    assert "intensity" in {f.kind for f in quality.flags(profile.measure(study | dark), ranges)}


def test_keeps_what_its_probabilities_are_worth(run):
    config = parse(StudyConfig, json_of(run, "config.json"))
    gradings = systems.load(run.name).build(config).gradings
    path = run.workdir / calibration.CALIBRATION
    assert path.exists() == bool(gradings)
    loaded = calibration.load(run.workdir, gradings)
    for grading in gradings:
        for method in loaded.content["tasks"].get(grading.task, {}):
            p = np.full((1, len(grading.classes)), 1 / len(grading.classes))
            assert loaded.set_of(grading.task, method, p).any()
            assert "Probabilities of" in loaded.statement(grading.task, method)
    before = path.read_text() if gradings else ""
    assert json.dumps(loaded.content, indent=2) + "\n" == before or not gradings
    tables = [table["id"] for table in json_of(run, "report/report.json")["calibrated"]]
    fitted = any(e["check"] for own in loaded.content["tasks"].values() for e in own.values())
    assert tables == (["temperature", "sets"] if fitted else [])
    # The detector of the tiny run finds nothing, and bones are not graded.
    assert fitted or run.name in ("modic_changes", "shoulder_bones")


def test_a_new_study_is_read_as_its_package_is(run, tmp_path, monkeypatch):
    monkeypatch.setenv("MSKJAX_SALT_FILE", str(tmp_path / "salt"))
    data = parse(StudyConfig, json_of(run, "config.json")).data
    where = data.cohort, data.config, data.data_dir, data.manual_dir
    study = prepare_cohort(*where, **data.options).studies[0]
    channels = builder_class(data.cohort).channels
    for name in channels:
        file = f"new_{name}.nii.gz" if len(channels) > 1 else "new.nii.gz"
        write_volume(tmp_path / "in" / file, Volume(study[name], study["affine"]))
    out = tmp_path / "out"
    flags = [f"--run={run.workdir}", f"--input={tmp_path / 'in'}", f"--output={out}"]
    assert predict.main([*flags, "--keep-ids"]) == 0
    found = json.loads((out / "new" / "result.json").read_text())
    jsonschema.validate(found, schema_of_results())
    together = ensemble.load(run.workdir, devices=1)
    (joint,) = together.read_jointly([study])
    mask = read_volume(out / "new" / "new.nii.gz").data
    expected = together.system.masks(study, joint.reading)[""]
    assert mask.shape == expected.shape
    # Affines are float32 in NIfTI, so a network's grid moves by a rounding.
    assert (mask == expected).mean() > 0.999
    tasks = [grading.task for grading in together.system.gradings]
    for region in found["regions"]:
        assert [grade["task"] for grade in region["grades"]] == ([] if region["note"] else tasks)
    assert bool(found["regions"]) == bool(tasks)


def test_the_same_command_says_that_it_is_finished(run, main_here, capsys):
    before = contents(run.workdir)
    assert main_here(*run.arguments) == 0
    assert "finished: " in capsys.readouterr().out
    assert contents(run.workdir) == before


@pytest.mark.parametrize("name", systems.names())
def test_a_misspelt_field_of_any_stage_is_a_sentence(name, main_here, tmp_path, capsys):
    arguments = tiny.arguments(name, tmp_path)
    stages = {a.split(".")[2] for a in arguments if a.startswith("--config.stages.")}
    assert stages
    for stage in stages:
        assert main_here(*arguments, f"--config.stages.{stage}.trian.steps=3") == 2
        said = complaint(capsys.readouterr().err)
        assert f"{stage}.trian.steps: there is no field 'trian'; did you mean 'train'?" in said
        assert "\n" not in said
    assert not (tmp_path / "run").exists()
    assert not (tmp_path / "data").exists()
