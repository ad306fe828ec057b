"""The same study on 1, 2 and 8 devices: the same results to 1e-5.

Every program that is trained or applied is compiled anew for a number of devices, so evaluation is
held against two devices and training against eight; `training.test_loop` trains on two as well.
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
def test_evaluation_agrees(finished, main_here, tmp_path):
    workdir = tmp_path / "run"
    shutil.copytree(finished.workdir, workdir)
    shutil.rmtree(workdir / "report")
    for made in [workdir / "cases.csv", *workdir.glob("fold_*/cases.csv")]:
        made.unlink()
    assert main_here(*study(workdir, finished.data_dir, devices=2)) == 0
    assert max(differences(table(workdir), table(finished.workdir)).values()) <= 1e-5


@pytest.mark.long
def test_training_agrees(data_dir, main_here, tmp_path):
    # Few and small steps: sums of 1 and 8 parts are rounded differently, and where a gradient
    # is all but zero Adam makes a whole step of that rounding.
    recipe = {"steps": 3, "warmup_steps": 1, "learning_rate": 1e-4, "log_every": 1}
    few = {f"stages__{s}__train__{k}": v for s in ("regions", "grades") for k, v in recipe.items()}
    runs = {devices: tmp_path / str(devices) for devices in (1, 8)}
    for devices, workdir in runs.items():
        arguments = study(workdir, data_dir, "--mode=train,evaluate", devices=devices, **few)
        assert main_here(*arguments) == 0
    found = differences(table(runs[8]), table(runs[1]))
    continuous = [v for column, v in found.items() if column.startswith("oracle_p_")]
    assert len(continuous) == 8  # five grades, three severities
    assert max(continuous) <= 1e-5
    # A rounding can change the label of a voxel between two equal classes, not of many.
    assert max(found[metric] for metric in ("dice", "iou", "pixel_accuracy")) <= 1e-3
    for curve in runs[1].glob("fold_*/*/metrics.jsonl"):
        ours = read_rows(runs[8] / curve.relative_to(runs[1]))
        assert losses(ours) == pytest.approx(losses(read_rows(curve)), rel=1e-5)
        assert len(losses(ours)) == 4  # 3 steps and a validation
