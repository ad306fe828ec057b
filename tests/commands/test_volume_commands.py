"""Volumes segmented as a whole, as a user types it: one field chooses the 3-D U-Net."""

import json

import numpy as np
import pytest
from commands.command_line import complaint, study

from mskjax import applied, cases, ensemble, export, plan, predict
from mskjax.config import StudyConfig, parse
from mskjax.data.cohorts import prepare_cohort
from mskjax.imaging.files import read_volume, write_volume
from mskjax.imaging.volume import Volume
from mskjax.main import main
from mskjax.portable import reading
from mskjax.report import main as report_command

pytestmark = pytest.mark.long

CHANGES = {
    "stages__regions__dimensions": 3,
    "stages__regions__volume__slices": 5,
    "stages__regions__flip_slices": 0.5,
    "stages__regions__model__widths": "(8,8,8)",
    "stages__regions__train__batch_size": 4,
    "stages__regions__train__steps": 30,
}
PATIENTS = [f"phantom{n:04d}" for n in range(6)]


@pytest.fixture(scope="module")
def workdir(tmp_path_factory, data_dir, finish):
    """A finished run of one fold."""
    folder = tmp_path_factory.mktemp("volumes")
    division = folder / "division.json"
    fold = {"train": PATIENTS[:4], "test": PATIENTS[4:]}
    division.write_text(json.dumps({"folds": [fold]}))
    finish(study(folder / "run", data_dir, **CHANGES, data__splits=division))
    return folder / "run"


@pytest.fixture(scope="module")
def cohort(workdir):
    data = parse(StudyConfig, json.loads((workdir / "config.json").read_text())).data
    return prepare_cohort(data.cohort, data.config, data.data_dir, **data.options)


def test_the_run_scores_every_case_and_reads_to_the_same_digits_again(workdir, capsys):
    rows = cases.read(workdir / "cases.csv")
    report = json.loads((workdir / "report" / "report.json").read_text())
    assert report["stages"]["regions"]["dice_disc"]["n"] == 2
    assert report["stages"]["regions"]["dice_vertebra"]["value"] > 0.3
    assert sum(row["kind"] == "structure" for row in rows) == 6
    assert report_command([f"--runs={workdir}", "--verify"]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "PASS"


def test_the_canvas_has_slices_and_is_kept_with_the_fold(workdir, cohort):
    fitted = json.loads((workdir / "fold_0" / "system.json").read_text())
    assert len(fitted["fitted"]["canvas"]["regions"]) == 3
    (fold,) = applied.load(workdir, [0], devices=1)
    assert fold.system.find.canvas[0] == max(o["image"].shape[0] for o in cohort.outlines)


def test_a_new_study_with_more_slices_is_read(workdir, cohort, tmp_path, monkeypatch):
    monkeypatch.setenv("MSKJAX_SALT_FILE", str(tmp_path / "salt"))
    own = cohort.studies[0]
    image = np.concatenate([own["image"], own["image"][::-1]])
    write_volume(tmp_path / "in" / "new.nii.gz", Volume(image, own["affine"]))
    flags = [f"--run={workdir}", f"--input={tmp_path / 'in'}", f"--output={tmp_path / 'out'}"]
    assert predict.main([*flags, "--keep-ids"]) == 0
    mask = read_volume(tmp_path / "out" / "new" / "new.nii.gz").data
    together = ensemble.load(workdir, devices=1)
    (joint,) = together.read_jointly([{**own, "image": image}])
    assert (mask == together.system.masks(own, joint.reading)[""]).mean() > 0.999
    assert mask.any()


def test_an_export_reads_what_the_run_reads(workdir, cohort, tmp_path, capsys):
    folder = tmp_path / "model"
    assert export.main([f"--run={workdir}", f"--output={folder}"]) == 0
    entry = json.loads((folder / "model.json").read_text())["stages"][0]
    assert entry["inputs"]["image"]["shape"] == "b, s, 4*h, 4*w, 1"
    assert entry["batch"] == 1
    (fold,) = applied.load(workdir, [0], devices=1)
    exported = next(f for f in reading.load(folder) if f.name == "fold_0")
    (ours,), (theirs,) = (f.read([cohort.studies[0]]) for f in (fold, exported))
    np.testing.assert_array_equal(ours.located.mask, theirs.located.mask)


def test_a_plan_counts_volumes(data_dir, tmp_path, capsys):
    arguments = study(tmp_path / "run", data_dir, "--mode=plan", **CHANGES)

    assert main(arguments) == 0
    content = json.loads((tmp_path / "run" / plan.PLAN).read_text())["stages"]["regions"]
    assert content["parameters"] > 0
    assert content["memory_bytes"] > content["activation_bytes"] > content["batch_bytes"] > 0


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"stages__regions__dimensions": 4}, "dimensions is 4; it must be one of 2, 3"),
        ({"stages__regions__volume__residual_blocks": "(1,)"}, "give each level one block or"),
    ],
)
def test_wrong_options_are_a_sentence(main_here, data_dir, tmp_path, capsys, changes, message):
    assert main_here(*study(tmp_path / "run", data_dir, **{**CHANGES, **changes})) == 2
    assert message in complaint(capsys.readouterr().err)
    assert not (tmp_path / "run").exists()
