"""Figures of several methods from rows made by hand, against scikit-learn and NumPy."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as sk

from mskjax.metrics import comparison, estimates
from mskjax.metrics.comparison import Grading, calls

NOMINAL = Grading("modic", "", ("mc0", "mc1", "mc2"), ordinal=False)
ORDINAL = Grading("grade", "_grade", ("i", "ii", "iii", "iv"), ordinal=True)
BINARY = Grading("presence", "", ("absent", "present"), ordinal=False)
METHODS = ("none", "z_score_volume")
MISSED = (3, 17)
SETTINGS = {"resamples": 20, "seed": 0}


def probabilities(reference, classes, seed):
    """(N, K) probabilities that lean to the reference, as cases.csv holds them."""
    rng = np.random.default_rng(seed)
    p = rng.dirichlet(np.ones(classes), len(reference)) + 0.6 * np.eye(classes)[reference]
    return (p / p.sum(1, keepdims=True)).round(6)


def table(grading, count=40, missed=MISSED):
    """Rows as text and the arrays that they were made of."""
    classes = len(grading.classes)
    reference = np.arange(count) % classes
    methods = {m: probabilities(reference, classes, i) for i, m in enumerate(METHODS)}
    oracle = probabilities(reference, classes, 9)
    ridge = np.random.default_rng(5).integers(0, classes, count)
    rows = []
    for i in range(count):
        row = {"patient": f"p{i // 2}", f"reference_{grading.name}": reference[i]}
        row[f"majority_{grading.name}"] = 1
        row[f"ridge_{grading.name}"] = "" if i in missed else ridge[i]
        for k in range(classes):
            for name, p in methods.items():
                row[f"p_{name}_{grading.name}_{k}"] = "" if i in missed else p[i, k]
                row[f"oracle_p_{name}_{grading.name}_{k}"] = oracle[i, k]
        rows.append({name: str(value) for name, value in row.items()})
    return rows, reference, methods, oracle, ridge


def summary(grading, methods=METHODS, **changes):
    rows, *arrays = table(grading, **changes)
    empty = ("end_to_end", "oracle_region", "baselines", "confusion")
    report = {name: {} for name in empty} | {"tables": []}
    comparison.summarise(report, rows, grading, methods, **SETTINGS)
    return (report, *arrays)


def value(figures, name):
    return figures[name]["value"]


def predicted_labels(p, ordinal, missed=MISSED):
    chosen = [np.searchsorted(np.cumsum(row), 0.5) for row in p] if ordinal else p.argmax(1)
    out = np.array(chosen)
    out[list(missed)] = p.shape[1]
    return out


def weighted_kappa(reference, predicted, classes):
    """Quadratic weighted kappa in which a missed case weighs as much as the worst grade."""
    seen = np.zeros((classes, classes + 1))
    np.add.at(seen, (reference, predicted), 1)
    cost = np.square(np.subtract.outer(np.arange(classes), np.arange(classes + 1.0)))
    cost[:, classes] = (classes - 1) ** 2
    chance = np.outer(seen.sum(1), seen.sum(0)) / seen.sum()
    return 1 - (cost * seen).sum() / (cost * chance).sum()


@given(st.lists(st.integers(0, 9), min_size=5, max_size=5).filter(any))
@settings(max_examples=60, deadline=None)
def test_the_call_of_ordered_classes_is_the_least_wrong_one_on_average(counts):
    p = np.array(counts) / np.sum(counts)
    (chosen,) = calls(p[None], ordinal=True)
    costs = np.abs(np.subtract.outer(np.arange(5), np.arange(5))) @ p
    assert costs[chosen] == pytest.approx(costs.min())
    assert calls(p[None], ordinal=False)[0] == p.argmax()


def test_calls_of_missed_regions_and_of_rounded_probabilities():
    p = np.array([[0.4, 0.3, 0.3], [np.nan] * 3, [0.1, 0.2, 0.7], [0.2, 0.2, 0.099999]])
    assert calls(p, ordinal=True).tolist() == [1, 3, 2, 2]
    assert calls(p, ordinal=False).tolist() == [0, 3, 2, 0]


@pytest.fixture(scope="module")
def nominal():
    return summary(NOMINAL)


@pytest.fixture(scope="module")
def ordinal():
    return summary(ORDINAL)


def test_nominal_figures_agree_with_scikit_learn_and_missed_rows_are_wrong(nominal):
    report, reference, methods, oracle, _ = nominal
    own = methods["none"].copy()
    for place, p, missed in (("end_to_end", own, MISSED), ("oracle_region", oracle, ())):
        figures, predicted = report[place], predicted_labels(p, False, missed)
        labels, every = np.arange(3), np.arange(4)
        expected = {
            "accuracy": sk.accuracy_score(reference, predicted),
            "balanced_accuracy": sk.recall_score(
                reference, predicted, labels=labels, average="macro"
            ),
            "f1": sk.f1_score(reference, predicted, labels=labels, average="macro"),
            "f1_weighted": sk.f1_score(reference, predicted, labels=labels, average="weighted"),
            "cohen_kappa": sk.cohen_kappa_score(reference, predicted, labels=every),
        }
        recalls = sk.recall_score(reference, predicted, labels=labels, average=None)
        expected |= {f"sensitivity_mc{k}": r for k, r in enumerate(recalls)}
        for row in missed:
            p[row] = (np.arange(3) != reference[row]) / 2
        expected["brier"] = np.square(p - np.eye(3)[reference]).sum(1).mean()
        for name, correct in expected.items():
            assert value(figures, name) == pytest.approx(correct, abs=1e-5), (place, name)
        assert figures["accuracy"]["n"] == 40
        assert 0 <= value(figures, "ece") <= 1
        assert "auroc" not in figures


def test_ordinal_figures_agree_with_scikit_learn_and_missed_rows_are_far_off(ordinal):
    report, reference, methods, oracle, _ = ordinal
    ideal = predicted_labels(oracle, True, ())
    figures = report["oracle_region"]
    kappa = sk.cohen_kappa_score(reference, ideal, weights="quadratic")
    assert value(figures, "quadratic_weighted_kappa_grade") == pytest.approx(kappa, abs=1e-5)
    near = np.abs(reference - ideal) <= 1
    assert value(figures, "within_one_grade_grade") == pytest.approx(near.mean(), abs=1e-6)

    figures, predicted = report["end_to_end"], predicted_labels(methods["none"], True)
    # A missed region of the highest grade is next to the number that stands for missed.
    assert reference[MISSED[0]] == 3
    near = (np.abs(reference - predicted) <= 1) & (predicted < 4)
    expected = {
        "quadratic_weighted_kappa": weighted_kappa(reference, predicted, 4),
        "within_one_grade": near.mean(),
        "accuracy": sk.accuracy_score(reference, predicted),
        "balanced_accuracy": sk.recall_score(
            reference, predicted, labels=np.arange(4), average="macro"
        ),
    }
    for name, correct in expected.items():
        assert value(figures, f"{name}_grade") == pytest.approx(correct, abs=1e-5), name
    assert all(name.endswith("_grade") for name in figures)


def test_two_classes_have_an_auroc():
    report, reference, methods, oracle, _ = summary(BINARY, methods=METHODS[:1])
    p = methods["none"][:, 1].copy()
    p[list(MISSED)] = 1 - reference[list(MISSED)]
    for place, scores in (("end_to_end", p), ("oracle_region", oracle[:, 1])):
        correct = sk.roc_auc_score(reference, scores)
        assert value(report[place], "auroc") == pytest.approx(correct, abs=1e-5)
    (only,) = report["tables"]  # one method is compared with nothing
    assert only["title"].startswith("What missed regions cost")


def test_baselines_and_the_difference_to_them(nominal):
    report, reference, methods, _, ridge = nominal
    ridge = ridge.copy()
    ridge[list(MISSED)] = 3
    found = report["baselines"]
    assert value(found["majority"], "balanced_accuracy") == pytest.approx(1 / 3, abs=1e-6)
    assert value(found["majority"], "cohen_kappa") == pytest.approx(0, abs=1e-6)
    assert value(found["ridge"], "accuracy") == pytest.approx((ridge == reference).mean())
    ours = predicted_labels(methods["none"], False)
    difference = found["model_minus_ridge"]["accuracy"]
    expected = (ours == reference).mean() - (ridge == reference).mean()
    assert difference["value"] == pytest.approx(expected, abs=1e-6)
    low, high = difference["ci95"]
    assert low < difference["value"] < high


def test_missed_rows_have_a_column_of_the_confusion(nominal):
    report, reference, methods, _, _ = nominal
    entry = report["confusion"]["modic"]
    assert entry["labels"] == ["mc0", "mc1", "mc2", "missed"]
    expected = sk.confusion_matrix(
        reference, predicted_labels(methods["none"], False), labels=np.arange(4)
    )
    np.testing.assert_array_equal(entry["matrix"], expected[:3])


def test_the_table_of_methods_compares_each_with_the_standard_one(nominal, ordinal):
    for report, reference, methods, *_ in (nominal, ordinal):
        found, _ = report["tables"]
        assert [row[0] for row in found["rows"]] == ["none", "z-score volume"]
        assert {len(row) for row in found["rows"]} == {len(found["columns"])}
        cells = [dict(zip(found["columns"], row, strict=True)) for row in found["rows"]]
        ordered = report is ordinal[0]
        right = [
            sk.recall_score(
                reference,
                predicted_labels(methods[m], ordered),
                labels=np.unique(reference),
                average="macro",
            )
            for m in METHODS
        ]
        assert [c["Balanced accuracy"]["value"] for c in cells] == pytest.approx(right, abs=1e-5)
        titles = [t for t in found["columns"] if t.endswith("minus z-score volume")]
        assert titles
        for title in titles:
            name = title.split(",")[0]
            difference = cells[0][name]["value"] - cells[1][name]["value"]
            assert cells[0][title]["value"] == pytest.approx(difference, abs=1e-5)
            assert cells[1][title] == "–"


def test_found_regions_alone_stand_beside_all_of_them(nominal, ordinal):
    for report, reference, methods, *_ in (nominal, ordinal):
        found = report["tables"][1]
        cells = [dict(zip(found["columns"], row, strict=True)) for row in found["rows"]]
        assert [c["n"] for c in cells] == [len(reference), len(reference) - len(MISSED)]
        assert all(c["Balanced accuracy"]["n"] == c["n"] for c in cells)
        kept = np.delete(np.arange(len(reference)), MISSED)
        ours = predicted_labels(methods["none"], report is ordinal[0])
        expected = sk.balanced_accuracy_score(reference[kept], ours[kept])
        assert cells[1]["Balanced accuracy"]["value"] == pytest.approx(expected, abs=1e-5)
        assert cells[1]["Balanced accuracy"]["value"] > cells[0]["Balanced accuracy"]["value"]


def test_a_method_differs_from_its_copy_by_nothing():
    rows, *_ = table(NOMINAL)
    for row in rows:
        row |= {
            k.replace("p_none", "p_min_max"): v for k, v in row.items() if k.startswith("p_none")
        }
    report = {k: {} for k in ("end_to_end", "oracle_region", "baselines", "confusion")}
    report["tables"] = []
    # Without the standard method the first one takes its place.
    comparison.summarise(report, rows, NOMINAL, ("none", "min_max"), **SETTINGS)
    copy = report["tables"][0]["rows"][1]
    assert report["tables"][0]["columns"][-1].endswith("minus none")
    for cell in copy[-2:]:
        assert (cell["value"], *cell["ci95"]) == (0, 0, 0)


def test_subgroups_are_figures_of_their_own_rows():
    rows, reference, methods, *_ = table(NOMINAL)
    mask = np.arange(40) < 20
    groups = {"level": {"low": mask, "high": ~mask}, "sex": {}}
    found = comparison.subgroup_figures(rows, NOMINAL, "none", groups, **SETTINGS)
    assert set(found) == {"level"}
    right = predicted_labels(methods["none"], False) == reference
    for name, inside in groups["level"].items():
        figure = found["level"][name]["accuracy"]
        assert figure["value"] == pytest.approx(right[inside].mean())
        assert figure["n"] == 20


def test_means_leave_empty_cells_out_and_ratios_divide_sums():
    cells = (("1", "2", "4"), ("", "1", "2"), ("4", "0", "3"))
    rows = [
        {"patient": f"p{i}", "gaps": a, "right": b, "found": c} for i, (a, b, c) in enumerate(cells)
    ]
    means = estimates.means(rows, ("gaps", "right"), **SETTINGS)
    assert (means["gaps"]["value"], means["gaps"]["n"]) == (2.5, 2)
    assert (means["right"]["value"], means["right"]["n"]) == (1, 3)
    share = estimates.ratios(rows, {"share": ("right", "found")}, **SETTINGS)["share"]
    assert share["value"] == pytest.approx(3 / 9)
    low, high = share["ci95"]
    assert 0 <= low < share["value"] < high <= 0.5
    assert estimates.means([], ("gaps",), **SETTINGS) == {}
    assert estimates.ratios([], {"share": ("right", "found")}, **SETTINGS) == {}
