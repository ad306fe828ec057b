"""What a network is made of, for logs and reports."""

from collections.abc import Mapping
from typing import Any

from clu import parameter_overview


def parameter_count(params: Mapping[str, Any]) -> int:
    """Number of scalars in the ``params`` collection."""
    return parameter_overview.count_parameters(params)


def parameter_table(params: Mapping[str, Any]) -> str:
    """Text table of the ``params`` collection: name, shape, dtype and size, with the total."""
    return parameter_overview.get_parameter_overview(params, include_stats=False)
