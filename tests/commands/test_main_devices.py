"""The same checkpoint, and the same first steps, on 1, 2, 4 and 8 devices: the same to 1e-5.

Whole trainings are not promised to agree: rounding grows in them.
"""

import csv
import shutil

import pytest
from commands.command_line import study

from mskjax.writers import read_rows

pytestmark = pytest.mark.slow


def table(workdir):
    with (workdir / "cases.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def differences(ours, theirs):
    """Largest absolute difference of each column of two tables; text must be equal."""
    largest = {}
    for a, b in zip(ours, theirs, strict=True):
        assert a.keys() == b.keys()
        for column in a:
            # float() refuses text that differs, and a case that only one of them has found.
            difference = 0 if a[column] == b[column] else abs(float(a[column]) - float(b[column]))
            largest[column] = max(largest.get(column, 0), difference)
    return largest


def losses(rows):
    return {(r["step"], k): v for r in rows for k, v in r.items() if k.endswith("_loss")}


@pytest.mark.long
@pytest.mark.parametrize("devices", [2, 4, 8])
def test_evaluation_of_one_checkpoint_agrees(finished, main_here, tmp_path, devices):
    workdir = tmp_path / "run"
    shutil.copytree(finished.workdir, workdir)
    shutil.rmtree(workdir / "report")
    for made in [workdir / "cases.csv", *workdir.glob("fold_*/cases.csv")]:
        made.unlink()
    assert main_here(*study(workdir, finished.data_dir, devices=devices)) == 0
    found = differences(table(workdir), table(finished.workdir))
    assert max(found.values()) <= 1e-5
    # Dice of one device would be equal whatever is evaluated, had nothing been found.
    assert any(float(row["dice"]) > 0.1 for row in table(workdir) if row["dice"])


@pytest.mark.long
def test_the_first_steps_agree(data_dir, main_here, tmp_path):
    # Few and small steps: sums of 1 and 8 parts are rounded differently, and where a gradient
    # is all but zero Adam makes a whole step of that rounding.
    recipe = {"steps": 3, "warmup_steps": 1, "learning_rate": 1e-4, "log_every": 1}
    few = {f"stages__{s}__train__{k}": v for s in ("regions", "grades") for k, v in recipe.items()}
    runs = {devices: tmp_path / str(devices) for devices in (1, 2, 8)}
    for devices, workdir in runs.items():
        arguments = study(workdir, data_dir, "--mode=train,evaluate", devices=devices, **few)
        assert main_here(*arguments) == 0
    for devices in (2, 8):
        found = differences(table(runs[devices]), table(runs[1]))
        continuous = [v for column, v in found.items() if column.startswith("oracle_p_")]
        assert len(continuous) == 8  # five grades, three severities
        assert max(continuous) <= 1e-5
        # A rounding can change the label of a voxel between two equal classes, not of many.
        assert max(found[metric] for metric in ("dice", "iou", "pixel_accuracy")) <= 1e-3
        for curve in runs[1].glob("fold_*/*/metrics.jsonl"):
            ours = read_rows(runs[devices] / curve.relative_to(runs[1]))
            assert losses(ours) == pytest.approx(losses(read_rows(curve)), rel=1e-5)
            assert len(losses(ours)) == 4  # 3 steps and a validation
