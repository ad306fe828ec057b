"""The page of a comparison: every number is there, marked, explained, and nothing is loaded."""

import base64
import html
import re

import pytest
from reporting import compared_runs as made

from mskjax.reporting import wording
from mskjax.reporting.comparison import compare
from mskjax.reporting.comparison_page import leading, write_page


@pytest.fixture(scope="module")
def content():
    runs = [made.run("noisy", made.rows(2.0, 1)), made.run("clear", made.rows(0.7, 2)),
            made.run("seeds", made.rows(0.9, 3), made.rows(0.9, 4))]  # fmt: skip
    return compare(runs)


@pytest.fixture(scope="module")
def page(content, tmp_path_factory):
    return write_page(content, tmp_path_factory.mktemp("page")).read_text()


def words(page):
    return " ".join(html.unescape(re.sub(r"<[^>]+>", " ", page)).split())


def test_every_difference_stands_with_interval_n_and_p(content, page):
    text = words(page)
    for pair in content["pairs"]:
        for entry in pair["differences"]:
            gap = entry["difference"]
            if gap["value"] is None or entry["further"]:
                continue
            low, high = map(wording.signed, gap["ci95"])
            cells = f"{wording.signed(gap['value'])} ({low} to {high}) {gap['n']}"
            p = f" {wording.p_value(entry['p'])} {wording.p_value(entry['p_holm'])}"
            assert cells + p in text


def test_it_loads_nothing_and_runs_nothing(page):
    assert not re.search(r"https?://|<script|<link|@import|url\(", page)
    assert "default-src 'none'" in page
    assert re.findall(r'src="(?!data:)', page) == []


def test_tables_have_captions_and_scopes(page):
    tables = re.findall(r"<table.*?</table>", page, re.S)
    assert tables
    for table in tables:
        assert "<caption>" in table
        assert all("scope=" in th for th in re.findall(r"<th\b[^>]*>", table))


def test_the_drawing_says_its_values_and_phantoms_are_marked(content, page):
    (alt,) = re.findall(r'<img [^>]*alt="([^"]*)"', page)
    alt = html.unescape(alt)
    gap = content["pairs"][0]["differences"][0]["difference"]["value"]
    assert f"clear, end to end {wording.signed(gap)}" in alt
    assert "PHANTOM" in alt
    assert "<title>PHANTOM: 3 runs of Disc degeneration compared</title>" in page
    assert page.count("PHANTOM DATA") > 5
    (drawn,) = re.findall(r"svg\+xml;base64,([^\"]+)", page)
    assert base64.b64decode(drawn).startswith(b"<?xml")


def test_real_patients_carry_no_mark(content, tmp_path):
    page = write_page(content | {"phantom": False}, tmp_path).read_text()
    assert "PHANTOM" not in page
    assert "REAL DATA" in page


def test_families_and_the_test_are_named(page):
    text = words(page)
    assert "Primary: Quadratic weighted kappa, grade, end to end, of every run (2 tests)" in text
    assert "clear, test patients: exact" in text


def test_text_of_the_runs_is_escaped(content, tmp_path):
    runs = [made.run("<b>a", made.rows(2.0, 1)), made.run("b", made.rows(0.7, 2))]
    page = write_page(compare(runs), tmp_path).read_text()
    assert "<b>a" not in page
    assert "&lt;b&gt;a" in page


def test_what_leads_is_said_in_plain_words(content):
    said = leading(content)
    first = content["figures"][0]["values"]["noisy"]["value"]
    assert said[0].startswith(f"noisy: Quadratic weighted kappa, grade, end to end, {first:.3f} (")
    assert said[0].endswith("; the reference")
    assert len(said) == 5
    assert said[3].startswith("clear minus noisy, end to end: ")
    assert said[3].endswith("(24 cases of 8 patients in both)")
