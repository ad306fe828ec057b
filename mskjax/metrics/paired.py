"""Two ways to reach a figure, compared on the same patients: intervals and p-values.

The interval of a difference is that of a bootstrap over patients, both sides on the same resamples.
The p-value is that of a permutation test (Good 2005, chapter 3; for ROC curves Venkatraman and
Begg, Biometrika 1996): if it did not matter which side read a patient, the two readings of a
patient could be exchanged, all cases of the patient together.  It holds for any figure and, other
than a p-value read off a bootstrap, for few patients: of four patients none is below 2/16.

Both are weights of patients.  A figure takes case weights, so the side that has exchanged some
patients is the cases of both sides under one another, each patient with weight 1 on one side and
0 on the other (`intervals.weighting`).
"""

import functools

import numpy as np

# Figures are float32; what an exchange gives is as extreme if it is nearer than this.
_ROUNDING = 1e-6
_AT_ONCE = 1_000  # resamples that are drawn as int64


@functools.lru_cache(maxsize=4)  # a report asks for the same a hundred times
def multiplicities(patients: int, resamples: int, seed: int) -> np.ndarray:
    """(resamples, patients) uint8, read-only: how often each patient is drawn, with replacement.

    Of more than 255 patients one would be drawn that often in fewer than one of 10^500 resamples.

    Args:
      patients: P; each resample draws as many.
      resamples: of the bootstrap.
      seed: decides all draws.
    """
    rng = np.random.default_rng((seed, patients, 0))
    drawn = np.empty((resamples, patients), np.uint8)
    for start in range(0, resamples, _AT_ONCE):
        some = drawn[start : start + _AT_ONCE]
        some[:] = rng.multinomial(patients, np.full(patients, 1 / patients), len(some))
    drawn.setflags(write=False)
    return drawn


def exchanges(patients: int, most: int, seed: int) -> np.ndarray:
    """(E, P) float32: 1 where a patient's readings are exchanged; nothing is in the first row.

    Args:
      patients: P.
      most: all 2**P exchanges where these are no more, else ``most`` random ones behind the first.
      seed: of the random ones.
    """
    if is_complete(patients, most):
        numbers = np.arange(2**patients)[:, None]
        return (numbers >> np.arange(patients) & 1).astype(np.float32)
    drawn = np.random.default_rng((seed, patients, 1)).integers(0, 2, (most, patients))
    return np.concatenate([np.zeros((1, patients)), drawn]).astype(np.float32)


def is_complete(patients: int, most: int) -> bool:
    """Whether `exchanges` has all there are, so that the p-value is exact."""
    return patients < 32 and 2**patients <= most


def p_value(observed: float, exchanged: np.ndarray) -> float:
    """Two-sided p-value: the share of exchanges with a difference as great as the observed one.

    Exact where all exchanges are there; of random ones the observed one counts too, so that p is
    never 0 and no smaller than it should be (Phipson and Smyth 2010).

    Args:
      observed: difference.
      exchanged: (E,) differences under `exchanges`, of which the first is taken for the observed
        one; one that is not defined counts as being as great.
    """
    below = np.abs(exchanged[1:]) < abs(observed) - _ROUNDING
    return float((len(exchanged) - below.sum()) / len(exchanged))
