"""Dense classification of pixels is the classification of each block alone."""

import dataclasses

import jax
import numpy as np
import pytest

from mskjax.imaging import patches
from mskjax.models.alexnet import AlexNet
from mskjax.systems.shoulder_bones.networks import PixelAlexNet
from mskjax.systems.shoulder_bones.pixels import BlockOptions

OPTIONS = BlockOptions(size=17, points=4, at_once=5, width=2, hidden=8, dropout=0.5)


@pytest.fixture(scope="module")
def slices():
    return np.random.default_rng(0).normal(size=(2, 23, 26, 1)).astype(np.float32)


@pytest.fixture(scope="module")
def lattice():
    centres = patches.lattice((23, 26), 5).reshape(1, -1, 2)
    return np.broadcast_to(centres, (2, *centres.shape[1:]))


@pytest.fixture(scope="module")
def variables(slices, lattice):
    return PixelAlexNet(OPTIONS, 3).init(jax.random.key(0), slices, lattice[:, :1], train=False)


def classify(options, variables, slices, centres):
    model = PixelAlexNet(options, 3)
    return jax.jit(lambda *inputs: model.apply(variables, *inputs, train=False))(slices, centres)


def test_dense_prediction_equals_a_loop_over_blocks(slices, lattice, variables):
    dense = classify(OPTIONS, variables, slices, lattice)
    assert dense.shape == (2, 30, 3)
    assert np.std(dense) > 1e-3
    alone = jax.jit(
        lambda block: AlexNet((("pixel", 3),), width=2, stem=(3, 1, 1), hidden=8).apply(
            {"params": variables["params"]["alexnet"]}, block[None], train=False
        )["pixel"][0]
    )
    for b, image in enumerate(slices):
        padded = np.pad(image, ((8, 8), (8, 8), (0, 0)), constant_values=image.min())
        for n, (row, col) in enumerate(lattice[b].astype(int)):
            # The last of a lattice may lie outside; it is moved to the border.
            row, col = min(row, 22), min(col, 25)
            block = padded[row : row + 17, col : col + 17]
            np.testing.assert_allclose(dense[b, n], alone(block), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("at_once", [3, 1000])
def test_groups_of_any_size_give_the_same(slices, lattice, variables, at_once):
    options = dataclasses.replace(OPTIONS, at_once=at_once)
    expected = classify(OPTIONS, variables, slices, lattice[:, :8])
    found = classify(options, variables, slices, lattice[:, :8])
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def test_memory_does_not_grow_with_the_number_of_groups(slices, variables):
    model = PixelAlexNet(dataclasses.replace(OPTIONS, at_once=64), 3)

    def needed(points):
        centres = jax.ShapeDtypeStruct((2, points, 2), np.float32)
        run = jax.jit(lambda v, *inputs: model.apply(v, *inputs, train=False))
        compiled = run.lower(variables, slices, centres).compile()
        return compiled.memory_analysis().temp_size_in_bytes

    assert needed(4 * 64) < 1.5 * needed(64)
