"""Packaging by Apache Beam's direct runner gives what packaging without it gives."""

import importlib.util

import pytest

from mskjax.data.cohorts import prepare_cohort
from mskjax.errors import BadCases, Preempted, UserError
from tfds_builders import shards
from tfds_builders.disc_degeneration.sources import PhantomSource

PHANTOM = ("disc_degeneration", "phantom")
has_beam = importlib.util.find_spec("apache_beam") is not None


@pytest.fixture(autouse=True)
def _small_shards(monkeypatch):
    monkeypatch.setattr(shards, "STUDIES_PER_SHARD", 1)


def contents(folder):
    return {p.relative_to(folder): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@pytest.mark.skipif(has_beam, reason="apache_beam is installed")
def test_without_beam_it_is_said(tmp_path, monkeypatch):
    monkeypatch.setenv("MSKJAX_BEAM", "--runner=DirectRunner")
    with pytest.raises(UserError, match=r"Beam cannot be imported .*pip install 'mskjax\[beam\]'"):
        prepare_cohort(*PHANTOM, tmp_path, patients=2)
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(not has_beam, reason="apache_beam is not installed (extra [beam])")
@pytest.mark.filterwarnings("ignore")  # Beam's own
class TestDirectRunner:
    def test_the_package_is_the_same_to_the_byte_and_stopped_work_goes_on(
        self, tmp_path, monkeypatch
    ):
        real = PhantomSource.read

        def stopped(self, study):
            if study.study_id == "phantom0001_t2":
                raise Preempted("stopped")
            return real(self, study)

        prepare_cohort(*PHANTOM, tmp_path / "a", patients=3)
        monkeypatch.setattr(PhantomSource, "read", stopped)
        with pytest.raises(Preempted):
            prepare_cohort(*PHANTOM, tmp_path / "b", patients=3)
        read = []
        monkeypatch.setattr(
            PhantomSource, "read", lambda self, s: (read.append(s.study_id), real(self, s))[1]
        )
        monkeypatch.setenv("MSKJAX_BEAM", "--runner=DirectRunner")
        prepare_cohort(*PHANTOM, tmp_path / "b", patients=3)
        assert sorted(read) == ["phantom0001_t2", "phantom0002_t2"]
        assert contents(tmp_path / "a") == contents(tmp_path / "b")

    def test_faults_are_listed_and_nothing_is_left(self, tmp_path, monkeypatch):
        def read(self, study):
            raise UserError("mend me.")

        monkeypatch.setattr(PhantomSource, "read", read)
        monkeypatch.setenv("MSKJAX_BEAM", "--runner=DirectRunner")
        with pytest.raises(BadCases, match="3 entries are wrong"):
            prepare_cohort(*PHANTOM, tmp_path, patients=3)
        assert not list(tmp_path.iterdir())
