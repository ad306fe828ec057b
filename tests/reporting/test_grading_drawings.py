"""What is drawn of a grading, against scikit-learn and sums by hand."""

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, roc_auc_score

from mskjax.metrics.grading import Grading
from mskjax.reporting import grading_drawings as drawings
from mskjax.reporting.grading_drawings import Scores

GRADES = Grading("g", ("a", "b", "c"), ordinal=True)
SETTINGS = {"resamples": 200, "seed": 0}


@pytest.fixture
def cases():
    rng = np.random.default_rng(0)
    reference = rng.integers(0, 3, 80)
    p = rng.dirichlet([1, 1, 1], 80).astype(np.float32)
    p[np.arange(80), reference] += 0.2
    return p / p.sum(1, keepdims=True), reference, [f"p{i // 4}" for i in range(80)]


def test_curves_have_area_band_and_prevalence(cases):
    p, reference, patients = cases
    found = drawings.curves([Scores("c v rest", reference == 2, p[:, 2], patients)], **SETTINGS)
    (roc,), (precision,) = found["roc"], found["precision_recall"]
    assert roc["auroc"]["value"] == pytest.approx(roc_auc_score(reference == 2, p[:, 2]))
    low, high = roc["auroc"]["ci95"]
    assert low < roc["auroc"]["value"] < high
    assert (roc["auroc"]["n"], roc["auroc"]["patients"]) == (80, 20)
    expected = average_precision_score(reference == 2, p[:, 2])
    assert precision["average_precision"]["value"] == pytest.approx(expected)
    assert precision["prevalence"] == pytest.approx((reference == 2).mean())
    assert len(roc["band"]) == len(precision["band"]) == 41


def test_the_area_of_the_tables_is_kept(cases):
    p, reference, patients = cases
    known = {"value": 0.5, "ci95": [0.4, 0.6], "n": 80, "patients": 20}
    own = Scores("end to end", reference == 2, p[:, 2], patients, known)
    assert drawings.curves([own], **SETTINGS)["roc"][0]["auroc"] == known


def test_one_class_has_no_curve(cases):
    p, reference, patients = cases
    found = drawings.curves([Scores("none", reference == 9, p[:, 2], patients)], **SETTINGS)
    assert found["roc"] == [{"label": "none", "points": [], "band": [], "auroc": None}]
    assert found["precision_recall"][0]["points"] == []


def test_bins_hold_their_share_in_the_interval(cases):
    p, reference, patients = cases
    bins = drawings.calibration(p, reference, patients, **SETTINGS)
    assert sum(b["n"] for b in bins) == 80
    assert all(b["ci95"][0] <= b["accuracy"] <= b["ci95"][1] for b in bins if b["ci95"])
    assert any(b["ci95"] and b["ci95"][0] < b["ci95"][1] for b in bins)


def test_agreement_is_that_of_bland_and_altman(cases):
    p, reference, patients = cases
    found = drawings.agreement(GRADES, p, reference, patients, **SETTINGS)
    difference = p @ np.arange(3) - reference
    assert found["bias"]["value"] == pytest.approx(difference.mean(), abs=1e-5)
    spread = 1.96 * difference.std(ddof=1)
    expected = [difference.mean() - spread, difference.mean() + spread]
    assert found["limits"] == pytest.approx(expected, abs=1e-5)
    assert found["bias"]["ci95"][0] < found["bias"]["value"] < found["bias"]["ci95"][1]
    mean, own = np.array(found["points"])[7]
    assert own == pytest.approx(difference[7], abs=1e-3)
    assert mean == pytest.approx((p[7] @ np.arange(3) + reference[7]) / 2, abs=1e-3)
    assert drawings.agreement(GRADES, p[:1], reference[:1], patients[:1], **SETTINGS) == {}
