"""The compiled programs of a stage, made once and used by all folds and by stages like it.

A stage is like another if they differ in name, recipe and hyper-parameters alone.
"""

import functools
import time
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from mskjax.metrics.states import MaskedMean
from mskjax.training.hyper import Hyper
from mskjax.training.mesh import replicated, sharded
from mskjax.training.stage import Stage
from mskjax.training.state import TrainState, initial_state, train_step

Batch = dict[str, jax.Array]


class Program:
    """jit-compiled initialisation, training, validation and prediction of a stage on a mesh.

    The state is replicated and batches are divided over the mesh axis ``data``; XLA inserts the
    reductions, batch statistics included, so results do not depend on the number of devices
    beyond the order of sums.

    Attributes:
      stage: the declaration.
      mesh: the devices.
      hyper: the stage's hyper-parameters on every device.
      compile_s: seconds spent compiling the training step.
    """

    def __init__(self, stage: Stage, mesh: Mesh):
        self.stage, self.mesh, self.compile_s = stage, mesh, 0.0
        self.hyper = jax.device_put(Hyper.of(stage.train, stage.hyper()), replicated(mesh))
        self._compiled = _compiled(stage.traced(), mesh)

    def init(self, batch: Batch, key: jax.Array) -> TrainState:
        """State before the first step, with random weights."""
        return self._compiled.init(self.hyper, self._training_view(batch), key)

    def start_from(self, state: TrainState, variables: Any) -> TrainState:
        """The state before the first step with other weights of the same shapes."""
        variables = jax.device_put(variables, replicated(self.mesh))
        return state.replace(variables=variables, average=jax.tree.map(jnp.copy, variables))

    def train(
        self, state: TrainState, batch: Batch, balance: Any, key: jax.Array
    ) -> tuple[TrainState, dict[str, jax.Array]]:
        """One step; the first call for a shape compiles and is timed.

        The state that is given is consumed: its memory holds the next one.
        """
        shapes = tuple((k, v.shape, v.dtype) for k, v in sorted(batch.items()))
        steps = self._compiled.steps
        if shapes not in steps:
            start = time.monotonic()
            step = self._compiled.train.lower(state, self.hyper, batch, balance, key)
            steps[shapes] = step.compile()
            self.compile_s += time.monotonic() - start
        return steps[shapes](state, self.hyper, batch, balance, key)

    def validate(
        self, variables: Any, batch: Batch, balance: Any, totals: dict[str, MaskedMean]
    ) -> dict[str, MaskedMean]:
        """Adds a padded batch to the running means of loss and monitors."""
        return self._compiled.validate(variables, self.hyper, batch, balance, totals)

    def predict(self, variables: Any, batch: Batch) -> dict[str, jax.Array]:
        """Activated outputs of a padded batch, padding included."""
        return self._compiled.predict(variables, batch)

    def _training_view(self, batch: Batch) -> Batch:
        """Shapes after augmentation: a stage may train on patches of what it predicts on."""
        keys = jax.random.split(jax.random.key(0), len(batch["index"]))
        shapes = jax.eval_shape(self.stage.augment, keys, batch, self.hyper.stage)
        return {k: jnp.zeros(v.shape, v.dtype) for k, v in shapes.items()}


class _Compiled:
    """The jitted functions of equal stages.

    Attributes:
      steps: shapes of a batch -> compiled training step.
    """

    def __init__(self, stage: Stage, mesh: Mesh):
        self.stage = stage
        self.steps: dict[Any, Any] = {}
        whole, parts = replicated(mesh), sharded(mesh)
        self.init = jax.jit(functools.partial(initial_state, stage), out_shardings=whole)
        self.train = jax.jit(
            functools.partial(train_step, stage),
            in_shardings=(whole, whole, parts, whole, whole),
            out_shardings=(whole, whole),
            donate_argnums=0,  # or two whole states are in memory
        )
        self.validate = jax.jit(
            self._validation, in_shardings=(whole, whole, parts, whole, whole), out_shardings=whole
        )
        # Predictions are gathered: every process then holds all of them.
        self.predict = jax.jit(self._prediction, in_shardings=(whole, parts), out_shardings=whole)

    def _inputs(self, batch: Batch) -> list[jax.Array]:
        return [batch[name] for name in self.stage.inputs]

    def _outputs(self, variables: Any, batch: Batch) -> Any:
        return self.stage.model().apply(variables, *self._inputs(batch), train=False)

    def _validation(
        self, variables: Any, hyper: Hyper, batch: Batch, balance: Any, totals: Any
    ) -> Any:
        outputs = self._outputs(variables, batch)
        values = {
            "loss": self.stage.loss(outputs, batch, balance, hyper.stage),
            **self.stage.monitor(outputs, batch),
        }
        new = {k: MaskedMean.from_model_output(v, batch["weight"]) for k, v in values.items()}
        return {k: v.merge(totals[k]) for k, v in new.items()} if totals else new

    def _prediction(self, variables: Any, batch: Batch) -> dict[str, jax.Array]:
        outputs = self.stage.activate(self._outputs(variables, batch))
        return outputs | self.stage.explain(variables, self._inputs(batch))


# More than the largest system has stages; what is in use is kept alive by its `Program` anyway.
_compiled = functools.lru_cache(maxsize=32)(_Compiled)
