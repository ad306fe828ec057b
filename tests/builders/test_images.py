"""New studies, images alone: the arrays that packaging makes of the same files, or its sentence."""

import csv
import math

import numpy as np
import pytest
from builders import mini_spine as mini
from builders.test_bones_cohort import raw as shoulder_bones  # noqa: F401
from builders.test_fatty_cohort import raw as fatty_infiltration  # noqa: F401
from builders.test_fracture_cohort import T1_AFFINE, T1_SHAPE, smooth
from builders.test_fracture_cohort import raw as vertebral_fracture  # noqa: F401
from builders.test_modic_cohort import raw as modic_changes  # noqa: F401
from builders.test_own_cohort import raw as disc_degeneration  # noqa: F401
from PIL import Image

from mskjax.data.cohorts import builder_class, prepare_cohort
from mskjax.errors import BadCases, UserError
from mskjax.imaging.files import read_volume

COHORTS = (
    "fatty_infiltration", "disc_degeneration", "vertebral_fracture", "shoulder_bones",
    "modic_changes",
)  # fmt: skip
PAIRED = "vertebral_fracture", "modic_changes"


@pytest.fixture
def raw(request, name):
    """The raw cohort of the test of that cohort."""
    return request.getfixturevalue(name)


def rows_of(raw):
    with (raw / "studies.csv").open(newline="") as file:
        return {row["study_id"]: row for row in csv.DictReader(file)}


def edit_row(raw, study, column, value):
    rows = rows_of(raw)
    rows[study][column] = value
    header = list(rows[study])
    mini.write_csv(raw / "studies.csv", header, [list(row.values()) for row in rows.values()])


def given(name, raw, row):
    """What a user would say of a new study: its files, and what these leave open."""
    files = {channel: raw / row[channel] for channel in builder_class(name).channels}
    pixel_mm = row.get("pixel_mm") or row.get("pixel_spacing_mm")
    number = row.get("slice") if name == "fatty_infiltration" else ""
    return files, {
        "pixel_mm": float(pixel_mm) if pixel_mm else math.nan,
        "slice_index": int(number) if number else None,
    }


def sentences(name, raw, tmp_path):
    with pytest.raises(BadCases) as caught:
        prepare_cohort(name, "cohort", tmp_path / "data", raw)
    return [why for _, why in caught.value.cases]


def refusal(name, files, **how):
    with pytest.raises(UserError) as caught:
        builder_class(name).read_images(files, **how)
    return str(caught.value)


@pytest.mark.parametrize("name", COHORTS)
def test_images_alone_are_what_is_packaged_of_them(name, raw, tmp_path):
    builder, rows = builder_class(name), rows_of(raw)
    cohort = prepare_cohort(name, "cohort", tmp_path / "data", raw)
    studies = [given(name, raw, rows[study]) for _, study in cohort.index]
    images = {path for files, _ in studies for path in files.values()}
    for path in set(raw.iterdir()) - images:  # tables and masks
        path.unlink()
    assert len(studies) >= 3
    for study, (files, how) in zip(cohort.studies, studies, strict=True):
        found = builder.read_images(files, **how)
        assert {"affine", "pixel_size_known", *builder.channels} <= set(found.part)
        for key, value in found.part.items():
            np.testing.assert_array_equal(value, study[key], err_msg=key)
            assert np.asarray(value).dtype == np.asarray(study[key]).dtype, key
        # Of what a system may ask of a study, these are neither label nor description.
        assert not set(found.part) & {"mask", "has_mask", "grade", "label", "levels", "sex", "side"}


@pytest.mark.parametrize("name", COHORTS)
def test_the_grid_of_the_file_is_kept(name, raw):
    files, how = given(name, raw, rows_of(raw)["b"])
    found = builder_class(name).read_images(files, **how)
    first = builder_class(name).channels[0]
    stored = read_volume(files[first], spacing=(0.4, 0.4))
    np.testing.assert_array_equal(found.stored.data, stored.data)
    np.testing.assert_array_equal(found.stored.affine, stored.affine)
    # The same voxels at the same places, in the order of the cohort.
    assert found.volume.data.shape == found.part[first].shape
    np.testing.assert_array_equal(found.volume.affine, found.part["affine"])
    voxel = np.argwhere(found.volume.data == found.volume.data.max())[0]
    place = np.linalg.solve(found.stored.affine, found.volume.affine @ [*voxel, 1])[:3]
    there = found.stored.data[tuple(np.rint(place).astype(int))]
    assert there == found.part[first][tuple(voxel)]


def empty(path):
    path.write_bytes(b"")


def not_a_number(path):
    data = mini.image(1).astype(np.float32)
    data[0, 0, 0] = np.nan
    mini.write_nifti(path, data)


def axial(path):
    mini.write_nifti(path, mini.image(1).transpose(1, 2, 0), np.diag([-1.5, -1.5, 4.0, 1]))


@pytest.mark.parametrize(
    ("name", "damage"),
    [
        (name, damage)
        for name in COHORTS
        for damage in (empty, not_a_number, axial)
        if (name, damage) != ("shoulder_bones", axial)  # bones are read in any plane
    ],
)
def test_a_bad_file_gets_the_sentence_that_packaging_gives_it(name, raw, damage, tmp_path):
    files, how = given(name, raw, rows_of(raw)["a"])
    path = files[builder_class(name).channels[0]]
    damage(path)
    said = refusal(name, files, **how)
    assert str(path) in said
    assert said in sentences(name, raw, tmp_path)


@pytest.mark.parametrize("name", PAIRED)
@pytest.mark.parametrize(
    ("moved_mm", "brighter", "fault"),
    [(0, 0, "holds the same image as"), (500, 1, "do not overlap")],
)
def test_a_pair_that_does_not_fit_gets_the_sentence_that_packaging_gives_it(
    name, raw, moved_mm, brighter, fault, tmp_path
):
    files, how = given(name, raw, rows_of(raw)["a"])
    first, second = builder_class(name).channels
    volume = read_volume(files[first])
    moved = volume.affine.copy()
    moved[:3, 3] += moved_mm
    files[second] = raw / "other.nii.gz"
    mini.write_nifti(files[second], volume.data + brighter, moved)
    edit_row(raw, "a", second, "other.nii.gz")
    said = refusal(name, files, **how)
    assert fault in said
    assert said in sentences(name, raw, tmp_path)


@pytest.mark.parametrize("name", ["vertebral_fracture"])
def test_without_a_segment_half_of_the_whole_image_must_be_shown(name, raw):
    """The segment's surroundings, which the table gives to packaging, may be shown all the same."""
    files, how = given(name, raw, rows_of(raw)["a"])
    moved = T1_AFFINE.copy()
    moved[2, 3] -= 40  # 40 of 60 mm towards the feet
    mini.write_nifti(raw / "low.nii.gz", smooth(T1_SHAPE, 9), moved)
    said = refusal(name, files | {"t2": raw / "low.nii.gz"}, **how)
    # It begins at row 26.7, so of 40 rows it shows 13.
    assert "low.nii.gz shows only 32% of the image in" in said
    assert said.endswith("50% are needed: check that both are of one study.")


@pytest.mark.parametrize("name", ["fatty_infiltration"])
def test_the_slice_of_a_series_must_be_said(name, raw, tmp_path):
    files, _ = given(name, raw, rows_of(raw)["a"])
    said = refusal(name, files)
    assert said.endswith("which is the Y-view; give slice a number, 0 to 4.")
    edit_row(raw, "a", "slice", "")
    assert said in sentences(name, raw, tmp_path)
    assert "slice is 5, but the file has 5" in refusal(name, files, slice_index=5)
    assert "slice is -1, but the file has 5" in refusal(name, files, slice_index=-1)


@pytest.mark.parametrize("name", ["shoulder_bones"])
def test_a_png_has_no_place(name, raw, tmp_path):
    Image.fromarray(np.zeros((14, 11), np.uint8)).save(raw / "a.png")
    edit_row(raw, "a", "image", "a.png")
    said = refusal(name, {"image": raw / "a.png"})
    assert "a PNG is one slice without a place" in said
    assert said in sentences(name, raw, tmp_path)


@pytest.mark.parametrize("name", [c for c in COHORTS if c != "fatty_infiltration"])
def test_no_slice_is_picked_where_series_are_read_whole(name, raw):
    files, _ = given(name, raw, rows_of(raw)["a"])
    said = refusal(name, files, slice_index=1)
    assert said == "slice is 1, but all slices of the series are read; leave slice out."


@pytest.mark.parametrize("name", COHORTS)
def test_the_files_of_a_study_are_named(name, raw):
    files, _ = given(name, raw, rows_of(raw)["a"])
    first = builder_class(name).channels[0]
    without = {k: v for k, v in files.items() if k != first}
    assert f"but {first} is not among the files ({', '.join(without) or 'none'})" in refusal(
        name, without
    )
    said = refusal(name, files | {"flair": files[first]})
    assert said == f"flair is no image of a study ({', '.join(files)}); leave it out."


@pytest.mark.parametrize("name", ["modic_changes"])
def test_t1_may_be_left_out_of_modic_changes_alone(name, raw, vertebral_fracture):  # noqa: F811
    files, _ = given(name, raw, rows_of(raw)["a"])
    both = builder_class(name).read_images(files)
    alone = builder_class(name).read_images({"t2": files["t2"]})
    assert (both.part["has_t1"], alone.part["has_t1"]) == (True, False)
    np.testing.assert_array_equal(alone.part["t2"], both.part["t2"])
    np.testing.assert_array_equal(alone.part["t1"], np.zeros_like(both.part["t1"]))
    fracture = {"t1": vertebral_fracture / "a_t1.nii.gz"}
    assert "but t2 is not among the files (t1)" in refusal("vertebral_fracture", fracture)
