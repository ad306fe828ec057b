"""The card says what it was trained on, what its figures are, and what nobody knows."""

import copy

import pytest

from mskjax.portable.card import card


def figure(value, low, high, n, patients):
    return {
        "value": value,
        "ci95": None if low is None else [low, high],
        "n": n,
        "patients": patients,
    }


REPORT = {
    "title": "Discs",
    "system": "disc_degeneration",
    "variant": "spider",
    "headline": "Kappa is .712.",
    "primary": "accuracy_pfirrmann",
    "gradings": {"pfirrmann": {"figures": [], "further": ["auroc_i_vs_ii_pfirrmann"]}},
    "cohort": {"name": "discs", "version": "1.0.0"},
    "protocol": {"folds": 5, "unit": "patient", "patient_overlap": 0},
    "stages": {"regions": {"dice_disc": figure(0.8123, 0.79, 0.83, 30, 30)}},
    "end_to_end": {
        "accuracy_pfirrmann": figure(0.7123, 0.6412, 0.7789, 146, 30),
        "auroc_i_vs_ii_pfirrmann": figure(0.9, 0.8, 1.0, 12, 6),
        "f1_macro_pfirrmann": figure(None, None, None, 0, 0),
    },
    "oracle_region": {},
    "rules": ["A missed disc is an error."],
    "limits": ["One centre."],
    "subgroups": {"level": {}},
}
AUDIT = {
    "kind": "real",
    "config": "spider",
    "patients": 30,
    "studies": 31,
    "cases": 146,
    "excluded": [{"id": "SECRET1", "why": "x"}],
    "licence": "CC BY 4.0",
    "citation": "van der Graaf 2024",
    "fingerprint": "9f2c",
}
MODEL = {
    "stages": [{"name": "regions", "inputs": {"image": {"shape": "b, 8*h"}}, "outputs": {"p": 0}}],
    "folds": [{"name": "fold_0"}],
    "versions": {"mskjax": "1.0", "jax": "0.10"},
    "trained_with": {"packages": {"mskjax": "0.9", "jax": "0.9"}, "git_commit": "abc"},
}


def test_says_figures_with_interval_and_n_and_leads_with_the_limits_of_use():
    text = card(REPORT, AUDIT, MODEL)
    assert "Research use only. Not a medical device" in text.splitlines()[2]
    assert "| Accuracy, Pfirrmann | 0.712 | 0.641 to 0.779 | 146 of 30 patients |" in text
    assert "| not defined | none | 0 of 0 patients |" in text
    assert "| Dice, disc | 0.812 | 0.790 to 0.830 | 30 of 30 patients |" in text
    assert "AUROC" not in text  # stands in the report
    for said in (
        "images of patients, as stated by",
        "30 patients, 31 studies, 146 cases",
        "CC BY 4.0",
        "Graaf 2024",
    ):
        assert said in text
    assert "A missed disc is an error." in text
    assert "One centre." in text
    assert "b, 8*h" in text
    assert "mskjax 0.9, jax 0.9; commit abc" in text
    assert "External test | none" in text
    assert text.count("to be answered by who trained it") == 2


def test_has_the_sections_of_the_paper():
    titles = [line[3:] for line in card(REPORT, AUDIT, MODEL).splitlines() if line[:3] == "## "]
    assert titles == [
        "Model details",
        "Intended use",
        "Factors",
        "Metrics",
        "Training and evaluation data",
        "Quantitative analyses",
        "Ethical considerations",
        "Caveats and recommendations",
    ]


def test_names_no_patient():
    assert "SECRET1" not in card(REPORT, AUDIT, MODEL)


def test_a_phantom_is_called_one_before_anything_else_is_said():
    text = card(REPORT, AUDIT | {"kind": "phantom"}, MODEL)
    assert "PHANTOM" in text[: text.index("## Model details")]
    assert "| Kind | PHANTOM, generated images |" in text
    assert "PHANTOM" not in card(REPORT, AUDIT, MODEL)


@pytest.mark.parametrize("external", [{}, {"accuracy_pfirrmann": figure(0.5, 0.4, 0.6, 9, 5)}])
def test_an_external_test_is_shown_where_there_is_one(external):
    text = card(REPORT | {"external": external}, AUDIT, MODEL)
    assert ("### External test" in text) == bool(external)


def test_a_control_is_no_model():
    report = copy.deepcopy(REPORT)
    report["protocol"]["control"] = "labels were shuffled between patients"
    assert "CONTROL: labels were shuffled" in card(report, AUDIT, MODEL)
