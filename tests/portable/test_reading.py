"""What an export's folder must be before anything of it is believed."""

import json

import pytest

from mskjax.errors import UserError
from mskjax.portable.reading import FORMAT, check_shape, contents, load, sha256


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "labels.json").write_text("{}")
    files = {"labels.json": sha256(tmp_path / "labels.json")}
    model = {"format": FORMAT, "files": files, "folds": [], "stages": []}
    model["config"] = {"system": "s", "variant": "v", "data": {"cohort": "c", "config": "p"}}
    (tmp_path / "model.json").write_text(json.dumps(model))
    return tmp_path


def test_a_whole_folder_is_believed(folder):
    assert contents(folder)["format"] == FORMAT
    assert load(folder) == ()


def test_a_changed_file_is_named(folder):
    (folder / "labels.json").write_text("{ }")
    with pytest.raises(UserError, match=r"labels.json has changed since it was exported; copy"):
        load(folder)


def test_a_missing_file_is_named(folder):
    (folder / "labels.json").unlink()
    with pytest.raises(UserError, match=r"labels.json is missing; copy the folder again"):
        load(folder)


@pytest.mark.parametrize("name", ["../labels.json", "/etc/hostname"])
def test_a_name_that_leads_out_of_the_folder_is_refused(folder, name):
    model = json.loads((folder / "model.json").read_text())
    model["files"][name] = "0"
    (folder / "model.json").write_text(json.dumps(model))
    with pytest.raises(UserError, match=f"names {name}, which is no file of the export"):
        load(folder)


def test_a_program_that_is_not_among_the_files_is_refused(folder):
    model = json.loads((folder / "model.json").read_text())
    model["stages"] = [{"name": "regions", "program": "programs/other"}]
    (folder / "model.json").write_text(json.dumps(model))
    with pytest.raises(UserError, match="names programs/other, which is no file"):
        load(folder)


def test_a_damaged_model_json_is_a_sentence(folder):
    (folder / "model.json").write_text("{")
    with pytest.raises(UserError, match=r"model.json is no JSON .*; copy the folder again"):
        load(folder)


def test_another_format_is_refused(folder):
    model = json.loads((folder / "model.json").read_text())
    (folder / "model.json").write_text(json.dumps(model | {"format": FORMAT + 1}))
    with pytest.raises(UserError, match=rf"has format {FORMAT + 1}, and .* reads {FORMAT}; export"):
        load(folder)


def test_a_folder_that_is_no_export_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"model.json is missing; give a folder that mskjax export"):
        load(tmp_path)


def test_an_unknown_fold_is_refused(folder):
    with pytest.raises(UserError, match="not fold_7"):
        load(folder, ["fold_7"])


@pytest.mark.parametrize(
    ("wanted", "given"),
    [("b, 8*h, 8*w, 2", (16, 40, 2)), ("4, 72, 48, 1", (72, 48, 1)), ("b, h, w, 1", (5, 7, 1))],
)
def test_what_a_program_takes_is_given_to_it(wanted, given):
    check_shape("regions: image", wanted, given)


@pytest.mark.parametrize(
    ("wanted", "given"),
    [
        ("b, 8*h, 8*w, 2", (16, 44, 2)),
        ("b, 8*h, 8*w, 2", (16, 40, 1)),
        ("4, 72, 48, 1", (80, 48, 1)),
        ("b, h, w, 1", (5, 7)),
    ],
)
def test_what_a_program_does_not_take_is_a_sentence(wanted, given):
    sizes = " x ".join(map(str, given))
    with pytest.raises(UserError, match=f"regions: image of this study is {sizes}, and the export"):
        check_shape("regions: image", wanted, given)
