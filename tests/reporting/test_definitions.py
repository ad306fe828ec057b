"""Every figure that a report prints is explained, in words that agree with what is computed."""

import pytest

from mskjax.metrics.grading import Grading
from mskjax.metrics.grading_figures import figures
from mskjax.reporting import definitions, wording


@pytest.mark.parametrize(
    "grading", [Grading("two", ("no", "yes")), Grading("g", ("a", "b", "c"), True)]
)
def test_every_figure_of_a_grading_is_explained(grading):
    k = len(grading.classes)
    p = [[0.8 if i == j else 0.2 / (k - 1) for j in range(k)] for i in range(k)]
    found = figures(
        grading, list(range(k)), list(range(k)), p, [f"p{i}" for i in range(k)], resamples=4, seed=0
    )
    assert found
    assert not [name for name in found if definitions.of(f"{name}_{grading.task}") is None]


def test_every_figure_that_has_a_name_in_words_is_explained():
    unexplained = {name for name in wording._METRICS if definitions.of(name) is None}
    assert unexplained == {"mean_absolute_error"}  # of comparisons, under its own title


def test_the_longest_beginning_counts():
    assert definitions.of("auroc_ovo_macro_severity") != definitions.of("auroc_task_a")
    assert definitions.of("dice_ceiling_disc") != definitions.of("dice_disc")
    assert definitions.of("specificity_macro_x") != definitions.of("specificity_mild_x")
    assert definitions.of("auroc_mild_vs_severe_severity").startswith(
        "AUROC among the cases of two"
    )
    assert definitions.of("ap50") == definitions.of("ap75")
    assert definitions.of("something_else") is None


def test_the_choice_of_figures_is_said_for_each_task():
    gradings = {
        "pfirrmann": {"classes": ["i", "ii", "iii"], "ordinal": True},
        "modic": {"classes": ["mc0", "mc1", "mc2"], "ordinal": False},
        "presence": {"classes": ["no", "yes"], "ordinal": False},
    }
    stages = {"regions": {"dice_disc": {}}, "boxes": {"ap50": {}}}
    said = definitions.choices({"gradings": gradings, "stages": stages})
    assert [s.partition(":")[0] for s in said] == [
        "Pfirrmann, classification into ordered classes",
        "Modic, classification into classes without order",
        "Presence, classification into two classes",
        "Semantic segmentation",
        "Object detection",
    ]
    assert definitions.choices({"stages": {}}) == []


def test_each_term_stands_once():
    names = ["dice_disc", "dice_canal", "nsd_disc", "auroc_a_vs_b_x", "auroc_a_vs_c_x", "unknown"]
    terms = definitions.used(names)
    assert list(terms) == ["Dice", "Normalised surface Dice", "AUROC, class vs class"]
    assert "within 1 mm" in terms["Normalised surface Dice"]
