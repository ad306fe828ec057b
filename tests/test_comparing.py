"""Names of runs, and which folders stand for several."""

import pytest

from mskjax.comparing import members, named
from mskjax.errors import UserError


def test_runs_are_called_by_as_much_of_their_path_as_it_takes(tmp_path):
    folders = [tmp_path / "a" / "run", tmp_path / "b" / "run", tmp_path / "c"]
    assert [*named(folders[:1])] == ["run"]
    assert [*named([folders[0], folders[2]])] == ["run", "c"]
    assert [*named(folders[:2])] == ["a/run", "b/run"]
    assert named(folders[:2])["b/run"] == folders[1]


def test_a_run_given_twice_is_refused(tmp_path):
    with pytest.raises(UserError, match="is given twice; give each run once"):
        named([tmp_path, tmp_path / "." / "x" / ".."])


def test_a_population_stands_for_its_members(tmp_path):
    for name in ("member_b", "member_a", "fold_0"):
        (tmp_path / name).mkdir()
    assert [p.name for p in members(tmp_path)] == ["member_a", "member_b"]
    assert members(tmp_path / "fold_0") == []
