"""What stages that classify pixels share."""

import jax.numpy as jnp
import pytest

from mskjax.errors import UserError
from mskjax.systems.shoulder_bones.pixels import BlockOptions, at_centres


def test_values_are_read_at_centres():
    values = jnp.arange(24).reshape(2, 3, 4)
    centres = jnp.array([[[0, 3], [2, 0]], [[1, 1], [2, 3]]], jnp.float32)
    assert at_centres(values, centres).tolist() == [[3, 8], [17, 23]]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"size": 16}, "must be odd"),
        ({"points": 0}, "blocks.points is 0"),
        ({"at_once": 0}, "blocks.at_once is 0"),
        ({"dropout": 1.0}, r"must be in \[0, 1\)"),
    ],
)
def test_bad_options_are_refused(changes, message):
    with pytest.raises(UserError, match=message):
        BlockOptions(**{"size": 17, "points": 4, **changes})
