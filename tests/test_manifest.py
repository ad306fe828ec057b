"""The hashes that a finished run leaves: what they hold, and what changes them."""

import hashlib
import json
import shutil

import pytest

from mskjax import manifest
from mskjax.errors import UserError

FILES = {
    "config.json": "{}",
    "cases.csv": "fold\n",
    "fold_0/cases.csv": "fold\n0\n",
    "fold_0/regions/checkpoints/latest/6/state/d/0a": "weights",
    "fold_10/predictions/a.nii.gz": "mask",
    "report/report.json": "{}",
    "report/report.html": "<p>",
}
UNCOUNTED = {
    ".lock": "1",
    "notes.txt": "of the user",
    "prepared/regions/rows": "examples",
    "fold_0/regions/events.out.tfevents.1.machine": "curves",
    "fold_0/cases.part.jsonl": "[]",
    "fold_0/cases.tmp": "half",
}


def fill(folder, files):
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return folder


@pytest.fixture
def run(tmp_path):
    run = fill(tmp_path / "run", FILES | UNCOUNTED)
    manifest.write(run)
    return run


def test_holds_hash_and_size_of_what_counts(run):
    expected = {
        name: {"sha256": hashlib.sha256(text.encode()).hexdigest(), "bytes": len(text)}
        for name, text in FILES.items()
    }
    assert manifest.read(run) == expected
    assert manifest.differences(run) == []
    assert json.loads((run / "manifest.json").read_text())["left_out"] == manifest.LEFT_OUT


def test_names_what_is_changed_missing_and_added(run):
    fill(run, {"cases.csv": "FOLD\n", "fold_0/extra.json": "{}", "events.csv": ""})
    (run / "fold_10/predictions/a.nii.gz").unlink()
    fill(run, dict.fromkeys(UNCOUNTED, "other"))
    found = {name: (then, now) for name, then, now in manifest.differences(run)}
    assert set(found) == {
        "cases.csv", "events.csv", "fold_0/extra.json", "fold_10/predictions/a.nii.gz",
    }  # fmt: skip
    assert found["fold_0/extra.json"][0] == found["fold_10/predictions/a.nii.gz"][1] == "missing"
    then, now = found["cases.csv"]
    assert then.startswith("5 bytes, sha256 ")
    assert then != now


def test_a_report_that_is_written_again_changes_its_own_entries_alone(run):
    fill(run, {"report/report.json": "{1}", "cases.csv": "forged\n"})
    (run / "report/report.html").unlink()
    manifest.follow(run)
    assert [name for name, *_ in manifest.differences(run)] == ["cases.csv"]
    assert "report/report.html" not in manifest.read(run)


def test_no_manifest_is_made_where_none_was(tmp_path):
    run = fill(tmp_path / "run", FILES)
    manifest.follow(run)
    assert not manifest.exists(run)


def test_the_hash_of_the_whole_holds_its_parts(tmp_path):
    whole = fill(tmp_path / "run", {"config.json": "{}"})
    parts = [fill(whole / "member_a" / f"seed_{s}", FILES) for s in (0, 1)]
    fill(whole / "member_a", FILES)
    for folder in (*parts, whole / "member_a", whole):
        manifest.write(folder)
    assert set(manifest.read(whole)) == {"config.json", "member_a/manifest.json"}
    assert list(manifest.runs(whole)) == [whole, whole / "member_a", *parts]
    before = manifest.digest(whole)
    fill(parts[1], {"report/report.json": "{1}"})
    manifest.follow(parts[1])
    assert all(not manifest.differences(folder) for folder in manifest.runs(whole))
    assert manifest.digest(whole) != before
    shutil.rmtree(parts[0])
    assert [n for n, *_ in manifest.differences(whole / "member_a")] == ["seed_0/manifest.json"]


NONE = ({}, {"files": []}, {"files": {"a": 1}}, {"files": {"a": {"sha256": "x", "bytes": 1}}})


@pytest.mark.parametrize("text", ["", "[]", *map(json.dumps, NONE)])
def test_a_manifest_that_is_none_is_refused(run, text):
    (run / "manifest.json").write_text(text)
    with pytest.raises(UserError, match=r"manifest\.json is not the manifest of a run"):
        manifest.differences(run)


def test_a_run_that_is_made_anew_has_none(run):
    manifest.discard(run)
    manifest.discard(run)
    assert not manifest.exists(run)
