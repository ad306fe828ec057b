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
      ordinal: whether the classes have an order: the call is then the expected class, rounded, and
        weighted kappa is reported.  Otherwise the call is the likeliest class; of two classes the
        second from a probability of .5 on.  See `rule`.
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

    @property
    def rule(self) -> str:
        """How a class is chosen, in words."""
        if len(self.classes) == 2:
            return f"{self.classes[1]} from a probability of .5 on"
        if self.ordinal:
            return "the class nearest to the expected class number; halfway, the higher one"
        return "the likeliest class"

    def calls(self, p: np.ndarray) -> np.ndarray:
        """(N,) int32 class of (N, K) probabilities; `missed` for a row with NaN.

        The rounded expectation has the least expected squared distance, which is what the quadratic
        weighted kappa counts.
        """
        p = np.asarray(p, np.float64)
        if len(self.classes) == 2:
            chosen = np.nan_to_num(p)[:, 1] >= 0.5
        elif self.ordinal:
            return self.rounded(self.expected(p))
        else:
            chosen = np.nan_to_num(p).argmax(1)
        return np.where(np.isnan(p).any(1), self.missed, chosen).astype(np.int32)

    def expected(self, p: np.ndarray) -> np.ndarray:
        """(N,) float64 expected class number of (N, K) probabilities; NaN for a row with NaN.

        To five decimals: probabilities of float32, and as they are written, come to one call.
        """
        return np.round(np.asarray(p, np.float64) @ np.arange(len(self.classes)), 5)

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
