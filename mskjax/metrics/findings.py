"""Qualitative imaging findings (present or absent) compared between two groups of patients.

The usual table of a radiological study: how often each finding was seen in, say, benign and
malignant fractures, whether the groups differ, and by how much.
"""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from scipy import stats

from mskjax.metrics.intervals import holm

CHI_SQUARE = "chi-square"
FISHER = "Fisher's exact"
# Below this expected count in any cell the chi-square approximation is not trusted (Cochran 1954).
LEAST_EXPECTED = 5
_Z95 = 1.959963984540054


@dataclasses.dataclass(frozen=True)
class Finding:
    """One finding in two groups, over the cases in which it was recorded.

    Attributes:
      name: of the finding.
      counts: cases of the first and the second group that have it.
      totals: cases of each group in which it was recorded.
      test: `CHI_SQUARE` or `FISHER`; "" where there is none.
      p: two-sided p value, None where there is no test.
      p_holm: p corrected by Holm's step-down method over all findings that have a p.
      q: p corrected by Benjamini and Hochberg over the same (false discovery rate).
      odds_ratio: odds of the finding in the second group over those in the first.
      low: lower bound of its 95 % interval.
      high: upper bound.
      corrected: whether a cell is 0 and 1/2 was added to each of the four for the odds ratio.
      why: reason of the missing test; "" where there is one.
    """

    name: str
    counts: tuple[int, int]
    totals: tuple[int, int]
    test: str = ""
    p: float | None = None
    p_holm: float | None = None
    q: float | None = None
    odds_ratio: float | None = None
    low: float | None = None
    high: float | None = None
    corrected: bool = False
    why: str = ""


def findings_table(
    present: Mapping[str, np.ndarray], group: np.ndarray, group_names: Sequence[str]
) -> list[Finding]:
    """Compares each finding between two groups.

    Pearson's chi-square test without continuity correction where all four expected counts are at
    least 5, else Fisher's exact test.  The odds ratio has Woolf's (logit) interval, after the
    Haldane-Anscombe correction where a cell is 0.

    Args:
      present: finding -> (N,) int; 1 present, 0 absent, -1 not recorded.
      group: (N,) int, 0 or 1.
      group_names: of groups 0 and 1, e.g. ("benign", "malignant").

    Returns:
      One entry a finding, in the order given.  A finding that no case of a group has recorded, or
      that all cases or none have, is described but not tested, and does not count in the
      corrections for multiple testing.

    Raises:
      ValueError: a shape or value is not as above.
    """
    group = np.asarray(group)
    if len(group_names) != 2:
        raise ValueError(f"two groups are compared, not {len(group_names)}")
    if group.ndim != 1 or not np.isin(group, (0, 1)).all():
        raise ValueError("group must be one 0 or 1 a case")
    return _corrected(
        [_compare(name, np.asarray(v), group, group_names) for name, v in present.items()]
    )


def odds_ratio(table: np.ndarray) -> tuple[float, float, float]:
    """Odds ratio of a 2x2 table and its 95 % interval.

    ``OR = ad / bc`` with the limits ``exp(ln OR -+ 1.96 sqrt(1/a + 1/b + 1/c + 1/d))``.  Where a
    cell is 0, 1/2 is added to each.

    Args:
      table: (2, 2) counts ``[[a, b], [c, d]]``; no row and no column is all 0.

    Returns:
      Odds ratio, lower limit, upper limit.

    Sources: Woolf, Ann Hum Genet 1955;19:251; Haldane, Ann Hum Genet 1956;20:309; Anscombe,
    Biometrika 1956;43:461.
    """
    cells = np.asarray(table, np.float64)
    cells = cells + 0.5 if (cells == 0).any() else cells
    (a, b), (c, d) = np.log(cells).tolist()
    log_ratio = a + d - b - c
    margin = _Z95 * math.sqrt((1 / cells).sum())
    return math.exp(log_ratio), math.exp(log_ratio - margin), math.exp(log_ratio + margin)


def findings_rows(findings: Sequence[Finding], group_names: Sequence[str]) -> dict[str, Any]:
    """The findings as a table of a report.

    Args:
      findings: of `findings_table`.
      group_names: as given to it.

    Returns:
      ``title``, ``note``, ``columns`` (names) and ``rows`` (lists of text, numbers of three
      significant digits, or None), one row a finding, in their order.
    """
    first, second = group_names
    tested = sum(f.p is not None for f in findings)
    note = (
        f"Cases with the finding of those in which it was recorded. Odds ratio: the odds in "
        f"{second} over those in {first}, with Woolf's interval. Pearson's chi-square test without "
        f"continuity correction where all expected counts are at least {LEAST_EXPECTED}, else "
        f"Fisher's exact test, two-sided. Corrected over {tested} tested "
        f"finding{'' if tested == 1 else 's'}: p by Holm, q by Benjamini and Hochberg."
    )
    columns = ["finding", first, second, "odds ratio", "95 % interval", "test"]
    columns += ["p", "p (Holm)", "q", "remark"]
    return {
        "title": f"Imaging findings: {first} and {second}",
        "note": note,
        "columns": columns,
        "rows": [_row(f) for f in findings],
    }


def _compare(
    name: str, values: np.ndarray, group: np.ndarray, group_names: Sequence[str]
) -> Finding:
    if values.shape != group.shape or not np.isin(values, (-1, 0, 1)).all():
        raise ValueError(f"{name} must be one 1, 0 or -1 for each of {len(group)} cases")
    counts = tuple(int(np.sum((values == 1) & (group == g))) for g in (0, 1))
    totals = tuple(int(np.sum((values >= 0) & (group == g))) for g in (0, 1))
    finding = Finding(name, (counts[0], counts[1]), (totals[0], totals[1]))
    why = _why_untested(finding, group_names)
    if why:
        return dataclasses.replace(finding, why=why)
    # Rows: second group, first group; columns: present, absent.
    table = np.array([[counts[g], totals[g] - counts[g]] for g in (1, 0)])
    test, p = _test(table)
    ratio, low, high = odds_ratio(table)
    return dataclasses.replace(
        finding,
        test=test,
        p=p,
        odds_ratio=ratio,
        low=low,
        high=high,
        corrected=bool((table == 0).any()),
    )


def _why_untested(finding: Finding, group_names: Sequence[str]) -> str:
    missing = [n for n, total in zip(group_names, finding.totals, strict=True) if total == 0]
    if missing:
        return f"not recorded in {' and '.join(missing)}"
    if sum(finding.counts) == 0:
        return "absent in all cases"
    if finding.counts == finding.totals:
        return "present in all cases"
    return ""


def _test(table: np.ndarray) -> tuple[str, float]:
    if stats.contingency.expected_freq(table).min() >= LEAST_EXPECTED:
        return CHI_SQUARE, float(stats.chi2_contingency(table, correction=False).pvalue)
    return FISHER, float(stats.fisher_exact(table).pvalue)


def _corrected(findings: Sequence[Finding]) -> list[Finding]:
    tested = [f.p for f in findings if f.p is not None]
    rates = iter(stats.false_discovery_control(tested) if tested else ())
    return [
        f if f.p is None else dataclasses.replace(f, p_holm=p_holm, q=float(next(rates)))
        for f, p_holm in zip(findings, holm([f.p for f in findings]), strict=True)
    ]


def _row(finding: Finding) -> list[str | float | None]:
    interval = (
        None
        if finding.low is None or finding.high is None
        else f"{finding.low:.3g} to {finding.high:.3g}"
    )
    remark = "1/2 added to each cell for the odds ratio" if finding.corrected else finding.why
    return [
        finding.name.replace("_", " "),
        *(_share(n, total) for n, total in zip(finding.counts, finding.totals, strict=True)),
        _rounded(finding.odds_ratio),
        interval,
        finding.test or None,
        _rounded(finding.p),
        _rounded(finding.p_holm),
        _rounded(finding.q),
        remark or None,
    ]


def _share(count: int, total: int) -> str | None:
    return f"{count} of {total} ({100 * count / total:.0f} %)" if total else None


def _rounded(value: float | None) -> float | None:
    return None if value is None else float(f"{value:.3g}")
