"""Weights of a network that has learnt nothing, from those of one that has."""

import zlib
from typing import Any

import jax
import numpy as np


def untrained(variables: Any, seed: int = 0) -> Any:
    """The same network before it has learnt anything; host only.

    Kernels are drawn anew (normal, He et al. 2015), every other parameter and all statistics are as
    at the start of a training.  Maps of such a network are what `models.attention.grad_cam` shows
    of the input and of the architecture alone (the model parameter randomisation test of Adebayo et
    al. 2018).

    Args:
      variables: Flax collections ``params`` and, of networks with batch statistics, others; nested
        or with their paths as names (``params.head.kernel``), which gives the same numbers.
      seed: of the draw.

    Returns:
      NumPy arrays in the same structure, of the same shapes and dtypes.
    """

    def drawn(path: tuple[Any, ...], value: Any) -> np.ndarray:
        name = ".".join(part.key for part in path)
        kind = name.rpartition(".")[2]
        if kind == "kernel":
            rng = np.random.default_rng((seed, zlib.crc32(name.encode())))
            deviation = np.sqrt(2 / np.prod(value.shape[:-1]))
            return (deviation * rng.standard_normal(value.shape, np.float32)).astype(value.dtype)
        return np.full(value.shape, 1 if kind in ("scale", "var") else 0, value.dtype)

    return jax.tree_util.tree_map_with_path(drawn, variables)
