"""The console script ``mskjax COMMAND`` and ``python -m mskjax.COMMAND`` are the same commands."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from commands.command_line import complaint, run

from mskjax.cli import COMMANDS, main


def script():
    found = shutil.which("mskjax", path=str(Path(sys.executable).parent))
    if found is None:
        pytest.skip("the console script is not installed beside this interpreter")
    return found


def test_help_lists_the_commands(capsys):
    assert main(["--help"]) == 0
    said = capsys.readouterr().out
    assert all(name in said for name in COMMANDS)
    assert main([]) == 2


def test_an_unknown_command_gets_a_suggestion(capsys):
    assert main(["prepair"]) == 2
    assert (
        complaint(capsys.readouterr().err) == "error: no command 'prepair'; did you mean 'prepare'?"
    )


@pytest.mark.slow
def test_script_hands_flags_and_exit_codes_on(tmp_path):
    process = subprocess.run(
        [script(), "main", "--config=disc_degeneration", "--workdir=run", "--config.sead=1"],
        cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert process.returncode == 2
    assert "there is no field 'sead'" in complaint(process.stderr)
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself(command):
    process = run(f"mskjax.{command}", "--help")
    assert process.returncode == 0, process.stderr
    assert "--" in process.stdout
    flags = {"main": "workdir", "prepare": "manual_dir", "report": "runs", "sweep": "storage"}
    flags |= {"status": "json", "export": "folds", "predict": "series", "evaluate": "patients"}
    flag = flags[command]
    assert flag in process.stdout


@pytest.mark.slow
def test_prepare_in_a_process_of_its_own(tmp_path):
    process = run("mskjax.prepare", "--cohort=disc_degeneration/spidr", f"--data_dir={tmp_path}")
    assert process.returncode == 2
    assert "did you mean 'spider'" in complaint(process.stderr)
    assert not list(tmp_path.iterdir())
