"""A label map goes back onto the grid of the file, whatever became of its axes."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mskjax import predictions
from mskjax.imaging.files import read_volume, write_volume
from mskjax.imaging.geometry import reorient
from mskjax.imaging.planes import one_slice
from mskjax.imaging.volume import Volume
from tfds_builders.images import image_part

AXES = [
    (a, b, c)
    for pairs in ("LRAPIS",)
    for a in pairs
    for b in pairs
    for c in pairs
    if {frozenset("LR"), frozenset("AP"), frozenset("IS")}
    == {next(frozenset(p) for p in ("LR", "AP", "IS") if x in p) for x in (a, b, c)}
]


@settings(max_examples=30)
@given(st.sampled_from(AXES), st.integers(0, 2**32 - 1))
def test_a_mask_drawn_on_the_study_is_that_of_the_file(axes, seed):
    rng = np.random.default_rng(seed)
    turn, _ = np.linalg.qr(np.eye(3) + 0.2 * rng.normal(size=(3, 3)))
    affine = np.eye(4)
    affine[:3, :3] = turn * rng.uniform(0.5, 4, 3)
    affine[:3, 3] = rng.uniform(-100, 100, 3)
    stored = reorient(Volume(rng.integers(0, 4, (3, 5, 7)).astype(np.uint8), affine), axes)
    stored = Volume(stored.data, stored.affine)
    turned = reorient(stored)  # as a builder turns it
    study = {
        "affine": turned.affine,
        "stored_affine": stored.affine,
        "stored_shape": np.array(stored.data.shape),
    }
    back = predictions.on_stored_grid(study, turned.data)
    np.testing.assert_array_equal(back.data, stored.data)
    np.testing.assert_array_equal(back.affine, stored.affine)


def test_what_one_slice_shows_lies_on_that_slice_of_the_file(tmp_path):
    data = np.random.default_rng(0).normal(size=(6, 8, 5)).astype(np.float32)
    write_volume(tmp_path / "a.nii.gz", Volume(data, np.diag([1.0, 1.0, 4.0, 1.0])))
    series = read_volume(tmp_path / "a.nii.gz")
    part = image_part(one_slice(series, 2, 3))
    assert part["stored_shape"].tolist() == [6, 8, 5]
    mask = np.ones((6, 8, 1), np.uint8)
    back = predictions.on_stored_grid(part, mask).data
    assert back[..., 3].all()
    assert not np.delete(back, 3, axis=2).any()


def test_a_volume_that_was_never_a_file_is_its_own_grid():
    part = image_part(Volume(np.zeros((2, 3, 4)), np.eye(4)))
    assert part["stored_shape"].tolist() == [2, 3, 4]
    np.testing.assert_array_equal(part["stored_affine"], np.eye(4))


@pytest.mark.parametrize(("name", "file"), [("", "s"), ("levels", "s_levels")])
def test_files_are_named_by_study_and_map(name, file):
    assert predictions.file_of("s", name) == file
