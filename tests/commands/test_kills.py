"""Killed anywhere, as often as you like, and started again: the undisturbed run, bit for bit.

One campaign aims at the weak moments, one kills at random moments of the whole run.  The selected
weights are not the last ones, so that a lost or a stale ``best`` is seen.
"""

import json
import random
import shutil
import signal
import time
from types import SimpleNamespace

import jax
import numpy as np
import pytest
from commands.command_line import study, unfinished
from commands.lives import Server

from mskjax.training.checkpoints import restore_variables
from mskjax.writers import read_rows

pytestmark = [pytest.mark.slow, pytest.mark.long]

# Six steps that save at each and select among three; a rate at which the last is not the best.
RECIPE = {
    "steps": 6,
    "warmup_steps": 1,
    "learning_rate": 0.05,
    "batch_size": 2,
    "validate_every": 2,
    "checkpoint_every": 1,
    "log_every": 1,
    "select": "best",
}
SMALLER = {"regions__model__widths": "(4,8)", "grades__heads": "('pfirrmann',)"}
# The moments, in the order in which a study comes to them (`lives.Server.live`); every life goes on
# where the one before it died.
WEAK = {
    "packaging, in a shard": ("call", "tfds_builders.disc_degeneration.sources:spine_phantom", 4),
    "packaging, before the name": ("rename", r"\.partial-\w+/package$", 1),
    "the division": ("rename", r"splits\.", 1),
    "at compile": ("call", "jax.stages:Lowered.compile", 1),
    "in the save of the best": ("rename", r"best/2\.orbax-checkpoint-tmp$", 1),
    "between the saves": ("mkdir", r"latest/2\.orbax-checkpoint-tmp$", 1),
    "in the save of the latest": ("rename", r"latest/4\.orbax-checkpoint-tmp$", 1),
    "the record of the stage": ("rename", r"regions/architecture\.", 1),
    "the record of its cost": ("rename", r"regions/cost\.", 1),
    "at compile, second stage": ("call", "jax.stages:Lowered.compile", 1),
    "between the saves, second stage": ("mkdir", r"grades/.*latest/4\.orbax-checkpoint-tmp$", 1),
    "in the last save": ("rename", r"grades/.*latest/6\.orbax-checkpoint-tmp$", 1),
    "evaluation, second study": ("call", "mskjax.reading:rows_of_fold", 2),
    "evaluation, its rows": ("rename", r"fold_0/cases\.", 1),
    "before the report": ("call", "mskjax.study:write_report", 1),
    "in the report": ("rename", r"report/report\.", 1),
    "in the page": ("rename", r"report/report\.", 2),
}
RANDOM = 10
# What differs between two undisturbed runs: clocks, memory, the place of their data, and the state
# of the checkout, which somebody may change meanwhile.
OWN = ("wall_s", "steps_per_s", "compile_s", "peak_memory_bytes", "data_dir")
OWN += ("environment", "checklist")


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        # All programs come from the cache once a life has compiled them.
        patch.setenv("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
        server = Server(tmp_path_factory.mktemp("lives") / "said.txt")
    yield server
    server.close()


@pytest.fixture(scope="module")
def arguments(tmp_path_factory):
    """Flags of a run in a folder, which gets its packaged cohort too."""
    division = tmp_path_factory.mktemp("division") / "division.json"
    ids = [f"phantom{n:04d}" for n in range(6)]
    fold = {"train": ids[:3], "validation": [ids[3]], "test": ids[4:]}
    division.write_text(json.dumps({"folds": [fold]}))
    changes = {
        f"stages__{s}__train__{k}": v for s in ("regions", "grades") for k, v in RECIPE.items()
    }
    changes |= {f"stages__{k}": v for k, v in SMALLER.items()}

    def of(folder):
        return study(folder / "run", folder / "data", data__splits=division, **changes)

    return of


@pytest.fixture(scope="module")
def undisturbed(server, arguments, tmp_path_factory):
    """The run to compare with, and how long one takes whose programs are compiled."""
    folders = [tmp_path_factory.mktemp("undisturbed") for _ in range(2)]
    for folder in folders:
        start = time.monotonic()
        assert server.live(arguments(folder)) == 0, server.said()
        seconds = time.monotonic() - start
    selected = [_json(f)["selected_step"] for f in _stages(folders[0], "architecture.json")]
    assert min(selected) < RECIPE["steps"], "no run whose best is lost could be told apart"
    assert_same(folders[1], folders[0])  # or nothing below says anything
    return SimpleNamespace(folder=folders[0], seconds=seconds)


def assert_same(folder, undisturbed):
    """Both runs hold the same files with the same content, but for `OWN`."""
    ours, theirs = folder / "run", undisturbed / "run"
    assert not unfinished(ours)
    assert _names(folder / "data") == _names(undisturbed / "data")
    assert _names(ours) == _names(theirs)
    exact = ["cases.csv", "splits.json", "fold_*/system.json", "fold_*/*/architecture.json"]
    exact += ["fold_*/cases.csv", "fold_*/pictures/*.png", "calibration.json", "fold_*/profile.csv"]
    files = [f.relative_to(theirs) for pattern in exact for f in theirs.glob(pattern)]
    assert len(files) == 10
    for file in files:
        assert (ours / file).read_bytes() == (theirs / file).read_bytes(), file
    for curve in _stages(undisturbed, "metrics.jsonl"):
        assert read_rows(ours / curve.relative_to(theirs)) == read_rows(curve)
    report = "report/report.json"
    assert _shared(_json(ours / report)) == _shared(_json(theirs / report))
    for architecture in _stages(undisturbed, "architecture.json"):
        stage = architecture.parent
        found = restore_variables(ours / stage.relative_to(theirs))
        jax.tree.map(np.testing.assert_array_equal, found, restore_variables(stage))


def _stages(folder, name):
    return sorted((folder / "run").glob(f"fold_*/*/{name}"))


def _json(path):
    return json.loads(path.read_text())


def _names(folder):
    """What is in a folder; the insides of checkpoints and of logs have names of their own."""
    inside = ("checkpoints", "events.out")
    files = (p.relative_to(folder) for p in folder.rglob("*") if p.is_file())
    return {str(p) for p in files if not any(part in str(p) for part in inside)}


def _shared(value):
    if isinstance(value, dict):
        return {k: _shared(v) for k, v in value.items() if k not in OWN}
    return [_shared(v) for v in value] if isinstance(value, list) else value


def test_kills_at_the_weak_moments(server, arguments, undisturbed, tmp_path):
    flags = arguments(tmp_path)
    for moment, aim in WEAK.items():
        assert server.live(flags, aim) == -signal.SIGKILL, f"{moment}: {server.said()}"
    assert server.live(flags) == 0, server.said()
    assert_same(tmp_path, undisturbed.folder)


def test_kills_at_random_moments(server, arguments, undisturbed, tmp_path):
    """SIGKILL and SIGTERM in turn; a run that ends all the same is compared, and another begun."""
    chance, landed, number = random.Random(0), 0, 0
    while landed < RANDOM:
        folder, by = tmp_path / str(number), (signal.SIGKILL, signal.SIGTERM)[landed % 2]
        folder.mkdir(exist_ok=True)
        # Half a run at most: what is resumed is shorter, and would end before the signal.
        after = chance.uniform(0.2, undisturbed.seconds / 2)
        ended = server.live(arguments(folder), after=after, by=by)
        landed += ended != 0
        if ended == 0:
            assert_same(folder, undisturbed.folder)
            shutil.rmtree(folder)
            number += 1
        else:
            assert ended == (75 if by == signal.SIGTERM else -by), server.said()
    assert server.live(arguments(tmp_path / str(number))) == 0, server.said()
    assert_same(tmp_path / str(number), undisturbed.folder)
