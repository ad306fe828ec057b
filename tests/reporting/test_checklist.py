import re

import pytest

from mskjax.reporting.checklist import checklist
from mskjax.reporting.checklist_answers import STATUSES
from mskjax.reporting.sections import SECTIONS, contents


def by_item(report, standard):
    return {r["item"]: r for r in checklist(report) if r["standard"] == standard}


def text(report, standard):
    return {item: row["answer"] for item, row in by_item(report, standard).items()}


def test_all_items_of_both_standards_are_answered_in_order(report):
    claim, tripod = by_item(report, "CLAIM 2024"), by_item(report, "TRIPOD+AI")
    assert list(claim) == [str(i) for i in range(1, 45)]
    assert list(dict.fromkeys(int(i.rstrip("abcdefg")) for i in tripod)) == list(range(1, 28))
    assert len(tripod) == 52
    for row in [*claim.values(), *tripod.values()]:
        assert row["status"] in STATUSES
        assert re.fullmatch(r"[^.].{10,}\.", row["answer"]), row


@pytest.mark.parametrize("kind", ["real", "derived", "phantom"])
def test_an_answer_says_what_it_is(report, kind):
    report["cohort"]["kind"] = kind
    for row in checklist(report):
        begins = {"yours": "Yours to answer: ", "not applicable": "Not applicable: "}
        begin = begins.get(row["status"])
        if begin:
            assert row["answer"].startswith(begin)
            assert len(row["answer"]) > len(begin) + 10  # with what is needed, or why
        else:
            assert not row["answer"].startswith(tuple(begins.values()))


def test_values_of_the_report_are_given(report):
    claim = text(report, "CLAIM 2024")
    assert "spider_t2space 1.0.0, licence CC BY 4.0" in claim["7"]
    assert "Patient; patients found in more than one partition: 0" in claim["20"]
    assert "jax 0.10.2" in claim["23"]
    assert claim["27"].startswith("The networks of 3 seeds of each fold")
    assert "Wilson" in claim["29"]
    assert "2 excluded" in claim["35"]
    assert claim["39"].startswith("1 of 2 pictures show failures")


def test_what_was_wrong_or_empty_is_answered(report):
    report["preprocessing"] = {
        "regions": {"spacing_mm": [None, 0.7, 0.7], "normalisation": "z_score_volume"}
    }
    report["architecture"] = [{"stage": "regions", "parameters": 7, "initialisation": ["random"]}]
    claim, tripod = text(report, "CLAIM 2024"), text(report, "TRIPOD+AI")
    assert claim["9"] == "Regions: pixels of native x 0.7 x 0.7 mm, intensities by z score volume."
    assert claim["24"].startswith("At random (He et al. 2015), no weights of another task.")
    assert "not tried" in claim["30"]
    assert "what was run is in the recipe" in tripod["18c"]
    assert "Nothing is imputed" in tripod["11"]
    assert by_item(report, "TRIPOD+AI")["18c"]["status"] == "yours"
    assert "none, or too few" in tripod["12d"]
    report["subgroups"] = {"manufacturer": {}, "sex": {}}
    assert text(report, "TRIPOD+AI")["23b"].startswith("Figures by manufacturer, and of each fold")


def test_overlap_is_never_hidden(report):
    report["protocol"]["patient_overlap"] = 3
    assert "more than one partition: 3, by" in text(report, "CLAIM 2024")["20"]


def test_what_a_run_cannot_know_is_left_to_the_authors(report):
    claim, tripod = by_item(report, "CLAIM 2024"), by_item(report, "TRIPOD+AI")
    for item in ("4", "5", "11", "13", "14", "16", "34", "44"):
        assert claim[item]["status"] == "yours"
    for item in ("5b", "6a", "8b", "17", "18a", "18b", "19"):
        assert tripod[item]["status"] == "yours"
    assert "ethics committee, number and date" in tripod["17"]["answer"]


def test_a_phantom_has_no_patients_to_report_on(phantom_report):
    tripod = text(phantom_report, "TRIPOD+AI")
    assert {tripod[i] for i in ("5b", "17", "19", "20b")} == {
        "Not applicable: generated phantoms, no patients."
    }
    assert "known by construction" in tripod["8b"]
    assert tripod["18a"].startswith("Yours to answer")  # also a phantom study has funders


def test_external_data_change_the_answers(report):
    assert text(report, "CLAIM 2024")["33"] == "None: no external data were tested."
    report["external"] = report["end_to_end"]
    assert text(report, "CLAIM 2024")["33"] == "Patients of another cohort."
    assert by_item(report, "TRIPOD+AI")["20c"]["sections"] == ["external"]


def test_a_system_answers_for_itself(report):
    report["answers"] = {"ensembling": "Four networks vote."}
    assert text(report, "CLAIM 2024")["27"] == "Four networks vote."


def test_links_lead_to_sections_that_are_there(report, required):
    def linked(given):
        return {key for row in checklist(given) for key in row["sections"]}

    assert linked(report) <= set(contents(report)) <= set(SECTIONS)
    assert {"recipe", "roc", "calibration", "pictures"} <= linked(report)
    # What was not recorded is not pointed at.
    assert not {"recipe", "roc", "calibration", "pictures"} & linked(required)
