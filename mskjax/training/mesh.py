"""The device mesh and how arrays come onto it.  One device is a mesh of one."""

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from mskjax.errors import UserError


def data_mesh(devices: int | None = None) -> Mesh:
    """A mesh with the one axis ``data`` over the first `devices` devices (None = all)."""
    available = jax.devices()
    wanted = len(available) if devices is None else devices
    if not 0 < wanted <= len(available):
        raise UserError(
            f"config.devices is {wanted}, but {len(available)} devices are visible; lower it."
        )
    return jax.make_mesh(
        (wanted,), ("data",), axis_types=(AxisType.Auto,), devices=available[:wanted]
    )


def replicated(mesh: Mesh) -> NamedSharding:
    """Every device holds the whole array."""
    return NamedSharding(mesh, PartitionSpec())


def sharded(mesh: Mesh) -> NamedSharding:
    """The leading axis is divided over ``data``."""
    return NamedSharding(mesh, PartitionSpec("data"))


def put_batch(batch: dict[str, np.ndarray], mesh: Mesh) -> dict[str, jax.Array]:
    """This process's rows of a global batch, as arrays sharded over ``data``."""
    return {k: jax.make_array_from_process_local_data(sharded(mesh), v) for k, v in batch.items()}


def check_batch_size(batch_size: int, mesh: Mesh, where: str) -> None:
    """Refuses a batch that cannot be divided evenly.

    Raises:
      UserError: with the two numbers.
    """
    if batch_size % mesh.size:
        raise UserError(
            f"{where} is {batch_size}, which {mesh.size} devices do not divide; choose a multiple"
            " of the number of devices or set config.devices."
        )
