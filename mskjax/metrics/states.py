"""The metric state of the jitted training and validation loops: summed, merged, then computed.

It keeps sums, so the result does not depend on how the cases fell into batches or devices, and
a padded example (weight 0) counts nowhere, whatever its values.
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
