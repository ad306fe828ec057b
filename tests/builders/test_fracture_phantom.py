import nibabel as nib
import numpy as np
import pytest

from mskjax.data.cohorts import prepare_cohort
from mskjax.errors import UserError
from tfds_builders.phantoms.fracture import fracture_phantom
from tfds_builders.phantoms.fracture_readers import READERS
from tfds_builders.phantoms.fracture_traits import FINDINGS, LEVELS
from tfds_builders.vertebral_fracture.sources import PhantomOptions, PhantomSource

PATIENTS = 4


@pytest.fixture(scope="module")
def cohort(tmp_path_factory):
    folder = tmp_path_factory.mktemp("d")
    return prepare_cohort("vertebral_fracture", "phantom", folder, patients=PATIENTS)


def classes(**options):
    studies = PhantomSource(PhantomOptions(**options), None).studies()
    return [malignant for _, malignant in (s.details for s in studies)]


def test_images_segment_and_readings_have_their_documented_form(cohort):
    for study in cohort.studies:
        assert "".join(nib.aff2axcodes(study["affine"])) == "LIP"
        assert study["t1"].shape == study["t2"].shape
        assert study["t1"].dtype == study["t2"].dtype == np.float32
        assert 1 <= study["slice"] <= len(study["t1"]) - 2
        row0, col0, row1, col1 = study["box"].astype(int)
        assert study["box"].dtype == np.float32
        assert 0 <= row0 < row1 <= study["t1"].shape[1]
        assert 0 <= col0 < col1 <= study["t1"].shape[2]
        assert study["level"] in LEVELS
        assert study["readers"]["reader"] == [r.name for r in READERS]
        assert set(study["readers"]["call"].tolist()) <= {0, 1}
        assert study["readers"]["aided_call"].tolist() == [-1] * 3
        assert study["findings"]["name"] == list(FINDINGS)
        assert set(study["findings"]["present"].tolist()) <= {0, 1}
        assert (study["field_strength_t"], study["manufacturer"], study["subset"]) == (1.5, "", "")


def test_an_example_is_the_phantom_of_its_seed_and_class(cohort):
    for number, study in enumerate(cohort.studies):
        phantom = fracture_phantom(number, malignant=bool(study["label"]))
        np.testing.assert_array_equal(study["t1"], phantom.t1)
        np.testing.assert_array_equal(study["affine"], phantom.t1_affine)
        assert tuple(study["box"]) == phantom.box
        assert (study["slice"], study["level"]) == (phantom.slice, phantom.fracture.level)
        assert (study["sex"], study["age"]) == (phantom.sex, phantom.age)


def test_audit_counts_the_classes_and_says_that_nobody_read(cohort):
    assert cohort.audit["counts"] == {"fracture": {"0": 2, "1": 2}}
    notes = " ".join(cohort.audit["notes"])
    assert "PHANTOM readers" in notes
    assert "nobody read these images" in notes


def test_classes_are_apportioned_and_then_shuffled():
    for patients, share, expected in ((40, 0.5, 20), (190, 0.263, 50), (3, 0.0, 0), (3, 1.0, 3)):
        assert sum(classes(patients=patients, malignant_share=share)) == expected
    mixed = classes(patients=40)
    assert mixed == classes(patients=40)
    assert mixed != classes(patients=40, seed=1)
    assert 5 < sum(mixed[:20]) < 15


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"patients": 0}, "patients is 0; it must be 1 to"),
        ({"seed": -1}, "seed is -1; it must not be negative"),
        ({"malignant_share": 1.5}, "malignant_share is 1.5; it must be 0 to 1"),
        ({"malignant_share": float("nan")}, "malignant_share is nan; it must be 0 to 1"),
        ({"malignant_shar": 0.5}, "did you mean 'malignant_share'"),
    ],
)
def test_wrong_options(tmp_path, options, message):
    with pytest.raises(UserError, match=message):
        prepare_cohort("vertebral_fracture", "phantom", tmp_path, **options)
    assert not list(tmp_path.iterdir())
