import pytest
from held_out_runs import GRADE, KIND, folds_of, names, rows_of, write_run

from mskjax.calibration_fit import fit
from mskjax.data.splits import Fold
from mskjax.reporting.calibrated import tables
from mskjax.reporting.page import write_page


@pytest.fixture(scope="module")
def content(tmp_path_factory):
    patients = names(36)
    last = Fold(tuple(patients[:24]), (), tuple(patients[24:]), held_out=True)
    folds = [*folds_of(patients[:24], 3), last]
    folder = tmp_path_factory.mktemp("run") / "run"
    return fit(write_run(folder, folds, rows_of(folds), "phantom"), (GRADE, KIND))


def test_tables_hold_what_was_measured(content):
    temperatures, sets = tables(content)
    own = content["tasks"]["grade"]["model"]
    assert temperatures["rows"][0] == [
        "Grade", own["temperature"],
        own["check"]["log_loss"]["before"], own["check"]["log_loss"]["after"],
        own["check"]["change"], own["check"]["ece"]["before"], own["check"]["ece"]["after"],
    ]  # fmt: skip
    assert [row[:2] for row in sets["rows"]] == [
        [name, f"{c} %"]
        for name in ("Grade", "Kind", "Grade, held-out patients", "Kind, held-out patients")
        for c in (80, 90, 95)
    ]
    assert sets["rows"][1][2] == own["check"]["sets"][1]["held"]
    assert all("PHANTOM" in table["note"] for table in (temperatures, sets))


def test_a_temperature_that_was_not_fitted_says_why(tmp_path):
    folds = folds_of(names(6), 2)
    (first, _) = tables(fit(write_run(tmp_path / "run", folds, rows_of(folds)), [GRADE]))
    assert first["rows"][0][0] == "Grade (not fitted: 6 patients, fewer than 10)"


def test_nothing_fitted_is_no_table():
    assert tables({"tasks": {}, "caveats": []}) == []


def test_the_page_shows_them_with_the_reliability_diagram(content, report, run_dir, tmp_path):
    found = tables(content)
    page = write_page({**report, "calibrated": found}, run_dir, tmp_path).read_text()
    section = page[page.index('<section id="calibration">') :]
    section = section[: section.index("</section>")]
    held = found[1]["rows"][1][2]["value"]
    for text in ("Temperatures", "Sets of classes", "90 %", f"<strong>{held:.3f}</strong>"):
        assert text in section
    assert "Temperatures" not in write_page(report, run_dir, tmp_path).read_text()
