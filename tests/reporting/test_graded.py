"""One summariser for all gradings: from rows of cases.csv to the parts of a report."""

import itertools
import json
import runpy
from pathlib import Path

import numpy as np
import pytest
from sklearn import metrics as sk

from mskjax import cases, systems
from mskjax.config import StudyConfig, parse
from mskjax.metrics import grading_figures as g
from mskjax.metrics.grading import Grading
from mskjax.reporting import graded
from mskjax.reporting.graded import Comparison

EXPERIMENTS = Path(__file__).resolve().parents[2] / "experiments"
TWO = Grading("presence", ("absent", "present"))
THREE = Grading("modic", ("mc0", "mc1", "mc2"))
ORDERED = Grading("narrowing", ("none", "mild", "severe"), ordinal=True)
COUNT = 40
MISSED = (3, 17)
NO_REGION = (0, 17, 33)  # cases without a reference region
METHODS = {"none": "none", "z_score_volume": "z-score volume"}
COMPARISON = Comparison(METHODS, "z_score_volume", "Normalisations", "Normalisation", "A note.")
SETTINGS = {"resamples": 20, "seed": 0}


class Table:
    """Cases of some gradings: the arrays, and the rows of cases.csv that hold them."""

    def __init__(self, gradings, methods=(cases.MODEL,), count=COUNT, missed=MISSED):
        self.reference, self.p, self.oracle, self.ridge, self.majority = {}, {}, {}, {}, {}
        self.ideal = {}  # of all methods; `oracle` is the first one's
        self.patients = [f"p{i // 2}" for i in range(count)]
        self.folds = np.arange(count) // 4 % 3
        self.rows = [
            {"kind": "grade", "fold": fold, "patient": patient, "study": f"s{i}", "case": f"s{i}"}
            for i, (fold, patient) in enumerate(zip(self.folds, self.patients, strict=True))
        ]
        for grading in gradings:
            self._add(grading, list(methods), count, missed)
        self.rows = [{k: str(v) for k, v in row.items()} for row in self.rows]

    def _add(self, grading, methods, count, missed):
        classes, task = len(grading.classes), grading.task
        rng = np.random.default_rng((classes, count))
        reference = np.arange(count) % classes
        drawn = rng.dirichlet(np.ones(classes), (2 * len(methods), count))
        drawn = (drawn + 0.6 * np.eye(classes)[reference]) / 1.6
        p, ideal = np.split(drawn.round(6), 2)
        p[:, list(missed)] = np.nan
        ideal[:, [i for i in NO_REGION if i < count]] = np.nan
        oracle, self.ideal[task] = ideal[0], dict(zip(methods, ideal, strict=True))
        ridge = (reference + rng.normal(0, 0.7, count)).round(6)
        ridge[list(missed)] = np.nan
        self.reference[task], self.oracle[task], self.ridge[task] = reference, oracle, ridge
        self.p[task], self.majority[task] = dict(zip(methods, p, strict=True)), 1
        for i, row in enumerate(self.rows):
            row |= cases.cells(
                grading,
                int(reference[i]),
                {m: _or_none(self.p[task][m][i]) for m in methods},
                {m: _or_none(self.ideal[task][m][i]) for m in methods},
                {"majority": 1, "ridge": None if i in missed else ridge[i]},
            )

    def figures(self, grading, p, inside=slice(None)):
        """What `metrics.grading_figures` says of probabilities."""
        reference, p = self.reference[grading.task][inside], p[inside]
        patients = np.array(self.patients)[inside].tolist()
        priced = grading.priced(reference, p)
        return g.figures(grading, reference, grading.calls(p), priced, patients, **SETTINGS)


def _or_none(values):
    return None if np.isnan(values).any() else values


def summarise(table, gradings, **more):
    report = graded.summarise(table.rows, gradings, **SETTINGS, **more)
    json.dumps(report, allow_nan=False)
    return report


def strata(rows):
    """Groups of a cohort: the first half of the cases and the rest; one group has no strata."""
    first = np.arange(len(rows)) < len(rows) // 2
    return {"half": {"first": first, "second": ~first}, "sex": {}}


@pytest.fixture(scope="module")
def nominal():
    table = Table([THREE], METHODS)
    return table, summarise(table, [THREE], comparison=COMPARISON, groups=strata)


@pytest.fixture(scope="module")
def several():
    table = Table([ORDERED, TWO], METHODS)
    return table, summarise(table, [ORDERED, TWO], comparison=COMPARISON, groups=strata)


def titles(report):
    return [table["title"] for table in report["tables"]]


def cells(table):
    assert {len(row) for row in table["rows"]} == {len(table["columns"])}
    return [dict(zip(table["columns"], row, strict=True)) for row in table["rows"]]


def named_figures(report):
    """Every place of a report that names figures -> the names."""
    places = {place: report[place] for place in ("end_to_end", "oracle_region", "folds")}
    places |= report["baselines"]
    for group, parts in report["subgroups"].items():
        places |= {f"{group} {stratum}": figures for stratum, figures in parts.items()}
    return {place: list(figures) for place, figures in places.items()}


def test_one_grading_carries_its_task_as_well(nominal):
    for place, names in named_figures(nominal[1]).items():
        assert "balanced_accuracy_modic" in names, place
        assert all(name.endswith("_modic") for name in names), place


def test_figures_of_classes_and_pairs_are_told_from_the_leading_ones(nominal, several):
    """At most about a dozen of a grading lead a report, whatever the number of its classes."""
    for (_, report), gradings in ((nominal, [THREE]), (several, [ORDERED, TWO])):
        assert list(report["gradings"]) == [grading.task for grading in gradings]
        for grading in gradings:
            own = report["gradings"][grading.task]
            assert set(own["further"]) < set(own["figures"]) <= set(report["end_to_end"])
            leading = [name for name in own["figures"] if name not in own["further"]]
            assert len(leading) <= 14
            assert not any("_vs_" in name for name in leading)
            if len(grading.classes) > 2:
                ends = tuple(f"_{name}_{grading.task}" for name in grading.classes)
                assert not any(name.endswith(ends) for name in leading)
                assert all(name.endswith(ends) for name in own["further"])
    union = [name for own in report["gradings"].values() for name in own["figures"]]
    assert union == list(report["end_to_end"])


def test_several_gradings_carry_their_tasks_everywhere(several):
    for place, names in named_figures(several[1]).items():
        tasks = ("_narrowing",) if place.startswith("half") else ("_narrowing", "_presence")
        assert all(name.endswith(tasks) for name in names), place
        assert {f"accuracy{task}" for task in tasks} <= set(names), place
    for drawn in ("confusion", "calibration", "roc"):
        assert list(several[1][drawn]) == ["narrowing", "presence"]


def test_figures_are_those_of_the_grading_end_to_end_and_on_reference_regions(nominal, several):
    for (table, report), gradings in ((nominal, [THREE]), (several, [ORDERED, TWO])):
        for grading in gradings:
            task = grading.task
            ours = g.named(table.figures(grading, table.p[grading.task]["none"]), task)
            assert {k: report["end_to_end"][k] for k in ours} == ours
            there = ~np.isnan(table.oracle[grading.task]).any(1)
            ideal = g.named(table.figures(grading, table.oracle[grading.task], there), task)
            assert {k: report["oracle_region"][k] for k in ideal} == ideal


def test_the_oracle_is_of_the_cases_that_have_a_reference_region(nominal):
    table, report = nominal
    there = np.delete(np.arange(COUNT), NO_REGION)
    calls = table.oracle["modic"][there].argmax(1)
    accuracy = report["oracle_region"]["accuracy_modic"]
    assert accuracy["n"] == COUNT - len(NO_REGION)
    assert accuracy["value"] == pytest.approx(np.mean(calls == table.reference["modic"][there]))
    assert accuracy["patients"] == len({table.patients[i] for i in there})
    assert report["end_to_end"]["accuracy_modic"]["n"] == COUNT


def test_without_any_reference_region_there_is_no_oracle():
    rows = [
        {k: v for k, v in row.items() if not k.startswith("oracle")} for row in Table([TWO]).rows
    ]
    report = graded.summarise(rows, [TWO], **SETTINGS)
    assert report["oracle_region"] == {}
    assert report["end_to_end"]["accuracy_presence"]["n"] == COUNT
    assert [curve["label"] for curve in report["roc"]["presence"]] == ["end to end", "ridge"]


def test_baselines_and_the_difference_to_ridge(nominal):
    table, report = nominal
    reference, found = table.reference["modic"], report["baselines"]
    assert list(found) == ["majority", "ridge", "model_minus_majority", "model_minus_ridge"]
    majority = np.full(COUNT, 1)
    assert found["majority"]["accuracy_modic"]["value"] == pytest.approx(np.mean(reference == 1))
    assert found["majority"]["balanced_accuracy_modic"]["value"] == pytest.approx(1 / 3)
    assert found["majority"]["cohen_kappa_modic"]["value"] == pytest.approx(0, abs=1e-6)
    ridge = THREE.rounded(table.ridge["modic"])
    assert ridge[list(MISSED)].tolist() == [3, 3]
    ours = THREE.calls(table.p["modic"]["none"])
    for name, calls in (("majority", majority), ("ridge", ridge)):
        expected = g.label_figures(THREE, reference, calls, table.patients, **SETTINGS)
        assert found[name] == g.named(expected, "modic")
    difference = found["model_minus_ridge"]["accuracy_modic"]
    expected = np.mean(ours == reference) - np.mean(ridge == reference)
    assert difference["value"] == pytest.approx(expected, abs=1e-6)
    assert difference["ci95"][0] < difference["value"] < difference["ci95"][1]
    assert not any(name.startswith("auroc") for name in found["model_minus_ridge"])


def test_a_ridge_of_two_classes_is_ranked_by_its_score(several):
    table, report = several
    reference, score = table.reference["presence"], table.ridge["presence"]
    priced = TWO.priced_scores(reference, score)
    expected = sk.roc_auc_score(reference, priced)
    ridge = report["baselines"]["ridge"]
    assert ridge["auroc_presence"]["value"] == pytest.approx(expected, abs=1e-5)
    ours = sk.roc_auc_score(reference, TWO.priced(reference, table.p["presence"]["none"])[:, 1])
    difference = report["baselines"]["model_minus_ridge"]["auroc_presence"]
    assert difference["value"] == pytest.approx(ours - expected, abs=1e-5)
    curve = report["roc"]["presence"][-1]
    assert curve["label"] == "ridge"
    assert sk.auc(*np.transpose(curve["points"])) == pytest.approx(expected, abs=1e-5)
    assert curve["auroc"] == ridge["auroc_presence"]


def test_curves_of_two_classes_and_of_more(nominal, several):
    table, report = several
    labels = [curve["label"] for curve in report["roc"]["presence"]]
    assert labels == ["end to end", "reference region", "ridge"]
    assert report["roc"]["presence"][0]["auroc"] == report["end_to_end"]["auroc_presence"]
    assert report["roc"]["presence"][1]["auroc"] == report["oracle_region"]["auroc_presence"]
    table, report = nominal
    reference = table.reference["modic"]
    p = THREE.priced(reference, table.p["modic"]["none"])
    assert [c["label"] for c in report["roc"]["modic"]] == [
        "mc0 v rest",
        "mc1 v rest",
        "mc2 v rest",
    ]
    areas = [sk.auc(*np.transpose(curve["points"])) for curve in report["roc"]["modic"]]
    assert areas == pytest.approx(
        [sk.roc_auc_score(reference == k, p[:, k]) for k in range(3)], abs=1e-5
    )
    mean = report["end_to_end"]["auroc_ovr_macro_modic"]["value"]
    assert mean == pytest.approx(np.mean(areas), abs=1e-5)


def test_missed_regions_have_a_column_of_the_confusion(nominal):
    table, report = nominal
    entry = report["confusion"]["modic"]
    assert entry["labels"] == ["mc0", "mc1", "mc2", "missed"]
    calls = THREE.calls(table.p["modic"]["none"])
    expected = sk.confusion_matrix(table.reference["modic"], calls, labels=range(4))
    np.testing.assert_array_equal(entry["matrix"], expected[:3])
    assert sum(bin["n"] for bin in report["calibration"]["modic"]) == COUNT


def test_the_table_of_methods_compares_each_with_the_standard_one(nominal, several):
    for (table, report), grading in ((nominal, THREE), (several, ORDERED), (several, TWO)):
        assert report["tables_title"] == "Normalisations"
        (found,) = (t for t in report["tables"] if t["title"] == f"Normalisations: {grading.task}")
        assert found["note"].startswith("A note.  The last row is an ensemble and no candidate")
        assert found["columns"][0] == "Normalisation"
        *own, _ = cells(found)
        assert [row["Normalisation"] for row in own] == list(METHODS.values())
        reference = table.reference[grading.task]
        right = [
            sk.recall_score(
                reference,
                grading.calls(table.p[grading.task][m]),
                labels=np.unique(reference),
                average="macro",
            )
            for m in METHODS
        ]
        assert [r["Balanced accuracy"]["value"] for r in own] == pytest.approx(right, abs=1e-5)
        against = [t for t in found["columns"] if t.endswith(", minus z-score volume")]
        assert len(against) == (1 if grading.ordinal else 2)
        for title in against:
            name = title.split(",")[0]
            difference = own[0][name]["value"] - own[1][name]["value"]
            assert own[0][title]["value"] == pytest.approx(difference, abs=1e-5)
            assert own[1][title] == "–"


@pytest.mark.parametrize("oracle", [False, True])
def test_the_last_row_is_the_mean_of_the_probabilities_of_all_methods(nominal, several, oracle):
    """End to end, and on the cases that have a reference region."""
    for (table, report), grading in ((nominal, THREE), (several, ORDERED), (several, TWO)):
        task = grading.task
        title = f"Normalisations{', on reference regions' if oracle else ''}: {task}"
        (found,) = (t for t in report["tables"] if t["title"] == title)
        *_, standard, last = cells(found)
        assert last["Normalisation"] == "mean of all 2"
        both = (table.ideal if oracle else table.p)[task]
        p = (both["none"] + both["z_score_volume"]) / 2
        there = ~np.isnan(p).any(1) if oracle else np.ones(COUNT, bool)
        figures = table.figures(grading, p, there)
        shown = {"Balanced accuracy": "balanced_accuracy", "Kappa": "cohen_kappa"}
        shown |= {"AUROC": "auroc", "Quadratic weighted kappa": "quadratic_weighted_kappa"}
        for name in (n for n in found["columns"] if n in shown):
            assert last[name] == figures[shown[name]]
            assert last[name]["n"] == COUNT - (len(NO_REGION) if oracle else 0)
        for name in (n for n in found["columns"] if n.endswith(", minus z-score volume")):
            one, other = (row[name.split(",")[0]]["value"] for row in (last, standard))
            assert last[name]["value"] == pytest.approx(one - other, abs=1e-6)


def test_found_regions_alone_stand_beside_all_of_them(nominal, several):
    for (table, report), grading in ((nominal, THREE), (several, ORDERED), (several, TWO)):
        title = f"What missed regions cost: {grading.task}"
        (found,) = (t for t in report["tables"] if t["title"] == title)
        own = cells(found)
        assert [row["n"] for row in own] == [COUNT, COUNT - len(MISSED)]
        kept = np.delete(np.arange(COUNT), MISSED)
        calls = grading.calls(table.p[grading.task]["none"])[kept]
        expected = sk.balanced_accuracy_score(table.reference[grading.task][kept], calls)
        whole, alone = (row["Balanced accuracy"] for row in own)
        assert (whole["n"], alone["n"]) == (COUNT, COUNT - len(MISSED))
        assert alone["value"] == pytest.approx(expected, abs=1e-5)
        assert alone["value"] > whole["value"]


def test_cases_that_the_image_can_show_stand_beside_all_of_them():
    table = Table([TWO], missed=())
    outside = np.arange(0, COUNT, 5)
    for i, row in enumerate(table.rows):
        row["in_image"] = "0" if i in outside else ("1" if i % 2 else "")  # empty: nobody knows
    (found,) = summarise(table, [TWO])["tables"]
    assert found["title"] == "Cases that lie outside the image: presence"
    kept = np.delete(np.arange(COUNT), outside)
    reference, calls = table.reference["presence"], TWO.calls(table.p["presence"][cases.MODEL])
    for row, inside in zip(cells(found), (np.arange(COUNT), kept), strict=True):
        expected = sk.balanced_accuracy_score(reference[inside], calls[inside])
        assert row["n"] == row["Balanced accuracy"]["n"] == len(inside)
        assert row["Balanced accuracy"]["value"] == pytest.approx(expected, abs=1e-5)


def test_tables_stand_in_the_order_of_the_gradings_and_only_where_they_say_something(several):
    assert titles(several[1]) == [
        "Normalisations: narrowing",
        "Normalisations, on reference regions: narrowing",
        "What missed regions cost: narrowing",
        "Normalisations: presence",
        "Normalisations, on reference regions: presence",
        "What missed regions cost: presence",
    ]
    # One method is compared with nothing; where all or none were found nothing was missed.
    for missed in ((), range(COUNT)):
        assert summarise(Table([TWO], missed=missed), [TWO])["tables"] == []


def test_a_method_differs_from_its_copy_by_nothing():
    table = Table([THREE], ["none"])
    for row in table.rows:
        row |= {k.replace("_none_", "_copy_"): v for k, v in row.items() if "_none_" in k}
    comparison = Comparison({"none": "none", "copy": "copy"}, "none", "Methods", "", "")
    *found, _ = summarise(table, [THREE], comparison=comparison)["tables"]
    assert len(found) == 2
    for own in found:
        assert own["columns"][-1] == "Kappa, minus none"
        for row in own["rows"][1:]:  # the copy, and the mean of both
            for cell in row[-2:]:
                assert (cell["value"], *cell["ci95"]) == (0, 0, 0)


def test_folds_have_the_figures_of_their_own_cases(several):
    table, report = several
    reference = table.reference["presence"]
    p = table.p["presence"]["none"]
    calls, priced = TWO.calls(p), TWO.priced(reference, p)[:, 1].astype(float)
    inside = [table.folds == k for k in range(3)]
    expected = {
        "auroc": [sk.roc_auc_score(reference[m], priced[m]) for m in inside],
        "accuracy": [np.mean(calls[m] == reference[m]) for m in inside],
        "sensitivity": [np.mean(calls[m & (reference == 1)] == 1) for m in inside],
        "specificity": [np.mean(calls[m & (reference == 0)] == 0) for m in inside],
        "log_loss": [sk.log_loss(reference[m], np.clip(priced[m], 1e-6, 1 - 1e-6)) for m in inside],
    }
    own = {k: v for k, v in report["folds"].items() if k.endswith("_presence")}
    assert list(own) == [f"{name}_presence" for name in expected]
    for name, values in expected.items():
        entry = own[f"{name}_presence"]
        assert entry["values"] == pytest.approx(values, abs=1e-5), name
        assert entry["mean"] == pytest.approx(np.mean(values), abs=1e-5)
        assert entry["sd"] == pytest.approx(np.std(values, ddof=1), abs=1e-5)
        assert entry["folds"] == 3
    right = ORDERED.calls(table.p["narrowing"]["none"]) == table.reference["narrowing"]
    accuracies = report["folds"]["accuracy_narrowing"]["values"]
    assert accuracies == pytest.approx([right[m].mean() for m in inside], abs=1e-6)
    assert "quadratic_weighted_kappa_narrowing" in report["folds"]


def test_folds_stand_by_number_and_one_without_a_class_is_left_out():
    table = Table([TWO], count=6, missed=())
    for row, fold, reference, p in zip(
        table.rows, (10, 10, 2, 2, 7, 7), "101000", (0.9, 0.2, 0.4, 0.6, 0.1, 0.3), strict=True
    ):
        row |= {"fold": str(fold), "reference_presence": TWO.classes[int(reference)]}
        row |= {"p_model_presence_absent": str(1 - p), "p_model_presence_present": str(p)}
    found = summarise(table, [TWO])["folds"]
    assert found["auroc_presence"] == {
        "mean": 0.5, "sd": pytest.approx(np.sqrt(0.5)), "values": [0, None, 1], "folds": 2,
    }  # fmt: skip
    assert found["specificity_presence"]["values"] == [0, 1, 1]


def test_subgroups_are_figures_of_their_own_cases(nominal, several):
    table, report = nominal
    assert set(report["subgroups"]) == {"half"}  # a group without strata is no group
    right = THREE.calls(table.p["modic"]["none"]) == table.reference["modic"]
    groups = strata(table.rows)["half"]
    for name, inside in groups.items():
        figure = report["subgroups"]["half"][name]["accuracy_modic"]
        assert figure["value"] == pytest.approx(right[inside].mean())
        assert figure["n"] == COUNT // 2
    # Of the first grading alone.
    table, report = several
    right = ORDERED.calls(table.p["narrowing"]["none"]) == table.reference["narrowing"]
    first = report["subgroups"]["half"]["first"]
    value = first["accuracy_narrowing"]["value"]
    assert value == pytest.approx(right[: COUNT // 2].mean())
    assert not any(name.endswith("presence") for name in first)


def test_a_grading_without_a_case_is_left_out_and_other_rows_count_nowhere(several):
    table, report = several
    rows = [
        *table.rows,
        {"kind": "structure", "fold": "0", "patient": "p0", "study": "s0", "name": "disc"},
        {**table.rows[0], "reference_presence": "", "reference_narrowing": ""},
    ]
    empty = Grading("modic", THREE.classes)
    settings = {**SETTINGS, "comparison": COMPARISON, "groups": strata}
    found = graded.summarise(rows, [ORDERED, empty, TWO], **settings)
    assert found == report
    nothing = graded.summarise(rows, [empty], **SETTINGS)
    assert set(nothing) == set(report) - {"tables_title"}  # of the comparison
    assert not any(nothing.values())


def test_figures_do_not_depend_on_the_order_of_rows(nominal):
    table, report = nominal
    shuffled = [table.rows[i] for i in np.random.default_rng(0).permutation(COUNT)]
    found = graded.summarise(shuffled, [THREE], **SETTINGS, comparison=COMPARISON)
    for place in ("end_to_end", "oracle_region"):
        values = {k: v["value"] for k, v in found[place].items()}
        assert values == pytest.approx({k: v["value"] for k, v in report[place].items()}, abs=1e-6)
    assert found["confusion"] == report["confusion"]


# ------------------------------------------------------------------- whatever the system

SYSTEMS = {
    "fatty_infiltration": {"stages.grades.heads": ("D",)},
    "vertebral_fracture": {},
    "modic_changes": {
        "stages.grades.heads": ("presence",),
        "options.normalisations": ("z_score_volume",),
    },
}


def declared(name):
    values = runpy.run_path(str(EXPERIMENTS / f"{name}.py"))["get_config"]().to_dict()
    for path, value in SYSTEMS[name].items():
        *groups, last = path.split(".")
        node = values
        for group in groups:
            node = node[group]
        node[last] = value
    return systems.load(name).build(parse(StudyConfig, values))


def test_the_same_binary_cases_have_the_same_figures_whatever_the_system():
    rng = np.random.default_rng(4)
    reference = rng.integers(0, 2, 60)
    p = np.clip(0.55 * rng.random(60) + 0.4 * reference, 0, 1).round(2)
    reports = {}
    for name in SYSTEMS:
        system = declared(name)
        (task,) = system.tasks
        method = next(iter(system.graders))
        who = [
            {"kind": "grade", "fold": i % 2, "patient": f"p{i}", "study": f"s{i}"}
            for i in range(60)
        ]
        rows = [
            row
            | cases.cells(
                task.grading,
                int(reference[i]),
                {method: None if i % 20 == 7 else np.array([1 - p[i], p[i]])},
                {method: np.array([1 - p[i], p[i]])},
                {"majority": 0, "ridge": p[i]},
            )
            for i, row in enumerate(who)
        ]
        text = [{k: str(v) for k, v in row.items()} for row in rows]
        report = system.summarise(text, **SETTINGS)
        assert system.primary in report["end_to_end"]
        # The same names, but for the task.
        places = {place: report[place] for place in ("end_to_end", "oracle_region")}
        places |= report["baselines"]
        reports[name] = {
            place: {k.removesuffix(f"_{task.grading.task}"): v for k, v in figures.items()}
            for place, figures in places.items()
        }
    for a, b in itertools.pairwise(reports.values()):
        assert a == b
    oracle = {k: v["value"] for k, v in reports["modic_changes"]["oracle_region"].items()}
    assert oracle["brier"] == pytest.approx(sk.brier_score_loss(reference, p), abs=1e-6)
    assert oracle["f1"] == pytest.approx(sk.f1_score(reference, p >= 0.5), abs=1e-6)
    assert oracle["f1_macro"] == pytest.approx(
        sk.f1_score(reference, p >= 0.5, average="macro"), abs=1e-6
    )
    assert oracle["auroc"] == pytest.approx(sk.roc_auc_score(reference, p), abs=1e-6)
