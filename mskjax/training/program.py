"""The compiled programs of a stage, made once and used by all folds and by stages like it.

A stage is like another if they differ in name, recipe and hyper-parameters alone.
"""

import functools
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from mskjax.metrics.states import MaskedMean
from mskjax.training import population
from mskjax.training.feed import Batch, gathered
from mskjax.training.hyper import Hyper
from mskjax.training.mesh import DATA, MEMBER, put_replicated, replicated, sharded
from mskjax.training.stage import Stage
from mskjax.training.state import TrainState, initial_state, train_step

# Of an initialisation, a draw for each parameter, XLA's CPU back end makes the same bits at level 2
# as at 3, its default, in a fifth of the time.
QUICK = {"xla_backend_optimization_level": 2}


class Program:
    """jit-compiled initialisation, training, validation and prediction of a stage on a mesh.

    The state is replicated and batches are divided over the devices; XLA inserts the reductions,
    batch statistics included.  On another number of devices sums are taken in another order: what
    one set of weights predicts, and the losses of the first steps, agree to 1e-5; over a whole
    training such differences grow, as they do between two machines.

    Attributes:
      stage: the declaration.
      mesh: the devices.
      hyper: the stage's hyper-parameters on every device.
      compile_s: seconds spent compiling the training step.
    """

    def __init__(self, stage: Stage, mesh: Mesh):
        self.stage, self.mesh, self.compile_s = stage, mesh, 0.0
        self.hyper = put_replicated(Hyper.of(stage.train, stage.hyper()), mesh)
        self._compiled = _compiled(stage.traced(), mesh)

    def init(self, batch: Batch, key: jax.Array) -> TrainState:
        """State before the first step, with random weights."""
        return self._compiled.init(self.hyper, self._training_view(batch), key)

    def start_from(self, state: TrainState, variables: Any) -> TrainState:
        """The state before the first step with other weights of the same shapes."""
        variables = put_replicated(variables, self.mesh)
        return state.replace(variables=variables, average=jax.tree.map(jnp.copy, variables))

    def training_step(self, arguments: tuple[Any, ...], share: str | None = None) -> Any:
        """The compiled training step, n steps a dispatch; compiled and timed where it is new.

        It consumes the state that it is given: its memory holds the next one.

        Args:
          arguments: what it will be called with, or shapes with shardings: state, `Hyper`, what is
            resident (`feed.gathered`), n batches (n, B, ...) or (n, K, B, ...) placed by
            `sharding_of_batches`, `Stage.balance` and typed key; with a leading axis over K
            trainings, but for what is resident, where `share` is given.
          share: how K trainings share a device, see `population.SHARES`; None for one training.

        Returns:
          A function of `arguments` that gives the next state and the scalars of the last step,
          () or (K,).
        """
        shapes = jax.tree.map(lambda x: (x.shape, str(x.dtype)), arguments)
        case = (share, str(shapes))
        steps = self._compiled.steps
        if case not in steps:
            start = time.monotonic()
            count = jax.tree.leaves(arguments[3])[0].shape[0]
            steps[case] = self._compiled.trainer(share, count).lower(*arguments).compile()
            self.compile_s += time.monotonic() - start
        return steps[case]

    def sharding_of_batches(self, together: bool) -> NamedSharding:
        """Of (n, B, ...) arrays, or of (n, K, B, ...) ones of trainings together."""
        return self._compiled.batches(together)

    def sharding_of_members(self) -> NamedSharding:
        """Of arrays with a leading axis over K trainings."""
        return NamedSharding(self.mesh, PartitionSpec(MEMBER))

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
      steps: what a training step was compiled for -> the compiled step.
    """

    def __init__(self, stage: Stage, mesh: Mesh):
        self.stage, self._mesh = stage, mesh
        self.steps: dict[Any, Any] = {}
        whole, parts = replicated(mesh), sharded(mesh)
        self.init = jax.jit(
            functools.partial(initial_state, stage),
            out_shardings=whole,
            compiler_options=QUICK if mesh.devices.flat[0].platform == "cpu" else None,
        )
        self.validate = jax.jit(
            self._validation, in_shardings=(whole, whole, parts, whole, whole), out_shardings=whole
        )
        # Predictions are gathered: every process then holds all of them.
        self.predict = jax.jit(
            functools.partial(prediction, stage), in_shardings=(whole, parts), out_shardings=whole
        )

    def batches(self, together: bool) -> NamedSharding:
        """See `Program.sharding_of_batches`."""
        axes = (MEMBER, DATA) if together else ((MEMBER, DATA),)
        return NamedSharding(self._mesh, PartitionSpec(None, *axes))

    def trainer(self, share: str | None, steps: int) -> Any:
        """The jitted training step of one training or of several, n steps a dispatch."""
        step: Callable[..., Any] = self._step
        if share is not None:
            step = population.together(step, share, self._mesh)
        whole = replicated(self._mesh)
        own = whole if share is None else NamedSharding(self._mesh, PartitionSpec(MEMBER))
        return jax.jit(
            functools.partial(_several, step, steps),
            in_shardings=(own, own, whole, self.batches(share is not None), own, own),
            out_shardings=(own, own),
            donate_argnums=0,  # or two whole states are in memory
        )

    def _step(
        self, state: TrainState, hyper: Hyper, data: Batch, batch: Batch, balance: Any, key: Any
    ) -> tuple[TrainState, dict[str, jax.Array]]:
        return train_step(self.stage, state, hyper, gathered(data, batch), balance, key)

    def _validation(
        self, variables: Any, hyper: Hyper, batch: Batch, balance: Any, totals: Any
    ) -> Any:
        outputs = _outputs(self.stage, variables, batch)
        values = {
            "loss": self.stage.loss(outputs, batch, balance, hyper.stage),
            **self.stage.monitor(outputs, batch),
        }
        new = {k: MaskedMean.from_model_output(v, batch["weight"]) for k, v in values.items()}
        return {k: v.merge(totals[k]) for k, v in new.items()} if totals else new


def prediction(stage: Stage, variables: Any, batch: Batch) -> dict[str, jax.Array]:
    """What a stage says of a batch: the function that evaluation runs, and that is exported.

    Args:
      stage: the declaration, of which `Stage.traced` is enough.
      variables: Flax collections.
      batch: the stage's inputs; other arrays are not looked at.

    Returns:
      Arrays of B rows: what `Stage.activate` names, the mean over `Stage.views`, and what
      `Stage.explain` says of the example as it is.
    """
    find = _one_view if stage.views == 1 else _mean_of_views
    found = find(stage, variables, {name: batch[name] for name in stage.inputs})
    return found | stage.explain(variables, _inputs(stage, batch))


def _one_view(stage: Stage, variables: Any, inputs: Batch) -> dict[str, jax.Array]:
    return stage.activate(_outputs(stage, variables, inputs))


def _mean_of_views(stage: Stage, variables: Any, inputs: Batch) -> dict[str, jax.Array]:
    """Means over `Stage.views`, which go through the network as one batch."""
    count = stage.views
    seen = [inputs, *(stage.view(k, inputs) for k in range(1, count))]
    # Views of an example lie side by side, so that they stay on the device that has it.
    rows = {k: jnp.stack([s[k] for s in seen], 1) for k in stage.inputs}
    rows = {k: v.reshape(-1, *v.shape[2:]) for k, v in rows.items()}
    found = _one_view(stage, variables, rows)
    apart = {k: v.reshape(-1, count, *v.shape[1:]) for k, v in found.items()}
    views = [stage.returned(n, {k: v[:, n] for k, v in apart.items()}) for n in range(count)]
    return {
        k: jnp.stack([view[k] for view in views]).mean(0, dtype=jnp.float32).astype(v.dtype)
        for k, v in views[0].items()
    }


def _outputs(stage: Stage, variables: Any, batch: Batch) -> Any:
    return stage.model().apply(variables, *_inputs(stage, batch), train=False)


def _inputs(stage: Stage, batch: Batch) -> list[jax.Array]:
    return [batch[name] for name in stage.inputs]


def _several(
    step: Callable[..., Any],
    steps: int,
    state: TrainState,
    hyper: Hyper,
    data: Batch,
    batches: Batch,
    balance: Any,
    key: Any,
) -> tuple[TrainState, dict[str, jax.Array]]:
    """The steps of one dispatch, one after another."""

    def one(state: TrainState, batch: Batch) -> tuple[TrainState, dict[str, jax.Array]]:
        return step(state, hyper, data, batch, balance, key)

    if steps == 1:
        return one(state, jax.tree.map(lambda x: x[0], batches))
    state, scalars = jax.lax.scan(one, state, batches)
    return state, jax.tree.map(lambda x: x[-1], scalars)


# More than the largest system has stages; what is in use is kept alive by its `Program` anyway.
_compiled = functools.lru_cache(maxsize=32)(_Compiled)
