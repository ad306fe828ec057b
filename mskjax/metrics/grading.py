"""A grading into K >= 2 classes: how a class is chosen, and what a missed region costs.

A missed case is wrong whatever its class: right in no class, as far off as two classes can be in
the weighted kappa, probability 0 for its own class.  Its figures are `metrics.grading_figures`.
"""

import dataclasses

import numpy as np


@dataclasses.dataclass(frozen=True)
class Grading:
    """What is graded, and how a class is chosen.

    Attributes:
      task: name of the grading in columns and figures, e.g. ``pfirrmann``.
      classes: K names in lower snake case, in order.  Of two, the second is the positive one.
      ordinal: whether the classes have an order: the call is the median of the distribution, which
        has the least expected absolute error, and weighted kappa is reported.  Otherwise the call
        is the likeliest class; of two classes the second from a probability of .5 on.
    """

    task: str
    classes: tuple[str, ...]
    ordinal: bool = False

    def __post_init__(self) -> None:
        if len(self.classes) < 2:
            raise ValueError(f"a grading needs two classes, {self.task} has {self.classes}")

    @property
    def missed(self) -> int:
        """The call of a case whose region was not found: K."""
        return len(self.classes)

    def calls(self, p: np.ndarray) -> np.ndarray:
        """(N,) int32 class of (N, K) probabilities; `missed` for a row with NaN."""
        count = len(self.classes)
        lost, filled = np.isnan(p).any(1), np.nan_to_num(p)
        if count == 2:
            chosen = (filled[:, 1] >= 0.5).astype(int)
        elif self.ordinal:
            chosen = np.minimum((np.cumsum(filled, 1) < 0.5).sum(1), count - 1)
        else:
            chosen = filled.argmax(1)
        return np.where(lost, self.missed, chosen).astype(np.int32)

    def rounded(self, score: np.ndarray) -> np.ndarray:
        """(N,) int32 class nearest to (N,) scores on the scale of class numbers; NaN is missed."""
        lost = np.isnan(score)
        nearest = np.floor(np.nan_to_num(score) + 0.5).clip(0, len(self.classes) - 1)
        return np.where(lost, self.missed, nearest).astype(np.int32)

    def priced(self, reference: np.ndarray, p: np.ndarray) -> np.ndarray:
        """(N, K) float32: rows with NaN (missed) get 0 for their own class, the rest shared."""
        count = len(self.classes)
        worst = (np.arange(count) != np.asarray(reference)[:, None]) / (count - 1)
        return np.where(np.isnan(p).any(1)[:, None], worst, p).astype(np.float32)

    def priced_scores(self, reference: np.ndarray, score: np.ndarray) -> np.ndarray:
        """(N,) float32 scores of two classes; NaN gets the worst of its class.

        The worst are 0 and 1, or the extremes of scores that go beyond these.
        """
        score = np.asarray(score, np.float32)
        lowest, highest = np.fmin.reduce(score, initial=0.0), np.fmax.reduce(score, initial=1.0)
        worst = np.where(np.asarray(reference) == 1, lowest, highest)
        return np.where(np.isnan(score), worst, score).astype(np.float32)
