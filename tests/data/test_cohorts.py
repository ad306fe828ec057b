import dataclasses
import shutil

import numpy as np
import pytest

from mskjax.data.cohorts import cohort_names, prepare_cohort
from mskjax.errors import UserError

PHANTOM = ("disc_degeneration", "phantom")


@pytest.fixture(scope="module")
def packaged(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    return folder, prepare_cohort(*PHANTOM, folder, patients=2)


def test_names_are_packages_with_a_builder():
    assert "disc_degeneration" in cohort_names()
    assert "phantoms" not in cohort_names()


def test_studies_are_random_access(packaged):
    _, cohort = packaged
    assert len(cohort.studies) == len(cohort.index) == 2
    assert cohort.studies[-1]["study_id"] == cohort.studies[1]["study_id"] == cohort.index[1][1]
    assert [s["patient_id"] for s in cohort.studies] == list(cohort.patients)
    for outside in (2, -3):
        with pytest.raises(IndexError, match=f"study {outside} of 2"):
            cohort.studies[outside]


def test_types_are_numpy_and_str(packaged):
    study = packaged[1].studies[0]
    assert isinstance(study["patient_id"], str)
    assert isinstance(study["sequence"], str)
    assert study["image"].dtype == np.float32
    assert study["levels"]["pfirrmann"].dtype == np.int32
    assert study["levels"]["pfirrmann"].shape == study["levels"]["level"].shape
    assert not any(isinstance(v, bytes) for v in study.values())


def test_a_cohort_cannot_be_changed_in_place(packaged):
    with pytest.raises(dataclasses.FrozenInstanceError):
        packaged[1].audit = {}


def test_a_packaged_cohort_is_opened_and_not_built_again(packaged):
    folder, cohort = packaged
    before = {p: p.stat().st_mtime_ns for p in folder.rglob("*") if p.is_file()}
    again = prepare_cohort(*PHANTOM, folder, patients=2)
    assert {p: p.stat().st_mtime_ns for p in folder.rglob("*") if p.is_file()} == before
    assert again.audit == cohort.audit
    np.testing.assert_array_equal(again.studies[1]["image"], cohort.studies[1]["image"])


def test_unknown_names(tmp_path):
    with pytest.raises(UserError, match="no cohort 'disc_degenration'; did you mean"):
        prepare_cohort("disc_degenration", "phantom", tmp_path)
    with pytest.raises(UserError, match="has no config 'spidr'; did you mean 'spider'"):
        prepare_cohort("disc_degeneration", "spidr", tmp_path)
    with pytest.raises(UserError, match="has no config 'q'; known: phantom, spider"):
        prepare_cohort("disc_degeneration", "q", tmp_path)


def test_raw_files_are_asked_for(tmp_path):
    with pytest.raises(UserError, match=r"needs its raw files: .*zenodo.org/records/10159290"):
        prepare_cohort("disc_degeneration", "spider", tmp_path)
    with pytest.raises(UserError, match=r"manual_dir .*nowhere is not a folder"):
        prepare_cohort("disc_degeneration", "spider", tmp_path, tmp_path / "nowhere")


@pytest.mark.parametrize(
    "lost", ["audit.json", "outlines.jsonl", "dataset_info.json", "features.json", "*array_r*"]
)
def test_loss_is_named(packaged, tmp_path, lost):
    shutil.copytree(packaged[0], tmp_path / "data")
    for path in (tmp_path / "data").rglob(lost):
        path.unlink()
    again = r"is damaged .*; package it anew with python -m mskjax\.prepare .*patients=2 --again"
    with pytest.raises(UserError, match=again):
        prepare_cohort(*PHANTOM, tmp_path / "data", patients=2)
    mended = prepare_cohort(*PHANTOM, tmp_path / "data", again=True, patients=2)
    assert mended.audit == packaged[1].audit
    assert len(list((tmp_path / "data").rglob("audit.json"))) == 1


def test_truncation_is_named(packaged, tmp_path):
    shutil.copytree(packaged[0], tmp_path / "data")
    (records,) = (tmp_path / "data").rglob("*array_r*")
    records.write_bytes(records.read_bytes()[:-100])
    with pytest.raises(UserError, match=r"is damaged \(\d+ bytes of records, not \d+\)"):
        prepare_cohort(*PHANTOM, tmp_path / "data", patients=2)
