import dataclasses
import itertools
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from sklearn import metrics as sk

from mskjax.metrics import readers as r
from mskjax.metrics.grading import Grading
from mskjax.metrics.grading_figures import label_figures
from mskjax.metrics.intervals import holm

BOOTSTRAP = {"resamples": 200, "seed": 5}
N = 40
RNG = np.random.default_rng(2)
REFERENCE = (np.arange(N) % 3 == 0).astype(int)


def calls(share_right, rng=RNG):
    return np.where(rng.random(N) < share_right, REFERENCE, 1 - REFERENCE)


HAND = calls(0.9)
FOUND = np.where(np.arange(N) % 10 == 4, 2, HAND)
SENIOR, RESIDENT = calls(0.95), calls(0.7)
JUNIOR = np.where(np.arange(N) % 4 == 1, r.UNREAD, calls(0.6))
STUDY = r.ReaderStudy(
    reference=REFERENCE,
    patients=[f"p{i}" for i in range(N)],
    models={"by hand": HAND, "detected": FOUND},
    readers={"senior": SENIOR, "resident": RESIDENT, "junior": JUNIOR},
)

# Diagnoses of 30 patients by 6 psychiatrists in 5 categories: Fleiss 1971, table 1.
DIAGNOSES = """
00060 03003 01401 00006 03030 20400 00402 20310 20040 00006 10050 11040 03300 10050 02031
00501 30012 51000 02040 10203 00006 01050 02013 20040 10041 05010 40002 02040 10500 00006
"""


def cell(table, row, column):
    found = [line for line in table["rows"] if line[: len(row)] == list(row)]
    assert len(found) == 1
    return found[0][table["columns"].index(column)]


def tables(study=STUDY, **changes):
    found = r.compare(dataclasses.replace(study, **changes), **BOOTSTRAP)
    json.dumps(found, allow_nan=False)
    for table in found:
        assert set(table) == {"title", "note", "columns", "rows"}
        assert {len(row) for row in table["rows"]} == {len(table["columns"])}
    return {table["title"]: table for table in found}


WHOLE = tables()


def ratings_of(counts):
    return np.array([[k for k, n in enumerate(row) for _ in range(n)] for row in counts])


def test_fleiss_kappa_of_the_example_of_1971():
    counts = np.array([[int(n) for n in row] for row in DIAGNOSES.split()])
    assert counts.sum(0).tolist() == [26, 26, 30, 55, 43]
    assert float(r.fleiss_kappa(ratings_of(counts), 5)) == pytest.approx(0.430, abs=5e-4)


def kappa_by_pairs(ratings, classes, weights):
    raters = ratings.shape[1]
    pairs = list(itertools.permutations(range(raters), 2))
    agree = [np.mean([row[a] == row[b] for a, b in pairs]) for row in ratings]
    share = [np.average((ratings == k).mean(1), weights=weights) for k in range(classes)]
    expected = np.square(share).sum()
    return (np.average(agree, weights=weights) - expected) / (1 - expected)


@settings(max_examples=40)
@given(st.data())
def test_fleiss_kappa_is_agreement_of_pairs_whatever_the_order_of_raters_and_classes(data):
    ratings = np.array(
        data.draw(st.lists(st.tuples(*[st.integers(0, 2)] * 4), min_size=6, max_size=6))
    )
    weights = np.array(data.draw(st.lists(st.integers(0, 3), min_size=6, max_size=6)))
    found = float(r.fleiss_kappa(ratings, 3, weights))
    if len(np.unique(ratings[weights > 0])) < 2:
        assert np.isnan(found)
        return
    assert found == pytest.approx(kappa_by_pairs(ratings, 3, weights), abs=1e-5)
    raters, names = data.draw(st.permutations(range(4))), data.draw(st.permutations(range(3)))
    renamed = np.array(names)[ratings[:, raters]]
    assert float(r.fleiss_kappa(renamed, 3, weights)) == pytest.approx(found, abs=1e-5)
    assert found <= 1


def test_fleiss_kappa_leaves_out_cases_with_a_hole_and_needs_two_raters():
    ratings = RNG.integers(0, 2, (8, 3))
    holes = np.concatenate([ratings, [[0, -1, 1], [2, 1, 1]]])
    assert float(r.fleiss_kappa(holes, 2)) == pytest.approx(float(r.fleiss_kappa(ratings, 2)))
    assert np.isnan(r.fleiss_kappa(np.full((2, 2), -1), 2))
    with pytest.raises(ValueError, match="1 rater"):
        r.fleiss_kappa(ratings[:, :1], 2)


@pytest.mark.parametrize(
    ("row", "given_calls"),
    [("by hand", HAND), ("detected", FOUND), ("senior", SENIOR), ("junior", JUNIOR)],
)
def test_figures_have_wilson_intervals_of_the_cases_read(row, given_calls):
    table = WHOLE["Readers and model"]
    read = given_calls != r.UNREAD
    reference, own = REFERENCE[read], given_calls[read]
    assert cell(table, [row], "n read") == read.sum()
    right = reference == own
    shares = {
        "Accuracy": right,
        "Sensitivity": right[reference == 1],
        "Specificity": right[reference == 0],
        "PPV": right[own == 1],
        "NPV": right[own == 0],
    }
    for column, share in shares.items():
        found = cell(table, [row], column)
        expected = stats.binomtest(int(share.sum()), len(share)).proportion_ci(method="wilson")
        assert found["value"] == pytest.approx(share.mean())
        assert found["ci95"] == pytest.approx([expected.low, expected.high], abs=1e-9)
        assert (found["n"], found["patients"]) == (len(share), len(share))
        assert found["method"] == "Wilson score interval"
    assert "Wilson" in table["note"]


def test_models_and_readers_stand_in_the_order_given():
    names = [row[0] for row in WHOLE["Readers and model"]["rows"]]
    assert names == ["by hand", "detected", "senior", "resident", "junior"]
    pairs = [tuple(row[:2]) for row in WHOLE["McNemar"]["rows"]]
    assert pairs == list(itertools.product(STUDY.readers, STUDY.models))


@pytest.mark.parametrize(("reader", "model"), list(itertools.product(STUDY.readers, STUDY.models)))
def test_mcnemar_compares_on_the_cases_read_and_a_missed_region_is_wrong(reader, model):
    table = WHOLE["McNemar"]
    read = STUDY.readers[reader] != r.UNREAD
    ours, theirs = ((x == REFERENCE)[read] for x in (STUDY.models[model], STUDY.readers[reader]))
    counts = [(ours == a) & (theirs == b) for a, b in ((1, 1), (1, 0), (0, 1), (0, 0))]
    expected = [int(c.sum()) for c in counts]
    columns = ("Both right", "Only model right", "Only reader right", "Both wrong")
    assert [cell(table, [reader, model], c) for c in columns] == expected
    assert cell(table, [reader, model], "n") == sum(expected) == read.sum()
    p = stats.binomtest(expected[1], expected[1] + expected[2]).pvalue
    assert cell(table, [reader, model], "p") == pytest.approx(p)
    difference = cell(table, [reader, model], "Accuracy, model minus reader")
    assert difference["value"] == pytest.approx(ours.mean() - theirs.mean(), abs=1e-6)
    assert difference["ci95"][0] <= difference["value"] <= difference["ci95"][1]
    assert difference["n"] == read.sum()


def test_p_values_are_corrected_over_the_table():
    table = WHOLE["McNemar"]
    p, corrected = ([row[k] for row in table["rows"]] for k in (-2, -1))
    assert corrected == pytest.approx(holm(p))
    assert "APPROXIMATE" not in table["note"]


def test_agreement_is_cohens_of_every_pair_and_fleiss_of_all_on_cases_all_have_read():
    table = WHOLE["Agreement"]
    rated = {**STUDY.readers, **STUDY.models}
    assert len(table["rows"]) == 10 + 3
    for a, b in itertools.combinations(rated, 2):
        read = (rated[a] >= 0) & (rated[b] >= 0)
        kappa = cell(table, [f"{a} and {b}", "Cohen's kappa"], "Kappa")
        expected = sk.cohen_kappa_score(rated[a][read], rated[b][read])
        assert kappa["value"] == pytest.approx(expected, abs=1e-5)
        assert kappa["ci95"][0] <= kappa["value"] <= kappa["ci95"][1]
        assert kappa["n"] == cell(table, [f"{a} and {b}"], "n") == read.sum()
    for extra in ([], ["by hand"], ["detected"]):
        names = [*STUDY.readers, *extra]
        together = np.stack([rated[name] for name in names], 1)[JUNIOR >= 0]
        kappa = cell(table, ["; ".join(names), "Fleiss' kappa"], "Kappa")
        expected = kappa_by_pairs(together, 3, np.ones(len(together)))
        assert kappa["value"] == pytest.approx(expected, abs=1e-5)
        assert kappa["n"] == 30


def test_several_cases_of_a_patient_give_bootstrap_intervals_and_approximate_p():
    found = tables(patients=[f"p{i // 2}" for i in range(N)])
    own = found["Readers and model"]
    accuracy = cell(own, ["senior"], "Accuracy")
    assert accuracy["method"].startswith("patient bootstrap")
    assert (accuracy["n"], accuracy["patients"]) == (N, N // 2)
    before = cell(WHOLE["Readers and model"], ["senior"], "Accuracy")
    assert accuracy["value"] == pytest.approx(before["value"], abs=1e-6)
    assert "patient bootstrap" in own["note"]
    assert "Wilson" not in own["note"]
    # They are the figures that a report has of the same calls under the same names.
    grading = Grading("fracture", ("benign", "malignant"))
    patients = [f"p{i // 2}" for i in range(N)]
    expected = label_figures(grading, REFERENCE, FOUND, patients, **BOOTSTRAP)
    names = {"Accuracy": "accuracy", "Sensitivity": "sensitivity", "Specificity": "specificity"}
    for column, name in {**names, "PPV": "ppv", "NPV": "npv"}.items():
        assert cell(own, ["detected"], column) == expected[name]
    assert "APPROXIMATE" in found["McNemar"]["note"]


def test_a_reader_who_read_nothing_has_reasons_in_place_of_figures():
    found = tables(readers={**STUDY.readers, "absent": np.full(N, r.UNREAD)})
    row = [cell(found["Readers and model"], ["absent"], c) for c in ("n read", "Accuracy", "PPV")]
    assert row[0] == 0
    assert [(e["value"], e["why"]) for e in row[1:]] == [(None, "no case read")] * 2
    test = found["McNemar"]
    assert cell(test, ["absent", "by hand"], "n") == 0
    assert cell(test, ["absent", "by hand"], "p") is None
    assert cell(test, ["absent", "by hand"], "p (Holm)") is None
    assert cell(test, ["absent", "by hand"], "Accuracy, model minus reader")["value"] is None
    # Who read nothing takes nothing from the others.
    assert test["rows"][:6] == WHOLE["McNemar"]["rows"]
    fleiss = ["; ".join(STUDY.readers), "Fleiss' kappa"]
    assert cell(found["Agreement"], fleiss, "Kappa") == cell(WHOLE["Agreement"], fleiss, "Kappa")
    kappa = cell(found["Agreement"], ["senior and absent"], "Kappa")
    assert (kappa["value"], kappa["why"]) == (None, "no case read by all")


def test_readers_of_one_class_only_have_reasons_in_place_of_figures():
    benign = np.zeros(N, int)
    found = tables(readers={"a": benign, "b": benign})
    ppv = cell(found["Readers and model"], ["a"], "PPV")
    assert (ppv["value"], ppv["why"], ppv["n"]) == (None, "no case was called positive", 0)
    for row in (["a and b"], ["a; b"]):
        kappa = cell(found["Agreement"], row, "Kappa")
        assert kappa["value"] is None
        assert "all calls are the same" in kappa["why"]
    # Against one who does call positives, chance explains all agreement: that is a figure.
    assert cell(found["Agreement"], ["a and by hand"], "Kappa")["value"] == pytest.approx(0)


def test_the_rule_takes_the_models_call_only_where_it_is_sure():
    p = np.float32([0.9, 0.89, 0.1, 0.11, 0.0, 1.0, np.nan, 0.95])
    reader = np.array([0, 0, 1, 1, 1, 0, 1, r.UNREAD])
    np.testing.assert_array_equal(r.aided_by_rule(reader, p), [1, 0, 0, 1, 0, 1, 1, r.UNREAD])
    np.testing.assert_array_equal(r.aided_by_rule(reader, p, 1.0), [0, 0, 1, 1, 0, 1, 1, r.UNREAD])
    for sure in (0.5, 1.1):
        with pytest.raises(ValueError, match=f"sure is {sure}"):
            r.aided_by_rule(reader, p, sure)


def test_aid_by_rule_says_that_nobody_observed_it():
    p = np.where(HAND == 1, 0.95, 0.3).astype(np.float32)
    found = tables(probability=p)
    table = found.pop("Readers aided by the model's call, BY RULE, NOT OBSERVED")
    assert found == WHOLE
    assert "BY RULE, NOT OBSERVED" in table["note"]
    assert '"by hand" is at most 0.1 or at least 0.9' in table["note"]
    aided = np.where(HAND == 1, 1, SENIOR)
    assert cell(table, ["senior"], "Accuracy aided")["value"] == (aided == REFERENCE).mean()


def test_the_rule_shows_no_reader_what_a_missed_region_costs():
    # In missed cases the probability is the worst of the class, which gives the reference away.
    p = np.where(REFERENCE == 1, 0, 1).astype(np.float32)
    missed = np.full(N, 2)
    (table,) = (
        t for title, t in tables(models={"none": missed}, probability=p).items() if "RULE" in title
    )
    for row in table["rows"]:
        difference = row[table["columns"].index("Aided minus alone")]
        assert (difference["value"], difference["ci95"]) == (0, [0, 0])


def test_observed_aid_is_compared_on_the_cases_read_both_ways_and_needs_no_rule():
    aided = np.where(np.arange(N) % 5 == 0, r.UNREAD, REFERENCE)
    found = tables(
        aided={"junior": aided, "unknown": aided}, probability=np.full(N, 0.99, np.float32)
    )
    assert cell(found["Readers and model"], ["junior, aided by the model"], "n read") == 32
    table = found["Readers aided by the model's call"]
    both = (JUNIOR >= 0) & (aided >= 0)
    alone = (JUNIOR == REFERENCE)[both]
    assert cell(table, ["junior"], "n") == both.sum()
    assert cell(table, ["junior"], "Accuracy alone")["value"] == pytest.approx(alone.mean())
    assert cell(table, ["junior"], "Accuracy aided")["value"] == 1
    difference = cell(table, ["junior"], "Aided minus alone")
    assert difference["value"] == pytest.approx(1 - alone.mean(), abs=1e-6)
    assert cell(table, ["junior"], "Made right") == (~alone).sum()
    assert cell(table, ["junior"], "Made wrong") == 0
    p = stats.binomtest(int((~alone).sum()), int((~alone).sum())).pvalue
    assert cell(table, ["junior"], "McNemar p") == pytest.approx(p)
    # Who never read alone cannot be compared.
    assert cell(table, ["unknown"], "n") == 0
    assert cell(table, ["unknown"], "McNemar p") is None


def test_the_order_of_readers_changes_nothing_else():
    swapped = tables(readers=dict(reversed(STUDY.readers.items())))
    for title in ("Readers and model", "McNemar"):
        assert sorted(map(str, swapped[title]["rows"])) == sorted(map(str, WHOLE[title]["rows"]))
    kappas = [
        sorted(row[-1]["value"] for row in found["Agreement"]["rows"]) for found in (swapped, WHOLE)
    ]
    assert kappas[0] == pytest.approx(kappas[1], abs=1e-5)


@settings(max_examples=15)
@given(st.data())
def test_any_study_is_compared_and_swapping_the_classes_swaps_the_figures(data):
    def drawn(*values):
        return np.array(data.draw(st.lists(st.sampled_from(values), min_size=4, max_size=4)))

    def swapped(calls):
        return np.where((calls == 0) | (calls == 1), 1 - calls, calls)

    study = r.ReaderStudy(
        drawn(0, 1), "abcd", {"m": drawn(0, 1, 2)}, {x: drawn(-1, 0, 1) for x in "AB"}
    )
    other = r.ReaderStudy(
        1 - study.reference,
        "abcd",
        {"m": swapped(study.models["m"])},
        {name: swapped(calls) for name, calls in study.readers.items()},
    )
    ours, theirs = tables(study), tables(other)
    assert ours["McNemar"] == theirs["McNemar"]
    mirrored = [0, 1, 2, 4, 3, 6, 5]
    for row, mirror in zip(
        ours["Readers and model"]["rows"], theirs["Readers and model"]["rows"], strict=True
    ):
        kept = [mirror[k] for k in mirrored]
        assert row[:2] == kept[:2]
        assert [e["value"] for e in row[2:]] == [e["value"] for e in kept[2:]]
    for row, mirror in zip(ours["Agreement"]["rows"], theirs["Agreement"]["rows"], strict=True):
        assert row[:3] == mirror[:3]
        assert row[3]["value"] == pytest.approx(mirror[3]["value"], abs=1e-5)


def test_a_study_without_readers_has_the_models_alone():
    found = tables(readers={})
    assert list(found) == ["Readers and model", "Agreement"]


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"reference": REFERENCE - 1}, "reference holds values other than"),
        ({"reference": REFERENCE[:-1]}, "reference has shape"),
        ({"models": {"m": JUNIOR}}, "m holds values other than"),
        ({"readers": {"A": FOUND}}, "A holds values other than"),
        ({"aided": {"A": FOUND}}, "A holds values other than"),
        ({"readers": {"by hand": SENIOR}}, "by hand.* names of readers and of models"),
        ({"probability": np.zeros(3)}, "one number a case"),
        ({"models": {}, "probability": np.zeros(N)}, "of the first model"),
    ],
)
def test_wrong_studies_are_refused(changes, problem):
    with pytest.raises(ValueError, match=problem):
        dataclasses.replace(STUDY, **changes)
