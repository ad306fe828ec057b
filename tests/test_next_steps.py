import dataclasses
import shlex
from pathlib import Path

import pytest

from mskjax import commands, next_steps
from mskjax.commands import StudyFlags, without
from mskjax.config import DataConfig, PopulationConfig, StudyConfig
from mskjax.errors import Preempted
from mskjax.locks import acquire
from mskjax.parts import Left

CONFIG = StudyConfig("disc_degeneration", "phantom", DataConfig("disc_degeneration", "phantom"))
ARGV = ["--config=disc_degeneration", "--config.data.manual_dir=my raw", "--mode=train"]


def said(capsys):
    """The commands of the lines ``next: ...``, as a shell would split them."""
    lines = capsys.readouterr().out.splitlines()
    return [shlex.split(x.removeprefix("next: ")) for x in lines if x.startswith("next: ")]


def after(capsys, tmp_path, left, mode=("train", "evaluate", "report"), **parts):
    flags = StudyFlags(CONFIG, tmp_path, mode, **parts)
    next_steps.after_study(flags, [*ARGV, f"--workdir={tmp_path}"], left)
    return [command[3:] for command in said(capsys)]


@pytest.mark.parametrize(
    ("left", "parts", "expected"),
    [
        (Left((0, 1), (), True), {"mode": ["train"], "stages": ("regions",)}, ["--mode=train"]),
        (
            Left((1,), (), True),
            {"mode": ["train"], "folds": (0, 1), "stages": ("grades",)},
            ["--mode=train", "--folds=1"],
        ),
        (Left((1, 2), (), True), {"mode": ["train", "evaluate"], "folds": (0,)}, ["--folds=1,2"]),
        (Left((), (0, 1), True), {"mode": ["train"]}, ["--mode=evaluate,report"]),
        (Left((), (), True), {"mode": ["train", "evaluate"], "folds": (1,)}, ["--mode=report"]),
    ],
)
def test_what_is_left_is_the_next_command(capsys, tmp_path, left, parts, expected):
    (command,) = after(capsys, tmp_path, left, **parts)
    kept = ["--config=disc_degeneration", "--config.data.manual_dir=my raw"]
    assert command == [*kept, f"--workdir={tmp_path}", *expected]


def test_a_finished_study_is_applied_and_verified(capsys, tmp_path):
    predict, verify = after(capsys, tmp_path / "my runs", Left())
    assert predict == [f"--run={tmp_path / 'my runs'}", "--input=INPUT", "--output=OUTPUT"]
    assert verify == ["--runs", str(tmp_path / "my runs"), "--verify"]


def test_members_that_are_finished_are_compared(capsys, tmp_path):
    population = PopulationConfig(members={"a": {}, "b": {}})
    flags = StudyFlags(dataclasses.replace(CONFIG, population=population), tmp_path, ["train"])
    next_steps.after_study(flags, [], Left())
    (command,) = said(capsys)
    assert command[2:5] == ["mskjax.report", "--runs", str(tmp_path / "member_a")]


def test_folds_that_others_work_on_are_not_offered(capsys, tmp_path):
    lock = acquire(tmp_path, "fold_1")
    try:
        left = Left((1, 2), (), True)
        parts = {"mode": ["train", "evaluate"], "folds": (0,)}
        (command,) = after(capsys, tmp_path, left, **parts)
        assert command[-1] == "--folds=2"
        flags = StudyFlags(CONFIG, tmp_path, ["train", "evaluate"], folds=(0,))
        next_steps.after_study(flags, ARGV, Left((1,), (), True))
        text = capsys.readouterr().out
    finally:
        lock.release()
    assert "at work: fold_1, process" in text
    assert f"next: python -m mskjax.status {tmp_path}" in text


def test_a_plan_is_run(capsys, tmp_path):
    argv = ["--config=disc_degeneration:cohort", "--mode", "plan", "--tflops=3", "--compile"]
    next_steps.after_plan(StudyFlags(CONFIG, None, ["plan"]), argv)
    (command,) = said(capsys)
    assert command[2:] == [
        "mskjax.main", "--config=disc_degeneration:cohort",
        f"--workdir={Path('runs') / 'disc_degeneration'}",
    ]  # fmt: skip


def test_flags_are_left_out_however_they_are_written():
    argv = [
        "--mode=train",
        "--config=a",
        "--mode",
        "train",
        "-folds=1",
        "--folds",
        "0",
        "--modes=x",
    ]
    assert without(argv, "mode", "folds") == ["--config=a", "--modes=x"]


def test_who_is_pre_empted_hears_the_same_command_quoted(capsys):
    def stopped(_):
        raise Preempted("saved at step 3")

    stopped.__module__ = "mskjax.main"
    assert commands.run(stopped, ["--config=a", "--workdir=my run"]) == 75
    assert said(capsys) == [["python", "-m", "mskjax.main", "--config=a", "--workdir=my run"]]
