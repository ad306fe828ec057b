import json
import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from scipy import stats

from mskjax.metrics.findings import CHI_SQUARE, FISHER, findings_rows, findings_table

GROUPS = ("benign", "malignant")


def cases(*cells):
    """Values and groups of (present, absent, unrecorded) of benign, then of malignant cases."""
    values = [np.repeat((1, 0, -1), counts) for counts in cells]
    return np.concatenate(values), np.repeat((0, 1), [len(v) for v in values])


def one(*cells):
    values, group = cases(*cells)
    (finding,) = findings_table({"oedema": values}, group, GROUPS)
    return finding


def chi_square_by_hand(a, b, c, d):
    n, rows, columns = a + b + c + d, (a + b, c + d), (a + c, b + d)
    expected = [r * k / n for r in rows for k in columns]
    statistic = sum((o - e) ** 2 / e for o, e in zip((a, b, c, d), expected, strict=True))
    return math.erfc(math.sqrt(statistic / 2))  # survival of one degree of freedom


def fisher_by_hand(a, b, c, d):
    """Sum over all tables of these margins that are no likelier, in exact arithmetic."""
    r, s, k = a + b, c + d, a + c
    weights = {
        x: math.comb(r, x) * math.comb(s, k - x) for x in range(max(0, k - s), min(r, k) + 1)
    }
    extreme = sum(w for w in weights.values() if w <= weights[a])
    return float(Fraction(extreme, sum(weights.values())))


counts = st.integers(0, 30)


@given(counts, counts, counts, counts, counts, counts)
@example(10, 10, 10, 10, 0, 0)
@example(5, 5, 5, 5, 0, 3)
@example(5, 5, 5, 4, 2, 0)
@example(0, 30, 30, 0, 0, 0)
@example(1, 0, 0, 1, 0, 0)
def test_each_finding_is_tested_as_scipy_and_the_textbook_do(a, b, c, d, e, f):
    finding = one((a, b, e), (c, d, f))
    assert finding.counts == (a, c)
    assert finding.totals == (a + b, c + d)
    if 0 in (a + b, c + d, a + c, b + d):
        assert finding.p is finding.p_holm is finding.q is finding.odds_ratio is None
        assert finding.why
        return
    n = a + b + c + d
    least = min((a + b) * (a + c), (a + b) * (b + d), (c + d) * (a + c), (c + d) * (b + d))
    table = [[a, b], [c, d]]
    if least >= 5 * n:
        assert finding.test == CHI_SQUARE
        by_hand = chi_square_by_hand(a, b, c, d)
        theirs = stats.chi2_contingency(table, correction=False).pvalue
    else:
        assert finding.test == FISHER
        by_hand, theirs = fisher_by_hand(a, b, c, d), stats.fisher_exact(table).pvalue
    assert finding.p == pytest.approx(by_hand, rel=1e-9)
    assert finding.p == pytest.approx(theirs, rel=1e-9)
    # Alone in the table there is nothing to correct for.
    assert finding.p_holm == finding.p
    assert finding.q == pytest.approx(finding.p)
    assert finding.why == ""


@given(counts, counts, counts, counts)
@example(12, 128, 40, 10)
@example(0, 12, 7, 3)
def test_the_odds_ratio_is_that_of_the_second_group_with_woolfs_interval(a, b, c, d):
    finding = one((a, b, 0), (c, d, 0))
    if finding.p is None:
        return
    zero = 0 in (a, b, c, d)
    assert finding.corrected is zero
    if not zero:
        table = stats.contingency.odds_ratio([[c, d], [a, b]], kind="sample")
        assert finding.odds_ratio == pytest.approx(table.statistic)
        theirs = table.confidence_interval(0.95)
        assert (finding.low, finding.high) == pytest.approx((theirs.low, theirs.high))
    else:
        a, b, c, d = (x + 0.5 for x in (a, b, c, d))
        assert finding.odds_ratio == pytest.approx(c * b / (d * a))
        half_width = 1.959964 * math.sqrt(1 / a + 1 / b + 1 / c + 1 / d)
        assert math.log(finding.high / finding.odds_ratio) == pytest.approx(half_width, rel=1e-6)
        assert math.log(finding.odds_ratio / finding.low) == pytest.approx(half_width, rel=1e-6)


def test_exchanging_the_groups_inverts_the_odds_ratio_and_keeps_p():
    one_way, other = one((12, 128, 0), (40, 10, 0)), one((40, 10, 0), (12, 128, 0))
    assert one_way.odds_ratio == pytest.approx(40 * 128 / (10 * 12))
    assert other.odds_ratio == pytest.approx(1 / one_way.odds_ratio)
    assert (other.low, other.high) == pytest.approx((1 / one_way.high, 1 / one_way.low))
    assert other.p == pytest.approx(one_way.p)


def test_expected_counts_of_exactly_five_are_enough_for_chi_square():
    assert one((5, 5, 0), (5, 5, 0)).test == CHI_SQUARE
    assert one((5, 5, 0), (5, 4, 0)).test == FISHER
    # Observed counts do not decide: here one is 0 and all expected ones are 10.
    assert one((0, 20, 0), (20, 0, 0)).test == CHI_SQUARE


@pytest.mark.parametrize(
    ("cells", "why"),
    [
        (((0, 4, 1), (0, 3, 0)), "absent in all cases"),
        (((4, 0, 1), (3, 0, 0)), "present in all cases"),
        (((4, 2, 0), (0, 0, 3)), "not recorded in malignant"),
        (((0, 0, 3), (4, 2, 0)), "not recorded in benign"),
        (((0, 0, 3), (0, 0, 1)), "not recorded in benign and malignant"),
    ],
)
def test_a_finding_that_cannot_be_tested_says_why(cells, why):
    finding = one(*cells)
    assert finding.why == why
    assert finding.test == ""
    figures = (finding.p, finding.p_holm, finding.q, finding.odds_ratio, finding.low, finding.high)
    assert set(figures) == {None}


def holm_by_hand(p):
    """Largest of the multiplied values up to each one, from the definition."""
    ordered = sorted(p)
    return [max(min(1, (len(p) - j) * ordered[j]) for j in range(ordered.index(x) + 1)) for x in p]


def random_findings(seed, count=8, n=60):
    rng = np.random.default_rng(seed)
    group = rng.integers(0, 2, n)
    values = {
        f"finding {i}": np.where(
            rng.random(n) < 0.1, -1, rng.random(n) < 0.3 + 0.05 * i * group
        ).astype(int)
        for i in range(count)
    }
    values["finding 2"] = np.zeros(n, int)
    values["finding 5"] = np.full(n, -1)
    return values, group


@pytest.mark.parametrize("seed", range(5))
def test_corrections_are_over_the_findings_that_were_tested(seed):
    values, group = random_findings(seed)
    found = findings_table(values, group, GROUPS)
    assert [f.name for f in found] == list(values)
    tested = [f for f in found if f.p is not None]
    assert len(tested) == 6
    p = [f.p for f in tested]
    np.testing.assert_allclose([f.q for f in tested], stats.false_discovery_control(p))
    np.testing.assert_allclose([f.p_holm for f in tested], holm_by_hand(p))
    # A finding does not depend on its neighbours but for the corrections.
    (alone,) = findings_table({"finding 7": values["finding 7"]}, group, GROUPS)
    (same,) = (f for f in found if f.name == "finding 7")
    assert (alone.p, alone.odds_ratio) == (same.p, same.odds_ratio)
    assert same.p_holm >= same.q >= same.p


def test_no_findings_at_all():
    assert findings_table({}, np.array([0, 1]), GROUPS) == []
    assert findings_rows([], GROUPS)["rows"] == []


def test_the_table_of_a_report():
    first, group = cases((12, 128, 0), (40, 10, 0))
    pedicle, _ = cases((0, 138, 2), (3, 40, 7))
    constant = np.zeros(190, int)
    values = {"convex border": first, "pedicle": pedicle, "haemangioma": constant}
    table = findings_rows(findings_table(values, group, GROUPS), GROUPS)
    assert table["title"] == "Imaging findings: benign and malignant"
    assert "odds in malignant over those in benign" in table["note"]
    assert "over 2 tested findings" in table["note"]
    by_column = [dict(zip(table["columns"], row, strict=True)) for row in table["rows"]]
    assert [row["finding"] for row in by_column] == list(values)
    convex, pedicle_row, constant_row = by_column
    assert convex["benign"] == "12 of 140 (9 %)"
    assert convex["malignant"] == "40 of 50 (80 %)"
    assert convex["odds ratio"] == 42.7
    assert convex["95 % interval"] == "17.2 to 106"
    assert convex["test"] == CHI_SQUARE
    assert convex["p"] == float(f"{chi_square_by_hand(12, 128, 40, 10):.3g}")
    assert convex["p (Holm)"] == float(f"{2 * chi_square_by_hand(12, 128, 40, 10):.3g}")
    assert convex["remark"] is None
    assert pedicle_row["test"] == FISHER
    assert pedicle_row["benign"] == "0 of 138 (0 %)"
    assert pedicle_row["p"] == float(f"{fisher_by_hand(0, 138, 3, 40):.3g}")
    assert pedicle_row["remark"] == "1/2 added to each cell for the odds ratio"
    assert constant_row["p"] is constant_row["odds ratio"] is constant_row["95 % interval"] is None
    assert constant_row["remark"] == "absent in all cases"
    # Strict JSON: no NaN, no NumPy numbers.
    assert json.loads(json.dumps(table, allow_nan=False)) == table


def test_a_group_in_which_nothing_was_recorded_has_no_share():
    values, group = cases((4, 2, 0), (0, 0, 3))
    table = findings_rows(findings_table({"x": values}, group, GROUPS), GROUPS)
    assert table["rows"][0][1:3] == ["4 of 6 (67 %)", None]


@pytest.mark.parametrize(
    ("values", "group", "names", "why"),
    [
        ([0, 1, 2], [0, 1, 1], GROUPS, "x must be one 1, 0 or -1 for each of 3 cases"),
        ([0, 1, np.nan], [0, 1, 1], GROUPS, "x must be"),
        ([0, 1], [0, 1, 1], GROUPS, "x must be"),
        ([[0, 1, 1]], [0, 1, 1], GROUPS, "x must be"),
        ([0, 1], [0, 2], GROUPS, "group must be one 0 or 1 a case"),
        ([[0, 1]], [[0, 1]], GROUPS, "group must be"),
        ([0, 1], [0, 1], ("a", "b", "c"), "two groups are compared, not 3"),
    ],
)
def test_wrong_arguments(values, group, names, why):
    with pytest.raises(ValueError, match=why):
        findings_table({"x": np.array(values)}, np.array(group), names)
