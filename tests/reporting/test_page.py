import base64
import html
import json
import os
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import jsonschema  # type: ignore[import-untyped]
import pytest

from mskjax.reporting.page import SECTIONS, write_page

VOID = {"meta", "img", "br", "link", "hr", "input"}


class Page(HTMLParser):
    """Tags, attributes, text by section, and whether elements are closed in order."""

    def __init__(self, source: str):
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.sections: dict[str, str] = {}
        self.text = ""
        self.open: list[str] = []
        self.cells: list[tuple[str, str, str | None, str]] = []  # section, tag, class, text
        self._section = ""
        self._cell: tuple[str | None, int] = (None, 0)
        self.feed(source)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)
        if tag == "br":
            self.handle_data(" ")
        if tag in ("td", "th"):
            self._cell = dict(attrs).get("class"), len(self.text)
        if tag == "section":
            self._section = dict(attrs)["id"] or ""

    def handle_endtag(self, tag):
        assert self.open.pop() == tag
        if tag in ("td", "th"):
            kind, start = self._cell
            self.cells.append((self._section, tag, kind, " ".join(self.text[start:].split())))
            self.handle_data(" ")
        if tag == "section":
            self._section = ""

    def handle_data(self, data):
        if self.open and self.open[-1] != "style":
            self.text += data
            self.sections[self._section] = self.sections.get(self._section, "") + data

    def words(self, section: str) -> str:
        return " ".join(self.sections[section].split())

    def attributes(self, name: str) -> list[str]:
        return [a[name] or "" for _, a in self.tags if name in a]


@pytest.fixture(scope="module")
def page(pages) -> Page:
    return Page(pages["real"].read_text("utf-8"))


@pytest.fixture
def render(run_dir, tmp_path):
    def write(report) -> Page:
        return Page(write_page(report, run_dir, tmp_path / "report").read_text("utf-8"))

    return write


@pytest.fixture
def light(required) -> dict[str, Any]:
    """A report without figures."""
    return {**required, "baselines": {}, "published": [], "oracle_region": {}}


def test_fixture_obeys_the_contract(report):
    shared = Path(
        os.environ.get("MSKJAX_SHARED", Path(__file__).resolve().parents[2] / "../shared")
    )
    schema = shared / "report.schema.json"
    if not schema.exists():
        pytest.skip("report.schema.json of the contract is not beside the repository")
    jsonschema.validate(report, json.loads(schema.read_text()))


def test_nothing_is_loaded_from_outside(page, pages):
    assert page.attributes("src")
    assert all(source.startswith("data:image/") for source in page.attributes("src"))
    assert all(link.startswith("#") for link in page.attributes("href"))
    assert not {"script", "link", "iframe", "object"} & {tag for tag, _ in page.tags}
    style = pages["real"].read_text().split("<style>")[1].split("</style>")[0]
    assert "url(" not in style
    assert "@import" not in style
    assert not page.open


def test_contents_lead_to_every_section(page):
    ids = [a["id"] for tag, a in page.tags if tag == "section"]
    assert ids == list(SECTIONS)
    assert page.attributes("href")[: len(ids)] == [f"#{i}" for i in ids]


def test_key_results_stand_side_by_side_with_their_intervals(page):
    results = page.words("results")
    assert "Quadratic weighted kappa 0.712 0.641 to 0.779 146 30 0.723" in results
    assert "AUROC, mild vs moderate 0.844 0.772 to 0.902 101 30 0.855" in results
    assert "Sensitivity, severe not defined: no severe disc in the cohort 0 30" in results


def test_every_estimate_is_on_the_page(report, page):
    for section, tables in {
        "results": [report["end_to_end"], report["oracle_region"]],
        "stages": report["stages"].values(),
        "baselines": report["baselines"].values(),
        "subgroups": [t for strata in report["subgroups"].values() for t in strata.values()],
    }.items():
        for table in tables:
            for e in table.values():
                if e["value"] is not None:
                    assert f"{e['value']:.3f}" in page.sections[section]
                    low, high = e["ci95"]
                    assert f"{low:.3f} to {high:.3f}" in page.sections[section]
    assert "Wilson" in page.sections["stages"]
    assert "without figures" not in page.sections["stages"].lower()


def test_figures_of_classes_and_pairs_are_folded_away_below_the_leading_ones(page, pages):
    results = page.words("results")
    leading, further = results.split("Per class and pair (2 further figures)")
    assert "Pfirrmann Quadratic weighted kappa 0.712" in leading
    assert "Severity Accuracy 0.706" in leading
    assert "mild vs moderate" not in leading
    assert "Severity AUROC, mild vs moderate 0.844" in further
    folded = [a for tag, a in page.tags if tag == "details" and a.get("class") == "further"]
    assert folded
    assert all("open" not in a for a in folded)
    # Paper cannot be unfolded.
    style = pages["real"].read_text().split("@media print")[1]
    assert "details::details-content { content-visibility: visible; height: auto; }" in style


def test_a_published_value_without_a_figure_of_ours_cannot_be_overlooked(report, render):
    report["published"] = [
        {**report["published"][0], "metric": "dice_unknown"},
        {**report["published"][0], "metric": "cohen_kappa_presence", "needs": "the head presence"},
    ]
    published = render(report).words("published")
    assert "Dice, unknown no figure of this run is called dice_unknown 0.920" in published
    said = "Cohen's kappa, presence not computed in this run, which would need the head presence"
    assert said in published


def test_published_values_stand_beside_ours_with_the_reason(page):
    published = page.words("published")
    assert "Dice, disc 0.871 (0.853 to 0.887) stage segment, n = 146 0.920" in published
    assert "0.913 (0.840 to 0.960)" in published
    assert "no: reference regions; the map from Pfirrmann grades is not published" in published


def test_figures_and_pictures_are_embedded_failures_first(report, page, run_dir):
    images = [a for tag, a in page.tags if tag == "img"]
    # Forests, confusion matrices, ROC, calibration, stages; precision, agreement, studies.
    assert sum("svg+xml" in (a["src"] or "") for a in images) == 3 + 1 + 2 + 1 + 1 + 2 + 3
    pictures = [a for a in images if "image/png" in (a["src"] or "")]
    assert [a["alt"] for a in pictures] == ["Patient 127: L5/S1 missed", "Patient 110"]
    payload = base64.b64decode((pictures[0]["src"] or "").split(",")[1])
    assert payload == (run_dir / report["pictures"][1]["path"]).read_bytes()


def test_pictures_that_cannot_be_shown_say_why(report, light, render, run_dir, monkeypatch):
    (run_dir / "secret.txt").write_text("secret")
    light["pictures"] = report["pictures"] + [
        {"path": "fold_9/none.png", "caption": "c", "failure": False},
        {"path": "../../etc/passwd.png", "caption": "c", "failure": False},
        {"path": "secret.txt", "caption": "c", "failure": False},
    ]
    text = render(light).sections["pictures"]
    assert "fold_9/none.png: file not found" in text
    assert "../../etc/passwd.png: not a picture of this run" in text
    assert "secret.txt: not a picture of this run" in text
    monkeypatch.setattr("mskjax.reporting.page_drawings.PAGE_BYTES", 10)
    assert "fold_1/pictures/127.png: left out" in render(light).sections["pictures"]


def cells(page: Page, section: str) -> list[tuple[str, str | None, str]]:
    """(tag, class, text) of every cell of a section."""
    return [(tag, kind, text) for where, tag, kind, text in page.cells if where == section]


def test_tables_of_a_system_stand_after_the_baselines_under_their_own_heading(page):
    order = list(page.sections)
    assert order.index("tables") == order.index("baselines") + 1
    text = page.words("tables")
    assert text.startswith("Readers and further comparisons")
    assert "Readers on the same cases" in text
    assert "p of McNemar's exact test, model against reader." in text
    assert ("caption", {}) in page.tags
    # One scroll container for each of the tables.
    start = next(i for i, (_, a) in enumerate(page.tags) if a.get("id") == "tables")
    end = next(i for i, (_, a) in enumerate(page.tags) if a.get("id") == "published")
    inside = page.tags[start:end]
    assert sum(a.get("class") == "scroll" for _, a in inside) == 2
    assert sum(tag == "table" for tag, _ in inside) == 2
    assert page.attributes("id").count("table-readers") == 1


def test_cells_of_a_table_are_written_by_what_they_hold(page):
    found = cells(page, "tables")
    assert ("th", "num", "Sensitivity") in found
    assert ("th", None, "Reader") in found
    assert ("th", None, "First-year resident") in found
    assert ("td", "num", "0.780 (0.651 to 0.871) n = 50") in found
    assert ("td", "num", "not defined: read no case") in found
    assert ("td", "num", "125") in found
    assert ("td", "num", "0.250") in found
    assert ("td", None, "n < 5 & rare") in found
    assert ("td", None, "–") in found


def test_p_values_are_told_by_the_name_of_their_column(page, light, render):
    texts = [text for _, kind, text in cells(page, "tables") if kind == "num"]
    assert texts.count("< .001") == 2
    assert {".031", "1.000"} <= set(texts)
    light["tables"] = [
        {
            "title": "t",
            "note": "",
            "columns": ["p (exact)", "ppv", "p"],
            "rows": [[0.0004, 0.0004, "not tested"]],
        }
    ]
    found = cells(render(light), "tables")
    assert found[-3:] == [
        ("td", "num", "< .001"),
        ("td", "num", "0.000"),
        ("td", "num", "not tested"),
    ]


def test_without_tables_there_is_no_section_and_a_default_heading(light, render):
    light["tables"] = []
    assert "tables" not in render(light).sections
    light["tables"] = [{"title": "t", "note": "", "columns": ["a"], "rows": []}]
    assert render(light).words("tables").startswith("Further comparisons")


def test_a_table_with_a_row_of_another_length_is_refused(light, render):
    light["tables"] = [{"title": "Readers", "note": "", "columns": ["a", "b"], "rows": [[1]]}]
    with pytest.raises(ValueError, match="'Readers': row 0 has 1 cells for 2 columns"):
        render(light)


def test_readers_are_drawn_in_every_roc_figure(light, render):
    curve = {"label": "Model", "points": [[0, 0], [1, 1]], "auroc": None}
    light["roc"] = {
        "task A": [curve],
        "task D": [{**curve, "points": []}],
        "operating": [{"label": "Senior", "fpr": 0.1, "tpr": 0.9}],
    }
    drawings = drawn(render(light))
    assert b"<!-- Task A -->" in drawings[0]
    assert b"<!-- Task D -->" in drawings[1]
    assert all(b"<!-- Senior -->" in d for d in drawings)
    assert len(drawings) == 2


def test_an_roc_of_one_class_is_said_to_be_undefined(light, render):
    light["roc"] = {"task A": [{"label": "Model", "points": [], "auroc": None}]}
    page = render(light)
    assert not drawn(page)
    assert "Not defined" in page.sections["roc"]


def drawn(page: Page) -> list[bytes]:
    """The SVG figures of a page."""
    svgs = [source for source in page.attributes("src") if "svg" in source]
    return [base64.b64decode(source.split(",")[1]) for source in svgs]


def test_folds_are_told_from_intervals_and_undefined_ones_are_dashes(page):
    text = page.words("folds")
    assert "Mean and SD over folds, as the paper prints them; no confidence interval" in text
    assert "Dice, disc 0.871 0.012 0.860, 0.870, 0.880, –, 0.885" in text
    assert "AUROC, task D – – –, –, –, –, –" in text


def test_one_network_and_the_ensemble_of_seeds_stand_side_by_side(page):
    words = page.words("seeds")
    assert "trained once from each of 3 seeds (0, 1, 2)" in words
    assert (
        "Severity Accuracy 0.706 (0.630 to 0.774) n = 146 0.020 0.710, 0.690, 0.730 0.765"
    ) in words
    assert "+0.055 (−0.010 to +0.100)" in words
    assert "Stage segment" in words
    assert "+0.005 (+0.001 to +0.010)" in words
    assert "Further comparisons, by the ensemble Of the ensemble a b x 0.432" in words
    # The spread stands beside the interval wherever the figure does.
    assert "Accuracy 0.706 SD 0.020, 3 seeds 0.630 to 0.774" in page.words("results")


def test_repetitions_stand_with_their_spread_and_are_not_averaged(page):
    words = page.words("repetitions")
    assert "Accuracy, severity End-to-end 0.661 to 0.739 0.706, 0.661, 0.739" in words
    assert "Accuracy, severity Reference region 0.761 to 0.839 0.806, 0.761, 0.839" in words
    assert "AUROC, task D End-to-end – –, –, –" in words


def test_facts_stand_beside_the_caption_of_their_picture(page):
    text = page.words("pictures")
    assert (
        "Failure. Patient 127: L5/S1 missed Reference IV Probability 0.31 Readers < 2 years III"
        " Patient 110"
    ) in text


@pytest.mark.parametrize("kind", ["real", "phantom"])
def test_a_control_run_carries_a_banner_of_its_own(light, render, kind):
    light["cohort"]["kind"] = kind
    assert "CONTROL" not in render(light).text
    light["protocol"]["control"] = "labels were shuffled between patients"
    page = render(light)
    banner = "CONTROL RUN: labels were shuffled between patients; figures should lie at chance."
    assert banner in page.text
    assert page.text.index("CONTROL RUN: ") < page.text.index(light["cohort"]["name"])
    notes = [a for _, a in page.tags if a.get("role") == "note"]
    assert len(notes) == 1 + (kind == "phantom")
    assert ("PHANTOM" in page.text) == (kind == "phantom")


def test_phantom_is_on_banner_sections_figures_and_title(pages):
    page = Page(pages["phantom"].read_text("utf-8"))
    assert "PHANTOM: generated images, no patients" in page.text
    assert "PHANTOM: Lumbar" in page.text
    named = {k: v for k, v in page.sections.items() if k in SECTIONS}
    assert all("PHANTOM DATA" in text for text in named.values())
    for tag, attributes in page.tags:
        if tag == "img":
            assert "PHANTOM" in (attributes["alt"] or "")
            kind, payload = (attributes["src"] or "").split(",")
            if "svg" in kind:
                assert b"<!-- PHANTOM -->" in base64.b64decode(payload)


def test_real_reports_never_say_phantom(page, pages):
    assert "PHANTOM" not in pages["real"].read_text()
    assert all("REAL DATA" in page.sections[i] for i in page.sections if i in SECTIONS)


def test_derived_images_are_called_so_and_no_phantoms(light, render):
    light["cohort"]["kind"] = "derived"
    page = render(light)
    assert all("DERIVED DATA" in page.sections[i] for i in page.sections if i in SECTIONS)
    assert "PHANTOM" not in page.text
    assert "images derived from others, as stated by" in page.words("cohort")


def test_overlap_of_patients_is_an_alarm(page, light, render):
    assert "0 found" in page.sections["splits"]
    light["protocol"]["patient_overlap"] = 2
    text = render(light).sections["splits"]
    assert "2 patient(s) are in more than one partition" in text
    assert "0 found" not in text


def test_the_contract_alone_makes_a_page(required, render):
    page = render(required)
    assert set(page.sections) - {""} == {
        "results", "stages", "baselines", "published", "external", "cohort", "splits", "cost",
        "environment", "checklist",
    }  # fmt: skip
    assert "None. All values come from held-out patients" in page.sections["external"]
    assert "Disc degeneration (spider_t2space) on spider_t2space" in page.text


def test_optional_fields_may_be_empty_and_estimates_bare(light, render):
    bare = {"value": 0.5, "ci95": None, "n": 3}
    light |= {"end_to_end": {"accuracy": bare}}
    light |= {"confusion": {}, "calibration": {"a": [{"confidence": 0, "accuracy": 0, "n": 0}]}}
    light |= {"curves": {"segment": {"0": []}}, "pictures": []}
    test = {
        "name": "other hospital", "cohort": {"kind": "real"}, "members": ["fold_0"], "patients": 2,
        "studies": 3, "command": "evaluate", "figures": {"accuracy": bare}, "oracle_region": {},
        "each": [],
    }  # fmt: skip
    light |= {"external": test["figures"], "external_tests": [test]}
    page = render(light)
    assert "Accuracy 0.500 – 3 – not reported" in page.words("results")
    assert "other hospital" in page.sections["external"]
    assert "0.500" in page.sections["external"]
    assert "baselines" not in page.sections


@pytest.mark.parametrize("hostile", ["<script>alert(1)</script>", '"><img src=http://x onerror=a>'])
def test_every_string_is_escaped(report, render, hostile, tmp_path):
    def poison(content):
        if isinstance(content, dict):
            return {
                k: v if k in ("kind", "path", "metric", "rule") else poison(v)
                for k, v in content.items()
            }
        if isinstance(content, list):
            return [poison(v) for v in content]
        return hostile if isinstance(content, str) else content

    report = poison(report)
    report["stages"][hostile] = {"dice_" + hostile: {"value": 0.1, "ci95": None, "n": 1}}
    report["subgroups"][hostile] = {hostile: {}}
    report["recipe"][hostile] = {hostile: hostile}
    page = render(report)
    assert {tag for tag, _ in page.tags}.isdisjoint({"script"})
    assert all(source.startswith("data:") for source in page.attributes("src"))
    assert not page.attributes("onerror")
    source = (tmp_path / "report/report.html").read_text()
    assert hostile not in source
    assert html.escape(hostile, quote=True).replace("&quot;", "&#34;") in source


def test_config_counts_cost_and_command_are_printed(report, page):
    assert "learning_rate 0.0003 steps 2000 augment.rotate_deg 15" in page.words("recipe")
    assert "mild moderate severe All" in page.words("splits")
    assert "fold 4 16 9 2 27" in page.words("splits")
    assert "1 h 12 min" in page.sections["cost"]
    assert "1,946,881 parameters" in page.sections["architecture"]
    assert report["command"] in page.sections["command"]
    assert "7 discs seen, 6 graded" in page.sections["cohort"]
    assert "CLAIM 2024: 44 items" in page.sections["checklist"]


def test_a_run_without_graded_cases_says_so(light, render):
    light["end_to_end"] = {}
    assert "no end-to-end result" in render(light).sections["results"]


def test_what_the_source_says_of_a_cohort_is_printed(light, render):
    light["cohort"] |= {"citation": "van der Graaf 2024", "notes": ["8-bit copies"]}
    light["class_counts"] = {"grade": {"mild": 3, "severe": 4}}
    page = render(light)
    assert "Citation van der Graaf 2024" in page.words("cohort")
    assert "8-bit copies" in page.words("cohort")
    assert "mild severe All all 3 4 7" in page.words("splits")


def test_checklists_link_to_sections_and_count_what_is_left(page):
    text = page.words("checklist")
    assert re.search(r"CLAIM 2024: 44 items, \d+ answered, \d+ not applicable, \d+ yours", text)
    assert "Yours to answer: ethics committee" in text
    links = [a["href"] for tag, a in page.tags if tag == "a" and a["href"] == "#preprocessing"]
    assert len(links) > 1  # contents, and the items on data preparation


def test_a_page_that_fails_leaves_the_old_one(light, render, run_dir, tmp_path):
    render(light)
    before = (tmp_path / "report/report.html").read_bytes()
    light["confusion"] = {"grade": {"labels": ["a", "b"], "matrix": [[1]]}}
    with pytest.raises(ValueError, match="2 labels"):
        write_page(light, run_dir, tmp_path / "report")
    assert (tmp_path / "report/report.html").read_bytes() == before
    assert [p.name for p in (tmp_path / "report").iterdir()] == ["report.html"]
