"""What the loops need to know of one network: `Stage`, the declaration that systems fill in."""

import abc
import copy
import dataclasses
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Self

import jax
import numpy as np

from mskjax.config import TrainConfig
from mskjax.data.pipeline import Examples
from mskjax.errors import UserError

if TYPE_CHECKING:
    import flax.linen as nn

ATTENTION = "attention"  # the output of `Stage.explain`
Study = Mapping[str, Any]  # one packaged study: arrays on the native grid and strings


@dataclasses.dataclass(frozen=True)
class Input:
    """An array that a network is given at prediction, for who runs it elsewhere.

    Attributes:
      shape: of a batch.  A letter stands for any length of at least 1, ``16*h`` for any multiple
        of 16; a letter that occurs twice stands for one length.
      dtype: of NumPy.
      layout: what the axes are.
      values: what its numbers are, with their unit.
    """

    shape: str
    dtype: str
    layout: str
    values: str

    @classmethod
    def images(cls, *shape: int | str, batch: int | str = "b") -> "Input":
        """Images after `Stage.preprocessing`; `shape` is that of one, channels last."""
        layout = ("batch", *(("slices",) if len(shape) == 4 else ()), "rows", "columns", "channels")
        text = ", ".join(map(str, (batch, *shape)))
        values = "intensities after the stage's preprocessing, without a unit"
        return cls(text, "float32", ", ".join(layout), values)


@dataclasses.dataclass(frozen=True)
class Stage(abc.ABC):
    """One network of a system: what it sees, what it is, how it is trained.

    A stage is stateless and hashable.  Methods on `Examples` run on the host; methods on batches
    are traced under jit and must be pure.

    Attributes:
      name: of the stage.
      options: dataclass with at least ``train``, a `TrainConfig`, and the fields that `hyper`
        names.
    """

    name: str
    options: Any

    inputs: ClassVar[tuple[str, ...]] = ("image",)  # arrays of an example that the network sees
    # Options that `training_examples` never reads; a stage that does read one leaves it out here.
    unread: ClassVar[tuple[str, ...]] = ("train", "model", "views")
    # Whether the parts of `model` are networks that share no weight and no loss: each is then
    # trained as it would be alone, its gradient clipped by its own norm.
    apart: ClassVar[bool] = False

    @property
    def train(self) -> TrainConfig:
        """The recipe."""
        return self.options.train

    @property
    def views(self) -> int:
        """Views of an example whose outputs prediction averages; 1 is the example itself alone."""
        return 1

    @property
    def prediction_batch(self) -> int:
        """Examples that are read at a time: no more views than training has examples a step."""
        return max(1, self.train.batch_size // self.views)

    @abc.abstractmethod
    def model(self) -> "nn.Module":
        """The network: ``__call__(*inputs, train: bool)``.

        It is imported here and not with the stage, which also reads and decodes for a network that
        was exported (`mskjax.portable`).
        """

    def hyper(self) -> dict[str, Any]:
        """The options that leave shapes unchanged: names of fields -> pytrees of numbers.

        `augment` and `loss` are given them as scalars that may be traced, so another value compiles
        nothing.
        """
        return {}

    def traced(self) -> Self:
        """The stage as far as methods on batches depend on it: equal ones share what is compiled.

        It has no name, no recipe and none of the options that `hyper` names: what reads them there
        instead of its argument fails.  A stage overrides this if more of its fields concern the
        host alone.
        """
        return dataclasses.replace(
            self, name="", options=_without(self.options, ("train", *self.hyper()))
        )

    def cutting(self) -> "Stage":
        """The stage as far as `training_examples` depends on it: equal ones cut equal examples.

        It has no recipe, no network and none of the options that `hyper` names, so whatever else
        differs between the trials of a sweep, they share what is cut; what reads them fails.
        """
        return dataclasses.replace(
            self, options=_without(self.options, (*self.unread, *self.hyper()))
        )

    def canvas_for(self, studies: Sequence[Study]) -> tuple[int, ...] | None:
        """Rows and columns that hold every slice of the studies at the network's spacing.

        Of stages that see whole slices, or volumes (slices come first then), and are trained on
        examples of one size; None of others.

        Args:
          studies: outlines, whose volumes have shapes and no values (`tfds_builders.outlines`).
        """
        return None

    def signature(self) -> dict[str, Input]:
        """What the network is given at prediction: each of `inputs`, for an export.

        Raises:
          UserError: a stage of one's own does not say it.
        """
        raise UserError(
            f"stage {self.name} does not say what its network is given, so it cannot be exported;"
            f" add signature() to {type(self).__name__}, see mskjax.training.stage.Stage."
        )

    def preprocessing(self) -> dict[str, Any]:
        """What is done to a study's volumes before the network sees them, as JSON."""
        return {}

    @abc.abstractmethod
    def training_examples(self, study: Study) -> Examples | None:
        """Inputs and targets from the *reference* regions of one study; None if it has none.

        May carry ``case``, an array of str case ids, which stays on the host.
        """

    @abc.abstractmethod
    def augment(
        self, keys: jax.Array, batch: dict[str, jax.Array], hyper: Any
    ) -> dict[str, jax.Array]:
        """Random training view of a batch.

        Args:
          keys: (B,), one typed key per example.
          batch: arrays of B examples.
          hyper: as `hyper` gives it, of scalars that may be traced.
        """

    @abc.abstractmethod
    def loss(
        self, outputs: Any, batch: dict[str, jax.Array], balance: Any, hyper: Any
    ) -> jax.Array:
        """(B,) float32 loss per example.

        Args:
          outputs: of the network, raw.
          batch: arrays of B examples.
          balance: of `balance`.
          hyper: as `hyper` gives it, of scalars that may be traced.
        """

    @abc.abstractmethod
    def activate(self, outputs: Any) -> dict[str, jax.Array]:
        """What leaves the device: probabilities per example."""

    def view(self, number: int, inputs: dict[str, jax.Array]) -> dict[str, jax.Array]:
        """The inputs of a batch in another view, which is the same in every run.

        Args:
          number: from 1 to `views` - 1: a stage without views is never asked.  View 0 is the inputs
            as they are, which `explain` is of.
          inputs: arrays of B examples, as `inputs` names them.
        """
        raise NotImplementedError(f"{type(self).__name__} declares views and does not say them")

    def returned(self, number: int, outputs: dict[str, jax.Array]) -> dict[str, jax.Array]:
        """What `activate` says of a view, put back to where the example itself has it.

        What is said of the example as a whole needs nothing; a map undoes the motion of `view`.

        Args:
          number: as `view` is given it.
          outputs: of B examples in this view.
        """
        return outputs

    def combine(self, outputs: Sequence[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
        """What several trainings of the stage say together; host only.

        Args:
          outputs: of each, for the same examples, as `activate` and `explain` name them.

        Returns:
          Their means: what networks of one kind say are probabilities.
        """
        if len(outputs) == 1:
            return outputs[0]
        return {
            name: np.stack([own[name] for own in outputs]).mean(0, dtype=np.float32).astype(v.dtype)
            for name, v in outputs[0].items()
        }

    def monitor(self, outputs: Any, batch: dict[str, jax.Array]) -> dict[str, jax.Array]:
        """(B,) values per example that the learning curves show beside the loss; may be empty."""
        return {}

    def explain(self, variables: Any, inputs: list[jax.Array]) -> dict[str, jax.Array]:
        """Further outputs per example that say what the network looked at; may be empty."""
        return {}

    def initial(self, variables: Any) -> tuple[Any, list[str]]:
        """Host only: the weights to start from, given random ones, and what was done to them.

        A stage that starts from weights of another task replaces them here.
        """
        return variables, []

    def classes(self, examples: Examples) -> np.ndarray | None:
        """(N,) class by which balanced sampling draws; None where a stage has no classes.

        Args:
          examples: N examples without the stage's inputs; what is asked for is read from disk.
        """
        return None

    def balance(self, examples: Examples) -> Any:
        """Pytree of arrays given to `loss` (class weights), fitted on training examples.

        Args:
          examples: as those of `classes`; go through large arrays row by row.
        """
        return ()


def _without(options: Any, fields: Sequence[str]) -> Any:
    """A copy of frozen options in which these fields are None, which is no legal value."""
    copied = copy.copy(options)
    for field in fields:
        if hasattr(copied, field):
            object.__setattr__(copied, field, None)
    return copied
