import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import struct

from mskjax.metrics.states import MaskedMean

RNG = np.random.default_rng(11)


def padded_batches(array, size):
    """Batches of one shape with their weights; the last is filled with copies of nonsense."""
    for start in range(0, len(array), size):
        batch = array[start : start + size]
        missing = size - len(batch)
        weights = np.append(np.ones(len(batch)), np.zeros(missing)).astype(np.float32)
        yield np.concatenate([batch, np.zeros((missing, *array.shape[1:]), array.dtype)]), weights


@pytest.mark.parametrize("size", [1, 3, 4, 11])
def test_mean_does_not_depend_on_the_batches(size):
    values = RNG.normal(size=11).astype(np.float32)
    state = MaskedMean.empty()
    update = jax.jit(lambda s, v, w: s.merge(MaskedMean.from_model_output(v, w)))
    for batch, weights in padded_batches(values, size):
        state = update(state, np.where(weights > 0, batch, np.nan), weights)
    np.testing.assert_allclose(state.compute(), values.mean(), rtol=1e-5)
    assert state.count == 11


def test_mean_of_several_columns_and_of_nothing():
    values = np.array([[1.0, 10.0], [3.0, 30.0], [5.0, 5.0]])
    state = MaskedMean.from_model_output(values, np.array([1.0, 1.0, 0.0]))
    np.testing.assert_allclose(state.compute(), [2, 20])
    np.testing.assert_allclose(MaskedMean.empty().merge(state).compute(), [2, 20])
    assert np.isnan(MaskedMean.empty().compute())


def test_a_nan_that_counts_is_not_hidden():
    assert np.isnan(MaskedMean.from_model_output(jnp.array([1.0, jnp.nan])).compute())


def test_states_work_in_a_clu_collection():
    from clu import metrics

    @struct.dataclass
    class Monitor(metrics.Collection):
        loss: MaskedMean

    state = Monitor.single_from_model_output(values=jnp.array([1.0, 3.0]))
    state = state.merge(Monitor.single_from_model_output(values=jnp.array([5.0])))
    assert state.compute()["loss"] == 3.0
