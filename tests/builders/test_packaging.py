"""What packaging promises whatever the cohort: all or nothing, and the same again."""

import hashlib
import shutil

import mini_spine as mini
import numpy as np
import pytest

from mskjax.data.cohorts import open_cohort, prepare_cohort
from mskjax.errors import BadCases, UserError
from tfds_builders.common import STUDIES_PER_SHARD, update_digest
from tfds_builders.disc_degeneration.sources import PhantomSource

PHANTOM = ("disc_degeneration", "phantom")
T2SPACE = ("disc_degeneration", "spider_t2space")


@pytest.fixture
def reading(monkeypatch):
    """Replaces `PhantomSource.read` by a function of (source, study, real read)."""

    def patch(function):
        real = PhantomSource.read
        monkeypatch.setattr(PhantomSource, "read", lambda self, s: function(self, s, real))

    return patch


@pytest.fixture
def raw(tmp_path):
    """One patient in the T2-SPACE layout."""
    root = tmp_path / "raw"
    mini.write_nifti(root / "7_T2w.nii.gz", mini.image())
    mini.write_nifti(root / "7_seg.nii.gz", mini.semantic())
    mini.write_csv(root / "overview.csv", ["new_file_name", "sex", "birth_date", "subset"], [
        ["7_t2_SPACE", "M", "50", "training"]
    ])  # fmt: skip
    write_grades(root, [5, 3, 2, 1])
    return root


def write_grades(root, grades):
    rows = mini.pfirrmann_rows(7, grades)
    mini.write_csv(root / "radiological_gradings.csv", mini.GRADINGS_HEADER, rows)


def test_bad_cases_of_all_shards_are_listed_and_nothing_is_left(tmp_path, reading):
    patients = STUDIES_PER_SHARD + 2
    bad = {"phantom0001_t2", f"phantom{patients - 1:04d}_t2"}

    def read(source, study, real):
        if study.study_id in bad:
            raise UserError("mend me.")
        return real(source, study)

    reading(read)
    with pytest.raises(BadCases, match="2 entries are wrong") as caught:
        prepare_cohort(*PHANTOM, tmp_path, patients=patients)
    assert set(dict(caught.value.cases)) == bad
    assert not list(tmp_path.iterdir())


def test_a_defect_in_the_middle_leaves_nothing_under_the_final_name(tmp_path, reading):
    def read(source, study, real):
        if study.study_id == "phantom0002_t2":
            raise ZeroDivisionError
        return real(source, study)

    reading(read)
    with pytest.raises(ZeroDivisionError):
        prepare_cohort(*PHANTOM, tmp_path, patients=3)
    assert not list(tmp_path.iterdir())


def test_full_disk_is_said_and_leaves_nothing(tmp_path):
    resource = pytest.importorskip("resource")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (30_000, hard))
    try:
        with pytest.raises(UserError, match=r"cannot be written .*Nothing half-written"):
            prepare_cohort(*PHANTOM, tmp_path, patients=3)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert not list(tmp_path.iterdir())


def test_two_processes_packaging_at_once_agree(tmp_path, reading):
    first = True

    def read(source, study, real):
        nonlocal first
        if first:  # the other process begins later and ends sooner
            first = False
            prepare_cohort(*PHANTOM, tmp_path, patients=2)
        return real(source, study)

    reading(read)
    cohort = prepare_cohort(*PHANTOM, tmp_path, patients=2)
    assert len(cohort.studies) == 2


def test_a_failed_config_leaves_the_packaged_one_alone(tmp_path):
    prepare_cohort(*PHANTOM, tmp_path, patients=1)
    with pytest.raises(UserError):
        prepare_cohort(*T2SPACE, tmp_path, tmp_path)
    assert len(open_cohort(*PHANTOM, tmp_path).studies) == 1


def test_many_shards_keep_the_order_of_the_index(tmp_path):
    cohort = prepare_cohort(*PHANTOM, tmp_path, patients=STUDIES_PER_SHARD + 1)
    assert len(list(tmp_path.rglob("*array_record*"))) == 2
    names = [f"phantom{i:04d}_t2" for i in range(STUDIES_PER_SHARD + 1)]
    assert [study for _, study in cohort.index] == names
    assert [s["study_id"] for s in cohort.studies] == names


def test_a_packaged_cohort_belongs_to_its_raw_files(tmp_path, raw):
    data = tmp_path / "data"
    fingerprint = prepare_cohort(*T2SPACE, data, raw).audit["fingerprint"]
    moved = tmp_path / "moved"
    shutil.move(raw, moved)
    assert prepare_cohort(*T2SPACE, data, moved).audit["fingerprint"] == fingerprint
    assert prepare_cohort(*T2SPACE, data).audit["fingerprint"] == fingerprint
    write_grades(moved, [5, 3, 2, 2])  # a table of the same size
    with pytest.raises(UserError, match=r"from other raw files than those .*delete that folder"):
        prepare_cohort(*T2SPACE, data, moved)
    write_grades(moved, [5, 3, 2, 1])
    mini.write_nifti(moved / "7_T2w.nii.gz", mini.image(seed=5) // 100)
    with pytest.raises(UserError, match="from other raw files"):
        prepare_cohort(*T2SPACE, data, moved)


def test_a_folder_without_studies_is_refused(tmp_path, raw):
    for path in raw.glob("*.nii.gz"):
        path.unlink()
    with pytest.raises(UserError, match=r"holds no study that can be packaged \(none was found\)"):
        prepare_cohort(*T2SPACE, tmp_path / "data", raw)


def digest(value):
    state = hashlib.sha256()
    update_digest(state, value)
    return state.hexdigest()


def test_fingerprint_sees_every_change_and_nothing_else():
    array = np.arange(6, dtype=np.float32).reshape(2, 3)
    base = digest({"a": array, "b": "x", "c": [{"k": 1}, {"k": 2}]})
    same = {"c": [{"k": 1}, {"k": 2}], "b": "x", "a": np.asfortranarray(array)}
    assert digest(same) == base
    assert digest({**same, "a": array.astype(">f4")}) == base
    for change in (
        {"a": array.astype(np.float64)},
        {"a": array.reshape(3, 2)},
        {"a": np.nextafter(array, 9)},
        {"b": "y"},
        {"c": [{"k": 2}, {"k": 1}]},
        {"c": [{"k": 1}]},
    ):
        assert digest({**same, **change}) != base, change
