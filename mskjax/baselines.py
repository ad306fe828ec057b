"""Trivial models that a network has to beat."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

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

    def as_json(self) -> dict[str, list[float]]:
        """The model as JSON, without loss."""
        return {k: v.astype(np.float64).tolist() for k, v in vars(self).items()}

    @classmethod
    def of(cls, values: Mapping[str, Any] | None) -> "Ridge | None":
        """What `as_json` gave; None where nothing could be fitted."""
        return None if values is None else cls(**{k: np.array(v) for k, v in values.items()})

    @classmethod
    def mean_of(cls, models: Sequence["Ridge"]) -> "Ridge":
        """The model whose scores are the means of these models' scores."""
        slopes = [m.weights[1:] / m.scale for m in models]
        offsets = [m.weights[0] - s @ m.mean for m, s in zip(models, slopes, strict=True)]
        size = len(slopes[0])
        weights = np.concatenate([[np.mean(offsets)], np.mean(slopes, 0)])
        return cls(np.zeros(size), np.ones(size), weights)

    def predict(self, features: np.ndarray) -> float:
        """Target of one example, (F,) features."""
        return float(self.weights[0] + self.weights[1:] @ ((features - self.mean) / self.scale))
