from mskjax.reporting.checklist import AUTHORS, checklist
from mskjax.reporting.page import SECTIONS


def by_item(report, standard):
    return {r["item"]: r["answer"] for r in checklist(report) if r["standard"] == standard}


def test_all_items_of_both_standards_are_answered_in_order(report):
    claim, tripod = by_item(report, "CLAIM 2024"), by_item(report, "TRIPOD+AI")
    assert list(claim) == [str(i) for i in range(1, 45)]
    assert list(dict.fromkeys(int(i.rstrip("abcdefg")) for i in tripod)) == list(range(1, 28))
    assert len(tripod) == 52
    assert all([*claim.values(), *tripod.values()])


def test_values_of_the_report_are_given(report):
    claim = by_item(report, "CLAIM 2024")
    assert "spider_t2space 1.0.0, licence CC BY 4.0" in claim["7"]
    assert "Patient; patients found in more than one partition: 0" in claim["20"]
    assert "jax 0.10.2" in claim["23"]
    assert claim["27"].startswith("The networks of 3 seeds of each fold together")
    assert "Wilson" in claim["29"]
    assert "30 patients and 146 cases included, 2 excluded" in claim["35"]
    assert claim["39"].startswith("1 of 2 pictures show failures")


def test_overlap_is_never_hidden(report):
    report["protocol"]["patient_overlap"] = 3
    assert by_item(report, "CLAIM 2024")["20"].endswith(": 3")


def test_what_a_run_cannot_know_is_left_to_the_authors(report):
    claim, tripod = by_item(report, "CLAIM 2024"), by_item(report, "TRIPOD+AI")
    assert {claim[i] for i in ("4", "5", "11", "13", "14", "18", "34", "44")} == {AUTHORS}
    assert {tripod[i] for i in ("5b", "6a", "8b", "17", "18a", "18b", "19")} == {AUTHORS}


def test_a_phantom_has_no_patients_to_report_on(phantom_report):
    tripod = by_item(phantom_report, "TRIPOD+AI")
    assert {tripod[i] for i in ("5b", "17", "19")} == {
        "not applicable: generated phantoms, no patients"
    }


def test_external_data_change_the_answers(report):
    assert by_item(report, "CLAIM 2024")["33"] == "none: no external data were tested"
    report["external"] = report["end_to_end"]
    assert "External test" in by_item(report, "CLAIM 2024")["33"]


def test_sections_named_exist_on_the_page(report, required):
    def named(given) -> set[str]:
        answers = [row["answer"] for row in checklist(given)]
        return {part.split("”")[0] for answer in answers for part in answer.split("“")[1:]}

    assert named(report) <= set(SECTIONS.values())
    drawn = {"Receiver operating characteristic", "Calibration", "Pictures"}
    assert {"Training recipe", *drawn} <= named(report)
    # What was not recorded is not pointed at.
    assert not {"Training recipe", *drawn} & named(required)
