"""The size of the 3-D grader and of what it is given."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from systems.test_disc_degeneration_discs import stage

from mskjax.errors import UserError
from mskjax.models.summary import parameter_count
from mskjax.stages.crop_grading import GraderOptions


def shapes(made, crop=(3, 8, 16), channels=1):
    image = jnp.zeros((2, *crop, channels))
    model = made.model()
    variables = jax.eval_shape(lambda k: model.init(k, image, train=False), jax.random.key(0))
    return variables, jax.eval_shape(lambda v: model.apply(v, image, train=False), variables)


@pytest.mark.parametrize("channels", [1, 2])
def test_the_network_has_an_output_per_head_for_any_number_of_channels(channels):
    _, outputs = shapes(stage(heads=("pfirrmann", "bulging", "modic")), channels=channels)
    found = {name: (o.shape, o.dtype) for name, o in outputs.items()}
    assert found == {
        "pfirrmann": ((2, 5), np.float32),
        "bulging": ((2, 2), np.float32),
        "modic": ((2, 4), np.float32),
    }


def test_width_and_blocks_are_those_of_the_options():
    def count(**model):
        return parameter_count(shapes(stage(model=model))[0]["params"])

    # Doubled channels quadruple the weights between them.
    assert 3.5 < count(width=32) / count(width=16) < 4.1
    assert count(blocks=(1, 1, 1, 2)) > 1.3 * count()


def test_a_width_that_group_norm_cannot_divide_is_refused():
    with pytest.raises(UserError, match="group"):
        GraderOptions(width=6, norm="group")
