"""What cannot be a result is refused where it is made."""

import itertools

import numpy as np
import pytest

from mskjax.imaging.volume import Volume
from mskjax.results.result import Box, Grade, Mask


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"probabilities": {"a": 0.5, "b": 0.4}}, "do not sum to 1"),
        ({"probabilities": {"a": 1.5, "b": -0.5}}, "do not sum to 1"),
        ({"probabilities": {"a": float("nan"), "b": 0.5}}, "do not sum to 1"),
        ({"call": "c"}, "'c'. are no classes of task"),
        ({"prediction_set": ("a", "d")}, "'d'. are no classes of task"),
    ],
)
def test_a_grade_is_a_distribution_over_its_classes(options, why):
    right = {"task": "task", "call": "a", "probabilities": {"a": 0.5, "b": 0.5}}
    assert Grade(**right).prediction_set is None
    with pytest.raises(ValueError, match=why):
        Grade(**{**right, **options})


def test_the_corners_of_a_box_lie_on_the_faces_of_its_outer_voxels():
    affine = np.array([[0, 0, 3.0, 10], [-0.5, 0, 0, 20], [0, -0.8, 0, 30], [0, 0, 0, 1]])
    box = Box.on(affine, (2, 0, 1), (4, 5, 2))
    expected = [
        (10 + 3 * k, 20 - 0.5 * i, 30 - 0.8 * j)
        for i, j, k in itertools.product((1.5, 3.5), (-0.5, 4.5), (0.5, 1.5))
    ]
    np.testing.assert_allclose(box.corners_mm, expected)
    size = np.ptp(box.corners_mm, axis=0)
    np.testing.assert_allclose(size, [3.0, 2 * 0.5, 5 * 0.8])
    with pytest.raises(ValueError, match="is no box"):
        Box.on(affine, (2, 0, 1), (2, 5, 2))


def test_labels_are_bytes():
    with pytest.raises(ValueError, match="uint8"):
        Mask("", Volume(np.zeros((2, 2, 2), np.int16), np.eye(4)), {})
