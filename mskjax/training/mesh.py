"""The device mesh and how arrays come onto it.  One device is a mesh of one.

Two axes: members of a population on ``member``, the examples of a batch on ``data``.  What is
trained or evaluated alone has its batch divided over both.
"""

import math
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from mskjax.errors import UserError

MEMBER, DATA = "member", "data"


def data_mesh(devices: int | None = None, members: int = 1) -> Mesh:
    """A mesh of the first `devices` devices (None = all).

    As many of them as `members` and the devices have as a common divisor are on the axis
    ``member``; the rest of the division is on ``data``.

    Raises:
      UserError: there are not so many devices.
    """
    available = jax.devices()
    wanted = len(available) if devices is None else devices
    if not 0 < wanted <= len(available):
        raise UserError(
            f"config.devices is {wanted}, but {len(available)} devices are visible; lower it."
        )
    side = math.gcd(wanted, members)
    return jax.make_mesh(
        (side, wanted // side),
        (MEMBER, DATA),
        axis_types=(AxisType.Auto,) * 2,
        devices=available[:wanted],
    )


def replicated(mesh: Mesh) -> NamedSharding:
    """Every device holds the whole array."""
    return NamedSharding(mesh, PartitionSpec())


def sharded(mesh: Mesh) -> NamedSharding:
    """The leading axis is divided over all devices."""
    return NamedSharding(mesh, PartitionSpec((MEMBER, DATA)))


def put_batch(batch: Mapping[str, np.ndarray], mesh: Mesh) -> dict[str, jax.Array]:
    """This process's rows of a global batch, as arrays divided over all devices."""
    return {k: jax.make_array_from_process_local_data(sharded(mesh), v) for k, v in batch.items()}


def put_whole(tree: Any, mesh: Mesh) -> Any:
    """Host arrays that every process has, on every device; nothing is sent between processes."""

    def put(value: Any) -> jax.Array:
        array = np.asarray(value)
        return jax.make_array_from_callback(array.shape, replicated(mesh), lambda i: array[i])

    return jax.tree.map(put, tree)


def check_batch_size(batch_size: int, devices: int, where: str) -> None:
    """Refuses a batch that cannot be divided evenly.

    Args:
      batch_size: examples.
      devices: over which they are divided.
      where: name of the field.

    Raises:
      UserError: with the two numbers.
    """
    if batch_size % devices:
        raise UserError(
            f"{where} is {batch_size}, which {devices} devices do not divide; choose a multiple"
            " of the number of devices or set config.devices."
        )
