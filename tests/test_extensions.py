"""A user's own folders; tests/commands/test_sixth_system.py runs a system that lies in one."""

import os
import sys

import pytest

import tfds_builders
from mskjax import extensions, systems
from mskjax.data.cohorts import builder_class, cohort_names
from mskjax.errors import UserError


@pytest.fixture
def own(tmp_path, monkeypatch):
    """Writes a file of a user's folder, which the packages have been extended by."""
    for package, kind in ((systems, "systems"), (tfds_builders, "tfds_builders")):
        monkeypatch.setattr(package, "__path__", [*package.__path__, str(tmp_path / kind)])

    def write(name, text=""):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return path

    yield write
    for name in [n for n in sys.modules if {"hip", "_hip_rules"} & {*n.split(".")}]:
        del sys.modules[name]


def test_the_variable_names_folders_in_their_order(tmp_path, monkeypatch):
    for name in ("b/systems", "a/systems", "a/experiments"):
        (tmp_path / name).mkdir(parents=True)
    named = [tmp_path / "b", tmp_path / "a", tmp_path / "b"]
    monkeypatch.setenv("MSKJAX_PATH", os.pathsep.join(map(str, named)))
    b, a = str(tmp_path / "b" / "systems"), str(tmp_path / "a" / "systems")
    assert extensions.folders("systems") == [b, a]
    assert extensions.folders("experiments") == [str(tmp_path / "a" / "experiments")]
    assert extensions.folders("tfds_builders") == []
    monkeypatch.setenv("MSKJAX_PATH", "")
    assert extensions.folders("systems") == []


def test_a_folder_that_is_not_there_is_refused(tmp_path, monkeypatch):
    monkeypatch.setenv("MSKJAX_PATH", f"{tmp_path}{os.pathsep}{tmp_path / 'gone'}")
    with pytest.raises(UserError, match="MSKJAX_PATH names .*gone, which is not a folder"):
        extensions.folders("systems")


def test_own_systems_and_cohorts_stand_beside_the_shipped_ones(own):
    shipped, packaged = systems.names(), cohort_names()
    own("systems/hip.py", "from mskjax.systems import _hip_rules as rules\nSIDES = rules.SIDES\n")
    own("systems/_hip_rules.py", "SIDES = 2\n")
    own("systems/ankle/__init__.py")
    own("tfds_builders/hip/hip.py")
    own("tfds_builders/hip/sources.py")
    own("tfds_builders/notes/readme.py")
    assert systems.names() == sorted([*shipped, "hip", "ankle"])
    assert systems.load("hip").SIDES == 2
    assert cohort_names() == sorted([*packaged, "hip"])


def test_a_name_that_is_taken_is_refused(own):
    path = own("systems/modic_changes.py")
    with pytest.raises(UserError, match=rf"{path} has the name of .*systems/modic_changes.*; ren"):
        systems.load("fatty_infiltration")
    path = own("tfds_builders/modic_changes/modic_changes.py")
    with pytest.raises(UserError, match=rf"{path} has the name of .*; rename yours, or take its"):
        cohort_names()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "x = 1\nimport nothing_like_it\n",
            "line 2: cannot be imported (ModuleNotFoundError: ",
        ),
        ("x = (\n", "line 1: cannot be imported (SyntaxError: '(' was never closed"),
        ("def f():\n    return 1 / 0\n\nf()\n", "line 2: cannot be imported (ZeroDivisionError: "),
    ],
)
def test_a_file_that_cannot_be_imported_is_named(own, text, message):
    path = own("systems/hip.py", text)
    with pytest.raises(UserError) as said:
        systems.load("hip")
    assert f"{path}, {message}" in str(said.value)
    assert str(said.value).endswith("; mend it there.")


def test_a_defect_of_a_shipped_file_keeps_its_traceback(own, monkeypatch):
    monkeypatch.setitem(sys.modules, "mskjax.systems.modic_changes", None)
    with pytest.raises(ImportError):
        systems.load("modic_changes")


def test_a_file_without_a_builder_is_named(own):
    path = own("tfds_builders/hip/hip.py", "from tfds_builders.common import CohortBuilder\n")
    with pytest.raises(UserError, match=f"{path} has no builder; declare a subclass of Cohort"):
        builder_class("hip")
