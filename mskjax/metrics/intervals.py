"""How sure a figure is: bootstrap over patients, Wilson, McNemar, spread over folds."""

import contextlib
import functools
import math
import statistics
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from scipy import stats

from mskjax.errors import UserError

# More undefined resamples than this and the interval says so: it is then conditional on the
# resamples that happened to hold, e.g., a case of every class.
UNDEFINED_WORTH_SAYING = 0.05
# Cases are padded to a multiple of this, so that tasks and subgroups of like size share a program.
ROOM = 64
# Elements (resamples x cases) per step of the device loop: 16 MB per float32 intermediate.
CHUNK_ELEMENTS = 2**22
WEIGHTS_AT_ONCE = 256  # of those that are given, see `weighting`

DRAWS = "draws"  # in an estimate of a report, while `keeping_draws`

Statistic = Callable[[Any, jax.Array], Any]
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
      weights: patient -> (R,) float32, for each of R draws the weight of all of its cases.
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
      statistic: ``statistic(data, weights)`` in ``jax.numpy``, from ``data`` and float32 case
        weights to a scalar, an (M,) vector, or a dict of these.  Further cases of weight 0 are
        added to both, so that samples of like size share a program.  A module-level function is
        compiled once per shape, a lambda at every call.
      data: dict (any pytree) of arrays whose first axis is the N cases, all of which count.
      patients: N patient ids, in the order of the cases.
      resamples: number of resamples.
      seed: resample r uses the key folded from (seed, r), on any device.
      level: confidence level.

    Returns:
      Estimate for a scalar; tuple of M of them for a vector; dict of these for a dict.  ``n`` is
      the number of cases N; ``dataclasses.replace`` it where a statistic uses fewer.  Resamples
      where the statistic is NaN are left out, which ``why`` says if they are more than 5 %.
      No interval with fewer than two patients.

    Raises:
      UserError: if there are no cases.
      ValueError: if an array does not have one row per case.
    """
    arrays = jax.tree.map(np.asarray, data)
    codes, count = _patient_codes(patients, arrays)
    size = room(len(codes))
    cases = padded(arrays, size), padded(codes, size), len(codes)
    at_once = max(1, min(resamples + 1, CHUNK_ELEMENTS // size))
    if _given:
        weights = np.stack([_given[-1][p] for p in dict.fromkeys(patients)], 1)
        resamples = len(weights)
        value, draws = _weighted(statistic, *cases, weights)
    else:
        key = jax.random.key(seed)
        sizes = {"resamples": resamples, "lots": room(count), "chunk": at_once}
        value, draws = _resampled(statistic, *cases, count, key, **sizes)
    method = f"patient bootstrap, percentile, {resamples} resamples"

    def estimate(value: np.ndarray, draws: np.ndarray) -> Any:
        if value.ndim > 1:
            raise ValueError(f"a statistic is a scalar or a vector, got shape {value.shape}")
        if value.ndim == 1:
            return tuple(estimate(v, d) for v, d in zip(value, draws.T, strict=True))
        low, high, why = percentile_interval(draws, level, count)
        if np.isnan(value):
            low, high, why = math.nan, math.nan, "undefined on these cases"
        kept = draws if _keeping else None
        return Estimate(float(value), low, high, len(codes), count, method, why, level, kept)

    return jax.tree.map(estimate, *jax.device_get((value, draws)))


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
    both = {"a": data_a, "b": data_b}
    difference = _Difference(statistic)
    return patient_bootstrap(difference, both, patients, resamples, seed, level)


@dataclass(frozen=True)
class _Difference:
    """Statistic of a pair; equal for equal statistics, so that the compiled form is found again."""

    statistic: Statistic

    def __call__(self, data: dict[str, Any], weights: jax.Array) -> Any:
        a, b = self.statistic(data["a"], weights), self.statistic(data["b"], weights)
        return jax.tree.map(jnp.subtract, a, b)


def room(cases: int) -> int:
    """The padded number of cases: a multiple of 64, and of a quarter of the power of 2 below."""
    step = max(ROOM, 2 ** max(cases.bit_length() - 3, 0))
    return -(-cases // step) * step


def padded(data: Any, size: int) -> Any:
    """Arrays with rows of zeros up to `size` cases, to be hidden by weights of 0."""

    def pad(array: np.ndarray) -> np.ndarray:
        return np.pad(array, [(0, size - len(array))] + [(0, 0)] * (array.ndim - 1))

    return jax.tree.map(pad, data)


@functools.partial(jax.jit, static_argnames=("statistic", "resamples", "lots", "chunk"))
def _resampled(
    statistic: Statistic,
    data: Any,
    codes: jax.Array,
    cases: jax.Array,
    patients: jax.Array,
    key: jax.Array,
    *,
    resamples: int,
    lots: int,
    chunk: int,
) -> tuple[Any, Any]:
    """The statistic on the cases as they are, and on every resample along a new first axis."""
    real = (jnp.arange(codes.shape[0]) < cases).astype(jnp.float32)
    # As many draws as there are patients.  The first ones are the same however many are made, so
    # `lots` is no part of a result, but drawing for each case would take most of the time.
    lot = (jnp.arange(lots) < patients).astype(jnp.float32)

    def one(index: jax.Array) -> Any:
        drawn = jax.random.randint(jax.random.fold_in(key, index), lot.shape, 0, patients)
        multiplicity = jnp.zeros(lot.shape, jnp.float32).at[drawn].add(lot)
        return statistic(data, jnp.where(index < resamples, multiplicity[codes], 1.0) * real)

    # The last one is no resample, so that the statistic is compiled once.
    found = jax.lax.map(one, jnp.arange(resamples + 1), batch_size=chunk)
    return jax.tree.map(lambda f: f[-1], found), jax.tree.map(lambda f: f[:-1], found)


def _weighted(
    statistic: Statistic, data: Any, codes: np.ndarray, cases: int, weights: np.ndarray
) -> tuple[Any, Any]:
    """As `_resampled`, under (R, P) weights of patients; some at a time: any R is one program."""
    size = codes.shape[0]
    chunk = max(1, min(WEIGHTS_AT_ONCE, CHUNK_ELEMENTS // size))
    table = np.concatenate([weights, np.ones((1, weights.shape[1]))]).astype(np.float32)
    blank = -len(table) % chunk, room(table.shape[1]) - table.shape[1]
    blocks = np.pad(table, [(0, n) for n in blank], constant_values=1.0)
    blocks = blocks.reshape(-1, chunk, blocks.shape[1])
    parts = [jax.device_get(_under(statistic, data, codes, np.int32(cases), b)) for b in blocks]
    found = jax.tree.map(lambda *own: np.concatenate(own)[: len(table)], *parts)
    return jax.tree.map(lambda f: f[-1], found), jax.tree.map(lambda f: f[:-1], found)


@functools.partial(jax.jit, static_argnames="statistic")
def _under(
    statistic: Statistic, data: Any, codes: jax.Array, cases: jax.Array, weights: jax.Array
) -> Any:
    real = (jnp.arange(codes.shape[0]) < cases).astype(jnp.float32)
    return jax.vmap(lambda own: statistic(data, own[codes] * real))(weights)


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
