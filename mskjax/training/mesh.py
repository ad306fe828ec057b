"""The device mesh and how arrays come onto it.  One device is a mesh of one.

Two axes: members of a population on ``member``, the examples of a batch on ``data``.  What is
trained or evaluated alone has its batch divided over both.

Of several processes each has a part of the devices, the same number of them, and they lie beside
each other: process p of P holds the rows from p B / P to (p + 1) B / P of a batch of B.  What is
put on the devices here is put without a word between the processes.
"""

import math
from collections import Counter
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
    available = sorted(jax.devices(), key=lambda d: (d.process_index, d.id))
    wanted = len(available) if devices is None else devices
    each = Counter(d.process_index for d in available)
    if len(each) > 1 and (wanted != len(available) or len(set(each.values())) > 1):
        sizes = ", ".join(str(each[p]) for p in sorted(each))
        raise UserError(
            f"config.devices is {devices} and {len(each)} processes have {sizes} devices; give each"
            f" process as many, and set config.devices to None or to {len(available)}."
        )
    if not 0 < wanted <= len(available):
        raise UserError(
            f"config.devices is {wanted}, but {len(available)} devices are visible; lower it."
        )
    side = math.gcd(wanted, members)
    grid = np.array(available[:wanted]).reshape(side, wanted // side)
    return Mesh(grid, (MEMBER, DATA), axis_types=(AxisType.Auto,) * 2)


def replicated(mesh: Mesh) -> NamedSharding:
    """Every device holds the whole array."""
    return NamedSharding(mesh, PartitionSpec())


def sharded(mesh: Mesh) -> NamedSharding:
    """The leading axis is divided over all devices."""
    return NamedSharding(mesh, PartitionSpec((MEMBER, DATA)))


def own_rows(size: int) -> slice:
    """The rows of a global batch of `size` that this process puts on its devices."""
    rows = size // jax.process_count()
    return slice(jax.process_index() * rows, (jax.process_index() + 1) * rows)


def put_batch(batch: Mapping[str, np.ndarray], mesh: Mesh) -> dict[str, jax.Array]:
    """This process's rows of a global batch (`own_rows`), divided over all devices."""
    return {k: jax.make_array_from_process_local_data(sharded(mesh), v) for k, v in batch.items()}


def put_replicated(tree: Any, mesh: Mesh) -> Any:
    """The same host values, scalars or keys of every process on every device.

    `jax.device_put` would have the processes compare them, in a collective of its own: one of
    them that ends before it would leave the others waiting there.
    """
    everywhere = replicated(mesh)

    def put(value: Any) -> jax.Array:
        if isinstance(value, jax.Array) and jax.dtypes.issubdtype(value.dtype, jax.dtypes.prng_key):
            data = jax.random.key_data(value)
            return jax.random.wrap_key_data(put(data), impl=jax.random.key_impl(value))
        host = np.asarray(value)
        return jax.make_array_from_callback(host.shape, everywhere, lambda index: host[index])

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
