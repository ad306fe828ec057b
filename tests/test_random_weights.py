import flax
import jax
import numpy as np
import pytest

from mskjax.models.resnet import ResNet
from mskjax.models.spinenet import SpineNetGrader
from mskjax.random_weights import untrained

HEADS = (("grade", 4), ("other", 2))
MODELS = {
    "resnet": (ResNet(HEADS, width=4, blocks=(1, 1)), (1, 32, 32, 1)),
    "spinenet": (
        SpineNetGrader(HEADS, width=4, blocks=(1, 1), strides=(1, 2)),
        (1, 3, 32, 32, 1),
    ),
}


@pytest.fixture(scope="module", params=MODELS)
def variables(request):
    model, shape = MODELS[request.param]
    image = np.zeros(shape, np.float32)
    return jax.jit(lambda: model.init(jax.random.key(1), image, train=False))()


def same(a, b):
    return all(np.array_equal(x, y) for x, y in zip(*map(jax.tree.leaves, (a, b)), strict=True))


def test_the_same_parts_and_other_kernels(variables):
    found = untrained(jax.tree.map(lambda v: v + 3, variables))
    assert jax.tree.map(np.shape, found) == jax.tree.map(np.shape, variables)
    assert jax.tree.map(lambda v: v.dtype, found) == jax.tree.map(lambda v: v.dtype, variables)
    for name, value in flax.traverse_util.flatten_dict(found, sep=".").items():
        start = flax.traverse_util.flatten_dict(variables, sep=".")[name]
        if name.endswith("kernel"):
            deviation = np.sqrt(2 / np.prod(value.shape[:-1]))
            # Five standard errors of a normal sample's mean and deviation.
            assert abs(np.mean(value)) < 5 * deviation / np.sqrt(value.size), name
            assert abs(np.std(value) / deviation - 1) < 5 / np.sqrt(2 * value.size), name
        else:
            np.testing.assert_array_equal(value, start)  # as before the first step


def test_the_draw_is_the_seeds_and_the_names_alone(variables):
    found = untrained(variables)
    assert same(found, untrained(variables))
    assert not same(found, untrained(variables, seed=1))
    flat = untrained(flax.traverse_util.flatten_dict(variables, sep="."))
    assert flat.keys() == flax.traverse_util.flatten_dict(found, sep=".").keys()
    assert same(flat, flax.traverse_util.flatten_dict(found, sep="."))
