"""What lies in the folder of a study."""

import dataclasses
import json

import jsonschema  # type: ignore[import-untyped]
import nibabel as nib
import numpy as np
import pytest
from results.made import classic, enhanced, result_of

from mskjax.imaging.files import read_volume, write_volume
from mskjax.imaging.volume import Volume
from mskjax.results import study as study_module
from mskjax.results.document import restored, schema
from mskjax.results.result import Mask, Result
from mskjax.results.study import file_stem, write_study

TURNED = np.array([[0, 0, 2.5, -40], [-0.7, 0, 0, 30], [0, 0.9, 0, 11], [0, 0, 0, 1.0]])


def test_masks_are_on_the_grid_of_the_input_whatever_its_axes(tmp_path):
    data = np.random.default_rng(0).integers(0, 3, (6, 5, 4)).astype(np.uint8)
    write_volume(tmp_path / "in.nii.gz", Volume(data.astype(np.int16), TURNED))
    grid = read_volume(tmp_path / "in.nii.gz")
    masks = (
        Mask("", grid.with_data(data), {1: "vertebra", 2: "disc"}),
        Mask("levels", grid.with_data((data == 2).astype(np.uint8)), {1: "L5/S1"}),
    )
    notes = write_study(tmp_path / "out", Result("ab12", "s", "t", masks=masks))
    assert notes == ()
    written = nib.load(tmp_path / "out" / "ab12.nii.gz")
    np.testing.assert_array_equal(np.asanyarray(written.dataobj), data)
    np.testing.assert_allclose(written.affine, nib.load(tmp_path / "in.nii.gz").affine, atol=1e-6)
    assert written.get_data_dtype() == np.uint8
    levels = nib.load(tmp_path / "out" / "ab12_levels.nii.gz")
    np.testing.assert_array_equal(np.asanyarray(levels.dataobj), data == 2)
    assert json.loads((tmp_path / "out" / "labels.json").read_text()) == {
        "ab12.nii.gz": {"1": "vertebra", "2": "disc"},
        "ab12_levels.nii.gz": {"1": "L5/S1"},
    }
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == [
        "ab12.nii.gz",
        "ab12_levels.nii.gz",
        "labels.json",
        "result.json",
    ]


@pytest.mark.parametrize("masks", [True, False])
def test_result_json_follows_the_schema_and_holds_the_result(tmp_path, masks):
    pytest.importorskip("highdicom")
    result = result_of(classic(tmp_path / "in"), masks=masks)
    notes = write_study(tmp_path / "out", result)
    document = json.loads((tmp_path / "out" / "result.json").read_text())
    jsonschema.Draft202012Validator.check_schema(schema())
    jsonschema.validate(document, schema(), cls=jsonschema.Draft202012Validator)
    assert document["disclaimer"] == "Research use only, not a medical device"
    assert document["notes"] == ["one note", *notes]
    lowest, missed = document["regions"][0], document["regions"][3]
    (grade,) = lowest["grades"]
    assert sum(grade["probabilities"].values()) == pytest.approx(1)
    assert list(grade["probabilities"]) == ["i", "ii", "iii", "iv", "v"]
    assert (grade["call"], grade["prediction_set"]) == ("iii", ["iii", "iv"])
    assert (lowest["box"]["start"], lowest["box"]["stop"]) == ([2, 3, 1], [7, 6, 3])
    assert (missed["note"], missed["box"], missed["grades"]) == ("not found", None, [])
    named = [document["files"][k] for k in ("labels", "picture", "segmentation", "report")]
    named += [mask["file"] for mask in document["files"]["masks"]]
    there = {p.name for p in (tmp_path / "out").iterdir()}
    assert {name for name in named if name} | {"result.json"} == there
    assert (document["files"]["segmentation"] is not None) == masks


def test_a_result_is_restored_from_its_document(tmp_path):
    result = result_of(classic(tmp_path / "in"))
    notes = write_study(tmp_path / "out", result)
    document = json.loads((tmp_path / "out" / "result.json").read_text())
    plain = dataclasses.replace(result.without_images(), sources={}, notes=(*result.notes, *notes))
    assert restored(document) == plain


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"version": 2}, "version"),
        ({"disclaimer": ""}, "disclaimer"),
        ({"coverage": 1.5}, "coverage"),
        ({"patient": "x"}, "patient"),
        ({"flags": [{"kind": "odd", "text": "x"}]}, "kind"),
    ],
)
def test_the_schema_refuses_what_is_no_result(tmp_path, change, field):
    write_study(tmp_path, Result("a", "s", "t"))
    document = json.loads((tmp_path / "result.json").read_text())
    jsonschema.validate(document, schema())
    with pytest.raises(jsonschema.ValidationError) as error:
        jsonschema.validate({**document, **change}, schema())
    assert field in f"{error.value.message} {list(error.value.absolute_path)}"


def test_a_killed_writing_leaves_no_result_json_and_nothing_half_written(tmp_path, monkeypatch):
    pytest.importorskip("highdicom")
    result = result_of(enhanced(tmp_path / "e.dcm"))
    whole = study_module.write_bytes
    monkeypatch.setattr(
        study_module,
        "write_bytes",
        lambda path, content: whole(path, content) if path.suffix != ".dcm" else 1 / 0,
    )
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "result.json").write_text("of an earlier reading")
    with pytest.raises(ZeroDivisionError):
        write_study(tmp_path / "out", result)
    left = {p.name for p in (tmp_path / "out").iterdir()}
    assert left == {"a1b2c3d4.nii.gz", "a1b2c3d4_levels.nii.gz", "labels.json", "picture.png"}


def test_without_highdicom_the_rest_is_written_and_a_note_says_what_is_missing(
    tmp_path, monkeypatch
):
    result = result_of(classic(tmp_path / "in"))
    monkeypatch.setattr(study_module.importlib.util, "find_spec", lambda name: None)
    (note,) = write_study(tmp_path / "out", result)
    assert note == (
        "segmentation.dcm and report.dcm are left out: highdicom is not installed (pip install"
        " 'mskjax[dicom]')."
    )
    document = json.loads((tmp_path / "out" / "result.json").read_text())
    assert note in document["notes"]
    assert not list((tmp_path / "out").glob("*.dcm"))


@pytest.mark.parametrize(
    ("study", "stem"),
    [
        ("a1b2", "a1b2"),
        ("../../etc/passwd", "__.._etc_passwd"),
        (".hidden", "_hidden"),
        ("Müller, A", "M_ller__A"),
        ("", "_"),
        ("x" * 300, "x" * 100),
    ],
)
def test_a_study_names_files_and_nothing_outside_its_folder(tmp_path, study, stem):
    assert file_stem(study) == stem
    grid = Volume(np.zeros((2, 2, 2), np.uint8), np.eye(4))
    folder = tmp_path / "out"
    write_study(folder, Result(study, "s", "t", masks=(Mask("", grid, {1: "disc"}),)))
    assert {p.name for p in folder.iterdir()} == {
        f"{stem}.nii.gz",
        "labels.json",
        "result.json",
    }
    assert [p.name for p in tmp_path.iterdir()] == ["out"]
