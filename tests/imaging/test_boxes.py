import jax
import jax.numpy as jnp
import numpy as np
from imaging.box_loop import numpy_iou, random_boxes

from mskjax.imaging.boxes import box_area, iou_matrix


def test_iou_of_hand_made_boxes():
    a = np.array([[0, 0, 10, 10], [5, 5, 5, 9], [8, 8, 2, 2]], np.float32)
    c = np.array([[0, 0, 10, 10], [0, 5, 10, 15], [10, 0, 20, 10], [2, 2, 4, 6]], np.float32)
    expected = np.array([[1, 1 / 3, 0, 0.08], [0, 0, 0, 0], [0, 0, 0, 0]])
    np.testing.assert_allclose(iou_matrix(a, c), expected, rtol=1e-6)
    np.testing.assert_allclose(iou_matrix(jnp.asarray(a), c), expected, rtol=1e-6)
    assert isinstance(iou_matrix(a, c), np.ndarray)
    # An empty box does not even overlap itself, and is no NaN.
    assert iou_matrix(a[1:], a[1:]).max() == 0


def test_iou_is_the_loop_and_symmetric():
    rng = np.random.default_rng(0)
    a, c = random_boxes(rng, 20), random_boxes(rng, 30)
    found = np.asarray(jax.jit(iou_matrix)(jnp.asarray(a), jnp.asarray(c)))
    np.testing.assert_allclose(found, numpy_iou(a, c), atol=1e-6)
    np.testing.assert_allclose(found, iou_matrix(c, a).T, atol=1e-6)


def test_iou_without_boxes():
    assert iou_matrix(np.zeros((0, 4)), np.ones((3, 4))).shape == (0, 3)


def test_area_of_a_box_that_ends_before_it_starts_is_zero():
    boxes = np.array([[0, 0, 2, 3], [4, 4, 1, 9], [4, 4, 9, 1]], np.float32)
    np.testing.assert_array_equal(box_area(boxes), [6, 0, 0])
    np.testing.assert_array_equal(box_area(jnp.asarray(boxes)), [6, 0, 0])
