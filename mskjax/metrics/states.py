"""Metric states for the jitted training and validation loops: summed, merged, then computed.

Both keep sums, so the result does not depend on how the cases fell into batches or devices, and
a padded example (weight 0) counts nowhere, whatever its values.

clu builds classes from the annotations of a collection: no ``from __future__ import annotations``
in a module that uses these.
"""

import flax
import jax
import jax.numpy as jnp
from clu import metrics


@flax.struct.dataclass
class MaskedMean(metrics.Metric):
    """Mean of per-example values; NaN before the first example.

    Unlike ``clu.metrics.Average`` it takes case weights, and one column per quantity.
    """

    total: jax.Array  # () or (M,)
    count: jax.Array  # ()

    @classmethod
    def empty(cls) -> "MaskedMean":
        """State before the first example."""
        return cls(total=jnp.zeros(()), count=jnp.zeros(()))

    @classmethod
    def from_model_output(
        cls, values: jax.Array, weights: jax.Array | None = None, **_
    ) -> "MaskedMean":
        """State of one batch.

        Args:
          values: (B,) or (B, M); a NaN of weight > 0 makes the mean NaN.
          weights: (B,) case weights, None = ones.
        """
        values = jnp.asarray(values, jnp.float32)
        count = jnp.ones(len(values)) if weights is None else jnp.asarray(weights, jnp.float32)
        column = count.reshape(count.shape + (1,) * (values.ndim - 1))
        return cls(total=jnp.where(column > 0, column * values, 0.0).sum(0), count=count.sum())

    def merge(self, other: "MaskedMean") -> "MaskedMean":
        """State of the examples of both."""
        return type(self)(total=self.total + other.total, count=self.count + other.count)

    def compute(self) -> jax.Array:
        """() or (M,) mean."""
        return self.total / self.count


@flax.struct.dataclass
class Confusion(metrics.Metric):
    """Confusion matrix over all examples, from which accuracy, recall and pooled Dice follow.

    ``classification.f1_per_class`` of a matrix of pixels is the Dice of the pooled cases.
    """

    matrix: jax.Array  # (K, K), rows = reference

    @classmethod
    def empty(cls, classes: int) -> "Confusion":
        """State before the first example."""
        return cls(matrix=jnp.zeros((classes, classes)))

    @classmethod
    def from_labels(
        cls,
        reference: jax.Array,
        predicted: jax.Array,
        classes: int,
        weights: jax.Array | None = None,
    ) -> "Confusion":
        """State of one batch.

        Args:
          reference: (B,) grades or (B, ...) label masks, int; labels outside 0..classes-1 are
            left out.
          predicted: the same shape, 0..classes-1 as an argmax gives.
          classes: K.
          weights: (B,) case weights, shared by all pixels of an example.
        """
        weights = jnp.ones(len(reference)) if weights is None else weights
        pairs = classes * classes
        known = (reference >= 0) & (reference < classes)
        codes = jnp.where(known, reference * classes + predicted, pairs).reshape(len(weights), -1)
        # Counted as integers per example: the one-hot matrix of ``classification`` would be as
        # large as the network's input here, and float32 stops counting at 2^24.
        examples = jax.vmap(lambda c: jnp.bincount(c, length=pairs + 1))(codes)[:, :pairs]
        total = (weights[:, None] * examples.astype(jnp.float32)).sum(0)
        return cls(matrix=total.reshape(classes, classes))

    def merge(self, other: "Confusion") -> "Confusion":
        """State of the examples of both."""
        return type(self)(matrix=self.matrix + other.matrix)

    def compute(self) -> jax.Array:
        """(K, K) weighted counts."""
        return self.matrix
