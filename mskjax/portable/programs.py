"""What evaluation runs of a stage, as a StableHLO program that runs without the network's code.

The program is `training.program.prediction` itself, traced once: activation and attention maps
included, so what it says is what evaluation says.  Weights are arguments.
"""

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import numpy as np
from jax import export

from mskjax.errors import UserError
from mskjax.training.program import prediction
from mskjax.training.stage import Stage

PLATFORMS = ("cpu", "cuda", "tpu")  # what one program is lowered for
# Of programs of any batch: JAX checks sizes there and removes it before it compiles.
_CHECK = "shape_assertion"


class Made(NamedTuple):
    """A program and what is to be known of it.

    Attributes:
      content: as `jax.export.Exported.serialize` gives it.
      facts: JSON: ``platforms``, ``inputs``, ``outputs``, ``custom_calls``.
    """

    content: bytes
    facts: dict[str, Any]


def flat(variables: Mapping[str, Any], prefix: str = "") -> dict[str, np.ndarray]:
    """Flax collections as name -> array, e.g. ``params.down_0.Conv_0.kernel``.

    >>> list(flat({"params": {"logits": {"bias": np.zeros(2)}}}))
    ['params.logits.bias']
    """
    found: dict[str, np.ndarray] = {}
    for name, value in variables.items():
        if isinstance(value, Mapping):
            found |= flat(value, f"{prefix}{name}.")
        else:
            found[f"{prefix}{name}"] = value
    return found


def nested(weights: Mapping[str, Any]) -> dict[str, Any]:
    """Undoes `flat`."""
    found: dict[str, Any] = {}
    for name, value in weights.items():
        *modules, last = name.split(".")
        place = found
        for module in modules:
            place = place.setdefault(module, {})
        place[last] = value
    return found


def make(stage: Stage, weights: Mapping[str, np.ndarray]) -> Made:
    """Exports a stage's prediction, for all of `PLATFORMS` at once.

    The function takes the weights by name and the stage's inputs by name, in this order, each in
    alphabetical order; none is left out.

    Args:
      stage: its `Stage.signature` says what is given.
      weights: of `flat`; only shapes and types are looked at.

    Raises:
      UserError: an operation of the stage cannot be exported for one of the platforms.
    """
    traced, scope = stage.traced(), export.SymbolicScope()
    inputs = {
        name: jax.ShapeDtypeStruct(export.symbolic_shape(own.shape, scope=scope), own.dtype)
        for name, own in stage.signature().items()
    }
    shapes = {name: jax.ShapeDtypeStruct(w.shape, w.dtype) for name, w in weights.items()}

    def predict(weights: dict[str, jax.Array], inputs: dict[str, jax.Array]) -> Any:
        return prediction(traced, nested(weights), inputs)

    try:
        exported = export.export(jax.jit(predict, keep_unused=True), platforms=PLATFORMS)(
            shapes, inputs
        )
    except (NotImplementedError, ValueError) as error:  # of what a platform lacks, or may change
        raise UserError(
            f"stage {stage.name} cannot be exported for {', '.join(PLATFORMS)}:"
            f" {str(error).splitlines()[0]}"
        ) from error
    return Made(bytes(exported.serialize()), _facts(stage, exported))


def custom_calls(text: str) -> list[str]:
    """Names of what a StableHLO module leaves to a library of some platform.

    Args:
      text: of `jax.export.Exported.mlir_module`.
    """
    return sorted({*re.findall(r'custom_call @"?([\w.$]+)', text)} - {_CHECK})


def _facts(stage: Stage, exported: export.Exported) -> dict[str, Any]:
    outputs = jax.tree.unflatten(exported.out_tree, exported.out_avals)
    return {
        "platforms": list(exported.platforms),
        "inputs": {
            name: {
                "shape": own.shape,
                "dtype": own.dtype,
                "layout": own.layout,
                "values": own.values,
            }
            for name, own in sorted(stage.signature().items())
        },
        "outputs": {
            name: {"shape": ", ".join(map(str, out.shape)), "dtype": str(out.dtype)}
            for name, out in sorted(outputs.items())
        },
        "custom_calls": custom_calls(exported.mlir_module()),
        "calling_convention": exported.calling_convention_version,
    }
