import jax.numpy as jnp

from mskjax.models.summary import parameter_count, parameter_table

PARAMS = {"stem": {"kernel": jnp.zeros((3, 3, 1, 8))}, "head": {"bias": jnp.zeros(5)}}


def test_count_adds_all_leaves():
    assert parameter_count(PARAMS) == 72 + 5


def test_table_names_shapes_and_total():
    table = parameter_table(PARAMS)
    row = next(line for line in table.splitlines() if "stem/kernel" in line)
    assert "(3, 3, 1, 8)" in row
    assert "72" in row
    assert "Total: 77" in table
