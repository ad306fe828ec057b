from collections import Counter

import numpy as np
import pytest

from mskjax.data.cohorts import prepare_cohort
from mskjax.errors import UserError
from tfds_builders.fatty_infiltration.sources import (
    PUBLISHED_COUNTS,
    PhantomOptions,
    PhantomSource,
    apportion,
)
from tfds_builders.phantoms.shoulder import shoulder_phantom


@pytest.fixture(scope="module")
def cohort(tmp_path_factory):
    return prepare_cohort("fatty_infiltration", "phantom", tmp_path_factory.mktemp("d"), patients=5)


def grades(**options):
    """Grade of each patient, in the order of patients; nothing is drawn."""
    studies = PhantomSource(PhantomOptions(**options), None).studies()
    return list({s.patient_id: s.details[1] for s in studies}.values())


def test_studies_hold_what_was_drawn(cohort):
    assert cohort.audit["counts"]["goutallier"].keys() == {"0", "1", "2", "3", "4"}
    for study in cohort.studies:
        patient, image = study["study_id"].removeprefix("phantom").split("_y")
        assert study["patient_id"] == f"phantom{patient}"
        drawn = shoulder_phantom(int(patient), int(study["grade"]), int(image))
        np.testing.assert_array_equal(study["image"], drawn.image.astype(np.float32))
        np.testing.assert_array_equal(study["mask"], drawn.mask)
        np.testing.assert_array_equal(study["affine"], drawn.affine)
        assert (study["side"], study["sex"], study["age"]) == (drawn.side, drawn.sex, drawn.age)
        assert (study["sequence"], study["has_mask"], study["subset"]) == ("t2", True, "")
        assert study["field_strength_t"] == drawn.field_strength_t


def test_images_of_a_patient_share_the_grade_and_number_as_many_as_asked(tmp_path):
    source = PhantomSource(PhantomOptions(patients=200, most_images=3), None)
    images = Counter(s.patient_id for s in source.studies())
    assert set(images.values()) == {1, 2, 3}
    of_patient = {}
    for s in source.studies():
        assert of_patient.setdefault(s.patient_id, s.details[1]) == s.details[1]
    assert len(of_patient) == 200
    single = PhantomSource(PhantomOptions(patients=200, most_images=1), None)
    assert len(single.studies()) == 200


def test_published_counts_are_met_exactly_at_the_published_size():
    counts = Counter(grades(patients=606, grades="published"))
    assert tuple(counts[g] for g in range(5)) == PUBLISHED_COUNTS == (403, 114, 51, 24, 14)
    fewer = Counter(grades(patients=100, grades="published"))
    # 66.50, 18.81, 8.42, 3.96 and 2.31: three seats are left, for grades 3, 1 and 0.
    assert tuple(fewer[g] for g in range(5)) == (67, 19, 8, 4, 2)


def test_balanced_counts_and_an_order_that_the_seed_decides():
    first, second = grades(patients=60), grades(patients=60, seed=1)
    assert Counter(first) == Counter(second) == dict.fromkeys(range(5), 12)
    assert first == grades(patients=60)
    assert first != second
    assert first != sorted(first)


@pytest.mark.parametrize(
    ("total", "weights", "expected"),
    [
        (606, PUBLISHED_COUNTS, [403, 114, 51, 24, 14]),
        (7, (1, 1, 1, 1, 1), [2, 2, 1, 1, 1]),
        (10, (3, 0, 1), [8, 0, 2]),  # 7.5 and 2.5: the first of equal remainders
        (1, (1, 5), [0, 1]),
        (3, (403, 114, 51, 24, 14), [2, 1, 0, 0, 0]),
    ],
)
def test_apportion_by_largest_remainder(total, weights, expected):
    assert apportion(total, weights) == expected


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"patients": 0}, "patients is 0; it must be 1 to"),
        ({"seed": -1}, "seed is -1; it must not be negative"),
        ({"most_images": 0}, "most_images is 0; it must be 1 to 4"),
        ({"grades": "publised"}, "options.grades is 'publised'"),
        ({"patient": 3}, "options.patient is not a field; did you mean 'patients'"),
    ],
)
def test_wrong_options(tmp_path, options, message):
    with pytest.raises(UserError, match=message):
        prepare_cohort("fatty_infiltration", "phantom", tmp_path, **options)
    assert not list(tmp_path.iterdir())
