"""Operating points of a report: fitted without the patients that they are applied to."""

import json

import numpy as np
import pytest
from held_out_runs import GRADE, KIND, folds_of, names, rows_of, write_run
from sklearn.metrics import (
    balanced_accuracy_score,
    cohen_kappa_score,
    recall_score,
    roc_auc_score,
    roc_curve,
)

from mskjax import cases
from mskjax.calibration_fit import fit
from mskjax.metrics.operating_point import CRITERIA
from mskjax.reporting import operating
from mskjax.reporting.page import write_page

GRADINGS = (GRADE, KIND)
SETTINGS = {"resamples": 50, "seed": 0}


def arrays(rows):
    """Probability of malignant (NaN where missed), whether it is, folds and patients."""
    own = cases.graded(rows, KIND)
    fold = np.array([int(r["fold"]) for r in own.rows])
    p = own.probabilities(KIND, "model")[:, 1]
    return p, own.reference == 1, fold, np.array(own.patients)


def shifted(rows):
    """A network that says malignant too rarely: a half is no good threshold for it."""
    for row in rows:
        if p := row.get("p_model_kind_malignant"):
            row["p_model_kind_malignant"] = p / (p + 25 * (1 - p))
            row["p_model_kind_benign"] = 1 - row["p_model_kind_malignant"]
    return rows


@pytest.fixture(scope="module")
def rows():
    return shifted(rows_of(folds_of(names(60), 5), missed=0.1))


@pytest.fixture(scope="module")
def content(rows):
    return operating.crossed(rows, GRADINGS, "model", **SETTINGS)


def test_figures_are_those_of_thresholds_fitted_on_the_other_folds(rows, content):
    """By Youden's J of scikit-learn's ROC, fold by fold; a missed case is wrong."""
    p, positive, fold, _ = arrays(rows)
    found, calls = ~np.isnan(p), np.zeros(len(p), bool)
    for k in range(5):
        rest = found & (fold != k)
        false, true, thresholds = roc_curve(positive[rest], p[rest], drop_intermediate=False)
        calls[fold == k] = p[fold == k] >= thresholds[np.argmax(true - false)]
    calls[~found] = ~positive[~found]
    _, by_j, _ = content["kind"]["rules"]
    oracle = {
        "balanced_accuracy": balanced_accuracy_score(positive, calls),
        "sensitivity": recall_score(positive, calls),
        "specificity": recall_score(~positive, ~calls),
        "cohen_kappa": cohen_kappa_score(positive.astype(int), np.where(found, calls, 2)),
    }
    assert list(oracle) == list(operating.FIGURES)
    for name in oracle:
        assert by_j["figures"][name]["value"] == pytest.approx(oracle[name], abs=1e-6)
        low, high = by_j["figures"][name]["ci95"]
        assert low < by_j["figures"][name]["value"] < high
    assert by_j["figures"]["sensitivity"]["n"] == positive.sum()


def test_a_half_stays_what_it_was_and_a_fitted_threshold_mends_a_shift(content):
    half, *fitted = content["kind"]["rules"]
    assert half["rule"] == "half"
    assert half["figures"]["sensitivity"]["value"] < 0.6
    for rule, criterion in zip(fitted, CRITERIA, strict=True):
        assert rule["rule"] == criterion
        assert rule["figures"][criterion]["value"] > half["figures"][criterion]["value"] + 0.05
        assert [t["fold"] for t in rule["thresholds"]] == [0, 1, 2, 3, 4]
        assert all(0 < t["threshold"] < 0.4 and t["patients"] == 48 for t in rule["thresholds"])


def test_what_no_threshold_changes_stands_beside(rows, content):
    p, positive, _, _ = arrays(rows)
    priced = np.where(np.isnan(p), ~positive, p)
    own = content["kind"]
    assert own["prevalence"]["value"] == pytest.approx(positive.mean(), abs=1e-6)
    assert own["auroc"]["value"] == pytest.approx(roc_auc_score(positive, priced), abs=1e-6)
    assert list(content) == ["grade", "kind"]
    json.dumps(content, allow_nan=False)


def ordered(rows):
    """Expected class (NaN where missed), reference and fold of the grading in order."""
    own = cases.graded(rows, GRADE)
    expected = own.probabilities(GRADE, "model") @ np.arange(3)
    return expected, own.reference, np.array([int(r["fold"]) for r in own.rows])


def test_ordered_classes_are_rescaled_to_the_spread_of_other_folds(rows, content):
    """Fold by fold with NumPy; a missed case is as far off as a call can be."""
    expected, reference, fold = ordered(rows)
    found, calls = ~np.isnan(expected), np.zeros(len(fold), int)
    before = np.floor(np.nan_to_num(expected) + 0.5).astype(int)
    for k in range(5):
        e, known = (v[found & (fold != k)] for v in (expected, reference))
        slope = known.std() / e.std()
        scaled = known.mean() + slope * (np.nan_to_num(expected) - e.mean())
        calls[fold == k] = np.clip(np.floor(scaled + 0.5), 0, 2)[fold == k]
    assert (calls != before).any()
    as_expected, rescaled = content["grade"]["rules"]
    assert [as_expected["rule"], rescaled["rule"]] == ["expectation", "spread"]
    for rule, own in ((as_expected, before), (rescaled, calls)):
        assert list(rule["figures"]) == list(operating.OF_ORDERED)
        right = np.where(found, own == reference, False).mean()
        assert rule["figures"]["accuracy"]["value"] == pytest.approx(right, abs=1e-6)
        near = np.where(found, np.abs(own - reference) <= 1, False).mean()
        assert rule["figures"]["within_one_grade"]["value"] == pytest.approx(near, abs=1e-6)
    for name, minus in rescaled["minus_expectation"].items():
        gain = rescaled["figures"][name]["value"] - as_expected["figures"][name]["value"]
        assert minus["value"] == pytest.approx(gain, abs=1e-6)
    assert [t["fold"] for t in rescaled["thresholds"]] == [0, 1, 2, 3, 4]
    assert {t["patients"] for t in rescaled["thresholds"]} == {48}


def test_kappa_of_rescaled_calls_is_that_of_scikit_learn():
    rows = rows_of(folds_of(names(60), 5), sure=0.3)  # an unsure network expects the middle
    as_expected, rescaled = operating.crossed(rows, [GRADE], "model", **SETTINGS)["grade"]["rules"]
    expected, reference, fold = ordered(rows)
    calls = np.zeros(len(fold), int)
    for told in rescaled["thresholds"]:
        own = fold == told["fold"]
        calls[own] = np.clip(np.rint(told["slope"] * expected[own] + told["offset"]), 0, 2)
    kappa = cohen_kappa_score(reference, calls, weights="quadratic")
    found = rescaled["figures"]["quadratic_weighted_kappa"]
    assert found["value"] == pytest.approx(kappa, abs=1e-6)
    assert found["value"] > as_expected["figures"]["quadratic_weighted_kappa"]["value"] + 0.05
    low, high = rescaled["minus_expectation"]["quadratic_weighted_kappa"]["ci95"]
    assert 0 < low < high


def test_no_reference_of_a_fold_has_a_say_in_its_threshold(rows, content):
    other = [
        {**r, "reference_kind": "benign", "reference_grade": "none"} if r["fold"] == 2 else r
        for r in rows
    ]
    again = operating.crossed(other, GRADINGS, "model", **SETTINGS)
    fitted = [[r for task in own.values() for r in task["rules"][1:]] for own in (content, again)]
    assert len(fitted[0]) == 3
    for one, two in zip(*fitted, strict=True):
        assert one["thresholds"][2] == two["thresholds"][2]
        assert one["thresholds"][0] != two["thresholds"][0]


def test_of_one_fold_groups_of_patients_are_left_out_in_turn():
    rows = shifted(rows_of(folds_of(names(64), 4)[:1]))
    own = operating.crossed(rows, GRADINGS, "model", **SETTINGS)["kind"]
    assert [t["patients"] for t in own["rules"][1]["thresholds"]] == [12, 13, 13, 13, 13]
    assert [t["fold"] for t in own["rules"][1]["thresholds"]] == [f"group {k}" for k in range(1, 6)]
    assert "one fold" in own["fitted_on"]


def test_a_fold_whose_others_do_not_say_stays_at_a_half_with_the_reason():
    few = operating.crossed(rows_of(folds_of(names(8), 2)), GRADINGS, "model", **SETTINGS)
    rows = [{**r, "reference_kind": "malignant"} for r in rows_of(folds_of(names(30), 2))]
    alike = operating.crossed(rows, GRADINGS, "model", **SETTINGS)
    for content, why in ((few, "4 patients, fewer than 10"), (alike, "all cases are positive")):
        for rule in content["kind"]["rules"][1:]:
            for own in rule["thresholds"]:
                assert (own["threshold"], own["why"]) == (0.5, f"not fitted: {why}")
    assert alike["kind"]["rules"][1]["figures"]["balanced_accuracy"]["value"] is None


def test_other_patients_are_called_at_the_threshold_that_the_run_keeps(tmp_path, rows):
    run = write_run(tmp_path / "run", folds_of(names(60), 5), rows)
    kept = fit(run, GRADINGS)
    t = kept["tasks"]["kind"]["model"]["thresholds"]["balanced_accuracy"]["value"]
    others = shifted(rows_of(folds_of([f"p{i}" for i in range(100, 130)], 1)))
    own = operating.given(others, GRADINGS, "model", kept, **SETTINGS)["kind"]
    p, positive, _, _ = arrays(others)
    rule = own["rules"][1]
    assert [told["threshold"] for told in rule["thresholds"]] == [t]
    expected = balanced_accuracy_score(positive, p >= t)
    assert rule["figures"]["balanced_accuracy"]["value"] == pytest.approx(expected, abs=1e-6)
    (table,) = operating.tables({"kind": own}, {"kind": {"prevalence": {"value": 0.3}}})
    assert table["rows"][1][1] == f"fitted for balanced accuracy, p ≥ {t:.3f}".replace("0.", ".")
    assert table["rows"][0][-1] == {"value": 0.3}
    nothing = operating.given(others, GRADINGS, "model", {"tasks": {}}, **SETTINGS)
    for task in ("grade", "kind"):
        rules = nothing[task]["rules"]
        assert rules[1]["figures"] == rules[0]["figures"]
        assert rules[1]["thresholds"][0]["why"] == "not fitted: the run has no such case"


def test_other_patients_are_rescaled_as_the_run_keeps_it(tmp_path, rows):
    kept = fit(write_run(tmp_path / "run", folds_of(names(60), 5), rows), GRADINGS)
    scale = kept["tasks"]["grade"]["model"]["scale"]
    others = rows_of(folds_of([f"p{i}" for i in range(100, 130)], 1))
    own = operating.given(others, GRADINGS, "model", kept, **SETTINGS)
    expected, reference, _ = ordered(others)
    calls = np.clip(np.floor(scale["slope"] * expected + scale["offset"] + 0.5), 0, 2)
    rescaled = own["grade"]["rules"][1]
    assert rescaled["figures"]["accuracy"]["value"] == pytest.approx(np.mean(calls == reference))
    assert len(rescaled["thresholds"]) == 1
    table = next(t for t in operating.tables(own, {}) if t["id"] == "scale")
    assert table["title"] == "On the scale of the run"
    assert table["rows"][1][1].startswith(f"rescaled, {scale['slope']:.2f} e ")


def test_the_page_has_a_section_of_them(content, report, run_dir, tmp_path):
    page = write_page({**report, "operating": content}, run_dir, tmp_path).read_text()
    section = page[page.index('<section id="operating">') :]
    section = section[: section.index("</section>")]
    value = content["kind"]["rules"][1]["figures"]["balanced_accuracy"]["value"]
    texts = ["At a fitted threshold", "p ≥ .5", f"{value:.3f}", "Prevalence", "other folds"]
    value = content["grade"]["rules"][1]["figures"]["quadratic_weighted_kappa"]["value"]
    texts += ["On a fitted scale", "rescaled", f"{value:.3f}", "The scales of each fold"]
    for text in texts:
        assert text in section
    without = write_page({**report, "operating": {}}, run_dir, tmp_path).read_text()
    assert '<section id="operating">' not in without
    assert operating.tables({}) == []
