import nibabel as nib
import numpy as np
import pytest

from mskjax.data.cohorts import prepare_cohort
from mskjax.errors import UserError
from tfds_builders.spider import GRADES


@pytest.fixture(scope="module")
def cohort(tmp_path_factory):
    return prepare_cohort("disc_degeneration", "phantom", tmp_path_factory.mktemp("d"), patients=3)


def test_levels_masks_and_grades_agree(cohort):
    for study in cohort.studies:
        assert "".join(nib.aff2axcodes(study["affine"])) == "LIP"
        assert study["image"].shape == study["mask"].shape == study["disc_levels"].shape
        np.testing.assert_array_equal(study["disc_levels"] > 0, study["mask"] == 2)
        shown = set(np.unique(study["disc_levels"]).tolist()) - {0}
        levels = study["levels"]
        assert levels["level"].tolist() == sorted(shown)
        for grade, (low, high) in GRADES.items():
            assert levels[grade].dtype == np.int32
            assert ((levels[grade] >= low) & (levels[grade] <= high)).all(), grade
        rows = [np.argwhere(study["disc_levels"] == k)[:, 1].mean() for k in sorted(shown)]
        assert rows == sorted(rows, reverse=True)  # level 1 is the lowest, rows run downwards
        assert study["sex"] in ("M", "F")
        assert 18 <= study["age"] <= 100
        assert (study["sequence"], study["has_mask"]) == ("t2", True)


def test_patients_of_other_seeds_differ(cohort, tmp_path):
    other = prepare_cohort("disc_degeneration", "phantom", tmp_path, patients=3, seed=1)
    for ours in cohort.studies:
        assert all(not np.array_equal(ours["image"], s["image"]) for s in other.studies)


def test_more_patients_leave_the_first_unchanged(cohort, tmp_path):
    more = prepare_cohort("disc_degeneration", "phantom", tmp_path, patients=4)
    for ours, theirs in zip(cohort.studies, list(more.studies)[:3], strict=True):
        np.testing.assert_array_equal(ours["image"], theirs["image"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"patients": 0}, "patients is 0; it must be 1 to"),
        ({"seed": -1}, "seed is -1; it must not be negative"),
        ({"patient": 3}, "options.patient is not a field; did you mean 'patients'"),
        ({"patients": 2.5}, "patients is 2.5; it must be of type int"),
    ],
)
def test_wrong_options(tmp_path, options, message):
    with pytest.raises(UserError, match=message):
        prepare_cohort("disc_degeneration", "phantom", tmp_path, **options)
    assert not list(tmp_path.iterdir())
