"""The folder of a study: to whom it belongs, and that who is refused leaves no trace."""

import dataclasses
import json
import os
import runpy
import threading
import time
from pathlib import Path

import pytest

from mskjax import workdir as workdirs
from mskjax.config import StudyConfig, parse
from mskjax.errors import UserError
from mskjax.locks import LOCK

EXPERIMENT = Path(__file__).resolve().parents[1] / "experiments" / "disc_degeneration.py"


@pytest.fixture(scope="module")
def config():
    return parse(StudyConfig, runpy.run_path(str(EXPERIMENT))["get_config"]().to_dict())


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "runs" / "first"


def write(path, text=""):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def tree(folder):
    return {
        str(p.relative_to(folder)): p.read_bytes() if p.is_file() else None
        for p in folder.rglob("*")
    }


def command(folder, error, *made, folds=()):
    """A command that makes files and ends with an error."""
    with workdirs.owned(folder, folds):
        assert any(folder.glob(f"{LOCK}*"))
        for name in made:
            write(folder / name, "new")
        raise error


def refused(folder, *made, folds=()):
    with pytest.raises(UserError, match="wrong"):
        command(folder, UserError("wrong"), *made, folds=folds)


RESULTS = (
    "fold_0/regions/checkpoints/latest/10/_METADATA",
    "fold_1/grades/checkpoints/best/6/_METADATA",
    "fold_0/regions/cost.json",
    "fold_0/cases.csv",
    "cases.csv",
    "report/report.json",
)


def test_a_refused_command_leaves_nothing_not_even_folders(folder, tmp_path):
    refused(folder, "config.json", "fold_0/regions/metrics.jsonl", "fold_0/checkpoints/latest/x")
    assert tree(tmp_path) == {}
    folder.mkdir(parents=True)  # it was there before: it stays
    refused(folder, "config.json")
    assert tree(tmp_path) == {"runs": None, "runs/first": None}


def test_files_that_were_there_stay_as_they_were(folder):
    write(folder / "config.json", "old")
    write(folder / "notes" / "mine.txt", "mine")
    (folder / "link").symlink_to(folder / "notes")
    (folder / "dangling").symlink_to(folder / "none")
    before = tree(folder)
    refused(folder, "config.json", "splits.json", "notes/theirs.txt", "fold_0/regions/x")
    assert tree(folder) == before
    assert (folder / "link").is_symlink()
    assert (folder / "dangling").is_symlink()


@pytest.mark.parametrize("result", RESULTS)
def test_what_was_trained_stays_after_a_refusal(folder, result):
    refused(folder, result, "config.json")
    assert (folder / result).read_text() == "new"
    assert (folder / "config.json").read_text() == "new"
    assert not (folder / LOCK).exists()


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError, SystemExit])
def test_the_lock_is_released_whatever_ends_the_command(folder, tmp_path, error):
    with pytest.raises(error):
        command(folder, error())
    assert tree(tmp_path) == {}
    with pytest.raises(error):
        command(folder, error(), "fold_0/log")
    assert tree(folder) == {"fold_0": None, "fold_0/log": b"new"}  # helps to find a defect


def test_a_folder_that_cannot_be_made_or_written(tmp_path):
    write(tmp_path / "file")
    for wrong in (tmp_path / "file", tmp_path / "file" / "run", tmp_path / "a" / ("x" * 300)):
        with pytest.raises(UserError, match=f"--workdir: {wrong} cannot be made or written"):
            workdirs.owned(wrong).__enter__()
    assert tree(tmp_path) == {"file": b""}
    if os.geteuid():  # root may write anywhere
        (tmp_path / "closed").mkdir(mode=0o500)
        with pytest.raises(UserError, match="Permission denied"):
            workdirs.owned(tmp_path / "closed").__enter__()


@pytest.mark.parametrize("result", RESULTS)
def test_a_config_owns_the_folder_once_something_is_trained(folder, config, result):
    other = dataclasses.replace(config, seed=1)
    workdirs.claim(folder, other)
    assert not workdirs.check(folder, config)
    workdirs.claim(folder, config)
    assert json.loads((folder / "config.json").read_text())["seed"] == 0
    write(folder / result)
    before = tree(folder)
    for refuse in (workdirs.check, workdirs.claim):
        with pytest.raises(UserError, match="belongs to another config .config.seed was 0, now 1"):
            refuse(folder, other)
    assert tree(folder) == before
    assert workdirs.check(folder, config)
    data = dataclasses.replace(config.data, data_dir="elsewhere", manual_dir="raw")
    moved = dataclasses.replace(config, devices=2, data=data)
    assert workdirs.check(folder, moved)
    workdirs.claim(folder, moved)
    assert tree(folder) == before


def test_an_attempt_that_trained_nothing_leaves_nothing_to_the_next_config(folder, config):
    workdirs.claim(folder, dataclasses.replace(config, seed=1))
    write(folder / "fold_0/grades/initialisation.json", '["weights of another"]')
    write(folder / "fold_0/grades/checkpoints/latest/2.orbax-checkpoint-tmp/state")
    write(folder / "notes.txt", "mine")
    workdirs.claim(folder, config)
    assert sorted(tree(folder)) == ["config.json", "notes.txt"]


def test_folders_of_something_else_are_refused(tmp_path, config):
    write(tmp_path / "one" / "fold_0" / "model.pth")
    write(tmp_path / "two" / "config.json", '{"name": "a web page"}')
    write(tmp_path / "three" / "config.json", "{")
    before = tree(tmp_path)
    for name, message in (
        ("one", "holds folds but no config.json"),
        ("two", "is not the config of a study .KeyError"),
        ("three", "is not the config of a study .JSONDecodeError"),
    ):
        for refuse in (workdirs.check, workdirs.claim):
            with pytest.raises(UserError, match=message):
                refuse(tmp_path / name, config)
    assert tree(tmp_path) == before


def test_a_run_of_a_version_with_fewer_fields_goes_on(folder, config):
    workdirs.claim(folder, config)
    write(folder / "fold_0/grades/cost.json", "{}")
    old = json.loads((folder / "config.json").read_text())
    del old["population"], old["train_seed"]
    write(folder / "config.json", json.dumps(old))
    assert workdirs.check(folder, config)
    assert workdirs.config_of(folder).population == config.population
    with pytest.raises(UserError, match="config.train_seed was None, now 3"):
        workdirs.check(folder, dataclasses.replace(config, train_seed=3))


def test_a_study_is_finished_for_its_own_config_alone(folder, config):
    assert not workdirs.is_finished(folder, config)
    workdirs.claim(folder, config)
    assert not workdirs.is_finished(folder, config)
    write(folder / "report" / "report.html")
    assert workdirs.is_finished(folder, config)
    assert not workdirs.is_finished(folder, dataclasses.replace(config, seed=1))


def test_of_a_study_of_parts_all_is_taken_back_or_nothing(folder, tmp_path):
    def refused_in_a_part(*made):
        with workdirs.owned(folder), workdirs.owned(folder / "member_a", is_part=True):
            for name in made:
                write(folder / name)
            raise UserError("wrong")

    with pytest.raises(UserError, match="wrong"):
        refused_in_a_part("config.json", "member_a/fold_0/regions/failed.json")
    assert tree(tmp_path) == {}
    trained = "member_b/fold_0/regions/checkpoints/latest/10/state"
    with pytest.raises(UserError, match="wrong"):
        refused_in_a_part(trained, "member_a/fold_0/regions/failed.json")
    assert (folder / "member_a/fold_0/regions/failed.json").exists()
    assert not list(folder.rglob(f"{LOCK}*"))


def test_different_folds_are_owned_at_once_and_nothing_twice(folder):
    with workdirs.owned(folder, [0]), workdirs.owned(folder, [1, 2]):
        assert workdirs.busy(folder).keys() == {"fold_0", "fold_1", "fold_2"}
        assert workdirs.busy(folder, but=[0]).keys() == {"fold_1", "fold_2"}
        for taken, name in (([3, 2], "fold_2"), ([0], "fold_0"), ([], "fold_0")):
            with pytest.raises(UserError, match=f"{folder / name} is in use by process"):
                workdirs.owned(folder, taken).__enter__()
        with workdirs.owned(folder, [3]):  # a refusal holds nothing
            pass
    assert not folder.exists()
    with workdirs.owned(folder):
        # Who owns all of it has done so for longer than a process needs to begin.
        old = json.loads((folder / LOCK).read_text()) | {"started": 0.0}
        (folder / LOCK).write_text(json.dumps(old))
        with pytest.raises(UserError, match="in use by process"):
            workdirs.owned(folder, [0]).__enter__()


def test_who_begins_waits_for_another_one_that_begins(folder):
    begun, order = threading.Event(), []

    def first():
        with workdirs.beginning(folder):
            begun.set()
            time.sleep(0.3)
            order.append("first")

    thread = threading.Thread(target=first)
    thread.start()
    begun.wait()
    with workdirs.owned(folder, [1]):
        order.append("second")
    thread.join()
    assert order == ["first", "second"]


def test_a_refused_command_of_a_fold_leaves_what_others_made(folder):
    with workdirs.owned(folder, [0]):
        write(folder / "config.json", "theirs")
        write(folder / "fold_0/regions/metrics.jsonl")
        refused(folder, "fold_1/regions/metrics.jsonl", folds=[1])
        assert sorted(tree(folder)) == [
            f"{LOCK}-fold_0", "config.json", "fold_0", "fold_0/regions",
            "fold_0/regions/metrics.jsonl",
        ]  # fmt: skip
        write(folder / "fold_0/regions/checkpoints/latest/10/state")
    refused(folder, "fold_1/regions/metrics.jsonl", folds=[1])
    assert not (folder / "fold_1").exists()
    refused(folder, "fold_1/regions/checkpoints/latest/10/state", folds=[1])
    assert (folder / "fold_1").exists(), "what was trained stays"


def test_a_refused_command_of_a_fold_that_is_alone_leaves_no_trace(folder, tmp_path):
    refused(folder, "config.json", "fold_1/regions/metrics.jsonl", folds=[1])
    assert tree(tmp_path) == {}


def test_a_refused_command_of_a_fold_keeps_the_files_of_the_user(folder):
    write(folder / "config.json", "old")
    write(folder / "notes/mine.txt", "mine")
    write(folder / "fold_0/notes.txt", "mine")
    write(folder / "fold_1/notes.txt", "mine")
    before = tree(folder)
    refused(folder, "config.json", "splits.json", "prepared/x/image.npy", "fold_1/a/b", folds=[1])
    assert tree(folder) == before


def test_folds_begin_with_one_config(folder, config):
    with workdirs.owned(folder, [0]):
        workdirs.claim(folder, config, [0])
        write(folder / "fold_0/regions/metrics.jsonl")
        with workdirs.owned(folder, [1]):
            workdirs.claim(folder, config, [1])
            assert (folder / "fold_0/regions/metrics.jsonl").exists(), "the other one's"
            other = dataclasses.replace(config, seed=1)
            with pytest.raises(UserError, match="fold_0 is in use by .* with another config"):
                workdirs.claim(folder, other, [1])
            assert json.loads((folder / "config.json").read_text())["seed"] == 0
