"""More steps for a finished study, as a user types it; killed on its way."""

import json
import shutil
import signal

import jax
import numpy as np
import optax
import pytest
from commands.command_line import complaint, contents, study, unfinished
from commands.lives import Server

from mskjax import going_on, status
from mskjax.training.checkpoints import restore_variables
from mskjax.training.saved import saved_step
from mskjax.writers import read_rows

pytestmark = pytest.mark.slow

MORE = {"stages__regions__train__steps": 66, "stages__grades__train__steps": 8}
# What a finished run keeps when its stages are given more steps, beside what a user puts there.
OF_RUN = ("command", "config", "environment", "cohort", "splits", "history")
OF_STAGE = ("architecture", "cost", "initialisation")
STAYS = tuple(f"{name}.json" for name in OF_RUN)
STAYS += (
    "fold_*/system.json",
    "fold_*/profile.csv",
    *(f"fold_*/*/{name}.json" for name in OF_STAGE),
)
STAYS += ("fold_*/*/metrics.jsonl", "fold_*/*/events*", "fold_*/*/checkpoints/**/*")


@pytest.fixture(scope="module")
def extended(finished, finish, tmp_path_factory):
    """A copy of the finished run with more steps, and what the command said."""
    workdir = tmp_path_factory.mktemp("extended") / "run"
    shutil.copytree(finished.workdir, workdir)
    return workdir, finish(study(workdir, finished.data_dir, **MORE))


def content(path):
    return json.loads(path.read_text())


@pytest.mark.long
def test_a_finished_study_goes_on_from_its_last_state(finished, extended):
    workdir, said = extended
    assert "regions: extended from 60 to 66 steps at step 60" in said
    assert content(workdir / "config.json")["stages"]["regions"]["train"]["steps"] == 66
    for stage, before, after, warmup, peak in (
        ("regions", 60, 66, 2, 0.02),
        ("grades", 6, 8, 3, None),
    ):
        for fold in (0, 1):
            place = f"fold_{fold}/{stage}"
            assert content(workdir / place / "cost.json")["steps"] == after
            assert content(workdir / place / "architecture.json")["selected_step"] <= after
            old = read_rows(finished.workdir / place / "metrics.jsonl")
            new = read_rows(workdir / place / "metrics.jsonl")
            assert new[: len(old)] == old
            assert {row["step"] for row in new[len(old) :]} >= {after}
            if peak:
                rate = optax.warmup_cosine_decay_schedule(0.0, peak, warmup, after)
                own = {r["step"]: r["learning_rate"] for r in new if "learning_rate" in r}
                assert own[65] == pytest.approx(float(rate(64)), rel=1e-4)
                assert own[65] > own[before]
    weights = [
        jax.tree.leaves(restore_variables(run / "fold_0" / "regions"))
        for run in (finished.workdir, workdir)
    ]
    assert any(not np.array_equal(a, b) for a, b in zip(*weights, strict=True))


def test_what_happened_stands_in_the_run_and_in_its_report(extended):
    workdir, _ = extended
    rows = content(workdir / "history.json")["extensions"]
    assert [(r["stage"], r["from"], r["to"]) for r in rows] == [
        ("regions", 60, 66),
        ("grades", 6, 8),
    ]
    assert rows[0]["at"] == {"fold_0": 60, "fold_1": 60}
    report = content(workdir / "report" / "report.json")
    assert report["recipe"]["extended"][0] == ("regions: extended from 60 to 66 steps at step 60")
    assert any("not the training of so many steps" in limit for limit in report["limits"])
    page = (workdir / "report" / "report.html").read_text()
    assert "regions: extended from 60 to 66 steps at step 60" in page
    assert not unfinished(workdir)


def test_it_is_then_a_study_of_the_new_steps(finished, extended, main_here, capsys):
    workdir, _ = extended
    before = contents(workdir)
    assert main_here(*study(workdir, finished.data_dir, **MORE)) == 0
    said = capsys.readouterr().out
    assert said.startswith("finished: ")
    assert f"next: python -m mskjax.predict --run={workdir} --input=INPUT" in said
    assert main_here(*study(workdir, finished.data_dir)) == 2
    said = complaint(capsys.readouterr().err)
    assert "steps was 8, now 6; a training that is begun may be given more steps" in said
    assert contents(workdir) == before
    assert status.main([str(workdir)]) == 0
    assert "regions: extended from 60 to 66 steps at step 60" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("flag", "message"),
    [
        ("--config.devices=3", "train.batch_size is 8, which 3 devices do not divide"),
        ("--mode=evaluate", "is to have more steps; leave --mode out"),
        ("--config.seed=3", "only the steps of a stage may change, to more"),
        ("--config.data.splits=none.json", "none.json"),
    ],
)
def test_who_is_refused_keeps_all_results(finished, main_here, tmp_path, capsys, flag, message):
    workdir = shutil.copytree(finished.workdir, tmp_path / "run")
    before = {k: v for k, (v, _) in contents(workdir).items()}
    assert main_here(*study(workdir, finished.data_dir, flag, **MORE)) == 2
    assert message in complaint(capsys.readouterr().err)
    assert {k: v for k, (v, _) in contents(workdir).items()} == before


@pytest.mark.parametrize("run", ["finished", "extended"])
def test_every_file_of_a_run_goes_or_is_known_to_stay(request, run):
    """A new result must be listed in `going_on.RESULTS`, or old ones lie beside new weights."""
    made = request.getfixturevalue(run)
    workdir = made[0] if run == "extended" else made.workdir
    goes = {f for pattern in going_on.RESULTS for p in workdir.glob(pattern)
            for f in (p.rglob("*") if p.is_dir() else (p,))}  # fmt: skip
    stays = {p for pattern in STAYS for p in workdir.glob(pattern)}
    assert goes
    every = {p for p in workdir.rglob("*") if p.is_file()}
    assert not {str(p.relative_to(workdir)) for p in every - goes - stays}
    assert not goes & stays


# In the order in which an extension comes to them; every life goes on where the one before died.
WEAK = {
    "before the page": ("rename", r"run/report$", 1),
    "between results and records": ("rename", r"history\.", 1),
    "before the new config": ("rename", r"run/config\.", 1),
    "in the first save": ("rename", r"fold_0/regions/.*latest/66\.orbax-checkpoint-tmp$", 1),
    "before the record of the stage": ("rename", r"fold_1/regions/architecture\.", 1),
    "in the evaluation": ("call", "mskjax.reading:rows_of_fold", 2),
    "before the report": ("rename", r"report/report\.", 1),
}


@pytest.mark.long
def test_killed_on_its_way_it_comes_to_the_same_bits(finished, extended, tmp_path):
    workdir = shutil.copytree(finished.workdir, tmp_path / "run")
    arguments = study(workdir, finished.data_dir, **MORE)
    server = Server(tmp_path / "said.txt")
    try:
        for moment, aim in WEAK.items():
            assert server.live(arguments, aim) == -signal.SIGKILL, f"{moment}: {server.said()}"
            steps = content(workdir / "config.json")["stages"]["regions"]["train"]["steps"]
            if saved_step(workdir / "fold_0" / "regions") > 60:
                assert steps == 66
            for made in workdir.glob("fold_*/cases.csv"):
                trained = content(made.parent / "regions" / "cost.json")["steps"]
                assert trained == steps, f"{moment}: {made} is of other weights"
        assert server.live(arguments) == 0, server.said()
    finally:
        server.close()
    undisturbed, _ = extended
    for name in ("cases.csv", "fold_0/cases.csv", "fold_1/grades/architecture.json"):
        assert (workdir / name).read_bytes() == (undisturbed / name).read_bytes(), name
    for curve in undisturbed.glob("fold_*/*/metrics.jsonl"):
        assert read_rows(workdir / curve.relative_to(undisturbed)) == read_rows(curve)
    assert not unfinished(workdir)
    assert len(content(workdir / "history.json")["extensions"]) == 2
