"""Wrong input: one sentence, exit code 2, nothing half-written under its final name."""

import errno
import shutil
from collections import namedtuple

import numpy as np
import pytest
from builders import mini_spine
from commands.command_line import complaint, own_cohort, real_study, run, study

from mskjax import tables
from mskjax.training import checkpoints

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(
    ("flag", "message"),
    [
        (
            "--config.stages.regions.trian.steps=3",
            "--config.stages.regions.trian.steps: there is no field 'trian'; did you mean 'train'?",
        ),
        ("--config.sead=3", "--config.sead: there is no field 'sead'; did you mean 'seed'?"),
        ("--config.zzzz=3", "--config.zzzz: there is no field 'zzzz'"),
        ("--config.seed.x=3", "--config.seed.x: there is no field"),
        ("--config.resamples=1e3", "--config.resamples=1e3: it must be a whole number"),
        ("--config.stages.regions.spacing_mm=wide", "spacing_mm=wide: it must be a number"),
        ("--config.stages.grades.extent=-1.0.0", "it must be a number"),
        ("--config.data.split=random", "config.data.split is 'random'; it must be one of folds"),
        ("--config.data.folds=1", "config.data.folds is 1; it must be at least 2"),
        ("--config.data.folds=5", "5 folds need 5 patients of every class, but there are m"),
        ("--config.data.cohort=disc_degeneratio", "did you mean 'disc_degeneration'"),
        ("--config.data.config=phanton", "did you mean 'phantom'"),
        ("--config.data.options.patients=0", "patients"),
        ("--config.data.splits=none.json", "none.json does not exist"),
        ("--config.devices=99", "config.devices is 99, but"),
        ("--config.devices=3", "config.stages.regions.train.batch_size is 8, which 3 devices"),
        ("--config.system=disc", "config.system is 'disc'; known systems"),
        ("--config.stages.regions.patch=7", "config.stages.regions.patch is (64, 48, 7)"),
        ("--config.stages.grades.crop=3", "config.stages.grades.crop is (3, 8, 16, 3)"),
        ("--config.stages.grades.model.norm=layer", "config.stages.grades.model.norm is 'layer'"),
        ("--config.stages.grades.model.norm=group", "a width is 2; choose a multiple of 8"),
        ("--config.stages.regions.model.dtype=float99", "dtype is 'float99'; it must be one of"),
        ("--wrkdir=x", "no flag --wrkdir; did you mean --workdir?"),
        ("--config.data.split", "--config.data.split"),
        ("--mode=trane", "--mode has trane; give any of train, evaluate, report"),
        ("--mode=", "--mode has nothing"),
        ("extra", "unexpected argument 'extra'"),
    ],
)
def test_wrong_flags_and_fields(finished, main_here, tmp_path, capsys, flag, message):
    assert main_here(*study(tmp_path / "run", finished.data_dir, flag)) == 2
    said = complaint(capsys.readouterr().err)
    assert message in said
    assert "\n" not in said
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ("experiments/disc_degeneratio.py", "no such file; did you mean 'disc_degeneration'"),
        ("disc_degeneratio", "did you mean 'disc_degeneration', of disc_degeneration, fatty_inf"),
        ("disc_degeneration:phantm", "no variant 'phantm'; did you mean 'phantom', of phantom, co"),
        ("{run}", "config.sead is not a field; did you mean 'seed'?"),
        ("{run}:cohort", "a run has no variants; leave :cohort out"),
        ("{nothing}", "nothing.py has no get_config"),
        ("{failing}", "failing.py, line 2: ZeroDivisionError"),
        ("{broken}", "broken.py, line 1"),
        ("{empty}", "config lacks system, variant"),
    ],
)
def test_wrong_experiment_file(main_here, tmp_path, capsys, config, message):
    (tmp_path / "broken.py").write_text("x = (\n")
    (tmp_path / "empty.py").write_text(
        "from ml_collections import ConfigDict\ndef get_config():\n  return ConfigDict()\n"
    )
    (tmp_path / "nothing.py").write_text("")
    (tmp_path / "failing.py").write_text("def get_config():\n  return 1 / 0\n")
    (tmp_path / "config.json").write_text('{"system": "disc_degeneration", "sead": 1}')
    paths = {p.stem: p for p in tmp_path.glob("*.py")}
    config = config.format(**paths, run=tmp_path / "config.json")
    assert main_here(f"--config={config}", f"--workdir={tmp_path / 'run'}") == 2
    said = complaint(capsys.readouterr().err)
    assert message in said
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "arguments", [[], ["--workdir=x"], ["--config=experiments/disc_degeneration.py"]]
)
def test_missing_flags(main_here, capsys, arguments):
    assert main_here(*arguments) == 2
    assert "--config and --workdir are needed" in complaint(capsys.readouterr().err)


def test_in_a_process_of_its_own(tmp_path):
    process = run("mskjax.main", *study(tmp_path, tmp_path, "--config.stages.regions.patc=1"))
    assert process.returncode == 2
    assert "did you mean 'patch'?" in complaint(process.stderr)
    assert process.stdout == ""
    assert not list(tmp_path.iterdir())


def test_a_workdir_that_cannot_be_made(finished, main_here, tmp_path, capsys):
    (tmp_path / "file").write_text("")
    assert main_here(*study(tmp_path / "file", finished.data_dir)) == 2
    assert "--workdir" in complaint(capsys.readouterr().err)
    assert main_here(*study(tmp_path / "file" / "run", finished.data_dir)) == 2
    assert "ot a directory" in complaint(capsys.readouterr().err)


def test_a_data_dir_that_cannot_be_made(main_here, tmp_path, capsys):
    (tmp_path / "file").write_text("")
    assert main_here(*study(tmp_path / "run", tmp_path / "file" / "data")) == 2
    assert f"{tmp_path / 'file'}" in complaint(capsys.readouterr().err)


def test_missing_raw_folder(main_here, tmp_path, capsys):
    nowhere = tmp_path / "nowhere"
    arguments = real_study("spider_t2space", tmp_path / "run", tmp_path / "data", nowhere)
    assert main_here(*arguments) == 2
    assert f"{nowhere} is not a folder" in complaint(capsys.readouterr().err)


def test_bad_raw_files_are_listed_together_and_nothing_is_packaged(main_here, tmp_path, capsys):
    raw, data = tmp_path / "raw", tmp_path / "data"
    own_cohort(raw, "abcdef")
    image = mini_spine.image(1).astype(np.float32)
    image[1, 10, 10] = np.nan
    mini_spine.write_nifti(raw / "a.nii.gz", image)
    whole = (raw / "b.nii.gz").read_bytes()
    (raw / "b.nii.gz").write_bytes(whole[: len(whole) // 2])
    mini_spine.write_nifti(raw / "c_seg.nii.gz", mini_spine.semantic()[:, 1:])
    unknown = np.where(mini_spine.semantic() == 3, 77, mini_spine.semantic())
    mini_spine.write_nifti(raw / "d_seg.nii.gz", unknown.astype(np.uint8))
    (raw / "e.nii.gz").unlink()
    assert main_here(*real_study("cohort", tmp_path / "run", data, raw)) == 2
    said = complaint(capsys.readouterr().err)
    assert len(said.splitlines()) == 6
    for word in ("NaN", "b.nii.gz", "c_seg.nii.gz", "77", "e.nii.gz"):
        assert sum(word in line for line in said.splitlines()[1:]) == 1, said
    assert not [p for p in data.rglob("*") if p.is_file()]
    assert not (tmp_path / "run").exists()


Usage = namedtuple("Usage", "total used free")


@pytest.mark.parametrize(
    "when",
    [
        pytest.param("checkpoint", marks=pytest.mark.long),
        pytest.param("table", marks=pytest.mark.long),
        "report",
    ],
)
def test_a_full_disk_ends_in_one_sentence_and_the_run_goes_on_later(
    finished, main_here, tmp_path, capsys, monkeypatch, when
):
    workdir = tmp_path / "run"
    arguments = study(workdir, finished.data_dir)
    if when != "checkpoint":  # begin where training is over
        shutil.copytree(finished.workdir, workdir)
        shutil.rmtree(workdir / "report")
    if when == "table":
        for made in [workdir / "cases.csv", *workdir.glob("fold_*/cases.csv")]:
            made.unlink()
    with monkeypatch.context() as full:
        if when == "checkpoint":
            full.setattr(checkpoints.shutil, "disk_usage", lambda _: Usage(10, 10, 0))
        else:
            full.setattr("pathlib.Path.write_bytes", _no_space)
            full.setattr(tables.csv.DictWriter, "writerows", _no_space)
            full.setattr("mskjax.opening.write_json", lambda *_: None)
        assert main_here(*arguments) == 2
    said = complaint(capsys.readouterr().err)
    assert "no space left on the disk" in said
    assert "run the same command again" in said
    assert not (workdir / "report" / "report.json").exists()
    assert when == "report" or not list(workdir.rglob("cases.csv"))
    assert not list(workdir.glob("fold_*/*/checkpoints/latest/10"))
    assert main_here(*arguments) == 0
    again = (workdir / "cases.csv").read_bytes()
    assert again == (finished.workdir / "cases.csv").read_bytes()


def _no_space(*_, **__):
    raise OSError(errno.ENOSPC, "No space left on device")
