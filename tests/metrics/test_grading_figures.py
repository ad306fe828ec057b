"""Every figure of a grading against scikit-learn, or NumPy where it has none."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as sk

from mskjax.errors import UserError
from mskjax.metrics import grading_figures as g
from mskjax.metrics.grading import Grading

TWO = Grading("task_a", ("low", "high"))
THREE = Grading("severity", ("mild", "moderate", "severe"))
FIVE = Grading("pfirrmann", ("i", "ii", "iii", "iv", "v"), ordinal=True)
FEW = {"resamples": 20, "seed": 0}
CASES = 60


def drawn(grading, seed, missed=0):
    """Reference with every class, probabilities (NaN where missed) and two cases a patient."""
    rng = np.random.default_rng((seed, len(grading.classes)))
    count = len(grading.classes)
    reference = np.concatenate([np.arange(count), rng.integers(0, count, CASES - count)])
    p = rng.dirichlet(np.ones(count), CASES) + 0.4 * np.eye(count)[reference]
    p = (p / p.sum(1, keepdims=True)).astype(np.float32)
    p[CASES - missed :] = np.nan
    return reference, p, [f"p{i // 2}" for i in range(CASES)]


def values(figures):
    return {name: entry["value"] for name, entry in figures.items()}


def figures(grading, reference, p, patients):
    calls = grading.calls(p)
    return g.figures(grading, reference, calls, grading.priced(reference, p), patients, **FEW)


@pytest.mark.parametrize("grading", [TWO, THREE, FIVE], ids=lambda x: x.task)
@given(seed=st.integers(0, 10_000))
@settings(max_examples=15)
def test_figures_are_scikit_learns(grading, seed):
    reference, p, patients = drawn(grading, seed)
    calls = grading.calls(p)
    ours = values(figures(grading, reference, p, patients))
    one_hot = np.eye(len(grading.classes))[reference]
    expected = {
        "accuracy": sk.accuracy_score(reference, calls),
        "balanced_accuracy": sk.balanced_accuracy_score(reference, calls),
        "cohen_kappa": sk.cohen_kappa_score(reference, calls),
        "f1_macro": sk.f1_score(reference, calls, average="macro", zero_division=0),
        "f1_weighted": sk.f1_score(reference, calls, average="weighted", zero_division=0),
        "log_loss": sk.log_loss(reference, np.clip(p, 1e-6, 1)),
        # scikit-learn's brier_score_loss with scale_by_half=True
        "brier": np.mean(np.sum((p - one_hot) ** 2, 1)) / 2,
    }
    if grading.ordinal:
        expected["quadratic_weighted_kappa"] = sk.cohen_kappa_score(
            reference, calls, weights="quadratic"
        )
        expected["within_one_grade"] = np.mean(np.abs(reference - calls) <= 1)
    if grading is TWO:
        expected |= {
            "auroc": sk.roc_auc_score(reference, p[:, 1]),
            "average_precision": sk.average_precision_score(reference, p[:, 1]),
            "brier": sk.brier_score_loss(reference, p[:, 1]),
            "f1": sk.f1_score(reference, calls, zero_division=0),
            "sensitivity": sk.recall_score(reference, calls),
            "specificity": sk.recall_score(reference, calls, pos_label=0),
        }
    else:
        expected |= {
            "auroc_ovr_macro": sk.roc_auc_score(reference, p, multi_class="ovr"),
            "auroc_ovo_macro": sk.roc_auc_score(reference, p, multi_class="ovo"),
        }
        for k, name in enumerate(grading.classes):
            expected[f"sensitivity_{name}"] = np.mean(calls[reference == k] == k)
            expected[f"specificity_{name}"] = np.mean(calls[reference != k] != k)
    for name, value in expected.items():
        assert ours[name] == pytest.approx(value, abs=2e-5), name


def test_a_pair_of_classes_is_the_term_of_scikit_learns_ovo():
    reference, p, patients = drawn(THREE, 3)
    ours = values(figures(THREE, reference, p, patients))
    for (a, one), (b, other) in itertools.combinations(enumerate(THREE.classes), 2):
        inside = np.isin(reference, (a, b))
        both = [sk.roc_auc_score(reference[inside] == k, p[inside, k]) for k in (a, b)]
        assert ours[f"auroc_{one}_vs_{other}"] == pytest.approx(np.mean(both), abs=1e-5)


def test_every_n_is_the_denominator_of_its_figure():
    reference, p, patients = drawn(THREE, 1, missed=4)
    calls = THREE.calls(p)
    found = figures(THREE, reference, p, patients)
    assert found["accuracy"]["n"] == found["auroc_ovr_macro"]["n"] == CASES
    for k, name in enumerate(THREE.classes):
        own = np.flatnonzero(reference == k)
        assert found[f"sensitivity_{name}"]["n"] == len(own)
        assert found[f"sensitivity_{name}"]["patients"] == len({patients[i] for i in own})
        assert found[f"specificity_{name}"]["n"] == CASES - len(own)
        assert found[f"ppv_{name}"]["n"] == np.count_nonzero(calls == k)
    pair = np.count_nonzero(reference <= 1)
    assert found["auroc_mild_vs_moderate"]["n"] == pair
    reference, p, patients = drawn(TWO, 1, missed=4)
    calls, found = TWO.calls(p), figures(TWO, reference, p, patients)
    assert found["sensitivity"]["n"] == np.count_nonzero(reference == 1)
    assert found["specificity"]["n"] == np.count_nonzero(reference == 0)
    assert found["ppv"]["n"] == np.count_nonzero(calls == 1)
    assert found["npv"]["n"] == np.count_nonzero(calls == 0)
    assert found["f1"]["n"] == np.count_nonzero((reference == 1) | (calls == 1))


@pytest.mark.parametrize("grading", [TWO, THREE, FIVE], ids=lambda x: x.task)
def test_a_missed_region_is_wrong_in_every_figure(grading):
    """Against the same cases found and called the class that is farthest off."""
    reference, p, patients = drawn(grading, 2)
    base = values(figures(grading, reference, p, patients))
    lost = p.copy()
    right = np.flatnonzero(grading.calls(p) == reference)[:5]
    lost[right] = np.nan
    found = values(figures(grading, reference, lost, patients))
    worse_is_more = ("brier", "log_loss")
    for name, value in found.items():
        if name.startswith(("ppv", "f1_")) or name in ("npv", "ece"):
            continue  # shares of the calls made, or of bins
        if name in worse_is_more:
            assert value > base[name], name
        else:
            assert value <= base[name] + 1e-6, name
    assert found["accuracy"] == pytest.approx(base["accuracy"] - 5 / CASES)
    if grading.ordinal:  # counted as the greatest disagreement, by hand
        count, calls = len(grading.classes), grading.calls(lost)
        cost = np.where(calls == count, (count - 1) ** 2, (reference - calls) ** 2).mean()
        share = np.bincount(calls, minlength=count + 1) / CASES
        own = np.bincount(reference, minlength=count) / CASES
        far = (np.arange(count)[:, None] - np.arange(count)) ** 2
        far = np.column_stack([far, np.full(count, (count - 1) ** 2)])
        expected = 1 - cost / (own @ far @ share)
        assert found["quadratic_weighted_kappa"] == pytest.approx(expected, abs=1e-5)


def test_finding_nothing_does_not_raise_the_specificity():
    reference = np.array([0, 0, 1, 1, 2, 2] * 2)
    nothing = np.full((12, 3), np.nan)
    found = values(figures(THREE, reference, nothing, [str(i) for i in range(12)]))
    assert all(found[f"specificity_{name}"] == 0 for name in THREE.classes)
    assert found["accuracy"] == found["balanced_accuracy"] == found["auroc_ovr_macro"] == 0


def test_equal_inputs_give_equal_figures_whoever_asks():
    """A label figure is the same beside probabilities, of a baseline and of a subgroup."""
    reference, p, patients = drawn(FIVE, 5)
    whole = figures(FIVE, reference, p, patients)
    alone = g.label_figures(FIVE, reference, FIVE.calls(p), patients, **FEW)
    for name, entry in alone.items():
        assert entry["n"] == whole[name]["n"], name
        assert entry["value"] == pytest.approx(whole[name]["value"]), name
        assert entry["ci95"] == pytest.approx(whole[name]["ci95"]), name
    score = p @ np.arange(5)
    ridge = g.score_figures(FIVE, reference, score, patients, **FEW)
    assert ridge == g.label_figures(FIVE, reference, FIVE.rounded(score), patients, **FEW)


def test_differences_are_those_of_the_figures():
    reference, p, patients = drawn(TWO, 7)
    _, other, _ = drawn(TWO, 8)
    calls = TWO.calls(p), TWO.calls(other)
    scores = p[:, 1], other[:, 1]
    found = values(g.difference(TWO, reference, calls, scores, patients, **FEW))
    ours, theirs = (values(figures(TWO, reference, x, patients)) for x in (p, other))
    for name, value in found.items():
        assert value == pytest.approx(ours[name] - theirs[name], abs=1e-5), name
    assert "auroc" in found
    assert "brier" not in found


def test_absent_classes_are_null_and_say_why():
    reference = np.zeros(8, int)
    p = np.tile([0.8, 0.2], (8, 1))
    found = figures(TWO, reference, p, list("abcdefgh"))
    assert found["sensitivity"] | {"method": ""} == {
        "value": None, "ci95": None, "n": 0, "patients": 0, "method": "", "why": "no positive case",
    }  # fmt: skip
    assert found["balanced_accuracy"]["value"] is None
    assert found["ppv"]["why"] == "no case was called positive"
    assert found["specificity"]["value"] == 1


def test_names_carry_the_task():
    assert g.named({"auroc": 1}, "task_a") == {"auroc_task_a": 1}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"reference": [0, 3]}, "reference must hold 0 to 1"),
        ({"predicted": [0, 3]}, "predicted must hold 0 to 2"),
        ({"p": [[0.5, 0.5]]}, "probabilities have shape"),
        ({"p": [[0.5, 0.5], [1.5, -0.5]]}, r"outside \[0, 1\]"),
    ],
)
def test_arrays_that_cannot_be(change, message):
    arguments = {"reference": [0, 1], "predicted": [0, 1], "p": [[1, 0], [0, 1]]} | change
    with pytest.raises(ValueError, match=message):
        g.figures(TWO, *map(np.array, arguments.values()), ["a", "b"], **FEW)


def test_no_case_is_the_users_matter():
    empty = np.zeros(0, int)
    with pytest.raises(UserError):
        g.figures(TWO, empty, empty, np.zeros((0, 2)), [], **FEW)


# ------------------------------------------------------------------- two classes


def of_two(reference, positive):
    """Figures of probabilities of the second class; NaN is missed."""
    p = np.stack([1 - positive, positive], 1)
    return values(figures(TWO, reference, p, [str(i) for i in range(len(reference))]))


def test_figures_stand_in_reading_order():
    reference, p, patients = drawn(TWO, 0)
    assert list(figures(TWO, reference, p, patients)) == [
        "auroc", "balanced_accuracy", "accuracy", "sensitivity", "sensitivity_at_specificity_90",
        "specificity", "ppv", "npv", "f1", "f1_macro", "f1_weighted", "cohen_kappa",
        "average_precision", "brier", "log_loss", "ece",
    ]  # fmt: skip


def test_figures_of_pairs_come_last_and_the_leading_one_first():
    for grading, leading in ((FIVE, "quadratic_weighted_kappa"), (THREE, "balanced_accuracy")):
        names = list(figures(grading, *drawn(grading, 0)))
        pairs = [name for name in names if "_vs_" in name]
        assert names[0] == leading
        assert len(pairs) == len(grading.classes) * (len(grading.classes) - 1) / 2
        assert names[-len(pairs) :] == pairs


def test_operating_point_and_calibration_of_two_classes():
    reference, p, _ = drawn(TWO, 4)
    found = of_two(reference, p[:, 1])
    fpr, tpr, _ = sk.roc_curve(reference, p[:, 1], drop_intermediate=False)
    best = tpr[1 - fpr >= 0.9 - 1e-9].max()
    assert found["sensitivity_at_specificity_90"] == pytest.approx(best, abs=1e-6)
    confidence, right = p.max(1).astype(float), p.argmax(1) == reference
    edges = np.linspace(0, 1, 11).astype(np.float32)
    gaps = [
        abs(right[inside].sum() - confidence[inside].sum())
        for low, high in itertools.pairwise(edges)
        for inside in [(confidence > low) & (confidence <= high)]
    ]
    assert found["ece"] == pytest.approx(sum(gaps) / len(p), abs=2e-6)


def test_finding_nothing_is_the_worst_result_there_is():
    reference = np.arange(12) % 2
    found = of_two(reference, np.full(12, np.nan))
    zero = ("auroc", "accuracy", "sensitivity", "specificity", "f1", "balanced_accuracy")
    assert {name: found[name] for name in zero} == dict.fromkeys(zero, 0)
    assert found["log_loss"] == pytest.approx(-np.log(1e-6), rel=1e-5)
    assert (found["brier"], found["ece"], found["ppv"], found["npv"]) == (1, 1, None, None)


def test_a_perfect_grading_has_no_loss_and_no_negative_zero():
    reference = np.arange(12) % 2
    found = of_two(reference, reference.astype(float))
    losses = [found.pop(name) for name in ("log_loss", "brier", "ece")]
    assert losses == [0, 0, 0]
    assert all(np.copysign(1, loss) == 1 for loss in losses)
    assert set(found.values()) == {1}


@settings(max_examples=40)
@given(
    st.lists(st.tuples(st.booleans(), st.integers(0, 64)), min_size=12, max_size=12),
    st.lists(st.booleans(), min_size=12, max_size=12),
)
def test_swapping_the_classes_swaps_what_belongs_to_them(cases, gaps):
    # Sixty-fourths: 1 - p is exact, and p = .5 would be a call that the swap does not reverse.
    p = np.array([k / 64 if k != 32 else 0.75 for _, k in cases])
    p[np.array(gaps)] = np.nan
    reference = np.array([int(positive) for positive, _ in cases])
    ours, theirs = of_two(reference, p), of_two(1 - reference, 1 - p)
    pairs = {"sensitivity": "specificity", "ppv": "npv", "specificity": "sensitivity", "npv": "ppv"}
    same = (
        "accuracy", "balanced_accuracy", "auroc", "cohen_kappa", "f1_macro", "log_loss", "brier",
        "ece",
    )  # fmt: skip
    for name, other in {**pairs, **{k: k for k in same}}.items():
        assert ours[name] == pytest.approx(theirs[other], abs=1e-5), name


@settings(max_examples=60)
@given(
    st.lists(
        st.tuples(st.booleans(), st.floats(0, 1, width=32) | st.just(np.nan)),
        min_size=12,
        max_size=12,
    )
)
def test_figures_stay_in_range_for_any_probability(cases):
    reference, p = np.array(cases, float).T
    highest = {"log_loss": -np.log(1e-6)}
    for name, value in of_two(reference.astype(int), p).items():
        lowest = -1 if name == "cohen_kappa" else 0
        assert value is None or lowest <= value <= highest.get(name, 1) * (1 + 1e-6), name


def test_nothing_differs_from_itself_on_any_resample():
    reference, p, patients = drawn(TWO, 7, missed=4)
    calls, score = TWO.calls(p), TWO.priced(reference, p)[:, 1]
    found = g.difference(TWO, reference, (calls, calls), (score, score), patients, **FEW)
    assert all(e["value"] == 0 and e["ci95"] == [0, 0] for e in found.values())
    labels = g.difference(TWO, reference, (calls, calls), None, patients, **FEW)
    assert found.keys() - labels.keys() == {"auroc"}
    assert labels["sensitivity"]["n"] == np.count_nonzero(reference == 1)


def test_proportions_of_two_classes_by_hand():
    reference = np.array([1, 1, 1, 0, 0, 0])
    predicted = np.array([1, 0, TWO.missed, 0, 1, TWO.missed])
    found = g.label_figures(TWO, reference, predicted, list("aabccc"), **FEW)
    # A missed negative lowers specificity; no missed case is a call.
    assert values(found) == pytest.approx(
        {
            "balanced_accuracy": 1 / 3,
            "accuracy": 1 / 3,
            "sensitivity": 1 / 3,
            "specificity": 1 / 3,
            "ppv": 1 / 2,
            "npv": 1 / 2,
            "f1": 2 / 5,
            "f1_macro": 2 / 5,
            "f1_weighted": 2 / 5,
            "cohen_kappa": sk.cohen_kappa_score(reference, predicted),
        },
        abs=1e-6,
    )
    patients = {k: found[k]["patients"] for k in ("accuracy", "sensitivity", "specificity", "ppv")}
    assert patients == {"accuracy": 3, "sensitivity": 2, "specificity": 1, "ppv": 2}
