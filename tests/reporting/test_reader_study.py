"""Readers of any system beside its model, against scikit-learn and SciPy."""

import numpy as np
import pytest
from scipy.stats import binomtest
from sklearn.metrics import accuracy_score, cohen_kappa_score

from mskjax.errors import UserError
from mskjax.metrics.grading import Grading
from mskjax.reporting import reader_study

PFIRRMANN = Grading("pfirrmann", ("i", "ii", "iii", "iv", "v"), ordinal=True)
SEVERITY = Grading("severity", ("mild", "severe"))
SETS = {"mild": [1, 2], "severe": [4, 5]}
SETTINGS = {"resamples": 100, "seed": 0}


def rows_of(grading, missed=()):
    """Twelve studies of two discs; the model is right in most."""
    rng, rows = np.random.default_rng(0), []
    for i in range(24):
        study, level = f"s{i // 2:02d}", i % 2 + 1
        reference = rng.integers(len(grading.classes))
        p = rng.dirichlet(np.ones(len(grading.classes)))
        p[reference] += 0.5
        p /= p.sum()
        row = {
            "kind": "grade",
            "study": study,
            "patient": f"p{i // 4}",
            "case": f"{study}/{level}",
            "level": f"level {level}",
            f"reference_{grading.task}": grading.classes[reference],
        }
        for k, name in enumerate(grading.classes):
            row[f"oracle_p_model_{grading.task}_{name}"] = str(p[k])
            row[f"p_model_{grading.task}_{name}"] = "" if i in missed else str(p[k])
        rows.append(row)
    return rows


@pytest.fixture
def load(tmp_path):
    def of(lines, rows, grading=PFIRRMANN, sets=None):
        path = tmp_path / "readers.csv"
        path.write_text("\n".join(["study_id,level,reader,call,aided_call", *lines]) + "\n")
        return reader_study.load(path, rows, grading, sets or {})

    return of


def test_calls_are_classes_or_grades_as_cohorts_write_them(load):
    rows = rows_of(PFIRRMANN)
    lines = ["s00,1,senior,3,", "s00,2,senior,IV,5", "s01,1,senior,,"]
    assert load(lines, rows) == [
        {"case": "s00/1", "reader": "senior", "call": "iii", "aided_call": ""},
        {"case": "s00/2", "reader": "senior", "call": "iv", "aided_call": "v"},
        {"case": "s01/1", "reader": "senior", "call": "", "aided_call": ""},
    ]
    rows = rows_of(SEVERITY)
    assert [r["call"] for r in load(["s00,1,a,5,", "s00,2,a,mild,"], rows, SEVERITY, SETS)] == [
        "severe", "mild",
    ]  # fmt: skip
    goutallier = Grading("goutallier", ("grade_0", "grade_1", "grade_2"), ordinal=True)
    assert load(["s00,1,a,2,"], rows_of(goutallier), goutallier)[0]["call"] == "grade_2"


def test_a_study_of_one_case_needs_no_level(load):
    rows = [r for r in rows_of(PFIRRMANN) if r["level"] == "level 1"]
    assert load(["s03,,senior,3,"], rows)[0]["case"] == "s03/1"


@pytest.mark.parametrize(
    ("lines", "sentence"),
    [
        (["nobody,1,a,3,"], "readers.csv, line 2: no held-out case is level 1 of study 'nobody'"),
        (["s00,7,a,3,"], "no held-out case is level 7 of study 's00'"),
        (["s00,,a,3,"], "study 's00', which has several: give the level"),
        (["s00,1,a,six,"], "call is 'six'; it must be one of i, ii, iii, iv, v"),
        (["s00,1,a,6,"], "call is '6'"),
        (["s00,1,a,3,x"], "aided_call is 'x'"),
        (["s00,1,,3,"], "reader is empty"),
        (["s00,1,a,3,", "s00,1,a,4,"], "line 3: a has read s00/1 twice"),
        ([f"none{i},1,a,3," for i in range(9)], "and 4 more"),
    ],
)
def test_what_is_wrong_is_named_with_its_line(load, lines, sentence):
    with pytest.raises(UserError) as found:
        load(lines, rows_of(PFIRRMANN))
    assert sentence in str(found.value)


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(UserError, match="is no file"):
        reader_study.load(tmp_path / "none.csv", rows_of(PFIRRMANN), PFIRRMANN, {})


@pytest.fixture(scope="module")
def study():
    """Tables of two readers of Pfirrmann grades, one of whom has read half; two are missed."""
    rows, rng = rows_of(PFIRRMANN, missed=(3, 10)), np.random.default_rng(1)
    reference = np.array([PFIRRMANN.classes.index(r["reference_pfirrmann"]) for r in rows])
    senior = np.clip(reference + rng.integers(-1, 2, 24), 0, 4)
    junior = np.clip(reference + rng.integers(-2, 3, 24), 0, 4)
    calls = [
        {"case": r["case"], "reader": name, "call": PFIRRMANN.classes[own[i]], "aided_call": ""}
        for i, r in enumerate(rows)
        for name, own in (("senior", senior), ("junior", junior))
        if name == "senior" or i % 2
    ]
    tables = reader_study.tables(calls, rows, PFIRRMANN, "model", **SETTINGS)
    p = np.array([[float(r[f"oracle_p_model_pfirrmann_{c}"]) for c in PFIRRMANN.classes]
                  for r in rows])  # fmt: skip
    given = PFIRRMANN.calls(p)
    found = given.copy()
    found[[3, 10]] = 5
    return {t["title"]: t for t in tables}, reference, senior, junior, given, found


def test_figures_of_readers_are_those_of_their_calls(study):
    tables, reference, senior, junior, _, found = study
    own = tables["Readers and model"]
    assert own["id"] == "readers"
    rows = {r[0]: dict(zip(own["columns"][1:], r[1:], strict=True)) for r in own["rows"]}
    assert list(rows) == [reader_study.ORACLE, reader_study.FOUND, "senior", "junior"]
    assert rows["senior"]["Accuracy"]["value"] == pytest.approx(accuracy_score(reference, senior))
    half = np.arange(24) % 2 == 1
    expected = cohen_kappa_score(reference[half], junior[half], weights="quadratic",
                                 labels=range(5))  # fmt: skip
    kappa = rows["junior"]["Quadratic weighted kappa with the reference"]
    assert kappa["value"] == pytest.approx(expected, abs=1e-5)
    assert rows["junior"]["n read"] == 12
    assert rows[reader_study.FOUND]["Accuracy"]["value"] == pytest.approx(
        np.mean(found == reference)
    )
    assert "missed is an error" in own["note"]


def test_mcnemar_is_that_of_right_calls(study):
    tables, reference, senior, _, given, _ = study
    own = tables["McNemar"]
    row = next(r for r in own["rows"] if r[:2] == ["senior", reader_study.ORACLE])
    right_model, right_reader = given == reference, senior == reference
    only = int((right_model & ~right_reader).sum()), int((~right_model & right_reader).sum())
    assert row[own["columns"].index("p")] == pytest.approx(binomtest(only[0], sum(only)).pvalue)
    assert "APPROXIMATE" in own["note"]  # several discs of a patient


def test_agreement_has_both_kappas_between_readers(study):
    tables, _, senior, junior, given, _ = study
    own = tables["Agreement"]
    rows = {tuple(r[:2]): r[3]["value"] for r in own["rows"]}
    half = np.arange(24) % 2 == 1
    for name, weights in (("Cohen's kappa", None), ("Quadratic weighted kappa", "quadratic")):
        expected = cohen_kappa_score(senior[half], junior[half], weights=weights, labels=range(5))
        assert rows["senior and junior", name] == pytest.approx(expected, abs=1e-5)
    ours = f"senior and {reader_study.ORACLE}", "Quadratic weighted kappa"
    expected = cohen_kappa_score(senior, given, weights="quadratic", labels=range(5))
    assert rows[ours] == pytest.approx(expected, abs=1e-5)
    # Two models have no reader among them.
    both = f"{reader_study.ORACLE} and {reader_study.FOUND}"
    assert (both, "Quadratic weighted kappa") not in rows
    assert (both, "Cohen's kappa") in rows


def test_no_aid_is_made_up_for_grades(study):
    assert not any("aided" in title for title in study[0])


def test_readers_of_two_classes_stand_in_the_roc_figure():
    rows = rows_of(SEVERITY)
    reference = np.array([r["reference_severity"] == "severe" for r in rows])
    called = reference ^ (np.arange(24) % 5 == 0)
    calls = [{"case": r["case"], "reader": "a", "call": SEVERITY.classes[int(c)]}
             for r, c in zip(rows, called, strict=True)]  # fmt: skip
    (point,) = reader_study.operating(calls, rows, SEVERITY)
    assert point["label"] == "a"
    assert point["tpr"] == pytest.approx(called[reference].mean())
    assert point["fpr"] == pytest.approx(called[~reference].mean())
    assert reader_study.operating(calls, rows, PFIRRMANN) == []


def test_calls_are_kept_with_the_report(tmp_path):
    assert reader_study.kept(tmp_path) == []
    calls = [{"case": "s/1", "reader": "a", "call": "i", "aided_call": ""}]
    reader_study.keep(tmp_path, calls)
    assert reader_study.kept(tmp_path) == calls
