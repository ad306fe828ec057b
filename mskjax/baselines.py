"""Trivial models that a network has to beat."""

import dataclasses

import numpy as np


@dataclasses.dataclass(frozen=True)
class Ridge:
    """Ridge regression on standardised features (Hoerl & Kennard 1970), penalty 1, free intercept.

    Attributes:
      mean: (F,) of the training features.
      scale: (F,) standard deviations of the training features.
      weights: (F + 1,), the intercept first.
    """

    mean: np.ndarray
    scale: np.ndarray
    weights: np.ndarray

    @classmethod
    def fit(cls, features: np.ndarray, targets: np.ndarray) -> "Ridge":
        """Fits (N, F) features to (N,) targets."""
        mean, scale = features.mean(0), features.std(0) + 1e-9
        z = np.column_stack([np.ones(len(features)), (features - mean) / scale])
        penalty = np.diag([0.0, *np.ones(features.shape[1])])
        weights = np.linalg.solve(z.T @ z + penalty, z.T @ targets)
        return cls(mean, scale, weights)

    def predict(self, features: np.ndarray) -> float:
        """Target of one example, (F,) features."""
        return float(self.weights[0] + self.weights[1:] @ ((features - self.mean) / self.scale))
