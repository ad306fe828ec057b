"""A study of every system, so small that a run takes seconds.

The tests of every system (test_every_system.py) take the systems from `systems.names()` and their
studies from here.
"""

import json

import pytest
from commands import fatty_cohort, fracture_cohort
from commands.command_line import cohort_study, phantom_study, study


def disc_degeneration(folder):
    """Six generated patients, two folds."""
    return study(folder / "run", folder / "data")


def fatty_infiltration(folder):
    """A user's own images."""
    raw = fatty_cohort.own_cohort(folder / "raw")
    return cohort_study("fatty_infiltration", folder / "run", folder / "data", raw)


def modic_changes(folder):
    """Six generated patients; one fold, as its detector is slow to compile and to train."""
    ids = [f"phantom{n:04d}" for n in range(6)]
    division = folder / "division.json"
    division.write_text(json.dumps({"folds": [{"train": ids[:4], "test": ids[4:]}]}))
    return phantom_study("modic_changes", folder / "run", folder / "data", data__splits=division)


def shoulder_bones(folder):
    """Five generated patients in two folds, three held out."""
    return phantom_study("shoulder_bones", folder / "run", folder / "data")


def vertebral_fracture(folder):
    """A user's own series, with readers."""
    raw = fracture_cohort.own_cohort(folder / "raw")
    return cohort_study("vertebral_fracture", folder / "run", folder / "data", raw)


STUDIES = {
    make.__name__: make
    for make in (
        disc_degeneration,
        fatty_infiltration,
        modic_changes,
        shoulder_bones,
        vertebral_fracture,
    )
}


def arguments(name, folder):
    """Flags of ``mskjax.main`` for a run of seconds; it and its data lie in `folder`.

    Args:
      name: of the system.
      folder: exists; gets ``run``, ``data`` and what they need.
    """
    if name not in STUDIES:
        pytest.fail(
            f"{name} has no study for tests: add to tests/commands/tiny.py a function of that name"
            " that writes what a run of seconds needs and returns its flags, and list it in STUDIES"
        )
    return STUDIES[name](folder)
