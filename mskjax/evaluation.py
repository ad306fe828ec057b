"""The jitted evaluation loop: every example counts once on any mesh.

The last batch is padded with examples of weight 0.  Scalars are merged as metric states on the
device and computed at the end; what needs native geometry, sorting or surfaces is collected and
scored on the host.
"""

from typing import Any

import jax
import numpy as np

from mskjax.data.pipeline import Examples, count, evaluation_batches, in_batches
from mskjax.training.mesh import own_rows, put_batch
from mskjax.training.program import Program


def predict(program: Program, variables: Any, examples: Examples) -> dict[str, np.ndarray]:
    """Network outputs of all examples, in their order.

    Args:
      program: of the stage.
      variables: Flax collections.
      examples: N examples of one shape; only the stage's inputs are sent to the device.

    Returns:
      Arrays with N rows, as `Stage.activate` names them.
    """
    inputs = {name: examples[name] for name in program.stage.inputs}

    def run(batch: Examples) -> dict[str, jax.Array]:
        return program.predict(variables, _put(batch, program))

    return in_batches(run, inputs, _batch_size(program))


def validate(
    program: Program, variables: Any, examples: Examples, balance: Any
) -> dict[str, float]:
    """Mean loss and monitors over the examples.

    Args:
      program: of the stage.
      variables: Flax collections.
      examples: inputs and targets.
      balance: class weights of the loss, as in training.
    """
    totals: dict[str, Any] = {}
    for batch in evaluation_batches(examples, _batch_size(program)):
        totals = program.validate(variables, _put(batch, program), balance, totals)
    return {k: float(v.compute()) for k, v in totals.items()}


def _batch_size(program: Program) -> int:
    """The stage's, rounded up to a multiple of the devices."""
    size = program.mesh.size
    return -(-program.stage.prediction_batch // size) * size


def _put(batch: Examples, program: Program) -> dict[str, jax.Array]:
    """Every process holds the whole evaluation batch and contributes its own rows."""
    own = own_rows(count(batch))
    return put_batch({k: v[own] for k, v in batch.items()}, program.mesh)
