from dataclasses import replace

import nibabel as nib
import numpy as np
import pytest

from mskjax.data.cohorts import builder_class, prepare_cohort
from mskjax.errors import UserError
from tfds_builders.phantoms.shoulder_bones import PAPER, SMALL, bones_phantom
from tfds_builders.shoulder_bones.sources import PhantomOptions, PhantomSource

TINY = replace(SMALL, supersample=(1, 1, 1))


def prepare(folder, **options):
    return prepare_cohort("shoulder_bones", "phantom", folder, **options)


@pytest.fixture(scope="module")
def cohort(tmp_path_factory):
    return prepare(tmp_path_factory.mktemp("d"), patients=2)


def test_series_and_masks_share_their_grid(cohort):
    for study in cohort.studies:
        assert "".join(nib.aff2axcodes(study["affine"])) == "IPL"
        assert study["image"].shape == study["mask"].shape == (24, 96, 96)
        assert set(np.unique(study["mask"])) == {0, 1, 2}
        assert study["side"] in {"left", "right"}
        assert (study["sequence"], study["has_mask"]) == ("pd", True)
        assert study["study_id"] == f"{study['patient_id']}_axial"
        assert 18 <= study["age"] <= 100


def test_cases_are_the_structures(cohort):
    assert cohort.audit["cases"] == 4
    assert cohort.audit["counts"] == {"structure": {"1": 2, "2": 2}}
    graded = builder_class("shoulder_bones").graded
    mask = np.zeros((1, 2, 2), np.uint8)
    mask[0, 0, 0] = 1
    assert graded(None, {"mask": mask}) == [{"structure": 1}]


def test_default_is_the_division_of_the_paper(monkeypatch):
    drawn = bones_phantom(0, TINY)
    monkeypatch.setattr("tfds_builders.shoulder_bones.sources.bones_phantom", lambda *_: drawn)
    source = PhantomSource(PhantomOptions(), None)
    subsets = [source.read(study)["subset"] for study in source.studies()]
    assert subsets == 5 * ["training"] + 3 * ["validation"]


def test_patients_of_other_seeds_differ_and_more_leave_the_first_unchanged(cohort):
    def images(**options):
        source = PhantomSource(PhantomOptions(**options), None)
        return [source.read(study)["image"] for study in source.studies()[:1]]

    np.testing.assert_array_equal(images(patients=1)[0], cohort.studies[0]["image"])
    (other,) = images(seed=1)
    assert all(not np.array_equal(other, study["image"]) for study in cohort.studies)


def test_coronal_series_are_oblique(tmp_path):
    (study,) = prepare(tmp_path, patients=1, plane="coronal").studies
    assert "".join(nib.aff2axcodes(study["affine"])) == "PIL"
    assert study["study_id"] == "phantom0000_coronal"
    assert abs(study["affine"][0, 0]) > 0.15 * 3.5


@pytest.mark.parametrize(("size", "expected"), [("small", SMALL), ("paper", PAPER)])
def test_size_chooses_the_matrix(monkeypatch, size, expected):
    seen = []

    def drawn(seed, config):
        seen.append((seed, config))
        raise UserError("enough.")

    monkeypatch.setattr("tfds_builders.shoulder_bones.sources.bones_phantom", drawn)
    source = PhantomSource(PhantomOptions(patients=2, seed=3, size=size), None)
    with pytest.raises(UserError):
        source.read(source.studies()[1])
    assert seen == [(3_000_001, expected)]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"patients": 0}, "patients is 0; it must be 1 to"),
        ({"seed": -1}, "seed is -1; it must not be negative"),
        ({"patient": 3}, "options.patient is not a field; did you mean 'patients'"),
        ({"patients": 2.5}, "patients is 2.5; it must be of type int"),
        ({"size": "large"}, "size is 'large'; it must be"),
        ({"plane": "sagittal"}, "plane is 'sagittal'; it must be"),
    ],
)
def test_wrong_options(tmp_path, options, message):
    with pytest.raises(UserError, match=message):
        prepare(tmp_path, **options)
    assert not list(tmp_path.iterdir())
