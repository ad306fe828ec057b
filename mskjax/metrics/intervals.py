"""How sure a figure is: bootstrap over patients, Wilson, McNemar, spread over folds."""

import contextlib
import math
import statistics
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import jax
import numpy as np
from scipy import stats

from mskjax.errors import UserError
from mskjax.metrics.paired import multiplicities
from mskjax.metrics.weights import CaseWeights

# More undefined resamples than this and the interval says so: it is then conditional on the
# resamples that happened to hold, e.g., a case of every class.
UNDEFINED_WORTH_SAYING = 0.05
# Cases x resamples that are looked at together: 8 MB a float64 array, about what a cache holds.
CHUNK_ELEMENTS = 2**20
LEAST_AT_ONCE = 64  # resamples

DRAWS = "draws"  # in an estimate of a report, while `keeping_draws`

Statistic = Callable[[Any, CaseWeights], Any]
_keeping: list[bool] = []
_given: list[Mapping[Any, np.ndarray]] = []


@contextlib.contextmanager
def keeping_draws() -> Iterator[None]:
    """Until the block ends, estimates hold their resamples, so that they can be pooled."""
    _keeping.append(True)
    try:
        yield
    finally:
        _keeping.pop()


@contextlib.contextmanager
def weighting(weights: Mapping[Any, np.ndarray]) -> Iterator[None]:
    """Until the block ends, estimates are taken under these weights of patients, not resampled.

    So figures of different tables are taken on the same resamples, whatever rows the tables have,
    and a bootstrap becomes another procedure, e.g. a permutation (`metrics.paired`).  Estimates
    hold their draws.

    Args:
      weights: patient -> (R,) numbers, for each of R draws the weight of all of its cases.
    """
    _given.append(weights)
    try:
        with keeping_draws():
            yield
    finally:
        _given.pop()


@dataclass(frozen=True)
class Estimate:
    """A figure with its confidence interval.

    Attributes:
      value: the statistic on the cases as they are; NaN where undefined.
      low: lower bound of the interval, NaN where there is none.
      high: upper bound.
      n: cases.
      patients: distinct patients.
      method: how the interval was made.
      why: reason of a missing value or interval, or a reservation; "" where there is none.
      level: confidence level.
      draws: (resamples,) float32 values on the resamples, while `keeping_draws`.
    """

    value: float
    low: float
    high: float
    n: int
    patients: int
    method: str
    why: str = ""
    level: float = 0.95
    draws: np.ndarray | None = field(default=None, compare=False, repr=False)

    def as_json(self) -> dict[str, Any]:
        """The estimate of a report: value, ci95 ([low, high] or null), n, patients, method, why.

        Raises:
          ValueError: if the interval is not a 95 % one, which is all a report holds.
        """
        if self.level != 0.95:
            raise ValueError(f"a report holds 95 % intervals, this one has level {self.level}")
        bounds = [self.low, self.high]
        entry: dict[str, Any] = {
            "value": self.value if math.isfinite(self.value) else None,
            "ci95": bounds if all(map(math.isfinite, bounds)) else None,
            "n": self.n,
            "patients": self.patients,
            "method": self.method,
        }
        if self.draws is not None:
            entry[DRAWS] = self.draws
        why = self.why or ("infinite" if math.isinf(self.value) else "")
        return {**entry, "why": why} if why else entry


def patient_bootstrap(
    statistic: Statistic,
    data: Any,
    patients: Sequence[Hashable] | np.ndarray,
    resamples: int = 10_000,
    seed: int = 0,
    level: float = 0.95,
) -> Any:
    """Percentile bootstrap with the patient as the unit (Davison & Hinkley 1997, section 3.8).

    Each resample draws as many patients as there are, with replacement.  A patient drawn k times
    gives weight k to each of its cases, so the cases of a patient come and go together.

    Args:
      statistic: ``statistic(data, weights)`` of ``data`` and `metrics.weights.CaseWeights` of R
        resamples: an (R,) array, an (M, R) one, or a dict of these.
      data: dict (any pytree) of arrays whose first axis is the N cases.
      patients: N patient ids, in the order of the cases.
      resamples: number of resamples.
      seed: of the draws, see `paired.multiplicities`.
      level: confidence level.

    Returns:
      Estimate for (R,); tuple of M of them for (M, R); dict of these for a dict.  ``n`` is
      the number of cases N; ``dataclasses.replace`` it where a statistic uses fewer.  Resamples
      where the statistic is NaN are left out, which ``why`` says if they are more than 5 %.
      No interval with fewer than two patients.

    Raises:
      UserError: if there are no cases.
      ValueError: if an array does not have one row per case, or the statistic another shape.
    """
    arrays = jax.tree.map(np.asarray, data)
    codes, count = _patient_codes(patients, arrays)
    if _given:
        drawn = np.stack([_given[-1][p] for p in dict.fromkeys(patients)])
    else:
        drawn = multiplicities(count, resamples, seed).T
    resamples = drawn.shape[1]
    # The last one is no resample: the cases as they are.
    columns = np.concatenate([drawn, np.ones((count, 1), drawn.dtype)], 1)
    found = under(statistic, arrays, codes, columns)
    method = f"patient bootstrap, percentile, {resamples} resamples"

    def estimate(own: np.ndarray) -> Any:
        if own.ndim > 1:
            return tuple(map(estimate, own))
        draws = own[:-1]
        low, high, why = percentile_interval(draws, level, count)
        if np.isnan(own[-1]):
            low, high, why = math.nan, math.nan, "undefined on these cases"
        kept = draws if _keeping else None
        return Estimate(float(own[-1]), low, high, len(codes), count, method, why, level, kept)

    return jax.tree.map(estimate, found)


def paired_patient_bootstrap(
    statistic: Statistic,
    data_a: Any,
    data_b: Any,
    patients: Sequence[Hashable] | np.ndarray,
    resamples: int = 10_000,
    seed: int = 0,
    level: float = 0.95,
) -> Any:
    """Interval of ``statistic(data_a) - statistic(data_b)`` on the same cases.

    Both are computed on the same resamples, so what makes a case hard for both cancels.
    Arguments and result as ``patient_bootstrap``; row i of both data sets is the same case.
    """

    def difference(both: dict[str, Any], weights: CaseWeights) -> Any:
        a, b = (statistic(both[side], weights) for side in ("a", "b"))
        with np.errstate(invalid="ignore"):  # of infinite distances there is no difference
            return jax.tree.map(np.subtract, a, b)

    both = {"a": data_a, "b": data_b}
    return patient_bootstrap(difference, both, patients, resamples, seed, level)


def under(statistic: Statistic, data: Any, units: np.ndarray, weights: np.ndarray) -> Any:
    """A statistic under each column of weights, some at a time.

    Args:
      statistic: see `patient_bootstrap`.
      data: of N cases, see `patient_bootstrap`.
      units: (N,) int, the unit of each case, 0 to U-1.
      weights: (U, R) numbers, for each of R columns the weight of all cases of a unit.

    Returns:
      What `statistic` returns, float32 with R as the last axis.

    Raises:
      ValueError: if the statistic is neither (R,) nor (M, R).
    """
    step = max(LEAST_AT_ONCE, CHUNK_ELEMENTS // max(len(units), 1))
    parts = []
    for start in range(0, weights.shape[1], step):
        some = np.ascontiguousarray(weights[:, start : start + step], np.float64)
        parts.append(statistic(data, CaseWeights(some, units)))

    def together(*found: np.ndarray) -> np.ndarray:
        whole = np.concatenate([np.atleast_1d(own) for own in found], -1)
        if whole.ndim > 2 or whole.shape[-1] != weights.shape[1]:
            shapes = [np.shape(own) for own in found]
            raise ValueError(f"a statistic of R columns is (R,) or (M, R), got {shapes}")
        # To float32, so that what is the same for all cases is the same on all resamples.
        return whole.astype(np.float32)

    return jax.tree.map(together, *parts)


def _patient_codes(patients: Sequence[Hashable] | np.ndarray, data: Any) -> tuple[Any, int]:
    """(N,) int32 numbers of the patients in order of appearance, and how many there are."""
    numbers: dict[Hashable, int] = {}
    codes = np.array([numbers.setdefault(p, len(numbers)) for p in patients], np.int32)
    if not len(codes):
        raise UserError("no cases to compute an interval from; check what was left out and why")
    shapes = [leaf.shape for leaf in jax.tree.leaves(data)]
    if any(not shape or shape[0] != len(codes) for shape in shapes):
        raise ValueError(f"{len(codes)} patient ids, but the arrays have shapes {shapes}")
    return codes, len(numbers)


def percentile_interval(draws: np.ndarray, level: float, patients: int) -> tuple[float, float, str]:
    """Bounds of the percentile interval, and why there is none or what it leaves out.

    Args:
      draws: (resamples,) the statistic on the resamples; NaN where it is undefined.
      level: confidence level.
      patients: how many were resampled.
    """
    if patients < 2:
        return math.nan, math.nan, "no interval from fewer than two patients"
    defined = draws[~np.isnan(draws)].astype(np.float64)
    undefined = len(draws) - len(defined)
    if not len(defined):
        return math.nan, math.nan, "undefined on every resample"
    why = ""
    if undefined > UNDEFINED_WORTH_SAYING * len(draws):
        why = f"{undefined} of {len(draws)} resamples left out, the figure being undefined there"
    tail = (1 - level) / 2
    # An order statistic, not an interpolation: infinite distances are then allowed.
    low, high = np.quantile(defined, [tail, 1 - tail], method="inverted_cdf")
    return float(low), float(high), why


# --------------------------------------------------------------------------------------------
# Without resampling


def wilson(successes: float, n: float, level: float = 0.95) -> tuple[float, float]:
    """Wilson score interval of a proportion (Wilson 1927), without continuity correction.

    Takes the n cases for independent: right for one case per patient, too narrow for several.

    Args:
      successes: 0..n.
      n: cases.
      level: confidence level.

    Returns:
      (low, high) in [0, 1]; (NaN, NaN) for n = 0.
    """
    if not 0 <= successes <= n:
        raise ValueError(f"{successes} successes of {n} cases")
    if n == 0:
        return math.nan, math.nan
    z = statistics.NormalDist().inv_cdf((1 + level) / 2)
    p = successes / n
    centre = p + z**2 / (2 * n)
    half = z * math.sqrt(p * (1 - p) / n + z**2 / (4 * n**2))
    scale = 1 + z**2 / n
    return max(0.0, (centre - half) / scale), min(1.0, (centre + half) / scale)


class FoldSpread(NamedTuple):
    """Mean and standard deviation over folds, as many papers print them."""

    mean: float
    sd: float
    folds: int


def mean_sd_over_folds(values: Sequence[float] | np.ndarray) -> FoldSpread:
    """Mean and sample standard deviation (ddof 1) of one figure per fold.

    NaN folds are left out and not counted in ``folds``.  It describes the spread and is no
    confidence interval: the folds share training patients.  NaN mean without folds, NaN sd with
    fewer than two.
    """
    array = np.asarray(values, np.float64)
    array = array[~np.isnan(array)]
    mean = float(array.mean()) if len(array) else math.nan
    sd = float(array.std(ddof=1)) if len(array) > 1 else math.nan
    return FoldSpread(mean, sd, len(array))


class McNemar(NamedTuple):
    """Comparison of two readers on the same cases."""

    only_a: int  # cases that a has right and b wrong
    only_b: int
    p: float


def mcnemar(
    correct_a: Sequence[bool] | np.ndarray, correct_b: Sequence[bool] | np.ndarray
) -> McNemar:
    """McNemar's test, two-sided, exact binomial on the discordant cases.

    With b + c discordant cases and m = min(b, c): p = min(1, 2 P(X <= m)), X ~ Bin(b + c, 1/2)
    (Fagerland et al. 2013).

    Args:
      correct_a: (N,) bool, whether a is right; one case per patient, or p is too small.
      correct_b: (N,) bool.

    Returns:
      Discordant counts and p; p = 1 where nothing is discordant.
    """
    a, b = np.asarray(correct_a, bool), np.asarray(correct_b, bool)
    if a.shape != b.shape:
        raise ValueError(f"{a.shape} and {b.shape} are not the same cases")
    only_a, only_b = int(np.sum(a & ~b)), int(np.sum(~a & b))
    n, fewer = only_a + only_b, min(only_a, only_b)
    p = 2 * stats.binom.cdf(fewer, n, 0.5)
    return McNemar(only_a, only_b, float(min(1.0, p)))


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """p-values corrected for their number by Holm's step-down method (Holm 1979).

    The i-th smallest of m is multiplied by m - i + 1, made no smaller than the one before, and cut
    at 1.  None (no test was made) remains and is not counted.
    """
    made = sorted((p, i) for i, p in enumerate(p_values) if p is not None)
    corrected: list[float | None] = [None] * len(p_values)
    highest = 0.0
    for rank, (p, i) in enumerate(made):
        highest = max(highest, min(1.0, (len(made) - rank) * p))
        corrected[i] = highest
    return corrected
