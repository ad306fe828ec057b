"""Of several processes the first alone writes and speaks."""

import pytest

from mskjax import roles, tables, workdir, writers
from mskjax.config import StudyConfig, parse
from mskjax.data.cohorts import prepare_cohort
from mskjax.errors import UserError
from mskjax.experiment import load
from mskjax.fields import completed
from mskjax.progress import Progress, say


@pytest.fixture(params=[0, 1])
def number(request, monkeypatch):
    """Number of this process, of two."""
    monkeypatch.setattr(roles, "_index", request.param)
    monkeypatch.setattr(roles, "_count", 2)
    return request.param


def test_who_writes(number, tmp_path):
    writers.write_json(tmp_path / "a" / "a.json", {"a": 1})
    writers.write_text(tmp_path / "b.txt", "b")
    tables.write_rows(tmp_path / "c.csv", [{"c": 1}])
    writer = writers.Writer(tmp_path / "d", 0)
    writer.write_scalars(1, {"loss": 2.0})
    writer.close()
    workdir.claim(
        tmp_path / "e", parse(StudyConfig, completed(load("disc_degeneration")).to_dict())
    )
    made = {p.name for p in tmp_path.iterdir()}
    assert made == (set() if number else {"a", "b.txt", "c.csv", "d", "e"})
    if not number:
        assert writers.read_rows(tmp_path / "d" / "metrics.jsonl") == [{"step": 1, "loss": 2.0}]
        assert (tmp_path / "c.csv").read_bytes() == b"c\r\n1\r\n"


def test_who_speaks(number, capsys):
    say("news")
    progress = Progress("work", 1)
    progress.advance()
    progress.close()
    out = capsys.readouterr().out
    assert (out == "") == bool(number)


def test_who_packages(number, tmp_path):
    def prepared():
        return prepare_cohort("disc_degeneration", "phantom", tmp_path, patients=1)

    if number:
        with pytest.raises(UserError, match="does not hold what the first process has packaged"):
            prepared()
        assert not list(tmp_path.iterdir())
    else:
        assert len(prepared().studies) == 1
