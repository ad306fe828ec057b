"""References that held-out networks doubt, by patient, and figures without the most doubtful."""

import json

import numpy as np
import pytest
from held_out_runs import GRADE, KIND, folds_of, names, rows_of
from sklearn.metrics import cohen_kappa_score, roc_auc_score

from mskjax import cases
from mskjax.reporting import doubts
from mskjax.reporting.page import write_page

GRADINGS = (GRADE, KIND)
SETTINGS = {"resamples": 50, "seed": 0}
WRONG = ("p7", "p31")  # patients whose every label is turned round


@pytest.fixture(scope="module")
def rows():
    turned = {"none": "severe", "mild": "severe", "severe": "none"}
    other = {"benign": "malignant", "malignant": "benign"}
    found = rows_of(folds_of(names(40), 5), each=6, missed=0.05)
    for row in found:
        if row["patient"] in WRONG:
            row["reference_grade"] = turned[row["reference_grade"]]
            row["reference_kind"] = other[row["reference_kind"]]
    return found


@pytest.fixture(scope="module")
def content(rows):
    return doubts.doubtful(rows, GRADINGS, "model", **SETTINGS)


def test_patients_with_wrong_labels_come_first(content):
    assert {one["patient"] for one in content["grade"]["patients"][:2]} == set(WRONG)
    # Two classes that overlap leave more doubt.
    assert {one["patient"] for one in content["kind"]["patients"][:6]} >= set(WRONG)
    for own in content.values():
        assert len(own["patients"]) == doubts.LISTED
        scores = [one["score"] for one in own["patients"]]
        assert scores == sorted(scores)
    json.dumps(content, allow_nan=False)


def test_a_score_is_the_surprise_beyond_what_the_network_expects(rows, content):
    first = content["grade"]["patients"][0]
    own = cases.graded([r for r in rows if r["patient"] == first["patient"]], GRADE)
    p = own.probabilities(GRADE, "model")
    surprises, likelihoods, offsets = [], [], []
    for line, reference in zip(p, own.reference, strict=True):
        if np.isnan(line).any():
            continue
        logs = np.log(np.maximum(line, 1e-6))
        surprises.append(logs[reference] - (line * logs).sum())
        likelihoods.append(logs[reference])
        offsets.append(line @ [0, 1, 2] - reference)
    assert first["cases"] == len(surprises)
    assert first["score"] == pytest.approx(np.mean(surprises))
    assert first["likelihood"] == pytest.approx(np.exp(np.mean(likelihoods)))
    assert first["offset"] == pytest.approx(np.mean(offsets))
    assert first["least"]["p"] == pytest.approx(np.exp(min(likelihoods)), abs=1e-6)
    assert content["kind"]["patients"][0]["offset"] is None  # two classes have no offset


def test_an_unsure_network_doubts_nobody():
    rows = rows_of(folds_of(names(20), 2), sure=0.0)
    own = doubts.doubtful(rows, [GRADE], "model", **SETTINGS)["grade"]
    assert [one["score"] for one in own["patients"]] == pytest.approx([0.0] * 12, abs=1e-5)


def test_figures_without_the_doubtful_are_beside_those_of_all(rows, content):
    own = content["kind"]
    assert (own["left_out"], own["of"]) == (2, 40)  # 5 % of them
    out = {one["patient"] for one in own["patients"][:2]}
    for name, kept in (("all", rows), ("without", [r for r in rows if r["patient"] not in out])):
        graded = cases.graded(kept, KIND)
        p = graded.probabilities(KIND, "model")[:, 1]
        priced = np.where(np.isnan(p), graded.reference == 0, p)
        auroc = own["figures"][name]["auroc"]
        assert auroc["value"] == pytest.approx(roc_auc_score(graded.reference, priced), abs=1e-6)
        assert auroc["n"] == len(kept)
    graded = cases.graded([r for r in rows if r["patient"] not in WRONG], GRADE)
    p = graded.probabilities(GRADE, "model")
    found = ~np.isnan(p).any(1)
    oracle = cohen_kappa_score(graded.reference[found], GRADE.calls(p[found]), weights="quadratic")
    figures = content["grade"]["figures"]["without"]
    # Missed regions are in the figure and cost something; the oracle knows none.
    assert oracle - 0.3 < figures["quadratic_weighted_kappa"]["value"] < oracle


def test_at_least_one_patient_is_left_out_and_two_say_nothing():
    few = doubts.doubtful(rows_of(folds_of(names(4), 2)), GRADINGS, "model", **SETTINGS)
    assert few["grade"]["left_out"] == 1
    assert doubts.doubtful(rows_of(folds_of(names(2), 2)), GRADINGS, "model", **SETTINGS) == {}
    lost = rows_of(folds_of(names(6), 2), missed=1.0)
    for row in lost:  # as where another method found something
        row.update({f"p_model_{g.task}_{k}": "" for g in GRADINGS for k in g.classes})
    assert doubts.doubtful(lost, GRADINGS, "model", **SETTINGS) == {}


def test_the_page_marks_them_and_leads_to_the_pictures(content, report, run_dir, tmp_path):
    patient = content["grade"]["patients"][0]["patient"]
    picture = {**report["pictures"][0], "path": f"fold_0/pictures/{patient}.png"}
    changed = {**report, "doubts": content, "pictures": [*report["pictures"], picture]}
    page = write_page(changed, run_dir, tmp_path).read_text()
    section = page[page.index('<section id="doubts">') :]
    section = section[: section.index("</section>")]
    place = f"picture-{len(report['pictures'])}"
    assert f'<a href="#{place}">{patient}</a>' in section
    assert page.count(f'id="{place}"') == 1
    for text in ("SENSITIVITY ANALYSIS", "not a result", "a hard or unusual case looks the same"):
        assert text in section
    assert doubts.studies_of(content)[0] == patient
    without = write_page({**report, "doubts": {}}, run_dir, tmp_path).read_text()
    assert '<section id="doubts">' not in without
