import base64
import html
import json
import os
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
        self._section = ""
        self.feed(source)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)
        if tag == "br":
            self.handle_data(" ")
        if tag == "section":
            self._section = dict(attrs)["id"] or ""

    def handle_endtag(self, tag):
        assert self.open.pop() == tag
        if tag in ("td", "th"):
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
    assert page.attributes("href") == [f"#{i}" for i in ids]


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


def test_published_values_stand_beside_ours_with_the_reason(page):
    published = page.words("published")
    assert "Dice, disc 0.871 (0.853 to 0.887) stage segment, n = 146 0.920" in published
    assert "0.913 (0.840 to 0.960)" in published
    assert "no: reference regions; the map from Pfirrmann grades is not published" in published


def test_figures_and_pictures_are_embedded_failures_first(report, page, run_dir):
    images = [a for tag, a in page.tags if tag == "img"]
    # 2 published and 2 more baseline metrics, 2 confusion matrices, 1 calibration, 2 stages.
    assert sum("svg+xml" in (a["src"] or "") for a in images) == 3 + 1 + 2 + 1 + 2
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
    monkeypatch.setattr("mskjax.reporting.page._PICTURE_BYTES", 10)
    assert "fold_1/pictures/127.png: left out" in render(light).sections["pictures"]


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
    light |= {"curves": {"segment": {"0": []}}, "pictures": [], "external": {"accuracy": bare}}
    page = render(light)
    assert "Accuracy 0.500 – 3 – not reported" in page.words("results")
    assert "0.500" in page.sections["external"]
    assert "baselines" not in page.sections


@pytest.mark.parametrize("hostile", ["<script>alert(1)</script>", '"><img src=http://x onerror=a>'])
def test_every_string_is_escaped(report, render, hostile, tmp_path):
    def poison(content):
        if isinstance(content, dict):
            return {
                k: v if k in ("kind", "path", "metric") else poison(v) for k, v in content.items()
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


def test_a_given_checklist_is_used_and_where_counts_as_answer(light, render):
    light["checklist"] = [{"item": "9", "where": "appendix B"}, {"item": "10"}]
    text = render(light).words("checklist")
    assert "appendix B" in text
    assert "to be answered by the authors" in text
    assert "CLAIM" not in text


def test_a_page_that_fails_leaves_the_old_one(light, render, run_dir, tmp_path):
    render(light)
    before = (tmp_path / "report/report.html").read_bytes()
    light["confusion"] = {"grade": {"labels": ["a", "b"], "matrix": [[1]]}}
    with pytest.raises(ValueError, match="2 labels"):
        write_page(light, run_dir, tmp_path / "report")
    assert (tmp_path / "report/report.html").read_bytes() == before
    assert [p.name for p in (tmp_path / "report").iterdir()] == ["report.html"]
